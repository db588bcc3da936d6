//! What a route asks of a request beside its head and its model: the size of the prompt, what is in it, and who sends it.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::config::checker::Checker;
use crate::config::glob::Glob;
use crate::config::units::At;
use crate::llm::request::contents::Contents;

/// The conditions of a route, all of which must hold. At least one is there.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Conditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<TokenRange>,
    /// Whether there are tools, pictures, sound; absent: both will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<bool>,
    /// Whether a stream is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Empty: whoever it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<Glob>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub teams: Vec<Glob>,
}

/// What is asked of one of the things beside text.
pub struct ContentCondition {
    /// In the file.
    pub name: &'static str,
    pub wanted: bool,
    has: Has,
}

type Has = fn(&Contents) -> bool;

impl ContentCondition {
    pub fn holds(&self, contents: &Contents) -> bool {
        (self.has)(contents) == self.wanted
    }
}

impl Conditions {
    /// What is asked of the things beside text.
    pub fn contents(&self) -> impl Iterator<Item = ContentCondition> {
        let all: [(_, _, Has); 3] = [
            ("tools", self.tools, |contents| contents.tools),
            ("images", self.images, |contents| contents.images),
            ("audio", self.audio, |contents| contents.audio),
        ];
        all.into_iter().filter_map(|(name, wanted, has)| Some(ContentCondition { name, wanted: wanted?, has }))
    }

    /// Whether something is asked that only the body tells.
    pub fn ask_of_body(&self) -> bool {
        self.prompt_tokens.is_some() || self.stream.is_some() || self.contents().next().is_some()
    }

    /// Whether all that holds for `other` holds for these too. May miss some such pairs, never claims one wrongly.
    fn cover(&self, other: &Self) -> bool {
        let same = |own: Option<bool>, other: Option<bool>| own.is_none() || own == other;
        let names = |own: &[Glob], other: &[Glob]| {
            own.is_empty() || !other.is_empty() && other.iter().all(|name| own.iter().any(|own| own.covers(name)))
        };
        let sizes = match (self.prompt_tokens, other.prompt_tokens) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => own.least <= other.least && other.most <= own.most,
        };
        sizes
            && same(self.tools, other.tools)
            && same(self.images, other.images)
            && same(self.audio, other.audio)
            && same(self.stream, other.stream)
            && names(&self.users, &other.users)
            && names(&self.teams, &other.teams)
    }
}

/// Whether a route with `own` conditions takes all that one with `other` would, as far as conditions go.
pub(super) fn cover(own: Option<&Conditions>, other: Option<&Conditions>) -> bool {
    own.is_none_or(|own| other.is_some_and(|other| own.cover(other)))
}

/// How many tokens a prompt may have, both ends included. `most` is never below `least`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRange {
    pub least: u64,
    pub most: u64,
}

impl TokenRange {
    pub fn has(self, tokens: u64) -> bool {
        (self.least..=self.most).contains(&tokens)
    }

    /// Reads comparisons, as `<2000` or `>=2000 <8000`, all of which must hold.
    fn parse(text: &str) -> Result<Self, String> {
        const HOW: &str = "write it as \"<2000\", \">=2000\" or \">=2000 <8000\"";
        let mut range = Self { least: 0, most: u64::MAX };
        let mut comparisons = 0;
        for part in text.split_whitespace() {
            comparisons += 1;
            let digits = part.trim_start_matches(['<', '>', '=']);
            let number: u64 =
                digits.replace('_', "").parse().map_err(|_| format!("\"{part}\" is no comparison: {HOW}"))?;
            match part.strip_suffix(digits).unwrap_or_default() {
                "<" if number == 0 => return Err(Self::never(text)),
                "<" => range.most = range.most.min(number - 1),
                "<=" => range.most = range.most.min(number),
                ">" => range.least = range.least.max(number.saturating_add(1)),
                ">=" => range.least = range.least.max(number),
                _ => return Err(format!("\"{part}\" is no comparison: {HOW}")),
            }
        }
        match comparisons {
            0 => Err(format!("it is empty: {HOW}")),
            _ if range.least > range.most => Err(Self::never(text)),
            _ => Ok(range),
        }
    }

