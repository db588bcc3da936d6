//! The gauge: a pure state machine that reads one answer as it passes, and measures it.

mod meter;
mod not_yet_llm;
mod progress;
mod whole;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::aws_event_stream::AwsScanner;
use super::buffering::BufferingDetector;
use super::dialect::{Closing, Look, StreamRules, dialect_in, framing_of_bytes};
use super::json_values::ValueScanner;
use super::ndjson::LineScanner;
use super::sse::SseScanner;
use super::token_count::AnswerCounter;
use super::{Dialect, Framing, LlmBasis, Reading, StreamReading};
use meter::Meter;
use not_yet_llm::NotYetLlm;
pub use progress::Progress;
use whole::{Lines, Whole};

/// How the bytes of an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// The upstream's framing ended in order.
    Clean,
    /// Anything else: a reset, an abort, a timeout.
    Cut,
}

/// Reads one answer. Feed it each chunk as it passes; it borrows the bytes and keeps none but the tail of an
/// incomplete event, bounded to 1 MiB.
pub struct Gauge {
    framing: Framing,
    /// The first bytes, while they do not tell the framing yet: a few at most.
    look: Option<Box<[u8]>>,
    scanner: Scanner,
    meter: Meter,
    buffering: BufferingDetector,
}

enum Scanner {
    Sse(SseScanner),
    Lines(LineScanner),
    Values(ValueScanner),
    Aws(AwsScanner),
    /// A whole answer.
    Document(Whole),
    Opaque,
}

impl Gauge {
    /// A gauge for an answer of `dialect` in `framing`; gaps between token frames longer than `slow_gap` are kept.
    ///
    /// Both are what the answer's head tells ([`recognise_answer`](super::dialect::recognise_answer)); where its bytes
    /// show that a label was wrong, [`Gauge::dialect`] and [`Gauge::framing`] follow them.
    pub fn new(dialect: Dialect, framing: Framing, rules: Arc<StreamRules>, slow_gap: Duration) -> Self {
        Self {
            framing,
            look: Some(Box::default()),
            scanner: Scanner::of(framing),
            meter: Meter::new(dialect, rules, slow_gap),
            buffering: BufferingDetector::default(),
        }
    }

    /// Nothing says yet that the answer is an LLM's: until one of its events does, it is measured as a stream, and no token of
    /// it is told. With `guesses` text is enough.
    #[must_use]
    pub fn unclaimed(mut self, guesses: bool) -> Self {
        self.meter.leave_unclaimed(NotYetLlm::new(&self.meter.rules, guesses));
        self
    }

    /// As [`Gauge::unclaimed`], of a stream that is known to be none of an LLM's.
    #[must_use]
    pub fn of_other_stream(mut self) -> Self {
        self.meter.leave_unclaimed(NotYetLlm::for_good());
        self
    }

    /// What makes the answer an LLM's, as far as its bytes have shown.
    pub fn basis(&self) -> LlmBasis {
        self.meter.basis
    }

    /// How many events of a stream came that is no LLM's so far.
    pub fn stream_events(&self) -> u64 {
        self.meter.unclaimed.as_ref().map_or(0, |unclaimed| unclaimed.reading.events)
    }

    /// The reading of a stream that is not an LLM's; `None`: it is an LLM's.
    pub fn take_stream(&mut self) -> Option<StreamReading> {
        self.meter.unclaimed.as_mut().map(|unclaimed| std::mem::take(&mut unclaimed.reading))
    }

    /// From now on the tokens of the answer are counted, as those of `model`.
    pub fn count(&mut self, model: Option<&str>) {
        self.meter.counter = Some(Box::new(AnswerCounter::new(model)));
        self.meter.reader.gather();
    }

    /// The answer's tokens so far, where they are counted. `None` too where a part of it was too long to be, and while the
    /// vocabulary is not there: nobody waits for it.
    pub fn counted(&self) -> Option<u64> {
        let counter = self.meter.counter.as_ref().filter(|counter| counter.is_ready() && !self.meter.cut);
        counter.map(|counter| counter.total())
    }

