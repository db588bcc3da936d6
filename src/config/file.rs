//! The configuration file as written. The doc comments here are what editors show: they are the schema's descriptions.
//!
//! Nothing is required by these types, so that a missing key is told by `check` beside all other problems.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

mod canary;
mod identity;
mod limits;
mod prices;
mod shadow;
mod stream;

pub use canary::{CanaryTable, StickyWord};
pub use identity::{AlgorithmWord, IdentityTable, JwtTable, KeyTable};
pub use limits::{LimitKeyWord, LimitTable, LimitsTable, OnExhaustedWord, OnFailureWord};
pub use prices::PriceTable;
pub use shadow::ShadowTable;
pub use stream::StreamTable;

pub use super::file_failover::{FailoverWord, FallbackTable, HealthTable, RetriesTable};
use super::units::{At, DurationText, OneOrMany, SizeText, Table};

/// Streamgauge: a reverse proxy that measures every stream of an LLM backend.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Streamgauge configuration")]
pub struct File {
    pub server: Option<Table<ServerTable>>,
    /// Absent: the backend's own CORS headers pass untouched.
    pub cors: Option<Table<CorsTable>>,
    pub telemetry: Option<Table<TelemetryTable>>,
    pub identity: Option<Table<IdentityTable>>,
    /// The backends.
    #[serde(default)]
    pub upstream: Vec<Table<UpstreamTable>>,
    /// Which requests go where; the first that matches wins. Absent: everything goes to the only upstream.
    #[serde(default)]
    pub route: Vec<Table<RouteTable>>,
    /// What each user, team, key, address or route may use.
    #[serde(default)]
    pub limit: Vec<Table<LimitTable>>,
    /// Where the counts of all limits are kept.
    pub limits: Option<Table<LimitsTable>>,
    /// Streams of shapes of your own, which are recognised wherever they come.
    #[serde(default)]
    pub dialect: Vec<Table<StreamTable>>,
    /// What models cost; the first that matches counts.
    #[serde(default)]
    pub price: Vec<Table<PriceTable>>,
}

/// Listeners, bounds and trust.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTable {
    /// Where clients connect, HTTP/1.1 and HTTP/2 on one port: "127.0.0.1:8080", "[::]:8080", "unix:/path", or a list.
    #[schemars(extend("default" = "127.0.0.1:8080"))]
    pub listen: Option<At<OneOrMany<String>>>,
    /// Where metrics, health, the live view and the admin API are served.
    #[schemars(extend("default" = "127.0.0.1:9090"))]
    pub admin: Option<At<String>>,
    /// The environment variable with the token that the admin address asks for off loopback.
    #[schemars(extend("default" = "STREAMGAUGE_ADMIN_TOKEN"))]
    pub admin_token_env: Option<At<String>>,
    /// Largest buffered (JSON) request body.
    #[schemars(extend("default" = "32MiB"))]
    pub max_body: Option<At<SizeText>>,
    /// Largest streamed request body.
    #[schemars(extend("default" = "1GiB"))]
    pub max_upload: Option<At<SizeText>>,
    /// All buffered request bodies together.
    #[schemars(extend("default" = "1GiB"))]
    pub max_buffered: Option<At<SizeText>>,
    /// Client connections at one time.
    #[schemars(extend("default" = 10_000))]
    pub max_connections: Option<At<u32>>,
    /// Requests at one time.
    #[schemars(extend("default" = 10_000))]
    pub max_streams: Option<At<u32>>,
    /// Total time for a request's head.
    #[schemars(extend("default" = "10s"))]
    pub header_timeout: Option<At<DurationText>>,
    /// Longest time without a byte of a request's body.
    #[schemars(extend("default" = "60s"))]
    pub body_timeout: Option<At<DurationText>>,
    /// Longest time in which a client takes no byte of an answer.
    #[schemars(extend("default" = "60s"))]
    pub write_timeout: Option<At<DurationText>>,
    /// How long requests may go on after a signal to end.
    #[schemars(extend("default" = "10m"))]
    pub drain_timeout: Option<At<DurationText>>,
    /// How long WebSockets may go on after a signal to end.
    #[schemars(extend("default" = "30s"))]
    pub drain_websockets: Option<At<DurationText>>,
    /// Addresses and networks ("10.0.0.0/8") that may set x-user-id, x-forwarded-*, traceparent and baggage. Not even
    /// loopback by default: a Next.js server passes a browser's headers on.
    #[serde(default)]
    pub trusted_proxies: Vec<At<String>>,
    /// When an incoming traceparent becomes the parent of our trace.
    #[schemars(extend("default" = "trusted"))]
    pub continue_traces: Option<At<ContinueTracesWord>>,
    /// Serve TLS, HTTP/2 included, in place of clear text.
    pub tls: Option<Table<TlsTable>>,
    /// Where state outlives a restart. Absent: $XDG_STATE_HOME/streamgauge, or ~/.local/state/streamgauge.
    pub state_dir: Option<At<String>>,
    /// Who may connect to the unix sockets of `listen`, as the mode of a file. That of `admin` is always 0600.
    #[schemars(extend("default" = "0666"))]
    pub socket_mode: Option<At<String>>,
    /// The share of `max_connections` and of `max_streams` that one client address may take (IPv6 by /64). Trusted
    /// proxies are not bound; 1 binds nobody.
    #[schemars(extend("default" = 0.5))]
    pub address_share: Option<At<f64>>,
    /// The bytes a second that a request's body must come with, after its first 10 s; 0: no bound.
    #[schemars(extend("default" = "128"))]
    pub min_body_rate: Option<At<SizeText>>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ContinueTracesWord {
    /// From trusted peers; others are linked.
    Trusted,
    Always,
    /// Never, only linked.
    Link,
}

