//! Every field of the log line, declared once: its name, its value, and its meaning for `streamgauge reference log`. The order is that
//! of the line.

use std::net::SocketAddr;
use std::time::SystemTime;

use super::ids;
use super::json::Json;
use super::record::{AskedBy, Attempt, ErrorType, LimitInfo, LlmInfo, Outcome, Phases, Record, WebSocketInfo};
use super::semconv as names;
use crate::llm::json_rpc::{Rpc, RpcProtocol};
use crate::llm::{Framing, ServerTimings, StreamReading};
use crate::policy::trusted_proxies::put_address;

/// One field.
#[cfg(any(feature = "server", test))]
pub(crate) struct LogField {
    /// Its name; below an object after a `/`.
    pub(crate) name: &'static str,
    /// Of its value: `text`, `number`, `truth`, `seconds` (a number), `time` (RFC 3339), `list`, `object`.
    pub(crate) kind: &'static str,
    pub(crate) meaning: &'static str,
}

/// Declares fields of the line, or of the object in it whose name and a slash follow `in`: the list of them, and what writes them.
/// A value is an `Option`; of an object or a list, with what writes its inside. A field without a value is written by the one
/// before it.
macro_rules! fields {
    ($list:ident, $write:ident($($argument:ident: $of:ty),+) in $object:literal {
        $($kind:ident $name:literal $meaning:literal $(= $value:expr $(=> $inside:path)?)?;)+
    }) => {
        #[cfg(any(feature = "server", test))]
        const $list: &[LogField] = &[$(LogField {
            name: concat!($object, $name),
            kind: fields!(@word $kind),
            meaning: $meaning,
        }),+];

        fn $write(to: &mut Json<'_>, $($argument: $of),+) {
            $($(fields!(@$kind to, $name, $value $(, $inside)?);)?)+
        }
    };
    (@word dollars) => { "number" };
    (@word place) => { "text" };
    (@word $kind:ident) => { stringify!($kind) };
    (@text $to:ident, $name:literal, $value:expr) => { $to.text_if($name, $value) };
    (@number $to:ident, $name:literal, $value:expr) => { $to.number_if($name, $value) };
    (@truth $to:ident, $name:literal, $value:expr) => { $to.truth_if($name, $value) };
    (@seconds $to:ident, $name:literal, $value:expr) => { $to.seconds_if($name, $value) };
    (@time $to:ident, $name:literal, $value:expr) => {
        if let Some(time) = $value {
            $to.time($name, time);
        }
    };
    (@dollars $to:ident, $name:literal, $value:expr) => {
        if let Some(cost) = $value {
            $to.bare($name, &cost.to_string());
        }
    };
    (@place $to:ident, $name:literal, $value:expr) => {
        if let Some(place) = $value {
            place.render($to);
        }
    };
    (@object $to:ident, $name:literal, $value:expr, $inside:path) => {
        if let Some(value) = $value {
            let mut object = $to.nested($name);
            $inside(&mut object, value);
            object.end();
        }
    };
    (@list $to:ident, $name:literal, $value:expr, $inside:path) => {
        if let Some(value) = $value {
            let mut list = $to.array($name);
            $inside(&mut list, value);
            list.end();
        }
    };
}

fields! {
    BEGUN, begun(record: &Record, written: Option<SystemTime>) in "" {
        time "timestamp" "when the request's head was complete" = Some(record.started);
        time "written" "when the line was written" = written;
        text "level" "`info`, `warn` or `error`, by the outcome" = Some(level(record.outcome));
        text "event" "`llm.request`, `llm.response` (on a WebSocket), `stream.request` (no LLM's), `http.request`"
            = Some(event(record));
        text "request_id" "the client's `x-request-id`, or one of our own; the answer has it too" = Some(&record.request_id);
        text "trace_id" "the request's trace, 32 hexadecimal digits" = Some(ids::hex(record.trace.trace_id, &mut [0; 32]));
        text "span_id" "its span, 16 hexadecimal digits" = Some(ids::hex(u128::from(record.trace.span_id), &mut [0; 16]));
        text "user.id" "who asked, by key, token or a trusted header" = record.client.user.as_deref();
        text "team" "the team of the key or token" = record.client.team.as_deref();
        text "key" "the public id of the API key" = record.client.key.as_deref();
        text "client.address" "the client's address; absent on a unix socket" = record.client.address.map(plain_address).as_deref();
        text "http.request.method" "the method" = Some(&record.request.method);
        text "url.path" "the path, without its query" = Some(&record.request.path);
        number "http.response.status_code" "the status that the client got; absent: none was sent" = record.status.map(u64::from);
    }
}

