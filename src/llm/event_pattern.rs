//! Skips parsing: most events of a stream differ from the one before only in their text. The JSON of such an event is
//! not parsed again.

use memchr::{memchr2, memmem};

use super::reading::Produced;
use super::sse::Event;

/// Longer events are read each for itself.
const LEARNT_MAX: usize = 1 << 10;

/// So many events in turn that were learnt for nothing are enough: something else differs in each.
const FRUITLESS_MAX: u8 = 8;

/// Keys whose strings may differ between events that say the same otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Varying<'k> {
    /// Of the text, all that the event told.
    pub(super) text: &'k str,
    /// Of a string that tells nothing, where the dialect has one; an event may lack it.
    pub(super) noise: Option<&'k str>,
}

/// What the last event was, but for its text.
#[derive(Debug, Default)]
pub(super) struct Pattern {
    /// Boxed: answers in one piece learn nothing, and there are thousands.
    learnt: Option<Box<Learnt>>,
    /// Learnt since one was last met again.
    fruitless: u8,
    /// How often an event was met again.
    #[cfg(test)]
    pub(super) meetings: u32,
}

#[derive(Debug, Default)]
struct Learnt {
    name: Vec<u8>,
    /// The event's bytes without the strings that vary.
    fixed: Vec<u8>,
    /// Where in `fixed` a string was, and whether it was the text. None: nothing is learnt.
    holes: Vec<(usize, bool)>,
    produced: Produced,
}

/// An event that was met again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Met<'e> {
    pub(super) produced: Produced,
    /// Its text; `None` where that is written with escapes.
    pub(super) text: Option<&'e str>,
}

impl Pattern {
    /// Whether `event` is the one that was learnt, with another text that is not empty.
    ///
    /// Exact: a reader for whom only it matters whether that text is empty would find the same.
    pub(super) fn meet<'e>(&mut self, event: Event<'e>) -> Option<Met<'e>> {
        let learnt = self.learnt.as_ref()?;
        let text = learnt.text_of(event).filter(|text| !text.is_empty())?;
        self.fruitless = 0;
        #[cfg(test)]
        {
            self.meetings += 1;
        }
        Some(Met { produced: learnt.produced, text: (!text.contains('\\')).then_some(text) })
    }

    /// Learns an event that told nothing but one text, in which only what `varying` names may differ from then on. Gives
    /// that text back; `None` where there is nothing to learn: the text must stand under its key, not empty, and once.
    pub(super) fn learn<'e>(&mut self, event: Event<'e>, varying: Varying<'_>, produced: Produced) -> Option<&'e str> {
        self.forget();
        if self.fruitless >= FRUITLESS_MAX || event.data.len() + event.name.len() > LEARNT_MAX {
            return None;
        }
        let (text_at, text) = only_string(event.data, varying.text).filter(|(_, text)| !text.is_empty())?;
        let mut strings = vec![(text_at, text, true)];
        let noise = varying.noise.and_then(|key| only_string(event.data, key));
        strings.extend(noise.map(|(at, noise)| (at, noise, false)));
        strings.sort_unstable_by_key(|(at, ..)| *at);
        let learnt = self.learnt.get_or_insert_default();
        let mut from = 0;
        for (at, string, is_text) in strings {
            learnt.fixed.extend_from_slice(event.data.get(from..at).unwrap_or_default());
            learnt.holes.push((learnt.fixed.len(), is_text));
            from = at + string.len();
        }
        learnt.fixed.extend_from_slice(event.data.get(from..).unwrap_or_default());
        learnt.name.extend_from_slice(event.name);
        learnt.produced = produced;
        self.fruitless += 1;
        Some(text)
    }

    /// A pattern that never learns.
    #[cfg(test)]
    pub(super) fn exhausted() -> Self {
        Self { fruitless: FRUITLESS_MAX, ..Self::default() }
    }

    /// Meets nothing until it learns again.
    pub(super) fn forget(&mut self) {
        if let Some(learnt) = &mut self.learnt {
            learnt.holes.clear();
            learnt.fixed.clear();
            learnt.name.clear();
        }
    }
}

impl Learnt {
    fn text_of<'e>(&self, event: Event<'e>) -> Option<&'e str> {
        let mut text = None;
        let (mut rest, mut from) = (event.data, 0);
        for (at, is_text) in &self.holes {
            rest = rest.strip_prefix(self.fixed.get(from..*at)?)?;
            from = *at;
            let string;
            (string, rest) = string_in(rest)?;
            if *is_text {
                text = Some(string);
            }
        }
        text.filter(|_| self.fixed.get(from..) == Some(rest) && event.name == self.name)
    }
}

/// The string that stands under `key`, and where. `None` where there is none, or more than one.
fn only_string<'j>(json: &'j [u8], key: &str) -> Option<(usize, &'j str)> {
    // In JSON a quote inside a string has a backslash before it: what is found is a key, or a string that is no key.
    let quoted = [b"\"", key.as_bytes(), b"\""].concat();
    let mut strings = memmem::find_iter(json, &quoted).filter_map(|at| {
        let rest = json.get(at + quoted.len()..)?.trim_ascii_start().strip_prefix(b":")?;
        let rest = rest.trim_ascii_start().strip_prefix(b"\"")?;
        Some((json.len() - rest.len(), string_in(rest)?.0))
    });
    strings.next().filter(|_| strings.next().is_none())
}

