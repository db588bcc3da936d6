//! `[telemetry]`: what is exported, and what counts as slow.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::config::address::{Endpoint, EndpointAddress};
use crate::config::checker::Checker;
use crate::config::units::{At, DurationText, Table, Written};
use crate::config::view::{PlainUrl, Shown, display_as_serialized};

const SERVICE_NAME: &str = "streamgauge";
const SIGNALS: [Signal; 1] = [Signal::Traces];
pub const SAMPLE_RATIO: f64 = 0.1;
const SLOW_FIRST_TOKEN: Duration = Duration::from_secs(5);
const SLOW_GAP: Duration = Duration::from_secs(2);

/// What is exported, and what counts as slow.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TelemetryTable {
    #[schemars(extend("default" = "streamgauge"))]
    pub service_name: Option<At<String>>,
    /// The collector, as "http://127.0.0.1:4318". Absent: nothing is exported, unless the OTEL_* variables name one.
    pub otlp_endpoint: Option<At<String>>,
    #[schemars(extend("default" = "http/protobuf"))]
    pub otlp_protocol: Option<At<OtlpProtocol>>,
    /// What is exported to it: "traces", "metrics", "logs" (one record a request).
    #[schemars(extend("default" = ["traces"]))]
    pub signals: Option<At<Vec<At<Signal>>>>,
    /// Share of traces exported, 0 to 1; failed and slow ones always are. Absent: as OTEL_TRACES_SAMPLER says, else 0.1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: Option<At<f64>>,
    /// A first token later than this makes a request slow.
    #[schemars(extend("default" = "5s"))]
    pub slow_first_token: Option<At<DurationText>>,
    /// A gap between tokens longer than this is counted.
    #[schemars(extend("default" = "2s"))]
    pub slow_gap: Option<At<DurationText>>,
    /// Whether spans, and of "logs" a record beside the request's, hold prompts and answers, 16 KiB of each. Metrics, /api and
    /// the log on stdout never do.
    #[schemars(extend("default" = false))]
    pub capture_content: Option<At<bool>>,
}

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Telemetry {
    pub service_name: String,
    /// Absent: nothing is exported, unless the environment names a collector.
    #[serde(serialize_with = "plain_url")]
    pub otlp_endpoint: Option<String>,
    pub otlp_protocol: OtlpProtocol,
    /// What is exported; each at most once.
    pub signals: Vec<Signal>,
    /// Share of traces exported, 0 to 1; failed and slow ones always are. `None`: as the environment says.
    pub sample_ratio: Option<f64>,
    #[serde(serialize_with = "Shown::shown")]
    pub slow_first_token: Duration,
    #[serde(serialize_with = "Shown::shown")]
    pub slow_gap: Duration,
    /// Spans and exported log records hold prompts and answers, bounded.
    pub capture_content: bool,
}

/// What can be exported over OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Signal {
    Traces,
    Metrics,
    Logs,
}

display_as_serialized!(Signal);

/// How it goes over the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum OtlpProtocol {
    #[default]
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    #[serde(rename = "grpc")]
    Grpc,
}

fn plain_url<S: Serializer>(url: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    url.as_deref().map(PlainUrl).serialize(to)
}

impl Checker<'_> {
    pub fn telemetry(&mut self, table: Option<&Table<TelemetryTable>>) -> Telemetry {
        let nothing = TelemetryTable::default();
        let file = table.map_or(&nothing, |table| &table.value);
        if let Some(at) = file.service_name.as_ref().filter(|at| at.value.trim().is_empty()) {
            self.problem(&at.span, "`service_name` is empty");
        }
        let otlp_endpoint = file.otlp_endpoint.as_ref().and_then(|at| {
            let endpoint = self.checked(&at.span, at.value.parse::<Endpoint>())?;
            if matches!(endpoint.address, EndpointAddress::Unix(_)) {
                self.problem(&at.span, "telemetry is sent over http:// or https://, not through a unix socket");
            }
            Some(at.value.clone())
        });
        let message = "`sample_ratio` must be from 0 (none) to 1 (all)";
        let sample_ratio = self.fitting(file.sample_ratio.as_ref(), |ratio| (0.0..=1.0).contains(&ratio), message);
        Telemetry {
            service_name: file.service_name.as_ref().map_or(SERVICE_NAME, |at| at.value.trim()).to_owned(),
            otlp_endpoint,
            otlp_protocol: file.otlp_protocol.value_or_default(),
            signals: self.signals(file.signals.as_ref()),
            sample_ratio,
            slow_first_token: self.positive("slow_first_token", file.slow_first_token.as_ref(), SLOW_FIRST_TOKEN),
            slow_gap: self.positive("slow_gap", file.slow_gap.as_ref(), SLOW_GAP),
            capture_content: file.capture_content.value_or_default(),
        }
    }

    fn signals(&mut self, written: Option<&At<Vec<At<Signal>>>>) -> Vec<Signal> {
        let Some(at) = written else { return SIGNALS.to_vec() };
        let mut signals = Vec::new();
        for word in &at.value {
            if signals.contains(&word.value) {
                self.problem(&word.span, format!("`signals`: \"{}\" is listed twice", word.value));
            } else {
                signals.push(word.value);
            }
        }
        signals
    }
}
