//! One record per request: the only source of metrics, spans, the log line and the live view.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::llm::{Dialect, Reading, RequestFacts};

/// Everything that is told about one finished request. All durations count from "request head complete".
#[derive(Debug, Clone)]
pub struct Record {
    pub request_id: Arc<str>,
    pub trace: TraceIds,
    /// Wall clock at "request head complete".
    pub started: SystemTime,
    pub duration: Duration,
    pub client: ClientInfo,
    pub request: RequestInfo,
    /// `None`: no route matched, or the request was refused before routing.
    pub route: Option<Arc<str>>,
    /// Where the answer came from; `None` when no upstream was asked.
    pub served_by: Option<ServedBy>,
    pub config_generation: u64,
    /// Status sent to the client; `None` when none was.
    pub status: Option<u16>,
    pub outcome: Outcome,
    pub error: Option<ErrorType>,
    pub attempts: Vec<Attempt>,
    pub phases: Phases,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Present for LLM-shaped exchanges.
    pub llm: Option<LlmInfo>,
    /// Present for upgraded connections.
    pub websocket: Option<WebSocketInfo>,
}

/// Identity of the request within distributed traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceIds {
    pub trace_id: u128,
    /// The server span.
    pub span_id: u64,
    /// The caller's span, when its trace is continued.
    pub parent: Option<u64>,
    /// The caller's context, when it is linked and not continued.
    pub link: Option<(u128, u64)>,
    /// The flag that goes out in `traceparent`: a set one is always exported.
    pub sampled: bool,
}

#[derive(Debug, Clone)]
pub struct ClientInfo {
    /// `None` on a unix socket.
    pub address: Option<SocketAddr>,
    /// From a trusted peer, or an authenticated identity.
    pub user: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
pub struct RequestInfo {
    pub method: Arc<str>,
    /// Path without the query.
    pub path: Arc<str>,
    /// `1.0`, `1.1` or `2`.
    pub http_version: &'static str,
}

#[derive(Debug, Clone)]
pub struct ServedBy {
    pub upstream: Arc<str>,
    pub variant: Arc<str>,
}

/// One try to get an answer from one endpoint.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub upstream: Arc<str>,
    /// `server.address`: host or socket path.
    pub address: Arc<str>,
    pub port: Option<u16>,
    pub span_id: u64,
    pub started: Duration,
    pub ended: Duration,
    pub reused_connection: bool,
    pub status: Option<u16>,
    pub error: Option<ErrorType>,
}

/// What the gauge read of an LLM-shaped exchange.
#[derive(Debug, Clone)]
pub struct LlmInfo {
    pub dialect: Dialect,
    pub request: Arc<RequestFacts>,
    pub reading: Reading,
    /// The CLIENT span "chat gpt-4o" over all attempts.
    pub span_id: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WebSocketInfo {
    pub messages_in: u64,
    pub messages_out: u64,
    /// First server message after a client message.
    pub first_message: Option<Duration>,
    pub close_code: Option<u16>,
}

/// How a request ended: exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Completed,
    /// Ended without its normal end.
    Truncated,
    ErrorInStream,
    Stalled,
    Timeout,
    ClientCancelled,
    UpstreamError,
    Rejected,
    InternalError,
}

impl Outcome {
    pub const ALL: [Self; 9] = [
        Self::Completed,
        Self::Truncated,
        Self::ErrorInStream,
        Self::Stalled,
        Self::Timeout,
        Self::ClientCancelled,
        Self::UpstreamError,
        Self::Rejected,
        Self::InternalError,
    ];

    /// The word used in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Truncated => "truncated",
            Self::ErrorInStream => "error_in_stream",
            Self::Stalled => "stalled",
            Self::Timeout => "timeout",
            Self::ClientCancelled => "client_cancelled",
            Self::UpstreamError => "upstream_error",
            Self::Rejected => "rejected",
            Self::InternalError => "internal_error",
        }
    }
}

/// What went wrong, as a bounded label (`error.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// Malformed HTTP, or a request that the hygiene rules refuse.
    BadRequest,
    Forbidden,
    NoRoute,
    TooLarge,
    BodyTimeout,
    Overloaded,
    Draining,
    ConnectRefused,
    ConnectTimeout,
    ConnectFailed,
    TlsFailed,
    DnsFailed,
    /// The connection died before an answer.
    UpstreamReset,
    /// The answer's head could not be understood.
    UpstreamProtocol,
    /// A 4xx or 5xx of the upstream, passed on.
    UpstreamStatus,
    /// The connection died inside the body.
    UpstreamBodyReset,
    ErrorEvent,
    MissingEnd,
    FirstTokenTimeout,
    Stall,
    TotalTimeout,
    ClientGone,
    ClientWriteTimeout,
    Panic,
    Internal,
}

