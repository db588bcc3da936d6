//! Tail sampling: which requests are exported although they were not sampled.

use std::time::Duration;

use super::record::{Outcome, Record};

/// What is slow enough to be exported though it was not sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowRules {
    /// Until the first token.
    pub first_token: Duration,
    /// Between two token frames.
    pub gap: Duration,
}

/// Why a request that was not sampled is exported at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SampleReason {
    Failed,
    SlowFirstToken,
    SlowGap,
    /// Its end made the judge of a canary decide.
    CanaryDecision,
}

impl SampleReason {
    /// Looks at a request that was not sampled. What a client did wrong or broke off is no failure; nor is an upstream's
    /// 4xx, which a scanner could ask for at will, unless it answers an LLM request.
    pub(super) fn reason(record: &Record, slow: SlowRules) -> Option<Self> {
        let refused = record.status.is_some_and(|status| (400..500).contains(&status)) && record.status != Some(429);
        let failed = match record.outcome {
            Outcome::Completed => refused && record.llm.is_some(),
            Outcome::ClientCancelled | Outcome::Rejected => false,
            Outcome::UpstreamError => !refused || record.llm.is_some(),
            Outcome::Truncated
            | Outcome::ErrorInStream
            | Outcome::Stalled
            | Outcome::Timeout
            | Outcome::Stopped
            | Outcome::InternalError => true,
        };
        let reading = record.llm.as_ref().map(|llm| &llm.reading);
        if failed {
            Some(Self::Failed)
        } else if reading.and_then(|reading| reading.first_token).is_some_and(|time| time > slow.first_token) {
            Some(Self::SlowFirstToken)
        } else if reading.and_then(|reading| reading.max_gap).is_some_and(|gap| gap > slow.gap) {
            Some(Self::SlowGap)
        } else if record.canary.is_some() {
            Some(Self::CanaryDecision)
        } else {
            None
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::SlowFirstToken => "slow_first_token",
            Self::SlowGap => "slow_gap",
            Self::CanaryDecision => "canary_decision",
        }
    }
}
