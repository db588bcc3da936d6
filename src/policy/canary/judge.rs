//! The judge of one rollout: what it has seen, and what follows.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::band::{Band, Firsts, Usual};
use super::block::Block;
use super::decision::{By, Command, Decision, Finding, Kind, Reason, Refusal};
use super::doubt::Comparison;
use super::drawn::Drawn;
use super::evidence::{Pair, Test};
use super::fact_history::{FactHistory, SUSPICION};
use super::facts::{Arm, Fact, FirstAttempt, FirstToken, PerFact, Sample};
use super::harmed::Harmed;
use super::origins::Origins;
use super::streak::Streak;
use crate::config::canary::Canary;

/// The part of alpha that the fast rule may spend; the facts share the rest evenly.
pub(super) const FAST_SHARE: f64 = 0.05;

/// A first token is late beyond the baseline's 95th percentile; 10 ms more are never late.
const FIRST_TOKEN: Usual = Usual { from: 0.0, to: 0.95, margin_min: 10_000 };

/// An answer's length is odd outside the baseline's 1st to 99th percentile; one token more or less never is.
const LENGTH: Usual = Usual { from: 0.01, to: 0.99, margin_min: 1 };

/// Decisions that are remembered.
const HISTORY: usize = 16;

/// Epochs beyond this are never reached by one a moment.
const EPOCH_MAX: u64 = 1 << 48;

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    Running { step: usize },
    Promoted,
    RolledBack,
}

/// The judge of one rollout. Its size is bounded, however long it judges. What it says depends on nothing but what it was
/// given, so it can be stored and read back at any time, see [`Judge::restored`]; only the open block, the row of failures, and
/// the names of users, are lost then. [`super::Fold`] keeps those, too.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    pub(super) stage: Stage,
    pub(super) paused: bool,
    /// A hold was told in this step.
    held: bool,
    /// The number of the epoch; 0 in what an older version stored.
    #[serde(default)]
    pub(super) epoch: u64,
    /// When the step began, since 1970.
    pub(super) since: Duration,
    /// Canary requests that were assigned in this step, and whose end is known.
    pub(super) step_requests: u64,
    /// The baseline's; 0 in what an older version stored.
    #[serde(default)]
    pub(super) step_baseline_requests: u64,
    /// What requests that were assigned in this step answered, a user once a block; nothing in what an older version stored.
    #[serde(default)]
    step_counts: PerFact<Pair>,
    pub(super) tests: PerFact<Test>,
    /// Nothing in what an older version stored.
    #[serde(default)]
    pub(super) trails: PerFact<FactHistory>,
    pub(super) first_token: Band,
    pub(super) length: Band,
    pub(super) streak: Streak,
    /// The last ones, oldest first.
    pub(super) decisions: VecDeque<Decision>,
    #[serde(default = "unknown_harm")]
    pub(super) harmed: PerFact<Harmed>,
    /// The epoch with which this rollout began, or went on after a restart. Nothing that was assigned before it counts.
    #[serde(skip)]
    pub(super) begun: u64,
    /// Whose lengths are learnt.
    #[serde(skip)]
    pub(super) firsts: Firsts,
    #[serde(skip)]
    pub(super) drawn: PerFact<Drawn>,
    #[serde(skip)]
    pub(super) block: Block,
    /// Of this step.
    #[serde(skip)]
    pub(super) origins: Origins,
}

impl Judge {
    /// A rollout that begins with the first step. `now` counts from 1970, here and everywhere.
    #[must_use]
    pub fn start(plan: &Canary, now: Duration) -> Self {
        let mut judge = Self {
            stage: Stage::Running { step: 0 },
            paused: false,
            held: false,
            epoch: 0,
            since: now,
            step_requests: 0,
            step_baseline_requests: 0,
            step_counts: PerFact::default(),
            tests: PerFact::default(),
            trails: PerFact::default(),
            first_token: Band::default(),
            length: Band::default(),
            streak: Streak::default(),
            decisions: VecDeque::new(),
            harmed: PerFact::default(),
            begun: 1,
            firsts: Firsts::default(),
            drawn: PerFact::default(),
            block: Block::default(),
            origins: Origins::default(),
        };
        judge.enter(plan, Stage::Running { step: 0 }, now);
        let to = judge.share(plan);
        let _ =
            judge.remember(Decision { at: now, kind: Kind::Start, by: By::Judge, from: 0, to, reason: Reason::New });
        judge
    }

    /// The canary's share of requests, in percent.
    #[must_use]
    pub fn share(&self, plan: &Canary) -> u8 {
        match self.stage {
            Stage::Running { step } => plan.share(step),
            Stage::Promoted => 100,
            Stage::RolledBack => 0,
        }
    }

