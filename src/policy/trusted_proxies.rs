//! Whom to believe about where a request comes from.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::config::address::Network;

/// Forwarding hops that are looked at, from the nearest on: a header is the sender's to fill.
const HOPS_MAX: usize = 64;

/// Request headers that a backend may believe, so that only a trusted proxy may set them. Identity sees to the user's.
const BELIEVED: [&str; 18] = [
    // Where a request came from.
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    // What it asks for.
    "x-original-url",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    // Who asks, as proxies that log people in say it.
    "remote-user",
    "x-remote-user",
    "x-authenticated-user",
    "x-webauth-user",
    "x-token-subject",
    "cf-access-authenticated-user-email",
    "baggage",
];

/// As [`BELIEVED`]: all that begin so.
const BELIEVED_PREFIXES: [&str; 5] =
    ["x-forwarded-", "x-auth-request-", "x-ms-client-principal", "x-goog-authenticated-user-", "x-amzn-oidc-"];

/// Whether a backend may believe a header of this name, which is in lower case.
#[must_use]
pub fn is_believed(name: &str) -> bool {
    BELIEVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || BELIEVED.contains(&name)
}

/// Whether a peer may set `x-user-id`, `x-forwarded-*`, `traceparent` and `baggage`. IPv4-mapped addresses count as
/// IPv4. A peer without an address, on a unix socket, is not trusted.
#[must_use]
pub fn is_trusted(trusted: &[Network], peer: Option<IpAddr>) -> bool {
    peer.is_some_and(|peer| trusted.iter().any(|network| network.contains(peer)))
}

/// The client's address: the peer's own, or behind trusted peers the nearest address in `X-Forwarded-For` that is not
/// trusted itself. `forwarded_for` are the header's values in the order they came.
///
/// Read from the right: each trusted hop vouches for the one that it added, and nothing vouches for what stands left of
/// the first untrusted one. Something unreadable ends the chain. IPv4-mapped addresses come as IPv4.
#[must_use]
pub fn client_address<'a>(
    trusted: &[Network],
    peer: Option<IpAddr>,
    forwarded_for: impl DoubleEndedIterator<Item = &'a str>,
) -> Option<IpAddr> {
    let mut client = peer?.to_canonical();
    let hops = forwarded_for.rev().flat_map(|value| value.rsplit(','));
    for hop in hops.map(str::trim).filter(|hop| !hop.is_empty()).take(HOPS_MAX) {
        if !is_trusted(trusted, Some(client)) {
            return Some(client);
        }
        match parse_hop(hop) {
            Some(address) => client = address,
            None => return Some(client),
        }
    }
    Some(client)
}

/// Those who share one line: an IPv4 address, or an IPv6 /64, from which one subscriber has all addresses.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// An address in words, an IPv4 one that is mapped into IPv6 as itself. Each request's is written several times: for IPv4 the standard's
/// takes ten times as long.
pub fn put_address(out: &mut String, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            for (at, octet) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push('.');
                }
                out.push_str(itoa::Buffer::new().format(octet));
            }
        }
        IpAddr::V6(address) => {
            // Cannot fail: it is a string.
            let _ = write!(out, "{address}");
        }
    }
}

/// Reads `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` and `[2001:db8::1]:80`.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let address = hop.parse().ok().or_else(bracketed).or_else(|| hop.parse::<SocketAddr>().ok().map(|a| a.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn client(trusted: &[&str], peer: &str, values: &[&str]) -> String {
        let peer = Some(peer.parse().unwrap());
        client_address(&networks(trusted), peer, values.iter().copied()).unwrap().to_string()
    }

    #[test]
    fn nobody_is_trusted_by_default() {
        assert!(!is_trusted(&[], Some("127.0.0.1".parse().unwrap())));
        assert_eq!(client(&[], "127.0.0.1", &["6.6.6.6"]), "127.0.0.1");
    }

    #[test]
    fn mapped_addresses_are_the_addresses_they_map() {
        let ten = networks(&["10.0.0.0/8"]);
        assert!(is_trusted(&ten, Some("::ffff:10.1.1.1".parse().unwrap())));
        assert!(!is_trusted(&ten, Some("::ffff:11.1.1.1".parse().unwrap())));
        assert!(!is_trusted(&ten, None), "a unix socket has no address");
        assert_eq!(client(&["10.0.0.0/8"], "::ffff:10.1.1.1", &["::ffff:192.0.2.1"]), "192.0.2.1");
    }

    #[test]
    fn hops_are_read_from_the_right() {
        let inner = &["10.0.0.0/8"];
        for (peer, values, expected) in [
            ("10.0.0.1", &["192.0.2.1"][..], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6, 192.0.2.1", "10.0.0.2"], "192.0.2.1"),
            ("192.0.2.9", &["6.6.6.6"], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["192.0.2.1:4711"], "192.0.2.1"),
            ("10.0.0.1", &["[2001:db8::1]:4711,"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &[", ,"], "10.0.0.1"),
        ] {
            assert_eq!(client(inner, peer, values), expected, "{values:?} from {peer}");
        }
    }

    #[test]
    fn a_long_chain_is_bounded() {
        let long = "10.0.0.2,".repeat(1_000_000);
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &[&format!("192.0.2.1,{long}")]), "10.0.0.2");
    }

    proptest! {
        #[test]
        fn an_untrusted_peer_cannot_choose_its_address(values in proptest::collection::vec("[0-9a-f.:, \\[\\]]{0,40}", 0..4)) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            prop_assert_eq!(client(&["10.0.0.0/8"], "192.0.2.1", &values), "192.0.2.1");
        }

        #[test]
        fn what_stands_left_of_the_client_changes_nothing(left in "[0-9a-z.:, ]{0,40}") {
            let value = format!("{left}, 192.0.2.1, 10.0.0.2");
            prop_assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &[&value]), "192.0.2.1");
        }
    }

    #[test]
    fn addresses_are_written_as_the_standard_writes_them() {
        for text in ["192.0.2.1", "0.0.0.0", "255.10.9.100", "::ffff:192.0.2.1", "2001:db8::1", "::1"] {
            let address: IpAddr = text.parse().unwrap();
            let mut out = String::new();
            put_address(&mut out, address);
            assert_eq!(out, address.to_canonical().to_string());
        }
    }
}
