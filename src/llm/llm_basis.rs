//! Whether a stream is an LLM's. Many things are streamed as events: notifications, progress, tool calls. A stream is
//! an LLM's only if its request says so, or if one of its events has the shape of an LLM's.

use std::time::Duration;

use super::json_rpc::Rpc;
use super::token_gaps::Gaps;

/// What makes an answer an LLM's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LlmBasis {
    /// Nothing so far.
    None,
    /// Its request or its route.
    Request,
    /// An event with the shape of a dialect, or of a rule in the configuration.
    Shape,
    /// Text that came to a POST: most such streams are an LLM's, and some are not.
    Guess,
}

/// What was read of a stream that is no LLM's. All times count from "request head complete".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamReading {
    pub events: u64,
    pub first_event: Option<Duration>,
    pub last_event: Option<Duration>,
    /// Longest time between two events.
    pub max_gap: Option<Duration>,
    /// All times between two events.
    pub gaps: Gaps,
    /// What its messages are, where they are JSON-RPC.
    pub rpc: Option<Box<Rpc>>,
}

impl StreamReading {
    /// Books an event that ended at `now`.
    pub(super) fn note(&mut self, now: Duration) {
        self.events += 1;
        self.first_event.get_or_insert(now);
        if let Some(last) = self.last_event.replace(now) {
            let gap = now.saturating_sub(last);
            self.max_gap = self.max_gap.max(Some(gap));
            self.gaps.note(gap);
        }
    }
}
