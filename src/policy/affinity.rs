//! Session affinity: the requests of one session go to the same endpoint, whose cache holds what came before.
//!
//! Weighted rendezvous hashing with equal weights: each endpoint draws a number from the session's key and its own address, and the
//! highest is the session's home. Replicas agree on it without a word, as long as they have the same endpoints; when one goes, only its
//! sessions move. A home that has more than its share of the requests in flight passes sessions on to the next in their order
//! (consistent hashing with bounded loads, arXiv:1608.01350).

use super::cohort::hash;
use super::identity::Identity;
use crate::words::worded;

/// Requests in flight that any endpoint may have, however small its share.
const IN_FLIGHT_MIN: u64 = 2;

/// How much dearer than the next endpoint a home may be.
const DEARER: f64 = 2.0;

/// Seconds until the first token that are not slow, whatever others take: to leave a home costs a prompt that is computed again.
const QUICK: f64 = 0.5;

/// A session, as a number that is the same in every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(pub u64);

/// Where the key of a session was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// The header of this name.
    Header(&'a str),
    /// `prompt_cache_key` of the body.
    CacheKey,
    /// The conversation that the body names.
    Conversation,
    /// Instructions, tools and the first message of the user.
    Opening,
}

impl Key {
    /// Mixes what names a session with who sends it (the user, else the API key, else the team) and the model: two users with one
    /// session's name have nothing in common.
    #[must_use]
    pub fn new(source: Source<'_>, value: &[u8], identity: &Identity, model: Option<&str>) -> Self {
        let kind: &[u8] = match source {
            Source::Header(_) => b"header",
            Source::CacheKey => b"cache key",
            Source::Conversation => b"conversation",
            Source::Opening => b"opening",
        };
        let (kind_of_name, name) = match identity {
            Identity { user: Some(user), .. } => (&b"user"[..], user.as_bytes()),
            Identity { key: Some(key), .. } => (&b"key"[..], key.as_bytes()),
            Identity { team: Some(team), .. } => (&b"team"[..], team.as_bytes()),
            _ => (&b""[..], &b""[..]),
        };
        Self(hash(&[kind, value, kind_of_name, name, model.unwrap_or_default().as_bytes()]))
    }
}

/// What an endpoint's address stands for in the draw.
#[must_use]
pub fn place_of(endpoint: &str, address: &str) -> u64 {
    hash(&[endpoint.as_bytes(), address.as_bytes()])
}

/// What a place draws for a session; the highest is its home. Both numbers are hashes already: their mix has to be one, too.
#[must_use]
pub fn draw(key: Key, place: u64) -> u64 {
    // SplitMix64's finalizer (Steele, Lea and Flood, 2014).
    let mut mixed = key.0 ^ place.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A place that could be asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// As [`place_of`] has it.
    pub hash: u64,
    /// Whether it is believed to answer, and has said nothing else lately.
    pub usable: bool,
    pub in_flight: u32,
    /// Average seconds until its first token, faded since the last one; `None`: it is not known.
    pub latency: Option<f64>,
    /// The same, as it was last: a place that is not asked does not become faster by that.
    pub last_latency: Option<f64>,
}

worded! {
    /// What became of a session's affinity.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum AffinityResult {
        /// It went to its home.
        Home = "home",
        /// It went to another endpoint, since its home is down, refused requests lately, or is slow.
        Second = "second",
        /// It went to another endpoint, since its home has more than its share in flight.
        Spilled = "spilled",
        /// The request names no session: power of two choices.
        None = "none",
    }
}

/// Which place a session's request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Out of the places.
    pub at: usize,
    pub result: AffinityResult,
    /// The session's home.
    pub home: usize,
    /// Requests in flight that a place may have with this one.
    pub most: u64,
}

