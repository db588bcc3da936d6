//! The live view's data: running requests, and the last ones that ended. Bounded, and cheap for the requests.
//!
//! `stream` is one running request; `shown_streams` picks those that are shown if there are too many; `feed` sends one viewer
//! what is new; `first_tokens` and `endpoints` have the times to first token of the last `minutes`, by route and by
//! endpoint; `history` has the last 24 hours; `recent` has the last requests that ended; `troubles` current failures and refusals; `mirror_results` the
//! differences of mirrored answers.

pub mod endpoints;
pub mod feed;
pub mod first_tokens;
pub mod history;
mod minutes;
pub mod mirror_results;
mod recent;
mod shown_streams;
mod stream;
#[cfg(test)]
mod tests;
mod token_times;
mod troubles;

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::json::Json;
use super::log_fields;
use super::operator_hints::OperatorHints;
use super::record::Record;
use endpoints::Endpoints;
use first_tokens::FirstTokens;
use history::History;
pub use minutes::Summary;
use mirror_results::MirrorResults;
use recent::{Kind, Recent};
pub use stream::{Follower, LiveStream};
use stream::{Running, Stream, Viewers};
use troubles::Troubles;
pub use troubles::TurnedAway;

/// Of the last requests that went wrong, and of those that were refused, so many are in an overview.
const LAST_MAX: usize = 30;

/// Running requests that are followed; more are served, and only not shown.
const RUNNING_MAX: usize = 20_000;

/// Running requests that are shown at once, the oldest first: those are the interesting ones.
const SHOWN_MAX: usize = 1_000;

/// Running requests that are looked up without letting go of the lock: each request that comes or ends needs it.
const AT_ONCE: usize = 1_024;

/// Who looks, as it is counted: people in the lower bits of one number, and replicas above them.
const PERSON: usize = 1;
const REPLICA: usize = 1 << 16;

/// The live view of all requests.
#[derive(Default)]
pub struct Live {
    running: Arc<Mutex<Running>>,
    recent: Mutex<Recent>,
    hints: OperatorHints,
    first_tokens: FirstTokens,
    history: History,
    endpoints: Endpoints,
    troubles: Troubles,
    copies: MirrorResults,
    viewers: Arc<Viewers>,
    chosen: Mutex<shown_streams::Chosen>,
}

impl Live {
    /// Shows a request as running until the guard goes.
    pub fn enter(&self, method: &Arc<str>, path: &Arc<str>) -> LiveStream {
        let mut running = self.running.lock();
        let number = running.next;
        running.next += 1;
        let stream = Arc::new(Stream::new(number, method, path, Arc::clone(&self.viewers)));
        if running.streams.len() < RUNNING_MAX {
            running.streams.insert(number, Arc::clone(&stream));
        }
        drop(running);
        LiveStream::new(stream, Arc::clone(&self.running))
    }

    /// Keeps an ended request.
    pub fn ended(&self, record: Arc<Record>) {
        self.first_tokens.observe(&record);
        self.history.observe(&record);
        self.endpoints.observe(&record);
        self.troubles.observe(&record);
        let mut recent = self.recent.lock();
        let oldest = recent.push(&record);
        // Freed outside: it holds a handful of texts.
        drop(recent);
        drop(oldest);
    }

    /// A connection was turned away at `now`. Tells how many were for this reason since that was last to be said, if it is to be
    /// said now.
    pub fn turned_away(&self, what: &'static str, who: TurnedAway, now: SystemTime) -> Option<u64> {
        self.troubles.turned_away(what, who, now)
    }

    /// What is to be known of upstreams and peers.
    pub fn hints(&self) -> &OperatorHints {
        &self.hints
    }

    /// The times to the first token of the last minutes.
    pub fn first_tokens(&self) -> &FirstTokens {
        &self.first_tokens
    }

    /// The last 24 hours.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What each endpoint did in the last minutes.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// What copies of requests showed.
    pub fn copies(&self) -> &MirrorResults {
        &self.copies
    }

