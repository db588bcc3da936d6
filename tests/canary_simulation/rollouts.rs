//! The canary judge under simulated traffic, in time: how often it rolls a canary back that is like its baseline, and how
//! soon one that is worse.
//!
//! `STREAMGAUGE_ROLLOUTS` sets how many rollouts of an equal canary are simulated; `--nocapture` shows the numbers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use canary_simulation::fleet;
use canary_simulation::random::{no_surprise, upper_bound};
use canary_simulation::traffic::{Backend, Ended, Rollout, Traffic, Users, Weather};

use streamgauge::config::canary::Canary;
use streamgauge::policy::canary::{Decision, Fact, Reason};

/// Threads that simulate.
const THREADS: u64 = 2;

/// Rollouts of an equal canary where nothing else is said.
const ROLLOUTS: u64 = 140;

const USUAL: Backend =
    Backend { fails: 0.02, stalls: 0.01, breaks: 0.005, first_token_s: 0.3, answer_s: 30.0, tokens_per_s: 20.0 };

/// Traffic in which a canary is like its baseline, each made to mislead in another way.
const EQUAL: [Traffic; 7] = [
    Traffic {
        what: "20/s, answers of 60 s, 10 % fail",
        rate: 20.0,
        baseline: Backend { fails: 0.1, answer_s: 60.0, ..USUAL },
        users: Users::None,
        weather: Weather::Calm,
        lags: 0.0,
        troubled: 0.0,
    },
    Traffic {
        what: "50/s, answers of 30 s, 5 % fail",
        rate: 50.0,
        baseline: Backend { fails: 0.05, ..USUAL },
        users: Users::None,
        weather: Weather::Calm,
        lags: 0.0,
        troubled: 0.0,
    },
    Traffic {
        what: "100/s, answers of 30 s, 2 % fail",
        rate: 100.0,
        baseline: USUAL,
        users: Users::None,
        weather: Weather::Calm,
        lags: 0.0,
        troubled: 0.0,
    },
    Traffic {
        what: "20/s, answers of 5 s, unequal users",
        rate: 20.0,
        baseline: Backend { answer_s: 5.0, ..USUAL },
        users: Users::Zipf(10_000),
        weather: Weather::Calm,
        lags: 0.0,
        troubled: 0.0,
    },
    Traffic {
        what: "20/s, answers of 60 s, 10 % fail, one in ten told up to 15 min late, unequal users",
        rate: 20.0,
        baseline: Backend { fails: 0.1, answer_s: 60.0, ..USUAL },
        users: Users::Zipf(10_000),
        weather: Weather::Calm,
        lags: 0.1,
        troubled: 0.0,
    },
    Traffic {
        what: "20/s, answers of 30 s, a dependency of both fails again and again",
        rate: 20.0,
        baseline: USUAL,
        users: Users::None,
        weather: Weather::Outages,
        lags: 0.0,
        troubled: 0.0,
    },
    Traffic {
        what: "10 to 50/s in waves, answers of 30 s, load makes them fail",
        rate: 10.0,
        baseline: USUAL,
        users: Users::Zipf(10_000),
        weather: Weather::Waves,
        lags: 0.02,
        troubled: 0.0,
    },
];

fn plan(steps: &[u8]) -> Canary {
    Canary {
        target: "next".into(),
        steps: steps.to_vec(),
        step_time: Duration::from_secs(600),
        min_requests: 200,
        alpha: 0.01,
        first_token_objective: None,
    }
}

