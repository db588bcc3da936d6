//! Power of two choices: of two endpoints picked at random the one with the lower cost is asked. The cost is a peak
//! EWMA of the time to first token × the requests in flight.

use std::time::Duration;

use super::hints::OVERLOADED_MAX;
use crate::words::worded;

/// The time constant of the moving average: a latency has faded to a third after this.
const MEMORY: Duration = Duration::from_secs(10);

/// The latency that a fast failure counts as without `Retry-After`, so that it attracts no traffic.
pub const PENALTY: Duration = Duration::from_secs(5);
const PENALTY_MAX: Duration = Duration::from_secs(300);

/// The latency in seconds of an endpoint that has requests and has answered none yet.
const UNKNOWN: f64 = 1.0;

/// The requests in flight of one endpoint, and its latencies.
#[derive(Debug, Clone, Default)]
pub struct Load {
    in_flight: u32,
    /// Answers that stream, until their first token.
    streaming: PeakEwma,
    /// Answers in one piece, until their head.
    whole: PeakEwma,
    penalty: Option<Penalty>,
}

#[derive(Debug, Clone, Copy)]
struct Penalty {
    until: Duration,
    /// Seconds.
    cost: f64,
    by: PenaltyBy,
}

worded! {
    /// Whose request it was that an endpoint is penalised for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum PenaltyBy {
        /// One of this replica.
        Here = "this_replica",
        /// One of another replica of the fleet, which told.
        Fleet = "fleet",
    }
}

/// A peak EWMA: a moving average that rises to a peak at once, and falls slowly.
#[derive(Debug, Clone, Copy, Default)]
struct PeakEwma {
    /// Seconds; `None` before the first sample.
    value: Option<f64>,
    at: Duration,
}

