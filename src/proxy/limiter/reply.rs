//! What the admission script answers.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::limits::{Allowance, Claim, Denial, Reason, Standing};

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
        let standings: Vec<Standing> =
            claims.iter().zip(rest.chunks_exact(4)).filter_map(|(claim, numbers)| standing(claim, numbers)).collect();
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
        let remaining =
            self.standings.get(at).and_then(|standing| standing.tokens).map_or(0, |tokens| tokens.remaining);
        let reason = match cap {
            1 if claim.tokens == 0 => Reason::Debt { per_minute },
            1 => Reason::Tokens { asked: claim.tokens, per_minute, remaining },
            2 => Reason::TooLarge { asked: claim.tokens, most },
            3 => Reason::Requests { per_minute: limit.requests_per_minute.map_or(0, std::num::NonZeroU32::get) },
            4 => Reason::Concurrent { most: limit.concurrent.unwrap_or(0) },
            5 => Reason::CostPerDay,
            _ => Reason::CostPerMonth,
        };
        Some(Denial {
            limit: Arc::clone(&limit.name),
            key: limit.key,
            reason,
            retry_after: wait,
            standing: self.tightest(),
        })
    }
}

fn standing(claim: &Claim, numbers: &[i64]) -> Option<Standing> {
    let [tokens_left, tokens_reset, requests_left, requests_reset] = numbers else { return None };
    let allowance = |limit: u64, remaining: &i64, reset_ms: &i64| Allowance {
        limit,
        remaining: u64::try_from(*remaining).unwrap_or(0),
        reset: Duration::from_millis(u64::try_from(*reset_ms).unwrap_or(0)),
    };
    let limit = &claim.limit;
    Some(Standing {
        tokens: limit.tokens.map(|tokens| allowance(tokens.per_minute, tokens_left, tokens_reset)),
        requests: limit
            .requests_per_minute
            .map(|requests| allowance(u64::from(requests.get()), requests_left, requests_reset)),
    })
}
