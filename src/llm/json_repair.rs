//! A second, more lenient reading of JSON that backends send and clients accept: a repeated key, and half a surrogate
//! pair, which JavaScript writes when it splits a text between two deltas.

use std::borrow::Cow;

use memchr::memmem;
use serde::Deserialize;
use serde_json::Value;

/// Longer events are not read again: as a tree they would take many times their size.
const MENDED_MAX: usize = 64 << 10;

/// Reads `json`, which a strict reader refused: of a key that comes twice the last counts, and half a surrogate pair reads
/// as U+FFFD. `None` where it is not JSON even so, or longer than 64 KiB.
pub(super) fn read_mended<'a, T: Deserialize<'a>>(json: &[u8]) -> Option<T> {
    if json.len() > MENDED_MAX {
        return None;
    }
    let value: Value = serde_json::from_slice(&without_half_pairs(json)).ok()?;
    T::deserialize(value).ok()
}

/// `json` with `\ufffd` in place of each escaped surrogate that has no other half.
pub(super) fn without_half_pairs(json: &[u8]) -> Cow<'_, [u8]> {
    if memmem::find(json, b"\\ud").is_none() && memmem::find(json, b"\\uD").is_none() {
        return Cow::Borrowed(json);
    }
    let (mut mended, mut rest) = (Vec::with_capacity(json.len()), json);
    while let Some((first, tail)) = rest.split_first() {
        let len = match (first, tail.first()) {
            (b'\\', Some(b'u')) => match (escaped(rest), rest.get(6..).and_then(escaped)) {
                (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
                (Some(0xd800..0xe000), _) => {
                    mended.extend_from_slice(b"\\ufffd");
                    rest = rest.get(6..).unwrap_or_default();
                    continue;
                }
                _ => 2,
            },
            // What is escaped begins no escape itself.
            (b'\\', Some(_)) => 2,
            _ => 1,
        };
        let (kept, after) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        mended.extend_from_slice(kept);
        rest = after;
    }
    Cow::Owned(mended)
}

/// The code unit that a text begins with as `\u` and four hexadecimal digits.
fn escaped(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_pairs_are_replaced_and_whole_ones_stay() {
        let vectors = [
            (r#""a""#, r#""a""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\uDE00x""#, r#""\ufffdx""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\ud83d\n""#, r#""\ufffd\n""#),
            (r#""\ud8"#, r#""\ud8"#),
            ("\\", "\\"),
        ];
        for (json, expected) in vectors {
            assert_eq!(String::from_utf8_lossy(&without_half_pairs(json.as_bytes())), expected, "{json}");
        }
    }

    #[test]
    fn the_last_of_a_key_counts_and_length_is_bounded() {
        assert_eq!(read_mended::<Value>(br#"{"a":1,"a":"\ud83d"}"#), Some(serde_json::json!({"a": "\u{fffd}"})));
        assert_eq!(read_mended::<Value>(b"{"), None);
        let long = format!("\"{}\"", "x".repeat(MENDED_MAX));
        assert_eq!(read_mended::<Value>(long.as_bytes()), None);
    }
}
