//! The part of `streamgauge explain` about session affinity: what names the session, and at which endpoint it lives.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use super::admin;
use crate::config::address::{Endpoint, EndpointAddress};
use crate::config::settings::{Route, Upstream};
use crate::llm::RequestFacts;
use crate::llm::request::session::SessionName;
use crate::policy::affinity::{self, Key, Source};
use crate::policy::routing::RequestHead;

/// The request as it was typed.
pub(super) struct Request<'a, 'h> {
    pub(super) head: &'a RequestHead<'h>,
    pub(super) facts: &'a RequestFacts,
    pub(super) body: Option<&'a str>,
}

/// What a running proxy says of a session.
#[derive(Deserialize)]
struct Now {
    result: String,
    goes_to: Place,
    in_flight_max: u64,
    places: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    endpoint: String,
    address: String,
    usable: bool,
    in_flight: u64,
}

/// Tells of each upstream of the route that keeps sessions together. `live` asks a running proxy for a path.
pub(super) fn tell(out: &mut String, route: &Route, request: &Request<'_, '_>, live: &dyn Fn(&str) -> Option<String>) {
    let mut told: Vec<&str> = Vec::new();
    for target in route.targets.iter().chain(&route.fallback) {
        let upstream = &*target.upstream;
        if upstream.affinity.is_none() || told.contains(&&*upstream.name) {
            continue;
        }
        told.push(&upstream.name);
        let _ = match key(upstream, request) {
            Some((by, key)) => {
                writeln!(out, "  session   at \"{}\" named by {by}: {}", upstream.name, place(upstream, key, live))
            }
            None => writeln!(
                out,
                "  session   at \"{}\" named by nothing: any of its endpoints, by power of two choices",
                upstream.name
            ),
        };
    }
}

/// What names the session, in words, and its key.
fn key(upstream: &Upstream, request: &Request<'_, '_>) -> Option<(String, Key)> {
    let affinity = upstream.affinity.as_ref()?;
    let header = affinity.headers.iter().find_map(|name| Some((name, (request.head.header)(name)?)));
    let of = |source, value: &[u8]| Key::new(source, value, request.head.identity, request.facts.model.as_deref());
    if let Some((name, value)) = header.filter(|(_, value)| !value.is_empty()) {
        return Some((format!("its header {name}"), of(Source::Header(name), value.as_bytes())));
    }
    let named = request.body.filter(|_| affinity.body).and_then(|body| SessionName::read(body.as_bytes()));
    let conversation = request.facts.details.conversation_id.as_deref().filter(|_| affinity.body);
    match (named, conversation) {
        (Some(SessionName::CacheKey(key)), _) => {
            Some(("its prompt_cache_key".to_owned(), of(Source::CacheKey, key.as_bytes())))
        }
        (_, Some(id)) => Some(("its conversation".to_owned(), of(Source::Conversation, id.as_bytes()))),
        (Some(opening), None) => {
            let words = "its instructions, tools and first message".to_owned();
            Some((words, of(Source::Opening, opening.bytes())))
        }
        (None, None) => None,
    }
}

fn place(upstream: &Upstream, key: Key, live: &dyn Fn(&str) -> Option<String>) -> String {
    let path = format!("/api/affinity?upstream={}&key={:016x}", admin::encoded(&upstream.name), key.0);
    if let Some(now) = live(&path).and_then(|answer| serde_json::from_str::<Now>(&answer).ok()) {
        return words(&now);
    }
    let mut addresses: Vec<(u64, &str)> = Vec::new();
    for endpoint in &upstream.endpoints {
        let Some(address) = address(endpoint) else {
            return "which of its addresses is its home only a running proxy can tell (--admin)".to_owned();
        };
        addresses.push((affinity::place_of(&endpoint.authority, &address), &endpoint.authority));
    }
    addresses.sort_by_key(|(place, _)| std::cmp::Reverse((affinity::draw(key, *place), *place)));
    let order: Vec<&str> = addresses.iter().map(|(_, name)| *name).collect();
    match order.as_slice() {
        [] => String::new(),
        [home] => format!("lives at {home}"),
        [home, others @ ..] => format!("lives at {home}; while that is down or busy {}", others.join(", then ")),
    }
}

/// The address that an endpoint without a name has.
fn address(endpoint: &Endpoint) -> Option<String> {
    let EndpointAddress::Tcp { host, port } = &endpoint.address else { return None };
    let ip: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    Some(SocketAddr::new(ip, *port).to_string())
}

