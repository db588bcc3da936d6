//! A request that its backend may have acted on is sent once, but where the route's rule allows more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::support::backend::{Act, Backend, table};
use crate::support::{Answer, Proxy, Upstream, soon};

const ORDER: (&str, &str) = ("/orders", r#"{"amount":5}"#);
const CHAT: (&str, &str) = ("/v1/chat/completions", r#"{"model":"m","messages":[]}"#);

/// How often a POST is asked whose kept connection ends without a byte, and what the client sees.
async fn posted(rule: &str, (path, body): (&str, &str), worked: Duration, resets: bool) -> (usize, u16) {
    let (upstream, mut conns) = Upstream::handed().await;
    let route = format!("[[route]]\npath = \"*\"\nupstream = \"one\"\nfailover = \"{rule}\"\n");
    let proxy = Proxy::start(&format!("{}{route}", table("one", upstream.address, ""))).await;
    let mut client = proxy.client().await;
    let (first, mut conn) = tokio::join!(client.get("/warm", ""), async {
        let mut conn = soon("a connection", conns.recv()).await.unwrap();
        conn.request().await.unwrap();
        conn.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        conn
    });
    assert_eq!(first.status, 200);
    client.post(path, body, "").await;
    conn.request().await.unwrap();
    tokio::time::sleep(worked).await;
    if resets {
        conn.reset()
    } else {
        drop(conn)
    }
    let mut asked = 1;
    let answer = async {
        tokio::select! {
            answer = client.answer() => answer,
            () = async {
                while let Some(mut again) = conns.recv().await {
                    again.request().await.unwrap();
                    asked += 1;
                    again.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
                std::future::pending().await
            } => unreachable!(),
        }
    };
    let status = soon("an answer", answer).await.status;
    (asked, status)
}

#[tokio::test]
async fn what_a_backend_may_have_acted_on_is_not_asked_again_by_itself() {
    let late = Duration::from_millis(700);
    for resets in [false, true] {
        for worked in [Duration::ZERO, late] {
            for rule in ["llm", "never", "unsent"] {
                assert_eq!(posted(rule, ORDER, worked, resets).await, (1, 502), "{rule} {worked:?} {resets}");
            }
        }
        // What is an LLM's changes nothing, and an operator may say the same of all.
        assert_eq!(posted("llm", CHAT, Duration::ZERO, resets).await, (2, 200));
        assert_eq!(posted("always", ORDER, Duration::ZERO, resets).await, (2, 200));
        assert_eq!(posted("never", CHAT, Duration::ZERO, resets).await, (1, 502));
        // That is no race any more: the endpoint failed.
        assert_eq!(posted("llm", CHAT, late, resets).await, (1, 502));
    }
}

#[tokio::test]
async fn what_changes_nothing_is_asked_again_over_a_new_connection() {
    let upstream = Upstream::start(|mut conn| async move {
        // One answer a connection, and no word that it will be closed.
        conn.request().await;
        conn.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        conn.request().await;
    })
    .await;
    let proxy = Proxy::start(&table("one", upstream.address, "")).await;
    let mut client = proxy.client().await;
    for _ in 0..4 {
        assert_eq!(client.get("/x", "").await.status, 200);
    }
}

/// So many requests at once, of which the target that they are all assigned to answers none before it has all of them.
async fn all_at_once(count: usize) -> (Vec<Answer>, usize, usize) {
    let gate = Arc::new(Semaphore::new(0));
    let fails = Act::After(Arc::clone(&gate), Box::new(Act::Status(503, "")));
    let first = Backend::start("first", vec![fails]).await;
    let second = Backend::start("second", vec![Act::Json]).await;
    let route =
        "[[route]]\npath = \"*\"\ntargets = [{ upstream = \"first\" }]\nfallback = [{ upstream = \"second\" }]\n";
    let proxy = Proxy::start(&format!("{}{}{route}", first.table(""), second.table(""))).await;
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = proxy.client().await;
        client.post(CHAT.0, CHAT.1, "").await;
        clients.push(client);
    }
    soon("all to be asked", async {
        while first.log.count() < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gate.add_permits(count);
    let mut answers = Vec::new();
    for client in &mut clients {
        answers.push(client.answer().await);
    }
    (answers, first.log.count(), second.log.count())
}

#[tokio::test]
async fn a_few_clients_see_nothing_of_a_target_that_fails_everything() {
    let (answers, ..) = all_at_once(8).await;
    let seen = answers.iter().filter(|answer| answer.status != 200).count();
    assert_eq!(seen, 0, "as many as the budget's floor allows are asked again at once");
}

#[tokio::test]
async fn nobody_sees_a_target_after_it_was_ejected() {
    // Far more than may be sent again at once; but when they fail, the target is out.
    let (answers, first, second) = all_at_once(60).await;
    let seen = answers.iter().filter(|answer| answer.status != 200).count();
    assert_eq!((seen, first, second), (0, 60, 60));
}

#[tokio::test]
async fn retry_after_may_be_a_date() {
    for date in [true, false] {
        let wait = if date {
            "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:54:37 GMT\r\n"
        } else {
            ""
        };
        let busy = Backend::start("busy", vec![Act::Status(429, wait)]).await;
        let free = Backend::start("free", vec![Act::After(Arc::new(Semaphore::new(0)), Box::new(Act::Json))]).await;
        let urls = format!(
            "[[upstream]]\nname = \"u\"\nurls = [\"http://{}\", \"http://{}\"]\n",
            busy.address(),
            free.address()
        );
        let proxy = Proxy::start(&format!("{urls}[[route]]\npath = \"*\"\nupstream = \"u\"\n")).await;
        let mut waiting = Vec::new();
        // The one that has no requests costs nothing until it says that it wants none for five minutes; after that it costs
        // as much as the other does with three hundred.
        for _ in 0..20 {
            let mut client = proxy.client().await;
            client.post(CHAT.0, CHAT.1, "").await;
            waiting.push(client);
            let asked = waiting.len();
            soon("the request", async {
                while free.log.count() < asked {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        let most = if date { 1 } else { 20 };
        assert!(busy.log.count() <= most, "{date}: {}", busy.log.count());
        if !date {
            assert!(busy.log.count() > 1, "five seconds are less than twenty requests");
        }
    }
}
