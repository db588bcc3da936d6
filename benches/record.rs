//! What it costs a request to be told of: `publish` with every rendering, and each rendering alone.

// A benchmark that cannot start has nothing to say.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use streamgauge::config::settings::Telemetry as Settings;
use streamgauge::config::telemetry::{OtlpProtocol, Signal};
use streamgauge::llm::{Dialect, Reading, RequestFacts, Usage, UsageSource};
use streamgauge::telemetry::access_log::{AccessLog, Style, render};
use streamgauge::telemetry::otlp::Exporters;
use streamgauge::telemetry::record::{
    Attempt, Cause, ClientInfo, LlmInfo, Outcome, Phase, Phases, Record, RequestInfo, ServedBy, ServerAddress, TraceIds,
};
use streamgauge::telemetry::{Metrics, Telemetry, ids, trace_context};

/// What a request holds of a configuration: shared, not copied.
struct Names {
    method: Arc<str>,
    path: Arc<str>,
    route: Arc<str>,
    upstream: Arc<str>,
    address: Arc<str>,
    facts: Arc<RequestFacts>,
}

impl Names {
    fn new() -> Self {
        let facts = RequestFacts {
            dialect: Some(Dialect::OpenAiChat),
            operation: Some("chat"),
            model: Some("gpt-4o".to_owned()),
            stream: Some(true),
            max_tokens: Some(256),
            temperature: Some(0.7),
            ..RequestFacts::default()
        };
        Self {
            method: "POST".into(),
            path: "/v1/chat/completions".into(),
            route: "chat".into(),
            upstream: "fastapi".into(),
            address: "127.0.0.1".into(),
            facts: Arc::new(facts),
        }
    }

    fn record(&self, sampled: bool) -> Record {
        let ms = Duration::from_millis;
        let mut phases = Phases::default();
        for (phase, time) in [
            (Phase::Admit, 1),
            (Phase::Connect, 1),
            (Phase::UpstreamWait, 200),
            (Phase::Preamble, 5),
            (Phase::Generation, 2_000),
            (Phase::ClientBlocked, 3),
            (Phase::Proxy, 4),
        ] {
            phases.add(phase, ms(time));
        }
        let attempt = Attempt {
            upstream: Arc::clone(&self.upstream),
            place: ServerAddress {
                endpoint: Arc::clone(&self.address),
                address: Arc::clone(&self.address),
                port: Some(8000),
                peer: None,
            },
            span_id: 3,
            started: ms(1),
            ended: ms(2_214),
            reused_connection: true,
            status: Some(200),
            error: None,
            cause: Cause::First,
        };
        Record {
            stream: None,
            rpc: None,
            limit: None,
            canary: None,
            passed_on: Some(0),
            request_id: ids::new_request_id(),
            trace: TraceIds { trace_id: 1, span_id: 1, parent: None, link: None, sampled },
            started: SystemTime::now(),
            duration: phases.total(),
            client: ClientInfo { address: Some(([127, 0, 0, 1], 4711).into()), ..ClientInfo::default() },
            request: RequestInfo {
                method: Arc::clone(&self.method),
                path: Arc::clone(&self.path),
                http_version: "1.1",
            },
            route: Some(Arc::clone(&self.route)),
            served_by: Some(ServedBy { upstream: Arc::clone(&self.upstream), variant: Arc::clone(&self.upstream) }),
            config_generation: 1,
            status: Some(200),
            outcome: Outcome::Completed,
            error: None,
            attempts: vec![attempt],
            phases,
            bytes_in: 500,
            bytes_out: 30_000,
            llm: Some(LlmInfo {
                dialect: Dialect::OpenAiChat,
                request: Arc::clone(&self.facts),
                reading: reading(),
                bill: Default::default(),
                provider: None,
                span_id: 2,
                asked_by: None,
            }),
            websocket: None,
            cost_at_first: None,
            of_websocket: false,
            prompt: None,
        }
    }
}

