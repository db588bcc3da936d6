//! Reads requests and answers of LLMs, in each dialect.
//!
//! This room is pure. It takes bytes and the time at which they came, and never a socket, a clock or randomness; so it
//! is unit-tested, fuzzed and benchmarked without a server.

mod aws_event_stream;
mod buffering;
pub mod calls;
pub mod content;
#[cfg(feature = "server")]
pub mod content_encoding;
pub mod dialect;
pub mod error_body;
mod event_pattern;
pub mod format;
pub mod gauge;
mod json;
mod json_repair;
pub mod json_rpc;
pub mod json_values;
pub mod llm_basis;
pub mod message;
pub mod ndjson;
mod partial_buffer;
pub mod price;
pub mod provider;
mod prune;
pub mod reading;
pub mod request;
pub mod splice;
pub mod sse;
pub mod timings;
pub mod token_count;
pub mod token_gaps;
pub mod usage;
pub mod usage_injection;
mod walk_texts;
#[cfg(feature = "server")]
pub mod websocket;

pub use dialect::StreamRules;
pub use dialect::shape::ShapeRules;
pub use format::{Basis, Dialect, Framing};
pub use gauge::{Gauge, Progress, StreamEnd};
pub use llm_basis::{LlmBasis, StreamReading};
pub use reading::{Background, Reading};
pub use request::RequestFacts;
pub use timings::ServerTimings;
pub use usage::{Usage, UsageSource};
