//! The span tree of a request, made from its record with the times that were measured and the ids that went out in
//! `traceparent`:
//!
//! ```text
//! SERVER  "POST /v1/chat/completions"   of other requests method and route
//!   CLIENT "chat gpt-4o"                 the GenAI call, over all attempts; LLM requests only
//!     CLIENT "POST"                      one an attempt
//! ```

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::json::bounded;
use super::late::Late;
use super::record::{Attempt, Cause, ErrorType, LlmInfo, Outcome, Record};
use super::semconv as names;
use super::span_events;
use crate::llm::content;

/// How many spans the tree of `record` has.
pub(super) fn count(record: &Record) -> u64 {
    u64::from(!record.of_websocket) + u64::from(record.llm.is_some()) + record.attempts.len() as u64
}

/// Appends the spans of `record`, parents first.
pub(super) fn build(record: &Record, late: Option<Late>, scope: &InstrumentationScope, spans: &mut Vec<SpanData>) {
    let tree = Tree { record, scope };
    if !record.of_websocket {
        spans.push(tree.server(late));
    }
    let attempts_under = match &record.llm {
        Some(llm) => {
            spans.push(tree.logical(llm));
            llm.span_id
        }
        None => record.trace.span_id,
    };
    for (resend, attempt) in record.attempts.iter().enumerate() {
        spans.push(tree.attempt(attempt, resend, attempts_under));
    }
}

struct Tree<'a> {
    record: &'a Record,
    scope: &'a InstrumentationScope,
}

