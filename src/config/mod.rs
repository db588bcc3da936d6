//! The file as written → checked settings with no invalid state.

pub mod settings;

pub use settings::Settings;
