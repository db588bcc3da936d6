//! The counts of all holders, in memory. Bounded: empty ones are dropped, and when all are in use, new holders of a
//! limit share one.

use std::collections::hash_map::Entry;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cell::{Cell, Fit, Misfit};
use super::claim::{Claim, Used};
use super::denial::{Denial, Standing};
use super::refusals::Refusals;
use super::spend::Spend;
use crate::config::limits::{Limit, LimitKey, OnExhausted};
use crate::hashing::Map;

/// The largest number of cells: holders × limits.
pub const CELLS_MAX: usize = 100_000;

/// How many of them addresses may have: who is known by name finds a place however many addresses call.
const ADDRESS_CELLS_MAX: usize = CELLS_MAX / 2;

/// IPv6 networks (/64) of one site (/48) that have cells of their own under one limit. Whoever is given a /48 has 65,536 of
/// them to call from; beyond these, the site is one holder.
const NETWORKS_OF_SITE_MAX: usize = 64;

/// Least time between two sweeps that a full map asks for.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// Under this name holders are counted for whom there is no cell left.
const OTHERS: &str = "others";

/// All cells of one process. Times count from the Unix epoch, and never go back.
#[derive(Debug, Default)]
pub struct Cells {
    /// By limit, then by holder.
    by_limit: Map<Arc<str>, OfLimit>,
    count: usize,
    /// Of those: addresses'.
    addresses: usize,
    swept: Duration,
}

#[derive(Debug, Default)]
struct OfLimit {
    cells: Map<Arc<str>, Cell>,
    /// By IPv6 site: its networks that have cells.
    sites: Map<Site, usize>,
    totals: Totals,
    /// Of all its holders together.
    refused: Option<Refusals>,
}

/// What went through one limit since the start, in tokens. Once all requests have ended, held = debited + released.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub held: u64,
    /// Of what was held: the part that was used.
    pub debited: u64,
    /// Of what was held: the part that was given back.
    pub released: u64,
    /// All that was used, beyond holds too.
    pub used: u64,
}

/// Where one holder stands under one limit.
#[derive(Debug, Clone, PartialEq)]
pub struct HolderView {
    pub limit: Arc<str>,
    pub holder: Arc<str>,
    pub standing: Standing,
    pub running: u32,
    /// The budgets, in nano-dollars.
    pub budget_day: Option<u64>,
    pub budget_month: Option<u64>,
    pub utilization: f64,
    /// Since when it is refused more.
    pub refused: Option<Refusals>,
}

/// What outlives a restart: money.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved(Vec<SavedCell>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SavedCell {
    limit: String,
    holder: String,
    spend: Spend,
}

impl Cells {
    /// Takes all `claims`, or none. Where there is no cell left for a holder, the claim's holder changes.
    ///
    /// # Errors
    /// The limit that refuses; of several the one that will refuse longest.
    pub fn admit(&mut self, claims: &mut [Claim], now: Duration) -> Result<Standing, Box<Denial>> {
        let fits = self.look(claims, now)?;
        let mut standing = Standing::default();
        for (claim, fit) in claims.iter_mut().zip(&fits) {
            standing.tighten(&self.cell(claim, now).take(claim, fit, now));
        }
        self.count_held(claims);
        Ok(standing)
    }

    /// Why `claims` would be refused now. Reserves nothing.
    pub fn refusal(&mut self, claims: &mut [Claim], now: Duration) -> Option<Box<Denial>> {
        self.look(claims, now).err()
    }

    /// The holder of `claim` was refused, here or by a shared store.
    pub fn refused(&mut self, claim: &mut Claim, reason: &'static str, now: Duration) {
        Refusals::note(&mut self.cell(claim, now).refused, reason, now);
        if let Some(of_limit) = self.by_limit.get_mut(&claim.limit.name) {
            Refusals::note(&mut of_limit.refused, reason, now);
        }
    }

    /// The limits that refuse, with since when.
    pub fn refusing(&self, now: Duration) -> Vec<(Arc<str>, Refusals)> {
        let refusing = |(name, of_limit): (&Arc<str>, &OfLimit)| {
            of_limit.refused.filter(|refused| refused.goes_on(now)).map(|refused| (Arc::clone(name), refused))
        };
        let mut refusing: Vec<(Arc<str>, Refusals)> = self.by_limit.iter().filter_map(refusing).collect();
        refusing.sort_by(|a, b| b.1.count.cmp(&a.1.count).then_with(|| a.0.cmp(&b.0)));
        refusing
    }

    /// What an admitted request has used by now, and had used when it was told last; `done` once, at its end. Tells
    /// whether a stream that outran its holds should be cut.
    pub fn report(&mut self, claims: &mut [Claim], before: Used, used: Used, done: bool, now: Duration) -> bool {
        let mut cut = false;
        for claim in claims {
            let exhausted = self.cell(claim, now).settle(claim, before, used, done, now);
            let cuts = claim.limit.on_exhausted == OnExhausted::Cut;
            cut |= cuts && exhausted && used.tokens > claim.tokens;
            if done {
                self.count_ended(claim, used);
            }
        }
        cut
    }

