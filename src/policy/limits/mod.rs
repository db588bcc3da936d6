//! Token, request, stream and cost limits: hold, then settle.
//!
//! A request makes a [`Claim`] on each limit of its route. [`Cells::admit`] takes all of them or none, before an
//! upstream is asked; [`Cells::report`] tells what was really used, as it flows and once at the end. Charging only
//! afterwards would let every caller in that comes before the first answer is done.

mod breaker;
mod bucket;
mod cell;
mod cells;
mod claim;
mod denial;
mod estimate;
mod lately;
mod rate;
mod refusals;
mod spend;
mod unforeseen;

pub use breaker::Breaker;
pub use cells::{CELLS_MAX, Cells, HolderView, Saved, Totals};
pub use claim::{Claim, Used, holder, is_unforeseen};
pub use denial::{Allowance, Denial, Reason, Standing, Taken};
pub use estimate::{Estimate, Learned, OutputBasis, PromptBasis, Request};
pub use lately::Lately;
pub use refusals::Refusals;
pub use spend::{Money, Window};
pub use unforeseen::{Place, Unforeseen};
