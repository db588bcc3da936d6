//! Turns the events of an answer into its reading.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::not_yet_llm::NotYetLlm;
use super::progress::Progress;
use crate::llm::content::Capture;
use crate::llm::dialect::shape::sketch;
use crate::llm::dialect::{Reader, StreamRules, complete, dialect_instead, dialect_of_event};
use crate::llm::event_pattern::Pattern;
use crate::llm::format::Basis;
use crate::llm::json::{Fault, read_object};
use crate::llm::partial_buffer::{Partial, PartialBuffer};
use crate::llm::reading::Produced;
use crate::llm::sse::{Event, Frame};
use crate::llm::token_count::AnswerCounter;
use crate::llm::{Dialect, LlmBasis, Reading};

/// So many events at most are looked at for what the stream speaks.
const LOOKS_MAX: u8 = 32;

/// A longer event is not read a second time for what else it may be: what begins a stream is short.
const LOOK_BYTES_MAX: usize = 4 << 10;

/// Said where no event was taken for a token.
const NO_TEXT: &str = "no event has text under a usual key; say where it stands: stream = { text = \"/...\" }";

/// Turns events into a reading.
pub(super) struct Meter {
    pub(super) dialect: Dialect,
    /// So many more events may show that the dialect is another one.
    looks: u8,
    pub(super) rules: Arc<StreamRules>,
    pub(super) reader: Box<dyn Reader>,
    pub(super) pattern: Pattern,
    slow_gap: Duration,
    pub(super) reading: Reading,
    pub(super) progress: Progress,
    pub(super) basis: LlmBasis,
    /// Present while nothing says that the answer is an LLM's.
    pub(super) unclaimed: Option<Box<NotYetLlm>>,
    /// The last event was too long to be read.
    pub(super) unread: bool,
    /// An event was too long to be read but for its skeleton, or at all.
    pub(super) cut: bool,
    /// Counts what is generated, where that is asked for.
    pub(super) counter: Option<Box<AnswerCounter>>,
    /// Boxed: few want it, and there are thousands of gauges.
    pub(super) capture: Option<Box<Capture>>,
}

impl Meter {
    pub(super) fn new(dialect: Dialect, rules: Arc<StreamRules>, slow_gap: Duration) -> Self {
        Self {
            dialect,
            // Who says what it is, or where the text stands, knows the shape.
            looks: if rules.are_binding() { 0 } else { LOOKS_MAX },
            reader: dialect.reader(&rules),
            pattern: Pattern::default(),
            rules,
            slow_gap,
            reading: Reading::default(),
            progress: Progress::default(),
            basis: LlmBasis::Request,
            unclaimed: None,
            unread: false,
            cut: false,
            counter: None,
            capture: None,
        }
    }

    pub(super) fn leave_unclaimed(&mut self, unclaimed: NotYetLlm) {
        self.basis = LlmBasis::None;
        self.unclaimed = Some(Box::new(unclaimed));
    }

    /// Whether the answer is an LLM's by this frame, if it was not before.
    fn is_claimed(&mut self, frame: Frame<'_>, now: Duration) -> bool {
        let Some(unclaimed) = &mut self.unclaimed else { return true };
        let shown = match frame {
            Frame::Event(event) | Frame::Skeleton(event) => unclaimed.look(event, &self.rules),
            Frame::Named(_) => return false,
            Frame::Oversized | Frame::Stray(_) => None,
        };
        let Some(basis) = shown else {
            unclaimed.note(now);
            self.progress.other = true;
            return false;
        };
        self.basis = basis;
        self.unclaimed = None;
        true
    }

    pub(super) fn frame(&mut self, frame: Frame<'_>, now: Duration) {
        if self.unclaimed.is_some() && !self.is_claimed(frame, now) {
            return;
        }
        self.reading.frames += 1;
        self.unread = matches!(frame, Frame::Oversized);
        let event = match frame {
            Frame::Event(event) => event,
            Frame::Skeleton(event) => return self.skeleton(event, now),
            Frame::Oversized => {
                self.cut = true;
                self.progress.other = true;
                return;
            }
            Frame::Named(name) => return self.named(name),
            Frame::Stray(json) => return self.stray(json),
        };
        let produced = match self.pattern.meet(event) {
            // A reader that gathers would tell what the event before said.
            Some(met) if met.text.is_some() || self.reader.said().is_none() => {
                self.say(event, met.text, met.produced);
                if met.produced > Produced::Unknown && self.reading.token_frames > 0 {
                    // As the one before it: no rule is found by it, and nothing else follows from it.
                    return self.book_token(met.produced, now);
                }
                met.produced
            }
            // One that was met shows what the one before showed.
            _ => {
                self.look_first(event);
                self.read_or_change(event)
            }
        };
        self.book(produced, &event, now);
    }

