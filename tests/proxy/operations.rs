//! What the operator does: reload, drain, wrong files, ports in use.

use crate::support::backend::refusing;
use crate::support::{Proxy, Upstream, config, soon};
use std::process::{Command, Stdio};

fn route(name: &str) -> String {
    format!("[[route]]\nname = \"{name}\"\npath = \"*\"\ntargets = [{{ upstream = \"fake\" }}]\nkind = \"llm\"\n")
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A proxy whose one stream waits: proxy, client that has read `data: 1`, upstream connection.
async fn with_live_stream(more: &str) -> (Proxy, crate::support::Client, crate::support::Conn, Upstream) {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&format!("{more}\n{}", config(upstream.address, &route("old")))).await;
    let mut client = proxy.client().await;
    client.send("GET /stream HTTP/1.1\r\nhost: a\r\nx-request-id: live\r\n\r\n").await;
    let mut conn = soon("the stream", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    conn.event_stream().await;
    conn.chunk("data: 1\n\n").await;
    client.until("data: 1").await;
    (proxy, client, conn, upstream)
}

#[tokio::test]
async fn a_reload_changes_the_next_request_and_no_running_one() {
    let (proxy, mut client, mut conn, _upstream) = with_live_stream("").await;
    let other = Upstream::fixed(OK).await;
    proxy.write_config(&config(other.address, &route("new")));
    proxy.signal("HUP");
    proxy.line("the reload", |line| line["event"] == "config.reloaded").await;
    let answer = proxy.client().await.get("/x", "x-request-id: next\r\n").await;
    assert_eq!(answer.text(), "ok");
    let next = proxy.record("next").await;
    assert_eq!((&next["route"], &next["config_generation"]), (&"new".into(), &2.into()));
    conn.chunk("data: 2\n\n").await;
    conn.chunk("").await;
    client.until("data: 2").await;
    client.until("\r\n0\r\n\r\n").await;
    let live = proxy.record("live").await;
    assert_eq!((&live["route"], &live["config_generation"]), (&"old".into(), &1.into()));
    assert_eq!(live["outcome"], "completed");
}

#[tokio::test]
async fn a_written_file_is_noticed_without_a_signal() {
    let upstream = Upstream::fixed(OK).await;
    let proxy = Proxy::start(&config(upstream.address, &route("old"))).await;
    proxy.write_config(&config(upstream.address, &route("new")));
    proxy.line("the reload", |line| line["event"] == "config.reloaded").await;
    proxy.client().await.get("/x", "x-request-id: next\r\n").await;
    assert_eq!(proxy.record("next").await["route"], "new");
}

#[tokio::test]
async fn a_bad_file_keeps_the_last_good_one_and_says_why() {
    let upstream = Upstream::fixed(OK).await;
    let good = config(upstream.address, &route("good"));
    let proxy = Proxy::start(&good).await;
    let mut seen = 0;
    for bad in
        ["", "[[route]\n", "[[upstream]]\nname = 1\n[server]\nlistne = 1\n", &good.repeat(10), &good[..good.len() / 2]]
    {
        proxy.write_config(bad);
        proxy.signal("HUP");
        loop {
            let (_, shown) = proxy.admin_get("/metrics").await;
            let failed = shown
                .lines()
                .find_map(|line| line.strip_prefix("streamgauge_config_reloads_total{result=\"rejected\"} "))
                .map_or(0, |count| count.parse::<u64>().unwrap());
            if failed > seen {
                seen = failed;
                break;
            }
        }
        assert_eq!(proxy.client().await.get("/x", "").await.text(), "ok");
        let (_, shown) = proxy.admin_get("/api/config").await;
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["generation"], 1);
        assert!(shown["last_error"].to_string().contains("streamgauge.toml"), "{}", shown["last_error"]);
    }
}

#[tokio::test]
async fn drain_lets_streams_end_and_exits_soon_after() {
    let (mut proxy, mut client, mut conn, _upstream) = with_live_stream("").await;
    assert_eq!(proxy.admin_get("/readyz").await.0, 200);
    proxy.signal("TERM");
    proxy.line("the drain", |line| line["event"] == "drain.started").await;
    assert_eq!(proxy.admin_get("/readyz").await.0, 503);
    conn.chunk("data: 2\n\n").await;
    client.until("data: 2").await;
    conn.chunk("").await;
    client.until("\r\n0\r\n\r\n").await;
    let ended = std::time::Instant::now();
    assert_eq!(proxy.exited().await, Some(0));
    assert!(ended.elapsed() < std::time::Duration::from_secs(1), "{:?} after the last stream", ended.elapsed());
    assert_eq!(proxy.record("live").await["outcome"], "completed");
}

