//! Feeds of fixed streams.

use serde_json::Value;

use super::*;
use crate::llm::RequestFacts;
use crate::telemetry::event::{AttemptEvent, Event};
use crate::telemetry::live::LiveStream;
use crate::telemetry::record::{ClientInfo, ErrorType, Outcome, Phase, Stopwatch};
use crate::telemetry::records_for_tests::{attempt, chat, ms};

fn view() -> (Arc<Live>, Viewer) {
    let live = Arc::new(Live::default());
    let viewer = Viewer::admit(&live).unwrap();
    (live, viewer)
}

fn frame(viewer: &mut Viewer) -> Value {
    // A choice holds for a while; here each look is a new one.
    *viewer.live.chosen.lock() = Default::default();
    serde_json::from_str(&viewer.frame()).unwrap()
}

fn enter(live: &Arc<Live>, path: &str) -> LiveStream {
    live.enter(&"POST".into(), &path.into())
}

#[test]
fn facts_are_told_once_and_again_when_they_change() {
    let (live, mut viewer) = view();
    let stream = enter(&live, "/v1/chat");
    let first = frame(&mut viewer);
    assert_eq!((&first["facts"][0]["url.path"], &first["rows"][0]["phase"]), (&"/v1/chat".into(), &"admit".into()));
    assert_eq!(frame(&mut viewer)["facts"], Value::Array(Vec::new()));
    stream.apply(&Event::Routed { route: &"chat".into(), target: Some((&"first".into(), &"a".into())) });
    stream.apply(&Event::PassedOn { number: 1, upstream: &"second".into(), variant: &"b".into() });
    let changed = frame(&mut viewer);
    assert_eq!((&changed["facts"][0]["route"], &changed["facts"][0]["upstream"]), (&"chat".into(), &"second".into()));
}

#[test]
fn phases_and_ticks_follow_while_somebody_looks() {
    let (live, mut viewer) = view();
    let stream = enter(&live, "/");
    let mut stopwatch = Stopwatch::start(Phase::Admit);
    for (phase, at) in [(Phase::Generation, 5), (Phase::ClientBlocked, 25), (Phase::Generation, 40)] {
        stopwatch.enter(phase, ms(at));
        stream.entered(phase, ms(at), &stopwatch);
    }
    stream.progress(2, 20, Some(ms(20)));
    let row = frame(&mut viewer)["rows"][0].clone();
    assert_eq!((&row["phase"], &row["ticks"][0]), (&"generation".into(), &20.into()));
    assert_eq!((&row["phases_ms"][1], &row["phases_ms"][7]), (&5.into(), &15.into()));
    stream.progress(3, 30, Some(ms(41)));
    assert_eq!(frame(&mut viewer)["rows"][0]["ticks"], Value::from(vec![41]));
    drop(viewer);
    stream.progress(4, 40, Some(ms(60)));
    let mut later = Viewer::admit(&live).unwrap();
    assert_eq!(frame(&mut later)["rows"][0]["ticks"], Value::from(vec![20, 21]), "nobody looked at the last");
}

#[test]
fn attempts_that_failed_are_lost_time() {
    let (live, mut viewer) = view();
    let stream = enter(&live, "/");
    let attempts = stream.follower();
    attempts.attempt(&attempt("a", 1).place, ms(1));
    attempts.apply(&AttemptEvent::Connected { reused: false }, ms(3));
    attempts.apply(&AttemptEvent::Failed(ErrorType::UpstreamReset), ms(10));
    attempts.attempt(&attempt("b", 2).place, ms(12));
    attempts.apply(&AttemptEvent::Connected { reused: false }, ms(14));
    let row = frame(&mut viewer)["rows"][0].clone();
    assert_eq!((&row["attempts"], &row["phase"]), (&2.into(), &"upstream_wait".into()));
    assert_eq!((&row["phases_ms"][1], &row["phases_ms"][2], &row["phases_ms"][3]), (&1.into(), &11.into(), &2.into()));
}

#[test]
fn who_ends_is_gone_and_has_a_record_with_its_meaning() {
    let (live, mut viewer) = view();
    let stream = enter(&live, "/");
    let mut record = chat("gpt-4o");
    let (trace, client) = (record.trace, ClientInfo::default());
    stream.apply(&Event::Identified { request_id: &"r1".into(), trace, client });
    assert_eq!(frame(&mut viewer)["gone"], Value::Array(Vec::new()));
    // What is new before the one that was shown must not hide it.
    record.trace.span_id = 99;
    (0..500).for_each(|_| live.ended(Arc::new(record.clone())));
    live.ended(Arc::new(chat("gpt-4o")));
    (0..500).for_each(|_| live.ended(Arc::new(record.clone())));
    drop(stream);
    viewer.ended = 1;
    let last = frame(&mut viewer);
    assert_eq!(last["gone"], Value::from(vec![0]));
    let ended = last["ended"].as_array().unwrap();
    assert_eq!((ended.len(), &last["ended_not_shown"]), (ENDED_MAX, &960.into()));
    let shown = ended.iter().find(|one| one["record"]["span_id"] == "0000000000000001").unwrap();
    assert!(shown["meaning"].as_str().unwrap().starts_with("Answered by fastapi."));
    assert_eq!(frame(&mut viewer)["ended"], Value::Array(Vec::new()));
}

