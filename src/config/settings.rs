//! Checked settings: what the rest of the program works with. Nothing here can be invalid; the file as
//! written is another type, and the only way from it to here is `check`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::address::{Endpoint, Listen, Network};
use super::canary::{Canary, Sticky};
use super::glob::{Glob, PathPattern};
use super::identity::IdentityRules;
use super::limits::{Limit, LimitStore};
use super::otlp::{OtlpProtocol, Signal};
use super::prices::Prices;
use super::secret::Secret;
use crate::llm::{Dialect, StreamRules};

/// One whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub server: Server,
    /// Absent: the backend's own CORS passes untouched.
    pub cors: Option<Cors>,
    pub telemetry: Telemetry,
    /// Absent: trusted proxies alone say who calls, in `x-user-id`.
    pub identity: Option<IdentityRules>,
    pub upstreams: Vec<Arc<Upstream>>,
    /// In file order; the first that matches wins. Never empty.
    pub routes: Vec<Arc<Route>>,
    pub limits: Vec<Arc<Limit>>,
    pub limit_store: LimitStore,
    pub prices: Prices,
    /// The files that the configuration names (certificates, keys): a change of one is a change of the configuration.
    pub files: Vec<PathBuf>,
}

impl Settings {
    /// Who runs the models of the upstream of this name, where that is known.
    pub fn provider_of(&self, upstream: &str) -> Option<Arc<str>> {
        self.upstreams.iter().find(|known| *known.name == *upstream)?.provider.clone()
    }
}

/// `[server]`: listeners, bounds and trust.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Never empty.
    pub listen: Vec<Listen>,
    pub admin: Listen,
    /// The token that the admin address asks for off loopback.
    pub admin_token: Option<Secret>,
    /// Largest buffered (JSON) request body, in bytes.
    pub max_body: u64,
    /// Largest streamed request body, in bytes.
    pub max_upload: u64,
    /// All buffered request bodies together, in bytes; room for one at least.
    pub max_buffered: u64,
    pub max_connections: usize,
    pub max_streams: usize,
    /// Total time for a request head.
    pub header_timeout: Duration,
    /// Longest time without a byte of a request body.
    pub body_timeout: Duration,
    /// Longest time in which a client takes no byte of an answer.
    pub write_timeout: Duration,
    pub drain_timeout: Duration,
    pub drain_websockets: Duration,
    /// Who may set `x-user-id`, `x-forwarded-*`, `traceparent` and `baggage`.
    pub trusted_proxies: Vec<Network>,
    pub continue_traces: ContinueTraces,
    pub tls: Option<Tls>,
    pub state_dir: PathBuf,
    /// The file mode of the unix sockets that clients connect to.
    pub socket_mode: u32,
    /// The share of all connections, and of all requests, that one client address may take; over 0 to 1.
    pub address_share: f64,
    /// Bytes a second of a request's body; 0: no bound.
    pub min_body_rate: u64,
}

impl Server {
    /// How many of `all` places one client address may take; one at least.
    #[must_use]
    pub fn share_of_address(&self, all: usize) -> usize {
        ((all as f64 * self.address_share).ceil() as usize).max(1)
    }
}

/// When an incoming `traceparent` becomes the parent of our trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContinueTraces {
    /// Continued from trusted peers, linked from others.
    Trusted,
    Always,
    /// Never continued, only linked.
    Link,
}

/// Certificate chain and key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// `[cors]`: who may call from a browser.
#[derive(Debug, Clone, PartialEq)]
pub struct Cors {
    /// `*` alone means every origin.
    pub origins: Vec<String>,
    /// Anchored at both ends.
    pub origin_patterns: Vec<OriginPattern>,
    pub credentials: bool,
    pub headers: Vec<String>,
    pub max_age: Duration,
}

/// A compiled, anchored pattern that compares by its source.
#[derive(Debug, Clone)]
pub struct OriginPattern {
    pub source: String,
    pub regex: regex_lite::Regex,
}

impl PartialEq for OriginPattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    pub service_name: String,
    /// Absent: nothing is exported, unless the environment names a collector.
    pub otlp_endpoint: Option<String>,
    pub otlp_protocol: OtlpProtocol,
    /// What is exported; each at most once.
    pub signals: Vec<Signal>,
    /// Share of traces exported, 0 to 1; failed and slow ones always are. `None`: as the environment says.
    pub sample_ratio: Option<f64>,
    pub slow_first_token: Duration,
    pub slow_gap: Duration,
    /// Spans and exported log records hold prompts and answers, bounded.
    pub capture_content: bool,
}

