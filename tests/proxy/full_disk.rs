//! A disk without room under stdout costs lines of the access log, which are counted, and no request.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::interval;

use crate::support::{Client, Upstream, config, soon};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

const REQUESTS: usize = 20;

/// The loopback addresses on which a process listens, as the kernel tells: it cannot say so itself.
fn listening(pid: u32) -> Vec<SocketAddr> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let sockets: Vec<String> = links.filter_map(|link| Some(link.to_str()?.to_owned())).collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = rows.filter(|row| row[3] == "0A" && sockets.contains(&format!("socket:[{}]", row[9])));
    own.map(|row| {
        let port = u16::from_str_radix(row[1].split_once(':').unwrap().1, 16).unwrap();
        (Ipv4Addr::LOCALHOST, port).into()
    })
    .collect()
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut client = Client::connect(address).await;
    client.send(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")).await;
    let answer = client.answer().await;
    (answer.status, answer.text())
}

#[tokio::test]
async fn a_full_disk_under_the_access_log_stops_nobody() {
    let upstream = Upstream::fixed(OK).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("streamgauge.toml");
    fs::write(&path, config(upstream.address, "")).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", "json", "--config"]).arg(&path);
    command.env("XDG_STATE_HOME", directory.path()).stdout(full).stderr(Stdio::null()).kill_on_drop(true);
    let child = command.spawn().unwrap();
    let mut again = interval(Duration::from_millis(20));
    let open = async {
        loop {
            again.tick().await;
            if let [one, other] = listening(child.id().unwrap())[..] {
                return (one, other);
            }
        }
    };
    let (one, other) = soon("two open ports", open).await;
    let is_admin = get(one, "/api/config").await.1.contains("\"settings\"");
    let (admin, front) = if is_admin { (one, other) } else { (other, one) };

    for _ in 0..REQUESTS {
        assert_eq!(get(front, "/").await, (200, "ok".to_owned()));
    }
    let counted = async {
        loop {
            again.tick().await;
            let (_, metrics) = get(admin, "/metrics").await;
            let series = "streamgauge_telemetry_dropped_total{signal=\"access_log\"} ";
            let lost = metrics.lines().find_map(|line| line.strip_prefix(series));
            if lost.is_some_and(|lost| lost.parse::<f64>().unwrap() >= REQUESTS as f64) {
                return;
            }
        }
    };
    soon("the count of lines that were lost", counted).await;
}
