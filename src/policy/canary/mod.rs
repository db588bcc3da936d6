//! The canary judge: compares a new target of a route with the others, and takes over, holds or rolls back. Pure: it is
//! given the facts of each first attempt and the time, and returns decisions.
//!
//! ```text
//! first attempt ─▶ facts ─┬▶ drawn ─▶ evidence ─▶ judge ─▶ decision: next step, hold, roll back
//!                 (band)  ├▶ streak ──────────────┤
//!                         └▶ block ─▶ doubt ──────┘
//! ```
//!
//! In a fleet one judge hears of all replicas' requests:
//!
//! ```text
//! replica ─▶ packed ─▶ stream ─▶ fold ─▶ judge ─▶ whole ─▶ committed, if nobody else was faster
//! ```
//!
//! `facts` are five yes/no questions; `band` knows what is usual for the baseline; `drawn` knows with which
//! chance a bad answer is the canary's; `evidence` is the test, with its proof; `streak` is the rule for what is plainly broken; `block`
//! counts a user once for a stretch of traffic; `doubt` is what these plain counts say against a next step; `harmed` tells a canary's fault from a user's; `fact_history` tells since when; `judge` decides.
//!
//! `packed` is how a replica tells of its requests; `fold` is what a judge of a fleet has taken in, and what follows; `whole` is
//! a judge without a gap, for its successor; `origins` tells a canary's fault from one replica's; `plans` divides alpha between the fleet's judge and those of
//! replicas that hear nothing.

mod band;
mod block;
mod decision;
mod doubt;
mod drawn;
mod evidence;
mod fact_history;
mod facts;
mod fold;
mod harmed;
mod judge;
mod origins;
mod packed;
mod plans;
mod report;
mod streak;
mod whole;

pub use decision::{By, Command, Decision, Finding, Kind, Reason, Refusal};
pub use doubt::Comparison;
pub use evidence::{Pair, Tally};
pub use fact_history::Seen;
pub use facts::{Arm, Fact, FirstAttempt, FirstToken, PerFact, Sample};
pub use fold::{Entry, Fold, Id, Rank};
pub use judge::Judge;
pub use packed::{pack, unpack};
pub use plans::{alone, digest, together};
pub use report::{Bounds, FactReport, Report, State};
pub use streak::Broken;
