//! The way of a request, one file a stage:
//!
//! ```text
//! door ─▶ accept ─▶ caller ─▶ admit ─▶ route ─▶ reserve ─▶ open ─▶ relay ─▶ ending ─▶ settle
//!  │        │         │         │        │        │         │ ▲      │ tap     in order   one outcome,
//!  caps,    the head, who it    body,    where    limits    │ │      │         or dirty   one record
//!  h1/h2    hygiene   is, ids   facts    to                 │ hold   upgrade
//!                                                           ▼ (the client's side while we wait)
//!                                                        upstream
//! ```
//!
//! Between `caller` and `admit`, `identity` judges credentials. `exchange` walks through the stages; `reject` answers where one
//! of them says no. `open` makes attempts (`attempt`), over connections that `connect` makes and `kept` keeps; `opened` is what
//! one of them brings. `commit` sends its head; while `relay` passes it on, `upload` sends what the client's body still lacks.
//! Beside the way goes `shadow`. What outlives a request is in `state`, `pool`, `drain` and `gate`; what
//! people take out of service by hand in `levers`, `in_service` (of a route) and `operator` (at their word).

mod accept;
mod admit;
mod asked;
mod attempt;
mod background;
mod body;
mod body_bytes;
mod budget;
mod ca;
mod caller;
mod canary;
mod check_health;
mod client_body;
mod clock;
mod commit;
mod connect;
mod context;
mod cors;
mod counting;
mod dial;
mod door;
mod drain;
mod ending;
mod endpoint_view;
mod evidence;
mod exchange;
mod faults;
mod fetch_keys;
mod gate;
mod headers;
mod hold;
mod identity;
mod in_service;
mod intake;
mod kept;
mod levers;
mod limiter;
mod linger;
mod member;
mod open;
mod opened;
mod operator;
mod outcome;
mod pace;
mod peers;
mod pool;
mod ratelimit;
mod reject;
mod rejection;
mod relay;
mod remote_keys;
mod reservation;
mod reserve;
mod rollout;
mod route;
mod send;
mod settle;
mod shadow;
mod shadows;
mod shared_h2;
mod socket;
mod state;
mod tap;
mod ticket;
mod tls;
mod tries;
mod turns;
mod unpack;
mod upgrade;
mod upload;
mod usage;

#[cfg(test)]
mod panic_switch;
#[cfg(test)]
mod panic_tests;

pub use door::Door;
pub use drain::Drain;
pub use endpoint_view::{EndpointView, MemberView};
pub use gate::{AddressGate, AddressPass};
pub use levers::Levers;
pub use limiter::{Limiter, Mode};
pub use operator::{Done, Order};
pub use pool::Pool;
pub use rollout::Rollout;
pub use state::{Generation, Shared};
