//! One request: who sent it, where it goes, what became of it. Nothing here reads or writes a connection.

pub(super) mod accounting;
pub(super) mod attempts;
pub(super) mod caller;
pub(super) mod client_progress;
pub(super) mod context;
pub(super) mod identity;
pub(super) mod outcome;
pub(super) mod rejection;
pub(super) mod route;
pub(super) mod routed_request;
pub(super) mod session;
