use proptest::prelude::*;

use super::*;
use crate::policy::canary::drawn::Drawn;

/// One bad answer of a user, at a share of the canary that was in force when the request was assigned.
#[derive(Debug, Clone, Copy)]
struct Bad {
    user: usize,
    share: u8,
    /// How long after the last one it is told, and after its assignment.
    after: Duration,
    took: Duration,
}

const USERS: usize = 3;

const NOW: Duration = Duration::from_secs(1_000_000);

fn bad(user: usize) -> impl Strategy<Value = Bad> {
    let seconds = |most: u64| (0..most).prop_map(Duration::from_secs);
    (0..user, proptest::sample::select(vec![1_u8, 5, 20, 50, 90]), seconds(90), seconds(40))
        .prop_map(|(user, share, after, took)| Bad { user, share, after, took })
}

/// The evidence if the users' places are such.
fn evidence(answers: &[Bad], places: [f64; USERS]) -> f64 {
    let (mut drawn, mut test) = (Drawn::default(), Test::default());
    let mut now = NOW;
    for Bad { user, share, after, took } in answers {
        let arm = if places[*user] < f64::from(*share) { Arm::Canary } else { Arm::Baseline };
        now += *after;
        if let Some(told) = drawn.note(arm, *user as u64, *share, now) {
            test.bet(arm, told.chance, now - *took, now);
        }
    }
    test.evidence()
}

/// Over all ways to draw the users.
fn expectation(answers: &[Bad]) -> f64 {
    // Between two neighbours of these all places are alike.
    let edges = [0.0, 1.0, 5.0, 20.0, 50.0, 90.0, 100.0];
    let cells: Vec<(f64, f64)> = edges.windows(2).map(|edge| (edge[0], (edge[1] - edge[0]) / 100.0)).collect();
    let mut expectation = 0.0;
    for at in 0..cells.len().pow(USERS as u32) {
        let mut rest = at;
        let drawn: [(f64, f64); USERS] = std::array::from_fn(|_| {
            let cell = cells[rest % cells.len()];
            rest /= cells.len();
            cell
        });
        let chance: f64 = drawn.iter().map(|(_, chance)| chance).product();
        expectation += chance * evidence(answers, drawn.map(|(place, _)| place));
    }
    expectation
}

proptest! {
    /// What validity rests on: whose answers are bad, how often, in which order and at which shares, the evidence is expected
    /// to be at most 1 if the users' places are drawn by chance, and to be 1 if answers take no time.
    #[test]
    fn evidence_is_not_expected_to_grow_under_the_null(answers in proptest::collection::vec(bad(USERS), 0..16)) {
        let at_once: Vec<Bad> = answers.iter().map(|bad| Bad { took: Duration::ZERO, ..*bad }).collect();
        prop_assert!(expectation(&answers) <= 1.0 + 1e-9, "{}", expectation(&answers));
        prop_assert!((expectation(&at_once) - 1.0).abs() < 1e-9, "{}", expectation(&at_once));
    }

    #[test]
    fn no_bet_is_expected_to_win_under_the_null(
        share in 0.001_f64..0.999, ratio in proptest::sample::select(ODDS_RATIOS.to_vec()), less in 0.0_f64..=1.0,
    ) {
        let expectation =
            |p: f64| p * payoff(Arm::Canary, share, ratio) + (1.0 - p) * payoff(Arm::Baseline, share, ratio);
        prop_assert!((expectation(share) - 1.0).abs() < 1e-9);
        prop_assert!(expectation(share * less) <= 1.0 + 1e-9, "it is the canary's more rarely than was said");
    }

    /// What a canary with later bad answers rests on.
    #[test]
    fn a_bad_answer_of_the_canary_that_is_not_known_yet_is_no_evidence(
        arms in proptest::collection::vec(any::<bool>(), 1..60), missing in any::<proptest::sample::Index>(),
        share in 0.01_f64..0.99, ratio in proptest::sample::select(ODDS_RATIOS.to_vec()),
    ) {
        let wealth = |arms: &[bool]| -> f64 {
            let arm = |is_canary: &bool| if *is_canary { Arm::Canary } else { Arm::Baseline };
            arms.iter().map(|is_canary| payoff(arm(is_canary), share, ratio)).product()
        };
        let mut arms = arms;
        let missing = missing.index(arms.len());
        arms[missing] = true;
        let all = wealth(&arms);
        let _ = arms.remove(missing);
        prop_assert!(wealth(&arms) <= all * (1.0 + 1e-9));
    }

    #[test]
    fn evidence_stays_a_number(bets in proptest::collection::vec((any::<bool>(), 0.001_f64..0.999), 0..2_000)) {
        let mut test = Test::default();
        for (number, (is_canary, chance)) in bets.into_iter().enumerate() {
            let now = NOW + Duration::from_secs(number as u64);
            test.bet(if is_canary { Arm::Canary } else { Arm::Baseline }, chance, now, now);
            prop_assert!(test.is_sound() && test.evidence().is_finite() && test.evidence() > 0.0);
        }
    }
}

