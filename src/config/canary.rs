//! Checked `canary` of a route, and how its requests are told apart.

use std::sync::Arc;
use std::time::Duration;

/// `sticky`: what keeps a request in its cohort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sticky {
    /// The authenticated user; where none is known, the client's address.
    #[default]
    User,
    Address,
    /// Nothing: each request is for itself.
    None,
}

/// `canary`: how one target of a route takes over from the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Canary {
    /// The name of one of the route's targets; the others are the baseline.
    pub target: Arc<str>,
    /// Shares of requests in percent, ascending, each from 1 to 100. Never empty.
    pub steps: Vec<u8>,
    /// How long each step lasts at the least.
    pub step_time: Duration,
    /// How many requests each step sends to the canary at the least. Never zero.
    pub min_requests: u64,
    /// The probability with which a canary that is no worse than the baseline may be rolled back; above 0, at most 0.5.
    pub alpha: f64,
    /// A first token later than this is late. `None`: later than the baseline's own 95th percentile.
    pub first_token_objective: Option<Duration>,
}

impl Canary {
    /// The share of step number `step`, in percent; past the last one, the last one's.
    pub fn share(&self, step: usize) -> u8 {
        self.steps.get(step).or(self.steps.last()).copied().unwrap_or(0)
    }
}
