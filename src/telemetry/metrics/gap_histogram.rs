//! A histogram that adds a whole stream's token gaps at once, already counted by bucket.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::family::{Declaration, Exemplar, Kind};
use super::labels::LabelSet;
use super::series::{Bounds, Family, Metric};
use crate::llm::token_gaps::Gaps;
use crate::telemetry::exposition::Exposition;

/// Counts by bucket, and their sum.
#[derive(Debug)]
pub(crate) struct Tally {
    bounds: Bounds,
    /// Not cumulative; one more than there are bounds.
    counts: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
    /// The last sampled request that fell into each bucket with its longest gap.
    exemplars: Mutex<Box<[Option<Exemplar>]>>,
}

impl Tally {
    fn new(bounds: Bounds) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        let exemplars = Mutex::new(vec![None; bounds.len() + 1].into());
        Self { bounds, counts, sum_ns: AtomicU64::new(0), exemplars }
    }

    /// Adds the gaps of one stream; `sampled` names the trace that shows the longest of them.
    pub(super) fn add(&self, gaps: &Gaps, longest: Duration, sampled: Option<(u128, SystemTime)>) {
        for (total, count) in self.counts.iter().zip(gaps.counts()).filter(|(_, count)| **count > 0) {
            total.fetch_add(u64::from(*count), Relaxed);
        }
        self.sum_ns.fetch_add(u64::try_from(gaps.sum().as_nanos()).unwrap_or(u64::MAX), Relaxed);
        let value = longest.as_secs_f64();
        if let Some((trace_id, at)) = sampled
            // Whoever holds the lock writes one as good.
            && let Some(mut exemplars) = self.exemplars.try_lock()
            && let Some(slot) = exemplars.get_mut(self.bounds.partition_point(|bound| *bound < value))
        {
            *slot = Some(Exemplar { trace_id, value, at });
        }
    }
}

impl Metric for Tally {
    const KIND: Kind = Kind::Histogram;

    fn write(&self, family: &Declaration, labels: &[&str], out: &mut Exposition) {
        let exemplars = self.exemplars.lock().clone();
        let mut below = 0;
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        for ((count, bound), exemplar) in self.counts.iter().zip(bounds).zip(exemplars) {
            below += count.load(Relaxed);
            out.bucket(family, labels, bound, below, exemplar);
        }
        let sum = Duration::from_nanos(self.sum_ns.load(Relaxed)).as_secs_f64();
        out.sample(family, "_sum", labels, sum);
        out.sample(family, "_count", labels, below);
    }
}

impl<L: LabelSet> Family<Tally, L> {
    pub(super) fn tally(name: &'static str, help: &'static str, bounds: Bounds) -> Self {
        Self::with(name, help, Tally::new, bounds)
    }
}
