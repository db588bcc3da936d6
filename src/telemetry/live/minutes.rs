//! Counts and times of the last minutes: small histograms, a minute each, so that percentiles of now need no scrape and no
//! history.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Statistics cover this many minutes, the current one included.
pub const MINUTES: usize = 5;

/// Buckets to one doubling, and doublings from 1 ms to 131 s: a percentile is at most 4.5 % off.
const STEPS: usize = 8;
const DOUBLINGS: usize = 17;
const BUCKETS: usize = STEPS * DOUBLINGS;

/// The last minutes; the slot of a minute is its number modulo [`MINUTES`].
#[derive(Default)]
pub(super) struct Minutes([Minute; MINUTES]);

/// One of them.
#[derive(Clone)]
pub(super) struct Minute {
    /// Since 1970.
    number: u64,
    requests: u32,
    failed: u32,
    output_tokens: u64,
    times: Box<[u32; BUCKETS]>,
}

/// What the last minutes hold.
#[derive(Debug, Clone)]
pub struct Summary {
    pub requests: u64,
    pub failed: u64,
    pub output_tokens: u64,
    times: [u64; BUCKETS],
}

impl Default for Minute {
    fn default() -> Self {
        Self { number: 0, requests: 0, failed: 0, output_tokens: 0, times: Box::new([0; BUCKETS]) }
    }
}

impl Minutes {
    /// The minute `now`, emptied where it is a new one.
    pub(super) fn at(&mut self, now: u64) -> Option<&mut Minute> {
        let slot = self.0.get_mut((now % MINUTES as u64) as usize)?;
        if slot.number != now {
            *slot = Minute { number: now, ..Minute::default() };
        }
        Some(slot)
    }

    pub(super) fn is_quiet(&self, now: u64) -> bool {
        !self.0.iter().any(|minute| minute.is_recent(now))
    }

    /// Adds what the last minutes hold.
    pub(super) fn add_to(&self, summary: &mut Summary, now: u64) {
        for minute in self.0.iter().filter(|minute| minute.is_recent(now)) {
            summary.requests += u64::from(minute.requests);
            summary.failed += u64::from(minute.failed);
            summary.output_tokens = summary.output_tokens.saturating_add(minute.output_tokens);
            summary.times.iter_mut().zip(minute.times.iter()).for_each(|(all, count)| *all += u64::from(*count));
        }
    }
}

/// The minute `now` of `key`; `None` where there are `most` others, none of them quiet.
pub(super) fn slot<K: Ord>(all: &mut BTreeMap<K, Minutes>, key: K, now: u64, most: usize) -> Option<&mut Minute> {
    if all.len() >= most && !all.contains_key(&key) {
        all.retain(|_, minutes| !minutes.is_quiet(now));
        if all.len() >= most {
            return None;
        }
    }
    all.entry(key).or_default().at(now)
}

impl Minute {
    pub(super) fn count(&mut self, failed: bool, output_tokens: u64) {
        self.requests = self.requests.saturating_add(1);
        self.failed = self.failed.saturating_add(u32::from(failed));
        self.output_tokens = self.output_tokens.saturating_add(output_tokens);
    }

    pub(super) fn first_token(&mut self, time: Duration) {
        if let Some(count) = self.times.get_mut(bucket(time)) {
            *count = count.saturating_add(1);
        }
    }

    fn is_recent(&self, now: u64) -> bool {
        self.requests > 0 && self.number <= now && now - self.number < MINUTES as u64
    }
}

impl Default for Summary {
    fn default() -> Self {
        Self { requests: 0, failed: 0, output_tokens: 0, times: [0; BUCKETS] }
    }
}

impl Summary {
    /// How many first tokens there were.
    pub fn first_tokens(&self) -> u64 {
        self.times.iter().sum()
    }

    /// The middle of the bucket in which the share of all first tokens is reached; `None` without any.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let bucket = bucket_at(self.times.iter().copied(), share)?;
        Some(Duration::from_secs_f64(((bucket as f64 + 0.5) / STEPS as f64).exp2() / 1e3))
    }
}

/// The bucket in which the share of all counts is reached; `None` without any.
pub(super) fn bucket_at(mut counts: impl Iterator<Item = u64> + Clone, share: f64) -> Option<usize> {
    let all: u64 = counts.clone().sum();
    let wanted = ((all as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    counts.position(|count| {
        seen += count;
        seen >= wanted
    })
}

/// The number of the minute of a time.
pub(super) fn minute(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 60
}

fn bucket(time: Duration) -> usize {
    let steps = (time.as_secs_f64() * 1e3).max(1.0).log2() * STEPS as f64;
    (steps as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_bucket() {
        for time in [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(131), Duration::MAX] {
            assert!(bucket(time) < BUCKETS);
        }
    }
}
