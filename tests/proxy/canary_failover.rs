//! A canary on a route that fails over: users are spared its failures, its judge is not, and once rolled back it is asked
//! no more, not even in need.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::Proxy;
use crate::support::backend::{Act, Backend, token};

const CHAT: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

/// Requests after which a decision must have come.
const REQUESTS_MAX: usize = 2_000;

struct Setup {
    base: Backend,
    /// While on, the baseline answers.
    base_is_up: Arc<AtomicBool>,
    next: Backend,
    proxy: Proxy,
    _state: tempfile::TempDir,
}

async fn setup(next: Act) -> Setup {
    let base_is_up = Arc::new(AtomicBool::new(true));
    let act = Act::Switch(Arc::clone(&base_is_up), Box::new(Act::Stream), Box::new(Act::Status(503, "")));
    let (base, next) = (Backend::start("base", vec![act]).await, Backend::start("next", vec![next]).await);
    let state = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&format!(
        "[server]\nstate_dir = \"{}\"\n{}{}[[route]]\nname = \"chat\"\ntargets = [{{ upstream = \"base\" }}, \
         {{ upstream = \"next\" }}]\nsticky = \"none\"\nretries = {{ budget = 1.0 }}\n\
         canary = {{ target = \"next\", steps = [20, 100], step_time = \"0s\", min_requests = 1000 }}\n",
        state.path().display(),
        base.table(""),
        next.table("")
    ))
    .await;
    Setup { base, base_is_up, next, proxy, _state: state }
}

fn decision(proxy: &Proxy, kind: &str) -> Option<Value> {
    proxy.lines().iter().find(|line| line["event"] == "canary.decision" && line["decision"] == kind).cloned()
}

#[tokio::test]
async fn users_are_spared_a_bad_canary_that_its_judge_sees_through() {
    let setup = setup(Act::Status(500, "")).await;
    let mut client = setup.proxy.client().await;
    let mut sent = 0;
    while decision(&setup.proxy, "roll_back").is_none() {
        client.post("/v1/chat/completions", CHAT, "").await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200, "the baseline answers in the canary's place");
        assert!(answer.text().contains(&token("base")), "{}", answer.text());
        sent += 1;
        assert!(sent < REQUESTS_MAX, "no rollback: {}", setup.proxy.admin_get("/api/canaries").await.1);
    }
    let asked = setup.next.log.count();
    assert!(asked > 0);
    setup.base_is_up.store(false, Ordering::Relaxed);
    for _ in 0..20 {
        client.post("/v1/chat/completions", CHAT, "").await;
        assert_eq!(client.answer().await.status, 503, "the baseline's own answer");
    }
    assert_eq!(setup.next.log.count(), asked, "what was rolled back is asked no more");
}

#[tokio::test]
async fn a_canary_that_is_on_its_way_stands_in_for_the_baseline() {
    let setup = setup(Act::Stream).await;
    setup.base_is_up.store(false, Ordering::Relaxed);
    let mut client = setup.proxy.client().await;
    for _ in 0..20 {
        client.post("/v1/chat/completions", CHAT, "").await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains(&token("next")), "{}", answer.text());
    }
    assert!(setup.base.log.count() > 0, "the baseline was asked first, as assigned");
    assert!(decision(&setup.proxy, "roll_back").is_none());
}
