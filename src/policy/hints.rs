//! Hints between the replicas of a fleet: what one has seen of an endpoint that the others had better know. A hint raises a cost, or has the
//! endpoint's health checked; it ejects nothing.

use std::collections::HashMap;
use std::time::Duration;

use crate::words::worded;

/// A hint has an endpoint count as overloaded for so long at most, whatever its `Retry-After` asks for.
pub const OVERLOADED_MAX: Duration = Duration::from_secs(60);

/// What is heard later of a failure is no reason to look at once.
const CHECK_WITHIN: Duration = Duration::from_secs(5);

/// Between two hints of one kind about one place, and between two checks of it of which a hint asks for the second.
const APART: Duration = Duration::from_secs(1);

/// Hints that wait to be told, or were told in the last while.
const KEPT_MAX: usize = 256;

/// Longest name of an upstream, an endpoint or an address that is told or heard, in bytes.
pub const NAME_BYTES_MAX: usize = 512;

worded! {
    /// What a hint is about.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Kind {
        /// It answered 429 with `Retry-After`.
        Overloaded = "overloaded",
        /// It could not be connected to, or was found to be down.
        CheckHealth = "check",
    }
}

/// Where something was seen, in the words of the configuration, which replicas have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    pub upstream: String,
    /// As telemetry names it.
    pub endpoint: String,
    /// What its name stood for. Another replica may have found another.
    pub address: String,
}

/// What one replica tells the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    pub place: Place,
    pub kind: Kind,
    /// For how long it holds from now on.
    pub left: Duration,
}

impl Kind {
    /// For how long a hint holds of which another replica said `told` some time ago; `None`: it is over, or nonsense.
    pub fn left(self, told: Duration, ago: Duration) -> Option<Duration> {
        let most = match self {
            Self::Overloaded => OVERLOADED_MAX,
            Self::CheckHealth => CHECK_WITHIN,
        };
        told.min(most).checked_sub(ago).filter(|left| !left.is_zero())
    }
}

impl Place {
    /// Whether its names are of a length that anything has.
    pub fn is_plausible(&self) -> bool {
        let names = [&self.upstream, &self.endpoint, &self.address];
        names.iter().all(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX)
    }
}

/// What waits to be told: of each place and kind the latest, told once a second at most.
#[derive(Debug, Default)]
pub struct Outbox(HashMap<(Place, Kind), Kept>);

#[derive(Debug, Clone, Copy)]
struct Kept {
    until: Duration,
    waits: bool,
    told: Option<Duration>,
}

impl Outbox {
    /// Keeps a hint that holds for so long, as far as there is room.
    pub fn put(&mut self, place: Place, kind: Kind, holds: Duration, now: Duration) {
        let Some(left) = kind.left(holds, Duration::ZERO).filter(|_| place.is_plausible()) else { return };
        let (key, until) = ((place, kind), now + left);
        if let Some(kept) = self.0.get_mut(&key) {
            if until > kept.until {
                (kept.until, kept.waits) = (until, true);
            }
            return;
        }
        if self.0.len() >= KEPT_MAX {
            self.0.retain(|_, kept| kept.until > now);
        }
        if self.0.len() < KEPT_MAX {
            self.0.insert(key, Kept { until, waits: true, told: None });
        }
    }

    /// What is to be told now. It waits on until [it was](Self::told).
    pub fn due(&mut self, now: Duration) -> Vec<Hint> {
        self.0.retain(|_, kept| kept.until > now || kept.is_fresh(now));
        let due = self.0.iter().filter(|(_, kept)| kept.waits && kept.until > now && !kept.is_fresh(now));
        due.map(|((place, kind), kept)| Hint { place: place.clone(), kind: *kind, left: kept.until - now }).collect()
    }

    /// These were told, which were due at `now`.
    pub fn told(&mut self, hints: Vec<Hint>, now: Duration) {
        for Hint { place, kind, left } in hints {
            if let Some(kept) = self.0.get_mut(&(place, kind)) {
                // What came meanwhile is told later.
                kept.waits = kept.until > now + left;
                kept.told = Some(now);
            }
        }
    }
}