    /// Takes over where the holder of `claim` stands in a shared store.
    pub fn follow(&mut self, claim: &mut Claim, standing: &Standing, now: Duration) {
        let limit = Arc::clone(&claim.limit);
        self.cell(claim, now).follow(&limit, standing, now);
    }

    /// Counts a request's reservation, in memory or in the store.
    pub fn count_held(&mut self, claims: &[Claim]) {
        for claim in claims {
            self.totals(&claim.limit.name).held += claim.tokens;
        }
    }

    /// Counts what a request used of its reservation, in memory or in the store.
    pub fn count_ended(&mut self, claim: &Claim, used: Used) {
        if claim.limit.tokens.is_none() {
            return;
        }
        let totals = self.totals(&claim.limit.name);
        totals.debited += claim.tokens.min(used.tokens);
        totals.released += claim.tokens.saturating_sub(used.tokens);
        totals.used += used.tokens;
    }

    /// Drops empty cells, and those of limits that a reload removed.
    pub fn sweep(&mut self, limits: &[Arc<Limit>], now: Duration) {
        self.drop_empty(now);
        let is_known = |name: &Arc<str>| limits.iter().any(|limit| limit.name == *name);
        self.by_limit.retain(|name, of_limit| !of_limit.cells.is_empty() || is_known(name));
    }

    /// By limit: what went through it, and the share in use of its fullest cell.
    pub fn usage(&self, now: Duration) -> Vec<(Arc<str>, Totals, f64)> {
        let fullest =
            |of_limit: &OfLimit| of_limit.cells.values().map(|cell| cell.utilization(now)).fold(0.0, f64::max);
        self.by_limit.iter().map(|(name, of)| (Arc::clone(name), of.totals, fullest(of))).collect()
    }

    /// Where `holder` stands under each limit, or every holder, the fullest first; at most `most` of them. Who is refused is full.
    pub fn view(&mut self, holder: Option<&str>, most: usize, now: Duration) -> Vec<HolderView> {
        let mut views = Vec::new();
        for (name, of_limit) in &mut self.by_limit {
            let cells = of_limit.cells.iter_mut().filter(|(of, _)| holder.is_none_or(|holder| ***of == *holder));
            views.extend(cells.map(|(of, cell)| view(name, of, cell, now)));
        }
        let fullness =
            |view: &HolderView| if view.refused.is_some() { view.utilization.max(1.0) } else { view.utilization };
        let count = |view: &HolderView| view.refused.map_or(0, |refused| refused.count);
        views.sort_by(|a, b| {
            fullness(b)
                .total_cmp(&fullness(a))
                .then_with(|| count(b).cmp(&count(a)))
                .then_with(|| a.holder.cmp(&b.holder))
        });
        views.truncate(most);
        views
    }

    /// What outlives a restart.
    pub fn save(&self, now: Duration) -> Saved {
        let cells = self.by_limit.iter().flat_map(|(limit, of_limit)| {
            of_limit.cells.iter().filter(|(_, cell)| !cell.spend.is_over(now)).map(|(holder, cell)| SavedCell {
                limit: limit.to_string(),
                holder: holder.to_string(),
                spend: cell.spend.clone(),
            })
        });
        Saved(cells.collect())
    }

    /// Takes up what was saved, for limits that there still are. To be called before the first request.
    pub fn restore(&mut self, saved: Saved, limits: &[Arc<Limit>]) {
        for SavedCell { limit, holder, spend } in saved.0.into_iter().take(CELLS_MAX) {
            let Some(limit) = limits.iter().find(|known| *known.name == *limit) else { continue };
            let mut cell = Cell::new(Arc::clone(limit));
            cell.spend = spend;
            self.by_limit.entry(Arc::clone(&limit.name)).or_default().cells.insert(holder.into(), cell);
        }
        self.count_cells();
    }

    /// Whether all `claims` fit.
    fn look(&mut self, claims: &mut [Claim], now: Duration) -> Result<Vec<Fit>, Box<Denial>> {
        let mut fits = Vec::with_capacity(claims.len());
        let mut misfit: Option<(usize, Misfit)> = None;
        for (at, claim) in claims.iter_mut().enumerate() {
            match self.cell(claim, now).look(claim, now) {
                Ok(fit) => fits.push(fit),
                Err(new) => {
                    let is_longer = |old: &Misfit| old.wait.is_some_and(|old| new.wait.is_none_or(|new| new > old));
                    if misfit.as_ref().is_none_or(|(_, old)| is_longer(old)) {
                        misfit = Some((at, new));
                    }
                }
            }
        }
        match misfit {
            Some((at, misfit)) => Err(Box::new(self.denial(claims, at, misfit, now))),
            None => Ok(fits),
        }
    }

