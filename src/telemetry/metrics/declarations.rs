//! Every metric there is, declared in one place. Names, labels and buckets are a contract: dashboards and alerts use
//! them, and a golden list in the tests guards them. The comment on each is the help text that scrapers read.

use super::gap_histogram::Tally;
use super::labels::{
    AttemptResult, CheckResult, Commit, Direction, Endpoint, ErrorLabel, FailoverReason, FetchResult, Full, GenAiModel,
    GenAiTokenType, HedgeResult, Lever, Limit, LimitDecision, LimiterMode, MirrorResult, Modality, Model, Operation,
    Provider, Received, ReloadResult, ReplacedUpstream, ReplacingUpstream, Route, Settled, Side, Signal, Status, Team,
    TokenType, Upstream, Variant, Version,
};
use super::series::{AnyFamily, Bounds, Counter, Dollars, Family, Float, Gauge, Histogram};
use crate::llm::{UsageSource, token_gaps};
use crate::policy::affinity::AffinityResult;
use crate::policy::canary::{Fact, Kind};
use crate::policy::mirror::Difference;
use crate::telemetry::record::{Outcome, Phase};

/// Buckets of the OpenTelemetry GenAI conventions for the time to the first token, in seconds, and on to a minute.
pub(super) const FIRST_TOKEN: Bounds =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0];

/// Buckets of the conventions for the time per output token, in seconds.
pub(super) const PER_TOKEN: Bounds = &[0.001, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];

/// Buckets of the conventions for durations, in seconds.
pub(super) const DURATION: Bounds =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36];

/// Buckets of the conventions for token counts.
pub(super) const TOKENS: Bounds = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// From what a proxy takes to what a model takes, in seconds.
pub(super) const PHASE: Bounds =
    &[0.000_01, 0.000_1, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// What the proxy itself takes, in seconds.
const OVERHEAD: Bounds = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0,
];

/// Silences inside a stream, in seconds.
pub(super) const GAP: Bounds = &token_gaps::BOUNDS;

/// How long a stream may live that nothing ends, in seconds: up to a day.
const LIFE: Bounds = &[0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0];

/// Whom a request went to.
type Target = (Route, Upstream, Variant);

/// What the GenAI conventions tell calls apart by, and whom they went to.
type GenAi = (Route, Upstream, Variant, GenAiModel, Operation, Provider);

/// [`GenAi`], and one more.
type GenAiAnd<L> = (Route, Upstream, Variant, GenAiModel, Operation, Provider, L);

