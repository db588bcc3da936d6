//! The backend of every run: answers chat requests with a small JSON body, or with events at a settable pace.
//!
//! The prompt of a request says what is wanted: `events=100&rate=50;` in it is a stream of 100 token events, 50 a second; rate
//! 0 is as fast as they go. Without it the answer is JSON. A request for a WebSocket gets one, which answers each message.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval};

use crate::wire::Wire;
use crate::{Error, args::Args, payload, proc};

/// Most bytes of a request's body.
const BODY_MAX: usize = 1024 * 1024;

/// A stream that a request asked for.
#[derive(Debug)]
struct Plan {
    events: u64,
    /// Between two events. The timer has a grain of 1 ms.
    period: Option<Duration>,
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
        if head.upgrade {
            return talk(&mut wire).await;
        }
        body.clear();
        while wire.piece(&mut head.body, &mut body).await? {
            if body.len() > BODY_MAX {
                return Err("body too large".into());
            }
        }
        match Plan::of(&body) {
            None => wire.write(payload::ANSWER_JSON.as_bytes()).await?,
            Some(plan) => stream_out(&mut wire, &plan, asks_usage(&body)).await?,
        }
    }
    Ok(())
}

/// A WebSocket, until the client goes.
async fn talk(wire: &mut Wire) -> Result<(), Error> {
    wire.write(payload::ANSWER_WEBSOCKET.as_bytes()).await?;
    loop {
        wire.message().await?;
        wire.write(payload::MESSAGE_OF_SERVER).await?;
    }
}

async fn stream_out(wire: &mut Wire, plan: &Plan, usage: bool) -> Result<(), Error> {
    wire.write((payload::STREAM_HEAD.to_owned() + &payload::role_event()).as_bytes()).await?;
    let mut ticks = plan.period.map(interval);
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
    fn of(body: &[u8]) -> Option<Self> {
        let (events, rate) = payload::asked_stream(body)?;
        let period = Duration::try_from_secs_f64(1.0 / rate).ok().filter(|period| !period.is_zero());
        Some(Self { events, period })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_period_and_rate_0_is_none() {
        let period = |rate| Plan::of(payload::ask_stream(3, rate).as_bytes()).unwrap().period;
        assert_eq!(period(50.0), Some(Duration::from_millis(20)));
        assert_eq!(period(0.5), Some(Duration::from_secs(2)));
        assert_eq!(period(0.0), None);
    }

    #[test]
    fn usage_is_found_in_spaced_json_too() {
        assert!(asks_usage(br#"{"stream_options": {"include_usage": true}}"#));
        assert!(!asks_usage(payload::ask_stream(1, 1.0).as_bytes()));
    }
}
