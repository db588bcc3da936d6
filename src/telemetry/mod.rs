//! What happens to a request, the one record that is made of it, and its renderings: metrics, spans, the log line, the live feed.
//!
//! ```text
//! Event ──▶ Record::apply, LiveStream::apply, and the folds of the proxy
//! Record ──▶ publish ──┬─▶ metrics      counted at once; read by /metrics, and sent once an interval where that is asked for
//!                      ├─▶ spans, log records    built and sent by threads of their own
//!                      ├─▶ access log   rendered and written by a thread of its own
//!                      └─▶ live view    the last thousand
//! ```

pub mod access_log;
#[cfg(feature = "server")]
mod attributes;
pub mod event;
pub mod explanation;
#[cfg(feature = "server")]
mod exposition;
pub mod ids;
pub(crate) mod json;
pub mod live;
pub(crate) mod log_fields;
#[cfg(feature = "server")]
pub mod logs;
#[cfg(feature = "server")]
pub mod metrics;
pub mod mirror;
#[cfg(feature = "server")]
mod mirror_export;
pub mod operator_hints;
#[cfg(feature = "server")]
pub mod otlp;
pub mod phases;
#[cfg(feature = "server")]
mod publish;
mod queue;
pub mod record;
mod record_fold;
#[cfg(test)]
mod records_for_tests;
pub mod sampler;
pub mod semconv;
mod server_address;
#[cfg(feature = "server")]
mod span_events;
#[cfg(feature = "server")]
pub mod spans;
#[cfg(feature = "server")]
pub mod tail_sampling;
pub mod throttle;
pub mod trace_context;

pub use json::timestamp;
#[cfg(feature = "server")]
pub use metrics::{Metrics, Names};
#[cfg(feature = "server")]
pub use publish::{StartError, Telemetry};
pub use queue::Dropped;
pub use record::Record;
