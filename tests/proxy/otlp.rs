//! All signals reach a collector that decodes what it gets, over both protocols and as the standard environment says; and
//! those that nobody asked for go nowhere.

use std::collections::BTreeSet;
use std::io::Read as _;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data, number_data_point};
use prost::Message;
use tokio::sync::mpsc;
use tonic::codec::CompressionEncoding::Gzip;

use crate::support::{Proxy, Upstream, config, soon};

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";

const ALL: &str = "signals = [\"traces\", \"metrics\", \"logs\"]\n";

const CHAT: &str = r#"{"model":"gpt-test","stream":true,"seed":7,"stop":["END"],"conversation_id":"conv-1","messages":[{"role":"system","content":"x"},{"role":"user","content":"CANARY-PROMPT"}]}"#;

const STREAM: &str = "data: {\"id\":\"c1\",\"model\":\"gpt-test\",\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"CANARY-THOUGHT\"},\"finish_reason\":null}]}\n\n\
data: {\"id\":\"c1\",\"model\":\"gpt-test\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"CANARY-ANSWER\"},\"finish_reason\":null}]}\n\n\
data: {\"id\":\"c1\",\"model\":\"gpt-test\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call-1\",\"function\":{\"name\":\"add\",\"arguments\":\"{\\\"a\\\":1}\"}}]},\"finish_reason\":\"tool_calls\"}]}\n\n\
data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3,\"total_tokens\":8,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\ndata: [DONE]\n\n";

async fn backend() -> Upstream {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n", STREAM.len());
    Upstream::fixed(head + STREAM).await
}

/// What a collector was sent.
enum Export {
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
}

fn unpacked(gzip: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(gzip).read_to_end(&mut bytes).unwrap();
    bytes
}

/// An OTLP/HTTP collector in this process. It tells the head of each request too.
async fn http_collector() -> (Upstream, mpsc::Receiver<(String, Export)>) {
    let (tell, exports) = mpsc::channel(256);
    let upstream = Upstream::start(move |mut conn| {
        let tell = tell.clone();
        async move {
            while let Some(request) = conn.request().await {
                let body = match request.header("content-encoding") {
                    Some("gzip") => unpacked(&request.body),
                    None => request.body.clone(),
                    other => panic!("{other:?}"),
                };
                let export = match request.head.split(' ').nth(1).unwrap() {
                    "/v1/traces" => Export::Traces(ExportTraceServiceRequest::decode(&body[..]).unwrap()),
                    "/v1/metrics" => Export::Metrics(ExportMetricsServiceRequest::decode(&body[..]).unwrap()),
                    "/v1/logs" => Export::Logs(ExportLogsServiceRequest::decode(&body[..]).unwrap()),
                    other => panic!("{other}"),
                };
                // The test may have seen enough.
                let _ = tell.send((request.head.clone(), export)).await;
                conn.write("HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
                    .await;
            }
        }
    })
    .await;
    (upstream, exports)
}

#[derive(Clone)]
struct Grpc(mpsc::Sender<(String, Export)>);

impl Grpc {
    async fn tell<T>(&self, request: tonic::Request<T>, export: fn(T) -> Export) {
        let head = format!("{:?}", request.metadata());
        let _ = self.0.send((head, export(request.into_inner()))).await;
    }
}

macro_rules! service {
    ($service:ident, $request:ident, $response:ident, $export:expr) => {
        #[tonic::async_trait]
        impl $service for Grpc {
            async fn export(
                &self,
                request: tonic::Request<$request>,
            ) -> Result<tonic::Response<$response>, tonic::Status> {
                self.tell(request, $export).await;
                Ok(tonic::Response::new($response::default()))
            }
        }
    };
}

service!(TraceService, ExportTraceServiceRequest, ExportTraceServiceResponse, Export::Traces);
service!(MetricsService, ExportMetricsServiceRequest, ExportMetricsServiceResponse, Export::Metrics);
service!(LogsService, ExportLogsServiceRequest, ExportLogsServiceResponse, Export::Logs);

async fn grpc_collector() -> (std::net::SocketAddr, mpsc::Receiver<(String, Export)>) {
    let (tell, exports) = mpsc::channel(256);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = futures_util::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let service = Grpc(tell);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(service.clone()).accept_compressed(Gzip))
            .add_service(MetricsServiceServer::new(service.clone()).accept_compressed(Gzip))
            .add_service(LogsServiceServer::new(service).accept_compressed(Gzip))
            .serve_with_incoming(incoming),
    );
    (address, exports)
}

