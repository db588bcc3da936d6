//! What is going on: the requests that run, and the last that ended. Bounded, and cheap for those who are watched.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::access_log;
use super::hints::Hints;
use super::json::Json;
use super::record::Record;
use super::strangers::Strangers;

/// Ended requests that are kept.
const RECENT_MAX: usize = 1_000;

/// Running requests that are followed; more are served, and only not shown.
const RUNNING_MAX: usize = 20_000;

/// Running requests that are shown at once, the oldest first: those are the interesting ones.
const SHOWN_MAX: usize = 1_000;

/// The live view of all requests.
#[derive(Default)]
pub struct Live {
    running: Mutex<Running>,
    recent: Mutex<Recent>,
    hints: Hints,
    strangers: Strangers,
}

#[derive(Default)]
struct Running {
    next: u64,
    /// In the order they came.
    streams: BTreeMap<u64, Arc<Stream>>,
}

#[derive(Default)]
struct Recent {
    /// How many ended so far.
    ended: u64,
    /// The newest last.
    records: VecDeque<Arc<Record>>,
}

impl Live {
    /// Shows a request as running until the guard goes.
    pub fn enter(self: &Arc<Self>, method: &Arc<str>, path: &Arc<str>) -> LiveStream {
        let stream = Arc::new(Stream {
            started: SystemTime::now(),
            clock: Instant::now(),
            method: Arc::clone(method),
            path: Arc::clone(path),
            request_id: OnceLock::new(),
            route: OnceLock::new(),
            model: OnceLock::new(),
            served_by: OnceLock::new(),
            status: AtomicU16::new(0),
            first_token_us: AtomicU64::new(u64::MAX),
            frames: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        });
        let mut running = lock(&self.running);
        let number = running.next;
        running.next += 1;
        if running.streams.len() < RUNNING_MAX {
            running.streams.insert(number, Arc::clone(&stream));
        }
        drop(running);
        LiveStream { stream, number, live: Arc::clone(self) }
    }

    /// Keeps an ended request.
    pub fn ended(&self, record: Arc<Record>) {
        let mut recent = lock(&self.recent);
        recent.ended += 1;
        let oldest = if recent.records.len() == RECENT_MAX { recent.records.pop_front() } else { None };
        recent.records.push_back(record);
        // Freed outside: it holds a handful of texts.
        drop(recent);
        drop(oldest);
    }

    /// What is to be known of upstreams.
    pub fn hints(&self) -> &Hints {
        &self.hints
    }

    /// What is to be known of peers.
    pub fn strangers(&self) -> &Strangers {
        &self.strangers
    }

    /// `{"live":[…],"recent":[…],"hints":[…]}`: running requests, the oldest first, ended ones, the newest first, and what
    /// to know of upstreams and peers. The members of requests have the names of the access log.
    pub fn json(&self) -> String {
        let streams: Vec<_> = lock(&self.running).streams.values().take(SHOWN_MAX).cloned().collect();
        let records: Vec<_> = lock(&self.recent).records.iter().rev().cloned().collect();
        let mut out = String::with_capacity(1_024 * (1 + records.len()) + 512 * streams.len());
        let mut object = Json::object(&mut out);
        let mut live = object.array("live");
        streams.iter().for_each(|stream| live.element_raw(|out| stream.render(out)));
        live.end();
        let mut recent = object.array("recent");
        records.iter().for_each(|record| recent.element_raw(|out| access_log::render_json(record, out)));
        recent.end();
        let mut hints = object.array("hints");
        self.hints.render(&mut hints, SystemTime::now());
        self.strangers.render(&mut hints, SystemTime::now());
        hints.end();
        object.end();
        out
    }

    /// Requests that ended after the first `seen` of them, the oldest first, and how many ended in all; for a feed that
    /// asks again and again. Those that are kept no more are missing.
    pub fn since(&self, seen: u64) -> (u64, Vec<Arc<Record>>) {
        let recent = lock(&self.recent);
        let new = usize::try_from(recent.ended.saturating_sub(seen)).unwrap_or(usize::MAX).min(recent.records.len());
        (recent.ended, recent.records.iter().skip(recent.records.len() - new).cloned().collect())
    }

    /// How many requests run now.
    pub fn running(&self) -> usize {
        lock(&self.running).streams.len()
    }
}

/// One running request, for its stages to tell how far it is. Each fact is set once; progress as often as one likes.
pub struct LiveStream {
    stream: Arc<Stream>,
    number: u64,
    live: Arc<Live>,
}

impl LiveStream {
    pub fn identified(&self, request_id: &Arc<str>) {
        let _ = self.stream.request_id.set(Arc::clone(request_id));
    }

    pub fn routed(&self, route: &Arc<str>) {
        let _ = self.stream.route.set(Arc::clone(route));
    }

    pub fn asks_for(&self, model: &str) {
        let _ = self.stream.model.set(model.into());
    }

    pub fn served_by(&self, upstream: &Arc<str>, variant: &Arc<str>) {
        let _ = self.stream.served_by.set((Arc::clone(upstream), Arc::clone(variant)));
    }

    pub fn status(&self, status: u16) {
        self.stream.status.store(status, Relaxed);
    }

