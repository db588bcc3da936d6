//! The view of a fleet: what all its replicas show, at whichever of them is asked.
//!
//! ```text
//! viewer ─▶ the asked replica ─▶ peers: whom there is ─▶ ask: each of them, signed ─▶ merge: one answer, each row with its replica
//! ```
//!
//! `feed` keeps the live feeds of the others while somebody looks, `frames` makes one of them. One hop: a replica that is asked by another one answers for itself. The admin token goes nowhere: replicas sign what they ask
//! (`policy/peer_signature`).

pub(super) mod ask;
pub(super) mod feed;
pub(super) mod frames;
pub(super) mod merge;
pub(super) mod peers;
pub(super) mod signed;
pub(super) mod view;
