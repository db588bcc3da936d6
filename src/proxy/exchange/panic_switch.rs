//! Lets a test have a stage panic.

use pingora::protocols::http::ServerSession;

/// Panics where the request names this place.
pub(crate) fn panic_if_asked(session: &ServerSession, place: &str) {
    assert!(session.get_header_bytes("x-panic") != place.as_bytes(), "asked to panic {place}");
}
