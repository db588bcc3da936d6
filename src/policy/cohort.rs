//! Sticky sessions: which target of a route a user gets. The assignment depends only on names, so it is the same in
//! every process and after every restart.
//!
//! Weighted rendezvous hashing: each target draws u in (0, 1) from the user and its own name, scores -ln(u)/weight, and
//! the lowest score wins. The probability of a target is proportional to its weight. When one weight grows, users only
//! move to that target; when all other weights change by one factor, no user moves among them. The hash is SHA-256, of
//! which the first 8 bytes are used (big-endian).

use std::net::IpAddr;

use sha2::{Digest, Sha256};

use super::identity::Identity;
use super::trusted_proxies::network;
use crate::config::canary::Sticky;

/// What is assigned to a cohort: a user, an address or one request, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit(pub u64);

/// Who a request stands for. `roll` is a random number, for where nobody is known or nothing is to be kept together.
#[must_use]
pub fn unit(sticky: Sticky, identity: &Identity, address: Option<IpAddr>, roll: u64) -> Unit {
    let user = identity.user.as_deref().filter(|_| sticky == Sticky::User);
    let address = address.filter(|_| sticky != Sticky::None).map(network);
    match (user, address) {
        (Some(user), _) => Unit(hash(&[b"user", user.as_bytes()])),
        (None, Some(IpAddr::V4(address))) => Unit(hash(&[b"address", &address.octets()])),
        (None, Some(IpAddr::V6(address))) => Unit(hash(&[b"address", &address.octets()])),
        (None, None) => Unit(roll),
    }
}

/// The score of one target for a unit; the lowest wins. `weight` is above zero.
pub(super) fn score(route: &str, target: &str, unit: Unit, weight: f64) -> f64 {
    /// 2^-53: a float holds so many bits.
    const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
    let draw = hash(&[route.as_bytes(), target.as_bytes(), &unit.0.to_be_bytes()]);
    // Half a step off both ends, so that the logarithm is finite and not zero.
    let u = ((draw >> 11) as f64 + 0.5) * STEP;
    -u.ln() / weight
}

/// Each part with its length in front, so that no two lists are one text.
pub(super) fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Identity {
        Identity { user: Some(name.into()), ..Identity::default() }
    }

    #[test]
    fn units_stay_over_restarts() {
        // Fixed numbers: another hash would move every user.
        assert_eq!(unit(Sticky::User, &user("alice"), None, 1).0, 0x1052_5c38_3700_9a4b);
        assert!((score("chat", "next", Unit(7), 1.0) - 1.556751199681219).abs() < 1e-12);
    }

    #[test]
    fn who_is_kept_together_is_as_configured() {
        let (alice, bob, nobody) = (user("alice"), user("bob"), Identity::default());
        let (here, there) = (Some("192.0.2.1".parse().unwrap()), Some("192.0.2.2".parse().unwrap()));
        let by = |sticky, identity: &Identity, address| unit(sticky, identity, address, 99);
        assert_eq!(by(Sticky::User, &alice, here), by(Sticky::User, &alice, there));
        assert_ne!(by(Sticky::User, &alice, here), by(Sticky::User, &bob, here));
        assert_eq!(by(Sticky::User, &nobody, here), by(Sticky::Address, &alice, here), "the address stands in");
        assert_ne!(by(Sticky::Address, &alice, here), by(Sticky::Address, &alice, there));
        assert_eq!(by(Sticky::None, &alice, here), Unit(99));
        assert_eq!(by(Sticky::User, &nobody, None), Unit(99), "a unix socket has no address");
    }

    #[test]
    fn one_household_of_ipv6_is_one_unit() {
        let by = |address: &str| unit(Sticky::Address, &Identity::default(), Some(address.parse().unwrap()), 0);
        assert_eq!(by("2001:db8:1:2::1"), by("2001:db8:1:2:ffff::9"));
        assert_ne!(by("2001:db8:1:2::1"), by("2001:db8:1:3::1"));
        assert_eq!(by("::ffff:192.0.2.1"), by("192.0.2.1"), "the same client over another socket");
    }
}