    /// The last ones, oldest first; at most 16.
    #[must_use]
    pub fn decisions(&self) -> Vec<Decision> {
        self.decisions.iter().copied().collect()
    }

    /// Under which number requests are assigned at present: each change of the share begins another epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A judge that was read back goes on: with an epoch of its own, since nothing more is heard of what was assigned before.
    #[must_use]
    pub fn restored(mut self, plan: &Canary) -> Self {
        if self.step_counts == PerFact::default() {
            // Of a step whose answers are not known it is not known either that it did no harm.
            self.step_requests = 0;
        }
        self.begin_epoch(plan);
        self.begun = self.epoch;
        self
    }

    /// A judge of one replica that hears nothing of the others: fresh, of requests that are assigned under `epoch`, and by the
    /// percentiles that are fixed already.
    #[must_use]
    pub fn apart(&self, plan: &Canary, epoch: u64, now: Duration) -> Self {
        let fixed = |band: &Band| if band.bounds().is_some() { band.clone() } else { Band::default() };
        let (first_token, length) = (fixed(&self.first_token), fixed(&self.length));
        Self { epoch, begun: epoch, first_token, length, ..Self::start(plan, now) }
    }

    /// Adds a request's first attempt, for the side and the epoch to which the request was assigned.
    pub fn observe(
        &mut self,
        plan: &Canary,
        sample: Sample,
        attempt: &FirstAttempt,
        now: Duration,
    ) -> Option<Decision> {
        let Stage::Running { step } = self.stage else { return None };
        let has_told = self.note(plan, sample, attempt, now);
        let broken = self.streak.broken(plan.alpha * FAST_SHARE);
        let (kind, stage, reason) = match broken.filter(|_| self.origins.alone(Fact::Failed).is_none()) {
            Some(broken) => (Kind::RollBack, Stage::RolledBack, Reason::Broken(broken)),
            None if has_told || self.is_due(plan, now) => self.verdict(plan, step, now)?,
            None => return None,
        };
        Some(self.decide(plan, (kind, By::Judge, reason), stage, now))
    }

    /// Does what a person asks for.
    ///
    /// # Errors
    /// Why that would change nothing.
    pub fn command(&mut self, plan: &Canary, command: Command, now: Duration) -> Result<Decision, Refusal> {
        let (kind, stage) = match (command, self.stage) {
            (Command::Promote, Stage::Promoted) => return Err(Refusal::Promoted),
            (Command::Promote, _) => (Kind::Promote, Stage::Promoted),
            (Command::RollBack, Stage::RolledBack) => return Err(Refusal::RolledBack),
            (Command::RollBack, _) => (Kind::RollBack, Stage::RolledBack),
            (Command::Pause, Stage::Running { .. }) if self.paused => return Err(Refusal::Paused),
            (Command::Pause, stage @ Stage::Running { .. }) => (Kind::Pause, stage),
            (Command::Pause, _) => return Err(Refusal::Over),
            (Command::Resume, Stage::Promoted) => return Err(Refusal::Promoted),
            (Command::Resume, stage @ Stage::Running { .. }) if self.paused => (Kind::Resume, stage),
            (Command::Resume, Stage::Running { .. }) => return Err(Refusal::NotPaused),
            (Command::Resume, Stage::RolledBack) => {
                // A new rollout: what was held against the last one was acted on.
                let decisions = std::mem::take(&mut self.decisions);
                let epoch = self.epoch;
                *self = Self { stage: Stage::RolledBack, decisions, epoch, begun: epoch + 1, ..Self::start(plan, now) };
                (Kind::Resume, Stage::Running { step: 0 })
            }
        };
        self.paused = kind == Kind::Pause;
        Ok(self.decide(plan, (kind, By::Operator, Reason::Asked), stage, now))
    }

