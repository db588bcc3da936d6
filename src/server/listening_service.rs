//! A pingora listening service on sockets that are bound already, which closes when we say so and not when pingora does.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use pingora::apps::ServerApp;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use pingora::services::listening;
use tokio::time::MissedTickBehavior;

use super::listen::Bound;
use super::listener_control::ListenerControl;
use super::systemd;

/// How often the metronome rings: shorter than the times that requests are given, of which the first is for connecting.
const BEAT: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Prebound<A> {
    service: listening::Service<A>,
    sockets: Vec<Bound>,
    stop: ShutdownWatch,
    listeners: Arc<ListenerControl>,
    /// The service manager hears from its runtime that the process works.
    has_watchdog: bool,
}

impl<A> Prebound<A> {
    /// `service` has a listener for each of `sockets`; all close when `stop` becomes true.
    pub(super) fn new(
        service: listening::Service<A>,
        sockets: Vec<Bound>,
        stop: ShutdownWatch,
        listeners: Arc<ListenerControl>,
    ) -> Self {
        Self { service, sockets, stop, listeners, has_watchdog: false }
    }

    /// The one service whose runtime the service manager watches.
    pub(super) fn with_watchdog(self) -> Self {
        Self { has_watchdog: true, ..self }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Prebound<A> {
    async fn start_service(&mut self, table: Option<ListenFds>, _shutdown: ShutdownWatch, listeners_per_fd: usize) {
        if let Some(table) = &table {
            for socket in self.sockets.drain(..) {
                socket.hand_to(&mut table.lock());
            }
            // Another service was first: it is the same table.
            let _ = self.listeners.sockets.set(Arc::clone(table));
        }
        // Each service has a runtime of its own.
        let metronome = tokio::spawn(metronome());
        if self.has_watchdog {
            // As long as its runtime lives: streams go on when the listeners have closed.
            tokio::spawn(systemd::keep_watchdog());
        }
        let served = self.service.start_service(table, self.stop.clone(), listeners_per_fd);
        // Pingora panics where a listener cannot be built, and would leave a process behind that nobody can reach.
        let served = AssertUnwindSafe(served).catch_unwind().await;
        metronome.abort();
        if served.is_err() || !*self.stop.borrow() {
            tracing::error!(event = "listener.failed", service = Service::name(self), "a listener ended by itself");
            self.listeners.failed.notify_one();
        }
    }

    fn name(&self) -> &str {
        Service::name(&self.service)
    }

    fn threads(&self) -> Option<usize> {
        Service::threads(&self.service)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Service::listen_addresses(&self.service)
    }
}

/// A timer that is always about to ring. tokio wakes its driver by a `write()` for each timer that is earlier than all others,
/// which the timers of every request would be while few are served; beside this one they are not.
async fn metronome() {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        beat.tick().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::address::Listen;
    use crate::server::listen;
    use pingora::listeners::ListenerConfig;
    use pingora::protocols::Stream;
    use pingora::server::Fds;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    struct Greeter;

    #[async_trait]
    impl ServerApp for Greeter {
        async fn process_new(self: &Arc<Self>, mut stream: Stream, _shutdown: &ShutdownWatch) -> Option<Stream> {
            stream.write_all(b"hello").await.unwrap();
            stream.flush().await.unwrap();
            None
        }
    }

    /// A service on `address` that was not started yet.
    fn prebound(address: &Listen, listeners: &Arc<ListenerControl>) -> (Prebound<Greeter>, Listen) {
        let bound = Bound::open(address, 0o600, None).unwrap();
        let address = bound.address.clone();
        let mut service = listening::Service::new("greeter".to_owned(), Greeter);
        service.add_listener(match &address {
            Listen::Tcp(_) => ListenerConfig::tcp(listen::key(&address)),
            Listen::Unix(_) => ListenerConfig::uds(listen::key(&address)),
        });
        (Prebound::new(service, vec![bound], listeners.data.subscribe(), Arc::clone(listeners)), address)
    }

    fn table() -> ListenFds {
        Arc::new(Fds::new().into())
    }

    #[tokio::test]
    async fn it_serves_on_the_bound_socket_and_closes_when_told() {
        let listeners = Arc::new(ListenerControl::default());
        let (mut prebound, address) = prebound(&Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), &listeners);
        let Listen::Tcp(at) = address else { panic!("a TCP address") };
        // Pingora's own shutdown is another channel: it must not matter.
        let (_pingora, shutdown) = tokio::sync::watch::channel(true);
        let serving = tokio::spawn(async move { prebound.start_service(Some(table()), shutdown, 1).await });
        let mut greeting = String::new();
        TcpStream::connect(at).await.unwrap().read_to_string(&mut greeting).await.unwrap();
        assert_eq!(greeting, "hello");
        assert_eq!(listeners.sockets.get().map(|table| table.lock().is_empty()), Some(false));
        listeners.data.send_replace(true);
        serving.await.unwrap();
        assert!(TcpStream::connect(at).await.is_err(), "the listener is closed");
    }

    #[tokio::test]
    async fn a_listener_that_cannot_be_built_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let listeners = Arc::new(ListenerControl::default());
        let (mut prebound, address) = prebound(&Listen::Unix(directory.path().join("a.sock")), &listeners);
        // Pingora sets the file's permissions, and panics when there is none.
        listen::remove_socket_file(&address);
        let (_pingora, shutdown) = tokio::sync::watch::channel(false);
        prebound.start_service(Some(table()), shutdown, 1).await;
        tokio::time::timeout(std::time::Duration::from_secs(5), listeners.failed.notified()).await.expect("it is told");
    }
}
