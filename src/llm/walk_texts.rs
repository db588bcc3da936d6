//! One pass over a JSON value that hands out the texts under known keys. Only those are read; all else is skipped.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{Word, passed_over};

/// What a value is to who walks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Strings in it are text; a number is a token's id.
    Text,
    /// A text, or a list of messages.
    Messages,
    /// JSON that counts as it is written.
    Raw,
    /// A picture, sound or file; of a list each.
    Media,
    /// A word that says what the whole is.
    Kind,
    /// May hold texts further down.
    Through,
    Skip,
}

/// Takes what a walk finds.
pub(super) trait Sink {
    /// What stands under `key`; the keys of the outermost object have the depth 1.
    fn role(&self, key: &str, depth: usize) -> Role;

    fn text(&mut self, text: &str);

    fn kind(&mut self, _: &str) {}

    fn message(&mut self) {}

    fn media(&mut self) {}

    fn token_id(&mut self) {}
}

/// Walks `json`, which plays `role`. False where it is no JSON, or nested more than 127 deep: what stood before that was
/// handed out.
pub(super) fn walk(json: &[u8], role: Role, sink: &mut impl Sink) -> bool {
    let Ok(text) = std::str::from_utf8(json) else { return false };
    let mut from = serde_json::Deserializer::from_str(text);
    Place { role, depth: 0, sink }.deserialize(&mut from).is_ok() && from.end().is_ok()
}

/// One value on the way.
struct Place<'s, S> {
    role: Role,
    depth: usize,
    sink: &'s mut S,
}

impl<S: Sink> Place<'_, S> {
    fn string(self, text: &str) {
        match self.role {
            Role::Text | Role::Messages => self.sink.text(text),
            Role::Kind => self.sink.kind(text),
            Role::Media => self.sink.media(),
            Role::Raw | Role::Through | Role::Skip => {}
        }
    }

    fn number(self) {
        if matches!(self.role, Role::Text | Role::Messages) {
            self.sink.token_id();
        }
    }
}

impl<'de, S: Sink> DeserializeSeed<'de> for Place<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        match self.role {
            Role::Skip => from.deserialize_ignored_any(IgnoredAny).map(|_| ()),
            Role::Raw => {
                let raw: &RawValue = serde::Deserialize::deserialize(from)?;
                self.sink.text(raw.get());
                Ok(())
            }
            _ => from.deserialize_any(self),
        }
    }
}

impl<'de, S: Sink> Visitor<'de> for Place<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.string(text);
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.number();
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.number();
        Ok(())
    }

    passed_over!(visit_f64 f64, visit_bool bool);

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { role, depth, sink } = self;
        while items.next_element_seed(Place { role, depth, sink: &mut *sink })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let Self { role, depth, sink } = self;
        match role {
            Role::Messages => sink.message(),
            Role::Media => sink.media(),
            _ => {}
        }
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            let role = match role {
                Role::Media => Role::Skip,
                _ => sink.role(key.0.as_deref().unwrap_or_default(), depth + 1),
            };
            fields.next_value_seed(Place { role, depth: depth + 1, sink: &mut *sink })?;
        }
        Ok(())
    }
}
