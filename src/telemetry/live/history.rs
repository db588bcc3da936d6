//! The last 24 hours in steps of five minutes, by route and upstream: enough to look back over a night without a Prometheus.
//!
//! Fed by the record at a request's end, and by nothing else: an event costs nothing. What it takes is bounded: [`SERIES_MAX`] series of
//! [`STEPS`] steps; requests of further ones are counted as [`OTHER`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::minutes::bucket_at;
use crate::telemetry::json::Json;
use crate::telemetry::record::{Outcome, Record};

/// Length of a step, in seconds.
pub const STEP_S: u64 = 300;

/// Steps that are kept, the current one included: 24 hours.
pub const STEPS: usize = 288;

/// Series with a name of their own.
pub const SERIES_MAX: usize = 32;

/// The route and upstream of requests that have no series of their own.
pub const OTHER: &str = "other";

/// The upstream of requests for which none was asked.
const NO_UPSTREAM: &str = "none";

/// Buckets of times to the first token: four to a doubling, from 10 ms to 10 min; a percentile is at most 9 % off.
const BUCKETS: usize = 64;
const BUCKETS_TO_DOUBLING: f64 = 4.0;
const SHORTEST_S: f64 = 0.01;

/// By what requests are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Route,
    Upstream,
    /// All in one series.
    All,
}

impl By {
    /// As it is written in a query.
    pub fn read(word: &str) -> Option<Self> {
        match word {
            "route" => Some(Self::Route),
            "upstream" => Some(Self::Upstream),
            "all" => Some(Self::All),
            _ => None,
        }
    }
}

/// What happened in a step.
#[derive(Debug, Clone)]
struct Step {
    /// Since 1970, in steps.
    number: u64,
    /// Requests that ended in it.
    requests: u32,
    failed: u32,
    refused: u32,
    output_tokens: u64,
    cost_nano_dollars: u64,
    /// The time that requests were in flight in it, of all together, in ms.
    busy_ms: u64,
    first_tokens: [u32; BUCKETS],
}

impl Step {
    fn new(number: u64) -> Self {
        Self {
            number,
            requests: 0,
            failed: 0,
            refused: 0,
            output_tokens: 0,
            cost_nano_dollars: 0,
            busy_ms: 0,
            first_tokens: [0; BUCKETS],
        }
    }

    fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failed = self.failed.saturating_add(other.failed);
        self.refused = self.refused.saturating_add(other.refused);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cost_nano_dollars = self.cost_nano_dollars.saturating_add(other.cost_nano_dollars);
        self.busy_ms = self.busy_ms.saturating_add(other.busy_ms);
        for (all, count) in self.first_tokens.iter_mut().zip(other.first_tokens) {
            *all = all.saturating_add(count);
        }
    }

    /// The middle of the bucket in which a share of all first tokens is reached.
    fn percentile(&self, share: f64) -> Option<Duration> {
        let bucket = bucket_at(self.first_tokens.iter().map(|count| u64::from(*count)), share)?;
        Some(Duration::from_secs_f64(SHORTEST_S * ((bucket as f64 + 0.5) / BUCKETS_TO_DOUBLING).exp2()))
    }
}

/// One series: the place of a step is its number modulo [`STEPS`].
struct Ring(Vec<Step>);

impl Ring {
    fn new() -> Self {
        Self(vec![Step::new(0); STEPS])
    }

    /// The step of that number, emptied where it is a new one; `None` where it is so old that a newer one has its place.
    fn at(&mut self, number: u64) -> Option<&mut Step> {
        let step = self.0.get_mut((number % STEPS as u64) as usize)?;
        if step.number < number {
            *step = Step::new(number);
        }
        (step.number == number).then_some(step)
    }

    /// Steps of the 24 hours that end with the step `now`.
    fn recent(&self, now: u64) -> impl Iterator<Item = &Step> {
        self.0.iter().filter(move |step| step.number > 0 && step.number <= now && now - step.number < STEPS as u64)
    }

    fn is_quiet(&self, now: u64) -> bool {
        self.recent(now).next().is_none()
    }
}

/// The route or the upstream by which requests are added up; neither of all together.
type Group = (Option<Arc<str>>, Option<Arc<str>>);

/// Steps by their number.
type Steps = BTreeMap<u64, Step>;

/// Route and upstream.
type Name = (Arc<str>, Arc<str>);