impl ErrorType {
    /// The word used in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Forbidden => "forbidden",
            Self::NoRoute => "no_route",
            Self::TooLarge => "too_large",
            Self::BodyTimeout => "body_timeout",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectFailed => "connect_failed",
            Self::TlsFailed => "tls_failed",
            Self::DnsFailed => "dns_failed",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::UpstreamStatus => "upstream_status",
            Self::UpstreamBodyReset => "upstream_body_reset",
            Self::ErrorEvent => "error_event",
            Self::MissingEnd => "missing_end",
            Self::FirstTokenTimeout => "first_token_timeout",
            Self::Stall => "stall",
            Self::TotalTimeout => "total_timeout",
            Self::ClientGone => "client_gone",
            Self::ClientWriteTimeout => "client_write_timeout",
            Self::Panic => "panic",
            Self::Internal => "internal",
        }
    }
}

/// Where the time of a request went. The phases add up to the duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Reading the request body.
    Receive,
    /// Deciding: hygiene, routing, limits.
    Admit,
    /// Lost on attempts that were replaced.
    FailedAttempts,
    Connect,
    /// From the request's last byte to the answer's first.
    UpstreamWait,
    /// From the answer's head to the first token.
    Preamble,
    /// From the first token on, waiting for the upstream.
    Generation,
    /// Waiting for the client to take bytes.
    ClientBlocked,
    /// Our own work between a read's return and the write's start.
    Proxy,
}

impl Phase {
    pub const ALL: [Self; 9] = [
        Self::Receive,
        Self::Admit,
        Self::FailedAttempts,
        Self::Connect,
        Self::UpstreamWait,
        Self::Preamble,
        Self::Generation,
        Self::ClientBlocked,
        Self::Proxy,
    ];

    /// The word used in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Admit => "admit",
            Self::FailedAttempts => "failed_attempts",
            Self::Connect => "connect",
            Self::UpstreamWait => "upstream_wait",
            Self::Preamble => "preamble",
            Self::Generation => "generation",
            Self::ClientBlocked => "client_blocked",
            Self::Proxy => "proxy",
        }
    }
}

/// Time per [`Phase`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases([Duration; 9]);

impl Phases {
    pub fn get(&self, phase: Phase) -> Duration {
        self.0.get(phase as usize).copied().unwrap_or_default()
    }

    pub fn add(&mut self, phase: Phase, time: Duration) {
        if let Some(slot) = self.0.get_mut(phase as usize) {
            *slot += time;
        }
    }

    /// The sum of all phases: the request's duration.
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    /// Each phase with its time, in [`Phase::ALL`]'s order.
    pub fn iter(&self) -> impl Iterator<Item = (Phase, Duration)> + '_ {
        Phase::ALL.into_iter().map(|phase| (phase, self.get(phase)))
    }
}

/// A stopwatch that is in exactly one phase at any time, so that the phases add up to the total.
#[derive(Debug, Clone)]
pub struct Stopwatch {
    phases: Phases,
    current: Phase,
    since: Duration,
}

impl Stopwatch {
    /// Starts at zero, in `phase`.
    pub fn start(phase: Phase) -> Self {
        Self { phases: Phases::default(), current: phase, since: Duration::ZERO }
    }

    /// Books the time since the last switch on the current phase, and enters `phase`.
    pub fn enter(&mut self, phase: Phase, now: Duration) {
        self.phases.add(self.current, now.saturating_sub(self.since));
        self.since = self.since.max(now);
        self.current = phase;
    }

    pub fn current(&self) -> Phase {
        self.current
    }

    /// Moves all that was booked since `mark` was taken to `failed_attempts`: that attempt was replaced.
    pub fn write_off(&mut self, mark: &Phases, now: Duration) {
        self.enter(self.current, now);
        for phase in [Phase::Connect, Phase::UpstreamWait, Phase::Preamble, Phase::Proxy] {
            let lost = self.phases.get(phase).saturating_sub(mark.get(phase));
            if let Some(slot) = self.phases.0.get_mut(phase as usize) {
                *slot -= lost;
            }
            self.phases.add(Phase::FailedAttempts, lost);
        }
    }

    /// What was booked until `now`.
    pub fn read(&self, now: Duration) -> Phases {
        let mut phases = self.phases;
        phases.add(self.current, now.saturating_sub(self.since));
        phases
    }
}
