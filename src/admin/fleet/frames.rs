//! Frames of the live feeds of all replicas, as one viewer can tell them apart: each stream has a number of its own among all, and
//! names its replica.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Bits of a number that a replica gives; above them stands the replica's place.
const OWN_BITS: u32 = 40;

/// Ended requests of a replica that somebody who comes later is told.
const ENDED_KEPT: usize = 20;

/// Running streams of a replica that are kept; it shows fewer.
const STREAMS_MAX: usize = 512;

/// What a replica told in one frame. What is not needed to show it stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::admin) struct Frame {
    now_ms: u64,
    running: u64,
    not_shown: u64,
    facts: Vec<Row>,
    rows: Vec<Progress>,
    gone: Vec<u64>,
    ended: Vec<Ended>,
}

#[derive(Debug, Deserialize)]
struct Row {
    id: u64,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// Without one of these it cannot be drawn.
#[derive(Debug, Clone, Deserialize, serde::Serialize)]
struct Progress {
    id: u64,
    age_ms: f64,
    phase: String,
    here_ms: f64,
    frames: u64,
    attempts: u64,
    phases_ms: Vec<f64>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Ended {
    meaning: String,
    record: Record,
}

#[derive(Debug, Deserialize)]
struct Record {
    timestamp: String,
    span_id: String,
    duration_s: f64,
    phases: BTreeMap<String, f64>,
    attempts: Vec<Value>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// What viewers are told: the event's data, and which streams they know after it.
#[derive(Debug)]
pub(in crate::admin) struct News {
    pub(in crate::admin) data: String,
    shown: Vec<u64>,
    gone: Vec<u64>,
}

/// One replica's streams, for who comes later.
#[derive(Debug)]
pub(in crate::admin) struct Mirror {
    replica: String,
    /// Of all its numbers; each place is given once.
    place: u64,
    now_ms: u64,
    running: u64,
    not_shown: u64,
    facts: BTreeMap<u64, Value>,
    rows: BTreeMap<u64, Progress>,
    ended: VecDeque<Value>,
}

impl Mirror {
    pub(in crate::admin) fn new(replica: &str, place: u64) -> Self {
        let (replica, ended) = (replica.to_owned(), VecDeque::new());
        let (facts, rows) = (BTreeMap::new(), BTreeMap::new());
        Self { replica, place, now_ms: 0, running: 0, not_shown: 0, facts, rows, ended }
    }

    pub(in crate::admin) fn replica(&self) -> &str {
        &self.replica
    }

    /// It was known by its address alone, and has said who it is.
    pub(in crate::admin) fn rename(&mut self, replica: &str) {
        replica.clone_into(&mut self.replica);
    }

    pub(in crate::admin) fn running(&self) -> u64 {
        self.running
    }

    /// Takes over a frame; what viewers are told of it. `None`: no replica shows so much.
    pub(in crate::admin) fn take(&mut self, frame: Frame) -> Option<News> {
        (self.now_ms, self.running, self.not_shown) = (frame.now_ms, frame.running, frame.not_shown);
        let number = |id: u64| (self.place << OWN_BITS) | (id & ((1 << OWN_BITS) - 1));
        let mut facts = Vec::new();
        for Row { id, mut more } in frame.facts {
            let id = number(id);
            more.insert("id".to_owned(), json!(id));
            more.insert("replica".to_owned(), json!(self.replica));
            let row = Value::Object(more);
            self.facts.insert(id, row.clone());
            facts.push(row);
        }
        let mut rows = Vec::new();
        for row in frame.rows {
            let row = Progress { id: number(row.id), ..row };
            // Ticks are of one look alone.
            let mut kept = row.clone();
            kept.more.retain(|key, _| key != "ticks");
            self.rows.insert(row.id, kept);
            rows.push(row);
        }
        let gone: Vec<u64> = frame.gone.into_iter().map(number).collect();
        for id in &gone {
            self.facts.remove(id);
            self.rows.remove(id);
        }
        let ended: Vec<Value> = frame.ended.into_iter().map(|ended| self.ended(ended)).collect();
        self.ended.extend(ended.iter().cloned());
        self.ended.drain(..self.ended.len().saturating_sub(ENDED_KEPT));
        let shown = rows.iter().map(|row| row.id).collect();
        let is_fit = self.facts.len() <= STREAMS_MAX && self.rows.len() <= STREAMS_MAX;
        is_fit.then(|| self.news(&facts, &rows, gone, &ended, shown))
    }

    /// All that is known, for somebody who knows `known` of what this replica showed before.
    pub(in crate::admin) fn whole(&self, known: &BTreeSet<u64>) -> News {
        let is_ours = |id: &&u64| *id >> OWN_BITS == self.place;
        let gone = known.iter().filter(is_ours).filter(|id| !self.rows.contains_key(*id)).copied().collect();
        let (facts, ended): (Vec<_>, Vec<_>) =
            (self.facts.values().cloned().collect(), self.ended.iter().cloned().collect());
        let rows: Vec<Progress> = self.rows.values().cloned().collect();
        self.news(&facts, &rows, gone, &ended, self.rows.keys().copied().collect())
    }

