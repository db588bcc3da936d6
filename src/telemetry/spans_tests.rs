use opentelemetry::trace::SpanId;
use opentelemetry::{Array, Value};

use super::*;
use crate::llm::content::Prompt;
use crate::llm::message::{Message, Part};
use crate::llm::request::details::Details;
use crate::llm::{Framing, RequestFacts};
use crate::telemetry::records_for_tests::{attempt, chat, ms, plain, websocket};
use crate::telemetry::tail_sampling::SlowRules;

const SLOW: SlowRules = SlowRules { first_token: Duration::from_secs(5), gap: Duration::from_secs(2) };

fn tree(record: &Record) -> Vec<SpanData> {
    let mut spans = Vec::new();
    build(record, None, &InstrumentationScope::builder("test").build(), &mut spans);
    assert_eq!(spans.len() as u64, count(record));
    spans
}

fn value(span: &SpanData, name: &str) -> Option<Value> {
    let mut found = span.attributes.iter().filter(|attribute| attribute.key.as_str() == name);
    let value = found.next().map(|attribute| attribute.value.clone());
    assert!(found.next().is_none(), "{name} is there twice");
    value
}

fn events(span: &SpanData) -> Vec<(&str, Duration)> {
    let start = chat("x").started;
    span.events.iter().map(|event| (&*event.name, event.timestamp.duration_since(start).unwrap())).collect()
}

#[test]
fn a_chat_is_three_spans_with_the_ids_of_its_record() {
    let mut record = chat("gpt-4o");
    record.trace.parent = Some(0xfeed);
    let spans = tree(&record);
    let [server, logical, attempt] = &spans[..] else { panic!("{spans:#?}") };
    for (span, kind, name, id, parent) in [
        (server, SpanKind::Server, "POST /v1/chat/completions", 0x1, 0xfeed),
        (logical, SpanKind::Client, "chat gpt-4o", 0x2, 0x1),
        (attempt, SpanKind::Client, "POST", 0xa1, 0x2),
    ] {
        assert_eq!(span.span_context.trace_id(), TraceId::from(0xabc_u128));
        assert_eq!(span.span_context.span_id(), SpanId::from(id));
        assert_eq!(span.parent_span_id, SpanId::from(parent));
        assert_eq!((&span.span_kind, &*span.name), (&kind, name));
        assert_eq!(span.parent_span_is_remote, id == 0x1);
        assert!(span.span_context.is_sampled() && span.status == Status::Unset);
        assert_eq!(value(span, names::SAMPLED_LATE), None);
    }
    assert_eq!((server.start_time, server.end_time), (record.started, record.started + ms(137)));
    assert_eq!((attempt.start_time, attempt.end_time), (record.started + ms(1), record.started + ms(15)));
    assert_eq!((logical.start_time, logical.end_time), (attempt.start_time, attempt.end_time));
}

#[test]
fn the_logical_span_speaks_genai() {
    let spans = tree(&chat("gpt-4o"));
    let reasons = Value::Array(Array::String(vec!["stop".into()]));
    for (name, expected) in [
        ("gen_ai.operation.name", Value::from("chat")),
        ("gen_ai.provider.name", "openai".into()),
        ("gen_ai.request.model", "gpt-4o".into()),
        ("gen_ai.request.stream", true.into()),
        ("gen_ai.request.max_tokens", 256.into()),
        ("gen_ai.request.temperature", 0.7.into()),
        ("gen_ai.request.top_p", 0.9.into()),
        ("gen_ai.response.id", "chatcmpl-1".into()),
        ("gen_ai.response.model", "gpt-4o-2024-08-06".into()),
        ("gen_ai.response.finish_reasons", reasons),
        ("gen_ai.response.time_to_first_chunk", 0.03.into()),
        ("gen_ai.usage.input_tokens", 100.into()),
        ("gen_ai.usage.output_tokens", 11.into()),
        ("gen_ai.usage.cache_read.input_tokens", 40.into()),
        ("gen_ai.usage.cache_creation.input_tokens", 7.into()),
        ("gen_ai.usage.cache_write.input_tokens", 7.into()),
        ("gen_ai.usage.reasoning.output_tokens", 2.into()),
        ("gen_ai.usage.cost", 0.0003605.into()),
        ("llm.cost.total", 0.0003605.into()),
        ("user.id", "alice".into()),
    ] {
        assert_eq!(value(&spans[1], name), Some(expected), "{name}");
    }
    for span in [&spans[0], &spans[2]] {
        let doubled = span.attributes.iter().find(|attribute| attribute.key.as_str().starts_with("gen_ai."));
        assert!(doubled.is_none(), "{doubled:?} would be counted twice");
    }
    assert_eq!(
        events(&spans[1]),
        [("streamgauge.first_byte", ms(20)), ("streamgauge.first_token", ms(30)), ("streamgauge.first_answer", ms(40))]
    );
}