    fn never(text: &str) -> String {
        format!("no prompt has \"{text}\" tokens, so this route would never match")
    }
}

/// As the file has it.
impl fmt::Display for TokenRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, most } = *self;
        match most.checked_add(1) {
            None => write!(f, ">={least}"),
            Some(end) if least == 0 => write!(f, "<{end}"),
            Some(end) => write!(f, ">={least} <{end}"),
        }
    }
}

impl Serialize for TokenRange {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Whom requests can be known to come from at all, by the rest of the file.
#[derive(Debug, Clone, Copy)]
pub struct Nameable {
    pub users: bool,
    pub teams: bool,
}

impl Checker<'_> {
    pub(super) fn prompt_tokens(&mut self, written: Option<&At<String>>) -> Option<TokenRange> {
        let at = written?;
        let range = TokenRange::parse(&at.value).map_err(|wrong| format!("`prompt_tokens`: {wrong}"));
        self.checked(&at.span, range)
    }

    /// `users` or `teams`, as `key` says; `nameable`: somebody can be known by such a name.
    pub(super) fn names(&mut self, key: &str, written: Option<&At<Vec<At<String>>>>, nameable: bool) -> Vec<Glob> {
        let Some(list) = written else { return Vec::new() };
        if list.value.is_empty() {
            self.problem(&list.span, format!("`{key}` is empty, so nothing would match: leave it out for all"));
        } else if !nameable {
            let message = match key {
                "users" => {
                    "`users`: nothing says who anybody is, so this route would never match: add [[identity.key]], [identity.jwt], or \
                     `server.trusted_proxies` for a proxy that names the user"
                }
                _ => {
                    "`teams`: nothing names a team, so this route would never match: give [[identity.key]] a `team`, or \
                     [identity.jwt] a `team_claim`"
                }
            };
            self.problem(&list.span, message);
        }
        for at in list.value.iter().filter(|at| at.value.trim().is_empty()) {
            self.problem(&at.span, "a name is missing here, as \"alice\" or \"batch-*\"");
        }
        list.value.iter().map(|at| Glob::new(&at.value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::load::tests::parsed;

    fn range(text: &str) -> Result<(u64, u64), String> {
        TokenRange::parse(text).map(|range| (range.least, range.most))
    }

    #[test]
    fn sizes_are_comparisons_that_all_must_hold() {
        for (text, least, most) in [
            ("<2000", 0, 1_999),
            ("<=2_000", 0, 2_000),
            (">2000", 2_001, u64::MAX),
            (">=0", 0, u64::MAX),
            (" >=2000   <8000 ", 2_000, 7_999),
            ("<10 <5", 0, 4),
        ] {
            assert_eq!(range(text), Ok((least, most)), "{text}");
        }
        for text in ["<0", ">=8000 <2000", ">5 <6", ">18446744073709551615 <9"] {
            assert!(range(text).unwrap_err().contains("would never match"), "{text}");
        }
        for text in ["", " ", "2000", "=2000", "<", "<2k", "< 2000", "<<2", "<-1", "<2000,>1", "<99999999999999999999"]
        {
            let told = range(text).unwrap_err();
            assert!(told.contains("write it as \"<2000\""), "{text}: {told}");
        }
    }

    proptest! {
        #[test]
        fn a_size_is_shown_as_it_is_read(least in 0_u64..10_000, more in 0_u64..10_000, open: bool) {
            let range = TokenRange { least, most: if open { u64::MAX } else { least + more } };
            prop_assert_eq!(TokenRange::parse(&range.to_string()), Ok(range));
        }

        #[test]
        fn a_range_covers_what_its_numbers_do(a in 0_u64..20, b in 0_u64..20, c in 0_u64..20, d in 0_u64..20) {
            let of = |x: u64, y: u64| Conditions {
                prompt_tokens: Some(TokenRange { least: x.min(y), most: x.max(y) }), ..Conditions::default()
            };
            let (one, other) = (of(a, b), of(c, d));
            let has = |conditions: &Conditions, n| conditions.prompt_tokens.is_some_and(|range| range.has(n));
            let covers = (0..20).all(|n| !has(&other, n) || has(&one, n));
            prop_assert_eq!(cover(Some(&one), Some(&other)), covers);
        }
    }

    const UPSTREAM: &str = "[[upstream]]\nurl = \"http://h\"\n";
    const KEY: &str = "[[identity.key]]\nteam = \"t\"\nhash = \"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n";

    fn told(text: &str) -> String {
        parsed(text).err().map(|problems| problems.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_can_never_match_is_told_at_its_place() {
        for (line, words) in [
            (
                "prompt_tokens = \"<0\"",
                "4:17: `prompt_tokens`: no prompt has \"<0\" tokens, so this route would never match",
            ),
            ("prompt_tokens = \"many\"", "4:17: `prompt_tokens`: \"many\" is no comparison"),
            ("users = []", "4:9: `users` is empty, so nothing would match"),
            ("users = [\"alice\"]", "4:9: `users`: nothing says who anybody is, so this route would never match"),
            ("teams = [\"search\"]", "4:9: `teams`: nothing names a team, so this route would never match"),
            ("tools = \"yes\"", "4:9"),
        ] {
            let told = told(&format!("{UPSTREAM}[[route]]\n{line}\n"));
            assert!(told.contains(words), "{line}: {told}");
        }
        let empty = told(&format!("{UPSTREAM}[[route]]\nteams = [\" \"]\n{KEY}"));
        assert!(empty.contains("a name is missing here"), "{empty}");
        // A key of a team names no user; a proxy does, and no team.
        assert_eq!(told(&format!("{UPSTREAM}[[route]]\nteams = [\"t*\"]\n{KEY}")), "");
        assert!(told(&format!("{UPSTREAM}[[route]]\nusers = [\"a\"]\n{KEY}")).contains("would never match"));
        let proxy = "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n";
        assert_eq!(told(&format!("{proxy}{UPSTREAM}[[route]]\nusers = [\"a\"]\n")), "");
        assert!(told(&format!("{proxy}{UPSTREAM}[[route]]\nteams = [\"a\"]\n")).contains("would never match"));
    }

    #[test]
    fn a_route_behind_one_with_wider_conditions_is_never_reached() {
        let told = |first: &str, second: &str| {
            told(&format!("{UPSTREAM}[[route]]\nname = \"a\"\n{first}\n[[route]]\nname = \"b\"\n{second}\n"))
        };
        for (first, second) in [
            ("prompt_tokens = \"<8000\"", "prompt_tokens = \"<2000\""),
            ("tools = true", "tools = true\nimages = false"),
            ("", "stream = true"),
        ] {
            assert!(told(first, second).contains("is never reached: \"a\" above it"), "{first} | {second}");
        }
        for (first, second) in [
            ("prompt_tokens = \"<2000\"", "prompt_tokens = \"<8000\""),
            ("prompt_tokens = \"<2000\"", ""),
            ("tools = true", "tools = false"),
            ("tools = true\nmodels = [\"m\"]", "tools = true"),
        ] {
            assert_eq!(told(first, second), "", "{first} | {second}");
        }
    }

    #[test]
    fn the_example_is_right() {
        let settings = parsed(include_str!("../../../config/by-request.toml")).unwrap_or_else(|told| panic!("{told}"));
        let [simple, long, usual] = settings.routes.as_slice() else { panic!("three routes") };
        let size = |conditions: &Option<Box<Conditions>>| conditions.as_ref()?.prompt_tokens;
        assert_eq!(size(&simple.conditions), Some(TokenRange { least: 0, most: 1_999 }));
        assert_eq!(size(&long.conditions), Some(TokenRange { least: 100_000, most: u64::MAX }));
        assert_eq!(usual.conditions, None);
    }

    #[test]
    fn a_route_without_conditions_has_none() {
        let settings = parsed(&format!("{UPSTREAM}[[route]]\n")).unwrap();
        assert!(settings.routes[0].conditions.is_none());
        let settings = parsed(&format!("{UPSTREAM}[[route]]\ntools = false\nprompt_tokens = \"<9\"\n")).unwrap();
        let shown = serde_json::to_value(&*settings.routes[0]).unwrap();
        assert_eq!((&shown["tools"], &shown["prompt_tokens"]), (&false.into(), &"<9".into()));
        assert!(shown.get("images").is_none() && shown.get("users").is_none(), "{shown}");
    }
}
