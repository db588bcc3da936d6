use proptest::prelude::*;

use super::*;

fn cors(table: &str) -> Cors {
    let text = format!("[cors]\n{table}\n[[upstream]]\nurl = \"http://h\"");
    let no_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    let settings = crate::config::parse(&text, "test.toml", &|_| None, &no_file);
    settings.unwrap_or_else(|problems| panic!("{problems}")).cors.unwrap()
}

fn header(decision: &Decision, name: &str) -> Option<String> {
    let (Decision::Preflight(headers) | Decision::Actual(headers)) = decision else { panic!("{decision:?}") };
    let values: Vec<&str> =
        headers.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.as_str()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn get(origin: &str) -> Asked<'_> {
    Asked { method: "GET", origin: Some(origin), ..Asked::default() }
}

fn preflight<'a>(origin: &'a str, headers: &'a str) -> Asked<'a> {
    Asked { method: "OPTIONS", origin: Some(origin), request_method: Some("POST"), request_headers: Some(headers) }
}

const VERCEL: &str = r"origin_patterns = ['https://my-app-[a-z0-9-]+\.vercel\.app']";
const ALLOW: &str = "access-control-allow-origin";

#[test]
fn absent_means_untouched() {
    assert_eq!(decide(None, &get("https://a")), Decision::None);
}

#[test]
fn patterns_match_whole_origins() {
    let cors = cors(VERCEL);
    for (origin, allowed) in [
        ("https://my-app-git-main-team.vercel.app", true),
        ("https://my-app-x.vercel.app.evil.example", false),
        ("https://evil.example/https://my-app-x.vercel.app", false),
        ("http://my-app-x.vercel.app", false),
        ("https://my-app-x.vercel.app\n", false),
        ("https://my-app-xyvercelyapp", false),
        ("null", false),
        ("", false),
    ] {
        let decision = decide(Some(&cors), &get(origin));
        assert_eq!(header(&decision, ALLOW), allowed.then(|| origin.to_owned()), "{origin}");
        assert_eq!(header(&decision, "vary").as_deref(), Some("Origin"), "{origin}");
    }
}

#[test]
fn an_alternative_in_a_pattern_stays_anchored() {
    let cors = cors("origin_patterns = ['https://a|https://b']");
    for (origin, allowed) in [("https://a", true), ("https://b", true), ("https://abc", false), ("xhttps://b", false)] {
        assert_eq!(header(&decide(Some(&cors), &get(origin)), ALLOW).is_some(), allowed, "{origin}");
    }
}

#[test]
fn preflights_are_answered_with_what_was_asked() {
    let cors = cors("origins = [\"https://app.example.com\"]\ncredentials = true\nmax_age = \"10m\"");
    let decision = decide(Some(&cors), &preflight("https://app.example.com", "Authorization, X-Custom"));
    assert!(matches!(decision, Decision::Preflight(_)));
    assert_eq!(header(&decision, ALLOW).as_deref(), Some("https://app.example.com"));
    assert_eq!(header(&decision, "access-control-allow-credentials").as_deref(), Some("true"));
    assert_eq!(header(&decision, "access-control-allow-methods").as_deref(), Some("POST"));
    assert_eq!(header(&decision, "access-control-allow-headers").as_deref(), Some("authorization, x-custom"));
    assert_eq!(header(&decision, "access-control-max-age").as_deref(), Some("600"));
    assert!(header(&decision, "vary").unwrap().starts_with("Origin, "));

    let refused = decide(Some(&cors), &preflight("https://other.example", "x"));
    assert!(matches!(refused, Decision::Preflight(_)), "answered all the same, without a permission");
    assert_eq!(header(&refused, ALLOW), None);
    assert_eq!(header(&refused, "access-control-allow-methods"), None);
}

#[test]
fn options_that_is_no_preflight_goes_on() {
    let cors = cors("origins = [\"*\"]");
    let asked = Asked { method: "OPTIONS", origin: Some("https://a"), ..Asked::default() };
    assert!(matches!(decide(Some(&cors), &asked), Decision::Actual(_)));
    let asked = Asked { method: "OPTIONS", request_method: Some("POST"), ..Asked::default() };
    assert!(matches!(decide(Some(&cors), &asked), Decision::Actual(_)));
}

#[test]
fn listed_headers_bound_what_may_be_sent() {
    let cors = cors("origins = [\"*\"]\nheaders = [\"Content-Type\", \"x-a\"]");
    let decision = decide(Some(&cors), &preflight("https://a", "content-type,X-B , X-A"));
    assert_eq!(header(&decision, "access-control-allow-headers").as_deref(), Some("content-type, x-a"));
    assert_eq!(header(&decision, ALLOW).as_deref(), Some("*"));
}

#[test]
fn what_no_header_can_hold_is_not_echoed() {
    let cors = cors("origins = [\"*\"]");
    let decision = decide(Some(&cors), &preflight("https://a", "x\r\nset-cookie: a=b, ok"));
    assert_eq!(header(&decision, "access-control-allow-headers").as_deref(), Some("ok"));
    let asked = Asked { request_method: Some("PO ST"), ..preflight("https://a", "x") };
    assert_eq!(header(&decide(Some(&cors), &asked), "access-control-allow-methods"), None);
}

proptest! {
    /// The Fetch standard: with credentials no wildcard anywhere, and the origin itself.
    #[test]
    fn credentials_never_meet_a_wildcard(
        origin in "https://[a-c]{1,2}", any in any::<bool>(), requested in "[a-z*, -]{0,20}", is_preflight in any::<bool>(),
    ) {
        let mut cors = cors(VERCEL);
        cors.credentials = true;
        cors.origins = vec![if any { "*" } else { "https://a" }.to_owned()];
        let asked = if is_preflight { preflight(&origin, &requested) } else { get(&origin) };
        let decision = decide(Some(&cors), &asked);
        let allowed = any || origin == "https://a";
        prop_assert_eq!(header(&decision, ALLOW), allowed.then(|| origin.clone()));
        prop_assert_eq!(header(&decision, "access-control-allow-credentials").is_some(), allowed);
        prop_assert_ne!(header(&decision, "access-control-expose-headers"), Some("*".to_owned()));
        prop_assert!(header(&decision, "vary").is_some_and(|vary| vary.starts_with("Origin")));
    }
}
