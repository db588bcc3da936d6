//! Turns the events of an answer into its reading.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Document, PlainRules, Progress};
use crate::llm::content::Capture;
use crate::llm::count::AnswerCounter;
use crate::llm::dialect::{Produced, Reader, dialect_of_event};
use crate::llm::json::{Fault, read_object};
use crate::llm::pattern::Pattern;
use crate::llm::sse::{Event, Frame};
use crate::llm::{Dialect, Reading};

/// Turns events into a reading.
pub(super) struct Meter {
    pub(super) dialect: Dialect,
    /// The dialect may still follow the first event's shape.
    open: bool,
    pub(super) rules: Arc<PlainRules>,
    pub(super) reader: Box<dyn Reader>,
    pub(super) pattern: Pattern,
    slow_gap: Duration,
    pub(super) reading: Reading,
    pub(super) progress: Progress,
    /// The last event was too long to be read.
    pub(super) unread: bool,
    /// Counts what is generated, where that is asked for.
    pub(super) counter: Option<Box<AnswerCounter>>,
    /// Boxed: few want it, and there are thousands of gauges.
    pub(super) capture: Option<Box<Capture>>,
}

impl Meter {
    pub(super) fn new(dialect: Dialect, rules: Arc<PlainRules>, slow_gap: Duration) -> Self {
        Self {
            dialect,
            // Who names where the text stands knows the shape.
            open: rules.text.is_none(),
            reader: dialect.reader(&rules),
            pattern: Pattern::default(),
            rules,
            slow_gap,
            reading: Reading::default(),
            progress: Progress::default(),
            unread: false,
            counter: None,
            capture: None,
        }
    }

    pub(super) fn frame(&mut self, frame: Frame<'_>, now: Duration) {
        self.reading.frames += 1;
        self.unread = frame == Frame::Oversized;
        let event = match frame {
            Frame::Event(event) => event,
            Frame::Oversized => {
                self.progress.other = true;
                return;
            }
            Frame::Stray(json) => return self.stray(json),
        };
        if self.open && !event.data.trim_ascii().is_empty() {
            self.open = false;
            self.become_dialect(dialect_of_event(self.dialect, event));
        }
        let produced = match self.pattern.meet(event) {
            Some(met) => {
                self.say(event, met.text);
                met.produced
            }
            None => self.read(event),
        };
        self.progress.work |= produced == Produced::Work;
        self.progress.unknown |= produced == Produced::Unknown;
        if produced > Produced::Unknown {
            self.reading.note_token(produced == Produced::Answer, now, self.slow_gap);
            self.progress.token = true;
        } else {
            self.progress.other = true;
        }
        self.reading.settle();
    }

    /// Reads an event in full.
    fn read(&mut self, event: Event<'_>) -> Produced {
        let produced = self.reader.event(event, &mut self.reading);
        self.say(event, None);
        let learnt = match self.reader.varying() {
            Some(varying) => self.pattern.learn(event, varying, produced),
            None => None,
        };
        // Who gathers texts must find that one, and no other.
        let agree = learnt.is_some_and(|text| {
            let counts = self.counter.as_mut().is_none_or(|counter| counter.says(event, text));
            counts && self.capture.as_mut().is_none_or(|capture| capture.says(event, text))
        });
        if !agree {
            self.pattern.forget();
        }
        produced
    }

    /// Hands what `event` says to those who gather it; all of that is `text`, where it is known.
    fn say(&mut self, event: Event<'_>, text: Option<&str>) {
        if let Some(capture) = &mut self.capture {
            match text {
                Some(text) => capture.text_of_event(text),
                None => capture.event(event),
            }
        }
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
        self.open = false;
        self.frame(Frame::Event(Event::of(chunk)), at);
    }

    /// Reads a whole answer: it has one frame, and no tokens that could be timed.
    pub(super) fn document(&mut self, document: &Document) {
        self.reading.frames = u64::from(self.reading.bytes > 0);
        if self.open {
            self.become_dialect(dialect_of_event(self.dialect, Event::of(&document.bytes)));
        }
        if let Some(capture) = &mut self.capture {
            capture.event(Event::of(&document.bytes));
        }
        self.reader.document(&document.bytes, &mut self.reading);
        if let Some(counter) = &mut self.counter {
            counter.event(Event::of(&document.bytes));
        }
        // An orderly end of half a document is none; one that was too long to look at is believed.
        let is_half = serde_json::from_slice::<IgnoredAny>(&document.bytes).is_err_and(|error| error.is_eof());
        self.reading.normal_end = document.oversized || document.bytes.is_empty() || !is_half;
        self.reading.settle();
    }

    pub(super) fn become_dialect(&mut self, dialect: Dialect) {
        if dialect != self.dialect {
            self.dialect = dialect;
            self.pattern.forget();
            self.reader = dialect.reader(&self.rules);
        }
    }
}