/// A value as text.
fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        Some(Value::ArrayValue(list)) => {
            format!("[{}]", list.values.iter().map(|item| text(Some(item))).collect::<Vec<_>>().join(","))
        }
        Some(Value::KvlistValue(list)) => {
            let mut fields: Vec<_> =
                list.values.iter().map(|field| format!("{}:{}", field.key, text(field.value.as_ref()))).collect();
            fields.sort();
            format!("{{{}}}", fields.join(","))
        }
        other => panic!("{other:?}"),
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    attributes.iter().find(|attribute| attribute.key == key).map(|attribute| text(attribute.value.as_ref()))
}

fn metrics(export: &ExportMetricsServiceRequest) -> impl Iterator<Item = &Metric> {
    export.resource_metrics.iter().flat_map(|of| &of.scope_metrics).flat_map(|scope| &scope.metrics)
}

fn records(export: &ExportLogsServiceRequest) -> impl Iterator<Item = &LogRecord> {
    export.resource_logs.iter().flat_map(|of| &of.scope_logs).flat_map(|scope| &scope.log_records)
}

/// The one point of a metric: what it counts, or the sum of what it measured; and its attributes.
fn point<'m>(export: &'m ExportMetricsServiceRequest, name: &str) -> (f64, &'m [KeyValue]) {
    let metric = metrics(export).find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name} is missing"));
    match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => {
            assert!(sum.is_monotonic && sum.data_points.len() == 1, "{sum:?}");
            let value = match sum.data_points[0].value.unwrap() {
                number_data_point::Value::AsInt(value) => value as f64,
                number_data_point::Value::AsDouble(value) => value,
            };
            (value, &sum.data_points[0].attributes)
        }
        Data::Histogram(histogram) => {
            assert_eq!(histogram.data_points.len(), 1, "{histogram:?}");
            (histogram.data_points[0].sum.unwrap(), &histogram.data_points[0].attributes)
        }
        other => panic!("{other:?}"),
    }
}

/// What came until all three signals told of the request.
struct Told {
    heads: Vec<String>,
    metrics: ExportMetricsServiceRequest,
    logs: ExportLogsServiceRequest,
    everything: String,
}

async fn told(exports: &mut mpsc::Receiver<(String, Export)>) -> Told {
    let (mut heads, mut everything) = (Vec::new(), String::new());
    let (mut traces, mut metrics, mut logs) = (false, None, None);
    while !traces || metrics.is_none() || logs.is_none() {
        let (head, export) = soon("an export", exports.recv()).await.unwrap();
        heads.push(head);
        match export {
            Export::Traces(export) => {
                everything.push_str(&format!("{export:?}"));
                traces = true;
            }
            Export::Metrics(export) => {
                everything.push_str(&format!("{export:?}"));
                let has_request = self::metrics(&export).any(|metric| metric.name == "streamgauge.requests");
                metrics = has_request.then_some(export).or(metrics);
            }
            Export::Logs(export) => {
                everything.push_str(&format!("{export:?}"));
                logs = Some(export);
            }
        }
    }
    Told { heads, metrics: metrics.unwrap(), logs: logs.unwrap(), everything }
}

const QUICKLY: [(&str, &str); 3] =
    [("OTEL_BSP_SCHEDULE_DELAY", "100"), ("OTEL_BLRP_SCHEDULE_DELAY", "100"), ("OTEL_METRIC_EXPORT_INTERVAL", "200")];

async fn chat(proxy: &Proxy) {
    let mut client = proxy.client().await;
    client
        .post(
            "/v1/chat/completions?secret=CANARY-QUERY",
            CHAT,
            "authorization: Bearer CANARY-KEY\r\nx-request-id: told\r\n",
        )
        .await;
    assert!(client.answer().await.whole);
}

