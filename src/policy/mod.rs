//! Decisions. Pure: each takes the facts and the time, and returns what to do.

pub mod affinity;
pub mod background_responses;
pub mod balance;
pub mod canary;
pub mod cohort;
pub mod cors;
pub mod deadlines;
pub mod failover;
pub mod head_checks;
pub mod health;
pub mod hints;
pub mod hop_by_hop;
pub mod identity;
pub mod learned_usage;
pub mod levers;
pub mod limits;
pub mod location_header;
pub mod login_throttle;
pub mod mirror;
pub mod peer_signature;
mod recent_map;
pub mod routing;
pub mod trusted_proxies;
