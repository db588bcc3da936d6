//! What goes on beside the requests: names are looked up again, endpoints checked, keys fetched, configurations reloaded,
//! limits tidied up, canaries kept.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use tokio::sync::mpsc;

use super::listener_control::ListenerControl;
use super::persistence;
use super::reload::Reloader;
use crate::admin::control::ReloadRequest;
use crate::proxy::{Shared, every};

/// How often the upstreams' names are looked up again.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(10);

/// How often limits are tidied up and what was spent is saved: a crash forgets so much.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// How often the metrics are told which endpoints are up, and closed connections are let go.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);

/// Runs on one thread of its own.
pub(super) struct Background {
    pub(super) shared: Arc<Shared>,
    pub(super) listeners: Arc<ListenerControl>,
    pub(super) reloader: Reloader,
    pub(super) requests: mpsc::Receiver<ReloadRequest>,
}

#[async_trait]
impl Service for Background {
    async fn start_service(&mut self, _table: Option<ListenFds>, shutdown: ShutdownWatch, _listeners_per_fd: usize) {
        let lookups = look_up_names(&self.shared);
        let keys = self.shared.keep_keys_fresh();
        let limits = keep_limits(&self.shared);
        let store = self.shared.limiter.keep_store();
        let fleet = self.shared.keep_fleet();
        let state = persistence::keep(&self.shared, &self.listeners);
        let health = self.shared.check_health();
        let shown = show_health(&self.shared);
        let reloads = self.reloader.run(&mut self.requests, shutdown);
        // Only the reloader ends by itself, with the server.
        tokio::select! {
            () = lookups => {}
            () = keys => {}
            () = limits => {}
            () = store => {}
            () = fleet => {}
            () = state => {}
            () = health => {}
            () = shown => {}
            () = reloads => {}
        }
    }

    fn name(&self) -> &str {
        "background"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

/// Forgets holders that have nothing.
async fn keep_limits(shared: &Shared) {
    let mut again = every(SWEEP_INTERVAL);
    loop {
        again.tick().await;
        let generation = shared.generation.load_full();
        shared.sweep_background();
        shared.limiter.sweep(&generation.settings.limits);
    }
}

/// Endpoints come back by the passing of time too, which nobody tells.
async fn show_health(shared: &Shared) {
    let mut again = every(SHOW_INTERVAL);
    loop {
        again.tick().await;
        shared.publish_health();
        shared.sweep_connections();
    }
}

async fn look_up_names(shared: &Shared) {
    let mut again = every(LOOKUP_INTERVAL);
    let mut installed = shared.generations();
    loop {
        tokio::select! {
            _ = again.tick() => {}
            // It may name hosts that nobody has looked up yet.
            _ = installed.changed() => {}
        }
        shared.resolve_all().await;
    }
}
