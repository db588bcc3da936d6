//! The access log: one line a request on stdout, as JSON for machines or in short for a terminal. It is rendered and
//! written by a thread of its own, so that a slow or full stdout costs lines, which are counted, and never requests.
//!
//! Never a body, a credential or a query string: the record has none.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::ids;
use super::json::{self, Json};
use super::queue::{Dropped, Pace, Queue};
use super::record::{LimitVerdict, LlmInfo, Outcome, Record};
use super::semconv as names;
use crate::llm::Framing;
use crate::policy::trusted_proxies::put_address;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Json,
    /// For reading along; `colour` marks how a request ended.
    Human {
        colour: bool,
    },
}

impl Style {
    /// The human style, coloured where stdout is a terminal that wants it (`NO_COLOR`).
    pub fn human() -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self::Human { colour }
    }
}

/// Records that wait at most: some 8 MiB.
const PACE: Pace = Pace { capacity: 4_096, batch: 256, linger: Duration::from_millis(5) };

/// Bytes after which what is rendered is written.
const WRITE_AT: usize = 64 * 1_024;

/// The sending end of the log.
#[derive(Debug, Clone)]
pub struct AccessLog {
    queue: Queue<Arc<Record>>,
}

impl AccessLog {
    /// Starts the thread that writes to `sink`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(style: Style, sink: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Queue::spawn("access-log", PACE, move |lost| {
            let mut writer = Writer { sink, text: String::new(), lines: 0, torn: false, lost };
            move |batch: &mut Vec<Arc<Record>>| {
                let written = SystemTime::now();
                for record in batch.drain(..) {
                    render(style, &record, written, &mut writer.text);
                    writer.lines += 1;
                    if writer.text.len() >= WRITE_AT {
                        writer.write();
                    }
                }
                writer.write();
            }
        })?;
        Ok(Self { queue })
    }

    /// Hands a record over; it is dropped and counted when the queue is full.
    pub fn write(&self, record: &Arc<Record>) {
        self.queue.send(Arc::clone(record));
    }

    /// Lines that were lost.
    pub fn dropped(&self) -> &Dropped {
        self.queue.dropped()
    }

    /// Waits until all lines so far are written, at most for `timeout`; tells whether they were.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.queue.flush(timeout)
    }
}

struct Writer<S> {
    sink: S,
    text: String,
    /// How many lines `text` holds.
    lines: u64,
    /// The last write failed, perhaps inside a line.
    torn: bool,
    lost: Dropped,
}

impl<S: Write> Writer<S> {
    fn write(&mut self) {
        if self.text.is_empty() {
            return;
        }
        if self.torn {
            self.text.insert(0, '\n');
        }
        self.torn = self.sink.write_all(self.text.as_bytes()).and_then(|()| self.sink.flush()).is_err();
        if self.torn {
            self.lost.add(self.lines);
        }
        self.text.clear();
        self.lines = 0;
    }
}

/// Writes `record` as one line, its end included. `written` is when that happens.
pub fn render(style: Style, record: &Record, written: SystemTime, out: &mut String) {
    match style {
        Style::Json => json_object(record, Some(written), out),
        Style::Human { colour } => render_human(record, colour, out),
    }
    out.push('\n');
}

/// The JSON object of a record, without a line end. All times are in seconds.
pub(crate) fn render_json(record: &Record, out: &mut String) {
    json_object(record, None, out);
}

fn json_object(record: &Record, written: Option<SystemTime>, out: &mut String) {
    let mut line = Json::object(out);
    line.time("timestamp", record.started);
    if let Some(written) = written {
        line.time("written", written);
    }
    line.text("level", level(record.outcome));
    line.text("event", event(record));
    line.text("request_id", &record.request_id);
    let (mut trace, mut span) = ([0; 32], [0; 16]);
    line.text("trace_id", ids::hex(record.trace.trace_id, &mut trace));
    line.text("span_id", ids::hex(u128::from(record.trace.span_id), &mut span));
    line.text_if(names::USER_ID, record.client.user.as_deref());
    line.text_if("team", record.client.team.as_deref());
    line.text_if("key", record.client.key.as_deref());
    if let Some(address) = record.client.address {
        let mut text = String::with_capacity(15);
        put_address(&mut text, address.ip());
        line.text(names::CLIENT_ADDRESS, &text);
    }
    line.text(names::HTTP_REQUEST_METHOD, &record.request.method);
    line.text(names::URL_PATH, &record.request.path);
    line.number_if(names::HTTP_RESPONSE_STATUS_CODE, record.status.map(u64::from));
    if let Some(llm) = &record.llm {
        json_llm(llm, &mut line);
    }
    json_stream(record, &mut line);
    line.seconds("duration_s", record.duration);
    let mut phases = line.nested("phases");
    for (phase, time) in record.phases.iter().filter(|(_, time)| !time.is_zero()) {
        phases.seconds(phase.as_str(), time);
    }
    phases.end();
    line.number_if("frames", record.llm.as_ref().map(|llm| llm.reading.frames));
    line.number("bytes_in", record.bytes_in);
    line.number("bytes_out", record.bytes_out);
    json_websocket(record, &mut line);
    line.text_if("route", record.route.as_deref());
    if let Some(served_by) = &record.served_by {
        line.text("upstream", &served_by.upstream);
        line.text("variant", &served_by.variant);
    }
    if let Some(attempt) = record.last_asked() {
        attempt.place.render(&mut line);
    }
    json_attempts(record, &mut line);
    json_limit(record, &mut line);
    line.number("config_generation", record.config_generation);
    line.text("outcome", record.outcome.as_str());
    line.text_if("error_type", record.error.map(|error| error.as_str()));
    line.end();
}

