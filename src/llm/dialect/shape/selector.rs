//! Which events a rule is for.

use super::tree::{Found, Places, Slot, Tree};
use crate::llm::json::Word;
use crate::llm::sse::Event;

/// Longer words of rules name nothing.
const WORD_MAX: usize = 128;

/// Where a part of an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spot {
    /// The name of a server-sent event.
    Name,
    /// All of its data.
    Data,
    /// Its id.
    Id,
    At(Slot),
}

/// What must hold of an event, all of it.
#[derive(Debug, Default)]
pub(super) struct Selector(Vec<Condition>);

#[derive(Debug)]
struct Condition {
    /// One of these places fits.
    spots: Box<[Spot]>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    /// Something stands there that is not empty.
    Filled,
    Is(Glob),
    IsNot(Glob),
}

/// A word in which `*` stands for any run of characters.
#[derive(Debug)]
pub(super) struct Glob {
    first: String,
    /// What must follow in this order, the last at the end; none: the word has no `*`.
    rest: Vec<String>,
}

/// Where some of a set of selectors look: an event that has nothing there fits none of them.
#[derive(Debug, Default)]
pub(super) struct Reach {
    places: Places,
    name: bool,
    /// One fits an event of which nothing is known.
    everywhere: bool,
}

/// An event as rules see it.
#[derive(Clone, Copy)]
pub(super) struct Seen<'e, 'f> {
    pub(super) event: Event<'e>,
    pub(super) found: &'f Found<'e>,
}

impl<'s> Seen<'s, 's> {
    /// All values at a place, as they are written.
    pub(super) fn all(self, spot: Spot) -> Vec<&'s str> {
        match spot {
            Spot::At(slot) => self.found.all(slot).collect(),
            _ => self.value(spot).into_iter().collect(),
        }
    }

    /// The value at a place, as it is written: of several the last.
    pub(super) fn value(self, spot: Spot) -> Option<&'s str> {
        match spot {
            Spot::At(slot) => self.found.last(slot),
            Spot::Data => std::str::from_utf8(self.event.data).ok(),
            Spot::Name => std::str::from_utf8(self.event.name).ok(),
            Spot::Id => std::str::from_utf8(self.event.id).ok(),
        }
    }
}

impl Spot {
    /// Reads a place as it is written.
    pub(super) fn read(written: &str, tree: &mut Tree) -> Result<Self, String> {
        match written {
            "event" => Ok(Self::Name),
            "data" => Ok(Self::Data),
            "id" => Ok(Self::Id),
            pointer => tree.slot(pointer).map(Self::At),
        }
    }
}

impl Selector {
    /// Reads an event as it is chosen; `by` are the places of words alone.
    pub(super) fn read(written: &str, by: &[Spot], tree: &mut Tree) -> Result<Self, String> {
        written.split('&').map(|part| Condition::read(part.trim(), by, tree)).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn fits(&self, seen: Seen<'_, '_>) -> bool {
        self.0.iter().all(|condition| condition.fits(seen))
    }
}

impl Reach {
    /// Takes in where `selector` looks.
    pub(super) fn add(&mut self, selector: &Selector) {
        let wants_something = |condition: &&Condition| !matches!(condition.test, Test::IsNot(_));
        let Some(first) = selector.0.iter().find(wants_something) else {
            self.everywhere = true;
            return;
        };
        for spot in &first.spots {
            match spot {
                Spot::Name => self.name = true,
                Spot::Data | Spot::Id => self.everywhere = true,
                Spot::At(slot) => self.places.add(*slot),
            }
        }
    }

    /// Whether one of the selectors may fit.
    pub(super) fn has(&self, seen: Seen<'_, '_>) -> bool {
        self.everywhere || (self.name && !seen.event.name.is_empty()) || seen.found.has_any(&self.places)
    }
}

impl Condition {
    fn read(written: &str, by: &[Spot], tree: &mut Tree) -> Result<Self, String> {
        if written.is_empty() {
            return Err("an event is chosen by a word, as \"RUN_STARTED\", or a place, as \"/final=true\"".to_owned());
        }
        if written.len() > WORD_MAX {
            return Err(format!("{written:?} is longer than {WORD_MAX} bytes"));
        }
        let named = ["event", "data", "id"].iter().filter_map(|place| written.strip_prefix(place));
        let is_place = written.starts_with('/') || named.into_iter().any(|rest| rest.starts_with(['=', '!']));
        if !is_place {
            return Ok(Self { spots: by.into(), test: Test::Is(Glob::read(written)) });
        }
        let (place, test) = match written.split_once('=') {
            None => (written, Test::Filled),
            Some((place, word)) => match place.strip_suffix('!') {
                Some(place) => (place, Test::IsNot(Glob::read(word))),
                None => (place, Test::Is(Glob::read(word))),
            },
        };
        Ok(Self { spots: [Spot::read(place, tree)?].into(), test })
    }

