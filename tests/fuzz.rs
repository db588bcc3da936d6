//! The fuzz functions over mutations of the corpus: the same each time, so that a failure is one for everybody.
//!
//! `FUZZ_ROUNDS` multiplies the work. Coverage-guided runs of the same functions: `make fuzz`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "reports are the corpus test's")]
#[path = "support/case.rs"]
mod case;
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use streamgauge::llm::{Dialect, Framing};

use case::{Case, load_all};
use fuzz::{TARGETS, Target, hold_gauge, seed};

/// Mutations of each case for each function, in one round.
const MUTATIONS: usize = 200;

/// What is put into streams: delimiters, halves of them, and JSON that readers may trip over.
const WORDS: [&[u8]; 40] = [
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"data:",
    b"data: ",
    b"\n\ndata: {",
    b"event: error\n",
    b": ",
    b"id: \0",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xf0\x9f",
    b"[DONE]",
    b"data: [DONE]\n\n",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"0.5",
    b"\"\"",
    b"\"\\ud800\"",
    b"\"\\u0000\"",
    b"{}",
    b"[]",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":",
    b"\"error\":{}",
    b"\"error\":\"x\"",
    b"\"usage\":null",
    b"\"choices\":[]",
    b"\"type\":\"message_stop\"",
    b"\"type\":\"response.completed\"",
    b"\"done\":true",
    b"\"finish_reason\":\"stop\"",
    b"\"stream_options\":{\"include_usage\":false}",
    b"\"model\":\"",
    b"d:{\"finishReason\":\"stop\"}\n",
    b"\\",
];

/// SplitMix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides.max(1) as u64) as usize
    }

    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.roll(len + 1);
        start..(start + self.roll(64)).min(len)
    }
}

/// One to four changes of a stream.
fn mutate(stream: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..=dice.roll(4) {
        let (len, part) = (stream.len(), dice.range(stream.len()));
        let at = dice.roll(len + 1);
        match dice.roll(8) {
            0 if len > 0 => stream[at.min(len - 1)] ^= 1 << dice.roll(8),
            1 if len > 0 => stream[at.min(len - 1)] = dice.roll(256) as u8,
            2 => drop(stream.drain(part)),
            3 => drop(stream.splice(at..at, stream[part].to_vec())),
            4 => drop(stream.splice(at..at, other[dice.range(other.len())].to_vec())),
            5 => stream.truncate(at),
            _ => drop(stream.splice(at..at, WORDS[dice.roll(WORDS.len())].iter().copied())),
        }
    }
}

fn rounds() -> usize {
    std::env::var("FUZZ_ROUNDS").map_or(1, |rounds| rounds.parse().expect("FUZZ_ROUNDS is a number"))
}

fn cases() -> Vec<Case> {
    load_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus"))
}

/// Runs one function; where it panics, says with which bytes.
fn run(name: &str, target: Target, bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(bytes))).is_err() {
        panic!("{name} broke a promise on b\"{}\"", bytes.escape_ascii());
    }
}

fn fuzz(name: &str) {
    let (_, target) = TARGETS.into_iter().find(|(other, _)| *other == name).unwrap();
    let cases = cases();
    let streams: Vec<Vec<u8>> = cases.iter().map(Case::bytes).collect();
    let mut runs = 0;
    for (case, stream) in cases.iter().zip(&streams) {
        run(name, target, &seed(name, case.dialect, case.framing, stream));
        // Each case has dice of its own: one more case changes nothing for the others.
        let mut dice = Dice(case.name.bytes().fold(0, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte)));
        for _ in 0..MUTATIONS * rounds() {
            let mut bytes = seed(name, case.dialect, case.framing, stream);
            mutate(&mut bytes, &streams[dice.roll(streams.len())], &mut dice);
            run(name, target, &bytes);
            runs += 1;
        }
    }
    assert!(runs >= 50 * MUTATIONS, "{runs} runs");
}

#[test]
fn scanners_hold_their_promises() {
    fuzz("scanner");
}

#[test]
fn the_gauge_holds_its_promises() {
    fuzz("gauge");
}

#[test]
fn the_usage_filter_holds_its_promises() {
    fuzz("filter");
}

#[test]
fn request_facts_hold_their_promises() {
    fuzz("request");
}

