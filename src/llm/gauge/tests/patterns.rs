//! Events that are met again are read as if each had been read in full.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::llm::event_pattern::Pattern;
use crate::llm::message::Part;
use crate::llm::token_count::Encoding;

/// Events of a dialect as they may come, `TEXT` and `NOISE` to be filled in.
const STREAMS: [(Dialect, Framing, &[&str]); 5] = [
    (
        Dialect::OpenAiChat,
        Framing::Sse,
        &[
            r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"TEXT"},"finish_reason":null}]}"#,
            r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"TEXT"},"finish_reason":null}],"obfuscation":"NOISE"}"#,
            r#"{"obfuscation":"NOISE","choices":[{"index":1,"delta":{"content": "TEXT"}}],"usage":null}"#,
            r#"{"choices":[{"delta":{"content":"TEXT","reasoning":"NOISE"}}]}"#,
            r#"{"choices":[{"delta":{"reasoning_content":"TEXT"}}]}"#,
            r#"{"choices":[{"delta":{"reasoning":"TEXT","content":""}}]}"#,
            r#"{"choices":[{"delta":{"content":["TEXT"]}}],"extra":{"content":"NOISE"}}"#,
            r#"{"choices":[{"delta":{"content":"TEXT"}},{"index":1,"delta":{"content":"NOISE"}}]}"#,
            r#"{"choices":[{"delta":{"content":"TEXT"}},{"index":1,"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"delta":{"content":"a","content":"TEXT"}}]}"#,
            r#"{"choices":[{"text":"TEXT","index":0}]}"#,
            r#"{"choices":[{"text":"TEXT","delta":{"content":"NOISE"}}]}"#,
            r#"{"choices":[{"delta":{"content":"TEXT"},"finish_reason":"NOISE"}]}"#,
            r#"{"choices":[{"delta":{"content":"TEXT"}}],"usage":{"completion_tokens":7}}"#,
            r#"{"choices":[{"delta":{"content":"TEXT"}}],"error":"NOISE"}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"TEXT"}}]}}]}"#,
            "[DONE]",
            "TEXT",
        ],
    ),
    (
        Dialect::Anthropic,
        Framing::Sse,
        &[
            r#"{"type":"message_start","message":{"id":"m"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"TEXT"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"TEXT"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"NOISE","text":"TEXT"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"TEXT"}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}"#,
            r#"{"type":"message_stop"}"#,
        ],
    ),
    (
        Dialect::VercelUi,
        Framing::Sse,
        &[
            r#"{"type":"text-delta","id":"0","delta":"TEXT"}"#,
            r#"{"type":"reasoning-delta","id":"0","delta":"TEXT"}"#,
            r#"{"type":"tool-input-delta","delta":"TEXT","inputTextDelta":"NOISE"}"#,
            r#"{"type":"text-delta","id":"0","delta":"TEXT","messageMetadata":{"usage":{"outputTokens":4}}}"#,
            r#"{"type":"error","errorText":"NOISE"}"#,
            r#"{"type":"finish","finishReason":"stop"}"#,
        ],
    ),
    (
        Dialect::Ollama,
        Framing::JsonLines,
        &[
            r#"{"model":"l","created_at":"NOISE","message":{"role":"assistant","content":"TEXT"},"done":false}"#,
            r#"{"model":"l","created_at":"NOISE","message":{"content":"","thinking":"TEXT"},"done":false}"#,
            r#"{"model":"l","created_at":"NOISE","response":"TEXT","done":false}"#,
            r#"{"model":"l","response":"TEXT","thinking":"NOISE","done":false}"#,
            r#"{"model":"l","response":"TEXT","done":false,"eval_count":8}"#,
            r#"{"model":"l","response":"TEXT","done":true,"done_reason":"stop","eval_count":9,"eval_duration":5}"#,
            r#"{"response":"TEXT","error":"NOISE","done":false}"#,
        ],
    ),
    (
        Dialect::PlainSse,
        Framing::Sse,
        &[
            r#"{"token":"TEXT","index":7}"#,
            r#"{"message":{"role":"assistant","content":"TEXT"}}"#,
            r#"{"type":"NOISE","content":"TEXT"}"#,
            r#"{"content":"TEXT","text":"NOISE"}"#,
            r#"{"content":["TEXT"],"meta":{"content":"NOISE"}}"#,
            r#"{"text":"TEXT","usage":{"output_tokens":3}}"#,
            r#"{"delta":{"content":"TEXT"},"meta":{"content":"NOISE"}}"#,
            r#"{"con\u0074ent":"TEXT","meta":{"content":"NOISE"}}"#,
            r#"{"mine":"TEXT"}"#,
            "[DONE]",
            "TEXT",
        ],
    ),
];

