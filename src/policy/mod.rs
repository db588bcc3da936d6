//! Decisions. Pure: each takes the facts and the time, and returns what to do.

pub mod attempts;
pub mod background;
pub mod balance;
pub mod canary;
pub mod cohort;
pub mod cors;
pub mod deadlines;
pub mod failover;
pub mod habits;
pub mod health;
pub mod hygiene;
pub mod identity;
pub mod levers;
pub mod limits;
pub mod locations;
pub mod nominated;
mod recent;
pub mod routing;
pub mod shadow;
pub mod trust;
