//! `[[price]]`: what models cost, and behind it the catalogue that is built in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::config::checker::Checker;
use crate::config::glob::Glob;
use crate::config::units::{At, Table};
use crate::llm::Usage;
use crate::llm::price::{Bill, Cost, Price, PriceSource, Rates, catalogue};

/// US dollars per million tokens beyond which a price is a slip of the unit.
const DOLLARS_MAX: f64 = 10_000.0;

const NANO: f64 = 1e9;

/// What a model's tokens cost, in US dollars per million. Of several that match, the first counts.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceTable {
    /// Models, in which `*` stands for any run of characters: "gpt-4o*".
    #[schemars(required)]
    pub model: Option<At<String>>,
    /// Of a million prompt tokens.
    #[schemars(required, range(min = 0, max = 10_000))]
    pub input: Option<At<f64>>,
    /// Of a million prompt tokens read from a cache. Absent: as input.
    #[schemars(range(min = 0, max = 10_000))]
    pub cached_input: Option<At<f64>>,
    /// Of a million prompt tokens written to a cache. Absent: as input.
    #[schemars(range(min = 0, max = 10_000))]
    pub cache_write: Option<At<f64>>,
    /// Of a million generated tokens, reasoning included.
    #[schemars(required, range(min = 0, max = 10_000))]
    pub output: Option<At<f64>>,
}

/// What models cost; the first pattern that matches counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Prices(pub Vec<Priced>);

/// One `[[price]]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Priced {
    pub model: Glob,
    #[serde(flatten, serialize_with = "dollars")]
    pub price: Price,
}

impl Prices {
    /// What an answer of `provider` costs, by the first of `models` that has a price: the configuration's own first, then the
    /// catalogue's. `None`: nobody knows.
    pub fn find<'m>(
        &self,
        provider: Option<&str>,
        models: impl IntoIterator<Item = Option<&'m str>> + Clone,
    ) -> Option<(Price, PriceSource)> {
        let own = || {
            let mut named = models.clone().into_iter().flatten().peekable();
            // A pattern for all models is a price for what names none.
            let nameless = named.peek().is_none().then_some("");
            named.chain(nameless).find_map(|model| self.own(model))
        };
        let listed = || {
            let listed = models.clone().into_iter().flatten().find_map(|model| catalogue().find(provider, model))?;
            Some((listed.price, PriceSource::Catalogue))
        };
        own().map(|price| (*price, PriceSource::Config)).or_else(listed)
    }

    fn own(&self, model: &str) -> Option<&Price> {
        self.0.iter().find(|priced| priced.model.matches_in_any_case(model)).map(|priced| &priced.price)
    }

    /// What `usage` costs; see [`Prices::find`].
    pub fn bill<'m>(
        &self,
        provider: Option<&str>,
        models: impl IntoIterator<Item = Option<&'m str>> + Clone,
        usage: &Usage,
    ) -> Bill {
        if !usage.is_known() {
            return Bill::Unknown;
        }
        let priced = |(price, source): (Price, _)| Bill::Priced { cost: price.cost(usage), source };
        self.find(provider, models).map_or(Bill::Unpriced, priced)
    }

    /// Whether a budget can count on what matches `model` at `provider`. Of a pattern at a provider whose prices are listed
    /// nothing more can be told: what has no price there is refused when it comes.
    pub fn serves_budgets(&self, provider: Option<&str>, model: &Glob) -> bool {
        let own = || self.0.iter().any(|priced| priced.model.covers(model));
        let listed = || match (model.is_literal(), provider) {
            (true, _) => catalogue().find(provider, &model.source).is_some(),
            (false, Some(provider)) => catalogue().lists_models_of(provider),
            (false, None) => false,
        };
        own() || listed()
    }
}

fn dollars<S: Serializer>(price: &Price, to: S) -> Result<S::Ok, S::Error> {
    let Rates { input, cached_input, cache_write, output } = price.base;
    let rates = [("input", input), ("cached_input", cached_input), ("cache_write", cache_write), ("output", output)];
    to.collect_map(rates.map(|(kind, nano)| (kind, Cost(nano).dollars())))
}