    /// Counted from "request head complete".
    pub fn first_token(&self, after: Duration) {
        self.stream.first_token_us.store(u64::try_from(after.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How much has passed so far, in all.
    pub fn progress(&self, frames: u64, bytes_out: u64) {
        self.stream.frames.store(frames, Relaxed);
        self.stream.bytes_out.store(bytes_out, Relaxed);
    }
}

impl Drop for LiveStream {
    fn drop(&mut self) {
        lock(&self.live.running).streams.remove(&self.number);
    }
}

struct Stream {
    started: SystemTime,
    clock: Instant,
    method: Arc<str>,
    path: Arc<str>,
    request_id: OnceLock<Arc<str>>,
    route: OnceLock<Arc<str>>,
    model: OnceLock<Box<str>>,
    served_by: OnceLock<(Arc<str>, Arc<str>)>,
    /// Zero: none yet.
    status: AtomicU16,
    /// The greatest number: none yet.
    first_token_us: AtomicU64,
    frames: AtomicU64,
    bytes_out: AtomicU64,
}

impl Stream {
    fn render(&self, out: &mut String) {
        let mut row = Json::object(out);
        row.time("timestamp", self.started);
        row.text_if("request_id", self.request_id.get().map(|id| &**id));
        row.text("http.request.method", &self.method);
        row.text("url.path", &self.path);
        row.text_if("route", self.route.get().map(|route| &**route));
        if let Some((upstream, variant)) = self.served_by.get() {
            row.text("upstream", upstream);
            row.text("variant", variant);
        }
        row.text_if("gen_ai.request.model", self.model.get().map(|model| &**model));
        row.number_if("http.response.status_code", Some(self.status.load(Relaxed)).filter(|s| *s != 0).map(u64::from));
        let first_token = Some(self.first_token_us.load(Relaxed)).filter(|time| *time != u64::MAX);
        row.seconds_if("ttft_s", first_token.map(Duration::from_micros));
        row.seconds("duration_s", self.clock.elapsed());
        row.number("frames", self.frames.load(Relaxed));
        row.number("bytes_out", self.bytes_out.load(Relaxed));
        row.end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::telemetry::samples::{chat, ms, plain};

    fn json(live: &Live) -> Value {
        serde_json::from_str(&live.json()).unwrap()
    }

    #[test]
    fn nothing_yet() {
        assert_eq!(Live::default().json(), r#"{"live":[],"recent":[],"hints":[]}"#);
    }

    #[test]
    fn a_request_is_shown_while_it_runs_and_after() {
        let live = Arc::new(Live::default());
        let stream = live.enter(&"POST".into(), &"/v1/chat".into());
        let row = json(&live)["live"][0].clone();
        assert_eq!(row["url.path"], "/v1/chat");
        assert!(row.get("ttft_s").is_none() && row.get("http.response.status_code").is_none());
        stream.identified(&"r1".into());
        stream.routed(&"chat".into());
        stream.asks_for("gpt-4o");
        stream.served_by(&"fastapi".into(), &"next".into());
        stream.status(200);
        stream.first_token(ms(250));
        stream.progress(3, 99);
        let row = json(&live)["live"][0].clone();
        for (key, value) in [
            ("request_id", Value::from("r1")),
            ("route", "chat".into()),
            ("gen_ai.request.model", "gpt-4o".into()),
            ("upstream", "fastapi".into()),
            ("variant", "next".into()),
            ("http.response.status_code", 200.into()),
            ("ttft_s", 0.25.into()),
            ("frames", 3.into()),
            ("bytes_out", 99.into()),
        ] {
            assert_eq!(row[key], value, "{key}");
        }
        assert!(row["duration_s"].as_f64().unwrap() >= 0.0);
        drop(stream);
        live.ended(Arc::new(chat("gpt-4o")));
        let view = json(&live);
        assert_eq!(view["live"].as_array().unwrap().len(), 0);
        assert_eq!(view["recent"][0]["event"], "llm.request");
    }

    #[test]
    fn the_last_thousand_are_kept_newest_first() {
        let live = Live::default();
        for number in 0..1_500 {
            let mut record = plain();
            record.bytes_out = number;
            live.ended(Arc::new(record));
        }
        let view = json(&live);
        let recent = view["recent"].as_array().unwrap();
        assert_eq!(recent.len(), RECENT_MAX);
        assert_eq!((&recent[0]["bytes_out"], &recent[999]["bytes_out"]), (&1_499.into(), &500.into()));
    }

    #[test]
    fn a_feed_gets_what_is_new() {
        let live = Live::default();
        for _ in 0..3 {
            live.ended(Arc::new(plain()));
        }
        let (seen, new) = live.since(0);
        assert_eq!((seen, new.len()), (3, 3));
        let mut record = plain();
        record.bytes_out = 77;
        live.ended(Arc::new(record));
        let (seen, new) = live.since(seen);
        assert_eq!((seen, new.len(), new[0].bytes_out), (4, 1, 77));
        assert!(live.since(seen).1.is_empty());
        assert!(live.since(999).1.is_empty(), "a feed from before a restart");
    }

    #[test]
    fn running_requests_are_bounded() {
        let live = Arc::new(Live::default());
        let (method, path) = ("GET".into(), "/".into());
        let guards: Vec<_> = (0..RUNNING_MAX + 10).map(|_| live.enter(&method, &path)).collect();
        assert_eq!(live.running(), RUNNING_MAX);
        assert_eq!(json(&live)["live"].as_array().unwrap().len(), SHOWN_MAX);
        drop(guards);
        assert_eq!(live.running(), 0);
    }
}
