//! One record per request: the only source of metrics, spans, the log line and the live view.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use super::phases::{Phase, Phases, Stopwatch};
pub use super::server_address::ServerAddress;
use crate::llm::content::Prompt;
use crate::llm::json_rpc::Rpc;
use crate::llm::price::{Bill, Cost};
use crate::llm::{Dialect, Framing, Reading, RequestFacts, StreamReading, UsageSource};
use crate::policy::canary::Decision;
use crate::words::worded;

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
    /// Which of them has the answer that was passed on.
    pub passed_on: Option<usize>,
    pub phases: Phases,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Present for LLM-shaped exchanges.
    pub llm: Option<LlmInfo>,
    /// Present for event streams that are no LLM's.
    pub stream: Option<Box<StreamReading>>,
    /// Present for JSON-RPC that is no LLM's, and for A2A.
    pub rpc: Option<Box<Rpc>>,
    /// Present for upgraded connections.
    pub websocket: Option<WebSocketInfo>,
    /// What was asked, bounded; only where the configuration wants it kept, and for spans and exported events alone.
    pub prompt: Option<Box<Prompt>>,
    /// Present where the route has limits.
    pub limit: Option<LimitInfo>,
    /// What its end made the judge of a canary decide.
    pub canary: Option<Decision>,
    /// What its tokens cost at the first target; present where its route was chosen by what the request is, and both have a price.
    pub cost_at_first: Option<Cost>,
    /// It is one response on a WebSocket, told beside the record of its connection.
    pub of_websocket: bool,
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

#[derive(Debug, Clone, Default)]
pub struct ClientInfo {
    /// `None` on a unix socket.
    pub address: Option<SocketAddr>,
    /// From a trusted peer, or an authenticated identity.
    pub user: Option<Arc<str>>,
    /// From an authenticated identity.
    pub team: Option<Arc<str>>,
    /// The public id of the API key that was sent.
    pub key: Option<Arc<str>>,
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
    pub place: ServerAddress,
    pub span_id: u64,
    pub started: Duration,
    pub ended: Duration,
    pub reused_connection: bool,
    pub status: Option<u16>,
    pub error: Option<ErrorType>,
    pub cause: Cause,
}

impl Attempt {
    /// Whether the endpoint failed it: not so where another was faster, the client went, or the process goes down.
    pub fn failed(&self) -> bool {
        self.error.is_some_and(|error| {
            !matches!(
                error,
                ErrorType::HedgeLost | ErrorType::ClientGone | ErrorType::ClientWriteTimeout | ErrorType::Draining
            )
        })
    }
}

/// Why an attempt was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    First,
    /// The one before it failed.
    Failover,
    /// The one before it was silent for too long; both go on.
    Hedge,
}

/// What the gauge read of an LLM-shaped exchange.
#[derive(Debug, Clone)]
pub struct LlmInfo {
    pub dialect: Dialect,
    pub request: Arc<RequestFacts>,
    pub reading: Reading,
    /// What the tokens cost.
    pub bill: Bill,
    /// Who runs the model, where the configuration or the upstream's host tells.
    pub provider: Option<Arc<str>>,
    /// The CLIENT span "chat gpt-4o" over all attempts.
    pub span_id: u64,
    /// Present where the answer is the end of a response in the background that another request asked for, seen for the first
    /// time: its usage is that request's.
    pub asked_by: Option<Arc<AskedBy>>,
}

/// Who asked for a response whose end another request saw.
#[derive(Debug, Clone)]
pub struct AskedBy {
    pub request_id: Arc<str>,
    pub route: Option<Arc<str>>,
    pub client: ClientInfo,
    pub request: Arc<RequestFacts>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WebSocketInfo {
    pub messages_in: u64,
    pub messages_out: u64,
    /// From the client's first message to the server's first one after it.
    pub first_message: Option<Duration>,
    pub close_code: Option<u16>,
    /// Of a model, on the connection, and what they took together.
    pub responses: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cost: Cost,
}

/// What the limits of a route said of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitInfo {
    /// When it was decided.
    pub at: Duration,
    pub verdict: LimitVerdict,
    /// Where it was decided: `memory`, `shared`, or in place of a shared store `local` or `reject`.
    pub mode: &'static str,
    /// All limits of the route.
    pub names: Vec<Arc<str>>,
    /// How long a shared store took to decide, or was waited for.
    pub waited: Duration,
    /// Tokens held before the answer was known; of several limits the most.
    pub reserved: u64,
    /// Whether a tokenizer counted the prompt, or its size told about how many tokens it has. `None`: nothing tells that, or no
    /// limit asked.
    pub prompt_counted: Option<bool>,
    /// Tokens charged in the end.
    pub used: u64,
    /// Tokens left to the holder once these were held; of several limits the least.
    pub remaining: Option<u64>,
    /// The stream outran what it held while nothing was left, and was cut.
    pub cut: bool,
}

