//! What limits do at their edges: budgets over a restart, streams that are cut, absurd bounds, requests that move on.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{Mutex, Semaphore, mpsc};

use crate::limits::{assert_settled, chat, limited, stream, tokens};
use crate::support::{Answer, Proxy, Redis, Upstream, config, soon};

/// Each user may spend 3 dollars, and an answer costs 2: a dollar for a thousand tokens.
fn three_dollars(upstream: &Upstream, state: &Path) -> String {
    let prices = "[[price]]\nmodel = \"*\"\ninput = 1000.0\noutput = 1000.0\n";
    let server = format!("[server]\nstate_dir = \"{}\"\n", state.display());
    config(upstream.address, &format!("{server}\n{prices}\n{}", limited("cost_per_day = 3.0")))
}

/// Returns when the record is there, and so what the answer cost.
async fn ask(proxy: &Proxy, id: &str) -> Answer {
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", &chat(10), &format!("x-request-id: {id}\r\n")).await;
    let answer = client.answer().await;
    proxy.record(id).await;
    answer
}

#[tokio::test]
async fn what_was_spent_a_moment_ago_is_known_after_a_hand_over() {
    let upstream = Upstream::fixed(stream(1_000, 1_000)).await;
    let state = tempfile::tempdir().unwrap();
    let text = three_dollars(&upstream, state.path());
    let mut old = Proxy::start(&text).await;
    for id in ["first", "second"] {
        assert_eq!(ask(&old, id).await.status, 200);
    }
    let mut new = Proxy::taking_over(&old, &text, state.path()).await;
    // Until it goes, the old one may take a connection as well.
    old.exited().await;
    assert_eq!(ask(&new, "third").await.status, 429, "the new process knows it from its start");
    new.signal("KILL");
    new.exited().await;
    let again = Proxy::start(&text).await;
    assert_eq!(ask(&again, "fourth").await.status, 429, "the old one's end took nothing away");
}

#[tokio::test]
async fn budgets_count_what_answers_cost_and_outlive_a_restart() {
    let upstream = Upstream::fixed(stream(1_000, 1_000)).await;
    let state = tempfile::tempdir().unwrap();
    let text = three_dollars(&upstream, state.path());
    let mut proxy = Proxy::start(&text).await;
    assert_eq!(ask(&proxy, "first").await.status, 200);
    assert_eq!(proxy.record("first").await["cost_usd"], 2.0);
    let (_, text_of_view) = proxy.admin_get("/api/limits").await;
    let view: Value = serde_json::from_str(&text_of_view).unwrap();
    assert_eq!(view["holders"][0]["cost_usd_24h"], 2.0, "{view}");
    assert_eq!(ask(&proxy, "second").await.status, 200, "2 of 3 dollars are spent");
    let refused = ask(&proxy, "third").await;
    assert_eq!(refused.status, 429);
    assert!(refused.text().contains("allows to be spent in 24 hours for each user is used up"), "{}", refused.text());
    proxy.signal("TERM");
    proxy.exited().await;
    let proxy = Proxy::start(&text).await;
    let refused = ask(&proxy, "again").await;
    assert_eq!(refused.status, 429, "a restart forgives nothing");
    assert_eq!(proxy.record("again").await["limit"]["decision"], "cost_per_day");
}

