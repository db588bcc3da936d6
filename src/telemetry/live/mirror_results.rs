//! Results of traffic mirroring by route: how many answers differ, in what, since when and how often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::minutes::{Minutes, Summary, minute};
use crate::policy::mirror::{Side, Verdict};
use crate::telemetry::json::Json;
use crate::telemetry::mirror::MirrorRecord;

/// Routes that are kept. They come from configurations, and go with them.
const ROUTES_MAX: usize = 256;

/// What was compared since the start, by route.
#[derive(Default)]
pub struct MirrorResults(Mutex<BTreeMap<Arc<str>, Compared>>);

#[derive(Default)]
struct Compared {
    /// Where the last copy went.
    variant: Option<Arc<str>>,
    last: Option<SystemTime>,
    same: u64,
    differs: u64,
    failed: u64,
    /// Drawn, and not made or not compared.
    skipped: u64,
    /// By what differs, and under `failed` where only the client's was whole.
    differences: BTreeMap<&'static str, Seen>,
    primary: Told,
    shadow: Told,
}

struct Seen {
    first: SystemTime,
    last: SystemTime,
    count: u64,
}

/// One side of the pairs in which both are known.
#[derive(Default)]
struct Told {
    first_tokens: Minutes,
    output_tokens: u64,
}

impl MirrorResults {
    /// A copy's answer was compared.
    pub fn compared(&self, record: &MirrorRecord) {
        let now = record.started.checked_add(record.duration).unwrap_or(record.started);
        self.of(&record.route, |compared| compared.note(record, now));
    }

    /// A request was drawn to be copied, and no copy of it was made or compared.
    pub fn skipped(&self, route: &Arc<str>) {
        self.of(route, |compared| compared.skipped = compared.skipped.saturating_add(1));
    }

    /// Drops all other routes.
    pub fn retain(&self, routes: &[&str]) {
        self.0.lock().retain(|route, _| routes.contains(&&**route));
    }

    fn of(&self, route: &Arc<str>, note: impl FnOnce(&mut Compared)) {
        let mut routes = self.0.lock();
        if routes.len() < ROUTES_MAX || routes.contains_key(route) {
            note(routes.entry(Arc::clone(route)).or_default());
        }
    }

    /// Writes `"shadows":[{route, variant, last, same, differs, failed, skipped, differences, primary, shadow}]`. Counts are
    /// since the start, first tokens of the last minutes.
    pub(super) fn render(&self, object: &mut Json<'_>, now: SystemTime) {
        let mut array = object.array("shadows");
        for (route, compared) in self.0.lock().iter() {
            let mut row = array.element();
            row.text("route", route);
            compared.render(&mut row, now);
            row.end();
        }
        array.end();
    }
}

impl Compared {
    fn note(&mut self, record: &MirrorRecord, now: SystemTime) {
        (self.variant, self.last) = (Some(Arc::clone(&record.variant)), Some(now));
        let count = match record.verdict {
            Verdict::Same => &mut self.same,
            Verdict::Differs => &mut self.differs,
            Verdict::Failed => &mut self.failed,
        };
        *count = count.saturating_add(1);
        for difference in &record.differences {
            let seen = self.differences.entry(difference.as_str()).or_insert(Seen { first: now, last: now, count: 0 });
            (seen.last, seen.count) = (now, seen.count.saturating_add(1));
        }
        let sides = [(&mut self.primary, &record.client), (&mut self.shadow, &record.copy)];
        let both = |known: fn(&Side) -> bool| known(&record.client) && known(&record.copy);
        let (timed, counted) = (both(|side| side.first_token.is_some()), both(|side| side.output.is_some()));
        for (told, side) in sides {
            told.note(side.first_token.filter(|_| timed), side.output.filter(|_| counted), now);
        }
    }