    /// Nothing of it is known any more.
    pub(in crate::admin) fn lose(&mut self) -> News {
        let gone = self.rows.keys().copied().collect();
        *self = Self::new(&self.replica, self.place);
        self.news(&[], &[], gone, &[], Vec::new())
    }

    fn ended(&self, Ended { meaning, record }: Ended) -> Value {
        let Record { timestamp, span_id, duration_s, phases, attempts, mut more } = record;
        let known = json!({
            "timestamp": timestamp, "span_id": span_id, "duration_s": duration_s, "phases": phases, "attempts": attempts,
            "replica": self.replica,
        });
        if let Value::Object(known) = known {
            more.extend(known);
        }
        json!({ "meaning": meaning, "record": more })
    }

    fn news(&self, facts: &[Value], rows: &[Progress], gone: Vec<u64>, ended: &[Value], shown: Vec<u64>) -> News {
        let data = json!({
            "replica": self.replica,
            "now_ms": self.now_ms,
            "running": self.running,
            "not_shown": self.not_shown,
            "facts": facts,
            "rows": rows,
            "gone": gone,
            "ended": ended,
        });
        News { data: data.to_string(), shown, gone }
    }
}

impl News {
    /// Keeps which streams a viewer knows.
    pub(in crate::admin) fn tell(&self, known: &mut BTreeSet<u64>) {
        known.extend(&self.shown);
        for id in &self.gone {
            known.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &Value) -> Frame {
        serde_json::from_value(text.clone()).unwrap()
    }

    fn row(id: u64) -> Value {
        json!({ "id": id, "age_ms": 1.0, "phase": "admit", "here_ms": 1.0, "frames": 0, "attempts": 0, "phases_ms": [1.0], "bytes_out": 3, "ticks": [5] })
    }

    #[test]
    fn streams_of_two_replicas_have_numbers_of_their_own_and_name_their_replica() {
        let told = json!({ "now_ms": 9, "running": 2, "facts": [{ "id": 4, "route": "chat" }], "rows": [row(4)],
            "ended": [{ "meaning": "well", "record": { "timestamp": "t", "span_id": "s", "duration_s": 1.0, "phases": {}, "attempts": [], "route": "chat" } }] });
        let (mut a, mut b) = (Mirror::new("a", 0), Mirror::new("b", 3));
        let (of_a, of_b) = (a.take(frame(&told)).unwrap(), b.take(frame(&told)).unwrap());
        let read = |news: &News| serde_json::from_str::<Value>(&news.data).unwrap();
        assert_eq!(
            (&read(&of_a)["rows"][0]["id"], &read(&of_b)["rows"][0]["id"]),
            (&json!(4), &json!((3_u64 << 40) + 4))
        );
        let of_b = read(&of_b);
        assert_eq!((&of_b["facts"][0]["replica"], &of_b["facts"][0]["route"]), (&json!("b"), &json!("chat")));
        assert_eq!(
            (&of_b["ended"][0]["record"]["replica"], &of_b["ended"][0]["record"]["route"]),
            (&json!("b"), &json!("chat"))
        );
        assert_eq!((&of_b["rows"][0]["bytes_out"], &of_b["rows"][0]["ticks"]), (&json!(3), &json!([5])));
        // Who comes later is told all but the ticks.
        let whole = read(&b.whole(&BTreeSet::new()));
        assert_eq!(
            (&whole["running"], &whole["rows"][0]["id"], &whole["rows"][0]["ticks"]),
            (&json!(2), &of_b["rows"][0]["id"], &Value::Null)
        );
        assert_eq!(whole["ended"], of_b["ended"]);
    }

    #[test]
    fn who_missed_frames_is_told_what_is_gone() {
        let mut mirror = Mirror::new("b", 1);
        let mut known = BTreeSet::new();
        mirror.take(frame(&json!({ "rows": [row(1), row(2)] }))).unwrap().tell(&mut known);
        assert_eq!(known.len(), 2);
        mirror.take(frame(&json!({ "rows": [row(3)], "gone": [1] }))).unwrap();
        known.insert(7);
        let whole = mirror.whole(&known);
        assert_eq!(whole.gone, [(1 << 40) + 1]);
        whole.tell(&mut known);
        assert_eq!(known.len(), 3, "that of another replica stays: {known:?}");
        mirror.lose().tell(&mut known);
        assert_eq!(known, BTreeSet::from([7]));
    }

    #[test]
    fn what_cannot_be_drawn_or_is_too_much_is_refused() {
        for wrong in [json!({ "rows": [{ "id": 1 }] }), json!({ "facts": [7] }), json!({ "ended": [{ "record": {} }] })]
        {
            let read = serde_json::from_value::<Frame>(wrong.clone());
            assert!(read.is_err(), "{wrong}");
        }
        let mut mirror = Mirror::new("b", 1);
        let many: Vec<Value> = (0..600).map(row).collect();
        assert!(mirror.take(frame(&json!({ "rows": many }))).is_none());
    }
}
