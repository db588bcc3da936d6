//! The gaps between token frames, as a small histogram: each one counts, however long the stream.

use std::time::Duration;

const BUCKETS: usize = 13;

/// Upper bounds of the buckets, in milliseconds.
const BOUNDS_MS: [u64; BUCKETS] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];

const NS_PER_MS: u64 = 1_000_000;

/// The same in seconds.
pub const BOUNDS: [f64; BUCKETS] = {
    let mut bounds = [0.0; BUCKETS];
    let mut slot = 0;
    while slot < BUCKETS {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            bounds[slot] = BOUNDS_MS[slot] as f64 / 1e3;
        }
        slot += 1;
    }
    bounds
};

/// How many gaps fell up to each of [`BOUNDS`], and how many beyond all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gaps {
    counts: [u32; BUCKETS + 1],
    sum_ns: u64,
}

impl Gaps {
    /// Counts one gap. A few nanoseconds.
    pub fn note(&mut self, gap: Duration) {
        let nanos = gap.as_secs().saturating_mul(1_000 * NS_PER_MS).saturating_add(u64::from(gap.subsec_nanos()));
        // Most are short: the first bounds end the search.
        let bucket = BOUNDS_MS.iter().position(|bound| nanos <= bound * NS_PER_MS).unwrap_or(BUCKETS);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.sum_ns = self.sum_ns.saturating_add(nanos);
    }

    /// Gaps by bucket, each counted once; the last are those beyond all bounds.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// How many gaps fell into each bucket that has any, and a length in seconds for each of them: one that lies in the bucket, and
    /// with which all gaps together are as long as they were. `longest` bounds the last.
    pub fn spread(&self, longest: Duration) -> impl Iterator<Item = (u32, f64)> {
        let longest = longest.as_secs_f64();
        let upper = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets = std::iter::once(0.0).chain(BOUNDS).zip(upper).zip(self.counts);
        let filled = buckets
            .filter(|(_, count)| *count > 0)
            .map(move |((from, to), count)| (count, from, to.min(longest).max(from)));
        let sums = |(least, most): (f64, f64), (count, from, to): (u32, f64, f64)| {
            (least + f64::from(count) * from, most + f64::from(count) * to)
        };
        let (least, most) = filled.clone().fold((0.0, 0.0), sums);
        let share = (self.sum().as_secs_f64() - least) / (most - least);
        // All are as long as their bound where there is nothing between.
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 };
        filled.map(move |(count, from, to)| (count, (from + share * (to - from)).max(from.next_up()).min(to)))
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_on_a_bound_falls_into_its_bucket() {
        let mut gaps = Gaps::default();
        for micros in [0, 5_000, 5_001, 60_000_000, 60_000_001] {
            gaps.note(Duration::from_micros(micros));
        }
        gaps.note(Duration::from_micros(5_000) + Duration::from_nanos(1));
        assert_eq!(gaps.counts(), [2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(gaps.count(), 6);
        assert_eq!(BOUNDS[0], 0.005);
    }

    proptest! {
        #[test]
        fn no_gap_is_lost(micros in proptest::collection::vec(0_u64..100_000_000, 0..200)) {
            let mut gaps = Gaps::default();
            micros.iter().for_each(|micros| gaps.note(Duration::from_micros(*micros)));
            prop_assert_eq!(gaps.count(), micros.len() as u64);
            prop_assert_eq!(gaps.sum(), Duration::from_micros(micros.iter().sum()));
            let longest = Duration::from_micros(micros.iter().copied().max().unwrap_or_default());
            prop_assert_eq!(gaps.spread(longest).map(|(count, _)| u64::from(count)).sum::<u64>(), gaps.count());
            let whole: f64 = gaps.spread(longest).map(|(count, each)| f64::from(count) * each).sum();
            prop_assert!((whole - gaps.sum().as_secs_f64()).abs() < 1e-6);
            for (count, each) in gaps.spread(longest) {
                let bucket = BOUNDS.iter().filter(|bound| **bound < each).count();
                prop_assert_eq!(gaps.counts()[bucket], count, "it lies in its bucket");
            }
            for (slot, bound) in BOUNDS.iter().enumerate() {
                let below: u64 = gaps.counts()[..=slot].iter().map(|count| u64::from(*count)).sum();
                let real = micros.iter().filter(|micros| **micros as f64 / 1e6 <= *bound).count() as u64;
                prop_assert_eq!(below, real);
            }
        }
    }
}