#[test]
fn a_flood_of_refusals_leaves_room_for_what_failed_and_what_went_well() {
    let (live, mut viewer) = view();
    let ended = |outcome, times| {
        let record = Record { outcome, ..chat("m") };
        (0..times).for_each(|_| live.ended(Arc::new(record.clone())));
    };
    ended(Outcome::Completed, 1);
    frame(&mut viewer);
    ended(Outcome::Completed, 4);
    ended(Outcome::Truncated, 2);
    ended(Outcome::Rejected, 900);
    ended(Outcome::Completed, 3);
    let told = frame(&mut viewer);
    let outcomes: Vec<&str> =
        told["ended"].as_array().unwrap().iter().map(|one| one["record"]["outcome"].as_str().unwrap()).collect();
    let of = |outcome: &str| outcomes.iter().filter(|one| **one == outcome).count();
    assert_eq!((of("completed"), of("truncated"), of("rejected")), (7, 2, ENDED_MAX - 9));
    assert_eq!((outcomes[0], outcomes[39]), ("completed", "completed"), "in their order");
    ended(Outcome::Truncated, 200);
    ended(Outcome::Rejected, 200);
    let told = frame(&mut viewer);
    let rejected = told["ended"].as_array().unwrap().iter().filter(|one| one["record"]["outcome"] == "rejected");
    assert_eq!(rejected.count(), ENDED_MAX / 4, "nor do failures hide who is refused");
}

/// However many streams there are and whatever clients call them, a frame stays small.
#[test]
fn frames_are_bounded() {
    let (live, mut viewer) = view();
    let hostile = "\u{1}\"\\".repeat(5_000);
    let streams: Vec<_> = (0..5_000).map(|_| enter(&live, &hostile)).collect();
    for stream in &streams {
        stream.apply(&Event::Requested(&RequestFacts { model: Some(hostile.clone()), ..RequestFacts::default() }));
        stream
            .apply(&Event::Authenticated(ClientInfo { user: Some(hostile.as_str().into()), ..ClientInfo::default() }));
        stream.apply(&Event::Routed { route: &hostile.as_str().into(), target: None });
        (0..200).for_each(|at| stream.progress(at, at, Some(ms(at * 100_000))));
    }
    let text = viewer.frame();
    let frame: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&frame["running"], &frame["not_shown"]), (&5_000.into(), &4_800.into()));
    assert_eq!(frame["rows"].as_array().unwrap().len(), CHOSEN_MAX);
    assert!(text.len() < 1 << 20, "{} bytes", text.len());
    for stream in &streams {
        (0..200).for_each(|at| stream.progress(at, at, Some(ms(at * 100_000))));
    }
    let text = viewer.frame();
    assert!(text.len() < 160 << 10, "{} bytes for what moved", text.len());
    assert!(viewer.known.len() <= CHOSEN_MAX);
}

#[test]
fn few_may_look_at_a_time() {
    let live = Arc::new(Live::default());
    let viewers: Vec<_> = (0..VIEWERS_MAX).map(|_| Viewer::admit(&live).unwrap()).collect();
    assert!(Viewer::admit(&live).is_none());
    drop(viewers);
    assert!(Viewer::admit(&live).is_some());
}

#[test]
fn replicas_look_besides_people_and_are_told_less_at_once() {
    let live = Arc::new(Live::default());
    let replicas: Vec<_> = (0..REPLICAS_MAX).map(|_| Viewer::admit_replica(&live).unwrap()).collect();
    assert!(Viewer::admit_replica(&live).is_none());
    let people: Vec<_> = (0..VIEWERS_MAX).map(|_| Viewer::admit(&live).unwrap()).collect();
    assert!(Viewer::admit(&live).is_none());
    drop((replicas, people));
    assert_eq!(live.viewers.0.load(Ordering::Relaxed), 0);
    let mut viewer = Viewer::admit_replica(&live).unwrap();
    // Escaped it is three times as long: a stream's facts are some 6 KiB.
    let hostile: Arc<str> = "\u{1}\"\\".repeat(200).into();
    let streams: Vec<_> = (0..CHOSEN_MAX).map(|_| enter(&live, &hostile)).collect();
    for stream in &streams {
        stream.apply(&Event::Routed { route: &hostile, target: Some((&hostile, &hostile)) });
    }
    let text = viewer.frame();
    assert!(text.len() < 256 << 10, "{} bytes", text.len());
    let told = |frame: &Value, list: &str| frame[list].as_array().unwrap().len();
    let first: Value = serde_json::from_str(&text).unwrap();
    let known = told(&first, "facts");
    assert_eq!((known < CHOSEN_MAX, told(&first, "rows")), (true, known), "no row without its facts");
    let frames = (0..20).map(|_| frame(&mut viewer)).map(|frame| told(&frame, "facts")).sum::<usize>();
    assert_eq!(known + frames, streams.len(), "the others come later");
}
