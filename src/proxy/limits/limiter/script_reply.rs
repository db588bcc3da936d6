//! What the admission script answers.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::limits::{Allowance, Claim, Denial, Money, Reason, Standing, Taken, Window};

/// Numbers of a claim in the reply.
const OF_CLAIM: usize = 9;

/// The reply of `admit.lua`.
#[derive(Debug, PartialEq)]
pub(super) struct Reply {
    /// Proxies that are alive.
    pub(super) nodes: u32,
    refusing: Option<Refusing>,
    /// One a claim.
    pub(super) standings: Vec<Standing>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Refusing {
    /// Which claim.
    at: usize,
    cap: i64,
    /// `None`: never.
    wait: Option<Duration>,
}

impl Reply {
    /// `None` where the numbers are no reply.
    pub(super) fn read(numbers: &[i64], claims: &[Claim]) -> Option<Self> {
        let [nodes, refusing, cap, wait, rest @ ..] = numbers else { return None };
        let standings: Vec<Standing> = claims
            .iter()
            .zip(rest.chunks_exact(OF_CLAIM))
            .filter_map(|(claim, numbers)| standing(claim, numbers))
            .collect();
        if standings.len() != claims.len() {
            return None;
        }
        let wait = u64::try_from(*wait).ok().map(Duration::from_millis);
        let at = usize::try_from(*refusing).ok().and_then(|number| number.checked_sub(1));
        let refusing = at.map(|at| Refusing { at, cap: *cap, wait });
        Some(Self { nodes: u32::try_from(*nodes).unwrap_or(1).max(1), refusing, standings })
    }

    pub(super) fn tightest(&self) -> Standing {
        let mut tightest = Standing::default();
        self.standings.iter().for_each(|standing| tightest.tighten(standing));
        tightest
    }

    /// The refusal, where it is one.
    pub(super) fn refusal(&self, claims: &[Claim]) -> Option<Denial> {
        let Refusing { at, cap, wait } = self.refusing?;
        let claim = claims.get(at)?;
        let limit = &claim.limit;
        let tokens = limit.tokens;
        let (per_minute, most) =
            tokens.map_or((0, 0), |tokens| (tokens.per_minute, tokens.burst.saturating_add(tokens.debt)));
        let standing = self.standings.get(at)?;
        let remaining = standing.tokens.map_or(0, |tokens| tokens.remaining);
        let Taken { cost_held: held, cost_day, cost_month, .. } = standing.taken;
        let money = |spent, most: Option<u64>| Money { asked: claim.cost, spent, held, most: most.unwrap_or(0) };
        let (day, month) = (money(cost_day, limit.cost_per_day), money(cost_month, limit.cost_per_month));
        let reason = match cap {
            1 if claim.tokens == 0 => Reason::Debt { per_minute },
            1 => Reason::Tokens { asked: claim.tokens, per_minute, remaining },
            2 => Reason::TooLarge { asked: claim.tokens, most },
            3 => Reason::Requests { per_minute: limit.requests_per_minute.map_or(0, std::num::NonZeroU32::get) },
            4 => Reason::Concurrent { most: limit.concurrent.unwrap_or(0) },
            5 => Reason::Spent { window: Window::Day, money: day },
            6 => Reason::Spent { window: Window::Month, money: month },
            7 => Reason::Held { window: Window::Day, money: day },
            _ => Reason::Held { window: Window::Month, money: month },
        };
        Some(Denial {
            limit: Arc::clone(&limit.name),
            holder: Arc::clone(&claim.holder),
            key: limit.key,
            reason,
            retry_after: wait,
            standing: self.tightest(),
        })
    }
}

fn standing(claim: &Claim, numbers: &[i64]) -> Option<Standing> {
    let [tokens_left, tokens_reset, requests_left, requests_reset, taken @ ..] = numbers else { return None };
    let [tokens_spent, tokens_held, cost_held, cost_day, cost_month] = taken else { return None };
    let whole = |number: &i64| u64::try_from(*number).unwrap_or(0);
    let allowance = |limit: u64, remaining: &i64, reset_ms: &i64| Allowance {
        limit,
        remaining: whole(remaining),
        reset: Duration::from_millis(whole(reset_ms)),
    };
    let limit = &claim.limit;
    Some(Standing {
        tokens: limit.tokens.map(|tokens| allowance(tokens.per_minute, tokens_left, tokens_reset)),
        requests: limit
            .requests_per_minute
            .map(|requests| allowance(u64::from(requests.get()), requests_left, requests_reset)),
        taken: Taken {
            tokens_spent: whole(tokens_spent),
            tokens_held: whole(tokens_held),
            cost_held: whole(cost_held),
            cost_day: whole(cost_day),
            cost_month: whole(cost_month),
        },
    })
}
