//! Rate limits on tokens, requests, concurrent requests and cost, by token reservation.
//!
//! A request makes a [`Claim`] on each limit of its route. [`Cells::admit`] reserves all of them or none, before an
//! upstream is called; [`Cells::report`] reconciles them with the actual usage, while the answer flows and once at its
//! end. Charging only at the end would let concurrent requests overshoot.

mod breaker;
mod bucket;
mod cell;
mod cells;
mod claim;
mod denial;
mod estimate;
mod rate;
mod recently_refused;
mod refusals;
mod spend;
mod unrecognised_requests;

pub use breaker::Breaker;
pub use cells::{CELLS_MAX, Cells, HolderView, Saved, Totals};
pub use claim::{Claim, Used, holder, is_unforeseen};
pub use denial::{Allowance, Denial, Reason, Standing, Taken};
pub use estimate::{Estimate, Learned, OutputBasis, PromptBasis, Request};
pub use recently_refused::RecentlyRefused;
pub use refusals::Refusals;
pub use spend::{Money, Window};
pub use unrecognised_requests::{Place, UnrecognisedRequests};
