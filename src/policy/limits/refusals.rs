//! Since when a limit refuses, and how often: for one holder, or for all holders.

use std::time::Duration;

/// After so long without a refusal the limit is full no more; the next one begins anew.
const QUIET: Duration = Duration::from_secs(300);

/// Refusals with no longer pause between them than five minutes. Times count from the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusals {
    /// The last one's cap, as a bounded word.
    pub reason: &'static str,
    pub first: Duration,
    pub last: Duration,
    pub count: u64,
}

impl Refusals {
    /// Counts one more.
    pub(super) fn note(kept: &mut Option<Self>, reason: &'static str, now: Duration) {
        let before = kept.filter(|kept| kept.goes_on(now));
        let (first, count) = before.map_or((now, 0), |before| (before.first, before.count));
        *kept = Some(Self { reason, first, last: now, count: count.saturating_add(1) });
    }

    /// Whether it is not over yet.
    pub(super) fn goes_on(&self, now: Duration) -> bool {
        now.saturating_sub(self.last) <= QUIET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_from_the_first_refusal_until_it_was_quiet() {
        let (mut kept, s) = (None, Duration::from_secs);
        [1_000, 1_200, 1_500].into_iter().for_each(|at| Refusals::note(&mut kept, "tokens", s(at)));
        assert_eq!(kept, Some(Refusals { reason: "tokens", first: s(1_000), last: s(1_500), count: 3 }));
        assert!(kept.unwrap().goes_on(s(1_800)) && !kept.unwrap().goes_on(s(1_801)));
        Refusals::note(&mut kept, "requests", s(1_801));
        assert_eq!(kept, Some(Refusals { reason: "requests", first: s(1_801), last: s(1_801), count: 1 }));
    }
}