    /// `{"live":[…],"recent":[…],"hints":[…],"troubles":[…],"shadows":[…]}`: running requests, the oldest first; ended ones, the newest
    /// first, of those that failed, of those that were refused and of the others a share each; what to know of upstreams and peers;
    /// since when something fails, and who is refused; what copies showed. The members of requests have the names of the access log.
    pub fn json(&self) -> String {
        let streams: Vec<_> = self.running.lock().streams.values().take(SHOWN_MAX).cloned().collect();
        let records = self.recent.lock().since(0);
        let mut out = String::with_capacity(1_024 * (1 + records.len()) + 512 * streams.len());
        let mut object = Json::object(&mut out);
        let mut live = object.array("live");
        streams.iter().for_each(|stream| live.element_raw(|out| stream.render(out)));
        live.end();
        let mut recent = object.array("recent");
        records.iter().rev().for_each(|record| recent.element_raw(|out| log_fields::write(record, None, out)));
        recent.end();
        self.render_hints(&mut object);
        self.troubles.render(&mut object, SystemTime::now());
        self.copies.render(&mut object, SystemTime::now());
        object.end();
        out
    }

    /// Requests that ended after the first `seen` of them, the oldest first, and how many ended in all; for a feed that
    /// asks again and again. Those that are kept no more are missing.
    pub fn since(&self, seen: u64) -> (u64, Vec<Arc<Record>>) {
        let recent = self.recent.lock();
        (recent.ended(), recent.since(seen))
    }

    /// How many requests run now.
    pub fn running(&self) -> usize {
        self.running.lock().streams.len()
    }

    /// Writes `"hints":[…]`, `"first_tokens":[…]`, `"troubles":[…]`, `"shadows":[…]`, `"failed":[…]` and `"refused":[…]`: what of the last minutes is to be known.
    /// Of the last two the newest come first.
    pub fn overview(&self) -> String {
        let (failed, refused) = {
            let recent = self.recent.lock();
            (recent.last(Kind::Failed, LAST_MAX), recent.last(Kind::Refused, LAST_MAX))
        };
        let mut out = String::with_capacity(4_096);
        let mut object = Json::object(&mut out);
        self.render_hints(&mut object);
        self.first_tokens.render(&mut object, SystemTime::now());
        self.troubles.render(&mut object, SystemTime::now());
        self.copies.render(&mut object, SystemTime::now());
        for (key, records) in [("failed", failed), ("refused", refused)] {
            let mut array = object.array(key);
            records.iter().for_each(|record| array.element_raw(|out| log_fields::write(record, None, out)));
            array.end();
        }
        object.end();
        out
    }

    fn render_hints(&self, object: &mut Json<'_>) {
        let mut hints = object.array("hints");
        self.hints.render(&mut hints, SystemTime::now());
        hints.end();
    }

    /// The streams to show, the oldest first, and how many run in all.
    fn choose(&self) -> (usize, Arc<Vec<Arc<Stream>>>) {
        self.chosen.lock().get(|| self.all())
    }

    /// All that run, the oldest first.
    fn all(&self) -> Vec<Arc<Stream>> {
        let mut all: Vec<Arc<Stream>> = Vec::new();
        loop {
            let after = all.last().map_or(Bound::Unbounded, |last| Bound::Excluded(last.number));
            let before = all.len();
            let running = self.running.lock();
            all.extend(running.streams.range((after, Bound::Unbounded)).take(AT_ONCE).map(|(_, one)| Arc::clone(one)));
            drop(running);
            // As many came as could: but never more than there may be.
            if all.len() < before + AT_ONCE || all.len() >= RUNNING_MAX {
                return all;
            }
        }
    }

    /// Counts one more who looks, as many as `who` stands for at a time; nobody beyond `most`.
    fn admit_viewer(&self, who: usize, most: usize) -> bool {
        let more = |viewers: usize| (viewers / who % REPLICA < most).then_some(viewers + who);
        self.viewers.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }
}
