//! The load of `make bench`, on bare tokio TCP so that it costs far less than what it measures.
//!
//! ```text
//! loadgen backend|sink               the two ends behind a proxy
//! loadgen json|events|ttft|hold|idle one measurement each, one line of JSON on stdout
//! ```
//!
//! Backend and load run on one machine and read one clock (`CLOCK_MONOTONIC`): the backend stamps each event, so that
//! its transit is a subtraction. Every program here runs on one thread; the cores belong to the proxy.

mod args;
mod backend;
mod client;
mod events;
mod hold;
mod idle;
mod json;
mod payload;
mod proc;
mod sink;
mod stats;
mod ttft;
mod wire;

use std::process::ExitCode;

use args::Args;

/// What ends a run: text for a person, on stderr.
type Error = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "usage: loadgen COMMAND [--option value]…
  backend [--listen 127.0.0.1:0]   answers like an LLM backend; prints its address
  sink    [--listen 127.0.0.1:0]   takes any POST (OTLP/HTTP); GET answers what it took; prints its address
  json    --target A [--pid P] [--connections 32] [--users 0] [--warmup 0.5] [--seconds 3]
  events  --target A [--pid P] [--streams 100] [--rate 50] [--warmup 0.5] [--seconds 3]
  ttft    --target A [--requests 2000] [--warmup 100]
  hold    --target A --pid P [--steps 100,1000,5000] [--rate 1]
  idle    --target A --pid P --kind http1|http2|websocket [--connections 2000] [--settle 1]
All take [--path /v1/chat/completions] and [--headers LINES]. With --users each connection is one of so many (x-user-id).
--pid names the proxy: its CPU time and memory are read with those of all its children.";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("loadgen: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let mut words = std::env::args().skip(1);
    let command = words.next().ok_or(USAGE)?;
    let args = Args::parse(words)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let line = runtime.block_on(async {
        match command.as_str() {
            "backend" => backend::run(&args).await,
            "sink" => sink::run(&args).await,
            "json" => json::run(&args).await,
            "events" => events::run(&args).await,
            "ttft" => ttft::run(&args).await,
            "hold" => hold::run(&args).await,
            "idle" => idle::run(&args).await,
            _ => Err(USAGE.into()),
        }
    })?;
    println!("{line}");
    Ok(())
}
