//! Streams of the newer dialects, written after the servers' own documentation.

use super::*;
use crate::llm::price::{Cost, catalogue};

/// OpenAI's API reference, "Streaming events" of the Responses API.
const RESPONSES: [&str; 9] = [
    "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_1\",\"object\":\"response\",\"created_at\":1761000000,\"status\":\"in_progress\",\"error\":null,\"model\":\"gpt-5-mini\",\"output\":[],\"usage\":null}}\n\n",
    "event: response.in_progress\ndata: {\"type\":\"response.in_progress\",\"sequence_number\":1,\"response\":{\"id\":\"resp_1\",\"status\":\"in_progress\"}}\n\n",
    "event: response.output_item.added\ndata: {\"type\":\"response.output_item.added\",\"sequence_number\":2,\"output_index\":0,\"item\":{\"id\":\"rs_1\",\"type\":\"reasoning\",\"summary\":[]}}\n\n",
    "event: response.reasoning_summary_text.delta\ndata: {\"type\":\"response.reasoning_summary_text.delta\",\"sequence_number\":3,\"item_id\":\"rs_1\",\"output_index\":0,\"summary_index\":0,\"delta\":\"Hm\",\"obfuscation\":\"a8f\"}\n\n",
    "event: response.content_part.added\ndata: {\"type\":\"response.content_part.added\",\"sequence_number\":4,\"part\":{\"type\":\"output_text\",\"text\":\"\"}}\n\n",
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":5,\"item_id\":\"msg_1\",\"output_index\":1,\"content_index\":0,\"delta\":\"Hi\",\"logprobs\":[]}\n\n",
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":6,\"delta\":\" there\"}\n\n",
    "event: response.output_text.done\ndata: {\"type\":\"response.output_text.done\",\"sequence_number\":7,\"text\":\"Hi there\"}\n\n",
    "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":8,\"response\":{\"id\":\"resp_1\",\"object\":\"response\",\"status\":\"completed\",\"error\":null,\"incomplete_details\":null,\"model\":\"gpt-5-mini\",\"output\":[{\"type\":\"message\"}],\"usage\":{\"input_tokens\":36,\"input_tokens_details\":{\"cached_tokens\":4},\"output_tokens\":87,\"output_tokens_details\":{\"reasoning_tokens\":64},\"total_tokens\":123}}}\n\n",
];

/// `ai` 5, "UI message stream protocol".
const UI: [&str; 12] = [
    "data: {\"type\":\"start\",\"messageId\":\"msg_1\"}\n\n",
    "data: {\"type\":\"start-step\"}\n\n",
    "data: {\"type\":\"reasoning-start\",\"id\":\"r1\"}\n\n",
    "data: {\"type\":\"reasoning-delta\",\"id\":\"r1\",\"delta\":\"Hm\"}\n\n",
    "data: {\"type\":\"reasoning-end\",\"id\":\"r1\"}\n\n",
    "data: {\"type\":\"text-start\",\"id\":\"t1\"}\n\n",
    "data: {\"type\":\"text-delta\",\"id\":\"t1\",\"delta\":\"\"}\n\n",
    "data: {\"type\":\"text-delta\",\"id\":\"t1\",\"delta\":\"Hi\"}\n\n",
    "data: {\"type\":\"text-end\",\"id\":\"t1\"}\n\n",
    "data: {\"type\":\"finish-step\"}\n\n",
    "data: {\"type\":\"finish\",\"finishReason\":\"stop\",\"messageMetadata\":{\"totalUsage\":{\"inputTokens\":11,\"outputTokens\":7,\"totalTokens\":18,\"reasoningTokens\":3,\"cachedInputTokens\":2}}}\n\n",
    "data: [DONE]\n\n",
];