impl Checker<'_> {
    pub fn prices(&mut self, tables: &[Table<PriceTable>]) -> Prices {
        let mut prices: Vec<Priced> = Vec::new();
        for table in tables {
            let price = self.price(table);
            let Some(at) = self.of_price(table, "model", table.value.model.as_ref()) else { continue };
            let model = Glob::new(at.value.trim());
            if model.source.is_empty() {
                self.problem(&at.span, "`model` is empty: name one, or a pattern as \"gpt-4o*\"");
            }
            if let Some(earlier) = prices.iter().find(|earlier| earlier.model.covers(&model)) {
                let earlier = &earlier.model.source;
                let message = if *earlier == model.source {
                    format!("\"{earlier}\" has a price already")
                } else {
                    format!("never used: \"{earlier}\" stands before it and matches all of it. Put this one first")
                };
                self.problem(&at.span, message);
            }
            prices.push(Priced { model, price });
        }
        Prices(prices)
    }

    fn price(&mut self, table: &Table<PriceTable>) -> Price {
        let file = &table.value;
        let input = self.of_price(table, "input", file.input.as_ref());
        let output = self.of_price(table, "output", file.output.as_ref());
        let input = self.per_million("input", input).unwrap_or(0);
        Price::from(Rates {
            input,
            cached_input: self.per_million("cached_input", file.cached_input.as_ref()).unwrap_or(input),
            cache_write: self.per_million("cache_write", file.cache_write.as_ref()).unwrap_or(input),
            output: self.per_million("output", output).unwrap_or(0),
        })
    }

    /// Nano-dollars per million tokens.
    fn per_million(&mut self, key: &str, written: Option<&At<f64>>) -> Option<u64> {
        let message =
            format!("`{key}` is US dollars per million tokens, as 2.5: at least 0, and at most {DOLLARS_MAX}");
        let dollars = self.fitting(written, |dollars| (0.0..=DOLLARS_MAX).contains(&dollars), message);
        dollars.map(|dollars| (dollars * NANO).round() as u64)
    }

    fn of_price<'f, T>(
        &mut self,
        table: &Table<PriceTable>,
        key: &str,
        written: Option<&'f At<T>>,
    ) -> Option<&'f At<T>> {
        self.needed(table, key, written, format!("this price has no `{key}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(entries: &[(&str, u64)]) -> Prices {
        let priced = |(model, output): &(&str, u64)| Priced {
            model: Glob::new(model),
            price: Price::from(Rates { output: *output, ..Rates::default() }),
        };
        Prices(entries.iter().map(priced).collect())
    }

    fn own(nano: u64) -> Bill {
        Bill::Priced { cost: Cost(nano), source: PriceSource::Config }
    }

    const USAGE: Usage = Usage {
        input: None,
        cached_input: None,
        cache_write: None,
        output: Some(3),
        reasoning: None,
        input_audio: None,
        output_audio: None,
    };

    #[test]
    fn the_first_match_wins() {
        let prices = prices(&[("gpt-4o-mini*", 1_000_000), ("gpt-4o*", 2_000_000)]);
        assert_eq!(prices.own("gpt-4o-mini-2024").map(|price| price.base.output), Some(1_000_000));
        assert_eq!(prices.own("gpt-4o").map(|price| price.base.output), Some(2_000_000));
        assert_eq!(prices.bill(None, [Some("unknown"), None, Some("gpt-4o")], &USAGE), own(6));
        assert_eq!(prices.bill(None, [Some("unknown")], &USAGE), Bill::Unpriced);
        assert_eq!(prices.bill(None, [Some("gpt-4o")], &Usage::default()), Bill::Unknown);
    }

    #[test]
    fn the_catalogue_stands_behind_what_is_written() {
        let listed = Bill::Priced { cost: Cost(3 * 600), source: PriceSource::Catalogue };
        let none = Prices::default();
        assert_eq!(none.bill(None, [Some("gpt-4o-mini")], &USAGE), listed);
        assert_eq!(none.bill(Some("openai"), [Some("unheard-of"), Some("gpt-4o-mini")], &USAGE), listed);
        assert_eq!(none.bill(Some("vllm"), [Some("gpt-4o-mini")], &USAGE), Bill::Unpriced);
        let alias = prices(&[("our-model", 1_000_000)]);
        assert_eq!(alias.bill(None, [Some("gpt-4o-mini"), Some("our-model")], &USAGE), own(3), "the own one first");
    }

    #[test]
    fn a_price_for_all_is_one_for_the_nameless() {
        assert_eq!(prices(&[("*", 1_000_000)]).bill(None, [None, None], &USAGE), own(3));
        assert_eq!(prices(&[("gpt*", 1_000_000)]).bill(None, [None], &USAGE), Bill::Unpriced);
    }

    #[test]
    fn budgets_count_on_what_is_known() {
        let (own, none) = (prices(&[("gpt*", 1)]), Prices::default());
        let serves = |prices: &Prices, provider, model| prices.serves_budgets(provider, &Glob::new(model));
        assert!(serves(&own, None, "gpt-x*") && !serves(&own, None, "*"));
        assert!(serves(&none, None, "gpt-4o-mini") && !serves(&none, None, "gpt-4o*") && !serves(&none, None, "mine"));
        assert!(serves(&none, Some("openai"), "*") && !serves(&none, Some("vllm"), "*"));
        assert!(!serves(&none, Some("ibm.watsonx.ai"), "*"));
    }
}
