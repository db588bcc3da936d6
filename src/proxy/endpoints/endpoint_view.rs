//! How the endpoints of an upstream fare, for people.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::endpoint::Member;
use crate::policy::balance::PenaltyBy;
use crate::policy::health::{Failures, Gate, Reason};
use crate::policy::levers::Setting;
use crate::words::worded;

/// One endpoint, with each address that its name stands for.
pub struct EndpointView {
    /// As metrics name it.
    pub name: Arc<str>,
    /// How people have taken it out of service as a whole.
    pub out: Option<Setting>,
    pub members: Vec<MemberView>,
}

/// One address of an endpoint.
pub struct MemberView {
    /// As connections have it.
    pub address: String,
    /// Where the endpoint is a name.
    pub peer: Option<SocketAddr>,
    pub standing: Standing,
    /// How people have taken it out of service.
    pub out: Option<Setting>,
    /// Why it is down.
    pub reason: Option<Reason>,
    /// Since when it is down.
    pub down_since: Option<SystemTime>,
    /// When a request may find out whether it is back.
    pub next_try: Option<SystemTime>,
    pub failures: Option<Seen>,
    /// Who serves in its place, where it is down and not ejected.
    pub serving: Vec<String>,
    pub in_flight: u32,
    /// Until when it counts as overloaded or failed in balancing, and by whose request.
    pub penalty: Option<(SystemTime, PenaltyBy)>,
    /// What the balancer compares: a peak of the time to the first token that fades, in seconds. No measurement.
    pub score: Option<Duration>,
}

worded! {
    /// Whether a place can take requests, from the best to the worst.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Standing {
        Up = "up",
        /// It was down, and its time is over: one request at a time finds out whether it is back.
        Probing = "probing",
        /// It gets only what nobody else can take: too few would be left without it.
        Down = "down",
        Ejected = "ejected",
    }
}

/// Failures with no long quiet between them.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub first: SystemTime,
    pub last: SystemTime,
    pub count: u64,
}

impl EndpointView {
    /// Whether people let it have requests: at one address at least, where it has several.
    pub fn is_in_service(&self) -> bool {
        self.out.is_none() && (self.members.is_empty() || self.members.iter().any(|member| member.out.is_none()))
    }

    /// Whether one of its addresses is believed to answer, or may be tried again.
    pub fn is_up(&self) -> bool {
        self.members.iter().any(|member| matches!(member.standing, Standing::Up | Standing::Probing))
    }
}

impl MemberView {
    pub(crate) fn new(member: &Member, now: Duration) -> Self {
        let state = member.state();
        let health = &state.health;
        let down = health.down();
        let wall = Wall { now, read: SystemTime::now() };
        let standing = match down {
            None => Standing::Up,
            Some(_) if health.gate(now) == Gate::Probe => Standing::Probing,
            Some(_) if health.is_ejected(now) => Standing::Ejected,
            Some(_) => Standing::Down,
        };
        Self {
            address: member.address.clone(),
            peer: member.place.peer,
            standing,
            out: member.out(),
            reason: down.map(|down| down.reason),
            down_since: down.map(|down| wall.at(down.since)),
            next_try: down.map(|down| wall.at(down.until)),
            failures: health.failures(now).map(|failures| wall.seen(failures)),
            serving: Vec::new(),
            in_flight: state.load.in_flight(),
            penalty: state.load.penalised_until(now).map(|(until, by)| (wall.at(until), by)),
            score: state.load.latency(true, now),
        }
    }

    /// It gets no requests.
    pub fn is_ejected(&self) -> bool {
        self.standing == Standing::Ejected
    }

    pub(crate) fn is_down_in_service(&self) -> bool {
        self.standing == Standing::Down
    }
}

/// Turns times of the pool's clock into those of the wall.
struct Wall {
    now: Duration,
    read: SystemTime,
}

impl Wall {
    fn at(&self, time: Duration) -> SystemTime {
        match time.checked_sub(self.now) {
            Some(ahead) => self.read.checked_add(ahead),
            None => self.read.checked_sub(self.now.saturating_sub(time)),
        }
        .unwrap_or(self.read)
    }

    fn seen(&self, Failures { first, last, count }: Failures) -> Seen {
        Seen { first: self.at(first), last: self.at(last), count }
    }
}
