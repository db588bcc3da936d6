//! Looks at an answer's bytes as they pass, and changes none; but the usage chunk that only we asked for it takes out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pingora::http::ResponseHeader;

use super::decompress::{Readable, Unpacker};
use crate::config::settings::RouteKind;
use crate::llm::dialect::{AnswerLabels, recognise_answer};
use crate::llm::usage_injection::UsageFilter;
use crate::llm::{
    Dialect, Framing, Gauge, LlmBasis, Progress, Reading, RequestFacts, StreamEnd, StreamReading, StreamRules,
    UsageSource,
};
use crate::policy::deadlines::Kind;
use crate::proxy::process::usage::Metering;

/// What an answer is read by.
pub(crate) struct Setting<'a> {
    pub(crate) facts: &'a RequestFacts,
    pub(crate) kind: RouteKind,
    /// The request was a POST: what it streams as bare text is an LLM's by guess.
    pub(crate) posted: bool,
    pub(crate) rules: &'a Arc<StreamRules>,
    pub(crate) slow_gap: Duration,
}

/// What was read of an answer.
pub(crate) enum Read {
    /// An LLM's.
    Llm(Dialect, Box<Reading>),
    /// A stream that is no LLM's.
    Stream(Box<StreamReading>),
    /// Nothing: it is of no kind that is looked at.
    Nothing,
}

impl Read {
    pub(crate) fn reading(&self) -> Option<&Reading> {
        match self {
            Self::Llm(_, reading) => Some(reading),
            Self::Stream(_) | Self::Nothing => None,
        }
    }
}

/// The tap on one answer.
pub(crate) struct Tap {
    gauge: Option<Gauge>,
    /// Reads what an answer that seems to be no LLM's reports of usage.
    bill: Option<Box<Gauge>>,
    /// The answer is compressed: it is decoded for reading, and nothing can be put into it.
    packed: Option<Box<Unpacker>>,
    /// What the answer is where nothing is read of it.
    unread: Kind,
    bound: bool,
    /// Less what was taken out.
    pub(crate) bytes: u64,
    metering: Option<Box<Metering>>,
    filter: Option<Box<UsageFilter>>,
    /// All that ended in the chunk fed last were tokens.
    only_tokens: bool,
}

impl Tap {
    /// A tap that fits the answer: an LLM's is metered, any other stream is measured as such, and the rest is counted. What a
    /// failed one says is no token.
    pub(crate) fn new(set: &Setting<'_>, head: &ResponseHeader) -> Self {
        let (facts, rules) = (set.facts, set.rules);
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let labels = AnswerLabels::read(header);
        let success = head.status.is_success();
        // Who says how its streams are read says that they may be an LLM's, and who names the dialect that they are.
        let said = rules.dialect.or(facts.dialect);
        let asked = said.or(rules.shape.is_some().then_some(Dialect::PlainSse)).filter(|_| !facts.counts_tokens());
        let recognised = recognise_answer(asked, labels, &[]).filter(|_| success);
        let (recognised, packed) = match recognised.map(|known| (known, Readable::of(head))) {
            Some((known, Readable::Plain)) => (Some(known), None),
            Some((known, Readable::Packed(unpacker))) => (Some(known), Some(unpacker)),
            Some((_, Readable::No)) | None => (None, None),
        };
        let gauge = recognised.map(|(dialect, framing)| {
            let gauge = Gauge::new(dialect, framing, Arc::clone(rules), set.slow_gap);
            match (set.kind, said, dialect) {
                (RouteKind::Stream, ..) => gauge.of_other_stream(),
                (_, None, Dialect::PlainSse) if labels.streams() => gauge.unclaimed(set.posted),
                _ => gauge,
            }
        });
        let bound = set.kind == RouteKind::Stream;
        let unread = match facts.is_llm() {
            false if bound || success && labels.streams() => Kind::Other { bound },
            llm => Kind::Whole { llm },
        };
        Self { gauge, bill: None, packed, unread, bound, bytes: 0, metering: None, filter: None, only_tokens: false }
    }

