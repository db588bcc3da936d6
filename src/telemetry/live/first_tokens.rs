//! Times to the first token of the last minutes, by route and upstream: small histograms, a minute each, so that percentiles
//! of now need no scrape and no history.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::lock;
use crate::telemetry::json::Json;
use crate::telemetry::record::{Outcome, Record};

/// What is told covers this many minutes, the one that runs included.
pub const MINUTES: usize = 5;

/// Pairs of route and upstream that are kept; the names come from configurations, and a pair goes when it was quiet for all
/// the minutes.
const PAIRS_MAX: usize = 256;

/// Buckets to one doubling, and doublings from 1 ms to 131 s: a percentile is at most 4.5 % off.
const STEPS: usize = 8;
const DOUBLINGS: usize = 17;
const BUCKETS: usize = STEPS * DOUBLINGS;

/// The window over all pairs.
#[derive(Default)]
pub struct FirstTokens(Mutex<Pairs>);

/// By route and upstream.
type Pairs = BTreeMap<(Arc<str>, Arc<str>), Pair>;

/// One pair's minutes; the slot of a minute is its number modulo [`MINUTES`].
#[derive(Default)]
struct Pair([Minute; MINUTES]);

#[derive(Clone)]
struct Minute {
    /// Since 1970.
    number: u64,
    requests: u32,
    failed: u32,
    output_tokens: u64,
    times: Box<[u32; BUCKETS]>,
}

impl Default for Minute {
    fn default() -> Self {
        Self { number: 0, requests: 0, failed: 0, output_tokens: 0, times: Box::new([0; BUCKETS]) }
    }
}

impl FirstTokens {
    /// Books a request that an upstream was asked for.
    pub fn observe(&self, record: &Record) {
        let (Some(route), Some(served_by), Some(llm)) = (&record.route, &record.served_by, &record.llm) else { return };
        let now = minute(record.started + record.duration);
        let failed = !matches!(record.outcome, Outcome::Completed | Outcome::ClientCancelled | Outcome::Rejected);
        let mut pairs = lock(&self.0);
        let key = (Arc::clone(route), Arc::clone(&served_by.upstream));
        if pairs.len() >= PAIRS_MAX && !pairs.contains_key(&key) {
            pairs.retain(|_, pair| pair.0.iter().any(|minute| minute.is_recent(now)));
            if pairs.len() >= PAIRS_MAX {
                return;
            }
        }
        let pair = pairs.entry(key).or_default();
        let Some(slot) = pair.0.get_mut((now % MINUTES as u64) as usize) else { return };
        if slot.number != now {
            *slot = Minute { number: now, ..Minute::default() };
        }
        slot.requests = slot.requests.saturating_add(1);
        slot.failed = slot.failed.saturating_add(u32::from(failed));
        slot.output_tokens = slot.output_tokens.saturating_add(llm.reading.usage.output.unwrap_or(0));
        if let Some(count) = llm.reading.first_token.and_then(|time| slot.times.get_mut(bucket(time))) {
            *count = count.saturating_add(1);
        }
    }

    /// Writes `"first_tokens":[{route, upstream, requests, failed, output_tokens, first_tokens, p50_s, p95_s, p99_s}]`.
    pub(super) fn render(&self, object: &mut Json<'_>, now: SystemTime) {
        let now = minute(now);
        let mut array = object.array("first_tokens");
        for ((route, upstream), pair) in lock(&self.0).iter() {
            let recent = || pair.0.iter().filter(|minute| minute.is_recent(now));
            let requests: u64 = recent().map(|minute| u64::from(minute.requests)).sum();
            if requests == 0 {
                continue;
            }
            let mut sum = [0_u64; BUCKETS];
            for minute in recent() {
                sum.iter_mut().zip(minute.times.iter()).for_each(|(all, count)| *all += u64::from(*count));
            }
            let mut row = array.element();
            row.text("route", route);
            row.text("upstream", upstream);
            row.number("requests", requests);
            row.number("failed", recent().map(|minute| u64::from(minute.failed)).sum());
            row.number("output_tokens", recent().map(|minute| minute.output_tokens).sum());
            row.number("first_tokens", sum.iter().sum());
            for (key, share) in [("p50_s", 0.5), ("p95_s", 0.95), ("p99_s", 0.99)] {
                row.seconds_if(key, percentile(&sum, share));
            }
            row.end();
        }
        array.end();
    }
}

