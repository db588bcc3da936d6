//! Checked `[[limit]]` and `[limits]`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::defaults;
use super::secret::Secret;

/// `[[limit]]`: what each holder may use. At least one of the caps is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    pub name: Arc<str>,
    pub key: LimitKey,
    pub tokens: Option<TokenLimit>,
    pub requests_per_minute: Option<NonZeroU32>,
    /// Requests at one time.
    pub concurrent: Option<u32>,
    /// In a rolling 24 hours, in nano-dollars.
    pub cost_per_day: Option<u64>,
    /// In rolling 30 days, in nano-dollars.
    pub cost_per_month: Option<u64>,
    pub on_exhausted: OnExhausted,
}

/// The token bucket of each holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLimit {
    /// Never zero.
    pub per_minute: u64,
    /// What may be taken at once. Never zero.
    pub burst: u64,
    /// How far one request may go beyond the burst.
    pub debt: u64,
    /// The most that one request holds for its answer.
    pub output_cap: Option<u64>,
}

/// Who shares one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKey {
    /// The client's address where no user is known.
    User,
    Team,
    /// The API key.
    Key,
    /// The client's address; of IPv6 its /64.
    Ip,
    Route,
    Global,
}

impl LimitKey {
    /// The word used in the config, logs and the admin API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Team => "team",
            Self::Key => "key",
            Self::Ip => "ip",
            Self::Route => "route",
            Self::Global => "global",
        }
    }
}

/// What happens to a stream that has used up what it held, while its bucket has nothing left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnExhausted {
    /// It goes on, into debt.
    #[default]
    Finish,
    /// It ends, with its dialect's own end.
    Cut,
}

/// `[limits]`: where the counts are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitStore {
    /// Shared by several proxies; absent: this process's memory.
    pub redis: Option<Secret>,
    /// In place of one in the address.
    pub password: Option<Secret>,
    /// The longest that a decision waits for it.
    pub deadline: Duration,
    pub on_failure: OnStoreFailure,
}

impl Default for LimitStore {
    fn default() -> Self {
        Self { redis: None, password: None, deadline: defaults::LIMITS_DEADLINE, on_failure: OnStoreFailure::default() }
    }
}

/// What happens while the shared store cannot be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnStoreFailure {
    /// This proxy's share of each limit is kept in memory.
    #[default]
    Local,
    /// Requests that have limits are refused.
    Reject,
}

impl Limit {
    /// Whether it bounds what requests cost.
    pub fn has_budget(&self) -> bool {
        self.cost_per_day.is_some() || self.cost_per_month.is_some()
    }

    /// Its tokens; of a limit of cost alone nothing but the request bounds the answer.
    pub fn token_limit(&self) -> TokenLimit {
        const BOUNDLESS: TokenLimit = TokenLimit { per_minute: 1, burst: u64::MAX, debt: 0, output_cap: None };
        self.tokens.unwrap_or(BOUNDLESS)
    }

    /// Whether the tokens of a request matter to it, as such or for what they cost.
    pub fn counts_tokens(&self) -> bool {
        self.tokens.is_some() || self.has_budget()
    }

    /// The part of this limit that one of `nodes` equal proxies keeps by itself.
    #[must_use]
    pub fn share(&self, nodes: u32) -> Self {
        let nodes = nodes.max(1);
        let part = |whole: u64| (whole / u64::from(nodes)).max(1);
        Self {
            tokens: self.tokens.map(|tokens| TokenLimit {
                per_minute: part(tokens.per_minute),
                burst: part(tokens.burst),
                debt: tokens.debt / u64::from(nodes),
                output_cap: tokens.output_cap,
            }),
            requests_per_minute: self
                .requests_per_minute
                .map(|requests| NonZeroU32::new(requests.get() / nodes).unwrap_or(NonZeroU32::MIN)),
            concurrent: self.concurrent.map(|most| (most / nodes).max(1)),
            cost_per_day: self.cost_per_day.map(part),
            cost_per_month: self.cost_per_month.map(part),
            ..self.clone()
        }
    }
}
