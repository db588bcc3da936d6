//! Names of the OpenTelemetry semantic conventions that we speak. The GenAI conventions are still moving: this is the one
//! place where their names stand. Names of our own begin with `streamgauge.`.

use super::phases::Phase;
use crate::llm::json_rpc::RpcProtocol;

pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
pub const HTTP_REQUEST_METHOD_ORIGINAL: &str = "http.request.method_original";
pub const HTTP_REQUEST_RESEND_COUNT: &str = "http.request.resend_count";
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
pub const URL_PATH: &str = "url.path";
pub const NETWORK_PROTOCOL_NAME: &str = "network.protocol.name";
pub const NETWORK_PROTOCOL_VERSION: &str = "network.protocol.version";
pub const CLIENT_ADDRESS: &str = "client.address";
pub const CLIENT_PORT: &str = "client.port";
pub const SERVER_ADDRESS: &str = "server.address";
pub const SERVER_PORT: &str = "server.port";
/// As metrics and `/api/upstreams` name the endpoint.
pub const ENDPOINT: &str = "streamgauge.endpoint";
pub const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
pub const NETWORK_PEER_PORT: &str = "network.peer.port";
pub const ERROR_TYPE: &str = "error.type";
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// Its value for all that speaks JSON-RPC.
pub const JSONRPC: &str = "jsonrpc";
pub const RPC_METHOD: &str = "rpc.method";
/// In place of the last, by the conventions for MCP.
pub const MCP_METHOD_NAME: &str = "mcp.method.name";
pub const USER_ID: &str = "user.id";

pub const GEN_AI_OPERATION_NAME: &str = "gen_ai.operation.name";
pub const GEN_AI_PROVIDER_NAME: &str = "gen_ai.provider.name";
pub const GEN_AI_REQUEST_MODEL: &str = "gen_ai.request.model";
pub const GEN_AI_REQUEST_STREAM: &str = "gen_ai.request.stream";
pub const GEN_AI_REQUEST_MAX_TOKENS: &str = "gen_ai.request.max_tokens";
pub const GEN_AI_REQUEST_TEMPERATURE: &str = "gen_ai.request.temperature";
pub const GEN_AI_REQUEST_TOP_P: &str = "gen_ai.request.top_p";
pub const GEN_AI_REQUEST_TOP_K: &str = "gen_ai.request.top_k";
pub const GEN_AI_REQUEST_SEED: &str = "gen_ai.request.seed";
pub const GEN_AI_REQUEST_FREQUENCY_PENALTY: &str = "gen_ai.request.frequency_penalty";
pub const GEN_AI_REQUEST_PRESENCE_PENALTY: &str = "gen_ai.request.presence_penalty";
pub const GEN_AI_REQUEST_STOP_SEQUENCES: &str = "gen_ai.request.stop_sequences";
/// Where it is not 1.
pub const GEN_AI_REQUEST_CHOICE_COUNT: &str = "gen_ai.request.choice.count";
pub const GEN_AI_REQUEST_REASONING_LEVEL: &str = "gen_ai.request.reasoning.level";
pub const GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID: &str = "gen_ai.request.previous_response.id";
pub const GEN_AI_OUTPUT_TYPE: &str = "gen_ai.output.type";
pub const GEN_AI_CONVERSATION_ID: &str = "gen_ai.conversation.id";
/// US dollars. The GenAI conventions have no name for it: this is what Langfuse and OpenLIT read.
pub const GEN_AI_USAGE_COST: &str = "gen_ai.usage.cost";
/// US dollars, by the OpenInference conventions.
pub const LLM_COST_TOTAL: &str = "llm.cost.total";
pub const GEN_AI_TOOL_NAME: &str = "gen_ai.tool.name";
pub const GEN_AI_RESPONSE_ID: &str = "gen_ai.response.id";
pub const GEN_AI_RESPONSE_MODEL: &str = "gen_ai.response.model";
pub const GEN_AI_RESPONSE_FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
/// JSON; only with `capture_content = true`.
pub const GEN_AI_INPUT_MESSAGES: &str = "gen_ai.input.messages";
/// As above.
pub const GEN_AI_OUTPUT_MESSAGES: &str = "gen_ai.output.messages";
/// As above: what stands apart from the messages.
pub const GEN_AI_SYSTEM_INSTRUCTIONS: &str = "gen_ai.system_instructions";
/// Until the first output of a stream, in seconds.
pub const GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
pub const GEN_AI_USAGE_INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
pub const GEN_AI_USAGE_OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
pub const GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
/// What the conventions called the next before; tracing backends read one or the other.
pub const GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS: &str = "gen_ai.usage.cache_creation.input_tokens";
pub const GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: &str = "gen_ai.usage.cache_write.input_tokens";
pub const GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: &str = "gen_ai.usage.reasoning.output_tokens";
pub const GEN_AI_USAGE_AUDIO_INPUT_TOKENS: &str = "gen_ai.usage.audio.input_tokens";
pub const GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS: &str = "gen_ai.usage.audio.output_tokens";