/// `ai` 4, "Data stream protocol".
const DATA: [&str; 8] = [
    "f:{\"messageId\":\"msg-1\"}\n",
    "g:\"Hm\"\n",
    "0:\"\"\n",
    "0:\"Hi\"\n",
    "b:{\"toolCallId\":\"c1\",\"toolName\":\"dig\"}\nc:{\"toolCallId\":\"c1\",\"argsTextDelta\":\"{}\"}\n9:{\"toolCallId\":\"c1\",\"toolName\":\"dig\",\"args\":{}}\n",
    "a:{\"toolCallId\":\"c1\",\"result\":\"deep\"}\n",
    "e:{\"finishReason\":\"stop\",\"usage\":{\"promptTokens\":10,\"completionTokens\":20},\"isContinued\":false}\n",
    "d:{\"finishReason\":\"stop\",\"usage\":{\"promptTokens\":10,\"completionTokens\":20}}\n",
];

/// Google's API reference, `GenerateContentResponse`.
const GEMINI: [&str; 3] = [
    r#"{"candidates":[{"content":{"parts":[{"text":"Hm","thought":true}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":8,"totalTokenCount":8},"modelVersion":"gemini-2.5-flash","responseId":"g1"}"#,
    r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":8,"totalTokenCount":9},"modelVersion":"gemini-2.5-flash","responseId":"g1"}"#,
    r#"{"candidates":[{"content":{"parts":[{"text":" there"}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":8,"cachedContentTokenCount":2,"candidatesTokenCount":5,"thoughtsTokenCount":16,"totalTokenCount":29},"modelVersion":"gemini-2.5-flash","responseId":"g1"}"#,
];

const GEMINI_ERROR: &str = "{\n  \"error\": {\n    \"code\": 503,\n    \"message\": \"overloaded\",\n    \"status\": \"UNAVAILABLE\"\n  }\n}\n";

fn sse(dialect: Dialect, parts: &[&str]) -> Reading {
    read(gauge(dialect, Framing::Sse), parts)
}

fn usage(reading: &Reading) -> [Option<u64>; 5] {
    let Usage { input, cached_input, cache_write, output, reasoning, .. } = reading.usage;
    [input, cached_input, cache_write, output, reasoning]
}

#[test]
fn responses_are_read_whole() {
    for guess in [Dialect::OpenAiResponses, Dialect::PlainSse] {
        let reading = sse(guess, &RESPONSES);
        assert_eq!((milestones(&reading), reading.token_frames), ([Some(4), Some(6), Some(7)], 3), "{guess:?}");
        assert_eq!(usage(&reading), [Some(36), Some(4), None, Some(87), Some(64)]);
        assert_eq!(
            (reading.finish_reasons.as_slice(), reading.normal_end),
            (["completed".to_owned()].as_slice(), true)
        );
        assert_eq!(reading.response_id.as_deref(), Some("resp_1"));
        assert_eq!((reading.response_model.as_deref(), reading.error), (Some("gpt-5-mini"), None));
    }
    assert!(!sse(Dialect::OpenAiResponses, &RESPONSES[..8]).normal_end);
}

#[test]
fn responses_may_fail_or_stay_incomplete() {
    let failures = [
        (
            "{\"type\":\"error\",\"code\":\"rate_limit\",\"message\":\"slow down\",\"param\":null}",
            "rate_limit: slow down",
        ),
        ("{\"type\":\"error\",\"error\":{\"type\":\"server_error\",\"message\":\"m\"}}", "server_error: m"),
        (
            "{\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"c\",\"message\":\"m\"}}}",
            "m",
        ),
        ("{\"type\":\"response.failed\",\"response\":null}", "the response failed"),
    ];
    for (data, expected) in failures {
        let reading = sse(Dialect::OpenAiResponses, &[RESPONSES[0], &format!("data: {data}\n\n")]);
        assert_eq!((reading.error.as_deref(), reading.normal_end), (Some(expected), false), "{data}");
    }
    let incomplete = "data: {\"type\":\"response.incomplete\",\"response\":{\"status\":\"incomplete\",\"incomplete_details\":{\"reason\":\"max_output_tokens\"}}}\n\n";
    let reading = sse(Dialect::OpenAiResponses, &[RESPONSES[0], RESPONSES[5], incomplete]);
    assert_eq!(
        (reading.finish_reasons.as_slice(), reading.normal_end),
        (["max_output_tokens".to_owned()].as_slice(), true)
    );
}

