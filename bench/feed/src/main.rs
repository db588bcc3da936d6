//! Feeds streams to the gauge, as often as it is told: `bench/instructions` counts what that takes.
//!
//!     feed DIALECT FRAMING ROUNDS < streams.json
//!
//! Standard input is a JSON array of streams, each an array of reads. In each round every stream is read by a gauge of its
//! own. Prints how many events a round has.
//!
//! It is built against older versions too, and so uses only what they have.

use std::hint::black_box;
use std::io::stdin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use streamgauge::llm::{Dialect, Framing, Gauge, StreamEnd};

const FRAMINGS: [Framing; 4] = [Framing::Sse, Framing::JsonLines, Framing::JsonValues, Framing::Opaque];

fn main() -> ExitCode {
    match run() {
        Ok(frames) => {
            println!("{frames}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("feed: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<u64, String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [dialect, framing, rounds] = words.as_slice() else { return Err("feed DIALECT FRAMING ROUNDS".to_owned()) };
    let dialect = Dialect::ALL.into_iter().find(|known| known.as_str() == dialect).ok_or("no such dialect")?;
    let framing = FRAMINGS.into_iter().find(|known| known.as_str() == framing).ok_or("no such framing")?;
    let rounds: u32 = rounds.parse().map_err(|_| "ROUNDS is a number")?;
    let streams: Vec<Vec<String>> = serde_json::from_reader(stdin()).map_err(|error| error.to_string())?;
    let mut frames = 0;
    for _ in 0..rounds {
        frames = streams.iter().map(|stream| feed(dialect, framing, stream)).sum();
    }
    if frames == 0 { Err("no event was read".to_owned()) } else { Ok(frames) }
}

/// Has one stream read, and returns how many events it has.
fn feed(dialect: Dialect, framing: Framing, stream: &[String]) -> u64 {
    let mut gauge = Gauge::new(dialect, framing, Arc::default(), Duration::from_secs(2));
    let mut now = Duration::ZERO;
    for read in stream {
        now += Duration::from_millis(1);
        black_box(gauge.feed(black_box(read.as_bytes()), now));
    }
    gauge.finish(StreamEnd::Clean, now);
    gauge.reading().frames
}
