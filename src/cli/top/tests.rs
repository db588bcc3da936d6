//! Pictures of fixed feeds, and what keys do.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::app::{App, Link, Over, Pane};
use super::feed::Told;
use super::model::{Key, Order, Stream};
use super::picture;
use super::view::other_panes;

/// An app that was told of a proxy at work, and the time of the picture.
fn at_work() -> (App, Instant) {
    let now = Instant::now() + Duration::from_secs(100);
    let mut app = App::new("http://127.0.0.1:9090");
    app.told(Told::Hello { version: "0.1.0".to_owned(), minutes: 5 }, now);
    app.told(Told::Overview(Box::new(serde_json::from_value(overview()).unwrap())), now);
    app.told(Told::Streams(Box::new(serde_json::from_value(streams()).unwrap())), now);
    (app, now)
}

fn overview() -> Value {
    let tally = |yes: u64, of: u64| json!({ "yes": yes, "of": of });
    json!({
        "proxy": {
            "draining": false, "last_error": "", "listen": ["127.0.0.1:8080"], "slow_gap_s": 2.0, "slow_first_token_s": 5.0,
            "upstreams": [{ "name": "vllm", "endpoints": [
                { "endpoint": "10.0.0.1:8000", "state": "up", "reason": null, "in_flight": 3,
                    "measured": { "attempts": 120, "failed": 0, "first_tokens": 118, "p50_s": 0.31, "p95_s": 0.9 } },
                { "endpoint": "10.0.0.2:8000", "state": "ejected", "reason": "faulty", "in_flight": 0,
                    "down_since": "2026-01-31T23:50:01.000Z",
                    "failures": { "first": "2026-01-31T23:49:12.000Z", "last": "2026-01-31T23:57:40.000Z", "count": 12 },
                    "measured": { "attempts": 12, "failed": 12, "first_tokens": 12, "p50_s": 0.2, "p95_s": 0.3 } },
            ] }],
            "canaries": [{ "route": "chat", "canary": "next", "state": "running", "percent": 5, "next": "25 % in 9 s.",
                "facts": [{ "fact": "odd_length", "evidence": 0.5, "needed": 526.3, "canary": tally(0, 7), "baseline": tally(2, 120) }] }],
            "limits": { "mode": "memory", "holders": [
                { "limit": "per-user", "holder": "user:alice", "utilization": 0.95, "running": 2, "tokens": null,
                    "cost_usd_24h": 1.2, "cost_usd_30d": 1.2, "cost_usd_held": 0.3, "budget_usd_24h": 5.0, "budget_usd_30d": null },
                { "limit": "per-user", "holder": "user:eve", "utilization": 0.5, "running": 0,
                    "tokens": { "limit": 600, "remaining": 300, "reset_s": 30.0 }, "tokens_spent": 200, "tokens_held": 100,
                    "refused": { "reason": "tokens", "first": "2026-01-31T23:51:07.000Z", "last": "2026-01-31T23:59:59.000Z",
                        "count": 10_000 } },
            ] },
        },
        "live": {
            "hints": [{ "upstream": "vllm", "kind": "buffered_streams", "streams": 4, "hint": "…" }],
            "first_tokens": [{ "route": "chat", "upstream": "vllm", "requests": 120, "failed": 3, "p50_s": 0.3, "p95_s": 0.9, "p99_s": 3.2 }],
            "troubles": [
                { "kind": "failure", "what": "missing_end", "route": "chat", "upstream": "vllm", "endpoint": "10.0.0.2:8000",
                    "count": 12, "first": "2026-01-31T23:49:12.000Z", "last": "2026-01-31T23:57:40.000Z" },
                { "kind": "refusal", "who": "user:eve", "what": "tokens", "limit": "per-user", "route": "chat",
                    "count": 10_000, "first": "2026-01-31T23:51:07.000Z", "last": "2026-01-31T23:59:59.000Z" },
            ],
            "failed": [{ "server.address": "10.0.0.1", "server.port": 8000, "timestamp": "2026-01-31T23:59:59.123Z", "trace_id": "0af7", "outcome": "upstream_error",
                "error_type": "connect_refused", "route": "chat", "upstream": "vllm", "http.response.status_code": 502 }],
            "refused": [{ "timestamp": "2026-01-31T23:59:59.000Z", "trace_id": "0af8", "outcome": "rejected", "error_type": "rate_limited",
                "route": "chat", "user.id": "eve", "http.response.status_code": 429 }],
        },
    })
}

