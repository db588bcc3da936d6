use super::*;
use crate::config;
use crate::policy::canary::Arm;
use crate::proxy::process::rollout;
use crate::telemetry::record::ServerAddress;

fn assigned() -> Assigned {
    let text = "[[upstream]]\nname = \"a\"\nurl = \"http://a\"\n[[route]]\nname = \"chat\"\n\
                targets = [{ upstream = \"a\" }, { name = \"next\", upstream = \"a\" }]\ncanary = { target = \"next\" }\n";
    let no_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    let settings = config::parse(text, "test.toml", &|_| None, &no_file).unwrap();
    let rollout = rollout::build(&settings, None).remove("chat").unwrap();
    Assigned {
        rollout,
        sample: Sample { arm: Arm::Canary, unit: 1, epoch: 1, share: 50, at: Duration::ZERO, number: 0, origin: 0 },
        counts: true,
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A sample of a chat request that asks for a stream.
fn sample() -> CanarySample {
    let facts = RequestFacts::read("/v1/chat/completions", Some(b"{\"stream\":true}"));
    let mut sample = CanarySample::new(assigned(), &facts);
    sample.asked(ms(5));
    sample
}

fn attempt(upstream: &str, status: Option<u16>, error: Option<ErrorType>) -> Attempt {
    Attempt {
        upstream: upstream.into(),
        place: ServerAddress { endpoint: "127.0.0.1".into(), address: "127.0.0.1".into(), port: None, peer: None },
        span_id: 1,
        started: ms(10),
        ended: ms(60),
        reused_connection: false,
        status,
        error,
        cause: crate::telemetry::record::Cause::First,
    }
}

fn reading(first_token: Option<u64>) -> Reading {
    Reading { first_token: first_token.map(ms), token_frames: 12, ..Reading::default() }
}

fn concluded(sample: CanarySample) -> Option<FirstAttempt> {
    sample.conclude(ms(1_000)).map(|(_, attempt)| attempt)
}

#[test]
fn a_whole_answer_tells_everything() {
    let mut sample = sample();
    sample.attempted(&attempt("a", Some(200), None));
    sample.read(&reading(Some(110)));
    sample.apply(&Event::Ended(Outcome::Completed, None));
    let expected = FirstAttempt {
        failed: Some(false),
        stalled: Some(false),
        truncated: Some(false),
        first_token: Some(FirstToken::Came(ms(100))),
        output: Some(12),
    };
    assert_eq!(concluded(sample), Some(expected), "the first token counts from the attempt's start");
}

#[test]
fn failover_does_not_hide_a_failure() {
    for lost in [attempt("a", None, Some(ErrorType::ConnectRefused)), attempt("a", Some(503), None)] {
        let mut sample = sample();
        sample.attempted(&lost);
        sample.attempted(&attempt("b", Some(200), None));
        sample.read(&reading(Some(110)));
        sample.apply(&Event::Ended(Outcome::Completed, None));
        assert_eq!(concluded(sample).unwrap(), FirstAttempt::FAILED);
    }
}

#[test]
fn a_lost_idle_connection_is_no_failure_unless_nobody_is_asked_again() {
    let race = Attempt { reused_connection: true, ..attempt("a", None, Some(ErrorType::UpstreamReset)) };
    let mut again = sample();
    again.attempted(&race);
    again.attempted(&attempt("a", Some(200), None));
    again.apply(&Event::Ended(Outcome::Completed, None));
    assert_eq!(concluded(again).unwrap().failed, Some(false));

    let mut elsewhere = sample();
    elsewhere.attempted(&race);
    elsewhere.attempted(&attempt("b", Some(200), None));
    elsewhere.apply(&Event::Ended(Outcome::Completed, None));
    assert_eq!(concluded(elsewhere), Some(FirstAttempt::FAILED));

    let mut given_up = sample();
    given_up.attempted(&race);
    given_up.apply(&Event::Ended(Outcome::UpstreamError, Some(ErrorType::UpstreamReset)));
    assert_eq!(concluded(given_up), Some(FirstAttempt::FAILED));
}

#[test]
fn each_bad_end_is_its_own_fact() {
    let end = |outcome, error| {
        let mut sample = sample();
        sample.attempted(&attempt("a", Some(200), None));
        sample.read(&reading(Some(110)));
        sample.apply(&Event::Ended(outcome, Some(error)));
        let told = concluded(sample)?;
        Some((told.failed, told.stalled, told.truncated, told.output))
    };
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(end(Outcome::ErrorInStream, ErrorType::ErrorEvent), Some((yes, None, None, None)));
    assert_eq!(end(Outcome::Timeout, ErrorType::TotalTimeout), Some((yes, None, None, None)));
    assert_eq!(end(Outcome::Stalled, ErrorType::Stall), Some((no, yes, None, None)));
    assert_eq!(end(Outcome::Truncated, ErrorType::UpstreamBodyReset), Some((no, None, yes, None)));
    assert_eq!(end(Outcome::Truncated, ErrorType::MissingEnd), Some((no, None, yes, None)));
    assert_eq!(end(Outcome::ClientCancelled, ErrorType::ClientGone), Some((no, None, None, None)));
    assert_eq!(end(Outcome::Stopped, ErrorType::Draining), None, "our own doing");
    assert_eq!(end(Outcome::InternalError, ErrorType::Panic), None);
}

#[test]
fn whoever_goes_away_waiting_tells_how_long_it_was() {
    let mut before_the_head = sample();
    before_the_head.apply(&Event::Ended(Outcome::ClientCancelled, Some(ErrorType::ClientGone)));
    let expected = FirstAttempt { first_token: Some(FirstToken::NotWithin(ms(995))), ..FirstAttempt::default() };
    assert_eq!(concluded(before_the_head), Some(expected));

    let mut before_the_token = sample();
    before_the_token.attempted(&attempt("a", Some(200), None));
    before_the_token.read(&reading(None));
    before_the_token.apply(&Event::Ended(Outcome::ClientCancelled, Some(ErrorType::ClientGone)));
    let expected = FirstAttempt { first_token: Some(FirstToken::NotWithin(ms(990))), ..FirstAttempt::default() };
    assert_eq!(concluded(before_the_token), Some(expected));
}

#[test]
fn what_never_reached_an_upstream_says_nothing() {
    let mut refused = CanarySample::new(assigned(), &RequestFacts::default());
    refused.apply(&Event::Ended(Outcome::Rejected, None));
    assert_eq!(concluded(refused), None);

    let mut no_first_token = sample();
    no_first_token.attempted(&attempt("a", None, Some(ErrorType::FirstTokenTimeout)));
    no_first_token.apply(&Event::Ended(Outcome::Timeout, Some(ErrorType::FirstTokenTimeout)));
    let expected = FirstAttempt { first_token: Some(FirstToken::NotWithin(ms(50))), ..FirstAttempt::FAILED };
    assert_eq!(concluded(no_first_token), Some(expected));
}

#[test]
fn what_another_answers_in_place_of_a_target_that_is_down_is_not_its_merit() {
    let mut sample = sample();
    let attempts = vec![attempt("b", Some(200), None)];
    let passed_over = Some(PassedOver::Down);
    sample.apply(&Event::Attempted(Attempted { attempts, passed_on: Some(0), sent: true, passed_over }));
    sample.read(&reading(Some(110)));
    sample.apply(&Event::Ended(Outcome::Completed, None));
    assert_eq!(concluded(sample), Some(FirstAttempt::FAILED));
}
