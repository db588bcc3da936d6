use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::llm::json_rpc::{Rpc, RpcProtocol};
use crate::llm::{RequestFacts, ServerTimings, StreamReading};
use crate::telemetry::log_fields::log_fields;
use crate::telemetry::record::{AskedBy, ErrorType, LimitInfo, LimitVerdict};
use crate::telemetry::records_for_tests::{attempt, chat, ms, plain as plain_record, websocket};

/// Four seconds after the samples began.
fn written() -> SystemTime {
    chat("m").started + Duration::from_secs(4)
}

fn json(record: &Record) -> serde_json::Value {
    let mut line = String::new();
    render(Style::Json, record, written(), &mut line);
    assert_eq!(line.matches('\n').count(), 1, "one line");
    serde_json::from_str(&line).unwrap()
}

fn human(record: &Record) -> String {
    let mut line = String::new();
    render(Style::Human { colour: false }, record, written(), &mut line);
    line
}

/// The names and their order are a contract with whoever reads the log.
#[test]
fn a_chat_as_json() {
    let mut record = chat("gpt-4o");
    let mut lost = attempt("primary", 0xa0);
    (lost.status, lost.error) = (None, Some(ErrorType::ConnectRefused));
    record.attempts.insert(0, lost);
    let mut line = String::new();
    render(Style::Json, &record, written(), &mut line);
    let expected = concat!(
        r#"{"timestamp":"2023-11-14T22:13:20.123Z","written":"2023-11-14T22:13:24.123Z","level":"info","event":"llm.request","request_id":"req-1","#,
        r#""trace_id":"00000000000000000000000000000abc","span_id":"0000000000000001","user.id":"alice","team":"search","#,
        r#""client.address":"192.0.2.7","http.request.method":"POST","url.path":"/v1/chat/completions","#,
        r#""http.response.status_code":200,"gen_ai.operation.name":"chat","gen_ai.provider.name":"openai","#,
        r#""gen_ai.request.model":"gpt-4o","gen_ai.response.model":"gpt-4o-2024-08-06","gen_ai.request.stream":true,"#,
        r#""gen_ai.usage.input_tokens":100,"gen_ai.usage.cache_read.input_tokens":40,"#,
        r#""gen_ai.usage.cache_write.input_tokens":7,"gen_ai.usage.output_tokens":11,"#,
        r#""gen_ai.usage.reasoning.output_tokens":2,"usage_source":"reported","cost_usd":0.0003605,"price_source":"config","#,
        r#""gen_ai.response.finish_reasons":["stop"],"first_byte_s":0.020000,"ttft_s":0.030000,"first_answer_s":0.040000,"tpot_s":0.010000,"#,
        r#""max_gap_s":0.025000,"slow_gaps":0,"dialect":"openai-chat","framing":"sse","ttft_basis":"dialect","duration_s":0.137000,"phases":{"admit":0.001000,"connect":0.004000,"#,
        r#""upstream_wait":0.010000,"generation":0.120000,"proxy":0.002000},"frames":13,"bytes_in":300,"#,
        r#""bytes_out":2048,"route":"chat","upstream":"fastapi","variant":"fastapi","#,
        r#""server.address":"127.0.0.1","server.port":8000,"attempts":[{"upstream":"primary","#,
        r#""server.address":"127.0.0.1","server.port":8000,"error_type":"connect_refused","duration_s":0.014000},"#,
        r#"{"upstream":"fastapi","server.address":"127.0.0.1","server.port":8000,"status":200,"duration_s":0.014000}],"config_generation":3,"outcome":"completed"}"#,
        "\n",
    );
    assert_eq!(line, expected);
}

#[test]
fn other_requests_as_json() {
    let mut record = plain_record();
    (record.route, record.served_by, record.status) = (None, None, None);
    (record.outcome, record.error) = (Outcome::InternalError, Some(ErrorType::Panic));
    record.client.address = Some("[::ffff:10.1.2.3]:80".parse().unwrap());
    let line = json(&record);
    assert_eq!(line["event"], "http.request");
    assert_eq!(line["level"], "error");
    assert_eq!(line["error_type"], "panic");
    assert_eq!(line["client.address"], "10.1.2.3");
    for absent in ["route", "upstream", "http.response.status_code", "ttft_s", "gen_ai.operation.name", "websocket"] {
        assert!(line.get(absent).is_none(), "{absent}");
    }
    let line = json(&websocket());
    assert_eq!(line["websocket"]["messages_out"], 5);
    assert_eq!(line["websocket"]["close_code"], 1000);
    assert_eq!(line["websocket"]["first_message_s"], 0.012);
}

