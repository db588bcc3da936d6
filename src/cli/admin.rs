//! Asks a running proxy at its admin address, with nothing but std.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::config::defaults::ADMIN_TOKEN_ENV;

/// For the connection, and again for each read and write.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 16 << 20;

/// Longest head of a streamed answer, in bytes.
const HEAD_LINE_MAX: u64 = 16 << 10;

/// What the proxy answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Sent where the address asks for one.
    pub(super) token: Option<&'a str>,
}

/// Asks the admin address, given as `http://host:port`, `host:port` or `unix:/path`.
///
/// # Errors
/// Why nobody could be asked, or who answered instead.
pub(super) fn ask(admin: &str, question: &Question<'_>) -> Result<Answer, String> {
    let (status, answer) = open(admin, question, "1.1")?;
    let mut body = Vec::new();
    answer.take(ANSWER_MAX).read_to_end(&mut body).map_err(|error| unreachable(admin, &error))?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body).trim().to_owned() })
}

/// Sends what is asked, and reads the head of the answer: its status, and what follows.
fn open(admin: &str, question: &Question<'_>, version: &str) -> Result<(u16, BufReader<Box<dyn Duplex>>), String> {
    let Question { method, path, token } = question;
    let gone = |error: std::io::Error| unreachable(admin, &error);
    let (mut stream, host): (Box<dyn Duplex>, String) = match admin.strip_prefix("unix:") {
        Some(socket) => (Box::new(connect_unix(socket).map_err(gone)?), "localhost".to_owned()),
        None => {
            let authority = authority(admin)?;
            (Box::new(connect(&authority)?), authority)
        }
    };
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = if *method == "POST" { "content-length: 0\r\n" } else { "" };
    write!(
        stream,
        "{method} {path} HTTP/{version}\r\nhost: {host}\r\n{authorization}{length}connection: close\r\n\r\n"
    )
    .map_err(gone)?;
    let mut answer = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = (&mut answer).take(HEAD_LINE_MAX).read_line(&mut head).map_err(gone)?;
        if read == 0 || head.len() as u64 > HEAD_LINE_MAX {
            return Err(not_streamgauge(&head));
        }
    }
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    Ok((status.ok_or_else(|| not_streamgauge(&head))?, answer))
}

/// As [`ask`], with the token that the address may ask for; what it answers with 200.
///
/// # Errors
/// As of [`ask`], and why it was refused.
pub(super) fn asked(admin: &str, method: &str, path: &str) -> Result<String, String> {
    let token = token();
    let answer = ask(admin, &Question { method, path, token: token.as_deref() })?;
    if answer.status == 200 { Ok(answer.body) } else { Err(refusal(&answer)) }
}

/// The token that the environment holds for the admin address.
pub(super) fn token() -> Option<String> {
    std::env::var(ADMIN_TOKEN_ENV).ok().filter(|token| !token.is_empty())
}

/// An answer that goes on and on, from its first byte on; a read that gets nothing for [`TIMEOUT`] fails.
///
/// # Errors
/// Why nobody could be asked, or why it was refused.
pub(super) fn stream(admin: &str, path: &str, token: Option<&str>) -> Result<Box<dyn BufRead + Send>, String> {
    // HTTP/1.0: an answer without chunks.
    let (status, answer) = open(admin, &Question { method: "GET", path, token }, "1.0")?;
    if status == 200 {
        return Ok(Box::new(answer));
    }
    let mut body = String::new();
    // What cannot be read says nothing.
    let _ = answer.take(ANSWER_MAX).read_to_string(&mut body);
    Err(refusal(&Answer { status, body }))
}

/// What an answer other than 200 says.
fn refusal(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Error {
        error: String,
    }
    match serde_json::from_str::<Error>(&answer.body) {
        Ok(error) if answer.status == 401 => format!("{} (set {ADMIN_TOKEN_ENV})", error.error),
        Ok(error) => error.error,
        Err(_) => not_streamgauge(&format!("HTTP/1.1 {}", answer.status)),
    }
}

/// What an answer says.
///
/// # Errors
/// It says something else.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, String> {
    serde_json::from_str(body).map_err(|_| "the proxy is of another version: its answer cannot be read".to_owned())
}

/// Percent-encoded, all but letters, digits and what RFC 3986 calls unreserved.
pub(super) fn encoded(text: &str) -> String {
    const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, &RESERVED).to_string()
}

trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

fn connect_unix(path: &str) -> std::io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn connect_tcp(address: &SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Somebody else answered.
pub(super) fn not_streamgauge(answer: &str) -> String {
    let line: String = answer.lines().next().unwrap_or("no answer").chars().take(200).collect();
    format!("this is no Streamgauge admin address: {line}")
}

fn authority(admin: &str) -> Result<String, String> {
    if admin.starts_with("https://") {
        return Err("the admin address speaks plain HTTP: write http://".to_owned());
    }
    let plain = admin.strip_prefix("http://").unwrap_or(admin);
    let authority = plain.split('/').next().unwrap_or_default();
    // A server that listens on every address is asked on loopback.
    Ok(authority.replacen("0.0.0.0:", "127.0.0.1:", 1).replacen("[::]:", "[::1]:", 1))
}

fn connect(authority: &str) -> Result<TcpStream, String> {
    let addresses = authority.to_socket_addrs().map_err(|error| {
        format!("{authority} is no address and port that can be asked ({error}): write it as http://127.0.0.1:9090")
    })?;
    let mut last = None;
    for address in addresses {
        match connect_tcp(&address) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => unreachable(authority, &error),
        None => format!("{authority} stands for no address"),
    })
}

fn unreachable(admin: &str, error: &std::io::Error) -> String {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    if matches!(error.kind(), ConnectionRefused | NotFound) {
        return format!(
            "cannot ask {admin}: nothing listens there. Is Streamgauge running? --admin names its admin address"
        );
    }
    format!("cannot ask {admin}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_listens_the_message_says_what_to_look_at() {
        // The port is free again as soon as its listener is gone.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = connect(&format!("127.0.0.1:{port}")).unwrap_err();
        assert!(
            error.starts_with("cannot ask 127.0.0.1:") && error.ends_with("--admin names its admin address"),
            "{error}"
        );
    }

    #[test]
    fn names_pass_through_addresses() {
        assert_eq!(encoded("/v1/* ü"), "%2Fv1%2F%2A%20%C3%BC");
    }

    #[test]
    fn every_address_is_asked_on_loopback() {
        assert_eq!(authority("http://0.0.0.0:9090/").unwrap(), "127.0.0.1:9090");
        assert_eq!(authority("[::]:9090").unwrap(), "[::1]:9090");
    }
}
