//! What the decisions about canaries set off, what people ask of them, and what is kept of them over a restart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::canary_sample::Assigned;
use super::fleet::keep::{Followers, Undone};
use super::rollout::Rollout;
use super::state::Shared;
use crate::policy::canary::{Command, Decision, Fact, FirstAttempt, Judge, Kind};

/// The form of [`Saved`]: another is not read.
const VERSION: u32 = 1;

impl Shared {
    /// Lets the judge of a request's route hear of its first attempt.
    pub(crate) fn judge(&self, assigned: &Assigned, attempt: &FirstAttempt) -> Option<Decision> {
        if self.generation.load().canary_hold(&assigned.rollout.route.name).is_some() {
            // It was assigned before somebody took one of both sides out of service, who may have stopped it as well.
            return None;
        }
        let decision = assigned.rollout.observe(assigned.sample, attempt)?;
        self.decided(&assigned.rollout, &decision);
        Some(decision)
    }

    /// Does what a person asks of a route's canary, and tells which replicas follow, where it is a fleet's and could be asked; `None`: the route
    /// has no canary.
    pub async fn command_canary(&self, route: &str, command: Command) -> Option<Result<Option<Followers>, Undone>> {
        let rollout = self.generation.load().rollouts.get(route).cloned()?;
        if let Some(seat) = rollout.seat() {
            return Some(self.command_fleet(&rollout, seat, command).await);
        }
        let decision = rollout.command(command);
        if let Ok(decision) = &decision {
            self.decided(&rollout, decision);
        }
        Some(decision.map(|_| None).map_err(Undone::Refused))
    }

    /// Tells of the rollouts that are new.
    pub fn tell_new_canaries(&self) {
        for rollout in self.generation.load().rollouts.values() {
            if let Some(start) = rollout.take_untold_start() {
                self.decided(rollout, &start);
            }
        }
    }

    pub(super) fn decided(&self, rollout: &Rollout, decision: &Decision) {
        let (route, variant) = (&*rollout.route.name, &*rollout.plan.target);
        self.telemetry.metrics().canary_decision(route, decision.kind);
        let finding = decision.finding();
        let (kind, by, from, to) = (decision.kind.as_str(), decision.by.as_str(), decision.from, decision.to);
        let fact = decision.fact().map(Fact::as_str);
        let evidence = finding.map(|finding| finding.evidence);
        let needed = finding.map(|finding| finding.needed);
        let message = format!("canary `{variant}` of route `{route}` {decision}");
        // The level of an event is fixed where it is written.
        macro_rules! tell {
            ($level:ident) => {
                tracing::$level!(
                    event = "canary.decision",
                    route,
                    variant,
                    decision = kind,
                    by,
                    from_percent = from,
                    to_percent = to,
                    fact,
                    evidence,
                    needed,
                    "{message}"
                )
            };
        }
        // A rollback that nobody reads of is half a rollback.
        if decision.kind == Kind::RollBack {
            tell!(error);
        } else {
            tell!(info);
        }
        self.canary_decided.notify_one();
    }
}

/// All rollouts, as they are kept over a restart.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved<J = Judge> {
    version: u32,
    /// By route.
    rollouts: BTreeMap<String, SavedRollout<J>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedRollout<J> {
    subject: String,
    /// How often its fleet had committed it; 0 without one.
    #[serde(default, skip_serializing_if = "is_zero")]
    fleet_version: u64,
    judge: J,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Shared {
    /// All rollouts as they stand; `None`: the configuration has none.
    ///
    /// # Errors
    /// A judge holds a number that JSON does not know.
    pub fn save_canaries(&self) -> Result<Option<Vec<u8>>, serde_json::Error> {
        let generation = self.generation.load();
        if generation.rollouts.is_empty() {
            return Ok(None);
        }
        let mut rollouts = BTreeMap::new();
        for (route, rollout) in &generation.rollouts {
            let (subject, fleet_version, judge) = rollout.save()?;
            rollouts.insert(route.to_string(), SavedRollout { subject, fleet_version, judge });
        }
        serde_json::to_vec(&Saved { version: VERSION, rollouts }).map(Some)
    }

    /// Takes rollouts up where they stood before a restart: those whose targets and steps are the same.
    ///
    /// # Errors
    /// What of it could not have been written by this version.
    pub fn restore_canaries(&self, json: &[u8]) -> Result<(), String> {
        let saved: Saved = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if saved.version != VERSION {
            return Err(format!("it is of version {}, this program reads version {VERSION}", saved.version));
        }
        if let Some((route, _)) = saved.rollouts.iter().find(|(_, rollout)| !rollout.judge.is_sound()) {
            return Err(format!("what it says of route `{route}` cannot be"));
        }
        let generation = self.generation.load();
        for (route, before) in saved.rollouts {
            if let Some(rollout) = generation.rollouts.get(&*route) {
                rollout.restore(&before.subject, before.fleet_version, before.judge);
            }
        }
        Ok(())
    }
}
