//! The login form of browsers off loopback, what it sends, and the way out again.

use std::time::Instant;

use pingora::http::RequestHeader;

use super::access::equal;
use super::answer::{Answer, HTML};
use super::limits::decoded;
use super::sessions::{COOKIE, LIFETIME, Sessions};
use crate::config::secret::Secret;

/// The form in place of the live view; `complaint` says what was wrong with the last try.
pub(super) fn form(complaint: &str) -> Answer {
    let page = include_str!("page/login.html").replace("{{complaint}}", complaint);
    Answer { status: 401, ..Answer::new(HTML, page) }.with("www-authenticate", "Bearer")
}

/// Takes what the form sent: a session for who knows the token.
pub(super) fn enter(sessions: &Sessions, token: Option<&Secret>, head: &RequestHeader, body: &[u8]) -> Answer {
    let Some(token) = token else {
        return Answer::error(403, "no admin token is set, so nobody can log in: set one, see `admin_token_env`");
    };
    let sent = std::str::from_utf8(body).ok().and_then(field).unwrap_or_default();
    if !equal(sent.trim().as_bytes(), token.expose().as_bytes()) {
        return form("This is not the admin token.");
    }
    match sessions.begin(token, Instant::now()) {
        Ok(id) => home().with("set-cookie", cookie(&id, LIFETIME.as_secs(), head)),
        Err(message) => Answer::error(503, message),
    }
}

/// Ends the session, and forgets its cookie.
pub(super) fn leave(sessions: &Sessions, head: &RequestHeader) -> Answer {
    sessions.end(&cookies(head));
    home().with("set-cookie", cookie("", 0, head))
}

/// The `Cookie` headers.
pub(super) fn cookies(head: &RequestHeader) -> Vec<&[u8]> {
    head.headers.get_all("cookie").iter().map(|value| value.as_bytes()).collect()
}

fn home() -> Answer {
    Answer { status: 303, ..Answer::new(HTML, "") }.with("location", "/")
}

/// This address speaks plain HTTP; a browser that reached it over TLS, by a proxy that ends it, says so in its Origin.
fn cookie(value: &str, max_age_s: u64, head: &RequestHeader) -> String {
    let over_tls = head.headers.get("origin").is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if over_tls { "; Secure" } else { "" };
    format!("{COOKIE}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}")
}

fn field(form: &str) -> Option<String> {
    form.split('&').find_map(|pair| pair.strip_prefix("token=")).and_then(decoded)
}
