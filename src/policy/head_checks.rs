//! What must hold of a request's head before anything is done with it. Whatever two parsers could read in two ways is
//! refused: that is how requests are smuggled.

use crate::config::grammar::is_token;

/// Largest head, in bytes: the request line and all headers.
pub const HEAD_MAX: usize = 32 << 10;

/// The protocol that a head came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
    /// The authority is a pseudo-header, and framing is not the headers' business.
    Http2,
}

/// A head as it came.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    pub method: &'a str,
    /// The request target: path and query, or what stands in their place.
    pub target: &'a [u8],
    pub version: Version,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// What is wrong, for the client to read.
    pub message: &'static str,
}

/// What passed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Passed {
    /// Names of headers to drop, in lower case: those with an underscore, which CGI-like backends take for the same name
    /// with a hyphen.
    pub dropped: Vec<String>,
}

/// Checks a request's head.
///
/// # Errors
/// The refusal to answer with: 400 malformed, 405 a method that is never passed on, 431 too large.
pub fn check<'a>(head: &Head<'_>, headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<Passed, Refusal> {
    check_method(head.method)?;
    if head.target.iter().any(|byte| !byte.is_ascii_graphic()) {
        return refuse(400, "the request target holds a space, a control character or something outside ASCII");
    }
    let mut size = head.method.len() + head.target.len();
    let mut seen = Seen::default();
    let mut passed = Passed::default();
    for (name, value) in headers {
        size = size.saturating_add(name.len()).saturating_add(value.len()).saturating_add(b": \r\n".len());
        if size > HEAD_MAX {
            return refuse(431, "the request's head is larger than 32 KiB");
        }
        check_header(name, value)?;
        seen.note(name, value)?;
        if name.contains(&b'_') {
            passed.dropped.push(String::from_utf8_lossy(name).to_ascii_lowercase());
        }
    }
    seen.check(head.version)?;
    check_target(head, seen.host.unwrap_or_default())?;
    check_path(path_of(head.target))?;
    Ok(passed)
}

/// Whether a head asks for a WebSocket, in a way that can be granted (RFC 6455, section 4.1). Any other `Upgrade` is an offer
/// that a server may ignore (RFC 9110, section 7.8), and so may be one in a list of others.
pub fn asks_for_websocket<'a>(head: &Head<'_>, header: impl Fn(&str) -> Vec<&'a [u8]>) -> bool {
    let lists = |name: &str, wanted: &str| {
        let values = header(name);
        values
            .iter()
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|one| one.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
    };
    head.version == Version::Http11
        && head.method == "GET"
        && lists("upgrade", "websocket")
        && lists("connection", "upgrade")
}

/// The Content-Length headers of a head as it came over HTTP/1, for those who see a head of which they were dropped.
pub fn lengths(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let fields = head.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        Some((name, value.get(1..)?.trim_ascii()))
    });
    fields.filter(|(name, _)| name.eq_ignore_ascii_case(b"content-length"))
}

/// The headers of which there may be one, and that change where a message ends.
#[derive(Default)]
struct Seen<'a> {
    host: Option<&'a [u8]>,
    content_length: bool,
    transfer_encoding: bool,
    user_id: bool,
}

