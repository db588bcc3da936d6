//! Current troubles: failures by where they happen, refusals by who is refused, with since when and how often. A
//! trouble is over after some quiet minutes; the next time it begins anew.
//!
//! Failures and refusals have separate rows, so that a flood of one does not hide the other. The rows are bounded: when
//! they are full, the least frequent are dropped, so that of ten thousand addresses the one that floods stays.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::config::limits::LimitKey;
use crate::policy::identity::Identity;
use crate::policy::limits;
use crate::telemetry::ids;
use crate::telemetry::json::{self, Json};
use crate::telemetry::record::{ClientInfo, LimitVerdict, Outcome, Record};

/// After so long without it a trouble is over.
pub(super) const QUIET: Duration = Duration::from_secs(300);

/// Failures that are kept, and refusals.
const KEPT_MAX: usize = 512;

/// Failures that are told, and refusals: those that happened most often.
const SHOWN_MAX: usize = 50;

/// The log hears of connections that are turned away no more often than this, for each reason.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest name of a caller, in bytes.
const WHO_MAX: usize = 200;

/// All troubles there are.
#[derive(Default)]
pub struct Troubles {
    failures: Mutex<Folded>,
    refusals: Mutex<Folded>,
    said: Mutex<BTreeMap<&'static str, Said>>,
}

/// Who is turned away before a request was read.
#[derive(Debug, Clone, Copy)]
pub enum TurnedAway {
    /// For what this address has taken; `None` on a unix socket.
    Address(Option<IpAddr>),
    /// Whoever came, and this one by chance.
    Anybody(Option<IpAddr>),
}

/// What the log has heard of one reason to turn connections away.
#[derive(Debug, Default)]
struct Said {
    at: Option<SystemTime>,
    since: u64,
}

/// Requests fail, or somebody is refused something.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Trouble {
    /// Who is refused; `None`: whoever it is, it is the same.
    who: Option<Arc<str>>,
    what: &'static str,
    /// The limit that refuses.
    limit: Option<Arc<str>>,
    route: Option<Arc<str>>,
    /// Where it fails.
    upstream: Option<Arc<str>>,
    endpoint: Option<Arc<str>>,
}

/// How often the same happened.
#[derive(Default)]
struct Folded(BTreeMap<Trouble, Times>);

#[derive(Debug, Clone)]
struct Times {
    first: SystemTime,
    last: SystemTime,
    count: u64,
    /// Whom it met: one caller, as long as it is the same.
    who: Option<Arc<str>>,
    /// Of the last one, where there was a request.
    trace_id: Option<u128>,
}

impl Troubles {
    /// Adds a request's end.
    pub fn observe(&self, record: &Record) {
        let denied = record.limit.as_ref().and_then(|limit| match &limit.verdict {
            LimitVerdict::Denied { limit, reason } => Some((limit, *reason)),
            LimitVerdict::Admitted => None,
        });
        let error = || record.error.map_or(record.outcome.as_str(), |error| error.as_str());
        match (record.outcome, denied) {
            (Outcome::Completed | Outcome::ClientCancelled, None) => {}
            (Outcome::Rejected, None) => self.refused(record, None, error()),
            (_, Some((limit, reason))) => self.refused(record, Some(limit), reason),
            _ => self.failed(record, error()),
        }
    }

    /// Writes `"troubles":[{kind, who, what, route, limit or upstream and endpoint, first, last, count, trace_id}]`: failures,
    /// then refusals, of each the most frequent first, and how many are not told.
    pub(super) fn render(&self, object: &mut Json<'_>, now: SystemTime) {
        let (failures, more_failures) = self.failures.lock().most_frequent(now);
        let (refusals, more_refusals) = self.refusals.lock().most_frequent(now);
        let mut array = object.array("troubles");
        for (kind, rows) in [("failure", &failures), ("refusal", &refusals)] {
            for (trouble, times) in rows {
                let mut row = array.element();
                row.text("kind", kind);
                row.text_if("who", trouble.who.as_deref().or(times.who.as_deref()));
                row.text("what", trouble.what);
                row.text_if("limit", trouble.limit.as_deref());
                row.text_if("route", trouble.route.as_deref());
                row.text_if("upstream", trouble.upstream.as_deref());
                row.text_if("endpoint", trouble.endpoint.as_deref());
                times.render(row);
            }
        }
        array.end();
        let more = more_failures + more_refusals;
        object.number_if("troubles_not_shown", Some(more as u64).filter(|more| *more > 0));
    }