impl Kept {
    fn is_fresh(&self, now: Duration) -> bool {
        self.told.is_some_and(|told| now < told + APART)
    }
}

/// When the health of an upstream's places is checked because of hints. Places are called by any name that tells them apart.
#[derive(Debug, Default)]
pub struct Checks(HashMap<String, Check>);

#[derive(Debug, Clone, Copy, Default)]
struct Check {
    wanted: bool,
    begun: Option<Duration>,
}

/// Which places are to be checked.
#[derive(Debug, PartialEq, Eq)]
pub struct Due {
    pub now: Vec<String>,
    /// When the next is due.
    pub later: Option<Duration>,
}

impl Checks {
    /// A hint asks for a check.
    pub fn want(&mut self, place: String) {
        self.0.entry(place).or_default().wanted = true;
    }

    /// A check begins, because of a hint or since its time has come: that answers hints too.
    pub fn begins(&mut self, place: String, now: Duration) {
        self.0.retain(|_, check| check.wanted || check.due() > now);
        self.0.insert(place, Check { wanted: false, begun: Some(now) });
    }

    /// Which checks hints ask for: those to begin now, which [have begun](Self::begins) with this.
    pub fn due(&mut self, now: Duration) -> Due {
        let wanted = || self.0.iter().filter(|(_, check)| check.wanted);
        let places: Vec<String> =
            wanted().filter(|(_, check)| check.due() <= now).map(|(place, _)| place.clone()).collect();
        let later = wanted().map(|(_, check)| check.due()).filter(|due| *due > now).min();
        for place in &places {
            self.begins(place.clone(), now);
        }
        Due { now: places, later }
    }
}

impl Check {
    /// When the next may begin.
    fn due(&self) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| begun + APART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn place(endpoint: &str) -> Place {
        Place { upstream: "u".to_owned(), endpoint: endpoint.to_owned(), address: "10.0.0.1:80".to_owned() }
    }

    fn due(outbox: &mut Outbox, now: Duration) -> Vec<(String, Kind, Duration)> {
        let hints = outbox.due(now);
        let told = hints.iter().map(|hint| (hint.place.endpoint.clone(), hint.kind, hint.left)).collect();
        outbox.told(hints, now);
        told
    }

    #[test]
    fn no_hint_holds_longer_than_its_kind_may_and_none_that_is_over_counts() {
        assert_eq!(Kind::Overloaded.left(ms(30_000), ms(10_000)), Some(ms(20_000)));
        assert_eq!(Kind::Overloaded.left(Duration::MAX, Duration::ZERO), Some(OVERLOADED_MAX));
        assert_eq!(Kind::Overloaded.left(Duration::MAX, OVERLOADED_MAX), None);
        assert_eq!(Kind::Overloaded.left(ms(3_000), Duration::MAX), None);
        assert_eq!(Kind::CheckHealth.left(Duration::MAX, ms(4_000)), Some(SECOND));
        assert_eq!(Kind::CheckHealth.left(Duration::ZERO, Duration::ZERO), None);
    }

    #[test]
    fn a_place_is_told_of_once_a_second_and_by_its_latest() {
        let mut outbox = Outbox::default();
        for at in 0..20 {
            outbox.put(place("a"), Kind::Overloaded, ms(30_000), ms(at));
        }
        outbox.put(place("a"), Kind::CheckHealth, Duration::MAX, ms(20));
        let mut first = due(&mut outbox, ms(20));
        first.sort_by_key(|(_, kind, _)| kind.as_str());
        assert_eq!(
            first,
            [("a".to_owned(), Kind::CheckHealth, CHECK_WITHIN), ("a".to_owned(), Kind::Overloaded, ms(29_999)),]
        );
        outbox.put(place("a"), Kind::Overloaded, ms(10_000), ms(30));
        assert_eq!(due(&mut outbox, ms(2_000)), [], "it ends sooner than what the others know");
        outbox.put(place("a"), Kind::Overloaded, ms(40_000), ms(2_000));
        outbox.put(place("a"), Kind::Overloaded, ms(50_000), ms(2_100));
        assert_eq!(due(&mut outbox, ms(2_100)), [("a".to_owned(), Kind::Overloaded, ms(50_000))]);
        outbox.put(place("a"), Kind::Overloaded, ms(60_000), ms(2_200));
        assert_eq!(due(&mut outbox, ms(3_000)), [], "it was told less than a second ago");
        assert_eq!(due(&mut outbox, ms(3_100)), [("a".to_owned(), Kind::Overloaded, ms(59_100))]);
    }

