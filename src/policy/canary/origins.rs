//! Which of several replicas see harm. What one alone sees is more likely its network than the canary.

use serde::{Deserialize, Serialize};

use super::evidence::Pair;
use super::facts::{Arm, Fact, PerFact};

/// Canary requests of a step from which on a replica would have seen harm, too.
const ENOUGH: u64 = 20;

/// Replicas that are told apart.
const REMEMBERED: usize = 64;

/// What each replica's requests of this step answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Origins(Vec<Origin>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Origin {
    id: u64,
    canary: u64,
    counts: PerFact<Pair>,
}

impl Origins {
    /// One more request of the step, with those of its answers that count.
    pub(super) fn note(&mut self, id: u64, arm: Arm, counted: &PerFact<Option<bool>>) {
        if self.0.len() < REMEMBERED && !self.0.iter().any(|origin| origin.id == id) {
            self.0.push(Origin { id, canary: 0, counts: PerFact::default() });
        }
        let Some(origin) = self.0.iter_mut().find(|origin| origin.id == id) else { return };
        origin.canary += u64::from(arm == Arm::Canary);
        for fact in Fact::ALL {
            if let Some(yes) = *counted.get(fact) {
                origin.counts.get_mut(fact).count(arm, yes);
            }
        }
    }

    pub(super) fn begin_step(&mut self) {
        self.0.clear();
    }

    /// The only replica that sees harm by a fact, where two and more would have.
    pub(super) fn alone(&self, fact: Fact) -> Option<u64> {
        if self.0.iter().filter(|origin| origin.canary >= ENOUGH).count() < 2 {
            return None;
        }
        let mut harmed = self.0.iter().filter(|origin| origin.sees_harm(fact));
        let only = harmed.next()?;
        harmed.next().is_none().then_some(only.id)
    }
}

impl Origin {
    /// The canary's part of bad answers is larger than the baseline's.
    fn sees_harm(&self, fact: Fact) -> bool {
        let Pair { baseline, canary } = *self.counts.get(fact);
        let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
        canary.yes > 0 && product(canary.yes, baseline.of) >= product(baseline.yes, canary.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(origins: &mut Origins, id: u64, arm: Arm, bad: u64, of: u64) {
        for number in 0..of {
            origins.note(id, arm, &PerFact { failed: Some(number < bad), ..PerFact::default() });
        }
    }

    #[test]
    fn harm_that_one_replica_sees_is_its_own() {
        let mut origins = Origins::default();
        for id in [1, 2, 3] {
            seen(&mut origins, id, Arm::Baseline, 1, 100);
        }
        seen(&mut origins, 1, Arm::Canary, 15, 20);
        assert_eq!(origins.alone(Fact::Failed), None, "the others had too few to see it");
        seen(&mut origins, 2, Arm::Canary, 0, 20);
        assert_eq!(origins.alone(Fact::Failed), Some(1));
        assert_eq!(origins.alone(Fact::Late), None, "nobody sees that");
        seen(&mut origins, 3, Arm::Canary, 1, 1);
        assert_eq!(origins.alone(Fact::Failed), None);
        origins.begin_step();
        assert_eq!(origins, Origins::default());
    }

    #[test]
    fn one_replica_has_nobody_to_differ_from() {
        let mut origins = Origins::default();
        seen(&mut origins, 0, Arm::Canary, 1_000, 1_000);
        assert_eq!(origins.alone(Fact::Failed), None);
    }

    #[test]
    fn replicas_are_bounded() {
        let mut origins = Origins::default();
        (0..1_000).for_each(|id| seen(&mut origins, id, Arm::Canary, 1, 1));
        assert_eq!(origins.0.len(), REMEMBERED);
        assert!(origins.0.iter().all(|origin| origin.canary == 1));
    }
}
