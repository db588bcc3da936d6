//! Runs without a word boundary. A tokenizer splits a text into words first, and takes far longer for a byte of a long word than
//! for one of a short: of 32 KiB of `-` two hundred times as long as of prose. So a long run is not counted whole.

use std::ops::Range;

/// Bytes of a run that are counted. Where runs are no longer, a byte of any text costs what one of prose does: some vocabularies
/// have tokens of up to 128 signs or spaces, and it is runs of more than that which take long.
pub(super) const SIGNS_MAX: usize = 64;

/// The same for letters, of which no vocabulary has tokens so long. Chinese and Thai have no spaces between words.
pub(super) const LETTERS_MAX: usize = 256;

/// Bytes of a run for a token, where what was counted of it may not be like its rest.
const BYTES_PER_TOKEN: usize = 4;

/// What kind of run a character belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Letter,
    Sign,
}

/// The next run in `text` from byte `from` on that is too long to be counted whole.
pub(super) fn next_long(text: &str, from: usize) -> Option<Range<usize>> {
    let (mut start, mut kind) = (from, None);
    for (at, char) in text.get(from..)?.char_indices().map(|(at, char)| (from + at, char)) {
        let next = match kind_of(char) {
            Some(new) if kind.is_none_or(|kind| kind == new) => {
                kind = Some(new);
                continue;
            }
            Some(new) => (at, Some(new)),
            None if char.is_numeric() => (at + char.len_utf8(), None),
            // Marks belong to what they follow.
            None => continue,
        };
        if at - start > most(kind) {
            return Some(start..at);
        }
        (start, kind) = next;
    }
    (text.len() - start > most(kind)).then_some(start..text.len())
}

/// The part of a long run that is counted.
pub(super) fn sample(run: &str) -> &str {
    let kind = run.chars().find_map(kind_of);
    run.get(..run.floor_char_boundary(most(kind))).unwrap_or(run)
}

/// The tokens of a long run of whose [`sample`] there are `tokens`.
pub(super) fn tokens(run: &str, sample: &str, tokens: u64) -> u64 {
    let like_it = scaled(tokens, sample.len() as u64, run.len() as u64);
    let mut chars = run.chars();
    let first = chars.next();
    if chars.all(|char| Some(char) == first) {
        return like_it;
    }
    // A cheap beginning must not stand for what follows it.
    like_it.max((run.len() / BYTES_PER_TOKEN) as u64)
}

/// `None`: marks, which join what is before them, and digits, which every tokenizer takes apart.
fn kind_of(char: char) -> Option<Kind> {
    match char {
        'a'..='z' | 'A'..='Z' => Some(Kind::Letter),
        char if char.is_numeric() => None,
        char if char.is_whitespace() => Some(Kind::Space),
        char if char.is_ascii() => Some(Kind::Sign),
        char if char.is_alphabetic() => Some(Kind::Letter),
        // Punctuation and symbols but for the marks among them. Whatever is not named joins, which finds more runs and not fewer.
        '\u{2010}'..='\u{20cf}' | '\u{2100}'..='\u{2bff}' | '\u{3001}'..='\u{3029}' | '\u{ff01}'..='\u{ff65}' => {
            Some(Kind::Sign)
        }
        _ => None,
    }
}

fn most(kind: Option<Kind>) -> usize {
    if kind == Some(Kind::Letter) { LETTERS_MAX } else { SIGNS_MAX }
}

/// The tokens of `bytes`, where `of` bytes like them have so many.
pub(super) fn scaled(tokens: u64, of: u64, bytes: u64) -> u64 {
    let scaled = u128::from(tokens) * u128::from(bytes) / u128::from(of.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 32 << 10;

    /// Bytes of the longest run that a tokenizer would be handed, and all bytes that it would be.
    fn work(text: &str) -> (usize, usize) {
        let (mut from, mut longest, mut bytes) = (0, 0, 0);
        while let Some(run) = next_long(text, from) {
            let sample = sample(&text[run.clone()]);
            longest = longest.max(sample.len());
            bytes += run.start - from + sample.len();
            from = run.end;
        }
        (longest, bytes + text.len() - from)
    }

    #[test]
    fn what_a_tokenizer_is_handed_has_no_long_runs() {
        for unit in ["-", "=", "*", " ", "\n", " \n", "-=", "_", "—", "。", "-\u{301}", "\u{301}", "\0", "\u{a0}", "😀"]
        {
            let (longest, bytes) = work(&unit.repeat(SIZE / unit.len()));
            assert!(longest <= SIGNS_MAX && bytes <= SIGNS_MAX, "{unit:?}: {bytes}");
        }
        for unit in ["a", "aB", "é", "水", "ก", "ÃÂ", "न\u{94d}", "a\u{301}"] {
            let (longest, bytes) = work(&unit.repeat(SIZE / unit.len()));
            assert!(longest <= LETTERS_MAX && bytes <= LETTERS_MAX, "{unit:?}: {bytes}");
        }
        // However the runs are divided.
        for length in [60, 65, 95, 127, 255, 1023] {
            for (unit, between) in [("-", "a"), ("-", "1"), (" ", "x"), ("*", "。"), ("=", "\n")] {
                let text = (unit.repeat(length) + between).repeat(SIZE / length);
                let (_, bytes) = work(&text);
                let whole = text.len().min(SIZE / length * (SIGNS_MAX + 2 * between.len()));
                assert!(bytes <= whole, "{length} {unit:?}: {bytes} of {whole}");
            }
        }
    }

    #[test]
    fn ordinary_texts_are_handed_over_whole() {
        for text in [
            "The gauge stood two metres above the mean, and the river carried 1,840 m³/s past the old bridge. ",
            "    if let Some(level) = gauge.read(&now)? {\n        levels.push((station_id, level));\n    }\n",
            "水文站的水位计显示河水比平均水位高出两米，老桥下的流量正在增加。",
            "| level | flow |\n|-------|------|\n| 2.1 | 1840 |\n\n\n",
            "hvcNAQELBQAwEjEQMA4GA1UEAwwHVGVzdCBDQTAeFw0yNTAxMDEwMDAwMDBaFw0z+/",
            "31415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253421170679",
        ] {
            let text = text.repeat(100);
            assert_eq!(next_long(&text, 0), None, "{text:.40}");
            assert_eq!(work(&text).1, text.len());
        }
    }

    #[test]
    fn a_run_of_one_character_goes_by_its_bytes_and_any_other_is_never_nearly_free() {
        let dashes = "-".repeat(6_400);
        assert_eq!(tokens(&dashes, sample(&dashes), 1), 100);
        let mixed = "-".repeat(64) + &"+=".repeat(3_168);
        assert_eq!(tokens(&mixed, sample(&mixed), 1), 1_600);
        assert_eq!(tokens(&mixed, sample(&mixed), 32), 3_200);
    }
}
