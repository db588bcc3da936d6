//! What the live view knows of running and ended requests.

use serde_json::Value;

use super::*;
use crate::llm::{Dialect, Framing, RequestFacts};
use crate::telemetry::event::Event;
use crate::telemetry::record::{ClientInfo, Outcome};
use crate::telemetry::records_for_tests::{chat, ms, plain};

fn json(live: &Live) -> Value {
    serde_json::from_str(&live.json()).unwrap()
}

#[test]
fn nothing_yet() {
    assert_eq!(Live::default().json(), r#"{"live":[],"recent":[],"hints":[],"troubles":[],"shadows":[]}"#);
}

#[test]
fn a_request_is_shown_while_it_runs_and_after() {
    let live = Arc::new(Live::default());
    let stream = live.enter(&"POST".into(), &"/v1/chat".into());
    let row = json(&live)["live"][0].clone();
    assert_eq!(row["url.path"], "/v1/chat");
    assert!(row.get("ttft_s").is_none() && row.get("http.response.status_code").is_none());
    let client = ClientInfo::default();
    stream.apply(&Event::Identified { request_id: &"r1".into(), trace: plain().trace, client });
    stream.apply(&Event::Routed { route: &"chat".into(), target: Some((&"fastapi".into(), &"next".into())) });
    stream.apply(&Event::Requested(&RequestFacts { model: Some("gpt-4o".to_owned()), ..RequestFacts::default() }));
    stream.apply(&Event::Recognised(Some((Dialect::OpenAiChat, Framing::Sse))));
    stream.apply(&Event::StatusSent(200));
    stream.apply(&Event::FirstToken(ms(250)));
    stream.progress(3, 99, None);
    let row = json(&live)["live"][0].clone();
    for (key, value) in [
        ("request_id", Value::from("r1")),
        ("route", "chat".into()),
        ("gen_ai.request.model", "gpt-4o".into()),
        ("upstream", "fastapi".into()),
        ("variant", "next".into()),
        ("dialect", "openai-chat".into()),
        ("framing", "sse".into()),
        ("http.response.status_code", 200.into()),
        ("ttft_s", 0.25.into()),
        ("frames", 3.into()),
        ("bytes_out", 99.into()),
    ] {
        assert_eq!(row[key], value, "{key}");
    }
    assert!(row["duration_s"].as_f64().unwrap() >= 0.0);
    drop(stream);
    live.ended(Arc::new(chat("gpt-4o")));
    let view = json(&live);
    assert_eq!(view["live"].as_array().unwrap().len(), 0);
    assert_eq!(view["recent"][0]["event"], "llm.request");
}

#[test]
fn the_last_thousand_are_kept_newest_first() {
    let live = Live::default();
    for number in 0..1_500 {
        let mut record = plain();
        record.bytes_out = number;
        live.ended(Arc::new(record));
    }
    let view = json(&live);
    let kept = view["recent"].as_array().unwrap();
    assert_eq!(kept.len(), recent::KEPT_MAX);
    assert_eq!((&kept[0]["bytes_out"], &kept[999]["bytes_out"]), (&1_499.into(), &500.into()));
}

#[test]
fn ten_thousand_refusals_leave_the_failures_where_they_are() {
    let live = Live::default();
    let ended = |outcome, times: u64| {
        for number in 0..times {
            let mut record = plain();
            (record.outcome, record.bytes_out, record.started) = (outcome, number, SystemTime::now());
            live.ended(Arc::new(record));
        }
    };
    ended(Outcome::Truncated, 3);
    ended(Outcome::Rejected, 10_000);
    let view = json(&live);
    let of = |outcome: &str| view["recent"].as_array().unwrap().iter().filter(|row| row["outcome"] == outcome).count();
    assert_eq!((of("truncated"), of("rejected")), (3, recent::KEPT_MAX - 3));
    let overview: Value = serde_json::from_str(&live.overview()).unwrap();
    assert_eq!((overview["failed"].as_array().unwrap().len(), &overview["failed"][0]["bytes_out"]), (3, &2.into()));
    assert_eq!(overview["refused"][0]["bytes_out"], 9_999);
    let told: Vec<(&Value, &Value)> =
        view["troubles"].as_array().unwrap().iter().map(|row| (&row["kind"], &row["count"])).collect();
    assert_eq!(told, [(&"failure".into(), &3.into()), (&"refusal".into(), &10_000.into())]);
}

#[test]
fn a_feed_gets_what_is_new() {
    let live = Live::default();
    for _ in 0..3 {
        live.ended(Arc::new(plain()));
    }
    let (seen, new) = live.since(0);
    assert_eq!((seen, new.len()), (3, 3));
    let mut record = plain();
    record.bytes_out = 77;
    live.ended(Arc::new(record));
    let (seen, new) = live.since(seen);
    assert_eq!((seen, new.len(), new[0].bytes_out), (4, 1, 77));
    assert!(live.since(seen).1.is_empty());
    assert!(live.since(999).1.is_empty(), "a feed from before a restart");
}

#[test]
fn running_requests_are_bounded() {
    let live = Arc::new(Live::default());
    let (method, path) = ("GET".into(), "/".into());
    let guards: Vec<_> = (0..RUNNING_MAX + 10).map(|_| live.enter(&method, &path)).collect();
    assert_eq!(live.running(), RUNNING_MAX);
    assert_eq!(json(&live)["live"].as_array().unwrap().len(), SHOWN_MAX);
    drop(guards);
    assert_eq!(live.running(), 0);
}