    #[test]
    fn what_could_not_be_told_waits_until_it_is_over() {
        let mut outbox = Outbox::default();
        outbox.put(place("a"), Kind::CheckHealth, Duration::MAX, ms(0));
        assert_eq!(outbox.due(ms(10)).len(), 1);
        assert_eq!(outbox.due(ms(4_999)).len(), 1);
        assert_eq!(outbox.due(ms(5_000)), []);
        assert!(outbox.0.is_empty());
    }

    #[test]
    fn what_comes_while_a_hint_is_told_is_told_after_it() {
        let mut outbox = Outbox::default();
        outbox.put(place("a"), Kind::Overloaded, ms(5_000), ms(0));
        let hints = outbox.due(ms(0));
        outbox.put(place("a"), Kind::Overloaded, ms(9_000), ms(10));
        outbox.told(hints, ms(0));
        assert_eq!(due(&mut outbox, ms(1_000)), [("a".to_owned(), Kind::Overloaded, ms(8_010))]);
    }

    #[test]
    fn only_so_many_wait_and_those_that_are_over_make_room() {
        let mut outbox = Outbox::default();
        for number in 0..1_000 {
            outbox.put(place(&number.to_string()), Kind::Overloaded, ms(5_000), ms(0));
        }
        assert_eq!(outbox.due(ms(0)).len(), KEPT_MAX);
        outbox.put(place("late"), Kind::Overloaded, ms(5_000), ms(5_000));
        assert_eq!(due(&mut outbox, ms(5_000)), [("late".to_owned(), Kind::Overloaded, ms(5_000))]);
        let long = Place { address: "a".repeat(NAME_BYTES_MAX + 1), ..place("long") };
        outbox.put(long, Kind::CheckHealth, Duration::MAX, ms(5_000));
        assert_eq!(outbox.due(ms(5_000)), []);
    }

    #[test]
    fn a_place_is_checked_once_a_second_however_many_hints_come() {
        let mut checks = Checks::default();
        let mut begun = 0;
        for at in 0..5_000 {
            checks.want("a".to_owned());
            begun += checks.due(ms(at)).now.len();
        }
        assert_eq!(begun, 5);
        let due = checks.due(ms(5_000));
        assert_eq!((due.now.len(), due.later), (1, None));
        assert_eq!(checks.due(ms(9_000)), Due { now: Vec::new(), later: None }, "nobody asks any more");
    }

    #[test]
    fn a_check_whose_time_has_come_answers_hints_and_puts_off_the_next() {
        let mut checks = Checks::default();
        checks.want("a".to_owned());
        checks.begins("a".to_owned(), ms(100));
        assert_eq!(checks.due(ms(100)), Due { now: Vec::new(), later: None });
        checks.want("a".to_owned());
        checks.want("b".to_owned());
        assert_eq!(checks.due(ms(200)), Due { now: vec!["b".to_owned()], later: Some(ms(1_100)) });
        assert_eq!(checks.due(ms(1_100)).now, ["a"]);
        for number in 0..100_u64 {
            checks.begins(number.to_string(), ms(10_000 * (number + 1)));
        }
        assert_eq!(checks.0.len(), 1, "what began long ago is forgotten");
    }
}
