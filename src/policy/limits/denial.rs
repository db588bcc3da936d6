//! What a limit answers: how much is left, or why not, and until when.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::spend::Window;
use crate::config::limits::LimitKey;

/// One kind of allowance, for the `x-ratelimit-*` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub limit: u64,
    pub remaining: u64,
    /// Until all of it is free again.
    pub reset: Duration,
}

/// Where a holder stands: of several limits the tightest of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    pub tokens: Option<Allowance>,
    pub requests: Option<Allowance>,
}

impl Standing {
    /// Takes what is tighter of both.
    pub fn tighten(&mut self, other: &Self) {
        tighter(&mut self.tokens, other.tokens);
        tighter(&mut self.requests, other.requests);
    }
}

fn tighter(kept: &mut Option<Allowance>, other: Option<Allowance>) {
    if let Some(other) = other
        && kept.is_none_or(|kept| other.remaining < kept.remaining)
    {
        *kept = Some(other);
    }
}

/// A request that a limit refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Denial {
    /// The limit's name.
    pub limit: Arc<str>,
    pub key: LimitKey,
    pub reason: Reason,
    /// When another try is worth it; `None`: never as it stands.
    pub retry_after: Option<Duration>,
    pub standing: Standing,
}

/// Which cap it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Tokens {
        asked: u64,
        per_minute: u64,
        remaining: u64,
    },
    /// More is taken than the burst, and nobody knows what the request will take.
    Debt {
        per_minute: u64,
    },
    /// It can never fit.
    TooLarge {
        asked: u64,
        most: u64,
    },
    Requests {
        per_minute: u32,
    },
    Concurrent {
        most: u32,
    },
    CostPerDay,
    CostPerMonth,
    /// The shared store cannot be reached, and the limits may not be kept without it.
    Store,
}

impl Reason {
    pub(super) fn of_window(window: Window) -> Self {
        match window {
            Window::Day => Self::CostPerDay,
            Window::Month => Self::CostPerMonth,
        }
    }

    /// The word used in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokens { .. } | Self::Debt { .. } => "tokens",
            Self::TooLarge { .. } => "too_large",
            Self::Requests { .. } => "requests",
            Self::Concurrent { .. } => "concurrent",
            Self::CostPerDay => "cost_per_day",
            Self::CostPerMonth => "cost_per_month",
            Self::Store => "store",
        }
    }
}

/// For the client: what happened, and what to do.
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, who) = (&self.limit, each(self.key));
        match self.reason {
            Reason::Tokens { asked, per_minute, remaining } => write!(
                f,
                "Limit `{name}` allows {per_minute} tokens a minute{who}. This request may take {asked}, and \
                 {remaining} are free now."
            )?,
            Reason::Debt { per_minute } => {
                write!(f, "Limit `{name}` allows {per_minute} tokens a minute{who}, and more than that is used.")?;
            }
            Reason::TooLarge { asked, most } => write!(
                f,
                "This request may take {asked} tokens, and limit `{name}` never allows more than {most} at once{who}. \
                 Shorten the prompt, or lower max_tokens."
            )?,
            Reason::Requests { per_minute } => {
                write!(f, "Limit `{name}` allows {per_minute} requests a minute{who}.")?;
            }
            Reason::Concurrent { most } => {
                write!(f, "Limit `{name}` allows {most} requests at one time{who}. Wait until one has ended.")?;
            }
            Reason::CostPerDay => write!(f, "What limit `{name}` allows to be spent in 24 hours{who} is used up.")?,
            Reason::CostPerMonth => write!(f, "What limit `{name}` allows to be spent in 30 days{who} is used up.")?,
            Reason::Store => write!(f, "The limits cannot be looked up at the moment.")?,
        }
        match self.retry_after {
            Some(wait) => write!(f, " Try again in {}.", words(wait)),
            None => Ok(()),
        }
    }
}

fn each(key: LimitKey) -> &'static str {
    match key {
        LimitKey::User => " for each user",
        LimitKey::Team => " for each team",
        LimitKey::Key => " for each API key",
        LimitKey::Ip => " for each address",
        LimitKey::Route => " on this route",
        LimitKey::Global => " in all",
    }
}

fn words(wait: Duration) -> String {
    match wait.as_secs() + u64::from(wait.subsec_nanos() > 0) {
        seconds @ 0..120 => format!("{} s", seconds.max(1)),
        seconds @ 120..7200 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(reason: Reason, retry_after: Option<u64>) -> String {
        let denial = Denial {
            limit: "per-user".into(),
            key: LimitKey::User,
            reason,
            retry_after: retry_after.map(Duration::from_millis),
            standing: Standing::default(),
        };
        denial.to_string()
    }

    #[test]
    fn a_denial_says_what_to_do() {
        assert_eq!(
            denial(Reason::Tokens { asked: 900, per_minute: 600, remaining: 5 }, Some(12_001)),
            "Limit `per-user` allows 600 tokens a minute for each user. This request may take 900, and 5 are free now. \
             Try again in 13 s."
        );
        assert_eq!(
            denial(Reason::TooLarge { asked: 900, most: 600 }, None),
            "This request may take 900 tokens, and limit `per-user` never allows more than 600 at once for each user. \
             Shorten the prompt, or lower max_tokens."
        );
        assert_eq!(
            denial(Reason::Debt { per_minute: 600 }, Some(61_000)),
            "Limit `per-user` allows 600 tokens a minute for each user, and more than that is used. Try again in 61 s."
        );
        assert!(denial(Reason::CostPerDay, Some(86_000_000)).ends_with("is used up. Try again in 24 h."));
        assert!(denial(Reason::Concurrent { most: 2 }, Some(1)).ends_with("has ended. Try again in 1 s."));
    }

    #[test]
    fn of_several_limits_the_tightest_is_told() {
        let allowance = |remaining| Some(Allowance { limit: 10, remaining, reset: Duration::ZERO });
        let mut standing = Standing { tokens: allowance(5), requests: None };
        standing.tighten(&Standing { tokens: allowance(3), requests: allowance(9) });
        standing.tighten(&Standing { tokens: allowance(4), requests: None });
        assert_eq!(standing, Standing { tokens: allowance(3), requests: allowance(9) });
    }
}
