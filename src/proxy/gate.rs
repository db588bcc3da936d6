//! Caps on how many of something there may be at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is inside. The cap is given at each entry, since a reload may change it.
#[derive(Debug, Default, Clone)]
pub(super) struct Gate {
    inside: Arc<AtomicUsize>,
}

/// One place inside a [`Gate`]; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Pass {
    inside: Arc<AtomicUsize>,
}

impl Gate {
    /// A place, or `None` when `cap` places are taken.
    pub(super) fn enter(&self, cap: usize) -> Option<Pass> {
        let pass = Pass { inside: Arc::clone(&self.inside) };
        let before = self.inside.fetch_add(1, Ordering::AcqRel);
        // Dropping the pass takes the count back.
        (before < cap).then_some(pass)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.inside.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gate_refuses_until_someone_leaves() {
        let gate = Gate::default();
        let first = gate.enter(1).unwrap();
        assert!(gate.enter(1).is_none());
        assert!(gate.enter(2).is_some(), "a refused entry must not keep a place");
        drop(first);
        assert!(gate.enter(1).is_some());
    }
}