/// Events' data alone are the seeds here.
#[test]
fn json_readers_hold_their_promises() {
    let (mut runs, mut dice) = (0, Dice(1));
    for case in cases() {
        let stream = String::from_utf8_lossy(&case.bytes()).into_owned();
        for line in stream.lines() {
            let line = line.strip_prefix("data:").unwrap_or(line).trim();
            for _ in 0..MUTATIONS / 2 * rounds() {
                let mut bytes = line.as_bytes().to_vec();
                mutate(&mut bytes, b"{\"choices\":[{\"delta\":{\"content\":[{}]}}],\"error\":[0]}", &mut dice);
                run("json", fuzz::json, &bytes);
                runs += 1;
            }
            run("json", fuzz::json, line.as_bytes());
        }
    }
    assert!(runs > 5_000, "{runs}");
}

/// An event that never ends, begun anywhere in any stream, costs no more than its limit, in large pieces and small.
#[test]
fn endless_events_cost_no_memory() {
    const FILLERS: [(&str, usize, usize); 3] =
        [("x", 64 << 10, 3 << 20), ("\ndata: y", 8 << 10, 2 << 20), ("[", 700, 1 << 20)];
    let (mut tried, mut dice) = (0, Dice(2));
    for (case, (filler, size, len)) in cases().iter().zip(FILLERS.into_iter().cycle()) {
        let stream = case.bytes();
        let (before, after) = stream.split_at(dice.roll(stream.len() + 1));
        let long = filler.repeat(len / filler.len());
        let mut pieces = vec![before];
        pieces.extend(long.as_bytes().chunks(size));
        pieces.push(after);
        hold_gauge(case.dialect, case.framing, &pieces);
        tried += 1;
    }
    assert!(tried >= 80, "{tried}");
}

/// Deep and odd JSON in one event: no stack, no square.
#[test]
fn deep_events_cost_no_stack() {
    for dialect in Dialect::ALL {
        for (open, close) in [("[", "]"), ("{\"choices\":[", "]}"), ("{\"message\":", "}"), ("{\"error\":", "}")] {
            let deep = 200_000 / open.len();
            let json = format!("{}1{}", open.repeat(deep), close.repeat(deep));
            for (framing, event) in [
                (Framing::Sse, format!("data: {json}\n\n")),
                (Framing::JsonLines, format!("{json}\n")),
                (Framing::Json, json.clone()),
            ] {
                hold_gauge(dialect, framing, &[event.as_bytes()]);
            }
        }
    }
}

/// What a hostile upstream may send for long, from the events of any dialect to the seams of the scanners.
const SHAPES: [(&str, &str, &str); 12] = [
    ("data: ", "x", "\n\n"),
    ("", "data: x\n", "\n"),
    ("", "data: x\n\n", ""),
    ("", ": x\n", ""),
    ("", "id: 7\nevent: e\r", "\n"),
    ("", "\r", ""),
    ("data: {\"choices\":[", "[", "\n\n"),
    ("data: {\"choices\":[", "{\"index\":1,\"finish_reason\":\"s\"},", "{}]}\n\n"),
    ("data: {\"choices\":[{\"delta\":{\"content\":\"", "\\u00e4\\ud83d", "\"}}]}\n\n"),
    ("data: {", "\"type\":\"a\",", "\"type\":\"b\"}\n\n"),
    ("{", "\"model\":\"\\n\",", "\"done\":true}\n"),
    ("", "0:\"x\"\n", ""),
];

fn shaped((start, filler, end): (&str, &str, &str), len: usize) -> Vec<u8> {
    [start, &filler.repeat(len / filler.len()), end].concat().into_bytes()
}

/// The processor's time that this thread takes for one stream: the least of some runs, which others disturb least.
fn effort(dialect: Dialect, framing: Framing, stream: &[u8], runs: usize) -> Duration {
    let clock = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let pieces: Vec<&[u8]> = stream.chunks(97).collect();
    let run = || {
        let start = clock();
        hold_gauge(dialect, framing, &pieces);
        clock() - start
    };
    (0..runs).map(|_| run()).min().unwrap()
}

/// Sixteen times the bytes may take four times as long a byte; a square would take sixteen.
#[test]
fn effort_grows_with_the_bytes() {
    const SHORT: usize = 16 << 10;
    for dialect in Dialect::ALL {
        for (shape, framing) in
            SHAPES.into_iter().flat_map(|shape| [(shape, Framing::Sse), (shape, Framing::JsonLines)])
        {
            let short = effort(dialect, framing, &shaped(shape, SHORT), 5).max(Duration::from_micros(100));
            let long = effort(dialect, framing, &shaped(shape, 16 * SHORT), 2);
            assert!(long <= short * 64, "{dialect:?} {framing:?} {shape:?}: {short:?}, 16 times as much {long:?}");
        }
    }
}
