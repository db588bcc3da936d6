//! Since when: each kind of failure and each limit that refuses, by where it happens, with its first and its last time and
//! how often. A trouble is over when it was quiet for some minutes; the next time it begins anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::telemetry::json::Json;
use crate::telemetry::lock::lock;
use crate::telemetry::record::{LimitVerdict, Outcome, Record};

/// After so long without it a trouble is over.
pub(super) const QUIET: Duration = Duration::from_secs(300);

/// Troubles that are kept; all their names come from configurations and lists of words.
const KEPT_MAX: usize = 512;

/// Troubles that are told: those that happened last.
const SHOWN_MAX: usize = 50;

/// All troubles there are.
#[derive(Default)]
pub struct Troubles(Mutex<BTreeMap<Trouble, Times>>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// Requests fail.
    Failing { error: &'static str, route: Option<Arc<str>>, upstream: Option<Arc<str>>, endpoint: Option<Arc<str>> },
    /// A limit is full.
    Full { limit: Arc<str>, reason: &'static str },
}

#[derive(Debug, Clone, Copy)]
struct Times {
    first: SystemTime,
    last: SystemTime,
    count: u64,
}

impl Troubles {
    /// Takes in how a request ended.
    pub fn observe(&self, record: &Record) {
        let Some(trouble) = trouble(record) else { return };
        let now = record.started + record.duration;
        let mut kept = lock(&self.0);
        if kept.len() >= KEPT_MAX && !kept.contains_key(&trouble) {
            kept.retain(|_, times| times.goes_on(now));
            if kept.len() >= KEPT_MAX {
                return;
            }
        }
        let times = kept.entry(trouble).or_insert(Times { first: now, last: now, count: 0 });
        if !times.goes_on(now) {
            *times = Times { first: now, last: now, count: 0 };
        }
        times.last = times.last.max(now);
        times.count = times.count.saturating_add(1);
    }

    /// Writes `"troubles":[{what, limit or route, upstream, endpoint, first, last, count}]`, the last that happened first.
    pub(super) fn render(&self, object: &mut Json<'_>, now: SystemTime) {
        let mut all: Vec<(Trouble, Times)> = lock(&self.0)
            .iter()
            .filter(|(_, times)| times.goes_on(now))
            .map(|(trouble, times)| (trouble.clone(), *times))
            .collect();
        all.sort_by_key(|(_, times)| std::cmp::Reverse(times.last));
        let mut array = object.array("troubles");
        for (trouble, times) in all.iter().take(SHOWN_MAX) {
            let mut row = array.element();
            match trouble {
                Trouble::Failing { error, route, upstream, endpoint } => {
                    row.text("what", error);
                    row.text_if("route", route.as_deref());
                    row.text_if("upstream", upstream.as_deref());
                    row.text_if("endpoint", endpoint.as_deref());
                }
                Trouble::Full { limit, reason } => {
                    row.text("what", reason);
                    row.text("limit", limit);
                }
            }
            row.time("first", times.first);
            row.time("last", times.last);
            row.number("count", times.count);
            row.end();
        }
        array.end();
    }
}

impl Times {
    fn goes_on(&self, now: SystemTime) -> bool {
        now.duration_since(self.last).unwrap_or_default() <= QUIET
    }
}

fn trouble(record: &Record) -> Option<Trouble> {
    if let Some(LimitVerdict::Denied { limit, reason }) = record.limit.as_ref().map(|limit| &limit.verdict) {
        return Some(Trouble::Full { limit: Arc::clone(limit), reason });
    }
    if matches!(record.outcome, Outcome::Completed | Outcome::ClientCancelled) {
        return None;
    }
    let asked = record.last_asked();
    Some(Trouble::Failing {
        error: record.error.map_or(record.outcome.as_str(), |error| error.as_str()),
        route: record.route.clone(),
        upstream: asked.map(|attempt| Arc::clone(&attempt.upstream)),
        endpoint: asked.map(|attempt| Arc::clone(&attempt.place.endpoint)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::telemetry::record::{ErrorType, LimitInfo};
    use crate::telemetry::samples::{chat, ms};

    fn failed(after: u64) -> Record {
        let mut record = chat("m");
        (record.outcome, record.error) = (Outcome::Truncated, Some(ErrorType::MissingEnd));
        record.started += Duration::from_secs(after);
        record.duration = ms(500);
        record
    }

    fn shown(troubles: &Troubles, now: SystemTime) -> Value {
        let mut out = String::new();
        let mut object = Json::object(&mut out);
        troubles.render(&mut object, now);
        object.end();
        serde_json::from_str::<Value>(&out).unwrap()["troubles"].clone()
    }

    #[test]
    fn a_trouble_has_its_first_and_last_time_and_a_place() {
        let troubles = Troubles::default();
        [0, 60, 200].into_iter().for_each(|after| troubles.observe(&failed(after)));
        troubles.observe(&chat("m"));
        let told = shown(&troubles, failed(201).started);
        assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
        assert_eq!(
            (&told[0]["what"], &told[0]["upstream"], &told[0]["endpoint"], &told[0]["count"]),
            (&"missing_end".into(), &"fastapi".into(), &"127.0.0.1:8000".into(), &3.into())
        );
        assert_eq!(
            (&told[0]["first"], &told[0]["last"]),
            (&"2023-11-14T22:13:20.623Z".into(), &"2023-11-14T22:16:40.623Z".into())
        );
        assert_eq!(shown(&troubles, failed(501).started), Value::Array(Vec::new()), "it is over");
        troubles.observe(&failed(600));
        assert_eq!(shown(&troubles, failed(601).started)[0]["count"], 1, "and begins anew");
    }

    #[test]
    fn a_limit_is_full_since() {
        let troubles = Troubles::default();
        let mut record = failed(0);
        record.outcome = Outcome::Rejected;
        record.limit = Some(LimitInfo {
            at: ms(1),
            verdict: LimitVerdict::Denied { limit: "per-user".into(), reason: "tokens" },
            mode: "memory",
            names: vec!["per-user".into()],
            waited: Duration::ZERO,
            reserved: 0,
            prompt_counted: None,
            used: 0,
            remaining: None,
            cut: false,
        });
        troubles.observe(&record);
        let told = shown(&troubles, record.started);
        assert_eq!(
            (&told[0]["limit"], &told[0]["what"], &told[0]["count"]),
            (&"per-user".into(), &"tokens".into(), &1.into())
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let troubles = Troubles::default();
        for number in 0..KEPT_MAX + 50 {
            let mut record = failed(0);
            record.route = Some(format!("r{number}").into());
            troubles.observe(&record);
        }
        assert_eq!(lock(&troubles.0).len(), KEPT_MAX);
        assert_eq!(shown(&troubles, failed(0).started).as_array().unwrap().len(), SHOWN_MAX);
    }
}
