//! `shadow` of a `[[route]]`.

use super::super::defaults;
use super::super::file::{ShadowTable, TargetTable};
use super::super::glob::PathPattern;
use super::super::read::Readable;
use super::super::settings::Shadow;
use super::super::units::Table;
use super::Checker;
use super::upstream::Declared;

/// Copies hold their requests' bodies: more at one time is another service.
const CONCURRENT_MAX: u32 = 10_000;

impl Checker<'_> {
    pub(super) fn shadow(
        &mut self,
        table: Option<&Table<ShadowTable>>,
        pattern: &PathPattern,
        readable: &Readable,
        upstreams: &[Declared],
    ) -> Option<Shadow> {
        let table = table?;
        let file = &table.value;
        let as_target = Table {
            value: TargetTable {
                upstream: file.upstream.clone(),
                name: file.name.clone(),
                weight: None,
                path: file.path.clone(),
                model: file.model.clone(),
            },
            span: table.span.clone(),
        };
        match &file.percent {
            None if readable.is_lost(&table.span, "percent") => {}
            None => {
                self.problem(&table.span, "this shadow says no `percent`: the share of requests to copy, as 1 or 0.1")
            }
            Some(at) if !(at.value > 0.0 && at.value <= 100.0) => {
                self.problem(&at.span, "`percent` is the share of requests to copy: above 0, at most 100, as 1 or 0.1");
            }
            Some(_) => {}
        }
        if let Some(at) = file.concurrent.as_ref().filter(|at| !(1..=CONCURRENT_MAX).contains(&at.value)) {
            self.problem(&at.span, format!("`concurrent` is at least 1 and at most {CONCURRENT_MAX}"));
        }
        if let Some(at) = file.tokens_per_minute.as_ref().filter(|at| at.value == 0) {
            self.problem(&at.span, "`tokens_per_minute` of 0 would copy nothing: leave `shadow` out for that");
        }
        let concurrent = file.concurrent.as_ref().map_or(defaults::SHADOW_CONCURRENT, |at| at.value);
        Some(Shadow {
            target: self.target(&as_target, pattern, readable, upstreams)?,
            share: file.percent.as_ref().map_or(0.0, |at| at.value / 100.0),
            concurrent: usize::try_from(concurrent).unwrap_or(usize::MAX),
            tokens_per_minute: file
                .tokens_per_minute
                .as_ref()
                .map_or(defaults::SHADOW_TOKENS_PER_MINUTE, |at| at.value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parsed;

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
