//! Asks a running proxy whether it is ready, with nothing but std: for images without a shell.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// For the connection, and again for each read and write.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The whole answer of `/readyz` is far shorter.
const ANSWER_MAX: u64 = 64 * 1024;

/// Asks `GET /readyz` of the admin address, given as `http://host:port`, `host:port` or `unix:/path`.
///
/// # Errors
/// Why it is not ready, or could not be asked.
pub(super) fn ask(admin: &str) -> Result<(), String> {
    let answer = match admin.strip_prefix("unix:") {
        Some(path) => {
            let stream = UnixStream::connect(path).map_err(|error| unreachable(admin, &error))?;
            stream.set_read_timeout(Some(TIMEOUT)).map_err(|error| unreachable(admin, &error))?;
            stream.set_write_timeout(Some(TIMEOUT)).map_err(|error| unreachable(admin, &error))?;
            exchange(stream, "localhost")
        }
        None => {
            let authority = authority(admin)?;
            exchange(connect(&authority)?, &authority)
        }
    };
    judge(&answer.map_err(|error| unreachable(admin, &error))?)
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
    let addresses = authority
        .to_socket_addrs()
        .map_err(|error| format!("{authority} is no address and port that can be asked: {error}"))?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(TIMEOUT)).map_err(|error| unreachable(authority, &error))?;
                stream.set_write_timeout(Some(TIMEOUT)).map_err(|error| unreachable(authority, &error))?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => unreachable(authority, &error),
        None => format!("{authority} stands for no address"),
    })
}

fn exchange(mut stream: impl Read + Write, host: &str) -> std::io::Result<String> {
    write!(stream, "GET /readyz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn judge(answer: &str) -> Result<(), String> {
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    match status {
        "200" => Ok(()),
        "503" => Err(format!("not ready: {body}")),
        _ => Err(format!("this is no Streamgauge admin address: {}", answer.lines().next().unwrap_or("no answer"))),
    }
}

fn unreachable(admin: &str, error: &std::io::Error) -> String {
    format!("cannot ask {admin}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one connection with `answer`, and returns what was asked.
    fn answering(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = format!("http://{}/", listener.local_addr().unwrap());
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        (admin, asked)
    }

    #[test]
    fn a_ready_server_is_ready() {
        let (admin, asked) = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        ask(&admin).unwrap();
        assert!(asked.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\nhost: 127.0.0.1:"));
    }

    #[test]
    fn a_server_that_is_not_ready_says_why() {
        let (admin, _) = answering("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"reasons\":[\"draining\"]}");
        let problem = ask(&admin).unwrap_err();
        assert!(problem.starts_with("not ready") && problem.contains("draining"), "{problem}");
    }

    #[test]
    fn what_cannot_be_asked_is_named() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(ask(&free.to_string()).unwrap_err().contains(&free.to_string()));
        assert!(ask("https://127.0.0.1:9090").unwrap_err().contains("plain HTTP"));
        assert!(ask("unix:/nonexistent/admin.sock").unwrap_err().contains("/nonexistent/admin.sock"));
        let (admin, _) = answering("SSH-2.0-OpenSSH\r\n");
        assert!(ask(&admin).unwrap_err().contains("no Streamgauge admin address"));
    }

    #[test]
    fn every_address_is_asked_on_loopback() {
        assert_eq!(authority("http://0.0.0.0:9090/").unwrap(), "127.0.0.1:9090");
        assert_eq!(authority("[::]:9090").unwrap(), "[::1]:9090");
    }
}