/// Chooses among `places`; where none is usable, all are. `None`: there are none. A place may have so many requests in flight as
/// `spill` times the mean, and at least two.
#[must_use]
pub fn choose(key: Key, places: &[Place], spill: f64) -> Option<Choice> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    let drawn = |at: &usize| places.get(*at).map(|place| (draw(key, place.hash), place.hash));
    order.sort_by_key(|at| std::cmp::Reverse(drawn(at)));
    let home = *order.first()?;
    let of = |at: usize| places.get(at);
    if places.iter().any(|place| place.usable) {
        order.retain(|at| of(*at).is_some_and(|place| place.usable));
    }
    let in_flight = |at: usize| of(at).map_or(u64::MAX, |place| u64::from(place.in_flight));
    let total: u64 = order.iter().map(|at| in_flight(*at)).fold(0, u64::saturating_add);
    let mean = total.saturating_add(1) as f64 / order.len().max(1) as f64;
    let most = ((spill * mean).ceil() as u64).max(IN_FLIGHT_MIN);
    let has_room = |at: &&usize| in_flight(**at) < most;
    let chosen = |at: usize, result| Some(Choice { at, result, home, most });
    let first = *order.first()?;
    if !has_room(&&first) {
        // One has fewer than the mean, whatever the bound.
        let at = *order.iter().find(has_room).or_else(|| order.iter().min_by_key(|at| in_flight(**at)))?;
        return chosen(at, AffinityResult::Spilled);
    }
    if first != home {
        return chosen(first, AffinityResult::Second);
    }
    match order.iter().skip(1).find(has_room) {
        Some(second) if is_dearer(of(home)?, of(*second)?) => chosen(*second, AffinityResult::Second),
        _ => chosen(home, AffinityResult::Home),
    }
}

