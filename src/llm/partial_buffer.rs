//! The bytes of an event, line or document that has not ended: all of them while they are few, beyond that shortened.

use super::prune::Pruner;
use super::sse::{EVENT_LIMIT, clear};

/// Gathers a begun piece of a stream, in bounded memory.
#[derive(Debug, Default)]
pub(super) struct PartialBuffer {
    bytes: Vec<u8>,
    /// It is too long to be kept whole.
    pruner: Option<Box<Pruner>>,
}

/// What was gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Partial<'c> {
    Whole(&'c [u8]),
    /// It was longer than [`EVENT_LIMIT`]: JSON without what is long in it.
    Skeleton(&'c [u8]),
    /// It was longer, and is no JSON object or array, or only the beginning of one.
    Lost,
}

impl PartialBuffer {
    /// Takes the next bytes.
    pub(super) fn push(&mut self, piece: &[u8]) {
        if let Some(pruner) = &mut self.pruner {
            return pruner.feed(piece);
        }
        if self.bytes.len() + piece.len() >= EVENT_LIMIT {
            self.prune();
            return self.push(piece);
        }
        self.bytes.extend_from_slice(piece);
    }

    /// Keeps no more than the skeleton, of what came so far too.
    fn prune(&mut self) {
        let pruner = self.pruner.get_or_insert_default();
        pruner.feed(&std::mem::take(&mut self.bytes));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.pruner.is_none()
    }

    /// What came so far.
    pub(super) fn carried(&self) -> Partial<'_> {
        match &self.pruner {
            None => Partial::Whole(&self.bytes),
            Some(pruner) => pruner.skeleton().map_or(Partial::Lost, Partial::Skeleton),
        }
    }

    /// What came is too long to be kept whole, and JSON that has not ended.
    pub(super) fn is_half(&self) -> bool {
        self.pruner.as_ref().is_some_and(|pruner| pruner.is_half())
    }

    /// Forgets all, and gives memory back where it became much.
    pub(super) fn clear(&mut self) {
        self.pruner = None;
        clear(&mut self.bytes);
    }

    /// Memory that is held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity() + self.pruner.as_ref().map_or(0, |pruner| pruner.held())
    }
}
