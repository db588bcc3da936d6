//! Peers that name users and are not believed: a front end that nobody listed looks just so, and all its users are one.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::json::Json;

/// Different users that one peer must have named before it is said: a client of its own names itself alone.
const USERS: usize = 3;

/// Peers that are followed; more are not.
const PEERS_MAX: usize = 64;

/// A peer that named nobody for so long is forgotten.
const MEMORY: Duration = Duration::from_secs(3_600);

/// The log hears of a peer no more often than this.
const PATIENCE: Duration = Duration::from_secs(600);

/// What such a peer suggests.
const IGNORED: &str = "this address names different users in x-user-id and is not believed, so limits and the log take them all for one \
    client. If it is your own front end, and it sets the header itself: add the address to `server.trusted_proxies`. If not, leave it";

/// The peers, bounded.
#[derive(Debug, Default)]
pub struct Strangers {
    peers: Mutex<BTreeMap<IpAddr, Seen>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Seen {
    /// Hashes, [`USERS`] at most.
    users: Vec<u64>,
    last: SystemTime,
    said: Option<SystemTime>,
}

impl Strangers {
    /// A peer that is not trusted named a user. Warns when it named several and that was not said lately. Only addresses of
    /// private networks count: anybody else could talk an operator into trusting them.
    pub fn named(&self, peer: IpAddr, user: &[u8], now: SystemTime) {
        if self.note(peer, user, now) {
            tracing::warn!(event = "identity.users_ignored", peer = %peer.to_canonical(), "{IGNORED}");
        }
    }

    /// Whether it is time to say so.
    fn note(&self, peer: IpAddr, user: &[u8], now: SystemTime) -> bool {
        let peer = peer.to_canonical();
        if !is_private(peer) {
            return false;
        }
        let user = self.hasher.hash_one(user);
        let mut peers = self.lock();
        if !peers.contains_key(&peer) && peers.len() >= PEERS_MAX {
            peers.retain(|_, seen| seen.is_fresh(now));
            if peers.len() >= PEERS_MAX {
                return false;
            }
        }
        let seen = peers.entry(peer).or_insert_with(|| Seen { users: Vec::new(), last: now, said: None });
        if !seen.is_fresh(now) {
            seen.users.clear();
        }
        if seen.users.len() < USERS && !seen.users.contains(&user) {
            seen.users.push(user);
        }
        seen.last = seen.last.max(now);
        let quiet = seen.said.is_none_or(|said| now.duration_since(said).is_ok_and(|ago| ago >= PATIENCE));
        let due = seen.users.len() >= USERS && quiet;
        if due {
            seen.said = Some(now);
        }
        due
    }

    /// Writes what is to be said now as objects into an array.
    pub(super) fn render(&self, array: &mut Json<'_>, now: SystemTime) {
        for (peer, seen) in self.lock().iter().filter(|(_, seen)| seen.users.len() >= USERS && seen.is_fresh(now)) {
            let mut hint = array.element();
            hint.text("peer", &peer.to_string());
            hint.text("kind", "ignored_users");
            hint.time("last", seen.last);
            hint.text("hint", IGNORED);
            hint.end();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Seen>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn is_fresh(&self, now: SystemTime) -> bool {
        now.duration_since(self.last).is_ok_and(|age| age < MEMORY) || self.last > now
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

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn shown(strangers: &Strangers, now: SystemTime) -> String {
        let mut out = String::new();
        let mut object = Json::object(&mut out);
        let mut array = object.array("hints");
        strangers.render(&mut array, now);
        array.end();
        object.end();
        out
    }

    #[test]
    fn several_users_of_one_private_peer_are_told_now_and_then() {
        let strangers = Strangers::default();
        let note = |peer: &str, user: &str, now| strangers.note(peer.parse().unwrap(), user.as_bytes(), at(now));
        assert!((0..9).all(|now| !note("10.0.0.5", "alice", now)), "one user may be the client's own");
        assert!(!note("10.0.0.5", "bob", 10) && note("::ffff:10.0.0.5", "carol", 11));
        assert!(!note("10.0.0.5", "dave", 12) && note("10.0.0.5", "dave", 611));
        let text = shown(&strangers, at(700));
        assert!(text.contains(r#""peer":"10.0.0.5","kind":"ignored_users""#) && !text.contains("alice"), "{text}");
        assert_eq!(shown(&strangers, at(700 + 3_600)), r#"{"hints":[]}"#, "forgotten");
        assert!(!note("10.0.0.5", "erin", 9_000), "begins anew");
    }

    #[test]
    fn strangers_from_elsewhere_and_in_masses_are_no_hint() {
        let strangers = Strangers::default();
        for user in 0..100_u64 {
            assert!(!strangers.note("203.0.113.9".parse().unwrap(), &user.to_be_bytes(), at(0)));
            assert!(!strangers.note("2001:db8::1".parse().unwrap(), &user.to_be_bytes(), at(0)));
        }
        for last in 0..200 {
            strangers.note(IpAddr::from([10, 0, 0, last]), b"a", at(0));
        }
        assert_eq!(strangers.lock().len(), PEERS_MAX);
        strangers.note(IpAddr::from([10, 0, 0, 201]), b"a", at(4_000));
        assert_eq!(strangers.lock().len(), 1, "those of long ago make room");
    }
}
