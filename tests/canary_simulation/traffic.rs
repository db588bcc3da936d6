//! Traffic in time: requests come, are assigned, and take as long as answers take. What fails does so soon, what succeeds is
//! known at its end, so that after each step a judge hears of the failures first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use streamgauge::config::canary::Canary;
use streamgauge::policy::canary::{Arm, Decision, FirstAttempt, FirstToken, Judge, Kind, Sample};

use crate::random::Random;

/// Seconds until a failure is known.
const FAILURE_S: f64 = 0.2;

/// How a backend behaves.
#[derive(Debug, Clone, Copy)]
pub struct Backend {
    pub fails: f64,
    pub stalls: f64,
    pub breaks: f64,
    /// Median, in seconds.
    pub first_token_s: f64,
    /// Median, in seconds; how long an answer lasts is log-normal.
    pub answer_s: f64,
    /// Of an answer: long answers take long.
    pub tokens_per_s: f64,
}

/// What stays with a user.
pub struct User {
    pub unit: u64,
    /// In [0, 100): a canary of a greater share has the user.
    pub draw: f64,
    /// In [0, 1): one of the troubled if it is less than their share.
    trouble: f64,
}

/// What happens to both sides alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weather {
    Calm,
    /// Every two minutes a dependency of both fails for 20 s, and each half minute for half a second.
    Outages,
    /// Requests come ever faster, up to five times, for ten minutes; then the wave begins anew. The more of them,
    /// the more fail and the later they begin.
    Waves,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Users {
    /// Each request is for itself.
    None,
    /// So many, of whom the busiest asks twice as often as the second, three times as often as the third, ...
    Zipf(u64),
}

#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    pub what: &'static str,
    /// Requests a second.
    pub rate: f64,
    pub baseline: Backend,
    pub users: Users,
    pub weather: Weather,
    /// The share of answers that end up to 15 minutes late: read slowly, or told late.
    pub lags: f64,
    /// The share of users half of whose requests fail, wherever they are.
    pub troubled: f64,
}

/// A rollout's end, or how it stood when nobody looked any more.
pub struct Ended {
    pub decision: Option<Decision>,
    /// The last step was reached.
    pub is_through: bool,
    /// Of the canary, since it had the behaviour that is tested.
    pub canary_requests: u64,
    /// Seconds since then.
    pub after_s: f64,
    /// How long each hold lasted, in seconds; the last one may have lasted on.
    pub holds_s: Vec<f64>,
}

/// Answers under way, of which the first is the earliest to end.
pub type Waiting<T> = BinaryHeap<UnderWay<T>>;

/// An answer under way.
pub struct UnderWay<T = ()> {
    pub ends_s: f64,
    pub sample: Sample,
    pub attempt: FirstAttempt,
    /// Whose it is.
    pub of: T,
}

impl<T> Ord for UnderWay<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap's first is the earliest.
        other.ends_s.total_cmp(&self.ends_s)
    }
}

impl<T> PartialOrd for UnderWay<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for UnderWay<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for UnderWay<T> {}

impl Backend {
    /// An answer, and after how many seconds it is known.
    pub fn answer(&self, random: &mut Random, stress: f64) -> (FirstAttempt, f64) {
        if random.chance((self.fails * stress).min(1.0)) {
            return (FirstAttempt::FAILED, FAILURE_S);
        }
        let first_token = random.log_normal(self.first_token_s * stress.clamp(1.0, 3.0), 0.5);
        let whole = random.log_normal(self.answer_s, 0.7);
        let truncated = random.chance((self.breaks * stress).min(1.0));
        let stalled = random.chance((self.stalls * stress).min(1.0));
        let lasts = if truncated { whole * random.unit() } else { whole };
        let attempt = FirstAttempt {
            failed: Some(false),
            // Of what broke off it is only known if it did.
            stalled: (stalled || !truncated).then_some(stalled),
            truncated: Some(truncated),
            first_token: Some(FirstToken::Came(Duration::from_secs_f64(first_token))),
            output: (!truncated).then_some((whole * self.tokens_per_s) as u64),
        };
        (attempt, first_token + lasts + if stalled { 5.0 } else { 0.0 })
    }
}

impl Weather {
    /// The rate of requests and of what goes wrong, as multiples of the usual.
    pub fn at(self, now_s: f64) -> (f64, f64) {
        match self {
            Self::Calm => (1.0, 1.0),
            Self::Outages if now_s % 120.0 > 100.0 || now_s % 30.0 > 29.5 => (1.0, 40.0),
            Self::Outages => (1.0, 1.0),
            Self::Waves => {
                let height = 1.0 + 4.0 * (now_s % 600.0) / 600.0;
                (height, height)
            }
        }
    }
}

