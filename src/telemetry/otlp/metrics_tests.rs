use std::sync::Arc;

use super::super::collectors_for_tests::KeptMetrics;
use super::*;
use crate::llm::RequestFacts;
use crate::telemetry::Metrics;
use crate::telemetry::record::{ErrorType, Outcome, Record};
use crate::telemetry::records_for_tests::{chat, plain};

const LONG: Duration = Duration::from_secs(20);

/// What a collector has of these requests.
fn exported(records: impl IntoIterator<Item = Record>) -> KeptMetrics {
    let kept = KeptMetrics::default();
    let exporter = MetricExporter::start(kept.clone(), Driver::Thread, Resource::builder_empty().build());
    let metrics = Metrics::with(Some(exporter.instruments()));
    records.into_iter().for_each(|record| metrics.observe(&record));
    assert!(exporter.begin_shutdown().wait(LONG));
    assert_eq!(exporter.failed().get(), 0);
    kept
}

fn with_operation(operation: &'static str) -> Record {
    let mut record = chat("gpt-4o");
    let llm = record.llm.as_mut().unwrap();
    llm.request = Arc::new(RequestFacts { operation: Some(operation), ..(*llm.request).clone() });
    record
}

const CALL: &str = "gen_ai.operation.name=chat,gen_ai.provider.name=openai,gen_ai.request.model=gpt-4o";
const PLACE: &str = "server.address=127.0.0.1,server.port=8000";
const TARGET: &str = "streamgauge.route=chat,streamgauge.upstream=fastapi,streamgauge.variant=fastapi";

#[test]
fn a_call_is_counted_by_the_conventions() {
    let kept = exported([chat("gpt-4o"), chat("gpt-4o")]);
    let genai = format!("{CALL},{PLACE},{TARGET}");
    for (name, sum) in [
        ("gen_ai.server.request.duration", 0.137),
        ("gen_ai.server.time_to_first_token", 0.03),
        ("gen_ai.server.time_per_output_token", 0.01),
        ("gen_ai.client.inference.duration", 0.014),
        ("gen_ai.client.inference.time_to_first_chunk", 0.03),
        ("gen_ai.client.inference.operation.input_tokens", 100.0),
        ("gen_ai.client.inference.operation.output_tokens", 11.0),
    ] {
        assert_eq!(kept.value(&format!("{name}_count{{{genai}}}")), 2.0);
        assert!((kept.value(&format!("{name}_sum{{{genai}}}")) - 2.0 * sum).abs() < 1e-9, "{name}");
    }
    // Seven gaps of 10 ms, one of 5 and one of 25.
    let gaps = |what: &str| kept.value(&format!("gen_ai.client.inference.time_per_output_chunk_{what}{{{genai}}}"));
    assert_eq!(gaps("count"), 18.0);
    assert!((gaps("sum") - 0.2).abs() < 1e-9, "{}", gaps("sum"));
    for (name, count) in [
        ("input_tokens", 100.0),
        ("output_tokens", 11.0),
        ("cache_read.input_tokens", 40.0),
        ("cache_write.input_tokens", 7.0),
        ("reasoning.output_tokens", 2.0),
    ] {
        let series =
            format!("gen_ai.client.inference.usage.{name}{{{CALL},gen_ai.token.modality=unknown,{PLACE},{TARGET}}}");
        assert_eq!(kept.value(&series), 2.0 * count, "{name}");
    }
    let requests = format!(
        "streamgauge.requests{{gen_ai.request.model=gpt-4o,http.response.status_code=200,streamgauge.outcome=completed,{TARGET}}}"
    );
    assert_eq!(kept.value(&requests), 2.0);
    let target = TARGET.replacen("streamgauge.route", "streamgauge.phase=generation,streamgauge.route", 1);
    assert!((kept.value(&format!("streamgauge.phase.duration_sum{{{target}}}")) - 0.24).abs() < 1e-9);
    let team = TARGET.replacen("streamgauge.upstream", "streamgauge.team=search,streamgauge.upstream", 1);
    assert!((kept.value(&format!("streamgauge.cost{{{CALL},{team}}}")) - 0.000_721).abs() < 1e-12);
    let series = kept.series.lock().unwrap();
    assert!(!series.keys().any(|series| series.contains("alice")), "users are no attributes");
    assert!(!series.keys().any(|series| series.contains("client.embeddings") || series.contains("client.operation")));
}

#[test]
fn a_failed_call_is_counted_with_nothing_and_its_error() {
    let mut record = chat("gpt-4o");
    (record.outcome, record.error, record.status) =
        (Outcome::UpstreamError, Some(ErrorType::UpstreamStatus), Some(599));
    let llm = record.llm.as_mut().unwrap();
    llm.reading = Default::default();
    let kept = exported([record]);
    let call = "error.type=upstream_status,gen_ai.operation.name=chat,gen_ai.request.model=other";
    let of = |name: &str| kept.value(&format!("{name}{{{call},{PLACE},{TARGET}}}"));
    assert_eq!(of("gen_ai.client.inference.duration_count"), 1.0);
    assert_eq!(of("gen_ai.client.inference.operation.input_tokens_count"), 1.0);
    assert_eq!(of("gen_ai.client.inference.operation.input_tokens_sum"), 0.0);
    let series = kept.series.lock().unwrap();
    assert!(!series.keys().any(|series| series.contains("time_to_first") || series.contains("599")), "{series:#?}");
}

#[test]
fn what_is_no_inference_has_metrics_of_its_own() {
    let kept = exported([with_operation("embeddings"), with_operation("rerank")]);
    let of = |operation: &str| CALL.replace("chat", operation);
    let embeddings = format!("{},{PLACE},{TARGET}", of("embeddings"));
    assert_eq!(kept.value(&format!("gen_ai.client.embeddings.duration_count{{{embeddings}}}")), 1.0);
    assert_eq!(kept.value(&format!("gen_ai.client.embeddings.operation.input_tokens_sum{{{embeddings}}}")), 100.0);
    let rerank = format!("{},{PLACE},{TARGET}", of("rerank"));
    assert_eq!(kept.value(&format!("gen_ai.client.operation.duration_count{{{rerank}}}")), 1.0);
    assert!(!kept.series.lock().unwrap().keys().any(|series| series.contains("inference")));
}

#[test]
fn attributes_have_the_bounds_of_labels() {
    let kept = exported((0..500).map(|number| chat(&format!("model-{number}"))).chain([plain()]));
    let series = kept.series.lock().unwrap();
    let models = series.keys().filter(|series| series.starts_with("gen_ai.server.request.duration_count")).count();
    assert!((2..=101).contains(&models), "{models}");
    assert!(series.keys().any(|series| series.contains("gen_ai.request.model=other")));
    assert!(series.keys().any(|series| series.starts_with("streamgauge.requests") && !series.contains("gen_ai.")));
}

#[test]
fn a_collector_that_refuses_is_counted() {
    let kept = KeptMetrics { refuse: true, ..KeptMetrics::default() };
    let exporter = MetricExporter::start(kept, Driver::Thread, Resource::builder_empty().build());
    let metrics = Metrics::with(Some(exporter.instruments()));
    metrics.observe(&chat("gpt-4o"));
    assert!(!exporter.begin_shutdown().wait(LONG));
    assert_eq!(exporter.failed().get(), 1);
}
