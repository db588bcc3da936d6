//! What outlives a request: the configuration generation, the upstreams' endpoints, the counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, watch};

use super::drain::Drain;
use super::fleet::membership::Fleet;
use super::in_service::InService;
use super::mirror_memory::{self, MirrorMemory};
use super::remote_keys::RemoteKeys;
use super::rollout::{self, Rollouts};
use super::usage::UsageBook;
use crate::config::Settings;
use crate::config::settings::{Route, Target};
use crate::hashing::Map;
use crate::proxy::clock::Clock;
use crate::proxy::endpoints::connector::Connectors;
use crate::proxy::endpoints::endpoint_pool::{Around, EndpointPool};
use crate::proxy::endpoints::levers::Levers;
use crate::proxy::endpoints::retry_budget::RouteLoad;
use crate::proxy::limits::limiter::Limiter;
use crate::telemetry::Telemetry;

/// How many connections may be read on at once after their answers' ends; more are closed when their answers end.
const LINGERING_MAX: usize = 1_000;

/// What every request shares.
pub struct Shared {
    pub generation: ArcSwap<Generation>,
    pub telemetry: Arc<Telemetry>,
    pub drain: Drain,
    pub limiter: Arc<Limiter>,
    /// The replicas that this one acts as one with.
    pub fleet: Fleet,
    /// What people took out of service by hand.
    pub levers: Arc<Levers>,
    /// Rings after each decision about a canary: it is to be kept at once.
    pub canary_decided: Notify,
    pub(crate) usage: Arc<UsageBook>,
    pub(crate) connector: Connectors,
    pub(crate) connections: super::concurrency::Concurrency,
    pub(crate) streams: super::concurrency::Concurrency,
    /// What each client address has of both; trusted proxies are not counted.
    pub(crate) connections_by_address: super::concurrency::AddressConcurrency,
    pub(crate) streams_by_address: super::concurrency::AddressConcurrency,
    /// Places of connections that are read on after their answers' ends.
    pub(crate) lingering: Arc<Semaphore>,
    /// What request bodies take.
    pub(crate) bodies: super::body_memory::AllBodies,
    /// Wakes who fetches the keys of tokens.
    pub(crate) keys_wanted: Notify,
    /// The number of the generation.
    installed: watch::Sender<u64>,
    pub(super) around: Around,
    numbers: AtomicU64,
}

/// One configuration and what was built from it. A request holds on to the generation it began with.
pub struct Generation {
    /// 1 for the configuration of the start, one more for each reload.
    pub number: u64,
    pub settings: Settings,
    /// By upstream name.
    pub pools: Map<Arc<str>, Arc<EndpointPool>>,
    /// By route name.
    pub rollouts: Rollouts,
    /// By route name.
    pub(crate) in_service: Map<Arc<str>, Arc<InService>>,
    /// The keys of tokens, where they are at a URL.
    pub(crate) remote_keys: Option<Arc<RemoteKeys>>,
    /// By the names of the routes that have one.
    pub(crate) mirrors: Map<Arc<str>, Arc<MirrorMemory>>,
    /// By route name.
    pub(crate) loads: Map<Arc<str>, Arc<RouteLoad>>,
}

impl Shared {
    /// Builds generation 1.
    pub fn new(settings: Settings, telemetry: Arc<Telemetry>) -> Arc<Self> {
        let levers = Arc::<Levers>::default();
        let around = Around {
            telemetry: Arc::clone(&telemetry),
            clock: Clock::start(),
            levers: Arc::clone(&levers),
            hints: Arc::default(),
            replicas: Arc::default(),
        };
        let first = Generation::build(1, settings, None, &around);
        Arc::new(Self {
            generation: ArcSwap::from_pointee(first),
            telemetry,
            drain: Drain::default(),
            limiter: Arc::default(),
            fleet: Fleet::default(),
            levers,
            canary_decided: Notify::new(),
            usage: Arc::default(),
            connector: Connectors::new(),
            connections: super::concurrency::Concurrency::default(),
            streams: super::concurrency::Concurrency::default(),
            connections_by_address: super::concurrency::AddressConcurrency::default(),
            streams_by_address: super::concurrency::AddressConcurrency::default(),
            lingering: Arc::new(Semaphore::new(LINGERING_MAX)),
            bodies: super::body_memory::AllBodies::default(),
            keys_wanted: Notify::new(),
            installed: watch::Sender::new(1),
            around,
            numbers: AtomicU64::new(1),
        })
    }

