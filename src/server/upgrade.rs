//! Replacing the running process without refusing a connection: the old one hands its listening sockets to the new one.
//!
//! `streamgauge run --upgrade …` waits for the sockets; a SIGQUIT makes the running process send them, stop listening,
//! finish its streams and exit. Both must agree on `server.state_dir`, where the meeting point is: a directory that only this
//! user can enter. Each side looks who the other is, and the new one takes a socket only if it listens where its name says.
//!
//! On the wire: the length of all names together, with the sockets beside it; the names, each ended by a zero byte, in the
//! order of the sockets; and back, one byte that says that they were taken.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use pingora::server::{Fds, ListenFds};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg, sockopt,
};

use super::listen;
use super::state_dir;
use crate::config::address::Listen;

/// The meeting point: a directory inside `state_dir`, and the socket in it.
const DIRECTORY: &str = "upgrade";
const SOCKET_FILE: &str = "sockets";

/// Longest path of a unix socket on Linux, in bytes.
const SOCKET_PATH_MAX: usize = 107;

/// Sockets that are handed over at most; Linux takes 253 in one message.
const SOCKETS_MAX: usize = 128;

/// Names that are handed over at most, in bytes together.
const NAMES_MAX: usize = 64 * 1024;

/// Each side waits so long for the other.
const PATIENCE: Duration = Duration::from_secs(6);

/// How often a side that waits looks for the other.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The new process has the sockets.
const TAKEN: u8 = b'+';

/// Waits for the running process to send its sockets, and takes those that are listened on at one of `wanted`.
///
/// # Errors
/// Nobody sent them, somebody else did, or the meeting point cannot be made.
pub(super) fn receive(state_dir: &Path, wanted: &[Listen]) -> Result<Fds, String> {
    let path = meeting_point(state_dir)?;
    let sockets = take(&path, wanted).map_err(|error| {
        format!(
            "no running process handed its sockets over at {} ({error}). Start this one first, then send SIGQUIT to the \
             running one within 5 s; both need the same `server.state_dir` and the same user",
            path.display()
        )
    });
    // Nobody else is to be met there.
    let _ = fs::remove_file(&path);
    sockets
}

/// Sends all sockets of `table` to the process that waits for them, and waits until it has them. Blocks for up to twice 6 s.
///
/// # Errors
/// Nobody waits, somebody else does, or the sockets were not taken: they are still this process's alone.
pub(super) fn send(state_dir: &Path, table: &ListenFds) -> Result<(), String> {
    let path = meeting_point(state_dir)?;
    let (names, sockets) = table.lock().serialize();
    check_fits(&names)?;
    give(&path, &names, &sockets).map_err(|error| {
        format!(
            "no new process took the sockets at {} ({error}). Start it with `run --upgrade` first, then send SIGQUIT",
            path.display()
        )
    })
}

fn take(path: &Path, wanted: &[Listen]) -> io::Result<Fds> {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    // The directory is closed to others already.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let mut peer = accept(&listener)?;
    check_peer(&peer)?;
    peer.set_read_timeout(Some(PATIENCE))?;
    peer.set_write_timeout(Some(PATIENCE))?;
    let (length, sockets) = receive_sockets(&peer)?;
    let mut names = vec![0; length];
    peer.read_exact(&mut names)?;
    let mut taken = Fds::new();
    for (name, socket) in names.split(|byte| *byte == 0).zip(sockets) {
        let name = std::str::from_utf8(name).map_err(|_| io::Error::other("a name is not valid UTF-8"))?;
        // What is not wanted is closed with its descriptor: a socket that nobody accepts from would swallow connections.
        let Some(address) = wanted.iter().find(|address| listen::key(address) == name) else { continue };
        if !listen::listens_at(socket.as_fd(), address) {
            return Err(io::Error::other(format!("the socket that was sent as {name} does not listen there")));
        }
        taken.add(name.to_owned(), socket.into_raw_fd());
    }
    peer.write_all(&[TAKEN])?;
    Ok(taken)
}

fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((peer, _)) => {
                peer.set_nonblocking(false)?;
                return Ok(peer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                thread::sleep(LOOK_AGAIN);
            }
            Err(error) => return Err(error),
        }
    }
}

fn give(path: &Path, names: &[String], sockets: &[i32]) -> io::Result<()> {
    let mut peer = connect(path)?;
    check_peer(&peer)?;
    peer.set_read_timeout(Some(PATIENCE))?;
    peer.set_write_timeout(Some(PATIENCE))?;
    let packed: Vec<u8> = names.iter().flat_map(|name| name.bytes().chain([0])).collect();
    send_sockets(&peer, packed.len(), sockets)?;
    peer.write_all(&packed)?;
    let mut answer = [0];
    peer.read_exact(&mut answer)?;
    if answer == [TAKEN] { Ok(()) } else { Err(io::Error::other("it did not take them")) }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let until = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(peer) => return Ok(peer),
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => thread::sleep(LOOK_AGAIN),
        }
    }
}

/// The other side must be this very user, or root: another's sockets would be another's clients.
fn check_peer(peer: &UnixStream) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let other = sockopt::socket_peercred(peer)?.uid;
        if !other.is_root() && other != rustix::process::geteuid() {
            return Err(io::Error::other(format!("user {} is at the other end", other.as_raw())));
        }
    }
    let _ = peer;
    Ok(())
}

