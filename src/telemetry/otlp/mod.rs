//! What goes to a collector over OTLP, from threads of its own: a slow or dead collector costs telemetry, which is counted,
//! and never requests.
//!
//! ```text
//! traces    a queue ─▶ spans built from records ─▶ exporter
//! logs      a queue ─▶ log records built from records ─▶ exporter
//! metrics   counted with each request ─▶ read once an interval ─▶ exporter
//! ```

mod collector;
#[cfg(test)]
mod collectors_for_tests;
mod delivery;
pub mod logs;
pub mod metrics;
#[cfg(test)]
mod names_tests;
pub mod traces;

use std::time::{Duration, Instant};

use self::collector::Collector;
pub use self::collector::ExportError;
use self::logs::LogExporter;
use self::metrics::MetricExporter;
use self::traces::SpanExporter;
use super::sampler;
use super::tail_sampling::SlowRules;
use crate::config::settings;

/// What is exported, each where the settings name its signal and somewhere to send it.
#[derive(Debug, Default)]
pub struct Exporters {
    pub traces: Option<SpanExporter>,
    pub metrics: Option<MetricExporter>,
    pub logs: Option<LogExporter>,
}

impl Exporters {
    /// The exporters that the settings and the standard `OTEL_*` environment variables ask for. A collector that cannot be
    /// reached is no error: it may come later.
    ///
    /// # Errors
    /// When an endpoint is no URL, TLS cannot be set up, or the system gives no thread.
    pub fn build(settings: &settings::Telemetry) -> Result<Self, ExportError> {
        let Collector { traces, metrics, logs, resource } = collector::connect(settings)?;
        let slow = SlowRules { first_token: settings.slow_first_token, gap: settings.slow_gap };
        let ratio = sampler::ratio(settings.sample_ratio);
        Ok(Self {
            traces: traces
                .map(|(exporter, driver)| {
                    SpanExporter::start(exporter, driver, resource.clone(), collector::span_pace(), slow, ratio)
                })
                .transpose()?,
            metrics: metrics.map(|(exporter, driver)| MetricExporter::start(exporter, driver, resource.clone())),
            logs: logs
                .map(|(exporter, driver)| LogExporter::start(exporter, driver, &resource, collector::log_pace()))
                .transpose()?,
        })
    }

    /// Sends what waits, at most for `timeout` in all, and nothing after it; tells whether nothing waits any more.
    pub fn shutdown(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        // All at once: a signal whose collector is dead takes no time from the others.
        let metrics = self.metrics.as_ref().map(MetricExporter::begin_shutdown);
        if let Some(logs) = &self.logs {
            logs.close();
        }
        let traced = self.traces.as_ref().is_none_or(|traces| traces.shutdown(left()));
        let logged = self.logs.as_ref().is_none_or(|logs| logs.flush(left()));
        let counted = metrics.is_none_or(|ended| ended.wait(left()));
        traced && logged && counted
    }
}
