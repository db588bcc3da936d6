//! A few things about a raw socket that pingora does not offer. The only unsafe code of the proxy.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use pingora::protocols::UniqueIDType;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_linger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Whether bytes, an end or an error wait to be read. Never blocks.
pub(crate) fn has_something_to_read(socket: UniqueIDType) -> bool {
    // SAFETY: the caller holds the session that owns the socket, so it stays open during this call.
    let fd = unsafe { BorrowedFd::borrow_raw(socket) };
    let mut polled = [PollFd::new(&fd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut polled, Some(&at_once)), Ok(ready) if ready > 0)
}

/// Whether a piece of some KiB can be written at once, or an error waits. Never blocks.
pub(crate) fn has_room(socket: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut polled, Some(&at_once)), Ok(ready) if ready > 0)
}

/// A second descriptor of the same socket, to wait with until it can be written to. `None`: there are too many descriptors.
pub(crate) fn writable(socket: UniqueIDType) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: the caller holds the session that owns the socket, so it stays open during this call.
    let second = unsafe { BorrowedFd::borrow_raw(socket) }.try_clone_to_owned().ok()?;
    // SAFETY: what is registered owns its descriptor, and nothing else closes or replaces it.
    unsafe { AsyncFd::register_with_interest(second, Interest::WRITABLE) }.ok()
}

/// How many bytes the other end's system has acknowledged so far; `None` where that cannot be told.
pub(crate) fn acknowledged(socket: UniqueIDType) -> Option<u64> {
    // `tcpi_bytes_acked`, since Linux 4.1.
    tcp_info::<120, 8>(socket).map(u64::from_ne_bytes)
}

/// How many bytes came so far; `None` where that cannot be told.
pub(crate) fn received(socket: UniqueIDType) -> Option<u64> {
    // `tcpi_bytes_received`, since Linux 4.1.
    tcp_info::<128, 8>(socket).map(u64::from_ne_bytes)
}

/// How long ago the last bytes came; `None` where that cannot be told.
pub(crate) fn silent_for(socket: UniqueIDType) -> Option<Duration> {
    // `tcpi_last_data_recv`, in milliseconds.
    tcp_info::<52, 4>(socket).map(|ms| Duration::from_millis(u32::from_ne_bytes(ms).into()))
}

/// What stands `AT` so many bytes in `struct tcp_info` (linux/tcp.h).
#[cfg(target_os = "linux")]
fn tcp_info<const AT: usize, const LENGTH: usize>(socket: UniqueIDType) -> Option<[u8; LENGTH]> {
    /// Longer than any that is known: the system writes what it has.
    const ROOM: usize = 512;
    let mut info = [0_u8; ROOM];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the buffer is as long as `length` says, and the system writes no more than that.
    let done = unsafe {
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    let field = info.get(AT..AT + LENGTH).and_then(|bytes| bytes.try_into().ok());
    field.filter(|_| done == 0 && length as usize >= AT + LENGTH)
}

#[cfg(not(target_os = "linux"))]
fn tcp_info<const AT: usize, const LENGTH: usize>(_socket: UniqueIDType) -> Option<[u8; LENGTH]> {
    None
}

/// Makes the next close a reset: where a response has no framing, an orderly close would look like its normal end.
pub(crate) fn reset_on_close(socket: UniqueIDType) {
    // SAFETY: as above.
    let fd = unsafe { BorrowedFd::borrow_raw(socket) };
    // A socket that is gone already, or a unix one, needs no reset.
    let _ = set_socket_linger(fd, Some(Duration::ZERO));
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::os::fd::AsRawFd;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn what_came_is_counted_and_how_long_ago() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (ours, _) = listener.accept().await.unwrap();
        assert_eq!(received(ours.as_raw_fd()), Some(0));
        theirs.write_all(b"GET /").await.unwrap();
        ours.readable().await.unwrap();
        assert_eq!(received(ours.as_raw_fd()), Some(5));
        let silent = || silent_for(ours.as_raw_fd()).unwrap();
        assert!(silent() < Duration::from_secs(10));
        while silent() < Duration::from_millis(20) {
            tokio::task::yield_now().await;
        }
        theirs.write_all(b"x").await.unwrap();
        while received(ours.as_raw_fd()) != Some(6) {
            tokio::task::yield_now().await;
        }
        assert!(silent() < Duration::from_millis(20), "the last bytes count");
    }

    #[tokio::test]
    async fn what_came_after_the_close_is_not_acknowledged() {
        for reads in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut theirs, _) = listener.accept().await.unwrap();
            let before = acknowledged(ours.as_raw_fd()).unwrap();
            if reads {
                ours.write_all(b"request").await.unwrap();
                theirs.read_exact(&mut [0; 7]).await.unwrap();
                drop(theirs);
            } else {
                drop(theirs);
                ours.write_all(b"request").await.unwrap();
            }
            assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0, "an end in order");
            let taken = acknowledged(ours.as_raw_fd()).unwrap() - before;
            // The end itself counts for one where it was acknowledged.
            assert_eq!(taken >= 7, reads, "{taken}");
        }
    }
}
