//! Lenient JSON for what backends send: a field of an unexpected type is read as absent, and the rest of its event is
//! still read. Only requested fields are parsed; strings without escapes are borrowed.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::json_repair::read_mended;

/// A value that any JSON can be read into; what a type does not name reads as its default.
pub(super) trait Loose<'de>: Default {
    fn borrowed(text: &'de str) -> Self {
        Self::text(text)
    }

    fn text(_: &str) -> Self {
        Self::default()
    }

    fn number(_: f64) -> Self {
        Self::default()
    }

    fn flag(_: bool) -> Self {
        Self::default()
    }

    /// What an array or an object stands for, where its contents do not matter.
    fn nested() -> Self {
        Self::default()
    }

    fn array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::nested())
    }

    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::nested())
    }
}

/// Hands out each object of a list.
pub(super) fn each<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    mut items: A,
    mut take: impl FnMut(T),
) -> Result<(), A::Error> {
    while let Some(Maybe(item)) = items.next_element::<Maybe<T>>()? {
        item.into_iter().for_each(&mut take);
    }
    Ok(())
}

/// The word under one key of an object, the last where it comes again; all else is passed over.
pub(super) fn member<'de, A: MapAccess<'de>>(mut fields: A, name: &str) -> Result<Word<'de>, A::Error> {
    let mut found = Word::default();
    while let Some(key) = fields.next_key::<Word<'_>>()? {
        match key.is(name) {
            true => found = fields.next_value()?,
            false => drop(fields.next_value::<IgnoredAny>()?),
        }
    }
    Ok(found)
}

/// Reads any JSON value into a [`Loose`] type.
pub(super) fn read_loose<'de, T: Loose<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(LooseVisitor(PhantomData))
}

/// Reads one JSON object; `None` where it is none. (A derived struct alone would take an array too.)
pub(super) fn read_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    let read: Result<Maybe<T>, _> = match std::str::from_utf8(json) {
        // One look at all bytes is cheaper than one at each string.
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(json),
    };
    read.ok().or_else(|| read_mended(json))?.0
}

/// Reads one JSON value of any kind.
pub(super) fn read_value<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    serde_json::from_str(json).ok().or_else(|| read_mended(json.as_bytes()))
}

/// Lets serde read these types as fields.
macro_rules! loose {
    ($($name:ident),+) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::llm::json::read_loose(deserializer)
            }
        }
    )+};
    ($name:ident<'a>) => {
        impl<'de: 'a, 'a> serde::Deserialize<'de> for $name<'a> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::llm::json::read_loose(deserializer)
            }
        }
    };
}
pub(super) use loose;

/// Visits of values of which nothing is read.
macro_rules! passed_over {
    ($($visit:ident $kind:ty),+) => {
        $(fn $visit<E>(self, _: $kind) -> Result<(), E> { Ok(()) })+

        fn visit_unit<E>(self) -> Result<(), E> { Ok(()) }
    };
}

pub(super) use passed_over;

/// A string; `None` for all else.
#[derive(Debug, Default)]
pub(super) struct Word<'a>(pub Option<Cow<'a, str>>);

impl Word<'_> {
    /// The string where there is one that is not empty.
    pub(super) fn filled(&self) -> Option<&str> {
        self.0.as_deref().filter(|word| !word.is_empty())
    }

    pub(super) fn is(&self, word: &str) -> bool {
        self.0.as_deref() == Some(word)
    }
}

impl<'de: 'a, 'a> Loose<'de> for Word<'a> {
    fn borrowed(text: &'de str) -> Self {
        Self(Some(Cow::Borrowed(text)))
    }

    fn text(text: &str) -> Self {
        Self(Some(Cow::Owned(text.to_owned())))
    }
}

/// A number, or none. Of one word, as events have many of them: what is not told is NaN, which JSON cannot write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(f64);

impl Default for Number {
    fn default() -> Self {
        Self(f64::NAN)
    }
}

impl Number {
    pub(super) fn of(value: f64) -> Self {
        Self(value)
    }

    /// `None` for all that is no number.
    pub(super) fn get(self) -> Option<f64> {
        (!self.0.is_nan()).then_some(self.0)
    }

    /// This number, or where it is none the other.
    pub(super) fn or(self, other: Self) -> Self {
        if self.0.is_nan() { other } else { self }
    }

    /// As a count of something: `None` where it is negative.
    pub(super) fn count(self) -> Option<u64> {
        // The cast saturates; NaN is not at least 0.
        (self.0 >= 0.0).then_some(self.0 as u64)
    }

    /// As seconds: `None` where they are negative or beyond all reason.
    pub(super) fn seconds(self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.0).ok()
    }

    /// As milliseconds: `None` where they are negative or beyond all reason.
    pub(super) fn millis(self) -> Option<Duration> {
        Self(self.0 / 1e3).seconds()
    }

    /// As nanoseconds: `None` where they are negative.
    pub(super) fn nanos(self) -> Option<Duration> {
        self.count().map(Duration::from_nanos)
    }
}

impl Loose<'_> for Number {
    fn number(value: f64) -> Self {
        Self(value)
    }
}