    /// Sees to it that usage is known that an answer in JSON reports, though nothing else says that it is an LLM's: under a
    /// limit it counts, however the request was spelled.
    pub(crate) fn billed(mut self, head: &ResponseHeader, rules: &Arc<StreamRules>) -> Self {
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let guess = recognise_answer(Some(Dialect::PlainSse), AnswerLabels::read(header), &[]);
        if self.gauge.is_none() && guess.is_some_and(|(_, framing)| framing == Framing::Json) {
            match Readable::of(head) {
                Readable::Plain => {}
                Readable::Packed(unpacker) => self.packed = Some(unpacker),
                Readable::No => return self,
            }
            let gauge = Gauge::new(Dialect::PlainSse, Framing::Json, Arc::clone(rules), Duration::MAX);
            self.bill = Some(Box::new(gauge));
        }
        self
    }

    /// What the answer is, as far as it has shown.
    pub(crate) fn kind(&self) -> Kind {
        match &self.gauge {
            None => self.unread,
            Some(gauge) if gauge.basis() == LlmBasis::None => Kind::Other { bound: self.bound },
            Some(gauge) if gauge.framing() == Framing::Json => Kind::Whole { llm: true },
            Some(_) => Kind::Tokens,
        }
    }

    /// Whether the dialect's own end has passed, and no error before it: whatever the connection does now, the answer is whole.
    pub(crate) fn is_whole(&self) -> bool {
        self.gauge.as_ref().is_some_and(|gauge| gauge.framing() != Framing::Json && gauge.reading().normal_end)
    }

    /// As [`Tap::is_whole`], where nothing of the answer can follow: Gemini has no end of its own but that of the body.
    pub(crate) fn has_ended(&self) -> bool {
        self.is_whole() && self.gauge.as_ref().is_some_and(|gauge| gauge.dialect() != Dialect::Gemini)
    }

    /// Sees to it that the usage of the answer will be known.
    pub(crate) fn metered(mut self, metering: Metering) -> Self {
        if let Some(gauge) = &mut self.gauge {
            if metering.counts() {
                gauge.count(metering.model());
            }
            if metering.wished() && gauge.framing() == Framing::Sse && self.packed.is_none() {
                self.filter = Some(Box::new(UsageFilter::new(metering.wants_timings())));
            }
            self.metering = Some(Box::new(metering));
        }
        self
    }

    /// Puts what the client gets of a chunk that was looked at into `out`.
    pub(crate) fn let_through(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) {
        let Some(filter) = &mut self.filter else { return out.push(chunk) };
        let before = filter.taken();
        filter.pass(chunk, self.only_tokens, out);
        self.bytes -= filter.taken() - before;
    }

    /// What the client gets of a begun event that was held, now that the stream is over.
    pub(crate) fn let_rest_through(&mut self) -> Vec<Bytes> {
        let Some(filter) = &mut self.filter else { return Vec::new() };
        let (mut pieces, before) = (Vec::new(), filter.taken());
        filter.finish(&mut pieces);
        self.bytes -= filter.taken() - before;
        pieces
    }

    /// What the answer speaks, where it is an LLM's: as its head says, until its first bytes tell better.
    pub(crate) fn speaks(&self) -> Option<(Dialect, Framing)> {
        self.gauge
            .as_ref()
            .filter(|gauge| gauge.basis() != LlmBasis::None)
            .map(|gauge| (gauge.dialect(), gauge.framing()))
    }

    /// Whether it is an event stream, an LLM's or not.
    pub(crate) fn is_sse(&self) -> bool {
        self.gauge.as_ref().is_some_and(|gauge| gauge.framing() == Framing::Sse)
    }

    /// When the first token passed, on the request's clock.
    pub(crate) fn first_token(&self) -> Option<Duration> {
        self.gauge.as_ref().and_then(|gauge| gauge.reading().first_token)
    }

    /// Whether an event said that something went wrong.
    pub(crate) fn told_error(&self) -> bool {
        self.gauge.as_ref().is_some_and(|gauge| gauge.reading().error.is_some())
    }

    /// Whether a stream that ended here without a token may be a whole answer: its dialect's end was seen, or it has none.
    pub(crate) fn may_be_whole(&self) -> bool {
        let Some(gauge) = &self.gauge else { return true };
        let reading = gauge.reading();
        let ends_by_itself = matches!(gauge.dialect(), Dialect::PlainSse | Dialect::PlainText);
        reading.normal_end || !reading.finish_reasons.is_empty() || ends_by_itself && reading.frames > 0
    }

