//! All counts of one holder under one limit: requests, tokens, concurrent requests and spend.

use std::sync::Arc;
use std::time::Duration;

use super::bucket::{Bucket, Full};
use super::claim::{Claim, Used};
use super::denial::{Allowance, Reason, Standing, Taken};
use super::rate::{self, Due};
use super::refusals::Refusals;
use super::spend::{Lack, Money, Spend, Window};
use crate::config::limits::{Limit, TokenLimit};

/// When it is worth to look again whether a stream has ended.
const STREAM_WAIT: Duration = Duration::from_secs(1);

/// State of one holder under one limit.
#[derive(Debug)]
pub(super) struct Cell {
    /// As the last claim knew it.
    pub(super) limit: Arc<Limit>,
    pub(super) bucket: Bucket,
    due: Option<Due>,
    running: u32,
    /// Nano-dollars of requests under way, as estimated.
    cost_held: u64,
    pub(super) spend: Spend,
    /// Since when it is refused more.
    pub(super) refused: Option<Refusals>,
}

/// A claim that fits; what [`Cell::take`] needs to know of the look.
pub(super) struct Fit {
    due: Option<Due>,
    requests_remaining: Option<u64>,
}

/// Why a claim does not fit, and when it may.
pub(super) struct Misfit {
    pub(super) reason: Reason,
    pub(super) wait: Option<Duration>,
}

impl Cell {
    pub(super) fn new(limit: Arc<Limit>) -> Self {
        Self {
            limit,
            bucket: Bucket::default(),
            due: None,
            running: 0,
            cost_held: 0,
            spend: Spend::default(),
            refused: None,
        }
    }

    /// Whether the claim fits. Takes nothing.
    pub(super) fn look(&mut self, claim: &Claim, now: Duration) -> Result<Fit, Misfit> {
        self.limit = Arc::clone(&claim.limit);
        self.drain(now);
        let limit = &claim.limit;
        if let Some(tokens) = limit.tokens.as_ref().filter(|_| claim.tokens > 0 || claim.unforeseen) {
            self.bucket.fits(claim.tokens, tokens).map_err(|full| self.no_tokens(full, claim, tokens))?;
        }
        if let Some(most) = limit.concurrent.filter(|most| claim.runs && self.running >= *most) {
            return Err(Misfit { reason: Reason::Concurrent { most }, wait: Some(STREAM_WAIT) });
        }
        self.fits_budget(claim, now)?;
        let Some(per_minute) = limit.requests_per_minute else {
            return Ok(Fit { due: self.due, requests_remaining: None });
        };
        match rate::check(per_minute, self.due, now) {
            Ok(pass) => Ok(Fit { due: Some(pass.due), requests_remaining: Some(u64::from(pass.remaining)) }),
            Err(wait) => Err(Misfit { reason: Reason::Requests { per_minute: per_minute.get() }, wait: Some(wait) }),
        }
    }

    /// Takes what [`Cell::look`] found to fit.
    pub(super) fn take(&mut self, claim: &Claim, fit: &Fit, now: Duration) -> Standing {
        if claim.limit.tokens.is_some() {
            self.bucket.hold(claim.tokens);
        }
        self.running = self.running.saturating_add(u32::from(claim.runs));
        self.cost_held = self.cost_held.saturating_add(claim.cost);
        self.due = fit.due;
        self.standing(fit.requests_remaining, now)
    }

    /// What a request has used since the last time; `done` ends its hold. Tells whether streams that outran their holds
    /// have nothing left.
    pub(super) fn settle(&mut self, claim: &Claim, before: Used, used: Used, done: bool, now: Duration) -> bool {
        self.drain(now);
        if claim.limit.tokens.is_some() {
            let held_before = claim.tokens.saturating_sub(before.tokens);
            let held = if done { 0 } else { claim.tokens.saturating_sub(used.tokens) };
            self.bucket.settle(held_before.saturating_sub(held), before.tokens, used.tokens);
        }
        if claim.limit.has_budget() {
            self.spend.book(before.cost, used.cost, now);
            let held_before = claim.cost.saturating_sub(before.cost);
            let held = if done { 0 } else { claim.cost.saturating_sub(used.cost) };
            self.cost_held = self.cost_held.saturating_sub(held_before.saturating_sub(held));
        } else if done {
            self.cost_held = self.cost_held.saturating_sub(claim.cost);
        }
        if done {
            self.running = self.running.saturating_sub(u32::from(claim.runs));
        }
        claim.limit.tokens.as_ref().is_some_and(|tokens| self.bucket.is_exhausted(tokens))
    }