fn streams() -> Value {
    let facts = |id: u64, user: &str| {
        json!({ "id": id, "timestamp": "2026-01-31T23:59:50.000Z", "request_id": format!("r{id}"), "http.request.method": "POST",
            "url.path": "/v1/chat/completions", "user.id": user, "route": "chat", "upstream": "vllm", "trace_id": "0af7",
            "span_id": format!("{id:016x}"), "http.response.status_code": 200, "ttft_s": 2.0 })
    };
    let row = |id: u64, phase: &str, here_ms: u64, phases: [u64; 9], ticks: &[u64]| {
        json!({ "id": id, "age_ms": 12_000, "phase": phase, "here_ms": here_ms, "frames": ticks.len(), "bytes_out": 99,
            "attempts": 1, "phases_ms": phases, "ticks": ticks })
    };
    let attempts = json!([
        { "upstream": "edge", "server.address": "10.1.0.1", "server.port": 443, "status": 503,
            "error_type": "upstream_status", "duration_s": 0.7 },
        { "upstream": "vllm", "status": 200, "duration_s": 0.3 },
    ]);
    let steady: Vec<u64> = std::iter::once(2_000).chain((0..50).map(|_| 200)).collect();
    json!({
        "now_ms": 0, "running": 1_003, "not_shown": 1_000,
        "facts": [facts(1, "alice"), facts(2, "bob"), facts(3, "eve\u{1b}[2J")],
        "rows": [
            row(1, "generation", 50, [0, 0, 0, 10, 990, 1_000, 10_000, 0, 0], &steady),
            row(2, "generation", 6_000, [0, 0, 0, 10, 990, 1_000, 10_000, 0, 0], &[2_000, 1_000, 1_000, 1_000, 1_000]),
            row(3, "client_blocked", 5_000, [0, 0, 0, 10, 990, 1_000, 5_000, 5_000, 0], &steady[..25]),
        ],
        "gone": [],
        "ended": [{ "meaning": "Answered by vllm, at attempt 2. Attempts that were replaced took 700 ms of 1.0 s.", "record": {
            "timestamp": "2026-01-31T23:59:40.000Z", "request_id": "r0", "trace_id": "0af7", "span_id": "00000000000000ff",
            "http.request.method": "POST", "url.path": "/v1/chat/completions", "user.id": "carol", "route": "chat", "upstream": "vllm",
            "http.response.status_code": 200, "ttft_s": 0.8, "max_gap_s": 0.05, "tpot_s": 0.02, "duration_s": 1.0,
            "phases": { "failed_attempts": 0.7, "upstream_wait": 0.1, "generation": 0.2 }, "frames": 12,
            "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 11, "usage_source": "reported", "cost_usd": 0.000_13,
            "attempts": attempts,
            "outcome": "completed", "server.address": "vllm.internal", "server.port": 8000,
            "network.peer.address": "10.0.0.1" } }],
    })
}

