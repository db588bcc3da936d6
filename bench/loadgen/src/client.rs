//! What the four measurements have in common: a target, a connection, a stream that is read to its end.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::wire::{Body, Head, Wire};
use crate::{Error, args::Args, payload, proc};

const PATH: &str = "/v1/chat/completions";
/// Longest wait for anything that ought to come at once.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where the requests go.
#[derive(Debug, Clone)]
pub struct Target {
    address: String,
}

/// An answer's stream of events.
#[derive(Debug)]
pub struct Events {
    wire: Wire,
    body: Body,
    text: Vec<u8>,
    done: bool,
}

impl Target {
    pub fn from_args(args: &Args) -> Result<Self, Error> {
        Ok(Self { address: args.required("target")? })
    }

    pub async fn connect(&self) -> Result<Wire, Error> {
        let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(&self.address)).await??;
        Wire::new(stream)
    }

    /// The bytes of a request for a JSON answer.
    pub fn json_request(&self) -> Vec<u8> {
        payload::request(&self.address, PATH, payload::ASK_JSON)
    }

    /// The bytes of a request for a stream of `events`, `rate` a second (0: at once).
    pub fn stream_request(&self, events: u64, rate: u32) -> Vec<u8> {
        payload::request(&self.address, &format!("{PATH}?events={events}&rate={rate}"), payload::ASK_STREAM)
    }
}

/// Reads the head of an answer, which must be a 200.
pub async fn answer(wire: &mut Wire) -> Result<Head, Error> {
    let head = tokio::time::timeout(PATIENCE, wire.head()).await??.ok_or("closed instead of an answer")?;
    if head.first_line.split(' ').nth(1) != Some("200") {
        return Err(format!("answered {:?}", head.first_line).into());
    }
    Ok(head)
}

impl Events {
    /// Sends the request and reads the answer's head.
    pub async fn open(mut wire: Wire, request: &[u8]) -> Result<Self, Error> {
        wire.write(request).await?;
        let head = answer(&mut wire).await?;
        Ok(Self { wire, body: head.body, text: Vec::new(), done: false })
    }

    /// Waits for the next bytes and calls `on_event(received, stamp)` for each token event in them, both in nanoseconds.
    /// `false` at the end.
    ///
    /// # Errors
    /// The stream ended without `[DONE]`, or the connection's own.
    pub async fn next(&mut self, mut on_event: impl FnMut(u64, u64)) -> Result<bool, Error> {
        let more = tokio::time::timeout(PATIENCE, self.wire.piece(&mut self.body, &mut self.text)).await??;
        let received = proc::now();
        let (used, done) = payload::read_events(&self.text, |stamp| on_event(received, stamp));
        self.text.drain(..used);
        self.done |= done;
        if !more && !self.done {
            return Err("a stream ended without [DONE]".into());
        }
        Ok(more)
    }

    /// The connection, for the next request.
    pub fn into_wire(self) -> Wire {
        self.wire
    }
}
