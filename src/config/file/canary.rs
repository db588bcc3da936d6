//! `canary` and `sticky` of a route as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::units::{At, DurationText};

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum StickyWord {
    /// By the authenticated user; where none is known, by address.
    User,
    Address,
    /// Each request for itself.
    None,
}

/// One target of the route that takes over step by step, and is rolled back when it does worse than the others.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryTable {
    /// The name of one of the route's targets. The others are the baseline; among them their weights count.
    #[schemars(required)]
    pub target: Option<At<String>>,
    /// Its share of requests in percent, step by step. Overrides its weight.
    #[schemars(extend("default" = [1, 5, 25, 50, 100]))]
    pub steps: Option<At<Vec<At<u32>>>>,
    /// How long a step lasts at the least.
    #[schemars(extend("default" = "10m"))]
    pub step_time: Option<At<DurationText>>,
    /// How many requests a step sends to it at the least.
    #[schemars(range(min = 1), extend("default" = 200))]
    pub min_requests: Option<At<u64>>,
    /// How likely a good one may be rolled back by mistake, over the whole rollout.
    #[schemars(range(min = 0.0, max = 0.5), extend("default" = 0.01))]
    pub alpha: Option<At<f64>>,
    /// A first token later than this is late. Absent: later than 95 of 100 of the baseline's.
    pub first_token_objective: Option<At<DurationText>>,
}