#[test]
fn tool_input_and_pictures_of_responses_are_answers() {
    for event in [
        r#"{"type":"response.function_call_arguments.delta","delta":"{"}"#,
        r#"{"type":"response.refusal.delta","delta":"no"}"#,
        r#"{"type":"response.custom_tool_call_input.delta","delta":"ls"}"#,
        r#"{"type":"response.image_generation_call.partial_image","partial_image_b64":"AAAA"}"#,
    ] {
        let reading = sse(Dialect::OpenAiResponses, &[&format!("data: {event}\n\n")]);
        assert_eq!(milestones(&reading), [Some(1); 3], "{event}");
    }
    // The last event repeats a picture of more than a mebibyte.
    let picture = format!("event: response.completed\ndata: {{\"x\":\"{}\"}}\n\n", "A".repeat(EVENT_LIMIT));
    assert!(sse(Dialect::OpenAiResponses, &[RESPONSES[0], &picture]).normal_end);
    assert!(!sse(Dialect::Anthropic, &[&picture]).normal_end);
}

#[test]
fn gemini_streams_events_or_an_array() {
    let events = GEMINI.map(|json| format!("data: {json}\r\n\r\n"));
    let array = [format!("[{}", GEMINI[0]), format!(",\r\n{}", GEMINI[1]), format!(",\r\n{}\n]\n", GEMINI[2])];
    let kinds = [
        (Dialect::Gemini, Framing::Sse, events.clone()),
        (Dialect::PlainSse, Framing::Sse, events),
        (Dialect::Gemini, Framing::Json, array),
    ];
    for (guess, framing, parts) in kinds {
        let reading = read(gauge(guess, framing), &parts.each_ref().map(String::as_str));
        assert_eq!((milestones(&reading), reading.frames), ([Some(1), Some(2), Some(3)], 3), "{guess:?} {framing:?}");
        assert_eq!(usage(&reading), [Some(8), Some(2), None, Some(21), Some(16)]);
        assert_eq!((reading.finish_reasons.as_slice(), reading.normal_end), (["STOP".to_owned()].as_slice(), true));
        assert_eq!(reading.response_id.as_deref(), Some("g1"));
        assert_eq!(reading.response_model.as_deref(), Some("gemini-2.5-flash"));
        assert!(!read(gauge(guess, framing), &[&parts[0], &parts[1]]).normal_end);
    }
    let whole = read(gauge(Dialect::Gemini, Framing::Json), &[GEMINI[2]]);
    assert_eq!((milestones(&whole), whole.usage.output, whole.normal_end), ([None; 3], Some(21), true));
    let blocked =
        "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"},\"usageMetadata\":{\"promptTokenCount\":4}}\n\n";
    let reading = sse(Dialect::Gemini, &[blocked]);
    assert_eq!((reading.finish_reasons.as_slice(), reading.normal_end), (["SAFETY".to_owned()].as_slice(), true));
    let call =
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"dig\",\"args\":{}}}]}}]}\n\n";
    assert_eq!(milestones(&sse(Dialect::Gemini, &[call])), [Some(1); 3]);
}