    fn cell(&mut self, claim: &mut Claim, now: Duration) -> &mut Cell {
        if !self.is_known(claim) {
            self.find_holder(claim, now);
        }
        let of_limit = self.by_limit.entry(Arc::clone(&claim.limit.name)).or_default();
        match of_limit.cells.entry(Arc::clone(&claim.holder)) {
            Entry::Occupied(cell) => cell.into_mut(),
            Entry::Vacant(place) => {
                self.count += 1;
                self.addresses += usize::from(is_address(&claim.holder));
                if let Some(site) = Site::of(&claim.holder) {
                    *of_limit.sites.entry(site).or_default() += 1;
                }
                place.insert(Cell::new(Arc::clone(&claim.limit)))
            }
        }
    }

    fn is_known(&self, claim: &Claim) -> bool {
        self.by_limit.get(&claim.limit.name).is_some_and(|of_limit| of_limit.cells.contains_key(&claim.holder))
    }

    /// In whose name somebody is counted who has no cell yet: the own, the site's, or that of all for whom there is no place.
    fn find_holder(&mut self, claim: &mut Claim, now: Duration) {
        if let Some(site) = Site::of(&claim.holder) {
            let networks = |cells: &Self| {
                cells.by_limit.get(&claim.limit.name).and_then(|of_limit| of_limit.sites.get(&site)).copied()
            };
            if networks(self) >= Some(NETWORKS_OF_SITE_MAX) && now >= self.swept + SWEEP_PAUSE {
                self.drop_empty(now);
            }
            if networks(self) >= Some(NETWORKS_OF_SITE_MAX) {
                claim.holder = site.holder();
                if self.is_known(claim) {
                    return;
                }
            }
        }
        if !self.has_room(&claim.holder, now) {
            claim.holder = Arc::from(OTHERS);
        }
    }

    fn has_room(&mut self, holder: &str, now: Duration) -> bool {
        let has_room =
            |cells: &Self| cells.count < CELLS_MAX && (!is_address(holder) || cells.addresses < ADDRESS_CELLS_MAX);
        if !has_room(self) && now >= self.swept + SWEEP_PAUSE {
            self.drop_empty(now);
        }
        has_room(self)
    }

    fn drop_empty(&mut self, now: Duration) {
        self.swept = now;
        for of_limit in self.by_limit.values_mut() {
            of_limit.cells.retain(|_, cell| !cell.is_empty(now));
        }
        self.count_cells();
    }

    fn count_cells(&mut self) {
        (self.count, self.addresses) = (0, 0);
        for of_limit in self.by_limit.values_mut() {
            of_limit.sites.clear();
            for holder in of_limit.cells.keys() {
                self.count += 1;
                self.addresses += usize::from(is_address(holder));
                if let Some(site) = Site::of(holder) {
                    *of_limit.sites.entry(site).or_default() += 1;
                }
            }
        }
    }

    fn totals(&mut self, limit: &Arc<str>) -> &mut Totals {
        &mut self.by_limit.entry(Arc::clone(limit)).or_default().totals
    }

    fn denial(&mut self, claims: &mut [Claim], at: usize, misfit: Misfit, now: Duration) -> Denial {
        let mut standing = Standing::default();
        let mut refusing = None;
        for (index, claim) in claims.iter_mut().enumerate() {
            standing.tighten(&self.cell(claim, now).standing(None, now));
            if index == at {
                refusing = Some((Arc::clone(&claim.limit.name), Arc::clone(&claim.holder), claim.limit.key));
            }
        }
        let (limit, holder, key) = refusing.unwrap_or_else(|| (Arc::from(""), Arc::from(""), LimitKey::Global));
        Denial { limit, holder, key, reason: misfit.reason, retry_after: misfit.wait, standing }
    }
}

fn is_address(holder: &str) -> bool {
    holder.starts_with("ip:")
}

/// An IPv6 /48, as a subscriber or an organisation is given it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Site(Ipv6Addr);

impl Site {
    /// The site of a holder that is an IPv6 network.
    fn of(holder: &str) -> Option<Self> {
        let network: Ipv6Addr = holder.strip_prefix("ip:")?.strip_suffix("/64")?.parse().ok()?;
        Some(Self(Ipv6Addr::from_bits(network.to_bits() >> 80 << 80)))
    }

    fn holder(self) -> Arc<str> {
        Arc::from(format!("ip:{}/48", self.0))
    }
}

fn view(limit: &Arc<str>, holder: &Arc<str>, cell: &mut Cell, now: Duration) -> HolderView {
    cell.drain(now);
    HolderView {
        limit: Arc::clone(limit),
        holder: Arc::clone(holder),
        standing: cell.standing(None, now),
        running: cell.running(),
        budget_day: cell.limit.cost_per_day,
        budget_month: cell.limit.cost_per_month,
        utilization: cell.utilization(now),
        refused: cell.refused(now),
    }
}

#[cfg(test)]
#[path = "cells_tests.rs"]
mod tests;