impl Users {
    /// Somebody by chance.
    pub fn draw(self, random: &mut Random, salt: u64) -> User {
        let user = match self {
            Self::None => random.next_u64(),
            // The inverse of the distribution, with the sum of 1/n taken for the logarithm.
            Self::Zipf(users) => ((users + 1) as f64).powf(random.unit()) as u64,
        };
        let mut own = Random::new(user ^ salt);
        User { unit: own.next_u64(), draw: own.unit() * 100.0, trouble: own.unit() }
    }
}

/// One rollout. The canary is like the baseline until its last step is reached, then like `turns`, if given.
pub struct Rollout<'a> {
    pub plan: &'a Canary,
    pub traffic: &'a Traffic,
    pub canary: Backend,
    pub turns: Option<(f64, Backend)>,
    /// How long the last step is watched.
    pub watched_s: f64,
}

/// A rollout that has not come through by then is left alone.
pub const LONGEST_S: f64 = 20_000.0;

impl Rollout<'_> {
    pub fn run(&self, seed: u64) -> Ended {
        let mut random = Random::new(seed);
        let salt = random.next_u64();
        let mut judge = Judge::start(self.plan, Duration::ZERO);
        let mut under_way: Waiting<()> = BinaryHeap::new();
        let (mut arrives_s, mut last_step_s, mut canary_requests, mut baseline_requests) = (0.0, None, 0, 0);
        let (mut holds_s, mut held_since_s) = (Vec::new(), None);
        loop {
            let turned_s = self.turns.map_or(0.0, |(at, _)| at);
            let is_arrival = under_way.peek().is_none_or(|first| arrives_s <= first.ends_s);
            if is_arrival {
                let now_s = arrives_s;
                let end_s = last_step_s.map_or(LONGEST_S, |since: f64| since + self.watched_s);
                if now_s > end_s {
                    let after_s = now_s - turned_s;
                    holds_s.extend(held_since_s.map(|since: f64| now_s - since));
                    let is_through = last_step_s.is_some();
                    return Ended { decision: None, is_through, canary_requests, after_s, holds_s };
                }
                let (load, stress) = self.traffic.weather.at(now_s);
                arrives_s += random.gap(self.traffic.rate * load);
                let user = self.traffic.users.draw(&mut random, salt);
                let share = judge.share(self.plan);
                let arm = if user.draw < f64::from(share) { Arm::Canary } else { Arm::Baseline };
                let backend = match (arm, self.turns) {
                    (Arm::Canary, Some((at, after))) if now_s >= at => after,
                    (Arm::Canary, _) => self.canary,
                    (Arm::Baseline, _) => self.traffic.baseline,
                };
                canary_requests += u64::from(arm == Arm::Canary && now_s >= turned_s);
                let fails = if user.trouble < self.traffic.troubled { 0.5 } else { backend.fails };
                let (attempt, lasts_s) = Backend { fails, ..backend }.answer(&mut random, stress);
                let (epoch, at) = (judge.epoch(), Duration::from_secs_f64(now_s));
                let sample = Sample { arm, unit: user.unit, epoch, share, at, number: baseline_requests, origin: 0 };
                baseline_requests += u64::from(arm == Arm::Baseline);
                let lags_s = if random.chance(self.traffic.lags) { random.unit() * 900.0 } else { 0.0 };
                under_way.push(UnderWay { ends_s: now_s + lasts_s + lags_s, sample, attempt, of: () });
            } else if let Some(UnderWay { ends_s, sample, attempt, .. }) = under_way.pop() {
                let now = Duration::from_secs_f64(ends_s);
                let decision = judge.observe(self.plan, sample, &attempt, now);
                match decision.map(|decision| decision.kind) {
                    Some(Kind::Hold) => held_since_s = Some(ends_s),
                    Some(Kind::Step | Kind::Promote) => holds_s.extend(held_since_s.take().map(|since| ends_s - since)),
                    _ => {}
                }
                if let Some(decision) = decision.filter(|decision| decision.kind == Kind::RollBack) {
                    let is_through = last_step_s.is_some();
                    let after_s = ends_s - turned_s;
                    return Ended { decision: Some(decision), is_through, canary_requests, after_s, holds_s };
                }
                let last = self.plan.steps.last().copied().unwrap();
                if last_step_s.is_none() && judge.share(self.plan) == last {
                    last_step_s = Some(ends_s);
                }
            }
        }
    }
}
