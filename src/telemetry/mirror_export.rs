//! Writes a mirrored copy to the log and the trace.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::SpanKind;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::SpanData;

use super::mirror::MirrorRecord;
use super::record::Attempt;
use super::semconv as names;
use super::{attributes, spans};

impl MirrorRecord {
    fn differences(&self) -> String {
        let words: Vec<&str> = self.differences.iter().map(|difference| difference.as_str()).collect();
        words.join(",")
    }

    /// The log's line.
    pub(super) fn log(&self) {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        tracing::info!(
            event = "llm.shadow",
            request_id = &*self.request_id,
            trace_id = format_args!("{:032x}", self.trace.trace_id),
            route = &*self.route,
            variant = &*self.variant,
            result = self.verdict.as_str(),
            differences = self.differences(),
            status = self.copy.status,
            client_status = self.client.status,
            ttft_s = seconds(self.copy.first_token),
            client_ttft_s = seconds(self.client.first_token),
            output_tokens = self.copy.output,
            client_output_tokens = self.client.output,
            finish_reasons = self.copy.finish_reasons.join(","),
            client_finish_reasons = self.client.finish_reasons.join(","),
            duration_s = self.duration.as_secs_f64(),
            cost_usd = self.cost.map(|cost| cost.dollars()),
            "a copy's answer was compared"
        );
    }

    /// One span an attempt, below the request's own. Usage is under names of ours: backends add up the GenAI ones.
    pub(super) fn spans(&self, scope: &InstrumentationScope, spans: &mut Vec<SpanData>) {
        let last = self.attempts.len().saturating_sub(1);
        for (at, attempt) in self.attempts.iter().enumerate() {
            let mut span = self.span(attempt, scope);
            if at == last {
                span.end_time = self.at(self.duration);
                span.attributes.extend(self.comparison());
            }
            spans.push(span);
        }
    }

    fn span(&self, attempt: &Attempt, scope: &InstrumentationScope) -> SpanData {
        let ids = (self.trace.trace_id, attempt.span_id, self.trace.span_id);
        let time = self.at(attempt.started)..self.at(attempt.ended.max(attempt.started));
        let mut span = spans::span(ids, Cow::Borrowed("shadow"), SpanKind::Client, time, scope);
        span.attributes = vec![
            KeyValue::new(names::MIRROR, true),
            KeyValue::new(names::UPSTREAM, Arc::clone(&attempt.upstream)),
            KeyValue::new(names::VARIANT, Arc::clone(&self.variant)),
        ];
        let status = attempt.status.map(|code| KeyValue::new(names::HTTP_RESPONSE_STATUS_CODE, i64::from(code)));
        span.attributes.extend(attempt.place.attributes().chain(status));
        attributes::error(attempt.error, &mut span.attributes);
        span.status = spans::status(attempt.error);
        span
    }

    fn comparison(&self) -> impl Iterator<Item = KeyValue> {
        let seconds = |name, time: Option<Duration>| time.map(|time| KeyValue::new(name, time.as_secs_f64()));
        let tokens = self.copy.output.map(|tokens| i64::try_from(tokens).unwrap_or(i64::MAX));
        [
            Some(KeyValue::new(names::MIRROR_RESULT, self.verdict.as_str())),
            Some(KeyValue::new(names::MIRROR_DIFFERENCES, self.differences())),
            seconds(names::TIME_TO_FIRST_TOKEN, self.copy.first_token),
            seconds(names::MIRROR_CLIENT_TIME_TO_FIRST_TOKEN, self.client.first_token),
            tokens.map(|tokens| KeyValue::new(names::MIRROR_OUTPUT_TOKENS, tokens)),
            self.cost.map(|cost| KeyValue::new(names::MIRROR_COST, cost.dollars())),
        ]
        .into_iter()
        .flatten()
    }

    fn at(&self, after: Duration) -> SystemTime {
        self.started.checked_add(after).unwrap_or(self.started)
    }
}
