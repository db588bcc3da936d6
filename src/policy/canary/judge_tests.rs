use super::*;
use crate::policy::canary::{State, Tally};

const OK: FirstAttempt = FirstAttempt {
    failed: Some(false),
    stalled: Some(false),
    truncated: Some(false),
    first_token: Some(FirstToken::Came(Duration::from_millis(100))),
    output: Some(50),
};

fn plan(steps: &[u8]) -> Canary {
    Canary {
        target: "next".into(),
        steps: steps.to_vec(),
        step_time: Duration::from_secs(60),
        min_requests: 20,
        alpha: 0.01,
        first_token_objective: None,
    }
}

/// A rollout under way: one request of each arm a second, each of a user of its own.
struct Rollout {
    plan: Canary,
    judge: Judge,
    now: Duration,
    users: u64,
    /// Requests that were assigned to the baseline.
    baseline: u64,
}

impl Rollout {
    fn start(steps: &[u8]) -> Self {
        let (plan, now) = (plan(steps), Duration::from_secs(1_000_000));
        Self { judge: Judge::start(&plan, now), plan, now, users: 0, baseline: 0 }
    }

    fn see(&mut self, arm: Arm, attempt: &FirstAttempt) -> Option<Decision> {
        self.users += 1;
        self.see_of(arm, self.users, attempt)
    }

    /// A request that is answered at once.
    fn see_of(&mut self, arm: Arm, unit: u64, attempt: &FirstAttempt) -> Option<Decision> {
        let sample = self.assign(arm, unit);
        self.end(sample, attempt)
    }

    /// A request that begins.
    fn assign(&mut self, arm: Arm, unit: u64) -> Sample {
        let number = self.baseline;
        self.baseline += u64::from(arm == Arm::Baseline);
        Sample { arm, unit, epoch: self.judge.epoch(), share: self.share(), at: self.now, number, origin: 0 }
    }

    /// An answer's end.
    fn end(&mut self, sample: Sample, attempt: &FirstAttempt) -> Option<Decision> {
        self.judge.observe(&self.plan, sample, attempt, self.now)
    }

    /// So many seconds; the decisions made in them.
    fn pass(&mut self, seconds: u64, canary: &FirstAttempt, baseline: &FirstAttempt) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            decisions.extend(self.see(Arm::Baseline, baseline));
            decisions.extend(self.see(Arm::Canary, canary));
        }
        decisions
    }

    fn command(&mut self, command: Command) -> Result<Decision, Refusal> {
        self.judge.command(&self.plan, command, self.now)
    }

    fn share(&self) -> u8 {
        self.judge.share(&self.plan)
    }

    fn report(&self) -> crate::policy::canary::Report {
        self.judge.report(&self.plan, self.now)
    }
}

fn kinds(decisions: &[Decision]) -> Vec<(Kind, u8)> {
    decisions.iter().map(|decision| (decision.kind, decision.to)).collect()
}

#[test]
fn a_good_canary_goes_up_step_by_step() {
    let mut rollout = Rollout::start(&[1, 25, 100]);
    assert_eq!(rollout.share(), 1);
    assert_eq!(rollout.pass(59, &OK, &OK), [], "the step's time is not over");
    let decisions = rollout.pass(141, &OK, &OK);
    assert_eq!(kinds(&decisions), [(Kind::Step, 25), (Kind::Promote, 100)]);
    assert!(decisions.iter().all(|decision| decision.by == By::Judge));
    assert_eq!((rollout.share(), rollout.report().state), (100, State::Promoted));
    assert!(rollout.pass(100, &FirstAttempt::FAILED, &OK).is_empty(), "nothing is left to compare with");
}

#[test]
fn too_little_data_holds() {
    let mut rollout = Rollout::start(&[1, 100]);
    for _ in 0..10_000 {
        rollout.now += Duration::from_secs(60);
        assert_eq!(rollout.see(Arm::Baseline, &OK), None);
    }
    for _ in 0..19 {
        assert_eq!(rollout.see(Arm::Canary, &OK), None);
    }
    assert_eq!(rollout.report().next, "100 % after 1 more canary requests, if they show no harm.");
    assert_eq!(kinds(rollout.see(Arm::Canary, &OK).as_slice()), [(Kind::Promote, 100)]);
}

