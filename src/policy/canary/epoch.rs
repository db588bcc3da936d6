//! Epochs: times with a constant share of the canary.
//!
//! A failure is known at once, a success only at its end. So after a step the failures among the canary's many new
//! requests are known before their successes, while most known requests of the baseline were assigned long before: a
//! canary equal to its baseline would look worse. Therefore only requests that were assigned under one share are
//! compared: each carries its epoch, and a block has one epoch. Requests of the epoch before fill a block of their own;
//! older ones are dropped.

use super::block::{Block, Filling};

/// The blocks of the two epochs of which requests are still heard.
#[derive(Debug)]
pub(super) struct Blocks {
    current: Block,
    previous: Option<Block>,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { current: Block::new(0), previous: None }
    }
}

impl Blocks {
    /// An epoch begins in which the canary has `share` percent; the last one becomes the previous one.
    pub(super) fn begin(&mut self, share: u8) {
        self.previous = Some(std::mem::replace(&mut self.current, Block::new(share)));
    }

    /// The block of a request that was assigned so many epochs ago; `None`: it comes too late to be compared.
    pub(super) fn of(&mut self, age: u64) -> Option<&mut Block> {
        match age {
            0 => Some(&mut self.current),
            1 => self.previous.as_mut(),
            _ => None,
        }
    }

    /// How far the current epoch's block is filled.
    pub(super) fn filling(&self) -> Filling {
        self.current.filling()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::canary::{Arm, PerFact};

    #[test]
    fn two_epochs_are_heard_and_not_mixed() {
        let mut blocks = Blocks::default();
        blocks.begin(5);
        let mut answers = PerFact { failed: Some(false), ..PerFact::default() };
        assert_eq!(blocks.of(0).unwrap().note(Arm::Baseline, 1, &mut answers), None);
        blocks.begin(25);
        let filling = |blocks: &mut Blocks, age| blocks.of(age).map(|block| block.filling());
        assert_eq!(filling(&mut blocks, 1).map(|it| (it.users, it.users_needed)), Some((1, 80)), "it goes on");
        assert_eq!(filling(&mut blocks, 0).map(|it| (it.users, it.users_needed)), Some((0, 16)));
        assert!(blocks.of(2).is_none());
        assert_eq!(blocks.filling().users, 0);
    }
}