    /// About how many tokens came so far, where they are counted; costs nothing.
    pub fn counted_roughly(&self) -> Option<u64> {
        self.meter.counter.as_ref().map(|counter| counter.roughly())
    }

    /// Keeps what the answer says too, bounded; for those who ask for it.
    pub fn capture(&mut self) {
        self.meter.capture = Some(Box::default());
        self.meter.reader.gather();
    }

    /// Reads one chunk that came at `now`.
    pub fn feed(&mut self, chunk: &[u8], now: Duration) -> Progress {
        self.meter.progress = Progress::default();
        if chunk.is_empty() {
            return self.meter.progress;
        }
        let reading = &mut self.meter.reading;
        let token_frames = reading.token_frames;
        reading.first_byte.get_or_insert(now);
        reading.bytes = reading.bytes.saturating_add(chunk.len() as u64);
        match self.look.take() {
            None => self.scan(chunk, now),
            Some(held) if held.is_empty() => self.look_at(chunk, now),
            Some(held) => {
                let mut held = held.into_vec();
                held.extend_from_slice(chunk);
                self.look_at(&held, now);
            }
        }
        self.buffering.read(self.meter.reading.token_frames.saturating_sub(token_frames), now);
        self.meter.progress
    }

    /// The wait for this answer began at `at`.
    pub fn asked(&mut self, at: Duration) {
        self.buffering.asked(at);
    }

    /// The upstream was not read from `from` to `to`, while the client took bytes: what queued meanwhile says nothing of
    /// the upstream's pace.
    pub fn wrote(&mut self, from: Duration, to: Duration) {
        self.buffering.wrote(from, to);
    }

    /// Whether the bytes fed so far end between two events: only there may anything be put into the stream. Never true
    /// of an answer without events.
    pub fn at_boundary(&self) -> bool {
        let undecided = self.look.as_ref().is_some_and(|held| !held.is_empty());
        !undecided
            && match &self.scanner {
                Scanner::Sse(scanner) => scanner.at_boundary(),
                Scanner::Lines(scanner) => scanner.at_boundary(),
                Scanner::Values(scanner) => scanner.at_boundary(),
                Scanner::Aws(scanner) => scanner.at_boundary(),
                Scanner::Document(_) | Scanner::Opaque => false,
            }
    }

    /// The answer ended at `now`: flushes what the last event lacked.
    pub fn finish(&mut self, end: StreamEnd, now: Duration) {
        self.flush(end, now);
        self.meter.explain();
        let reading = &mut self.meter.reading;
        reading.buffered = self.buffering.are_held();
        reading.framing = Some(self.framing);
        reading.output = self.meter.capture.as_ref().and_then(|capture| capture.messages());
    }

    fn flush(&mut self, end: StreamEnd, now: Duration) {
        if let Some(held) = self.look.take()
            && !held.is_empty()
        {
            self.settle_framing(self.framing);
            self.scan(&held, now);
        }
        let meter = &mut self.meter;
        match &mut self.scanner {
            Scanner::Sse(scanner) if end == StreamEnd::Cut => return scanner.cut(|frame| meter.frame(frame, now)),
            _ if end == StreamEnd::Cut => return,
            Scanner::Sse(scanner) => scanner.finish(|frame| meter.frame(frame, now)),
            Scanner::Lines(scanner) => scanner.finish(|frame| meter.frame(frame, now)),
            Scanner::Document(document) => return meter.document(document.carry()),
            Scanner::Values(_) | Scanner::Aws(_) | Scanner::Opaque => {}
        }
        meter.reader.end(&mut meter.reading);
        // The last event repeats the whole answer, pictures and all: where it is too long to look at it is believed.
        meter.reading.normal_end |= meter.unread && meter.dialect == Dialect::OpenAiResponses;
        meter.reading.settle();
    }

