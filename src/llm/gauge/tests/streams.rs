//! One stream a dialect and trait of it. Each part comes one millisecond after the other, from 1 ms on.

use super::*;

const NONE: [Option<u128>; 3] = [None; 3];

fn openai(parts: &[&str]) -> Reading {
    read(gauge(Dialect::OpenAiChat, Framing::Sse), parts)
}

#[test]
fn openai_chat_from_the_role_chunk_to_done() {
    let reading = openai(&[
        "data: {\"id\":\"chatcmpl-9\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o-2024-08-06\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n",
        ": keep-alive\n\n",
        "data: {\"id\":\"chatcmpl-9\",\"model\":\"gpt-4o-2024-08-06\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"aB3x\"}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" \\\"w\\u00f6rld\\\"\"},\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21,\"prompt_tokens_details\":{\"cached_tokens\":4,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":5}}}\n\n",
        "data: [DONE]\n\n",
    ]);
    assert_eq!(milestones(&reading), [Some(3), Some(3), Some(4)]);
    assert_eq!((reading.first_byte, reading.max_gap), (Some(ms(1)), Some(ms(1))));
    assert_eq!((reading.frames, reading.token_frames), (6, 2));
    let usage = Usage {
        input: Some(9),
        cached_input: Some(4),
        cache_write: None,
        output: Some(12),
        reasoning: Some(5),
        input_audio: Some(0),
        ..Usage::default()
    };
    assert_eq!((reading.usage, reading.usage_source), (usage, UsageSource::Reported));
    assert_eq!(reading.finish_reasons, ["stop"]);
    assert_eq!(reading.response_id.as_deref(), Some("chatcmpl-9"));
    assert_eq!(reading.response_model.as_deref(), Some("gpt-4o-2024-08-06"));
    assert!(reading.normal_end && reading.error.is_none());
}

#[test]
fn openai_reasoning_is_a_token_but_no_answer() {
    for field in ["reasoning_content", "reasoning"] {
        let reading = openai(&[
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n",
            &format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"{field}\":\"hm\",\"content\":null}}}}]}}\n\n"),
            &format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"{field}\":\"\",\"content\":\"x\"}}}}]}}\n\n"),
        ]);
        assert_eq!(milestones(&reading), [Some(2), Some(3), Some(3)], "{field}");
    }
}

#[test]
fn openai_tools_and_refusals_and_legacy_text_are_answers() {
    let tokens = [
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"function_call":{"arguments":"{"}}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"refusal":"No"}}]}"#,
        r#"{"object":"text_completion","choices":[{"index":0,"text":" a","logprobs":null}]}"#,
        r#"{"choices":[{"index":0,"delta":{}},{"index":1,"delta":{"content":"b"}}]}"#,
    ];
    for data in tokens {
        assert_eq!(milestones(&openai(&[&format!("data: {data}\n\n")])), [Some(1); 3], "{data}");
    }
    let others = [
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[],"function_call":null,"content":""}}]}"#,
        r#"{"choices":[{"index":0,"text":""}]}"#,
        r#"{"choices":[]}"#,
        r#"{"choices":null}"#,
        r#"{"choices":"none","usage":"none","id":7}"#,
        r#"{"prompt_filter_results":[{"prompt_index":0}],"id":"","model":"","choices":[]}"#,
        r#"[{"choices":[{"delta":{"content":"x"}}]}]"#,
        "not json",
        "",
    ];
    for data in others {
        let reading = openai(&[&format!("data: {data}\n\n")]);
        assert_eq!((milestones(&reading), reading.frames), (NONE, 1), "{data}");
        assert_eq!((reading.response_id, reading.error), (None, None), "{data}");
    }
}

#[test]
fn openai_usage_on_each_chunk_replaces_the_last() {
    let chunk = |tokens: u32| {
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"x\"}}}}],\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":{tokens}}}}}\n\n"
        )
    };
    let reading = openai(&[&chunk(1), &chunk(2), "data: {\"choices\":[],\"usage\":null}\n\n"]);
    assert_eq!((reading.usage.input, reading.usage.output), (Some(3), Some(2)));
}

