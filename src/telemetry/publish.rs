//! Publishes a record: to metrics, spans, logs and the live view.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::access_log::{AccessLog, Style};
use super::live::{Live, TurnedAway};
use super::logs::{self, Format, Log, LogError};
use super::metrics::{Full, Metrics};
use super::mirror::MirrorRecord;
use super::otlp::logs::LogExporter;
use super::otlp::metrics::MetricExporter;
use super::otlp::traces::SpanExporter;
use super::otlp::{ExportError, Exporters};
use super::record::Record;
use super::tail_sampling::SlowRules;
use crate::config::settings;

/// The telemetry of the process.
pub struct Telemetry {
    metrics: Metrics,
    live: Arc<Live>,
    access_log: Option<AccessLog>,
    exporters: Exporters,
    log: Option<Log>,
}

/// Why telemetry does not start. None of these is worth running without it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the access log cannot be written: the system gives no thread: {0}")]
    AccessLog(io::Error),
}

impl Telemetry {
    /// Sets up everything for this process, once: the log on stderr, the access log on stdout, and what is exported to a collector. To be
    /// called outside of any async runtime.
    ///
    /// # Errors
    /// When the collector's endpoint is no URL, the log is set up already, or the system gives no thread.
    pub fn start(settings: &settings::Telemetry, format: Format) -> Result<Arc<Self>, StartError> {
        let exporters = Exporters::build(settings)?;
        let log = logs::init(format, exporters.traces.as_ref().map(SpanExporter::tracer))?;
        let style = match format {
            Format::Human => Style::human(),
            Format::Json => Style::Json,
        };
        let access_log = AccessLog::start(style, io::stdout()).map_err(StartError::AccessLog)?;
        Ok(Arc::new(Self::with(Some(access_log), exporters, Some(log))))
    }

    /// Telemetry with these renderings beside metrics and the live view.
    pub fn new(access_log: Option<AccessLog>, exporters: Exporters) -> Self {
        Self::with(access_log, exporters, None)
    }

    /// Metrics and the live view alone, and nothing of the process touched: for tests of other rooms.
    pub fn for_tests() -> Arc<Self> {
        Arc::new(Self::new(None, Exporters::default()))
    }

    /// Tells of one finished request in every rendering. Never blocks, and never fails.
    pub fn publish(&self, record: Record) {
        self.metrics.observe(&record);
        self.live.hints().observe(&record);
        let record = Arc::new(record);
        self.hand_on(&record);
        self.live.ended(record);
    }

    /// Tells of one response on a WebSocket that may stay open for hours. Never blocks, and never fails.
    pub fn publish_response(&self, record: Record) {
        self.metrics.observe_response(&record);
        self.hand_on(&Arc::new(record));
    }

    /// Gives a record to those who render it on threads of their own.
    fn hand_on(&self, record: &Arc<Record>) {
        if let Some(spans) = &self.exporters.traces {
            spans.export(record);
        }
        if let Some(logs) = &self.exporters.logs {
            logs.export(record);
        }
        if let Some(access_log) = &self.access_log {
            access_log.write(record);
        }
    }

    /// Tells of one copy whose answer was compared. Never blocks, and never fails.
    pub fn publish_mirror(&self, record: MirrorRecord) {
        self.metrics.mirrored(&record);
        self.live.copies().compared(&record);
        record.log();
        if let Some(spans) = &self.exporters.traces {
            spans.export_mirror(record);
        }
    }