#[test]
fn each_kind_of_harm_is_found() {
    let late = FirstAttempt { first_token: Some(FirstToken::Came(Duration::from_millis(150))), ..OK };
    let gave_up = FirstAttempt {
        failed: None,
        first_token: Some(FirstToken::NotWithin(Duration::from_millis(500))),
        ..FirstAttempt::default()
    };
    let cases = [
        (Fact::Stalled, FirstAttempt { stalled: Some(true), ..OK }),
        (Fact::Truncated, FirstAttempt { truncated: Some(true), ..OK }),
        (Fact::Late, late),
        (Fact::Late, gave_up),
        (Fact::OddLength, FirstAttempt { output: Some(5), ..OK }),
        (Fact::OddLength, FirstAttempt { output: Some(500), ..OK }),
    ];
    for (fact, bad) in cases {
        let mut rollout = Rollout::start(&[50]);
        assert_eq!(rollout.pass(300, &OK, &OK), [], "what is usual is learnt");
        let decisions = rollout.pass(100, &bad, &OK);
        assert_eq!(kinds(&decisions), [(Kind::RollBack, 0)], "{fact:?}");
        let Reason::Harm(finding) = decisions[0].reason else { panic!("{decisions:?}") };
        assert_eq!(finding.fact, fact);
        assert!(finding.evidence >= finding.needed && finding.requests.canary.yes <= 40, "{finding:?}");
    }
}

#[test]
fn a_fixed_objective_needs_no_learning() {
    let mut rollout = Rollout::start(&[50]);
    rollout.plan.first_token_objective = Some(Duration::from_millis(120));
    let late = FirstAttempt { first_token: Some(FirstToken::Came(Duration::from_millis(130))), ..OK };
    let decisions = rollout.pass(100, &late, &OK);
    assert_eq!(kinds(&decisions), [(Kind::RollBack, 0)]);
    assert_eq!(rollout.report().state, State::RolledBack);
}

#[test]
fn a_broken_canary_is_not_waited_for() {
    let mut rollout = Rollout::start(&[1, 100]);
    let mut fail = |number: u64| {
        let decision = rollout.see_of(Arm::Canary, u64::MAX - number % 2, &FirstAttempt::FAILED);
        (0..9).for_each(|_| assert_eq!(rollout.see(Arm::Baseline, &OK), None));
        decision
    };
    let decisions: Vec<Decision> = (0..5).filter_map(&mut fail).collect();
    assert_eq!(kinds(&decisions), [(Kind::RollBack, 0)]);
    assert!(matches!(decisions[0].reason, Reason::Broken(broken) if broken.successes == 36), "{}", decisions[0]);
}

#[test]
fn an_outage_of_both_is_no_fault_of_the_canary() {
    let mut rollout = Rollout::start(&[50]);
    let none = rollout.pass(300, &OK, &OK);
    assert_eq!(none, []);
    assert_eq!(rollout.pass(500, &FirstAttempt::FAILED, &FirstAttempt::FAILED), []);
    assert_eq!(rollout.share(), 50);
}

#[test]
fn a_few_bad_users_are_not_a_crowd() {
    let mut rollout = Rollout::start(&[25, 100]);
    for _ in 0..500 {
        let decisions = rollout.pass(1, &OK, &OK);
        assert!(decisions.iter().all(|decision| decision.kind == Kind::Hold), "{decisions:?}");
        for user in [u64::MAX, u64::MAX - 1, u64::MAX - 2] {
            let decision = rollout.see_of(Arm::Canary, user, &FirstAttempt::FAILED);
            assert!(decision.is_none_or(|decision| decision.kind == Kind::Hold), "{decision:?}");
        }
    }
    assert_eq!(rollout.share(), 25, "the plain counts take it no further");
    let failed = rollout.report().facts[0];
    assert!(failed.finding.evidence < 20.0, "three users were drawn, however often they fail: {failed:?}");
    assert!(failed.finding.requests.canary.yes > 100, "{failed:?}");
    let crowd = (0..20)
        .find_map(|_| rollout.see(Arm::Canary, &FirstAttempt::FAILED).or_else(|| rollout.see(Arm::Baseline, &OK)));
    assert_eq!(crowd.map(|decision| decision.kind), Some(Kind::RollBack));
}

