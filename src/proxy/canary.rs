//! The canaries of the routes: their judges, which outlive reloads and restarts, and what their decisions set off.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::evidence::Assigned;
use super::state::{Generation, Shared};
use crate::config::Settings;
use crate::config::canary::Canary as Plan;
use crate::config::settings::Route;
use crate::policy::canary::{Arm, Command, Decision, FirstAttempt, Judge, Kind, Refusal, Report, Sample};
use crate::policy::routing;

/// The form of [`Saved`]: another is not read.
const VERSION: u32 = 1;

/// One route's canary, as one configuration has it.
pub struct Rollout {
    route: Arc<Route>,
    plan: Plan,
    kept: Arc<Kept>,
}

/// What outlives a reload, for as long as targets and steps stay.
struct Kept {
    /// What the rollout is about; see [`subject`].
    subject: String,
    judge: Mutex<Judge>,
    /// What requests are assigned by, as [`Draw::packed`]: read by each, set with each decision.
    draw: AtomicU64,
    /// The start was told, or lies before a restart.
    is_told: AtomicBool,
}

/// What requests are assigned by at present. Share and epoch are read as one: a request must not be drawn by one epoch's share
/// and be counted in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Draw {
    /// The canary's share of requests, in percent.
    pub(super) share: u8,
    pub(super) epoch: u64,
}

impl Draw {
    fn of(judge: &Judge, plan: &Plan) -> Self {
        Self { share: judge.share(plan), epoch: judge.epoch() }
    }

    /// As one number: the share in the lowest 8 bits.
    fn packed(self) -> u64 {
        self.epoch << 8 | u64::from(self.share)
    }

    fn unpacked(packed: u64) -> Self {
        let [share, ..] = packed.to_le_bytes();
        Self { share, epoch: packed >> 8 }
    }
}

impl Kept {
    fn new(subject: String, judge: Judge, plan: &Plan) -> Self {
        let draw = AtomicU64::new(Draw::of(&judge, plan).packed());
        Self { subject, judge: Mutex::new(judge), draw, is_told: AtomicBool::new(false) }
    }

    /// Requests from here on are assigned as the judge has it.
    fn assign_by(&self, judge: &Judge, plan: &Plan) {
        self.draw.store(Draw::of(judge, plan).packed(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rollout {
    pub fn route(&self) -> &Arc<str> {
        &self.route.name
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How it stands.
    pub fn report(&self) -> Report {
        self.kept.lock().report(&self.plan, since_1970())
    }

    /// Each variant's share of requests, from 0 to 1.
    pub fn shares(&self) -> impl Iterator<Item = (&str, f64)> {
        routing::shares(&self.route, Some(self.draw().share)).map(|(target, share)| (&*target.name, share))
    }

    /// What a request is assigned by.
    pub(super) fn draw(&self) -> Draw {
        Draw::unpacked(self.kept.draw.load(Ordering::Relaxed))
    }

    /// The side on which a target stands.
    pub(super) fn arm(&self, target: &str) -> Arm {
        if target == &*self.plan.target { Arm::Canary } else { Arm::Baseline }
    }

    fn observe(&self, sample: Sample, attempt: &FirstAttempt) -> Option<Decision> {
        let mut judge = self.kept.lock();
        let decision = judge.observe(&self.plan, sample, attempt, since_1970());
        self.kept.assign_by(&judge, &self.plan);
        decision
    }

    fn command(&self, command: Command) -> Result<Decision, Refusal> {
        let mut judge = self.kept.lock();
        let decision = judge.command(&self.plan, command, since_1970());
        self.kept.assign_by(&judge, &self.plan);
        decision
    }
}

/// The rollouts of a configuration by route; those whose targets and steps stay go on where they stood.
pub(super) fn build(settings: &Settings, previous: Option<&Generation>) -> HashMap<Arc<str>, Arc<Rollout>> {
    let rollouts = settings.routes.iter().filter_map(|route| {
        let plan = route.canary.clone()?;
        let subject = subject(route, &plan);
        let old = previous.and_then(|old| old.rollouts.get(&route.name)).map(|old| &old.kept);
        let kept = match old.filter(|old| old.subject == subject) {
            Some(old) => Arc::clone(old),
            None => {
                let judge = Judge::start(&plan, since_1970());
                Arc::new(Kept::new(subject, judge, &plan))
            }
        };
        Some((Arc::clone(&route.name), Arc::new(Rollout { route: Arc::clone(route), plan, kept })))
    });
    rollouts.collect()
}

impl Shared {
    /// Lets the judge of a request's route hear of its first attempt.
    pub(super) fn judge(&self, assigned: &Assigned, attempt: &FirstAttempt) -> Option<Decision> {
        let decision = assigned.rollout.observe(assigned.sample, attempt)?;
        self.decided(&assigned.rollout, &decision);
        Some(decision)
    }

    /// Does what a person asks of a route's canary; `None`: the route has none.
    pub fn command_canary(&self, route: &str, command: Command) -> Option<Result<Decision, Refusal>> {
        let rollout = self.generation.load().rollouts.get(route).cloned()?;
        let decision = rollout.command(command);
        if let Ok(decision) = &decision {
            self.decided(&rollout, decision);
        }
        Some(decision)
    }

    /// Tells of the rollouts that are new.
    pub fn tell_new_canaries(&self) {
        for rollout in self.generation.load().rollouts.values() {
            if !rollout.kept.is_told.swap(true, Ordering::AcqRel) {
                let start = rollout.report().decisions.into_iter().find(|decision| decision.kind == Kind::Start);
                start.iter().for_each(|start| self.decided(rollout, start));
            }
        }
    }

    fn decided(&self, rollout: &Rollout, decision: &Decision) {
        let (route, variant) = (&*rollout.route.name, &*rollout.plan.target);
        self.telemetry.metrics().canary_decision(route, decision.kind.as_str());
        let finding = decision.finding();
        let (kind, by, from, to) = (decision.kind.as_str(), decision.by.as_str(), decision.from, decision.to);
        let fact = finding.map(|finding| finding.fact.as_str());
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
    judge: J,
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
            let judge = serde_json::to_value(&*rollout.kept.lock())?;
            rollouts.insert(route.to_string(), SavedRollout { subject: rollout.kept.subject.clone(), judge });
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
            let Some(rollout) = generation.rollouts.get(&*route) else { continue };
            if rollout.kept.subject == before.subject {
                let mut judge = rollout.kept.lock();
                *judge = before.judge.restored(&rollout.plan);
                rollout.kept.assign_by(&judge, &rollout.plan);
                rollout.kept.is_told.store(true, Ordering::Release);
            }
        }
        Ok(())
    }
}

/// What a rollout is about: targets and steps. When one of them changes, it starts anew. The same in every process.
fn subject(route: &Route, plan: &Plan) -> String {
    let mut hasher = Sha256::new();
    let mut add = |part: &str| {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    };
    add(&plan.target);
    add(&format!("{:?}", plan.steps));
    for target in &route.targets {
        let is_canary = target.name == plan.target;
        // The canary's own weight means nothing.
        let weight = if is_canary { 0 } else { target.weight };
        add(&target.name);
        add(&format!("{weight} {:?}", target.path));
        add(&target.upstream.name);
        for endpoint in &target.upstream.endpoints {
            add(&format!("{} {:?} {} {}", endpoint.tls, endpoint.address, endpoint.base_path, endpoint.authority));
        }
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Steps are timed over restarts, so by the wall clock.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
