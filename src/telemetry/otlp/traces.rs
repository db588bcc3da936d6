//! Sends the spans of requests, and the program's own, to a collector, from behind a bounded queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context as TraceContext, InstrumentationScope};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter as Destination, SpanProcessor,
};

use super::collector::ExportError;
use super::delivery::{Delivery, Driver};
use crate::telemetry::mirror::MirrorRecord;
use crate::telemetry::queue::{Dropped, Pace, Queue};
use crate::telemetry::record::Record;
use crate::telemetry::spans;
use crate::telemetry::tail_sampling::{SampleReason, SlowRules};

/// Sends the spans of requests, and the program's own, to a collector.
#[derive(Debug)]
pub struct SpanExporter {
    sender: Sender,
    first_token_us: AtomicU64,
    gap_us: AtomicU64,
    /// Of the program's own spans, which come through `tracing`.
    provider: SdkTracerProvider,
}

impl SpanExporter {
    pub(super) fn start<E: Destination + 'static>(
        mut exporter: E,
        driver: Driver,
        resource: Resource,
        pace: Pace,
        slow: SlowRules,
        ratio: f64,
    ) -> Result<Self, ExportError> {
        exporter.set_resource(&resource);
        let queue = Queue::spawn("otlp-export", pace, move |lost| {
            let mut worker = Worker::new(exporter, driver, pace.batch, Delivery::new("traces", lost));
            move |items: &mut Vec<Item>| worker.handle(items)
        });
        let sender = Sender(queue.map_err(ExportError::Thread)?);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(sender.clone())
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
            .build();
        let made = Self { sender, first_token_us: AtomicU64::new(0), gap_us: AtomicU64::new(0), provider };
        made.slow(slow);
        Ok(made)
    }

    /// Sends the spans of a request that was sampled, failed or was slow.
    pub fn export(&self, record: &Arc<Record>) {
        let late = if record.trace.sampled {
            None
        } else {
            let slow = SlowRules {
                first_token: Duration::from_micros(self.first_token_us.load(Ordering::Relaxed)),
                gap: Duration::from_micros(self.gap_us.load(Ordering::Relaxed)),
            };
            match SampleReason::reason(record, slow) {
                Some(late) => Some(late),
                None => return,
            }
        };
        // A request that ended before it got an identity has no trace.
        if record.trace.trace_id != 0 {
            self.sender.send(Item::Request(Arc::clone(record), late));
        }
    }

    /// Sends the spans of a copy whose request was sampled.
    pub(in crate::telemetry) fn export_mirror(&self, record: MirrorRecord) {
        if record.trace.sampled && record.trace.trace_id != 0 {
            self.sender.send(Item::Mirror(Box::new(record)));
        }
    }

    /// What is slow from now on.
    pub fn slow(&self, slow: SlowRules) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.first_token_us.store(micros(slow.first_token), Ordering::Relaxed);
        self.gap_us.store(micros(slow.gap), Ordering::Relaxed);
    }

    /// What makes the program's own spans.
    pub fn tracer(&self) -> SdkTracer {
        self.provider.tracer("streamgauge")
    }

    /// Spans that were lost.
    pub fn dropped(&self) -> &Dropped {
        self.sender.0.dropped()
    }

    /// Sends what waits, at most for `timeout`, and nothing after it; tells whether nothing waits any more.
    pub fn shutdown(&self, timeout: Duration) -> bool {
        let flushed = self.sender.0.flush(timeout);
        self.sender.0.close();
        flushed
    }
}

/// What waits to be sent. Trees are built on the exporting thread, from the record that all renderings share.
#[derive(Debug)]
enum Item {
    Request(Arc<Record>, Option<SampleReason>),
    Mirror(Box<MirrorRecord>),
    Own(Box<SpanData>),
}

impl Item {
    fn spans(&self) -> u64 {
        match self {
            Self::Request(record, _) => spans::count(record),
            Self::Mirror(record) => record.attempts.len() as u64,
            Self::Own(_) => 1,
        }
    }
}

#[derive(Debug, Clone)]
struct Sender(Queue<Item>);

impl Sender {
    fn send(&self, item: Item) {
        if let Err(item) = self.0.push(item) {
            self.0.dropped().add(item.spans());
        }
    }
}

/// Takes the program's own spans off the tracing layer.
impl SpanProcessor for Sender {
    fn on_start(&self, _: &mut Span, _: &TraceContext) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.send(Item::Own(Box::new(span)));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.shutdown_with_timeout(Duration::from_secs(5))
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        if self.0.flush(timeout) { Ok(()) } else { Err(OTelSdkError::Timeout(timeout)) }
    }
}

struct Worker<E: Destination> {
    exporter: E,
    driver: Driver,
    scope: InstrumentationScope,
    /// Spans in one export at most.
    batch: usize,
    spans: Vec<SpanData>,
    delivery: Delivery,
}

impl<E: Destination> Worker<E> {
    fn new(exporter: E, driver: Driver, batch: usize, delivery: Delivery) -> Self {
        let scope = InstrumentationScope::builder("streamgauge").with_version(env!("CARGO_PKG_VERSION")).build();
        Self { exporter, driver, scope, batch, spans: Vec::new(), delivery }
    }

    fn handle(&mut self, items: &mut Vec<Item>) {
        // What this thread does must not make spans that it then exports.
        let _suppressed = TraceContext::enter_telemetry_suppressed_scope();
        for item in items.drain(..) {
            match item {
                Item::Request(record, late) => spans::build(&record, late, &self.scope, &mut self.spans),
                Item::Mirror(record) => record.spans(&self.scope, &mut self.spans),
                Item::Own(span) => self.spans.push(*span),
            }
            if self.spans.len() >= self.batch {
                self.export();
            }
        }
        self.export();
    }

    fn export(&mut self) {
        if self.spans.is_empty() {
            return;
        }
        let spans = std::mem::take(&mut self.spans);
        let count = spans.len() as u64;
        let result = self.driver.run(self.exporter.export(spans));
        let _ = self.delivery.ended(result, count);
    }
}

impl<E: Destination> Drop for Worker<E> {
    fn drop(&mut self) {
        let _ = self.exporter.shutdown();
    }
}

#[cfg(test)]
#[path = "traces_tests.rs"]
mod tests;
