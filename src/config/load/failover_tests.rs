use std::time::Duration;

use super::tests::parsed;
use crate::config::settings::{Failover, Retries};

/// A route's keys among two upstreams.
fn with_route(keys: &str) -> String {
    format!(
        "[[upstream]]\nname = \"a\"\nurl = \"http://a\"\n[[upstream]]\nname = \"b\"\nurl = \"http://b\"\n\
         [[route]]\npath = \"/v1/*\"\nupstream = \"a\"\n{keys}\n"
    )
}

#[test]
fn what_is_written_is_read() {
    let text = with_route(
        "failover = \"unsent\"\nretries = { attempts = 5, budget = 0.5 }\n\
         fallback = [{ upstream = \"b\", model = \"m2\", path = \"/v2\", name = \"cheap\" }]",
    );
    let settings = parsed(&text).unwrap_or_else(|problems| panic!("{problems}"));
    let route = &settings.routes[0];
    assert_eq!((route.failover, route.retries), (Failover::Unsent, Retries { attempts: 5, budget: 0.5 }));
    let fallback = &route.fallback[0];
    assert_eq!((&*fallback.name, &*fallback.upstream.name), ("cheap", "b"));
    assert_eq!((fallback.model.as_deref(), fallback.path.as_deref()), (Some("m2"), Some("/v2")));

    let settings = parsed(&with_route("hedge_after = \"3s\"\nfallback = [{ upstream = \"b\" }]")).unwrap();
    let route = &settings.routes[0];
    assert_eq!((route.failover, route.retries), (Failover::Llm, Retries { attempts: 3, budget: 0.2 }));
    assert_eq!(route.hedge_after, Some(Duration::from_secs(3)));

    let settings = parsed("[[upstream]]\nurl = \"http://a\"\nhealth = { path = \"/health?deep\" }").unwrap();
    let health = settings.upstreams[0].health.as_ref().unwrap();
    assert_eq!((health.path.as_str(), health.interval), ("/health?deep", Duration::from_secs(5)));
}

#[test]
fn slips_are_told_with_their_place() {
    let cases = [
        ("failover = \"allways\"", "10:12: ", "\"always\""),
        ("retries = { attempts = 0 }", "10:24: ", "`attempts` counts the first one too: 1 to 10"),
        ("retries = { attempts = 11 }", "10:24: ", "1 to 10"),
        ("retries = { budget = 20.0 }", "10:22: ", "a share of the active requests, from 0.0 to 1.0"),
        ("retries = { budget = nan }", "10:22: ", "from 0.0 to 1.0"),
        ("fallback = [{ model = \"m\" }]", "10:13: ", "this target names no `upstream`"),
        ("fallback = [{ upstream = \"c\" }]", "10:26: ", "unknown upstream \"c\""),
        ("fallback = [{ upstream = \"b\", weight = 2 }]", "10:31: ", "unknown key `weight`"),
        ("fallback = [{ upstream = \"b\", model = \"\" }]", "10:39: ", "`model` is the name put in place"),
        ("fallback = [{ upstream = \"b\", path = \"v2\" }]", "10:38: ", "starts with /"),
        ("hedge_after = \"3s\"", "10:15: ", "needs a second place to ask"),
        ("hedge_after = \"0s\"\nfallback = [{ upstream = \"b\" }]", "10:15: ", "zero would ask twice each time"),
        (
            "hedge_after = \"3s\"\nfallback = [{ upstream = \"b\" }]\nfailover = \"never\"",
            "10:15: ",
            "this route's `failover` forbids that",
        ),
    ];
    for (keys, place, words) in cases {
        let problems = parsed(&with_route(keys)).unwrap_err().to_string();
        let told = problems.trim_start_matches("conf/test.toml:");
        assert!(told.starts_with(place) && told.contains(words) && told.lines().count() == 1, "{keys}\n{problems}");
    }
    let health = |keys: &str| {
        let text = format!("[[upstream]]\nurl = \"http://a\"\nhealth = {{ {keys} }}");
        parsed(&text).unwrap_err().to_string()
    };
    assert!(
        health("interval = \"1s\"").contains("3:10: `health` needs the path to ask"),
        "{}",
        health("interval = \"1s\"")
    );
    assert!(health("path = \"health\"").contains("3:19: `path` of a health check starts with /"));
    assert!(health("path = \"/a\", interval = \"0s\"").contains("3:36: `interval`: zero"));
}