    fn fits(&self, seen: Seen<'_, '_>) -> bool {
        match &self.test {
            Test::Filled => self.any(seen, is_filled),
            Test::Is(glob) => self.any(seen, |value| glob.fits(value)),
            Test::IsNot(glob) => !self.any(seen, |value| glob.fits(value)),
        }
    }

    fn any(&self, seen: Seen<'_, '_>, test: impl Fn(&[u8]) -> bool) -> bool {
        self.spots.iter().any(|spot| match spot {
            Spot::Name => !seen.event.name.is_empty() && test(seen.event.name),
            Spot::Data => test(seen.event.data.trim_ascii()),
            Spot::Id => !seen.event.id.is_empty() && test(seen.event.id),
            Spot::At(slot) => seen.found.all(*slot).any(|value| with_word(value, &test)),
        })
    }
}

/// Hands out what a value is to a word: a string without its quotes, all else as it is written.
fn with_word(value: &str, test: impl Fn(&[u8]) -> bool) -> bool {
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(string) if !string.contains('\\') => test(string.as_bytes()),
        Some(_) => {
            serde_json::from_str::<Word<'_>>(value).is_ok_and(|word| test(word.0.unwrap_or_default().as_bytes()))
        }
        None => test(value.as_bytes()),
    }
}

/// Whether a value says anything: `null`, `false`, and what is empty do not.
pub(super) fn is_filled(value: &[u8]) -> bool {
    match value {
        b"" | b"null" | b"false" | b"\"\"" => false,
        [b'[', inner @ .., b']'] | [b'{', inner @ .., b'}'] => !inner.trim_ascii().is_empty(),
        _ => true,
    }
}

impl Glob {
    fn read(word: &str) -> Self {
        let mut parts = word.split('*').map(str::to_owned);
        Self { first: parts.next().unwrap_or_default(), rest: parts.collect() }
    }

    pub(super) fn fits(&self, word: &[u8]) -> bool {
        let Some((last, middle)) = self.rest.split_last() else { return word == self.first.as_bytes() };
        let Some(mut left) = word.strip_prefix(self.first.as_bytes()) else { return false };
        for part in middle {
            let Some(at) = memchr::memmem::find(left, part.as_bytes()) else { return false };
            left = left.get(at + part.len()..).unwrap_or_default();
        }
        left.ends_with(last.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(selector: &str, name: &str, data: &str) -> bool {
        let mut tree = Tree::default();
        let by = [Spot::Name, Spot::At(tree.slot("/type").unwrap())];
        let selector = Selector::read(selector, &by, &mut tree).unwrap();
        let mut found = Found::default();
        tree.find(data, &mut found);
        let event = Event { name: name.as_bytes(), data: data.as_bytes(), id: &[] };
        selector.fits(Seen { event, found: &found })
    }

    #[test]
    fn events_are_chosen_by_words_and_places() {
        let data = r#"{"type":"status-update","result":{"final":true,"state":"fa\u0069led","parts":[{"k":"a"},{"k":"b"}]},"n":null}"#;
        for (selector, expected) in [
            ("status-update", true),
            ("status", false),
            ("status*", true),
            ("*update", true),
            ("s*-*e", true),
            ("*", true),
            ("message", true),
            ("event=message", true),
            ("event=other", false),
            ("/result/final=true", true),
            ("/result/final=false", false),
            ("/result/final!=false", true),
            ("/result/state=failed", true),
            ("/result/parts/*/k=b", true),
            ("/result/parts/*/k=c", false),
            ("/result", true),
            ("/n", false),
            ("/nope", false),
            ("/nope!=x", true),
            ("message & /result/final=true", true),
            ("message & /result/final=false", false),
        ] {
            assert_eq!(fits(selector, "message", data), expected, "{selector}");
        }
        assert!(fits("data=stop", "", " stop\n"));
        assert!(!fits("*", "", "{}"), "an event that says nothing of its kind has no word");
    }

    #[test]
    fn what_chooses_nothing_is_refused() {
        let mut tree = Tree::default();
        for written in ["", "a & ", "/a~5=b", &"x".repeat(WORD_MAX + 1)] {
            assert!(Selector::read(written, &[], &mut tree).is_err(), "{written}");
        }
    }
}
