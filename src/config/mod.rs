//! The file as written → checked settings with no invalid state.
//!
//! `file` is the file's shape, `read` finds every place that does not fit it, `check` turns what fits into [`Settings`]
//! and finds what fits but makes no sense. All problems come back at once, each with its place.

pub mod address;
pub mod canary;
mod check;
pub mod defaults;
mod file;
mod file_failover;
pub mod glob;
pub mod grammar;
pub mod identity;
pub mod limits;
pub mod otlp;
pub mod prices;
mod problems;
mod read;
mod reload;
mod schema;
pub mod secret;
pub mod settings;
mod units;

pub use check::{Moment, admin_problem, for_upstream, load, load_from, parse, parse_for};
pub use problems::{Problem, Problems};
pub use reload::{guard, needs_restart};
pub use schema::schema;
pub use settings::Settings;