impl Tree<'_> {
    fn server(&self, late: Option<Late>) -> SpanData {
        let record = self.record;
        let method = names::method(&record.request.method);
        // Paths of LLM interfaces are few and telling; other paths hold ids, which make poor span names, and routes do not.
        let name = match (&record.llm, &record.route) {
            (Some(_), _) => format!("{method} {}", bounded(&record.request.path, 256).0).into(),
            (None, Some(route)) => format!("{method} {route}").into(),
            (None, None) => Cow::Borrowed(method),
        };
        let mut span = self.span(name, SpanKind::Server, record.trace.span_id, 0);
        if let Some(parent) = record.trace.parent {
            span.parent_span_id = SpanId::from(parent);
            span.parent_span_is_remote = true;
        }
        if let Some((trace_id, span_id)) = record.trace.link {
            span.links.links.push(Link::with_context(context(trace_id, span_id, TraceFlags::NOT_SAMPLED, true)));
        }
        let attributes = &mut span.attributes;
        attributes.reserve(28);
        self.http_attributes(method, attributes);
        if let Some(address) = record.client.address {
            attributes.push(KeyValue::new(names::CLIENT_ADDRESS, address.ip().to_canonical().to_string()));
            attributes.push(KeyValue::new(names::CLIENT_PORT, i64::from(address.port())));
        }
        if let Some(user) = &record.client.user {
            attributes.push(KeyValue::new(names::USER_ID, Arc::clone(user)));
        }
        self.own_attributes(attributes);
        if let Some(late) = late {
            attributes.push(KeyValue::new(names::SAMPLED_LATE, late.as_str()));
        }
        // By the conventions a client's fault (4xx) is no error of the server's span.
        let theirs = record.outcome == Outcome::ClientCancelled
            || record.status.is_some_and(|status| (400..500).contains(&status) && status != 429);
        span.status = status(record.error.filter(|_| !theirs));
        if record.llm.is_none() {
            span.events = self.failovers();
        }
        if let Some(limit) = &record.limit {
            span.events.events.insert(0, span_events::limit_decision(limit, self.at(limit.at)));
        }
        if let Some(decision) = &record.canary {
            span.events.events.push(span_events::canary_decision(decision, self.at(record.duration)));
        }
        span
    }

    fn http_attributes(&self, method: &'static str, attributes: &mut Vec<KeyValue>) {
        let request = &self.record.request;
        attributes.push(KeyValue::new(names::HTTP_REQUEST_METHOD, method));
        if method != &*request.method {
            let original = bounded(&request.method, 64).0.to_owned();
            attributes.push(KeyValue::new(names::HTTP_REQUEST_METHOD_ORIGINAL, original));
        }
        attributes.push(KeyValue::new(names::URL_PATH, shared(&request.path)));
        attributes.push(KeyValue::new(names::NETWORK_PROTOCOL_NAME, "http"));
        attributes.push(KeyValue::new(names::NETWORK_PROTOCOL_VERSION, request.http_version));
        if let Some(status) = self.record.status {
            attributes.push(KeyValue::new(names::HTTP_RESPONSE_STATUS_CODE, i64::from(status)));
        }
        push_error(self.record.error, attributes);
    }

    fn own_attributes(&self, attributes: &mut Vec<KeyValue>) {
        let record = self.record;
        attributes.push(KeyValue::new(names::REQUEST_ID, shared(&record.request_id)));
        if let Some(route) = &record.route {
            attributes.push(KeyValue::new(names::ROUTE, Arc::clone(route)));
        }
        if let Some(served_by) = &record.served_by {
            attributes.push(KeyValue::new(names::UPSTREAM, Arc::clone(&served_by.upstream)));
            attributes.push(KeyValue::new(names::VARIANT, Arc::clone(&served_by.variant)));
        }
        attributes.push(KeyValue::new(names::OUTCOME, record.outcome.as_str()));
        attributes.push(number(names::CONFIG_GENERATION, record.config_generation));
        attributes.push(number(names::BYTES_IN, record.bytes_in));
        attributes.push(number(names::BYTES_OUT, record.bytes_out));
        for (phase, time) in record.phases.iter().filter(|(_, time)| !time.is_zero()) {
            attributes.push(KeyValue::new(names::phase(phase), time.as_secs_f64()));
        }
        if let Some(rpc) = &record.rpc {
            attributes.push(KeyValue::new(names::RPC_SYSTEM_NAME, names::JSONRPC));
            let told = [(names::rpc_method(rpc.protocol), &rpc.method), (names::GEN_AI_TOOL_NAME, &rpc.tool)];
            for (name, text) in told {
                if let Some(text) = text {
                    attributes.push(KeyValue::new(name, text.to_string()));
                }
            }
        }
        if let Some(stream) = &record.stream {
            attributes.push(number(names::STREAM_EVENTS, stream.events));
            for (name, time) in
                [(names::STREAM_FIRST_EVENT, stream.first_event), (names::STREAM_MAX_GAP, stream.max_gap)]
            {
                if let Some(time) = time {
                    attributes.push(KeyValue::new(name, time.as_secs_f64()));
                }
            }
        }
        if let Some(websocket) = &record.websocket {
            attributes.push(number(names::WEBSOCKET_MESSAGES_IN, websocket.messages_in));
            attributes.push(number(names::WEBSOCKET_MESSAGES_OUT, websocket.messages_out));
            if let Some(code) = websocket.close_code {
                attributes.push(KeyValue::new(names::WEBSOCKET_CLOSE_CODE, i64::from(code)));
            }
        }
    }

    fn logical(&self, llm: &LlmInfo) -> SpanData {
        let record = self.record;
        let operation = llm.request.operation.unwrap_or(names::OPERATION_UNKNOWN);
        let name = match &llm.request.model {
            Some(model) => format!("{operation} {}", bounded(model, 128).0).into(),
            None => Cow::Borrowed(operation),
        };
        let mut span = self.span(name, SpanKind::Client, llm.span_id, record.trace.span_id);
        if let (Some(first), Some(last)) = (record.attempts.first(), record.attempts.last()) {
            span.start_time = self.at(first.started);
            span.end_time = self.at(last.ended.max(first.started));
        }
        let attributes = &mut span.attributes;
        attributes.reserve(28);
        attributes.push(KeyValue::new(names::GEN_AI_OPERATION_NAME, operation));
        if let Some(provider) = llm.provider_name() {
            attributes.push(KeyValue::new(names::GEN_AI_PROVIDER_NAME, provider.to_owned()));
        }
        request_attributes(llm, attributes);
        response_attributes(llm, attributes);
        usage_attributes(llm, attributes);
        self.content(llm, attributes);
        if let Some(user) = &record.client.user {
            attributes.push(KeyValue::new(names::USER_ID, Arc::clone(user)));
        }
        attributes.extend(record.last_asked().into_iter().flat_map(|attempt| attempt.place.attributes()));
        push_error(record.error, attributes);
        span.status = status(record.error.filter(|error| *error != ErrorType::ClientGone));
        span.events = self.milestones(llm);
        span
    }

    /// What was said, where the configuration has it kept.
    fn content(&self, llm: &LlmInfo, attributes: &mut Vec<KeyValue>) {
        if let Some(prompt) = &self.record.prompt {
            attributes.push(KeyValue::new(names::GEN_AI_INPUT_MESSAGES, prompt.to_string()));
        }
        if let Some(text) = &llm.reading.text {
            let reason = llm.reading.finish_reasons.first().map(String::as_str);
            attributes.push(KeyValue::new(names::GEN_AI_OUTPUT_MESSAGES, content::output_messages(text, reason)));
        }
    }

    /// What happened on the way, in the order of time.
    fn milestones(&self, llm: &LlmInfo) -> SpanEvents {
        let reading = &llm.reading;
        let mut events = self.failovers();
        for (name, at) in [
            (names::EVENT_FIRST_BYTE, reading.first_byte),
            (names::EVENT_FIRST_TOKEN, reading.first_token),
            (names::EVENT_FIRST_ANSWER, reading.first_answer),
        ] {
            if let Some(at) = at {
                events.events.push(Event::new(name, self.at(at), Vec::new(), 0));
            }
        }
        for (gap, ended) in &reading.slow_gaps {
            let gap = KeyValue::new(names::GAP, gap.as_secs_f64());
            events.events.push(Event::new(names::EVENT_STALL, self.at(*ended), vec![gap], 0));
        }
        events.events.sort_by_key(|event| event.timestamp);
        events
    }

    fn failovers(&self) -> SpanEvents {
        let attempts = &self.record.attempts;
        let mut events = SpanEvents::default();
        let pairs = attempts.iter().zip(attempts.iter().skip(1));
        for (replaced, next) in pairs.filter(|(_, next)| next.cause == Cause::Failover) {
            let mut attributes = vec![
                KeyValue::new(names::FAILOVER_FROM, Arc::clone(&replaced.upstream)),
                KeyValue::new(names::FAILOVER_TO, Arc::clone(&next.upstream)),
            ];
            push_error(replaced.error, &mut attributes);
            events.events.push(Event::new(names::EVENT_FAILOVER, self.at(next.started), attributes, 0));
        }
        events
    }

    fn attempt(&self, attempt: &Attempt, resend: usize, parent: u64) -> SpanData {
        let method = names::method(&self.record.request.method);
        let mut span = self.span(Cow::Borrowed(method), SpanKind::Client, attempt.span_id, parent);
        span.start_time = self.at(attempt.started);
        span.end_time = self.at(attempt.ended.max(attempt.started));
        let attributes = &mut span.attributes;
        attributes.reserve(8);
        attributes.push(KeyValue::new(names::HTTP_REQUEST_METHOD, method));
        attributes.extend(attempt.place.attributes());
        if let Some(status) = attempt.status {
            attributes.push(KeyValue::new(names::HTTP_RESPONSE_STATUS_CODE, i64::from(status)));
        }
        if resend > 0 {
            attributes.push(number(names::HTTP_REQUEST_RESEND_COUNT, resend as u64));
        }
        attributes.push(KeyValue::new(names::UPSTREAM, Arc::clone(&attempt.upstream)));
        attributes.push(KeyValue::new(names::CONNECTION_REUSED, attempt.reused_connection));
        push_error(attempt.error, attributes);
        span.status = status(attempt.error);
        span
    }

    /// A span over the whole request.
    fn span(&self, name: Cow<'static, str>, kind: SpanKind, span_id: u64, parent: u64) -> SpanData {
        // The flag says "sampled" in any case: what is exported is, now.
        let span_context = context(self.record.trace.trace_id, span_id, TraceFlags::SAMPLED, false);
        SpanData {
            span_context,
            parent_span_id: SpanId::from(parent),
            parent_span_is_remote: false,
            span_kind: kind,
            name,
            start_time: self.record.started,
            end_time: self.at(self.record.duration),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }

    fn at(&self, after: Duration) -> SystemTime {
        self.record.started.checked_add(after).unwrap_or(self.record.started)
    }
}

