//! Reservations for requests that do not look like an LLM's, as an app's own `POST /api/chat {"message": …}`, and get
//! an LLM's answer. The next such request of the same caller reserves what these answers used before.
//!
//! Bounded; forgotten after an hour. All times must be of one clock.

use std::sync::Arc;
use std::time::Duration;

use super::claim::Used;
use crate::policy::recent_map::RecentMap;

/// Answers kept of each caller and place, and for how long they count.
const ANSWERS: usize = 32;
const FRESH: Duration = Duration::from_secs(3_600);

/// So many answers of all callers must be known before a newcomer holds what they took on average.
const COMMON_MIN: usize = 5;

/// Half of the callers and places kept.
const GENERATION: usize = 5_000;

/// Longest path that is told from others, and longest segment that is taken for a word and not for an id, in bytes.
const PATH_MAX: usize = 200;
const WORD_MAX: usize = 24;

/// Where a request goes. Requests to one place are expected to take about the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Route, method, and the path without what looks like an id.
    exact: Arc<str>,
    /// Route and method.
    any: Arc<str>,
}

impl Place {
    /// The place of a request; `path` has no query.
    #[must_use]
    pub fn new(route: &str, method: &str, path: &str) -> Self {
        // Backends read paths whatever the case of their letters.
        let path = path.get(..path.floor_char_boundary(PATH_MAX)).unwrap_or_default().to_ascii_lowercase();
        let is_id = |word: &str| word.len() > WORD_MAX || word.bytes().any(|byte| byte.is_ascii_digit());
        let words: Vec<&str> = path.split('/').map(|word| if is_id(word) { "*" } else { word }).collect();
        // A method has no space in it, so a route's name cannot be taken for another's.
        Self { exact: format!("{method} {route} {}", words.join("/")).into(), any: format!("{method} {route}").into() }
    }
}

/// What such answers took lately.
#[derive(Debug)]
pub struct UnrecognisedRequests {
    /// By holder and place.
    own: RecentMap<(Arc<str>, Arc<str>), Answers>,
    /// By place.
    common: RecentMap<Arc<str>, Answers>,
}

/// A ring.
#[derive(Debug, Default)]
struct Answers {
    took: Vec<(Duration, Used)>,
    next: usize,
}

impl Default for UnrecognisedRequests {
    fn default() -> Self {
        Self { own: RecentMap::new(GENERATION), common: RecentMap::new(GENERATION) }
    }
}

impl UnrecognisedRequests {
    /// What a request of `holder` is expected to take: as 95 of 100 of its last ones there did, or on the whole route where it is
    /// new there; of a newcomer, what all callers' took there on average. Nothing where nothing is known.
    #[must_use]
    pub fn expected(&self, holder: &Arc<str>, place: &Place, now: Duration) -> Used {
        let own = |place: &Arc<str>| self.own.get(&(Arc::clone(holder), Arc::clone(place)))?.percentile_95(now);
        own(&place.exact)
            .or_else(|| own(&place.any))
            .or_else(|| self.common.get(&place.exact)?.mean(now))
            .unwrap_or_default()
    }

    /// A request has ended, and took so much; nothing where its answer was no LLM's.
    pub fn learn(&mut self, holder: &Arc<str>, place: &Place, used: Used, now: Duration) {
        for place in [&place.exact, &place.any] {
            self.own.entry((Arc::clone(holder), Arc::clone(place)), Answers::default).push(used, now);
        }
        self.common.entry(Arc::clone(&place.exact), Answers::default).push(used, now);
    }
}

impl Answers {
    fn push(&mut self, used: Used, now: Duration) {
        match self.took.get_mut(self.next) {
            Some(slot) => *slot = (now, used),
            None => self.took.push((now, used)),
        }
        self.next = (self.next + 1) % ANSWERS;
    }

    fn fresh(&self, now: Duration) -> impl Iterator<Item = Used> {
        self.took.iter().filter(move |(at, _)| now.saturating_sub(*at) <= FRESH).map(|(_, used)| *used)
    }

    fn percentile_95(&self, now: Duration) -> Option<Used> {
        let (mut tokens, mut costs): (Vec<u64>, Vec<u64>) =
            self.fresh(now).map(|used| (used.tokens, used.cost)).unzip();
        tokens.sort_unstable();
        costs.sort_unstable();
        let at = (tokens.len() * 95).div_ceil(100).checked_sub(1)?;
        Some(Used { tokens: *tokens.get(at)?, cost: *costs.get(at)? })
    }

