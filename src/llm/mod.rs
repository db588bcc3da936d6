//! Reads requests and answers of LLMs, in each dialect.
//!
//! This room is pure. It takes bytes and the time at which they came, and never a socket, a clock or randomness; so it
//! is unit-tested, fuzzed and benchmarked without a server.

pub mod ask;
mod aws;
mod carry;
pub mod claim;
mod clumps;
#[cfg(feature = "server")]
pub mod coding;
pub mod content;
pub mod count;
pub mod dialect;
pub mod format;
pub mod gaps;
pub mod gauge;
mod json;
pub mod lines;
mod mend;
pub mod message;
mod pattern;
pub mod price;
pub mod provider;
mod prune;
pub mod reading;
pub mod reply;
pub mod request;
pub mod rpc;
pub mod splice;
pub mod sse;
pub mod timings;
pub mod usage;
pub mod values;
mod walk;
#[cfg(feature = "server")]
pub mod websocket;

pub use claim::{Claim, StreamReading};
pub use dialect::StreamRules;
pub use dialect::shape::ShapeRules;
pub use format::{Basis, Dialect, Framing};
pub use gauge::{Gauge, Progress, StreamEnd};
pub use reading::{Background, Reading};
pub use request::RequestFacts;
pub use timings::ServerTimings;
pub use usage::{Usage, UsageSource};
