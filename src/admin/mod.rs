//! The admin address: health, metrics, streams, the configuration in effect, and reloading.
//!
//! `app` speaks HTTP, `gate` decides who may ask, `api` answers, `answer` is what goes out. `pages` has the live view's files,
//! `events` its feed, `login` and `sessions` let browsers in off loopback.

mod answer;
mod api;
mod app;
mod canaries;
pub mod control;
mod events;
mod gate;
mod levers;
mod limits;
mod login;
mod logins;
mod overview;
mod pages;
mod places;
mod prices;
mod sessions;
#[cfg(test)]
mod tests;
mod upstreams;

pub use app::AdminApp;
pub use control::Control;
