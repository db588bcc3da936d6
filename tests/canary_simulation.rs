//! The canary judge under simulated traffic: how often it rolls a good canary back, and how soon a bad one.
//!
//! `STREAMGAUGE_ROLLOUTS` sets how many good rollouts are simulated (10,000 otherwise); `--nocapture` shows the numbers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use streamgauge::config::canary::Canary;
use streamgauge::policy::canary::{Arm, Decision, FirstAttempt, FirstToken, Judge, Kind, Reason};

/// Threads that simulate.
const THREADS: u64 = 2;

/// SplitMix64: small, fast, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1).
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Log-normal: what latencies and lengths look like.
    fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        median * (sigma * normal).exp()
    }
}

/// How a backend behaves.
#[derive(Debug, Clone, Copy)]
struct Backend {
    fails: f64,
    stalls: f64,
    breaks: f64,
    /// Median, in milliseconds.
    first_token: f64,
    /// Median, in tokens.
    length: f64,
}

const USUAL: Backend = Backend { fails: 0.02, stalls: 0.01, breaks: 0.005, first_token: 300.0, length: 200.0 };

impl Backend {
    fn answer(&self, random: &mut Random) -> FirstAttempt {
        if random.chance(self.fails) {
            return FirstAttempt::FAILED;
        }
        let first_token = Duration::from_secs_f64(random.log_normal(self.first_token, 0.5) / 1000.0);
        let truncated = random.chance(self.breaks);
        FirstAttempt {
            failed: Some(false),
            stalled: Some(random.chance(self.stalls)),
            truncated: Some(truncated),
            first_token: Some(FirstToken::Came(first_token)),
            output: (!truncated).then(|| random.log_normal(self.length, 0.7) as u64),
        }
    }
}

/// One rollout to its end, or to so many requests.
struct Ended {
    decision: Option<Decision>,
    canary_requests: u64,
}

fn roll_out(plan: &Canary, seed: u64, requests_max: u64, baseline: Backend, canary: Backend) -> Ended {
    let mut random = Random(seed.wrapping_mul(0xd134_2543_de82_ef95));
    let mut judge = Judge::start(plan, Duration::ZERO);
    let mut canary_requests = 0;
    for _ in 0..requests_max {
        let is_canary = random.chance(f64::from(judge.share(plan)) / 100.0);
        canary_requests += u64::from(is_canary);
        let (arm, backend) = if is_canary { (Arm::Canary, canary) } else { (Arm::Baseline, baseline) };
        let unit = random.next();
        let decision = judge.observe(plan, (arm, unit), &backend.answer(&mut random), Duration::ZERO);
        if let Some(decision) = decision.filter(|decision| matches!(decision.kind, Kind::RollBack | Kind::Promote)) {
            return Ended { decision: Some(decision), canary_requests };
        }
    }
    Ended { decision: None, canary_requests }
}

fn plan(steps: &[u8], min_requests: u64) -> Canary {
    Canary {
        target: "next".into(),
        steps: steps.to_vec(),
        step_time: Duration::ZERO,
        min_requests,
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
    parts.into_iter().flatten().collect()
}

/// The upper end of the exact (Clopper-Pearson) one-sided 99 % confidence interval of a probability.
fn upper_bound(hits: u64, of: u64) -> f64 {
    // P(at most `hits` of `of`) at probability p falls as p grows: bisected to where it is 1 %.
    let at_most = |p: f64| {
        let mut term = of as f64 * (1.0 - p).ln();
        let mut sum = term.exp();
        for k in 0..hits {
            term += ((of - k) as f64).ln() - ((k + 1) as f64).ln() + p.ln() - (1.0 - p).ln();
            sum += term.exp();
        }
        sum
    };
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if at_most(middle) > 0.01 { low = middle } else { high = middle }
    }
    high
}

#[test]
fn a_canary_like_the_baseline_is_hardly_ever_rolled_back() {
    let rollouts: u64 = std::env::var("STREAMGAUGE_ROLLOUTS").map_or(10_000, |text| text.parse().unwrap());
    let plan = plan(&[10, 50, 100], 50);
    // Backends of every kind, among them one that fails as often as suits the rule for streaks best.
    let backends = [
        USUAL,
        Backend { fails: 0.0, stalls: 0.0, breaks: 0.0, ..USUAL },
        Backend { fails: 0.12, ..USUAL },
        Backend { fails: 0.3, stalls: 0.1, breaks: 0.1, ..USUAL },
    ];
    let ended = simulate(rollouts, |seed| {
        let backend = backends[seed as usize % backends.len()];
        roll_out(&plan, seed + 1, 50_000, backend, backend)
    });
    let back: Vec<&Decision> = ended
        .iter()
        .filter_map(|ended| ended.decision.as_ref())
        .filter(|decision| decision.kind == Kind::RollBack)
        .collect();
    let broken = back.iter().filter(|decision| matches!(decision.reason, Reason::Broken(_))).count();
    let promoted = ended.iter().filter(|ended| ended.decision.is_some_and(|it| it.kind == Kind::Promote)).count();
    let bound = upper_bound(back.len() as u64, rollouts);
    println!(
        "{rollouts} rollouts of a canary like the baseline: {} rolled back ({broken} by the rule for streaks), {promoted} \
         promoted; the rate is at most {bound:.5} with 99 % confidence, alpha is {}",
        back.len(),
        plan.alpha
    );
    assert!(bound <= plan.alpha, "{bound}");
    assert!(promoted as u64 * 100 >= rollouts * 95, "only {promoted} of {rollouts} were promoted");
}

