//! The tables of the file, each with its written form, its checked form and the checks between them. Who adds a key adds it
//! there, and to `config/streamgauge.toml`.

pub mod affinity;
pub mod canary;
pub mod conditions;
pub mod cors;
pub mod dialect;
pub mod fleet;
pub mod identity;
pub mod limits;
pub mod mirror;
pub mod prices;
pub mod route;
pub mod server;
pub mod target;
pub mod telemetry;
pub mod upstream;
