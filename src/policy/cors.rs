//! What a browser is told about calls from other origins (the Fetch standard's CORS protocol).

use crate::config::grammar::is_token;
use crate::config::settings::Cors;

/// What the backend's answer loses where [`decide`] speaks in its place. `vary` is not among them: it is added to.
pub const REPLACED: [&str; 6] = [
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-expose-headers",
    "access-control-max-age",
];

/// Longest list of requested headers that is echoed, in bytes.
const ECHO_MAX: usize = 4096;

/// What scripts may read of an answer where "*" does not mean everything: with credentials.
const EXPOSED: &str = "x-request-id, server-timing, retry-after, content-disposition";

/// Headers to add to an answer, lower-case name first. `vary` among them is to be appended, the others are set.
pub type Headers = Vec<(&'static str, String)>;

/// What to do about cross-origin access.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Answer this request now, 204 and no body, with these headers.
    Preflight(Headers),
    /// Pass it on; the answer loses [`REPLACED`] and gets these headers. Errors of our own get them too.
    Actual(Headers),
    /// `[cors]` is absent: the backend's own headers pass.
    None,
}

/// The headers of a request that matter here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    pub method: &'a str,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// `Access-Control-Request-Method`.
    pub request_method: Option<&'a str>,
    /// `Access-Control-Request-Headers`.
    pub request_headers: Option<&'a str>,
}

/// Decides before identity and methods are looked at: a preflight carries neither.
pub fn decide(cors: Option<&Cors>, asked: &Asked<'_>) -> Decision {
    let Some(cors) = cors else { return Decision::None };
    let allowed = asked.origin.filter(|origin| is_allowed(cors, origin));
    match (asked.method, asked.origin, asked.request_method) {
        ("OPTIONS", Some(_), Some(method)) => {
            Decision::Preflight(preflight(cors, allowed, method, asked.request_headers))
        }
        _ => Decision::Actual(actual(cors, allowed)),
    }
}

fn is_allowed(cors: &Cors, origin: &str) -> bool {
    is_any(&cors.origins)
        || cors.origins.iter().any(|known| known == origin)
        || cors.origin_patterns.iter().any(|pattern| pattern.regex.is_match(origin))
}

/// Without an allowed origin the answer says nothing, and the browser refuses.
fn preflight(cors: &Cors, origin: Option<&str>, method: &str, requested: Option<&str>) -> Headers {
    let mut headers = origin_headers(cors, origin);
    // The answer repeats what was asked for, so it holds for nothing else.
    headers.push(("vary", "Access-Control-Request-Method, Access-Control-Request-Headers".to_owned()));
    if origin.is_none() || !is_token(method.as_bytes()) {
        return headers;
    }
    headers.push(("access-control-allow-methods", method.to_owned()));
    if let Some(allowed) = allowed_headers(cors, requested) {
        headers.push(("access-control-allow-headers", allowed));
    }
    headers.push(("access-control-max-age", cors.max_age.as_secs().to_string()));
    headers
}

fn actual(cors: &Cors, origin: Option<&str>) -> Headers {
    let mut headers = origin_headers(cors, origin);
    if origin.is_some() {
        let exposed = if cors.credentials { EXPOSED } else { "*" };
        headers.push(("access-control-expose-headers", exposed.to_owned()));
    }
    headers
}

fn origin_headers(cors: &Cors, origin: Option<&str>) -> Headers {
    // Also where the origin is refused or missing: a cache must not give that answer to another.
    let mut headers = vec![("vary", "Origin".to_owned())];
    let Some(origin) = origin else { return headers };
    // With credentials "*" is no wildcard but a text that no origin equals.
    let allowed = if is_any(&cors.origins) && !cors.credentials { "*" } else { origin };
    headers.push(("access-control-allow-origin", allowed.to_owned()));
    if cors.credentials {
        headers.push(("access-control-allow-credentials", "true".to_owned()));
    }
    headers
}

/// What to allow of the headers asked for. "*" is never sent: it does not cover `Authorization`, and with credentials
/// it is no wildcard. So they are named, as asked.
fn allowed_headers(cors: &Cors, requested: Option<&str>) -> Option<String> {
    let requested = requested.filter(|list| list.len() <= ECHO_MAX)?;
    let names = requested.split(',').map(|name| name.trim().to_ascii_lowercase());
    let is_covered = |name: &String| is_any(&cors.headers) || cors.headers.contains(name);
    let allowed: Vec<String> = names.filter(|name| is_token(name.as_bytes()) && is_covered(name)).collect();
    (!allowed.is_empty()).then(|| allowed.join(", "))
}

fn is_any(list: &[String]) -> bool {
    matches!(list, [only] if only == "*")
}

#[cfg(test)]
#[path = "cors_tests.rs"]
mod tests;