    /// Frames that passed.
    pub(crate) fn frames(&self) -> u64 {
        self.gauge.as_ref().map_or(0, |gauge| gauge.reading().frames + gauge.stream_events())
    }

    /// Tokens that passed, as far as can be told on the way: what the upstream counts, or one a frame.
    pub(crate) fn tokens(&self) -> u64 {
        let reading = self.gauge.as_ref().map(Gauge::reading);
        let counted = self.gauge.as_ref().and_then(Gauge::counted_roughly).unwrap_or(0);
        reading.map_or(0, |reading| reading.usage.output.unwrap_or(counted).max(reading.token_frames))
    }

    /// Looks at one chunk.
    pub(crate) fn feed(&mut self, chunk: &[u8], now: Duration) -> Progress {
        self.bytes += chunk.len() as u64;
        let is_bill = self.gauge.is_none();
        let Some(gauge) = self.gauge.as_mut().or(self.bill.as_deref_mut()) else { return Progress::default() };
        let mut progress = Progress::default();
        let reads_on = match &mut self.packed {
            None => {
                progress = gauge.feed(chunk, now);
                true
            }
            Some(packed) => packed.feed(chunk, |piece| progress.add(gauge.feed(piece, now))),
        };
        self.only_tokens = !progress.other && gauge.dialect() == Dialect::OpenAiChat;
        if !reads_on {
            // What cannot be decoded is passed on all the same, and counted.
            (self.gauge, self.bill) = (None, None);
        }
        if is_bill {
            return Progress::default();
        }
        progress
    }

    /// Whether it is compressed.
    pub(crate) fn is_packed(&self) -> bool {
        self.packed.is_some()
    }

    /// See [`Gauge::capture`].
    pub(crate) fn capture(&mut self) {
        if let Some(gauge) = &mut self.gauge {
            gauge.capture();
        }
    }

    /// See [`Gauge::closing`].
    pub(crate) fn closing(&self) -> Option<Bytes> {
        self.gauge.as_ref().filter(|_| self.packed.is_none()).and_then(Gauge::closing)
    }

    /// See [`Gauge::asked`].
    pub(crate) fn asked(&mut self, at: Duration) {
        if let Some(gauge) = &mut self.gauge {
            gauge.asked(at);
        }
    }

    /// See [`Gauge::wrote`].
    pub(crate) fn wrote(&mut self, from: Duration, to: Duration) {
        if let Some(gauge) = &mut self.gauge {
            gauge.wrote(from, to);
        }
    }

    /// Whether something may be put between its events, wherever the bytes so far end.
    pub(crate) fn takes_comments(&self) -> bool {
        self.is_sse() && !self.is_packed()
    }

    /// Whether something may be put between the events here.
    pub(crate) fn at_sse_boundary(&self) -> bool {
        self.takes_comments() && self.at_boundary()
    }

    /// Whether the bytes so far end between two events or lines.
    pub(crate) fn at_boundary(&self) -> bool {
        self.packed.is_none() && self.gauge.as_ref().is_some_and(Gauge::at_boundary)
    }

    /// What is known at the end of an answer that was not metered.
    fn finish_unread(&mut self, end: StreamEnd, now: Duration) -> Read {
        if matches!(self.unread, Kind::Other { .. }) {
            return Read::Stream(Box::default());
        }
        let Some(bill) = &mut self.bill else { return Read::Nothing };
        bill.finish(end, now);
        let mut reading = bill.take_reading();
        reading.usage_source = UsageSource::Reported;
        if !reading.usage.is_known() {
            return Read::Nothing;
        }
        Read::Llm(bill.dialect(), Box::new(reading))
    }

    /// The answer is over; what was read of it, and what nobody reported counted, or estimated while the vocabulary is not there.
    pub(crate) fn finish(&mut self, end: StreamEnd, now: Duration) -> Read {
        let Some(gauge) = &mut self.gauge else {
            return self.finish_unread(end, now);
        };
        gauge.finish(end, now);
        if let Some(stream) = gauge.take_stream() {
            return Read::Stream(Box::new(stream));
        }
        let mut reading = gauge.take_reading();
        if let Some(metering) = &self.metering {
            metering.settle(gauge, &mut reading);
        }
        Read::Llm(gauge.dialect(), Box::new(reading))
    }
}
