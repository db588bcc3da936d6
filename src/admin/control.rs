//! What the admin address may ask of the server, and what the server tells it.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

/// The line between the admin address and the one task that reloads.
#[derive(Debug, Clone)]
pub struct Control {
    pub reloads: mpsc::Sender<ReloadRequest>,
    pub status: Arc<ArcSwap<ReloadStatus>>,
}

/// A wish to read the configuration anew.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Install it even when it removes every route or most upstreams.
    pub force: bool,
    /// Told once the reload has ended.
    pub answer: oneshot::Sender<Reload>,
}

/// How a reload ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    Installed {
        generation: u64,
    },
    /// What was read equals what is in effect.
    Unchanged {
        generation: u64,
    },
    /// The last good configuration stays; each line says one thing that is wrong.
    Failed {
        problems: Vec<String>,
    },
    /// The file is good, but so different that only a forced reload takes it.
    Refused {
        reason: String,
    },
    /// There is no file: the configuration came from the command line.
    NoFile,
}

/// Where reloading stands.
#[derive(Debug, Clone, Default)]
pub struct ReloadStatus {
    /// When the configuration in effect was installed.
    pub installed: Option<SystemTime>,
    /// What the last reload failed over; empty when it succeeded.
    pub last_error: Vec<String>,
    /// What the file says but only a restart brings into effect.
    pub needs_restart: Vec<String>,
}
