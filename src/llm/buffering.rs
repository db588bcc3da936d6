//! Buffering detector: tells a stream that a hop behind us collected and released in bursts from one that came as it
//! was generated.
//!
//! A model generates tokens one after the other: even the fastest takes a few hundred microseconds for each. If many
//! token frames come at one moment after a long silence, a hop buffered them: a compressing middleware, a buffering
//! proxy, a server that batches. These look alike and are not buffered: a fast model (no silence before each burst), an
//! answer of few frames, a burst at the end of a steady stream, and frames that queued while the *client* took no
//! bytes, since we did not read then. Only waiting for the upstream counts as silence.

use std::time::Duration;

/// Frames that come closer than this came together: no model makes 3,000 tokens a second for one answer.
const TOGETHER: Duration = Duration::from_micros(300);

/// Frames of one moment that make a burst. Servers that predict several tokens a step send fewer.
const BURST: u32 = 8;

/// Waiting for the upstream that makes a burst one that was held back.
const SILENCE: Duration = Duration::from_millis(250);

/// A write that takes so long was held up by the client, and what is read after it without waiting had queued meanwhile.
const HELD_UP: Duration = Duration::from_millis(10);

/// What is remembered of a stream's pace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BufferingDetector {
    /// Since when the upstream is waited for.
    waiting_since: Duration,
    /// Waited for the upstream since the last token frame.
    silence: Duration,
    /// Reads say nothing of the upstream until one has to wait for it.
    queued: bool,
    burst: Burst,
    /// Token frames in bursts that are over, and how many of them were held back.
    frames: u32,
    held_frames: u32,
    held_bursts: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Burst {
    frames: u32,
    silence: Duration,
}

impl Burst {
    fn is_held(self) -> bool {
        self.frames >= BURST && self.silence >= SILENCE
    }
}

impl BufferingDetector {
    /// The wait for the first byte began at `at`.
    pub(super) fn asked(&mut self, at: Duration) {
        self.waiting_since = at;
    }

    /// A read that came at `now` brought so many token frames.
    pub(super) fn read(&mut self, token_frames: u64, now: Duration) {
        let waited = now.saturating_sub(self.waiting_since);
        self.silence += waited;
        self.waiting_since = self.waiting_since.max(now);
        if waited >= TOGETHER {
            self.queued = false;
        }
        if token_frames == 0 {
            return;
        }
        let silence = std::mem::take(&mut self.silence);
        if self.queued {
            return;
        }
        if silence >= TOGETHER {
            self.close();
            self.burst = Burst { frames: 0, silence };
        }
        self.burst.frames = self.burst.frames.saturating_add(u32::try_from(token_frames).unwrap_or(u32::MAX));
    }

    /// The upstream was not read while the client took bytes, from `from` to `to`.
    pub(super) fn wrote(&mut self, from: Duration, to: Duration) {
        self.silence += from.saturating_sub(self.waiting_since);
        self.waiting_since = self.waiting_since.max(to);
        if to.saturating_sub(from) >= HELD_UP {
            self.queued = true;
        }
    }

    /// Whether nearly all token frames so far came in bursts that were held back.
    pub(super) fn are_held(mut self) -> bool {
        self.close();
        match self.held_bursts {
            0 => false,
            // The whole answer at once, or after its first token. More before it, and it is a burst at the end.
            1 => self.frames - self.held_frames <= 1,
            _ => u64::from(self.held_frames) * 5 >= u64::from(self.frames) * 4,
        }
    }

    fn close(&mut self) {
        let burst = std::mem::take(&mut self.burst);
        self.frames = self.frames.saturating_add(burst.frames);
        if burst.is_held() {
            self.held_frames = self.held_frames.saturating_add(burst.frames);
            self.held_bursts = self.held_bursts.saturating_add(1);
        }
    }
}

#[cfg(test)]
#[path = "buffering_tests.rs"]
mod tests;
