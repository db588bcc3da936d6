//! What the measurements have in common: a target, a connection, a stream that is read to its end.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wire::{Body, Head, Wire};
use crate::{Error, args::Args, payload, proc};

/// Longest wait for anything that ought to come at once.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where the requests go, and what they have in common.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: String,
    pub path: String,
    /// Further headers, as whole lines.
    headers: String,
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
        let headers: String = args.or("headers", String::new())?;
        Ok(Self {
            address: args.required("target")?,
            path: args.or("path", "/v1/chat/completions".to_owned())?,
            headers: headers.lines().map(|line| format!("{line}\r\n")).collect(),
        })
    }

    pub async fn connect(&self) -> Result<Wire, Error> {
        let stream = timeout(PATIENCE, TcpStream::connect(&self.address)).await??;
        Wire::new(stream)
    }

    /// The bytes of a request for a JSON answer, in the name of a user if there is one.
    pub fn json_request(&self, user: Option<u32>) -> Vec<u8> {
        let user = user.map(|user| format!("x-user-id: user-{user}\r\n")).unwrap_or_default();
        payload::request(&self.address, &self.path, &(user + &self.headers), payload::ASK_JSON)
    }

    /// The bytes of a request for a stream of `events`, `rate` a second (0: at once).
    pub fn stream_request(&self, events: u64, rate: f64) -> Vec<u8> {
        payload::request(&self.address, &self.path, &self.headers, &payload::ask_stream(events, rate))
    }
}

/// Sends a small JSON request and reads its answer whole. Whether the connection is closed after it is returned.
pub async fn exchange(wire: &mut Wire, request: &[u8]) -> Result<bool, Error> {
    wire.write(request).await?;
    let mut head = answer(wire).await?;
    let mut body = Vec::new();
    while timeout(PATIENCE, wire.piece(&mut head.body, &mut body)).await?? {}
    if !body.ends_with(b"}") {
        return Err("an answer came without its end".into());
    }
    Ok(head.close)
}

/// Reads the head of an answer, which must be a 200.
pub async fn answer(wire: &mut Wire) -> Result<Head, Error> {
    let head = timeout(PATIENCE, wire.head()).await??.ok_or("closed instead of an answer")?;
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
        let more = timeout(PATIENCE, self.wire.piece(&mut self.body, &mut self.text)).await??;
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