    fn render(&self, row: &mut Json<'_>, now: SystemTime) {
        row.text_if("variant", self.variant.as_deref());
        if let Some(last) = self.last {
            row.time("last", last);
        }
        for (key, count) in
            [("same", self.same), ("differs", self.differs), ("failed", self.failed), ("skipped", self.skipped)]
        {
            row.number(key, count);
        }
        let mut differences = row.nested("differences");
        for (what, seen) in &self.differences {
            let mut one = differences.nested(what);
            one.time("first", seen.first);
            one.time("last", seen.last);
            one.number("count", seen.count);
            one.end();
        }
        differences.end();
        for (key, told) in [("primary", &self.primary), ("shadow", &self.shadow)] {
            let mut side = row.nested(key);
            let mut summary = Summary::default();
            told.first_tokens.add_to(&mut summary, minute(now));
            side.seconds_if("first_token_p50_s", summary.percentile(0.5));
            side.number("output_tokens", told.output_tokens);
            side.end();
        }
    }
}

impl Told {
    fn note(&mut self, first_token: Option<Duration>, output: Option<u64>, now: SystemTime) {
        self.output_tokens = self.output_tokens.saturating_add(output.unwrap_or(0));
        if let (Some(time), Some(slot)) = (first_token, self.first_tokens.at(minute(now))) {
            slot.count(false, 0);
            slot.first_token(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::Value;

    use super::*;
    use crate::policy::mirror::Difference;
    use crate::telemetry::record::TraceIds;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_040 + seconds)
    }

    fn record(route: &str, verdict: Verdict, differences: &[Difference], started: SystemTime) -> MirrorRecord {
        let side = |first_token, output| Side {
            status: Some(200),
            whole: true,
            first_token: Some(Duration::from_millis(first_token)),
            output: Some(output),
            finish_reasons: Vec::new(),
        };
        MirrorRecord {
            request_id: "r".into(),
            trace: TraceIds { trace_id: 0, span_id: 0, parent: None, link: None, sampled: false },
            started,
            route: route.into(),
            variant: "next".into(),
            attempts: Vec::new(),
            duration: Duration::ZERO,
            client: side(100, 10),
            copy: side(300, 12),
            verdict,
            differences: differences.to_vec(),
            cost: None,
        }
    }

    fn shown(copies: &MirrorResults, now: SystemTime) -> Value {
        let mut out = String::new();
        let mut object = Json::object(&mut out);
        copies.render(&mut object, now);
        object.end();
        serde_json::from_str::<Value>(&out).unwrap()["shadows"].clone()
    }

    #[test]
    fn it_tells_what_differs_since_when_and_how_often() {
        let copies = MirrorResults::default();
        copies.compared(&record("chat", Verdict::Same, &[], at(0)));
        copies.compared(&record("chat", Verdict::Differs, &[Difference::FirstToken], at(10)));
        copies.compared(&record("chat", Verdict::Differs, &[Difference::FirstToken, Difference::Length], at(20)));
        copies.compared(&record("chat", Verdict::Failed, &[], at(30)));
        copies.skipped(&"chat".into());
        let told = shown(&copies, at(40))[0].clone();
        for (key, count) in [("same", 1), ("differs", 2), ("failed", 1), ("skipped", 1)] {
            assert_eq!(told[key], count, "{key}: {told}");
        }
        assert_eq!((&told["route"], &told["variant"]), (&"chat".into(), &"next".into()));
        let late = &told["differences"]["first_token"];
        assert_eq!(late["count"], 2, "{told}");
        assert_eq!(
            (&late["first"], &late["last"]),
            (&"2023-11-14T22:14:10.000Z".into(), &"2023-11-14T22:14:20.000Z".into())
        );
        assert_eq!((&told["primary"]["output_tokens"], &told["shadow"]["output_tokens"]), (&40.into(), &48.into()));
        let p50 = |side: &str| told[side]["first_token_p50_s"].as_f64().unwrap();
        assert!((p50("primary") / 0.1 - 1.0).abs() < 0.05 && (p50("shadow") / 0.3 - 1.0).abs() < 0.05, "{told}");
        assert!(shown(&copies, at(600))[0]["primary"]["first_token_p50_s"].is_null(), "of the last minutes");
    }

    #[test]
    fn routes_are_bounded_and_go_with_their_configuration() {
        let copies = MirrorResults::default();
        (0..ROUTES_MAX + 10)
            .for_each(|number| copies.compared(&record(&format!("r{number}"), Verdict::Same, &[], at(0))));
        assert_eq!(copies.0.lock().len(), ROUTES_MAX);
        copies.retain(&["r1", "other"]);
        assert_eq!(shown(&copies, at(0)).as_array().unwrap().len(), 1);
    }
}