/// Of the usage counters. Providers break few numbers down, so it is `unknown` but for sound.
pub const GEN_AI_TOKEN_MODALITY: &str = "gen_ai.token.modality";
/// In `gen_ai.response.finish_reasons`, where a stream ended before its reason came.
pub const FINISH_REASON_ERROR: &str = "error";

/// Metrics of the GenAI conventions. Times are in seconds.
pub const METRIC_SERVER_REQUEST_DURATION: &str = "gen_ai.server.request.duration";
pub const METRIC_SERVER_TIME_TO_FIRST_TOKEN: &str = "gen_ai.server.time_to_first_token";
pub const METRIC_SERVER_TIME_PER_OUTPUT_TOKEN: &str = "gen_ai.server.time_per_output_token";
pub const METRIC_INFERENCE_DURATION: &str = "gen_ai.client.inference.duration";
pub const METRIC_INFERENCE_TIME_TO_FIRST_CHUNK: &str = "gen_ai.client.inference.time_to_first_chunk";
/// Between two frames with tokens: what else is sent is no output.
pub const METRIC_INFERENCE_TIME_PER_OUTPUT_CHUNK: &str = "gen_ai.client.inference.time_per_output_chunk";
pub const METRIC_EMBEDDINGS_DURATION: &str = "gen_ai.client.embeddings.duration";
pub const METRIC_EMBEDDINGS_INPUT: &str = "gen_ai.client.embeddings.operation.input_tokens";
/// Of what is neither inference nor embeddings.
pub const METRIC_CLIENT_OPERATION_DURATION: &str = "gen_ai.client.operation.duration";
pub const METRIC_USAGE_INPUT: &str = "gen_ai.client.inference.usage.input_tokens";
pub const METRIC_USAGE_OUTPUT: &str = "gen_ai.client.inference.usage.output_tokens";
pub const METRIC_USAGE_CACHE_READ: &str = "gen_ai.client.inference.usage.cache_read.input_tokens";
pub const METRIC_USAGE_CACHE_WRITE: &str = "gen_ai.client.inference.usage.cache_write.input_tokens";
pub const METRIC_USAGE_REASONING: &str = "gen_ai.client.inference.usage.reasoning.output_tokens";
pub const METRIC_OPERATION_INPUT: &str = "gen_ai.client.inference.operation.input_tokens";
pub const METRIC_OPERATION_OUTPUT: &str = "gen_ai.client.inference.operation.output_tokens";
/// Metrics of our own: requests by how they ended, and where their time went in seconds; US dollars.
pub const METRIC_REQUESTS: &str = "streamgauge.requests";
pub const METRIC_PHASE_DURATION: &str = "streamgauge.phase.duration";
pub const METRIC_COST: &str = "streamgauge.cost";
/// Of [`METRIC_PHASE_DURATION`].
pub const PHASE: &str = "streamgauge.phase";
pub const TEAM: &str = "streamgauge.team";

/// The event of the GenAI conventions that has what was said; only with `capture_content = true`.
pub const EVENT_INFERENCE_DETAILS: &str = "gen_ai.client.inference.operation.details";

/// `gen_ai.operation.name` where the request does not tell: what the other operations are a kind of.
pub const OPERATION_UNKNOWN: &str = "chat";

/// The name under which the conventions have a call's method.
pub fn rpc_method(protocol: RpcProtocol) -> &'static str {
    if protocol == RpcProtocol::Mcp { MCP_METHOD_NAME } else { RPC_METHOD }
}

/// `http.request.method`: a known method as it is; any other text of a client's is `_OTHER`.
pub fn method(method: &str) -> &'static str {
    const KNOWN: [&str; 10] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "QUERY"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}

// Names of our own.