    /// Reads what is left of a long event: what it told is known, but not all that was written in it.
    fn skeleton(&mut self, event: Event<'_>, now: Duration) {
        self.cut = true;
        self.look_first(event);
        self.pattern.forget();
        let produced = self.reader.event(event, &mut self.reading);
        self.book(produced, &event, now);
    }

    /// A name alone may end the stream; there is nothing in it that was generated.
    fn named(&mut self, name: &[u8]) {
        self.progress.other = true;
        let _ = self.reader.event(Event { name, data: &[], id: &[] }, &mut self.reading);
        self.reading.settle();
    }

    /// A guess is held against each of the first events, all else against the first.
    fn look_first(&mut self, event: Event<'_>) {
        if self.looks > 0 && (self.dialect == Dialect::PlainSse || self.looks == LOOKS_MAX) {
            self.look(event);
        }
    }

    /// Books what an event brought.
    #[inline(always)]
    fn book(&mut self, produced: Produced, event: &Event<'_>, now: Duration) {
        self.progress.work |= produced == Produced::Work;
        self.progress.unknown |= produced == Produced::Unknown;
        if produced > Produced::Unknown {
            if self.reading.token_frames == 0 {
                self.note_first(*event);
            }
            self.book_token(produced, now);
        } else {
            self.progress.other = true;
        }
        self.reading.settle();
    }

    #[inline]
    fn book_token(&mut self, produced: Produced, now: Duration) {
        self.reading.note_token(produced == Produced::Answer, now, self.slow_gap);
        self.progress.token = true;
    }

    /// Says of the first token how a rule would find it, where it is one by guess.
    #[cold]
    fn note_first(&mut self, event: Event<'_>) {
        if self.basis() == Basis::Guess {
            self.reading.hint = Some(Box::new(sketch(event).hint()));
        }
    }

    /// Looks whether an event shows what the stream speaks.
    fn look(&mut self, event: Event<'_>) {
        if self.looks == 0 || event.data.trim_ascii().is_empty() {
            return;
        }
        self.looks -= 1;
        self.turn_into(dialect_of_event(self.dialect, event, &self.rules));
    }

    /// Follows what an event showed: what was taken for tokens by guess before was none.
    fn turn_into(&mut self, shown: Dialect) {
        if self.dialect == Dialect::PlainSse && shown != self.dialect {
            self.reading.take_tokens_back();
            self.reading.hint = None;
        }
        self.become_dialect(shown);
    }

    /// Reads an event; one that the dialect does not have may show, before any token, that it is another one.
    fn read_or_change(&mut self, event: Event<'_>) -> Produced {
        let produced = self.read(event);
        let is_settled = self.looks == 0 || self.reading.token_frames > 0 || self.dialect == Dialect::PlainSse;
        if produced != Produced::Unknown || is_settled || event.data.len() > LOOK_BYTES_MAX {
            return produced;
        }
        self.looks -= 1;
        let shown = dialect_instead(self.dialect, event, &self.rules);
        if shown == self.dialect {
            return produced;
        }
        self.turn_into(shown);
        self.read(event)
    }

    /// By what it is known which event is the first token.
    fn basis(&self) -> Basis {
        let is_own = |name: &&str| self.rules.own.named(name).is_some();
        match self.dialect {
            Dialect::PlainText => Basis::Bytes,
            Dialect::PlainSse if self.rules.shape.as_ref().is_some_and(|shape| !shape.guesses()) => Basis::Rules,
            Dialect::PlainSse => Basis::Guess,
            Dialect::Shape(name) if is_own(&name) => Basis::Rules,
            _ if self.rules.dialect.is_some() => Basis::Rules,
            _ => Basis::Dialect,
        }
    }

    /// Says at the end by what the first token was known; and where none was found, the rule that may find it.
    pub(super) fn explain(&mut self) {
        let (basis, reading) = (self.basis(), &mut self.reading);
        if reading.frames > 0 && reading.token_frames == 0 && reading.error.is_none() {
            reading.hint = Some(Box::new(NO_TEXT.to_owned()));
        }
        reading.basis = basis;
        if basis != Basis::Guess {
            reading.hint = None;
        }
    }

