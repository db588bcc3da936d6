//! `[[limit]]` and `[limits]` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::units::{At, DurationText};

/// What each user, team, key, address or route may use. Routes name the limits that they are under.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitTable {
    /// What routes and telemetry call it.
    #[schemars(required)]
    pub name: Option<At<String>>,
    /// Who shares one count. Where no user, team or key is known, the client's address stands in.
    #[schemars(extend("default" = "user"))]
    pub key: Option<At<LimitKeyWord>>,
    /// Prompt and answer together.
    #[schemars(range(min = 1))]
    pub tokens_per_minute: Option<At<u64>>,
    /// What may be taken at once. Absent: tokens_per_minute.
    #[schemars(range(min = 1))]
    pub burst: Option<At<u64>>,
    /// How far one request may go beyond the burst. Absent: burst.
    pub debt: Option<At<u64>>,
    /// The most that one request holds for its answer before it is known. Absent: what the request asks for.
    #[schemars(range(min = 1))]
    pub output_cap: Option<At<u64>>,
    #[schemars(range(min = 1))]
    /// Of any kind, up to a whole minute's worth at once.
    pub requests_per_minute: Option<At<u32>>,
    /// Requests at one time.
    #[schemars(range(min = 1))]
    pub concurrent: Option<At<u32>>,
    /// US dollars in a rolling 24 hours, by [[price]].
    pub cost_per_day: Option<At<f64>>,
    /// US dollars in rolling 30 days, by [[price]].
    pub cost_per_month: Option<At<f64>>,
    /// What happens to a stream that outruns what it held while nothing is left.
    #[schemars(extend("default" = "finish"))]
    pub on_exhausted: Option<At<OnExhaustedWord>>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LimitKeyWord {
    User,
    Team,
    /// The API key.
    Key,
    /// The client's address; of IPv6 its /64.
    Ip,
    Route,
    Global,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum OnExhaustedWord {
    /// It goes on, into debt.
    Finish,
    /// It ends, with its dialect's own end.
    Cut,
}

/// Where the counts of all limits are kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsTable {
    /// A Redis or Valkey that several proxies share, as "redis://127.0.0.1:6379" or "rediss://user:password@host/0".
    /// Absent: each proxy counts in its own memory.
    pub redis: Option<At<String>>,
    /// The environment variable with its password, which so stays out of this file.
    pub redis_password_env: Option<At<String>>,
    /// The longest that a decision waits for it; then it counts as away.
    #[schemars(extend("default" = "10ms"))]
    pub deadline: Option<At<DurationText>>,
    /// What happens while it cannot be reached.
    #[schemars(extend("default" = "local"))]
    pub on_failure: Option<At<OnFailureWord>>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum OnFailureWord {
    /// Each proxy keeps its share of the limits in memory.
    Local,
    /// Requests under limits are refused.
    Reject,
}
