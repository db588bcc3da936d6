//! systemd: how the process stands is said to it, and sockets on which it listens already are taken from it.
//!
//! All of it is asked for by environment variables (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `LISTEN_FDS`); without them nothing here
//! does anything. Sources: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).

use std::os::fd::{BorrowedFd, RawFd};

use pingora::server::Fds;
use sd_notify::NotifyState;

use super::listen;
use crate::config::address::Listen;
use crate::proxy::every;

/// Requests are served, by the configuration that is in effect.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read; [`ready`] follows, whatever comes of it: the last good one stays.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        // Without the time the manager would wait for the end of a reload that it cannot place.
        Err(error) => tracing::warn!(event = "systemd.not_told", %error, "the monotonic clock cannot be read"),
    }
}

/// The drain begins.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that the runtime in which it runs gets round to its tasks, twice in the time after which the manager would kill the process.
/// Ends at once where it does not watch.
pub(super) async fn keep_watchdog() {
    let Some(timeout) = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero()) else { return };
    let mut again = every(timeout / 2);
    loop {
        again.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// The sockets that were passed, each of which must listen at one of `wanted`.
///
/// # Errors
/// One listens elsewhere, or where another does: nobody would accept its connections.
pub(super) fn sockets(wanted: &[Listen]) -> Result<Fds, String> {
    let passed = sd_notify::listen_fds_with_names()
        .map_err(|error| format!("the sockets that the service manager passes cannot be taken: {error}"))?;
    let mut taken = Fds::new();
    for (fd, name) in passed {
        let key = listen::key(address_of(fd, wanted).ok_or_else(|| {
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            format!(
                "the service manager passes the socket \"{name}\", which does not listen at any of {}: make ListenStream= of the \
                 socket unit, and `listen` and `admin` under [server], the same",
                wanted.join(", ")
            )
        })?);
        if taken.get(&key).is_some() {
            return Err(format!("the service manager passes two sockets for {key}: take one ListenStream= out"));
        }
        taken.add(key, fd);
    }
    Ok(taken)
}

/// Where among `wanted` the socket listens. It blocks no longer then, which is for the process to choose.
fn address_of(fd: RawFd, wanted: &[Listen]) -> Option<&Listen> {
    // SAFETY: the manager opened it for this process (`LISTEN_PID` was compared), and nobody else here closes it.
    #[allow(unsafe_code)]
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::ioctl_fionbio(socket, true).ok()?;
    wanted.iter().find(|address| listen::listens_at(socket, address))
}

/// A manager that cannot be told is no reason to stop serving.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(event = "systemd.not_told", %error, "the service manager cannot be told how the process stands");
    }
}
