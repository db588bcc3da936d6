//! Sends the metrics of requests to a collector, once an interval.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use parking_lot::Mutex;

use super::delivery::{Delivery, Driver};
use crate::telemetry::metrics::Instruments;
use crate::telemetry::queue::Dropped;

/// Sends what [`Instruments`] count, from a thread of its own; the standard `OTEL_METRIC_EXPORT_INTERVAL` says how often.
#[derive(Debug)]
pub struct MetricExporter {
    provider: SdkMeterProvider,
    failed: Dropped,
    /// The last export failed.
    failing: Arc<AtomicBool>,
}

impl MetricExporter {
    pub(super) fn start<E: PushMetricExporter>(exporter: E, driver: Driver, resource: Resource) -> Self {
        let failed = Dropped::default();
        let delivery = Mutex::new(Delivery::new("metrics", failed.clone()));
        let failing = Arc::new(AtomicBool::new(false));
        let exporter = Delivering { exporter, driver, delivery, failing: Arc::clone(&failing) };
        let reader = PeriodicReader::builder(exporter).build();
        let provider = SdkMeterProvider::builder().with_reader(reader).with_resource(resource).build();
        Self { provider, failed, failing }
    }

    /// What counts requests for this exporter.
    pub fn instruments(&self) -> Instruments {
        let scope = InstrumentationScope::builder("streamgauge").with_version(env!("CARGO_PKG_VERSION")).build();
        Instruments::new(&self.provider.meter_with_scope(scope))
    }

    /// Exports that failed. Counts are cumulative unless the environment says otherwise, so that the next export has what a
    /// failed one lost.
    pub fn failed(&self) -> &Dropped {
        &self.failed
    }

    /// Has the last values sent, without waiting for it: the library would wait longer than it is told.
    pub(super) fn begin_shutdown(&self) -> Ending {
        let (tell, ended) = mpsc::channel();
        let (provider, failing) = (self.provider.clone(), Arc::clone(&self.failing));
        // Without a thread nobody tells, and that is a no.
        let _ = thread::Builder::new().name("otlp-metrics-end".to_owned()).spawn(move || {
            let _ = tell.send(provider.shutdown().is_ok() && !failing.load(Ordering::Relaxed));
        });
        Ending(ended)
    }
}

/// A shutdown under way.
pub(super) struct Ending(Receiver<bool>);

impl Ending {
    /// Waits for it, at most for `timeout`; tells whether all was sent.
    pub(super) fn wait(self, timeout: Duration) -> bool {
        self.0.recv_timeout(timeout).unwrap_or(false)
    }
}

/// The exporter of the library, driven as it needs to be, and its failures told.
struct Delivering<E> {
    exporter: E,
    driver: Driver,
    delivery: Mutex<Delivery>,
    failing: Arc<AtomicBool>,
}

impl<E: PushMetricExporter> PushMetricExporter for Delivering<E> {
    /// On the reader's own thread, where nothing else is to be done meanwhile.
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        // What this thread does must not make spans.
        let result = {
            let _suppressed = Context::enter_telemetry_suppressed_scope();
            self.driver.run(self.exporter.export(metrics))
        };
        let result = self.delivery.lock().ended(result, 1);
        self.failing.store(result.is_err(), Ordering::Relaxed);
        // It is told: the library would tell it once more, each time.
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
