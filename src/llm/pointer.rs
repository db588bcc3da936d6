//! JSON pointers (RFC 6901) into bytes: only the way to the value is read.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::Word;

/// A JSON pointer (RFC 6901), taken apart once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer(Vec<String>);

impl Pointer {
    /// Reads `/choices/0/text`; the empty pointer is the whole document. A missing first slash is forgiven here: the
    /// config reader tells the user.
    pub(super) fn parse(pointer: &str) -> Self {
        if pointer.is_empty() {
            return Self(Vec::new());
        }
        let path = pointer.strip_prefix('/').unwrap_or(pointer);
        Self(path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
    }

    /// The value it points to; `None` where there is none, or `json` is not JSON.
    pub(super) fn find<'a>(&self, json: &'a [u8]) -> Option<&'a RawValue> {
        let mut value: &'a RawValue = serde_json::from_slice(json).ok()?;
        for step in &self.0 {
            let mut deserializer = serde_json::Deserializer::from_str(value.get());
            value = Step(step).deserialize(&mut deserializer).ok()??;
        }
        Some(value)
    }
}

/// Takes one member of an object or array, the last of that name.
struct Step<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            if key.is(self.0) {
                found = Some(fields.next_value()?);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let wanted: Option<usize> = self.0.parse().ok();
        let (mut found, mut at) = (None, 0);
        while let Some(item) = items.next_element::<&RawValue>()? {
            if Some(at) == wanted {
                found = Some(item);
            }
            at += 1;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pointer: &str, json: &str) -> Option<String> {
        Pointer::parse(pointer).find(json.as_bytes()).map(|value| value.get().to_owned())
    }

    #[test]
    fn pointers_follow_rfc_6901() {
        let json = r#"{"foo":["bar","baz"],"":0,"a/b":1,"m~n":8,"k\"l":6,"deep":{"x":[{"y":"z"}]}}"#;
        let vectors = [
            ("/foo/0", Some(r#""bar""#)),
            ("/foo", Some(r#"["bar","baz"]"#)),
            ("/", Some("0")),
            ("/a~1b", Some("1")),
            ("/m~0n", Some("8")),
            ("/k\"l", Some("6")),
            ("/deep/x/0/y", Some(r#""z""#)),
            ("/foo/2", None),
            ("/foo/x", None),
            ("/nope", None),
            ("/foo/0/0", None),
        ];
        for (pointer, expected) in vectors {
            assert_eq!(find(pointer, json).as_deref(), expected, "{pointer}");
        }
        assert_eq!(find("", "[1]").as_deref(), Some("[1]"));
        assert_eq!(find("/a", "not json"), None);
    }
}
