//! The backend of every run: answers chat requests with a small JSON body, or with events at a settable pace.
//!
//! The query of a request says what is wanted: `?events=100&rate=50` is a stream of 100 token events, 50 a second; rate
//! 0 is as fast as they go. No query is the JSON answer.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval};

use crate::wire::Wire;
use crate::{Error, args::Args, payload, proc};

/// Most bytes of a request's body.
const BODY_MAX: usize = 1024 * 1024;

/// A stream that a request asked for.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    events: u64,
    /// Events a second. The timer has a grain of 1 ms.
    rate: u32,
}

/// Serves until it is killed.
///
/// # Errors
/// The address cannot be bound.
pub async fn run(args: &Args) -> Result<String, Error> {
    let listener = TcpListener::bind(args.or("listen", "127.0.0.1:0".to_owned())?).await?;
    args.finish()?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A client that goes is no news.
            let _ = serve(stream).await;
        });
    }
}

async fn serve(stream: TcpStream) -> Result<(), Error> {
    let mut wire = Wire::new(stream)?;
    let mut body = Vec::new();
    while let Some(mut head) = wire.head().await? {
        body.clear();
        while wire.piece(&mut head.body, &mut body).await? {
            if body.len() > BODY_MAX {
                return Err("body too large".into());
            }
        }
        match Plan::of(&head.first_line) {
            None => wire.write(payload::ANSWER_JSON.as_bytes()).await?,
            Some(plan) => stream_out(&mut wire, &plan, asks_usage(&body)).await?,
        }
    }
    Ok(())
}

async fn stream_out(wire: &mut Wire, plan: &Plan, usage: bool) -> Result<(), Error> {
    wire.write((payload::STREAM_HEAD.to_owned() + &payload::role_event()).as_bytes()).await?;
    let mut ticks = (plan.rate > 0).then(|| interval(Duration::from_secs(1) / plan.rate));
    if let Some(ticks) = &mut ticks {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    for _ in 0..plan.events {
        if let Some(ticks) = &mut ticks {
            tokio::select! {
                _ = ticks.tick() => {}
                () = wire.closed() => return Err("the client went".into()),
            }
        }
        wire.write(payload::token_event(proc::now()).as_bytes()).await?;
    }
    wire.write(payload::end_events(usage).as_bytes()).await
}

fn asks_usage(body: &[u8]) -> bool {
    let compact: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    memchr::memmem::find(&compact, br#""include_usage":true"#).is_some()
}

impl Plan {
    fn of(request_line: &str) -> Option<Self> {
        let (_, query) = request_line.split(' ').nth(1)?.split_once('?')?;
        let number = |name: &str| {
            let value = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1;
            value.parse::<u32>().ok()
        };
        Some(Self { events: number("events")?.into(), rate: number("rate").unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_asks_for_a_stream() {
        let plan = Plan::of("POST /v1/chat/completions?events=3&rate=50 HTTP/1.1");
        assert_eq!(plan, Some(Plan { events: 3, rate: 50 }));
        assert_eq!(Plan::of("POST /v1/chat/completions HTTP/1.1"), None);
    }

    #[test]
    fn usage_is_found_in_spaced_json_too() {
        assert!(asks_usage(br#"{"stream_options": {"include_usage": true}}"#));
        assert!(!asks_usage(payload::ASK_STREAM.as_bytes()));
    }
}