impl<'a> Seen<'a> {
    fn note(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Refusal> {
        if name.eq_ignore_ascii_case(b"host") {
            match self.host.replace(value) {
                Some(_) => refuse(400, "more than one Host header"),
                None => check_host(value),
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            first(&mut self.content_length, "more than one Content-Length header")?;
            check_length(value)
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            first(&mut self.transfer_encoding, "more than one Transfer-Encoding header")?;
            match value.eq_ignore_ascii_case(b"chunked") {
                true => Ok(()),
                false => refuse(400, "Transfer-Encoding must be chunked and nothing else"),
            }
        } else if name.eq_ignore_ascii_case(b"x-user-id") {
            first(&mut self.user_id, "more than one x-user-id header")
        } else {
            Ok(())
        }
    }

    fn check(&self, version: Version) -> Result<(), Refusal> {
        match version {
            _ if self.content_length && self.transfer_encoding => {
                refuse(400, "Content-Length and Transfer-Encoding contradict each other")
            }
            Version::Http10 | Version::Http2 if self.transfer_encoding => {
                refuse(400, "Transfer-Encoding exists in HTTP/1.1 alone")
            }
            Version::Http11 if self.host.is_none() => refuse(400, "the Host header is missing"),
            _ => Ok(()),
        }
    }
}

fn first(seen: &mut bool, message: &'static str) -> Result<(), Refusal> {
    if std::mem::replace(seen, true) { refuse(400, message) } else { Ok(()) }
}

fn check_method(method: &str) -> Result<(), Refusal> {
    match method {
        "TRACE" => refuse(405, "TRACE is never passed on: it echoes credentials"),
        "CONNECT" => refuse(405, "CONNECT is for forward proxies, and this is a reverse proxy"),
        _ if !is_token(method.as_bytes()) => refuse(400, "the method is no token"),
        _ => Ok(()),
    }
}

fn check_header(name: &[u8], value: &[u8]) -> Result<(), Refusal> {
    if !is_token(name) {
        return refuse(400, "a header's name holds something that no name may hold");
    }
    if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return refuse(400, "a header's value holds a control character");
    }
    Ok(())
}

/// `host[:port]`, and nothing that another parser could take for more: no user, path, list or space.
fn check_host(value: &[u8]) -> Result<(), Refusal> {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte);
    let text = std::str::from_utf8(value).unwrap_or_default();
    // A colon inside brackets belongs to an IPv6 address.
    let port = text.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(']'));
    let has_legal_port = port.is_none_or(|port| port.is_empty() || port.parse::<u16>().is_ok());
    match value.iter().all(legal) && has_legal_port {
        true => Ok(()),
        false => refuse(400, "the Host header is not a host, or its port is none"),
    }
}

/// A path, `*` of OPTIONS, or a whole URL of the same authority as the Host header: with two of them, two parsers
/// would take the request for two hosts'. HTTP/2 has its pseudo-headers for this.
fn check_target(head: &Head<'_>, host: &[u8]) -> Result<(), Refusal> {
    if head.version == Version::Http2
        || head.target.starts_with(b"/")
        || (head.method, head.target) == ("OPTIONS", b"*")
    {
        return Ok(());
    }
    let target = std::str::from_utf8(head.target).unwrap_or_default();
    let is_http = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let url = target.split_once("://").filter(|(scheme, _)| is_http(scheme));
    let authority = url.map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    match authority {
        Some(authority) if authority.as_bytes().eq_ignore_ascii_case(host) => Ok(()),
        // HTTP/1.0 may come without a Host header.
        Some(authority) if host.is_empty() && head.version == Version::Http10 => check_host(authority.as_bytes()),
        Some(_) => refuse(400, "the request target and the Host header name two hosts"),
        None => refuse(400, "the request target is no path"),
    }
}

fn check_length(value: &[u8]) -> Result<(), Refusal> {
    // Digits alone: `+5`, `5, 5` and ` 5` are read differently by different parsers.
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let fits = std::str::from_utf8(value).is_ok_and(|text| text.parse::<u64>().is_ok());
    if is_number && fits { Ok(()) } else { refuse(400, "Content-Length is not a number") }
}

/// Dot segments, in whatever disguise: a backend that resolves them serves another path than the one that was routed,
/// and with our key. Clients resolve them before they send.
fn check_path(path: &[u8]) -> Result<(), Refusal> {
    if !path.contains(&b'\\') && !path.windows(2).any(|two| matches!(two, b"/." | b"%2" | b"%5")) {
        return Ok(());
    }
    let mut plain = String::from_utf8_lossy(path).to_ascii_lowercase();
    for (coded, meant) in [("%2e", "."), ("%2f", "/"), ("%5c", "/"), ("\\", "/")] {
        plain = plain.replace(coded, meant);
    }
    // What follows a semicolon are parameters of the segment to some backends.
    let mut segments = plain.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    match segments.any(|segment| matches!(segment, "." | "..")) {
        true => refuse(400, "the path holds dot segments: resolve them before sending"),
        // No URL has one, and browsers' rules take it for a slash, as Node's `URL` does.
        false if path.contains(&b'\\') => refuse(400, "the path holds a backslash"),
        false => Ok(()),
    }
}

fn path_of(target: &[u8]) -> &[u8] {
    target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default()
}

fn refuse<T>(status: u16, message: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status, message })
}

#[cfg(test)]
#[path = "head_checks_tests.rs"]
mod tests;
