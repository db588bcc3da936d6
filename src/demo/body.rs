//! A body that is made while it is sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use super::script::Script;
use super::shapes::{Shape, Usage};
use super::stats::Open;

/// The events of one answer.
pub(super) struct Events {
    pub(super) script: Script,
    pub(super) shape: Shape,
    pub(super) model: String,
    pub(super) ask_usage: bool,
    /// Counts the answer as open until it is dropped.
    pub(super) open: Open,
    state: State,
    timer: Pin<Box<Sleep>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Prelude,
    Ping(u64),
    Reasoning(u64),
    Frame(u64),
    End,
    Over,
}

impl Events {
    pub(super) fn new(script: Script, shape: Shape, model: String, ask_usage: bool, open: Open) -> Self {
        Self {
            script,
            shape,
            model,
            ask_usage,
            open,
            state: State::Prelude,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    fn usage(&self) -> Usage {
        Usage { input: 9, output: self.script.tokens + self.script.reasoning }
    }

    fn wait(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }

    /// The next piece, and the state and wait after it; `None` is silence for ever.
    fn step(&mut self) -> Option<io::Result<String>> {
        let script = &self.script;
        match self.state {
            State::Prelude => {
                let text = self.shape.prelude(&self.model, self.usage());
                self.state = State::Ping(0);
                Some(Ok(text))
            }
            State::Ping(number) if number < script.pings => {
                self.state = State::Ping(number + 1);
                Some(Ok(self.shape.ping()))
            }
            State::Ping(_) => {
                self.state = State::Reasoning(0);
                let first_token = script.first_token;
                self.wait(first_token);
                Some(Ok(String::new()))
            }
            State::Reasoning(number) if number < script.reasoning => {
                let text = self.shape.reasoning(&self.model, &script.token(number));
                self.state = State::Reasoning(number + 1);
                let gap = script.gap;
                self.wait(gap);
                Some(Ok(text))
            }
            State::Reasoning(_) => {
                self.state = State::Frame(0);
                Some(Ok(String::new()))
            }
            State::Frame(number) => self.frame(number),
            State::End => {
                self.state = State::Over;
                self.open.completed();
                if script.no_done {
                    return Some(Ok(String::new()));
                }
                Some(Ok(self.shape.end(&self.model, self.usage(), script.tool, self.ask_usage)))
            }
            State::Over => Some(Ok(String::new())),
        }
    }

    fn frame(&mut self, number: u64) -> Option<io::Result<String>> {
        let script = &self.script;
        if script.cut_at == Some(number) {
            self.state = State::Over;
            return Some(Err(io::Error::other("cut, as asked")));
        }
        if script.silent_at == Some(number) {
            return None;
        }
        if script.error_at == Some(number) {
            self.state = State::End;
            return Some(Ok(self.shape.error()));
        }
        let first = number * script.per_frame;
        if first >= script.tokens {
            self.state = State::End;
            let text = if script.tool { self.shape.tool_call(&self.model) } else { String::new() };
            return Some(Ok(text));
        }
        let last = (first + script.per_frame).min(script.tokens);
        let text: String = (first..last).map(|token| script.token(token)).collect();
        let framed = self.shape.token(&self.model, &text);
        self.state = State::Frame(number + 1);
        let gap = script.gap;
        self.wait(gap);
        Some(Ok(framed))
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let events = self.get_mut();
        loop {
            if events.state == State::Over {
                return Poll::Ready(None);
            }
            ready!(events.timer.as_mut().poll(cx));
            match events.step() {
                // Nothing will wake this body but its drop.
                None => return Poll::Pending,
                Some(Ok(text)) if text.is_empty() => {}
                Some(Ok(text)) => return Poll::Ready(Some(Ok(Frame::data(Bytes::from(text))))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

/// An answer in one piece; counted as open until it was sent.
pub(super) struct Whole {
    bytes: Option<Bytes>,
    _open: Arc<Open>,
}

impl Whole {
    pub(super) fn new(bytes: impl Into<Bytes>, open: Open) -> Self {
        open.completed();
        Self { bytes: Some(bytes.into()), _open: Arc::new(open) }
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.get_mut().bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