/// Whether a request might pass its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitVerdict {
    Admitted,
    Denied {
        /// The limit that refused.
        limit: Arc<str>,
        /// The cap that it was, as a bounded word.
        reason: &'static str,
    },
}

impl LimitVerdict {
    /// `admitted`, or the cap that refused, as a bounded word.
    pub fn decision(&self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Denied { reason, .. } => reason,
        }
    }

    /// The limit that refused.
    pub fn denied_by(&self) -> Option<&Arc<str>> {
        match self {
            Self::Admitted => None,
            Self::Denied { limit, .. } => Some(limit),
        }
    }
}

worded! {
    /// How a request ended: exactly one of these.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Outcome {
        Completed = "completed",
        /// Ended without its normal end.
        Truncated = "truncated",
        ErrorInStream = "error_in_stream",
        Stalled = "stalled",
        Timeout = "timeout",
        ClientCancelled = "client_cancelled",
        UpstreamError = "upstream_error",
        Rejected = "rejected",
        InternalError = "internal_error",
        /// The operator had the process stop before the answer was over.
        Stopped = "stopped",
    }
}

worded! {
    /// What went wrong, as a bounded label (`error.type`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum ErrorType {
        /// Malformed HTTP, or a request that the hygiene rules refuse.
        BadRequest = "bad_request",
        /// No credential where one is needed, or one that is not right.
        Unauthorized = "unauthorized",
        Forbidden = "forbidden",
        NoRoute = "no_route",
        TooLarge = "too_large",
        BodyTimeout = "body_timeout",
        /// A limit is used up.
        RateLimited = "rate_limited",
        /// The store of the limits cannot be reached.
        LimitStore = "limit_store",
        Overloaded = "overloaded",
        Draining = "draining",
        ConnectRefused = "connect_refused",
        ConnectTimeout = "connect_timeout",
        ConnectFailed = "connect_failed",
        TlsFailed = "tls_failed",
        DnsFailed = "dns_failed",
        /// The connection died before an answer.
        UpstreamReset = "upstream_reset",
        /// The answer's head could not be understood.
        UpstreamProtocol = "upstream_protocol",
        /// A 4xx or 5xx of the upstream, passed on.
        UpstreamStatus = "upstream_status",
        /// The connection died inside the body.
        UpstreamBodyReset = "upstream_body_reset",
        ErrorEvent = "error_event",
        MissingEnd = "missing_end",
        /// Another attempt at the same time was faster.
        HedgeLost = "hedge_lost",
        FirstTokenTimeout = "first_token_timeout",
        Stall = "stall",
        TotalTimeout = "total_timeout",
        ClientGone = "client_gone",
        ClientWriteTimeout = "client_write_timeout",
        Panic = "panic",
        Internal = "internal",
        /// No head of an answer in one piece came in time, and another place could be asked.
        AttemptTimeout = "attempt_timeout",
        /// A second signal ended the process at once.
        ForcedStop = "forced_stop",
        /// All that could answer was taken out of service by hand.
        OutOfService = "out_of_service",
        /// The money that a limit allows is spent.
        BudgetSpent = "budget_spent",
        /// The request's head was not complete in time.
        HeadTimeout = "head_timeout",
        /// The key of a request that ran was revoked by hand.
        KeyRevoked = "key_revoked",
    }
}

impl Record {
    /// The attempt that the request ended with: whose answer was passed on, else the last one.
    pub fn last_asked(&self) -> Option<&Attempt> {
        self.passed_on.and_then(|number| self.attempts.get(number)).or(self.attempts.last())
    }

    /// The upstream that is asked, or has answered.
    pub fn upstream(&self) -> Option<&Arc<str>> {
        self.served_by.as_ref().map(|served_by| &served_by.upstream)
    }

    /// From when to when upstreams were asked; `None` where none was.
    pub fn asked(&self) -> Option<(Duration, Duration)> {
        let (first, last) = self.attempts.first().zip(self.attempts.last())?;
        Some((first.started, last.ended.max(first.started)))
    }

