//! The way of a request. Rooms import only from those above them in this list:
//!
//! ```text
//! endpoints   who can be asked, and the connections to them
//! limits      what requests may take: the limiter, and what a request has reserved of it
//! process     what outlives a request: configuration in effect, canaries, drain, sums over all requests
//! request     one request: who sent it, where it goes, what became of it
//! client      the client's side: its body comes in, and what is written to it
//! upstream    the upstream's side: attempts, until an answer may be passed on
//! exchange    the stages in their order, to the end of the answer
//! listener    connections and heads come in
//! ```
//!
//! ```text
//! connection ─▶ request_head ─▶ caller ─▶ identity ─▶ admit ─▶ route ─▶ reserve_tokens
//!  caps, h1/h2   hygiene         who       credentials  body    where    limits   │
//!                                                                                 ▼
//!               accounting ◀─ termination ◀─ relay (tap) ◀─ upstream_response ◀─ failover ─▶ attempt
//!               one outcome,   in order       or websocket                        again, or two at once
//!               one record     or dirty
//! ```
//!
//! `stages` walks a request through them; `error_answer` answers where one says no. While an upstream is asked, `client_side`
//! keeps the client company. Beside the way goes `mirror`.

mod clock;

mod client;
mod endpoints;
mod exchange;
mod limits;
mod listener;
mod process;
mod request;
mod upstream;

pub use clock::every;
pub use endpoints::affinity::{SessionPlace, SessionView};
pub use endpoints::endpoint_pool::EndpointPool;
pub use endpoints::endpoint_view::{EndpointView, MemberView};
pub use endpoints::levers::Levers;
pub use limits::limiter::{Limiter, Mode};
pub use listener::connection::ProxyApp;
pub use process::concurrency::{AddressConcurrency, AddressPermit};
pub use process::drain::Drain;
pub use process::fleet::keep::{Followers, InFleet, Undone};
pub use process::fleet::membership::{Fleet, FleetView};
pub use process::fleet::presence::{Follows, Lost, Member as FleetMember, Presence, Roster};
pub use process::lever_commands::{Done, Order};
pub use process::rollout::Rollout;
pub use process::state::{Generation, Shared};
