//! Inflates what permessage-deflate (RFC 7692) compressed, for reading: what is passed on stays as it came.

use flate2::{Decompress, FlushDecompress, Status};

/// What every deflated message lacks at its end (RFC 7692, section 7.2.2).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// What is handed out at once, in bytes.
const PIECE: usize = 16 << 10;

/// A side whose messages grow beyond this, and are more than so many times as long as they came, is not read any more: it would
/// cost time, and no conversation is so empty.
const INFLATED_MAX: u64 = 32 << 20;
const GROWTH_MAX: u64 = 50;

/// The messages of one direction. They may refer back to one another, so that each has to be inflated: 40 KiB of memory.
pub(super) struct Inflate {
    stream: Box<Decompress>,
    /// Each message stands for itself.
    resets: bool,
    /// Bytes of all messages so far, as they came and inflated.
    came: u64,
    inflated: u64,
    piece: Box<[u8]>,
}

/// The bytes are not deflated, or grow without measure: nothing after them can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

impl Inflate {
    pub(super) fn new(resets: bool) -> Self {
        let piece = vec![0; PIECE].into_boxed_slice();
        Self { stream: Box::new(Decompress::new(false)), resets, came: 0, inflated: 0, piece }
    }

    /// Inflates a part of a message.
    pub(super) fn push(&mut self, mut deflated: &[u8], take: &mut dyn FnMut(&[u8])) -> Result<(), Unreadable> {
        self.came = self.came.saturating_add(deflated.len() as u64);
        loop {
            let (before_in, before_out) = (self.stream.total_in(), self.stream.total_out());
            let status = self.stream.decompress(deflated, &mut self.piece, FlushDecompress::Sync);
            let read = usize::try_from(self.stream.total_in() - before_in).map_err(|_| Unreadable)?;
            let wrote = usize::try_from(self.stream.total_out() - before_out).map_err(|_| Unreadable)?;
            take(self.piece.get(..wrote).unwrap_or_default());
            self.inflated = self.inflated.saturating_add(wrote as u64);
            deflated = deflated.get(read..).unwrap_or_default();
            if self.inflated > INFLATED_MAX && self.inflated / GROWTH_MAX > self.came {
                return Err(Unreadable);
            }
            match status {
                // The sender began anew inside its message.
                Ok(Status::StreamEnd) => self.stream.reset(false),
                Ok(Status::Ok | Status::BufError) if wrote == self.piece.len() => continue,
                Ok(_) if read == 0 && !deflated.is_empty() => return Err(Unreadable),
                Ok(_) => {}
                Err(_) => return Err(Unreadable),
            }
            if deflated.is_empty() {
                return Ok(());
            }
        }
    }

    /// The message is over.
    pub(super) fn end(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<(), Unreadable> {
        self.push(&TAIL, take)?;
        if self.resets {
            self.stream.reset(false);
        }
        Ok(())
    }
}
