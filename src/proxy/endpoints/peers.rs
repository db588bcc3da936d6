//! What pingora needs to know of one address of an endpoint.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use pingora::protocols::ALPN;
use pingora::upstreams::peer::HttpPeer;

use super::ca;
use crate::config::address::Endpoint;
use crate::config::settings::{Upstream, UpstreamProtocol};

/// `None` where the path cannot be an address.
pub(crate) fn unix(path: &Path, endpoint: &Endpoint) -> Option<HttpPeer> {
    HttpPeer::new_uds(path.to_str()?, endpoint.tls, tls_name(endpoint)).ok()
}

pub(crate) fn tcp(address: SocketAddr, endpoint: &Endpoint) -> HttpPeer {
    HttpPeer::new(address, endpoint.tls, tls_name(endpoint))
}

fn tls_name(endpoint: &Endpoint) -> String {
    if endpoint.tls { host_of(&endpoint.authority).to_owned() } else { String::new() }
}

/// Sets what all peers of an upstream share.
pub(crate) fn finish(peers: Vec<HttpPeer>, endpoint: &Endpoint, upstream: &Upstream) -> Vec<Arc<HttpPeer>> {
    let authorities = upstream.ca.as_deref().and_then(|path| match ca::load(path) {
        Ok(certificates) => Some(certificates),
        Err(error) => {
            tracing::error!(upstream = %upstream.name, path = %path.display(), %error, "cannot read the CA file; the upstream will fail verification");
            None
        }
    });
    peers
        .into_iter()
        .map(|mut peer| {
            peer.options.alpn = match (upstream.protocol, endpoint.tls) {
                (UpstreamProtocol::Http2, _) => ALPN::H2,
                (UpstreamProtocol::Auto, true) => ALPN::H2H1,
                (UpstreamProtocol::Auto, false) | (UpstreamProtocol::Http1, _) => ALPN::H1,
            };
            peer.options.h2_ping_interval = Some(upstream.ping_interval).filter(|interval| !interval.is_zero());
            peer.options.ca.clone_from(&authorities);
            // Connections verified by one set of authorities are never reused for another.
            peer.group_key = ca::fingerprint(upstream.ca.as_deref());
            Arc::new(peer)
        })
        .collect()
}

/// `first`, and then the others: one of the other family, one of its own, and so on.
pub(crate) fn in_turn<T>(first: T, others: impl Iterator<Item = T>, is_v6: impl Fn(&T) -> bool) -> Vec<T> {
    let family = is_v6(&first);
    let (same, another): (Vec<T>, Vec<T>) = others.partition(|other| is_v6(other) == family);
    let (mut same, mut another) = (same.into_iter(), another.into_iter());
    let mut turns = vec![first];
    loop {
        let next = [another.next(), same.next()];
        if next.iter().all(Option::is_none) {
            return turns;
        }
        turns.extend(next.into_iter().flatten());
    }
}

/// The host of `host[:port]`, without IPv6 brackets.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let order = |first: &'static str, others: [&'static str; 4]| {
            in_turn(first, others.into_iter(), |address| address.contains(':')).join(" ")
        };
        assert_eq!(order("1.1.1.1", ["1.1.1.2", "1.1.1.3", "::1", "::2"]), "1.1.1.1 ::1 1.1.1.2 ::2 1.1.1.3");
        assert_eq!(order("::1", ["::2", "::3", "::4", "1.1.1.1"]), "::1 1.1.1.1 ::2 ::3 ::4");
    }

    #[test]
    fn hosts_are_taken_out_of_authorities() {
        for (authority, host) in [
            ("api.openai.com", "api.openai.com"),
            ("localhost:8000", "localhost"),
            ("[::1]:443", "::1"),
            ("[::1]", "::1"),
        ] {
            assert_eq!(host_of(authority), host);
        }
    }
}
