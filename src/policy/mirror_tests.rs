use proptest::prelude::*;

use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn answer() -> Side {
    Side {
        status: Some(200),
        whole: true,
        first_token: Some(ms(200)),
        output: Some(100),
        finish_reasons: vec!["stop".into()],
    }
}

fn differences(copy: &Side) -> Vec<&'static str> {
    compare(&answer(), copy).1.into_iter().map(Difference::as_str).collect()
}

#[test]
fn equal_answers_are_the_same_in_any_dialect() {
    assert_eq!(compare(&answer(), &answer()), (Verdict::Same, Vec::new()));
    for (ours, theirs) in [("stop", "end_turn"), ("length", "MAX_TOKENS"), ("tool_calls", "tool_use")] {
        let side = |reason: &str| Side { finish_reasons: vec![reason.into()], ..answer() };
        assert_eq!(compare(&side(ours), &side(theirs)).0, Verdict::Same, "{ours} {theirs}");
    }
}

#[test]
fn differences_are_those_that_users_would_notice() {
    let cases = [
        (Side { first_token: Some(ms(400)), ..answer() }, vec![]),
        (Side { first_token: Some(ms(401)), ..answer() }, vec!["first_token"]),
        (Side { first_token: Some(ms(1)), ..answer() }, vec![]),
        (Side { first_token: None, ..answer() }, vec![]),
        (Side { output: Some(200), ..answer() }, vec![]),
        (Side { output: Some(201), ..answer() }, vec!["length"]),
        (Side { output: Some(49), ..answer() }, vec!["length"]),
        (Side { output: None, ..answer() }, vec![]),
        (Side { finish_reasons: vec!["length".into()], ..answer() }, vec!["finish_reason"]),
        (Side { status: Some(500), ..Side::default() }, vec![]),
        (Side { status: Some(404), whole: true, ..Side::default() }, vec!["status"]),
    ];
    for (copy, expected) in cases {
        assert_eq!(differences(&copy), expected, "{copy:?}");
    }
    let short = |output| Side { output: Some(output), ..answer() };
    assert!(compare(&short(1), &short(17)).1.is_empty(), "a few words more are nothing");
}

#[test]
fn a_copy_fails_where_only_the_client_had_an_answer() {
    let broken = Side { whole: false, ..answer() };
    assert_eq!(compare(&answer(), &broken).0, Verdict::Failed);
    assert_eq!(compare(&answer(), &Side::default()).0, Verdict::Failed);
    assert_eq!(compare(&broken, &broken).0, Verdict::Same, "both broke off");
    assert_eq!(compare(&Side { status: Some(503), ..broken }, &answer()).0, Verdict::Differs, "the copy did better");
}

#[test]
fn the_share_of_requests_is_as_written() {
    assert!(is_drawn(1.0, u64::MAX) && is_drawn(1.0, 0) && is_drawn(0.5, u64::MAX / 2));
    assert!(!is_drawn(0.5, u64::MAX / 2 + 4096) && !is_drawn(0.0, 0));
}

fn caps(concurrent: usize, tokens_per_minute: u64) -> Arc<Limit> {
    let text = format!(
        "[[upstream]]\nname = \"a\"\nurl = \"http://a\"\n[[route]]\nupstream = \"a\"\nshadow = {{ upstream = \"a\", percent = 1, \
         concurrent = {concurrent}, tokens_per_minute = {tokens_per_minute} }}\n"
    );
    let no_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    let settings = crate::config::parse(&text, "test.toml", &|_| None, &no_file).unwrap();
    caps_of(settings.routes[0].shadow.as_ref().unwrap())
}

fn request(max_tokens: u64) -> Request<'static> {
    Request { model: Some("m"), holder: "", body_bytes: 0, counted: None, max_tokens: Some(max_tokens), answers: 1 }
}

#[test]
fn copies_are_bounded_in_number_and_in_tokens() {
    let (mut held, limit) = (Caps::default(), caps(2, 1_000));
    let first = held.take(&limit, &request(100), ms(0)).unwrap();
    let second = held.take(&limit, &request(100), ms(0)).unwrap();
    assert!(held.take(&limit, &request(100), ms(0)).is_none(), "two at one time");
    held.give_back(first, Some("m"), Took { output: Some(900), ..Took::default() }, ms(0));
    assert!(held.take(&limit, &request(100), ms(0)).is_none(), "900 are spent, 100 held");
    held.give_back(second, Some("m"), Took::default(), ms(0));
    assert!(held.take(&limit, &request(100), ms(0)).is_some(), "what was broken off took nothing");
    assert!(held.take(&limit, &request(1_001), ms(600_000)).is_none(), "more than ever fits");
}

proptest! {
    /// Whatever copies turn out to take: once all have ended no place is lost, and a minute later there is room again.
    #[test]
    fn no_place_is_lost(took in proptest::collection::vec((0_u64..3_000, any::<bool>()), 1..50)) {
        let (mut held, limit) = (Caps::default(), caps(5, 10_000));
        let mut now = ms(0);
        let mut open = Vec::new();
        for (output, ends) in took {
            now += ms(100);
            open.extend(held.take(&limit, &request(500), now));
            prop_assert!(open.len() <= 5);
            if ends && let Some(claim) = open.pop() {
                held.give_back(claim, Some("m"), Took { output: Some(output), reported: true, ..Took::default() }, now);
            }
        }
        for claim in open {
            held.give_back(claim, None, Took::default(), now);
        }
        now += Duration::from_secs(60 * 60);
        let again: Vec<_> = (0..6).filter_map(|_| held.take(&limit, &request(500), now)).collect();
        prop_assert_eq!(again.len(), 5);
    }
}