/// `[[upstream]]`: one backend, at one or more equal endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    pub name: Arc<str>,
    /// Never empty; all of one scheme.
    pub endpoints: Vec<Endpoint>,
    pub host: HostPolicy,
    /// `None`: recognised by path and answer.
    pub dialect: Option<Dialect>,
    /// Who runs its models, as telemetry and the price catalogue call him; `None`: not known.
    pub provider: Option<Arc<str>>,
    pub ask_usage: AskUsage,
    pub protocol: UpstreamProtocol,
    /// How often an HTTP/2 connection is asked whether it lives; zero: never.
    pub ping_interval: Duration,
    /// A PEM file with the certificates that this upstream's own must chain to, in place of the system's.
    pub ca: Option<PathBuf>,
    /// Put in place of the client's credentials.
    pub api_key: Option<Secret>,
    /// How its streams are read.
    pub stream: Arc<StreamRules>,
    /// Absent: only what requests show counts.
    pub health: Option<HealthCheck>,
}

/// `health` of an upstream: a GET that must be answered with 2xx or 3xx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Joined to the endpoint's base path.
    pub path: String,
    pub interval: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPolicy {
    /// The client's own `Host`.
    Keep,
    /// The endpoint's authority.
    Own,
    Name(String),
}

/// Whether streams are asked for their usage on the client's behalf.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AskUsage {
    /// Unless the upstream refuses to be asked.
    #[default]
    Auto,
    Always,
    Never,
}

impl AskUsage {
    /// The word used in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// HTTP version towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// ALPN decides over TLS; HTTP/1.1 in clear text.
    Auto,
    Http1,
    /// HTTP/2 alone; in clear text with prior knowledge.
    Http2,
}

/// `[[route]]`: which requests go where, and within which times.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub name: Arc<str>,
    pub path: PathPattern,
    /// Upper case; empty means all.
    pub methods: Vec<String>,
    /// Header name (lower case) and the value it must have.
    pub headers: Vec<(String, String)>,
    /// Model globs; empty means all, and that the body need not be read to route.
    pub models: Vec<Glob>,
    /// Never empty.
    pub targets: Vec<Target>,
    pub sticky: Sticky,
    pub canary: Option<Canary>,
    pub shadow: Option<Shadow>,
    /// Asked in this order when no target can answer. Their weights mean nothing.
    pub fallback: Vec<Target>,
    pub failover: Failover,
    pub retries: Retries,
    /// Absent: no hedging.
    pub hedge_after: Option<Duration>,
    pub kind: RouteKind,
    pub timeouts: Timeouts,
    /// Zero: no keep-alive comments.
    pub keepalive: Duration,
    pub keepalive_before_headers: bool,
    /// All that its requests are under.
    pub limits: Vec<Arc<Limit>>,
}

/// One place a route may send a request to.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The variant's name in telemetry; by default its upstream's.
    pub name: Arc<str>,
    pub upstream: Arc<Upstream>,
    /// Share of requests, relative to the other targets' weights.
    pub weight: u32,
    /// Replaces the literal prefix of the route's pattern.
    pub path: Option<String>,
    /// Replaces the model that a JSON body names.
    pub model: Option<String>,
}

/// `shadow` of a route: where copies of its requests go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct Shadow {
    pub target: Target,
    /// Share of requests, above 0 and at most 1.
    pub share: f64,
    /// Copies at one time. Never zero.
    pub concurrent: usize,
    /// Tokens that the copies may take, prompts and answers together. Never zero.
    pub tokens_per_minute: u64,
}

/// `failover` of a route: which failed attempts may be replaced by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failover {
    /// LLM-shaped requests until the first token, others only while nothing was sent.
    Llm,
    /// Every request whose body is in hand.
    Always,
    /// Only those of which nothing was sent.
    Unsent,
    Never,
}

impl Failover {
    /// The word used in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Always => "always",
            Self::Unsent => "unsent",
            Self::Never => "never",
        }
    }
}

/// `retries` of a route.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retries {
    /// Attempts a request may take, the first included. Never zero.
    pub attempts: u32,
    /// Share of the route's active requests that may be sent again at one time, 0 to 1.
    pub budget: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// Until the first token of a stream. `None`, here and below: the file says nothing, and what holds depends on the
    /// answer's kind and on whether another place can be asked.
    pub first_token: Option<Duration>,
    /// The longest silence of a stream after its first token.
    pub stall: Option<Duration>,
    pub total: Option<Duration>,
}

/// `kind` of a route: whose the answers are that it brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RouteKind {
    /// As request and answer show.
    #[default]
    Auto,
    /// LLM answers, whatever they look like.
    Llm,
    /// None are an LLM's; the times that the route writes bind them.
    Stream,
}

impl RouteKind {
    /// The word used in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Llm => "llm",
            Self::Stream => "stream",
        }
    }
}
