//! Which of several places is asked, where nothing else says which.

use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Member;
use crate::policy::balance;
use crate::policy::health::{Gate, Health};

/// The one to ask out of several.
pub(super) fn better(members: Vec<Arc<Member>>, streaming: bool, roll: u64, now: Duration) -> Option<Arc<Member>> {
    let mut known: Vec<(u8, f64)> = Vec::with_capacity(members.len());
    for member in &members {
        let state = member.state();
        known.push((rank(&state.health, now), state.load.cost(streaming, now)));
    }
    let best = known.iter().map(|(rank, _)| *rank).min()?;
    let of_best = known.iter().enumerate().filter(|(_, (rank, _))| *rank == best);
    let (places, costs): (Vec<usize>, Vec<f64>) = of_best.map(|(at, (_, cost))| (at, *cost)).unzip();
    members.get(*places.get(balance::choose(&costs, roll)?)?).cloned()
}

/// The rank of those that are half open: each is asked by whoever comes first.
pub(super) const PROBED: u8 = 0;

/// Of several those with the lowest rank are asked.
pub(super) fn rank(health: &Health, now: Duration) -> u8 {
    match health.gate(now) {
        Gate::Probe => PROBED,
        Gate::Open if health.is_up(now) => 1,
        Gate::Open => 2,
        Gate::Shut => 3,
    }
}