fields! {
    OF_LLM, of_llm(llm: &LlmInfo) in "" {
        text "gen_ai.operation.name" "`chat`, `embeddings`, …" = Some(llm.request.operation.unwrap_or(names::OPERATION_UNKNOWN));
        text "gen_ai.provider.name" "who runs the model, or whose format the answer has" = llm.provider_name();
        text "gen_ai.request.model" "the model that was asked for" = llm.request.model.as_deref();
        text "gen_ai.response.model" "the model that answered, by its own words" = llm.reading.response_model.as_deref();
        truth "gen_ai.request.stream" "`true`, or absent: the answer is in one piece" = llm.streams().then_some(true);
        number "gen_ai.usage.input_tokens" "input tokens, those of a cache included" = llm.reading.usage.input;
        number "gen_ai.usage.cache_read.input_tokens" "of these those that were read from the provider's cache"
            = llm.reading.usage.cached_input;
        number "gen_ai.usage.cache_write.input_tokens" "of these those that were written to it" = llm.reading.usage.cache_write;
        number "gen_ai.usage.output_tokens" "output tokens, reasoning included" = llm.reading.usage.output;
        number "gen_ai.usage.reasoning.output_tokens" "of these those of reasoning" = llm.reading.usage.reasoning;
        text "usage_source" "who counted the tokens" = Some(llm.reading.usage_source.as_str());
        object "asked_by" "the request that asked for a response in the background whose end this one fetched"
            = &llm.asked_by => asked_by;
        dollars "cost_usd" "what the tokens cost, in US dollars" = llm.bill.cost();
        text "price_source" "`config`, `catalogue`, or `none`: unpriced" = llm.bill.price_source();
        list "gen_ai.response.finish_reasons" "why the model stopped"
            = Some(&llm.reading.finish_reasons).filter(|reasons| !reasons.is_empty()) => texts;
        seconds "first_byte_s" "to the first byte of the answer's body" = llm.reading.first_byte;
        seconds "ttft_s" "to the first token" = llm.reading.first_token;
        seconds "first_answer_s" "to the first output that is not reasoning" = llm.reading.first_answer;
        seconds "tpot_s" "mean time between output tokens after the first" = llm.time_per_output_token();
        seconds "max_gap_s" "the longest time between two frames with tokens" = llm.reading.max_gap;
        number "slow_gaps" "gaps that were longer than `slow_gap`" = Some(u64::from(llm.reading.slow_gap_count));
        truth "buffered" "`true`: somebody before the proxy held the stream back" = llm.reading.buffered.then_some(true);
        text "dialect" "the format of the answer" = Some(llm.dialect.as_str());
        text "framing" "`sse`, `json-lines`, …: how events are parted" = llm.reading.framing.map(Framing::as_str);
        text "ttft_basis" "how the first token was recognised" = llm.reading.first_token.map(|_| llm.reading.basis.as_str());
        text "hint" "what to configure, where the stream could not be read well" = llm.reading.hint.as_deref().map(String::as_str);
        object "server_timings" "what the backend says of its own time, in seconds" = &llm.reading.server => timings;
    }
}

fields! {
    ASKED_BY, asked_by(by: &AskedBy) in "asked_by/" {
        text "request_id" "its id" = Some(&by.request_id);
        text "route" "its route" = by.route.as_deref();
        text "user.id" "its user" = by.client.user.as_deref();
        text "team" "its team" = by.client.team.as_deref();
        text "key" "its key" = by.client.key.as_deref();
    }
}