#[test]
fn openai_ends_when_every_choice_has_finished() {
    let begin = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}},{\"index\":1,\"delta\":{\"content\":\"b\"}}]}\n\n";
    let finish = |index: u32| {
        format!("data: {{\"choices\":[{{\"index\":{index},\"delta\":{{}},\"finish_reason\":\"length\"}}]}}\n\n")
    };
    let (first, second) = (finish(0), finish(1));
    let vectors: [(&[&str], bool); 6] = [
        (&[begin, &first, &second, "data: [DONE]\n\n"], true),
        (&[begin, &first, &second], true),
        (&[begin, &second, &second, "data: [DONE]\n\n"], false),
        (&[begin, "data: [DONE]\n\n"], false),
        (&["data: [DONE]\n\n"], false),
        (&[begin], false),
    ];
    for (parts, normal_end) in vectors {
        assert_eq!(openai(parts).normal_end, normal_end, "{parts:?}");
    }
    assert_eq!(openai(&[begin, &first, &first, &second]).finish_reasons, ["length", "length"], "one a choice");

    let mut cut = gauge(Dialect::OpenAiChat, Framing::Sse);
    cut.feed([begin, &first, &second].concat().as_bytes(), ms(1));
    cut.finish(StreamEnd::Cut, ms(2));
    assert!(!cut.reading().normal_end, "a cut is no orderly end");
}

#[test]
fn openai_error_events_are_told_and_end_nothing() {
    let reading = openai(&[
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"error\":{\"message\":\"The server had an error\",\"type\":\"server_error\",\"code\":null}}\n\n",
        "data: [DONE]\n\n",
    ]);
    assert_eq!(reading.error.as_deref(), Some("server_error: The server had an error"));
    assert!(!reading.normal_end);
}

#[test]
fn a_last_done_without_its_blank_line_counts() {
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n";
    for done in ["data: [DONE]", "data: [DONE]\n", "data: [DONE]\r\n"] {
        let reading = openai(&[finish, done]);
        assert_eq!((reading.normal_end, reading.frames), (true, 2), "{done:?}");
    }
}

const ANTHROPIC: [&str; 10] = [
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-4\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":10,\"cache_creation_input_tokens\":200,\"cache_read_input_tokens\":3000,\"output_tokens\":1}}}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\"}}\n\n",
    "event: ping\ndata: {\"type\": \"ping\"}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"Let me\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"signature_delta\",\"signature\":\"EqQB\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"a\\\"\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":89}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
];

#[test]
fn anthropic_from_message_start_to_stop() {
    let reading = read(gauge(Dialect::Anthropic, Framing::Sse), &ANTHROPIC);
    assert_eq!(milestones(&reading), [Some(4), Some(7), Some(8)]);
    assert_eq!((reading.frames, reading.token_frames), (10, 3));
    let usage = Usage {
        input: Some(3_210),
        cached_input: Some(3_000),
        cache_write: Some(200),
        output: Some(89),
        ..Usage::default()
    };
    assert_eq!((reading.usage, reading.usage_source), (usage, UsageSource::Reported));
    assert_eq!(reading.finish_reasons, ["end_turn"]);
    assert_eq!(reading.response_id.as_deref(), Some("msg_1"));
    assert_eq!(reading.response_model.as_deref(), Some("claude-sonnet-4"));
    assert!(reading.normal_end);
    assert!(!read(gauge(Dialect::Anthropic, Framing::Sse), &ANTHROPIC[..9]).normal_end);
}

#[test]
fn anthropic_numbers_that_come_again_replace() {
    let again = "data: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"input_tokens\":12,\"cache_read_input_tokens\":8,\"output_tokens\":95}}\n\n";
    let reading = read(gauge(Dialect::Anthropic, Framing::Sse), &[ANTHROPIC[0], ANTHROPIC[8], again]);
    let usage = reading.usage;
    assert_eq!((usage.input, usage.cached_input, usage.output), (Some(220), Some(8), Some(95)));
}

