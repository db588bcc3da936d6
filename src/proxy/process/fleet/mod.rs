//! A fleet: several replicas that act as one, over a Redis that all of them use.
//!
//! ```text
//! a request's end ─▶ outbox ─▶ stream in Redis ─▶ judge: one replica at a time ─▶ state in Redis ─▶ all replicas follow
//! ```
//!
//! `membership` is which fleet this process is of, `presence` what each replica says of itself, `link` the connection to the others, `store` what is asked of Redis. Of each canary a replica has a
//! `seat`: the `outbox` of what it tells the judge, and what it has heard; `follow` is what it does by that, `keep` the task that takes part.
//! `hints` is what replicas tell each other of endpoints. What is judged, and how, is the same as without a fleet (`policy/canary`).

mod follow;
mod hints;
pub(in crate::proxy) mod keep;
mod link;
pub(in crate::proxy) mod membership;
mod outbox;
pub(in crate::proxy) mod presence;
pub(in crate::proxy) mod seat;
mod store;
