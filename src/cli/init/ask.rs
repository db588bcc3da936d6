//! Asks one address over HTTP, within a time and a size, whatever answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// For the connection, and for each answer. An app makes its /openapi.json when it is first asked.
pub(super) const QUESTION_TIME: Duration = Duration::from_millis(500);

/// Longest answer that is read, in bytes: the description of a large app.
const ANSWER_MAX: usize = 4 << 20;

/// Bytes that are read at once.
const READ_AT_ONCE: usize = 16 << 10;

/// An answer in HTTP/1.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// In lower case.
    pub(super) head: String,
    /// As far as it came within the time and the size.
    pub(super) body: Vec<u8>,
}

/// What came of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Answer(Answer),
    /// Something listens, but within the time there was no answer in HTTP.
    NotHttp,
    /// Nothing listens.
    Nobody,
}

/// `GET path`, on a connection of its own.
pub(super) fn get(address: SocketAddr, path: &str) -> Told {
    let deadline = Instant::now() + QUESTION_TIME;
    let stream = match TcpStream::connect_timeout(&address, QUESTION_TIME) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::TimedOut => return Told::NotHttp,
        Err(_) => return Told::Nobody,
    };
    read_answer(stream, address, path, deadline).and_then(|bytes| answer_of(&bytes)).map_or(Told::NotHttp, Told::Answer)
}

fn read_answer(mut stream: TcpStream, address: SocketAddr, path: &str, deadline: Instant) -> Option<Vec<u8>> {
    let left = || Some(deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
    stream.set_write_timeout(left()).ok()?;
    // HTTP/1.0: an answer without chunks, which ends with the connection.
    let question =
        format!("GET {path} HTTP/1.0\r\nhost: {address}\r\naccept: application/json\r\nconnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).ok()?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; READ_AT_ONCE]);
    while bytes.len() < ANSWER_MAX && !is_whole(&bytes) {
        let Some(left) = left() else { break };
        stream.set_read_timeout(Some(left)).ok()?;
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend_from_slice(buffer.get(..count)?),
        }
    }
    Some(bytes)
}

/// Whether all that the answer's length promises is there: some servers keep the connection open.
fn is_whole(bytes: &[u8]) -> bool {
    let Some((head, body)) = split(bytes) else { return false };
    let length = head.lines().filter_map(|line| line.strip_prefix("content-length:"));
    length.filter_map(|length| length.trim().parse::<usize>().ok()).any(|length| body.len() >= length)
}

fn split(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    Some((String::from_utf8_lossy(bytes.get(..end)?).to_ascii_lowercase(), bytes.get(end + 4..)?))
}

fn answer_of(bytes: &[u8]) -> Option<Answer> {
    let (head, body) = split(bytes)?;
    let status = head.strip_prefix("http/1.")?.get(2..5)?.parse().ok()?;
    Some(Answer { status, head, body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Serves one connection with `serve`, once its question came.
    fn serving(serve: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            serve(stream);
        });
        address
    }

    #[test]
    fn an_answer_is_read() {
        let address = serving(|mut stream| stream.write_all(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nhello").unwrap());
        let head = "http/1.1 200 ok\r\nserver: x".to_owned();
        assert_eq!(get(address, "/a"), Told::Answer(Answer { status: 200, head, body: b"hello".to_vec() }));
    }

    #[test]
    fn a_server_that_keeps_the_connection_is_not_waited_for() {
        let (ended, end) = std::sync::mpsc::channel::<()>();
        let address = serving(move |mut stream| {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}").unwrap();
            // Until the test has ended.
            let _ = end.recv();
        });
        let before = Instant::now();
        assert!(matches!(get(address, "/"), Told::Answer(Answer { status: 404, .. })));
        assert!(before.elapsed() < QUESTION_TIME, "{:?}", before.elapsed());
        drop(ended);
    }

    #[test]
    fn one_that_never_answers_and_one_that_never_ends_cost_a_bounded_time_and_size() {
        let (ended, end) = std::sync::mpsc::channel::<()>();
        let hung = serving(move |_stream| {
            let _ = end.recv();
        });
        assert_eq!(get(hung, "/"), Told::NotHttp);
        drop(ended);
        let endless = serving(|mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'['; 65_536]).is_ok() {}
        });
        let before = Instant::now();
        let Told::Answer(answer) = get(endless, "/") else { panic!("an endless answer is one") };
        assert!(answer.body.len() <= ANSWER_MAX + READ_AT_ONCE, "{}", answer.body.len());
        assert!(before.elapsed() < 4 * QUESTION_TIME, "{:?}", before.elapsed());
        let endless_head = serving(|mut stream| while stream.write_all(b"HTTP/1.1 200 OK ").is_ok() {});
        assert_eq!(get(endless_head, "/"), Told::NotHttp);
    }

    #[test]
    fn what_is_no_http_is_told_apart_from_nobody() {
        for garbage in [&b"SSH-2.0-OpenSSH\r\n"[..], b"\0\0\0\x10\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.", b""] {
            let address = serving(move |mut stream| stream.write_all(garbage).unwrap());
            assert_eq!(get(address, "/"), Told::NotHttp, "{}", String::from_utf8_lossy(garbage));
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(get(free, "/"), Told::Nobody);
    }
}
