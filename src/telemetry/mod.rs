//! One record per request, and its renderings: metrics, spans, the log line, the live feed.

pub mod record;

pub use record::Record;
