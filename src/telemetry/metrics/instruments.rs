//! The metrics that are exported over OTLP: those of the GenAI conventions, and three of our own. They count what `/metrics`
//! counts, at the same moment and under the same labels, which are bounded. What a reload or a new model took out of `/metrics`
//! stays here as it stood: the library forgets nothing, and beyond 2,000 combinations of an instrument counts the others as one.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};

use super::declarations::{DURATION, FIRST_TOKEN, GAP, PER_TOKEN, PHASE, TOKENS};
use super::gen_ai_usage::{Group, Used, tokens, used};
use super::labels::{NONE, Named, Status, Team};
use super::request::Attributes;
use super::series::Bounds;
use crate::llm::price::Cost;
use crate::llm::{Reading, UsageSource};
use crate::telemetry::attributes::error;
use crate::telemetry::record::{LlmInfo, Record};
use crate::telemetry::semconv as names;

/// What counts requests for an exporter.
#[derive(Debug)]
pub struct Instruments {
    requests: Counter<u64>,
    phase: Histogram<f64>,
    cost: Counter<f64>,
    server_duration: Histogram<f64>,
    first_token: Histogram<f64>,
    per_token: Histogram<f64>,
    inference_duration: Histogram<f64>,
    first_chunk: Histogram<f64>,
    per_chunk: Histogram<f64>,
    input: Histogram<u64>,
    output: Histogram<u64>,
    used: [Counter<u64>; Used::ALL.len()],
    embeddings_duration: Histogram<f64>,
    embeddings_input: Histogram<u64>,
    other_duration: Histogram<f64>,
}

impl Instruments {
    /// The instruments of a meter.
    pub fn new(meter: &Meter) -> Self {
        let seconds =
            |name, bounds: Bounds| meter.f64_histogram(name).with_unit("s").with_boundaries(bounds.to_vec()).build();
        let tokens = |name| meter.u64_histogram(name).with_unit("{token}").with_boundaries(TOKENS.to_vec()).build();
        Self {
            requests: meter.u64_counter(names::METRIC_REQUESTS).with_unit("{request}").build(),
            phase: seconds(names::METRIC_PHASE_DURATION, PHASE),
            cost: meter.f64_counter(names::METRIC_COST).with_unit("{USD}").build(),
            server_duration: seconds(names::METRIC_SERVER_REQUEST_DURATION, DURATION),
            first_token: seconds(names::METRIC_SERVER_TIME_TO_FIRST_TOKEN, FIRST_TOKEN),
            per_token: seconds(names::METRIC_SERVER_TIME_PER_OUTPUT_TOKEN, PER_TOKEN),
            inference_duration: seconds(names::METRIC_INFERENCE_DURATION, DURATION),
            first_chunk: seconds(names::METRIC_INFERENCE_TIME_TO_FIRST_CHUNK, FIRST_TOKEN),
            per_chunk: seconds(names::METRIC_INFERENCE_TIME_PER_OUTPUT_CHUNK, GAP),
            input: tokens(names::METRIC_OPERATION_INPUT),
            output: tokens(names::METRIC_OPERATION_OUTPUT),
            used: Used::ALL.map(|counter| {
                let name = match counter {
                    Used::Input => names::METRIC_USAGE_INPUT,
                    Used::Output => names::METRIC_USAGE_OUTPUT,
                    Used::CacheRead => names::METRIC_USAGE_CACHE_READ,
                    Used::CacheWrite => names::METRIC_USAGE_CACHE_WRITE,
                    Used::Reasoning => names::METRIC_USAGE_REASONING,
                };
                meter.u64_counter(name).with_unit("{token}").build()
            }),
            embeddings_duration: seconds(names::METRIC_EMBEDDINGS_DURATION, DURATION),
            embeddings_input: tokens(names::METRIC_EMBEDDINGS_INPUT),
            other_duration: seconds(names::METRIC_CLIENT_OPERATION_DURATION, DURATION),
        }
    }