/// A request that runs holds most of a budget of 3 dollars, and then spends little of it: who comes meanwhile is told to wait a
/// moment. When the money is spent, that is another answer. `more` says where the limits are kept.
pub async fn money_is_held_and_then_spent(more: &str) {
    // Each request gets the next answer that there is.
    let (answer, answers) = mpsc::channel::<String>(8);
    let answers = Arc::new(Mutex::new(answers));
    let upstream = Upstream::start(move |mut conn| {
        let answers = Arc::clone(&answers);
        async move {
            while conn.request().await.is_some() {
                let next = answers.lock().await.recv().await;
                conn.write(next.unwrap()).await;
            }
        }
    })
    .await;
    let prices = "[[price]]\nmodel = \"*\"\ninput = 1000.0\noutput = 1000.0\n";
    let proxy =
        Proxy::start(&config(upstream.address, &format!("{prices}\n{}\n{more}", limited("cost_per_day = 3.0")))).await;
    let standing = async || {
        let (_, text) = proxy.admin_get("/api/limits?ip=127.0.0.1").await;
        let view: Value = serde_json::from_str(&text).unwrap();
        let refused = view["holders"][0]["refused"].clone();
        (if view["in_store"].is_null() { view["holders"][0].clone() } else { view["in_store"][0].clone() }, refused)
    };
    // 8 tokens of the prompt and 2,500 of the answer, a dollar for a thousand: 2.508 dollars are held.
    let mut first = proxy.client().await;
    first.post("/v1/chat/completions", &chat(2_500), "").await;
    soon("the hold", async { while standing().await.0["cost_usd_held"] != 2.508 {} }).await;

    let ask = async |path: &str, tokens: u64, id: &str| {
        let mut client = proxy.client().await;
        client.post(path, &chat(tokens), &format!("x-request-id: {id}\r\n")).await;
        client.answer().await
    };
    let refused = ask("/v1/chat/completions", 900, "held").await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(wait <= 2, "what is held may be free at any time: {wait}");
    let body: Value = serde_json::from_str(&refused.text()).unwrap();
    assert_eq!((&body["error"]["type"], &body["error"]["code"]), (&"rate_limit_error".into(), &"rate_limited".into()));
    assert!(refused.text().contains("$0.00 are spent, and $2.51 are held for requests that still run"), "{body}");
    assert_eq!(refused.header("x-should-retry"), None);
    assert_eq!(proxy.record("held").await["limit"]["decision"], "cost_held");
    let (holder, since) = standing().await;
    assert_eq!((&holder["cost_usd_24h"], &holder["cost_usd_held"]), (&0.0.into(), &2.508.into()), "{holder}");
    assert_eq!((&since["reason"], &since["count"]), (&"cost_held".into(), &1.into()));
    assert!(since["first"].as_str().unwrap().ends_with('Z'));

    answer.send(stream(8, 2)).await.unwrap();
    assert_eq!(first.answer().await.status, 200);
    // A client may read its answer's end before the proxy has settled.
    soon("the end of the hold", async { while standing().await.0["cost_usd_held"] != 0.0 {} }).await;
    assert_eq!(standing().await.0["cost_usd_24h"], 0.01);
    for (id, spent) in [("passes", 2.01), ("spends", 4.01)] {
        answer.send(stream(1_000, 1_000)).await.unwrap();
        let passed = ask("/v1/chat/completions", 900, id).await;
        assert_eq!(passed.status, 200, "{}", passed.text());
        soon("what it cost", async { while standing().await.0["cost_usd_24h"] != spent {} }).await;
    }
    let spent = ask("/v1/chat/completions", 10, "spent").await;
    assert_eq!((spent.status, spent.header("x-should-retry")), (429, Some("false")), "{}", spent.text());
    let wait: u64 = spent.header("retry-after").unwrap().parse().unwrap();
    assert!(wait > 3_600, "{wait}");
    let body: Value = serde_json::from_str(&spent.text()).unwrap();
    assert_eq!(
        (&body["error"]["type"], &body["error"]["code"]),
        (&"insufficient_quota".into(), &"budget_spent".into())
    );
    let record = proxy.record("spent").await;
    assert_eq!((&record["error_type"], &record["limit"]["decision"]), (&"budget_spent".into(), &"cost_per_day".into()));
    let anthropic: Value = serde_json::from_str(&ask("/v1/messages", 10, "anthropic").await.text()).unwrap();
    assert_eq!(anthropic["error"]["type"], "billing_error", "{anthropic}");
    let (_, since) = standing().await;
    assert_eq!((&since["reason"], &since["count"]), (&"cost_per_day".into(), &3.into()));
}

#[tokio::test]
async fn what_is_held_of_a_budget_is_not_spent() {
    money_is_held_and_then_spent("").await;
}

