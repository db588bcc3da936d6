//! Answers that are not streamed, wrong labels, boundaries and hostile bytes.

use super::*;

const CHUNK: &str =
    "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";

#[test]
fn documents_tell_usage_and_have_no_first_token() {
    let openai = r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    let anthropic = r#"{"id":"c","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"Hi"}],"stop_reason":"stop","usage":{"input_tokens":5,"output_tokens":2}}"#;
    let ollama = r#"{"model":"m","message":{"role":"assistant","content":"Hi"},"done":true,"done_reason":"stop","prompt_eval_count":5,"eval_count":2}"#;
    let dialects = [(Dialect::OpenAiChat, openai), (Dialect::Anthropic, anthropic), (Dialect::Ollama, ollama)];
    for (dialect, json) in dialects {
        // An app's own path may pass them on.
        for guess in [dialect, Dialect::PlainSse] {
            let mut gauge = gauge(guess, Framing::Json);
            for piece in json.as_bytes().chunks(7) {
                assert_eq!(gauge.feed(piece, ms(5)), Progress::default());
                assert!(!gauge.at_boundary());
            }
            gauge.finish(StreamEnd::Clean, ms(9));
            let reading = gauge.reading();
            assert_eq!((milestones(reading), reading.first_byte), ([None; 3], Some(ms(5))));
            assert_eq!((reading.usage.input, reading.usage.output), (Some(5), Some(2)), "{dialect:?} as {guess:?}");
            assert_eq!((reading.usage_source, reading.frames), (UsageSource::Reported, 1));
            assert_eq!((reading.finish_reasons.as_slice(), reading.normal_end), (["stop".to_owned()].as_slice(), true));
            assert_eq!(gauge.dialect(), dialect);
        }
    }
}