fields! {
    OF_RPC, of_rpc(rpc: &Rpc) in "" {
        text "rpc.system.name" "`jsonrpc`" = Some(names::JSONRPC);
        text "protocol" "`mcp`, `a2a`, …: whose JSON-RPC it is" = Some(rpc.protocol.as_str());
        text "mcp.method.name" "the method of an MCP call" = rpc.method.as_deref().filter(|_| rpc.protocol == RpcProtocol::Mcp);
        text "rpc.method" "the method of another call" = rpc.method.as_deref().filter(|_| rpc.protocol != RpcProtocol::Mcp);
        text "gen_ai.tool.name" "the tool of an MCP call" = rpc.tool.as_deref();
    }
}

fields! {
    OF_STREAM, of_stream(stream: &StreamReading) in "" {
        seconds "first_event_s" "to the first event of a stream that is no LLM's" = stream.first_event;
        number "events" "its events" = Some(stream.events);
        seconds "max_event_gap_s" "the longest time between two of them" = stream.max_gap;
    }
}

fields! {
    PASSED, passed(record: &Record) in "" {
        seconds "duration_s" "from the request's head to its end" = Some(record.duration);
        object "phases" "time in each phase, in seconds; they add up to `duration_s`" = Some(&record.phases) => phases;
        number "frames" "events or chunks of an LLM's answer" = record.llm.as_ref().map(|llm| llm.reading.frames);
        number "bytes_in" "bytes of the request's body" = Some(record.bytes_in);
        number "bytes_out" "bytes of the answer's body" = Some(record.bytes_out);
        object "websocket" "of an upgraded connection" = &record.websocket => websocket;
        text "route" "the route; absent: none matched, or the request was refused before" = record.route.as_deref();
        text "upstream" "the upstream that answered, or was asked last"
            = record.served_by.as_ref().map(|served_by| &*served_by.upstream);
        text "variant" "the target of the route" = record.served_by.as_ref().map(|served_by| &*served_by.variant);
        place "server.address" "the address of the last endpoint that was asked"
            = record.last_asked().map(|attempt| &attempt.place);
        number "server.port" "its port";
        text "network.peer.address" "the address that its name stood for";
        number "network.peer.port" "its port";
        list "attempts" "each attempt to get an answer" = Some(&record.attempts) => attempts;
        object "limit" "what the limits of the route said" = &record.limit => limit;
        number "config_generation" "the configuration that it had, from 1; each reload adds one" = Some(record.config_generation);
        text "outcome" "how it ended: `completed`, `truncated`, `stalled`, …" = Some(record.outcome.as_str());
        text "error_type" "what went wrong" = record.error.map(ErrorType::as_str);
    }
}

fields! {
    WEBSOCKET, websocket(socket: &WebSocketInfo) in "websocket/" {
        number "messages_in" "messages of the client" = Some(socket.messages_in);
        number "messages_out" "messages to the client" = Some(socket.messages_out);
        seconds "first_message_s" "from the client's first message to the first one after it" = socket.first_message;
        number "close_code" "the code with which it was closed" = socket.close_code.map(u64::from);
        number "responses" "responses of a model on it" = (socket.responses > 0).then_some(socket.responses);
        number "input_tokens" "their input tokens" = (socket.responses > 0).then_some(socket.input_tokens);
        number "output_tokens" "their output tokens" = (socket.responses > 0).then_some(socket.output_tokens);
        dollars "cost_usd" "what they cost, in US dollars" = (socket.responses > 0).then_some(socket.cost);
    }
}

fields! {
    ATTEMPT, attempt(attempt: &Attempt) in "attempts/" {
        text "upstream" "whom it asked" = Some(&attempt.upstream);
        place "server.address" "where" = Some(&attempt.place);
        number "server.port" "its port";
        text "network.peer.address" "the address that its name stood for";
        number "network.peer.port" "its port";
        number "status" "the status of its answer" = attempt.status.map(u64::from);
        text "error_type" "why it failed" = attempt.error.map(ErrorType::as_str);
        seconds "duration_s" "from its beginning to its end" = Some(attempt.ended.saturating_sub(attempt.started));
    }
}

