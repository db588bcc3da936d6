//! The endpoints of one upstream, with the addresses that their names stand for at the moment.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::upstreams::peer::{HttpPeer, Peer};

use super::ca;
use super::endpoint::{self, Member};
use super::endpoint_view::{EndpointView, MemberView};
use super::hints::{HintedChecks, HintsOut};
use super::levers::{Flag, Levers};
use super::peers;
use super::retry_budget::Replicas;
use crate::config::address::{Endpoint, EndpointAddress};
use crate::config::settings::Upstream;
use crate::policy::failover::Room;
use crate::policy::health::{self, Change, Down, Sign, Verdict};
use crate::policy::hints::Kind;
use crate::policy::levers::{Lever, Setting};
use crate::proxy::clock::Clock;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::EndpointOf;

/// Addresses taken of one name.
const ADDRESSES_MAX: usize = 64;

/// Places that are named as those that serve for one that is down.
const SERVING_MAX: usize = 8;

/// Longest wait for one name lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The endpoints of one upstream.
pub struct EndpointPool {
    endpoints: Vec<EndpointState>,
    /// What the peers were built from besides the endpoints.
    built_for: Arc<Upstream>,
    authorities: u64,
    /// Held while it is decided whether one more may be ejected.
    ejecting: Mutex<()>,
    hinted_checks: HintedChecks,
    around: Around,
}

/// What pools tell others, and the clock that their health goes by.
#[derive(Clone)]
pub(crate) struct Around {
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) clock: Clock,
    pub(crate) levers: Arc<Levers>,
    pub(crate) hints: Arc<HintsOut>,
    pub(crate) replicas: Arc<Replicas>,
}

struct EndpointState {
    endpoint: Arc<Endpoint>,
    /// As telemetry names it.
    name: Arc<str>,
    /// Its own lever, and that of the whole upstream.
    levers: [Arc<Flag>; 2],
    /// One an address; empty while the name is not resolved.
    members: ArcSwap<Vec<Arc<Member>>>,
}

impl EndpointPool {
    /// Endpoints that `previous` has too go on as they stood there.
    pub(crate) fn new(upstream: &Arc<Upstream>, previous: Option<&Self>, around: Around) -> Self {
        let endpoints = upstream
            .endpoints
            .iter()
            .map(|endpoint| {
                let same = |state: &&EndpointState| *state.endpoint == *endpoint;
                let before = previous.and_then(|old| old.endpoints.iter().find(same));
                EndpointState::new(endpoint, upstream, &around.levers, before)
            })
            .collect();
        let authorities = ca::fingerprint(upstream.ca.as_deref());
        let built_for = Arc::clone(upstream);
        Self {
            endpoints,
            built_for,
            authorities,
            ejecting: Mutex::default(),
            hinted_checks: HintedChecks::default(),
            around,
        }
    }

    /// Whether this pool can go on for `upstream` after a reload.
    pub(crate) fn serves(&self, upstream: &Upstream) -> bool {
        let built = &self.built_for;
        built.endpoints == upstream.endpoints
            && built.protocol == upstream.protocol
            && built.ca == upstream.ca
            && self.authorities == ca::fingerprint(upstream.ca.as_deref())
    }