/// So many times one minute with so many bad answers of each side, at a share of 20 %, from that minute on.
fn bet(test: &mut Test, from: u64, times: u64, canary: usize, baseline: usize) {
    for minute in from..from + times {
        let now = NOW + Duration::from_secs(minute * 60);
        (0..baseline).for_each(|_| test.bet(Arm::Baseline, 0.2, now, now));
        (0..canary).for_each(|_| test.bet(Arm::Canary, 0.2, now, now));
    }
}

#[test]
fn evidence_grows_with_harm_and_shrinks_without() {
    let (mut bad, mut good, mut same) = (Test::default(), Test::default(), Test::default());
    assert_eq!(bad.evidence(), 1.0);
    bet(&mut bad, 0, 40, 1, 1);
    bet(&mut good, 0, 40, 0, 2);
    bet(&mut same, 0, 40, 1, 4);
    assert!(bad.evidence() > 1e4, "{}", bad.evidence());
    assert!(good.evidence() < 0.25, "{}", good.evidence());
    assert!(same.evidence() < 1.0, "{}", same.evidence());
}

#[test]
fn a_canary_that_turns_bad_late_is_still_found() {
    let mut test = Test::default();
    bet(&mut test, 0, 1_000, 1, 5);
    assert!(test.evidence() < 0.2);
    assert!(test.parts.len() <= PARTS);
    let needed = (1..).find(|minute| {
        bet(&mut test, 1_000 + minute, 1, 2, 1);
        test.evidence() > 500.0
    });
    assert!(needed.unwrap() <= 20, "{needed:?}");
}

/// What was assigned before a part of the wealth came into play is not won by it; what the baseline's told since is lost.
#[test]
fn a_slower_canary_wins_nothing_by_what_was_asked_before() {
    let s = |seconds: u64| NOW + Duration::from_secs(seconds);
    let after = |lasts: u64, at: u64| {
        let mut test = Test::default();
        // Ten slots of the baseline's bad answers, after which the traffic ends; then come the canary's.
        (0..300).for_each(|second| test.bet(Arm::Baseline, 0.5, s(second), s(second)));
        (0..60).for_each(|second| test.bet(Arm::Canary, 0.5, s(at + second - lasts), s(at + second)));
        test.evidence()
    };
    assert!(after(300, 301) < 1.0, "{}", after(300, 301));
    assert!(after(0, 301) > 100.0, "{}", after(0, 301));
}

#[test]
fn wealth_stays_a_number() {
    let mut test = Test::default();
    (0..10_000).for_each(|_| test.bet(Arm::Canary, 0.01, NOW, NOW));
    assert!((WEALTH_MAX / 8.0..=WEALTH_MAX).contains(&test.evidence()), "{}", test.evidence());
    assert!(test.is_sound());
}

#[test]
fn evidence_is_the_same_after_a_restart() {
    let mut test = Test::default();
    bet(&mut test, 0, 3, 2, 1);
    let stored = serde_json::to_string(&test).unwrap();
    let mut again: Test = serde_json::from_str(&stored).unwrap();
    assert!((again.evidence() / test.evidence() - 1.0).abs() < 1e-12);
    // Part after part comes into play as before.
    bet(&mut again, 4, 2, 1, 0);
    bet(&mut test, 4, 2, 1, 0);
    assert!(again.slots > 4 && again.slots <= test.slots, "{} of {}", again.slots, test.slots);
}

#[test]
fn what_an_older_version_stored_is_read() {
    let old =
        r#"{"blocks":3,"wealth":[1.0,2.0,0.5,0.0],"total":{"baseline":{"yes":1,"of":9},"canary":{"yes":2,"of":3}}}"#;
    let test: Test = serde_json::from_str(old).unwrap();
    assert_eq!((test.slots, test.total().canary), (3, Tally { yes: 2, of: 3 }));
    assert!(test.evidence() > 0.8);
}