    fn failed(&self, record: &Record, what: &'static str) {
        let asked = record.last_asked();
        let failing = Trouble {
            what,
            route: record.route.clone(),
            upstream: asked.map(|attempt| Arc::clone(&attempt.upstream)),
            endpoint: asked.map(|attempt| Arc::clone(&attempt.place.endpoint)),
            ..Trouble::default()
        };
        self.failures.lock().count(failing, Once::of(record, &who(&record.client)));
    }

    /// See [`Live::turned_away`](super::Live::turned_away).
    pub(super) fn turned_away(&self, what: &'static str, from: TurnedAway, now: SystemTime) -> Option<u64> {
        let (address, is_one) = match from {
            TurnedAway::Address(address) => (address, true),
            TurnedAway::Anybody(address) => (address, false),
        };
        let who = limits::holder(LimitKey::Ip, &Identity::default(), address, "");
        let refused = Trouble { who: is_one.then(|| Arc::clone(&who)), what, ..Trouble::default() };
        self.refusals.lock().count(refused, Once { now, who: &who, trace_id: None });
        let mut said = self.said.lock();
        let said = said.entry(what).or_default();
        said.since += 1;
        let quiet = said.at.is_none_or(|at| now.duration_since(at).is_ok_and(|ago| ago >= PATIENCE));
        quiet.then(|| std::mem::replace(said, Said { at: Some(now), since: 0 }).since)
    }

    fn refused(&self, record: &Record, limit: Option<&Arc<str>>, what: &'static str) {
        let who = who(&record.client);
        let (limit, route) = (limit.cloned(), record.route.clone());
        let refused = Trouble { who: Some(Arc::clone(&who)), what, limit, route, ..Trouble::default() };
        self.refusals.lock().count(refused, Once::of(record, &who));
    }
}

/// One time that it happened.
struct Once<'a> {
    now: SystemTime,
    who: &'a Arc<str>,
    trace_id: Option<u128>,
}

impl<'a> Once<'a> {
    fn of(record: &Record, who: &'a Arc<str>) -> Self {
        Self { now: record.started + record.duration, who, trace_id: Some(record.trace.trace_id) }
    }
}

impl Folded {
    fn count(&mut self, key: Trouble, Once { now, who, trace_id }: Once<'_>) {
        if self.0.len() >= KEPT_MAX && !self.0.contains_key(&key) {
            self.make_room(now);
        }
        let new = || Times { first: now, last: now, count: 0, who: Some(Arc::clone(who)), trace_id };
        let times = self.0.entry(key).or_insert_with(new);
        if !times.goes_on(now) {
            *times = new();
        }
        times.last = times.last.max(now);
        times.count = times.count.saturating_add(1);
        times.trace_id = trace_id;
        if times.who.as_ref() != Some(who) {
            times.who = None;
        }
    }

    /// What is over goes; if nothing is, the less frequent half: not one at a time, since each look goes through all.
    fn make_room(&mut self, now: SystemTime) {
        self.0.retain(|_, times| times.goes_on(now));
        if self.0.len() < KEPT_MAX {
            return;
        }
        let mut ranks: Vec<(u64, SystemTime)> = self.0.values().map(Times::rank).collect();
        let (_, least, _) = ranks.select_nth_unstable(KEPT_MAX / 2);
        let least = *least;
        self.0.retain(|_, times| times.rank() > least);
    }