    pub(super) fn name(&self) -> &str {
        &self.built_for.name
    }

    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.around.telemetry
    }

    /// Lets the other replicas know something of a place that holds for so long, if there are any.
    pub(super) fn hint(&self, member: &Member, kind: Kind, holds: Duration) {
        self.around.hints.put(self.name(), member, (kind, holds), self.now());
    }

    pub(super) fn hinted_checks(&self) -> &HintedChecks {
        &self.hinted_checks
    }

    /// The time that health goes by.
    pub(crate) fn now(&self) -> Duration {
        self.around.clock.now()
    }

    /// Whether at least one endpoint has an address, is in service, and is believed to answer.
    pub fn is_up(&self) -> bool {
        let now = self.now();
        self.in_service().any(|member| member.state().health.is_up(now))
    }

    /// How people have taken all of its endpoints out of service, if they have.
    pub(crate) fn out(&self) -> Option<Setting> {
        let out = |state: &EndpointState| match state.members.load().as_slice() {
            [] => state.out(),
            members => members.iter().map(|member| member.out()).min().flatten(),
        };
        self.endpoints.iter().map(out).min().flatten()
    }

    /// A person put back what `is_meant`: what was held against it is forgotten.
    pub(crate) fn forgive(&self, is_meant: impl Fn(&Member) -> bool) {
        let now = self.now();
        for member in self.members().filter(|member| is_meant(member)) {
            member.state().health.forgive(now);
        }
    }

    /// The places that may be asked, as far as people are concerned.
    pub(crate) fn in_service(&self) -> impl Iterator<Item = Arc<Member>> {
        self.members().filter(|member| member.out().is_none())
    }

    /// What there is for a request that has `tried` some of the places.
    pub(crate) fn room(&self, tried: &[Arc<Member>]) -> Room {
        let now = self.now();
        let mut room = Room::Exhausted;
        for member in self.in_service().filter(|member| !tried.iter().any(|other| other.is(member))) {
            if member.state().health.is_up(now) {
                return Room::Up;
            }
            room = Room::Down;
        }
        room
    }

    /// Where a connection to `member`'s endpoint may be made: there first, then at the other addresses of its name that are
    /// believed to answer, IPv6 and IPv4 in turn (RFC 8305, section 4).
    pub(crate) fn addresses(&self, member: &Arc<Member>) -> Vec<Arc<Member>> {
        let now = self.now();
        let others = self
            .in_service()
            .filter(|other| other.endpoint == member.endpoint && !other.is(member) && other.state().health.is_up(now));
        let is_v6 = |member: &Arc<Member>| member.peer.address().as_inet().is_some_and(SocketAddr::is_ipv6);
        peers::in_turn(Arc::clone(member), others, is_v6)
    }

    /// Takes in how an attempt at a member went.
    pub(crate) fn note(&self, member: &Member, verdict: Verdict) {
        let now = self.now();
        if member.out().is_some() {
            // Whoever took it out may stop it as well: that is no failure of its own.
            if let Some(under_way) = verdict.under_way {
                member.state().health.ends(under_way);
            }
            return;
        }
        let change = if verdict.sign == Sign::Well {
            member.state().health.note(verdict, now, false)
        } else {
            let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
            let may_eject = self.may_eject(member, now);
            member.state().health.note(verdict, now, may_eject)
        };
        if verdict.sign == Sign::Unreachable || matches!(change, Some(Change::Down(_))) {
            self.hint(member, Kind::CheckHealth, Duration::MAX);
        }
        self.tell(member, change, now);
    }

    /// Takes in how a health check of a member ended.
    pub(crate) fn checked(&self, member: &Member, well: bool) {
        let now = self.now();
        let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let may_eject = self.may_eject(member, now);
        let change = member.state().health.checked(well, now, may_eject);
        self.tell(member, change, now);
    }

    fn may_eject(&self, but: &Member, now: Duration) -> bool {
        if but.out().is_some() {
            return false;
        }
        let others = self.in_service().filter(|other| !other.is(but));
        let ejected = others.filter(|other| other.state().health.is_ejected(now)).count();
        health::may_eject_more(self.in_service().count(), ejected)
    }

    fn tell(&self, member: &Member, change: Option<Change>, now: Duration) {
        match change {
            None => return,
            Some(Change::Down(down)) => self.tell_down(member, down, now),
            Some(Change::Up { away }) => {
                tracing::info!(
                    event = "upstream.up",
                    upstream = &*self.built_for.name,
                    endpoint = &*member.place.endpoint,
                    address = member.address,
                    away_s = away.as_secs_f64(),
                    "endpoint is back"
                );
            }
        }
        self.publish();
    }

    fn tell_down(&self, member: &Member, down: Down, now: Duration) {
        let (upstream, endpoint) = (&*self.built_for.name, &*member.place.endpoint);
        let seconds = down.until.saturating_sub(now).as_secs();
        let reason = down.reason.as_str();
        if let Some(out) = member.out() {
            tracing::info!(
                event = "upstream.down",
                upstream,
                endpoint,
                address = member.address,
                reason,
                "endpoint down; it is {} by hand, and gets no requests anyway",
                out.as_str()
            );
        } else if down.ejected {
            tracing::warn!(
                event = "upstream.ejected",
                upstream,
                endpoint,
                address = member.address,
                reason,
                seconds,
                "endpoint ejected"
            );
            self.around.telemetry.metrics().endpoint_ejected(EndpointOf { upstream, endpoint });
        } else {
            let others = self.serving_beside(member, now).join(", ");
            let serving = if others.is_empty() {
                "the route's other targets; where it has none that is up, this one"
            } else {
                &others
            };
            tracing::warn!(
                event = "upstream.down",
                upstream,
                endpoint,
                address = member.address,
                reason,
                seconds,
                serving,
                "endpoint down; it is not ejected, since too few would be left, and gets only what nobody else can take"
            );
        }
    }

    /// The other places of the upstream that are up; the first few of them.
    fn serving_beside(&self, but: &Member, now: Duration) -> Vec<String> {
        let others = self.in_service().filter(|other| !other.is(but) && other.state().health.is_up(now));
        others.take(SERVING_MAX).map(|other| other.place.to_string()).collect()
    }

    /// Shows in the metrics which endpoints are up.
    pub(crate) fn publish(&self) {
        for endpoint in self.endpoints() {
            let in_service = endpoint.is_in_service();
            let metrics = self.around.telemetry.metrics();
            let of = EndpointOf { upstream: &self.built_for.name, endpoint: &endpoint.name };
            metrics.endpoint_up(of, endpoint.is_up());
            metrics.endpoint_in_service(of, in_service);
        }
    }

    /// Takes the endpoints that `next` does not have out of the metrics.
    pub(crate) fn retire(&self, next: Option<&Self>) {
        let stays = |name: &str| next.is_some_and(|next| next.endpoints.iter().any(|other| *other.name == *name));
        for state in self.endpoints.iter().filter(|state| !stays(&state.name)) {
            let of = EndpointOf { upstream: &self.built_for.name, endpoint: &state.name };
            self.around.telemetry.metrics().endpoint_gone(of);
        }
    }

    /// How each endpoint fares.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointView> {
        let now = self.now();
        self.endpoints.iter().map(move |state| self.view(state, now))
    }

    fn view(&self, state: &EndpointState, now: Duration) -> EndpointView {
        let members = state.members.load();
        let members = members.iter().map(|member| {
            let mut view = MemberView::new(member, now);
            if view.is_down_in_service() {
                view.serving = self.serving_beside(member, now);
            }
            view
        });
        EndpointView { name: Arc::clone(&state.name), out: state.out(), members: members.collect() }
    }

    /// Every place there is.
    pub(crate) fn members(&self) -> impl Iterator<Item = Arc<Member>> {
        self.endpoints.iter().flat_map(|state| {
            let members = state.members.load();
            (0..members.len()).filter_map(move |at| members.get(at).cloned())
        })
    }

    /// Looks up the names anew. A lookup that fails keeps the last addresses.
    pub(crate) async fn resolve(&self) {
        for state in &self.endpoints {
            state.resolve(&self.built_for, &self.around.levers).await;
        }
    }
}