#[test]
fn a_request_for_an_answer_in_one_piece_is_not_said_to_stream() {
    let stream = |asked: Option<bool>, framing: Framing| {
        let mut record = chat("gpt-4o");
        let llm = record.llm.as_mut().unwrap();
        llm.request = Arc::new(RequestFacts { stream: asked, ..(*llm.request).clone() });
        llm.reading.framing = Some(framing);
        value(&tree(&record)[1], "gen_ai.request.stream")
    };
    assert_eq!(stream(Some(true), Framing::Json), Some(true.into()), "its error came in one piece");
    assert_eq!(stream(Some(false), Framing::Json), None);
    assert_eq!(stream(None, Framing::Json), None);
    assert_eq!(stream(None, Framing::JsonLines), Some(true.into()), "as Ollama does unasked");
}

#[test]
fn what_the_request_says_of_its_answer_is_told() {
    let mut record = chat("gpt-4o");
    let llm = record.llm.as_mut().unwrap();
    let details = Details {
        seed: Some(7),
        top_k: Some(40),
        frequency_penalty: Some(0.5),
        presence_penalty: Some(-0.5),
        stop_sequences: vec!["END".to_owned()],
        reasoning_level: Some("low".to_owned()),
        output_type: Some("json"),
        conversation_id: Some("conv-1".to_owned()),
        previous_response_id: Some("resp-1".to_owned()),
    };
    llm.request = Arc::new(RequestFacts { details, choices: 2, ..(*llm.request).clone() });
    let spans = tree(&record);
    for (name, expected) in [
        ("gen_ai.request.seed", Value::from(7)),
        ("gen_ai.request.top_k", 40.into()),
        ("gen_ai.request.frequency_penalty", 0.5.into()),
        ("gen_ai.request.presence_penalty", (-0.5).into()),
        ("gen_ai.request.stop_sequences", Value::Array(Array::String(vec!["END".into()]))),
        ("gen_ai.request.choice.count", 2.into()),
        ("gen_ai.request.reasoning.level", "low".into()),
        ("gen_ai.request.previous_response.id", "resp-1".into()),
        ("gen_ai.conversation.id", "conv-1".into()),
        ("gen_ai.output.type", "json".into()),
    ] {
        assert_eq!(value(&spans[1], name), Some(expected), "{name}");
    }
    assert_eq!(value(&tree(&chat("gpt-4o"))[1], "gen_ai.request.choice.count"), None, "one is what all ask for");
}

#[test]
fn a_stream_that_broke_off_has_an_error_for_a_finish_reason() {
    let mut record = chat("gpt-4o");
    let reading = &mut record.llm.as_mut().unwrap().reading;
    (reading.normal_end, reading.finish_reasons) = (false, Vec::new());
    let error = Value::Array(Array::String(vec!["error".into()]));
    assert_eq!(value(&tree(&record)[1], "gen_ai.response.finish_reasons"), Some(error));
    record.llm.as_mut().unwrap().reading.first_token = None;
    assert_eq!(value(&tree(&record)[1], "gen_ai.response.finish_reasons"), None, "nothing was begun");
}

