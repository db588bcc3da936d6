//! All the places that rules look at, found in one pass over an event: what no rule names is passed over unread.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::llm::json::{Word, passed_over};

/// The most values that are kept of one event: of a list without end the first ones.
const FOUND_MAX: usize = 64;

/// Steps of a place, and places of a set of rules, at most.
pub(super) const STEPS_MAX: usize = 12;
pub(super) const PLACES_MAX: usize = 256;

/// Which place a value was found at.
pub(super) type Slot = u16;

/// JSON pointers (RFC 6901), in which `*` stands for each item of a list or each value of an object.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    slots: Vec<String>,
}

#[derive(Debug, Default)]
struct Node {
    members: Vec<(String, usize)>,
    /// The node of `*`.
    each: Option<usize>,
    slot: Option<Slot>,
}

/// What an event has at the places of a tree, in the order of the event.
#[derive(Debug, Default)]
pub(super) struct Found<'e> {
    values: Vec<(Slot, &'e str)>,
    /// The places that have a value.
    places: Places,
}

/// A set of places, to tell quickly that an event has nothing at any of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Places([u64; PLACES_MAX / 64]);

impl Places {
    pub(super) fn add(&mut self, slot: Slot) {
        if let Some(word) = self.0.get_mut(usize::from(slot) / 64) {
            *word |= 1 << (slot % 64);
        }
    }

    fn has_any_of(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(one, other)| one & other != 0)
    }
}

impl Tree {
    /// The slot of a pointer, which is made where there is none yet.
    pub(super) fn slot(&mut self, pointer: &str) -> Result<Slot, String> {
        if let Some(at) = self.slots.iter().position(|known| known == pointer) {
            return Ok(Slot::try_from(at).unwrap_or_default());
        }
        let path = match pointer.strip_prefix('/') {
            Some(path) => Some(path),
            None if pointer.is_empty() => None,
            None => return Err("a JSON pointer starts with a slash, as \"/choices/0/text\"".to_owned()),
        };
        if pointer.split('~').skip(1).any(|after| !after.starts_with(['0', '1'])) {
            return Err("in a JSON pointer ~ is written ~0, and a slash inside a key ~1".to_owned());
        }
        let steps: Vec<&str> = path.into_iter().flat_map(|path| path.split('/')).collect();
        if steps.len() > STEPS_MAX {
            return Err(format!("{pointer:?} has {} steps, of {STEPS_MAX} at most", steps.len()));
        }
        let slot = Slot::try_from(self.slots.len()).ok().filter(|slot| usize::from(*slot) < PLACES_MAX);
        let Some(slot) = slot else { return Err(format!("these rules name more than {PLACES_MAX} places")) };
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        for step in steps {
            at = self.child(at, step);
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.slot = Some(slot);
        }
        self.slots.push(pointer.to_owned());
        Ok(slot)
    }

    fn child(&mut self, at: usize, step: &str) -> usize {
        let next = self.nodes.len();
        let Some(node) = self.nodes.get_mut(at) else { return 0 };
        if step == "*" {
            let child = *node.each.get_or_insert(next);
            if child == next {
                self.nodes.push(Node::default());
            }
            return child;
        }
        let name = step.replace("~1", "/").replace("~0", "~");
        if let Some((_, child)) = node.members.iter().find(|(known, _)| *known == name) {
            return *child;
        }
        node.members.push((name, next));
        self.nodes.push(Node::default());
        next
    }

    /// The pointer of a slot.
    #[cfg(test)]
    pub(super) fn pointer(&self, slot: Slot) -> &str {
        self.slots.get(usize::from(slot)).map_or("", String::as_str)
    }

    /// Looks at `json` once. False where it is no JSON; what stood before its fault is found all the same.
    pub(super) fn find<'e>(&self, json: &'e str, found: &mut Found<'e>) -> bool {
        found.values.clear();
        found.places = Places::default();
        let Some(root) = self.nodes.first() else { return true };
        let mut from = serde_json::Deserializer::from_str(json);
        Place { tree: self, node: root, found }.deserialize(&mut from).is_ok() && from.end().is_ok()
    }
}

impl<'e> Found<'e> {
    /// Whether there is a value at one of these places.
    pub(super) fn has_any(&self, places: &Places) -> bool {
        self.places.has_any_of(places)
    }

    /// All values at a place, as they are written.
    pub(super) fn all(&self, slot: Slot) -> impl Iterator<Item = &'e str> {
        self.values.iter().filter(move |(at, _)| *at == slot).map(|(_, value)| *value)
    }

    /// The last value at a place: of a key that comes twice the last counts.
    pub(super) fn last(&self, slot: Slot) -> Option<&'e str> {
        self.values.iter().rev().find(|(at, _)| *at == slot).map(|(_, value)| *value)
    }
}

/// One value on the way.
struct Place<'t, 'f, 'e> {
    tree: &'t Tree,
    node: &'t Node,
    found: &'f mut Found<'e>,
}