/// There may be little evidence where there are few requests, and a canary that fails more of them must not be raised for that.
#[test]
fn weak_evidence_is_not_enough_for_a_step() {
    let mut rollout = Rollout::start(&[50, 100]);
    rollout.plan.min_requests = 19;
    rollout.now += Duration::from_secs(60);
    (0..5).for_each(|_| assert_eq!(rollout.see(Arm::Canary, &FirstAttempt::FAILED), None));
    (0..8).for_each(|_| assert_eq!(rollout.see(Arm::Canary, &OK), None));
    (0..37).for_each(|_| assert_eq!(rollout.see(Arm::Baseline, &OK), None));
    let decisions: Vec<Decision> = (0..6).filter_map(|_| rollout.see(Arm::Canary, &OK)).collect();
    assert_eq!(kinds(&decisions), [(Kind::Hold, 50)]);
    assert_eq!(decisions[0].to_string(), "held at 50 %: 5 of 19 failed, of the baseline's 0 of 37");
    assert_eq!(decisions[0].fact(), Some(Fact::Failed));
    let failed = rollout.report().facts[0];
    assert!(failed.finding.evidence < SUSPICION, "{failed:?}");
    assert!(failed.step.chance < 1e-2, "{failed:?}");
    let next = rollout.report().next;
    assert_eq!(
        next,
        "It stays at 50 % for as long as that is hardly chance: 5 of 19 failed, of the baseline's 0 of 37."
    );
    assert_eq!(rollout.pass(1, &OK, &OK), [], "told once");
    let back = rollout.pass(60, &FirstAttempt::FAILED, &OK);
    assert_eq!(kinds(&back), [(Kind::RollBack, 0)]);
}

#[test]
fn a_step_needs_something_to_compare_with() {
    let start = || {
        let mut rollout = Rollout::start(&[50, 100]);
        rollout.plan.min_requests = 14;
        rollout.now += Duration::from_secs(60);
        rollout
    };
    let (mut good, mut bad) = (start(), start());
    (0..14).for_each(|_| assert_eq!(good.see(Arm::Canary, &OK), None));
    assert_eq!(good.report().next, "100 % after 14 more baseline requests, if they show no harm.");
    (0..13).for_each(|_| assert_eq!(good.see(Arm::Baseline, &OK), None));
    assert_eq!(kinds(good.see(Arm::Baseline, &OK).as_slice()), [(Kind::Promote, 100)]);
    (0..8).for_each(|_| assert_eq!(bad.see(Arm::Canary, &FirstAttempt::FAILED), None));
    (0..6).for_each(|_| assert_eq!(bad.see(Arm::Canary, &OK), None));
    (0..10).for_each(|_| assert_eq!(bad.see(Arm::Baseline, &OK), None));
    let decisions: Vec<Decision> = (0..4).filter_map(|_| bad.see(Arm::Baseline, &OK)).collect();
    assert_eq!(kinds(&decisions), [(Kind::Hold, 50)]);
    let words = decisions[0].to_string();
    let expected =
        "held at 50 %: it may do harm: 8 of 14 canary requests failed, and 0 of 14 on the baseline (evidence ";
    assert!(words.starts_with(expected), "{words}");
    // A baseline that gets less than the canary needs no more than what falls to it.
    let min = |share| Rollout::start(&[share, 100]).report().baseline_requests_min;
    assert_eq!([1, 50, 80, 99].map(min), [20, 20, 5, 1]);
}

#[test]
fn a_hold_for_plain_counts_passes_with_more_of_them() {
    let mut rollout = Rollout::start(&[50, 100]);
    let none = rollout.pass(50, &OK, &OK);
    assert_eq!(none, []);
    (0..7).for_each(|_| assert_eq!(rollout.see(Arm::Canary, &FirstAttempt::FAILED), None));
    assert_eq!(kinds(&rollout.pass(10, &OK, &OK)), [(Kind::Hold, 50)]);
    // What was rare until now turns out to happen to both.
    let decisions: Vec<Decision> = (0..4).filter_map(|_| rollout.see(Arm::Baseline, &FirstAttempt::FAILED)).collect();
    assert_eq!(kinds(&decisions), [(Kind::Promote, 100)]);
    assert_eq!(
        decisions[0].to_string(),
        "promoted from 50 % to 100 %: 67 of its requests showed no more harm than chance or one user explains: 7 of 67 failed, \
         of the baseline's 1 of 61"
    );
}