/// The string whose opening quote stood before `json`, as it is written, and what follows from its closing quote on. `None`
/// where it has none, or is not plainly valid.
pub(super) fn string_in(json: &[u8]) -> Option<(&str, &[u8])> {
    let mut end = 0;
    loop {
        end += memchr2(b'"', b'\\', json.get(end..)?)?;
        match json.get(end..)? {
            [b'"', ..] => break,
            [_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => end += 2,
            _ => return None,
        }
    }
    let (string, rest) = json.split_at_checked(end)?;
    let is_plain = string.iter().all(|byte| *byte >= b' ');
    Some((std::str::from_utf8(string).ok().filter(|_| is_plain)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARYING: Varying<'_> = Varying { text: "content", noise: Some("pad") };

    fn learnt(data: &str) -> Pattern {
        let mut pattern = Pattern::default();
        pattern.learn(Event::of(data.as_bytes()), VARYING, Produced::Answer);
        pattern
    }

    fn holes(data: &str) -> usize {
        learnt(data).learnt.map_or(0, |learnt| learnt.holes.len())
    }

    fn met<'e>(pattern: &mut Pattern, data: &'e str) -> Option<Option<&'e str>> {
        pattern.meet(Event::of(data.as_bytes())).map(|met| met.text)
    }

    #[test]
    fn only_the_text_and_the_noise_may_differ() {
        let mut pattern = learnt(r#"{"id":7,"delta":{"content": "The"},"pad":"x","end":null}"#);
        for (event, expected) in [
            (r#"{"id":7,"delta":{"content": "The"},"pad":"x","end":null}"#, Some(Some("The"))),
            (r#"{"id":7,"delta":{"content": " river"},"pad":"","end":null}"#, Some(Some(" river"))),
            (r#"{"id":7,"delta":{"content": "a\n\"b\""},"pad":"\\","end":null}"#, Some(None)),
            (r#"{"id":7,"delta":{"content": ""},"pad":"x","end":null}"#, None),
            (r#"{"id":8,"delta":{"content": "The"},"pad":"x","end":null}"#, None),
            (r#"{"id":7,"delta":{"content": "The"},"pad":"x","end":"stop"}"#, None),
            (r#"{"id":7,"delta":{"content": "The"},"pad":"x","end":null} "#, None),
            (r#"{"id":7,"delta":{"content":"The"},"pad":"x","end":null}"#, None),
            (r#"{"id":7,"delta":{"content": "The","a":"b"},"pad":"x","end":null}"#, None),
            (r#"{"id":7,"delta":{"content": "\u0041"},"pad":"x","end":null}"#, None),
            (r#"{"id":7,"delta":{"content": "\x"},"pad":"x","end":null}"#, None),
            ("{\"id\":7,\"delta\":{\"content\": \"a\nb\"},\"pad\":\"x\",\"end\":null}", None),
            (r#"{"id":7,"delta":{"content": "The"#, None),
            ("", None),
        ] {
            assert_eq!(met(&mut pattern, event), expected, "{event}");
        }
        let named =
            Event { name: b"other", ..Event::of(br#"{"id":7,"delta":{"content": "The"},"pad":"x","end":null}"#) };
        assert_eq!(pattern.meet(named), None);
        pattern.forget();
        assert_eq!(met(&mut pattern, r#"{"id":7,"delta":{"content": "The"},"pad":"x","end":null}"#), None);
        assert_eq!(met(&mut pattern, ""), None);
    }

    #[test]
    fn a_text_that_is_not_plain_to_see_is_not_learnt() {
        for data in [
            r#"{"content":"a","content":"b"}"#,
            r#"{"content":["a"]}"#,
            r#"{"content":""}"#,
            r#"{"text":"a"}"#,
            r#"["content","a"]"#,
            r#"{"a":"\"content\":\"b\""}"#,
            r#"{"content":"a"#,
            "",
        ] {
            assert_eq!(holes(data), 0, "{data}");
        }
        let long = format!(r#"{{"content":"{}"}}"#, "a".repeat(LEARNT_MAX));
        assert_eq!(holes(&long), 0);
        assert_eq!(holes(r#"{"content":"content","is":"content"}"#), 1, "only keys count");
    }

    #[test]
    fn what_is_never_met_again_is_learnt_no_more() {
        let mut pattern = Pattern::default();
        let event = |n: u32| format!(r#"{{"n":{n},"content":"a"}}"#);
        let learn = |pattern: &mut Pattern, n: u32| {
            pattern.learn(Event::of(event(n).as_bytes()), VARYING, Produced::Answer).is_some()
        };
        assert!((0..7).all(|n| learn(&mut pattern, n)));
        assert!(met(&mut pattern, &event(6)).is_some(), "one that is met again begins the count anew");
        assert!((0..8).all(|n| learn(&mut pattern, n)));
        assert!(!learn(&mut pattern, 8));
        assert!(met(&mut pattern, &event(7)).is_none());
    }
}
