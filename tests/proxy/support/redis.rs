//! Debian's redis-server as a process of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::soon;

/// A running Redis on a unix socket, without persistence; ends with its owner.
pub struct Redis {
    child: Child,
    directory: tempfile::TempDir,
}

impl Redis {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let child = launch(directory.path());
        let redis = Self { child, directory };
        redis.answers().await;
        redis
    }

    /// A Redis over TLS that asks for `password`. Beside it: its port, and the file with the certificate to trust.
    pub async fn start_tls(password: &str) -> (Self, u16, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        std::fs::write(&cert, own.cert.pem()).unwrap();
        std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
        // Redis cannot pick a port itself; one that was free a moment ago mostly still is.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = command(directory.path());
        command.args(["--tls-port", &port.to_string(), "--bind", "127.0.0.1", "--tls-auth-clients", "no"]);
        command.args(["--requirepass", password]).arg("--tls-cert-file").arg(&cert).arg("--tls-key-file").arg(&key);
        let redis = Self { child: command.spawn().unwrap(), directory };
        soon("Redis over TLS", async { while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {} })
            .await;
        (redis, port, cert)
    }

    /// As the configuration names it.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Kills it; what it knew is lost.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again at the same place.
    pub async fn restart(&mut self) {
        self.child = launch(self.directory.path());
        self.answers().await;
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Stops it from answering, and lets it go on.
    pub fn pause(&self, paused: bool) {
        let signal = if paused { "-STOP" } else { "-CONT" };
        assert!(std::process::Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap().success());
    }

    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    async fn answers(&self) {
        let client = redis::Client::open(self.url()).unwrap();
        let ping = async || {
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.ok()
        };
        soon("Redis", async {
            while ping().await.is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

fn launch(directory: &Path) -> Child {
    command(directory).spawn().expect("redis-server: `scripts/setup apt redis-server` installs it")
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no", "--unixsocket"]);
    command.arg(directory.join("redis.sock")).arg("--dir").arg(directory);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command
}