impl Load {
    pub fn enter(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    pub fn leave(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// An attempt had its first token, or the head of an answer in one piece, `took` after it began.
    pub fn answered(&mut self, took: Duration, streaming: bool, now: Duration) {
        self.average_mut(streaming).note(took.as_secs_f64(), now);
    }

    /// It answered with a 429 or 5xx, which is fast: it counts as slow for `retry_after`, or 5 s.
    pub fn penalise(&mut self, retry_after: Option<Duration>, now: Duration) {
        let time = retry_after.unwrap_or(PENALTY).clamp(Duration::from_secs(1), PENALTY_MAX);
        self.penalty = Some(Penalty { until: now + time, cost: time.max(PENALTY).as_secs_f64(), by: PenaltyBy::Here });
    }

    /// Another replica was told to wait for so long. Whether that is news: a penalty is never made shorter by it.
    pub fn penalise_as_told(&mut self, left: Duration, now: Duration) -> bool {
        let left = left.min(OVERLOADED_MAX);
        let until = now + left;
        let is_news = self.penalty.is_none_or(|penalty| penalty.until < until);
        if is_news {
            self.penalty = Some(Penalty { until, cost: left.max(PENALTY).as_secs_f64(), by: PenaltyBy::Fleet });
        }
        is_news
    }

    /// Until when it counts as overloaded or failed, and by whose request. `None`: it does not.
    pub fn penalised_until(&self, now: Duration) -> Option<(Duration, PenaltyBy)> {
        self.penalty.filter(|penalty| now < penalty.until).map(|penalty| (penalty.until, penalty.by))
    }

    /// Whether it said lately that it failed, or is overloaded.
    pub fn is_penalised(&self, now: Duration) -> bool {
        self.penalised_until(now).is_some()
    }

    /// The average as it was at the last answer, however long ago.
    pub fn last_latency(&self, streaming: bool) -> Option<Duration> {
        self.average(streaming).value.map(Duration::from_secs_f64)
    }

    /// What one more request would cost here; only good for comparing.
    pub fn cost(&self, streaming: bool, now: Duration) -> f64 {
        let penalty = self.penalty.filter(|penalty| now < penalty.until).map_or(0.0, |penalty| penalty.cost);
        match self.average(streaming).read(now) {
            None if penalty == 0.0 => f64::from(self.in_flight) * UNKNOWN,
            average => average.unwrap_or(0.0).max(penalty) * f64::from(self.in_flight.saturating_add(1)),
        }
    }

    /// The average time until the first token, or the head of an answer in one piece.
    pub fn latency(&self, streaming: bool, now: Duration) -> Option<Duration> {
        self.average(streaming).read(now).map(Duration::from_secs_f64)
    }

    fn average(&self, streaming: bool) -> &PeakEwma {
        if streaming { &self.streaming } else { &self.whole }
    }

    fn average_mut(&mut self, streaming: bool) -> &mut PeakEwma {
        if streaming { &mut self.streaming } else { &mut self.whole }
    }
}

impl PeakEwma {
    fn note(&mut self, sample: f64, now: Duration) {
        self.value = Some(match self.value {
            Some(value) if sample < value => {
                let kept = self.faded(now);
                value * kept + sample * (1.0 - kept)
            }
            _ => sample,
        });
        self.at = now;
    }

    /// Fades while nothing comes, so that a slow endpoint is tried again one day.
    fn read(&self, now: Duration) -> Option<f64> {
        self.value.map(|value| value * self.faded(now))
    }

    fn faded(&self, now: Duration) -> f64 {
        (-now.saturating_sub(self.at).as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }
}

/// The cheaper of two that `roll`, uniform over all of `u64`, picks out of `costs`. `None`: there are none.
pub fn choose(costs: &[f64], roll: u64) -> Option<usize> {
    let count = costs.len() as u64;
    let (high, low) = (roll >> 32, roll & u64::from(u32::MAX));
    let first = (high * count) >> 32;
    // Another than the first: one of the others, counted on from it.
    let second = if count > 1 { (first + 1 + ((low * (count - 1)) >> 32)) % count } else { first };
    let (first, second) = (usize::try_from(first).ok()?, usize::try_from(second).ok()?);
    Some(if costs.get(second)? < costs.get(first)? { second } else { first })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn peaks_count_at_once_and_fade() {
        let mut load = Load::default();
        load.answered(ms(100), true, ms(0));
        load.answered(ms(2_000), true, ms(100));
        assert_eq!(load.latency(true, ms(100)), Some(ms(2_000)));
        load.answered(ms(100), true, ms(200));
        let soon = load.latency(true, ms(200)).unwrap();
        assert!(soon > ms(1_900), "one fast answer does not undo a slow one: {soon:?}");
        assert!(load.latency(true, ms(60_000)).unwrap() < ms(10));
        assert_eq!(load.last_latency(true), Some(soon), "what it was last does not fade");
    }

    #[test]
    fn streams_and_whole_answers_have_their_own_averages() {
        let mut load = Load::default();
        load.answered(ms(9_000), false, ms(0));
        assert_eq!((load.latency(true, ms(0)), load.cost(true, ms(0))), (None, 0.0));
        assert_eq!(load.latency(false, ms(0)), Some(ms(9_000)));
    }

    #[test]
    fn a_fast_failure_is_no_fast_answer() {
        let (mut failing, mut slow) = (Load::default(), Load::default());
        slow.answered(ms(3_000), true, ms(0));
        failing.penalise(None, ms(0));
        assert!(failing.is_penalised(ms(4_999)) && !failing.is_penalised(ms(5_000)) && !slow.is_penalised(ms(0)));
        assert!(failing.cost(true, ms(10)) > slow.cost(true, ms(10)));
        assert!(failing.cost(true, ms(5_000)) < slow.cost(true, ms(5_000)), "after 5 s it is tried again");
        failing.penalise(Some(ms(60_000)), ms(0));
        assert!(failing.cost(true, ms(59_000)) > slow.cost(true, ms(0)));
        failing.penalise(Some(Duration::MAX), ms(0));
        assert_eq!(failing.cost(true, ms(301_000)), 0.0, "no upstream can ask for more than 5 minutes");
    }

    #[test]
    fn what_another_replica_was_told_costs_as_much_and_shortens_nothing() {
        let mut load = Load::default();
        assert!(load.penalise_as_told(ms(20_000), ms(0)));
        assert_eq!(load.penalised_until(ms(0)), Some((ms(20_000), PenaltyBy::Fleet)));
        assert_eq!(load.cost(true, ms(19_999)), 20.0);
        assert!(!load.penalise_as_told(ms(20_000), ms(0)), "told again");
        assert!(load.penalise_as_told(Duration::MAX, ms(0)));
        assert_eq!(load.penalised_until(ms(0)), Some((ms(60_000), PenaltyBy::Fleet)), "a minute at most");
        load.penalise(Some(ms(90_000)), ms(0));
        assert!(!load.penalise_as_told(ms(60_000), ms(0)));
        assert_eq!(load.penalised_until(ms(0)), Some((ms(90_000), PenaltyBy::Here)));
        assert_eq!(load.penalised_until(ms(90_000)), None);
    }

    #[test]
    fn busy_endpoints_cost_more() {
        let mut load = Load::default();
        load.enter();
        assert_eq!(load.cost(true, ms(0)), UNKNOWN);
        load.answered(ms(500), true, ms(0));
        assert_eq!(load.cost(true, ms(0)), 1.0);
        load.leave();
        load.leave();
        assert_eq!((load.in_flight(), load.cost(true, ms(0))), (0, 0.5));
    }

    proptest! {
        #[test]
        fn two_are_compared_and_the_cheaper_is_taken(costs in proptest::collection::vec(0.0_f64..10.0, 1..20), roll: u64) {
            let chosen = choose(&costs, roll).unwrap();
            let dearer = costs.iter().filter(|cost| **cost >= costs[chosen]).count();
            prop_assert!(costs.len() == 1 || dearer >= 2 , "never the dearest of several");
        }

        #[test]
        fn everyone_gets_a_turn(count in 1_usize..10) {
            let costs = vec![1.0; count];
            let seen: std::collections::HashSet<_> =
                (0..10_000_u64).filter_map(|turn| choose(&costs, turn.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
            prop_assert_eq!(seen.len(), count);
        }
    }

    #[test]
    fn of_none_none_is_chosen() {
        assert_eq!(choose(&[], 7), None);
    }
}
