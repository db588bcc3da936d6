//! One record per request.

pub mod phases;
pub mod record;

pub use record::Record;
