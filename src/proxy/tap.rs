//! Looks at an answer's bytes as they pass, and changes none.

use std::sync::Arc;
use std::time::Duration;

use pingora::http::ResponseHeader;

use crate::llm::dialect::recognise_answer;
use crate::llm::{Dialect, Framing, Gauge, PlainRules, Progress, Reading, RequestFacts, StreamEnd};

/// The tap on one answer.
pub(super) struct Tap {
    gauge: Option<Gauge>,
    pub(super) bytes: u64,
}

impl Tap {
    /// A tap that fits the answer: an LLM's is metered, any other is counted. What a failed one says is no token.
    pub(super) fn new(
        facts: &RequestFacts,
        head: &ResponseHeader,
        rules: &Arc<PlainRules>,
        slow_gap: Duration,
    ) -> Self {
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        // What is compressed cannot be read.
        let readable = header("content-encoding").is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
        let recognised = recognise_answer(facts.dialect, header("content-type"), &[])
            .filter(|_| readable && head.status.is_success());
        let gauge = recognised.map(|(dialect, framing)| Gauge::new(dialect, framing, Arc::clone(rules), slow_gap));
        Self { gauge, bytes: 0 }
    }

    /// What the answer speaks, where it is an LLM's: as its head says, until its first bytes tell better.
    pub(super) fn speaks(&self) -> Option<(Dialect, Framing)> {
        self.gauge.as_ref().map(|gauge| (gauge.dialect(), gauge.framing()))
    }

    /// Whether events are streamed.
    pub(super) fn streams(&self) -> bool {
        self.speaks().is_some_and(|(_, framing)| framing != Framing::Json)
    }

    /// Frames that passed.
    pub(super) fn frames(&self) -> u64 {
        self.gauge.as_ref().map_or(0, |gauge| gauge.reading().frames)
    }

    /// Tokens that passed, as far as can be told on the way: what the upstream counts, or one a frame.
    pub(super) fn tokens(&self) -> u64 {
        let reading = self.gauge.as_ref().map(Gauge::reading);
        reading.map_or(0, |reading| reading.usage.output.unwrap_or(0).max(reading.token_frames))
    }

    /// Looks at one chunk.
    pub(super) fn feed(&mut self, chunk: &[u8], now: Duration) -> Progress {
        self.bytes += chunk.len() as u64;
        match &mut self.gauge {
            Some(gauge) => gauge.feed(chunk, now),
            None => Progress::default(),
        }
    }

    /// Whether something may be put between the events here.
    pub(super) fn at_sse_boundary(&self) -> bool {
        self.gauge.as_ref().is_some_and(|gauge| gauge.framing() == Framing::Sse && gauge.at_boundary())
    }

    /// Whether the bytes so far end between two events or lines.
    pub(super) fn at_boundary(&self) -> bool {
        self.gauge.as_ref().is_some_and(Gauge::at_boundary)
    }

    /// The answer is over; what was read of it.
    pub(super) fn finish(mut self, end: StreamEnd, now: Duration) -> Option<(Dialect, Framing, Reading)> {
        let gauge = self.gauge.as_mut()?;
        gauge.finish(end, now);
        Some((gauge.dialect(), gauge.framing(), gauge.reading().clone()))
    }
}
