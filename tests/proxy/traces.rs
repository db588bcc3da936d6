//! Spans reach a collector over both protocols, and secrets reach nobody.

use crate::support::{Proxy, Upstream, config, soon};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::sync::mpsc;

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";

const CHAT: &str =
    r#"{"model":"gpt-test","stream":true,"max_tokens":7,"messages":[{"role":"user","content":"CANARY-PROMPT"}]}"#;

const STREAM: &str = "data: {\"id\":\"c1\",\"model\":\"gpt-test\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"CANARY-ANSWER\"},\"finish_reason\":null}]}\n\n\
data: {\"id\":\"c1\",\"model\":\"gpt-test\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3,\"total_tokens\":8}}\n\ndata: [DONE]\n\n";

fn chat_answer() -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{STREAM}", STREAM.len())
}

/// An OTLP/HTTP collector in this process.
pub async fn http_collector() -> (Upstream, mpsc::Receiver<Span>) {
    let (tell, spans) = mpsc::channel(256);
    let upstream = Upstream::start(move |mut conn| {
        let tell = tell.clone();
        async move {
            while let Some(request) = conn.request().await {
                assert!(request.head.starts_with("POST /v1/traces "), "{}", request.head);
                let export = ExportTraceServiceRequest::decode(&request.body[..]).unwrap();
                for span in spans_of(export) {
                    tell.send(span).await.unwrap();
                }
                conn.write("HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
                    .await;
            }
        }
    })
    .await;
    (upstream, spans)
}

fn spans_of(export: ExportTraceServiceRequest) -> Vec<Span> {
    export.resource_spans.into_iter().flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
}

struct Grpc(mpsc::Sender<Span>);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        for span in spans_of(request.into_inner()) {
            self.0.send(span).await.unwrap();
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn grpc_collector() -> (std::net::SocketAddr, mpsc::Receiver<Span>) {
    let (tell, spans) = mpsc::channel(256);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = futures_util::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Grpc(tell)))
            .serve_with_incoming(incoming),
    );
    (address, spans)
}

/// The span tree of one request: server, logical, attempt.
async fn tree(spans: &mut mpsc::Receiver<Span>) -> [Span; 3] {
    let mut got: Vec<Span> = Vec::new();
    loop {
        got.push(soon("a span", spans.recv()).await.unwrap());
        let server = got.iter().find(|span| span.kind == 2);
        let child = |of: &Span| got.iter().find(|span| span.parent_span_id == of.span_id).cloned();
        if let Some(server) = server
            && let Some(logical) = child(server)
            && let Some(attempt) = child(&logical)
        {
            return [server.clone(), logical, attempt];
        }
    }
}

pub fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    let value = found.unwrap_or_else(|| panic!("{key} is missing in {:?}", span.attributes)).value.clone().unwrap();
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    match value.value.unwrap() {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        other => format!("{other:?}"),
    }
}

async fn check_tree(endpoint: String, protocol: &str, spans: &mut mpsc::Receiver<Span>) {
    let (upstream, mut seen) = Upstream::recording(chat_answer()).await;
    let text = format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[telemetry]\notlp_endpoint = \"{endpoint}\"\notlp_protocol = \"{protocol}\"\nsample_ratio = 1.0\n{}",
        config(upstream.address, ROUTE)
    );
    let proxy = Proxy::start_with(&text, &[("OTEL_BSP_SCHEDULE_DELAY", "100")]).await;
    let mut client = proxy.client().await;
    let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nx-request-id: traced\r\n";
    client
        .post(
            "/v1/chat/completions?secret=CANARY-QUERY",
            CHAT,
            &format!("{parent}authorization: Bearer CANARY-KEY\r\n"),
        )
        .await;
    assert!(client.answer().await.whole);
    let [server, logical, attempt] = tree(spans).await;
    let trace = [0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c];
    for span in [&server, &logical, &attempt] {
        assert_eq!(span.trace_id, trace);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    assert_eq!(server.parent_span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
    assert_eq!(server.name, "POST /v1/chat/completions");
    assert_eq!(logical.name, "chat gpt-test");
    assert_eq!(attribute(&logical, "gen_ai.usage.input_tokens"), "5");
    assert_eq!(attribute(&logical, "gen_ai.usage.output_tokens"), "3");
    assert_eq!(attribute(&logical, "gen_ai.request.max_tokens"), "7");
    assert_eq!(attribute(&attempt, "server.address"), "127.0.0.1");
    let passed_on = seen.recv().await.unwrap().header("traceparent").unwrap().to_owned();
    let attempt_id: String = attempt.span_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        passed_on,
        format!("00-0af7651916cd43dd8448eb211c80319c-{attempt_id}-01"),
        "the upstream's parent is the attempt"
    );
    let record = proxy.record("traced").await;
    assert_eq!(record["trace_id"], "0af7651916cd43dd8448eb211c80319c");

    let (_, metrics) = proxy.admin_get("/metrics").await;
    let (_, streams) = proxy.admin_get("/api/streams").await;
    for (place, text) in [
        ("spans", format!("{server:?}{logical:?}{attempt:?}")),
        ("log", format!("{:?}", proxy.lines())),
        ("metrics", metrics),
        ("streams", streams),
    ] {
        assert!(!text.contains("CANARY"), "a secret leaks into the {place}");
    }
}

#[tokio::test]
async fn spans_over_http() {
    let (collector, mut spans) = http_collector().await;
    check_tree(format!("http://{}", collector.address), "http/protobuf", &mut spans).await;
}

