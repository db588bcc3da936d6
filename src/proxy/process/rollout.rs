//! The canary of one route: its judge, which outlives reloads, and what requests are assigned by. Without a fleet the judge is here and hears of each
//! request at once; with one, requests go to the fleet's judge (`fleet`), and here is what it has committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};

use super::fleet::seat::Seat;
use crate::config::Settings;
use crate::config::canary::Canary as Plan;
use crate::config::settings::Route;
use crate::hashing::Map;
use crate::policy::canary::{Arm, Command, Decision, FirstAttempt, Judge, Kind, Refusal, Report, Sample, together};
use crate::policy::cohort::Unit;
use crate::policy::routing;
use crate::proxy::clock::since_1970;

/// By route name.
pub type Rollouts = Map<Arc<str>, Arc<Rollout>>;

/// One route's canary, as one configuration has it.
pub struct Rollout {
    pub(crate) route: Arc<Route>,
    pub(crate) plan: Plan,
    kept: Arc<Kept>,
}

/// What outlives a reload, for as long as targets and steps stay.
struct Kept {
    /// What the rollout is about; see [`subject`].
    subject: String,
    judge: Mutex<Judge>,
    /// What requests are assigned by, as [`Draw::packed`]: read by each, set with each decision.
    draw: AtomicU64,
    /// Requests that were assigned to the baseline.
    baseline: AtomicU64,
    /// The start was told, or lies before a restart.
    is_told: AtomicBool,
    /// This replica's part in it, where a fleet judges; `judge` is then as the fleet has it.
    seat: Option<Seat>,
    fleet: Option<Arc<str>>,
}

/// What requests are assigned by at present. Share and epoch are read as one: a request must not be drawn by one epoch's share
/// and be counted in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draw {
    /// The canary's share of requests, in percent.
    pub(crate) share: u8,
    pub(crate) epoch: u64,
}

impl Draw {
    pub(super) fn of(judge: &Judge, plan: &Plan) -> Self {
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
        Self {
            subject,
            judge: Mutex::new(judge),
            draw,
            baseline: AtomicU64::new(0),
            is_told: AtomicBool::new(false),
            seat: None,
            fleet: None,
        }
    }

    /// A rollout that the fleet of this name judges. Until it is heard of, the canary gets nothing.
    fn in_fleet(subject: String, fleet: &Arc<str>, route: &str, plan: &Plan) -> Self {
        let seat = Some(Seat::new(digest_of([route, &subject].into_iter())));
        let nothing = AtomicU64::new(Draw { share: 0, epoch: 0 }.packed());
        let new = Self::new(subject, Judge::start(plan, since_1970()), plan);
        Self { draw: nothing, is_told: AtomicBool::new(true), seat, fleet: Some(Arc::clone(fleet)), ..new }
    }

    /// Requests from here on are assigned as the judge has it.
    fn assign_by(&self, judge: &Judge, plan: &Plan) {
        self.draw.store(Draw::of(judge, plan).packed(), Ordering::Relaxed);
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
        let now = since_1970();
        if self.kept.seat.is_none() {
            return self.kept.judge.lock().report(&self.plan, now);
        }
        let report = self.kept.judge.lock().report(&together(&self.plan, false), now);
        Report { share: self.draw().share, ..report }
    }

    /// This replica's part in it, where a fleet judges.
    pub(super) fn seat(&self) -> Option<&Seat> {
        self.kept.seat.as_ref()
    }

