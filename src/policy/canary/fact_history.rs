//! For each fact of a canary: since when, how often, and since when its evidence is high.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// From this e-value on no further step is taken. Under the null it is reached with a probability of at most a tenth, and
/// more data lets it sink again.
pub(super) const SUSPICION: f64 = 10.0;

/// The canary's requests of a rollout of which a fact was true. Times count from 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    pub first: Duration,
    pub last: Duration,
    pub count: u64,
}

/// What is kept of one fact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FactHistory {
    pub(super) seen: Option<Seen>,
    /// Since when the evidence has been enough to take no further step.
    pub(super) worse_since: Option<Duration>,
}

impl FactHistory {
    /// It was true of one more request.
    pub(super) fn note(&mut self, now: Duration) {
        let before = self.seen;
        self.seen = Some(Seen {
            first: before.map_or(now, |seen| seen.first),
            last: now,
            count: before.map_or(0, |seen| seen.count).saturating_add(1),
        });
    }

    /// The evidence is another.
    pub(super) fn weigh(&mut self, evidence: f64, now: Duration) {
        self.worse_since = (evidence >= SUSPICION).then(|| self.worse_since.unwrap_or(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_tells_first_last_and_how_often() {
        let mut trail = FactHistory::default();
        trail.note(s(10));
        trail.note(s(12));
        trail.note(s(30));
        assert_eq!(trail.seen, Some(Seen { first: s(10), last: s(30), count: 3 }));
    }

    #[test]
    fn it_is_worse_since_the_evidence_last_became_enough() {
        let mut trail = FactHistory::default();
        for (evidence, now, since) in
            [(9.9, 1, None), (10.0, 2, Some(2)), (400.0, 3, Some(2)), (1.0, 4, None), (11.0, 5, Some(5))]
        {
            trail.weigh(evidence, s(now));
            assert_eq!(trail.worse_since, since.map(s), "{evidence}");
        }
    }
}