/// Whether one more request would cost more than twice as much at `home` as at `second`, where both are known.
fn is_dearer(home: &Place, second: &Place) -> bool {
    let cost =
        |latency: Option<f64>, place: &Place| Some(latency?.max(QUICK) * f64::from(place.in_flight.saturating_add(1)));
    let (own, other) = (cost(home.latency, home), cost(second.last_latency, second));
    own.zip(other).is_some_and(|(own, other)| own > DEARER * other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(number: usize) -> Place {
        let hash = place_of("vllm", &format!("10.0.0.{number}:8000"));
        Place { hash, usable: true, in_flight: 0, latency: None, last_latency: None }
    }

    fn places(count: usize) -> Vec<Place> {
        (0..count).map(place).collect()
    }

    fn key(number: u64) -> Key {
        Key::new(Source::Opening, &number.to_be_bytes(), &Identity::default(), Some("m"))
    }

    fn home(key: Key, places: &[Place]) -> usize {
        choose(key, places, 1.25).unwrap().at
    }

    #[test]
    fn homes_stay_over_restarts() {
        // A fixed number: another hash would empty every cache once.
        assert_eq!(draw(Key(7), 9), draw(Key(7), 9));
        let homes: Vec<usize> = (0..16).map(|number| home(key(number), &places(4))).collect();
        let mut turned = places(4);
        turned.reverse();
        let again: Vec<usize> = (0..16).map(|number| 3 - home(key(number), &turned)).collect();
        assert_eq!(homes, again, "the order in the file means nothing");
    }

    #[test]
    fn a_key_is_of_who_sends_it_and_of_the_model() {
        let identity = |user: &str| Identity { user: Some(user.into()), ..Identity::default() };
        let of =
            |source, value: &str, user: &str, model| Key::new(source, value.as_bytes(), &identity(user), Some(model));
        let one = of(Source::Header("x-session-id"), "s", "alice", "m");
        assert_eq!(one, of(Source::Header("x-thread"), "s", "alice", "m"), "whatever the header is called");
        for other in [
            of(Source::Header("x-session-id"), "t", "alice", "m"),
            of(Source::Header("x-session-id"), "s", "bob", "m"),
            of(Source::Header("x-session-id"), "s", "alice", "n"),
            of(Source::CacheKey, "s", "alice", "m"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_home_wins_unless_something_speaks_against_it() {
        let (key, free) = (key(1), places(3));
        let at = home(key, &free);
        let with = |change: &dyn Fn(&mut Place)| {
            let mut places = free.clone();
            change(&mut places[at]);
            choose(key, &places, 1.25).unwrap()
        };
        assert_eq!(with(&|_| {}).result, AffinityResult::Home);
        let down = with(&|home| home.usable = false);
        assert_eq!((down.result, down.home), (AffinityResult::Second, at));
        let busy = |in_flight| with(&|home| home.in_flight = in_flight);
        assert_eq!((busy(1).result, busy(1).most), (AffinityResult::Home, 2), "two at least");
        assert_eq!(busy(2).result, AffinityResult::Spilled);
        assert_eq!(busy(2).at, down.at, "the next in the session's order");
        let none = choose(key, &free.iter().map(|place| Place { usable: false, ..*place }).collect::<Vec<_>>(), 1.25);
        assert_eq!(none.unwrap().at, at, "where all are down, one is asked all the same");
        assert_eq!(choose(key, &[], 1.25), None);
    }

    #[test]
    fn a_slow_home_gives_way_to_one_that_is_known_to_be_twice_as_fast() {
        let (key, free) = (key(1), places(2));
        let at = home(key, &free);
        let with = |own: Option<f64>, other: Option<f64>| {
            let mut places = free.clone();
            (places[at].latency, places[1 - at].last_latency) = (own, other);
            choose(key, &places, 1.25).unwrap().result
        };
        assert_eq!(with(Some(2.1), Some(1.0)), AffinityResult::Second);
        assert_eq!(with(Some(1.9), Some(1.0)), AffinityResult::Home);
        assert_eq!(with(Some(0.9), Some(0.01)), AffinityResult::Home, "quick enough to stay");
        assert_eq!(with(Some(1.1), Some(0.01)), AffinityResult::Second);
        assert_eq!(with(Some(9.0), None), AffinityResult::Home, "of one that was never asked nothing is known");
        assert_eq!(with(None, Some(0.1)), AffinityResult::Home);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn losing_one_endpoint_moves_only_its_sessions(count in 2_usize..12, lost in 0_usize..12, from: u64) {
            let (all, lost) = (places(count), lost % count);
            let left: Vec<Place> = all.iter().enumerate().filter(|(at, _)| *at != lost).map(|(_, place)| *place).collect();
            for number in 0..200 {
                let key = key(from.wrapping_add(number));
                let before = all[home(key, &all)].hash;
                if before != all[lost].hash {
                    prop_assert_eq!(left[home(key, &left)].hash, before);
                }
            }
        }

        #[test]
        fn no_place_has_more_than_its_share(loads in prop::collection::vec(0_u32..40, 1..10), number: u64, spill in 1.0_f64..3.0) {
            let places: Vec<Place> = loads.iter().enumerate().map(|(at, load)| Place { in_flight: *load, ..place(at) }).collect();
            let choice = choose(key(number), &places, spill).unwrap();
            let mean = (loads.iter().sum::<u32>() + 1) as f64 / loads.len() as f64;
            let most = ((spill * mean).ceil() as u64).max(2);
            prop_assert_eq!(choice.most, most);
            prop_assert!(u64::from(loads[choice.at]) < most, "{:?} of {:?}", choice, loads);
            prop_assert_eq!(choice.result == AffinityResult::Home, choice.at == choice.home);
        }
    }

    #[test]
    fn sessions_are_spread_evenly_and_a_quarter_moves_when_one_of_four_goes() {
        const SESSIONS: u64 = 20_000;
        let all = places(4);
        let mut counts = [0_u64; 4];
        (0..SESSIONS).for_each(|number| counts[home(key(number), &all)] += 1);
        for count in counts {
            let share = count as f64 / SESSIONS as f64;
            assert!((0.24..=0.26).contains(&share), "{counts:?}");
            assert!(share <= 0.27, "as many move as it had");
        }
    }
}