pub(super) fn event(record: &Record) -> &'static str {
    match record {
        Record { llm: Some(_), of_websocket: true, .. } => "llm.response",
        Record { llm: Some(_), .. } => "llm.request",
        Record { stream: Some(_), .. } => "stream.request",
        _ => "http.request",
    }
}

/// What is known of a stream that is no LLM's, and of a call over JSON-RPC.
fn json_stream(record: &Record, line: &mut Json<'_>) {
    if let Some(rpc) = &record.rpc {
        line.text(names::RPC_SYSTEM_NAME, names::JSONRPC);
        line.text("protocol", rpc.protocol.as_str());
        line.text_if(names::rpc_method(rpc.protocol), rpc.method.as_deref());
        line.text_if(names::GEN_AI_TOOL_NAME, rpc.tool.as_deref());
    }
    if let Some(stream) = &record.stream {
        line.seconds_if("first_event_s", stream.first_event);
        line.number("events", stream.events);
        line.seconds_if("max_event_gap_s", stream.max_gap);
    }
}

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

fn json_llm(llm: &LlmInfo, line: &mut Json<'_>) {
    let (request, reading) = (&llm.request, &llm.reading);
    line.text(names::GEN_AI_OPERATION_NAME, request.operation.unwrap_or(names::OPERATION_UNKNOWN));
    line.text_if(names::GEN_AI_PROVIDER_NAME, llm.provider_name());
    line.text_if(names::GEN_AI_REQUEST_MODEL, request.model.as_deref());
    line.text_if(names::GEN_AI_RESPONSE_MODEL, reading.response_model.as_deref());
    line.truth_if(names::GEN_AI_REQUEST_STREAM, llm.streams().then_some(true));
    line.number_if(names::GEN_AI_USAGE_INPUT_TOKENS, reading.usage.input);
    line.number_if(names::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, reading.usage.cached_input);
    line.number_if(names::GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS, reading.usage.cache_write);
    line.number_if(names::GEN_AI_USAGE_OUTPUT_TOKENS, reading.usage.output);
    line.number_if(names::GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, reading.usage.reasoning);
    line.text("usage_source", reading.usage_source.as_str());
    if let Some(by) = &llm.asked_by {
        let mut object = line.nested("asked_by");
        object.text("request_id", &by.request_id);
        object.text_if("route", by.route.as_deref());
        object.text_if(names::USER_ID, by.client.user.as_deref());
        object.text_if("team", by.client.team.as_deref());
        object.text_if("key", by.client.key.as_deref());
        object.end();
    }
    if let Some(cost) = llm.bill.cost() {
        line.bare("cost_usd", &cost.to_string());
    }
    line.text_if("price_source", llm.bill.price_source());
    if !reading.finish_reasons.is_empty() {
        let mut reasons = line.array(names::GEN_AI_RESPONSE_FINISH_REASONS);
        for reason in &reading.finish_reasons {
            reasons.element_text(reason);
        }
        reasons.end();
    }
    line.seconds_if("first_byte_s", reading.first_byte);
    line.seconds_if("ttft_s", reading.first_token);
    line.seconds_if("first_answer_s", reading.first_answer);
    line.seconds_if("tpot_s", llm.time_per_output_token());
    line.seconds_if("max_gap_s", reading.max_gap);
    line.number("slow_gaps", u64::from(reading.slow_gap_count));
    line.truth_if("buffered", reading.buffered.then_some(true));
    line.text("dialect", llm.dialect.as_str());
    line.text_if("framing", reading.framing.map(Framing::as_str));
    line.text_if("ttft_basis", reading.first_token.map(|_| reading.basis.as_str()));
    line.text_if("hint", reading.hint.as_deref().map(String::as_str));
    if let Some(server) = &reading.server {
        let mut timings = line.nested("server_timings");
        server.named().into_iter().for_each(|(name, time)| timings.seconds_if(name, time));
        timings.end();
    }
}

fn json_websocket(record: &Record, line: &mut Json<'_>) {
    let Some(websocket) = &record.websocket else { return };
    let mut object = line.nested("websocket");
    object.number("messages_in", websocket.messages_in);
    object.number("messages_out", websocket.messages_out);
    object.seconds_if("first_message_s", websocket.first_message);
    object.number_if("close_code", websocket.close_code.map(u64::from));
    if websocket.responses > 0 {
        object.number("responses", websocket.responses);
        object.number("input_tokens", websocket.input_tokens);
        object.number("output_tokens", websocket.output_tokens);
        object.bare("cost_usd", &websocket.cost.to_string());
    }
    object.end();
}

