//! The file as written → checked settings with no invalid state.
//!
//! Each of `tables` is one table of the file: its written form, its checked form, and the checks between them. `settings` is
//! the whole file. `read` finds every place that does not fit the written form, `checker` gathers what fits but makes no
//! sense. All problems come back at once, each with its place.

pub mod address;
mod checker;
pub mod glob;
pub mod grammar;
mod load;
mod problems;
mod read;
mod reload;
mod schema;
pub mod secret;
pub mod settings;
mod tables;
mod units;
mod view;

pub use checker::Moment;
pub use load::{for_upstream, load, load_from, parse, parse_for, unreadable};
pub use problems::{Problem, Problems};
pub use reload::{guard, needs_restart};
pub use schema::schema;
pub use settings::Settings;
pub use tables::server::admin_problem;
pub use tables::{canary, conditions, fleet, identity, limits, prices, telemetry};

/// What holds where the file says nothing, as far as others ask.
pub mod defaults {
    pub use super::load::DEFAULT_FILE;
    pub use super::tables::route::{
        FIRST_TOKEN_ALONE, FIRST_TOKEN_TIMEOUT, HANDSHAKE_TIMEOUT, STALL_TIMEOUT, TOTAL_TIMEOUT, WHOLE_ATTEMPT_TIMEOUT,
    };
    pub use super::tables::server::ADMIN_TOKEN_ENV;
    pub use super::tables::telemetry::SAMPLE_RATIO;
}