/// The last 24 hours of all series.
#[derive(Default)]
pub struct History(Mutex<BTreeMap<Name, Ring>>);

impl History {
    /// Counts a request that has ended; not one that had no route.
    pub fn observe(&self, record: &Record) {
        let Some(route) = &record.route else { return };
        let upstream = record.upstream().map_or_else(|| NO_UPSTREAM.into(), Arc::clone);
        let mut series = self.0.lock();
        let end = record.started + record.duration;
        let ring = ring(&mut series, (Arc::clone(route), upstream), number(end));
        in_flight(ring, record.started, end);
        if let Some(step) = ring.at(number(end)) {
            step.add(&facts(record));
        }
    }

    /// `{"step_s":300,"until":…,"series":[{"route","upstream","steps":[…]}]}`: the series, and of each the steps in which something was, the
    /// oldest first. `until` and `at` are the end of the current step and the start of a step, in seconds since 1970.
    pub fn json(&self, by: By, now: SystemTime) -> String {
        let now = number(now);
        let mut out = String::with_capacity(16 << 10);
        let mut object = Json::object(&mut out);
        object.number("step_s", STEP_S);
        object.number("until", (now + 1) * STEP_S);
        let mut array = object.array("series");
        for ((route, upstream), steps) in self.added_up(by, now) {
            let mut element = array.element();
            element.text_if("route", route.as_deref());
            element.text_if("upstream", upstream.as_deref());
            let mut list = element.array("steps");
            steps.values().for_each(|step| render(step, &mut list));
            list.end();
            element.end();
        }
        array.end();
        object.end();
        out
    }

    fn added_up(&self, by: By, now: u64) -> BTreeMap<Group, Steps> {
        let mut sums: BTreeMap<Group, Steps> = BTreeMap::new();
        for ((route, upstream), ring) in self.0.lock().iter() {
            let name = match by {
                By::Route => (Some(Arc::clone(route)), None),
                By::Upstream => (None, Some(Arc::clone(upstream))),
                By::All => (None, None),
            };
            for step in ring.recent(now) {
                let sum = sums.entry(name.clone()).or_default().entry(step.number);
                sum.or_insert_with(|| Step::new(step.number)).add(step);
            }
        }
        sums
    }
}

/// The ring of a series, or of the others where there are too many: those that were quiet for 24 hours give way.
fn ring(series: &mut BTreeMap<Name, Ring>, name: Name, now: u64) -> &mut Ring {
    if !series.contains_key(&name) && series.len() >= SERIES_MAX {
        series.retain(|_, ring| !ring.is_quiet(now));
        if series.len() >= SERIES_MAX {
            return series.entry((OTHER.into(), OTHER.into())).or_insert_with(Ring::new);
        }
    }
    series.entry(name).or_insert_with(Ring::new)
}

/// What a request adds to the step in which it ended.
fn facts(record: &Record) -> Step {
    let mut step = Step { requests: 1, ..Step::new(0) };
    match record.outcome {
        Outcome::Completed | Outcome::ClientCancelled | Outcome::Stopped => {}
        Outcome::Rejected => step.refused = 1,
        _ => step.failed = 1,
    }
    if let Some(connection) = &record.websocket {
        (step.output_tokens, step.cost_nano_dollars) = (connection.output_tokens, connection.cost.nano_dollars());
    } else if let Some(llm) = &record.llm {
        // A fetched answer's usage is told once, with the first that has its end.
        if llm.is_own() || llm.asked_by.is_some() {
            step.output_tokens = llm.reading.usage.output.unwrap_or(0);
            step.cost_nano_dollars = llm.bill.cost().map_or(0, |cost| cost.nano_dollars());
        }
        if let Some(time) = llm.reading.first_token.filter(|_| !llm.is_fetched())
            && let Some(count) = step.first_tokens.get_mut(bucket(time))
        {
            *count = 1;
        }
    }
    step
}

/// Adds the time from `start` to `end` to the steps in which it lies, as far as they are kept.
fn in_flight(ring: &mut Ring, start: SystemTime, end: SystemTime) {
    let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let (start, end) = (since_1970(start), since_1970(end));
    let step_ms = STEP_S * 1_000;
    let last = end / step_ms;
    for number in (start / step_ms).max((last + 1).saturating_sub(STEPS as u64))..=last {
        let from = start.max(number * step_ms);
        let to = end.min((number + 1) * step_ms);
        if let Some(step) = ring.at(number).filter(|_| to > from) {
            step.busy_ms = step.busy_ms.saturating_add(to - from);
        }
    }
}