fn send_sockets(peer: &UnixStream, length: usize, sockets: &[i32]) -> io::Result<()> {
    // SAFETY: pingora's table holds these descriptors for as long as the process lives.
    #[allow(unsafe_code)]
    let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(|fd| unsafe { BorrowedFd::borrow_raw(*fd) }).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !beside.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::other("too many sockets"));
    }
    let header = u32::try_from(length).map_err(io::Error::other)?.to_be_bytes();
    // Four bytes are written whole or not at all.
    let sent = sendmsg(peer, &[IoSlice::new(&header)], &mut beside, SendFlags::empty())?;
    if sent == header.len() { Ok(()) } else { Err(io::Error::other("the header was cut")) }
}

/// How long the names are that follow, and the sockets.
fn receive_sockets(peer: &UnixStream) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut header = [0; 4];
    let got = recvmsg(peer, &mut [IoSliceMut::new(&mut header)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let sockets: Vec<OwnedFd> = beside
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
            _ => None,
        })
        .flatten()
        .collect();
    let length = u32::from_be_bytes(header) as usize;
    if got.bytes != header.len() || length > NAMES_MAX {
        return Err(io::Error::other("it sent something else"));
    }
    Ok((length, sockets))
}

fn check_fits(names: &[String]) -> Result<(), String> {
    let bytes: usize = names.iter().map(|name| name.len() + 1).sum();
    if names.len() > SOCKETS_MAX || bytes > NAMES_MAX {
        return Err(format!("an upgrade can hand over at most {SOCKETS_MAX} addresses of {NAMES_MAX} bytes together"));
    }
    Ok(())
}

/// The socket's path, in a directory that only this user can enter.
fn meeting_point(state_dir: &Path) -> Result<PathBuf, String> {
    let told = |path: &Path, error: &io::Error| {
        format!("cannot use {} of server.state_dir to hand sockets over: {error}", path.display())
    };
    let path = state_dir.join(DIRECTORY).join(SOCKET_FILE);
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(format!("{} is not a possible socket path: choose a shorter server.state_dir", path.display()));
    }
    state_dir::private_directory(state_dir, DIRECTORY).map_err(|error| told(&state_dir.join(DIRECTORY), &error))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::super::listen::{Bound, key};
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::sync::Arc;

    fn loopback(port: u16) -> Listen {
        Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Hands `sockets` over to somebody who wants `wanted`.
    fn hand_over(state_dir: &Path, sockets: Fds, wanted: Vec<Listen>) -> (Result<(), String>, Result<Fds, String>) {
        let table: ListenFds = Arc::new(sockets.into());
        let receiver = thread::spawn({
            let state_dir = state_dir.to_owned();
            move || receive(&state_dir, &wanted)
        });
        let sent = send(state_dir, &table);
        (sent, receiver.join().unwrap())
    }

    #[test]
    fn sockets_move_to_the_next_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("my app.sock");
        let bound =
            [Bound::open(&loopback(0), 0o600, None).unwrap(), Bound::open(&Listen::Unix(path), 0o600, None).unwrap()];
        let addresses: Vec<Listen> = bound.iter().map(|bound| bound.address.clone()).collect();
        let mut table = Fds::new();
        for bound in bound {
            bound.hand_to(&mut table);
        }
        let (sent, received) = hand_over(directory.path(), table, addresses.clone());
        sent.unwrap();
        let received = received.unwrap();
        for address in &addresses {
            let taken = Bound::open(address, 0o600, Some(&received)).unwrap();
            match &taken.address {
                Listen::Tcp(at) => drop(TcpStream::connect(at).unwrap()),
                Listen::Unix(path) => drop(UnixStream::connect(path).unwrap()),
            }
        }
        assert!(!directory.path().join(DIRECTORY).join(SOCKET_FILE).exists());
    }

    #[test]
    fn a_socket_that_listens_elsewhere_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let (claimed, other) =
            (Bound::open(&loopback(0), 0o600, None).unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let mut table = Fds::new();
        table.add(key(&claimed.address), other.into_raw_fd());
        let (sent, received) = hand_over(directory.path(), table, vec![claimed.address.clone()]);
        assert!(received.err().unwrap().contains("does not listen there"));
        assert!(sent.unwrap_err().contains("no new process took the sockets"));

        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = Listen::Tcp(socket.local_addr().unwrap());
        let mut table = Fds::new();
        table.add(key(&address), socket.into_raw_fd());
        let (_, received) = hand_over(directory.path(), table, vec![address]);
        assert!(received.is_err(), "it does not listen at all");
    }

    #[test]
    fn a_socket_that_nobody_wants_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let bound = Bound::open(&loopback(0), 0o600, None).unwrap();
        let address = bound.address.clone();
        let mut table = Fds::new();
        bound.hand_to(&mut table);
        let (sent, received) = hand_over(directory.path(), table, Vec::new());
        sent.unwrap();
        assert!(received.unwrap().get(&key(&address)).is_none());
    }

    #[test]
    fn the_meeting_point_is_closed_to_others() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let point = meeting_point(directory.path()).unwrap();
        assert_eq!(fs::metadata(point.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(point.parent().unwrap(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(meeting_point(directory.path()).unwrap_err().contains("chmod 700"));
    }

    #[test]
    fn what_the_message_cannot_hold_is_refused() {
        assert!(check_fits(&vec!["127.0.0.1:1".to_owned(); SOCKETS_MAX + 1]).is_err());
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
