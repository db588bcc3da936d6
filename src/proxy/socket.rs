//! Two things about a raw socket that pingora does not offer. The only unsafe code of the proxy.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::time::Duration;

use pingora::protocols::UniqueIDType;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_linger;

/// Whether bytes, an end or an error wait to be read. Never blocks.
pub(super) fn has_something_to_read(socket: UniqueIDType) -> bool {
    // SAFETY: the caller holds the session that owns the socket, so it stays open during this call.
    let fd = unsafe { BorrowedFd::borrow_raw(socket) };
    let mut polled = [PollFd::new(&fd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut polled, Some(&at_once)), Ok(ready) if ready > 0)
}

/// Makes the next close a reset: where a response has no framing, an orderly close would look like its normal end.
pub(super) fn reset_on_close(socket: UniqueIDType) {
    // SAFETY: as above.
    let fd = unsafe { BorrowedFd::borrow_raw(socket) };
    // A socket that is gone already, or a unix one, needs no reset.
    let _ = set_socket_linger(fd, Some(Duration::ZERO));
}