#[test]
fn geminis_sound_has_its_own_price() {
    let told = r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}],"modelVersion":"gemini-2.5-flash",
        "usageMetadata":{"promptTokenCount":1000,"cachedContentTokenCount":100,"candidatesTokenCount":20,"totalTokenCount":1020,
        "promptTokensDetails":[{"modality":"TEXT","tokenCount":200},{"modality":"AUDIO","tokenCount":800}],
        "cacheTokensDetails":[{"modality":"AUDIO","tokenCount":100}],"candidatesTokensDetails":[{"modality":"TEXT","tokenCount":20}]}}"#
        .replace('\n', "");
    let price = catalogue().find(Some("gcp.gemini"), "gemini-2.5-flash").unwrap().price;
    let (text, sound) = (price.base, price.sound.unwrap());
    assert!(sound.input > text.input);
    let cost = (200 * text.input + 100 * text.cached_input + 700 * sound.input + 20 * text.output) / 1_000_000;
    for framing in [Framing::Sse, Framing::Json] {
        let stream = if framing == Framing::Sse { format!("data: {told}\n\n") } else { told.clone() };
        let reading = read(gauge(Dialect::Gemini, framing), &[&stream]);
        assert_eq!((reading.usage.input_audio, reading.usage.output_audio), (Some(700), None), "{framing:?}");
        assert_eq!(price.cost(&reading.usage), Cost(cost), "{framing:?}");
    }
}

#[test]
fn gemini_errors_come_in_any_dress() {
    let event = format!("data: {}\n\n", GEMINI[0]);
    let compact = format!("data: {}\n\n", GEMINI_ERROR.replace('\n', ""));
    let array = format!("[{GEMINI_ERROR}]");
    let kinds: [(Framing, &[&str]); 6] = [
        (Framing::Sse, &[GEMINI_ERROR]),
        (Framing::Sse, &[&event, GEMINI_ERROR]),
        (Framing::Sse, &[&event, &compact]),
        (Framing::Json, &[GEMINI_ERROR]),
        (Framing::Json, &[&array]),
        (Framing::Opaque, &[GEMINI_ERROR]),
    ];
    for (framing, parts) in kinds {
        let reading = read(gauge(Dialect::Gemini, framing), parts);
        assert_eq!(reading.error.as_deref(), Some("UNAVAILABLE: overloaded"), "{framing:?} {parts:?}");
    }
    // The bare object is no part of any event stream.
    let bare = sse(Dialect::OpenAiChat, &["data: {\"choices\":[]}\n\n", "{\"a\":1}\n\n"]);
    assert_eq!((bare.error, bare.token_frames), (None, 0));
}

#[test]
fn ui_message_streams_are_read_whole() {
    for guess in [Dialect::VercelUi, Dialect::PlainSse] {
        let reading = sse(guess, &UI);
        assert_eq!((milestones(&reading), reading.token_frames), ([Some(4), Some(8), Some(8)], 2), "{guess:?}");
        assert_eq!(usage(&reading), [Some(11), Some(2), None, Some(7), Some(3)]);
        assert_eq!((reading.finish_reasons.as_slice(), reading.normal_end), (["stop".to_owned()].as_slice(), true));
        assert_eq!(reading.response_id.as_deref(), Some("msg_1"));
        assert!(!sse(guess, &UI[..10]).normal_end, "a step's end ends one call only");
        assert!(!sse(guess, &[UI[0], UI[7], UI[11]]).normal_end, "[DONE] alone is no success");
    }
    let details = "data: {\"type\":\"message-metadata\",\"messageMetadata\":{\"model\":\"m\",\"usage\":{\"inputTokens\":9,\"inputTokenDetails\":{\"cacheReadTokens\":4,\"cacheWriteTokens\":1},\"outputTokens\":6,\"outputTokenDetails\":{\"reasoningTokens\":2}}}}\n\n";
    let reading = sse(Dialect::VercelUi, &[details]);
    assert_eq!(
        (usage(&reading), reading.response_model.as_deref()),
        ([Some(9), Some(4), Some(1), Some(6), Some(2)], Some("m"))
    );
}