macro_rules! families {
    ($(
        $(#[doc = $help:literal])+
        $field:ident: $metric:ident $(($bounds:expr))? = $name:literal $labels:ty;
    )+) => {
        pub(super) struct Families {
            $($(#[doc = $help])+ pub(super) $field: Family<$metric, $labels>,)+
        }

        impl Families {
            pub(super) fn new() -> Self {
                Self { $($field: families!(@new $metric $(($bounds))?, $name, concat!($($help),+)),)+ }
            }

            /// All families, in the order of their declaration.
            pub(super) fn all(&self) -> impl Iterator<Item = &dyn AnyFamily> {
                let all: [&dyn AnyFamily; [$($name),+].len()] = [$(&self.$field),+];
                all.into_iter()
            }
        }
    };
    (@new Histogram($bounds:expr), $name:expr, $help:expr) => { Family::histogram($name, $help, $bounds) };
    (@new Tally($bounds:expr), $name:expr, $help:expr) => { Family::tally($name, $help, $bounds) };
    (@new $metric:ident, $name:expr, $help:expr) => { Family::new($name, $help) };
}

families! {
    /// Time from the request's head until the first token (reasoning, answer or tool input) as the user sees it, failed attempts included, in seconds.
    first_token: Histogram(FIRST_TOKEN) = "gen_ai_server_time_to_first_token_seconds" GenAi;
    /// Time between output tokens after the first, per request: (last - first) / (output tokens - 1), in seconds.
    per_token: Histogram(PER_TOKEN) = "gen_ai_server_time_per_output_token_seconds" GenAi;
    /// Duration of an LLM request from its head to the answer's end, in seconds. error_type is empty on success.
    request_duration: Histogram(DURATION) = "gen_ai_server_request_duration_seconds" GenAiAnd<ErrorLabel>;
    /// Input and output tokens per LLM request, reported or else counted.
    token_usage: Histogram(TOKENS) = "gen_ai_client_token_usage" GenAiAnd<GenAiTokenType>;
    /// Input tokens of inference, those of a cache included. Where nobody told how many there were it counts 0.
    used_input: Counter = "gen_ai_client_inference_usage_input_tokens_total" GenAiAnd<Modality>;
    /// Output tokens of inference, reasoning included.
    used_output: Counter = "gen_ai_client_inference_usage_output_tokens_total" GenAiAnd<Modality>;
    /// The part of the input tokens of inference that was read from a provider's cache.
    used_cache_read: Counter = "gen_ai_client_inference_usage_cache_read_input_tokens_total" GenAiAnd<Modality>;
    /// The part of the input tokens of inference that was written to a provider's cache.
    used_cache_write: Counter = "gen_ai_client_inference_usage_cache_write_input_tokens_total" GenAiAnd<Modality>;
    /// The part of the output tokens of inference that was reasoning.
    used_reasoning: Counter = "gen_ai_client_inference_usage_reasoning_output_tokens_total" GenAiAnd<Modality>;
    /// Input tokens per inference request, 0 where nobody told. error_type is empty on success.
    operation_input: Histogram(TOKENS) = "gen_ai_client_inference_operation_input_tokens" GenAiAnd<ErrorLabel>;
    /// Output tokens per inference request, 0 where nobody told. error_type is empty on success.
    operation_output: Histogram(TOKENS) = "gen_ai_client_inference_operation_output_tokens" GenAiAnd<ErrorLabel>;
    /// Requests by how they ended. The model is `none` where none was asked for, and `other` beyond the first 100 that got an answer.
    requests: Counter = "streamgauge_requests_total" (Route, Upstream, Variant, Model, Outcome, Status);
    /// Where the time of a request went, in seconds; a phase that a request did not enter is not counted.
    phase: Histogram(PHASE) = "streamgauge_phase_seconds" (Route, Upstream, Phase);
    /// What the proxy itself took of a request's time: admission, less the wait for a shared store of limits, and its own work on the stream, in seconds.
    overhead: Histogram(OVERHEAD) = "streamgauge_overhead_seconds" (Route,);
    /// Time from an LLM request's head until the first byte of the answer's body, in seconds.
    first_byte: Histogram(FIRST_TOKEN) = "streamgauge_llm_first_byte_seconds" Target;
    /// Time from an LLM request's head until the first output that is not reasoning, in seconds.
    first_answer: Histogram(FIRST_TOKEN) = "streamgauge_llm_first_answer_seconds" Target;
    /// The gaps between token frames, each of every stream, in seconds.
    token_gap: Tally(GAP) = "streamgauge_token_frame_gap_seconds" Target;
    /// Time from the request's head until the first event of a stream that is no LLM's, in seconds.
    stream_first_event: Histogram(PHASE) = "streamgauge_non_llm_stream_first_event_seconds" Target;
    /// The gaps between the events of streams that are no LLM's, each of every stream, in seconds.
    stream_gap: Tally(GAP) = "streamgauge_non_llm_stream_gap_seconds" Target;
    /// How long streams lived that are no LLM's, by how they ended, in seconds.
    stream_duration: Histogram(LIFE) = "streamgauge_non_llm_stream_duration_seconds" (Route, Upstream, Variant, Outcome);
    /// Streams that something behind the proxy collected and let go in bursts: a compressing middleware, a buffering proxy, a batching server.
    buffered: Counter = "streamgauge_buffered_streams_total" (Upstream,);
    /// Gaps between two token frames that were longer than slow_gap.
    slow_gaps: Counter = "streamgauge_slow_gaps_total" (Route, Upstream);
    /// Attempts that were replaced by another, by what was wrong with the replaced one.
    failovers: Counter = "streamgauge_failovers_total" (ReplacedUpstream, ReplacingUpstream, FailoverReason);
    /// Attempts to get an answer from an upstream; the result is `ok` or what went wrong.
    attempts: Counter = "streamgauge_attempts_total" (Upstream, AttemptResult);
    /// Attempts by the endpoint that was asked; the result is `ok` or what went wrong. Endpoints beyond the first 500 are `other`.
    endpoint_attempts: Counter = "streamgauge_endpoint_attempts_total" (Upstream, Endpoint, AttemptResult);
    /// Time from an attempt's beginning until the first token of its answer, by the endpoint that was asked, in seconds.
    endpoint_first_token: Histogram(FIRST_TOKEN) = "streamgauge_endpoint_first_token_seconds" (Upstream, Endpoint);
    /// Duration of attempts by the endpoint that was asked, in seconds; those that lost against a faster one are left out.
    endpoint_duration: Histogram(DURATION) = "streamgauge_endpoint_attempt_duration_seconds" (Upstream, Endpoint);
    /// Requests that were asked a second time while the first attempt was silent: the second one `won`, `lost`, or both `failed`.
    hedges: Counter = "streamgauge_hedges_total" (Route, HedgeResult);
    /// Requests to upstreams with session affinity, by where they were sent first: `home`; `second`, another endpoint since the home is down, penalised or slow; `spilled`, another since the home has more than its share in flight; `none`, to any since nothing names their session.
    affinity: Counter = "streamgauge_affinity_total" (Upstream, AffinityResult);
    /// Requests that are being served now.
    in_flight: Gauge = "streamgauge_requests_in_flight" (Route,);
    /// Tokens of LLM calls, `input` or `output`, as upstreams reported or, where they do not, as counted; an upstream whose hedge was lost read the prompt too.
    tokens: Counter = "streamgauge_tokens_total" (Route, Upstream, Model, TokenType);
    /// The part of the input tokens in streamgauge_tokens_total that the provider read from its cache.
    cache_read_tokens: Counter = "streamgauge_cache_read_tokens_total" (Route, Upstream, Model);
    /// The part of the input tokens in streamgauge_tokens_total that the provider wrote to its cache.
    cache_write_tokens: Counter = "streamgauge_cache_write_tokens_total" (Route, Upstream, Model);
    /// The part of the output tokens in streamgauge_tokens_total that was reasoning.
    reasoning_tokens: Counter = "streamgauge_reasoning_tokens_total" (Route, Upstream, Model);
    /// LLM calls (requests, and responses on a WebSocket) by where their token usage comes from.
    llm_calls: Counter = "streamgauge_llm_calls_total" (Route, Upstream, UsageSource);
    /// LLM calls whose tokens cost nobody knows what: their model has no `[[price]]`, and the catalogue does not list it.
    unpriced: Counter = "streamgauge_unpriced_llm_calls_total" (Route, Upstream, Model);
    /// What tokens cost, in US dollars, where the model has a price. The team is `none` where none is known, and `other` beyond the first 100.
    cost: Dollars = "streamgauge_cost_usd_total" (Route, Model, Team);
    /// What LLM calls cost less than their tokens would have cost at the first target, in US dollars: those of routes that are chosen by what a request is.
    cost_saved: Dollars = "streamgauge_cost_saved_usd_total" (Route,);
    /// What LLM calls cost more than their tokens would have cost at the first target, in US dollars: those of routes that are chosen by what a request is.
    cost_added: Dollars = "streamgauge_cost_added_usd_total" (Route,);
    /// WebSocket messages passed, by direction: `from_client` or `to_client`.
    websocket_messages: Counter = "streamgauge_websocket_messages_total" (Route, Direction);
    /// WebSockets that are open now.
    websockets_in_flight: Gauge = "streamgauge_websockets_open" ();
    /// Decisions of limits: `admitted`, or the cap that refused.
    limit_decisions: Counter = "streamgauge_limit_decisions_total" (Limit, LimitDecision);
    /// The share in use of a limit's fullest holder, from 0 to 1; beyond 1 in debt.
    limit_utilization: Float = "streamgauge_limit_max_utilization_ratio" (Limit,);
    /// Tokens that a limit reserved for requests before their answers.
    limit_reserved: Counter = "streamgauge_limit_reserved_tokens_total" (Limit,);
    /// Reserved tokens by what became of them at a request's end: `charged` or `returned`. Once no request is running, their sum is what was reserved.
    limit_settled: Counter = "streamgauge_limit_settled_tokens_total" (Limit, Settled);
    /// Tokens that requests used under a limit, reserved before or not.
    limit_used: Counter = "streamgauge_limit_used_tokens_total" (Limit,);
    /// Where limits are kept now, as 1: `memory`, `shared`, and without the shared store `local` or `reject`.
    limiter_mode: Gauge = "streamgauge_limiter_mode" (LimiterMode,);
    /// Each variant's share of requests on a route with a canary, from 0 to 1.
    canary_weight: Float = "streamgauge_canary_traffic_ratio" (Route, Variant);
    /// How strongly requests speak for harm by a canary, by what is harmed, as an e-value: 1 is nothing.
    canary_evidence: Float = "streamgauge_canary_harm_e_value" (Route, Fact);
    /// Decisions about a route's canary, of the judge and of operators.
    canary_decisions: Counter = "streamgauge_canary_decisions_total" (Route, Kind);
    /// Requests drawn to be copied, by how the copy's answer compares with the client's: `same`, `differs`, `failed` where only the client's was whole; and `skipped`, where no copy was made or compared: a cap was reached, or the client went.
    shadow: Counter = "streamgauge_shadow_requests_total" (Route, MirrorResult);
    /// In what the answers of copies differed: `status`, `first_token` (later), `length`, `finish_reason`.
    mirror_differences: Counter = "streamgauge_shadow_differences_total" (Route, Difference);
    /// Time until the first token of requests whose copy was compared, of the client's attempt (`primary`) and of its copy (`shadow`), in seconds.
    mirror_first_token: Histogram(FIRST_TOKEN) = "streamgauge_shadow_compared_first_token_seconds" (Route, Side);
    /// Output tokens of requests whose copy was compared, of the client's answer (`primary`) and of its copy (`shadow`).
    mirror_output_tokens: Counter = "streamgauge_shadow_compared_output_tokens_total" (Route, Side);
    /// What the tokens of copies cost, in US dollars. It is in no other metric.
    mirror_cost: Dollars = "streamgauge_shadow_cost_usd_total" (Route,);
    /// Whether an endpoint of an upstream takes requests: 1 or 0.
    endpoint_up: Gauge = "streamgauge_endpoint_up" (Upstream, Endpoint);
    /// Whether people let an endpoint of an upstream have requests: 1, or 0 while it is drained or disabled.
    endpoint_in_service: Gauge = "streamgauge_endpoint_in_service" (Upstream, Endpoint);
    /// What is out of service by hand now, by kind: `upstream`, `endpoint`, `target`, or a revoked `key`.
    levers_set: Gauge = "streamgauge_levers_set" (Lever,);
    /// How often an endpoint of an upstream was taken out for failing.
    endpoint_ejections: Counter = "streamgauge_endpoint_ejections_total" (Upstream, Endpoint);
    /// Active health checks of an endpoint's addresses by result: `healthy`, another `status` than 200 to 399, `timeout`, or `unreachable`. Endpoints beyond the first 500 are `other`.
    health_checks: Counter = "streamgauge_health_checks_total" (Upstream, Endpoint, CheckResult);
    /// Configuration reloads by result: `ok`, or `rejected`, where the last good one stays.
    config_reloads: Counter = "streamgauge_config_reloads_total" (ReloadResult,);
    /// Fetches of the keys that sign tokens (JWKS) by result: `ok`, or `failed`, where the last good ones stay.
    key_fetches: Counter = "streamgauge_jwks_fetches_total" (FetchResult,);
    /// Tries to log in at the admin address with a wrong token.
    admin_login_failures: Counter = "streamgauge_admin_login_failures_total" ();
    /// Client connections that are open; those that were turned away are not among them.
    connections_open: Gauge = "streamgauge_connections_open" ();
    /// Client connections that were let in.
    connections_opened: Counter = "streamgauge_connections_opened_total" ();
    /// Request heads that were not complete within `server.header_timeout`, by what had been received: `part` of the head, or `nothing` on a new connection.
    late_heads: Counter = "streamgauge_late_heads_total" (Received,);
    /// Client connections that were turned away at once: `max_connections`, or the share of one address, `address_share`.
    connections_refused: Counter = "streamgauge_connections_refused_total" (Full,);
    /// Number of the configuration that is served; the first is 1.
    config_generation: Gauge = "streamgauge_config_generation" ();
    /// Whether the last reload was taken over, as 1; 0 while a rejected file waits to be mended.
    config_last_ok: Gauge = "streamgauge_config_last_reload_successful" ();
    /// When a configuration was last taken over, in seconds since 1970.
    config_last_success: Gauge = "streamgauge_config_last_reload_success_timestamp_seconds" ();
    /// Telemetry that was lost because its destination was slow or gone: spans in `traces`, records in `logs`, lines in `access_log` and `log`.
    telemetry_dropped: Counter = "streamgauge_telemetry_dropped_total" (Signal,);
    /// Exports of metrics that failed. Nothing is lost while a later one succeeds: the next export has all.
    metric_exports_failed: Counter = "streamgauge_metric_exports_failed_total" ();
    /// Which build this is; always 1.
    build_info: Gauge = "streamgauge_build_info" (Version, Commit);
}
