//! The way down: readiness off, listeners closed, streams finished, exit.
//!
//! Pingora closes its listeners at a SIGTERM and then sleeps for the whole grace period. Here a signal starts a drain that
//! ends with the last stream, and pingora is told to stop when nothing is left to wait for.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::listener_control::ListenerControl;
use super::{persistence, systemd, upgrade};
use crate::proxy::Shared;

/// After readiness went off, connections are accepted for so long: load balancers and frontends that poll `/readyz`, or see
/// their keep-alive connections close, get the time to look elsewhere.
const LAME_DUCK: Duration = Duration::from_millis(400);

/// A connection that was accepted just before the listeners closed gets so long to bring its request.
const LATE_REQUEST: Duration = Duration::from_millis(100);

/// Streams that were cut off get so long to end, so that each has its record.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// After the sockets were handed to a new process, this one accepts for so long, until the new one does.
const HANDOVER: Duration = Duration::from_secs(2);

/// How the server came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Every stream ended by itself.
    Drained,
    /// `drain_timeout` passed; what was left was cut off.
    Cut,
    /// A second signal asked for an exit at once.
    Forced,
    /// A listener could not be opened or ended by itself; streams in flight were drained.
    Failed,
}

/// Turns signals into a drain. SIGTERM and SIGINT stop; SIGQUIT hands the sockets over, then stops; a second signal exits
/// at once.
pub(super) struct SignalWatch {
    pub(super) shared: Arc<Shared>,
    pub(super) listeners: Arc<ListenerControl>,
    pub(super) state_dir: PathBuf,
    /// Carries the end out of pingora's `run`.
    pub(super) exit: Arc<OnceLock<Exit>>,
}

#[async_trait]
impl ShutdownSignalWatch for SignalWatch {
    async fn recv(&self) -> ShutdownSignal {
        let mut signals = Signals::listen();
        systemd::ready();
        let failed = self.until_stop(&mut signals).await;
        let exit = tokio::select! {
            biased;
            exit = self.drain() => exit,
            _ = signals.next_stop() => {
                tracing::warn!(event = "drain.forced", in_flight = self.shared.drain.in_flight(), "second signal: exiting at once");
                self.shared.drain.force();
                // Each has a record to write: what was measured is not lost with the process.
                let _ = tokio::time::timeout(CUT_GRACE, self.shared.drain.idle()).await;
                Exit::Forced
            }
        };
        // Set once: pingora asks for one signal.
        let _ = self.exit.set(if failed { Exit::Failed } else { exit });
        // Not `FastShutdown`, even when forced: that would leave tasks no time to write their records.
        ShutdownSignal::GracefulTerminate
    }
}

impl SignalWatch {
    /// Waits until it is time to go; true when that is because a listener failed.
    async fn until_stop(&self, signals: &mut Signals) -> bool {
        loop {
            tokio::select! {
                asked = signals.next() => if asked == Asked::Stop {
                    return false;
                },
                () = self.listeners.failed.notified() => return true,
            }
            tokio::select! {
                handed_over = self.hand_over() => if handed_over {
                    return false;
                },
                () = signals.next_stop() => return false,
            }
        }
    }

    async fn drain(&self) -> Exit {
        let drain = &self.shared.drain;
        let (timeout, websockets) = {
            let server = &self.shared.generation.load().settings.server;
            (server.drain_timeout, server.drain_websockets)
        };
        let began = Instant::now();
        drain.begin();
        systemd::stopping();
        tracing::info!(
            event = "drain.started",
            in_flight = drain.in_flight(),
            ?timeout,
            "draining: not ready, streams in flight go on"
        );
        if self.listeners.handed_over.get().is_none() {
            tokio::time::sleep(LAME_DUCK.min(timeout)).await;
        }
        self.listeners.data.send_replace(true);
        tokio::time::sleep(LATE_REQUEST).await;
        let close_websockets = async {
            rest_of(websockets, began).await;
            drain.begin_websockets();
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            () = drain.idle() => {
                tracing::info!(event = "drain.finished", "drained: every stream has ended");
                Exit::Drained
            }
            () = rest_of(timeout, began) => {
                tracing::warn!(event = "drain.cut", in_flight = drain.in_flight(), ?timeout, "drain_timeout passed: cutting off what is left");
                drain.cut();
                // Those that do not end in time are dropped with the runtime.
                let _ = tokio::time::timeout(CUT_GRACE, drain.idle()).await;
                Exit::Cut
            }
            never = close_websockets => match never {},
        }
    }

    /// Whether a new process has the sockets now. When not, this one goes on as before.
    async fn hand_over(&self) -> bool {
        let Some(sockets) = self.listeners.sockets.get().map(Arc::clone) else {
            tracing::error!(
                event = "upgrade.failed",
                "cannot hand the sockets over: the listeners have not started yet"
            );
            return false;
        };
        // The new process reads what is kept as soon as it has the sockets: nothing may change after that.
        self.shared.levers.seal();
        persistence::save(&self.shared, &self.listeners);
        let state_dir = self.state_dir.clone();
        let sent = tokio::task::spawn_blocking(move || upgrade::send(&state_dir, &sockets)).await;
        if let Err(error) = sent.unwrap_or_else(|error| Err(error.to_string())) {
            self.shared.levers.unseal();
            tracing::error!(event = "upgrade.failed", error, "upgrade failed; this process goes on serving");
            return false;
        }
        tracing::info!(event = "upgrade.handed_over", "the listening sockets are with the new process");
        let _ = self.listeners.handed_over.set(());
        tokio::time::sleep(HANDOVER).await;
        // Two processes answering on one admin address would mix two sets of metrics.
        self.listeners.admin.send_replace(true);
        true
    }
}

/// Resolves when `time` has passed since `began`.
async fn rest_of(time: Duration, began: Instant) {
    tokio::time::sleep(time.saturating_sub(began.elapsed())).await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Stop,
    Upgrade,
}

/// The signals that end the process.
struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
    quit: Option<Signal>,
}

impl Signals {
    fn listen() -> Self {
        let register = |kind| match signal(kind) {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::error!(%error, ?kind, "cannot listen for a signal; it will end the process at once");
                None
            }
        };
        Self {
            terminate: register(SignalKind::terminate()),
            interrupt: register(SignalKind::interrupt()),
            quit: register(SignalKind::quit()),
        }
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            () = came(&mut self.terminate) => Asked::Stop,
            () = came(&mut self.interrupt) => Asked::Stop,
            () = came(&mut self.quit) => Asked::Upgrade,
        }
    }

    async fn next_stop(&mut self) {
        tokio::select! {
            () = came(&mut self.terminate) => {}
            () = came(&mut self.interrupt) => {}
        }
    }
}

/// Waits for a signal; forever where there is none to wait for.
pub(super) async fn came(signal: &mut Option<Signal>) {
    let received = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if received.is_none() {
        std::future::pending::<()>().await;
    }
}