#[test]
fn one_bad_user_holds_nobody() {
    let mut rollout = Rollout::start(&[25, 100]);
    let mut decisions = Vec::new();
    for _ in 0..60 {
        decisions.extend(rollout.pass(1, &OK, &OK));
        decisions.extend(rollout.see_of(Arm::Canary, u64::MAX, &FirstAttempt::FAILED));
    }
    assert_eq!(kinds(&decisions), [(Kind::Promote, 100)]);
    let words = decisions[0].to_string();
    assert!(words.contains(" of them one user's, of the baseline's 0 of "), "{words}");
}

#[test]
fn a_steps_counts_outlast_storage() {
    let mut rollout = Rollout::start(&[50, 100]);
    let none = rollout.pass(30, &OK, &OK);
    assert_eq!(none, []);
    (0..9).for_each(|_| assert_eq!(rollout.see(Arm::Canary, &FirstAttempt::FAILED), None));
    let stored = serde_json::to_value(&rollout.judge).unwrap();
    let before = rollout.report();
    rollout.judge = serde_json::from_value::<Judge>(stored.clone()).unwrap().restored(&rollout.plan);
    assert_eq!(rollout.report().facts[0].step, before.facts[0].step);
    assert_eq!(rollout.report().step_baseline_requests, 30);
    assert_eq!(kinds(&rollout.pass(31, &OK, &OK)), [(Kind::Hold, 50)]);
    // An older version kept no counts of the step: it begins to count anew.
    let mut old = stored;
    for key in ["step_baseline_requests", "step_counts", "harmed"] {
        old.as_object_mut().unwrap().remove(key).unwrap();
    }
    rollout.judge = serde_json::from_value::<Judge>(old).unwrap().restored(&rollout.plan);
    assert!(rollout.judge.is_sound());
    assert_eq!(rollout.report().step_requests, 0);
    // The evidence is kept: failures of the baseline outweigh it.
    assert_eq!(kinds(&rollout.pass(20, &OK, &FirstAttempt::FAILED)), [(Kind::Promote, 100)]);
}

#[test]
fn suspicion_holds_and_passes() {
    let mut rollout = Rollout::start(&[50, 100]);
    rollout.plan.min_requests = 10_000;
    let truncated = FirstAttempt { truncated: Some(true), ..OK };
    let _ = rollout.pass(300, &OK, &OK);
    while rollout.judge.worst(&rollout.plan, |_| true).unwrap().evidence < SUSPICION {
        assert_eq!(rollout.see(Arm::Canary, &truncated), None);
        let none = rollout.pass(3, &OK, &OK);
        assert_eq!(none, []);
        assert!(rollout.judge.step_requests < 400, "some failures must be suspicious");
    }
    rollout.plan.min_requests = 300;
    let decisions = rollout.pass(10, &OK, &OK);
    assert_eq!(kinds(&decisions), [(Kind::Hold, 50)], "told once");
    assert!(rollout.report().next.contains("suspicion"), "{}", rollout.report().next);
    // What was rare until now turns out to happen to both.
    let mut decisions = Vec::new();
    for _ in 0..50 {
        decisions.extend(rollout.pass(1, &truncated, &truncated));
        decisions.extend(rollout.pass(20, &OK, &OK));
    }
    assert_eq!(kinds(&decisions), [(Kind::Promote, 100)]);
}

#[test]
fn people_have_the_last_word() {
    let mut rollout = Rollout::start(&[5, 50, 100]);
    assert_eq!(rollout.command(Command::Resume), Err(Refusal::NotPaused));
    assert_eq!(rollout.command(Command::Pause).unwrap().kind, Kind::Pause);
    assert_eq!(rollout.command(Command::Pause), Err(Refusal::Paused));
    assert!(rollout.pass(500, &OK, &OK).is_empty());
    assert_eq!((rollout.share(), rollout.report().state), (5, State::Paused));
    assert_eq!(rollout.command(Command::Resume).unwrap().kind, Kind::Resume);
    assert_eq!(kinds(&rollout.pass(1, &OK, &OK)), [(Kind::Step, 50)]);

    let back = rollout.command(Command::RollBack).unwrap();
    assert_eq!((back.by, back.from, back.to), (By::Operator, 50, 0));
    assert_eq!(rollout.command(Command::RollBack), Err(Refusal::RolledBack));
    assert_eq!(rollout.command(Command::Pause), Err(Refusal::Over));
    let again = rollout.command(Command::Resume).unwrap();
    assert_eq!((again.from, again.to), (0, 5));
    assert_eq!(rollout.report().facts[0].finding.requests.canary, Tally::default(), "it starts anew");
    assert_eq!(rollout.command(Command::Promote).unwrap().to, 100);
    assert_eq!(rollout.command(Command::Promote), Err(Refusal::Promoted));
    assert_eq!(rollout.command(Command::Resume), Err(Refusal::Promoted));
    assert_eq!(rollout.command(Command::RollBack).unwrap().to, 0);
    let told: Vec<Kind> = rollout.report().decisions.iter().map(|decision| decision.kind).collect();
    assert_eq!(told[..3], [Kind::Start, Kind::Pause, Kind::Resume]);
    assert_eq!(told.len(), 8);
}

