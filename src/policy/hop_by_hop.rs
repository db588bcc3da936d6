//! Hop-by-hop headers: those that `Connection` names. They are removed before anything reads the head. If they were
//! removed later, a client could hide from the backend a header that was checked here.

use super::head_checks::Refusal;
use super::identity::CREDENTIAL_HEADERS;
use super::trusted_proxies;
use crate::config::identity::USER_HEADER;

/// What `Connection` may name and what is dealt with where a connection is: its options, and the fields of its own.
const OF_CONNECTIONS: [&str; 11] = [
    "close",
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What says what a message is, who sends it, or is written here: no connection's own, whoever names it.
const END_TO_END: [&str; 8] = [
    "host",
    "expect",
    "accept-encoding",
    "x-request-id",
    "traceparent",
    "tracestate",
    "x-streamgauge-shadow",
    USER_HEADER,
];

/// The names, in lower case, of the headers that the values of `Connection` nominate and that must go. `user_header` is the
/// one that names users.
///
/// # Errors
/// One of them belongs to the message: 400.
pub fn nominated<'a>(values: impl Iterator<Item = &'a [u8]>, user_header: &str) -> Result<Vec<String>, Refusal> {
    let mut names = Vec::new();
    for name in values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii) {
        let is = |other: &&str| name.eq_ignore_ascii_case(other.as_bytes());
        if name.is_empty() || OF_CONNECTIONS.iter().any(is) {
            continue;
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let is = |other: &&str| name.eq_ignore_ascii_case(other);
        let is_end_to_end = name.starts_with("content-")
            || END_TO_END.iter().chain(&CREDENTIAL_HEADERS).any(&is)
            || is(&user_header)
            || trusted_proxies::is_believed(&name);
        if is_end_to_end {
            let message = "the Connection header names one that belongs to the message: leave it out of Connection";
            return Err(Refusal { status: 400, message });
        }
        names.push(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Vec<String>, u16> {
        nominated([value.as_bytes()].into_iter(), "x-Person").map_err(|refusal| refusal.status)
    }

    #[test]
    fn what_is_the_connections_stays_and_what_it_names_goes() {
        assert_eq!(read("close"), Ok(vec![]));
        assert_eq!(read("Keep-Alive, Upgrade, HTTP2-Settings, TE, ,"), Ok(vec![]));
        assert_eq!(read("close, X-Mine ,x-other"), Ok(vec!["x-mine".to_owned(), "x-other".to_owned()]));
        assert_eq!(nominated([&b"a"[..], b"b"].into_iter(), "u").map(|names| names.len()), Ok(2));
    }

    #[test]
    fn what_belongs_to_the_message_cannot_be_named() {
        for name in [
            "content-encoding",
            "Content-Type",
            "content-length",
            "content-anything",
            "HOST",
            "Authorization",
            "x-api-key",
            "x-goog-api-key",
            "x-user-id",
            "X-PERSON",
            "x-request-id",
            "traceparent",
            "accept-encoding",
            "x-forwarded-for",
            "X-Forwarded-Anything",
            "forwarded",
            "baggage",
            "expect",
        ] {
            assert_eq!(read(&format!("close, {name}")), Err(400), "{name}");
        }
    }
}
