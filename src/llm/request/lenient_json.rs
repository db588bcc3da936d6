//! JSON as the most lenient backends read it. Python's reader accepts UTF-16 and UTF-32, a byte order mark, `NaN` and
//! half a surrogate pair; Node's and Go's accept invalid UTF-8; Go's matches keys in any case, and stops after the
//! first value. What any of them reads must be seen here too.

use std::borrow::Cow;

use serde::de::{Deserialize, IgnoredAny};

use crate::llm::json_repair::without_half_pairs;

/// Whether a key may be read as the one that is called `name`: Go folds case, with two letters outside ASCII.
pub(in crate::llm) fn is_same_key(key: &str, name: &str) -> bool {
    if key.len() == name.len() {
        return key.eq_ignore_ascii_case(name);
    }
    // The long s and the Kelvin sign take more bytes than the letters that they fold to.
    key.len() > name.len() && !key.is_ascii() && fold(key).is_some_and(|key| key.eq_ignore_ascii_case(name))
}

/// Whether a key has letters that other readers fold.
pub(super) fn is_odd(key: &str) -> bool {
    key.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii())
}

/// A key in lower case where it is not so already.
pub(in crate::llm) fn fold(key: &str) -> Option<Cow<'_, str>> {
    /// No key that is read is longer.
    const LONGEST: usize = 64;
    (is_odd(key) && key.len() <= LONGEST).then(|| {
        let letters = key.chars().map(|letter| match letter {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            letter => letter.to_ascii_lowercase(),
        });
        Cow::Owned(letters.collect())
    })
}

/// Reads what a strict reader refused. `None`: nobody reads it.
pub(super) fn read<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Option<T> {
    let text = String::from_utf8_lossy(json);
    let text = without_specials(&text);
    let text = without_half_pairs(text.as_bytes());
    let mut from = serde_json::Deserializer::from_slice(&text);
    let first = T::deserialize(&mut from).ok()?;
    // Lines of JSON are a body too; the first value is what a reader of one value gets.
    from.into_iter::<IgnoredAny>().all(|rest| rest.is_ok()).then_some(first)
}

/// `text` with `null` in place of the numbers that JSON does not have.
fn without_specials(text: &str) -> Cow<'_, str> {
    const SPECIALS: [&str; 3] = ["NaN", "-Infinity", "Infinity"];
    if !SPECIALS.iter().any(|special| text.contains(special)) {
        return Cow::Borrowed(text);
    }
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while !rest.is_empty() {
        let special = SPECIALS.iter().find_map(|special| rest.strip_prefix(special));
        let len = match (special, rest.as_bytes().first()) {
            (Some(after), _) => {
                plain.push_str("null");
                rest = after;
                continue;
            }
            (None, Some(b'"')) => string_end(rest.as_bytes(), 0).unwrap_or(rest.len()),
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        let (kept, after) = rest.split_at_checked(len).unwrap_or((rest, ""));
        plain.push_str(kept);
        rest = after;
    }
    Cow::Owned(plain)
}

/// The end of the string that begins at `from`, behind its closing quote.
pub(in crate::llm) fn string_end(body: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', body.get(at..)?)?;
        match body.get(at) {
            Some(b'"') => return Some(at + 1),
            // A backslash and what it escapes.
            _ => at += 2,
        }
    }
}

/// What a body is in UTF-8, where it is JSON in another encoding, by the rule of Python's reader: a byte order mark, else
/// where the first characters have zeros. `None`: it is none of these. What is no character reads as U+FFFD.
#[must_use]
pub fn in_utf8(body: &[u8]) -> Option<Vec<u8>> {
    let zero = |at: usize| body.get(at).map(|byte| *byte == 0);
    let (skip, unit, big) = match body {
        [0xff, 0xfe, 0, 0, ..] => (4, 4, false),
        [0, 0, 0xfe, 0xff, ..] => (4, 4, true),
        [0xff, 0xfe, ..] => (2, 2, false),
        [0xfe, 0xff, ..] => (2, 2, true),
        [0xef, 0xbb, 0xbf, rest @ ..] => return Some(rest.to_vec()),
        [0, ..] if zero(1) == Some(true) => (0, 4, true),
        [0, _, ..] => (0, 2, true),
        [_, 0, ..] if zero(2) == Some(true) && zero(3) == Some(true) => (0, 4, false),
        [_, 0, ..] => (0, 2, false),
        _ => return None,
    };
    let number = |unit: &[u8]| {
        let byte = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
        if big { unit.iter().fold(0, byte) } else { unit.iter().rev().fold(0, byte) }
    };
    let numbers = body.get(skip..)?.chunks(unit).map(number);
    let text: String = if unit == 4 {
        numbers.map(|number| char::from_u32(number).unwrap_or('\u{fffd}')).collect()
    } else {
        let units = numbers.map(|number| u16::try_from(number).unwrap_or(0xfffd));
        char::decode_utf16(units).map(|letter| letter.unwrap_or('\u{fffd}')).collect()
    };
    Some(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, big: bool) -> Vec<u8> {
        text.encode_utf16().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    }

    fn utf32(text: &str, big: bool) -> Vec<u8> {
        let units = text.chars().map(u32::from);
        units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    }

    #[test]
    fn other_encodings_read_as_utf8() {
        let json = r#"{"model":"ä𝄞"}"#;
        for body in [
            utf16(json, true),
            utf16(json, false),
            utf32(json, true),
            utf32(json, false),
            [&b"\xff\xfe"[..], &utf16(json, false)].concat(),
            [&b"\xfe\xff"[..], &utf16(json, true)].concat(),
            [&b"\xff\xfe\0\0"[..], &utf32(json, false)].concat(),
            [&b"\0\0\xfe\xff"[..], &utf32(json, true)].concat(),
            [&b"\xef\xbb\xbf"[..], json.as_bytes()].concat(),
        ] {
            assert_eq!(in_utf8(&body).as_deref(), Some(json.as_bytes()), "{body:?}");
        }
        for body in [&b""[..], b"{", b"{}", json.as_bytes()] {
            assert_eq!(in_utf8(body), None);
        }
        for body in [&b"\0"[..], b"{\0", b"\xff\xfe{", b"\0\0\0", b"\xd8\0\xd8\0"] {
            let _ = in_utf8(body);
        }
    }

    #[test]
    fn numbers_that_json_has_not_read_as_null() {
        for (text, expected) in [
            (r#"{"a":NaN,"b":[-Infinity,Infinity]}"#, r#"{"a":null,"b":[null,null]}"#),
            (r#"{"NaN":"NaN \" NaN","x":NaN}"#, r#"{"NaN":"NaN \" NaN","x":null}"#),
            (r#"{"a":"NaN"#, r#"{"a":"NaN"#),
            ("ä NaN", "ä null"),
        ] {
            assert_eq!(without_specials(text), expected);
        }
    }

    #[test]
    fn keys_fold_as_go_folds_them() {
        for (key, same) in
            [("model", true), ("MODEL", true), ("Model", true), ("models", false), ("", false), ("\u{17f}", false)]
        {
            assert_eq!(is_same_key(key, "model"), same, "{key}");
        }
        assert!(is_same_key("\u{17f}tream", "stream") && is_same_key("max_to\u{212a}ens", "max_tokens"));
        assert_eq!(fold("model"), None);
        assert_eq!(fold(&"M".repeat(100)), None);
    }
}
