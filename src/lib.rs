//! Streamgauge: an observability-first reverse proxy for LLM backends.
//!
//! Rooms import one way only: `llm` ← `config` ← `policy` ← `telemetry` ← `proxy` ← `admin` ← `server`. The first three
//! are pure: they take bytes and the time, never a socket, a clock or randomness.

pub mod config;
mod hashing;
pub mod llm;
pub mod policy;
#[cfg(feature = "server")]
pub mod proxy;
pub mod telemetry;
mod words;

#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod demo;
#[cfg(feature = "server")]
pub mod server;