/// What may stand in a string, and what breaks out of it.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[ a-zé→]{0,8}",
        1 => select(vec![
            "", "\\n", "\\\"", "\\\\", "\\u00e9", "\\x", "\\", "\"", "\t", "content", "\\\"content\\\":\\\"",
            "\",\"content\":\"", "\"}}],\"usage\":{\"completion_tokens\":1},\"x\":[{\"y\":{\"z\":\"", "stop", "text_delta",
        ]).prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn what_is_met_again_reads_the_same(
        stream in select(&STREAMS[..]),
        // Runs of one kind of event, as streams have them.
        runs in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec((any_text(), any_text()), 1..5)), 1..8),
        counts: bool,
        captures: bool,
    ) {
        let (dialect, framing, kinds) = stream;
        Encoding::O200k.prepare();
        let mut gauges = [gauge(dialect, framing), gauge(dialect, framing)];
        gauges[1].meter.pattern = Pattern::exhausted();
        for gauge in &mut gauges {
            if counts {
                gauge.count(Some("gpt-4o"));
            }
            if captures {
                gauge.capture();
            }
        }
        let mut now = Duration::ZERO;
        for (kind, texts) in &runs {
            for (text, noise) in texts {
                let data = kind.get(kinds).replace("TEXT", text).replace("NOISE", noise);
                let event = if framing == Framing::Sse { format!("data: {data}\n\n") } else { format!("{data}\n") };
                now += ms(1);
                let [met, read] = gauges.each_mut().map(|gauge| gauge.feed(event.as_bytes(), now));
                prop_assert_eq!(met, read, "{}", event);
            }
        }
        let [met, read] = gauges.each_mut().map(|gauge| {
            let closing = gauge.closing();
            gauge.finish(StreamEnd::Clean, now);
            (closing, gauge.counted(), gauge.take_reading())
        });
        prop_assert_eq!(met, read);
    }
}

#[test]
fn a_stream_of_text_is_met_again() {
    Encoding::O200k.prepare();
    for (dialect, framing, kinds) in STREAMS {
        let kind = kinds.iter().find(|kind| kind.contains("TEXT")).copied().unwrap_or_default();
        let mut gauge = gauge(dialect, framing);
        gauge.count(None);
        for text in ["The", " river", " is", " high"] {
            let data = kind.replace("TEXT", text).replace("NOISE", text);
            let event = if framing == Framing::Sse { format!("data: {data}\n\n") } else { format!("{data}\n") };
            gauge.feed(event.as_bytes(), ms(1));
        }
        assert_eq!(gauge.meter.pattern.meetings, 3, "{dialect:?}");
        assert_eq!((gauge.reading().token_frames, gauge.counted()), (4, Some(4)), "{dialect:?}");
    }
}

/// A reader of rules says what it read, and of an event that it did not read nothing.
#[test]
fn a_text_with_escapes_is_said_once_and_as_it_is() {
    Encoding::O200k.prepare();
    let mut gauge = gauge_with(Dialect::PlainSse, Framing::Sse, StreamRules::read("text = '/token'").unwrap());
    gauge.count(None);
    gauge.capture();
    for text in ["The", " river", " is\\n", "high", "\\n"] {
        gauge.feed(format!("data: {{\"token\":\"{text}\"}}\n\n").as_bytes(), ms(1));
    }
    gauge.finish(StreamEnd::Clean, ms(2));
    let said = [Part::Text("The river is\nhigh\n".to_owned())];
    assert_eq!(gauge.reading().output.as_ref().unwrap()[0].parts, said);
    assert_eq!(gauge.counted(), Some(Encoding::O200k.count("The river is\nhigh\n")));
}