    fn mean(&self, now: Duration) -> Option<Used> {
        let count = self.fresh(now).count();
        if count < COMMON_MIN {
            return None;
        }
        let sum = |of: fn(Used) -> u64| self.fresh(now).map(of).fold(0_u64, u64::saturating_add) / count as u64;
        Some(Used { tokens: sum(|used| used.tokens), cost: sum(|used| used.cost) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn used(tokens: u64) -> Used {
        Used { tokens, cost: tokens * 10 }
    }

    fn chat() -> Place {
        Place::new("app", "POST", "/api/chat")
    }

    #[test]
    fn a_caller_holds_what_its_last_answers_took() {
        let (mut unforeseen, alice) = (UnrecognisedRequests::default(), Arc::from("user:alice"));
        assert_eq!(unforeseen.expected(&alice, &chat(), NOW), used(0), "nothing is known");
        unforeseen.learn(&alice, &chat(), used(41), NOW);
        assert_eq!(unforeseen.expected(&alice, &chat(), NOW), used(41), "one answer is enough");
        (1..=99).for_each(|tokens| unforeseen.learn(&alice, &chat(), used(tokens), NOW));
        assert_eq!(unforeseen.expected(&alice, &chat(), NOW), used(98), "of the last 32");
        (0..32).for_each(|_| unforeseen.learn(&alice, &chat(), used(0), NOW));
        assert_eq!(unforeseen.expected(&alice, &chat(), NOW), used(0), "they are no LLM's any more");
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let (mut unforeseen, alice) = (UnrecognisedRequests::default(), Arc::from("user:alice"));
        unforeseen.learn(&alice, &chat(), used(41), NOW);
        assert_eq!(unforeseen.expected(&alice, &chat(), NOW + FRESH), used(41));
        assert_eq!(unforeseen.expected(&alice, &chat(), NOW + FRESH + Duration::from_nanos(1)), used(0));
    }

    #[test]
    fn a_newcomer_holds_the_average_and_a_new_path_what_the_route_took() {
        let (mut unforeseen, alice, bob) =
            (UnrecognisedRequests::default(), Arc::from("user:alice"), Arc::from("user:bob"));
        for tokens in [10, 20, 30, 40] {
            unforeseen.learn(&alice, &chat(), used(tokens), NOW);
        }
        assert_eq!(unforeseen.expected(&bob, &chat(), NOW), used(0), "four are too few");
        unforeseen.learn(&alice, &chat(), used(50), NOW);
        assert_eq!(unforeseen.expected(&bob, &chat(), NOW), used(30));
        let elsewhere = Place::new("app", "POST", "/api/summary");
        assert_eq!(unforeseen.expected(&bob, &elsewhere, NOW), used(0));
        assert_eq!(unforeseen.expected(&alice, &elsewhere, NOW), used(50), "another path is no way around");
        assert_eq!(unforeseen.expected(&alice, &Place::new("app", "PUT", "/api/chat"), NOW), used(0));
        assert_eq!(unforeseen.expected(&alice, &Place::new("other", "POST", "/api/chat"), NOW), used(0));
    }

    #[test]
    fn ids_in_a_path_are_one_place() {
        let thread = |id: &str| Place::new("app", "POST", &format!("/threads/{id}/messages"));
        assert_eq!(thread("42"), thread("0af7651916cd43dd8448eb211c80319c"));
        assert_ne!(thread("42"), thread("latest"));
        assert_eq!(Place::new("app", "POST", "/API/Chat"), chat());
        assert_eq!(Place::new("app", "POST", &"/é".repeat(500)), Place::new("app", "POST", &"/é".repeat(900)));
    }

    #[test]
    fn callers_without_end_take_bounded_memory() {
        let mut unforeseen = UnrecognisedRequests::default();
        let first: Arc<str> = Arc::from("user:0");
        for number in 0..3 * GENERATION {
            unforeseen.learn(&Arc::from(format!("user:{number}")), &chat(), used(7), NOW);
        }
        let forgotten = unforeseen.own.get(&(first, Arc::clone(&chat().exact)));
        assert!(forgotten.is_none());
        assert_eq!(unforeseen.expected(&Arc::from("user:new"), &chat(), NOW), used(7));
    }
}
