//! What a proxy tells at its admin address, as far as it is shown here.

use serde::Deserialize;

/// How a canary stands.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Canary {
    /// Whose it is, in the view of a fleet.
    #[serde(default)]
    pub(super) replica: Option<String>,
    pub(super) route: String,
    pub(super) canary: String,
    pub(super) state: String,
    pub(super) percent: u8,
    pub(super) next: String,
    pub(super) facts: Vec<CanaryFact>,
    /// `None`: no fleet judges it.
    #[serde(default)]
    pub(super) fleet: Option<InFleet>,
}

/// How a canary of a fleet stands to the replica that was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct InFleet {
    /// The replica that judges.
    pub(super) judge: Option<String>,
    /// It is the one that was asked.
    pub(super) judges: bool,
    /// How often the state was committed that it follows.
    pub(super) version: u64,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct CanaryFact {
    pub(super) fact: String,
    pub(super) evidence: f64,
    pub(super) needed: f64,
    pub(super) canary: Tally,
    pub(super) baseline: Tally,
    /// `None` from an older proxy.
    pub(super) step: Option<CanaryStep>,
    /// The canary's requests of which it was true.
    pub(super) seen: Option<Failures>,
    /// Since when it takes no further step for it.
    pub(super) worse_since: Option<String>,
}

/// What is put to the test before a step.
#[derive(Debug, Default, Deserialize)]
pub(super) struct CanaryStep {
    pub(super) canary: Tally,
    pub(super) baseline: Tally,
    pub(super) chance: f64,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Tally {
    pub(super) yes: u64,
    pub(super) of: u64,
}

/// Since when, and how often.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Failures {
    pub(super) first: String,
    pub(super) last: String,
    pub(super) count: u64,
}

/// What is out of service by hand.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Levers {
    pub(super) levers: Vec<Lever>,
    pub(super) unserved_routes: Vec<String>,
}

/// One lever that is set.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Lever {
    pub(super) replica: Option<String>,
    pub(super) upstream: Option<String>,
    pub(super) route: Option<String>,
    pub(super) words: String,
    pub(super) setting: String,
    pub(super) since: String,
    pub(super) by: String,
    pub(super) reason: Option<String>,
}

/// How the holders of limits stand.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Limits {
    /// The limits that there are.
    pub(super) limits: Vec<String>,
    pub(super) holders: Vec<Holder>,
    /// What a shared store says of them.
    pub(super) in_store: Option<Vec<Holder>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Holder {
    pub(super) replica: Option<String>,
    pub(super) limit: String,
    pub(super) holder: String,
    pub(super) utilization: f64,
    pub(super) running: u64,
    /// What is left; absent where no tokens are limited.
    pub(super) tokens: Option<TokensLeft>,
    pub(super) tokens_spent: u64,
    pub(super) tokens_held: u64,
    pub(super) cost_usd_24h: f64,
    pub(super) cost_usd_30d: f64,
    pub(super) cost_usd_held: f64,
    pub(super) budget_usd_24h: Option<f64>,
    pub(super) budget_usd_30d: Option<f64>,
    pub(super) refused: Option<Refused>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct TokensLeft {
    pub(super) limit: u64,
    pub(super) remaining: u64,
}

/// Since when somebody is at a limit.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Refused {
    pub(super) reason: String,
    pub(super) first: String,
    pub(super) last: String,
    pub(super) count: u64,
}
