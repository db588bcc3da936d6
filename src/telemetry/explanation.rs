//! Explains the numbers of a finished request in words: where its time went, and which side caused its end.

use std::time::Duration;

use super::record::{ErrorType, LimitVerdict, Outcome, Phase, Record};

/// Where nothing took longer than this, nothing is to be explained.
const QUICK: Duration = Duration::from_millis(250);

/// One or two sentences on `record`.
pub fn of(record: &Record) -> String {
    let mut words = ended(record);
    words.push(' ');
    words.push_str(&spent(record));
    if record.llm.as_ref().is_some_and(|llm| llm.reading.buffered) {
        words.push_str(" Its tokens came in bursts: something between the model and this proxy collected them.");
    }
    words
}

/// How it ended, and by whom.
fn ended(record: &Record) -> String {
    let upstream = record.served_by.as_ref().map_or("the upstream", |served_by| &*served_by.upstream);
    let had_token = record.llm.as_ref().is_some_and(|llm| llm.reading.first_token.is_some());
    match record.outcome {
        Outcome::Completed if record.attempts.len() > 1 => {
            format!("Answered by {upstream}, at attempt {}.", record.attempts.len())
        }
        Outcome::Completed => format!("Answered by {upstream}."),
        Outcome::Truncated => match record.error {
            Some(ErrorType::UpstreamBodyReset) => {
                format!("Broke off: {upstream} dropped the connection inside its answer.")
            }
            _ if record.limit.as_ref().is_some_and(|limit| limit.cut) => "Cut: its limit was used up.".to_owned(),
            _ => format!("Ended without its normal end: {upstream} closed early, or left the end marker out."),
        },
        Outcome::ErrorInStream => format!("{upstream} said inside the stream that something went wrong."),
        Outcome::Stalled => format!("{upstream} went silent after its first token, and was given up."),
        Outcome::Timeout if had_token => "Took longer in all than the route allows.".to_owned(),
        Outcome::Timeout => format!("{upstream} gave no first token in time."),
        Outcome::ClientCancelled if had_token => "The client went away while the answer came.".to_owned(),
        Outcome::ClientCancelled => "The client went away before the first token.".to_owned(),
        Outcome::UpstreamError => match record.attempts.len() {
            0 | 1 => format!("{upstream} failed: {}.", reason(record)),
            several => format!("All {several} attempts failed; the last: {}.", reason(record)),
        },
        Outcome::Rejected => match record.limit.as_ref().map(|limit| &limit.verdict) {
            Some(LimitVerdict::Denied { limit, reason: "cost_held" }) => {
                format!("Refused: what the limit {limit} has left is held for requests that run, and not spent.")
            }
            Some(LimitVerdict::Denied { limit, .. }) => format!("Refused: the limit {limit} is used up."),
            _ => format!("Refused: {}.", reason(record)),
        },
        Outcome::Stopped if record.error == Some(ErrorType::ForcedStop) => {
            "Cut off when the operator had this proxy exit at once.".to_owned()
        }
        Outcome::Stopped if record.error == Some(ErrorType::KeyRevoked) => {
            "Cut off when the operator revoked its key.".to_owned()
        }
        Outcome::Stopped => "Cut off when this proxy went down.".to_owned(),
        Outcome::InternalError => "This proxy failed: its log says more.".to_owned(),
    }
}

fn reason(record: &Record) -> String {
    match (record.error, record.status) {
        (Some(ErrorType::UpstreamStatus), Some(status)) => format!("status {status}"),
        (Some(error), _) => error.as_str().replace('_', " "),
        (None, Some(status)) => format!("status {status}"),
        (None, None) => "no reason known".to_owned(),
    }
}

/// Whose time it was.
fn spent(record: &Record) -> String {
    let total = record.duration;
    let all = |phases: &[Phase]| phases.iter().map(|phase| record.phases.get(*phase)).sum::<Duration>();
    let model = all(&[Phase::UpstreamWait, Phase::Preamble, Phase::Generation]);
    let first = all(&[Phase::UpstreamWait, Phase::Preamble]);
    let shares = [
        (model, Phase::Generation),
        (all(&[Phase::ClientBlocked]), Phase::ClientBlocked),
        (all(&[Phase::Receive]), Phase::Receive),
        (all(&[Phase::FailedAttempts]), Phase::FailedAttempts),
        (all(&[Phase::Connect]), Phase::Connect),
        (all(&[Phase::Admit, Phase::Proxy]), Phase::Proxy),
    ];
    let Some((time, most)) = shares.into_iter().max_by_key(|(time, _)| *time) else { return String::new() };
    let whole = seconds(total);
    if total < QUICK {
        return format!("All of it took {whole}.");
    }
    let part = format!("{} of {whole}", seconds(time));
    match most {
        Phase::Generation if first * 2 > model => {
            format!("The model was slow to begin: {} of {whole} waiting for its first token.", seconds(first))
        }
        Phase::Generation => format!("Most of the time the model was writing: {} of {whole}.", seconds(model - first)),
        Phase::ClientBlocked => format!("The client was slow: {part} waiting for it to take bytes."),
        Phase::Receive => format!("The client's upload took {part}."),
        Phase::FailedAttempts => format!("Attempts that were replaced took {part}."),
        Phase::Connect => format!("Getting a connection took {part}."),
        _ => format!("This proxy was slow: {part}."),
    }
}