    /// Reads an event in full.
    fn read(&mut self, event: Event<'_>) -> Produced {
        let produced = self.reader.event(event, &mut self.reading);
        self.say(event, None, produced);
        let Some(varying) = self.reader.varying() else {
            self.pattern.forget();
            return produced;
        };
        let learnt = self.pattern.learn(event, varying, produced);
        // Who gathers texts must find that one, and no other.
        let said = self.reader.said();
        let agree = learnt.is_some_and(|text| {
            if let Some(said) = said {
                return said == text;
            }
            let counts = self.counter.as_mut().is_none_or(|counter| counter.says(event, text));
            counts && self.capture.as_ref().is_none_or(|capture| capture.has_said(text))
        });
        if !agree {
            self.pattern.forget();
        }
        produced
    }

    /// Hands what `event` says to those who gather it; `met` is all of that, in an event like the one before.
    #[inline]
    fn say(&mut self, event: Event<'_>, met: Option<&str>, produced: Produced) {
        if self.capture.is_none() && self.counter.is_none() {
            return;
        }
        let said = self.reader.said();
        if let Some(capture) = &mut self.capture {
            match (met, said) {
                (Some(text), _) => capture.again(text),
                (None, Some(text)) => capture.said(text, produced),
                (None, None) => capture.event(event, produced),
            }
        }
        let text = met.or(said);
        if let Some(counter) = &mut self.counter {
            match text {
                Some(text) => counter.text(text),
                None if self.dialect == Dialect::PlainText => counter.plain(event.data),
                None => counter.event(event),
            }
        }
    }

    /// Reads bare JSON among events: what it can be is an error.
    fn stray(&mut self, json: &[u8]) {
        self.progress.other = true;
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Broken {
            error: Fault,
        }
        if let Some(error) = read_object::<Broken>(json).and_then(|broken| broken.error.0) {
            self.reading.note_error(&error);
            self.reading.settle();
        }
    }

    /// Reads text: any byte is a token, also those that were held until it was sure that they are text.
    pub(super) fn text(&mut self, chunk: &[u8], now: Duration) {
        let at = if self.reading.token_frames == 0 { self.reading.first_byte.unwrap_or(now) } else { now };
        self.looks = 0;
        let event = Event::of(chunk);
        if self.unclaimed.is_some() {
            return self.frame(Frame::Event(event), at);
        }
        self.reading.frames += 1;
        self.unread = false;
        let produced = self.reader.event(event, &mut self.reading);
        self.say(event, None, produced);
        self.book(produced, &event, at);
    }

    /// Reads a whole answer: it has one frame, and no tokens that could be timed.
    pub(super) fn document(&mut self, document: &PartialBuffer) {
        self.reading.frames = u64::from(self.reading.bytes > 0);
        let json = match document.carried() {
            Partial::Whole(json) | Partial::Skeleton(json) => json,
            Partial::Lost => &[],
        };
        let event = Event::of(json);
        self.look(event);
        self.cut = !matches!(document.carried(), Partial::Whole(_));
        if !self.cut
            && let Some(capture) = &mut self.capture
        {
            capture.event(event, Produced::Answer);
        }
        self.reader.document(json, &mut self.reading);
        complete(json, &mut self.reading);
        // Nobody asks for what the answer itself has told.
        if !self.cut
            && self.reading.usage.output.is_none()
            && let Some(counter) = &mut self.counter
        {
            counter.event(event);
        }
        // An orderly end of half a document is none; what is no JSON is believed.
        let is_half =
            !self.was_parsed() && serde_json::from_slice::<IgnoredAny>(json).is_err_and(|error| error.is_eof());
        self.reading.normal_end = if json.is_empty() { !document.is_half() } else { !is_half };
        self.reading.settle();
    }

    /// Whether the document's usage was read by a reader that parses all of it or nothing.
    fn was_parsed(&self) -> bool {
        let parses_all = matches!(
            self.dialect,
            Dialect::OpenAiChat | Dialect::OpenAiResponses | Dialect::Anthropic | Dialect::Gemini | Dialect::Ollama
        );
        parses_all && !self.cut && self.reading.usage.is_known()
    }

    pub(super) fn become_dialect(&mut self, dialect: Dialect) {
        if dialect != self.dialect {
            self.dialect = dialect;
            self.pattern.forget();
            self.reader = dialect.reader(&self.rules);
            if self.counter.is_some() || self.capture.is_some() {
                self.reader.gather();
            }
        }
    }
}