/// Replicas with the same upstreams would all leave a load balancer at once, and clients get no answer at all.
#[tokio::test]
async fn a_replica_is_ready_itself_while_no_upstream_is_up_but_not_while_it_drains() {
    let upstream = format!(
        "[[upstream]]\nname = \"dead\"\nurl = \"http://{}\"\nhealth = {{ path = \"/\", interval = \"100ms\" }}\n",
        refusing().await
    );
    let mut proxy = Proxy::start(&upstream).await;
    soon("the upstream to be down", async { while proxy.admin_get("/readyz").await.0 != 503 {} }).await;
    let (status, told) = proxy.admin_get("/readyz?self").await;
    assert_eq!((status, told.contains(r#""ready":true"#)), (200, true), "{told}");
    assert_eq!(proxy.admin_get("/readyz?selfish").await.0, 503, "only that very word");

    // A client that sends a body slowly holds the drain open, so that it can be asked.
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n{").await;
    soon("the request to run", async {
        while !proxy.admin_get("/api/streams").await.1.contains("\"url.path\":\"/\"") {}
    })
    .await;
    proxy.signal("TERM");
    proxy.line("the drain", |line| line["event"] == "drain.started").await;
    let (status, told) = proxy.admin_get("/readyz?self").await;
    assert_eq!((status, told.contains("draining")), (503, true), "{told}");
    drop(client);
    assert_eq!(proxy.exited().await, Some(0));
}

/// Who looks sees the drain, and does not put its end off.
#[tokio::test]
async fn a_viewer_of_the_live_view_keeps_no_process_up() {
    let (mut proxy, mut client, mut conn, _upstream) = with_live_stream("").await;
    let mut viewer = crate::support::Client::connect(proxy.admin).await;
    viewer.send("GET /api/streams/events HTTP/1.0\r\nhost: localhost\r\n\r\n").await;
    viewer.until("\"url.path\":\"/stream\"").await;
    proxy.signal("TERM");
    viewer.until("\"draining\":true").await;
    conn.chunk("").await;
    client.until("\r\n0\r\n\r\n").await;
    let ended = std::time::Instant::now();
    assert_eq!(proxy.exited().await, Some(0));
    assert!(ended.elapsed() < std::time::Duration::from_secs(2), "{:?} after the last stream", ended.elapsed());
}

#[tokio::test]
async fn what_outlasts_the_drain_is_cut_dirty() {
    let (mut proxy, mut client, _conn, _upstream) = with_live_stream("[server]\ndrain_timeout = \"300ms\"").await;
    proxy.signal("TERM");
    let text = client.until("draining").await;
    assert!(!text.ends_with("0\r\n\r\n"));
    assert_eq!(proxy.exited().await, Some(0));
    let record = proxy.record("live").await;
    assert_eq!((&record["outcome"], &record["error_type"]), (&"stopped".into(), &"draining".into()));
}

fn run(args: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_streamgauge")).args(args).stdin(Stdio::null()).output().unwrap();
    (out.status.code(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

#[test]
fn check_names_every_problem_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.toml");
    std::fs::write(
        &path,
        "[server]\nlistne = \"x\"\nmax_body = \"12 parsecs\"\n\n[[upstream]]\nname = \"a\"\n\n[[route]]\npath = \"/x\"\ntargets = [{ upstream = \"b\" }]\n",
    )
    .unwrap();
    let (code, said) = run(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    for wanted in ["bad.toml:2:", "listen", "bad.toml:3:", "bad.toml:5:", "url", "bad.toml:10:", "\"a\""] {
        assert!(said.contains(wanted), "{wanted:?} is missing in:\n{said}");
    }
    let (code, said) = run(&["run", "--config", path.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("bad.toml:2:"), "{said}");
}

#[test]
fn check_and_schema_of_the_example() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/streamgauge.toml");
    let (code, said) = run(&["check", "--config", example]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["schema"]);
    assert_eq!(code, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(schema["properties"]["upstream"].is_object());
}

#[tokio::test]
async fn a_port_in_use_is_said_so() {
    let upstream = Upstream::fixed(OK).await;
    let proxy = Proxy::start(&config(upstream.address, &route("all"))).await;
    let taken = proxy.listen.to_string();
    let target = format!("http://{}", upstream.address);
    let (code, said) = tokio::task::spawn_blocking(move || {
        let outcome = run(&["run", "--upstream", &target, "--listen", &taken, "--admin", "127.0.0.1:0"]);
        (outcome.0, format!("{taken} {}", outcome.1))
    })
    .await
    .unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("in use"), "{said}");
}
