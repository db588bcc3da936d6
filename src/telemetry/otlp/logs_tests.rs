use super::super::collectors_for_tests::KeptLogs;
use super::*;
use crate::llm::content::Prompt;
use crate::llm::message::{Message, Part};
use crate::telemetry::record::{ErrorType, Outcome};
use crate::telemetry::records_for_tests::{chat, plain};

const LONG: Duration = Duration::from_secs(20);

fn exporter(kept: &KeptLogs, capacity: usize) -> LogExporter {
    let pace = Pace { capacity, batch: 8, linger: Duration::ZERO };
    LogExporter::start(kept.clone(), Driver::Thread, &Resource::builder_empty().build(), pace).unwrap()
}

fn exported(record: Record) -> Vec<SdkLogRecord> {
    let kept = KeptLogs::default();
    let exporter = exporter(&kept, 10);
    exporter.export(&Arc::new(record));
    assert!(exporter.flush(LONG));
    kept.records.lock().unwrap().drain(..).collect()
}

fn value(record: &SdkLogRecord, key: &str) -> Option<AnyValue> {
    let mut found = record.attributes_iter().filter(|(name, _)| name.as_str() == key);
    let value = found.next().map(|(_, value)| value.clone());
    assert!(found.next().is_none(), "{key} is there twice");
    value
}

#[test]
fn a_request_is_one_record_with_its_trace() {
    let record = chat("gpt-4o");
    let (ended, records) = (record.started + record.duration, exported(record));
    let [told] = &records[..] else { panic!("{records:#?}") };
    assert_eq!((told.event_name(), told.timestamp()), (Some("llm.request"), Some(ended)));
    assert!(told.observed_timestamp().is_some());
    let trace = told.trace_context().unwrap();
    assert_eq!((trace.trace_id, trace.span_id), (TraceId::from(0xabc_u128), SpanId::from(0x1)));
    assert_eq!(trace.trace_flags, Some(TraceFlags::SAMPLED));
    let Some(AnyValue::String(body)) = told.body() else { panic!("{told:?}") };
    assert!(body.as_str().contains("POST /v1/chat/completions 200 completed") && !body.as_str().ends_with('\n'));
    for (key, expected) in [
        ("streamgauge.request_id", AnyValue::from("req-1")),
        ("user.id", "alice".into()),
        ("url.path", "/v1/chat/completions".into()),
        ("http.response.status_code", 200.into()),
        ("gen_ai.usage.input_tokens", 100.into()),
        ("gen_ai.usage.cache_write.input_tokens", 7.into()),
        ("gen_ai.request.temperature", 0.7.into()),
        ("gen_ai.request.stream", true.into()),
        ("gen_ai.response.finish_reasons", ["stop"].into_iter().collect()),
        ("server.port", 8_000.into()),
        ("streamgauge.phase.generation", 0.12.into()),
    ] {
        assert_eq!(value(told, key), Some(expected), "{key}");
    }
    let records = exported(plain());
    assert_eq!((records.len(), records[0].event_name()), (1, Some("http.request")));
}

#[test]
fn how_a_request_ended_is_its_severity() {
    for (outcome, error, severity) in [
        (Outcome::Completed, None, Severity::Info),
        (Outcome::ClientCancelled, Some(ErrorType::ClientGone), Severity::Info),
        (Outcome::Stalled, Some(ErrorType::Stall), Severity::Warn),
        (Outcome::InternalError, Some(ErrorType::Internal), Severity::Error),
    ] {
        let mut record = chat("gpt-4o");
        (record.outcome, record.error) = (outcome, error);
        let told = &exported(record)[0];
        assert_eq!((told.severity_number(), told.severity_text()), (Some(severity), Some(severity.name())));
        assert_eq!(value(told, "error.type"), error.map(|error| error.as_str().into()));
    }
}

#[test]
fn what_was_said_is_a_record_of_its_own_in_structured_form() {
    let mut record = chat("gpt-4o");
    let call = Part::ToolCall { id: Some("c1".to_owned()), name: "add".to_owned(), arguments: "{\"a\":1}".to_owned() };
    let message = |role: &str, part: Part| Message { role: role.to_owned(), parts: vec![part] };
    record.prompt = Some(Box::new(Prompt {
        system: vec![Part::Text("CANARY".to_owned())],
        messages: vec![message("user", Part::Text("CANARY".to_owned()))],
    }));
    record.llm.as_mut().unwrap().reading.output = Some([message("assistant", call)].into());
    let records = exported(record);
    let [told, details] = &records[..] else { panic!("{records:#?}") };
    assert!(!format!("{told:?}").contains("CANARY"), "the request's own record says nothing");
    assert_eq!(details.event_name(), Some("gen_ai.client.inference.operation.details"));
    assert_eq!(details.severity_number(), Some(Severity::Debug));
    assert_eq!(details.trace_context().unwrap().span_id, SpanId::from(0x2), "of the GenAI call");
    let map = |fields: Vec<(&'static str, AnyValue)>| fields.into_iter().collect::<AnyValue>();
    let list = |item: AnyValue| [item].into_iter().collect::<AnyValue>();
    let part = map(vec![("type", "text".into()), ("content", "CANARY".into())]);
    assert_eq!(value(details, "gen_ai.system_instructions"), Some(list(part.clone())));
    let asked = list(map(vec![("role", "user".into()), ("parts", list(part))]));
    assert_eq!(value(details, "gen_ai.input.messages"), Some(asked));
    let call = map(vec![
        ("type", "tool_call".into()),
        ("id", "c1".into()),
        ("name", "add".into()),
        ("arguments", map(vec![("a", 1.into())])),
    ]);
    let answered =
        list(map(vec![("role", "assistant".into()), ("parts", list(call)), ("finish_reason", "stop".into())]));
    assert_eq!(value(details, "gen_ai.output.messages"), Some(answered));
    assert_eq!(value(details, "gen_ai.operation.name"), Some("chat".into()));
}

#[test]
fn a_collector_that_refuses_costs_its_records_and_nothing_is_taken_after_the_end() {
    let kept = KeptLogs { refuse: true, ..KeptLogs::default() };
    let exporter = exporter(&kept, 10);
    let record = Arc::new(chat("gpt-4o"));
    exporter.export(&record);
    exporter.export(&record);
    assert!(exporter.flush(LONG));
    assert_eq!(exporter.dropped().get(), 2);
    exporter.close();
    exporter.export(&record);
    assert_eq!(exporter.dropped().get(), 3);
}