/// `true` or `false`; `None` for all else.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flag(pub Option<bool>);

impl Loose<'_> for Flag {
    fn flag(value: bool) -> Self {
        Self(Some(value))
    }
}

/// Whether there is anything: a string, array or object that is not empty, or any number or flag.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Filled(pub bool);

impl<'de> Loose<'de> for Filled {
    fn text(text: &str) -> Self {
        Self(!text.is_empty())
    }

    fn number(_: f64) -> Self {
        Self(true)
    }

    fn flag(_: bool) -> Self {
        Self(true)
    }

    fn array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        let mut filled = false;
        while items.next_element::<IgnoredAny>()?.is_some() {
            filled = true;
        }
        Ok(Self(filled))
    }

    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let mut filled = false;
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            filled = true;
        }
        Ok(Self(filled))
    }
}

/// An object read as `T`; `None` for all else.
#[derive(Debug)]
pub(super) struct Maybe<T>(pub Option<T>);

impl<T> Default for Maybe<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Loose<'de> for Maybe<T> {
    fn object<A: MapAccess<'de>>(fields: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(|value| Self(Some(value)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_loose(deserializer)
    }
}

/// What the value of an `error` key says: a string, or an object with a message. `None`: no error (`null`, `false`, "").
#[derive(Debug, Default)]
pub(super) struct Fault(pub Option<String>);

impl<'de> Loose<'de> for Fault {
    fn text(text: &str) -> Self {
        Self((!text.is_empty()).then(|| text.to_owned()))
    }

    fn number(value: f64) -> Self {
        Self(Some(format!("error {value}")))
    }

    fn flag(value: bool) -> Self {
        Self(value.then(|| "error".to_owned()))
    }

    fn array<A: SeqAccess<'de>>(items: A) -> Result<Self, A::Error> {
        Filled::array(items).map(|Filled(filled)| Self(filled.then(|| "error".to_owned())))
    }

    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let (mut kind, mut message, mut any) = (Word::default(), Word::default(), false);
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            any = true;
            match key.0.as_deref() {
                // `status` is Gemini's word.
                Some("type" | "status") if kind.filled().is_none() => kind = fields.next_value()?,
                Some("message" | "detail") => message = fields.next_value()?,
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Self(match (kind.filled(), message.filled()) {
            (Some(kind), Some(message)) => Some(format!("{kind}: {message}")),
            (Some(word), None) | (None, Some(word)) => Some(word.to_owned()),
            (None, None) => any.then(|| "error".to_owned()),
        }))
    }
}

loose!(Word<'a>);
loose!(Number, Flag, Filled, Fault);

struct LooseVisitor<T>(PhantomData<T>);

impl<'de, T: Loose<'de>> Visitor<'de> for LooseVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<T, E> {
        Ok(T::flag(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<T, E> {
        Ok(T::number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<T, E> {
        Ok(T::number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<T, E> {
        Ok(T::number(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<T, E> {
        Ok(T::borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::text(text))
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<T, A::Error> {
        T::array(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
        T::object(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_say_what_they_can() {
        let vectors = [
            (r#""boom""#, Some("boom")),
            (r#"{"message":"m\n","type":"t","code":429}"#, Some("t: m\n")),
            (r#"{"code":500}"#, Some("error")),
            (r#"["x"]"#, Some("error")),
            ("true", Some("error")),
            ("429", Some("error 429")),
            ("null", None),
            ("false", None),
            (r#""""#, None),
            ("{}", None),
            ("[]", None),
        ];
        for (json, expected) in vectors {
            let fault: Fault = serde_json::from_str(json).unwrap();
            assert_eq!(fault.0.as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn what_clients_read_all_the_same_spoils_no_event() {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Event<'a> {
            #[serde(borrow)]
            model: Word<'a>,
            delta: Maybe<Delta>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Delta {
            content: Filled,
        }
        use serde::Deserialize;
        let json = br#"{"model":"a","delta":{"content":"","content":"\ud83d"},"model":"b"}"#;
        let event: Event<'_> = read_object(json).unwrap();
        assert_eq!(event.model.filled(), Some("b"), "the last of a key counts");
        assert!(event.delta.0.is_some_and(|delta| delta.content.0), "half a surrogate pair is text");
        assert!(read_object::<Event<'_>>(b"{\"model\":\"a\"").is_none());
    }

    #[test]
    fn a_wrong_type_reads_as_absent() {
        for json in ["null", "true", "1", "-1.5", "[1,{\"a\":2}]", "{\"a\":[1]}"] {
            assert!(serde_json::from_str::<Word<'_>>(json).unwrap().0.is_none(), "{json}");
        }
        for json in ["null", "true", "\"12\"", "[1]", "{}", "-1"] {
            assert_eq!(serde_json::from_str::<Number>(json).unwrap().count(), None, "{json}");
        }
        assert_eq!(serde_json::from_str::<Number>("12.0").unwrap().count(), Some(12));
        assert_eq!(serde_json::from_str::<Number>("1e300").unwrap().count(), Some(u64::MAX));
    }
}
