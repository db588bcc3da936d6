//! Matching of `*` patterns, in linear time.

use serde::Serialize;

/// A path pattern: literal text in which `*` stands for any run of characters, `/` included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathPattern(pub Glob);

/// Literal text in which `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Glob {
    pub source: String,
}

impl Glob {
    /// A pattern in which `*` stands for any run of characters, also none.
    pub fn new(source: &str) -> Self {
        Self { source: source.to_owned() }
    }

    /// Whether the whole text matches. Linear in the text's length: each literal part is searched for once, from where
    /// the one before it ended.
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = self.source.split('*');
        let Some(mut rest) = parts.next().and_then(|prefix| text.strip_prefix(prefix)) else {
            return false;
        };
        let Some(suffix) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            match memchr::memmem::find(rest.as_bytes(), part.as_bytes()).and_then(|at| rest.get(at + part.len()..)) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(suffix)
    }

    /// As [`Glob::matches`], whatever the case of letters in ASCII: many backends look for paths and models so.
    pub fn matches_in_any_case(&self, text: &str) -> bool {
        let has_upper = |text: &str| text.bytes().any(|byte| byte.is_ascii_uppercase());
        let folds = || has_upper(text) || has_upper(&self.source);
        self.matches(text)
            || folds() && Self::new(&self.source.to_ascii_lowercase()).matches(&text.to_ascii_lowercase())
    }

    /// The literal text before the first `*`.
    pub fn literal_prefix(&self) -> &str {
        self.source.split('*').next().unwrap_or_default()
    }

    /// Whether there is no `*` at all.
    pub fn is_literal(&self) -> bool {
        !self.source.contains('*')
    }

    /// Whether everything that `other` matches is matched by this one too. May miss some such pairs, never claims one
    /// wrongly: a `*` of the other can only have been taken by a `*` of this one, which takes anything in its place.
    pub fn covers(&self, other: &Self) -> bool {
        self.matches(&other.source)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_cross_slashes() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "/a/b", true),
            ("/v1/*", "/v1/chat/completions", true),
            ("/v1/*", "/v1/", true),
            ("/v1/*", "/v1", false),
            ("/v1/*/completions", "/v1/chat/completions", true),
            ("/v1/*/completions", "/v1/completions", false),
            ("gpt-4o*", "gpt-4o-mini", true),
            ("gpt-4o*", "gpt-4", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*ab*ab", "abab", true),
            ("*ab*ab", "ab", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("**", "x", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn case_may_be_passed_over() {
        for (pattern, text, expected) in [
            ("/v1/*", "/V1/Chat", true),
            ("/API/*", "/api/x", true),
            ("/v1/*", "/v1/x", true),
            ("/v1/*", "/V2/x", false),
            ("Ä*", "ä", false),
        ] {
            assert_eq!(Glob::new(pattern).matches_in_any_case(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_linear_time() {
        // Backtracking would take longer than the universe has.
        let pattern = Glob::new(&format!("{}b", "a*".repeat(200)));
        assert!(!pattern.matches(&"a".repeat(100_000)));
    }

    #[test]
    fn covering() {
        let covers = |a: &str, b: &str| Glob::new(a).covers(&Glob::new(b));
        assert!(covers("*", "/v1/*"));
        assert!(covers("/v1/*", "/v1/chat/*"));
        assert!(covers("/v1/*", "/v1/*"));
        assert!(!covers("/v1/chat", "/v1/*"));
        assert!(!covers("/v1/*", "*"));
    }

    /// The textbook definition, exponential and obviously right.
    fn slow(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => slow(rest, text),
            (Some((b'*', rest)), Some((_, tail))) => slow(rest, text) || slow(pattern, tail),
            (Some((p, rest)), Some((t, tail))) => p == t && slow(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*]{0,8}", text in "[ab]{0,12}") {
            prop_assert_eq!(Glob::new(&pattern).matches(&text), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }

    /// Every text over the letters, up to the length.
    fn texts(letters: &[char], length_max: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut last = all.clone();
        for _ in 0..length_max {
            last = last.iter().flat_map(|text| letters.iter().map(move |letter| format!("{text}{letter}"))).collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    #[test]
    fn what_is_covered_is_matched() {
        let (patterns, texts) = (texts(&['a', 'b', '*'], 3), texts(&['a', 'b'], 4));
        let mut held = 0;
        for (a, b) in patterns.iter().flat_map(|a| patterns.iter().map(move |b| (Glob::new(a), Glob::new(b)))) {
            for text in texts.iter().filter(|text| a.covers(&b) && b.matches(text)) {
                assert!(a.matches(text), "{a:?} covers {b:?}, which matches {text}");
                held += 1;
            }
        }
        assert!(held > 1_000);
    }
}
