//! How many bytes of request bodies are held at once, over all requests: each is bounded, and so is their sum.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the bytes that are held. The cap is given each time, since a reload may change it.
#[derive(Debug, Default, Clone)]
pub(crate) struct AllBodies(Arc<AtomicU64>);

/// The bytes of one body; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct BodyBytes {
    all: AllBodies,
    bytes: u64,
}

impl AllBodies {
    /// Those of a body of which nothing came yet.
    pub(crate) fn body(&self) -> BodyBytes {
        BodyBytes { all: self.clone(), bytes: 0 }
    }
}

impl BodyBytes {
    /// Takes `more` bytes; false where all bodies together would be more than `cap`, and nothing is taken.
    #[must_use]
    pub(crate) fn grow(&mut self, more: u64, cap: u64) -> bool {
        let taken = self
            .all
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| held.checked_add(more).filter(|sum| *sum <= cap));
        if taken.is_ok() {
            self.bytes = self.bytes.saturating_add(more);
        }
        taken.is_ok()
    }
}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_their_cap_and_give_back_what_they_took() {
        let all = AllBodies::default();
        let (mut one, mut other) = (all.body(), all.body());
        assert!(one.grow(6, 10) && one.grow(2, 10));
        assert!(!other.grow(3, 10), "more than all may hold");
        assert!(other.grow(2, 10), "what was refused took nothing");
        assert!(!other.grow(u64::MAX, u64::MAX));
        drop(one);
        assert!(other.grow(8, 10));
        drop(other);
        assert_eq!(all.0.load(Ordering::Acquire), 0);
    }
}
