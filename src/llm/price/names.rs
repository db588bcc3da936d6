//! Patterns of names, as the catalogue and the table of hosts have them.

/// Whether `text` fits `pattern`: `*` stands for any text, `#` for a digit, and `!text` at the end for what `text` must lack.
/// Takes at most the product of both lengths.
pub(in crate::llm) fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, lacks) = pattern.split_once('!').map_or((pattern, None), |(pattern, lacks)| (pattern, Some(lacks)));
    lacks.is_none_or(|lacks| !text.contains(lacks)) && fits_bytes(pattern.as_bytes(), text.as_bytes())
}

fn fits_bytes(mut pattern: &[u8], mut text: &[u8]) -> bool {
    // Where to go on when what follows the last `*` does not fit: it takes one byte more.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern, text) {
            ([b'*', rest @ ..], _) => {
                retry = Some((rest, text));
                pattern = rest;
                continue;
            }
            ([], []) => return true,
            ([one, rest @ ..], [byte, after @ ..]) if one == byte || (*one == b'#' && byte.is_ascii_digit()) => {
                (pattern, text) = (rest, after);
                continue;
            }
            _ => {}
        }
        let Some((rest, [_, after @ ..])) = retry else { return false };
        retry = Some((rest, after));
        (pattern, text) = (rest, after);
    }
}

/// Which letters, digits and signs a text has, a bit each. Nearly every name lacks one that a pattern has, which takes a
/// moment to see: a catalogue has hundreds of patterns, and each answer's model is looked up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::llm) struct Letters(u64);

impl Letters {
    /// Those of a name.
    pub(in crate::llm) fn of(name: &str) -> Self {
        Self(name.bytes().fold(0, |bits, byte| bits | bit(byte)))
    }

    /// Those that every name has that fits `pattern`.
    pub(in crate::llm) fn needed(pattern: &str) -> Self {
        let needed = pattern.split_once('!').map_or(pattern, |(needed, _)| needed);
        let literal = needed.bytes().filter(|byte| !matches!(byte, b'*' | b'#'));
        Self(literal.fold(0, |bits, byte| bits | bit(byte)))
    }

    /// Whether none of `needed` is missing.
    pub(in crate::llm) fn have(self, needed: Self) -> bool {
        needed.0 & !self.0 == 0
    }
}

/// Signs share what letters and digits leave.
fn bit(byte: u8) -> u64 {
    let at = match byte {
        b'a'..=b'z' => byte - b'a',
        b'0'..=b'9' => 26 + (byte - b'0'),
        _ => 36 + byte % 28,
    };
    1 << at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_fits_lacks_no_letter(pattern in "[ab1*#.-]{0,6}(!c)?", name in "[abc12.-]{0,8}") {
            prop_assert!(!fits(&pattern, &name) || Letters::of(&name).have(Letters::needed(&pattern)));
        }
    }

    #[test]
    fn a_missing_letter_is_seen() {
        let name = Letters::of("gpt-4o-mini");
        for (pattern, expected) in [("gpt-4o*", true), ("*4#*!nano", true), ("gpt-5*", false), ("*nano*", false)] {
            assert_eq!(name.have(Letters::needed(pattern)), expected, "{pattern}");
        }
    }

    #[test]
    fn patterns_fit() {
        for (pattern, text, expected) in [
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4o*", "gpt-4o", true),
            ("*nova*lite*", "us.amazon.nova-2-lite-v1:0", true),
            ("*nova*lite", "us.amazon.nova-2-lite-v1:0", false),
            ("gpt-5-####-##-##", "gpt-5-2025-08-07", true),
            ("gpt-5-####-##-##", "gpt-5-2025-08-0x", false),
            ("gemini-2.5-pro*!-tts", "gemini-2.5-pro-preview", true),
            ("gemini-2.5-pro*!-tts", "gemini-2.5-pro-preview-tts", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("*a*b", "xaxbxb", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_hostile_name_takes_no_time() {
        assert!(!fits("*a*a*a*a*a*a*b", &"a".repeat(10_000)));
    }
}
