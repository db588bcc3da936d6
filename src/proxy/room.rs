//! How many bytes of request bodies are held at once, over all requests: each is bounded, and so is their sum.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the bytes that are held. The cap is given each time, since a reload may change it.
#[derive(Debug, Default, Clone)]
pub(super) struct Held(Arc<AtomicU64>);

/// Room for one body; dropping it gives the bytes back.
#[derive(Debug)]
pub(super) struct Room {
    held: Held,
    bytes: u64,
}

impl Held {
    /// Room for a body of which nothing came yet.
    pub(super) fn room(&self) -> Room {
        Room { held: self.clone(), bytes: 0 }
    }
}

impl Room {
    /// Takes `more` bytes; false where all bodies together would be more than `cap`, and nothing is taken.
    #[must_use]
    pub(super) fn grow(&mut self, more: u64, cap: u64) -> bool {
        let taken = self
            .held
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| held.checked_add(more).filter(|sum| *sum <= cap));
        if taken.is_ok() {
            self.bytes = self.bytes.saturating_add(more);
        }
        taken.is_ok()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_share_their_cap_and_give_back_what_they_took() {
        let held = Held::default();
        let (mut one, mut other) = (held.room(), held.room());
        assert!(one.grow(6, 10) && one.grow(2, 10));
        assert!(!other.grow(3, 10), "more than all may hold");
        assert!(other.grow(2, 10), "what was refused took nothing");
        assert!(!other.grow(u64::MAX, u64::MAX));
        drop(one);
        assert!(other.grow(8, 10));
        drop(other);
        assert_eq!(held.0.load(Ordering::Acquire), 0);
    }
}
