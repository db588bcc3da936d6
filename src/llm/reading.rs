//! The result of reading one answer.

use std::time::Duration;

use super::calls::{Calls, Taken};
use super::format::{Basis, Framing};
use super::message::Message;
use super::token_gaps::Gaps;
use super::{ServerTimings, Usage, UsageSource};

/// What the model produced in one event; of several in one event the greatest counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Produced {
    #[default]
    Nothing,
    /// Work goes on that has brought nothing yet: a tool's progress, a web search, a sub-agent, a part that begins or ends.
    Work,
    /// The event is of a kind that the dialect does not have: nobody can say what it means to a client.
    Unknown,
    Reasoning,
    Answer,
}

/// The most bytes kept of an error message, id or model name that an upstream sends.
pub(super) const TEXT_LIMIT: usize = 256;

/// The most bytes kept of a finish reason.
const FINISH_REASON_LIMIT: usize = 64;

const FINISH_REASONS_MAX: usize = 8;

const SLOW_GAPS_MAX: usize = 16;

/// What was read of one answer. All times count from "request head complete".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    pub first_byte: Option<Duration>,
    /// The first thing the model produced: reasoning, answer or tool input.
    pub first_token: Option<Duration>,
    /// The first output that is not reasoning.
    pub first_answer: Option<Duration>,
    pub last_token: Option<Duration>,
    /// Longest time between two token frames.
    pub max_gap: Option<Duration>,
    /// All times between two token frames.
    pub gaps: Gaps,
    /// Gaps longer than the route's `slow_gap`, with the time at which each ended; the first 16 of them.
    pub slow_gaps: Box<[(Duration, Duration)]>,
    /// How many gaps were longer than that, beyond the first 16 too.
    pub slow_gap_count: u32,
    /// Events, lines or, where there is no framing, reads.
    pub frames: u64,
    /// Frames that carried a token.
    pub token_frames: u64,
    /// Something behind us collected the stream and let it go in bursts.
    pub buffered: bool,
    pub bytes: u64,
    pub usage: Usage,
    /// The calls of models that `usage` is the sum of; only where the stream's rules tell them apart.
    pub calls: Option<Box<Calls>>,
    pub usage_source: UsageSource,
    /// What the backend told of its own time; few do.
    pub server: Option<Box<ServerTimings>>,
    /// One a choice, in the order they came; the first 8, each bounded to 64 bytes.
    pub finish_reasons: Vec<String>,
    /// Bounded to 256 bytes, as is the model.
    pub response_id: Option<Box<str>>,
    pub response_model: Option<Box<str>>,
    /// What an error event inside the stream said, bounded to 256 bytes; the first one.
    pub error: Option<Box<str>>,
    /// What the model said, one message a choice, bounded; only where the configuration wants it kept.
    pub output: Option<Box<[Message]>>,
    /// How the events were delimited; known at the end.
    pub framing: Option<Framing>,
    /// By what it is known which event was the first token.
    pub basis: Basis,
    /// What was taken for the first token by guess, and the rule that would settle it.
    pub hint: Option<Box<String>>,
    /// The dialect's normal end was seen, and no error before it.
    pub normal_end: bool,
    /// Whether the response is made beside the request that asked for it.
    pub background: Background,
}

/// Whether a response is made in the background: who asked for it may be long gone when it ends, and others fetch it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Background {
    /// It is made while its request waits, as far as it tells.
    #[default]
    No,
    /// It has not ended yet: its usage is told later, to whoever asks for it.
    Running,
    /// It has ended.
    Ended,
}

/// What dialects note. The first id, model and error stay.
impl Reading {
    pub(super) fn note_id(&mut self, id: Option<&str>) {
        note(&mut self.response_id, id);
    }

    pub(super) fn note_model(&mut self, model: Option<&str>) {
        note(&mut self.response_model, model);
    }

    pub(super) fn note_error(&mut self, error: &str) {
        note(&mut self.error, Some(error));
    }

    pub(super) fn note_server(&mut self, timings: ServerTimings) {
        if timings != ServerTimings::default() {
            self.server.get_or_insert_default().update(timings);
        }
    }

    pub(super) fn note_finish_reason(&mut self, reason: Option<&str>) {
        if let Some(reason) = reason
            && self.finish_reasons.len() < FINISH_REASONS_MAX
        {
            self.finish_reasons.push(cut(reason, FINISH_REASON_LIMIT).to_owned());
        }
    }

    /// Notes usage of one call of several: `tell` notes it over what that call told before.
    pub(super) fn note_call(&mut self, id: u64, tell: impl FnOnce(&mut Usage)) {
        let calls = self.calls.get_or_insert_default();
        calls.note(id, tell);
        self.usage = calls.total();
    }

