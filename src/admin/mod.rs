//! The admin address: health, metrics, streams, the configuration in effect, and reloading.
//!
//! `app` speaks HTTP, `access` decides who may ask, `api` answers, `answer` is what goes out. `static_files` has the live view's files,
//! `live_feed` its feed, `login_form` and `sessions` let browsers in off loopback.

mod access;
mod affinity;
mod answer;
mod api;
mod app;
mod canaries;
mod connection_slots;
pub mod control;
mod failed_logins;
mod levers;
mod limits;
mod live_feed;
mod login_form;
mod overview;
mod prices;
mod sessions;
mod static_files;
#[cfg(test)]
mod tests;
mod upstreams;

pub use app::AdminApp;
pub use control::Control;
