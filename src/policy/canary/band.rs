//! The baseline's percentiles: learnt from its first requests, then fixed for both sides and the whole rollout.

use serde::{Deserialize, Serialize};

/// Values that a band is made of. Enough for a 1st and a 99th percentile that mean something.
const SAMPLES: usize = 256;

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
            samples.sort_unstable();
            let at = |share: f64| {
                let rank = (share * (samples.len() - 1) as f64).round() as usize;
                samples.get(rank).copied().unwrap_or(0)
            };
            let room = |value: u64| ((value as f64 * MARGIN) as u64).max(usual.margin_min);
            let (low, high) = (at(usual.from), at(usual.to));
            *self = Self::Frozen { low: low.saturating_sub(room(low)), high: high.saturating_add(room(high)) };
        }
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
