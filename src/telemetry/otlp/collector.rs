//! Which collector each signal goes to, as the settings and the standard environment say.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, LogExporter, MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;

use super::delivery::Driver;
use crate::config::grammar::percent_decoded;
use crate::config::settings::Telemetry;
use crate::config::telemetry::{OtlpProtocol, Signal};
use crate::telemetry::queue::Pace;

/// Why telemetry cannot be exported. The texts never hold the endpoint: it may carry a key.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{0} is no URL: write it as http://host:4318, or https://host:4317 for gRPC")]
    Endpoint(String),
    #[error("telemetry cannot be exported: {0}")]
    Build(#[from] ExporterBuildError),
    #[error("telemetry cannot be exported: the system gives no thread: {0}")]
    Thread(std::io::Error),
}

/// The ways to a collector, one a signal.
pub(super) struct Collector {
    pub(super) traces: Option<(SpanExporter, Driver)>,
    pub(super) metrics: Option<(MetricExporter, Driver)>,
    pub(super) logs: Option<(LogExporter, Driver)>,
    pub(super) resource: Resource,
}

/// An exporter of the library to where `$target` says.
macro_rules! exporter {
    ($exporter:ident, $target:expr, $runtime:expr) => {{
        let target: Option<Target> = $target;
        match target {
            None => None,
            Some(Target { protocol: OtlpProtocol::HttpProtobuf, endpoint }) => {
                let protocol = opentelemetry_otlp::Protocol::HttpBinary;
                let builder = $exporter::builder().with_http().with_protocol(protocol);
                let builder = match endpoint {
                    Some(endpoint) => builder.with_endpoint(endpoint),
                    None => builder,
                };
                Some((builder.build()?, Driver::Thread))
            }
            Some(Target { protocol: OtlpProtocol::Grpc, endpoint }) => {
                let runtime = $runtime.get()?;
                let inside = runtime.enter();
                let builder = $exporter::builder().with_tonic();
                let builder = match endpoint {
                    Some(endpoint) => builder.with_endpoint(endpoint),
                    None => builder,
                };
                let exporter = builder.build()?;
                drop(inside);
                Some((exporter, Driver::Runtime(runtime)))
            }
        }
    }};
}

/// Prepares the exporters; nothing is connected yet. An endpoint in the settings decides the protocol too; without one the
/// environment may name both, for each signal.
pub(super) fn connect(settings: &Telemetry) -> Result<Collector, ExportError> {
    let mut runtime = Runtime::default();
    let target = |signal| Target::find(settings, signal, &environment);
    Ok(Collector {
        traces: exporter!(SpanExporter, target(Signal::Traces)?, runtime),
        metrics: exporter!(MetricExporter, target(Signal::Metrics)?, runtime),
        logs: exporter!(LogExporter, target(Signal::Logs)?, runtime),
        resource: resource(settings, &environment),
    })
}

/// What all gRPC connections share, made when the first is.
#[derive(Default)]
struct Runtime(Option<Arc<tokio::runtime::Runtime>>);

impl Runtime {
    fn get(&mut self) -> Result<Arc<tokio::runtime::Runtime>, ExportError> {
        if let Some(runtime) = &self.0 {
            return Ok(Arc::clone(runtime));
        }
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("otlp-grpc").enable_all().build();
        let runtime = Arc::new(runtime.map_err(ExportError::Thread)?);
        self.0 = Some(Arc::clone(&runtime));
        Ok(runtime)
    }
}

/// How spans are batched: the standard `OTEL_BSP_*` variables, within bounds.
pub(super) fn span_pace() -> Pace {
    pace("BSP", 5_000)
}

/// How log records are batched: the standard `OTEL_BLRP_*` variables, within bounds.
pub(super) fn log_pace() -> Pace {
    pace("BLRP", 1_000)
}