fn words(now: &Now) -> String {
    // The admin address may be anybody's: nothing of it steers this terminal.
    let plain = |text: &str| text.chars().filter(char::is_ascii_graphic).take(256).collect::<String>();
    let name = |place: &Place| match place.endpoint == place.address {
        true => plain(&place.endpoint),
        false => format!("{} ({})", plain(&place.endpoint), plain(&place.address)),
    };
    let Some(home) = now.places.first() else { return String::new() };
    let most = now.in_flight_max;
    match now.result.as_str() {
        "home" => format!("lives at {}, {} of at most {most} in flight", name(home), home.in_flight),
        "spilled" => format!(
            "lives at {}, and goes to {} now: its home has {} in flight, at most {most} is its share",
            name(home),
            name(&now.goes_to),
            home.in_flight
        ),
        _ => {
            let why = if home.usable { "is more than twice as slow" } else { "is down, or refused requests lately" };
            format!("lives at {}, and goes to {} now: its home {why}", name(home), name(&now.goes_to))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::policy::identity::Identity;
    use crate::policy::routing::BodyFacts;

    const CONFIG: &str = "[[upstream]]\nname = \"vllm\"\nurls = [\"http://10.0.0.1:8000\", \"http://10.0.0.2:8000\", \"http://10.0.0.3:8000\"]\n\
                          affinity = { headers = [\"x-session-id\"] }\n";

    fn told(config: &str, header: Option<&'static str>, body: &str, answer: Option<&str>) -> String {
        let settings =
            config::parse(config, "t.toml", &|_| None, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
        let facts = RequestFacts::read("/v1/chat/completions", Some(body.as_bytes()));
        let find = |name: &str| header.filter(|_| name == "x-session-id");
        let head = RequestHead {
            method: "POST",
            path: "/v1/chat/completions",
            header: &find,
            identity: &Identity::default(),
            model: None,
            body: BodyFacts::default(),
        };
        let mut out = String::new();
        let request = Request { head: &head, facts: &facts, body: Some(body) };
        tell(&mut out, &settings.routes[0], &request, &|path| {
            assert!(path.starts_with("/api/affinity?upstream=vllm&key="), "{path}");
            answer.map(str::to_owned)
        });
        out
    }

    #[test]
    fn it_tells_where_a_session_lives_and_what_names_it() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
        let by_header = told(CONFIG, Some("s1"), body, None);
        assert!(
            by_header.contains("session   at \"vllm\" named by its header x-session-id: lives at 10.0.0."),
            "{by_header}"
        );
        assert!(
            by_header.contains("; while that is down or busy 10.0.0.") && by_header.contains(", then 10.0.0."),
            "{by_header}"
        );
        for (body, words) in [
            (body.to_owned(), "its instructions, tools and first message"),
            (body.replace("{\"model\"", "{\"prompt_cache_key\":\"k\",\"model\""), "its prompt_cache_key"),
            (body.replace("{\"model\"", "{\"conversation\":\"c\",\"model\""), "its conversation"),
        ] {
            assert!(told(CONFIG, None, &body, None).contains(&format!("named by {words}: lives at")), "{words}");
        }
        assert!(
            told(CONFIG, None, "{}", None).contains("named by nothing: any of its endpoints, by power of two choices")
        );
        let named = told(&CONFIG.replace("10.0.0.3", "vllm.internal"), Some("s1"), body, None);
        assert!(named.contains("only a running proxy can tell (--admin)"), "{named}");
        assert_eq!(
            told(CONFIG.split("affinity").next().unwrap(), Some("s1"), body, None),
            "",
            "an upstream without affinity"
        );
    }

    #[test]
    fn a_running_proxy_tells_where_it_goes_now_and_why() {
        let place = |address: &str, usable: bool, in_flight: u64| serde_json::json!({ "endpoint": address, "address": address, "usable": usable, "in_flight": in_flight });
        let told = |result: &str, home: serde_json::Value| {
            let other = place("b:1", true, 1);
            let goes_to = if result == "home" { &home } else { &other };
            let answer = serde_json::json!({ "result": result, "goes_to": goes_to, "in_flight_max": 5, "places": [home, other] });
            told(CONFIG, Some("s1"), "{}", Some(&answer.to_string()))
        };
        assert!(told("home", place("a:1", true, 2)).contains("lives at a:1, 2 of at most 5 in flight"));
        let spilled = "lives at a:1, and goes to b:1 now: its home has 5 in flight, at most 5 is its share";
        assert!(told("spilled", place("a:1", true, 5)).contains(spilled));
        assert!(told("second", place("a:1", false, 0)).contains("now: its home is down, or refused requests lately"));
        assert!(told("second", place("a:1", true, 0)).contains("now: its home is more than twice as slow"));
    }
}