async fn check(endpoint: String, protocol: &str, exports: &mut mpsc::Receiver<(String, Export)>) {
    let upstream = backend().await;
    let text = format!(
        "[telemetry]\notlp_endpoint = \"{endpoint}\"\notlp_protocol = \"{protocol}\"\nsample_ratio = 1.0\n{ALL}{}",
        config(upstream.address, ROUTE)
    );
    let environment = [
        &QUICKLY[..],
        &[
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=a%20b"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=a%20b,service.name=gate"),
        ],
    ]
    .concat();
    let proxy = Proxy::start_with(&text, &environment).await;
    chat(&proxy).await;
    let told = told(exports).await;
    assert!(told.heads.iter().all(|head| head.contains("a b")), "{:?}", told.heads);
    assert!(!told.everything.contains("CANARY"), "a secret leaks into {}", told.everything);

    let resource = told.metrics.resource_metrics[0].resource.as_ref().unwrap();
    assert_eq!(attribute(&resource.attributes, "service.name").as_deref(), Some("gate"));
    assert_eq!(attribute(&resource.attributes, "team").as_deref(), Some("a b"));
    for (name, value) in [
        ("gen_ai.client.inference.usage.input_tokens", 5.0),
        ("gen_ai.client.inference.usage.output_tokens", 3.0),
        ("gen_ai.client.inference.usage.cache_read.input_tokens", 4.0),
        ("gen_ai.client.inference.operation.input_tokens", 5.0),
        ("streamgauge.requests", 1.0),
    ] {
        assert_eq!(point(&told.metrics, name).0, value, "{name}");
    }
    let (seconds, attributes) = point(&told.metrics, "gen_ai.server.time_to_first_token");
    assert!(seconds > 0.0);
    for (key, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt-test"),
        ("server.address", "127.0.0.1"),
        ("streamgauge.route", "all"),
    ] {
        assert_eq!(attribute(attributes, key).as_deref(), Some(value), "{key}");
    }

    let line = proxy.record("told").await;
    let record = records(&told.logs).find(|record| record.event_name == "llm.request").unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(line["trace_id"], hex(&record.trace_id));
    assert_eq!(line["span_id"], hex(&record.span_id));
    assert_eq!((record.severity_number, &*record.severity_text), (9, "INFO"));
    for (key, value) in [
        ("streamgauge.request_id", "told"),
        ("streamgauge.outcome", "completed"),
        ("http.response.status_code", "200"),
        ("gen_ai.usage.input_tokens", "5"),
        ("gen_ai.request.stream", "true"),
        ("gen_ai.request.seed", "7"),
        ("gen_ai.request.stop_sequences", "[END]"),
        ("gen_ai.conversation.id", "conv-1"),
        ("server.address", "127.0.0.1"),
    ] {
        assert_eq!(attribute(&record.attributes, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(records(&told.logs).count(), 1, "one record a request");
}

#[tokio::test]
async fn all_signals_over_http() {
    let (collector, mut exports) = http_collector().await;
    check(format!("http://{}", collector.address), "http/protobuf", &mut exports).await;
}

#[tokio::test]
async fn all_signals_over_grpc() {
    let (address, mut exports) = grpc_collector().await;
    check(format!("http://{address}"), "grpc", &mut exports).await;
}

/// The signals that came until the proxy had ended.
async fn signals(more: &str, environment: &[(&str, &str)]) -> BTreeSet<&'static str> {
    let (collector, mut exports) = http_collector().await;
    let upstream = backend().await;
    let endpoint = format!("http://{}", collector.address);
    let text = format!("[telemetry]\nsample_ratio = 1.0\n{more}\n{}", config(upstream.address, ROUTE));
    let environment = [&[("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint)], environment].concat();
    // Without a short schedule: the end brings what there is.
    let mut proxy = Proxy::start_with(&text, &environment).await;
    chat(&proxy).await;
    proxy.signal("TERM");
    assert_eq!(proxy.exited().await, Some(0));
    let mut signals = BTreeSet::new();
    while let Ok((_, export)) = exports.try_recv() {
        signals.insert(match export {
            Export::Traces(_) => "traces",
            Export::Metrics(_) => "metrics",
            Export::Logs(_) => "logs",
        });
    }
    signals
}

#[tokio::test]
async fn an_endpoint_alone_gets_traces_alone_and_the_end_brings_what_waits() {
    assert_eq!(signals("", &[]).await, BTreeSet::from(["traces"]));
    assert_eq!(signals(ALL, &[]).await, BTreeSet::from(["traces", "metrics", "logs"]));
    let off = [("OTEL_METRICS_EXPORTER", "none")];
    assert_eq!(signals("signals = [\"metrics\", \"logs\"]", &off).await, BTreeSet::from(["logs"]));
}

#[tokio::test]
async fn what_was_said_is_exported_in_a_record_of_its_own_where_it_is_captured() {
    let (collector, mut exports) = http_collector().await;
    let upstream = backend().await;
    let text = format!(
        "[telemetry]\notlp_endpoint = \"http://{}\"\nsample_ratio = 1.0\ncapture_content = true\n{ALL}{}",
        collector.address,
        config(upstream.address, ROUTE)
    );
    let proxy = Proxy::start_with(&text, &QUICKLY).await;
    chat(&proxy).await;
    let told = told(&mut exports).await;
    assert!(!format!("{:?}", told.metrics).contains("CANARY"));
    let [request, details] = records(&told.logs).collect::<Vec<_>>()[..] else { panic!("{:?}", told.logs) };
    assert!(!format!("{request:?}").contains("CANARY"));
    assert_eq!(details.event_name, "gen_ai.client.inference.operation.details");
    assert_eq!((&details.trace_id, details.severity_number), (&request.trace_id, 5));
    assert_ne!(details.span_id, request.span_id, "it belongs to the call's span");
    let said = |key: &str| attribute(&details.attributes, key).unwrap();
    assert_eq!(
        said("gen_ai.input.messages"),
        "[{parts:[{content:x,type:text}],role:system},{parts:[{content:CANARY-PROMPT,type:text}],role:user}]"
    );
    assert_eq!(
        said("gen_ai.output.messages"),
        "[{finish_reason:tool_calls,parts:[{content:CANARY-THOUGHT,type:reasoning},{content:CANARY-ANSWER,type:text},\
         {arguments:{a:1},id:call-1,name:add,type:tool_call}],role:assistant}]"
    );
    assert!(!told.everything.contains("CANARY-KEY") && !told.everything.contains("CANARY-QUERY"));
}

#[tokio::test]
async fn a_dead_collector_costs_telemetry_that_is_counted_and_the_end_does_not_wait_for_it() {
    let gone = Upstream::fixed("").await;
    let address = gone.address;
    drop(gone);
    let upstream = backend().await;
    let text = format!(
        "[telemetry]\notlp_endpoint = \"http://{address}\"\nsample_ratio = 1.0\n{ALL}{}",
        config(upstream.address, ROUTE)
    );
    let mut proxy = Proxy::start_with(&text, &QUICKLY).await;
    chat(&proxy).await;
    let lost = |metrics: &str, signal: &str| {
        let series = match signal {
            "metrics" => "streamgauge_metric_exports_failed_total ".to_owned(),
            _ => format!("streamgauge_telemetry_dropped_total{{signal=\"{signal}\"}} "),
        };
        let value = metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap();
        value.parse::<u64>().unwrap() > 0
    };
    soon("all signals to be counted as lost", async {
        loop {
            let (_, metrics) = proxy.admin_get("/metrics").await;
            if ["traces", "metrics", "logs"].iter().all(|signal| lost(&metrics, signal)) {
                break;
            }
        }
    })
    .await;
    for signal in ["traces", "metrics", "logs"] {
        let said = |line: &serde_json::Value| line["event"] == "telemetry.export_failed" && line["signal"] == signal;
        proxy.line("what fails to be named", said).await;
        assert_eq!(proxy.lines().iter().filter(|line| said(line)).count(), 1, "once, however often it fails");
    }
    proxy.signal("TERM");
    assert_eq!(proxy.exited().await, Some(0));
}