impl Minute {
    fn is_recent(&self, now: u64) -> bool {
        self.requests > 0 && self.number <= now && now - self.number < MINUTES as u64
    }
}

fn minute(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 60
}

fn bucket(time: Duration) -> usize {
    let steps = (time.as_secs_f64() * 1e3).max(1.0).log2() * STEPS as f64;
    (steps as usize).min(BUCKETS - 1)
}

/// The middle of the bucket in which the share of all is reached; `None` without any.
fn percentile(counts: &[u64; BUCKETS], share: f64) -> Option<Duration> {
    let all: u64 = counts.iter().sum();
    let wanted = ((all as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    let bucket = counts.iter().position(|count| {
        seen += count;
        seen >= wanted
    })?;
    (all > 0).then(|| Duration::from_secs_f64(((bucket as f64 + 0.5) / STEPS as f64).exp2() / 1e3))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::telemetry::samples::{chat, ms, plain};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_040 + seconds)
    }

    fn answered(first_token: u64, started: SystemTime) -> Record {
        let mut record = chat("gpt-4o");
        record.started = started;
        record.duration = ms(first_token + 100);
        record.llm.as_mut().unwrap().reading.first_token = Some(ms(first_token));
        record
    }

    fn shown(window: &FirstTokens, now: SystemTime) -> Value {
        let mut out = String::new();
        let mut object = Json::object(&mut out);
        window.render(&mut object, now);
        object.end();
        serde_json::from_str::<Value>(&out).unwrap()["first_tokens"].clone()
    }

    #[test]
    fn percentiles_are_close_to_the_truth() {
        let window = FirstTokens::default();
        (1..=1_000).for_each(|time| window.observe(&answered(time, at(0))));
        let row = shown(&window, at(60))[0].clone();
        assert_eq!(
            (&row["route"], &row["upstream"], &row["requests"]),
            (&"chat".into(), &"fastapi".into(), &1_000.into())
        );
        for (key, truth) in [("p50_s", 0.5), ("p95_s", 0.95), ("p99_s", 0.99)] {
            let told = row[key].as_f64().unwrap();
            assert!((told / truth - 1.0).abs() < 0.05, "{key}: {told} for {truth}");
        }
    }

    #[test]
    fn what_is_old_is_forgotten_a_minute_at_a_time() {
        let window = FirstTokens::default();
        (0..10).for_each(|minute| window.observe(&answered(100, at(60 * minute))));
        assert_eq!(shown(&window, at(9 * 60))[0]["requests"], 5);
        assert_eq!(shown(&window, at(11 * 60))[0]["requests"], 3);
        assert_eq!(shown(&window, at(14 * 60)), Value::Array(Vec::new()));
        window.observe(&answered(100, at(20 * 60)));
        assert_eq!(shown(&window, at(20 * 60))[0]["requests"], 1);
    }

    #[test]
    fn pairs_are_bounded_and_give_way() {
        let window = FirstTokens::default();
        let observe = |route: String, started| {
            let mut record = answered(100, started);
            record.route = Some(route.into());
            window.observe(&record);
        };
        (0..PAIRS_MAX + 50).for_each(|number| observe(format!("r{number}"), at(0)));
        assert_eq!(lock(&window.0).len(), PAIRS_MAX);
        observe("late".to_owned(), at(3_600));
        assert_eq!(shown(&window, at(3_600))[0]["route"], "late");
        assert_eq!(lock(&window.0).len(), 1);
    }

    #[test]
    fn extremes_have_a_place_and_other_requests_none() {
        let window = FirstTokens::default();
        window.observe(&plain());
        assert_eq!(shown(&window, plain().started), Value::Array(Vec::new()));
        for time in [Duration::ZERO, ms(1), Duration::from_secs(131), Duration::MAX] {
            assert!(bucket(time) < BUCKETS);
        }
    }
}