impl EndpointState {
    fn new(endpoint: &Endpoint, upstream: &Upstream, levers: &Levers, before: Option<&Self>) -> Self {
        let known = match &endpoint.address {
            EndpointAddress::Unix(path) => peers::unix(path, endpoint).into_iter().collect(),
            EndpointAddress::Tcp { host, port } => match host.trim_matches(['[', ']']).parse::<IpAddr>() {
                Ok(ip) => vec![peers::tcp(SocketAddr::new(ip, *port), endpoint)],
                // A name that was looked up before keeps its addresses until it is looked up again.
                Err(_) => before
                    .map(|before| before.addresses())
                    .unwrap_or_default()
                    .iter()
                    .map(|at| peers::tcp(*at, endpoint))
                    .collect(),
            },
        };
        let endpoint = Arc::new(endpoint.clone());
        let before = before.map(|before| before.members.load_full()).unwrap_or_default();
        let members = members(peers::finish(known, &endpoint, upstream), &endpoint, (upstream, levers), &before);
        let name = endpoint::name(&endpoint);
        let of = Lever::Endpoint { upstream: upstream.name.to_string(), endpoint: name.clone() };
        let of_all = Lever::Upstream { upstream: upstream.name.to_string() };
        let levers = [levers.flag(of), levers.flag(of_all)];
        Self { endpoint, name: Arc::from(name), levers, members: ArcSwap::from_pointee(members) }
    }

    /// How it was taken out as a whole: by its own lever, or its upstream's.
    fn out(&self) -> Option<Setting> {
        self.levers.iter().filter_map(|flag| flag.setting()).max()
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.members.load().iter().filter_map(|member| member.peer.address().as_inet().copied()).collect()
    }

    async fn resolve(&self, upstream: &Upstream, levers: &Levers) {
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
        let mut current = self.addresses();
        current.sort_unstable();
        if found.is_empty() || found == current {
            return;
        }
        let found = found.iter().map(|at| peers::tcp(*at, &self.endpoint)).collect();
        let peers = peers::finish(found, &self.endpoint, upstream);
        let fresh = members(peers, &self.endpoint, (upstream, levers), &self.members.load());
        self.members.store(Arc::new(fresh));
    }
}

/// One member a peer; those that were there `before` go on as they stood.
fn members(
    peers: Vec<Arc<HttpPeer>>,
    endpoint: &Arc<Endpoint>,
    (upstream, levers): (&Upstream, &Levers),
    before: &[Arc<Member>],
) -> Vec<Arc<Member>> {
    let name = endpoint::name(endpoint);
    let earlier = |peer: &HttpPeer| {
        let address = endpoint::address(peer);
        before.iter().find(|member| member.address == address)
    };
    peers
        .into_iter()
        .map(|peer| {
            let flags = levers.flags(&upstream.name, &name, &endpoint::address(&peer));
            let before = earlier(&peer).map(|member| &**member);
            Arc::new(Member::new(endpoint, peer, flags, before))
        })
        .collect()
}
