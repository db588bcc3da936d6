//! Sends one log record a request to a collector: what the access log's line tells, under the names of the conventions. Where
//! content is captured, what was said goes beside it, as the event that the GenAI conventions have for that.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::{Array, Context, InstrumentationScope, Key, KeyValue, SpanId, TraceFlags, TraceId, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{LogBatch, LogExporter as Destination, SdkLogRecord, SdkLogger, SdkLoggerProvider};

use super::collector::ExportError;
use super::delivery::{Delivery, Driver};
use crate::telemetry::access_log::{self, Style};
use crate::telemetry::attributes;
use crate::telemetry::log_fields::{event, level};
use crate::telemetry::queue::{Dropped, Pace, Queue};
use crate::telemetry::record::{LlmInfo, Record};
use crate::telemetry::semconv as names;
use crate::telemetry::spans::said;

/// Sends the log records of requests.
#[derive(Debug)]
pub struct LogExporter {
    queue: Queue<Arc<Record>>,
}

impl LogExporter {
    pub(super) fn start<E: Destination + 'static>(
        mut exporter: E,
        driver: Driver,
        resource: &Resource,
        pace: Pace,
    ) -> Result<Self, ExportError> {
        exporter.set_resource(resource);
        let queue = Queue::spawn("otlp-logs", pace, move |lost| {
            let mut worker = Worker::new(exporter, driver, Delivery::new("logs", lost));
            move |records: &mut Vec<Arc<Record>>| worker.handle(records)
        });
        Ok(Self { queue: queue.map_err(ExportError::Thread)? })
    }

    /// Hands a record over; it is dropped and counted when the queue is full.
    pub fn export(&self, record: &Arc<Record>) {
        self.queue.send(Arc::clone(record));
    }

    /// Log records that were lost.
    pub fn dropped(&self) -> &Dropped {
        self.queue.dropped()
    }

    /// Takes nothing more, and sends at once what waits.
    pub(super) fn close(&self) {
        self.queue.close();
    }

    /// Waits until what was handed over is sent, at most for `timeout`; tells whether it was.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        self.queue.flush(timeout)
    }
}

struct Worker<E: Destination> {
    exporter: E,
    driver: Driver,
    delivery: Delivery,
    scope: InstrumentationScope,
    /// Makes records; it has nowhere to send them.
    logger: SdkLogger,
}

impl<E: Destination> Worker<E> {
    fn new(exporter: E, driver: Driver, delivery: Delivery) -> Self {
        let scope = InstrumentationScope::builder("streamgauge").with_version(env!("CARGO_PKG_VERSION")).build();
        let logger = SdkLoggerProvider::builder().build().logger_with_scope(scope.clone());
        Self { exporter, driver, delivery, scope, logger }
    }

    fn handle(&mut self, records: &mut Vec<Arc<Record>>) {
        // What this thread does must not make spans.
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        let count = records.len() as u64;
        let built: Vec<SdkLogRecord> = records.drain(..).flat_map(|record| self.build(&record)).collect();
        let batch: Vec<_> = built.iter().map(|record| (record, &self.scope)).collect();
        let result = self.driver.run(self.exporter.export(LogBatch::new(&batch)));
        let _ = self.delivery.ended(result, count);
    }

    fn build(&self, record: &Record) -> impl Iterator<Item = SdkLogRecord> + use<E> {
        let details = record.llm.as_ref().and_then(|llm| details(self.logger.create_log_record(), record, llm));
        [Some(told(self.logger.create_log_record(), record)), details].into_iter().flatten()
    }
}

impl<E: Destination> Drop for Worker<E> {
    fn drop(&mut self) {
        let _ = self.exporter.shutdown();
    }
}

/// What the access log tells of a request.
pub(super) fn told(mut to: SdkLogRecord, record: &Record) -> SdkLogRecord {
    stamp(&mut to, record, record.trace.span_id);
    to.set_event_name(event(record));
    let severity = match level(record.outcome) {
        "error" => Severity::Error,
        "warn" => Severity::Warn,
        _ => Severity::Info,
    };
    to.set_severity_number(severity);
    to.set_severity_text(severity.name());
    let mut line = String::new();
    access_log::render(Style::Human { colour: false }, record, SystemTime::now(), &mut line);
    line.truncate(line.trim_end().len());
    to.set_body(AnyValue::String(line.into()));
    let mut attributes = Vec::with_capacity(56);
    attributes::request(record, &mut attributes);
    if let Some(llm) = &record.llm {
        attributes::inference(llm, &mut attributes);
    }
    attributes.extend(record.last_asked().into_iter().flat_map(|attempt| attempt.place.attributes()));
    add(&mut to, attributes);
    to
}

/// What was said, where it was captured.
pub(super) fn details(mut to: SdkLogRecord, record: &Record, llm: &LlmInfo) -> Option<SdkLogRecord> {
    let mut said = said(record, llm).peekable();
    said.peek()?;
    stamp(&mut to, record, llm.span_id);
    to.set_event_name(names::EVENT_INFERENCE_DETAILS);
    // As the conventions want it.
    to.set_severity_number(Severity::Debug);
    to.set_severity_text(Severity::Debug.name());
    let mut attributes = Vec::with_capacity(32);
    attributes::inference(llm, &mut attributes);
    attributes::error(record.error, &mut attributes);
    attributes.extend(record.last_asked().into_iter().flat_map(|attempt| attempt.place.attributes()));
    add(&mut to, attributes);
    for (name, content) in said {
        if let Some(value) = structured(content) {
            to.add_attribute(name, value);
        }
    }
    Some(to)
}

/// When it was, and in which trace.
fn stamp(to: &mut SdkLogRecord, record: &Record, span_id: u64) {
    to.set_timestamp(record.started.checked_add(record.duration).unwrap_or(record.started));
    to.set_observed_timestamp(SystemTime::now());
    if record.trace.trace_id != 0 {
        let flags = if record.trace.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        to.set_trace_context(TraceId::from(record.trace.trace_id), SpanId::from(span_id), Some(flags));
    }
}

fn add(to: &mut SdkLogRecord, attributes: Vec<KeyValue>) {
    for KeyValue { key, value, .. } in attributes {
        let value = match value {
            Value::Bool(truth) => AnyValue::Boolean(truth),
            Value::I64(number) => AnyValue::Int(number),
            Value::F64(number) => AnyValue::Double(number),
            Value::String(text) => AnyValue::String(text),
            Value::Array(Array::String(texts)) => texts.into_iter().collect(),
            // Nothing else is told.
            other => AnyValue::String(other.to_string().into()),
        };
        to.add_attribute(key, value);
    }
}

/// JSON as the structure that it is; `None` of null, which there is none of.
fn structured(json: serde_json::Value) -> Option<AnyValue> {
    Some(match json {
        serde_json::Value::Null => return None,
        serde_json::Value::Bool(truth) => AnyValue::Boolean(truth),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => AnyValue::Int(number),
            None => AnyValue::Double(number.as_f64().unwrap_or_default()),
        },
        serde_json::Value::String(text) => AnyValue::String(text.into()),
        serde_json::Value::Array(items) => items.into_iter().filter_map(structured).collect(),
        serde_json::Value::Object(fields) => {
            let fields = fields.into_iter();
            fields.filter_map(|(name, value)| Some((Key::from(name), structured(value)?))).collect()
        }
    })
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