/// `35 ms`, `3.1 s`, `2 min 5 s`.
fn seconds(time: Duration) -> String {
    match time.as_millis() {
        millis @ 0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{:.1} s", time.as_secs_f64()),
        _ => format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::record::{Attempt, LimitInfo, Phases};
    use crate::telemetry::records_for_tests::{attempt, chat, ms, plain};

    fn spending(parts: &[(Phase, u64)]) -> Record {
        let mut record = chat("m");
        record.phases = Phases::default();
        parts.iter().for_each(|(phase, time)| record.phases.add(*phase, ms(*time)));
        record.duration = record.phases.total();
        record
    }

    #[test]
    fn it_says_whose_time_it_was() {
        let cases: [(&[(Phase, u64)], &str); 7] = [
            (
                &[(Phase::UpstreamWait, 2_100), (Phase::Preamble, 1_000), (Phase::Generation, 300)],
                "Answered by fastapi. The model was slow to begin: 3.1 s of 3.4 s waiting for its first token.",
            ),
            (
                &[(Phase::UpstreamWait, 100), (Phase::Generation, 9_000)],
                "Answered by fastapi. Most of the time the model was writing: 9.0 s of 9.1 s.",
            ),
            (
                &[(Phase::ClientBlocked, 1_531), (Phase::Generation, 300)],
                "Answered by fastapi. The client was slow: 1.5 s of 1.8 s waiting for it to take bytes.",
            ),
            (
                &[(Phase::Receive, 125_000), (Phase::Generation, 300)],
                "Answered by fastapi. The client's upload took 2 min 5 s of 2 min 5 s.",
            ),
            (
                &[(Phase::FailedAttempts, 700), (Phase::Generation, 300)],
                "Answered by fastapi. Attempts that were replaced took 700 ms of 1.0 s.",
            ),
            (
                &[(Phase::Admit, 400), (Phase::Proxy, 300)],
                "Answered by fastapi. This proxy was slow: 700 ms of 700 ms.",
            ),
            (&[(Phase::Generation, 100)], "Answered by fastapi. All of it took 100 ms."),
        ];
        for (parts, words) in cases {
            assert_eq!(of(&spending(parts)), words);
        }
    }

    #[test]
    fn it_says_how_it_ended() {
        let of = |outcome, error| {
            let mut record = plain();
            (record.outcome, record.error) = (outcome, error);
            super::of(&record)
        };
        for (outcome, error, words) in [
            (Outcome::Truncated, Some(ErrorType::UpstreamBodyReset), "fastapi dropped the connection"),
            (Outcome::Truncated, Some(ErrorType::MissingEnd), "without its normal end"),
            (Outcome::ErrorInStream, Some(ErrorType::ErrorEvent), "inside the stream"),
            (Outcome::Stalled, Some(ErrorType::Stall), "went silent"),
            (Outcome::Timeout, Some(ErrorType::FirstTokenTimeout), "no first token in time"),
            (Outcome::ClientCancelled, Some(ErrorType::ClientGone), "before the first token"),
            (Outcome::UpstreamError, Some(ErrorType::ConnectRefused), "fastapi failed: connect refused."),
            (Outcome::Rejected, Some(ErrorType::NoRoute), "Refused: no route."),
            (Outcome::InternalError, Some(ErrorType::Panic), "its log says more"),
        ] {
            assert!(of(outcome, error).contains(words), "{}", of(outcome, error));
        }
        let mut record = plain();
        record.outcome = Outcome::Rejected;
        let verdict = LimitVerdict::Denied { limit: "per-user".into(), reason: "tokens" };
        record.limit = Some(LimitInfo {
            at: ms(1),
            verdict,
            mode: "memory",
            names: Vec::new(),
            waited: Duration::ZERO,
            reserved: 0,
            prompt_counted: None,
            used: 0,
            remaining: None,
            cut: false,
        });
        assert!(super::of(&record).starts_with("Refused: the limit per-user is used up."));
        let mut record = chat("m");
        record.attempts =
            vec![Attempt { error: Some(ErrorType::ConnectRefused), ..attempt("a", 1) }, attempt("fastapi", 2)];
        record.llm.as_mut().unwrap().reading.buffered = true;
        let words = super::of(&record);
        assert!(
            words.starts_with("Answered by fastapi, at attempt 2.") && words.ends_with("collected them."),
            "{words}"
        );
    }
}
