//! What a replica has to tell the fleet's judge, until it is told. Requests put it here and wait for nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::policy::canary::{FirstAttempt, Sample, pack};

/// Requests of a batch.
const SAMPLES: usize = 64;

/// Batches that wait. A full queue drops whole batches, the oldest, with what they hold of both sides: so what is lost
/// does not depend on the side.
const BATCHES: usize = 64;

/// Requests that are told together.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    /// How many this replica told with it, of this canary.
    pub(super) number: u64,
    pub(super) packed: Vec<u8>,
    closed: Instant,
    samples: u64,
}

impl Batch {
    /// How long ago it was closed.
    pub(super) fn waited_ms(&self) -> u64 {
        u64::try_from(self.closed.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    open: Vec<(Sample, FirstAttempt)>,
    closed: VecDeque<Batch>,
    number: u64,
    /// Requests that were dropped with their batches.
    pub(super) dropped: u64,
}

impl Outbox {
    /// `now`: by the clock of the samples.
    pub(super) fn put(&mut self, sample: Sample, attempt: FirstAttempt, now: Duration) {
        self.open.push((sample, attempt));
        if self.open.len() >= SAMPLES {
            self.close(now);
        }
    }

    /// All that waits, the open batch included.
    pub(super) fn waiting(&mut self, now: Duration) -> Vec<Batch> {
        self.close(now);
        self.closed.iter().cloned().collect()
    }

    /// All up to this one were told.
    pub(super) fn told(&mut self, number: u64) {
        self.closed.retain(|batch| batch.number > number);
    }

    fn close(&mut self, now: Duration) {
        if self.open.is_empty() {
            return;
        }
        if self.closed.len() >= BATCHES
            && let Some(oldest) = self.closed.pop_front()
        {
            self.dropped += oldest.samples;
        }
        self.number += 1;
        let batch = Batch {
            number: self.number,
            packed: pack(&self.open, now),
            closed: Instant::now(),
            samples: self.open.len() as u64,
        };
        self.closed.push_back(batch);
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::canary::{Arm, unpack};

    fn put(outbox: &mut Outbox, count: u64) {
        for unit in 0..count {
            let arm = if unit % 2 == 0 { Arm::Canary } else { Arm::Baseline };
            let sample = Sample { arm, unit, epoch: 1, share: 50, at: Duration::ZERO, number: 0, origin: 0 };
            outbox.put(sample, FirstAttempt::FAILED, Duration::ZERO);
        }
    }

    #[test]
    fn what_waits_is_told_in_order_and_once() {
        let mut outbox = Outbox::default();
        assert!(outbox.waiting(Duration::ZERO).is_empty());
        put(&mut outbox, 70);
        let waiting = outbox.waiting(Duration::ZERO);
        let sizes: Vec<usize> =
            waiting.iter().map(|batch| unpack(&batch.packed, Duration::ZERO, 0).unwrap().len()).collect();
        assert_eq!((sizes, waiting[1].number), (vec![64, 6], 2));
        assert_eq!(outbox.waiting(Duration::ZERO).len(), 2, "not told yet");
        put(&mut outbox, 1);
        outbox.told(2);
        assert_eq!(outbox.waiting(Duration::ZERO).iter().map(|batch| batch.number).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn a_full_queue_drops_whole_batches_of_both_sides() {
        let mut outbox = Outbox::default();
        put(&mut outbox, SAMPLES as u64 * (BATCHES as u64 + 3));
        let waiting = outbox.waiting(Duration::ZERO);
        assert_eq!((waiting.len(), outbox.dropped), (BATCHES, 3 * SAMPLES as u64));
        assert_eq!((waiting[0].number, waiting[BATCHES - 1].number), (4, BATCHES as u64 + 3));
    }
}
