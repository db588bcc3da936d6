//! Checked `[[price]]`.

use super::settings::Glob;
use crate::llm::Usage;
use crate::llm::price::{Cost, Price};

/// What models cost; the first pattern that matches counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prices(pub Vec<Priced>);

/// One `[[price]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Priced {
    pub model: Glob,
    pub price: Price,
}

impl Prices {
    /// The price of `model`; `None`: the file names none.
    pub fn of(&self, model: &str) -> Option<&Price> {
        self.0.iter().find(|priced| priced.model.matches(model)).map(|priced| &priced.price)
    }

    /// What `usage` costs, by the first of `models` that has a price; `None` where none has, or nothing is known.
    pub fn cost<'m>(&self, models: impl IntoIterator<Item = Option<&'m str>>, usage: &Usage) -> Option<Cost> {
        let price = models.into_iter().flatten().find_map(|model| self.of(model))?;
        usage.is_known().then(|| price.cost(usage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(entries: &[(&str, u64)]) -> Prices {
        let priced = |(model, output): &(&str, u64)| Priced {
            model: Glob::new(model),
            price: Price { output: *output, ..Price::default() },
        };
        Prices(entries.iter().map(priced).collect())
    }

    #[test]
    fn the_first_match_wins() {
        let prices = prices(&[("gpt-4o-mini*", 1_000_000), ("gpt-4o*", 2_000_000)]);
        assert_eq!(prices.of("gpt-4o-mini-2024").map(|price| price.output), Some(1_000_000));
        assert_eq!(prices.of("gpt-4o").map(|price| price.output), Some(2_000_000));
        assert_eq!(prices.of("llama"), None);
        let usage = Usage { output: Some(3), ..Usage::default() };
        assert_eq!(prices.cost([Some("unknown"), None, Some("gpt-4o")], &usage), Some(Cost(6)));
        assert_eq!(prices.cost([Some("unknown")], &usage), None);
        assert_eq!(prices.cost([Some("gpt-4o")], &Usage::default()), None);
    }
}
