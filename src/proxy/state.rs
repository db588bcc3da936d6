//! What outlives a request: the configuration generation, the upstreams' endpoints, the counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use tokio::sync::Notify;

use super::canary::{self, Rollout};
use super::drain::Drain;
use super::limiter::Limiter;
use super::pool::Pool;
use super::remote_keys::RemoteKeys;
use super::usage::UsageBook;
use crate::config::Settings;
use crate::telemetry::Telemetry;

/// Idle connections kept per process towards all upstreams.
const IDLE_CONNECTIONS_MAX: usize = 1024;

/// How long an idle upstream connection is kept. Shorter than common server defaults would be safest, but uvicorn closes
/// after 5 s: the race with a closing server is handled by a retry on a fresh connection.
pub(super) const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// What every request shares.
pub struct Shared {
    pub generation: ArcSwap<Generation>,
    pub telemetry: Arc<Telemetry>,
    pub drain: Drain,
    pub limiter: Arc<Limiter>,
    /// Rings after each decision about a canary: it is to be kept at once.
    pub canary_decided: Notify,
    pub(super) usage: Arc<UsageBook>,
    pub(super) connector: Connector,
    pub(super) connections: super::gate::Gate,
    pub(super) streams: super::gate::Gate,
    /// Wakes who fetches the keys of tokens.
    pub(super) keys_wanted: Notify,
    numbers: AtomicU64,
}

/// One configuration and what was built from it. A request holds on to the generation it began with.
pub struct Generation {
    /// 1 for the configuration of the start, one more for each reload.
    pub number: u64,
    pub settings: Settings,
    /// By upstream name.
    pub pools: HashMap<Arc<str>, Arc<Pool>>,
    /// By route name.
    pub rollouts: HashMap<Arc<str>, Arc<Rollout>>,
    /// The keys of tokens, where they are at a URL.
    pub(super) remote_keys: Option<Arc<RemoteKeys>>,
}

impl Shared {
    /// Builds generation 1.
    pub fn new(settings: Settings, telemetry: Arc<Telemetry>) -> Arc<Self> {
        let mut options = ConnectorOptions::new(IDLE_CONNECTIONS_MAX);
        options.ca_file = None;
        let first = Generation::build(1, settings, None);
        Arc::new(Self {
            generation: ArcSwap::from_pointee(first),
            telemetry,
            drain: Drain::default(),
            limiter: Arc::default(),
            canary_decided: Notify::new(),
            usage: Arc::default(),
            connector: Connector::new(Some(options)),
            connections: super::gate::Gate::default(),
            streams: super::gate::Gate::default(),
            keys_wanted: Notify::new(),
            numbers: AtomicU64::new(1),
        })
    }

    /// Makes `settings` the configuration of all requests to come, and returns its generation number. Endpoints that did
    /// not change keep their state.
    pub fn install(&self, settings: Settings) -> u64 {
        let number = self.numbers.fetch_add(1, Ordering::AcqRel) + 1;
        let next = Generation::build(number, settings, Some(&self.generation.load()));
        self.generation.store(Arc::new(next));
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

    /// Whether a request could be sent anywhere at all.
    pub fn any_endpoint_up(&self) -> bool {
        self.generation.load().pools.values().any(|pool| pool.is_resolved())
    }
}

impl Generation {
    fn build(number: u64, settings: Settings, previous: Option<&Generation>) -> Self {
        let pools = settings
            .upstreams
            .iter()
            .map(|upstream| {
                let kept = previous.and_then(|old| old.pools.get(&upstream.name));
                let pool = match kept {
                    Some(pool) if pool.serves(upstream) => Arc::clone(pool),
                    _ => Arc::new(Pool::new(upstream)),
                };
                (upstream.name.clone(), pool)
            })
            .collect();
        let rollouts = canary::build(&settings, previous);
        let remote_keys = RemoteKeys::follow(&settings, previous.and_then(|old| old.remote_keys.as_ref()));
        Self { number, settings, pools, rollouts, remote_keys }
    }
}