fn reading() -> Reading {
    let ms = Duration::from_millis;
    Reading {
        first_byte: Some(ms(202)),
        first_token: Some(ms(207)),
        first_answer: Some(ms(207)),
        last_token: Some(ms(2_200)),
        max_gap: Some(ms(80)),
        frames: 120,
        token_frames: 118,
        bytes: 30_000,
        usage: Usage { input: Some(900), cached_input: Some(512), output: Some(118), ..Usage::default() },
        usage_source: UsageSource::Reported,
        finish_reasons: vec!["stop".to_owned()],
        response_id: Some("chatcmpl-123456789".into()),
        response_model: Some("gpt-4o-2024-08-06".into()),
        normal_end: true,
        ..Reading::default()
    }
}

/// A stdout that takes everything, through the system.
fn sink() -> impl Write + Send + 'static {
    std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap()
}

/// Exporters to nowhere: their queues are full or fail, which is the worst case for the request.
fn exporters(signals: &[Signal]) -> Exporters {
    let settings = Settings {
        service_name: "bench".to_owned(),
        otlp_endpoint: Some("http://127.0.0.1:9".to_owned()),
        otlp_protocol: OtlpProtocol::HttpProtobuf,
        signals: signals.to_vec(),
        sample_ratio: Some(0.1),
        slow_first_token: Duration::from_secs(5),
        slow_gap: Duration::from_secs(2),
        capture_content: false,
    };
    Exporters::build(&settings).unwrap()
}

fn publish(criterion: &mut Criterion) {
    let names = Names::new();
    let telemetry = Telemetry::new(Some(AccessLog::start(Style::Json, sink()).unwrap()), exporters(&[Signal::Traces]));
    for (name, sampled) in [("publish/not sampled", false), ("publish/sampled", true)] {
        criterion.bench_function(name, |bencher| {
            bencher.iter_batched(|| names.record(sampled), |record| telemetry.publish(record), BatchSize::SmallInput);
        });
    }
    for (name, signal) in [("publish/metrics exported", Signal::Metrics), ("publish/logs exported", Signal::Logs)] {
        let telemetry = Telemetry::new(None, exporters(&[signal]));
        criterion.bench_function(name, |bencher| {
            bencher.iter_batched(|| names.record(false), |record| telemetry.publish(record), BatchSize::SmallInput);
        });
    }
    let quiet = Telemetry::for_tests();
    criterion.bench_function("publish/metrics and live view alone", |bencher| {
        bencher.iter_batched(|| names.record(false), |record| quiet.publish(record), BatchSize::SmallInput);
    });
}

fn renderings(criterion: &mut Criterion) {
    let names = Names::new();
    let (record, metrics) = (names.record(false), Metrics::new());
    criterion.bench_function("metrics/observe", |bencher| bencher.iter(|| metrics.observe(black_box(&record))));
    let sampled = names.record(true);
    criterion.bench_function("metrics/observe with exemplars", |bencher| {
        bencher.iter(|| metrics.observe(black_box(&sampled)));
    });
    criterion.bench_function("metrics/in flight", |bencher| bencher.iter(|| metrics.in_flight(black_box("chat"))));
    criterion.bench_function("metrics/scrape", |bencher| bencher.iter(|| metrics.encode(None)));
    let mut line = String::new();
    for (name, style) in [("access log/json", Style::Json), ("access log/human", Style::Human { colour: false })] {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                line.clear();
                render(style, black_box(&record), record.started, &mut line);
            });
        });
    }
    criterion.bench_function("ids/request id and trace ids", |bencher| {
        let policy = streamgauge::config::settings::ContinueTraces::Trusted;
        bencher.iter(|| (ids::new_request_id(), trace_context::decide(None, false, policy, 0.1)));
    });
    let _ = io::stdout().flush();
}

criterion_group!(benches, publish, renderings);
criterion_main!(benches);
