use proptest::prelude::*;

use super::*;
use crate::config::Settings;

/// Settings of two upstreams, a and b, and these routes.
fn settings(routes: &str) -> Settings {
    let text = format!(
        "{routes}\n[[upstream]]\nname = \"a\"\nurl = \"http://a\"\n[[upstream]]\nname = \"b\"\nurl = \"http://b/base\"\n"
    );
    let no_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    crate::config::parse(&text, "test.toml", &|_| None, &no_file).unwrap_or_else(|problems| panic!("{problems}"))
}

const NOBODY: Identity = Identity { user: None, team: None, key: None };

fn head<'a>(method: &'a str, path: &'a str, model: Option<&'a str>) -> RequestHead<'a> {
    RequestHead { method, path, header: &|_| None, identity: &NOBODY, model, body: BodyFacts::default() }
}

fn picked<'a>(settings: &'a Settings, head: &RequestHead<'_>) -> Option<&'a str> {
    pick(&settings.routes, head).map(|route| &*route.name)
}

const ROUTES: &str = r#"
[[route]]
name = "gold"
path = "/v1/*"
headers = { X-Tier = "gold" }
upstream = "a"
[[route]]
name = "big"
path = "/v1/chat/*"
methods = ["post"]
models = ["gpt-4o*", "llama"]
upstream = "a"
[[route]]
name = "v1"
path = "/v1/*"
upstream = "b"
[[route]]
name = "late"
path = "/*"
models = ["x"]
upstream = "b"
"#;

#[test]
fn the_first_match_wins() {
    let settings = settings(ROUTES);
    let path = "/v1/chat/completions";
    assert_eq!(picked(&settings, &head("POST", path, Some("gpt-4o-mini"))), Some("big"));
    assert_eq!(picked(&settings, &head("POST", path, Some("llama-3"))), Some("v1"));
    assert_eq!(picked(&settings, &head("POST", path, None)), Some("v1"));
    assert_eq!(picked(&settings, &head("GET", path, Some("gpt-4o"))), Some("v1"));
    assert_eq!(picked(&settings, &head("POST", "/other", Some("x"))), Some("late"));
    assert_eq!(picked(&settings, &head("POST", "/other", None)), None);
    assert_eq!(picked(&settings, &head("POST", "/V1/Chat/x", Some("GPT-4o"))), Some("big"), "in any case");
    assert_eq!(picked(&settings, &head("POST", "/V1/chat", None)), Some("v1"));

    let gold = |name: &str| (name == "x-tier").then_some("gold");
    let head = RequestHead { header: &gold, ..head("POST", path, Some("gpt-4o")) };
    assert_eq!(picked(&settings, &head), Some("gold"));
}

#[test]
fn the_body_is_read_only_where_a_model_may_decide() {
    let settings = settings(ROUTES);
    assert!(needs(&settings.routes, &head("POST", "/v1/chat/completions", None)).body);
    assert!(!needs(&settings.routes, &head("GET", "/v1/chat/completions", None)).body);
    assert!(!needs(&settings.routes, &head("POST", "/v1/models", None)).body, "v1 takes it before late may");
    assert!(needs(&settings.routes, &head("POST", "/else", None)).body);
    let gold = |name: &str| (name == "x-tier").then_some("gold");
    let head = RequestHead { header: &gold, ..head("POST", "/v1/chat/completions", None) };
    assert!(!needs(&settings.routes, &head).body);
}

/// Who asks for much, what asks for much, and everybody else; behind them one that nobody comes to.
const CONDITIONS: &str = r#"
[server]
trusted_proxies = ["10.0.0.0/8"]
[[identity.key]]
team = "t"
hash = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
[[route]]
name = "batch"
path = "/v1/*"
users = ["batch-*", "nightly"]
teams = ["search"]
upstream = "b"
[[route]]
name = "small"
path = "/v1/*"
prompt_tokens = "<2000"
tools = false
images = false
upstream = "b"
[[route]]
name = "spoken"
path = "/v1/*"
audio = true
stream = true
upstream = "b"
[[route]]
name = "rest"
path = "/v1/*"
upstream = "a"
[[route]]
name = "far"
path = "/v*"
prompt_tokens = ">=1"
upstream = "a"
"#;

