//! One address of an endpoint: how it fares, and who is there.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pingora::upstreams::peer::{HttpPeer, Peer};

use super::pool::Pool;
use crate::config::settings::{Endpoint, EndpointAddress};
use crate::policy::balance::Load;
use crate::policy::failover;
use crate::policy::health::{Gate, Health, Sign, UnderWay, Verdict};
use crate::telemetry::record::Place;

/// One address of an endpoint. What is known of it goes on when names are looked up again, and over reloads.
pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) peer: Arc<HttpPeer>,
    /// As the peer's: what tells members of one endpoint apart.
    pub(super) address: String,
    /// As telemetry names it.
    pub(super) place: Place,
    state: Arc<Mutex<State>>,
}

/// How a member fares.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) health: Health,
    pub(super) load: Load,
}

impl Member {
    /// A member that goes on where `before` stood.
    pub(super) fn new(endpoint: &Arc<Endpoint>, peer: Arc<HttpPeer>, before: Option<&Self>) -> Self {
        let state = before.map_or_else(Arc::default, |before| Arc::clone(&before.state));
        let (address, place) = (address(&peer), place(endpoint, &peer));
        Self { endpoint: Arc::clone(endpoint), address, place, peer, state }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is the same place as another, also across a new look-up.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }
}

fn place(endpoint: &Endpoint, peer: &HttpPeer) -> Place {
    let (address, port, is_name) = match &endpoint.address {
        EndpointAddress::Tcp { host, port } => {
            (Arc::from(host.as_str()), Some(*port), host.trim_matches(['[', ']']).parse::<IpAddr>().is_err())
        }
        EndpointAddress::Unix(path) => (Arc::from(path.to_string_lossy()), None, false),
    };
    let peer = peer.address().as_inet().filter(|_| is_name).copied();
    Place { endpoint: Arc::from(name(endpoint)), address, port, peer }
}

/// What telemetry calls an endpoint: `host:port` as the configuration has it, or `unix:` and the socket's path.
pub(super) fn name(endpoint: &Endpoint) -> String {
    match &endpoint.address {
        EndpointAddress::Tcp { .. } => endpoint.authority.clone(),
        EndpointAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

pub(super) fn address(peer: &HttpPeer) -> String {
    peer.address().to_string()
}

/// A request's place at a member: counts as in flight until it is dropped, and tells once how the member did.
pub(super) struct Ticket {
    pool: Arc<Pool>,
    pub(super) member: Arc<Member>,
    /// When it was taken, by the pool's clock.
    began: Duration,
    role: Role,
    under_way: Option<UnderWay>,
}

/// What a request's fate tells of the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// How it goes counts.
    Judges,
    /// It finds out whether the member is back.
    Probes,
    /// Nothing: it has told already, another goes on in its place, or it was asked aside.
    Silent,
}

impl Ticket {
    /// Takes the place. One that is half open is probed by whoever comes first.
    pub(super) fn take(pool: &Arc<Pool>, member: &Arc<Member>, now: Duration) -> Self {
        let mut state = member.state();
        let role = if state.health.gate(now) == Gate::Probe { Role::Probes } else { Role::Judges };
        if role == Role::Probes {
            state.health.probe(now);
        }
        state.load.enter();
        drop(state);
        Self { pool: Arc::clone(pool), member: Arc::clone(member), began: now, role, under_way: None }
    }

    /// Takes a place for a request that counts as in flight, and for nothing else: another model was asked there, or nobody
    /// waits.
    pub(super) fn take_aside(pool: &Arc<Pool>, member: &Arc<Member>) -> Self {
        member.state().load.enter();
        let (pool, member) = (Arc::clone(pool), Arc::clone(member));
        Self { pool, member, began: Duration::ZERO, role: Role::Silent, under_way: None }
    }

    /// Where a connection for this place may be made: the place itself first.
    pub(super) fn addresses(&self) -> Vec<Arc<Member>> {
        self.pool.addresses(&self.member)
    }

    /// The connection was made to another address of the same name: the place is there.
    pub(super) fn move_to(&mut self, member: &Arc<Member>) {
        *self = match self.role {
            Role::Silent => Self::take_aside(&self.pool, member),
            Role::Judges | Role::Probes => Self::take(&self.pool, member, self.pool.now()),
        };
    }

    /// Another address of the same name could not be connected to, or was far behind.
    pub(super) fn tell_unreachable(&self, member: &Member) {
        if self.role != Role::Silent {
            let verdict = Verdict { sign: Sign::Unreachable, began: self.began, under_way: None };
            self.pool.note(member, verdict);
        }
    }

    /// The place goes on with the answer; what is left of this one tells nothing any more.
    pub(super) fn hand_on(&mut self) -> Self {
        self.member.state().load.enter();
        Self {
            pool: Arc::clone(&self.pool),
            member: Arc::clone(&self.member),
            began: self.began,
            role: std::mem::replace(&mut self.role, Role::Silent),
            under_way: self.under_way.take(),
        }
    }

    /// The first token, or the head of an answer in one piece, came `took` after the attempt began. That helps to choose
    /// among members, and says nothing of how the answer ends.
    pub(super) fn answered(&mut self, took: Duration, streaming: bool) {
        if self.role == Role::Silent || self.under_way.is_some() {
            return;
        }
        let now = self.pool.now();
        let mut state = self.member.state();
        state.load.answered(took, streaming, now);
        self.under_way = Some(state.health.begins());
    }

    /// A head came that says that the upstream failed, or is overloaded. A 429 is no fault: it costs, and ejects nobody.
    pub(super) fn refused(&mut self, status: u16, retry_after: Option<Duration>) {
        if self.role == Role::Silent || !failover::is_replaceable_status(status) {
            return;
        }
        let now = self.pool.now();
        self.member.state().load.penalise(retry_after, now);
        if status != 429 {
            self.tell(Sign::Faulty);
        }
    }

    /// What the attempt showed of the member. The first word counts.
    pub(super) fn tell(&mut self, sign: Sign) {
        let role = std::mem::replace(&mut self.role, Role::Silent);
        if role != Role::Silent {
            self.pool.note(&self.member, Verdict { sign, began: self.began, under_way: self.under_way.take() });
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.member.state();
        state.load.leave();
        if let Some(under_way) = self.under_way {
            state.health.ends(under_way);
        }
        if self.role == Role::Probes {
            state.health.probe_over();
        }
    }
}
