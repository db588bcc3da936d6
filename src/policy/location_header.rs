//! Maps an upstream's `Location` to the path under which the client finds it.
//!
//! The upstream may see another host and other paths than the client. A location on the upstream itself becomes a path
//! without a host, which the client resolves against the URL that it used, whatever proxies are before us. Others stay
//! unchanged.

use std::borrow::Cow;

use super::routing;
use crate::config::settings::{Route, Target};

/// How one attempt's paths and hosts differ from the client's.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    pub route: &'a Route,
    pub target: &'a Target,
    /// Of the endpoint.
    pub base_path: &'a str,
    pub tls: bool,
    /// `host[:port]` that the upstream was asked as.
    pub upstream_host: &'a str,
    /// The same of the client; empty where it named none.
    pub client_host: &'a str,
}

/// What the client gets in place of `location`; `None`: that as it came.
#[must_use]
pub fn mapped(location: &str, way: &Way<'_>) -> Option<String> {
    let (scheme, authority, path) = split(location)?;
    let path = if path.is_empty() { "/" } else { path };
    let seen = routing::client_path(way.route, way.target, way.base_path, path);
    let changed = matches!(&seen, Cow::Owned(seen) if seen != path);
    let Some(authority) = authority else { return changed.then(|| seen.into_owned()) };
    if is_same(scheme, authority, way.client_host) {
        // Whoever is sent to https by that stays there.
        let site = location.get(..location.len().checked_sub(path.len())?)?;
        return changed.then(|| format!("{site}{seen}"));
    }
    let own_scheme = if way.tls { "https" } else { "http" };
    let is_own = (scheme.is_empty() || scheme == own_scheme) && is_same(own_scheme, authority, way.upstream_host);
    is_own.then(|| seen.into_owned())
}

/// Scheme, authority where there is one, and the path with what follows. `None`: relative to the request's own path, or no URL
/// of HTTP's.
fn split(location: &str) -> Option<(&'static str, Option<&str>, &str)> {
    let begins = |start: &str| location.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start));
    let (scheme, rest) = if begins("http://") {
        ("http", location.get(7..)?)
    } else if begins("https://") {
        ("https", location.get(8..)?)
    } else if let Some(rest) = location.strip_prefix("//") {
        ("", rest)
    } else {
        return location.starts_with('/').then_some(("", None, location));
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // A query without a path would be taken for one relative to another path.
    (path.is_empty() || path.starts_with('/')).then_some((scheme, Some(authority), path))
}

/// Whether two authorities are the same under `scheme`, with its port or without.
fn is_same(scheme: &str, one: &str, other: &str) -> bool {
    let bare = |authority: &str| {
        let port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        let lower = authority.to_ascii_lowercase();
        lower.strip_suffix(port).map(str::to_owned).unwrap_or(lower)
    };
    bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn route(text: &str) -> Arc<Route> {
        let text = format!("[[upstream]]\nname = \"a\"\nurl = \"http://a\"\n[[route]]\n{text}\n");
        let no_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let settings = crate::config::parse(&text, "test.toml", &|_| None, &no_file);
        Arc::clone(&settings.unwrap_or_else(|problems| panic!("{problems}")).routes[0])
    }

    #[test]
    fn what_points_to_the_upstream_points_to_where_the_client_finds_it() {
        let route = route("path = \"/api/*\"\ntargets = [{ upstream = \"a\", path = \"/v2\" }]");
        let way = Way {
            route: &route,
            target: &route.targets[0],
            base_path: "/base",
            tls: false,
            upstream_host: "10.0.0.1:8000",
            client_host: "app.test",
        };
        for (location, seen) in [
            ("http://10.0.0.1:8000/base/v2/chat/?a=b#c", Some("/api/chat/?a=b#c")),
            ("HTTP://10.0.0.1:8000/base/v2/chat", Some("/api/chat")),
            ("//10.0.0.1:8000/base/v2", Some("/api")),
            ("/base/v2/chat", Some("/api/chat")),
            ("/base/v2", Some("/api")),
            ("/base/v2?x=/base/v2", Some("/api?x=/base/v2")),
            ("https://app.test/base/v2/chat", Some("https://app.test/api/chat")),
            // Nothing of the route's leads there, but the host is no client's business.
            ("http://10.0.0.1:8000/login", Some("/login")),
            ("http://10.0.0.1:8000", Some("/")),
            ("/login", None),
            ("/base/v22", None),
            ("https://files.example/base/v2/x", None),
            // To https: without the host the client would be sent in a circle.
            ("https://10.0.0.1:8000/base/v2/x", None),
            ("http://10.0.0.1:80/base/v2/x", None),
            ("chat/", None),
            ("?page=2", None),
            ("", None),
            ("mailto:me", None),
        ] {
            assert_eq!(mapped(location, &way).as_deref(), seen, "{location}");
        }
    }

    #[test]
    fn nothing_changes_where_nothing_differs() {
        let route = route("upstream = \"a\"");
        let way = Way {
            route: &route,
            target: &route.targets[0],
            base_path: "",
            tls: false,
            upstream_host: "app.test",
            client_host: "app.test",
        };
        for location in ["/x", "http://app.test/x", "http://App.test:80/x?y", "//app.test/x", "https://app.test/x", "x"]
        {
            assert_eq!(mapped(location, &way), None, "{location}");
        }
        assert_eq!(mapped("http://app.test", &way), None);
    }
}
