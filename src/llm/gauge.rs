//! The gauge: a pure state machine that reads one answer as it passes and keeps what was seen.

use std::sync::Arc;
use std::time::Duration;

use super::{Dialect, Framing, Usage, UsageSource};

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
    /// Gaps longer than the route's `slow_gap`, with the time at which each ended; the first 16 of them.
    pub slow_gaps: Vec<(Duration, Duration)>,
    /// Events, lines or, where there is no framing, reads.
    pub frames: u64,
    /// Frames that carried a token.
    pub token_frames: u64,
    pub bytes: u64,
    pub usage: Usage,
    pub usage_source: UsageSource,
    /// One a choice, in the order they came; the first 8.
    pub finish_reasons: Vec<String>,
    pub response_id: Option<String>,
    pub response_model: Option<String>,
    /// What an error event inside the stream said, bounded to 256 bytes.
    pub error: Option<String>,
    /// The dialect's normal end was seen.
    pub normal_end: bool,
}

/// How to read a plain stream of values: JSON pointers (RFC 6901) into its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlainRules {
    /// Where the generated text stands; absent: any data is text.
    pub text: Option<String>,
    /// Absent: a top-level `error` key.
    pub error: Option<String>,
    /// The data that ends the stream; when set, an end without it is a truncation.
    pub done: Option<String>,
}

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
    dialect: Dialect,
    framing: Framing,
    rules: Arc<PlainRules>,
    reading: Reading,
}

/// What one chunk brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// A token frame ended in this chunk.
    pub token: bool,
}

impl Gauge {
    /// A gauge for an answer of `dialect` in `framing`; gaps between token frames longer than `slow_gap` are kept.
    pub fn new(dialect: Dialect, framing: Framing, rules: Arc<PlainRules>, slow_gap: Duration) -> Self {
        let _ = slow_gap;
        Self { dialect, framing, rules, reading: Reading::default() }
    }

    /// Reads one chunk that came at `now`.
    pub fn feed(&mut self, chunk: &[u8], now: Duration) -> Progress {
        let _ = (chunk, now, self.dialect, self.framing, &self.rules);
        Progress::default()
    }

    /// Whether the bytes fed so far end between two events: only there may anything be put into the stream.
    pub fn at_boundary(&self) -> bool {
        true
    }

    /// The answer ended at `now`: flushes what the last event lacked.
    pub fn finish(&mut self, end: StreamEnd, now: Duration) {
        let _ = (end, now);
    }

    pub fn reading(&self) -> &Reading {
        &self.reading
    }
}