pub const REQUEST_ID: &str = "streamgauge.request_id";
pub const ROUTE: &str = "streamgauge.route";
/// Of a stream that is no LLM's: its events, the time of the first in seconds, and the longest silence between two.
pub const STREAM_EVENTS: &str = "streamgauge.stream.events";
pub const STREAM_FIRST_EVENT: &str = "streamgauge.stream.first_event";
pub const STREAM_MAX_GAP: &str = "streamgauge.stream.max_gap";
pub const UPSTREAM: &str = "streamgauge.upstream";
pub const VARIANT: &str = "streamgauge.variant";
pub const OUTCOME: &str = "streamgauge.outcome";
pub const CONFIG_GENERATION: &str = "streamgauge.config_generation";
pub const BYTES_IN: &str = "streamgauge.bytes_in";
pub const BYTES_OUT: &str = "streamgauge.bytes_out";
pub const FRAMES: &str = "streamgauge.frames";
pub const TOKEN_FRAMES: &str = "streamgauge.token_frames";
pub const USAGE_SOURCE: &str = "streamgauge.usage_source";
/// The id of the request that asked for the response in the background whose end this one saw first.
pub const ASKED_BY: &str = "streamgauge.asked_by";
/// In seconds.
pub const TIME_TO_FIRST_TOKEN: &str = "streamgauge.time_to_first_token";
/// In seconds.
pub const TIME_PER_OUTPUT_TOKEN: &str = "streamgauge.time_per_output_token";
/// What the backend says of its own time, in seconds: the wait for a place.
pub const SERVER_QUEUE: &str = "streamgauge.server.queue";
/// The loading of the model.
pub const SERVER_LOAD: &str = "streamgauge.server.load";
/// The reading of the prompt.
pub const SERVER_PREFILL: &str = "streamgauge.server.prefill";
/// The writing of the answer.
pub const SERVER_GENERATION: &str = "streamgauge.server.generation";
/// In seconds.
pub const MAX_GAP: &str = "streamgauge.max_gap";
/// Something behind the proxy collected the stream; true or absent.
pub const BUFFERED: &str = "streamgauge.buffered";
pub const CONNECTION_REUSED: &str = "streamgauge.connection.reused";
pub const WEBSOCKET_MESSAGES_IN: &str = "streamgauge.websocket.messages_in";
pub const WEBSOCKET_MESSAGES_OUT: &str = "streamgauge.websocket.messages_out";
pub const WEBSOCKET_CLOSE_CODE: &str = "streamgauge.websocket.close_code";
/// Why a request was exported that was not sampled: `failed`, `slow_first_token`, `slow_gap` or `canary_decision`. The decision came after the
/// backend was told not to sample, so its own spans may be missing.
pub const SAMPLED_LATE: &str = "streamgauge.sampled_late";

pub const EVENT_FIRST_BYTE: &str = "streamgauge.first_byte";
pub const EVENT_FIRST_TOKEN: &str = "streamgauge.first_token";
pub const EVENT_FIRST_ANSWER: &str = "streamgauge.first_answer";
/// A gap between two tokens that was longer than `slow_gap`, at its end.
pub const EVENT_SLOW_GAP: &str = "streamgauge.slow_gap";
/// An attempt was replaced by another.
pub const EVENT_FAILOVER: &str = "streamgauge.failover";
/// A limit admitted or refused the request.
pub const EVENT_LIMIT: &str = "streamgauge.limit";
/// The judge of the route's canary decided, at the request's end.
pub const EVENT_CANARY: &str = "streamgauge.canary";
pub const CANARY_DECISION: &str = "streamgauge.canary.decision";
pub const CANARY_REASON: &str = "streamgauge.canary.reason";
pub const CANARY_FROM: &str = "streamgauge.canary.from_percent";
pub const CANARY_TO: &str = "streamgauge.canary.to_percent";
/// Of [`EVENT_SLOW_GAP`], in seconds.
pub const GAP: &str = "streamgauge.gap";
pub const FAILOVER_FROM: &str = "streamgauge.failover.from";
/// `admitted`, or the cap that refused.
pub const LIMIT_DECISION: &str = "streamgauge.limit.decision";
/// The limit that refused.
pub const LIMIT_NAME: &str = "streamgauge.limit.name";
/// Tokens held before the answer was known.
pub const LIMIT_RESERVED: &str = "streamgauge.limit.reserved_tokens";
/// Tokens charged in the end.
pub const LIMIT_USED: &str = "streamgauge.limit.used_tokens";
/// On spans of copies: no client waits for them.
pub const MIRROR: &str = "streamgauge.shadow";
pub const MIRROR_RESULT: &str = "streamgauge.shadow.result";
pub const MIRROR_DIFFERENCES: &str = "streamgauge.shadow.differences";
/// What the client had to wait for, for comparison.
pub const MIRROR_CLIENT_TIME_TO_FIRST_TOKEN: &str = "streamgauge.shadow.client_time_to_first_token";
pub const MIRROR_OUTPUT_TOKENS: &str = "streamgauge.shadow.output_tokens";
/// US dollars.
pub const MIRROR_COST: &str = "streamgauge.shadow.cost";
pub const FAILOVER_TO: &str = "streamgauge.failover.to";

/// `streamgauge.phase.…`, in seconds.
pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Receive => "streamgauge.phase.receive",
        Phase::Admit => "streamgauge.phase.admit",
        Phase::FailedAttempts => "streamgauge.phase.failed_attempts",
        Phase::Connect => "streamgauge.phase.connect",
        Phase::UpstreamWait => "streamgauge.phase.upstream_wait",
        Phase::Preamble => "streamgauge.phase.preamble",
        Phase::Generation => "streamgauge.phase.generation",
        Phase::ClientBlocked => "streamgauge.phase.client_blocked",
        Phase::Proxy => "streamgauge.phase.proxy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_named_as_everywhere() {
        for each in Phase::ALL {
            assert_eq!(phase(each), format!("streamgauge.phase.{}", each.as_str()));
        }
    }

    #[test]
    fn methods_are_few() {
        assert_eq!(method("POST"), "POST");
        assert_eq!(method("post"), "_OTHER");
        assert_eq!(method("BREW"), "_OTHER");
    }
}
