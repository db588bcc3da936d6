//! How a rollout stands, in numbers and in words.

use std::time::Duration;

use super::decision::{Decision, Finding, Reason};
use super::doubt::Comparison;
use super::fact_history::{FactHistory, Seen};
use super::facts::Fact;
use super::judge::{Judge, Stage};
use crate::config::canary::Canary;

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running,
    Paused,
    /// At its last step, which is not all requests: judged for as long as it lasts.
    Watching,
    Promoted,
    RolledBack,
}

impl State {
    /// The word in the admin API and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Watching => "watching",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled back",
        }
    }
}

/// One fact, and what it is measured by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FactReport {
    pub finding: Finding,
    /// This step's counts.
    pub step: Comparison,
    /// The objective of `late`, the band of `odd_length`; `None` while it is being learnt, and for the others.
    pub bounds: Option<Bounds>,
    /// The canary's requests of which it was true: all of them, however many are one user's.
    pub seen: Option<Seen>,
    /// Since when the evidence has been enough to take no further step; since 1970.
    pub worse_since: Option<Duration>,
}

/// What separates yes from no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounds {
    FirstToken(Duration),
    /// Tokens.
    Length {
        low: u64,
        high: u64,
    },
}

/// How a rollout stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub state: State,
    /// The canary's share of requests, in percent.
    pub share: u8,
    /// The share to come, while there is one.
    pub next_share: Option<u8>,
    /// Canary requests of this step so far.
    pub step_requests: u64,
    /// The baseline's, and how many of them the step needs.
    pub step_baseline_requests: u64,
    pub baseline_requests_min: u64,
    /// How long this step has lasted.
    pub step_age: Duration,
    pub facts: Vec<FactReport>,
    /// The last ones, oldest first; at most 16.
    pub decisions: Vec<Decision>,
    /// What happens next, as a sentence.
    pub next: String,
}

impl Judge {
    /// How the rollout stands at `now`, counted from 1970.
    #[must_use]
    pub fn report(&self, plan: &Canary, now: Duration) -> Report {
        let next_share = match self.stage {
            Stage::Running { step } => plan.steps.get(step + 1).copied(),
            Stage::Promoted | Stage::RolledBack => None,
        };
        let state = match (self.stage, next_share) {
            (Stage::Promoted, _) => State::Promoted,
            (Stage::RolledBack, _) => State::RolledBack,
            (Stage::Running { .. }, _) if self.paused => State::Paused,
            (Stage::Running { .. }, None) => State::Watching,
            (Stage::Running { .. }, Some(_)) => State::Running,
        };
        let facts: Vec<FactReport> = Fact::ALL.into_iter().map(|fact| self.fact_report(plan, fact)).collect();
        let step_age = now.saturating_sub(self.since);
        let mut report = Report {
            state,
            share: self.share(plan),
            next_share,
            step_requests: self.step_requests,
            step_baseline_requests: self.step_baseline_requests,
            baseline_requests_min: self.baseline_requests_min(plan),
            step_age,
            facts,
            decisions: self.decisions.iter().copied().collect(),
            next: String::new(),
        };
        report.next = report.next_words(plan, self.harm_of_one(plan).or_else(|| self.objection(plan)));
        report
    }

    fn fact_report(&self, plan: &Canary, fact: Fact) -> FactReport {
        let FactHistory { seen, worse_since } = *self.trails.get(fact);
        let (finding, step) = (self.finding(plan, fact), self.comparison(fact));
        FactReport { finding, step, bounds: self.bounds(plan, fact), seen, worse_since }
    }

    fn bounds(&self, plan: &Canary, fact: Fact) -> Option<Bounds> {
        match fact {
            Fact::Failed | Fact::Stalled | Fact::Truncated => None,
            Fact::Late => self.objective(plan).map(Bounds::FirstToken),
            Fact::OddLength => self.length.bounds().map(|(low, high)| Bounds::Length { low, high }),
        }
    }
}

impl Report {
    /// `objection`: why no step is taken now, so far as it is for harm.
    fn next_words(&self, plan: &Canary, objection: Option<Reason>) -> String {
        let share = self.share;
        if let (State::Running | State::Watching, Some(reason @ Reason::Alone { .. })) = (self.state, objection) {
            return format!("It stays at {share} %: {reason}.");
        }
        match (self.state, self.next_share) {
            (State::Promoted, _) => {
                "All requests go to the canary. Make it the route's only target, and take `canary` out.".to_owned()
            }
            (State::RolledBack, _) => {
                "No request goes to the canary. Repair it and `resume`, which starts anew, or take it out.".to_owned()
            }
            (State::Paused, _) => {
                format!("It stays at {share} % until `resume`; harm still rolls it back.")
            }
            (State::Watching, _) | (State::Running, None) => {
                format!("It stays at {share} %, its last step; harm rolls it back.")
            }
            (State::Running, Some(next)) => self.until_next(plan, next, objection),
        }
    }

    fn until_next(&self, plan: &Canary, next: u8, objection: Option<Reason>) -> String {
        let share = self.share;
        match objection {
            Some(Reason::Doubt(comparison)) => {
                return format!("It stays at {share} % for as long as that is hardly chance: {comparison}.");
            }
            Some(Reason::Suspicion(worst)) => {
                return format!("It stays at {share} % for as long as there is suspicion: {worst}.");
            }
            _ => {}
        }
        let canary = plan.min_requests.saturating_sub(self.step_requests);
        let baseline = self.baseline_requests_min.saturating_sub(self.step_baseline_requests);
        let time = plan.step_time.saturating_sub(self.step_age);
        let requests = match (canary, baseline) {
            (0, 0) => None,
            (_, 0) => Some(format!("{canary} more canary requests")),
            (0, _) => Some(format!("{baseline} more baseline requests")),
            (_, _) => Some(format!("{canary} more canary and {baseline} more baseline requests")),
        };
        let waits_for = match (requests, time.is_zero()) {
            (None, true) => "with the next request".to_owned(),
            (None, false) => format!("in {}", seconds(time)),
            (Some(requests), true) => format!("after {requests}"),
            (Some(requests), false) => format!("after {requests}, and not before {} from now", seconds(time)),
        };
        format!("{next} % {waits_for}, if they show no harm.")
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs() + u64::from(time.subsec_nanos() > 0))
}