#[test]
fn anthropic_errors_can_come_first() {
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let reading = read(gauge(Dialect::Anthropic, Framing::Sse), &[error, ANTHROPIC[9]]);
    assert_eq!(reading.error.as_deref(), Some("overloaded_error: Overloaded"));
    assert_eq!((milestones(&reading), reading.normal_end), (NONE, false));
    for data in ["{}", "Internal failure"] {
        let reading = read(gauge(Dialect::Anthropic, Framing::Sse), &[&format!("event: error\ndata: {data}\n\n")]);
        assert!(reading.error.is_some(), "{data}");
    }
}

#[test]
fn ollama_lines_of_chat_and_generate() {
    let vectors = [
        [
            r#"{"model":"llama3.2","created_at":"x","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}"#,
            r#"{"model":"llama3.2","created_at":"x","message":{"role":"assistant","content":"The"},"done":false}"#,
        ],
        [
            r#"{"model":"llama3.2","created_at":"x","response":"","thinking":"hm","done":false}"#,
            r#"{"model":"llama3.2","created_at":"x","response":"The","done":false}"#,
        ],
    ];
    let done = r#"{"model":"llama3.2","message":{"role":"assistant","content":""},"response":"","done_reason":"stop","done":true,"total_duration":5,"prompt_eval_count":26,"eval_count":298}"#;
    for [thinking, answer] in vectors {
        let lines = [thinking, answer, done].map(|line| format!("{line}\n"));
        let parts = lines.each_ref().map(String::as_str);
        let reading = read(gauge(Dialect::Ollama, Framing::JsonLines), &parts);
        assert_eq!(milestones(&reading), [Some(1), Some(2), Some(2)], "{answer}");
        assert_eq!((reading.usage.input, reading.usage.output), (Some(26), Some(298)));
        assert_eq!((reading.frames, reading.finish_reasons.as_slice()), (3, ["stop".to_owned()].as_slice()));
        assert_eq!(reading.response_model.as_deref(), Some("llama3.2"));
        assert!(reading.normal_end);
        let twice = read(gauge(Dialect::Ollama, Framing::JsonLines), &[parts[2], parts[2]]);
        assert_eq!(twice.finish_reasons, ["stop"], "one a choice");
        assert!(!read(gauge(Dialect::Ollama, Framing::JsonLines), &parts[..2]).normal_end);
    }
    let tool = r#"{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f"}}]},"done":false}"#;
    assert_eq!(milestones(&read(gauge(Dialect::Ollama, Framing::JsonLines), &[tool])), [Some(1); 3], "at the end");
    let error = read(gauge(Dialect::Ollama, Framing::JsonLines), &["{\"error\":\"model runner stopped\"}\n"]);
    assert_eq!((error.error.as_deref(), error.normal_end), (Some("model runner stopped"), false));
}

#[test]
fn plain_events_are_tokens_unless_they_say_otherwise() {
    let plain = |parts: &[&str]| read(gauge(Dialect::PlainSse, Framing::Sse), parts);
    let reading = plain(&[
        ": hi\n\n",
        "data:\n\n",
        "event: ping\ndata: 1\n\n",
        "data: Hel\n\n",
        "data:  \n\n",
        "data: [DONE]\n\n",
    ]);
    assert_eq!((milestones(&reading), reading.frames), ([Some(4), Some(4), Some(5)], 5));
    assert!(reading.normal_end);
    assert!(plain(&["data: x\n\n"]).normal_end, "its end is the end of the body");

    for error in ["data: {\"error\": \"boom\"}\n\n", "event: error\ndata: boom\n\n"] {
        let reading = plain(&["data: x\n\n", error, "data: [DONE]\n\n"]);
        assert_eq!((reading.error.as_deref(), reading.normal_end), (Some("boom"), false), "{error}");
        assert_eq!(reading.token_frames, 1);
    }
    for text in ["{\"error\": null, \"token\": \"x\"}", "[\"error\"]", "\"error\"", "an \"error\" of mine"] {
        let reading = plain(&[&format!("data: {text}\n\n")]);
        assert_eq!((reading.error, reading.token_frames), (None, 1), "{text}");
    }
}

