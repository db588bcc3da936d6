//! The same traffic through several replicas: each tells its requests in batches, follows a step a little later than it was taken, and
//! has its own part of the requests. One judge reads all batches.

use std::time::Duration;

use streamgauge::config::canary::Canary;
use streamgauge::policy::canary::{Arm, Decision, Entry, FirstAttempt, Fold, Id, Kind, Sample, pack, together, unpack};

use crate::random::Random;
use crate::traffic::{Backend, LONGEST_S, Traffic, UnderWay, Waiting};

/// How often batches are told and read, in seconds.
const TICK_S: f64 = 0.2;

/// One of several.
#[derive(Debug, Clone, Copy)]
pub struct Replica {
    /// Its part of all requests; those of all replicas add up to 1.
    pub part: f64,
    /// How long after it was taken it follows a step, in seconds.
    pub lags_s: f64,
}

/// A rollout at a fleet.
pub struct Rollout<'a> {
    pub plan: &'a Canary,
    pub traffic: &'a Traffic,
    pub canary: Backend,
    pub replicas: &'a [Replica],
    /// How long the last step is watched, in seconds.
    pub watched_s: f64,
}

/// How it ended.
pub struct Ended {
    pub back: Option<Decision>,
    /// The last step was reached.
    pub is_through: bool,
    pub canary_requests: u64,
}

/// How a replica assigns, and what it has not told.
#[derive(Default)]
struct Seat {
    share: u8,
    epoch: u64,
    /// A step that it does not follow yet: from when on, the share, the epoch.
    next: Option<(f64, u8, u64)>,
    baseline: u64,
    told: u64,
    waits: Vec<(Sample, FirstAttempt)>,
}

impl Rollout<'_> {
    pub fn run(&self, seed: u64) -> Ended {
        let plan = together(self.plan, false);
        let (mut random, mut places) = (Random::new(seed), Random::new(seed ^ 0x5eed));
        let salt = random.next_u64();
        let mut fold = Fold::start(&plan, Duration::ZERO);
        let mut seats: Vec<Seat> = self.replicas.iter().map(|_| Seat::default()).collect();
        seats.iter_mut().for_each(|seat| (seat.share, seat.epoch) = (fold.judge.share(&plan), fold.judge.epoch()));
        let mut under_way: Waiting<usize> = Waiting::new();
        let (mut arrives_s, mut tick_s, mut through_s, mut canary_requests) = (0.0, TICK_S, None, 0);
        loop {
            let is_arrival = under_way.peek().is_none_or(|first| arrives_s <= first.ends_s);
            let now_s = if is_arrival { arrives_s } else { under_way.peek().map_or(arrives_s, |first| first.ends_s) };
            while tick_s <= now_s {
                let back = self.judge(&mut fold, &mut seats, &plan, tick_s);
                if through_s.is_none() && Some(&fold.judge.share(&plan)) == plan.steps.last() {
                    through_s = Some(tick_s);
                }
                let end_s = through_s.map_or(LONGEST_S, |since| since + self.watched_s);
                if back.is_some() || tick_s > end_s {
                    return Ended { back, is_through: through_s.is_some(), canary_requests };
                }
                tick_s += TICK_S;
            }
            if !is_arrival {
                if let Some(UnderWay { sample, attempt, of, .. }) = under_way.pop() {
                    seats[of].waits.push((sample, attempt));
                }
                continue;
            }
            let (load, stress) = self.traffic.weather.at(now_s);
            arrives_s += random.gap(self.traffic.rate * load);
            let user = self.traffic.users.draw(&mut random, salt);
            let of = self.place(places.unit());
            let seat = &mut seats[of];
            if let Some((_, share, epoch)) = seat.next.take_if(|(from_s, ..)| *from_s <= now_s) {
                (seat.share, seat.epoch) = (share, epoch);
            }
            let arm = if user.draw < f64::from(seat.share) { Arm::Canary } else { Arm::Baseline };
            let backend = if arm == Arm::Canary { self.canary } else { self.traffic.baseline };
            canary_requests += u64::from(arm == Arm::Canary);
            let (attempt, lasts_s) = backend.answer(&mut random, stress);
            let number = seat.baseline * self.replicas.len() as u64;
            seat.baseline += u64::from(arm == Arm::Baseline);
            let at = Duration::from_secs_f64(now_s);
            let sample =
                Sample { arm, unit: user.unit, epoch: seat.epoch, share: seat.share, at, number, origin: of as u64 };
            let lags_s = if random.chance(self.traffic.lags) { random.unit() * 900.0 } else { 0.0 };
            under_way.push(UnderWay { ends_s: now_s + lasts_s + lags_s, sample, attempt, of });
        }
    }

    fn place(&self, at: f64) -> usize {
        let mut sum = 0.0;
        let found = self.replicas.iter().position(|replica| {
            sum += replica.part;
            at < sum
        });
        found.unwrap_or(self.replicas.len() - 1)
    }

    /// All replicas tell what waits, and the judge reads it. A rollback, if that follows.
    fn judge(&self, fold: &mut Fold, seats: &mut [Seat], plan: &Canary, now_s: f64) -> Option<Decision> {
        let now = Duration::from_secs_f64(now_s);
        let mut back = None;
        for (origin, seat) in seats.iter_mut().enumerate().filter(|(_, seat)| !seat.waits.is_empty()) {
            seat.told += 1;
            let id = Id(now.as_millis() as u64, origin as u64);
            let samples = unpack(&pack(&seat.waits, now), Duration::from_millis(id.0), origin as u64).unwrap();
            seat.waits.clear();
            let entry = Entry { id, origin: origin as u64, number: seat.told, samples };
            back = back.or(fold.take(plan, &entry).into_iter().find(|decision| decision.kind == Kind::RollBack));
        }
        let (share, epoch) = (fold.judge.share(plan), fold.judge.epoch());
        for (seat, replica) in seats.iter_mut().zip(self.replicas) {
            if seat.epoch != epoch && seat.next.is_none_or(|(_, _, next)| next != epoch) {
                seat.next = Some((now_s + replica.lags_s, share, epoch));
            }
        }
        back
    }
}
