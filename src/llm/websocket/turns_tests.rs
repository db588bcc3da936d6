use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A conversation that the client and the server (`false`) hold, and what happened in it.
fn talk(model: Option<&str>, said: &[(bool, u64, &str)]) -> (Turns, Vec<Happened>) {
    let mut turns = Turns::new(model, ms(1_000));
    for (by_client, at, text) in said {
        if *by_client {
            turns.client(text.as_bytes(), ms(*at));
        } else {
            turns.server(text.as_bytes(), ms(*at));
        }
    }
    let happened = turns.happened();
    (turns, happened)
}

fn ended(happened: Vec<Happened>) -> Vec<Ended> {
    let only = |happened| if let Happened::Ended(ended) = happened { Some(*ended) } else { None };
    happened.into_iter().filter_map(only).collect()
}

const DONE: &str = r#"{"type":"response.done","response":{"id":"resp_1","status":"completed","usage":{"total_tokens":253,
    "input_tokens":132,"output_tokens":121,"input_token_details":{"text_tokens":92,"audio_tokens":40,"cached_tokens":64,
    "cached_tokens_details":{"text_tokens":54,"audio_tokens":10}},"output_token_details":{"text_tokens":30,"audio_tokens":91}}}}"#;

#[test]
fn a_realtime_response_is_asked_for_heard_and_priced() {
    let (_, happened) = talk(
        None,
        &[
            (false, 0, r#"{"type":"session.created","session":{"id":"s","model":"gpt-realtime"}}"#),
            (true, 100, r#"{"type":"conversation.item.create","item":{"type":"message"}}"#),
            (true, 110, r#"{"type":"response.create","response":{"max_output_tokens":200}}"#),
            (false, 150, r#"{"type":"response.created","response":{"id":"resp_1","status":"in_progress"}}"#),
            (false, 160, r#"{"type":"response.output_item.added","response_id":"resp_1","item":{"id":"i"}}"#),
            (false, 300, r#"{"type":"response.output_audio.delta","response_id":"resp_1","delta":"AAAA"}"#),
            (false, 320, r#"{"type":"response.output_audio_transcript.delta","response_id":"resp_1","delta":"Hi"}"#),
            (false, 500, DONE),
        ],
    );
    let Some(Happened::Asked(asked)) = happened.first() else { panic!("{happened:?}") };
    assert_eq!((asked.facts.model.as_deref(), asked.facts.max_tokens), (Some("gpt-realtime"), Some(200)));
    assert!(matches!(happened.get(1), Some(Happened::Generated { turn: 0, tokens: 1 })), "{happened:?}");
    let all = ended(happened);
    let [one] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((one.asked_at, one.ended_at, one.cancelled), (ms(110), ms(500), false));
    let reading = &one.reading;
    assert_eq!(
        (reading.first_byte, reading.first_token, reading.first_answer),
        (Some(ms(40)), Some(ms(190)), Some(ms(190)))
    );
    let usage = Usage {
        input: Some(132),
        cached_input: Some(64),
        output: Some(121),
        input_audio: Some(30),
        output_audio: Some(91),
        ..Usage::default()
    };
    assert_eq!((reading.usage, reading.usage_source), (usage, UsageSource::Reported));
    assert_eq!((reading.response_id.as_deref(), reading.normal_end), (Some("resp_1"), true));
}

#[test]
fn responses_over_a_websocket_are_read_as_their_events() {
    let completed = r#"{"type":"response.completed","response":{"id":"r1","model":"gpt-5-2025-08-07","status":"completed",
        "usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":4},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":64}}}}"#;
    let (_, happened) = talk(
        None,
        &[
            (true, 10, r#"{"type":"response.create","model":"gpt-5","input":"hello","max_output_tokens":9}"#),
            (false, 20, r#"{"type":"response.created","response":{"id":"r1","model":"gpt-5-2025-08-07"}}"#),
            (false, 30, r#"{"type":"response.reasoning_summary_text.delta","delta":"hm"}"#),
            (false, 40, r#"{"type":"response.output_text.delta","delta":"Hello"}"#),
            (false, 50, completed),
            (true, 60, r#"{"type":"response.create","previous_response_id":"r1","input":"and?"}"#),
        ],
    );
    let prompts: Vec<_> = happened
        .iter()
        .filter_map(|happened| if let Happened::Asked(asked) = happened { Some(asked.clone()) } else { None })
        .collect();
    assert_eq!(prompts.iter().map(|asked| asked.facts.model.as_deref()).collect::<Vec<_>>(), [Some("gpt-5"); 2]);
    assert!(prompts[1].prompt > 36 + 87, "what was said before is read again: {prompts:?}");
    let all = ended(happened);
    let reading = &all[0].reading;
    assert_eq!((reading.first_token, reading.first_answer), (Some(ms(20)), Some(ms(30))));
    assert_eq!((reading.usage.reasoning, reading.usage.cached_input), (Some(64), Some(4)));
    assert_eq!(reading.response_model.as_deref(), Some("gpt-5-2025-08-07"));
}

#[test]
fn a_voice_asks_without_the_client() {
    let (_, happened) = talk(
        Some("gpt-realtime"),
        &[
            (false, 400, r#"{"type":"input_audio_buffer.speech_stopped"}"#),
            (false, 450, r#"{"type":"response.created","response":{"id":"resp_1"}}"#),
            (false, 500, DONE),
        ],
    );
    assert!(matches!(&happened[0], Happened::Asked(asked) if asked.facts.model.as_deref() == Some("gpt-realtime")));
    let all = ended(happened);
    assert_eq!((all[0].asked_at, all[0].reading.first_byte), (ms(400), Some(ms(50))));
}

#[test]
fn a_transcript_beside_the_responses_is_told_with_its_own_model() {
    let (_, happened) = talk(
        Some("gpt-realtime"),
        &[
            (
                false,
                0,
                r#"{"type":"session.created","session":{"model":"gpt-realtime","audio":{"input":{"transcription":null}}}}"#,
            ),
            (
                false,
                1,
                r#"{"type":"session.updated","session":{"audio":{"input":{"transcription":{"model":"gpt-4o-transcribe"}}}}}"#,
            ),
            (false, 400, r#"{"type":"input_audio_buffer.committed","item_id":"i"}"#),
            (
                false,
                450,
                r#"{"type":"conversation.item.input_audio_transcription.completed","item_id":"i","transcript":"Hello",
                    "usage":{"type":"tokens","total_tokens":22,"input_tokens":13,"input_token_details":{"text_tokens":3,
                    "audio_tokens":10},"output_tokens":9}}"#,
            ),
            (
                false,
                500,
                r#"{"type":"conversation.item.input_audio_transcription.completed","usage":{"type":"duration","seconds":3}}"#,
            ),
        ],
    );
    let all = ended(happened);
    let [one] = all.as_slice() else { panic!("what is billed by time tells no tokens: {all:?}") };
    assert_eq!((one.facts.operation, one.facts.model.as_deref()), (Some("transcription"), Some("gpt-4o-transcribe")));
    assert_eq!((one.asked_at, one.ended_at, one.unannounced), (ms(400), ms(450), true));
    let usage = Usage { input: Some(13), output: Some(9), input_audio: Some(10), ..Usage::default() };
    assert_eq!((one.reading.usage, one.reading.usage_source), (usage, UsageSource::Reported));
    let before = r#"{"type":"session.created","session":{"input_audio_transcription":{"model":"whisper-2"}}}"#;
    let heard = r#"{"type":"conversation.item.input_audio_transcription.completed","usage":{"input_tokens":1,"output_tokens":1}}"#;
    let (_, happened) = talk(None, &[(false, 0, before), (false, 1, heard)]);
    assert_eq!(ended(happened)[0].facts.model.as_deref(), Some("whisper-2"));
}

#[test]
fn a_response_in_the_background_outlives_its_connection() {
    let (mut turns, _) = talk(
        None,
        &[
            (true, 0, r#"{"type":"response.create","model":"m","input":"x","background":true}"#),
            (false, 1, r#"{"type":"response.created","response":{"id":"r","status":"queued","background":true}}"#),
        ],
    );
    turns.close(ms(5));
    let all = ended(turns.happened());
    let reading = &all[0].reading;
    assert_eq!((reading.background, reading.usage.is_known()), (Background::Running, false));
    let (_, happened) = talk(
        None,
        &[
            (true, 0, r#"{"type":"response.create","model":"m","input":"x"}"#),
            (false, 1, r#"{"type":"response.created","response":{"id":"r","status":"queued"}}"#),
            (
                false,
                2,
                r#"{"type":"response.completed","response":{"id":"r","status":"completed","usage":{"input_tokens":1,"output_tokens":2}}}"#,
            ),
        ],
    );
    assert_eq!(ended(happened)[0].reading.background, Background::Ended);
}

#[test]
fn failures_cancellations_and_lost_connections_are_told() {
    let failed = r#"{"type":"response.done","response":{"id":"a","status":"failed","status_details":{"type":"failed","error":{"message":"overloaded"}}}}"#;
    let cancelled = r#"{"type":"response.done","response":{"id":"b","status":"cancelled","status_details":{"reason":"turn_detected"},
        "usage":{"input_tokens":5,"output_tokens":1}}}"#;
    let (mut turns, happened) = talk(
        None,
        &[
            (true, 0, r#"{"type":"response.create","event_id":"e0"}"#),
            (
                false,
                1,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"of another","event_id":"e9"}}"#,
            ),
            (
                false,
                2,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"no such voice","event_id":"e0"}}"#,
            ),
            (true, 3, r#"{"type":"response.create"}"#),
            (false, 4, r#"{"type":"response.created","response":{"id":"a"}}"#),
            (false, 5, failed),
            (true, 6, r#"{"type":"response.create"}"#),
            (false, 7, r#"{"type":"response.created","response":{"id":"b"}}"#),
            (false, 8, cancelled),
            (true, 9, r#"{"type":"response.create"}"#),
            (false, 10, r#"{"type":"response.created","response":{"id":"c"}}"#),
            (false, 11, r#"{"type":"response.output_text.delta","response_id":"c","delta":"x"}"#),
        ],
    );
    let all = ended(happened);
    let told: Vec<_> = all.iter().map(|one| (one.reading.error.as_deref(), one.cancelled)).collect();
    assert_eq!(told, [(Some("no such voice"), false), (Some("overloaded"), false), (None, true)]);
    turns.close(ms(20));
    let all = ended(turns.happened());
    assert_eq!((all.len(), all[0].cancelled, all[0].reading.usage_source), (1, true, UsageSource::Estimated));
    assert_eq!(all[0].reading.usage.output, Some(1));
}

#[test]
fn other_talk_is_given_up_and_nothing_is_unbounded() {
    let mut turns = Turns::new(None, ms(1_000));
    for _ in 0..STRANGE_MAX {
        assert!(!turns.is_strange());
        turns.server(br#"{"type":"chat","text":"hello"}"#, ms(1));
    }
    assert!(turns.is_strange());
    let mut turns = Turns::new(None, ms(1_000));
    for at in 0..100 {
        turns.client(br#"{"type":"response.create"}"#, ms(at));
    }
    assert_eq!(turns.turns.len(), TURNS_MAX);
    assert!(!turns.is_strange());
    for odd in ["", "{", "[]", "null", "\u{1}", r#"{"type":7}"#, r#"{"type":"response.done"}"#] {
        turns.server(odd.as_bytes(), ms(1));
        turns.client(odd.as_bytes(), ms(1));
    }
}

#[test]
fn what_backends_may_take_for_something_else_is_told() {
    for (text, expected) in [
        (r#"{"type":"response.create"}"#, false),
        (r#"{"event_id":"e","type":"session.update","session":{"type":"realtime","Type":1}}"#, false),
        ("hello", false),
        ("[1]", false),
        ("{}", false),
        (r#"{"type":"session.update","type":"response.create"}"#, true),
        (r#"{"Type":"response.create"}"#, true),
        (r#"{"\u0074ype":"session.update","TYPE":"response.create"}"#, true),
        ("\u{feff}{\"type\":\"response.create\"}", true),
        (r#"{"type":"response.create","x":NaN}"#, true),
        (r#"{"type":"response.create""#, true),
    ] {
        assert_eq!(is_ambiguous(text.as_bytes()), expected, "{text}");
    }
    let wide: Vec<u8> = r#"{"type":"response.create"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(is_ambiguous(&wide));
}
