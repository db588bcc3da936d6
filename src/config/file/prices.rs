//! `[[price]]` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::units::At;

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
