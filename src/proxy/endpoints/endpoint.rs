//! One address of an endpoint: how it fares, and who is there.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pingora::upstreams::peer::{HttpPeer, Peer};

use super::levers::Flags;
use crate::config::address::{Endpoint, EndpointAddress};
use crate::policy::affinity;
use crate::policy::balance::Load;
use crate::policy::health::Health;
use crate::policy::levers::Setting;
use crate::telemetry::record::ServerAddress;

/// One address of an endpoint. What is known of it goes on when names are looked up again, and over reloads.
pub(crate) struct Member {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) peer: Arc<HttpPeer>,
    /// As the peer's: what tells members of one endpoint apart.
    pub(crate) address: String,
    /// As telemetry names it.
    pub(crate) place: ServerAddress,
    /// What it stands for where sessions choose their endpoints.
    pub(crate) drawn_by: u64,
    /// What may take it out of service by hand.
    flags: Flags,
    state: Arc<Mutex<State>>,
}

/// How a member fares.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) health: Health,
    pub(crate) load: Load,
}

impl Member {
    /// A member that goes on where `before` stood.
    pub(crate) fn new(endpoint: &Arc<Endpoint>, peer: Arc<HttpPeer>, flags: Flags, before: Option<&Self>) -> Self {
        let state = before.map_or_else(Arc::default, |before| Arc::clone(&before.state));
        let (address, place) = (address(&peer), place(endpoint, &peer));
        let drawn_by = affinity::place_of(&place.endpoint, &address);
        Self { endpoint: Arc::clone(endpoint), address, place, peer, drawn_by, flags, state }
    }

    /// How people have taken it out of service, if they have.
    pub(crate) fn out(&self) -> Option<Setting> {
        self.flags.setting()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is reached without leaving the machine: another machine's of the same address is another.
    pub(crate) fn is_local(&self) -> bool {
        self.peer.address().as_inet().is_none_or(|at| at.ip().is_loopback() || at.ip().is_unspecified())
    }

    /// Whether it is the same place as another, also across a new look-up.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }
}

fn place(endpoint: &Endpoint, peer: &HttpPeer) -> ServerAddress {
    let (address, port, is_name) = match &endpoint.address {
        EndpointAddress::Tcp { host, port } => {
            (Arc::from(host.as_str()), Some(*port), host.trim_matches(['[', ']']).parse::<IpAddr>().is_err())
        }
        EndpointAddress::Unix(path) => (Arc::from(path.to_string_lossy()), None, false),
    };
    let peer = peer.address().as_inet().filter(|_| is_name).copied();
    ServerAddress { endpoint: Arc::from(name(endpoint)), address, port, peer }
}

/// What telemetry calls an endpoint: `host:port` as the configuration has it, or `unix:` and the socket's path.
pub(crate) fn name(endpoint: &Endpoint) -> String {
    match &endpoint.address {
        EndpointAddress::Tcp { .. } => endpoint.authority.clone(),
        EndpointAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

pub(crate) fn address(peer: &HttpPeer) -> String {
    peer.address().to_string()
}