fn sized(tokens: u64) -> BodyFacts {
    BodyFacts { prompt: Some(PromptSize { tokens, counted: true }), ..BodyFacts::default() }
}

#[test]
fn what_a_request_is_decides_its_route() {
    let settings = settings(CONDITIONS);
    let by = |body: BodyFacts| picked(&settings, &RequestHead { body, ..head("POST", "/v1/x", Some("m")) });
    let with = |contents: Contents| BodyFacts { contents, ..sized(10) };
    assert_eq!((by(sized(1_999)), by(sized(2_000))), (Some("small"), Some("rest")));
    assert_eq!(by(BodyFacts::default()), Some("rest"), "no size is known, so none fits");
    assert_eq!(by(with(Contents { tools: true, ..Contents::default() })), Some("rest"));
    assert_eq!(by(with(Contents { images: true, ..Contents::default() })), Some("rest"));
    let audio = Contents { audio: true, ..Contents::default() };
    assert_eq!(by(with(audio)), Some("small"), "nothing is said there of sound");
    assert_eq!(by(BodyFacts { contents: audio, ..sized(9_000) }), Some("rest"));
    assert_eq!(by(BodyFacts { contents: audio, streams: true, ..sized(9_000) }), Some("spoken"));
}

#[test]
fn who_sends_a_request_decides_its_route() {
    let settings = settings(CONDITIONS);
    let by = |user: Option<&str>, team: Option<&str>| {
        let identity = Identity { user: user.map(Arc::from), team: team.map(Arc::from), key: None };
        picked(&settings, &RequestHead { identity: &identity, ..head("POST", "/v1/x", None) }).map(str::to_owned)
    };
    assert_eq!(by(Some("batch-7"), Some("search")).as_deref(), Some("batch"));
    assert_eq!(by(Some("nightly"), Some("search")).as_deref(), Some("batch"));
    for (user, team) in [
        (Some("batch-7"), None),
        (Some("batch-7"), Some("other")),
        (Some("Batch-7"), Some("search")),
        (None, Some("search")),
    ] {
        assert_eq!(
            by(user, team).as_deref(),
            Some("rest"),
            "{user:?} {team:?}: all must hold, and who is not known is nobody's"
        );
    }
}

#[test]
fn a_body_is_looked_into_no_further_than_a_route_asks() {
    let settings = settings(CONDITIONS);
    let all = Needs { body: true, contents: true, prompt: true };
    assert_eq!(needs(&settings.routes, &head("POST", "/v1/x", None)), all);
    let size = Needs { contents: false, ..all };
    assert_eq!(needs(&settings.routes, &head("POST", "/v2", None)), size, "only the last one may take it");
    assert_eq!(needs(&settings.routes, &head("POST", "/x", None)), Needs::default());
    let batch = Identity { user: Some("nightly".into()), team: Some("search".into()), key: None };
    let head = RequestHead { identity: &batch, ..head("POST", "/v1/x", None) };
    assert_eq!(needs(&settings.routes, &head), Needs::default(), "who sends it is known already");
    assert_eq!(pick_by_head(&settings.routes, &head).map(|route| &*route.name), Some("batch"));
    let nobody = RequestHead { identity: &NOBODY, ..head };
    assert!(pick_by_head(&settings.routes, &nobody).is_none(), "the body decides");
}

#[test]
fn costs_are_compared_with_the_route_that_has_no_conditions() {
    let settings = settings(CONDITIONS);
    let taken = |path| {
        let head = RequestHead { body: sized(10), ..head("POST", path, None) };
        let taken = pick(&settings.routes, &head).unwrap();
        (&*taken.name, &*first_target(&settings.routes, taken, &head).unwrap().name)
    };
    assert_eq!(taken("/v1/x"), ("small", "a"));
    assert_eq!(taken("/v2/x"), ("far", "a"), "its own where no other would take it");
}

proptest! {
    #[test]
    fn of_routes_by_size_exactly_one_takes_a_prompt(cut in 1_u64..5_000, tokens in 0_u64..6_000) {
        let routes = format!(
            "[[route]]\nname = \"below\"\nprompt_tokens = \"<{cut}\"\nupstream = \"a\"\n\
             [[route]]\nname = \"above\"\nprompt_tokens = \">={cut}\"\nupstream = \"b\"\n"
        );
        let settings = settings(&routes);
        let head = RequestHead { body: sized(tokens), ..head("POST", "/", None) };
        let fitting: Vec<&str> =
            settings.routes.iter().filter(|route| mismatch(route, &head).is_none()).map(|route| &*route.name).collect();
        prop_assert_eq!(fitting, vec![if tokens < cut { "below" } else { "above" }]);
    }
}

