//! What requests may take: the limiter, what a request has reserved of it, and what it is charged with.

pub(super) mod background;
pub(super) mod counting;
pub(super) mod limiter;
pub(super) mod ratelimit_headers;
pub(super) mod reservation;
