//! Asks a running proxy whether it is ready: for images without a shell.

use super::admin::{self, Question};

/// Asks `GET /readyz` of the admin address.
///
/// # Errors
/// Why it is not ready, or could not be asked.
pub(super) fn ask(admin: &str) -> Result<(), String> {
    let answer = admin::ask(admin, &Question { method: "GET", path: "/readyz", token: None })?;
    match answer.status {
        200 => Ok(()),
        503 => Err(format!("not ready: {}", answer.body)),
        status => Err(admin::not_streamgauge(&format!("HTTP/1.1 {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

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
}