    /// The judge, or what is known of the fleet's.
    pub(super) fn judge(&self) -> MutexGuard<'_, Judge> {
        self.kept.judge.lock()
    }

    /// Requests from here on are assigned so.
    pub(super) fn assign_by(&self, draw: Draw) {
        self.kept.draw.store(draw.packed(), Ordering::Relaxed);
    }

    /// Each variant's share of requests, from 0 to 1.
    pub fn shares(&self) -> impl Iterator<Item = (&str, f64)> {
        routing::shares(&self.route, Some(self.draw().share)).map(|(target, share)| (&*target.name, share))
    }

    /// What a request is assigned by.
    pub(crate) fn draw(&self) -> Draw {
        Draw::unpacked(self.kept.draw.load(Ordering::Relaxed))
    }

    /// A request is assigned to a target.
    pub(crate) fn assign(&self, target: &str, unit: Unit, draw: Draw) -> Sample {
        let Draw { share, epoch } = draw;
        let is_canary = target == &*self.plan.target;
        let arm = if is_canary { Arm::Canary } else { Arm::Baseline };
        let number = self.kept.baseline.fetch_add(u64::from(!is_canary), Ordering::Relaxed);
        let number = self.kept.seat.as_ref().map_or(number, |seat| seat.number(number));
        Sample { arm, unit: unit.0, epoch, share, at: since_1970(), number, origin: 0 }
    }

    /// A request's first attempt: for the judge here, or on its way to the fleet's.
    pub(crate) fn observe(&self, sample: Sample, attempt: &FirstAttempt) -> Option<Decision> {
        if let Some(seat) = &self.kept.seat {
            let now = since_1970();
            seat.put(sample, *attempt, now);
            self.observe_apart(seat, sample, attempt, now);
            return None;
        }
        let mut judge = self.kept.judge.lock();
        let decision = judge.observe(&self.plan, sample, attempt, since_1970());
        self.kept.assign_by(&judge, &self.plan);
        decision
    }

    /// Its start, if nobody was told of it yet. From now on it counts as told.
    pub(crate) fn take_untold_start(&self) -> Option<Decision> {
        if self.kept.is_told.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.report().decisions.into_iter().find(|decision| decision.kind == Kind::Start)
    }

    /// What it is about, how often its fleet had committed it, and how its judge stands, as they are kept over a restart.
    ///
    /// # Errors
    /// The judge holds a number that JSON does not know.
    pub(crate) fn save(&self) -> Result<(String, u64, serde_json::Value), serde_json::Error> {
        let version = self.kept.seat.as_ref().map_or(0, Seat::version);
        Ok((self.kept.subject.clone(), version, serde_json::to_value(&*self.kept.judge.lock())?))
    }

    /// Goes on where `judge` stood before a restart, if it was about the same `subject`; in a fleet, unless that knows better.
    pub(crate) fn restore(&self, subject: &str, version: u64, judge: Judge) {
        if self.kept.subject != subject {
            return;
        }
        let judge = judge.restored(&self.plan);
        match &self.kept.seat {
            None => {
                let mut current = self.kept.judge.lock();
                *current = judge;
                self.kept.assign_by(&current, &self.plan);
                self.kept.is_told.store(true, Ordering::Release);
            }
            Some(seat) => {
                if let Some(judge) = seat.restore(version, judge, &self.plan) {
                    *self.kept.judge.lock() = judge;
                    self.assign_as_heard(seat);
                }
            }
        }
    }

    /// Goes on where the rollout stood when it was judged elsewhere: by this replica alone, or by another fleet.
    fn go_on_from(&self, old: &Kept) {
        let told = serde_json::to_value(&*old.judge.lock()).ok();
        if let Some(judge) = told.and_then(|judge| serde_json::from_value::<Judge>(judge).ok()) {
            self.restore(&old.subject, 0, judge);
        }
    }

    pub(crate) fn command(&self, command: Command) -> Result<Decision, Refusal> {
        let mut judge = self.kept.judge.lock();
        let decision = judge.command(&self.plan, command, since_1970());
        self.kept.assign_by(&judge, &self.plan);
        decision
    }
}

/// The rollouts of a configuration by route; those whose targets and steps stay go on where they stood.
pub(crate) fn build(settings: &Settings, previous: Option<&Rollouts>) -> Rollouts {
    let rollouts = settings.routes.iter().filter_map(|route| {
        let plan = route.canary.clone()?;
        let subject = subject(route, &plan);
        let fleet = settings.judging_fleet().map(|fleet| &fleet.name);
        let old = previous.and_then(|old| old.get(&route.name)).map(|old| &old.kept);
        let old = old.filter(|old| old.subject == subject);
        let kept = match (old.filter(|old| old.fleet.as_ref() == fleet), fleet) {
            (Some(old), _) => Arc::clone(old),
            (None, Some(fleet)) => Arc::new(Kept::in_fleet(subject, fleet, &route.name, &plan)),
            (None, None) => Arc::new(Kept::new(subject, Judge::start(&plan, since_1970()), &plan)),
        };
        let rollout = Rollout { route: Arc::clone(route), plan, kept };
        if let Some(old) = old.filter(|old| !Arc::ptr_eq(old, &rollout.kept)) {
            rollout.go_on_from(old);
        }
        Some((Arc::clone(&route.name), Arc::new(rollout)))
    });
    rollouts.collect()
}

/// What a rollout is about: targets and steps. When one of them changes, it starts anew. The same in every process.
fn subject(route: &Route, plan: &Plan) -> String {
    let mut parts = vec![plan.target.to_string(), format!("{:?}", plan.steps)];
    let mut add = |part: &str| parts.push(part.to_owned());
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
    digest_of(parts.iter().map(String::as_str))
}

/// One text of several, each with its length in front.
fn digest_of<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
