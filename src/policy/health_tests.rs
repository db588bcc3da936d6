use proptest::prelude::*;

use super::*;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An attempt that began and ended `now`.
fn note(health: &mut Health, sign: Sign, now: Duration, may_eject: bool) -> Option<Down> {
    down(health.note(Verdict { sign, began: now, under_way: None }, now, may_eject))
}

fn down(change: Option<Change>) -> Option<Down> {
    match change {
        Some(Change::Down(down)) => Some(down),
        _ => None,
    }
}

fn fail(health: &mut Health, times: u32, sign: Sign, now: Duration) -> Option<Down> {
    (0..times).filter_map(|_| note(health, sign, now, true)).last()
}

#[test]
fn five_failures_in_a_row_take_an_endpoint_out() {
    for (sign, reason) in [(Sign::Unreachable, Reason::Unreachable), (Sign::Faulty, Reason::Faulty)] {
        let mut health = Health::default();
        assert_eq!(fail(&mut health, 4, sign, s(1)), None);
        assert_eq!(note(&mut health, Sign::Well, s(1), true), None);
        assert_eq!(fail(&mut health, 4, sign, s(1)), None, "the row was broken");
        assert_eq!(
            note(&mut health, sign, s(2), true),
            Some(Down { reason, since: s(2), until: s(12), ejected: true })
        );
        assert_eq!((health.gate(s(11)), health.is_up(s(11)), health.is_ejected(s(11))), (Gate::Shut, false, true));
    }
}

#[test]
fn failures_to_connect_and_failed_answers_are_two_rows() {
    let mut health = Health::default();
    fail(&mut health, 4, Sign::Unreachable, s(1));
    assert_eq!(fail(&mut health, 4, Sign::Faulty, s(1)), None);
    assert_eq!(health.gate(s(1)), Gate::Open);
}

#[test]
fn half_open_lets_one_through() {
    let mut health = Health::default();
    fail(&mut health, 5, Sign::Faulty, s(0));
    assert_eq!(health.gate(s(10)), Gate::Probe);
    health.probe(s(10));
    assert_eq!(health.gate(s(10)), Gate::Shut, "one at a time");
    assert_eq!(health.gate(s(40)), Gate::Probe, "a stream of minutes does not keep the next from finding out");
    health.probe_over();
    assert_eq!(health.gate(s(11)), Gate::Probe, "it told nothing: another may try");
    health.probe(s(11));
    let again = note(&mut health, Sign::Faulty, s(12), true).unwrap();
    assert_eq!(again.until, s(12 + 20), "the second ejection takes twice as long");
    health.probe(s(32));
    let well = Verdict { sign: Sign::Well, began: s(32), under_way: None };
    assert_eq!(health.note(well, s(33), true), Some(Change::Up { away: s(33) }), "from the first of its ejections on");
    assert_eq!((health.gate(s(33)), health.is_up(s(33))), (Gate::Open, true));
}

#[test]
fn one_that_may_not_be_ejected_is_down_and_still_takes_requests() {
    let mut health = Health::default();
    for _ in 0..4 {
        note(&mut health, Sign::Unreachable, s(0), false);
    }
    assert_eq!(note(&mut health, Sign::Unreachable, s(0), false).map(|down| down.ejected), Some(false));
    assert_eq!((health.gate(s(1)), health.is_up(s(1)), health.is_ejected(s(1))), (Gate::Open, false, false));
    note(&mut health, Sign::Well, s(2), false);
    assert!(health.is_up(s(2)));
}

#[test]
fn what_was_sent_before_an_ejection_does_not_end_it() {
    let mut health = Health::default();
    fail(&mut health, 5, Sign::Faulty, s(0));
    note(&mut health, Sign::Well, s(1), true);
    assert_eq!(health.gate(s(2)), Gate::Shut);
}

#[test]
fn half_of_many_requests_failing_is_too_many() {
    let mut health = Health::default();
    let mut out = None;
    for at in 0..20 {
        out = note(&mut health, if at % 2 == 0 { Sign::Well } else { Sign::Faulty }, s(1), true);
    }
    assert_eq!(out.map(|down| down.reason), Some(Reason::FailureShare));
    let one_in_two = |at: u64| if at.is_multiple_of(2) { Sign::Well } else { Sign::Faulty };
    let mut slow = Health::default();
    let out = (0..40).find(|at| note(&mut slow, one_in_two(*at), s(at * 10), true).is_some());
    assert_eq!(out, Some(19), "few requests are looked at for longer");
    let mut rare = Health::default();
    assert!(
        (0..100).all(|at| note(&mut rare, one_in_two(at), s(at * 40), true).is_none()),
        "fewer than 20 in 10 minutes"
    );
}

#[test]
fn the_share_is_of_the_last_half_minute_where_that_is_enough() {
    let mut health = Health::default();
    for at in 0..1_000 {
        assert_eq!(note(&mut health, Sign::Well, s(at / 10), true), None);
    }
    let failing = |at: u64| if at.is_multiple_of(3) { Sign::Well } else { Sign::Faulty };
    let out = (0..1_000).find(|at| note(&mut health, failing(*at), s(100 + at / 10), true).is_some());
    assert!(
        out.is_some_and(|at| (150..300).contains(&at)),
        "two in three are half of the last 30 s within 30 s: {out:?}"
    );
}

