//! `shadow` of a route as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::units::At;

/// Copies of LLM requests go to another upstream too; its answers are measured, compared and dropped.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShadowTable {
    #[schemars(required)]
    pub upstream: Option<At<String>>,
    /// Share of requests that are copied.
    #[schemars(required, range(max = 100.0))]
    pub percent: Option<At<f64>>,
    /// Copies at one time; beyond it none are made.
    #[schemars(range(min = 1), extend("default" = 10))]
    pub concurrent: Option<At<u32>>,
    /// Tokens that the copies may take, prompts and answers together; beyond it none are made.
    #[schemars(range(min = 1), extend("default" = 100_000))]
    pub tokens_per_minute: Option<At<u64>>,
    /// What telemetry calls it. Absent: its upstream's name.
    pub name: Option<At<String>>,
    /// Replaces the literal start of the route's path, up to its first `*`.
    pub path: Option<At<String>>,
    /// Replaces the model that a JSON body names.
    pub model: Option<At<String>>,
}
