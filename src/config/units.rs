//! Values as the file writes them: with their place, and with their unit.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Longest duration that is taken: beyond it lies a slip of the unit, and clocks that overflow.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// A value and where it stands in the file, in bytes.
#[derive(Debug, Clone, Default)]
pub struct At<T> {
    pub value: T,
    pub span: Range<usize>,
}

/// A table and where its header, or its braces, stand in the file.
#[derive(Debug, Clone, Default)]
pub struct Table<T> {
    pub value: T,
    pub span: Range<usize>,
}

/// A key that may be left out.
pub trait Written<T> {
    /// What is written, else `default`.
    fn value_or(&self, default: T) -> T;

    /// What is written, else what holds by itself.
    fn value_or_default(&self) -> T
    where
        T: Default,
    {
        self.value_or(T::default())
    }
}

impl<T: Copy> Written<T> for Option<At<T>> {
    fn value_or(&self, default: T) -> T {
        self.as_ref().map_or(default, |at| at.value)
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone)]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<At<T>>),
}

/// A duration, as `"15s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationText(pub Duration);

/// A number of bytes, as `"32MiB"` or `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeText(pub u64);

/// Reads a duration: digits and `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// The words that say what is wrong, and how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text)?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => {
            return Err(format!("a duration needs a unit: \"{number}s\" for seconds, \"{number}ms\" for milliseconds"));
        }
        _ => return Err(format!("unknown unit \"{unit}\": durations are written in ms, s, m, h or d, as \"15s\"")),
    };
    let duration = number.checked_mul(unit_ms).map(Duration::from_millis);
    duration.filter(|d| *d <= DURATION_MAX).ok_or_else(|| "longer than a year".to_owned())
}

/// Reads a number of bytes: digits and a unit, or digits alone.
///
/// # Errors
/// The words that say what is wrong, and how to write it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text)?;
    let unit_bytes: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(format!("unknown unit \"{unit}\": sizes are written in B, KiB, MiB, GiB, kB, MB or GB")),
    };
    let bytes = number.checked_mul(unit_bytes);
    bytes.filter(|b| *b <= 1 << 50).ok_or_else(|| "more than a pebibyte".to_owned())
}

fn split_unit(text: &str) -> Result<(u64, &str), String> {
    if text.starts_with('-') {
        return Err("it cannot be negative".to_owned());
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    if number.is_empty() {
        return Err("it must start with a number, as in \"15s\" or \"32MiB\"".to_owned());
    }
    if unit.starts_with(['.', ',']) {
        return Err("whole numbers only: take a smaller unit, as \"1500ms\" for one and a half seconds".to_owned());
    }
    let number = number.replace('_', "").parse().map_err(|_| "the number is too large".to_owned())?;
    Ok((number, unit.trim()))
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(from)?;
        Ok(Self { span: spanned.span(), value: spanned.into_inner() })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<TableOnly<T>>::deserialize(from)?;
        Ok(Self { span: spanned.span(), value: spanned.into_inner().0 })
    }
}

/// Takes tables alone: what serde derives for a struct would also take a list, by position.
struct TableOnly<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TableOnly<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(TableVisitor(PhantomData)).map(Self)
    }
}

struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        T::deserialize(StrDeserializer::new(text)).map(OneOrMany::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(OneOrMany::Many(values))
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(DurationVisitor).map(Self)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, as \"15s\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse_duration(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for SizeText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(SizeVisitor).map(Self)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size, as \"32MiB\" or 4096")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse_size(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        parse_size(&number.to_string()).map_err(E::custom)
    }
}

/// A wrapper's schema is the schema of what it holds: the place in the file is no part of the file.
macro_rules! schema_of_inner {
    ($wrapper:ident) => {
        impl<T: JsonSchema> JsonSchema for $wrapper<T> {
            fn inline_schema() -> bool {
                T::inline_schema()
            }
            fn schema_name() -> Cow<'static, str> {
                T::schema_name()
            }
            fn schema_id() -> Cow<'static, str> {
                T::schema_id()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                T::json_schema(generator)
            }
        }
    };
}

schema_of_inner!(At);
schema_of_inner!(Table);

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("{}OneOrMany", T::schema_name()))
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Duration")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d)$", "examples": ["250ms", "15s", "10m"] })
    }
}

impl JsonSchema for SizeText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Size")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "pattern": "^[0-9]+ *([bB]|[kKmMgG][iI]?[bB])?$", "examples": ["32MiB", "1GB", "4096"] },
            { "type": "integer", "minimum": 0 },
        ] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, ms) in
            [("250ms", 250), ("15s", 15_000), ("10m", 600_000), ("1h", 3_600_000), ("2d", 172_800_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (text, words) in [
            ("15", "needs a unit: \"15s\""),
            ("15 seconds", "unknown unit \"seconds\""),
            ("-1s", "negative"),
            ("1.5s", "whole numbers"),
            ("s", "start with a number"),
            ("", "start with a number"),
            ("99999999999999999999s", "too large"),
            ("18446744073709551615d", "longer than a year"),
            ("367d", "longer than a year"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("4096", 4096), ("32MiB", 32 << 20), ("1GB", 1_000_000_000), ("1GiB", 1 << 30), ("8 kB", 8_000)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for (text, words) in
            [("1TB", "unknown unit"), ("-5", "negative"), ("9999999GiB", "pebibyte"), ("MiB", "start with a number")]
        {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
