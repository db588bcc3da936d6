//! Checked `shadow` of a route.

use super::settings::Target;

/// Where copies of a route's requests go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct Shadow {
    pub target: Target,
    /// Share of requests, above 0 and at most 1.
    pub share: f64,
    /// Copies at one time. Never zero.
    pub concurrent: usize,
    /// Tokens that the copies may take, prompts and answers together. Never zero.
    pub tokens_per_minute: u64,
}
