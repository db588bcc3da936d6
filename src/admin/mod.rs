//! The admin address: health, metrics, streams, the configuration in effect, and reloading.
//!
//! `app` speaks HTTP, `gate` decides who may ask, `api` answers, `answer` is what goes out.

mod answer;
mod api;
mod app;
mod canaries;
mod config_view;
pub mod control;
mod gate;
mod limits;
#[cfg(test)]
mod tests;

pub use app::AdminApp;
pub use control::Control;