/// `delay` is the standard's default, in milliseconds.
fn pace(prefix: &str, delay: usize) -> Pace {
    let number = |name: &str, default: usize| {
        environment(&format!("OTEL_{prefix}_{name}")).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let capacity = number("MAX_QUEUE_SIZE", 2_048).clamp(1, 1 << 16);
    Pace {
        capacity,
        batch: number("MAX_EXPORT_BATCH_SIZE", 512).clamp(1, capacity),
        linger: Duration::from_millis(number("SCHEDULE_DELAY", delay) as u64),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Target {
    protocol: OtlpProtocol,
    /// `None`: the exporter reads it from the environment, with headers, timeout and the rest.
    endpoint: Option<String>,
}

impl Target {
    fn find(
        settings: &Telemetry,
        signal: Signal,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ExportError> {
        // As in `OTEL_TRACES_EXPORTER`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`.
        let word = signal.to_string().to_ascii_uppercase();
        let [exporter, endpoint, protocol] = [
            format!("OTEL_{word}_EXPORTER"),
            format!("OTEL_EXPORTER_OTLP_{word}_ENDPOINT"),
            format!("OTEL_EXPORTER_OTLP_{word}_PROTOCOL"),
        ];
        let is = |name: &str, word: &str| environment(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
        if !settings.signals.contains(&signal) || is("OTEL_SDK_DISABLED", "true") || is(&exporter, "none") {
            return Ok(None);
        }
        if let Some(base) = &settings.otlp_endpoint {
            let endpoint = match settings.otlp_protocol {
                OtlpProtocol::HttpProtobuf => url(base, &format!("/v1/{signal}")),
                OtlpProtocol::Grpc => is_url(base).then(|| base.clone()),
            };
            let endpoint = endpoint.ok_or_else(|| ExportError::Endpoint("[telemetry] otlp_endpoint".to_owned()))?;
            return Ok(Some(Self { protocol: settings.otlp_protocol, endpoint: Some(endpoint) }));
        }
        for name in [&*endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT"] {
            let Some(endpoint) = environment(name) else { continue };
            if !is_url(&endpoint) {
                return Err(ExportError::Endpoint(name.to_owned()));
            }
            let protocol = environment(&protocol).or_else(|| environment("OTEL_EXPORTER_OTLP_PROTOCOL")).map_or(
                settings.otlp_protocol,
                |word| match &*word {
                    "grpc" => OtlpProtocol::Grpc,
                    _ => OtlpProtocol::HttpProtobuf,
                },
            );
            return Ok(Some(Self { protocol, endpoint: None }));
        }
        Ok(None)
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_url(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| uri.authority().is_some() && matches!(uri.scheme_str(), Some("http" | "https")))
}

/// The address of a signal, which has `path` under a collector's base address. A base that is the address of a signal already
/// is that of the others too.
fn url(base: &str, path: &str) -> Option<String> {
    if !is_url(base) {
        return None;
    }
    let (address, query) = base.split_once('?').map_or((base, ""), |(address, query)| (address, query));
    let mut address = address.trim_end_matches('/');
    for known in ["/v1/traces", "/v1/metrics", "/v1/logs"] {
        address = address.strip_suffix(known).unwrap_or(address);
    }
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    Some(format!("{address}{path}{query}"))
}

/// Who we are. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` count unless the settings name the service themselves.
fn resource(settings: &Telemetry, environment: &dyn Fn(&str) -> Option<String>) -> Resource {
    const DEFAULT: &str = "streamgauge";
    const SERVICE_NAME: Key = Key::from_static_str("service.name");
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let attributes = environment("OTEL_RESOURCE_ATTRIBUTES");
    let attributes = attributes.and_then(|text| resource_attributes(&text)).unwrap_or_default();
    let named = environment("OTEL_SERVICE_NAME").or_else(|| {
        let service = attributes.iter().rev().find(|attribute| attribute.key == SERVICE_NAME);
        service.map(|attribute| attribute.value.as_str().into_owned()).filter(|name| !name.is_empty())
    });
    let name = named.filter(|_| settings.service_name == DEFAULT).unwrap_or_else(|| settings.service_name.clone());
    // The library's own reader of the environment decodes nothing.
    Resource::builder_empty()
        .with_detector(Box::new(opentelemetry_sdk::resource::TelemetryResourceDetector))
        .with_attribute(version)
        .with_attributes(attributes)
        .with_service_name(name)
        .build()
}

/// `key=value,…`, percent-encoded as the specification has it, which also has all of it discarded where a part cannot be
/// decoded.
fn resource_attributes(text: &str) -> Option<Vec<KeyValue>> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let attribute = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let (key, value) = (percent_decoded(key.trim())?, percent_decoded(value.trim())?);
        (!key.is_empty()).then(|| KeyValue::new(key, value))
    };
    pairs.map(attribute).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

    fn settings(endpoint: Option<&str>, otlp_protocol: OtlpProtocol) -> Telemetry {
        Telemetry {
            service_name: "streamgauge".into(),
            otlp_endpoint: endpoint.map(str::to_owned),
            otlp_protocol,
            signals: ALL.to_vec(),
            sample_ratio: Some(1.0),
            slow_first_token: Duration::from_secs(5),
            slow_gap: Duration::from_secs(2),
            capture_content: false,
        }
    }

    fn look<'e>(environment: &'e [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'e {
        |name| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    fn find(
        endpoint: Option<&str>,
        protocol: OtlpProtocol,
        environment: &[(&str, &str)],
    ) -> Result<Option<Target>, ExportError> {
        Target::find(&settings(endpoint, protocol), Signal::Traces, &look(environment))
    }

    #[test]
    fn each_signal_goes_under_the_base_address() {
        for (base, address) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            ("https://c.example/otlp/", "https://c.example/otlp/v1/traces"),
            ("https://c.example/v1/traces", "https://c.example/v1/traces"),
            ("https://c.example/?key=x", "https://c.example/v1/traces?key=x"),
        ] {
            assert_eq!(url(base, "/v1/traces").as_deref(), Some(address));
        }
        let logs = url("https://c.example/v1/traces?key=x", "/v1/logs");
        assert_eq!(logs.as_deref(), Some("https://c.example/v1/logs?key=x"));
        for bad in ["", "127.0.0.1:4318", "/v1/traces", "ftp://x", "http://", "http://a b"] {
            assert_eq!(url(bad, "/v1/traces"), None, "{bad}");
        }
    }

    #[test]
    fn the_settings_come_first_and_the_environment_second() {
        use OtlpProtocol::{Grpc, HttpProtobuf};
        let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        assert_eq!(find(None, HttpProtobuf, &[]).unwrap(), None);
        let target = find(Some("http://file:4318"), HttpProtobuf, &env).unwrap().unwrap();
        assert_eq!(target, Target { protocol: HttpProtobuf, endpoint: Some("http://file:4318/v1/traces".into()) });
        let target = find(None, HttpProtobuf, &env).unwrap().unwrap();
        assert_eq!(target, Target { protocol: Grpc, endpoint: None });
        let target = find(None, Grpc, &env[..1]).unwrap().unwrap();
        assert_eq!(target, Target { protocol: Grpc, endpoint: None });
        for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(find(Some("http://file:4318"), HttpProtobuf, &[off]).unwrap(), None);
        }
    }

    #[test]
    fn each_signal_has_its_own_variables_and_goes_nowhere_unless_it_is_named() {
        let env = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4318"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://metrics:4317"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc"),
            ("OTEL_LOGS_EXPORTER", "none"),
        ];
        let found = |signals: &[Signal]| {
            let settings = Telemetry { signals: signals.to_vec(), ..settings(None, OtlpProtocol::HttpProtobuf) };
            ALL.map(|signal| Target::find(&settings, signal, &look(&env)).unwrap().map(|target| target.protocol))
        };
        use OtlpProtocol::{Grpc, HttpProtobuf};
        assert_eq!(found(&ALL), [Some(HttpProtobuf), Some(Grpc), None]);
        assert_eq!(found(&[Signal::Traces]), [Some(HttpProtobuf), None, None]);
        assert_eq!(found(&[]), [None, None, None]);
    }

    #[test]
    fn errors_name_the_place_and_never_the_value() {
        for (endpoint, env) in [
            (Some("http://user:CANARY@ bad"), vec![]),
            (None, vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "user:CANARY@bad/")]),
        ] {
            let error = find(endpoint, OtlpProtocol::HttpProtobuf, &env).unwrap_err().to_string();
            assert!(error.contains("otlp_endpoint") || error.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{error}");
            assert!(!error.contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn both_protocols_are_set_up_without_a_collector_and_over_tls() {
        for protocol in [OtlpProtocol::HttpProtobuf, OtlpProtocol::Grpc] {
            for endpoint in ["http://127.0.0.1:9", "https://127.0.0.1:9"] {
                let collector = connect(&settings(Some(endpoint), protocol)).unwrap();
                assert!(collector.traces.is_some() && collector.metrics.is_some() && collector.logs.is_some());
                assert_eq!(collector.resource.get(&Key::from("service.name")), Some("streamgauge".into()));
                assert!(collector.resource.get(&Key::from("service.version")).is_some());
                assert!(collector.resource.get(&Key::from("telemetry.sdk.name")).is_some());
            }
        }
    }

    #[test]
    fn the_resource_is_read_from_the_environment_and_decoded() {
        let of = |environment: &[(&str, &str)], name: &str| {
            let settings = Telemetry { service_name: name.into(), ..settings(None, OtlpProtocol::Grpc) };
            let resource = resource(&settings, &look(environment));
            let get = |key: &'static str| resource.get(&Key::from(key)).map(|value| value.as_str().into_owned());
            (get("service.name").unwrap(), get("team"))
        };
        let texts = |name: &str, team: Option<&str>| (name.to_owned(), team.map(str::to_owned));
        let attributes = |text| ("OTEL_RESOURCE_ATTRIBUTES", text);
        assert_eq!(of(&[], "streamgauge"), texts("streamgauge", None));
        assert_eq!(
            of(&[attributes("team=a%20b%2Cc, service.name=gate%20way")], "streamgauge"),
            texts("gate way", Some("a b,c"))
        );
        assert_eq!(
            of(&[attributes("service.name=x,team=t=u"), ("OTEL_SERVICE_NAME", "y")], "streamgauge"),
            texts("y", Some("t=u"))
        );
        assert_eq!(
            of(&[attributes("service.name=x,team=t"), ("OTEL_SERVICE_NAME", "y")], "mine"),
            texts("mine", Some("t"))
        );
        for broken in
            ["team=t,other=%2", "team=t,other=%zz", "team=t,other=%ff", "team=t,other", "team=t,=x", "team=%+1"]
        {
            assert_eq!(of(&[attributes(broken)], "streamgauge"), texts("streamgauge", None), "{broken}");
        }
    }
}
