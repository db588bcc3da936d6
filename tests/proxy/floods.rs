//! Who floods, and since when: repeats are folded by who and what, and no flood hides what failed.

use serde_json::Value;

use crate::support::backend::{refusing, table};
use crate::support::{Client, Proxy, Upstream, config, soon};

/// More requests than there are places for ended ones.
const FLOOD: u64 = 1_500;

const ROUTES: &str = r#"
[server]
trusted_proxies = ["127.0.0.0/8"]

[[limit]]
name = "per-user"
requests_per_minute = 1

[[route]]
name = "down"
path = "/down"
targets = [{ upstream = "gone" }]

[[route]]
name = "chat"
path = "*"
targets = [{ upstream = "fake" }]
limits = ["per-user"]
"#;

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Three failures of carol's and one request of alice's go through, then eve floods: how many of hers were refused.
async fn flood(proxy: &Proxy) -> u64 {
    let mut refused = 0;
    for (path, user, times) in [("/down", "carol", 3), ("/v1/x", "alice", 1), ("/v1/x", "eve", FLOOD)] {
        let mut client = Client::connect(proxy.listen).await;
        for _ in 0..times {
            let answer = client.get(path, &format!("x-user-id: {user}\r\n")).await;
            refused += u64::from(answer.status == 429);
        }
    }
    refused
}

async fn streams(proxy: &Proxy) -> Value {
    serde_json::from_str(&proxy.admin_get("/api/streams").await.1).unwrap()
}

/// The troubles of a kind.
fn troubles<'v>(streams: &'v Value, kind: &str) -> Vec<&'v Value> {
    streams["troubles"].as_array().unwrap().iter().filter(|row| row["kind"] == kind).collect()
}

#[tokio::test]
async fn who_floods_is_one_line_and_three_failures_stay() {
    let (upstream, gone) = (Upstream::fixed(ANSWER).await, refusing().await);
    let proxy = Proxy::start_for_many(&config(upstream.address, &format!("{}{ROUTES}", table("gone", gone, "")))).await;
    let refused = flood(&proxy).await;
    // One a minute passes.
    assert!(refused > 1_000, "{refused}");
    // A client may read its answer before the record is there.
    let all = async || troubles(&streams(&proxy).await, "refusal").iter().any(|row| row["count"] == refused);
    soon("the last refusal's record", async { while !all().await {} }).await;
    let view = streams(&proxy).await;

    let refusals = troubles(&view, "refusal");
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert_eq!(
        ["who", "what", "limit", "route"].map(|key| refusals[0][key].as_str().unwrap()),
        ["user:eve", "requests", "per-user", "chat"]
    );
    let [first, last] = ["first", "last"].map(|key| refusals[0][key].as_str().unwrap());
    assert!(first < last && first.ends_with('Z'), "{first} {last}");

    let failures = troubles(&view, "failure");
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(
        ["who", "what", "upstream", "endpoint", "route"].map(|key| failures[0][key].as_str().unwrap()),
        ["user:carol", "connect_refused", "gone", &gone.to_string(), "down"]
    );
    assert_eq!(failures[0]["count"], 3);

    let recent = view["recent"].as_array().unwrap();
    let of = |outcome: &str| recent.iter().filter(|row| row["outcome"] == outcome).count();
    assert_eq!((of("upstream_error"), of("completed") as u64, recent.len()), (3, 1 + FLOOD - refused, 1_000));

    let top = tokio::process::Command::new(env!("CARGO_BIN_EXE_streamgauge"))
        .args(["top", "--once", "--admin", &format!("http://{}", proxy.admin)])
        .output();
    let top = String::from_utf8(soon("one picture", top).await.unwrap().stdout).unwrap();
    let line = |words: &str| top.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {top}"));
    assert!(line("user:eve · limit per-user · chat").contains(&format!("{refused} times since")), "{top}");
    assert!(line("user:carol · down · gone").contains("3 times since"), "{top}");
}
