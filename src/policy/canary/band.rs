//! The baseline's percentiles: learnt from its first requests, then fixed for both sides and the whole rollout.
//!
//! Of an answer's length those teach that were assigned first, not those that ended first: short answers end first.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Values that a band is made of. Enough for a 1st and a 99th percentile that mean something.
const SAMPLES: usize = 256;

/// What a band is made of at the least where not all of the first requests had a value.
const SAMPLES_MIN: usize = 128;

/// How many of the first [`SAMPLES`] requests must have ended: the last ones may take for ever.
const ENDED: u64 = 250;

/// After so long without enough values of the first requests, as of few users, later ones are taken too.
const LONG: Duration = Duration::from_secs(600);

/// Room that is given beyond the percentiles: a difference smaller than this harms nobody, however surely it is there.
const MARGIN: f64 = 0.1;

/// Which part of the baseline's values is usual, as shares from 0 to 1, and how much room is given at the least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usual {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) margin_min: u64,
}

/// The band of what is usual. Values before it is frozen are not judged by it: so it is fixed before all that it judges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Band {
    /// At most [`SAMPLES`].
    Learning(Vec<u64>),
    Frozen {
        low: u64,
        high: u64,
    },
}

/// Whose values teach what has the longer to wait for the greater it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Firsts {
    began: Option<Duration>,
    ended: u64,
}

impl Firsts {
    /// One of the baseline's requests has ended, that was assigned `at` and after `number` others of it. `value`: what it teaches.
    pub(super) fn note(&mut self, band: &mut Band, number: u64, at: Duration, value: Option<u64>, usual: Usual) {
        let is_first = number < SAMPLES as u64;
        let is_much_later = at.saturating_sub(*self.began.get_or_insert(at)) >= LONG;
        self.ended += u64::from(is_first);
        if let Some(value) = value.filter(|_| is_first || is_much_later) {
            band.learn(value, usual);
        }
        if self.ended >= ENDED || is_much_later {
            band.settle(usual);
        }
    }
}

impl Default for Band {
    fn default() -> Self {
        Self::Learning(Vec::new())
    }
}

impl Band {
    /// Takes in a value of the baseline's, and freezes with the last one that is needed.
    pub(super) fn learn(&mut self, value: u64, usual: Usual) {
        let Self::Learning(samples) = self else { return };
        samples.push(value);
        if samples.len() >= SAMPLES {
            self.freeze(usual);
        }
    }

    /// Freezes with what there is, if it is enough.
    fn settle(&mut self, usual: Usual) {
        if matches!(self, Self::Learning(samples) if samples.len() >= SAMPLES_MIN) {
            self.freeze(usual);
        }
    }

    fn freeze(&mut self, usual: Usual) {
        let Self::Learning(samples) = self else { return };
        samples.sort_unstable();
        let at = |share: f64| {
            let rank = (share * (samples.len().saturating_sub(1)) as f64).round() as usize;
            samples.get(rank).copied().unwrap_or(0)
        };
        let room = |value: u64| ((value as f64 * MARGIN) as u64).max(usual.margin_min);
        let (low, high) = (at(usual.from), at(usual.to));
        *self = Self::Frozen { low: low.saturating_sub(room(low)), high: high.saturating_add(room(high)) };
    }

    /// The upper end, once it is known.
    pub(super) fn high(&self) -> Option<u64> {
        self.bounds().map(|(_, high)| high)
    }

    /// Both ends, once they are known.
    pub(super) fn bounds(&self) -> Option<(u64, u64)> {
        match self {
            Self::Learning(_) => None,
            Self::Frozen { low, high } => Some((*low, *high)),
        }
    }

    /// Whether a value is unusual; `None` until that is known.
    pub(super) fn is_outside(&self, value: u64) -> Option<bool> {
        match self {
            Self::Learning(_) => None,
            Self::Frozen { low, high } => Some(value < *low || value > *high),
        }
    }

    /// Whether a band read back is one that could have been written.
    pub(super) fn is_sound(&self) -> bool {
        match self {
            Self::Learning(samples) => samples.len() < SAMPLES,
            Self::Frozen { low, high } => low <= high,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Usual = Usual { from: 0.01, to: 0.99, margin_min: 1 };

    #[test]
    fn a_band_freezes_once_and_gives_some_room() {
        let mut band = Band::default();
        for value in 1..=SAMPLES as u64 {
            assert_eq!(band.is_outside(10_000), None, "nothing is judged before");
            band.learn(value * 10, USUAL);
        }
        let Band::Frozen { low, high } = band else { panic!("{band:?}") };
        assert_eq!((low, high), (40 - 4, 2530 + 253));
        for value in 0..1000 {
            band.learn(value, USUAL);
        }
        assert_eq!(band, Band::Frozen { low, high });
        assert_eq!([35, 36, 2783, 2784].map(|value| band.is_outside(value)), [true, false, false, true].map(Some));
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn short_answers_that_end_first_are_not_what_is_usual() {
        let (mut band, mut firsts) = (Band::default(), Firsts::default());
        // Later ones that end before the first ones.
        (256..1_000).for_each(|number| firsts.note(&mut band, number, s(9), Some(1), USUAL));
        assert_eq!(band, Band::default());
        (0..249).for_each(|number| firsts.note(&mut band, number, s(8), Some(1_000 + number), USUAL));
        assert_eq!(band.bounds(), None, "the longest are under way");
        firsts.note(&mut band, 255, s(8), Some(1_249), USUAL);
        assert_eq!(band.bounds(), Some((1_002 - 100, 1_247 + 124)));
    }

    #[test]
    fn what_the_first_requests_lack_later_ones_bring() {
        let (mut few, mut firsts) = (Band::default(), Firsts::default());
        // Most are of users who have taught already.
        (0..256).for_each(|number| firsts.note(&mut few, number, s(0), (number < 127).then_some(1_000), USUAL));
        (256..1_000).for_each(|number| firsts.note(&mut few, number, s(599), Some(1), USUAL));
        assert_eq!(few.bounds(), None);
        firsts.note(&mut few, 1_000, s(600), Some(1_000), USUAL);
        assert_eq!(few.bounds(), Some((900, 1_100)), "enough by now");
    }

    #[test]
    fn values_that_are_all_one_make_a_band_around_it() {
        let mut band = Band::default();
        for _ in 0..SAMPLES {
            band.learn(0, USUAL);
        }
        assert_eq!(band, Band::Frozen { low: 0, high: 1 });
        assert!(band.is_sound());
        assert!(!Band::Learning(vec![0; SAMPLES]).is_sound());
    }
}
