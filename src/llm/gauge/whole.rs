//! An answer that is labelled as one piece; a second line of JSON shows that it is a stream with a wrong label.

use std::time::Duration;

use memchr::memchr;
use serde::de::IgnoredAny;

use crate::llm::partial_buffer::{Partial, PartialBuffer};

/// An answer in one piece, or what may still show to be lines of JSON.
#[derive(Default)]
pub(super) struct Whole {
    carry: PartialBuffer,
    /// Bytes gathered so far, while the first line decides.
    len: usize,
    first_line: FirstLine,
}

#[derive(Debug, Clone, Copy, Default)]
enum FirstLine {
    #[default]
    Begun,
    /// So many bytes long, with its end, which came at that time.
    Ended(usize, Duration),
    /// It was no JSON object of its own, or another one did not follow.
    Judged,
}

/// The first lines of a stream.
pub(super) struct Lines {
    pub(super) first: Vec<u8>,
    pub(super) first_at: Duration,
    pub(super) rest: Vec<u8>,
}

impl Whole {
    /// It is the document that its label says.
    pub(super) fn believe(&mut self) {
        self.first_line = FirstLine::Judged;
    }

    /// Takes the next bytes, which came at `now`. Gives all back where they show that these are lines.
    pub(super) fn push(&mut self, chunk: &[u8], now: Duration) -> Option<Lines> {
        if let (FirstLine::Begun, Some(end)) = (self.first_line, memchr(b'\n', chunk)) {
            self.first_line = FirstLine::Ended(self.len + end + 1, now);
        }
        self.carry.push(chunk);
        self.len = self.len.saturating_add(chunk.len());
        let FirstLine::Ended(len, first_at) = self.first_line else { return None };
        let Partial::Whole(bytes) = self.carry.carried() else {
            self.first_line = FirstLine::Judged;
            return None;
        };
        let (first, rest) = bytes.split_at_checked(len)?;
        let next = rest.trim_ascii_start().first()?;
        let is_object = first.trim_ascii().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(first).is_ok();
        if *next != b'{' || !is_object {
            self.first_line = FirstLine::Judged;
            return None;
        }
        Some(Lines { first: first.to_vec(), first_at, rest: rest.to_vec() })
    }

    pub(super) fn carry(&self) -> &PartialBuffer {
        &self.carry
    }
}
