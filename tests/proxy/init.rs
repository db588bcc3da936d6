//! `streamgauge init`: what it finds, the file that it writes, and the first request through it. Only the ports of the fakes are asked: others'
//! tests count who connects. tests/docs/run.sh has it look around, in a network of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use tokio::process::Command;

use crate::support::{Conn, Proxy, Upstream, soon};

/// Answers of each path; 404 of all others.
async fn serving(answers: &'static [(&'static str, &'static str)]) -> Upstream {
    Upstream::start(async move |mut conn: Conn| {
        while let Some(seen) = conn.request().await {
            let path = seen.head.split(' ').nth(1).unwrap();
            let body = answers.iter().find(|(other, _)| *other == path).map(|(_, body)| *body);
            let (status, body) = body.map_or(("404 Not Found", r#"{"detail":"Not Found"}"#), |body| ("200 OK", body));
            let kind = if body.starts_with("data:") { "text/event-stream" } else { "application/json" };
            let length = body.len();
            conn.write(format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"))
                .await;
        }
    })
    .await
}

/// As FastAPI describes an app with one chat endpoint.
async fn fastapi() -> Upstream {
    serving(&[
        (
            "/openapi.json",
            r##"{"openapi":"3.1.0","info":{"title":"Support chat","version":"0.1.0"},"paths":{"/api/chat":{"post":{
            "requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Chat"}}}},
            "responses":{"200":{"content":{"application/json":{}}}}}}},"components":{"schemas":{"Chat":
            {"type":"object","required":["message"],"properties":{"message":{"type":"string"},"pace":{"type":"number","default":0.1}}}}}}"##,
        ),
        ("/api/chat", "data: {\"token\":\"a\"}\n\ndata: {\"token\":\"b\"}\n\ndata: [DONE]\n\n"),
    ])
    .await
}

async fn vllm() -> Upstream {
    serving(&[
        ("/openapi.json", r#"{"openapi":"3.1.0","info":{"title":"FastAPI"},"paths":{}}"#),
        ("/v1/models", r#"{"object":"list","data":[{"id":"llama-3","object":"model","owned_by":"vllm"}]}"#),
    ])
    .await
}

async fn ollama() -> Upstream {
    serving(&[
        ("/v1/models", r#"{"object":"list","data":[{"id":"llama3.2:1b","owned_by":"library"}]}"#),
        ("/api/tags", r#"{"models":[{"name":"llama3.2:1b"}]}"#),
    ])
    .await
}

async fn command(directory: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.args(words).current_dir(directory).stdin(Stdio::null()).kill_on_drop(true);
    command.env_remove("STREAMGAUGE_CONFIG").env_remove("STREAMGAUGE_ADMIN").env_remove("STREAMGAUGE_LISTEN");
    soon("the command", command.output()).await.unwrap()
}

/// Its output; that of stderr if it failed.
async fn init(directory: &Path, ports: &[SocketAddr], more: &[&str]) -> Result<String, String> {
    let ports: Vec<String> = ports.iter().map(|address| address.port().to_string()).collect();
    let ports = ports.join(",");
    let output = command(directory, &[&["init", "--port", &ports], more].concat()).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[tokio::test]
async fn a_written_file_is_good_and_a_first_request_through_it_has_its_anatomy() {
    let (app, models, tags) = (fastapi().await, vllm().await, ollama().await);
    let directory = tempfile::tempdir().unwrap();
    let told = init(directory.path(), &[app.address, models.address, tags.address], &[]).await.unwrap();
    for said in [
        "app \"Support chat\" with 1 operations",
        "vLLM: llama-3",
        "Ollama: llama3.2:1b",
        "Wrote streamgauge.toml.",
        "/api/chat -H 'content-type: application/json' -d '{\"message\":\"hello\"}'",
        "module.exports = { rewrites:",
        "/vllm/v1\", api_key",
        "job_name: streamgauge",
    ] {
        assert!(told.contains(said), "no {said} in:\n{told}");
    }
    let checked = command(directory.path(), &["check"]).await;
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let text = std::fs::read_to_string(directory.path().join("streamgauge.toml")).unwrap();
    let proxy = Proxy::start(&text).await;
    let mut client = proxy.client().await;
    client
        .post("/api/chat", "{\"message\":\"hello\"}", "content-type: application/json\r\nx-request-id: first\r\n")
        .await;
    client.until("[DONE]").await;
    let record = proxy.record("first").await;
    assert_eq!((&record["route"], &record["outcome"]), (&"app".into(), &"completed".into()), "{record}");
    assert!(record["ttft_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{record}");
    let answer = proxy.client().await.get("/vllm/v1/models", "").await;
    assert!(answer.text().contains("\"owned_by\":\"vllm\""), "{}", answer.text());
}

#[tokio::test]
async fn a_file_is_overwritten_only_when_that_is_said() {
    let (app, directory) = (fastapi().await, tempfile::tempdir().unwrap());
    let path = directory.path().join("mine.toml");
    std::fs::write(&path, "# mine").unwrap();
    let refused = init(directory.path(), &[app.address], &["--output", "mine.toml"]).await.unwrap_err();
    assert!(refused.contains("mine.toml is there already"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "# mine");
    let told = init(directory.path(), &[app.address], &["--output", "mine.toml", "--force"]).await.unwrap();
    assert!(told.contains("streamgauge run --config 'mine.toml'"), "{told}");
    assert!(std::fs::read_to_string(&path).unwrap().contains(&format!("url = \"http://{}\"", app.address)));
}

#[tokio::test]
async fn hung_endless_and_garbled_servers_cost_a_bounded_time_and_are_said_to_be_none() {
    let hung = Upstream::start(async |mut conn: Conn| {
        let _ = conn.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let garbled = Upstream::fixed("\0\u{1b}[2J\r\n\r\nHTTP/9.9 what\r\n\r\n").await;
    let endless = Upstream::start(async |mut conn: Conn| {
        let _ = conn.request().await;
        conn.write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n").await;
        while !conn.is_gone() {
            conn.write(vec![b'['; 65_536]).await;
        }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let before = Instant::now();
    for hostile in [&hung, &garbled] {
        let refused = init(directory.path(), &[hostile.address], &[]).await.unwrap_err();
        assert!(refused.contains("nothing answers in HTTP"), "{refused}");
    }
    // It speaks HTTP, and was named.
    let told = init(directory.path(), &[endless.address], &[]).await.unwrap();
    assert!(told.contains("neither an app with /openapi.json nor a server of models"), "{told}");
    assert!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
}

#[tokio::test]
async fn where_nobody_can_be_asked_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let output = command(directory.path(), &["init"]).await;
    assert!(!output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("--yes") && told.contains("--port"), "{told}");
    assert!(!directory.path().join("streamgauge.toml").exists());
}

#[tokio::test]
async fn a_run_without_a_backend_says_what_is_missing_and_what_to_type() {
    let directory = tempfile::tempdir().unwrap();
    let output = command(directory.path(), &["run"]).await;
    assert!(!output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    for said in
        ["no --upstream", "STREAMGAUGE_CONFIG", "./streamgauge.toml", "streamgauge init", "streamgauge run --upstream"]
    {
        assert!(told.contains(said), "no {said} in:\n{told}");
    }
}

#[tokio::test]
async fn a_run_takes_the_file_that_lies_here() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("streamgauge.toml"), "[server]\nlisten = 5\n").unwrap();
    let output = command(directory.path(), &["run"]).await;
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("streamgauge.toml:2:"), "{told}");
}