fn render(step: &Step, list: &mut Json<'_>) {
    let mut element = list.element();
    element.number("at", step.number * STEP_S);
    for (key, count) in [("requests", step.requests), ("failed", step.failed), ("refused", step.refused)] {
        element.number(key, u64::from(count));
    }
    element.number("output_tokens", step.output_tokens);
    element.bare("cost_usd", &(step.cost_nano_dollars as f64 / 1e9).to_string());
    element.bare("in_flight", &(step.busy_ms as f64 / (STEP_S * 1_000) as f64).to_string());
    element.seconds_if("first_token_p50_s", step.percentile(0.5));
    element.seconds_if("first_token_p95_s", step.percentile(0.95));
    element.end();
}

fn number(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / STEP_S
}

fn bucket(time: Duration) -> usize {
    let steps = (time.as_secs_f64() / SHORTEST_S).max(1.0).log2() * BUCKETS_TO_DOUBLING;
    (steps as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::llm::price::Cost;
    use crate::telemetry::record::ServedBy;
    use crate::telemetry::records_for_tests::{chat, ms, plain};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_100 + seconds)
    }

    fn ended(route: &str, upstream: &str, end: SystemTime, first_token: Duration) -> Record {
        let mut record = chat("gpt-4o");
        record.route = Some(route.into());
        record.served_by = Some(ServedBy { upstream: upstream.into(), variant: upstream.into() });
        record.duration = ms(1_000);
        record.started = end - record.duration;
        record.llm.as_mut().unwrap().reading.first_token = Some(first_token);
        record
    }

    fn shown(history: &History, by: By, now: SystemTime) -> Vec<Value> {
        serde_json::from_str::<Value>(&history.json(by, now)).unwrap()["series"].as_array().unwrap().clone()
    }

    fn sum(series: &[Value], key: &str) -> f64 {
        let steps = series.iter().flat_map(|one| one["steps"].as_array().unwrap());
        steps.map(|step| step[key].as_f64().unwrap()).sum()
    }

    #[test]
    fn requests_are_added_up_by_route_by_upstream_and_together() {
        let history = History::default();
        for (route, upstream) in [("chat", "a"), ("chat", "b"), ("search", "b")] {
            history.observe(&ended(route, upstream, at(0), ms(500)));
        }
        history.observe(&plain());
        for (by, key, names) in [
            (By::Route, "route", vec!["chat", "search"]),
            (By::Upstream, "upstream", vec!["a", "b"]),
            (By::All, "route", vec![]),
        ] {
            let series = shown(&history, by, at(0));
            let told: Vec<&str> = series
                .iter()
                .filter_map(|one| one[key].as_str())
                .filter(|name| !["all", "fastapi"].contains(name))
                .collect();
            assert_eq!(told, names, "{by:?}");
            assert_eq!(sum(&series, "requests"), 4.0);
        }
        let mut nowhere = plain();
        nowhere.route = None;
        history.observe(&nowhere);
        assert_eq!(sum(&shown(&history, By::All, at(0)), "requests"), 4.0);
    }

    #[test]
    fn a_step_tells_first_tokens_tokens_errors_and_cost() {
        let history = History::default();
        (1..=100).for_each(|number| history.observe(&ended("chat", "a", at(10), ms(number * 10))));
        let mut failed = ended("chat", "a", at(10), ms(10));
        (failed.outcome, failed.llm.as_mut().unwrap().reading.first_token) = (Outcome::Truncated, None);
        history.observe(&failed);
        failed.outcome = Outcome::Rejected;
        failed.served_by = None;
        history.observe(&failed);
        let one = chat("gpt-4o");
        let (tokens, cost) =
            one.llm.map(|llm| (llm.reading.usage.output.unwrap(), llm.bill.cost().map_or(0.0, Cost::dollars))).unwrap();
        let series = shown(&history, By::Route, at(10));
        let step = &series[0]["steps"][0];
        assert_eq!((&step["requests"], &step["failed"], &step["refused"]), (&102.into(), &1.into(), &1.into()));
        assert_eq!(step["output_tokens"], 102 * tokens);
        assert!((step["cost_usd"].as_f64().unwrap() - 102.0 * cost).abs() < 1e-9 && cost > 0.0);
        for (key, truth) in [("first_token_p50_s", 0.5), ("first_token_p95_s", 0.95)] {
            let told = step[key].as_f64().unwrap();
            assert!((told / truth - 1.0).abs() < 0.1, "{key}: {told} for {truth}");
        }
        assert_eq!(shown(&history, By::Upstream, at(10))[1]["upstream"], NO_UPSTREAM);
    }

    #[test]
    fn a_long_request_was_in_flight_in_all_of_its_steps() {
        let history = History::default();
        let mut record = ended("chat", "a", at(0), ms(10));
        // at(0) is the start of a step: one whole step, and half of the one before.
        record.started = at(0) - Duration::from_secs(STEP_S * 3 / 2);
        record.duration = Duration::from_secs(STEP_S * 3 / 2);
        history.observe(&record);
        let series = shown(&history, By::All, at(0));
        let told: Vec<f64> =
            series[0]["steps"].as_array().unwrap().iter().map(|step| step["in_flight"].as_f64().unwrap()).collect();
        assert_eq!(told, [0.5, 1.0, 0.0]);
        // Of one that took days, the last 24 hours.
        record.started = at(0) - Duration::from_secs(STEP_S * 1_000);
        record.duration = Duration::from_secs(STEP_S * 1_000 + 1);
        let history = History::default();
        history.observe(&record);
        let series = shown(&history, By::All, at(0));
        assert_eq!(series[0]["steps"].as_array().unwrap().len(), STEPS);
    }

    #[test]
    fn what_is_older_than_a_day_is_gone_and_a_clock_that_was_set_back_breaks_nothing() {
        let history = History::default();
        let day = STEP_S * STEPS as u64;
        history.observe(&ended("chat", "a", at(1), ms(10)));
        assert_eq!(sum(&shown(&history, By::All, at(day - 1)), "requests"), 1.0);
        assert!(shown(&history, By::All, at(day)).is_empty());
        history.observe(&ended("chat", "a", at(day + 1), ms(10)));
        history.observe(&ended("chat", "a", at(1), ms(10)));
        assert_eq!(sum(&shown(&history, By::All, at(day + 1)), "requests"), 1.0);
        assert!(shown(&history, By::All, at(0)).is_empty());
        history.observe(&ended("chat", "a", UNIX_EPOCH, ms(10)));
    }

    #[test]
    fn series_are_bounded_and_give_way() {
        let history = History::default();
        let names = |now| {
            shown(&history, By::Route, now)
                .iter()
                .map(|one| one["route"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        (0..SERIES_MAX + 5).for_each(|number| history.observe(&ended(&format!("r{number}"), "a", at(0), ms(10))));
        assert_eq!(names(at(0)).len(), SERIES_MAX + 1);
        assert_eq!(sum(&shown(&history, By::All, at(0)), "requests"), (SERIES_MAX + 5) as f64);
        let next_day = at(STEP_S * STEPS as u64 + 1);
        history.observe(&ended("late", "a", next_day, ms(10)));
        assert_eq!(names(next_day), ["late"]);
        assert_eq!(history.0.lock().len(), 1);
    }

    #[test]
    fn it_takes_no_more_than_the_docs_say() {
        let bytes = size_of::<Step>() * STEPS * (SERIES_MAX + 1);
        assert!(bytes <= 3 << 20, "docs/live-view.md says 3 MiB; it is {bytes} bytes");
    }

    proptest! {
        /// Whatever comes in whichever order: each request of the last 24 hours is counted once, and however it is added up, the sums agree.
        #[test]
        fn nothing_is_lost_and_nothing_counted_twice(
            requests in proptest::collection::vec((0u64..2 * STEP_S * STEPS as u64, 0usize..50, 0usize..5, 1u64..100_000), 1..200),
        ) {
            let history = History::default();
            let mut sorted = requests;
            sorted.sort();
            for (second, route, upstream, first) in &sorted {
                history.observe(&ended(&format!("r{route}"), &format!("u{upstream}"), at(*second), ms(*first)));
            }
            let now = at(sorted.last().unwrap().0);
            let is_recent = |second: u64| number(now) - number(at(second)) < STEPS as u64;
            let wanted = sorted.iter().filter(|(second, ..)| is_recent(*second)).count() as f64;
            for by in [By::Route, By::Upstream, By::All] {
                prop_assert_eq!(sum(&shown(&history, by, now), "requests"), wanted);
            }
            prop_assert!(history.0.lock().len() <= SERIES_MAX + 1);
        }
    }
}
