//! The client's side: its body comes in, and what is written to it.

pub(super) mod admit;
pub(super) mod body_pace;
pub(super) mod client_body;
pub(super) mod client_side;
pub(super) mod cors;
pub(super) mod error_answer;
pub(super) mod headers;
pub(super) mod read_body;
