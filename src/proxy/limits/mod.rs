//! What requests may take: the limiter, what a request has reserved of it, and what it is charged with.

pub(super) mod background_usage;
pub(super) mod count_prompt;
pub(super) mod limiter;
pub(super) mod ratelimit_headers;
pub(super) mod redis_line;
pub(super) mod reservation;
pub(super) mod store_error;