    /// Makes `settings` the configuration of all requests to come, and returns its generation number. Endpoints that did
    /// not change keep their state.
    pub fn install(&self, settings: Settings) -> u64 {
        let number = self.numbers.fetch_add(1, Ordering::AcqRel) + 1;
        let previous = self.generation.load_full();
        let next = Arc::new(Generation::build(number, settings, Some(&previous), &self.around));
        self.generation.store(Arc::clone(&next));
        for (name, pool) in &previous.pools {
            pool.retire(next.pools.get(name).map(|pool| &**pool));
        }
        self.levers.tidy();
        self.installed.send_replace(number);
        self.tell_new_canaries();
        self.keys_wanted.notify_one();
        number
    }

    /// Looks up the addresses of all endpoints once. A name that cannot be resolved keeps its last addresses.
    pub async fn resolve_all(&self) {
        let generation = self.generation.load_full();
        let lookups = generation.pools.values().map(|pool| pool.resolve());
        futures_util::future::join_all(lookups).await;
    }

    /// Closes connections to upstreams that nobody could use any more, or should. To be called now and then.
    pub fn sweep_connections(&self) {
        for member in self.generation.load().pools.values().flat_map(|pool| pool.members()) {
            if member.out().is_some() {
                self.connector.forget(&member.peer);
            }
        }
        self.connector.sweep();
    }

    /// Gives up what responses in the background held for too long. To be called now and then.
    pub fn sweep_background(&self) {
        self.usage.background.sweep();
    }

    /// Whether a request could be sent anywhere at all.
    pub fn any_endpoint_up(&self) -> bool {
        self.generation.load().pools.values().any(|pool| pool.is_up())
    }

    /// The time that health goes by.
    pub(crate) fn now(&self) -> Duration {
        self.around.clock.now()
    }

    /// Shows in the metrics which endpoints are up.
    pub fn publish_health(&self) {
        for pool in self.generation.load().pools.values() {
            pool.publish();
        }
    }

    /// Changes whenever a configuration is installed.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.installed.subscribe()
    }
}

impl Generation {
    /// Who serves a route, as far as people are concerned; empty: nobody.
    pub(crate) fn serving<'r>(&self, route: &'r Route) -> Vec<&'r Target> {
        let share = self.rollouts.get(&route.name).map(|rollout| rollout.draw().share);
        self.in_service.get(&route.name).map_or_else(Vec::new, |places| places.serving(route, share))
    }

    /// Why a route's canary is compared with nothing at present: one of both sides is out of service by hand.
    pub fn canary_hold(&self, route: &str) -> Option<String> {
        let route = self.settings.routes.iter().find(|known| *known.name == *route)?;
        self.in_service.get(&route.name)?.holds_canary(route)
    }

    /// How long ago the keys of tokens were fetched, where they are at a URL and ever were.
    pub fn keys_age(&self) -> Option<Duration> {
        self.remote_keys.as_ref()?.age()
    }

    fn build(number: u64, settings: Settings, previous: Option<&Generation>, around: &Around) -> Self {
        let pools = settings
            .upstreams
            .iter()
            .map(|upstream| {
                let kept = previous.and_then(|old| old.pools.get(&upstream.name));
                let pool = match kept {
                    Some(pool) if pool.serves(upstream) => Arc::clone(pool),
                    kept => Arc::new(EndpointPool::new(upstream, kept.map(|pool| &**pool), around.clone())),
                };
                (upstream.name.clone(), pool)
            })
            .collect();
        let in_service = settings.routes.iter().map(|route| {
            let places = InService::new(route, &pools, &around.levers);
            (Arc::clone(&route.name), Arc::new(places))
        });
        let in_service = in_service.collect();
        let loads = settings.routes.iter().map(|route| {
            let kept = previous.and_then(|old| old.loads.get(&route.name));
            (route.name.clone(), kept.cloned().unwrap_or_else(|| Arc::new(RouteLoad::new(&around.replicas))))
        });
        let loads = loads.collect();
        let remote_keys = RemoteKeys::follow(&settings, previous.and_then(|old| old.remote_keys.as_ref()));
        let rollouts = rollout::build(&settings, previous.map(|old| &old.rollouts));
        let mirrors = mirror_memory::build(&settings, previous.map(|old| &old.mirrors));
        Self { number, settings, pools, loads, rollouts, in_service, remote_keys, mirrors }
    }
}