fields! {
    LIMIT, limit(limit: &LimitInfo) in "limit/" {
        text "decision" "`admitted`, or the reason of the refusal" = Some(limit.verdict.decision());
        text "by" "the limit that refused" = limit.verdict.denied_by().map(|limit| &**limit);
        text "mode" "`memory`, `shared`; without its store `local` or `reject`" = Some(limit.mode);
        list "names" "all limits of the route" = Some(&limit.names) => texts;
        number "reserved" "tokens that were reserved" = Some(limit.reserved);
        text "prompt" "`counted` or `estimated`: the tokens of the prompt"
            = limit.prompt_counted.map(|counted| if counted { "counted" } else { "estimated" });
        number "used" "tokens that were charged" = Some(limit.used);
        number "remaining" "tokens that were left then" = limit.remaining;
        truth "cut" "`true`: the stream was cut, for it used more" = limit.cut.then_some(true);
    }
}

/// All fields in the order in which they are written, those of an object after it. One that does not apply to a request is absent.
#[cfg(any(feature = "server", test))]
pub(crate) fn log_fields() -> impl Iterator<Item = &'static LogField> {
    let of_line = [BEGUN, OF_LLM, OF_RPC, OF_STREAM, PASSED].into_iter().flatten();
    of_line.flat_map(|field| {
        let inside = [ASKED_BY, WEBSOCKET, ATTEMPT, LIMIT].into_iter().flatten();
        let is_inside = |inner: &&LogField| inner.name.split_once('/').is_some_and(|(of, _)| of == field.name);
        std::iter::once(field).chain(inside.filter(is_inside))
    })
}

/// The JSON object of a record, without a line end. All times are in seconds. `written`: when its line is.
pub(super) fn write(record: &Record, written: Option<SystemTime>, out: &mut String) {
    let mut line = Json::object(out);
    begun(&mut line, record, written);
    record.llm.iter().for_each(|llm| of_llm(&mut line, llm));
    record.rpc.iter().for_each(|rpc| of_rpc(&mut line, rpc));
    record.stream.iter().for_each(|stream| of_stream(&mut line, stream));
    passed(&mut line, record);
    line.end();
}

/// What kind of request it was.
pub(super) fn event(record: &Record) -> &'static str {
    match record {
        Record { llm: Some(_), of_websocket: true, .. } => "llm.response",
        Record { llm: Some(_), .. } => "llm.request",
        Record { stream: Some(_), .. } => "stream.request",
        _ => "http.request",
    }
}

/// How much an operator should care.
pub(super) fn level(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed | Outcome::ClientCancelled | Outcome::Rejected => "info",
        Outcome::InternalError => "error",
        Outcome::Truncated
        | Outcome::ErrorInStream
        | Outcome::Stalled
        | Outcome::Timeout
        | Outcome::UpstreamError
        | Outcome::Stopped => "warn",
    }
}

fn plain_address(address: SocketAddr) -> String {
    // Written for each request: without the formatter.
    let mut text = String::with_capacity(15);
    put_address(&mut text, address.ip());
    text
}

fn phases(to: &mut Json<'_>, phases: &Phases) {
    for (phase, time) in phases.iter().filter(|(_, time)| !time.is_zero()) {
        to.seconds(phase.as_str(), time);
    }
}

fn timings(to: &mut Json<'_>, told: &ServerTimings) {
    told.named().into_iter().for_each(|(name, time)| to.seconds_if(name, time));
}

fn attempts(to: &mut Json<'_>, all: &[Attempt]) {
    for one in all {
        let mut object = to.element();
        attempt(&mut object, one);
        object.end();
    }
}

fn texts(to: &mut Json<'_>, texts: &[impl AsRef<str>]) {
    texts.iter().for_each(|text| to.element_text(text.as_ref()));
}