fn press(app: &mut App, code: KeyCode) -> bool {
    app.pressed(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_in(app: &mut App, text: &str) {
    text.chars().for_each(|character| assert!(!press(app, KeyCode::Char(character))));
}

#[test]
fn a_proxy_at_work() {
    let (mut app, now) = at_work();
    insta::assert_snapshot!(picture(&mut app, (120, 24), now).unwrap());
}

#[test]
fn a_hint_about_a_peer_is_in_its_own_words() {
    let (mut app, now) = at_work();
    let mut told = overview();
    told["live"]["hints"] =
        json!([{ "peer": "10.0.0.5", "kind": "ignored_users", "hint": "add it to trusted_proxies" }]);
    app.told(Told::Overview(Box::new(serde_json::from_value(told).unwrap())), now);
    let picture = picture(&mut app, (120, 24), now).unwrap();
    assert!(picture.contains("10.0.0.5: add it to trusted_proxies"), "{picture}");
}

#[test]
fn each_pane() {
    let (mut app, now) = at_work();
    let mut text = String::new();
    for pane in Pane::ALL {
        assert_eq!(app.pane, pane);
        let picture = picture(&mut app, (120, 24), now).unwrap();
        text.extend(picture.lines().skip(15).map(|line| format!("{line}\n")));
        press(&mut app, KeyCode::Tab);
    }
    insta::assert_snapshot!(text);
}

/// Where nobody can press Tab, the panes stand below one another: who floods is in the picture.
#[test]
fn a_snapshot_has_every_pane() {
    let (mut app, now) = at_work();
    picture(&mut app, (120, 24), now).unwrap();
    let text = other_panes(&app);
    for words in [
        "── Upstreams",
        "10.0.0.2:8000",
        "── Failures",
        "missing end",
        "12 times since 23:49:12, last 23:57:40",
        "── Refusals",
        "user:eve · limit per-user · chat",
        "10.0 k times since 23:51:07",
        "── Canaries",
        "── Limits",
        "$1.2000 spent, $0.3000 held of $5.00 in 24 h",
        "300 of 600 tokens left, 200 spent, 100 held",
        "full since 23:51:07: 10.0 k refused (tokens), last 23:59:59",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("First token"), "the picture has it: {text}");
}

#[test]
fn a_flood_of_refusals_leaves_what_failed() {
    let (mut app, now) = at_work();
    let ended = |outcome: &str, from: u64, times: u64| {
        let ended: Vec<Value> = (from..from + times)
            .map(|id| json!({ "meaning": "", "record": { "span_id": format!("{id:x}"), "outcome": outcome } }))
            .collect();
        Told::Streams(Box::new(serde_json::from_value(json!({ "running": 0, "ended": ended })).unwrap()))
    };
    app.told(ended("truncated", 0, 3), now);
    (0..100).for_each(|round| app.told(ended("rejected", 1_000 + round * 40, 40), now));
    let all = app.streams.list(Order::Longest, Stream::has_ended);
    let of = |outcome: &str| all.iter().filter(|one| one.facts.outcome.as_deref() == Some(outcome)).count();
    assert_eq!((of("truncated"), of("completed"), of("rejected")), (3, 1, 56));
    assert_eq!(all[0].facts.span_id, format!("{:x}", 1_000 + 99 * 40 + 39), "the newest first");
}

#[test]
fn what_is_out_of_service_is_said_with_who_and_why() {
    let (mut app, now) = at_work();
    let mut told = overview();
    let lever = json!({ "words": "endpoint `10.0.0.1:8000` of upstream `vllm`", "setting": "drained",
        "since": "2026-01-31T23:58:00.000Z", "by": "10.1.1.1, with the admin token", "reason": "slow" });
    told["proxy"]["upstreams"][0]["endpoints"][0]["state"] = "drained".into();
    told["proxy"]["upstreams"][0]["endpoints"][0]["lever"] = lever.clone();
    told["proxy"]["levers"] = json!({ "levers": vec![lever; 5], "unserved_routes": ["chat"] });
    app.told(Told::Overview(Box::new(serde_json::from_value(told).unwrap())), now);
    press(&mut app, KeyCode::Tab);
    let picture = picture(&mut app, (160, 40), now).unwrap();
    for words in [
        "NOBODY serves route chat",
        "By hand: endpoint `10.0.0.1:8000` of upstream `vllm` is drained since 23:58:00 by 10.1.1.1, with the admin token: slow",
        "and 2 more",
        "◌ drained",
    ] {
        assert!(picture.contains(words), "{words} in\n{picture}");
    }
}

#[test]
fn a_shadow_and_a_canary_tell_since_when() {
    let (mut app, now) = at_work();
    let mut told = overview();
    let seen = json!({ "first": "2026-01-31T23:50:00.000Z", "last": "2026-01-31T23:58:00.000Z", "count": 7 });
    told["proxy"]["canaries"][0]["facts"][0]["seen"] = seen.clone();
    told["proxy"]["canaries"][0]["facts"][0]["worse_since"] = "2026-01-31T23:55:00.000Z".into();
    told["live"]["shadows"] = json!([{ "route": "chat", "variant": "next", "same": 90, "differs": 7, "failed": 2, "skipped": 1,
        "differences": { "first_token": seen }, "primary": { "first_token_p50_s": 0.3, "output_tokens": 1_000 },
        "shadow": { "first_token_p50_s": 0.9, "output_tokens": 1_100 } }]);
    app.told(Told::Overview(Box::new(serde_json::from_value(told).unwrap())), now);
    while app.pane != Pane::Canaries {
        press(&mut app, KeyCode::Tab);
    }
    let picture = picture(&mut app, (160, 40), now).unwrap();
    for words in [
        "odd length: worse since 23:55:00, 7 times from 23:50:00 to 23:58:00",
        "chat: copies to `next`: 90 same, 7 differ, 2 failed, 1 not made",
        "first token differs: 7 times from 23:50:00 to 23:58:00",
        "clients' 300 ms first token, 1000 tokens; copies' 900 ms first token, 1100 tokens",
    ] {
        assert!(picture.contains(words), "{words} in\n{picture}");
    }
}

#[test]
fn an_anatomy() {
    let (mut app, now) = at_work();
    picture(&mut app, (120, 24), now).unwrap();
    press(&mut app, KeyCode::End);
    press(&mut app, KeyCode::Up);
    press(&mut app, KeyCode::Char('j'));
    press(&mut app, KeyCode::Enter);
    insta::assert_snapshot!(picture(&mut app, (100, 36), now).unwrap());
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.over, Over::Nothing);
}

#[test]
fn a_small_terminal_and_the_help() {
    let (mut app, now) = at_work();
    press(&mut app, KeyCode::Char('?'));
    insta::assert_snapshot!(picture(&mut app, (80, 24), now).unwrap());
    for size in [(1, 1), (20, 5), (40, 8), (300, 100)] {
        picture(&mut app, size, now).unwrap();
    }
}

#[test]
fn a_lost_proxy_is_said_and_nothing_is_there_yet() {
    let (mut app, now) = at_work();
    app.told(Told::Lost("cannot ask http://127.0.0.1:9090: refused".to_owned()), now);
    let lost = picture(&mut app, (100, 20), now).unwrap();
    assert!(lost.contains("● no connection since ") && lost.contains("refused; trying again every second"), "{lost}");
    for running in ["1003 running", "writing", "silent"] {
        assert!(!lost.contains(running), "{running} in {lost}");
    }
    assert!(lost.contains("not known"), "{lost}");
    app.told(Told::Hello { version: "0.1.0".to_owned(), minutes: 5 }, now);
    app.told(Told::Streams(Box::default()), now);
    assert_eq!(app.link, Link::Live);
    let empty = picture(&mut app, (100, 20), now).unwrap();
    assert!(empty.contains("Point your frontend at http://127.0.0.1:8080 in place of your backend."), "{empty}");
}

#[test]
fn a_filter_is_typed_and_cleared() {
    let (mut app, now) = at_work();
    type_in(&mut app, "/user:bob");
    picture(&mut app, (100, 20), now).unwrap();
    assert_eq!(app.listed, [Key::Running(2)]);
    press(&mut app, KeyCode::Enter);
    press(&mut app, KeyCode::Esc);
    picture(&mut app, (100, 20), now).unwrap();
    assert_eq!(app.listed.len(), 4);
    type_in(&mut app, "/outcome:completed q");
    picture(&mut app, (100, 20), now).unwrap();
    assert!(app.listed.is_empty(), "`q` is a letter here");
    press(&mut app, KeyCode::Esc);
    assert!(press(&mut app, KeyCode::Char('q')), "and leaves elsewhere");
}

#[test]
fn a_chosen_stream_is_followed_into_its_record() {
    let (mut app, now) = at_work();
    picture(&mut app, (100, 20), now).unwrap();
    press(&mut app, KeyCode::Char('j'));
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.over, Over::Anatomy(Key::Running(1)));
    let record = json!({ "span_id": "0000000000000001", "duration_s": 13.0, "outcome": "completed", "timestamp": "2026-01-31T23:59:50.000Z" });
    let frame = json!({ "running": 2, "gone": [1], "ended": [{ "meaning": "Answered.", "record": record }] });
    app.told(Told::Streams(Box::new(serde_json::from_value(frame).unwrap())), now);
    let key = Key::Ended("0000000000000001".to_owned());
    assert_eq!((&app.over, app.chosen.as_ref()), (&Over::Anatomy(key.clone()), Some(&key)));
    assert_eq!(app.streams.find(&key).unwrap().ticks.len(), 51, "what was seen of it stays");
}

