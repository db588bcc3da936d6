//! The span tree of a request, made from its record with the times that were measured and the ids that went out in
//! `traceparent`:
//!
//! ```text
//! SERVER  "POST /v1/chat/completions"   of other requests method and route
//!   CLIENT "chat gpt-4o"                 the GenAI call, over all attempts; LLM requests only
//!     CLIENT "POST"                      one an attempt
//! ```

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::attributes;
use super::json::bounded;
use super::record::{Attempt, Cause, ErrorType, LlmInfo, Outcome, Record};
use super::semconv as names;
use super::span_events;
use super::tail_sampling::SampleReason;
use crate::llm::message;

/// How many spans the tree of `record` has.
pub(super) fn count(record: &Record) -> u64 {
    u64::from(!record.of_websocket) + u64::from(record.llm.is_some()) + record.attempts.len() as u64
}

/// Appends the spans of `record`, parents first.
pub(super) fn build(
    record: &Record,
    late: Option<SampleReason>,
    scope: &InstrumentationScope,
    spans: &mut Vec<SpanData>,
) {
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
    fn server(&self, late: Option<SampleReason>) -> SpanData {
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
        attributes::request(record, attributes);
        attributes.extend(late.map(|late| KeyValue::new(names::SAMPLED_LATE, late.as_str())));
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

    fn logical(&self, llm: &LlmInfo) -> SpanData {
        let record = self.record;
        let operation = attributes::operation(llm);
        let name = match &llm.request.model {
            Some(model) => format!("{operation} {}", bounded(model, 128).0).into(),
            None => Cow::Borrowed(operation),
        };
        let mut span = self.span(name, SpanKind::Client, llm.span_id, record.trace.span_id);
        if let Some((from, to)) = record.asked() {
            span.start_time = self.at(from);
            span.end_time = self.at(to);
        }
        let attributes = &mut span.attributes;
        attributes.reserve(28);
        // On this span alone, or backends that add up a trace count tokens twice.
        attributes::inference(llm, attributes);
        self.content(llm, attributes);
        attributes::user(record, attributes);
        attributes.extend(record.last_asked().into_iter().flat_map(|attempt| attempt.place.attributes()));
        attributes::error(record.error, attributes);
        span.status = status(record.error.filter(|error| *error != ErrorType::ClientGone));
        span.events = self.milestones(llm);
        span
    }

    /// What was said, where the configuration has it kept.
    fn content(&self, llm: &LlmInfo, attributes: &mut Vec<KeyValue>) {
        let text = |(name, content): (_, serde_json::Value)| KeyValue::new(name, content.to_string());
        attributes.extend(said(self.record, llm).map(text));
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
            events.events.push(Event::new(names::EVENT_SLOW_GAP, self.at(*ended), vec![gap], 0));
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
            attributes::error(replaced.error, &mut attributes);
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
            attributes.push(attributes::number(names::HTTP_REQUEST_RESEND_COUNT, resend as u64));
        }
        attributes.push(KeyValue::new(names::UPSTREAM, Arc::clone(&attempt.upstream)));
        attributes.push(KeyValue::new(names::CONNECTION_REUSED, attempt.reused_connection));
        attributes::error(attempt.error, attributes);
        span.status = status(attempt.error);
        span
    }

    /// A span over the whole request.
    fn span(&self, name: Cow<'static, str>, kind: SpanKind, span_id: u64, parent: u64) -> SpanData {
        let ids = (self.record.trace.trace_id, span_id, parent);
        span(ids, name, kind, self.record.started..self.at(self.record.duration), self.scope)
    }

    fn at(&self, after: Duration) -> SystemTime {
        self.record.started.checked_add(after).unwrap_or(self.record.started)
    }
}

/// A span with nothing but its identity and its times. `ids` are those of its trace, its own, and its parent's.
pub(super) fn span(
    (trace_id, span_id, parent): (u128, u64, u64),
    name: Cow<'static, str>,
    kind: SpanKind,
    time: Range<SystemTime>,
    scope: &InstrumentationScope,
) -> SpanData {
    SpanData {
        // The flag says "sampled" in any case: what is exported is, now.
        span_context: context(trace_id, span_id, TraceFlags::SAMPLED, false),
        parent_span_id: SpanId::from(parent),
        parent_span_is_remote: false,
        span_kind: kind,
        name,
        start_time: time.start,
        end_time: time.end,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope.clone(),
    }
}

/// The identity of a span for the OpenTelemetry API.
fn context(trace_id: u128, span_id: u64, flags: TraceFlags, remote: bool) -> SpanContext {
    SpanContext::new(TraceId::from(trace_id), SpanId::from(span_id), flags, remote, TraceState::NONE)
}

/// What was said, by the attribute that holds it.
pub(super) fn said<'a>(
    record: &'a Record,
    llm: &'a LlmInfo,
) -> impl Iterator<Item = (&'static str, serde_json::Value)> + use<'a> {
    let prompt = record.prompt.as_deref();
    let system = prompt.map(|prompt| &prompt.system).filter(|system| !system.is_empty());
    let messages = prompt.map(|prompt| &prompt.messages).filter(|messages| !messages.is_empty());
    let output = llm.reading.output.as_deref();
    [
        system.map(|parts| (names::GEN_AI_SYSTEM_INSTRUCTIONS, message::parts(parts))),
        messages.map(|messages| (names::GEN_AI_INPUT_MESSAGES, message::messages(messages))),
        output.map(|said| (names::GEN_AI_OUTPUT_MESSAGES, message::answers(said, &llm.reading.finish_reasons))),
    ]
    .into_iter()
    .flatten()
}

pub(super) fn status(error: Option<ErrorType>) -> Status {
    error.map_or(Status::Unset, |error| Status::error(error.as_str()))
}

#[cfg(test)]
#[path = "spans_tests.rs"]
mod tests;
