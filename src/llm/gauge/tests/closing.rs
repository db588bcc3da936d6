//! Streams that are ended early read as whole, with the finish reason for it.

use super::*;

/// Feeds the parts and what closes them; what closes, and what is read.
fn closed(dialect: Dialect, framing: Framing, parts: &[&str]) -> (String, Reading) {
    let mut gauge = gauge(dialect, framing);
    for part in parts {
        gauge.feed(part.as_bytes(), ms(1));
    }
    let closing = gauge.closing().expect("it can be closed");
    let tokens = gauge.reading().token_frames;
    gauge.feed(&closing, ms(2));
    gauge.finish(StreamEnd::Clean, ms(2));
    assert_eq!(gauge.reading().token_frames, tokens, "nothing is made up");
    assert_eq!(gauge.closing(), Some(Bytes::new()), "an end needs no other");
    (String::from_utf8(closing.to_vec()).unwrap(), gauge.reading().clone())
}

#[test]
fn each_dialect_ends_in_its_own_words() {
    use Dialect::*;
    use Framing::*;
    let vectors: [(_, _, &[&str], _, _); 12] = [
        (
            OpenAiChat,
            Sse,
            &[
                "data: {\"id\":\"c1\",\"model\":\"m\",\"created\":7,\"choices\":[{\"index\":1,\"delta\":{\"content\":\"a\"}}]}\n\n",
            ],
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\",\"index\":1,\"logprobs\":null}],\"created\":7,\"id\":\"c1\",\"model\":\"m\",\"object\":\"chat.completion.chunk\"}\n\ndata: [DONE]\n\n",
            Some("length"),
        ),
        (
            OpenAiChat,
            Sse,
            &["data: {\"id\":\"c1\",\"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\"a\"}]}\n\n"],
            "data: {\"choices\":[{\"finish_reason\":\"length\",\"index\":0,\"logprobs\":null,\"text\":\"\"}],\"created\":0,\"id\":\"c1\",\"model\":\"m\",\"object\":\"text_completion\"}\n\ndata: [DONE]\n\n",
            Some("length"),
        ),
        (
            OpenAiChat,
            Sse,
            &["data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"],
            "data: [DONE]\n\n",
            Some("stop"),
        ),
        (
            Anthropic,
            Sse,
            &[
                "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"output_tokens\":1}}}\n\n",
                "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":2,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
            ],
            "event: content_block_stop\ndata: {\"index\":2,\"type\":\"content_block_stop\"}\n\nevent: message_delta\ndata: {\"delta\":{\"stop_reason\":\"max_tokens\",\"stop_sequence\":null},\"type\":\"message_delta\",\"usage\":{\"output_tokens\":1}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            Some("max_tokens"),
        ),
        (
            OpenAiResponses,
            Sse,
            &[
                "data: {\"type\":\"response.created\",\"sequence_number\":4,\"response\":{\"id\":\"r\",\"model\":\"m\",\"created_at\":9}}\n\n",
            ],
            "event: response.incomplete\ndata: {\"response\":{\"created_at\":9,\"error\":null,\"id\":\"r\",\"incomplete_details\":{\"reason\":\"max_output_tokens\"},\"model\":\"m\",\"object\":\"response\",\"output\":[],\"status\":\"incomplete\",\"usage\":null},\"sequence_number\":5,\"type\":\"response.incomplete\"}\n\n",
            Some("max_output_tokens"),
        ),
        (
            Gemini,
            Sse,
            &["data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}],\"responseId\":\"r\"}\n\n"],
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}],\"role\":\"model\"},\"finishReason\":\"MAX_TOKENS\",\"index\":0}],\"responseId\":\"r\"}\n\n",
            Some("MAX_TOKENS"),
        ),
        (
            Gemini,
            Json,
            &["[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}"],
            ",\n{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}],\"role\":\"model\"},\"finishReason\":\"MAX_TOKENS\",\"index\":0}]}\n]\n",
            Some("MAX_TOKENS"),
        ),
        (
            Ollama,
            JsonLines,
            &["{\"model\":\"l\",\"message\":{\"content\":\"a\"},\"done\":false}\n"],
            "{\"done\":true,\"done_reason\":\"length\",\"message\":{\"content\":\"\",\"role\":\"assistant\"},\"model\":\"l\"}\n",
            Some("length"),
        ),
        (
            VercelUi,
            Sse,
            &[
                "data: {\"type\":\"start-step\"}\n\n",
                "data: {\"type\":\"reasoning-start\",\"id\":\"1\"}\n\ndata: {\"type\":\"reasoning-end\",\"id\":\"1\"}\n\n",
                "data: {\"type\":\"text-start\",\"id\":\"1\"}\n\ndata: {\"type\":\"text-delta\",\"id\":\"1\",\"delta\":\"a\"}\n\n",
            ],
            "data: {\"id\":\"1\",\"type\":\"text-end\"}\n\ndata: {\"type\":\"finish-step\"}\n\ndata: {\"type\":\"finish\"}\n\ndata: [DONE]\n\n",
            None,
        ),
        (
            VercelData,
            JsonLines,
            &["f:{\"messageId\":\"m\"}\n0:\"a\"\n"],
            "e:{\"finishReason\":\"length\",\"isContinued\":false}\nd:{\"finishReason\":\"length\"}\n",
            Some("length"),
        ),
        (PlainSse, Sse, &["data: a\n\n"], "", None),
        (PlainText, Opaque, &["a"], "", None),
    ];
    for (dialect, framing, parts, expected, reason) in vectors {
        let (closing, reading) = closed(dialect, framing, parts);
        assert_eq!(closing, expected, "{dialect:?}");
        assert_eq!(
            (reading.finish_reasons.first().map(String::as_str), reading.normal_end),
            (reason, true),
            "{dialect:?}"
        );
    }
}

#[test]
fn a_plain_stream_ends_with_its_routes_word() {
    let rules = StreamRules::read("done = '[END]'").unwrap();
    let mut gauge = gauge_with(Dialect::PlainSse, Framing::Sse, rules);
    gauge.feed(b"data: a\n\n", ms(1));
    let closing = gauge.closing().unwrap();
    assert_eq!(closing, "data: [END]\n\n");
    gauge.feed(&closing, ms(1));
    assert!(gauge.reading().normal_end);
}

#[test]
fn what_cannot_be_ended_in_order_is_not() {
    let vectors = [
        (Dialect::OpenAiChat, Framing::Sse, "data: {\"choices\":[{\"index\":0}]}\n"),
        (Dialect::OpenAiChat, Framing::Sse, "data: {\"error\":\"x\"}\n\n"),
        (Dialect::OpenAiChat, Framing::Sse, "data: {}\n\n"),
        (Dialect::OpenAiChat, Framing::Json, "{\"choices\":[]}"),
        (Dialect::Anthropic, Framing::Sse, "event: ping\ndata: {\"type\":\"ping\"}\n\n"),
        (Dialect::Gemini, Framing::Json, "[{},"),
        (Dialect::VercelUi, Framing::Sse, "data: {\"type\":\"text-start\"}\n\n"),
    ];
    for (dialect, framing, bytes) in vectors {
        let mut gauge = gauge(dialect, framing);
        gauge.feed(bytes.as_bytes(), ms(1));
        assert_eq!(gauge.closing(), None, "{bytes}");
    }
}