#[test]
fn harm_rolls_a_paused_canary_back() {
    let mut rollout = Rollout::start(&[50, 100]);
    let _ = rollout.command(Command::Pause).unwrap();
    let none = rollout.pass(100, &OK, &OK);
    assert_eq!(none, []);
    assert_eq!(kinds(&rollout.pass(50, &FirstAttempt::FAILED, &OK)), [(Kind::RollBack, 0)]);
}

#[test]
fn evidence_outlasts_steps_and_storage() {
    let mut rollout = Rollout::start(&[50, 60, 70]);
    let bad = FirstAttempt { truncated: Some(true), ..OK };
    let _ = rollout.pass(300, &OK, &OK);
    for _ in 0..3 {
        let _ = rollout.see(Arm::Canary, &bad);
        let _ = rollout.pass(8, &OK, &OK);
    }
    let before = rollout.report();
    assert!(before.facts[2].finding.requests.canary.yes >= 2, "{:?}", before.facts[2]);
    let stored = serde_json::to_string(&rollout.judge).unwrap();
    assert!(stored.len() < 20_000, "{}", stored.len());
    let under_way = rollout.assign(Arm::Canary, 1);
    rollout.judge = serde_json::from_str::<Judge>(&stored).unwrap().restored(&rollout.plan);
    assert!(rollout.judge.is_sound());
    let after = rollout.report();
    // The last digit of a number may get lost in JSON.
    let rounded = |mut report: crate::policy::canary::Report| {
        report.facts.iter_mut().for_each(|fact| fact.finding.evidence = (fact.finding.evidence * 1e9).round());
        report.facts
    };
    assert_eq!(after.step_requests, before.step_requests);
    assert_eq!(rounded(after), rounded(before.clone()));
    assert_eq!(rollout.end(under_way, &bad), None);
    assert_eq!(rollout.report().step_requests, before.step_requests, "what was assigned before is another epoch's");
}

#[test]
fn what_was_stored_without_epochs_is_read() {
    let mut rollout = Rollout::start(&[50]);
    let _ = rollout.pass(30, &OK, &OK);
    let mut stored = serde_json::to_value(&rollout.judge).unwrap();
    stored.as_object_mut().unwrap().remove("epoch").unwrap();
    let judge = serde_json::from_value::<Judge>(stored).unwrap().restored(&rollout.plan);
    assert!(judge.is_sound());
    assert_eq!((judge.epoch(), judge.share(&rollout.plan)), (1, 50));
    assert_eq!(judge.report(&rollout.plan, rollout.now).facts, rollout.report().facts);
}

/// What fails is known at once: the successes of the same requests come later.
#[test]
fn failures_of_a_step_are_not_held_against_successes_of_the_last_one() {
    let mut rollout = Rollout::start(&[1, 50]);
    let before: Vec<Sample> = (0..2_000).map(|unit| rollout.assign(Arm::Baseline, 1_000_000 + unit)).collect();
    assert_eq!(kinds(&rollout.pass(61, &OK, &OK)), [(Kind::Step, 50)]);
    // One in ten fails, on both sides; the canary's failures are known, and of the baseline what was assigned before.
    for (at, sample) in before.into_iter().enumerate() {
        assert_eq!(rollout.end(sample, &OK), None);
        if at.is_multiple_of(10) {
            assert_eq!(rollout.see(Arm::Canary, &FirstAttempt::FAILED), None, "after {at}");
            assert_eq!(rollout.see(Arm::Baseline, &FirstAttempt::FAILED), None, "after {at}");
        }
    }
    assert_eq!(rollout.share(), 50);
}

