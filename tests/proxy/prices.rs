//! What answers cost: by the configuration, else by the built-in catalogue, else by nobody.

use serde_json::Value;

use crate::support::{Proxy, Upstream, config};

const ROUTE: &str = "[[route]]\nname = \"all\"\nupstream = \"fake\"\n";

/// An answer in one piece of 1,000 tokens in and 100 out.
async fn answering(model: &str) -> Upstream {
    let body = format!(
        r#"{{"id":"c","object":"chat.completion","model":"{model}","choices":[{{"index":0,"message":{{"role":"assistant","content":"hi"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}}}}"#
    );
    let length = body.len();
    Upstream::fixed(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
    .await
}

async fn ask(proxy: &Proxy, id: &str, model: &str) -> (u16, String, Value) {
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hello"}}],"max_tokens":100}}"#);
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", &body, &format!("x-request-id: {id}\r\n")).await;
    let answer = client.answer().await;
    (answer.status, answer.text(), proxy.record(id).await)
}

fn with_provider(text: &str, provider: &str) -> String {
    text.replace("url =", &format!("provider = \"{provider}\"\nurl ="))
}

#[tokio::test]
async fn the_catalogue_prices_what_the_configuration_does_not() {
    let upstream = answering("gpt-4o-mini-2024-07-18").await;
    let plain = config(upstream.address, ROUTE);
    let own = config(upstream.address, &format!("{ROUTE}[[price]]\nmodel = \"gpt*\"\ninput = 1000.0\noutput = 0.0\n"));
    for (text, provider, cost, source) in [
        (plain.clone(), "openai", Some(0.00021), "catalogue"),
        (own, "openai", Some(1.0), "config"),
        // Another provider serves it at a price of his own.
        (with_provider(&plain, "vllm"), "vllm", None, "none"),
        (with_provider(&plain, "azure.ai.openai"), "azure.ai.openai", Some(0.00021), "catalogue"),
    ] {
        let proxy = Proxy::start(&text).await;
        let (_, _, record) = ask(&proxy, "r", "gpt-4o-mini").await;
        assert_eq!(record["gen_ai.provider.name"], provider, "{record}");
        assert_eq!(record.get("cost_usd").and_then(Value::as_f64), cost, "{record}");
        assert_eq!(record["price_source"], source, "{record}");
    }
}

#[tokio::test]
async fn what_nobody_has_a_price_for_is_counted_and_not_free() {
    let upstream = answering("our-own-model").await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    for id in ["a", "b"] {
        let (_, _, record) = ask(&proxy, id, "our-own-model").await;
        assert_eq!((record.get("cost_usd"), &record["price_source"]), (None, &"none".into()));
    }
    let (_, metrics) = proxy.admin_get("/metrics").await;
    let series = "streamgauge_unpriced_llm_calls_total{route=\"all\",upstream=\"fake\",model=\"our-own-model\"} 2";
    assert!(metrics.contains(series), "{metrics}");
    let (status, text) = proxy.admin_get("/api/prices").await;
    let view: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &view["unpriced"][0]["requests"]), (200, &2.into()), "{view}");
    assert_eq!(view["unpriced"][0]["model"], "our-own-model");
    assert!(view["catalogue"]["source"].as_str().unwrap().starts_with("genai-prices"), "{view}");
}

#[tokio::test]
async fn a_budget_refuses_what_it_cannot_count() {
    let upstream = answering("gpt-4o-mini").await;
    let budget = "[[limit]]\nname = \"daily\"\ncost_per_day = 3.0\n";
    let text = config(upstream.address, &format!("{budget}{ROUTE}limits = [\"daily\"]\n"));
    let proxy = Proxy::start(&with_provider(&text, "openai")).await;
    let (status, _, record) = ask(&proxy, "known", "gpt-4o-mini").await;
    assert_eq!((status, &record["cost_usd"]), (200, &0.00021.into()), "{record}");
    let (status, text, record) = ask(&proxy, "unknown", "mystery-1").await;
    assert_eq!((status, &record["error_type"]), (403, &"forbidden".into()), "{record}");
    assert!(text.contains("`mystery-1`") && text.contains("`daily`"), "{text}");
    assert_eq!(record["limit"]["by"], "daily", "{record}");
    assert!(record["attempts"].as_array().is_none_or(Vec::is_empty), "nothing was sent: {record}");
}

#[tokio::test]
async fn no_provider_is_guessed_for_a_backend_that_is_down() {
    let dead = crate::support::backend::refusing().await;
    let text = config(dead, ROUTE);
    for (text, provider) in [(text.clone(), None), (with_provider(&text, "groq"), Some("groq"))] {
        let proxy = Proxy::start(&text).await;
        let (status, _, record) = ask(&proxy, "r", "gpt-4o-mini").await;
        assert_eq!(status, 502);
        assert_eq!(record.get("gen_ai.provider.name").and_then(Value::as_str), provider, "{record}");
        let (_, metrics) = proxy.admin_get("/metrics").await;
        let label = format!("gen_ai_provider_name=\"{}\"", provider.unwrap_or("none"));
        assert!(metrics.contains(&label) && !metrics.contains("gen_ai_provider_name=\"openai\""), "{metrics}");
    }
}
