//! Holders that the shared store refused lately. For them the store is asked before the prompt is counted, so that a
//! refusal costs no count. For all others that would double the round trips.

use std::sync::Arc;
use std::time::Duration;

use super::claim::Claim;
use super::denial::Denial;
use crate::policy::recent_map::RecentMap;

/// Holders in one generation of those remembered; there are two.
const GENERATION: usize = 10_000;

/// How long a refusal is remembered: as long as its wait, within these bounds.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);

/// Refusals of the last minute, by limit and holder. Bounded.
#[derive(Debug)]
pub struct RecentlyRefused {
    until: RecentMap<(Arc<str>, Arc<str>), Duration>,
}

impl Default for RecentlyRefused {
    fn default() -> Self {
        Self { until: RecentMap::new(GENERATION) }
    }
}

impl RecentlyRefused {
    /// One of `claims` was refused at `now`.
    pub fn refused(&mut self, claims: &[Claim], denial: &Denial, now: Duration) {
        let Some(claim) = claims.iter().find(|claim| claim.limit.name == denial.limit) else { return };
        let until = now + denial.retry_after.unwrap_or_default().clamp(LEAST, MOST);
        *self.until.entry(key(claim), || until) = until;
    }

    /// Whether one of `claims` may well be refused again.
    #[must_use]
    pub fn concerns(&self, claims: &[Claim], now: Duration) -> bool {
        claims.iter().any(|claim| self.until.get(&key(claim)).is_some_and(|until| now < *until))
    }
}

fn key(claim: &Claim) -> (Arc<str>, Arc<str>) {
    (Arc::clone(&claim.limit.name), Arc::clone(&claim.holder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::limits::{Limit, LimitKey, OnExhausted};
    use crate::policy::limits::{Reason, Standing};

    #[test]
    fn a_refusal_is_remembered_for_as_long_as_it_says() {
        let limit = Arc::new(Limit {
            name: "l".into(),
            key: LimitKey::User,
            tokens: None,
            requests_per_minute: None,
            concurrent: Some(1),
            cost_per_day: None,
            cost_per_month: None,
            on_exhausted: OnExhausted::Finish,
        });
        let claim = |holder: &str| {
            [Claim {
                limit: Arc::clone(&limit),
                holder: holder.into(),
                tokens: 1,
                cost: 0,
                unforeseen: false,
                runs: true,
            }]
        };
        let denial = |seconds: u64| Denial {
            limit: "l".into(),
            holder: "user:a".into(),
            key: LimitKey::User,
            reason: Reason::Concurrent { most: 1 },
            retry_after: Some(Duration::from_secs(seconds)),
            standing: Standing::default(),
        };
        let now = Duration::from_secs(1_000);
        for (wait, remembered_s) in [(0, 1), (5, 5), (86_400, 60)] {
            let mut lately = RecentlyRefused::default();
            lately.refused(&claim("user:a"), &denial(wait), now);
            let at = |seconds: u64| lately.concerns(&claim("user:a"), now + Duration::from_secs(seconds));
            assert!(at(0) && at(remembered_s - 1) && !at(remembered_s), "{wait}");
            assert!(!lately.concerns(&claim("user:b"), now));
        }
    }
}