#[test]
fn what_was_said_is_on_the_logical_span_alone() {
    let mut record = chat("gpt-4o");
    let message = |role: &str, text: &str| Message { role: role.to_owned(), parts: vec![Part::Text(text.to_owned())] };
    let system = vec![Part::Text("be brief".to_owned())];
    record.prompt = Some(Box::new(Prompt { system, messages: vec![message("user", "hi")] }));
    record.llm.as_mut().unwrap().reading.output = Some([message("assistant", "ho")].into());
    let spans = tree(&record);
    for (name, expected) in [
        ("gen_ai.system_instructions", r#"[{"content":"be brief","type":"text"}]"#),
        ("gen_ai.input.messages", r#"[{"parts":[{"content":"hi","type":"text"}],"role":"user"}]"#),
        (
            "gen_ai.output.messages",
            r#"[{"finish_reason":"stop","parts":[{"content":"ho","type":"text"}],"role":"assistant"}]"#,
        ),
    ] {
        assert_eq!(value(&spans[1], name), Some(expected.into()), "{name}");
        assert!(value(&spans[0], name).is_none() && value(&spans[2], name).is_none());
    }
}

#[test]
fn the_server_span_speaks_http_and_phases() {
    let spans = tree(&chat("gpt-4o"));
    for (name, expected) in [
        ("http.request.method", Value::from("POST")),
        ("url.path", "/v1/chat/completions".into()),
        ("network.protocol.version", "1.1".into()),
        ("http.response.status_code", 200.into()),
        ("client.address", "192.0.2.7".into()),
        ("client.port", 4711.into()),
        ("streamgauge.request_id", "req-1".into()),
        ("streamgauge.route", "chat".into()),
        ("streamgauge.upstream", "fastapi".into()),
        ("streamgauge.outcome", "completed".into()),
        ("streamgauge.bytes_out", 2_048.into()),
        ("streamgauge.phase.generation", 0.12.into()),
        ("streamgauge.config_generation", 3.into()),
    ] {
        assert_eq!(value(&spans[0], name), Some(expected), "{name}");
    }
    assert_eq!(value(&spans[0], "streamgauge.phase.receive"), None);
    assert_eq!(value(&spans[2], "server.address"), Some("127.0.0.1".into()));
    assert_eq!(value(&spans[2], "server.port"), Some(8000.into()));
    assert_eq!(value(&spans[2], "http.request.resend_count"), None);
}

#[test]
fn other_requests_have_no_logical_span() {
    let spans = tree(&plain());
    let [server, attempt] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!(&*server.name, "GET all", "paths with ids make poor names");
    assert_eq!(server.parent_span_id, SpanId::INVALID);
    assert_eq!(attempt.parent_span_id, server.span_context.span_id());
    let spans = tree(&websocket());
    assert_eq!(value(&spans[0], "streamgauge.websocket.messages_out"), Some(5.into()));
}

#[test]
fn failovers_and_stalls_are_events_in_the_order_of_time() {
    let mut record = chat("gpt-4o");
    let mut lost = attempt("primary", 0xa0);
    (lost.started, lost.ended, lost.status, lost.error) = (ms(1), ms(5), None, Some(ErrorType::ConnectRefused));
    record.attempts[0].started = ms(5);
    record.attempts[0].cause = Cause::Failover;
    record.attempts.insert(0, lost);
    record.llm.as_mut().unwrap().reading.slow_gaps = vec![(ms(50), ms(90)), (ms(30), ms(25))].into();
    let spans = tree(&record);
    assert_eq!(
        events(&spans[1]),
        [
            ("streamgauge.failover", ms(5)),
            ("streamgauge.first_byte", ms(20)),
            ("streamgauge.slow_gap", ms(25)),
            ("streamgauge.first_token", ms(30)),
            ("streamgauge.first_answer", ms(40)),
            ("streamgauge.slow_gap", ms(90)),
        ]
    );
    assert_eq!(value(&spans[2], "error.type"), Some("connect_refused".into()));
    assert_eq!(spans[2].status, Status::error("connect_refused"));
    assert_eq!(value(&spans[3], "http.request.resend_count"), Some(1.into()));
    assert_eq!(spans[3].status, Status::Unset);
    record.llm = None;
    assert_eq!(events(&tree(&record)[0]), [("streamgauge.failover", ms(5))]);
}

#[test]
fn a_linked_caller_is_no_parent() {
    let mut record = chat("gpt-4o");
    record.trace.link = Some((0xdead, 0xbeef));
    let server = tree(&record).remove(0);
    assert_eq!(server.parent_span_id, SpanId::INVALID);
    let link = &server.links[0].span_context;
    assert_eq!((link.trace_id(), link.span_id()), (TraceId::from(0xdead_u128), SpanId::from(0xbeef_u64)));
    assert!(link.is_remote());
}

#[test]
fn errors_are_marked_where_they_belong() {
    let marked = |outcome, error, status| {
        let mut record = chat("gpt-4o");
        (record.outcome, record.error, record.status) = (outcome, Some(error), status);
        let spans = tree(&record);
        assert_eq!(value(&spans[0], "error.type"), Some(error.as_str().into()));
        (spans[0].status != Status::Unset, spans[1].status != Status::Unset)
    };
    assert_eq!(marked(Outcome::UpstreamError, ErrorType::UpstreamStatus, Some(502)), (true, true));
    assert_eq!(marked(Outcome::Stalled, ErrorType::Stall, Some(200)), (true, true));
    assert_eq!(marked(Outcome::Completed, ErrorType::UpstreamStatus, Some(404)), (false, true));
    assert_eq!(marked(Outcome::ClientCancelled, ErrorType::ClientGone, Some(200)), (false, false));
}

#[test]
fn failed_and_slow_requests_are_worth_an_export() {
    let reason = |change: fn(&mut Record)| {
        let mut record = chat("gpt-4o");
        change(&mut record);
        SampleReason::reason(&record, SLOW)
    };
    let slow_first_token = |record: &mut Record| record.llm.as_mut().unwrap().reading.first_token = Some(ms(5_001));
    let slow_gap = |record: &mut Record| record.llm.as_mut().unwrap().reading.max_gap = Some(ms(2_001));
    assert_eq!(reason(|_| {}), None);
    assert_eq!(reason(slow_first_token), Some(SampleReason::SlowFirstToken));
    assert_eq!(reason(slow_gap), Some(SampleReason::SlowGap));
    assert_eq!(reason(|record| record.outcome = Outcome::Stalled), Some(SampleReason::Failed));
    assert_eq!(reason(|record| record.outcome = Outcome::InternalError), Some(SampleReason::Failed));
    assert_eq!(reason(|record| record.outcome = Outcome::ClientCancelled), None);
    assert_eq!(reason(|record| record.status = Some(404)), Some(SampleReason::Failed), "an LLM's 4xx is worth a look");
    let not_llm = |record: &mut Record| (record.llm, record.status) = (None, Some(404));
    assert_eq!(reason(not_llm), None, "a scanner's is not");
    let refused = |record: &mut Record| (record.status, record.outcome) = (Some(429), Outcome::Rejected);
    assert_eq!(reason(refused), None);

    let mut spans = Vec::new();
    build(&chat("gpt-4o"), Some(SampleReason::SlowGap), &InstrumentationScope::builder("test").build(), &mut spans);
    assert_eq!(value(&spans[0], "streamgauge.sampled_late"), Some("slow_gap".into()));
}

#[test]
fn foreign_texts_and_numbers_are_bounded() {
    let mut record = chat(&"m".repeat(100_000));
    record.request.path = "/p".repeat(100_000).into();
    record.request.method = "BREW".repeat(100_000).into();
    let reading = &mut record.llm.as_mut().unwrap().reading;
    reading.usage.output = Some(u64::MAX);
    reading.response_id = Some("i".repeat(100_000).into());
    let spans = tree(&record);
    assert_eq!(value(&spans[1], "gen_ai.usage.output_tokens"), Some(Value::I64(i64::MAX)));
    assert_eq!(value(&spans[0], "http.request.method"), Some("_OTHER".into()));
    for span in &spans {
        assert!(span.name.len() < 512);
        for attribute in &span.attributes {
            assert!(attribute.value.as_str().len() <= 2_048, "{}", attribute.key);
        }
    }
}

#[test]
fn a_canary_s_decision_is_an_event_and_always_exported() {
    use crate::policy::canary::{By, Decision, Kind, Reason};
    let mut record = chat("gpt-4o");
    record.canary = Some(Decision {
        at: Duration::ZERO,
        kind: Kind::Step,
        by: By::Judge,
        from: 1,
        to: 5,
        reason: Reason::Clean { requests: 200, nearest: None },
    });
    assert_eq!(SampleReason::reason(&record, SLOW), Some(SampleReason::CanaryDecision));
    let spans = tree(&record);
    let event = spans[0].events.iter().find(|event| event.name == "streamgauge.canary").unwrap();
    let texts: Vec<String> = event.attributes.iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect();
    assert_eq!(
        texts,
        [
            "streamgauge.canary.decision=step",
            "streamgauge.canary.from_percent=1",
            "streamgauge.canary.to_percent=5",
            "streamgauge.canary.reason=200 of its requests showed no harm",
        ]
    );
}