#[test]
fn plain_rules_name_text_error_and_end() {
    let rules = "text = '/delta/0/token'\nerror = '/fault'\ndone = '{\"event\":\"end\"}'";
    let rules = StreamRules::read(rules).unwrap();
    let plain = |parts: &[&str]| read(gauge_with(Dialect::PlainSse, Framing::Sse, rules.clone()), parts);
    let (meta, token) = ("data: {\"session\":1,\"error\":\"x\"}\n\n", "data: {\"delta\":[{\"token\":\"a\"}]}\n\n");
    let empty = "data: {\"delta\":[{\"token\":\"\"}]}\n\n";
    let reading = plain(&[meta, empty, token, "data: {\"event\":\"end\"}\n\n"]);
    assert_eq!((milestones(&reading), reading.frames, reading.token_frames), ([Some(3); 3], 4, 1));
    assert!(reading.normal_end && reading.error.is_none());
    assert!(!plain(&[token]).normal_end, "an end without the word is a truncation");
    assert!(!plain(&[token, "data: [DONE]\n\n"]).normal_end);
    let failed = plain(&["data: {\"fault\":{\"message\":\"bad\"}}\n\n", "data: {\"event\":\"end\"}\n\n"]);
    assert_eq!((failed.error.as_deref(), failed.normal_end), (Some("bad"), false));
}

#[test]
fn plain_rules_name_usage() {
    let rules = StreamRules::read("text = '/t'\nusage = '/meta/usage'").unwrap();
    let plain = |parts: &[&str]| read(gauge_with(Dialect::PlainSse, Framing::Sse, rules.clone()), parts);
    let token = "data: {\"t\":\"a\"}\n\n";
    let of = |usage: &str| {
        let reading = plain(&[token, &format!("data: {{\"t\":\"\",\"meta\":{{\"usage\":{usage}}}}}\n\n")]);
        (reading.usage.input, reading.usage.output, reading.usage_source)
    };
    assert_eq!(of("7"), (None, Some(7), UsageSource::Reported));
    assert_eq!(
        of("{\"prompt_tokens\":3,\"completion_tokens\":9,\"total\":12}"),
        (Some(3), Some(9), UsageSource::Reported)
    );
    assert_eq!(of("{\"input_tokens\":3,\"output_tokens\":\"x\"}"), (Some(3), None, UsageSource::Reported));
    assert_eq!(of("null"), (None, None, UsageSource::Missing));
}

#[test]
fn text_starts_at_its_first_byte() {
    let reading = read(gauge(Dialect::PlainText, Framing::Opaque), &["d", "ata is", " great"]);
    assert_eq!(milestones(&reading), [Some(1), Some(1), Some(3)], "held until it was no event stream");
    assert_eq!((reading.frames, reading.token_frames, reading.bytes), (2, 2, 13));
    assert!(reading.normal_end);
    let short = read(gauge(Dialect::PlainText, Framing::Opaque), &["da"]);
    assert_eq!((milestones(&short), short.frames), ([Some(1); 3], 1));
}

