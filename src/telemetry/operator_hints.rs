//! What operators should know, in words: said in the log now and then, and shown while it lasts. An upstream's streams come in
//! bursts; or a peer names users and is not believed: a front end that nobody listed looks just so, and all its users are one.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::json::Json;
use super::record::Record;
use super::throttle::{Rule, Throttle};

/// What a stream that came in bursts suggests.
pub(crate) const BUFFERED: &str = "something between the model and this proxy collects the stream and lets it go in bursts: users \
    wait long, then get much at once. The usual culprits: a gzip or other compressing middleware in the app, Next.js `rewrites()` with \
    compression, an nginx with `proxy_buffering on` (send `X-Accel-Buffering: no`, or switch it off), a server that batches its \
    output. Ask the backend itself with `curl -N`, and then each hop after it";

/// What a peer that names users suggests.
const IGNORED: &str = "this address names different users in x-user-id and is not believed, so limits and the log take them all for one \
    client. If it is your own front end, and it sets the header itself: add the address to `server.trusted_proxies`. If not, leave it";

/// Three streams: one that was buffered may be chance. The names of upstreams come from the configuration, and go with it.
const BUFFERED_RULE: Rule =
    Rule { after: 3, every: Duration::from_secs(600), memory: Duration::from_secs(3_600), things_max: 10_000 };

/// Three users: a client of its own names itself alone.
const IGNORED_RULE: Rule = Rule { things_max: 64, ..BUFFERED_RULE };

/// The hints there are.
#[derive(Debug)]
pub struct OperatorHints {
    /// By upstream.
    buffered: Throttle<Arc<str>>,
    /// By address.
    ignored: Throttle<IpAddr>,
    hasher: RandomState,
}

impl Default for OperatorHints {
    fn default() -> Self {
        Self {
            buffered: Throttle::new(BUFFERED_RULE),
            ignored: Throttle::new(IGNORED_RULE),
            hasher: RandomState::new(),
        }
    }
}

impl OperatorHints {
    /// Looks at a finished request: warns where its upstream's streams are buffered.
    pub fn observe(&self, record: &Record) {
        let buffered = record.llm.as_ref().is_some_and(|llm| llm.reading.buffered);
        let Some(served_by) = record.served_by.as_ref().filter(|_| buffered) else { return };
        let now = record.started + record.duration;
        if let Some(streams) = self.buffered.came_up(Arc::clone(&served_by.upstream), now) {
            tracing::warn!(
                event = "upstream.buffered",
                upstream = &*served_by.upstream,
                streams,
                request_id = &*record.request_id,
                "{BUFFERED}"
            );
        }
    }

    /// A peer that is not trusted named a user: warns when it named several. Only addresses of private networks count: anybody
    /// else could talk an operator into trusting them.
    pub fn user_ignored(&self, peer: IpAddr, user: &[u8], now: SystemTime) {
        let peer = peer.to_canonical();
        if is_private(peer) && self.ignored.came_up_with(peer, self.hasher.hash_one(user), now).is_some() {
            tracing::warn!(event = "identity.users_ignored", %peer, "{IGNORED}");
        }
    }

    /// Forgets all upstreams but these.
    pub fn retain(&self, upstreams: &[&str]) {
        self.buffered.retain(|upstream| upstreams.contains(&&**upstream));
    }

    /// Writes the hints of now as objects into an array.
    pub(super) fn render(&self, array: &mut Json<'_>, now: SystemTime) {
        for standing in self.buffered.standing(now) {
            let mut hint = array.element();
            hint.text("upstream", &standing.thing);
            hint.text("kind", "buffered_streams");
            hint.number("streams", standing.count);
            hint.time("last", standing.last);
            hint.text("hint", BUFFERED);
            hint.end();
        }
        for standing in self.ignored.standing(now) {
            let mut hint = array.element();
            hint.text("peer", &standing.thing.to_string());
            hint.text("kind", "ignored_users");
            hint.time("last", standing.last);
            hint.text("hint", IGNORED);
            hint.end();
        }
    }
}

fn is_private(peer: IpAddr) -> bool {
    match peer {
        IpAddr::V4(peer) => peer.is_private() || peer.is_loopback(),
        IpAddr::V6(peer) => peer.is_unique_local() || peer.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::records_for_tests::chat;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn shown(hints: &OperatorHints, now: SystemTime) -> String {
        let mut out = String::new();
        let mut object = Json::object(&mut out);
        let mut array = object.array("hints");
        hints.render(&mut array, now);
        array.end();
        object.end();
        out
    }

    #[test]
    fn buffered_streams_of_an_upstream_are_shown_while_they_last() {
        let hints = OperatorHints::default();
        let mut record = chat("m");
        let upstream = Arc::clone(&record.served_by.as_ref().unwrap().upstream);
        let streams = |record: &Record, count: usize| (0..count).for_each(|_| hints.observe(record));
        record.duration = Duration::ZERO;
        record.started = at(0);
        streams(&record, 9);
        assert_eq!(shown(&hints, at(0)), r#"{"hints":[]}"#, "they flowed");
        record.llm.as_mut().unwrap().reading.buffered = true;
        streams(&record, 2);
        assert_eq!(shown(&hints, at(1)), r#"{"hints":[]}"#, "two may be chance");
        streams(&record, 1);
        let text = shown(&hints, at(3));
        assert!(text.contains(&format!(r#""upstream":"{upstream}","kind":"buffered_streams","streams":3"#)), "{text}");
        assert!(text.contains("proxy_buffering") && text.contains("gzip"));
        assert_eq!(shown(&hints, at(4_000)), r#"{"hints":[]}"#, "nothing confirmed it for an hour");
        hints.retain(&["other"]);
        assert_eq!(shown(&hints, at(3)), r#"{"hints":[]}"#, "the upstream is gone");
    }

    #[test]
    fn several_users_of_one_private_peer_are_told() {
        let hints = OperatorHints::default();
        let named = |peer: &str, user: &str, now| hints.user_ignored(peer.parse().unwrap(), user.as_bytes(), at(now));
        (0..9).for_each(|now| named("10.0.0.5", "alice", now));
        named("10.0.0.5", "bob", 10);
        assert_eq!(shown(&hints, at(10)), r#"{"hints":[]}"#, "one user may be the client's own");
        named("::ffff:10.0.0.5", "carol", 11);
        let text = shown(&hints, at(700));
        assert!(text.contains(r#""peer":"10.0.0.5","kind":"ignored_users""#) && !text.contains("alice"), "{text}");
        assert_eq!(shown(&hints, at(700 + 3_600)), r#"{"hints":[]}"#, "forgotten");
    }

    #[test]
    fn peers_from_elsewhere_are_no_hint() {
        let hints = OperatorHints::default();
        for user in 0..100_u64 {
            hints.user_ignored("203.0.113.9".parse().unwrap(), &user.to_be_bytes(), at(0));
            hints.user_ignored("2001:db8::1".parse().unwrap(), &user.to_be_bytes(), at(0));
        }
        assert_eq!(shown(&hints, at(0)), r#"{"hints":[]}"#);
    }
}