#[test]
fn a_longer_look_is_no_danger() {
    // A last step below 100 % is judged on and on.
    let plan = plan(&[50], 1);
    let ended = simulate(200, |seed| roll_out(&plan, 7_000_000 + seed, 4_000, USUAL, USUAL));
    let back = ended.iter().filter(|ended| ended.decision.is_some()).count();
    println!("200 rollouts of 4,000 requests each: {back} rolled back");
    assert!(back <= 6, "{back}: at alpha = 0.01 more than 6 of 200 come once in 200 runs");
}

#[test]
fn a_real_regression_is_found_soon() {
    let cases = [
        ("2 % errors become 10 %", Backend { fails: 0.1, ..USUAL }, 400),
        ("the time to the first token grows by half", Backend { first_token: 450.0, ..USUAL }, 600),
        ("answers are truncated, 0.5 % become 5 %", Backend { breaks: 0.05, ..USUAL }, 600),
        ("stalls, 1 % become 10 %", Backend { stalls: 0.1, ..USUAL }, 400),
        ("answers are five times as long", Backend { length: 1000.0, ..USUAL }, 400),
        ("nothing works", Backend { fails: 1.0, ..USUAL }, 20),
    ];
    /// In each of them it must be found.
    const RUNS: u64 = 20;
    for share in [5, 50] {
        let plan = plan(&[share], u64::MAX);
        for (what, canary, median_max) in cases {
            let ended = simulate(RUNS, |seed| {
                // The baseline is known already, as after any first step.
                roll_out(&plan, 9_000_000 + seed, 40_000, USUAL, canary)
            });
            let found: Vec<_> = ended.iter().filter(|ended| ended.decision.is_some()).collect();
            let mut needed: Vec<u64> = found.iter().map(|ended| ended.canary_requests).collect();
            needed.sort_unstable();
            assert_eq!(needed.len() as u64, RUNS, "{what} at {share} %: found in {} of {RUNS}", needed.len());
            let (median, most) = (needed[needed.len() / 2], needed[needed.len() - 1]);
            println!("{what}, canary at {share} %: found after {median} canary requests (median), {most} at the most");
            assert!(median <= median_max, "{what} at {share} %: {median} > {median_max}");
        }
    }
}

/// A rollout among users who stay in their cohort; one in fifty of them fails half of the time, wherever it is.
fn roll_out_among(users: u64, plan: &Canary, seed: u64, requests_max: u64) -> Option<Decision> {
    let mut random = Random(seed.wrapping_mul(0xa076_1d64_78bd_642f));
    let salt = random.next();
    let mut judge = Judge::start(plan, Duration::ZERO);
    for _ in 0..requests_max {
        let user = random.next() % users;
        let mut own = Random(user ^ salt);
        let (draw, troubled) = (own.unit(), own.chance(0.02));
        let is_canary = draw * 100.0 < f64::from(judge.share(plan));
        let backend = Backend { fails: if troubled { 0.5 } else { 0.005 }, ..USUAL };
        let arm = if is_canary { Arm::Canary } else { Arm::Baseline };
        let decision = judge.observe(plan, (arm, user), &backend.answer(&mut random), Duration::ZERO);
        if let Some(decision) = decision.filter(|decision| matches!(decision.kind, Kind::RollBack | Kind::Promote)) {
            return Some(decision);
        }
    }
    None
}

#[test]
fn users_who_differ_do_little_harm_where_there_are_many() {
    const RUNS: u64 = 400;
    for (users, min_requests) in [(1_000, 50), (200, 50), (200, 200)] {
        let plan = plan(&[10, 50, 100], min_requests);
        let ended = simulate(RUNS, |seed| roll_out_among(users, &plan, seed + 1, 20_000));
        let back = ended.iter().flatten().filter(|decision| decision.kind == Kind::RollBack).count();
        println!(
            "{users} users who differ, {min_requests} requests a step: {back} of {RUNS} rollouts were rolled back"
        );
        // Where users are few, the test compares who they are as well: docs/canary.md says so.
        assert!(users < 1_000 || back <= 10, "{back}: at alpha = 0.01 more than 10 of 400 come once in 300 runs");
    }
}
