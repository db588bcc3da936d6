use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::llm::{Dialect, Framing, Gauge};

fn asked(body: &str) -> Option<String> {
    with_usage(body.as_bytes()).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

#[test]
fn the_wish_is_spliced_in() {
    let vectors = [
        (r#"{"stream":true}"#, Some(r#"{"stream_options":{"include_usage":true},"stream":true}"#)),
        (" {\n\"a\" : 1.50 } ", Some(" {\"stream_options\":{\"include_usage\":true},\n\"a\" : 1.50 } ")),
        ("{ }", Some("{\"stream_options\":{\"include_usage\":true} }")),
        (r#"{"stream_options": null ,"x":1}"#, Some(r#"{"stream_options": {"include_usage":true} ,"x":1}"#)),
        (r#"{"stream_options":{}}"#, Some(r#"{"stream_options":{"include_usage":true}}"#)),
        (r#"{"stream_options":{ "y":{}}}"#, Some(r#"{"stream_options":{"include_usage":true, "y":{}}}"#)),
        (r#"{"stream_options":{"include_usage" : false}}"#, Some(r#"{"stream_options":{"include_usage" : true}}"#)),
        (
            r#"{"stream\u005foptions":{"include_usage":null}}"#,
            Some(r#"{"stream\u005foptions":{"include_usage":true}}"#),
        ),
        (
            r#"{"stream_options":null,"stream_options":{"include_usage":false,"include_usage":null}}"#,
            Some(
                r#"{"stream_options":{"include_usage":true},"stream_options":{"include_usage":true,"include_usage":true}}"#,
            ),
        ),
        (
            r#"{"x":{"stream_options":{}},"y":"stream_options"}"#,
            Some(r#"{"stream_options":{"include_usage":true},"x":{"stream_options":{}},"y":"stream_options"}"#),
        ),
        (r#"{"stream_options":{"include_usage":true}}"#, None),
        (r#"{"stream_options":null,"stream_options":{"include_usage":true}}"#, None),
        (r#"{"stream_options":{"include_usage":"yes"}}"#, None),
        (r#"{"stream_options":[]}"#, None),
        (r#"{"stream_options":"x"}"#, None),
        (r#"["stream_options"]"#, None),
        (r#"{"stream":true"#, None),
        (r#"{"stream":true}}"#, None),
        ("", None),
    ];
    for (body, expected) in vectors {
        assert_eq!(asked(body).as_deref(), expected, "{body}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), any::<String>().prop_map(Value::from)];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let fields = prop::collection::vec(("stream_options|include_usage|[a-z\"\\\\{}]{0,6}", inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn all_else_of_a_request_stays(body in any_json()) {
        let text = serde_json::to_string_pretty(&body).unwrap();
        let Some(edited) = asked(&text) else { return Ok(()) };
        let mut expected = body;
        let options = &mut expected["stream_options"];
        if !options.is_object() {
            *options = json!({});
        }
        options["include_usage"] = true.into();
        prop_assert_eq!(serde_json::from_str::<Value>(&edited).unwrap(), expected);
        // With the one edit undone it is the client's text again.
        let (options, wish) = (format!("{OPTIONS},"), format!("{WISH},"));
        let edits = [
            (options.as_str(), ""), (OPTIONS, ""), ("{\"include_usage\":true}", "null"), (wish.as_str(), ""), (WISH, ""),
            ("true", "false"), ("true", "null"),
        ];
        let undone = edits.iter().any(|(new, old)| {
            edited.match_indices(new).any(|(at, _)| format!("{}{old}{}", &edited[..at], &edited[at + new.len()..]) == text)
        });
        prop_assert!(undone, "{text} became {edited}");
    }

    #[test]
    fn any_bytes_are_survived(body in prop::collection::vec(any::<u8>(), 0..64)) {
        with_usage(&body);
    }
}

const USAGE: &str = r#"data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12}}"#;

/// The client's bytes, and how many were taken out, of a stream that comes in pieces of these lengths.
fn filtered(stream: &str, lengths: &[usize]) -> (String, u64) {
    let (mut filter, mut out) = (UsageFilter::default(), Vec::new());
    let mut gauge = Gauge::new(Dialect::OpenAiChat, Framing::Sse, Arc::default(), Duration::MAX);
    let mut rest = Bytes::copy_from_slice(stream.as_bytes());
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let piece = rest.split_to((*length).min(rest.len()));
        let only_tokens = !gauge.feed(&piece, Duration::ZERO).other && gauge.dialect() == Dialect::OpenAiChat;
        filter.pass(piece, only_tokens, &mut out);
        assert!(out.iter().all(|piece| !piece.is_empty()));
    }
    filter.finish(&mut out);
    (String::from_utf8(out.concat()).unwrap(), filter.taken())
}

#[test]
fn only_the_usage_chunk_is_taken_out() {
    let kept = [
        r#"data: {"choices":[{"delta":{"content":"\"usage\""}}],"usage":null}"#,
        r#"data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#,
        r#"data: {"choices":[],"usage":null}"#,
        r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":9}}"#,
        r#"data: {"usage":{"prompt_tokens":9}}"#,
        r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}],"usage":{"prompt_tokens":9}}"#,
        r#"data: {"choices":[{"text":"a"}],"usage":{"prompt_tokens":9}}"#,
        ": \"usage\" \"choices\":[]",
        "data: [DONE]",
    ];
    for end in ["\n", "\r\n", "\r"] {
        let joined = |events: &[&str]| events.iter().map(|event| format!("{event}{end}{end}")).collect::<String>();
        let whole = joined(&kept);
        let with = [&kept[..8], &[USAGE], &kept[8..]].concat();
        let taken = USAGE.len() + 2 * end.len();
        for length in [1, 2, 3, 7, 64, 10_000] {
            assert_eq!(filtered(&joined(&with), &[length]), (whole.clone(), taken as u64), "{end:?} {length}");
        }
        assert_eq!(filtered(&format!("{whole}{USAGE}"), &[5]).0, whole, "the last blank line is missing");
    }
}

#[test]
fn the_chunk_is_known_whoever_shapes_it() {
    // LiteLLM's has a choice, llama.cpp's its times.
    let litellm = r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":null}}],"usage":{"prompt_tokens":9}}"#;
    let llama = r#"data: {"choices":[],"usage":{"prompt_tokens":9},"timings":{"prompt_ms":1.5}}"#;
    for chunk in [litellm, llama] {
        let stream = format!("{chunk}\n\ndata: [DONE]\n\n");
        assert_eq!(filtered(&stream, &[7]).0, "data: [DONE]\n\n", "{chunk}");
    }
    for (leaves, kept) in [(true, true), (false, false)] {
        let (mut filter, mut out) = (UsageFilter::new(leaves), Vec::new());
        filter.pass(Bytes::from(format!("{llama}\n\n")), false, &mut out);
        assert_eq!(!out.is_empty(), kept);
    }
    assert!(wants_timings(br#"{"stream":true,"timings_per_token":true}"#));
    assert!(!wants_timings(br#"{"timings_per_token":false}"#) && !wants_timings(b"[]"));
}

#[test]
fn errors_in_one_piece_are_known() {
    for json in [r#"{"error":{"message":"m"}}"#, r#"{"error":"m","choices":[]}"#] {
        assert!(is_error(json.as_bytes()), "{json}");
    }
    for json in [r#"{"error":null,"choices":[1]}"#, "{}", "[]", ""] {
        assert!(!is_error(json.as_bytes()), "{json}");
    }
}

#[test]
fn whole_events_pass_at_once_and_as_they_came() {
    let mut filter = UsageFilter::default();
    let chunk = Bytes::from(format!("data: 1\n\ndata: 2\n\n{USAGE}\n\ndata: 3\n\ndata: 4"));
    let mut out = Vec::new();
    filter.pass(chunk.clone(), false, &mut out);
    assert_eq!(out, ["data: 1\n\ndata: 2\n\n", "data: 3\n\n"]);
    assert_eq!(out[0].as_ptr(), chunk.as_ptr(), "a slice, no copy");
    out.clear();
    filter.pass(Bytes::from_static(b"\n\n"), true, &mut out);
    assert_eq!(out.concat(), b"data: 4\n\n");
}

#[test]
fn an_endless_event_is_not_held() {
    let (mut filter, mut out) = (UsageFilter::default(), Vec::new());
    let mut passed = 0;
    for _ in 0..100 {
        filter.pass(Bytes::from(vec![b'x'; 10_000]), true, &mut out);
        passed += out.drain(..).map(|piece| piece.len()).sum::<usize>();
        assert!(filter.held_bytes <= HELD_MAX);
    }
    assert!(passed >= 1_000_000 - HELD_MAX);
    filter.pass(Bytes::from(format!("\n\n{USAGE}\n\ndata: 1\n\n")), false, &mut out);
    assert_eq!(out.concat(), b"\n\ndata: 1\n\n");
}

proptest! {
    #[test]
    fn every_byte_but_the_frames_passes_in_any_pieces(
        events in prop::collection::vec(prop_oneof![
            3 => Just(r#"data: {"choices":[{"delta":{"content":" river"}}],"usage":null}"#),
            1 => Just(USAGE), 1 => Just(": ping"), 1 => Just(""), 1 => Just("event: x\ndata: a\ndata: b"),
        ], 0..12),
        end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        lengths in prop::collection::vec(1_usize..90, 1..12),
    ) {
        let text = |event: &&str| format!("{}{end}{end}", event.replace('\n', end));
        let stream: String = events.iter().map(text).collect();
        let expected: String = events.iter().filter(|event| **event != USAGE).map(text).collect();
        let (passed, taken) = filtered(&stream, &lengths);
        prop_assert_eq!(taken as usize, stream.len() - expected.len());
        prop_assert_eq!(passed, expected);
    }
}