    /// The events with which the stream can be ended early and in order, because its tokens are used up: its clients take
    /// it for whole, with the dialect's finish reason for that. Empty where it needs none, as text or an answer that has
    /// ended. To be written right behind the bytes fed so far, with nothing after.
    ///
    /// `None` where it cannot: inside an event, after an error, before the answer began, or of a document.
    pub fn closing(&self) -> Option<Bytes> {
        let Meter { reading, reader, .. } = &self.meter;
        if self.framing == Framing::Opaque || reading.normal_end {
            return Some(Bytes::new());
        }
        if reading.error.is_some() || !self.at_boundary() {
            return None;
        }
        let mut closing = Closing::new(self.framing);
        reader.closing(reading, &mut closing).then(|| closing.into_bytes())
    }

    pub fn reading(&self) -> &Reading {
        &self.meter.reading
    }

    /// As [`Gauge::reading`], to keep; an empty one is left behind.
    pub fn take_reading(&mut self) -> Reading {
        std::mem::take(&mut self.meter.reading)
    }

    /// What the answer speaks, as far as its bytes have shown.
    pub fn dialect(&self) -> Dialect {
        self.meter.dialect
    }

    /// How the answer's events are delimited, as far as its bytes have shown.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    fn look_at(&mut self, first: &[u8], now: Duration) {
        match framing_of_bytes(self.framing, self.meter.dialect, first) {
            Look::TooShort => self.look = Some(first.into()),
            Look::Is(framing) => {
                self.settle_framing(framing);
                self.scan(first, now);
            }
        }
    }

    fn settle_framing(&mut self, framing: Framing) {
        if framing != self.framing {
            self.framing = framing;
            self.scanner = Scanner::of(framing);
        }
        let dialect = match framing {
            _ if self.meter.rules.dialect.is_some() => self.meter.dialect,
            // What is neither events nor lines is text, whatever the request spoke.
            Framing::Opaque => Dialect::PlainText,
            _ => dialect_in(self.meter.dialect, framing),
        };
        self.meter.become_dialect(dialect);
    }

    fn scan(&mut self, chunk: &[u8], now: Duration) {
        let meter = &mut self.meter;
        match &mut self.scanner {
            Scanner::Sse(scanner) => scanner.feed(chunk, |frame| meter.frame(frame, now)),
            Scanner::Lines(scanner) => scanner.feed(chunk, |frame| meter.frame(frame, now)),
            Scanner::Values(scanner) => scanner.feed(chunk, |frame| meter.frame(frame, now)),
            Scanner::Aws(scanner) => scanner.feed(chunk, |frame| meter.frame(frame, now)),
            Scanner::Document(document) => {
                // The others have documents, or streams, that nobody takes for the other.
                let may_be_lines = matches!(meter.dialect, Dialect::PlainSse | Dialect::Ollama | Dialect::Shape(_));
                if !may_be_lines {
                    document.believe();
                }
                if let Some(lines) = document.push(chunk, now) {
                    self.become_lines(&lines, now);
                }
            }
            Scanner::Opaque => meter.text(chunk, now),
        }
    }

    /// What was labelled as one document is lines: each is read with the time at which it came.
    fn become_lines(&mut self, lines: &Lines, now: Duration) {
        self.settle_framing(Framing::JsonLines);
        self.scan(&lines.first, lines.first_at);
        self.scan(&lines.rest, now);
    }
}

impl Scanner {
    fn of(framing: Framing) -> Self {
        match framing {
            Framing::Sse => Self::Sse(SseScanner::default()),
            Framing::JsonLines => Self::Lines(LineScanner::default()),
            Framing::JsonValues => Self::Values(ValueScanner::default()),
            Framing::AwsEvents => Self::Aws(AwsScanner::default()),
            Framing::Json => Self::Document(Whole::default()),
            Framing::Opaque => Self::Opaque,
        }
    }
}

#[cfg(test)]
mod tests;
