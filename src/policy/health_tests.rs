use proptest::prelude::*;

use super::*;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn fail(health: &mut Health, times: u32, sign: Sign, now: Duration) -> Option<Down> {
    (0..times).filter_map(|_| health.note(sign, now, true)).last()
}

#[test]
fn five_failures_in_a_row_take_an_endpoint_out() {
    for (sign, reason) in [(Sign::Unreachable, Reason::Unreachable), (Sign::Faulty, Reason::Faulty)] {
        let mut health = Health::default();
        assert_eq!(fail(&mut health, 4, sign, s(1)), None);
        assert_eq!(health.note(Sign::Well, s(1), true), None);
        assert_eq!(fail(&mut health, 4, sign, s(1)), None, "the row was broken");
        assert_eq!(health.note(sign, s(2), true), Some(Down { reason, until: s(12), ejected: true }));
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
    health.probe();
    assert_eq!(health.gate(s(10)), Gate::Shut, "one at a time");
    health.probe_over();
    assert_eq!(health.gate(s(11)), Gate::Probe, "it told nothing: another may try");
    health.probe();
    let again = health.note(Sign::Faulty, s(12), true).unwrap();
    assert_eq!(again.until, s(12 + 20), "the second ejection takes twice as long");
    health.probe();
    assert_eq!(health.note(Sign::Well, s(33), true), None);
    assert_eq!((health.gate(s(33)), health.is_up(s(33))), (Gate::Open, true));
}

#[test]
fn one_that_may_not_be_ejected_is_down_and_still_takes_requests() {
    let mut health = Health::default();
    for _ in 0..4 {
        health.note(Sign::Unreachable, s(0), false);
    }
    assert_eq!(health.note(Sign::Unreachable, s(0), false).map(|down| down.ejected), Some(false));
    assert_eq!((health.gate(s(1)), health.is_up(s(1)), health.is_ejected(s(1))), (Gate::Open, false, false));
    health.note(Sign::Well, s(2), false);
    assert!(health.is_up(s(2)));
}

#[test]
fn what_was_sent_before_an_ejection_does_not_end_it() {
    let mut health = Health::default();
    fail(&mut health, 5, Sign::Faulty, s(0));
    health.note(Sign::Well, s(1), true);
    assert_eq!(health.gate(s(2)), Gate::Shut);
}

#[test]
fn half_of_many_requests_failing_is_too_many() {
    let mut health = Health::default();
    let mut out = None;
    for at in 0..20 {
        out = health.note(if at % 2 == 0 { Sign::Well } else { Sign::Faulty }, s(1), true);
    }
    assert_eq!(out.map(|down| down.reason), Some(Reason::FailureShare));
    let mut slow = Health::default();
    for at in 0..40 {
        assert_eq!(slow.note(if at % 2 == 0 { Sign::Well } else { Sign::Faulty }, s(at * 10), true), None);
    }
}

#[test]
fn checks_and_requests_feed_one_state() {
    let mut health = Health::default();
    assert_eq!(health.checked(false, s(0), true), None);
    assert_eq!(health.checked(false, s(5), true).map(|down| down.reason), Some(Reason::Unreachable));
    assert_eq!(health.checked(false, s(10), true), None, "known");
    assert!(health.checked(false, s(15), true).is_some(), "still down when its time is over");
    health.checked(true, s(20), true);
    assert_eq!(health.gate(s(20)), Gate::Open, "a check that goes well brings it back at once");
    fail(&mut health, 5, Sign::Faulty, s(30));
    health.checked(true, s(31), true);
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
                health.probe();
            }
            match sign {
                0 => { health.note(Sign::Well, now, true); }
                1 => { health.note(Sign::Unreachable, now, true); }
                2 => { health.note(Sign::Faulty, now, true); }
                3 => { health.checked(false, now, true); }
                _ => health.probe_over(),
            }
            prop_assert!(health.down().is_none_or(|down| down.until <= now + EJECTION_MAX));
        }
        now += EJECTION_MAX;
        health.probe_over();
        prop_assert!(health.is_up(now));
        health.probe();
        health.note(Sign::Well, now, true);
        prop_assert_eq!(health.gate(now), Gate::Open);
    }
}