/// PEM files. Paths are relative to the configuration file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsTable {
    /// The certificate and its chain.
    #[schemars(required)]
    pub cert: Option<At<String>>,
    #[schemars(required)]
    pub key: Option<At<String>>,
}

/// Who may call from a browser. Replaces what the backend says, and covers our own errors too.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsTable {
    /// "https://app.example.com"; "*" alone means every origin.
    #[serde(default)]
    pub origins: Vec<At<String>>,
    /// Regular expressions that must match a whole origin.
    #[serde(default)]
    pub origin_patterns: Vec<At<String>>,
    /// Whether browsers may send cookies and `Authorization` by themselves.
    #[schemars(extend("default" = false))]
    pub credentials: Option<At<bool>>,
    /// Request headers that scripts may set; "*" alone means every header.
    #[schemars(extend("default" = ["*"]))]
    pub headers: Option<At<Vec<At<String>>>>,
    /// How long browsers may remember a preflight's answer.
    #[schemars(extend("default" = "1h"))]
    pub max_age: Option<At<DurationText>>,
}

/// What is exported, and what counts as slow.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TelemetryTable {
    #[schemars(extend("default" = "streamgauge"))]
    pub service_name: Option<At<String>>,
    /// The collector, as "http://127.0.0.1:4318". Absent: nothing is exported, unless the OTEL_* variables name one.
    pub otlp_endpoint: Option<At<String>>,
    #[schemars(extend("default" = "http/protobuf"))]
    pub otlp_protocol: Option<At<OtlpProtocolWord>>,
    /// What is exported to it: "traces", "metrics", "logs" (one record a request).
    #[schemars(extend("default" = ["traces"]))]
    pub signals: Option<At<Vec<At<SignalWord>>>>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SignalWord {
    Traces,
    Metrics,
    Logs,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum OtlpProtocolWord {
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    #[serde(rename = "grpc")]
    Grpc,
}

/// One backend, at one or more equal endpoints.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTable {
    /// What routes and telemetry call it. Absent: its first url's host and port.
    pub name: Option<At<String>>,
    /// Where it is: "http://127.0.0.1:8000", "https://api.example.com/base", "unix:/path".
    pub url: Option<At<String>>,
    /// Several equal endpoints, in place of `url`.
    pub urls: Option<At<Vec<At<String>>>>,
    /// The Host header it gets: "keep" (the client's; the default for http), "own" (the url's; the default for https),
    /// or a name.
    pub host: Option<At<String>>,
    /// What its answers speak: "auto" (recognised by path and answer), "openai-chat", "openai-responses", "anthropic",
    /// "gemini", "ollama", "vercel-ui", "vercel-data", "plain-sse", "plain-text", a framework's, as "langgraph" or "ag-ui"
    /// (`streamgauge read --help` lists them), or the name of a [[dialect]].
    #[schemars(extend("default" = "auto"))]
    pub dialect: Option<At<String>>,
    /// Who runs its models, as OpenTelemetry calls him ("groq", "azure.ai.openai", "deepseek"): for telemetry, and for the prices
    /// of the catalogue. Absent: by the host of its url where that is known.
    pub provider: Option<At<String>>,
    /// Whether OpenAI-shaped streams are asked for their usage where the client does not ask. The client sees nothing of it.
    #[schemars(extend("default" = "auto"))]
    pub ask_usage: Option<At<AskUsageWord>>,
    /// The HTTP version spoken to it. "auto": ALPN decides over TLS, HTTP/1.1 in clear text.
    #[schemars(extend("default" = "auto"))]
    pub protocol: Option<At<ProtocolWord>>,
    /// How often an HTTP/2 connection to it is asked whether it lives: one that does not answer within 5 s is closed. "0s":
    /// never, for servers that take offence (some of gRPC do).
    #[schemars(extend("default" = "15s"))]
    pub ping_interval: Option<At<DurationText>>,
    /// A PEM file with the certificates that its own must chain to, or be, in place of the system's.
    pub ca: Option<At<String>>,
    /// The environment variable with the API key that is put in place of the client's credentials.
    pub api_key_env: Option<At<String>>,
    /// The file with the API key that is put in place of the client's credentials.
    pub api_key_file: Option<At<String>>,
    /// How to read a stream of an app's own.
    pub stream: Option<Table<StreamTable>>,
    /// Asks each endpoint regularly whether it is well. Absent: only what requests show counts.
    pub health: Option<Table<HealthTable>>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum AskUsageWord {
    /// Unless it refuses to be asked.
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ProtocolWord {
    Auto,
    Http1,
    /// In clear text with prior knowledge.
    Http2,
}

/// Which requests go where, and within which times.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    /// What telemetry calls it. Absent: its path.
    pub name: Option<At<String>>,
    /// The path, in which `*` stands for any run of characters, slashes included.
    #[schemars(extend("default" = "*"))]
    pub path: Option<At<String>>,
    /// Absent: all.
    pub methods: Option<At<Vec<At<String>>>>,
    /// Request headers and the values that they must have.
    #[serde(default)]
    pub headers: BTreeMap<String, At<String>>,
    /// Models, as "gpt-4o*", of JSON bodies. Absent: all.
    pub models: Option<At<Vec<At<String>>>>,
    /// The only target's upstream, in place of `targets`.
    pub upstream: Option<At<String>>,
    /// Where requests go, by weight. Absent: to the only upstream.
    pub targets: Option<At<Vec<Table<TargetTable>>>>,
    /// What keeps a request at the target that the one before it took.
    #[schemars(extend("default" = "user"))]
    pub sticky: Option<At<StickyWord>>,
    pub canary: Option<Table<CanaryTable>>,
    pub shadow: Option<Table<ShadowTable>>,
    /// Where a request goes on when no target can answer it, in this order.
    #[serde(default)]
    pub fallback: Vec<Table<FallbackTable>>,
    /// Which failed requests another target or endpoint may answer.
    #[schemars(extend("default" = "llm"))]
    pub failover: Option<At<FailoverWord>>,
    pub retries: Option<Table<RetriesTable>>,
    /// After so long without a first token a second target is asked too, and the first token wins. Absent: never.
    pub hedge_after: Option<At<DurationText>>,
    /// Whose the answers are that it brings.
    #[schemars(extend("default" = "auto"))]
    pub kind: Option<At<KindWord>>,
    pub timeouts: Option<Table<TimeoutsTable>>,
    /// After so long a silence of the upstream, an event stream gets a comment; "0s" sends none.
    #[schemars(extend("default" = "15s"))]
    pub keepalive: Option<At<DurationText>>,
    /// Send such comments already before the upstream answered at all.
    #[schemars(extend("default" = false))]
    pub keepalive_before_headers: Option<At<bool>>,
    /// The names of the limits that its requests are under.
    pub limits: Option<At<Vec<At<String>>>>,
}

/// One place a route may send a request to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetTable {
    #[schemars(required)]
    pub upstream: Option<At<String>>,
    /// What telemetry calls this variant. Absent: its upstream's name.
    pub name: Option<At<String>>,
    /// Share of requests, relative to the other targets' weights.
    #[schemars(extend("default" = 1))]
    pub weight: Option<At<u32>>,
    /// Replaces the literal start of the route's path, up to its first `*`.
    pub path: Option<At<String>>,
    /// Replaces the model that a JSON body names.
    pub model: Option<At<String>>,
}

/// How long a request may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeoutsTable {
    /// Until a connection stands.
    #[schemars(extend("default" = "2s"))]
    pub connect: Option<At<DurationText>>,
    /// Until the first token of an LLM's stream. Absent: "60s" while another place can be asked, else "10m".
    pub first_token: Option<At<DurationText>>,
    /// The longest silence of an LLM's stream: nothing that tells of work. Absent: "10m".
    pub stall: Option<At<DurationText>>,
    /// For the whole of an LLM's answer, or of one in one piece. Absent: "1h".
    pub total: Option<At<DurationText>>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum KindWord {
    /// As request and answer show.
    Auto,
    /// LLM answers, whatever they look like.
    Llm,
    /// None are an LLM's: they are measured as streams, and bound by the times that are written below.
    Stream,
}