#[tokio::test]
async fn a_stream_that_uses_everything_up_is_cut_with_its_dialects_own_end() {
    let upstream = Upstream::start(|mut conn| async move {
        conn.request().await.unwrap();
        conn.event_stream().await;
        for _ in 0..5_000 {
            conn.chunk("data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":null}]}\n\n").await;
            if conn.is_gone() {
                return;
            }
        }
        conn.closed().await;
    })
    .await;
    let limit = "tokens_per_minute = 300\ndebt = 0\noutput_cap = 20\non_exhausted = \"cut\"";
    let proxy = Proxy::start(&config(upstream.address, &limited(limit))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", &chat(5_000), "x-request-id: cut\r\n").await;
    let answer = client.answer().await;
    assert!(answer.whole && answer.status == 200);
    let text = answer.text();
    assert!(
        text.ends_with("data: [DONE]\n\n") && text.contains("\"finish_reason\":\"length\""),
        "{}",
        &text[text.len() - 300..]
    );
    let words = text.matches(" word").count();
    assert!((270..340).contains(&words), "300 in a minute, less the prompt, told in steps: {words}");
    let record = proxy.record("cut").await;
    assert_eq!((&record["outcome"], &record["limit"]["cut"]), (&"completed".into(), &true.into()));
    assert_eq!(record["gen_ai.response.finish_reasons"][0], "length");
    assert_settled(&proxy).await;
    // The connection to the client serves on; the upstream's is gone.
    client.post("/v1/chat/completions", &chat(10), "").await;
    assert_eq!(client.answer().await.status, 429);
}

#[tokio::test]
async fn absurd_bounds_are_refused_and_hold_nothing() {
    let upstream = Upstream::fixed(stream(20, 60)).await;
    let proxy = Proxy::start(&config(upstream.address, &limited("tokens_per_minute = 600"))).await;
    let mut client = proxy.client().await;
    for absurd in ["-5", "1e12", "2.5", "\"many\"", "18446744073709551616"] {
        let body = chat(7).replace("\"max_tokens\":7", &format!("\"max_tokens\":{absurd}"));
        client.post("/v1/chat/completions", &body, "").await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 400, "{absurd}");
        let error: Value = serde_json::from_str(&answer.text()).unwrap();
        assert!(error["error"]["message"].as_str().unwrap().contains("max_tokens"), "{error}");
        client = proxy.client().await;
    }
    client.post("/v1/chat/completions", &chat(500), "x-request-id: ok\r\n").await;
    assert_eq!(client.answer().await.status, 200, "nothing was held");
    proxy.record("ok").await;
    assert_settled(&proxy).await;
}

#[tokio::test]
async fn a_request_that_is_failed_over_is_charged_once() {
    let broken = Upstream::fixed("HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno").await;
    let working = Upstream::fixed(stream(20, 60)).await;
    let more = format!(
        "[[upstream]]\nname = \"other\"\nurl = \"http://{}\"\n\n{}",
        working.address,
        limited("tokens_per_minute = 1000").replace(
            "targets = [{ upstream = \"fake\" }]",
            "targets = [{ upstream = \"fake\" }]\nfallback = [{ upstream = \"other\" }]"
        )
    );
    let proxy = Proxy::start(&config(broken.address, &more)).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", &chat(100), "x-request-id: moved\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    let record = proxy.record("moved").await;
    assert_eq!(record["attempts"].as_array().unwrap().len(), 2, "{record}");
    assert_eq!(record["limit"]["used"], 80);
    assert_settled(&proxy).await;
    assert_eq!(tokens(&proxy, "used").await, 80);
}

