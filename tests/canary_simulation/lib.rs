//! Rollouts of canaries in simulated time: at one proxy, and at the replicas of a fleet.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod fleet;
pub mod random;
pub mod traffic;
