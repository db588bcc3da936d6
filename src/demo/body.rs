//! A body that is made while it is sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::prefix_cache::Prompt;
use super::script::Script;
use super::shapes::{Shape, Usage};
use super::stats::Open;

/// The events of one answer, each made when it is asked for.
pub(super) struct Events {
    /// `None`: it is over.
    play: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send>>>,
    said: Said,
}

/// What the play said last, until it is sent: the play goes on only then.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Option<String>>>);

/// Who plays, and to whom.
pub(super) struct Play {
    pub(super) script: Script,
    pub(super) shape: Shape,
    pub(super) model: String,
    pub(super) ask_usage: bool,
    pub(super) prompt: Prompt,
    /// Counts the answer as open until it is dropped.
    pub(super) open: Open,
}

impl Play {
    async fn run(self, said: Said) -> io::Result<()> {
        let Self { script, shape, model, ask_usage, prompt, open } = self;
        let usage = Usage { prompt, output: script.tokens + script.reasoning };
        said.say(shape.prelude(&model, usage)).await;
        for _ in 0..script.pings {
            said.say(shape.ping()).await;
        }
        sleep_until(Instant::now() + script.first_token).await;
        for number in 0..script.reasoning {
            let next = Instant::now() + script.gap;
            said.say(shape.reasoning(&model, &script.token(number))).await;
            sleep_until(next).await;
        }
        for number in 0.. {
            let first = number * script.per_frame;
            if script.cut_at == Some(number) {
                return Err(io::Error::other("cut, as asked"));
            }
            if script.silent_at == Some(number) {
                std::future::pending::<()>().await;
            }
            if script.error_at == Some(number) {
                said.say(shape.error()).await;
                break;
            }
            if first >= script.tokens {
                if script.tool {
                    said.say(shape.tool_call(&model)).await;
                }
                break;
            }
            let last = (first + script.per_frame).min(script.tokens);
            let text: String = (first..last).map(|token| script.token(token)).collect();
            let next = Instant::now() + script.gap;
            said.say(shape.token(&model, &text)).await;
            sleep_until(next).await;
        }
        open.completed();
        if !script.no_done {
            said.say(shape.end(&model, usage, script.tool, ask_usage)).await;
        }
        Ok(())
    }
}

impl Said {
    /// Leaves a text to be sent, and returns when it was taken.
    async fn say(&self, text: String) {
        if text.is_empty() {
            return;
        }
        *self.0.lock() = Some(text);
        let mut left = false;
        // Nothing has to wake this: whoever took the text asks for the next.
        std::future::poll_fn(|_| if std::mem::replace(&mut left, true) { Poll::Ready(()) } else { Poll::Pending })
            .await;
    }

    fn take(&self) -> Option<String> {
        self.0.lock().take()
    }
}

impl Events {
    pub(super) fn of(play: Play) -> Self {
        let said = Said::default();
        Self { play: Some(Box::pin(play.run(said.clone()))), said }
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(play) = &mut self.play else { return Poll::Ready(None) };
        let Poll::Ready(ended) = play.as_mut().poll(cx) else {
            let said = self.said.take().map(|text| Ok(Frame::data(Bytes::from(text))));
            return said.map_or(Poll::Pending, |frame| Poll::Ready(Some(frame)));
        };
        self.play = None;
        Poll::Ready(ended.err().map(Err))
    }
}