#[test]
fn an_answer_in_one_piece_says_nothing_of_streaming() {
    let mut record = chat("gpt-4o");
    let llm = record.llm.as_mut().unwrap();
    llm.request = Arc::new(RequestFacts { stream: Some(false), ..(*llm.request).clone() });
    assert_eq!(json(&record).get("gen_ai.request.stream"), None);
    let llm = record.llm.as_mut().unwrap();
    llm.request = Arc::new(RequestFacts { stream: None, ..(*llm.request).clone() });
    assert_eq!(json(&record)["gen_ai.request.stream"], true, "its events show it");
}

#[test]
fn what_a_backend_says_of_its_time_stands_apart() {
    let mut record = chat("gpt-4o");
    let timings = ServerTimings { queue: Some(ms(12)), prefill: Some(ms(85)), ..ServerTimings::default() };
    record.llm.as_mut().unwrap().reading.server = Some(Box::new(timings));
    assert_eq!(json(&record)["server_timings"], serde_json::json!({ "queue": 0.012, "prefill": 0.085 }));
    assert!(json(&chat("gpt-4o")).get("server_timings").is_none());
}

#[test]
fn hostile_texts_stay_inside_their_line() {
    let mut record = chat("m\r\n{\"level\":\"forged\"}\u{1b}[2J");
    record.request.path = "/a\"b\\c\n\u{1b}]0;title\u{7}\u{9b}31m".into();
    record.request_id = "x".repeat(1_000_000).into();
    let line = json(&record);
    assert_eq!(line["url.path"], "/a\"b\\c\n\u{1b}]0;title\u{7}\u{9b}31m");
    assert!(line["request_id"].as_str().unwrap().len() < 3_000);
    let line = human(&record);
    assert_eq!(line.matches(char::is_control).count(), 1, "the line's end alone: {line:?}");
}

#[test]
fn a_line_to_read_along() {
    assert_eq!(
        human(&chat("gpt-4o")),
        "22:13:20 POST /v1/chat/completions 200 completed  ttft 0.030s  total 0.137s  100→11 tokens  gpt-4o-2024-08-06  via fastapi at 127.0.0.1:8000\n"
    );
    let mut record = chat("gpt-4o");
    (record.outcome, record.error, record.status) = (Outcome::Stalled, Some(ErrorType::Stall), None);
    record.attempts.push(attempt("second", 3));
    let reading = &mut record.llm.as_mut().unwrap().reading;
    (reading.usage.input, reading.first_token, reading.response_model) = (None, None, None);
    (reading.slow_gap_count, reading.max_gap) = (1, Some(ms(4_000)));
    assert_eq!(
        human(&record),
        "22:13:20 POST /v1/chat/completions - stalled(stall)  gap 4.000s  total 0.137s  ?→11 tokens  gpt-4o  via fastapi at 127.0.0.1:8000, attempt 2\n"
    );
    assert_eq!(
        human(&websocket()),
        "22:13:20 GET /ws 101 completed  total 0.017s  3→5 messages  via fastapi at 127.0.0.1:8000\n"
    );
    let mut coloured = String::new();
    render(Style::Human { colour: true }, &record, written(), &mut coloured);
    assert!(coloured.contains("\u{1b}[31m- stalled(stall)\u{1b}[0m"));
}

/// A sink that keeps what it gets.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn every_record_is_one_line() {
    let kept = Kept::default();
    let log = AccessLog::start(Style::Json, kept.clone()).unwrap();
    for n in 0..1_000 {
        let mut record = plain_record();
        record.bytes_out = n;
        log.write(&Arc::new(record));
    }
    assert!(log.flush(LONG));
    let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    let numbers: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["bytes_out"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
    assert_eq!(log.dropped().get(), 0);
}

/// A pipe that nobody reads: it tells of each write, and blocks until its other end goes.
struct Stuck(Sender<()>, Receiver<()>);

