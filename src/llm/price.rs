//! What tokens cost. Amounts are whole nano-dollars, so that a million small ones add up to what they are.

mod catalogue;
mod lookup_cache;
pub(super) mod names;

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

pub use catalogue::{Catalogue, Listed, catalogue};

use super::Usage;

/// An amount of money, in nano-dollars (10⁻⁹ US dollars). Adding saturates, at some 18 billion dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost(pub u64);

impl Cost {
    pub const ZERO: Self = Self(0);

    pub fn nano_dollars(self) -> u64 {
        self.0
    }

    /// For people and JSON; not to be added up.
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

/// US dollars, with as many decimals as it takes: `0.00135`.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, parts) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if parts == 0 {
            return write!(f, "{whole}");
        }
        let decimals = format!("{parts:09}");
        write!(f, "{whole}.{}", decimals.trim_end_matches('0'))
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::ZERO, Add::add)
    }
}

/// Most tokens of a kind that one answer is believed to have taken: a number out of an upstream's text must not spoil a
/// budget.
const TOKENS_MAX: u64 = 1 << 30;

/// What tokens cost, by kind, in nano-dollars per million of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Prompt tokens that no cache had to do with.
    pub input: u64,
    /// Prompt tokens read from a cache.
    pub cached_input: u64,
    /// Prompt tokens written to a cache.
    pub cache_write: u64,
    /// Generated tokens, reasoning included.
    pub output: u64,
}

/// What tokens of sound cost, in nano-dollars per million of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sound {
    pub input: u64,
    pub output: u64,
}

/// What a model's tokens cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Price {
    pub base: Rates,
    /// Absent: as text.
    pub sound: Option<Sound>,
    /// Prompts of more tokens than the number have these rates, for all of their tokens. The higher number stands last.
    pub steps: [Option<(u64, Rates)>; 2],
}

impl From<Rates> for Price {
    fn from(base: Rates) -> Self {
        Self { base, ..Self::default() }
    }
}

impl Price {
    /// What `usage` costs, rounded to the nearest nano-dollar. Numbers that are not known count nothing.
    pub fn cost(&self, usage: &Usage) -> Cost {
        let input = usage.input.unwrap_or(0).min(TOKENS_MAX);
        let cached = usage.cached_input.unwrap_or(0).min(input);
        let written = usage.cache_write.unwrap_or(0).min(input - cached);
        let output = usage.output.unwrap_or(0).min(TOKENS_MAX);
        let rates = self.rates(input);
        let sound = self.sound.unwrap_or(Sound { input: rates.input, output: rates.output });
        let heard = usage.input_audio.unwrap_or(0).min(input - cached - written);
        let spoken = usage.output_audio.unwrap_or(0).min(output);
        let parts = [
            (input - cached - written - heard, rates.input),
            (cached, rates.cached_input),
            (written, rates.cache_write),
            (output - spoken, rates.output),
            (heard, sound.input),
            (spoken, sound.output),
        ];
        let millionths = parts.iter().map(|(tokens, price)| u128::from(*tokens) * u128::from(*price));
        let millionths = millionths.fold(0_u128, u128::saturating_add);
        Cost(u64::try_from(millionths.saturating_add(500_000) / 1_000_000).unwrap_or(u64::MAX))
    }

    /// The rates of a prompt of so many tokens.
    fn rates(&self, input: u64) -> &Rates {
        let beyond = self.steps.iter().rev().flatten().find(|(beyond, _)| input > *beyond);
        beyond.map_or(&self.base, |(_, rates)| rates)
    }
}

/// Where a price is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriceSource {
    /// A `[[price]]` of the configuration.
    Config,
    /// The catalogue that is built in.
    Catalogue,
}

/// What is known of the cost of one answer. What has no price is not free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Bill {
    /// Nobody knows how many tokens it took.
    #[default]
    Unknown,
    /// It took tokens, and its model has no price.
    Unpriced,
    Priced {
        cost: Cost,
        source: PriceSource,
    },
}

impl Bill {
    pub fn cost(self) -> Option<Cost> {
        match self {
            Self::Priced { cost, .. } => Some(cost),
            Self::Unpriced | Self::Unknown => None,
        }
    }