#[tokio::test]
async fn what_may_turn_out_to_be_an_llms_is_refused_while_the_bucket_is_in_debt() {
    let body = r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},
        "finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":10,"total_tokens":1010}}"#;
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let redis = Redis::start().await;
    for store in [String::new(), format!("[limits]\nredis = \"{}\"\ndeadline = \"5s\"\n", redis.url())] {
        let (upstream, mut seen) = Upstream::recording(&*answer).await;
        let routes = "[[route]]\nname = \"streams\"\npath = \"/streams\"\nkind = \"stream\"\ntargets = [{ upstream = \"fake\" }]\n\
            limits = [\"l\"]\n";
        let limit = limited("key = \"global\"\ntokens_per_minute = 60\ndebt = 100_000");
        let proxy = Proxy::start(&config(upstream.address, &format!("{routes}{limit}{store}"))).await;
        let ask = async |request: &str| {
            let mut client = proxy.client().await;
            client.send(request).await;
            client.answer().await
        };
        let opaque = "POST /app HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 2\r\nx-request-id: first\r\n\r\nhi";
        assert_eq!(ask(opaque).await.status, 200);
        assert_eq!(proxy.record("first").await["limit"]["used"], 1_010);
        if !store.is_empty() {
            // A shared store is told after the end.
            soon("what was used", async { while ask(opaque).await.status != 429 {} }).await;
        }
        while seen.try_recv().is_ok() {}
        for request in [
            opaque,
            "POST /app HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n{\"message\":\"hi\"}",
            "POST /app?message=hi HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
            "GET /app HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        ] {
            let refused = ask(request).await;
            assert_eq!(refused.status, 429, "{request}");
            assert!(refused.text().contains("Limit `l` allows 60 tokens a minute"), "{}", refused.text());
            assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 60, "{request}");
            assert_eq!(refused.header("x-ratelimit-remaining-tokens"), Some("0"));
            assert!(seen.try_recv().is_err(), "{request}");
        }
        for request in [
            "GET /page HTTP/1.1\r\nhost: a\r\n\r\n",
            "POST /streams HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi",
        ] {
            assert_eq!(ask(request).await.status, 200, "{request}");
        }
    }
}

