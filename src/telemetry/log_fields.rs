//! Every field of the log line, with its meaning: the reference of `streamgauge reference log`. The order is that of the line; a test holds it
//! against what is written.

/// One field.
pub(crate) struct LogField {
    /// Its name; below an object after a `/`.
    pub(crate) name: &'static str,
    /// Of its value: `text`, `number`, `truth`, `seconds` (a number), `time` (RFC 3339), `list`, `object`.
    pub(crate) kind: &'static str,
    pub(crate) meaning: &'static str,
}

macro_rules! fields {
    ($($name:literal $kind:ident $meaning:literal;)+) => {
        /// In the order in which they are written. One that does not apply to a request is absent.
        pub(crate) static LOG_FIELDS: [LogField; [$($name),+].len()] =
            [$(LogField { name: $name, kind: stringify!($kind), meaning: $meaning }),+];
    };
}

fields! {
    "timestamp" time "when the request's head was complete";
    "written" time "when the line was written";
    "level" text "`info`, `warn` or `error`, by the outcome";
    "event" text "`llm.request`, `llm.response` (on a WebSocket), `stream.request` (no LLM's), `http.request`";
    "request_id" text "the client's `x-request-id`, or one of our own; the answer has it too";
    "trace_id" text "the request's trace, 32 hexadecimal digits";
    "span_id" text "its span, 16 hexadecimal digits";
    "user.id" text "who asked, by key, token or a trusted header";
    "team" text "the team of the key or token";
    "key" text "the public id of the API key";
    "client.address" text "the client's address; absent on a unix socket";
    "http.request.method" text "the method";
    "url.path" text "the path, without its query";
    "http.response.status_code" number "the status that the client got; absent: none was sent";
    "gen_ai.operation.name" text "`chat`, `embeddings`, …";
    "gen_ai.provider.name" text "who runs the model, or whose format the answer has";
    "gen_ai.request.model" text "the model that was asked for";
    "gen_ai.response.model" text "the model that answered, by its own words";
    "gen_ai.request.stream" truth "`true`, or absent: the answer is in one piece";
    "gen_ai.usage.input_tokens" number "input tokens, those of a cache included";
    "gen_ai.usage.cache_read.input_tokens" number "of these those that were read from the provider's cache";
    "gen_ai.usage.cache_write.input_tokens" number "of these those that were written to it";
    "gen_ai.usage.output_tokens" number "output tokens, reasoning included";
    "gen_ai.usage.reasoning.output_tokens" number "of these those of reasoning";
    "usage_source" text "who counted the tokens";
    "asked_by" object "the request that asked for a response in the background whose end this one fetched";
    "asked_by/request_id" text "its id";
    "asked_by/route" text "its route";
    "asked_by/user.id" text "its user";
    "asked_by/team" text "its team";
    "asked_by/key" text "its key";
    "cost_usd" number "what the tokens cost, in US dollars";
    "price_source" text "`config`, `catalogue`, or `none`: unpriced";
    "gen_ai.response.finish_reasons" list "why the model stopped";
    "first_byte_s" seconds "to the first byte of the answer's body";
    "ttft_s" seconds "to the first token";
    "first_answer_s" seconds "to the first output that is not reasoning";
    "tpot_s" seconds "mean time between output tokens after the first";
    "max_gap_s" seconds "the longest time between two frames with tokens";
    "slow_gaps" number "gaps that were longer than `slow_gap`";
    "buffered" truth "`true`: somebody before the proxy held the stream back";
    "dialect" text "the format of the answer";
    "framing" text "`sse`, `json-lines`, …: how events are parted";
    "ttft_basis" text "how the first token was recognised";
    "hint" text "what to configure, where the stream could not be read well";
    "server_timings" object "what the backend says of its own time, in seconds";
    "rpc.system.name" text "`jsonrpc`";
    "protocol" text "`mcp`, `a2a`, …: whose JSON-RPC it is";
    "mcp.method.name" text "the method of an MCP call";
    "rpc.method" text "the method of another call";
    "gen_ai.tool.name" text "the tool of an MCP call";
    "first_event_s" seconds "to the first event of a stream that is no LLM's";
    "events" number "its events";
    "max_event_gap_s" seconds "the longest time between two of them";
    "duration_s" seconds "from the request's head to its end";
    "phases" object "time in each phase, in seconds; they add up to `duration_s`";
    "frames" number "events or chunks of an LLM's answer";
    "bytes_in" number "bytes of the request's body";
    "bytes_out" number "bytes of the answer's body";
    "websocket" object "of an upgraded connection";
    "websocket/messages_in" number "messages of the client";
    "websocket/messages_out" number "messages to the client";
    "websocket/first_message_s" seconds "from the client's first message to the first one after it";
    "websocket/close_code" number "the code with which it was closed";
    "websocket/responses" number "responses of a model on it";
    "websocket/input_tokens" number "their input tokens";
    "websocket/output_tokens" number "their output tokens";
    "websocket/cost_usd" number "what they cost, in US dollars";
    "route" text "the route; absent: none matched, or the request was refused before";
    "upstream" text "the upstream that answered, or was asked last";
    "variant" text "the target of the route";
    "server.address" text "the address of the last endpoint that was asked";
    "server.port" number "its port";
    "network.peer.address" text "the address that its name stood for";
    "network.peer.port" number "its port";
    "attempts" list "each attempt to get an answer";
    "attempts/upstream" text "whom it asked";
    "attempts/server.address" text "where";
    "attempts/server.port" number "its port";
    "attempts/network.peer.address" text "the address that its name stood for";
    "attempts/network.peer.port" number "its port";
    "attempts/status" number "the status of its answer";
    "attempts/error_type" text "why it failed";
    "attempts/duration_s" seconds "from its beginning to its end";
    "limit" object "what the limits of the route said";
    "limit/decision" text "`admitted`, or the reason of the refusal";
    "limit/by" text "the limit that refused";
    "limit/mode" text "`memory`, `shared`; without its store `local` or `reject`";
    "limit/names" list "all limits of the route";
    "limit/reserved" number "tokens that were reserved";
    "limit/prompt" text "`counted` or `estimated`: the tokens of the prompt";
    "limit/used" number "tokens that were charged";
    "limit/remaining" number "tokens that were left then";
    "limit/cut" truth "`true`: the stream was cut, for it used more";
    "config_generation" number "the configuration that it had, from 1; each reload adds one";
    "outcome" text "how it ended: `completed`, `truncated`, `stalled`, …";
    "error_type" text "what went wrong";
}
