//! By which plan who judges: the fleet's judge, and a replica that hears nothing of the others.
//!
//! alpha is divided: 9/10 are the fleet's judge's. While the store of the fleet is away, each replica has a judge of its own, a fresh one for
//! each outage, which may roll back that replica alone. In the j-th outage it has 1/10 · 6/(π²j²), over all of them 1/10, divided by the number of
//! replicas: by the union bound a canary that is no worse is rolled back anywhere with a probability of at most alpha.

use std::f64::consts::PI;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::config::canary::{Canary, Sticky};

/// The part of alpha that replicas may spend while they hear nothing of each other.
const APART: f64 = 0.1;

/// The plan of the fleet's judge. `holds_steps`: it takes no step, and still rolls back.
#[must_use]
pub fn together(plan: &Canary, holds_steps: bool) -> Canary {
    let step_time = if holds_steps { Duration::MAX } else { plan.step_time };
    Canary { alpha: plan.alpha * (1.0 - APART), step_time, ..plan.clone() }
}

/// The plan of one of `members` replicas that hears nothing of the others for the `outage`-th time (the first is 1): it stays at `share`
/// percent, or rolls back.
#[must_use]
pub fn alone(plan: &Canary, share: u8, outage: u64, members: usize) -> Canary {
    let outage = outage.max(1) as f64;
    let alpha = plan.alpha * APART * 6.0 / (PI * outage).powi(2) / members.max(1) as f64;
    Canary { alpha, steps: vec![share], ..plan.clone() }
}

/// What is the same wherever a canary is judged in the same way: all of its plan but targets and steps, which make it another canary.
#[must_use]
pub fn digest(plan: &Canary, sticky: Sticky) -> String {
    let Canary { step_time, min_requests, alpha, first_token_objective, target: _, steps: _ } = plan;
    let text = format!("{step_time:?} {min_requests} {:x} {first_token_objective:?} {sticky:?}", alpha.to_bits());
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Canary {
        Canary {
            target: "next".into(),
            steps: vec![5, 100],
            step_time: Duration::from_secs(600),
            min_requests: 200,
            alpha: 0.01,
            first_token_objective: None,
        }
    }

    #[test]
    fn all_judges_together_spend_no_more_than_alpha() {
        let plan = plan();
        for members in [1, 3, 10] {
            let apart: f64 = (1..100_000).map(|outage| alone(&plan, 5, outage, members).alpha * members as f64).sum();
            let spent = together(&plan, false).alpha + apart;
            assert!(spent <= plan.alpha && spent > 0.999 * plan.alpha, "{spent}");
        }
    }

    #[test]
    fn who_hears_nothing_takes_no_step() {
        assert_eq!(alone(&plan(), 5, 1, 3).steps, [5]);
        assert_eq!(together(&plan(), true).step_time, Duration::MAX);
        assert_eq!(together(&plan(), false).step_time, plan().step_time);
    }

    #[test]
    fn a_plan_has_one_digest_whatever_its_targets() {
        let same = Canary { target: "other".into(), steps: vec![1], ..plan() };
        assert_eq!(digest(&plan(), Sticky::User), digest(&same, Sticky::User));
        let others = [
            digest(&Canary { alpha: 0.02, ..plan() }, Sticky::User),
            digest(&Canary { min_requests: 1, ..plan() }, Sticky::User),
            digest(&Canary { step_time: Duration::ZERO, ..plan() }, Sticky::User),
            digest(&Canary { first_token_objective: Some(Duration::ZERO), ..plan() }, Sticky::User),
            digest(&plan(), Sticky::None),
        ];
        assert!(others.iter().all(|other| *other != digest(&plan(), Sticky::User)), "{others:?}");
    }
}
