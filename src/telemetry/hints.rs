//! What operators should know of their upstreams, in words: said in the log now and then, and shown while it lasts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::json::Json;
use super::record::Record;

/// What a stream that came in clumps suggests.
pub(crate) const BUFFERED: &str = "something between the model and this proxy collects the stream and lets it go in clumps: users \
    wait long, then get much at once. The usual culprits: a gzip or other compressing middleware in the app, Next.js `rewrites()` with \
    compression, an nginx with `proxy_buffering on` (send `X-Accel-Buffering: no`, or switch it off), a server that batches its \
    output. Ask the backend itself with `curl -N`, and then each hop after it";

/// Streams of one upstream that must have been buffered within [`MEMORY`] before it is said: one may be chance.
const STREAMS: u64 = 3;

/// A hint that nothing confirmed for so long is forgotten.
const MEMORY: Duration = Duration::from_secs(3_600);

/// The log hears of an upstream no more often than this.
const PATIENCE: Duration = Duration::from_secs(600);

/// The hints by upstream. Bounded: the names come from the configuration, and go with it.
#[derive(Debug, Default)]
pub struct Hints(Mutex<BTreeMap<Arc<str>, Buffered>>);

#[derive(Debug, Clone, Copy)]
struct Buffered {
    streams: u64,
    last: SystemTime,
    said: Option<SystemTime>,
}

impl Buffered {
    fn is_fresh(&self, now: SystemTime) -> bool {
        now.duration_since(self.last).is_ok_and(|age| age < MEMORY) || self.last > now
    }
}

impl Hints {
    /// Looks at a finished request; warns in the log when its upstream shows a pattern that was not named lately.
    pub fn observe(&self, record: &Record) {
        let buffered = record.llm.as_ref().is_some_and(|llm| llm.reading.buffered);
        if let Some(served_by) = record.served_by.as_ref().filter(|_| buffered) {
            let now = record.started + record.duration;
            if let Some(streams) = self.buffered(&served_by.upstream, now) {
                tracing::warn!(
                    event = "upstream.buffered",
                    upstream = &*served_by.upstream,
                    streams,
                    request_id = &*record.request_id,
                    "{BUFFERED}"
                );
            }
        }
    }

    /// Forgets all upstreams but these.
    pub fn retain(&self, upstreams: &[&str]) {
        self.lock().retain(|upstream, _| upstreams.contains(&&**upstream));
    }

    /// Writes the hints of now as objects into an array.
    pub(super) fn render(&self, array: &mut Json<'_>, now: SystemTime) {
        for (upstream, buffered) in self.lock().iter() {
            if buffered.streams < STREAMS || !buffered.is_fresh(now) {
                continue;
            }
            let mut hint = array.element();
            hint.text("upstream", upstream);
            hint.text("kind", "buffered_streams");
            hint.number("streams", buffered.streams);
            hint.time("last", buffered.last);
            hint.text("hint", BUFFERED);
            hint.end();
        }
    }

    /// Books one buffered stream; how many there were, when it is time to say so.
    fn buffered(&self, upstream: &Arc<str>, now: SystemTime) -> Option<u64> {
        let mut hints = self.lock();
        let fresh = Buffered { streams: 0, last: now, said: None };
        let known = hints.entry(Arc::clone(upstream)).or_insert(fresh);
        if !known.is_fresh(now) {
            *known = fresh;
        }
        known.streams += 1;
        known.last = known.last.max(now);
        let quiet = known.said.is_none_or(|said| now.duration_since(said).is_ok_and(|ago| ago >= PATIENCE));
        let due = known.streams >= STREAMS && quiet;
        if due {
            known.said = Some(now);
        }
        due.then_some(known.streams)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Buffered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn shown(hints: &Hints, now: SystemTime) -> String {
        let mut out = String::new();
        let mut object = Json::object(&mut out);
        let mut array = object.array("hints");
        hints.render(&mut array, now);
        array.end();
        object.end();
        out
    }

    #[test]
    fn it_is_said_after_three_streams_and_then_now_and_then() {
        let (hints, name) = (Hints::default(), Arc::from("app"));
        let said: Vec<_> = (0..1_300).filter(|second| hints.buffered(&name, at(*second)).is_some()).collect();
        assert_eq!(said, [2, 602, 1_202]);
    }

    #[test]
    fn hints_are_shown_while_they_last() {
        let (hints, name) = (Hints::default(), Arc::from("app"));
        hints.buffered(&name, at(0));
        hints.buffered(&name, at(1));
        assert_eq!(shown(&hints, at(2)), r#"{"hints":[]}"#, "two may be chance");
        hints.buffered(&name, at(2));
        let text = shown(&hints, at(3));
        assert!(text.contains(r#""upstream":"app","kind":"buffered_streams","streams":3"#), "{text}");
        assert!(text.contains("proxy_buffering") && text.contains("gzip"));
        assert_eq!(shown(&hints, at(4_000)), r#"{"hints":[]}"#, "nothing confirmed it for an hour");
        assert_eq!(hints.buffered(&name, at(4_000)), None, "it begins anew");
        hints.buffered(&name, at(4_001));
        hints.buffered(&name, at(4_002));
        hints.retain(&["other"]);
        assert_eq!(shown(&hints, at(4_003)), r#"{"hints":[]}"#, "the upstream is gone");
    }
}
