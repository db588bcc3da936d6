//! The upstream's side: attempts, one after the other or two at once, until an answer may be passed on.

pub(super) mod attempt;
pub(super) mod attempt_loop;
pub(super) mod decompress;
pub(super) mod outlet;
pub(super) mod response_reader;
pub(super) mod send;
pub(super) mod tap;
pub(super) mod upstream_error;
pub(super) mod upstream_request;
pub(super) mod upstream_response;
