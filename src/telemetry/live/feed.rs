//! The feed of one viewer: a few times a second, what is new since the last frame. Bounded; a slow viewer is throttled,
//! and stale frames are dropped.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use super::recent::Kind;
pub use super::shown_streams::CHOSEN_MAX;
use super::stream::Stream;
use super::{Live, PERSON, REPLICA};
use crate::telemetry::explanation;
use crate::telemetry::json::Json;
use crate::telemetry::log_fields;
use crate::telemetry::record::Record;

/// How many may look at a time.
pub const VIEWERS_MAX: usize = 16;

/// Other replicas that may look for their own viewers, besides.
pub const REPLICAS_MAX: usize = 32;

/// What another replica is told in one frame, about, in bytes: with a last record it stays below what that takes.
const REPLICA_FRAME_MAX: usize = 160 << 10;

/// Ended requests in one frame; in the first one, more.
const ENDED_MAX: usize = 40;
const ENDED_FIRST_MAX: usize = 100;

/// A viewer. While there is one, streams record the times of their tokens.
pub struct Viewer {
    live: Arc<Live>,
    /// By number: what it was told of a stream.
    known: HashMap<u64, Known>,
    /// Ended requests that it was told of, or that were passed over.
    ended: u64,
    /// What it is counted as.
    who: usize,
    /// In one frame, in bytes.
    most: usize,
}

#[derive(Clone, Copy, Default)]
struct Known {
    version: u32,
    ticks: u32,
    span_id: Option<u64>,
}

impl Viewer {
    /// Adds a viewer; `None` if there are [`VIEWERS_MAX`] already.
    pub fn admit(live: &Arc<Live>) -> Option<Self> {
        Self::new(live, PERSON, VIEWERS_MAX, usize::MAX)
    }

    /// Adds another replica, which is told less at once; `None` if there are [`REPLICAS_MAX`] already.
    pub fn admit_replica(live: &Arc<Live>) -> Option<Self> {
        Self::new(live, REPLICA, REPLICAS_MAX, REPLICA_FRAME_MAX)
    }

    fn new(live: &Arc<Live>, who: usize, viewers_max: usize, most: usize) -> Option<Self> {
        let is_admitted = live.admit_viewer(who, viewers_max);
        is_admitted.then(|| Self { live: Arc::clone(live), known: HashMap::new(), ended: 0, who, most })
    }

    /// `{"now_ms":…,"running":…,"not_shown":…,"facts":[…],"rows":[…],"gone":[…],"ended":[…],"ended_not_shown":…}`: of the streams chosen to
    /// be shown, facts where they are new and how far each is; those that are shown no more; requests that ended, the oldest
    /// first, with what their numbers mean.
    pub fn frame(&mut self) -> String {
        let (running, chosen) = self.live.choose();
        // After the choice: a stream that is gone by now has its record among the ended.
        let (all_ended, records) = self.live.since(self.ended);
        let mut out = String::with_capacity(256 * (1 + chosen.len()));
        let mut object = Json::object(&mut out);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        object.number("now_ms", u64::try_from(now).unwrap_or(u64::MAX));
        object.number("running", running as u64);
        object.number("not_shown", (running - chosen.len()) as u64);
        self.facts(&chosen, &mut object);
        self.rows(&chosen, &mut object);
        let known: HashSet<u64> = self.known.values().filter_map(|known| known.span_id).collect();
        self.gone(&chosen, &mut object);
        let most = if self.ended == 0 && self.who == PERSON { ENDED_FIRST_MAX } else { ENDED_MAX };
        let new = records.len();
        let shown = worth_showing(records, &known, most);
        object
            .number_if("ended_not_shown", Some((new - shown.len()) as u64).filter(|rest| *rest > 0 && self.ended > 0));
        let mut ended = object.array("ended");
        for record in &shown {
            if ended.length() < self.most {
                ended.element_raw(|out| render_ended(record, out));
            }
        }
        ended.end();
        object.end();
        self.ended = all_ended;
        out
    }

    fn facts(&mut self, chosen: &[Arc<Stream>], object: &mut Json<'_>) {
        let mut facts = object.array("facts");
        for stream in chosen {
            let known = self.known.entry(stream.number).or_default();
            let version = stream.version();
            // What has no room comes with the next frame.
            if known.version != version && facts.length() < self.most {
                known.version = version;
                known.span_id = stream.span_id();
                facts.element_raw(|out| stream.render_facts(out));
            }
        }
        facts.end();
    }

    fn rows(&mut self, chosen: &[Arc<Stream>], object: &mut Json<'_>) {
        let mut rows = object.array("rows");
        for stream in chosen {
            if let Some(known) = self.known.get_mut(&stream.number).filter(|known| known.version > 0) {
                rows.element_raw(|out| known.ticks = stream.render_progress(known.ticks, out));
            }
        }
        rows.end();
    }

    fn gone(&mut self, chosen: &[Arc<Stream>], object: &mut Json<'_>) {
        let mut gone = object.array("gone");
        let is_shown = |number: &u64| chosen.binary_search_by_key(number, |stream| stream.number).is_ok();
        self.known.retain(|number, _| {
            let is_shown = is_shown(number);
            if !is_shown {
                gone.element_raw(|out| crate::telemetry::json::integer(out, *number));
            }
            is_shown
        });
        gone.end();
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.live.viewers.0.fetch_sub(self.who, Ordering::AcqRel);
    }
}

/// At most `most` of the records, in their order: first those that were shown running; of those that failed, of the others and
/// of the refused a quarter each, where there are so many; what is left of the room in this order, the newest of each.
fn worth_showing(records: Vec<Arc<Record>>, known: &HashSet<u64>, most: usize) -> Vec<Arc<Record>> {
    if records.len() <= most {
        return records;
    }
    let rank = |record: &Record| match Kind::of(record.outcome) {
        _ if known.contains(&record.trace.span_id) => 0,
        Kind::Failed => 1,
        Kind::Other => 2,
        Kind::Refused => 3,
    };
    let mut ranks: [VecDeque<(usize, Arc<Record>)>; 4] = Default::default();
    for (number, record) in records.into_iter().enumerate() {
        if let Some(same) = ranks.get_mut(rank(&record)) {
            same.push_front((number, record));
        }
    }
    let mut shown: Vec<(usize, Arc<Record>)> = Vec::with_capacity(most);
    let (known, rest) = ranks.split_at_mut(1);
    let mut take = |from: &mut VecDeque<_>, room: usize| {
        let room = room.min(most.saturating_sub(shown.len())).min(from.len());
        shown.extend(from.drain(..room));
    };
    known.iter_mut().for_each(|known| take(known, most));
    rest.iter_mut().for_each(|same| take(same, most / 4));
    rest.iter_mut().for_each(|same| take(same, most));
    shown.sort_unstable_by_key(|(number, _)| *number);
    shown.into_iter().map(|(_, record)| record).collect()
}

fn render_ended(record: &Record, out: &mut String) {
    let mut object = Json::object(out);
    object.text("meaning", &explanation::of(record));
    object.raw("record", |out| log_fields::write(record, None, out));
    object.end();
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