impl io::Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(()).unwrap();
        let _ = self.1.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_blocked_stdout_stops_nobody_and_what_is_lost_is_counted() {
    let ((entered, inside), (release, blocked)) = (mpsc::channel(), mpsc::channel());
    let log = AccessLog::start(Style::Json, Stuck(entered, blocked)).unwrap();
    let record = Arc::new(chat("gpt-4o"));
    log.write(&record);
    inside.recv_timeout(LONG).unwrap();
    for _ in 0..PACE.capacity + 100 {
        log.write(&record);
    }
    assert_eq!(log.dropped().get(), 100);
    assert!(!log.flush(ms(20)));
    drop(release);
    assert!(log.flush(LONG));
}

/// A disk that is full at times.
struct Full(Kept, Receiver<bool>);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.recv().unwrap_or(false) { Err(io::ErrorKind::StorageFull.into()) } else { self.0.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_costs_lines_and_is_got_over() {
    let (kept, (fill, full)) = (Kept::default(), mpsc::channel());
    let log = AccessLog::start(Style::Json, Full(kept.clone(), full)).unwrap();
    for is_full in [true, false] {
        fill.send(is_full).unwrap();
        log.write(&Arc::new(plain_record()));
        assert!(log.flush(LONG));
    }
    assert_eq!(log.dropped().get(), 1);
    let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    assert!(text.starts_with("\n{"), "what follows a torn line begins a new one");
    assert_eq!(text.trim().lines().count(), 1);
}

/// The names of a line's fields, those of objects and lists of objects too.
fn names_in(value: &serde_json::Value, before: &str, all: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let name = format!("{before}{key}");
        if !all.contains(&name) {
            all.push(name.clone());
        }
        // Their members are phases and the like, which have a table of their own.
        if ["phases", "server_timings"].contains(&key.as_str()) {
            continue;
        }
        names_in(value, &format!("{name}/"), all);
        value.as_array().into_iter().flatten().for_each(|one| names_in(one, &format!("{name}/"), all));
    }
}

/// Records that have between them all that a line can tell.
fn all_kinds() -> Vec<Record> {
    let mut full = chat("gpt-4o");
    full.client.key = Some("sg_1".into());
    full.error = Some(ErrorType::Stall);
    let mut lost = attempt("primary", 0xa0);
    lost.error = Some(ErrorType::ConnectRefused);
    lost.place.peer = Some("192.0.2.9:8000".parse().unwrap());
    full.attempts.insert(0, lost);
    full.passed_on = Some(0);
    full.limit = Some(LimitInfo {
        at: ms(1),
        verdict: LimitVerdict::Denied { limit: "per-user".into(), reason: "tokens" },
        mode: "memory",
        names: vec!["per-user".into()],
        waited: ms(0),
        reserved: 10,
        prompt_counted: Some(true),
        used: 5,
        remaining: Some(7),
        cut: true,
    });
    let llm = full.llm.as_mut().unwrap();
    llm.reading.buffered = true;
    llm.reading.hint = Some(Box::new("text".to_owned()));
    llm.reading.server = Some(Box::new(ServerTimings { queue: Some(ms(1)), ..ServerTimings::default() }));
    llm.asked_by = Some(Arc::new(AskedBy {
        request_id: "r".into(),
        route: full.route.clone(),
        client: full.client.clone(),
        request: Arc::clone(&llm.request),
    }));
    let mut calls = [RpcProtocol::Mcp, RpcProtocol::A2a].map(|protocol| {
        let mut record = plain_record();
        record.rpc = Some(Box::new(Rpc { protocol, method: Some("m".into()), tool: Some("t".into()) }));
        record
    });
    calls[0].stream = Some(Box::new(StreamReading {
        events: 2,
        first_event: Some(ms(1)),
        last_event: Some(ms(2)),
        max_gap: Some(ms(1)),
        gaps: Default::default(),
        rpc: None,
    }));
    let mut socket = websocket();
    socket.websocket.as_mut().unwrap().responses = 1;
    calls.into_iter().chain([full, socket]).collect()
}

#[test]
fn every_field_is_declared_and_every_declared_field_is_written() {
    let mut written = Vec::new();
    for record in all_kinds() {
        names_in(&json(&record), "", &mut written);
    }
    written.sort();
    let mut declared: Vec<&str> = log_fields().map(|field| field.name).collect();
    declared.sort_unstable();
    assert_eq!(written, declared);
}