#[test]
fn documents_fail_and_break_off() {
    let whole = |json: &str| read(gauge(Dialect::OpenAiChat, Framing::Json), &[json]);
    let failed = whole(r#"{"error":{"message":"no quota","type":"insufficient_quota"}}"#);
    assert_eq!((failed.error.as_deref(), failed.normal_end), (Some("insufficient_quota: no quota"), false));
    assert!(!whole(r#"{"id":"c","choices":["#).normal_end, "half a document");
    assert!(whole("{\"a\":1}\n{\"a\":2}\n").normal_end, "more than a document is not half of one");
    let embeddings =
        whole(r#"{"object":"list","data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#);
    assert_eq!((embeddings.usage.input, embeddings.usage.output, embeddings.normal_end), (Some(8), None, true));

    let mut cut = gauge(Dialect::OpenAiChat, Framing::Json);
    cut.feed(b"{}", ms(1));
    cut.finish(StreamEnd::Cut, ms(2));
    assert!(!cut.reading().normal_end);
}

#[test]
fn a_document_over_the_limit_is_let_go() {
    let mut gauge = gauge(Dialect::OpenAiChat, Framing::Json);
    gauge.feed(b"{\"data\":\"", ms(1));
    for _ in 0..3 * EVENT_LIMIT / 65_536 {
        gauge.feed(&[b'x'; 65_536], ms(1));
        let Scanner::Document(document) = &gauge.scanner else { panic!("not a document") };
        assert!(document.carry().held() <= 2 * EVENT_LIMIT);
    }
    let Scanner::Document(document) = &gauge.scanner else { panic!("not a document") };
    assert!(document.carry().held() <= 256 << 10);
    gauge.finish(StreamEnd::Clean, ms(2));
    assert_eq!((gauge.reading().normal_end, gauge.reading().usage_source), (false, UsageSource::Missing));
}

#[test]
fn usage_is_read_of_any_length() {
    let picture = "A".repeat(3 * EVENT_LIMIT);
    let pieces = |text: &str| {
        text.as_bytes().chunks(60_000).map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect::<Vec<_>>()
    };
    let usage = r#""usage":{"input_tokens":9,"output_tokens":4,"total_tokens":13}"#;
    let document = format!(r#"{{"created":1,"data":[{{"b64_json":"{picture}"}}],{usage}}}"#);
    let stream = format!(
        "data: {{\"type\":\"response.created\",\"response\":{{\"id\":\"r\"}}}}\n\n\
         data: {{\"type\":\"response.image_generation_call.partial_image\",\"partial_image_b64\":\"{picture}\"}}\n\n\
         data: {{\"type\":\"response.completed\",\"response\":{{\"output\":[\"{picture}\"],{usage},\"status\":\"completed\"}}}}\n\n"
    );
    let lines = format!(
        "{{\"model\":\"m\",\"response\":\"{picture}\",\"done\":true,\"prompt_eval_count\":9,\"eval_count\":4}}\n"
    );
    let array = format!(
        "[{{\"candidates\":[{{\"content\":{{\"parts\":[{{\"inlineData\":{{\"data\":\"{picture}\"}}}}]}},\"finishReason\":\"STOP\"}}],\"usageMetadata\":{{\"promptTokenCount\":9,\"candidatesTokenCount\":4}}}}]"
    );
    let kinds = [
        (Dialect::OpenAiResponses, Framing::Json, document, 0),
        (Dialect::OpenAiResponses, Framing::Sse, stream, 1),
        (Dialect::Ollama, Framing::JsonLines, lines, 1),
        (Dialect::Gemini, Framing::JsonValues, array, 1),
    ];
    for (dialect, framing, text, tokens) in kinds {
        let mut gauge = gauge(dialect, framing);
        gauge.count(None);
        for piece in pieces(&text) {
            gauge.feed(piece.as_bytes(), ms(1));
        }
        gauge.finish(StreamEnd::Clean, ms(2));
        let reading = gauge.reading();
        assert_eq!((reading.usage.input, reading.usage.output), (Some(9), Some(4)), "{dialect:?}");
        assert_eq!((reading.token_frames, reading.normal_end, gauge.counted()), (tokens, true, None), "{dialect:?}");
    }
}

#[test]
fn wrong_labels_are_corrected_by_the_first_bytes() {
    let vectors = [
        (Dialect::PlainText, Framing::Opaque, "data: x\n\n", Dialect::PlainSse, Framing::Sse),
        (Dialect::OpenAiChat, Framing::Opaque, CHUNK, Dialect::OpenAiChat, Framing::Sse),
        (Dialect::OpenAiChat, Framing::Json, CHUNK, Dialect::OpenAiChat, Framing::Sse),
        (Dialect::OpenAiChat, Framing::Opaque, "hello", Dialect::PlainText, Framing::Opaque),
        (Dialect::PlainSse, Framing::Sse, "{\"token\":\"x\"}\n", Dialect::PlainSse, Framing::JsonLines),
        (Dialect::PlainSse, Framing::JsonLines, "data: x\n\n", Dialect::PlainSse, Framing::Sse),
        (Dialect::PlainSse, Framing::Sse, CHUNK, Dialect::OpenAiChat, Framing::Sse),
        (Dialect::Ollama, Framing::Opaque, "{\"response\":\"x\"}\n", Dialect::Ollama, Framing::JsonLines),
    ];
    for (dialect, framing, bytes, real_dialect, real_framing) in vectors {
        for size in [1, 3, bytes.len()] {
            let mut gauge = gauge(dialect, framing);
            let mut tokens = 0;
            for piece in bytes.as_bytes().chunks(size) {
                tokens += u32::from(gauge.feed(piece, ms(1)).token);
            }
            let shown = (gauge.dialect(), gauge.framing());
            assert_eq!(shown, (real_dialect, real_framing), "{dialect:?} {framing:?} by {size}");
            assert!(tokens > 0 && gauge.reading().bytes == bytes.len() as u64, "{bytes} by {size}");
        }
    }
}

#[test]
fn rules_of_the_route_bind_the_dialect() {
    let rules = StreamRules::read("text = '/object'").unwrap();
    let mut gauge = gauge_with(Dialect::PlainSse, Framing::Sse, rules);
    gauge.feed(CHUNK.as_bytes(), ms(1));
    assert_eq!((gauge.dialect(), gauge.reading().token_frames), (Dialect::PlainSse, 1));
}

#[test]
fn progress_and_boundaries_come_with_the_last_byte_of_an_event() {
    let mut gauge = gauge(Dialect::OpenAiChat, Framing::Sse);
    assert!(gauge.at_boundary(), "before the first byte");
    for (at, byte) in CHUNK.as_bytes().iter().enumerate() {
        let is_last = at + 1 == CHUNK.len();
        assert_eq!(gauge.feed(&[*byte], ms(at as u64)).token, is_last);
        assert_eq!(gauge.at_boundary(), is_last);
    }
    assert!(!gauge.feed(b"", ms(1)).token && gauge.at_boundary());

    let mut lines = super::gauge(Dialect::Ollama, Framing::JsonLines);
    assert!(lines.at_boundary());
    lines.feed(b"{\"response\":", ms(1));
    assert!(!lines.at_boundary());
    lines.feed(b"\"a\"}\n", ms(1));
    assert!(lines.at_boundary());
    let mut unsure = super::gauge(Dialect::PlainSse, Framing::JsonLines);
    unsure.feed(b"da", ms(1));
    assert!(!unsure.at_boundary(), "bytes that are held are inside something");
    let mut text = super::gauge(Dialect::PlainText, Framing::Opaque);
    assert!(!text.at_boundary());
    text.feed(b"abc\n\n", ms(1));
    assert!(!text.at_boundary());
}

#[test]
fn a_cut_tells_nothing_of_half_an_event() {
    let mut gauge = gauge(Dialect::PlainSse, Framing::Sse);
    gauge.feed(b"data: a\n\ndata: hal", ms(1));
    gauge.finish(StreamEnd::Cut, ms(2));
    let reading = gauge.reading();
    assert_eq!((reading.frames, reading.token_frames, reading.normal_end), (1, 1, false));
}

#[test]
fn an_oversized_event_is_a_frame_without_facts() {
    let mut gauge = gauge(Dialect::PlainSse, Framing::Sse);
    gauge.feed(b"data: ", ms(1));
    for _ in 0..40 {
        assert!(!gauge.feed(&[b'x'; 65_536], ms(1)).token);
        assert!(!gauge.at_boundary());
    }
    gauge.feed(b"\n\ndata: y\n\n", ms(2));
    assert!(gauge.at_boundary());
    let reading = gauge.reading();
    assert_eq!((reading.frames, reading.token_frames, reading.bytes), (2, 1, 6 + 40 * 65_536 + 11));
}

#[test]
fn a_gauge_is_small_and_can_move_between_threads() {
    fn moves<T: Send + Sync>() {}
    moves::<Gauge>();
    assert!(size_of::<Gauge>() <= 768, "{} bytes: there are thousands of them", size_of::<Gauge>());
}
