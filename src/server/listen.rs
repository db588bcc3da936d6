//! The listening sockets. They are bound before anything else runs, so that a taken port is a plain error message and
//! port 0 can say what it became; pingora then finds them in its table of inherited sockets.

use std::fs;
use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use pingora::server::Fds;
use rustix::net::{SocketAddrAny, SocketAddrUnix, getsockname, sockopt};

use crate::config::address::Listen;

/// A socket that listens already.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens in fact: with the port that was picked in place of 0.
    pub address: Listen,
    socket: OwnedFd,
}

impl Bound {
    /// Takes the socket for `address` over from `inherited`, or binds it; the file of a unix socket gets `mode`.
    ///
    /// # Errors
    /// The address cannot be had; the error says why and what to do.
    pub fn open(address: &Listen, mode: u32, inherited: Option<&Fds>) -> Result<Self, ListenError> {
        if let Some(fd) = inherited.and_then(|fds| fds.get(&key(address))) {
            // SAFETY: the process before or the service manager gave this descriptor; each address is taken from the table
            // once, and the table itself never closes what it holds.
            #[allow(unsafe_code)]
            let socket = unsafe { OwnedFd::from_raw_fd(*fd) };
            return Ok(Self { address: address.clone(), socket });
        }
        let failed = |error| ListenError { address: address.clone(), error };
        match address {
            Listen::Tcp(at) => {
                let (at, socket) = bind_tcp(*at).map_err(failed)?;
                Ok(Self { address: Listen::Tcp(at), socket })
            }
            Listen::Unix(path) => Ok(Self { address: address.clone(), socket: bind_unix(path, mode).map_err(failed)? }),
        }
    }

    /// Puts the socket where pingora's listener of this address will look for it.
    pub(super) fn hand_to(self, table: &mut Fds) {
        table.add(key(&self.address), self.socket.into_raw_fd());
    }
}

/// The name under which pingora's table has the socket of `address`.
pub(super) fn key(address: &Listen) -> String {
    match address {
        Listen::Tcp(at) => at.to_string(),
        Listen::Unix(path) => path.display().to_string(),
    }
}

/// Whether a socket listens at `address`.
pub(super) fn listens_at(socket: BorrowedFd<'_>, address: &Listen) -> bool {
    let Ok(name) = getsockname(socket) else { return false };
    let same_place = match address {
        Listen::Tcp(at) => SocketAddr::try_from(name).is_ok_and(|name| name == *at),
        Listen::Unix(path) => unix_path(name).is_some_and(|name| name == *path),
    };
    same_place && sockopt::socket_acceptconn(socket).unwrap_or(false)
}

fn unix_path(name: SocketAddrAny) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let name = SocketAddrUnix::try_from(name).ok()?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.path_bytes()?)))
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct ListenError {
    pub address: Listen,
    pub error: Error,
}

impl std::fmt::Display for ListenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot listen on {}: ", self.address)?;
        match (self.error.kind(), &self.address) {
            (ErrorKind::AddrInUse, Listen::Tcp(_)) => f.write_str(
                "the port is in use by another program. Stop that, or choose another address (--listen and --admin, or \
                 `listen` and `admin` under [server])",
            ),
            (ErrorKind::AddrInUse, Listen::Unix(_)) => f.write_str("another program listens there. Stop it first"),
            (ErrorKind::AddrNotAvailable, _) => f.write_str("this machine has no such address"),
            (ErrorKind::PermissionDenied, Listen::Tcp(at)) if at.port() < 1024 => {
                f.write_str("ports below 1024 need root or CAP_NET_BIND_SERVICE. Choose a higher one")
            }
            _ => write!(f, "{}", self.error),
        }
    }
}

impl std::error::Error for ListenError {}

/// Removes the file of a unix socket that is not listened on any more.
pub(super) fn remove_socket_file(address: &Listen) {
    if let Listen::Unix(path) = address {
        // Gone already is as good.
        let _ = fs::remove_file(path);
    }
}

fn bind_tcp(at: SocketAddr) -> Result<(SocketAddr, OwnedFd), Error> {
    // std sets SO_REUSEADDR, so that a restart need not wait for old connections to time out.
    let listener = TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    Ok((listener.local_addr()?, OwnedFd::from(listener)))
}

fn bind_unix(path: &PathBuf, mode: u32) -> Result<OwnedFd, Error> {
    if path.to_str().is_none() {
        return Err(Error::new(ErrorKind::InvalidInput, "the path is not valid UTF-8"));
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(OwnedFd::from(listener))
}

/// Removes a socket file that a dead process left behind; never one that is listened on, nor any other file.
fn remove_stale(path: &Path) -> Result<(), Error> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(Error::new(ErrorKind::AlreadyExists, "a file that is no socket stands there"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(Error::from(ErrorKind::AddrInUse)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> Listen {
        Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    #[test]
    fn port_0_tells_what_it_became() {
        let bound = Bound::open(&loopback(0), 0o600, None).unwrap();
        let Listen::Tcp(at) = bound.address else { panic!("a TCP address") };
        assert_ne!(at.port(), 0);
    }

    #[test]
    fn a_taken_port_says_so_and_what_to_do() {
        let first = Bound::open(&loopback(0), 0o600, None).unwrap();
        let message = Bound::open(&first.address, 0o600, None).unwrap_err().to_string();
        assert!(message.starts_with(&format!("cannot listen on {}: the port is in use", first.address)));
        assert!(message.contains("--listen"), "{message}");
    }

    #[test]
    fn a_stale_socket_file_is_replaced_but_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let address = Listen::Unix(directory.path().join("proxy.sock"));
        let live = Bound::open(&address, 0o600, None).unwrap();
        let message = Bound::open(&address, 0o600, None).unwrap_err().to_string();
        assert!(message.contains("another program listens there"), "{message}");
        drop(live);
        Bound::open(&address, 0o600, None).unwrap();
    }

    #[test]
    fn a_plain_file_is_never_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        fs::write(&path, "precious").unwrap();
        let message = Bound::open(&Listen::Unix(path.clone()), 0o600, None).unwrap_err().to_string();
        assert!(message.contains("no socket"), "{message}");
        assert_eq!(fs::read_to_string(path).unwrap(), "precious");
    }

    #[test]
    fn an_inherited_socket_is_taken_over() {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Listen::Tcp(first.local_addr().unwrap());
        let mut inherited = Fds::new();
        inherited.add(key(&address), first.try_clone().unwrap().into_raw_fd());
        let bound = Bound::open(&address, 0o600, Some(&inherited)).unwrap();
        assert_eq!(bound.address, address);
        // The same kernel socket: it still listens when the first owner is gone.
        drop(first);
        let Listen::Tcp(at) = bound.address else { panic!("a TCP address") };
        std::net::TcpStream::connect(at).unwrap();
    }
}