/// The identity of a span for the OpenTelemetry API.
pub(super) fn context(trace_id: u128, span_id: u64, flags: TraceFlags, remote: bool) -> SpanContext {
    SpanContext::new(TraceId::from(trace_id), SpanId::from(span_id), flags, remote, TraceState::NONE)
}

fn request_attributes(llm: &LlmInfo, attributes: &mut Vec<KeyValue>) {
    let request = &llm.request;
    if let Some(model) = &request.model {
        attributes.push(KeyValue::new(names::GEN_AI_REQUEST_MODEL, bounded(model, 256).0.to_owned()));
    }
    if let Some(stream) = request.stream {
        attributes.push(KeyValue::new(names::GEN_AI_REQUEST_STREAM, stream));
    }
    if let Some(tokens) = request.max_tokens {
        attributes.push(number(names::GEN_AI_REQUEST_MAX_TOKENS, tokens));
    }
    if let Some(temperature) = request.temperature {
        attributes.push(KeyValue::new(names::GEN_AI_REQUEST_TEMPERATURE, temperature));
    }
    if let Some(top_p) = request.top_p {
        attributes.push(KeyValue::new(names::GEN_AI_REQUEST_TOP_P, top_p));
    }
}

fn response_attributes(llm: &LlmInfo, attributes: &mut Vec<KeyValue>) {
    let reading = &llm.reading;
    if let Some(id) = &reading.response_id {
        attributes.push(KeyValue::new(names::GEN_AI_RESPONSE_ID, bounded(id, 256).0.to_owned()));
    }
    if let Some(model) = &reading.response_model {
        attributes.push(KeyValue::new(names::GEN_AI_RESPONSE_MODEL, bounded(model, 256).0.to_owned()));
    }
    if !reading.finish_reasons.is_empty() {
        let reasons = reading.finish_reasons.iter().map(|reason| StringValue::from(bounded(reason, 256).0.to_owned()));
        let reasons = Value::Array(Array::String(reasons.collect()));
        attributes.push(KeyValue::new(names::GEN_AI_RESPONSE_FINISH_REASONS, reasons));
    }
    for (name, time) in [
        (names::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, reading.first_byte),
        (names::TIME_TO_FIRST_TOKEN, reading.first_token),
        (names::TIME_PER_OUTPUT_TOKEN, llm.time_per_output_token()),
        (names::MAX_GAP, reading.max_gap),
    ] {
        if let Some(time) = time {
            attributes.push(KeyValue::new(name, time.as_secs_f64()));
        }
    }
    if let Some(server) = &reading.server {
        for (name, time) in [
            (names::SERVER_QUEUE, server.queue),
            (names::SERVER_LOAD, server.load),
            (names::SERVER_PREFILL, server.prefill),
            (names::SERVER_GENERATION, server.generation),
        ] {
            attributes.extend(time.map(|time| KeyValue::new(name, time.as_secs_f64())));
        }
    }
    attributes.push(number(names::FRAMES, reading.frames));
    attributes.push(number(names::TOKEN_FRAMES, reading.token_frames));
    if reading.buffered {
        attributes.push(KeyValue::new(names::BUFFERED, true));
    }
}

