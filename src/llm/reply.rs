//! Errors as the client's own dialect says them: whole bodies, and events inside a stream.

use bytes::Bytes;

use super::{Dialect, Framing};

/// One refusal or failure, for a client to read.
#[derive(Debug, Clone, Copy)]
pub struct ErrorReply<'a> {
    /// What happened and what to do.
    pub message: &'a str,
    /// The machine word, as `first_token_timeout`.
    pub code: &'a str,
    pub status: u16,
    pub request_id: &'a str,
}

/// The JSON body of an error answer. `None`: FastAPI's shape.
pub fn error_body(dialect: Option<Dialect>, error: &ErrorReply<'_>) -> Bytes {
    let _ = (dialect, error);
    Bytes::new()
}

/// The event that tells a client inside a running stream that it failed; `None` where the framing has no such thing.
pub fn error_event(dialect: Dialect, framing: Framing, error: &ErrorReply<'_>) -> Option<Bytes> {
    let _ = (dialect, framing, error);
    None
}
