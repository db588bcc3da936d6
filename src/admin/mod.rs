//! The admin address: health, metrics, streams, the configuration in effect, and reloading.
//!
//! `app` speaks HTTP, `pages` is what can be asked for, `access` decides who may, `api` answers, `answer` is what goes out. `static_files` has the live view's files,
//! `live_feed` its feed, `login_form` and `sessions` let browsers in off loopback, `fleet` asks other replicas.

mod access;
mod affinity;
mod answer;
mod api;
mod app;
mod canaries;
mod connection_slots;
pub mod control;
mod failed_logins;
mod fleet;
mod levers;
mod limits;
mod live_feed;
mod login_form;
mod overview;
mod pages;
mod prices;
mod sessions;
mod static_files;
#[cfg(test)]
mod tests;
mod upstreams;

pub use app::AdminApp;
pub use control::Control;
