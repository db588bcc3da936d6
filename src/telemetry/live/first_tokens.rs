//! Times to the first token of the last minutes, by route and upstream, as users had them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

pub use super::minutes::MINUTES;
use super::minutes::{Minutes, Summary, minute, slot};
use crate::telemetry::json::Json;
use crate::telemetry::record::{Outcome, Record};

/// Pairs of route and upstream that are kept; the names come from configurations, and a pair goes when it was quiet for all
/// the minutes.
const PAIRS_MAX: usize = 256;

/// The window over all pairs.
#[derive(Default)]
pub struct FirstTokens(Mutex<Pairs>);

/// By route and upstream.
type Pairs = BTreeMap<(Arc<str>, Arc<str>), Minutes>;

impl FirstTokens {
    /// Books a request that an upstream was asked for.
    pub fn observe(&self, record: &Record) {
        let (Some(route), Some(served_by), Some(llm)) = (&record.route, &record.served_by, &record.llm) else { return };
        if llm.is_fetched() {
            return;
        }
        let now = minute(record.started + record.duration);
        let failed = !matches!(
            record.outcome,
            Outcome::Completed | Outcome::ClientCancelled | Outcome::Rejected | Outcome::Stopped
        );
        let mut pairs = self.0.lock();
        let key = (Arc::clone(route), Arc::clone(&served_by.upstream));
        let Some(slot) = slot(&mut pairs, key, now, PAIRS_MAX) else { return };
        slot.count(failed, llm.reading.usage.output.unwrap_or(0));
        if let Some(time) = llm.reading.first_token {
            slot.first_token(time);
        }
    }

    /// Writes `"first_tokens":[{route, upstream, requests, failed, output_tokens, first_tokens, p50_s, p95_s, p99_s}]`.
    pub(super) fn render(&self, object: &mut Json<'_>, now: SystemTime) {
        let now = minute(now);
        let mut array = object.array("first_tokens");
        for ((route, upstream), minutes) in self.0.lock().iter() {
            let mut sum = Summary::default();
            minutes.add_to(&mut sum, now);
            if sum.requests == 0 {
                continue;
            }
            let mut row = array.element();
            row.text("route", route);
            row.text("upstream", upstream);
            row.number("requests", sum.requests);
            row.number("failed", sum.failed);
            row.number("output_tokens", sum.output_tokens);
            row.number("first_tokens", sum.first_tokens());
            for (key, share) in [("p50_s", 0.5), ("p95_s", 0.95), ("p99_s", 0.99)] {
                row.seconds_if(key, sum.percentile(share));
            }
            row.end();
        }
        array.end();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::Value;

    use super::*;
    use crate::telemetry::records_for_tests::{chat, ms, plain};

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
        assert_eq!(window.0.lock().len(), PAIRS_MAX);
        observe("late".to_owned(), at(3_600));
        assert_eq!(shown(&window, at(3_600))[0]["route"], "late");
        assert_eq!(window.0.lock().len(), 1);
    }

    #[test]
    fn other_requests_have_no_place() {
        let window = FirstTokens::default();
        window.observe(&plain());
        assert_eq!(shown(&window, plain().started), Value::Array(Vec::new()));
    }
}