    /// Lets `read` note usage as if there were one call, which is the one of this id.
    pub(super) fn within_call<T>(&mut self, id: u64, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.calls.as_ref().map(|calls| calls.of(id)).unwrap_or_default();
        let total = std::mem::replace(&mut self.usage, before);
        let read = read(self);
        let told = std::mem::replace(&mut self.usage, total);
        if told != before {
            self.note_call(id, |usage| *usage = told);
        }
        read
    }

    /// A call is over: usage under the same id is another one's from now on.
    pub(super) fn end_call(&mut self, id: u64) {
        if let Some(calls) = &mut self.calls {
            calls.end(id);
        }
    }

    /// How usage of calls is taken from now on.
    pub(super) fn take_calls(&mut self, taken: Taken) {
        if taken != Taken::Whole || self.calls.is_some() {
            self.calls.get_or_insert_default().taken = taken;
        }
    }

    /// Books a token frame that ended at `now`.
    #[inline(always)]
    pub(super) fn note_token(&mut self, is_answer: bool, now: Duration, slow_gap: Duration) {
        self.token_frames += 1;
        self.first_token.get_or_insert(now);
        if is_answer {
            self.first_answer.get_or_insert(now);
        }
        if let Some(last) = self.last_token {
            let gap = now.saturating_sub(last);
            self.max_gap = self.max_gap.max(Some(gap));
            self.gaps.note(gap);
            if gap > slow_gap {
                self.note_slow_gap(gap, now);
            }
        }
        self.last_token = self.last_token.max(Some(now));
    }

    fn note_slow_gap(&mut self, gap: Duration, now: Duration) {
        self.slow_gap_count = self.slow_gap_count.saturating_add(1);
        if self.slow_gaps.len() < SLOW_GAPS_MAX {
            // Rare: a box is smaller than what could grow, and there are thousands of readings.
            let mut slow_gaps = std::mem::take(&mut self.slow_gaps).into_vec();
            slow_gaps.push((gap, now));
            self.slow_gaps = slow_gaps.into();
        }
    }

    /// What was booked was no token: it had been taken for one by guess, before the stream showed what it is.
    pub(super) fn take_tokens_back(&mut self) {
        (self.first_token, self.first_answer, self.last_token, self.max_gap) = (None, None, None, None);
        (self.token_frames, self.gaps) = (0, Gaps::default());
        (self.slow_gaps, self.slow_gap_count) = (Box::default(), 0);
    }

    /// Draws what follows from the rest.
    pub(super) fn settle(&mut self) {
        self.normal_end &= self.error.is_none();
        self.usage_source = if self.usage.is_known() { UsageSource::Reported } else { UsageSource::Missing };
    }
}

fn note(slot: &mut Option<Box<str>>, text: Option<&str>) {
    if slot.is_none() {
        *slot = text.map(|text| cut(text, TEXT_LIMIT).into());
    }
}

/// The first `limit` bytes of a text, less what would be half a character.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn gaps_stand_between_token_frames() {
        let mut reading = Reading::default();
        for (at, is_answer) in [(10, false), (30, true), (31, true), (131, true)] {
            reading.note_token(is_answer, ms(at), ms(20));
        }
        assert_eq!((reading.first_token, reading.first_answer), (Some(ms(10)), Some(ms(30))));
        assert_eq!((reading.last_token, reading.max_gap), (Some(ms(131)), Some(ms(100))));
        assert_eq!(*reading.slow_gaps, [(ms(100), ms(131))], "a gap of exactly the limit is not slow");
        assert_eq!(reading.token_frames, 4);
    }

    #[test]
    fn what_an_upstream_sends_is_bounded() {
        let mut reading = Reading::default();
        let long = "ä".repeat(10_000);
        reading.note_id(Some(&long));
        reading.note_model(Some(&long));
        reading.note_error(&format!("x{long}"));
        for at in 0..100 {
            reading.note_finish_reason(Some(&long));
            reading.note_token(true, ms(at * 10), Duration::ZERO);
        }
        assert_eq!(reading.response_id.as_deref().map(str::len), Some(256));
        assert_eq!(reading.response_model.as_deref().map(str::len), Some(256));
        assert_eq!(reading.error.as_deref().map(str::len), Some(255), "cut at a character");
        assert_eq!((reading.finish_reasons.len(), reading.slow_gaps.len()), (8, 16));
        assert_eq!(reading.slow_gap_count, 99, "counted, though not kept");
        assert!(reading.finish_reasons.iter().all(|reason| reason.len() == 64));
    }
}