    /// Whether a judge read back is one that could have been written.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        Fact::ALL.iter().all(|fact| self.tests.get(*fact).is_sound() && self.step_counts.get(*fact).is_sound())
            && self.first_token.is_sound()
            && self.length.is_sound()
            && self.decisions.len() <= HISTORY
            && self.epoch <= EPOCH_MAX
    }

    /// Counts a request. Whether it has told anything of whose the bad answers are.
    fn note(&mut self, plan: &Canary, sample: Sample, attempt: &FirstAttempt, now: Duration) -> bool {
        let Sample { arm, unit, epoch, origin, .. } = sample;
        if epoch < self.begun {
            return false;
        }
        let is_of_this_step = epoch == self.epoch;
        let answers = attempt.answers(self.objective(plan), &self.length);
        let is_new = self.block.is_new(unit);
        let counted = self.block.note(arm, unit, answers);
        if arm == Arm::Baseline {
            self.learn(sample, attempt, is_new);
        }
        if is_of_this_step {
            self.note_step(arm, &counted);
            self.origins.note(origin, arm, &counted);
            if let Some(failed) = attempt.failed {
                self.streak.note(arm, unit, failed);
            }
        }
        let mut has_told = false;
        for fact in Fact::ALL {
            let is_counted = *counted.get(fact);
            if let Some(yes) = is_counted {
                self.tests.get_mut(fact).count(arm, yes);
            }
            if *answers.get(fact) != Some(true) {
                continue;
            }
            if arm == Arm::Canary {
                self.harmed.get_mut(fact).note(unit, is_of_this_step && is_counted == Some(true));
                self.trails.get_mut(fact).note(now);
            }
            has_told |= self.bet(plan, fact, sample, now);
        }
        has_told
    }

    /// Bets on whose a bad answer is, unless that is known already.
    fn bet(&mut self, plan: &Canary, fact: Fact, sample: Sample, now: Duration) -> bool {
        let Some(told) = self.drawn.get_mut(fact).note(sample.arm, sample.unit, sample.share, now) else {
            return false;
        };
        let is_early = fact.is_known_at_the_end() && sample.epoch == self.epoch;
        // The canary's part of the answers that ended: more than its share for a time if it is the faster one, and for good if
        // users who count anew ask more there.
        let part = if is_early || told.again { self.step_counts.get(fact).canary_part() } else { 0.0 };
        self.tests.get_mut(fact).bet(sample.arm, told.chance.max(part), sample.at, now);
        let evidence = self.finding(plan, fact).evidence;
        self.trails.get_mut(fact).weigh(evidence, now);
        true
    }

    /// One more request of this step, and of its answers those that count.
    fn note_step(&mut self, arm: Arm, counted: &PerFact<Option<bool>>) {
        match arm {
            Arm::Canary => self.step_requests += 1,
            Arm::Baseline => self.step_baseline_requests += 1,
        }
        for fact in Fact::ALL {
            if let Some(yes) = *counted.get(fact) {
                self.step_counts.get_mut(fact).count(arm, yes);
            }
        }
    }

    /// What is usual is learnt from the baseline, once a user and block.
    fn learn(&mut self, sample: Sample, attempt: &FirstAttempt, teaches: bool) {
        if let Some(FirstToken::Came(after)) = attempt.first_token.filter(|_| teaches) {
            self.first_token.learn(micros(after), FIRST_TOKEN);
        }
        let output = attempt.output.filter(|_| teaches);
        self.firsts.note(&mut self.length, sample.number, sample.at, output, LENGTH);
    }

    /// From when on a first token is late.
    pub(super) fn objective(&self, plan: &Canary) -> Option<Duration> {
        plan.first_token_objective.or_else(|| self.first_token.high().map(Duration::from_micros))
    }

    /// What follows from the evidence.
    fn verdict(&self, plan: &Canary, step: usize, now: Duration) -> Option<(Kind, Stage, Reason)> {
        if let Some(harm) = self.enough_harm(plan, |fact| self.origins.alone(fact).is_none()) {
            return Some((Kind::RollBack, Stage::RolledBack, Reason::Harm(harm)));
        }
        if let Some(reason) = self.harm_of_one(plan) {
            return (!self.held).then_some((Kind::Hold, self.stage, reason));
        }
        let next = plan.steps.get(step + 1).filter(|_| self.is_due(plan, now))?;
        if let Some(reason) = self.objection(plan) {
            return (!self.held).then_some((Kind::Hold, self.stage, reason));
        }
        let reason = Reason::Clean { requests: self.step_requests, nearest: self.nearest_to_harm() };
        if *next >= 100 {
            return Some((Kind::Promote, Stage::Promoted, reason));
        }
        Some((Kind::Step, Stage::Running { step: step + 1 }, reason))
    }

    /// Why it is held though there is enough to roll back: only one of several replicas sees it.
    pub(super) fn harm_of_one(&self, plan: &Canary) -> Option<Reason> {
        let finding = self.enough_harm(plan, |_| true)?;
        Some(Reason::Alone { finding, origin: self.origins.alone(finding.fact)? })
    }

    /// The strongest evidence, of several users, that is enough to roll back.
    fn enough_harm(&self, plan: &Canary, counts: impl Fn(Fact) -> bool) -> Option<Finding> {
        let worst = self.worst(plan, |fact| self.harmed.get(fact).are_several() && counts(fact));
        worst.filter(|harm| harm.evidence >= harm.needed)
    }

    fn is_due(&self, plan: &Canary, now: Duration) -> bool {
        !self.paused
            && self.step_requests >= plan.min_requests
            && self.step_baseline_requests >= self.baseline_requests_min(plan)
            && now.saturating_sub(self.since) >= plan.step_time
    }

    /// How many of the baseline's requests a step needs, so that there is something to compare with: as many as of the
    /// canary's, or what falls to a baseline that gets less than the canary.
    pub(super) fn baseline_requests_min(&self, plan: &Canary) -> u64 {
        let share = u64::from(self.share(plan)).max(1);
        let others = 100_u64.saturating_sub(share).min(share);
        plan.min_requests.saturating_mul(others).div_ceil(share).min(plan.min_requests)
    }

    /// Why no step is taken, so far as it is for harm. Evidence that is about one user alone is no reason.
    pub(super) fn objection(&self, plan: &Canary) -> Option<Reason> {
        let suspicion = self.worst(plan, |fact| self.harmed.get(fact).are_more_than_one());
        if let Some(worst) = suspicion.filter(|worst| worst.evidence >= SUSPICION) {
            return Some(Reason::Suspicion(worst));
        }
        self.nearest_to_harm().filter(Comparison::holds).map(Reason::Doubt)
    }

    /// Of the facts that were true of a request in this step, the one that chance explains least.
    fn nearest_to_harm(&self) -> Option<Comparison> {
        let is_seen = |fact: &Fact| {
            let later = self.trails.get(*fact).seen.is_some_and(|seen| seen.last > self.since);
            later || self.step_counts.get(*fact).canary.yes > 0
        };
        let comparisons = Fact::ALL.into_iter().filter(is_seen).map(|fact| self.comparison(fact));
        comparisons.min_by(|a, b| a.chance.total_cmp(&b.chance))
    }

    /// This step's counts of a fact, side by side.
    pub(super) fn comparison(&self, fact: Fact) -> Comparison {
        Comparison::new(fact, *self.step_counts.get(fact), self.harmed.get(fact).most())
    }

    /// Of the facts that `counts`, the one with the most evidence of harm.
    fn worst(&self, plan: &Canary, counts: impl Fn(Fact) -> bool) -> Option<Finding> {
        let findings = Fact::ALL.into_iter().filter(|fact| counts(*fact)).map(|fact| self.finding(plan, fact));
        findings.max_by(|a, b| a.evidence.total_cmp(&b.evidence))
    }

    pub(super) fn finding(&self, plan: &Canary, fact: Fact) -> Finding {
        let test = self.tests.get(fact);
        Finding { fact, evidence: test.evidence(), needed: needed(plan.alpha), requests: test.total() }
    }

    fn decide(
        &mut self,
        plan: &Canary,
        (kind, by, reason): (Kind, By, Reason),
        stage: Stage,
        now: Duration,
    ) -> Decision {
        let from = self.share(plan);
        if stage != self.stage {
            self.enter(plan, stage, now);
        }
        self.held |= kind == Kind::Hold;
        self.remember(Decision { at: now, kind, by, from, to: self.share(plan), reason })
    }

    fn enter(&mut self, plan: &Canary, stage: Stage, now: Duration) {
        // At a share of 100 there is nothing left to compare with.
        let is_whole = matches!(stage, Stage::Running { step } if plan.share(step) >= 100);
        self.stage = if is_whole { Stage::Promoted } else { stage };
        (self.since, self.held) = (now, false);
        (self.step_requests, self.step_baseline_requests) = (0, 0);
        self.step_counts = PerFact::default();
        self.origins.begin_step();
        Fact::ALL.into_iter().for_each(|fact| self.harmed.get_mut(fact).begin_step());
        self.begin_epoch(plan);
    }

    fn begin_epoch(&mut self, plan: &Canary) {
        self.epoch += 1;
        self.block = Block::new(self.share(plan));
        self.streak.end_row();
    }

    fn remember(&mut self, decision: Decision) -> Decision {
        if self.decisions.len() >= HISTORY {
            self.decisions.pop_front();
        }
        self.decisions.push_back(decision);
        decision
    }
}

/// The e-value that rolls back: by Ville's inequality, and with alpha split over the facts, a canary that is no worse
/// reaches any of them with a probability below alpha.
pub(super) fn needed(alpha: f64) -> f64 {
    Fact::ALL.len() as f64 / (alpha * (1.0 - FAST_SHARE))
}

fn unknown_harm() -> PerFact<Harmed> {
    let unknown = Harmed::unknown;
    PerFact { failed: unknown(), stalled: unknown(), truncated: unknown(), late: unknown(), odd_length: unknown() }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