    /// A request was drawn to be copied, and no copy of it was made or compared.
    pub fn mirror_skipped(&self, route: &Arc<str>) {
        self.metrics.mirror_skipped(route);
        self.live.copies().skipped(route);
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Tells of a client connection that was turned away, with its address; `None` on a unix socket. Costs little however many
    /// there are: the log hears of them once a minute.
    pub fn connection_refused(&self, full: Full, peer: Option<IpAddr>) {
        let now = SystemTime::now();
        self.metrics.connection_refused(full);
        let (who, hint) = match full {
            // Whom it meets is chance.
            Full::All => (TurnedAway::Anybody(peer), "raise `server.max_connections`, or see who holds so many"),
            Full::Address => (
                TurnedAway::Address(peer),
                "one client holds its share of all connections. A proxy that many clients come through belongs into \
                 `server.trusted_proxies`, or raise `server.address_share`",
            ),
        };
        if let Some(refused) = self.live.turned_away(full.as_str(), who, now) {
            let peer = peer.map(tracing::field::display);
            tracing::warn!(event = "connection.refused", reason = full.as_str(), peer, refused, "{hint}");
        }
    }

    /// Takes over what can change while the process runs: what is slow. The collector and the service's name need a
    /// restart; the sample ratio is asked for at each request.
    pub fn apply(&self, settings: &settings::Telemetry) {
        if let Some(spans) = &self.exporters.traces {
            spans.slow(SlowRules { first_token: settings.slow_first_token, gap: settings.slow_gap });
        }
    }

    /// Sends and writes what waits, at most for `timeout`; what comes later is lost. Tells whether nothing waits.
    pub fn shutdown(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        // The short ones first: a dead collector may take all the time there is.
        let written = self.access_log.as_ref().is_none_or(|log| log.flush(left()));
        let sent = self.exporters.shutdown(left());
        if !sent {
            tracing::warn!(
                event = "telemetry.not_flushed",
                ?timeout,
                "what the collector did not take in time is lost"
            );
        }
        let logged = self.log.as_ref().is_none_or(|log| log.flush(left().max(LOG_FLUSH)));
        written && sent && logged
    }

    fn with(access_log: Option<AccessLog>, exporters: Exporters, log: Option<Log>) -> Self {
        let metrics = Metrics::with(exporters.metrics.as_ref().map(MetricExporter::instruments));
        if let Some(exporter) = &exporters.metrics {
            metrics.watch_exports_failed(exporter.failed());
        }
        let watched = [
            ("traces", exporters.traces.as_ref().map(SpanExporter::dropped)),
            ("logs", exporters.logs.as_ref().map(LogExporter::dropped)),
            ("access_log", access_log.as_ref().map(AccessLog::dropped)),
            ("log", log.as_ref().map(Log::dropped)),
        ];
        for (signal, dropped) in watched.into_iter().filter_map(|(signal, dropped)| Some((signal, dropped?))) {
            metrics.watch_dropped(signal, dropped);
        }
        Self { metrics, live: Arc::default(), access_log, exporters, log }
    }
}

/// The log's last words may take this long even when all the time is used up.
const LOG_FLUSH: Duration = Duration::from_millis(100);

impl Drop for Telemetry {
    /// Whoever forgets [`Telemetry::shutdown`], as on the way out of a failed start, still sees the log's last words.
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.flush(LOG_FLUSH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::records_for_tests::{chat, plain};

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_record_is_told_once_in_every_rendering() {
        let (reader, writer) = io::pipe().unwrap();
        let log = AccessLog::start(Style::Json, writer).unwrap();
        let telemetry = Telemetry::new(Some(log), Exporters::default());
        telemetry.publish(chat("gpt-4o"));
        telemetry.publish(plain());
        assert!(telemetry.shutdown(LONG));
        let (_, metrics) = telemetry.metrics().encode(None);
        assert!(metrics.contains("gen_ai_server_time_to_first_token_seconds_count{route=\"chat\""));
        assert!(metrics.contains("streamgauge_telemetry_dropped_total{signal=\"access_log\"} 0"));
        assert_eq!(telemetry.live().json().matches("\"request_id\"").count(), 2);
        drop(telemetry);
        assert_eq!(io::read_to_string(reader).unwrap().lines().count(), 2);
    }

    #[test]
    fn without_any_destination_nothing_waits() {
        let telemetry = Telemetry::for_tests();
        telemetry.publish(chat("gpt-4o"));
        let guard = telemetry.metrics().in_flight("chat");
        assert!(telemetry.metrics().encode(None).1.contains("streamgauge_requests_in_flight{route=\"chat\"} 1"));
        drop(guard);
        assert!(telemetry.shutdown(Duration::ZERO));
    }
}