    /// Counts one finished request.
    pub(super) fn request(&self, record: &Record, of: &Attributes) {
        let mut attributes = of.target.clone();
        for (phase, time) in record.phases.iter().filter(|(_, time)| !time.is_zero()) {
            attributes.push(KeyValue::new(names::PHASE, phase.as_str()));
            self.phase.record(time.as_secs_f64(), &attributes);
            attributes.pop();
        }
        attributes.extend(of.model.clone());
        attributes.push(KeyValue::new(names::OUTCOME, record.outcome.as_str()));
        // Of codes that nobody registered there are too many.
        let status = record.status.filter(|status| Status::new(Some(*status)).is_registered());
        attributes.extend(status.map(|status| KeyValue::new(names::HTTP_RESPONSE_STATUS_CODE, i64::from(status))));
        self.requests.add(1, &attributes);
    }

    /// Counts one GenAI call: how long it took. What it used, [`Instruments::usage`] counts.
    pub(super) fn call(&self, record: &Record, llm: &LlmInfo, of: &Attributes) {
        let reading = &llm.reading;
        let mut attributes = of_call(record, of);
        if let Some(first) = reading.first_token {
            self.first_token.record(first.as_secs_f64(), &attributes);
            if llm.streams() && Group::of(llm) == Group::Inference {
                self.first_chunk.record(first.as_secs_f64(), &attributes);
                self.gaps(reading, &attributes);
            }
        }
        if let Some(pace) = llm.time_per_output_token() {
            self.per_token.record(pace.as_secs_f64(), &attributes);
        }
        error(record.error, &mut attributes);
        self.server_duration.record(record.duration.as_secs_f64(), &attributes);
        let asked = record.asked().map_or(record.duration, |(from, to)| to.saturating_sub(from)).as_secs_f64();
        match Group::of(llm) {
            Group::Inference => self.inference_duration.record(asked, &attributes),
            Group::Embeddings => self.embeddings_duration.record(asked, &attributes),
            Group::Other => self.other_duration.record(asked, &attributes),
        }
    }

    /// Counts the gaps of one stream, each in its bucket; their sum is what it was.
    fn gaps(&self, reading: &Reading, attributes: &[KeyValue]) {
        for (count, each) in reading.gaps.spread(reading.max_gap.unwrap_or_default()) {
            (0..count).for_each(|_| self.per_chunk.record(each, attributes));
        }
    }

    /// Counts what one GenAI call used, where that is told with it.
    pub(super) fn usage(&self, record: &Record, llm: &LlmInfo, of: &Attributes) {
        if matches!(llm.reading.usage_source, UsageSource::Pending | UsageSource::Delivery) {
            return;
        }
        let (usage, mut attributes) = (&llm.reading.usage, of_call(record, of));
        if Group::of(llm) == Group::Inference {
            for (counter, modality, count) in used(usage) {
                attributes.push(KeyValue::new(names::GEN_AI_TOKEN_MODALITY, modality.as_str()));
                if let Some(counter) = self.used.get(counter as usize) {
                    counter.add(count, &attributes);
                }
                attributes.pop();
            }
        }
        error(record.error, &mut attributes);
        match Group::of(llm) {
            Group::Inference => {
                self.input.record(tokens(usage.input), &attributes);
                self.output.record(tokens(usage.output), &attributes);
            }
            Group::Embeddings => self.embeddings_input.record(tokens(usage.input), &attributes),
            Group::Other => {}
        }
    }

    /// Counts what tokens cost.
    pub(super) fn cost(&self, cost: Cost, team: Named<'_, Team>, of: &Attributes) {
        let mut attributes = of.genai.clone();
        if team.as_str() != NONE {
            attributes.push(KeyValue::new(names::TEAM, Arc::<str>::from(team.as_str())));
        }
        self.cost.add(cost.dollars(), &attributes);
    }
}

/// What tells one call's series apart: those of its kind, and whom it asked.
fn of_call(record: &Record, of: &Attributes) -> Vec<KeyValue> {
    let mut attributes = of.genai.clone();
    if let Some(attempt) = record.last_asked() {
        attributes.push(KeyValue::new(names::SERVER_ADDRESS, Arc::clone(&attempt.place.address)));
        let port = attempt.place.port;
        attributes.extend(port.map(|port| KeyValue::new(names::SERVER_PORT, i64::from(port))));
    }
    attributes
}
