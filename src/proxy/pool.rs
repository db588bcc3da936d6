//! The endpoints of one upstream, with the addresses that their names stand for at the moment.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::protocols::ALPN;
use pingora::upstreams::peer::HttpPeer;

use super::ca;
use crate::config::settings::{Endpoint, EndpointAddress, Upstream, UpstreamProtocol};

/// How many requests may share one HTTP/2 connection towards an upstream.
const H2_STREAMS_MAX: usize = 100;

/// Addresses taken of one name.
const ADDRESSES_MAX: usize = 64;

/// Longest wait for one name lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The endpoints of one upstream.
pub struct Pool {
    endpoints: Vec<EndpointState>,
    /// What the peers were built from besides the endpoints.
    built_for: Arc<Upstream>,
    authorities: u64,
    next: AtomicUsize,
}

struct EndpointState {
    endpoint: Endpoint,
    /// One peer an address; empty while the name is not resolved.
    peers: ArcSwap<Vec<Arc<HttpPeer>>>,
}

/// Where one attempt goes.
pub(super) struct Place<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) peer: Arc<HttpPeer>,
}

impl Pool {
    pub(super) fn new(upstream: &Arc<Upstream>) -> Self {
        let endpoints = upstream.endpoints.iter().map(|endpoint| EndpointState::new(endpoint, upstream)).collect();
        let authorities = ca::fingerprint(upstream.ca.as_deref());
        Self { endpoints, built_for: Arc::clone(upstream), authorities, next: AtomicUsize::new(0) }
    }

    /// Whether this pool can go on for `upstream` after a reload.
    pub(super) fn serves(&self, upstream: &Upstream) -> bool {
        let built = &self.built_for;
        built.endpoints == upstream.endpoints
            && built.protocol == upstream.protocol
            && built.ca == upstream.ca
            && self.authorities == ca::fingerprint(upstream.ca.as_deref())
    }

    /// Whether at least one endpoint has an address.
    pub fn is_resolved(&self) -> bool {
        self.endpoints.iter().any(|state| !state.peers.load().is_empty())
    }

    /// Each endpoint's authority and how many addresses it has.
    pub fn endpoints(&self) -> impl Iterator<Item = (&str, usize)> {
        self.endpoints.iter().map(|state| (state.endpoint.authority.as_str(), state.peers.load().len()))
    }

    /// The endpoint for the next attempt, in turn; those without an address are passed over.
    pub(super) fn pick(&self) -> Option<Place<'_>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        (0..self.endpoints.len()).find_map(|offset| {
            let state = self.endpoints.get((turn + offset) % self.endpoints.len())?;
            let peers = state.peers.load();
            let round = turn / self.endpoints.len();
            let peer = peers.get(round % peers.len().max(1))?;
            Some(Place { endpoint: &state.endpoint, peer: Arc::clone(peer) })
        })
    }

    /// How many different places there are to try.
    pub(super) fn places(&self) -> usize {
        self.endpoints.iter().map(|state| state.peers.load().len()).sum()
    }

    /// Looks up the names anew. A lookup that fails keeps the last addresses.
    pub(super) async fn resolve(&self) {
        for state in &self.endpoints {
            state.resolve(&self.built_for).await;
        }
    }
}

impl EndpointState {
    fn new(endpoint: &Endpoint, upstream: &Upstream) -> Self {
        let known = match &endpoint.address {
            EndpointAddress::Unix(path) => {
                let tls_name = if endpoint.tls { host_of(&endpoint.authority).to_owned() } else { String::new() };
                path.to_str()
                    .and_then(|path| HttpPeer::new_uds(path, endpoint.tls, tls_name).ok())
                    .into_iter()
                    .collect()
            }
            EndpointAddress::Tcp { host, port } => {
                let literal: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
                literal.map(|ip| tcp_peer(SocketAddr::new(ip, *port), endpoint)).into_iter().collect()
            }
        };
        let peers = finish(known, endpoint, upstream);
        Self { endpoint: endpoint.clone(), peers: ArcSwap::from_pointee(peers) }
    }

    async fn resolve(&self, upstream: &Upstream) {
        let EndpointAddress::Tcp { host, port } = &self.endpoint.address else { return };
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return;
        }
        let lookup = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host.as_str(), *port))).await;
        let mut found: Vec<SocketAddr> = match lookup {
            Ok(Ok(addresses)) => addresses.take(ADDRESSES_MAX).collect(),
            Ok(Err(error)) => {
                tracing::warn!(upstream = %upstream.name, host, %error, "cannot look up the upstream's name; its last addresses stay");
                return;
            }
            Err(_) => {
                tracing::warn!(upstream = %upstream.name, host, "looking up the upstream's name took over 5 s; its last addresses stay");
                return;
            }
        };
        found.sort_unstable();
        found.dedup();
        let current: Vec<String> = self.peers.load().iter().map(|peer| peer.to_string()).collect();
        let peers = finish(found.iter().map(|at| tcp_peer(*at, &self.endpoint)).collect(), &self.endpoint, upstream);
        let fresh: Vec<String> = peers.iter().map(|peer| peer.to_string()).collect();
        if !peers.is_empty() && fresh != current {
            self.peers.store(Arc::new(peers));
        }
    }
}

fn tcp_peer(address: SocketAddr, endpoint: &Endpoint) -> HttpPeer {
    let tls_name = if endpoint.tls { host_of(&endpoint.authority).to_owned() } else { String::new() };
    HttpPeer::new(address, endpoint.tls, tls_name)
}

/// Sets what all peers of an upstream share.
fn finish(peers: Vec<HttpPeer>, endpoint: &Endpoint, upstream: &Upstream) -> Vec<Arc<HttpPeer>> {
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
            peer.options.max_h2_streams = H2_STREAMS_MAX;
            peer.options.idle_timeout = Some(super::state::IDLE_CONNECTION_TIMEOUT);
            peer.options.ca.clone_from(&authorities);
            // Connections verified by one set of authorities are never reused for another.
            peer.group_key = ca::fingerprint(upstream.ca.as_deref());
            Arc::new(peer)
        })
        .collect()
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
