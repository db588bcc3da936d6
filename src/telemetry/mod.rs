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
#[cfg(feature = "server")]
mod exposition;
#[cfg(feature = "server")]
mod facade;
pub mod hints;
pub mod ids;
pub(crate) mod json;
#[cfg(feature = "server")]
pub mod late;
pub mod live;
mod lock;
#[cfg(feature = "server")]
pub mod logs;
pub mod meaning;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
pub mod otlp;
pub mod phases;
mod place;
mod queue;
pub mod record;
mod record_fold;
pub mod sampler;
#[cfg(test)]
mod samples;
pub mod semconv;
pub mod shadow;
#[cfg(feature = "server")]
mod shadow_export;
#[cfg(feature = "server")]
mod span_events;
#[cfg(feature = "server")]
pub mod spans;
pub mod throttle;
pub mod trace_context;

#[cfg(feature = "server")]
pub use facade::{StartError, Telemetry};
pub use json::timestamp;
#[cfg(feature = "server")]
pub use metrics::{Metrics, Names};
pub use queue::Dropped;
pub use record::Record;
