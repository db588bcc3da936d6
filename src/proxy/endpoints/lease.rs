//! Which place of an upstream a request gets, and what the request tells of that place.

use std::sync::Arc;
use std::time::Duration;

use super::affinity::Wanted;
use super::choose::better;
use super::endpoint::Member;
use super::endpoint_pool::EndpointPool;
use crate::policy::failover;
use crate::policy::health::{Gate, Sign, UnderWay, Verdict};
use crate::policy::hints::Kind;

impl EndpointPool {
    /// A place for the next attempt: one that is half open gets this request, else the better of two is taken; where all
    /// are ejected, one of them all the same. `roll` is uniform over all of `u64`. `wanted`: where sessions are kept together.
    pub(crate) fn take(
        self: &Arc<Self>,
        tried: &[Arc<Member>],
        streaming: bool,
        roll: u64,
        wanted: Option<&Wanted>,
    ) -> Option<Lease> {
        let now = self.now();
        let untried = || self.in_service().filter(|member| !tried.iter().any(|other| other.is(member)));
        if let Some(wanted) = wanted {
            let (member, result) = self.of_session(untried().collect(), wanted, streaming, roll)?;
            if tried.is_empty() {
                self.tell_affinity(result);
            }
            return Some(Lease::take(self, &member, now));
        }
        let mut rest = untried();
        let member = match (rest.next(), rest.next()) {
            (Some(only), None) => only,
            _ => better(untried().collect(), streaming, roll, now)?,
        };
        Some(Lease::take(self, &member, now))
    }

    /// A place for a request of which nothing is learned; the better of two is taken.
    pub(crate) fn take_aside(self: &Arc<Self>, roll: u64) -> Option<Lease> {
        let member = better(self.in_service().collect(), true, roll, self.now())?;
        Some(Lease::take_aside(self, &member))
    }
}

/// A request's place at a member: counts as in flight until it is dropped, and tells once how the member did.
pub(crate) struct Lease {
    pool: Arc<EndpointPool>,
    pub(crate) member: Arc<Member>,
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

impl Lease {
    /// Takes the place. One that is half open is probed by whoever comes first.
    pub(crate) fn take(pool: &Arc<EndpointPool>, member: &Arc<Member>, now: Duration) -> Self {
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
    pub(crate) fn take_aside(pool: &Arc<EndpointPool>, member: &Arc<Member>) -> Self {
        member.state().load.enter();
        let (pool, member) = (Arc::clone(pool), Arc::clone(member));
        Self { pool, member, began: Duration::ZERO, role: Role::Silent, under_way: None }
    }

    /// Where a connection for this place may be made: the place itself first.
    pub(crate) fn addresses(&self) -> Vec<Arc<Member>> {
        self.pool.addresses(&self.member)
    }

    /// The connection was made to another address of the same name: the place is there.
    pub(crate) fn move_to(&mut self, member: &Arc<Member>) {
        *self = match self.role {
            Role::Silent => Self::take_aside(&self.pool, member),
            Role::Judges | Role::Probes => Self::take(&self.pool, member, self.pool.now()),
        };
    }

    /// Another address of the same name could not be connected to, or was far behind.
    pub(crate) fn tell_unreachable(&self, member: &Member) {
        if self.role != Role::Silent {
            let verdict = Verdict { sign: Sign::Unreachable, began: self.began, under_way: None };
            self.pool.note(member, verdict);
        }
    }

    /// The place goes on with the answer; what is left of this one tells nothing any more.
    pub(crate) fn hand_on(&mut self) -> Self {
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
    /// among members, unless nothing was made for it (`is_delivery`), and says nothing of how the answer ends.
    pub(crate) fn answered(&mut self, took: Duration, streaming: bool, is_delivery: bool) {
        if self.role == Role::Silent || self.under_way.is_some() {
            return;
        }
        let now = self.pool.now();
        let mut state = self.member.state();
        if !is_delivery {
            state.load.answered(took, streaming, now);
        }
        self.under_way = Some(state.health.begins());
    }

    /// A head came that says that the upstream failed, or is overloaded. A 429 is no fault: it costs, and ejects nobody.
    pub(crate) fn refused(&mut self, status: u16, retry_after: Option<Duration>) {
        if self.role == Role::Silent || !failover::is_replaceable_status(status) {
            return;
        }
        let now = self.pool.now();
        self.member.state().load.penalise(retry_after, now);
        match (status, retry_after) {
            // A limit belongs to an account, which replicas have in common.
            (429, Some(wait)) => self.pool.hint(&self.member, Kind::Overloaded, wait),
            (429, None) => {}
            _ => self.tell(Sign::Faulty),
        }
    }

    /// What the attempt showed of the member. The first word counts.
    pub(crate) fn tell(&mut self, sign: Sign) {
        let role = std::mem::replace(&mut self.role, Role::Silent);
        if role != Role::Silent {
            self.pool.note(&self.member, Verdict { sign, began: self.began, under_way: self.under_way.take() });
        }
    }
}

impl Drop for Lease {
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
