//! What the two sides of a request know of each other: how much of the client's body was read, whether it has a head, which
//! interim answers are on their way to it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use pingora::http::ResponseHeader;
use tokio::sync::{Notify, mpsc};

use crate::proxy::process::request_body::RequestBody;

/// Interim answers (103 Early Hints) kept for the client at once; more are dropped.
const INTERIM_MAX: usize = 8;

/// How far the client has come, and what goes between its side and the upstream's while an answer is opened.
pub(crate) struct ClientProgress {
    pub(crate) interim: Interim,
    /// Where chunks of a streamed body go.
    pub(crate) chunks: Option<mpsc::Sender<Bytes>>,
    /// The head told how long a streamed body is.
    has_length: bool,
    /// A head was sent to the client before there was an upstream's.
    pub(crate) committed: AtomicBool,
    pub(crate) received: AtomicU64,
    pub(crate) body_done: AtomicBool,
}

/// Chunks of a streamed body, for the upstream; `None` where the body is in hand.
pub(crate) type Upload = Option<mpsc::Receiver<Bytes>>;

/// Interim answers on their way to the client.
#[derive(Default)]
pub(crate) struct Interim {
    heads: Mutex<Vec<ResponseHeader>>,
    pub(crate) came: Notify,
}

impl Interim {
    pub(crate) fn put(&self, head: ResponseHeader) {
        let mut heads = self.heads.lock();
        if heads.len() < INTERIM_MAX {
            heads.push(head);
            self.came.notify_one();
        }
    }

    pub(crate) fn take(&self) -> Vec<ResponseHeader> {
        std::mem::take(&mut *self.heads.lock())
    }
}

impl ClientProgress {
    pub(crate) fn new(body: &RequestBody) -> (Self, Upload) {
        let (mut read, mut has_length) = (0, false);
        let (chunks, upload) = match body {
            RequestBody::Streamed { first, length } => {
                has_length = length.is_some();
                // One place for the chunk that is passed on, and one for what was read before.
                let (sender, receiver) = mpsc::channel(1 + usize::from(!first.is_empty()));
                if !first.is_empty() {
                    // There is room.
                    let _ = sender.try_send(first.clone());
                }
                read = first.len() as u64;
                (Some(sender), Some(receiver))
            }
            RequestBody::None | RequestBody::Buffered(_) | RequestBody::Edited(_) => (None, None),
        };
        let progress = Self {
            interim: Interim::default(),
            body_done: AtomicBool::new(chunks.is_none()),
            chunks,
            has_length,
            committed: AtomicBool::new(false),
            received: AtomicU64::new(read),
        };
        (progress, upload)
    }

    /// Whether the client has a head already.
    pub(crate) fn is_committed(&self) -> bool {
        self.committed.load(Ordering::Relaxed)
    }

    /// Whether the client's body was read to its end.
    pub(crate) fn is_body_done(&self) -> bool {
        self.body_done.load(Ordering::Relaxed)
    }

    /// Whether a streamed body is as long as its head told.
    pub(crate) fn has_length(&self) -> bool {
        self.has_length
    }

    /// Bytes of the streamed body read so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}