    /// The word used in logs: where the price is from, or that there is none; `None` where there is nothing to pay.
    pub fn price_source(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Unpriced => Some("none"),
            Self::Priced { source: PriceSource::Config, .. } => Some("config"),
            Self::Priced { source: PriceSource::Catalogue, .. } => Some("catalogue"),
        }
    }

    /// The same, with `cost` on top.
    #[must_use]
    pub fn plus(self, cost: Cost, source: PriceSource) -> Self {
        match self {
            Self::Priced { cost: own, source } => Self::Priced { cost: own + cost, source },
            Self::Unpriced | Self::Unknown => Self::Priced { cost, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// $2.50, $1.25, $3.75 and $10 per million.
    const PRICE: Price = Price {
        base: Rates {
            input: 2_500_000_000,
            cached_input: 1_250_000_000,
            cache_write: 3_750_000_000,
            output: 10_000_000_000,
        },
        sound: None,
        steps: [None; 2],
    };

    fn usage(input: u64, cached: u64, written: u64, output: u64) -> Usage {
        Usage {
            input: Some(input),
            cached_input: Some(cached),
            cache_write: Some(written),
            output: Some(output),
            reasoning: Some(output / 2),
            ..Usage::default()
        }
    }

    #[test]
    fn each_kind_of_token_has_its_price() {
        assert_eq!(PRICE.cost(&usage(1_000_000, 0, 0, 0)).dollars(), 2.5);
        assert_eq!(PRICE.cost(&usage(1_000_000, 1_000_000, 0, 0)).dollars(), 1.25);
        assert_eq!(PRICE.cost(&usage(1_000_000, 0, 1_000_000, 0)).dollars(), 3.75);
        assert_eq!(PRICE.cost(&usage(0, 0, 0, 1_000_000)).dollars(), 10.0);
        assert_eq!(PRICE.cost(&usage(1_000, 400, 100, 100)), Cost(500 * 2_500 + 400 * 1_250 + 100 * 3_750 + 1_000_000));
        assert_eq!(PRICE.cost(&Usage { output: Some(1), ..Usage::default() }), Cost(10_000));
        assert_eq!(PRICE.cost(&Usage::default()), Cost::ZERO);
    }

    #[test]
    fn odd_numbers_cost_no_less_than_their_parts_and_never_overflow() {
        assert_eq!(PRICE.cost(&usage(10, 100, 0, 0)), Cost(10 * 1_250), "more cached than there is");
        assert_eq!(PRICE.cost(&usage(u64::MAX, 0, 0, u64::MAX)), Cost(12_500 << 30));
        let dear = Price::from(Rates { output: u64::MAX, ..Rates::default() });
        assert_eq!(dear.cost(&usage(0, 0, 0, u64::MAX)), Cost(u64::MAX));
        assert_eq!([Cost(u64::MAX), Cost(7)].into_iter().sum::<Cost>(), Cost(u64::MAX));
        let dust = Price::from(Rates { input: 1, ..Rates::default() });
        assert_eq!((dust.cost(&usage(499_999, 0, 0, 0)), dust.cost(&usage(500_000, 0, 0, 0))), (Cost(0), Cost(1)));
    }

    #[test]
    fn all_tokens_of_a_long_prompt_have_its_rates() {
        let twice = |rates: Rates| Rates { input: 2 * rates.input, output: 2 * rates.output, ..rates };
        let steps = [Some((1_000, twice(PRICE.base))), Some((2_000, twice(twice(PRICE.base))))];
        let price = Price { steps, ..PRICE };
        assert_eq!(price.cost(&usage(1_000, 0, 0, 10)), PRICE.cost(&usage(1_000, 0, 0, 10)));
        assert_eq!(price.cost(&usage(1_001, 0, 0, 10)), Cost(1_001 * 5_000 + 10 * 20_000));
        assert_eq!(price.cost(&usage(2_001, 0, 0, 10)), Cost(2_001 * 10_000 + 10 * 40_000));
        assert_eq!(price.cost(&usage(2_001, 2_001, 0, 0)), Cost(2_001 * 1_250), "what the step does not name stays");
    }

    #[test]
    fn sound_has_its_price_where_there_is_one() {
        let usage = Usage { input_audio: Some(40), output_audio: Some(8), ..usage(100, 10, 0, 20) };
        assert_eq!(PRICE.cost(&usage), PRICE.cost(&Usage { input_audio: None, output_audio: None, ..usage }));
        let price = Price { sound: Some(Sound { input: 32_000_000_000, output: 64_000_000_000 }), ..PRICE };
        assert_eq!(price.cost(&usage), Cost(50 * 2_500 + 10 * 1_250 + 40 * 32_000 + 12 * 10_000 + 8 * 64_000));
        let odd = Usage { input_audio: Some(u64::MAX), output_audio: Some(u64::MAX), ..usage };
        assert_eq!(price.cost(&odd), Cost(10 * 1_250 + 90 * 32_000 + 20 * 64_000), "never more than there is");
    }

    #[test]
    fn what_has_no_price_is_not_free() {
        let priced = Bill::Priced { cost: Cost(2), source: PriceSource::Config };
        assert_eq!((Bill::Unpriced.cost(), Bill::Unknown.cost(), priced.cost()), (None, None, Some(Cost(2))));
        assert_eq!(Bill::Unpriced.price_source(), Some("none"));
        let more = Bill::Priced { cost: Cost(5), source: PriceSource::Config };
        assert_eq!(priced.plus(Cost(3), PriceSource::Catalogue), more);
    }

    #[test]
    fn dollars_are_written_out() {
        for (nano, text) in
            [(0, "0"), (1, "0.000000001"), (1_350_000, "0.00135"), (2_500_000_000, "2.5"), (7_000_000_000, "7")]
        {
            assert_eq!(Cost(nano).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn more_tokens_never_cost_less(input in 0_u64..1 << 31, output in 0_u64..1 << 31, more in 0_u64..1 << 20) {
            let cost = PRICE.cost(&usage(input, 0, 0, output));
            prop_assert!(PRICE.cost(&usage(input + more, 0, 0, output)) >= cost);
            prop_assert!(PRICE.cost(&usage(input, 0, 0, output + more)) >= cost);
        }
    }
}