#[test]
fn work_that_brings_no_token_yet_is_told_apart_from_silence() {
    use Dialect::{Anthropic, OpenAiChat, OpenAiResponses, PlainSse, VercelUi};
    let vectors = [
        (OpenAiResponses, r#"{"type":"response.web_search_call.searching","item_id":"w"}"#, true),
        (OpenAiResponses, r#"{"type":"response.mcp_call.in_progress","item_id":"m"}"#, true),
        (OpenAiResponses, r#"{"type":"response.output_item.added","item":{"type":"web_search_call"}}"#, true),
        (OpenAiResponses, r#"{"type":"response.code_interpreter_call.interpreting"}"#, true),
        (OpenAiResponses, r#"{"type":"response.created","response":{"id":"r"}}"#, false),
        (OpenAiResponses, r#"{"type":"response.in_progress","response":{"id":"r"}}"#, false),
        (OpenAiResponses, r#"{"type":"response.output_text.delta","delta":""}"#, false),
        (OpenAiResponses, r#"{"type":"keepalive","sequence_number":3}"#, false),
        (
            Anthropic,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"web_search_tool_result"}}"#,
            true,
        ),
        (Anthropic, r#"{"type":"content_block_stop","index":1}"#, true),
        (Anthropic, r#"{"type":"ping"}"#, false),
        (VercelUi, r#"{"type":"start-step"}"#, true),
        (VercelUi, r#"{"type":"tool-output-available","toolCallId":"t","output":1}"#, true),
        (VercelUi, r#"{"type":"text-delta","id":"t","delta":""}"#, false),
        (OpenAiChat, r#"{"choices":[{"index":0,"delta":{"content":""}}]}"#, false),
        (PlainSse, r#"{"token":"a"}"#, true),
    ];
    for (dialect, data, expected) in vectors {
        let progress = gauge(dialect, Framing::Sse).feed(format!("data: {data}\n\n").as_bytes(), ms(1));
        assert_eq!(progress.tells_of_work(), expected, "{data}");
    }
    let progress = gauge(PlainSse, Framing::Sse).feed(b": ping\n\nevent: ping\ndata: {}\n\n", ms(1));
    assert!(!progress.tells_of_work(), "comments and pings are no work");
}

#[test]
fn a_stream_is_an_llms_once_an_event_shows_it() {
    use crate::llm::LlmBasis;
    let token = r#"{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"x"}}]}"#;
    let vectors: [(&[&str], bool, LlmBasis, Option<u64>); 9] = [
        (&["Hello"], true, LlmBasis::Guess, None),
        (&["Hello"], false, LlmBasis::None, Some(1)),
        (&[r#"{"text":"a"}"#], true, LlmBasis::Guess, None),
        (&[r#"{"text":""}"#, r#"{"progress":1}"#, "42", "[1]"], true, LlmBasis::None, Some(4)),
        (&[r#"{"n":1}"#, token], false, LlmBasis::Shape, None),
        (&[r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"text":"a"}]}}"#], true, LlmBasis::None, Some(1)),
        (&[r#"{"jsonrpc":"2.0","id":1,"result":{"kind":"task","id":"t"}}"#], false, LlmBasis::Shape, None),
        (&[], true, LlmBasis::None, Some(0)),
        (&["", " "], true, LlmBasis::None, Some(2)),
    ];
    for (events, guesses, basis, others) in vectors {
        let mut gauge = gauge(Dialect::PlainSse, Framing::Sse).unclaimed(guesses);
        for (at, data) in (1..).zip(events) {
            gauge.feed(format!("data: {data}\n\n").as_bytes(), ms(at));
        }
        gauge.finish(StreamEnd::Clean, ms(50));
        assert_eq!(gauge.basis(), basis, "{events:?}");
        let tokens = gauge.reading().token_frames;
        assert_eq!(gauge.take_stream().map(|stream| stream.events), others, "{events:?}");
        assert!(others.is_none() || tokens == 0, "{events:?}");
    }
}

#[test]
fn a_stream_of_others_is_measured_by_its_events() {
    let mut gauge = gauge(Dialect::PlainSse, Framing::Sse).unclaimed(true);
    for (at, bytes) in [
        (3, ": ping\n\n"),
        (5, "data: {\"n\":1}\n\n"),
        (9, ": ping\n\ndata: {\"n\":2}\n\n"),
        (10, "data: {\"n\":3}\n\n"),
    ] {
        let progress = gauge.feed(bytes.as_bytes(), ms(at));
        assert!(!progress.token && !progress.unknown);
    }
    let stream = gauge.take_stream().unwrap();
    assert_eq!((stream.first_event, stream.last_event), (Some(ms(5)), Some(ms(10))));
    assert_eq!((stream.events, stream.max_gap, stream.gaps.count()), (3, Some(ms(4)), 2));
}

#[test]
fn of_a_stream_of_others_the_first_method_is_the_name() {
    use crate::llm::json_rpc::RpcProtocol;
    let mut gauge = gauge(Dialect::PlainSse, Framing::Sse).unclaimed(false);
    for data in [
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/message"}"#,
    ] {
        gauge.feed(format!("event: message\ndata: {data}\n\n").as_bytes(), ms(1));
    }
    let rpc = gauge.take_stream().unwrap().rpc.unwrap();
    assert_eq!((rpc.protocol, rpc.method.as_deref()), (RpcProtocol::Mcp, Some("notifications/progress")));
}
