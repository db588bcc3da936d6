//! What a judge, or a person, decides about a canary, and the words for it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::doubt::Comparison;
use super::evidence::Pair;
use super::facts::Fact;
use super::streak::Broken;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A rollout begins.
    Start,
    /// The next step, and a larger share.
    Step,
    /// The next step is due, and is not taken.
    Hold,
    /// All requests go to the canary.
    Promote,
    /// No request goes to the canary.
    RollBack,
    Pause,
    Resume,
}

impl Kind {
    pub const ALL: [Self; 7] =
        [Self::Start, Self::Step, Self::Hold, Self::Promote, Self::RollBack, Self::Pause, Self::Resume];

    /// The word used in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Step => "step",
            Self::Hold => "hold",
            Self::Promote => "promote",
            Self::RollBack => "roll_back",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    Judge,
    /// A person, at the admin address.
    Operator,
}

impl By {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Judge => "judge",
            Self::Operator => "operator",
        }
    }
}

/// The numbers behind a word about one fact.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    pub fact: Fact,
    /// The e-value; 1 is none.
    pub evidence: f64,
    /// From which on the canary is rolled back.
    pub needed: f64,
    pub requests: Pair,
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The configuration has a new canary.
    New,
    /// So many canary requests of the step, and no fact against it.
    Clean {
        requests: u64,
        /// What came nearest to harm; `None`: no request showed any, or an older version stored it.
        #[serde(default)]
        nearest: Option<Comparison>,
    },
    /// Too little to roll back, too much to go on.
    Suspicion(Finding),
    /// The step's plain counts: too much to go on.
    Doubt(Comparison),
    Harm(Finding),
    Broken(Broken),
    /// Enough to roll back, and only one of several replicas sees it: more likely its network than the canary.
    Alone {
        finding: Finding,
        origin: u64,
    },
    /// A person asked for it.
    Asked,
}

/// One decision.
#[must_use = "a decision is to be acted on and told"]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Since 1970.
    pub at: Duration,
    pub kind: Kind,
    pub by: By,
    /// The canary's share before and after, in percent.
    pub from: u8,
    pub to: u8,
    pub reason: Reason,
}

impl Decision {
    /// The fact that it rests on, where it rests on one.
    pub fn fact(&self) -> Option<Fact> {
        match &self.reason {
            Reason::Suspicion(finding) | Reason::Harm(finding) | Reason::Alone { finding, .. } => Some(finding.fact),
            Reason::Doubt(comparison) => Some(comparison.fact),
            Reason::New | Reason::Clean { .. } | Reason::Broken(_) | Reason::Asked => None,
        }
    }

    /// The evidence that it rests on, where it rests on some.
    pub fn finding(&self) -> Option<&Finding> {
        match &self.reason {
            Reason::Suspicion(finding) | Reason::Harm(finding) | Reason::Alone { finding, .. } => Some(finding),
            Reason::New | Reason::Clean { .. } | Reason::Doubt(_) | Reason::Broken(_) | Reason::Asked => None,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, .. } = self;
        match self.kind {
            Kind::Start => write!(f, "started at {to} %"),
            Kind::Step => write!(f, "raised from {from} % to {to} %"),
            Kind::Hold => write!(f, "held at {to} %"),
            Kind::Promote => write!(f, "promoted from {from} % to {to} %"),
            Kind::RollBack => write!(f, "rolled back from {from} % to {to} %"),
            Kind::Pause => write!(f, "paused at {to} %"),
            Kind::Resume => write!(f, "resumed at {to} %"),
        }?;
        write!(f, ": {}", self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("the configuration has a new canary, or another target or step"),
            Self::Clean { requests, nearest: None } => write!(f, "{requests} of its requests showed no harm"),
            Self::Clean { requests, nearest: Some(nearest) } => {
                write!(f, "{requests} of its requests showed no more harm than chance or one user explains: {nearest}")
            }
            Self::Doubt(comparison) => write!(f, "{comparison}"),
            Self::Suspicion(finding) => write!(f, "it may do harm: {finding}"),
            Self::Harm(finding) => write!(f, "it does harm: {finding}"),
            Self::Broken(broken) => write!(
                f,
                "it failed {} times in a row, while {} requests in a row succeeded on the baseline",
                broken.failures, broken.successes
            ),
            Self::Alone { finding, origin } => {
                write!(f, "replica {origin:016x} alone sees harm, so it may be its network: {finding}")
            }
            Self::Asked => f.write_str("asked for by an operator"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pair { baseline, canary } = self.requests;
        write!(
            f,
            "{} of {} canary requests {}, and {} of {} on the baseline (evidence {}, enough is {})",
            canary.yes,
            canary.of,
            self.fact.words(),
            baseline.yes,
            baseline.of,
            short(self.evidence),
            short(self.needed)
        )
    }
}

/// A number as people read it.
fn short(number: f64) -> String {
    match number {
        _ if number >= 1e6 => format!("{number:.1e}"),
        _ if number >= 10.0 => format!("{number:.0}"),
        _ => format!("{number:.2}"),
    }
}

/// What a person may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// All requests to the canary, at once.
    Promote,
    /// None to the canary, at once.
    RollBack,
    /// Take no further step. Harm still rolls back.
    Pause,
    /// Go on; a canary that was rolled back starts anew.
    Resume,
}

impl Command {
    pub const ALL: [Self; 4] = [Self::Promote, Self::RollBack, Self::Pause, Self::Resume];

    /// The word in addresses and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::RollBack => "rollback",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// Why a command changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the canary is promoted already: all requests go to it")]
    Promoted,
    #[error("the canary is rolled back already; `resume` starts it anew, `promote` sends it everything")]
    RolledBack,
    #[error("the rollout is over: there is nothing to pause")]
    Over,
    #[error("the rollout is paused already; `resume` goes on")]
    Paused,
    #[error("the rollout is not paused")]
    NotPaused,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::canary::Tally;

    #[test]
    fn decisions_speak_plainly() {
        let finding = Finding {
            fact: Fact::Failed,
            evidence: 1234.5,
            needed: 526.3,
            requests: Pair { baseline: Tally { yes: 2, of: 900 }, canary: Tally { yes: 12, of: 110 } },
        };
        let decision = Decision {
            at: Duration::ZERO,
            kind: Kind::RollBack,
            by: By::Judge,
            from: 5,
            to: 0,
            reason: Reason::Harm(finding),
        };
        assert_eq!(
            decision.to_string(),
            "rolled back from 5 % to 0 %: it does harm: 12 of 110 canary requests failed, and 2 of 900 on the baseline \
             (evidence 1234, enough is 526)"
        );
        let json = serde_json::to_string(&decision).unwrap();
        assert_eq!(serde_json::from_str::<Decision>(&json).unwrap(), decision);
    }

    #[test]
    fn no_harm_is_said_only_where_none_was_seen() {
        let raised = |nearest| Reason::Clean { requests: 20, nearest };
        assert_eq!(raised(None).to_string(), "20 of its requests showed no harm");
        let requests = Pair { baseline: Tally { yes: 0, of: 21 }, canary: Tally { yes: 1, of: 20 } };
        let some = raised(Some(Comparison::new(Fact::Failed, requests, 1)));
        assert_eq!(
            some.to_string(),
            "20 of its requests showed no more harm than chance or one user explains: 1 of 20 failed, of the baseline's 0 of 21"
        );
        let stored: Reason = serde_json::from_str(r#"{"clean":{"requests":20}}"#).unwrap();
        assert_eq!(stored, raised(None), "of an older version");
    }
}
