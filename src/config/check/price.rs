//! `[[price]]`.

use super::super::file::{LimitTable, PriceTable};
use super::super::glob::Glob;
use super::super::prices::{Priced, Prices};
use super::super::read::Readable;
use super::super::units::{At, Table};
use super::Checker;
use crate::llm::price::{Price, Rates};

/// US dollars per million tokens beyond which a price is a slip of the unit.
const DOLLARS_MAX: f64 = 10_000.0;

const NANO: f64 = 1e9;

impl Checker<'_> {
    pub(super) fn prices(&mut self, readable: &Readable) -> Prices {
        let mut prices: Vec<Priced> = Vec::new();
        for table in &readable.file.price {
            let price = self.price(table, readable);
            let Some(at) = self.needed("model", table.value.model.as_ref(), table, readable) else { continue };
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
        if readable.file.price.is_empty() && !readable.is_table_lost("price") {
            self.budgets_without_prices(readable);
        }
        Prices(prices)
    }

    fn price(&mut self, table: &Table<PriceTable>, readable: &Readable) -> Price {
        let file = &table.value;
        let input = self.needed("input", file.input.as_ref(), table, readable);
        let output = self.needed("output", file.output.as_ref(), table, readable);
        let input = input.map_or(0, |at| self.per_million("input", at));
        let or_input = |at: Option<u64>| at.unwrap_or(input);
        Price::from(Rates {
            input,
            cached_input: or_input(file.cached_input.as_ref().map(|at| self.per_million("cached_input", at))),
            cache_write: or_input(file.cache_write.as_ref().map(|at| self.per_million("cache_write", at))),
            output: output.map_or(0, |at| self.per_million("output", at)),
        })
    }

    fn needed<'f, T>(
        &mut self,
        key: &str,
        written: Option<&'f At<T>>,
        table: &Table<PriceTable>,
        readable: &Readable,
    ) -> Option<&'f At<T>> {
        if written.is_none() && !readable.is_lost(&table.span, key) {
            self.problem(&table.span, format!("this price has no `{key}`"));
        }
        written
    }

    /// Nano-dollars per million tokens.
    fn per_million(&mut self, key: &str, at: &At<f64>) -> u64 {
        if !(0.0..=DOLLARS_MAX).contains(&at.value) {
            let message =
                format!("`{key}` is US dollars per million tokens, as 2.5: at least 0, and at most {DOLLARS_MAX}");
            self.problem(&at.span, message);
            return 0;
        }
        (at.value * NANO).round() as u64
    }

    /// A budget in dollars would never run out where nothing has a price. Whether the catalogue lists what a route takes is
    /// told there.
    fn budgets_without_prices(&mut self, readable: &Readable) {
        let is_used = |name: &str| {
            let limits = readable.file.route.iter().filter_map(|route| route.value.limits.as_ref());
            limits.flat_map(|limits| &limits.value).any(|limit| limit.value == name)
        };
        let budget = |limit: &LimitTable| {
            limit.cost_per_day.as_ref().or(limit.cost_per_month.as_ref()).map(|at| at.span.clone())
        };
        let unused = readable.file.limit.iter().map(|table| &table.value);
        let unused = unused.filter(|limit| !limit.name.as_ref().is_some_and(|name| is_used(&name.value)));
        for span in unused.filter_map(budget) {
            self.problem(&span, "a limit in dollars needs to know what tokens cost: add a [[price]]");
        }
    }
}