    /// Whether the answer was what the client asked for: a 2xx status, and its normal end or at least a first token.
    pub fn answered(&self) -> bool {
        let success = self.of_websocket || self.status.is_some_and(|status| (200..300).contains(&status));
        let token = self.llm.as_ref().is_some_and(|llm| llm.reading.first_token.is_some());
        success && (self.outcome == Outcome::Completed || token)
    }
}

impl LlmInfo {
    /// `gen_ai.provider.name`: who is known to run the model, or else whose format the answer has. Where there was no answer,
    /// nobody knows.
    pub fn provider_name(&self) -> Option<&str> {
        let answered = self.reading.first_byte.is_some();
        self.provider.as_deref().or_else(|| answered.then(|| self.dialect.provider_name()))
    }

    /// Whether the answer was asked for as a stream, or came as one where the request does not say.
    pub fn streams(&self) -> bool {
        let came_as_one = || self.reading.framing.is_some_and(|framing| framing != Framing::Json);
        self.request.stream.unwrap_or_else(came_as_one)
    }

    /// Whether its usage is the request's own: not where the response runs on, was booked before, or is another request's.
    pub fn is_own(&self) -> bool {
        self.asked_by.is_none() && !matches!(self.reading.usage_source, UsageSource::Pending | UsageSource::Delivery)
    }

    /// Whether the answer was made before, for another request: its times are not the model's.
    pub fn is_fetched(&self) -> bool {
        self.asked_by.is_some() || self.request.is_delivery()
    }

    /// Mean time between output tokens after the first; `None` with fewer than two tokens or without their number.
    pub fn time_per_output_token(&self) -> Option<Duration> {
        let (first, last) = (self.reading.first_token?, self.reading.last_token?);
        let after_first = self.reading.usage.output?.checked_sub(1).filter(|count| *count > 0)?;
        Some(last.saturating_sub(first).div_f64(after_first as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distinct(words: impl Iterator<Item = &'static str>) -> usize {
        words.collect::<std::collections::HashSet<_>>().len()
    }

    #[test]
    fn every_label_word_is_its_own() {
        assert_eq!(distinct(Outcome::ALL.iter().map(|outcome| outcome.as_str())), Outcome::ALL.len());
        assert_eq!(distinct(ErrorType::ALL.iter().map(|error| error.as_str())), ErrorType::ALL.len());
        for (slot, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, slot);
        }
        for (slot, error) in ErrorType::ALL.into_iter().enumerate() {
            assert_eq!(error as usize, slot);
        }
    }

    fn llm(first_ms: Option<u64>, last_ms: Option<u64>, output: Option<u64>) -> LlmInfo {
        let reading = Reading {
            first_token: first_ms.map(Duration::from_millis),
            last_token: last_ms.map(Duration::from_millis),
            usage: crate::llm::Usage { output, ..Default::default() },
            ..Default::default()
        };
        LlmInfo {
            dialect: Dialect::OpenAiChat,
            request: Arc::default(),
            reading,
            bill: Bill::Unknown,
            provider: None,
            span_id: 1,
            asked_by: None,
        }
    }

    #[test]
    fn no_provider_is_guessed_without_an_answer() {
        let mut llm = llm(None, None, None);
        assert_eq!(llm.provider_name(), None);
        llm.provider = Some("groq".into());
        assert_eq!(llm.provider_name(), Some("groq"));
        llm.reading.first_byte = Some(Duration::ZERO);
        assert_eq!(llm.provider_name(), Some("groq"));
        llm.provider = None;
        assert_eq!(llm.provider_name(), Some("openai"));
    }

    #[test]
    fn time_per_output_token_counts_the_tokens_after_the_first() {
        let tpot = |first, last, output| llm(first, last, output).time_per_output_token();
        assert_eq!(tpot(Some(100), Some(300), Some(11)), Some(Duration::from_millis(20)));
        assert_eq!(tpot(Some(100), Some(100), Some(1)), None, "one token has no pace");
        assert_eq!(tpot(Some(100), Some(300), Some(0)), None);
        assert_eq!(tpot(Some(100), Some(300), None), None);
        assert_eq!(tpot(None, Some(300), Some(3)), None);
        assert_eq!(tpot(Some(300), Some(100), Some(3)), Some(Duration::ZERO));
    }
}