#[test]
fn ui_tool_input_and_errors_count() {
    let delta = "data: {\"type\":\"tool-input-delta\",\"toolCallId\":\"c\",\"inputTextDelta\":\"{\"}\n\n";
    let available =
        "data: {\"type\":\"tool-input-available\",\"toolCallId\":\"c\",\"toolName\":\"dig\",\"input\":{}}\n\n";
    assert_eq!(sse(Dialect::VercelUi, &[delta, available]).token_frames, 1);
    assert_eq!(milestones(&sse(Dialect::VercelUi, &[UI[0], available])), [Some(2); 3]);
    let error =
        sse(Dialect::VercelUi, &[UI[0], "data: {\"type\":\"error\",\"errorText\":\"boom\"}\n\n", UI[10], UI[11]]);
    assert_eq!((error.error.as_deref(), error.normal_end), (Some("boom"), false));
    assert!(sse(Dialect::VercelUi, &[UI[0], "data: {\"type\":\"abort\"}\n\n", UI[11]]).error.is_some());
}

#[test]
fn data_streams_are_read_under_any_label() {
    let kinds = [
        (Dialect::VercelData, Framing::JsonLines),
        (Dialect::VercelData, Framing::Sse),
        (Dialect::VercelData, Framing::Opaque),
        (Dialect::PlainSse, Framing::Sse),
        (Dialect::PlainSse, Framing::Opaque),
    ];
    for (guess, framing) in kinds {
        let mut gauge = gauge(guess, framing);
        for byte in DATA[0].as_bytes() {
            gauge.feed(&[*byte], ms(0));
        }
        assert_eq!(
            (gauge.dialect(), gauge.framing()),
            (Dialect::VercelData, Framing::JsonLines),
            "{guess:?} {framing:?}"
        );
        let reading = read(gauge, &DATA[1..]);
        assert_eq!((milestones(&reading), reading.token_frames), ([Some(1), Some(3), Some(4)], 4));
        assert_eq!(usage(&reading), [Some(10), None, None, Some(20), None]);
        assert_eq!((reading.finish_reasons.as_slice(), reading.normal_end), (["stop".to_owned()].as_slice(), true));
        assert_eq!(reading.response_id.as_deref(), Some("msg-1"));
    }
    let lines = |parts: &[&str]| read(gauge(Dialect::VercelData, Framing::JsonLines), parts);
    assert!(!lines(&DATA[..7]).normal_end);
    assert_eq!(milestones(&lines(&["9:{\"toolCallId\":\"c\",\"toolName\":\"t\",\"args\":{}}\n"])), [Some(1); 3]);
    let error = lines(&[DATA[3], "3:\"An error occurred.\"\n", DATA[7]]);
    assert_eq!((error.error.as_deref(), error.normal_end), (Some("An error occurred."), false));
    let unknown = "d:{\"finishReason\":\"stop\",\"usage\":{\"promptTokens\":null,\"completionTokens\":null}}\n";
    let steps = lines(&[DATA[6], DATA[6], unknown]);
    assert_eq!(usage(&steps), [Some(20), None, None, Some(40), None], "the steps' sum where the end tells none");
    let text = read(gauge(Dialect::PlainSse, Framing::Opaque), &["0", ": nothing"]);
    assert_eq!((text.token_frames, text.normal_end), (1, true));
}

/// vLLM's, llama.cpp's and Groq's last chunks, and Ollama's last line.
#[test]
fn backends_may_tell_their_own_times() {
    let vectors = [
        (
            Dialect::OpenAiChat,
            "{\"choices\":[],\"metrics\":{\"time_to_first_token_ms\":12.5,\"queue_time_ms\":2,\"generation_time_ms\":-1}}\n",
            ServerTimings {
                queue: Some(ms(2)),
                prefill: Some(Duration::from_micros(12_500)),
                ..ServerTimings::default()
            },
        ),
        (
            Dialect::OpenAiChat,
            "{\"choices\":[],\"timings\":{\"prompt_n\":1,\"prompt_ms\":30,\"predicted_ms\":1e300}}\n",
            ServerTimings { prefill: Some(ms(30)), ..ServerTimings::default() },
        ),
        (
            Dialect::OpenAiChat,
            "{\"choices\":[],\"x_groq\":{\"usage\":{\"queue_time\":0.001,\"prompt_time\":0.02,\"completion_time\":1e99}}}\n",
            ServerTimings { queue: Some(ms(1)), prefill: Some(ms(20)), ..ServerTimings::default() },
        ),
        (
            Dialect::Ollama,
            "{\"model\":\"l\",\"done\":true,\"load_duration\":-1,\"prompt_eval_duration\":5000000,\"eval_duration\":70000000}\n",
            ServerTimings { prefill: Some(ms(5)), generation: Some(ms(70)), ..ServerTimings::default() },
        ),
    ];
    for (dialect, line, expected) in vectors {
        assert_eq!(read(gauge(dialect, Framing::JsonLines), &[line]).server.as_deref(), Some(&expected), "{line}");
    }
}

