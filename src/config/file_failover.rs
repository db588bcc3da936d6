//! The tables and words of failover and health, as written in the configuration file.

use schemars::JsonSchema;
use serde::Deserialize;

use super::units::{At, DurationText};

/// Where a request goes when no target can answer it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FallbackTable {
    #[schemars(required)]
    pub upstream: Option<At<String>>,
    /// What telemetry calls this variant. Absent: its upstream's name.
    pub name: Option<At<String>>,
    /// Replaces the literal start of the route's path, up to its first `*`.
    pub path: Option<At<String>>,
    /// Replaces the model that a JSON body names.
    pub model: Option<At<String>>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum FailoverWord {
    /// LLM requests until their first token, any other only while nothing was sent.
    Llm,
    /// Any request whose body is in hand. Only where doing it twice does no harm.
    Always,
    /// Only while nothing was sent.
    Unsent,
    Never,
}

/// How often a request may be sent again.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetriesTable {
    /// Attempts a request may take, the first included.
    #[schemars(range(min = 1, max = 10), extend("default" = 3))]
    pub attempts: Option<At<u32>>,
    /// Share of the route's active requests that may be sent again or hedged at one time; three always may.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.2))]
    pub budget: Option<At<f64>>,
}

/// An active health check: a GET that must be answered with 2xx or 3xx.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthTable {
    /// As "/health"; joined to the url's own path.
    #[schemars(required)]
    pub path: Option<At<String>>,
    /// Between two checks of an endpoint.
    #[schemars(extend("default" = "5s"))]
    pub interval: Option<At<DurationText>>,
}
