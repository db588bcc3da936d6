//! The record of a mirrored copy. A copy is no client's request: the request's own numbers do not include it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::record::{Attempt, ErrorType, Outcome, Record, TraceIds};
use crate::llm::Reading;
use crate::llm::price::Cost;
use crate::policy::mirror::{Difference, Side, Verdict};

/// Everything that is told about one copy whose answer was compared.
#[derive(Debug, Clone)]
pub struct MirrorRecord {
    /// Of the client's request, as its trace.
    pub request_id: Arc<str>,
    pub trace: TraceIds,
    /// Wall clock at the zero of the attempts' times.
    pub started: SystemTime,
    pub route: Arc<str>,
    pub variant: Arc<str>,
    /// One, or two where a kept connection turned out to be closed.
    pub attempts: Vec<Attempt>,
    pub duration: Duration,
    /// The answer that the client got.
    pub client: Side,
    /// The copy's.
    pub copy: Side,
    pub verdict: Verdict,
    pub differences: Vec<Difference>,
    /// Of the copy.
    pub cost: Option<Cost>,
}

/// An answer as it is compared; `began` is when its attempt did, on the clock of its times.
pub fn side(status: Option<u16>, whole: bool, reading: Option<&Reading>, began: Duration) -> Side {
    Side {
        status,
        whole,
        first_token: reading.and_then(|reading| reading.first_token).map(|at| at.saturating_sub(began)),
        output: reading.and_then(|reading| reading.usage.output),
        finish_reasons: reading
            .map(|reading| reading.finish_reasons.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
    }
}

/// The client's answer as it is compared; `None` where nobody saw how it would have ended.
pub fn side_of_client(record: &Record) -> Option<Side> {
    let seen = !matches!(
        record.outcome,
        Outcome::ClientCancelled | Outcome::Rejected | Outcome::InternalError | Outcome::Stopped
    );
    let reading = record.llm.as_ref().map(|llm| &llm.reading);
    let upstream = record.served_by.as_ref().map(|served_by| &served_by.upstream);
    // Of several attempts at it the last was passed on, unless it lost the race.
    let lost_the_race = |attempt: &&Attempt| attempt.error == Some(ErrorType::HedgeLost);
    let mut attempts = record.attempts.iter().rev().filter(|attempt| !lost_the_race(attempt));
    let attempt = attempts.find(|attempt| Some(&attempt.upstream) == upstream)?;
    let whole = record.outcome == Outcome::Completed || attempt.error == Some(ErrorType::UpstreamStatus);
    seen.then(|| side(attempt.status, whole, reading, attempt.started))
}
