//! The table of names in docs/measurements.md is what is sent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::logs::{Logger as _, LoggerProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;

use super::collectors_for_tests::KeptMetrics;
use super::delivery::Driver;
use super::logs;
use super::metrics::MetricExporter;
use crate::llm::RequestFacts;
use crate::llm::content::Prompt;
use crate::llm::json_rpc::{Rpc, RpcProtocol};
use crate::llm::message::{Message, Part};
use crate::llm::request::details::Details;
use crate::telemetry::record::Record;
use crate::telemetry::records_for_tests::{chat, plain};
use crate::telemetry::{Metrics, spans};

const DOCS: &str = include_str!("../../../docs/measurements.md");

/// A call of which everything is known.
fn full(operation: &'static str) -> Record {
    let mut record = chat("gpt-4o");
    let part = || Part::Text("x".to_owned());
    let message = || Message { role: "user".to_owned(), parts: vec![part()] };
    record.prompt = Some(Box::new(Prompt { system: vec![part()], messages: vec![message()] }));
    let llm = record.llm.as_mut().unwrap();
    let text = || Some("x".to_owned());
    let details = Details {
        seed: Some(1),
        top_k: Some(1),
        frequency_penalty: Some(1.0),
        presence_penalty: Some(1.0),
        stop_sequences: vec!["x".to_owned()],
        reasoning_level: text(),
        output_type: Some("text"),
        conversation_id: text(),
        previous_response_id: text(),
    };
    llm.request = Arc::new(RequestFacts { operation: Some(operation), details, choices: 2, ..(*llm.request).clone() });
    llm.reading.output = Some([message()].into());
    (llm.reading.usage.input_audio, llm.reading.usage.output_audio) = (Some(1), Some(1));
    record
}

/// A call of a tool over MCP.
fn tool() -> Record {
    let mut record = plain();
    let mut rpc = Rpc::of(RpcProtocol::Mcp);
    (rpc.method, rpc.tool) = (Some("tools/call".into()), Some("add".into()));
    record.rpc = Some(Box::new(rpc));
    record
}

/// All names of the GenAI conventions that are sent: of attributes, metrics and events.
fn sent() -> BTreeSet<String> {
    let records = [full("chat"), full("embeddings"), full("rerank"), tool()];
    let scope = InstrumentationScope::builder("test").build();
    let logger = SdkLoggerProvider::builder().build().logger("test");
    let mut names = BTreeSet::new();
    let mut spans = Vec::new();
    for record in &records {
        spans::build(record, None, &scope, &mut spans);
        let details = record.llm.as_ref().and_then(|llm| logs::details(logger.create_log_record(), record, llm));
        for told in [Some(logs::told(logger.create_log_record(), record)), details].into_iter().flatten() {
            names.extend(told.event_name().map(str::to_owned));
            names.extend(told.attributes_iter().map(|(key, _)| key.as_str().to_owned()));
        }
    }
    names.extend(spans.iter().flat_map(|span| &span.attributes).map(|attribute| attribute.key.as_str().to_owned()));

    let kept = KeptMetrics::default();
    let exporter = MetricExporter::start(kept.clone(), Driver::Thread, Resource::builder_empty().build());
    let metrics = Metrics::with(Some(exporter.instruments()));
    records.iter().for_each(|record| metrics.observe(record));
    assert!(exporter.begin_shutdown().wait(Duration::from_secs(20)));
    for series in kept.series.lock().unwrap().keys() {
        let (name, attributes) = series.split_once('{').unwrap();
        names.insert(name.trim_end_matches("_count").trim_end_matches("_sum").to_owned());
        names.extend(attributes.split(',').filter_map(|pair| pair.split_once('=')).map(|(key, _)| key.to_owned()));
    }
    names.into_iter().filter(|name| name.starts_with("gen_ai.")).collect()
}

#[test]
fn the_documented_names_are_those_that_are_sent() {
    let (_, section) = DOCS.split_once("\n## OpenTelemetry names\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeSet<String> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .filter(|name| name.starts_with("gen_ai."))
        .map(str::to_owned)
        .collect();
    let sent = sent();
    assert!(sent.len() > 50, "{sent:#?}");
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
    assert_eq!(only(&sent, &documented), Vec::<String>::new(), "sent, and not in the table");
    assert_eq!(only(&documented, &sent), Vec::<String>::new(), "in the table, and not sent");
    assert!(section.contains("semantic-conventions-genai") && section.contains("024a4f944a12"), "which version it is");
}
