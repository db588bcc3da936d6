//! What the listeners are told.

use std::sync::OnceLock;

use pingora::server::ListenFds;
use tokio::sync::{Notify, watch};

/// What the listeners are told, apart from pingora's own shutdown.
#[derive(Default)]
pub(super) struct ListenerControl {
    /// True: the data listeners close.
    pub(super) data: watch::Sender<bool>,
    /// True: the admin listener closes. It outlives the data listeners, so that a drain can be watched.
    pub(super) admin: watch::Sender<bool>,
    /// Pingora's table of listening sockets, once a service has started.
    pub(super) sockets: OnceLock<ListenFds>,
    /// The sockets live on in another process: their files must stay.
    pub(super) handed_over: OnceLock<()>,
    /// A listener is gone that should be there.
    pub(super) failed: Notify,
}