    /// Those that go on, the most frequent first, and how many more there are.
    fn most_frequent(&self, now: SystemTime) -> (Vec<(Trouble, Times)>, usize) {
        let mut all: Vec<(&Trouble, &Times)> = self.0.iter().filter(|(_, times)| times.goes_on(now)).collect();
        all.sort_by_key(|(_, times)| std::cmp::Reverse(times.rank()));
        let more = all.len().saturating_sub(SHOWN_MAX);
        (all.into_iter().take(SHOWN_MAX).map(|(key, times)| (key.clone(), times.clone())).collect(), more)
    }
}

impl Times {
    fn goes_on(&self, now: SystemTime) -> bool {
        now.duration_since(self.last).unwrap_or_default() <= QUIET
    }

    fn rank(&self) -> (u64, SystemTime) {
        (self.count, self.last)
    }

    fn render(&self, mut row: Json<'_>) {
        row.time("first", self.first);
        row.time("last", self.last);
        row.number("count", self.count);
        if let Some(trace_id) = self.trace_id {
            row.text("trace_id", ids::hex(trace_id, &mut [0; 32]));
        }
        row.end();
    }
}

/// Who called, as limits name their holders: by user, else by API key, else by address.
fn who(client: &ClientInfo) -> Arc<str> {
    let named = |kind: &str, name: &str| Arc::from(format!("{kind}:{}", json::bounded(name, WHO_MAX).0));
    match (&client.user, &client.key) {
        (Some(user), _) => named("user", user),
        (None, Some(key)) => named("key", key),
        (None, None) => {
            limits::holder(LimitKey::Ip, &Identity::default(), client.address.map(|address| address.ip()), "")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::telemetry::record::{ErrorType, LimitInfo};
    use crate::telemetry::records_for_tests::{chat, ms};

    fn failed(after: u64) -> Record {
        let mut record = chat("m");
        (record.outcome, record.error) = (Outcome::Truncated, Some(ErrorType::MissingEnd));
        record.started += Duration::from_secs(after);
        record.duration = ms(500);
        record
    }

    fn refused(user: &str, after: u64) -> Record {
        let mut record = failed(after);
        (record.outcome, record.error) = (Outcome::Rejected, Some(ErrorType::RateLimited));
        record.client.user = Some(user.into());
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
        record
    }

    fn shown(troubles: &Troubles, now: SystemTime) -> Value {
        let mut out = String::new();
        let mut object = Json::object(&mut out);
        troubles.render(&mut object, now);
        object.end();
        serde_json::from_str::<Value>(&out).unwrap()
    }

    fn rows(troubles: &Troubles, now: SystemTime) -> Vec<Value> {
        shown(troubles, now)["troubles"].as_array().unwrap().clone()
    }

    #[test]
    fn a_failure_has_its_first_and_last_time_and_a_place() {
        let troubles = Troubles::default();
        [0, 60, 200].into_iter().for_each(|after| troubles.observe(&failed(after)));
        troubles.observe(&chat("m"));
        let told = rows(&troubles, failed(201).started);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(
            (&told[0]["kind"], &told[0]["what"], &told[0]["upstream"], &told[0]["endpoint"], &told[0]["count"]),
            (&"failure".into(), &"missing_end".into(), &"fastapi".into(), &"127.0.0.1:8000".into(), &3.into())
        );
        assert_eq!(
            (&told[0]["first"], &told[0]["last"]),
            (&"2023-11-14T22:13:20.623Z".into(), &"2023-11-14T22:16:40.623Z".into())
        );
        assert_eq!(told[0]["who"], "user:alice", "only she met it");
        let mut bobs = failed(202);
        (bobs.client.user, bobs.trace.trace_id) = (Some("bob".into()), 0xb0b);
        troubles.observe(&bobs);
        let told = rows(&troubles, failed(203).started);
        assert_eq!((&told[0]["who"], &told[0]["count"]), (&Value::Null, &4.into()), "several did");
        assert!(told[0]["trace_id"].as_str().unwrap().ends_with("0b0b"), "the last one's: {told:?}");
        assert!(rows(&troubles, failed(503).started).is_empty(), "it is over");
        troubles.observe(&failed(600));
        assert_eq!(rows(&troubles, failed(601).started)[0]["count"], 1, "and begins anew");
    }

    #[test]
    fn a_refusal_says_who_what_how_often_and_since_when() {
        let troubles = Troubles::default();
        (0..40).for_each(|after| troubles.observe(&refused("eve", after)));
        troubles.observe(&refused("alice", 10));
        let mut stranger = failed(11);
        (stranger.outcome, stranger.error, stranger.client.user) = (Outcome::Rejected, Some(ErrorType::NoRoute), None);
        stranger.route = None;
        troubles.observe(&stranger);
        let told = rows(&troubles, failed(40).started);
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(
            (&told[0]["kind"], &told[0]["who"], &told[0]["what"], &told[0]["limit"], &told[0]["count"]),
            (&"refusal".into(), &"user:eve".into(), &"tokens".into(), &"per-user".into(), &40.into())
        );
        assert_eq!(
            (&told[0]["first"], &told[0]["last"]),
            (&"2023-11-14T22:13:20.623Z".into(), &"2023-11-14T22:13:59.623Z".into())
        );
        assert_eq!((&told[1]["who"], &told[1]["what"]), (&"ip:192.0.2.7".into(), &"no_route".into()));
        assert_eq!(told[2]["who"], "user:alice");
    }

    #[test]
    fn connections_that_are_turned_away_are_told_and_said_now_and_then() {
        let troubles = Troubles::default();
        let from = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        let at = |after: u64| failed(after).started;
        let said: Vec<_> = (0..130)
            .filter_map(|after| troubles.turned_away("address_share", TurnedAway::Address(from(7)), at(after)))
            .collect();
        assert_eq!(said, [1, 60, 60], "at once, and then once a minute");
        assert_eq!(troubles.turned_away("max_connections", TurnedAway::Anybody(from(8)), at(130)), Some(1));
        let told = rows(&troubles, at(130));
        assert_eq!(
            (&told[0]["kind"], &told[0]["who"], &told[0]["what"], &told[0]["count"]),
            (&"refusal".into(), &"ip:192.0.2.7".into(), &"address_share".into(), &130.into())
        );
        assert_eq!((&told[1]["who"], &told[1]["trace_id"]), (&"ip:192.0.2.8".into(), &Value::Null), "no request");
        troubles.turned_away("max_connections", TurnedAway::Anybody(from(9)), at(131));
        let told = rows(&troubles, at(131));
        assert_eq!((told.len(), &told[1]["who"], &told[1]["count"]), (2, &Value::Null, &2.into()), "several, one row");
    }

    #[test]
    fn a_flood_from_everywhere_hides_neither_failures_nor_who_floods_most() {
        let troubles = Troubles::default();
        troubles.observe(&failed(0));
        (0..20).for_each(|_| troubles.observe(&refused("eve", 0)));
        for number in 0..10_000 {
            troubles.observe(&refused(&format!("u{number}"), 1));
        }
        troubles.observe(&refused("eve", 2));
        let told = rows(&troubles, failed(2).started);
        assert_eq!((&told[0]["kind"], &told[0]["count"]), (&"failure".into(), &1.into()));
        assert_eq!((&told[1]["who"], &told[1]["count"]), (&"user:eve".into(), &21.into()), "{:?}", told[1]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let troubles = Troubles::default();
        for number in 0..KEPT_MAX as u64 * 3 {
            let mut record = failed(number % 100);
            record.route = Some(format!("r{number}").into());
            troubles.observe(&record);
            troubles.observe(&refused(&"x".repeat(number as usize), number % 100));
            assert!(troubles.failures.lock().0.len() <= KEPT_MAX && troubles.refusals.lock().0.len() <= KEPT_MAX);
        }
        let told = shown(&troubles, failed(100).started);
        let of = |kind: &str| told["troubles"].as_array().unwrap().iter().filter(|row| row["kind"] == kind).count();
        assert_eq!((of("failure"), of("refusal")), (SHOWN_MAX, SHOWN_MAX));
        assert!(told["troubles_not_shown"].as_u64().unwrap() > 100, "{told}");
        assert!(told.to_string().len() < 100_000);
    }
}