#[test]
fn sound_is_told_apart_from_text() {
    let chat = r#"{"id":"c","choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":90,
        "completion_tokens":60,"prompt_tokens_details":{"audio_tokens":40},"completion_tokens_details":{"audio_tokens":50}}}"#;
    let chunk = format!("data: {}\n\n", chat.replace('\n', " "));
    let mistral = r#"{"choices":[],"usage":{"prompt_audio_seconds":2,"prompt_tokens":4,"completion_tokens":3,"total_tokens":60}}"#;
    let transcript = r#"{"text":"Hi","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":4,
        "audio_tokens":10},"output_tokens":5,"total_tokens":19}}"#;
    for (dialect, framing, text, sound) in [
        (Dialect::OpenAiChat, Framing::Json, chat, (Some(40), Some(50))),
        (Dialect::OpenAiChat, Framing::Sse, &*chunk, (Some(40), Some(50))),
        (Dialect::OpenAiChat, Framing::Json, mistral, (Some(53), None)),
        (Dialect::OpenAiResponses, Framing::Json, transcript, (Some(10), None)),
    ] {
        let usage = read(gauge(dialect, framing), &[text]).usage;
        assert_eq!((usage.input_audio, usage.output_audio), sound, "{text}");
        assert!(usage.input > usage.input_audio, "sound is a part of all: {usage:?}");
    }
}

#[test]
fn responses_in_the_background_are_told() {
    let response = |status: &str, background: &str| {
        format!(r#"{{"id":"r","object":"response","status":"{status}"{background},"model":"m","usage":null}}"#)
    };
    let flag = r#","background":true"#;
    for (status, background, expected) in [
        ("queued", flag, Background::Running),
        ("queued", "", Background::Running),
        ("in_progress", "", Background::Running),
        ("completed", flag, Background::Ended),
        ("cancelled", flag, Background::Ended),
        ("completed", r#","background":false"#, Background::No),
        ("completed", r#","background":"yes""#, Background::No),
    ] {
        let reading = read(gauge(Dialect::OpenAiResponses, Framing::Json), &[&*response(status, background)]);
        assert_eq!((reading.background, reading.normal_end), (expected, true), "{status} {background}");
    }
    assert_eq!(sse(Dialect::OpenAiResponses, &RESPONSES).background, Background::No, "it only has not ended yet");
    assert_eq!(sse(Dialect::OpenAiResponses, &RESPONSES[..4]).background, Background::No);
    let event = |kind: &str, status| {
        format!("data: {{\"type\":\"response.{kind}\",\"response\":{}}}\n\n", response(status, flag))
    };
    let (created, completed) = (event("created", "queued"), event("completed", "completed"));
    assert_eq!(sse(Dialect::OpenAiResponses, &[&*created]).background, Background::Running);
    assert_eq!(sse(Dialect::OpenAiResponses, &[&*created, &*completed]).background, Background::Ended);
    let interaction = |status: &str| format!(r#"{{"id":"i","object":"interaction","status":"{status}"}}"#);
    let shape = Dialect::named("gemini-interactions").unwrap();
    let told = |status| read(gauge(shape, Framing::Json), &[&*interaction(status)]).background;
    assert_eq!((told("in_progress"), told("completed")), (Background::Running, Background::No));
}