/// Callers of an app that come together are not let in one and all: each holds what such answers took before.
#[tokio::test]
async fn an_apps_own_requests_hold_what_such_answers_took() {
    let redis = Redis::start().await;
    for store in [String::new(), format!("[limits]\nredis = \"{}\"\ndeadline = \"5s\"\n", redis.url())] {
        // Pages are there at once, and one answer; the others when they may.
        let answers = Arc::new(Semaphore::new(1));
        let may_answer = Arc::clone(&answers);
        let upstream = Upstream::start(move |mut conn| {
            let answers = Arc::clone(&may_answer);
            async move {
                while let Some(request) = conn.request().await {
                    if request.head.starts_with("GET") {
                        conn.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                    } else {
                        answers.acquire().await.unwrap().forget();
                        conn.write(stream(20, 180)).await;
                    }
                }
            }
        })
        .await;
        let limit = limited("key = \"global\"\ntokens_per_minute = 60\nburst = 600");
        let proxy = Proxy::start(&config(upstream.address, &format!("{limit}{store}"))).await;
        let call = async |id: String| {
            let mut client = proxy.client().await;
            client.post("/api/chat", r#"{"message":"hi"}"#, &format!("x-request-id: {id}\r\n")).await;
            client.answer().await.status
        };
        // Of the first nothing is known: it holds nothing, and takes 200.
        assert_eq!(call("first".to_owned()).await, 200);
        let first = proxy.record("first").await;
        assert_eq!((&first["limit"]["reserved"], &first["limit"]["used"]), (&0.into(), &200.into()), "{first}");
        let left = async || {
            let page = proxy.client().await.get("/page", "").await;
            page.header("x-ratelimit-remaining-tokens").unwrap().parse::<u64>().unwrap()
        };
        // A shared store is told after the end.
        soon("what the first took", async { while left().await > 500 {} }).await;
        // 400 are left, and what drains in seconds: two of ten fit, and wait for their answers while the others are refused.
        let callers = futures_util::future::join_all((0..10).map(|number| call(format!("c{number}"))));
        let refused = || proxy.lines().iter().filter(|line| line["outcome"] == "rejected").count();
        let answering = async {
            proxy.line("eight refusals", |_| refused() == 8).await;
            answers.add_permits(10);
        };
        let (statuses, ()) = tokio::join!(callers, answering);
        let passed = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!((passed, refused()), (2, 8), "{statuses:?}");
        let holding = proxy.lines().iter().filter(|line| line["limit"]["reserved"] == 200).count();
        assert!(holding >= 8, "each asked for what the first took: {holding}");
    }
}

/// A Redis that answers every command with the same refusal.
async fn refusing_store(refusal: &'static str) -> std::net::SocketAddr {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while matches!(stream.read_line(&mut line).await, Ok(1..)) {
                    // An array of so many strings, each with a line for its length and one for itself.
                    let strings: usize = line.trim_start_matches('*').trim().parse().unwrap();
                    for _ in 0..strings {
                        line.clear();
                        stream.read_line(&mut line).await.unwrap();
                        let length: usize = line.trim_start_matches('$').trim().parse().unwrap();
                        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut vec![0; length + 2]).await.unwrap();
                    }
                    line.clear();
                    if stream.write_all(format!("-{refusal}\r\n").as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_store_that_refuses_is_not_taken_for_one_that_does_not_run() {
    let cases = [
        ("MOVED 4711 10.0.0.2:6379", "limits.redis name 10.0.0.2:6379"),
        ("READONLY You can't write against a read only replica.", "limits.redis name the primary"),
        ("NOAUTH Authentication required.", "password"),
    ];
    for (refusal, hint) in cases {
        let store = refusing_store(refusal).await;
        let upstream = Upstream::fixed("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let limits = format!(
            "[[limit]]\nname = \"l\"\nkey = \"global\"\nrequests_per_minute = 1000\n[limits]\nredis = \"redis://{store}\"\n\
             deadline = \"5s\"\n"
        );
        let proxy = Proxy::start(&config(upstream.address, &limits)).await;
        assert_eq!(proxy.client().await.get("/x", "").await.status, 200, "counted alone");
        let said = |line: &serde_json::Value| {
            line["event"] == "limits.store_away" && line["message"].as_str().is_some_and(|text| text.contains(hint))
        };
        let line = proxy.line(hint, said).await;
        let word = refusal.split(' ').next().unwrap();
        let text = line["message"].as_str().unwrap();
        assert!(text.contains(word) && !text.contains("is Redis running"), "{text}");
        let (_, view) = proxy.admin_get("/api/limits").await;
        assert!(view.contains(hint), "{view}");
    }
}

#[tokio::test]
async fn sound_whose_usage_nobody_tells_is_charged_what_it_held() {
    let audio = "HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 4\r\n\r\n\u{1}\u{2}\u{3}\u{4}";
    let sorry = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    for (answer, costs) in [(audio, true), (sorry, false)] {
        let upstream = Upstream::fixed(answer).await;
        let proxy = Proxy::start(&config(upstream.address, &limited("tokens_per_minute = 100_000"))).await;
        let mut client = proxy.client().await;
        let ask = r#"{"model":"tts-1","voice":"alloy","input":"hello there, hello there, hello there"}"#;
        client.post("/v1/audio/speech", ask, "x-request-id: speech\r\n").await;
        client.answer().await;
        let record = proxy.record("speech").await;
        let (held, used) = (record["limit"]["reserved"].as_u64().unwrap(), record["limit"]["used"].as_u64().unwrap());
        assert!(held > 1_000 && used == if costs { held } else { 0 }, "{record}");
        assert_settled(&proxy).await;
    }
}

/// A backend with one handler for all paths answers what is said under any of them.
#[tokio::test]
async fn what_is_said_under_the_path_of_a_kept_answer_is_charged() {
    let answer = r#"{"id":"c1","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":900,"completion_tokens":100}}"#;
    let length = answer.len();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
    let upstream = Upstream::fixed(format!("{head}: {length}\r\n\r\n{answer}")).await;
    for path in [
        "/v1/responses/resp_1/cancel",
        "/v1/threads/t/runs/run_1/cancel",
        "/v1/threads/t/runs/run_1/submit_tool_outputs",
        "/v1/threads/t/runs/run_1",
    ] {
        let proxy = Proxy::start(&config(upstream.address, &limited("tokens_per_minute = 60\nburst = 500"))).await;
        let ask = async |id: &str| {
            let mut client = proxy.client().await;
            client.post(path, r#"{"say":"write a novel"}"#, &format!("x-request-id: {id}\r\n")).await;
            client.answer().await.status
        };
        assert_eq!(ask("first").await, 200);
        assert_eq!(proxy.record("first").await["limit"]["used"], 1_000, "{path}");
        assert_settled(&proxy).await;
        assert_eq!(ask("second").await, 429, "it is in debt: {path}");
    }
}
