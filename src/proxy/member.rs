//! One address of an endpoint: how it fares, and who is there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pingora::upstreams::peer::{HttpPeer, Peer};

use super::pool::Pool;
use crate::config::settings::Endpoint;
use crate::policy::balance::Load;
use crate::policy::failover;
use crate::policy::health::{Gate, Health, Sign};

/// One address of an endpoint. What is known of it goes on when names are looked up again, and over reloads.
pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) peer: Arc<HttpPeer>,
    /// As the peer's: what tells members of one endpoint apart.
    pub(super) address: String,
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
        Self { endpoint: Arc::clone(endpoint), address: address(&peer), peer, state }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is the same place as another, also across a new look-up.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }
}

pub(super) fn address(peer: &HttpPeer) -> String {
    peer.address().to_string()
}

/// A request's place at a member: counts as in flight until it is dropped, and tells how the member did.
pub(super) struct Ticket {
    pool: Arc<Pool>,
    pub(super) member: Arc<Member>,
    /// This request finds out whether the member is back.
    probes: bool,
    /// How it goes tells nothing of the member: another model was asked there, or nobody waits.
    aside: bool,
}

impl Ticket {
    /// Takes the place. One that is half open is probed by whoever comes first.
    pub(super) fn take(pool: &Arc<Pool>, member: &Arc<Member>, now: Duration) -> Self {
        let mut state = member.state();
        let probes = state.health.gate(now) == Gate::Probe;
        if probes {
            state.health.probe();
        }
        state.load.enter();
        drop(state);
        Self { pool: Arc::clone(pool), member: Arc::clone(member), probes, aside: false }
    }

    /// Takes a place for a request that counts as in flight, and for nothing else.
    pub(super) fn take_aside(pool: &Arc<Pool>, member: &Arc<Member>) -> Self {
        member.state().load.enter();
        Self { pool: Arc::clone(pool), member: Arc::clone(member), probes: false, aside: true }
    }

    /// Where a connection for this place may be made: the place itself first.
    pub(super) fn addresses(&self) -> Vec<Arc<Member>> {
        self.pool.addresses(&self.member)
    }

    /// The connection was made to another address of the same name: the place is there.
    pub(super) fn move_to(&mut self, member: &Arc<Member>) {
        *self = match self.aside {
            true => Self::take_aside(&self.pool, member),
            false => Self::take(&self.pool, member, self.pool.now()),
        };
    }

    /// Another address of the same name could not be connected to, or was far behind.
    pub(super) fn tell_unreachable(&self, member: &Member) {
        if !self.aside {
            self.pool.note(member, Sign::Unreachable);
        }
    }

    /// The place goes on with the answer; what is left of this one tells nothing any more.
    pub(super) fn hand_on(&mut self) -> Self {
        self.member.state().load.enter();
        let probes = std::mem::take(&mut self.probes);
        Self { pool: Arc::clone(&self.pool), member: Arc::clone(&self.member), probes, aside: self.aside }
    }

    /// The first token, or the head of an answer in one piece, came `took` after the attempt began.
    pub(super) fn answered(&mut self, took: Duration, streaming: bool) {
        if self.aside {
            return;
        }
        let now = self.pool.now();
        self.member.state().load.answered(took, streaming, now);
        self.tell(Sign::Well);
    }

    /// A head came that says that the upstream failed, or is overloaded. A 429 is no fault: it costs, and ejects nobody.
    pub(super) fn refused(&mut self, status: u16, retry_after: Option<Duration>) {
        if self.aside || !failover::is_replaceable_status(status) {
            return;
        }
        let now = self.pool.now();
        self.member.state().load.penalise(retry_after, now);
        if status != 429 {
            self.tell(Sign::Faulty);
        }
    }

    /// What the attempt showed of the member.
    pub(super) fn tell(&mut self, sign: Sign) {
        if self.aside {
            return;
        }
        self.probes = false;
        self.pool.note(&self.member, sign);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.member.state();
        state.load.leave();
        if self.probes {
            state.health.probe_over();
        }
    }
}
