//! The proxy as a process of its own.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::{Client, soon};

/// A running proxy; ends with its owner.
pub struct Proxy {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub pid: u32,
    child: Child,
    /// All lines of stdout and stderr so far.
    lines: watch::Receiver<Arc<Vec<Value>>>,
    pub directory: tempfile::TempDir,
}

/// A configuration with one upstream, and everything else as `more` says.
pub fn config(upstream: SocketAddr, more: &str) -> String {
    format!("[[upstream]]\nname = \"fake\"\nurl = \"http://{upstream}\"\n\n{more}\n")
}

impl Proxy {
    /// Starts the proxy on ports that the system picks. `text` is the configuration file.
    pub async fn start(text: &str) -> Self {
        Self::start_with(text, &[]).await
    }

    /// As [`Proxy::start`], with environment variables.
    pub async fn start_with(text: &str, environment: &[(&str, &str)]) -> Self {
        Self::launch(text, &["--listen", "127.0.0.1:0"], environment, true).await
    }

    /// As [`Proxy::start`], for so many requests that their records would fill our own memory: [`Proxy::record`] finds none.
    pub async fn start_for_many(text: &str) -> Self {
        Self::launch(text, &["--listen", "127.0.0.1:0"], &[], false).await
    }

    /// As [`Proxy::start`], listening where the configuration says.
    pub async fn start_listening(text: &str) -> Self {
        Self::launch(text, &[], &[], true).await
    }

    /// A process of the same configuration that takes over from `old`, whose `state_dir` is given; it serves by then.
    pub async fn taking_over(old: &Self, text: &str, state_dir: &std::path::Path) -> Self {
        let (listen, admin) = (old.listen.to_string(), old.admin.to_string());
        let waiting = state_dir.join("upgrade/sockets");
        let hand_over = async {
            while !waiting.exists() {
                tokio::task::yield_now().await;
            }
            old.signal("QUIT");
        };
        Self::spawn(text, &["--listen", &listen, "--admin", &admin, "--upgrade"], &[], true, hand_over).await
    }

    async fn launch(text: &str, listen: &[&str], environment: &[(&str, &str)], records: bool) -> Self {
        let args = [listen, &["--admin", "127.0.0.1:0"]].concat();
        Self::spawn(text, &args, environment, records, std::future::ready(())).await
    }

    /// `beside` is done once the process runs, and before it is waited for.
    async fn spawn(
        text: &str,
        args: &[&str],
        environment: &[(&str, &str)],
        records: bool,
        beside: impl Future<Output = ()>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("streamgauge.toml");
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
        command.arg("run").args(args).args(["--log", "json", "--config"]);
        command.arg(&path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.env("XDG_STATE_HOME", directory.path()).envs(environment.iter().copied());
        let mut child = command.spawn().unwrap();
        let (sender, mut lines) = watch::channel(Arc::new(Vec::new()));
        let keeps = move |line: &Value| records || !line["outcome"].is_string();
        tokio::spawn(collect(child.stdout.take().unwrap(), sender.clone(), keeps));
        tokio::spawn(collect(child.stderr.take().unwrap(), sender, keeps));
        soon("what is to be done beside", beside).await;
        let started = soon("the proxy's start line", find(&mut lines, |line| line["event"] == "started")).await;
        let address = |key: &str| -> SocketAddr {
            let addresses = started[key].as_str().unwrap();
            addresses.split(',').find_map(|address| address.parse().ok()).unwrap()
        };
        let pid = child.id().unwrap();
        Self { listen: address("listen"), admin: address("admin"), pid, child, lines, directory }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.listen).await
    }

    /// The access-log line of the request with this id.
    pub async fn record(&self, request_id: &str) -> Value {
        let wanted = |line: &Value| line["request_id"] == request_id && line["outcome"].is_string();
        soon("an access-log line", find(&mut self.lines.clone(), wanted)).await
    }

    /// The first line that fits.
    pub async fn line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        soon(what, find(&mut self.lines.clone(), wanted)).await
    }

    /// All lines so far.
    pub fn lines(&self) -> Arc<Vec<Value>> {
        Arc::clone(&self.lines.borrow())
    }

    /// A GET at the admin address: status and body.
    pub async fn admin_get(&self, path: &str) -> (u16, String) {
        let mut client = Client::connect(self.admin).await;
        client.send(format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin)).await;
        let answer = client.answer().await;
        (answer.status, answer.text())
    }

    /// A POST at the admin address: status and body.
    pub async fn admin_post(&self, path: &str) -> (u16, String) {
        let mut client = Client::connect(self.admin).await;
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", self.admin);
        client.send(head).await;
        let answer = client.answer().await;
        (answer.status, answer.text())
    }

    pub fn signal(&self, name: &str) {
        let done =
            std::process::Command::new("kill").args([&format!("-{name}"), &self.pid.to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Waits for the process to end; its exit code.
    pub async fn exited(&mut self) -> Option<i32> {
        soon("the proxy's exit", self.child.wait()).await.unwrap().code()
    }

    pub fn write_config(&self, text: &str) {
        std::fs::write(self.directory.path().join("streamgauge.toml"), text).unwrap();
    }
}

/// Keeps the lines of one of the process's outputs.
async fn collect(
    output: impl AsyncRead + Unpin,
    lines: watch::Sender<Arc<Vec<Value>>>,
    keeps: impl Fn(&Value) -> bool,
) {
    let mut reader = BufReader::new(output).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        let value: Value = serde_json::from_str(&line).unwrap_or(Value::String(line));
        if keeps(&value) {
            lines.send_modify(|lines| Arc::make_mut(lines).push(value));
        }
    }
}

async fn find(lines: &mut watch::Receiver<Arc<Vec<Value>>>, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut seen = 0;
    loop {
        let now = Arc::clone(&lines.borrow_and_update());
        if let Some(line) = now[seen..].iter().find(|line| wanted(line)) {
            return line.clone();
        }
        seen = now.len();
        if lines.changed().await.is_err() {
            panic!("the proxy ended; it had said: {now:#?}");
        }
    }
}