fn json_limit(record: &Record, line: &mut Json<'_>) {
    let Some(limit) = &record.limit else { return };
    let mut object = line.nested("limit");
    match &limit.verdict {
        LimitVerdict::Admitted => object.text("decision", "admitted"),
        LimitVerdict::Denied { limit, reason } => {
            object.text("decision", reason);
            object.text("by", limit);
        }
    }
    object.text("mode", limit.mode);
    let mut names = object.array("names");
    limit.names.iter().for_each(|name| names.element_text(name));
    names.end();
    object.number("reserved", limit.reserved);
    object.text_if("prompt", limit.prompt_counted.map(|counted| if counted { "counted" } else { "estimated" }));
    object.number("used", limit.used);
    object.number_if("remaining", limit.remaining);
    object.truth_if("cut", limit.cut.then_some(true));
    object.end();
}

fn json_attempts(record: &Record, line: &mut Json<'_>) {
    let mut attempts = line.array("attempts");
    for attempt in &record.attempts {
        let mut object = attempts.element();
        object.text("upstream", &attempt.upstream);
        attempt.place.render(&mut object);
        object.number_if("status", attempt.status.map(u64::from));
        object.text_if("error_type", attempt.error.map(|error| error.as_str()));
        object.seconds("duration_s", attempt.ended.saturating_sub(attempt.started));
        object.end();
    }
    attempts.end();
}

/// `12:34:56 POST /v1/chat/completions 200 completed  ttft 0.312s  total 4.210s  100→356 tokens  gpt-4o  via fastapi`.
fn render_human(record: &Record, colour: bool, out: &mut String) {
    json::clock(out, record.started);
    for word in [&*record.request.method, &record.request.path] {
        out.push(' ');
        json::plain(word, out);
    }
    out.push(' ');
    if colour {
        out.push_str(match level(record.outcome) {
            "info" if record.outcome == Outcome::Completed => "\x1b[32m",
            "info" => "\x1b[33m",
            _ => "\x1b[31m",
        });
    }
    match record.status {
        Some(status) => json::integer(out, u64::from(status)),
        None => out.push('-'),
    }
    out.push(' ');
    out.push_str(record.outcome.as_str());
    if let Some(error) = record.error {
        out.push('(');
        out.push_str(error.as_str());
        out.push(')');
    }
    if colour {
        out.push_str("\x1b[0m");
    }
    if let Some(llm) = &record.llm {
        human_seconds("ttft", llm.reading.first_token, out);
        if llm.reading.buffered {
            out.push_str("  buffered");
        }
        human_seconds("gap", llm.reading.max_gap.filter(|_| llm.reading.slow_gap_count > 0), out);
    }
    if let Some(stream) = &record.stream {
        human_seconds("first event", stream.first_event, out);
        out.push_str("  ");
        json::integer(out, stream.events);
        out.push_str(" events");
    }
    if let Some(method) = record.rpc.as_ref().and_then(|rpc| rpc.method.as_deref()) {
        out.push_str("  ");
        json::plain(method, out);
    }
    human_seconds("total", Some(record.duration), out);
    if let Some(llm) = &record.llm {
        human_llm(llm, out);
    }
    if let Some(websocket) = &record.websocket {
        out.push_str("  ");
        json::integer(out, websocket.messages_in);
        out.push('→');
        json::integer(out, websocket.messages_out);
        out.push_str(" messages");
    }
    if let Some(served_by) = &record.served_by {
        out.push_str("  via ");
        out.push_str(&served_by.upstream);
    }
    if let Some(attempt) = record.last_asked() {
        out.push_str(" at ");
        out.push_str(&attempt.place.endpoint);
    }
    if record.attempts.len() > 1 {
        out.push_str(", attempt ");
        json::integer(out, record.attempts.len() as u64);
    }
}

fn human_seconds(word: &str, time: Option<Duration>, out: &mut String) {
    if let Some(time) = time {
        out.push_str("  ");
        out.push_str(word);
        out.push(' ');
        json::seconds(out, time, 3);
        out.push('s');
    }
}

fn human_llm(llm: &LlmInfo, out: &mut String) {
    let usage = &llm.reading.usage;
    if usage.is_known() {
        out.push_str("  ");
        for (separator, count) in [("", usage.input), ("→", usage.output)] {
            out.push_str(separator);
            match count {
                Some(count) => json::integer(out, count),
                None => out.push('?'),
            }
        }
        out.push_str(" tokens");
    }
    if let Some(model) = llm.reading.response_model.as_deref().or(llm.request.model.as_deref()) {
        out.push_str("  ");
        json::plain(model, out);
    }
}

#[cfg(test)]
#[path = "access_log_tests.rs"]
mod tests;
