//! The decision of a limit: how much remains; or why the request is refused, and for how long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::spend::{Money, Window};
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
    /// Under one limit; of several nothing.
    pub taken: Taken,
}

/// What a holder has taken of one limit: what is spent and what is held, apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Tokens that were used and have not drained.
    pub tokens_spent: u64,
    /// Tokens that requests under way may still use.
    pub tokens_held: u64,
    /// Nano-dollars that requests under way may still cost.
    pub cost_held: u64,
    /// Nano-dollars, spent in 24 hours.
    pub cost_day: u64,
    /// Nano-dollars, spent in 30 days.
    pub cost_month: u64,
}

impl Standing {
    /// Keeps the tighter of both.
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
    /// Who has no more of it, as `user:alice`.
    pub holder: Arc<str>,
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
    /// The money of a window is spent, or so much of it that the request does not fit.
    Spent {
        window: Window,
        money: Money,
    },
    /// The money of a window is not spent: requests that run hold it.
    Held {
        window: Window,
        money: Money,
    },
    /// The shared store cannot be reached, and the limits may not be kept without it.
    Store,
}

impl Reason {
    /// The word used in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokens { .. } | Self::Debt { .. } => "tokens",
            Self::TooLarge { .. } => "too_large",
            Self::Requests { .. } => "requests",
            Self::Concurrent { .. } => "concurrent",
            Self::Spent { window: Window::Day, .. } => "cost_per_day",
            Self::Spent { window: Window::Month, .. } => "cost_per_month",
            Self::Held { .. } => "cost_held",
            Self::Store => "store",
        }
    }

    /// Whether the holder has too much in use: not so where the request fits never, or nobody could look.
    pub fn is_full(self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::Store)
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
            Reason::Spent { window, money } if money.spent >= money.most => {
                write!(f, "What limit `{name}` allows to be spent in {window}{who} is used up.")?;
            }
            Reason::Spent { window, money: Money { asked, spent, most, .. } } => write!(
                f,
                "Limit `{name}` allows {} in {window}{who}. This request may cost {}, and {} are spent.",
                dollars(most),
                dollars(asked),
                dollars(spent)
            )?,
            Reason::Held { window, money: Money { asked, spent, held, most } } => write!(
                f,
                "Limit `{name}` allows {} in {window}{who}. This request may cost {}, {} are spent, and {} are held for \
                 requests that still run; what they do not use is free again when they end.",
                dollars(most),
                dollars(asked),
                dollars(spent),
                dollars(held)
            )?,
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

/// Nano-dollars as `$4.50`, small ones to the millionth.
fn dollars(nano: u64) -> String {
    let dollars = nano as f64 / 1e9;
    let text = if nano >= 1_000_000_000 { format!("${dollars:.2}") } else { format!("${dollars:.6}") };
    match text.split_once('.') {
        Some((whole, cents)) => format!("{whole}.{:0<2}", cents.trim_end_matches('0')),
        None => text,
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
            holder: "user:alice".into(),
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
        let money = |asked, spent, held| Money { asked, spent, held, most: 5_000_000_000 };
        assert_eq!(
            denial(Reason::Spent { window: Window::Day, money: money(0, 5_000_000_001, 0) }, Some(86_000_000)),
            "What limit `per-user` allows to be spent in 24 hours for each user is used up. Try again in 24 h."
        );
        assert_eq!(
            denial(
                Reason::Spent { window: Window::Month, money: money(200_000_000, 4_900_000_000, 1) },
                Some(7_200_000)
            ),
            "Limit `per-user` allows $5.00 in 30 days for each user. This request may cost $0.20, and $4.90 are spent. \
             Try again in 2 h."
        );
        assert_eq!(
            denial(Reason::Held { window: Window::Day, money: money(1_500_000, 0, 5_000_000_000) }, Some(1_000)),
            "Limit `per-user` allows $5.00 in 24 hours for each user. This request may cost $0.0015, $0.00 are spent, and \
             $5.00 are held for requests that still run; what they do not use is free again when they end. Try again in 1 s."
        );
        assert_eq!(
            denial(Reason::Debt { per_minute: 600 }, Some(61_000)),
            "Limit `per-user` allows 600 tokens a minute for each user, and more than that is used. Try again in 61 s."
        );
        assert!(denial(Reason::Concurrent { most: 2 }, Some(1)).ends_with("has ended. Try again in 1 s."));
    }

    #[test]
    fn of_several_limits_the_tightest_is_told() {
        let allowance = |remaining| Some(Allowance { limit: 10, remaining, reset: Duration::ZERO });
        let mut standing = Standing { tokens: allowance(5), ..Standing::default() };
        standing.tighten(&Standing { tokens: allowance(3), requests: allowance(9), ..Standing::default() });
        standing.tighten(&Standing { tokens: allowance(4), ..Standing::default() });
        assert_eq!(standing, Standing { tokens: allowance(3), requests: allowance(9), ..Standing::default() });
    }
}
