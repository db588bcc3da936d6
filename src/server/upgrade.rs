//! Replacing the running process without refusing a connection: the old one hands its listening sockets to the new one.
//!
//! `streamgauge run --upgrade …` waits for the sockets; a SIGQUIT makes the running process send them, stop listening,
//! finish its streams and exit. Both must agree on `server.state_dir`, where the meeting point is.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pingora::server::{Fds, ListenFds};

/// The meeting point's file inside `state_dir`.
const SOCKET_FILE: &str = "upgrade.sock";

/// Longest path of a unix socket on Linux, in bytes.
const SOCKET_PATH_MAX: usize = 107;

/// What pingora's message holds: this many sockets, with names of this many bytes together.
const SOCKETS_MAX: usize = 32;
const NAMES_MAX: usize = 2048;

/// Waits, for about 6 s, for the running process to send its sockets; closes those that are not in `wanted`.
///
/// # Errors
/// Nobody sent them, or the meeting point cannot be made.
pub(super) fn receive(state_dir: &Path, wanted: &HashSet<String>) -> Result<Fds, String> {
    let path = meeting_point(state_dir)?;
    let mut sockets = Fds::new();
    sockets.get_from_sock(path.as_str()).map_err(|error| {
        format!(
            "no running process handed its sockets over at {path} ({error}). Start this one first, then send SIGQUIT to \
             the running one within 5 s; both need the same `server.state_dir`"
        )
    })?;
    sockets.close_unclaimed(wanted);
    Ok(sockets)
}

/// Sends all sockets of `table` to the process that waits for them. Blocks for up to about 6 s.
///
/// # Errors
/// Nobody waits, or pingora's message cannot hold the sockets.
pub(super) fn send(state_dir: &Path, table: &ListenFds) -> Result<(), String> {
    let path = meeting_point(state_dir)?;
    let table = table.lock();
    let (names, _) = table.serialize();
    check_fits(&names)?;
    table.send_to_sock(path.as_str()).map(|_| ()).map_err(|error| {
        format!("no new process waits at {path} ({error}). Start it with `run --upgrade` first, then send SIGQUIT")
    })
}

fn check_fits(names: &[String]) -> Result<(), String> {
    let bytes: usize = names.iter().map(|name| name.len() + 1).sum();
    if names.len() > SOCKETS_MAX || bytes > NAMES_MAX {
        return Err(format!("an upgrade can hand over at most {SOCKETS_MAX} addresses of {NAMES_MAX} bytes together"));
    }
    match names.iter().find(|name| name.contains(char::is_whitespace)) {
        Some(name) => Err(format!("an upgrade cannot hand over a socket whose path has a space: {name}")),
        None => Ok(()),
    }
}

/// The socket's path, in a directory that only this user can enter.
fn meeting_point(state_dir: &Path) -> Result<String, String> {
    if !state_dir.is_dir() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|error| format!("cannot create server.state_dir {}: {error}", state_dir.display()))?;
    }
    let path: PathBuf = state_dir.join(SOCKET_FILE);
    writable(state_dir)?;
    match path.to_str() {
        Some(text) if text.len() <= SOCKET_PATH_MAX => Ok(text.to_owned()),
        _ => Err(format!("{} is not a possible socket path: choose a shorter server.state_dir", path.display())),
    }
}

/// Pingora panics where it cannot make the socket file: so try before.
fn writable(directory: &Path) -> Result<(), String> {
    let probe = directory.join(format!(".probe-{}", std::process::id()));
    fs::write(&probe, b"")
        .map_err(|error| format!("cannot write to server.state_dir {}: {error}", directory.display()))?;
    // What cannot be removed does no harm.
    let _ = fs::remove_file(probe);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::listen::{Bound, key};
    use super::*;
    use crate::config::settings::Listen;
    use std::net::{SocketAddr, TcpStream};
    use std::sync::Arc;

    #[test]
    fn sockets_move_to_the_next_process() {
        let directory = tempfile::tempdir().unwrap();
        let bound = Bound::open(&Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), None).unwrap();
        let address = bound.address.clone();
        let table: ListenFds = Arc::new(Fds::new().into());
        bound.hand_to(&mut table.lock());
        let wanted = HashSet::from([key(&address)]);
        let receiver = std::thread::spawn({
            let state_dir = directory.path().to_owned();
            move || receive(&state_dir, &wanted)
        });
        send(directory.path(), &table).unwrap();
        let received = receiver.join().unwrap().unwrap();
        let taken = Bound::open(&address, Some(&received)).unwrap();
        let Listen::Tcp(at) = taken.address else { panic!("a TCP address") };
        TcpStream::connect(at).unwrap();
    }

    #[test]
    fn what_the_message_cannot_hold_is_refused() {
        assert!(check_fits(&vec!["127.0.0.1:1".to_owned(); SOCKETS_MAX + 1]).is_err());
        assert!(check_fits(&["/run/my app.sock".to_owned()]).unwrap_err().contains("space"));
        assert!(check_fits(&["/".repeat(NAMES_MAX + 1)]).is_err());
        check_fits(&["127.0.0.1:8080".to_owned()]).unwrap();
    }

    #[test]
    fn a_long_state_dir_is_an_error_and_no_panic() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("d".repeat(120));
        assert!(meeting_point(&long).unwrap_err().contains("shorter"));
    }
}
