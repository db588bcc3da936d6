//! `shadow` of a route: where copies of its requests go, and how many.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::target::{Place, Target};
use super::upstream::Declared;
use crate::config::checker::Checker;
use crate::config::glob::PathPattern;
use crate::config::units::{At, Table, Written};

const CONCURRENT: u32 = 10;
const TOKENS_PER_MINUTE: u64 = 100_000;

/// Copies hold their requests' bodies: more at one time is another service.
const CONCURRENT_MAX: u32 = 10_000;

/// Traffic mirroring: copies of LLM requests go to another upstream; its answers are measured, compared and dropped.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorTable {
    #[schemars(required)]
    pub upstream: Option<At<String>>,
    /// Share of requests that are copied.
    #[schemars(required, range(max = 100.0))]
    pub percent: Option<At<f64>>,
    /// Copies at one time; beyond it none are made.
    #[schemars(range(min = 1), extend("default" = 10))]
    pub concurrent: Option<At<u32>>,
    /// Tokens that the copies may take, prompts and answers together; beyond it none are made.
    #[schemars(range(min = 1), extend("default" = 100_000))]
    pub tokens_per_minute: Option<At<u64>>,
    /// What telemetry calls it. Absent: its upstream's name.
    pub name: Option<At<String>>,
    /// Replaces the literal start of the route's path, up to its first `*`.
    pub path: Option<At<String>>,
    /// Replaces the model that a JSON body names.
    pub model: Option<At<String>>,
}

/// `shadow` of a route: where copies of its requests go, and how many.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mirror {
    pub target: Target,
    /// Share of requests, above 0 and at most 1.
    #[serde(rename = "percent", serialize_with = "percent")]
    pub share: f64,
    /// Copies at one time. Never zero.
    pub concurrent: usize,
    /// Tokens that the copies may take, prompts and answers together. Never zero.
    pub tokens_per_minute: u64,
}

fn percent<S: Serializer>(share: &f64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(share * 100.0)
}

impl Checker<'_> {
    pub fn shadow(
        &mut self,
        table: Option<&Table<MirrorTable>>,
        pattern: &PathPattern,
        upstreams: &[Declared],
    ) -> Option<Mirror> {
        let table = table?;
        let file = &table.value;
        let MirrorTable { upstream, name, path, model, .. } = file;
        let place = Place { span: &table.span, upstream, name, path, model };
        let missing = "this shadow says no `percent`: the share of requests to copy, as 1 or 0.1";
        let percent = self.needed(table, "percent", file.percent.as_ref(), missing);
        let message = "`percent` is the share of requests to copy: above 0, at most 100, as 1 or 0.1";
        let percent = self.fitting(percent, |percent| percent > 0.0 && percent <= 100.0, message);
        let message = format!("`concurrent` is at least 1 and at most {CONCURRENT_MAX}");
        self.fitting(file.concurrent.as_ref(), |most| (1..=CONCURRENT_MAX).contains(&most), message);
        let message = "`tokens_per_minute` of 0 would copy nothing: leave `shadow` out for that";
        self.fitting(file.tokens_per_minute.as_ref(), |tokens| tokens > 0, message);
        let concurrent = file.concurrent.value_or(CONCURRENT);
        Some(Mirror {
            target: self.place(&place, pattern, upstreams)?,
            share: percent.map_or(0.0, |percent| percent / 100.0),
            concurrent: usize::try_from(concurrent).unwrap_or(usize::MAX),
            tokens_per_minute: file.tokens_per_minute.value_or(TOKENS_PER_MINUTE),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load::tests::parsed;

    fn route(shadow: &str) -> String {
        format!(
            "[[upstream]]\nname = \"a\"\nurl = \"http://a\"\n[[upstream]]\nname = \"b\"\nurl = \"http://b\"\n\
             [[route]]\npath = \"/v1/*\"\nupstream = \"a\"\nshadow = {shadow}\n"
        )
    }

    #[test]
    fn a_shadow_needs_little_and_says_all_it_wants() {
        let settings = parsed(&route("{ upstream = \"b\", percent = 1 }")).unwrap();
        let shadow = settings.routes[0].shadow.clone().unwrap();
        assert_eq!((&*shadow.target.name, shadow.share), ("b", 0.01));
        assert_eq!((shadow.concurrent, shadow.tokens_per_minute), (10, 100_000));
        let all = "{ upstream = \"b\", name = \"new\", model = \"m2\", path = \"/v2\", percent = 0.5, concurrent = 2, \
                   tokens_per_minute = 7 }";
        let shadow = parsed(&route(all)).unwrap().routes[0].shadow.clone().unwrap();
        assert_eq!((&*shadow.target.name, shadow.target.model.as_deref()), ("new", Some("m2")));
        assert_eq!((shadow.target.path.as_deref(), shadow.share), (Some("/v2"), 0.005));
        assert_eq!((shadow.concurrent, shadow.tokens_per_minute), (2, 7));
    }

    #[test]
    fn each_mistake_is_told_with_its_place() {
        let percent = "`percent` is the share of requests to copy: above 0, at most 100, as 1 or 0.1";
        let cases = [
            ("{ percent = 1 }", "10:10: this target names no `upstream`".to_owned()),
            (
                "{ upstream = \"b\" }",
                "10:10: this shadow says no `percent`: the share of requests to copy, as 1 or 0.1".to_owned(),
            ),
            ("{ upstream = \"b\", percent = 0 }", format!("10:38: {percent}")),
            ("{ upstream = \"b\", percent = 101 }", format!("10:38: {percent}")),
            ("{ upstream = \"b\", percent = nan }", format!("10:38: {percent}")),
            (
                "{ upstream = \"b\", percent = 1, concurrent = 0 }",
                "10:54: `concurrent` is at least 1 and at most 10000".to_owned(),
            ),
            (
                "{ upstream = \"b\", percent = 1, tokens_per_minute = 0 }",
                "10:61: `tokens_per_minute` of 0 would copy nothing: leave `shadow` out for that".to_owned(),
            ),
            ("{ upstream = \"c\", percent = 1 }", "did you mean".to_owned()),
        ];
        for (shadow, expected) in cases {
            let problems = parsed(&route(shadow)).unwrap_err().to_string();
            let fits = problems.contains(&expected) || expected == "did you mean" && problems.contains("\"c\"");
            assert!(fits, "{shadow}\n{problems}\n{expected}");
            assert_eq!(problems.lines().count(), 1, "{problems}");
        }
    }
}