const THREE: &str = r#"
[[route]]
targets = [{ upstream = "a", weight = 3 }, { name = "off", upstream = "a", weight = 0 }, { upstream = "b" }]
"#;

const UNITS: u64 = 20_000;

/// Nobody took a target out of service.
fn all(_: usize) -> bool {
    true
}

/// Numbers that look random, the same in every run.
fn units() -> impl Iterator<Item = Unit> {
    (1..=UNITS).map(|n| Unit(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

#[test]
fn targets_share_by_weight() {
    let settings = settings(THREE);
    let route = &settings.routes[0];
    let names: Vec<&str> = units().map(|unit| &*target(route, None, unit, all).unwrap().name).collect();
    let share = names.iter().filter(|name| **name == "a").count() as f64 / UNITS as f64;
    assert!((share - 0.75).abs() < 0.01, "{share}");
    assert!(!names.contains(&"off"), "a weight of 0 gets nothing");
}

#[test]
fn no_weight_at_all_gives_no_target() {
    let mut route = Route::clone(&settings("[[route]]\nupstream = \"a\"").routes[0]);
    route.targets[0].weight = 0;
    assert_eq!(target(&route, None, Unit(7), all), None);
}

#[test]
fn who_is_out_of_service_gets_nothing_and_only_its_own_users_move() {
    let settings = settings(
        r#"
[[route]]
targets = [{ name = "x", upstream = "a", weight = 3 }, { name = "y", upstream = "a" }, { name = "new", upstream = "b" }]
canary = { target = "new" }
"#,
    );
    let route = &settings.routes[0];
    let share_of = |name: &str, share: u8, out: &[usize]| {
        let taken = units().filter(|unit| {
            target(route, Some(share), *unit, |at| !out.contains(&at)).is_some_and(|target| &*target.name == name)
        });
        taken.count() as f64 / UNITS as f64
    };
    for (out, share, name, expected) in [
        (&[2][..], 20, "new", 0.0),
        (&[2], 20, "x", 0.75),
        (&[0], 20, "new", 0.2),
        (&[0], 20, "y", 0.8),
        (&[0, 1], 20, "new", 1.0),
        (&[0, 1], 0, "new", 0.0),
    ] {
        let is = share_of(name, share, out);
        assert!((is - expected).abs() < 0.012, "{name} at {share} % without {out:?}: {is}");
    }
    assert_eq!(target(route, Some(20), Unit(7), |_| false), None);
    for unit in units().take(2_000) {
        let (before, without) = (target(route, Some(20), unit, all), target(route, Some(20), unit, |at| at != 2));
        assert!(before == without || before.is_some_and(|target| &*target.name == "new"), "{unit:?} moved");
    }
}

#[test]
fn a_canary_takes_its_share_and_the_others_keep_their_proportions() {
    let settings = settings(
        r#"
[[route]]
targets = [{ name = "x", upstream = "a", weight = 3 }, { name = "y", upstream = "a" }, { name = "new", upstream = "b" }]
canary = { target = "new" }
"#,
    );
    let route = &settings.routes[0];
    for (share, expected) in [(0, [0.75, 0.25, 0.0]), (20, [0.6, 0.2, 0.2]), (100, [0.0, 0.0, 1.0])] {
        let shares: Vec<f64> = shares(route, Some(share)).map(|(_, share)| share).collect();
        assert!(shares.iter().zip(expected).all(|(is, should)| (is - should).abs() < 1e-9), "{share}: {shares:?}");
        for (named, expected) in route.targets.iter().zip(expected) {
            let taken = units().filter(|unit| target(route, Some(share), *unit, all) == Some(named)).count();
            let is = taken as f64 / UNITS as f64;
            assert!((is - expected).abs() < 0.012, "{} at {share} %: {is}", named.name);
        }
    }
    // While the canary grows, users come to it and move nowhere else.
    for unit in units().take(2_000) {
        let mut before = target(route, Some(0), unit, all);
        for share in 1..=100 {
            let now = target(route, Some(share), unit, all);
            assert!(now == before || now.is_some_and(|target| &*target.name == "new"), "{unit:?} at {share} %");
            before = now;
        }
        assert!(before.is_some_and(|target| &*target.name == "new"));
    }
}

#[test]
fn paths_are_rewritten() {
    for (pattern, new, base, came, goes) in [
        ("/api/v1/*", Some("/api/v2"), "", "/api/v1/chat?q=/api/v1/", "/api/v2/chat?q=/api/v1/"),
        ("/api/v1/*", Some("/api/v2/"), "", "/api/v1/chat", "/api/v2/chat"),
        ("/api/v1/*", Some("/"), "", "/api/v1/chat%2Fx", "/chat%2Fx"),
        ("/api/v1/*", Some("/"), "", "/api/v1/", "/"),
        ("/api/v1/*", Some("/x"), "/base", "/api/v1/", "/base/x/"),
        ("/api/v1*", Some("/v2"), "", "/api/v1beta/chat", "/v2beta/chat"),
        ("/api/v1/*", Some("/api/v2"), "", "/API/V1/Chat", "/api/v2/Chat"),
        ("/chat", Some("/v1"), "", "/CHAT?A=1", "/v1?A=1"),
        ("/chat", Some("/v1/chat/completions"), "/base", "/chat?a=1", "/base/v1/chat/completions?a=1"),
        ("/*", Some("/up"), "", "/a//b/../c", "/up/a//b/../c"),
        ("/v1/*", None, "/base", "/v1/a%20b?x=%26", "/base/v1/a%20b?x=%26"),
        ("*", None, "", "/any?thing", "/any?thing"),
        ("*", None, "/base", "/", "/base/"),
        ("*", None, "/base", "*", "*"),
        ("/a/*/b/*", Some("/z"), "", "/a/x/b/y", "/z/x/b/y"),
    ] {
        let path = new.map_or_else(String::new, |new| format!(", path = \"{new}\""));
        let settings = settings(&format!("[[route]]\npath = \"{pattern}\"\ntargets = [{{ upstream = \"a\"{path} }}]"));
        let route = &settings.routes[0];
        assert_eq!(upstream_path(route, &route.targets[0], base, came), goes, "{pattern} → {new:?} of {came}");
    }
}

#[test]
fn an_untouched_path_is_not_copied() {
    let settings = settings("[[route]]\nupstream = \"a\"");
    let route = &settings.routes[0];
    assert!(matches!(upstream_path(route, &route.targets[0], "", "/a?b"), Cow::Borrowed("/a?b")));
}

proptest! {
    /// Whatever the weights are: as one of them grows, whoever moves comes to its target.
    #[test]
    fn a_growing_weight_loses_nobody(
        weights in proptest::collection::vec(0_u32..50, 2..5), grows in 0_usize..5, by in 1_u32..100, unit: u64,
    ) {
        let mut route = Route::clone(&settings(THREE).routes[0]);
        let one = route.targets[0].clone();
        route.targets = (0..).zip(&weights).map(|(n, weight)| Target { name: format!("t{n}").into(), weight: *weight, ..one.clone() }).collect();
        let before = target(&route, None, Unit(unit), all).map(|target| target.name.clone());
        let grows = grows % weights.len();
        route.targets[grows].weight += by;
        let after = target(&route, None, Unit(unit), all).map(|target| target.name.clone());
        let grown = route.targets[grows].name.clone();
        prop_assert!(after == before || after == Some(grown));
    }

    #[test]
    fn any_path_goes_on_as_a_path(pattern in "/[a-z/]{0,6}\\*?", new in "/[a-z/]{0,6}", came in "/[a-z/%?.]{0,12}") {
        let settings = settings(&format!("[[route]]\npath = \"{pattern}\"\ntargets = [{{ upstream = \"a\", path = \"{new}\" }}]"));
        let route = &settings.routes[0];
        let goes = upstream_path(route, &route.targets[0], "/base", &came);
        prop_assert!(goes.starts_with("/base/"));
        let query = |text: &str| text.find('?').map(|at| text[at..].to_owned());
        prop_assert_eq!(query(&goes), query(&came));
    }
}