#[tokio::test]
async fn spans_over_grpc() {
    let (address, mut spans) = grpc_collector().await;
    check_tree(format!("http://{address}"), "grpc", &mut spans).await;
}

#[tokio::test]
async fn failed_requests_are_exported_though_not_sampled() {
    let (collector, mut spans) = http_collector().await;
    let upstream = Upstream::fixed("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await;
    let text = format!(
        "[telemetry]\notlp_endpoint = \"http://{}\"\nsample_ratio = 0.0\n{}",
        collector.address,
        config(upstream.address, ROUTE)
    );
    let proxy = Proxy::start_with(&text, &[("OTEL_BSP_SCHEDULE_DELAY", "100")]).await;
    assert_eq!(proxy.client().await.get("/fails", "").await.status, 500);
    let span = soon("the failed request's span", spans.recv()).await.unwrap();
    assert!(!span.attributes.is_empty());
}

#[tokio::test]
async fn a_dead_collector_slows_nobody_and_going_down_flushes() {
    let gone = Upstream::fixed("").await;
    let address = gone.address;
    drop(gone);
    let upstream = Upstream::fixed(chat_answer()).await;
    let text = format!(
        "[telemetry]\notlp_endpoint = \"http://{address}\"\nsample_ratio = 1.0\n{}",
        config(upstream.address, ROUTE)
    );
    let mut proxy = Proxy::start(&text).await;
    let mut client = proxy.client().await;
    for _ in 0..200 {
        client.post("/v1/chat/completions", CHAT, "").await;
        assert!(client.answer().await.whole);
    }
    drop(client);
    proxy.signal("TERM");
    assert_eq!(proxy.exited().await, Some(0));

    let (collector, mut spans) = http_collector().await;
    let text = format!(
        "[telemetry]\notlp_endpoint = \"http://{}\"\nsample_ratio = 1.0\n{}",
        collector.address,
        config(upstream.address, ROUTE)
    );
    // A long schedule: only the flush at the end can bring them.
    let mut proxy = Proxy::start_with(&text, &[("OTEL_BSP_SCHEDULE_DELAY", "600000")]).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", CHAT, "").await;
    assert!(client.answer().await.whole);
    drop(client);
    proxy.signal("TERM");
    assert_eq!(proxy.exited().await, Some(0));
    let [server, ..] = tree(&mut spans).await;
    assert_eq!(server.name, "POST /v1/chat/completions");
}

#[tokio::test]
async fn a_continued_traces_state_goes_on_and_the_environment_may_choose_the_sampler() {
    let (upstream, mut seen) = Upstream::recording("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let text = format!("[server]\ntrusted_proxies = [\"127.0.0.1\"]\n{}", config(upstream.address, ROUTE));
    let sampler = [("OTEL_TRACES_SAMPLER", "parentbased_always_on")];
    let proxy = Proxy::start_with(&text, &sampler).await;
    let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    for (sent, goes_on) in [
        ("tracestate: a=1\r\ntracestate:  b=2 , ,c@d=3\r\n", Some("a=1,b=2,c@d=3")),
        ("tracestate: A=1\r\n", None),
        ("tracestate: a=1,a=2\r\n", None),
        ("", None),
    ] {
        proxy.client().await.get("/", &format!("{parent}{sent}")).await;
        let request = soon("the request", seen.recv()).await.unwrap();
        assert_eq!(request.all("tracestate"), goes_on.into_iter().collect::<Vec<_>>(), "{sent}");
        assert!(request.header("traceparent").unwrap().starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
    }
    // A new trace has no state, and the sampler decides on it.
    proxy.client().await.get("/", "tracestate: a=1\r\n").await;
    let request = soon("the request", seen.recv()).await.unwrap();
    assert_eq!(request.header("tracestate"), None);
    assert!(request.header("traceparent").unwrap().ends_with("-01"), "{}", request.head);
}

#[tokio::test]
async fn prompts_and_answers_are_captured_only_when_asked_for() {
    for (wanted, more) in [(false, ""), (true, "capture_content = true\n")] {
        let (collector, mut spans) = http_collector().await;
        let upstream = Upstream::fixed(chat_answer()).await;
        let text = format!(
            "[telemetry]\notlp_endpoint = \"http://{}\"\nsample_ratio = 1.0\n{more}{}",
            collector.address,
            config(upstream.address, ROUTE)
        );
        let proxy = Proxy::start_with(&text, &[("OTEL_BSP_SCHEDULE_DELAY", "100")]).await;
        let mut client = proxy.client().await;
        client.post("/v1/chat/completions", CHAT, "x-request-id: said\r\n").await;
        assert!(client.answer().await.whole);
        let [_, logical, _] = tree(&mut spans).await;
        assert_eq!(format!("{logical:?}").contains("CANARY-PROMPT"), wanted);
        if wanted {
            let prompt = attribute(&logical, "gen_ai.input.messages");
            assert_eq!(prompt, r#"[{"parts":[{"content":"CANARY-PROMPT","type":"text"}],"role":"user"}]"#);
            let answer: serde_json::Value =
                serde_json::from_str(&attribute(&logical, "gen_ai.output.messages")).unwrap();
            assert_eq!(answer[0]["parts"][0]["content"], "CANARY-ANSWER");
            assert_eq!(answer[0]["finish_reason"], "stop");
        }
        // Nowhere else in any case.
        let (_, streams) = proxy.admin_get("/api/streams").await;
        let (_, metrics) = proxy.admin_get("/metrics").await;
        proxy.record("said").await;
        let logs = format!("{:?}", proxy.lines());
        assert!(![streams, metrics, logs].iter().any(|text| text.contains("CANARY")));
    }
}
