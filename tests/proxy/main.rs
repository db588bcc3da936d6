//! The proxy as a whole: the real binary between clients and upstreams that misbehave on purpose.
//!
//! One binary, a module per behaviour. Nothing sleeps to wait: each test waits for the event it is about, and a watchdog in
//! `support` ends what hangs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod addresses;
mod support;

mod affinity;
mod anatomy;
mod asked_once;
mod background;
mod bodies;
mod canary;
mod canary_failover;
mod chaos;
mod cross_origin;
mod disconnects;
mod disguises;
mod early;
mod endings;
mod failover;
mod fleet;
mod fleet_canary;
mod fleet_chaos;
mod fleet_hints;
mod fleet_view;
mod floods;
mod full_disk;
mod heads;
mod hedging;
mod hostile;
mod identity;
mod init;
mod later;
mod levers;
mod limit_edges;
mod limits;
mod mirror;
mod operations;
mod otlp;
mod packed;
mod passing;
mod prices;
mod readers;
mod realtime;
mod revoked;
mod routing_conditions;
mod shared_connections;
mod shared_limits;
mod shares;
mod soak;
mod streams;
mod tls_upstreams;
mod tokens;
mod traces;
mod truth;
mod usage;
mod usage_edges;
mod versions;
mod websockets;