/// Each is compared by the share that it was assigned by, and counts in no other step.
#[test]
fn answers_may_come_after_the_next_step() {
    let mut rollout = Rollout::start(&[10, 20, 30]);
    let first: Vec<Sample> = (0..9).map(|unit| rollout.assign(Arm::Canary, 1_000_000 + unit)).collect();
    assert_eq!(kinds(&rollout.pass(61, &OK, &OK)), [(Kind::Step, 20)]);
    assert_eq!(kinds(&rollout.pass(61, &OK, &OK)), [(Kind::Step, 30)]);
    let before = rollout.report().step_requests;
    assert_eq!(rollout.end(first[0], &FirstAttempt::FAILED), None);
    assert_eq!(rollout.report().step_requests, before, "it is no request of this step");
    let back: Vec<Decision> =
        first[1..].iter().filter_map(|sample| rollout.end(*sample, &FirstAttempt::FAILED)).collect();
    assert_eq!(kinds(&back), [(Kind::RollBack, 0)], "one in ten of all bad answers should be the canary's");
    let Reason::Harm(finding) = back[0].reason else { panic!("{back:?}") };
    assert!(finding.requests.canary.yes <= 5, "{finding:?}");
}

#[test]
fn a_rollout_that_starts_anew_hears_nothing_of_what_was_assigned_before() {
    let mut rollout = Rollout::start(&[10, 20, 30]);
    let before: Vec<Sample> = (0..100).map(|unit| rollout.assign(Arm::Canary, 1_000_000 + unit)).collect();
    let _ = rollout.command(Command::RollBack).unwrap();
    let _ = rollout.command(Command::Resume).unwrap();
    before.iter().for_each(|sample| assert_eq!(rollout.end(*sample, &FirstAttempt::FAILED), None));
    assert_eq!(rollout.report().facts[0].finding.requests.canary, Tally::default());
    assert_eq!(rollout.report().step_requests, 0);
}

/// What has failed is known at once, and what has not at an answer's end: a slower canary's successes come later.
#[test]
fn a_slower_canary_is_no_worse_for_that() {
    let mut rollout = Rollout::start(&[50]);
    let mut under_way = Vec::new();
    for unit in 0..2_000 {
        rollout.now += Duration::from_millis(50);
        let (arm, fails) = (if unit % 2 == 0 { Arm::Canary } else { Arm::Baseline }, unit % 20 < 2);
        let sample = rollout.assign(arm, unit);
        match (arm, fails) {
            (_, true) => assert_eq!(rollout.end(sample, &FirstAttempt::FAILED), None, "{unit}"),
            (Arm::Baseline, false) => assert_eq!(rollout.end(sample, &OK), None),
            (Arm::Canary, false) => under_way.push(sample),
        }
    }
    let failed = rollout.report().facts[0].finding;
    assert_eq!(failed.requests.canary, Tally { yes: 100, of: 100 }, "so far");
    assert!(failed.evidence < SUSPICION, "{failed:?}");
}

/// A faster one is known to have long answers, and other ends, sooner.
#[test]
fn the_ends_of_a_faster_canary_are_compared_with_ends() {
    let evidence = |baselines_ends: u64| {
        let mut rollout = Rollout::start(&[50]);
        let truncated = FirstAttempt { truncated: Some(true), ..OK };
        for unit in 0..100 {
            let _ = rollout.see(Arm::Canary, if unit % 10 == 9 { &truncated } else { &OK });
            (0..baselines_ends).for_each(|_| assert_eq!(rollout.see(Arm::Baseline, &OK), None));
        }
        rollout.report().facts[2].finding.evidence
    };
    assert!(evidence(0) < 2.0, "{}", evidence(0));
    assert!(evidence(1) > SUSPICION, "{}", evidence(1));
}

#[test]
fn a_pause_is_no_change_of_share() {
    let mut rollout = Rollout::start(&[50, 100]);
    let epoch = rollout.judge.epoch();
    let _ = rollout.command(Command::Pause).unwrap();
    let _ = rollout.command(Command::Resume).unwrap();
    assert_eq!(rollout.judge.epoch(), epoch);
}

#[test]
fn memory_is_bounded() {
    let mut rollout = Rollout::start(&[50]);
    for _ in 0..40 {
        let _ = rollout.command(Command::Pause);
        let _ = rollout.command(Command::Resume);
    }
    assert_eq!(rollout.report().decisions.len(), HISTORY);
    for user in 0..20_000 {
        assert_eq!(rollout.see_of(Arm::Baseline, user, &OK), None);
    }
    assert!(serde_json::to_string(&rollout.judge).unwrap().len() < 20_000);
}