impl<'t, 'e> Place<'t, '_, 'e> {
    fn is_leaf(node: &Node) -> bool {
        node.members.is_empty() && node.each.is_none()
    }

    fn note(&mut self, slot: Slot, value: &'e str) {
        if self.found.values.len() < FOUND_MAX {
            self.found.values.push((slot, value));
            self.found.places.add(slot);
        }
    }

    fn below(&mut self, at: usize) -> Place<'t, '_, 'e> {
        Place { tree: self.tree, node: self.tree.nodes.get(at).unwrap_or(self.node), found: &mut *self.found }
    }

    /// Looks at one value for two steps: its own key, and `*`.
    fn both(&mut self, nodes: [usize; 2], raw: &'e RawValue) {
        for at in nodes {
            let mut from = serde_json::Deserializer::from_str(raw.get());
            // It was read as JSON before; nested too deep for a second look it has nothing there.
            drop(self.below(at).deserialize(&mut from));
        }
    }
}

impl<'e> DeserializeSeed<'e> for Place<'_, '_, 'e> {
    type Value = ();

    fn deserialize<D: Deserializer<'e>>(mut self, from: D) -> Result<(), D::Error> {
        let Some(slot) = self.node.slot else { return from.deserialize_any(self) };
        let raw: &'e RawValue = serde::Deserialize::deserialize(from)?;
        self.note(slot, raw.get());
        if Self::is_leaf(self.node) || !raw.get().starts_with(['{', '[']) {
            return Ok(());
        }
        let mut inside = serde_json::Deserializer::from_str(raw.get());
        inside.deserialize_any(self).map_err(serde::de::Error::custom)
    }
}

impl<'e> Visitor<'e> for Place<'_, '_, 'e> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    passed_over!(visit_str &str, visit_u64 u64, visit_i64 i64, visit_f64 f64, visit_bool bool);

    fn visit_map<A: MapAccess<'e>>(mut self, mut fields: A) -> Result<(), A::Error> {
        let node = self.node;
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            let member = node.members.iter().find(|(name, _)| key.is(name)).map(|(_, at)| *at);
            match (member, node.each) {
                (None, None) => drop(fields.next_value::<IgnoredAny>()?),
                (Some(member), Some(each)) => self.both([member, each], fields.next_value()?),
                (Some(at), None) | (None, Some(at)) => fields.next_value_seed(self.below(at))?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'e>>(mut self, mut items: A) -> Result<(), A::Error> {
        let node = self.node;
        for at in 0_usize.. {
            let member = node.members.iter().find(|(name, _)| name.parse() == Ok(at)).map(|(_, at)| *at);
            let more = match (member, node.each) {
                (None, None) => items.next_element::<IgnoredAny>()?.is_some(),
                (Some(member), Some(each)) => {
                    let raw: Option<&'e RawValue> = items.next_element()?;
                    raw.map(|raw| self.both([member, each], raw)).is_some()
                }
                (Some(at), None) | (None, Some(at)) => items.next_element_seed(self.below(at))?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'e>(pointers: &[&str], json: &'e str) -> (bool, Vec<(String, &'e str)>) {
        let mut tree = Tree::default();
        for pointer in pointers {
            tree.slot(pointer).unwrap();
        }
        let mut found = Found::default();
        let is_json = tree.find(json, &mut found);
        (is_json, found.values.iter().map(|(slot, value)| (tree.pointer(*slot).to_owned(), *value)).collect())
    }

    #[test]
    fn all_places_are_found_in_one_pass() {
        let json = r#"{"a":{"b":[{"c":1},{"c":"x"},{"d":2}],"e~/":null},"f":[true],"a2":7}"#;
        let pointers = ["/a/b/*/c", "/a/b/1", "/a/b/1/c", "/a/e~0~1", "/f", "/f/0", "/nope/0"];
        let (is_json, values) = found(&pointers, json);
        assert!(is_json);
        let expected = [
            ("/a/b/*/c", "1"),
            ("/a/b/1", r#"{"c":"x"}"#),
            ("/a/b/1/c", "\"x\""),
            ("/a/b/*/c", "\"x\""),
            ("/a/e~0~1", "null"),
            ("/f", "[true]"),
            ("/f/0", "true"),
        ];
        assert_eq!(values, expected.map(|(pointer, value)| (pointer.to_owned(), value)));
    }

    #[test]
    fn what_is_no_json_is_told_and_bounded() {
        assert!(!found(&["/a"], "{\"a\":1").0);
        assert!(!found(&["/a"], "hello").0);
        assert!(!found(&["/a"], "{\"a\":1} 2").0);
        assert_eq!(found(&["/a"], "3"), (true, vec![]));
        let long = format!("[{}1]", "1,".repeat(1_000));
        assert_eq!(found(&["/*"], &long).1.len(), FOUND_MAX);
    }

    #[test]
    fn hostile_places_are_refused() {
        let mut tree = Tree::default();
        for pointer in ["a", "/a~2", "/a~"] {
            assert!(tree.slot(pointer).is_err(), "{pointer}");
        }
        assert!(tree.slot(&"/a".repeat(STEPS_MAX + 1)).is_err());
        for n in 0..PLACES_MAX {
            tree.slot(&format!("/{n}")).unwrap();
        }
        assert!(tree.slot("/one-more").is_err());
        assert_eq!(tree.slot("/0"), Ok(0), "one that is known needs no more");
    }
}