    /// Takes over what a shared store says: without it, counting goes on from there.
    pub(super) fn follow(&mut self, limit: &Arc<Limit>, standing: &Standing, now: Duration) {
        self.limit = Arc::clone(limit);
        self.drain(now);
        if let (Some(tokens), Some(told)) = (&limit.tokens, standing.tokens) {
            // Each proxy keeps its part of the burst, and so of what is left of it.
            let whole = told.limit.max(1);
            let remaining = u128::from(told.remaining) * u128::from(tokens.per_minute) / u128::from(whole);
            self.bucket.follow(u64::try_from(remaining).unwrap_or(u64::MAX), tokens);
        }
        if let Some(requests) = standing.requests {
            self.due = Some(rate::due_after(requests.reset, now));
        }
    }

    /// Where this holder stands, without a request.
    pub(super) fn standing(&self, requests_remaining: Option<u64>, now: Duration) -> Standing {
        let tokens = self.limit.tokens.as_ref().map(|tokens| Allowance {
            limit: tokens.per_minute,
            remaining: self.bucket.remaining(tokens),
            reset: self.bucket.reset(tokens),
        });
        let requests = self.limit.requests_per_minute.map(|per_minute| {
            let remaining = requests_remaining.unwrap_or_else(|| {
                rate::check(per_minute, self.due, now).map_or(0, |pass| u64::from(pass.remaining) + 1)
            });
            let reset = self.due.map_or(Duration::ZERO, |due| rate::reset(due, now));
            Allowance { limit: u64::from(per_minute.get()), remaining, reset }
        });
        let taken = Taken {
            tokens_spent: self.bucket.spent(),
            tokens_held: self.bucket.held(),
            cost_held: self.cost_held,
            cost_day: self.spend.sum(Window::Day, now),
            cost_month: self.spend.sum(Window::Month, now),
        };
        Standing { tokens, requests, taken }
    }

    pub(super) fn drain(&mut self, now: Duration) {
        if let Some(tokens) = &self.limit.tokens {
            self.bucket.drain(tokens, now);
        }
    }

    /// Whether forgetting it changes nothing.
    pub(super) fn is_empty(&mut self, now: Duration) -> bool {
        self.drain(now);
        self.running == 0
            && self.bucket.is_empty()
            && self.cost_held == 0
            && self.due.is_none_or(|due| rate::reset(due, now).is_zero())
            && self.spend.is_over(now)
            && self.refused(now).is_none()
    }

    /// The part in use, of the cap that is used most.
    pub(super) fn utilization(&self, now: Duration) -> f64 {
        let limit = &self.limit;
        let tokens = limit.tokens.as_ref().map_or(0.0, |tokens| self.bucket.utilization(tokens));
        let running = limit.concurrent.map_or(0.0, |most| f64::from(self.running) / f64::from(most));
        let requests = self.standing(None, now).requests.map_or(0.0, |requests| {
            requests.limit.saturating_sub(requests.remaining) as f64 / requests.limit.max(1) as f64
        });
        let spent = budgets(limit)
            .map(|(window, most)| self.spend.sum(window, now) as f64 / most.max(1) as f64)
            .fold(0.0, f64::max);
        tokens.max(running).max(requests).max(spent)
    }

    /// Since when it is refused more, unless that is over.
    pub(super) fn refused(&self, now: Duration) -> Option<Refusals> {
        self.refused.filter(|refused| refused.goes_on(now))
    }

    pub(super) fn running(&self) -> u32 {
        self.running
    }

    fn no_tokens(&self, full: Full, claim: &Claim, tokens: &TokenLimit) -> Misfit {
        match full {
            Full::Wait(wait) if claim.tokens == 0 => {
                Misfit { reason: Reason::Debt { per_minute: tokens.per_minute }, wait: Some(wait) }
            }
            Full::Wait(wait) => Misfit {
                reason: Reason::Tokens {
                    asked: claim.tokens,
                    per_minute: tokens.per_minute,
                    remaining: self.bucket.remaining(tokens),
                },
                wait: Some(wait),
            },
            Full::TooLarge => Misfit {
                reason: Reason::TooLarge { asked: claim.tokens, most: tokens.burst.saturating_add(tokens.debt) },
                wait: None,
            },
        }
    }

    /// Of two budgets without room the one that refuses longer.
    fn fits_budget(&self, claim: &Claim, now: Duration) -> Result<(), Misfit> {
        let lacking = budgets(&claim.limit).filter_map(|(window, most)| {
            let spent = self.spend.sum(window, now);
            let money = Money { asked: claim.cost, spent, held: self.cost_held, most };
            Some(match money.lack()? {
                Lack::Spent(excess) => (self.spend.wait(window, excess, now), Reason::Spent { window, money }),
                Lack::Held => (STREAM_WAIT, Reason::Held { window, money }),
            })
        });
        match lacking.max_by_key(|(wait, _)| *wait) {
            Some((wait, reason)) => Err(Misfit { reason, wait: Some(wait) }),
            None => Ok(()),
        }
    }
}

fn budgets(limit: &Limit) -> impl Iterator<Item = (Window, u64)> {
    let day = limit.cost_per_day.map(|most| (Window::Day, most));
    let month = limit.cost_per_month.map(|most| (Window::Month, most));
    day.into_iter().chain(month)
}