#[test]
fn a_paused_picture_stands_still() {
    let (mut app, now) = at_work();
    press(&mut app, KeyCode::Char('p'));
    let before = picture(&mut app, (100, 20), now).unwrap();
    let frame = json!({ "running": 0, "gone": [1, 2, 3] });
    app.told(Told::Streams(Box::new(serde_json::from_value(frame).unwrap())), now);
    assert_eq!(picture(&mut app, (100, 20), now + Duration::from_secs(5)).unwrap(), before);
    press(&mut app, KeyCode::Char('p'));
    assert_ne!(picture(&mut app, (100, 20), now).unwrap(), before);
}

#[test]
fn all_replicas_of_a_fleet_are_shown_and_who_is_absent_is_named() {
    let (mut app, now) = at_work();
    let mut all = overview();
    all["fleet"] = json!({ "replicas": [
        { "replica": "00aabbccddeeff00", "self": true, "answered": true },
        { "replica": "11aabbccddeeff11", "answered": true },
        { "replica": "22aabbccddeeff22", "admin": "http://10.0.0.9:9090", "answered": false,
            "trouble": "it did not answer within 1 s", "absent_since": "2026-01-31T23:59:12.000Z" },
    ] });
    all["proxy"]["upstreams"][0]["replica"] = json!("11aabbccddeeff11");
    app.told(Told::Hello { version: "0.1.0".to_owned(), minutes: 5 }, now);
    app.told(Told::Overview(Box::new(serde_json::from_value(all).unwrap())), now);
    let frame = |replica: &str, place: u64| {
        let id = (place << 40) + 1;
        let facts =
            json!({ "id": id, "route": "chat", "upstream": "vllm", "span_id": format!("{id:x}"), "replica": replica });
        let row = json!({ "id": id, "age_ms": 1_000 * (place + 1), "phase": "admit", "here_ms": 1.0, "frames": 0, "attempts": 0, "phases_ms": [] });
        json!({ "replica": replica, "running": 1, "not_shown": 2, "facts": [facts], "rows": [row] })
    };
    app.told(Told::Streams(Box::new(serde_json::from_value(frame("00aabbccddeeff00", 0)).unwrap())), now);
    assert!(!app.is_informed(), "of the other that answers nothing has come");
    app.told(Told::Streams(Box::new(serde_json::from_value(frame("11aabbccddeeff11", 1)).unwrap())), now);
    assert!(app.is_informed());
    let picture = picture(&mut app, (120, 30), now).unwrap() + &other_panes(&app);
    assert!(picture.contains("2 running (4 not shown)"), "{picture}");
    for words in [
        "chat · @00aabbcc · vllm",
        "chat · @11aabbcc · vllm",
        "@11aabbcc vllm 10.0.0.1:8000",
        "Replica 22aabbccddeeff22 (http://10.0.0.9:9090) is not shown since 23:59:12: it did not answer within 1 s",
    ] {
        assert!(picture.contains(words), "{words} in {picture}");
    }
    let at = |name: &str| picture.find(name).unwrap();
    assert!(at("chat · @11aabbcc") < at("chat · @00aabbcc"), "it runs for longer: {picture}");
}