/// Simulates in a few threads; the results in the order of the seeds.
fn simulate<T: Send>(runs: u64, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let parts: Vec<Vec<T>> = std::thread::scope(|scope| {
        let part = |thread: u64| (thread..runs).step_by(THREADS as usize).map(&run).collect();
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || part(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
    (0..runs).map(|at| parts[(at % THREADS) as usize].next().unwrap()).collect()
}

fn rollouts() -> Option<u64> {
    std::env::var("STREAMGAUGE_ROLLOUTS").ok().map(|text| text.parse().unwrap())
}

/// Whether numbers are to be measured, and not only watched over.
fn is_measured() -> bool {
    rollouts().is_some()
}

fn equal(plan: &Canary, traffic: &Traffic, seed: u64) -> Ended {
    let canary = traffic.baseline;
    Rollout { plan, traffic, canary, turns: None, watched_s: 600.0 }.run(seed)
}

fn rolled_back(ended: &[Ended]) -> Vec<&Decision> {
    ended.iter().filter_map(|ended| ended.decision.as_ref()).collect()
}

#[test]
fn a_canary_like_the_baseline_is_hardly_ever_rolled_back() {
    let runs = rollouts().unwrap_or(ROLLOUTS);
    let plan = plan(&[1, 5, 25, 50]);
    let ended = simulate(runs, |seed| equal(&plan, &EQUAL[seed as usize % EQUAL.len()], seed + 1));
    for (at, traffic) in EQUAL.iter().enumerate() {
        let of: Vec<_> = ended.iter().skip(at).step_by(EQUAL.len()).collect();
        let back = of.iter().filter(|ended| ended.decision.is_some()).count();
        println!("{}: {back} of {} rolled back", traffic.what, of.len());
    }
    let back = rolled_back(&ended);
    let broken = back.iter().filter(|decision| matches!(decision.reason, Reason::Broken(_))).count();
    let through = ended.iter().filter(|ended| ended.is_through && ended.decision.is_none()).count();
    let bound = upper_bound(back.len() as u64, runs);
    println!(
        "{runs} rollouts of a canary like the baseline: {} rolled back ({broken} by the rule for streaks), {through} came \
         through; the rate is at most {bound:.5} with 99 % confidence, alpha is {}",
        back.len(),
        plan.alpha
    );
    let mut holds_s: Vec<u64> = ended.iter().flat_map(|ended| &ended.holds_s).map(|held_s| *held_s as u64).collect();
    holds_s.sort_unstable();
    let held = ended.iter().filter(|ended| !ended.holds_s.is_empty()).count();
    let at = |percent: usize| holds_s.get(holds_s.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0);
    println!(
        "{held} of {runs} were held before a step, {} times in all, for {} s (median); 9 of 10 holds were over after {} s, 99 of 100 \
         after {} s",
        holds_s.len(),
        at(50),
        at(90),
        at(99)
    );
    // Of three steps, each with five facts at a level of 2 %, which facts that are rare stay well below.
    assert!(held as u64 <= no_surprise(runs, 0.3), "{held} of {runs} were held");
    assert!(back.len() as u64 <= no_surprise(runs, plan.alpha), "{} of {runs} were rolled back", back.len());
    assert!(runs < 5_000 || bound <= plan.alpha, "{bound}");
    assert!(through as u64 * 100 >= runs * 95, "only {through} of {runs} came through");
}

/// Three replicas of which one has most requests and one follows late.
const UNEQUAL: [fleet::Replica; 3] = [
    fleet::Replica { part: 0.6, lags_s: 0.2 },
    fleet::Replica { part: 0.3, lags_s: 0.5 },
    fleet::Replica { part: 0.1, lags_s: 2.0 },
];

#[test]
fn a_canary_like_the_baseline_is_hardly_ever_rolled_back_by_a_fleet() {
    let runs = rollouts().unwrap_or(ROLLOUTS / 2);
    let plan = plan(&[1, 5, 25, 50]);
    let ended = simulate(runs, |seed| {
        let traffic = &EQUAL[seed as usize % EQUAL.len()];
        let canary = traffic.baseline;
        let rollout = fleet::Rollout { plan: &plan, traffic, canary, replicas: &UNEQUAL, watched_s: 600.0 };
        rollout.run(15_000_000 + seed)
    });
    let back = ended.iter().filter(|ended| ended.back.is_some()).count() as u64;
    let through = ended.iter().filter(|ended| ended.is_through && ended.back.is_none()).count() as u64;
    let bound = upper_bound(back, runs);
    println!(
        "{runs} rollouts at three unequal replicas: {back} rolled back, {through} came through; the rate is at most {bound:.5} \
         with 99 % confidence, alpha is {}",
        plan.alpha
    );
    assert!(back <= no_surprise(runs, plan.alpha), "{back} of {runs} were rolled back");
    assert!(runs < 5_000 || bound <= plan.alpha, "{bound}");
    assert!(through * 100 >= runs * 95, "only {through} of {runs} came through");
}

#[test]
fn a_fleet_finds_harm_as_soon_as_one_replica() {
    let runs = if is_measured() { 200 } else { 8 };
    let bad = Backend { fails: 0.1, ..USUAL };
    let traffic = Traffic { what: "50/s, answers of 30 s, 2 % fail", baseline: USUAL, ..EQUAL[1] };
    for share in [5, 50] {
        let plan = plan(&[share]);
        let medians = [1_usize, 3, 10].map(|members| {
            let replicas = vec![fleet::Replica { part: 1.0 / members as f64, lags_s: 0.5 }; members];
            let rollout =
                fleet::Rollout { plan: &plan, traffic: &traffic, canary: bad, replicas: &replicas, watched_s: 3_600.0 };
            let mut requests: Vec<u64> = simulate(runs, |seed| rollout.run(16_000_000 + seed))
                .into_iter()
                .filter_map(|ended| ended.back.map(|_| ended.canary_requests))
                .collect();
            requests.sort_unstable();
            assert!(requests.len() as u64 + no_surprise(runs, plan.alpha) >= runs, "{members}: {requests:?}");
            requests[requests.len() / 2]
        });
        println!(
            "2 % errors become 10 %, canary at {share} %: {medians:?} canary requests (median) at 1, 3 and 10 replicas"
        );
        let [one, several @ ..] = medians;
        assert!(several.iter().all(|median| *median as f64 <= 1.15 * one as f64), "{medians:?}");
    }
}

#[test]
fn a_longer_look_is_no_danger() {
    // A last step below 100 % is judged on and on.
    let runs = if is_measured() { 400 } else { 40 };
    let traffic = Traffic { rate: 20.0, ..EQUAL[3] };
    let plan = plan(&[50]);
    let canary = traffic.baseline;
    let rollout = Rollout { plan: &plan, traffic: &traffic, canary, turns: None, watched_s: 4_000.0 };
    let back = rolled_back(&simulate(runs, |seed| rollout.run(7_000_000 + seed))).len() as u64;
    println!("{runs} rollouts that are watched over 80,000 requests at 50 %: {back} rolled back");
    assert!(back <= no_surprise(runs, plan.alpha), "{back}");
}

/// What goes wrong, and how many of the canary's requests may have been assigned, by the median, before that is found.
const HARM: [(&str, Backend, u64); 6] = [
    ("2 % errors become 10 %", Backend { fails: 0.1, ..USUAL }, 1_500),
    ("the time to the first token grows by half", Backend { first_token_s: 0.45, ..USUAL }, 2_500),
    ("truncated answers, 0.5 % become 5 %", Backend { breaks: 0.05, ..USUAL }, 2_500),
    ("stalls, 1 % become 10 %", Backend { stalls: 0.1, ..USUAL }, 2_500),
    ("answers are five times as long", Backend { answer_s: 150.0, ..USUAL }, 5_000),
    ("nothing works", Backend { fails: 1.0, ..USUAL }, 500),
];

#[test]
fn a_real_regression_is_found_soon() {
    let runs = if is_measured() { 200 } else { 6 };
    let traffic = EQUAL[1];
    let traffic = Traffic { what: "50/s, answers of 30 s, 2 % fail", baseline: USUAL, ..traffic };
    for share in [5, 50] {
        let plan = plan(&[share]);
        for (what, bad, median_max) in HARM {
            for (since, at_s) in [("from its first request on", 0.0), ("after 20 minutes", 1_200.0)] {
                let turns = Some((at_s, bad));
                let rollout =
                    Rollout { plan: &plan, traffic: &traffic, canary: USUAL, turns, watched_s: at_s + 3_600.0 };
                let ended = simulate(runs, |seed| rollout.run(9_000_000 + seed));
                let found: Vec<&Ended> =
                    ended.iter().filter(|ended| ended.decision.is_some() && ended.after_s > 0.0).collect();
                let missed = runs - found.len() as u64;
                assert!(missed <= no_surprise(runs, plan.alpha), "{what} at {share} %: missed in {missed} of {runs}");
                let mut requests: Vec<u64> = found.iter().map(|ended| ended.canary_requests).collect();
                let mut seconds: Vec<u64> = found.iter().map(|ended| ended.after_s as u64).collect();
                requests.sort_unstable();
                seconds.sort_unstable();
                let at = |of: &[u64], percent: usize| of[(of.len() - 1) * percent / 100];
                println!(
                    "{}; {what} {since}, canary at {share} %: found after {} s and {} canary requests (median); in 9 of 10 \
                     within {} s and {}",
                    traffic.what,
                    at(&seconds, 50),
                    at(&requests, 50),
                    at(&seconds, 90),
                    at(&requests, 90)
                );
                assert!(at(&requests, 50) <= median_max, "{what} at {share} %: {}", at(&requests, 50));
            }
        }
    }
}

/// How many times as long the answers of a canary take that is like its baseline otherwise.
const PACES: [f64; 5] = [0.5, 1.2, 1.5, 2.0, 4.0];

#[test]
fn a_canary_of_another_pace_is_hardly_ever_rolled_back() {
    let runs = if is_measured() { 400 } else { 4 };
    let plan = plan(&[1, 5, 25, 50]);
    let mut all = 0;
    for traffic in [EQUAL[0], EQUAL[1], EQUAL[3], EQUAL[6]] {
        for pace in PACES {
            let same = traffic.baseline;
            let canary = Backend { answer_s: same.answer_s * pace, tokens_per_s: same.tokens_per_s / pace, ..same };
            let rollout = Rollout { plan: &plan, traffic: &traffic, canary, turns: None, watched_s: 600.0 };
            let ended = simulate(runs, |seed| rollout.run(11_000_000 + seed));
            let back = rolled_back(&ended);
            let by = |fact| back.iter().filter(|it| it.finding().is_some_and(|it| it.fact == fact)).count();
            let counts = Fact::ALL.map(|fact| format!("{} {}", fact.as_str(), by(fact))).join(", ");
            let through = ended.iter().filter(|ended| ended.is_through && ended.decision.is_none()).count();
            println!(
                "{}; the canary's take {pace} times as long for as many tokens: {} of {runs} rolled back ({counts}), {through} \
                 came through",
                traffic.what,
                back.len()
            );
            assert!(back.len() as u64 <= no_surprise(runs, plan.alpha), "{}, {pace}: {}", traffic.what, back.len());
            all += back.len() as u64;
        }
    }
    let rollouts = runs * 4 * PACES.len() as u64;
    println!("of all {rollouts}: {all}, at most {:.5} with 99 % confidence", upper_bound(all, rollouts));
    assert!(all <= no_surprise(rollouts, plan.alpha), "{all} of {rollouts}");
}

#[test]
fn users_who_differ_are_no_fault_of_the_canary() {
    let runs = if is_measured() { 400 } else { 6 };
    let plan = plan(&[1, 5, 25, 50]);
    for users in [1_000, 200, 20] {
        let traffic = Traffic { users: Users::Zipf(users), troubled: 0.02, ..EQUAL[3] };
        let ended = simulate(runs, |seed| equal(&plan, &traffic, 12_000_000 + seed));
        let back = rolled_back(&ended);
        let broken = back.iter().filter(|decision| matches!(decision.reason, Reason::Broken(_))).count();
        let through = ended.iter().filter(|ended| ended.is_through && ended.decision.is_none()).count();
        println!(
            "{users} unequal users, one in fifty fails half of the time: {} of {runs} rolled back ({broken} by the rule for \
             streaks), {through} came through",
            back.len()
        );
        assert!(back.len() as u64 <= no_surprise(runs, plan.alpha), "{users} users: {} of {runs}", back.len());
    }
}

/// What it costs that a user tells only once whose side is worse: few users who come again and again tell little.
#[test]
fn harm_among_few_users_is_measured() {
    let runs = if is_measured() { 200 } else { 2 };
    for users in [10_000, 1_000, 200, 20] {
        for share in [5, 50] {
            let plan = plan(&[share]);
            let traffic = Traffic { users: Users::Zipf(users), ..EQUAL[3] };
            for (what, fails) in [("2 % errors become 10 %", 0.1), ("nothing works", 1.0)] {
                for at_s in [0.0, 1_200.0] {
                    let same = traffic.baseline;
                    let turns = Some((at_s, Backend { fails, ..same }));
                    let rollout =
                        Rollout { plan: &plan, traffic: &traffic, canary: same, turns, watched_s: at_s + 3_600.0 };
                    let ended = simulate(runs, |seed| rollout.run(13_000_000 + seed));
                    let mut seconds: Vec<u64> = ended
                        .iter()
                        .filter(|ended| ended.decision.is_some() && ended.after_s > 0.0)
                        .map(|ended| ended.after_s as u64)
                        .collect();
                    seconds.sort_unstable();
                    println!(
                        "{users} unequal users, {what} after {at_s} s, canary at {share} %: found in {} of {runs} within an hour, \
                         after {} s (median)",
                        seconds.len(),
                        seconds.get(seconds.len().saturating_sub(1) / 2).copied().unwrap_or(0)
                    );
                }
            }
        }
    }
}