#[test]
fn a_first_token_breaks_no_row() {
    let mut health = Health::default();
    let mut out = None;
    for at in 0..5 {
        let under_way = Some(health.begins());
        assert!(out.is_none());
        out = health.note(Verdict { sign: Sign::Faulty, began: s(at), under_way }, s(at), true);
    }
    assert_eq!(down(out).map(|down| down.reason), Some(Reason::Faulty));
}

#[test]
fn failures_that_are_told_sooner_than_answers_are_no_row_of_failures() {
    // Nine of ten answers take a minute, one fails at once.
    let mut health = Health::default();
    let mut under_way = std::collections::VecDeque::new();
    for at in 0..600 {
        if at % 10 == 9 {
            assert_eq!(note(&mut health, Sign::Faulty, s(at), true), None, "at {at} s");
        } else {
            under_way.push_back((at, health.begins()));
        }
        if let Some((began, answer)) = under_way.pop_front_if(|(began, _)| *began + 60 <= at) {
            let verdict = Verdict { sign: Sign::Well, began: s(began), under_way: Some(answer) };
            assert_eq!(health.note(verdict, s(at), true), None);
        }
    }
}

#[test]
fn since_when_is_told_and_what_was_asked_before_counts_no_more() {
    let mut health = Health::default();
    note(&mut health, Sign::Faulty, s(1), true);
    assert_eq!(health.failures(s(2)), Some(Failures { first: s(1), last: s(1), count: 1 }));
    assert_eq!(health.failures(s(302)), None, "long ago");
    fail(&mut health, 4, Sign::Faulty, s(400));
    fail(&mut health, 1, Sign::Faulty, s(410));
    assert_eq!(health.down().map(|down| (down.since, down.until)), Some((s(400), s(430))));
    assert_eq!(health.failures(s(411)), Some(Failures { first: s(400), last: s(410), count: 5 }));
    let old = Verdict { sign: Sign::Well, began: s(399), under_way: None };
    assert_eq!(health.note(old, s(500), true), None, "it was asked before the endpoint went down");
    assert!(health.down().is_some());
    let probe = Verdict { began: s(440), ..old };
    assert_eq!(health.note(probe, s(441), true), Some(Change::Up { away: s(41) }));
    let late = Verdict { sign: Sign::Faulty, began: s(390), under_way: None };
    assert!((0..9).all(|_| health.note(late, s(450), true).is_none()), "stalls of what was asked before");
}

#[test]
fn checks_and_requests_feed_one_state() {
    let mut health = Health::default();
    assert_eq!(health.checked(false, s(0), true), None);
    assert_eq!(down(health.checked(false, s(5), true)).map(|down| down.reason), Some(Reason::Unreachable));
    assert_eq!(health.checked(false, s(10), true), None, "known");
    assert!(health.checked(false, s(15), true).is_some(), "still down when its time is over");
    assert_eq!(health.checked(true, s(20), true), Some(Change::Up { away: s(15) }));
    assert_eq!(health.gate(s(20)), Gate::Open, "a check that goes well brings it back at once");
    fail(&mut health, 5, Sign::Faulty, s(30));
    assert_eq!(health.checked(true, s(31), true), None);
    assert_eq!(health.gate(s(31)), Gate::Shut, "that it answers checks does not mend what it does to requests");
}

#[test]
fn at_most_half_and_never_the_last() {
    let most = |all: usize| (0..=all).take_while(|ejected| may_eject_more(all, *ejected)).count();
    assert_eq!([1, 2, 3, 4, 5, 8].map(most), [0, 1, 1, 2, 2, 4]);
}

proptest! {
    /// Whatever comes, an endpoint that stops failing comes back, and the time it is out is bounded.
    #[test]
    fn nothing_is_out_for_ever(signs in proptest::collection::vec((0_u8..5, 0_u64..40), 0..200)) {
        let mut health = Health::default();
        let mut now = Duration::ZERO;
        for (sign, passed) in signs {
            now += s(passed);
            if health.gate(now) == Gate::Probe {
                health.probe(now);
            }
            match sign {
                0 => { note(&mut health, Sign::Well, now, true); }
                1 => { note(&mut health, Sign::Unreachable, now, true); }
                2 => { note(&mut health, Sign::Faulty, now, true); }
                3 => { let _ = health.checked(false, now, true); }
                _ => health.probe_over(),
            }
            prop_assert!(health.down().is_none_or(|down| down.until <= now + EJECTION_MAX));
        }
        now += EJECTION_MAX;
        health.probe_over();
        prop_assert!(health.is_up(now));
        health.probe(now);
        note(&mut health, Sign::Well, now, true);
        prop_assert_eq!(health.gate(now), Gate::Open);
    }
}
