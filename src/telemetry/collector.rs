//! Which collector spans go to, as the settings and the standard environment say.

use std::time::Duration;

use http::Uri;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;

use super::export::Driver;
use super::queue::Pace;
use crate::config::settings::{OtlpProtocol, Telemetry};

/// Why spans cannot be exported. The texts never hold the endpoint: it may carry a key.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{0} is no URL: write it as http://host:4318, or https://host:4317 for gRPC")]
    Endpoint(&'static str),
    #[error("spans cannot be exported: {0}")]
    Build(#[from] ExporterBuildError),
    #[error("spans cannot be exported: the system gives no thread: {0}")]
    Thread(std::io::Error),
}

/// A way to a collector.
pub(super) struct Collector {
    pub(super) exporter: SpanExporter,
    pub(super) driver: Driver,
    pub(super) resource: Resource,
}

/// Prepares the exporter; nothing is connected yet. An endpoint in the settings decides the protocol too; without one the
/// environment may name both.
pub(super) fn connect(settings: &Telemetry) -> Result<Option<Collector>, ExportError> {
    let Some(target) = Target::find(settings, &environment)? else { return Ok(None) };
    let (exporter, driver) = match target.protocol {
        OtlpProtocol::HttpProtobuf => {
            let mut builder =
                SpanExporter::builder().with_http().with_protocol(opentelemetry_otlp::Protocol::HttpBinary);
            if let Some(endpoint) = target.endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            (builder.build()?, Driver::Thread)
        }
        OtlpProtocol::Grpc => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("otlp-grpc")
                .enable_all()
                .build()
                .map_err(ExportError::Thread)?;
            let inside = runtime.enter();
            let mut builder = SpanExporter::builder().with_tonic();
            if let Some(endpoint) = target.endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            let exporter = builder.build()?;
            drop(inside);
            (exporter, Driver::Runtime(runtime))
        }
    };
    Ok(Some(Collector { exporter, driver, resource: resource(settings) }))
}

/// How spans are batched: the standard `OTEL_BSP_*` variables, within bounds.
pub(super) fn pace() -> Pace {
    let number = |name: &str, default: usize| environment(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let capacity = number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048).clamp(1, 1 << 16);
    Pace {
        capacity,
        batch: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512).clamp(1, capacity),
        linger: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY", 5_000) as u64),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Target {
    protocol: OtlpProtocol,
    /// `None`: the exporter reads it from the environment, with headers, timeout and the rest.
    endpoint: Option<String>,
}

impl Target {
    fn find(settings: &Telemetry, environment: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, ExportError> {
        let is = |name: &str, word: &str| environment(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        if let Some(endpoint) = &settings.otlp_endpoint {
            let endpoint = match settings.otlp_protocol {
                OtlpProtocol::HttpProtobuf => traces_url(endpoint),
                OtlpProtocol::Grpc => is_url(endpoint).then(|| endpoint.clone()),
            };
            let endpoint = endpoint.ok_or(ExportError::Endpoint("[telemetry] otlp_endpoint"))?;
            return Ok(Some(Self { protocol: settings.otlp_protocol, endpoint: Some(endpoint) }));
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
            let Some(endpoint) = environment(name) else { continue };
            if !is_url(&endpoint) {
                return Err(ExportError::Endpoint(name));
            }
            let protocol = environment("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
                .or_else(|| environment("OTEL_EXPORTER_OTLP_PROTOCOL"))
                .map_or(settings.otlp_protocol, |word| match &*word {
                    "grpc" => OtlpProtocol::Grpc,
                    _ => OtlpProtocol::HttpProtobuf,
                });
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

/// The address of traces under a collector's base address, as the OTLP specification has it.
fn traces_url(base: &str) -> Option<String> {
    if !is_url(base) {
        return None;
    }
    let (address, query) = base.split_once('?').map_or((base, ""), |(address, query)| (address, query));
    let address = address.trim_end_matches('/');
    let address = match address.ends_with("/v1/traces") {
        true => address.to_owned(),
        false => format!("{address}/v1/traces"),
    };
    Some(if query.is_empty() { address } else { format!("{address}?{query}") })
}

/// Who we are. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` count unless the settings name the service themselves.
fn resource(settings: &Telemetry) -> Resource {
    const SERVICE_NAME: Key = Key::from_static_str("service.name");
    const DEFAULT: &str = "streamgauge";
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let builder = Resource::builder().with_attribute(version);
    let of_environment = Resource::builder().build().get_ref(&SERVICE_NAME).map(|name| name.as_str().into_owned());
    // The SDK makes up `unknown_service:…` where the environment says nothing.
    let named = of_environment.filter(|name| !name.starts_with("unknown_service"));
    match named {
        Some(name) if settings.service_name == DEFAULT => builder.with_service_name(name).build(),
        _ => builder.with_service_name(settings.service_name.clone()).build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: Option<&str>, otlp_protocol: OtlpProtocol) -> Telemetry {
        Telemetry {
            service_name: "streamgauge".into(),
            otlp_endpoint: endpoint.map(str::to_owned),
            otlp_protocol,
            sample_ratio: Some(1.0),
            slow_first_token: Duration::from_secs(5),
            slow_gap: Duration::from_secs(2),
            capture_content: false,
        }
    }

    fn find(
        endpoint: Option<&str>,
        protocol: OtlpProtocol,
        environment: &[(&str, &str)],
    ) -> Result<Option<Target>, ExportError> {
        let look =
            |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Target::find(&settings(endpoint, protocol), &look)
    }

    #[test]
    fn traces_go_under_the_base_address() {
        for (base, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            ("https://c.example/otlp/", "https://c.example/otlp/v1/traces"),
            ("https://c.example/v1/traces", "https://c.example/v1/traces"),
            ("https://c.example/?key=x", "https://c.example/v1/traces?key=x"),
        ] {
            assert_eq!(traces_url(base).as_deref(), Some(url));
        }
        for bad in ["", "127.0.0.1:4318", "/v1/traces", "ftp://x", "http://", "http://a b"] {
            assert_eq!(traces_url(bad), None, "{bad}");
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
                let collector = connect(&settings(Some(endpoint), protocol)).unwrap().unwrap();
                assert_eq!(collector.resource.get(&Key::from("service.name")), Some("streamgauge".into()));
                assert!(collector.resource.get(&Key::from("service.version")).is_some());
            }
        }
    }
}