/// On the logical span alone, or backends that add up a trace count tokens twice.
fn usage_attributes(llm: &LlmInfo, attributes: &mut Vec<KeyValue>) {
    let usage = &llm.reading.usage;
    for (name, tokens) in [
        (names::GEN_AI_USAGE_INPUT_TOKENS, usage.input),
        (names::GEN_AI_USAGE_OUTPUT_TOKENS, usage.output),
        (names::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, usage.cached_input),
        (names::GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS, usage.cache_write),
        (names::GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS, usage.cache_write),
        (names::GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, usage.reasoning),
    ] {
        if let Some(tokens) = tokens {
            attributes.push(number(name, tokens));
        }
    }
    if let Some(cost) = llm.bill.cost() {
        attributes.push(KeyValue::new(names::GEN_AI_USAGE_COST, cost.dollars()));
        attributes.push(KeyValue::new(names::LLM_COST_TOTAL, cost.dollars()));
    }
    attributes.push(KeyValue::new(names::USAGE_SOURCE, llm.reading.usage_source.as_str()));
}

fn push_error(error: Option<ErrorType>, attributes: &mut Vec<KeyValue>) {
    if let Some(error) = error {
        attributes.push(KeyValue::new(names::ERROR_TYPE, error.as_str()));
    }
}

fn status(error: Option<ErrorType>) -> Status {
    error.map_or(Status::Unset, |error| Status::error(error.as_str()))
}

/// OpenTelemetry has no unsigned numbers.
fn number(name: &'static str, value: u64) -> KeyValue {
    KeyValue::new(name, i64::try_from(value).unwrap_or(i64::MAX))
}

/// A text that may be long; shared where it is not.
fn shared(text: &Arc<str>) -> StringValue {
    match bounded(text, 2_048) {
        (_, false) => Arc::clone(text).into(),
        (cut, true) => cut.to_owned().into(),
    }
}

#[cfg(test)]
#[path = "spans_tests.rs"]
mod tests;
