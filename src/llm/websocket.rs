//! Reads WebSocket frames (RFC 6455) of one direction as they pass.

/// Counts the messages of one direction and remembers the close code. Feed it every byte after the 101.
#[derive(Debug, Default)]
pub struct FrameReader {
    messages: u64,
    close_code: Option<u16>,
}

impl FrameReader {
    /// Reads one chunk; returns how many data messages ended in it.
    pub fn feed(&mut self, chunk: &[u8]) -> u64 {
        let _ = chunk;
        0
    }

    /// Whether the bytes so far end between two frames: only there may a frame be put in.
    pub fn at_boundary(&self) -> bool {
        true
    }

    pub fn messages(&self) -> u64 {
        self.messages
    }

    pub fn close_code(&self) -> Option<u16> {
        self.close_code
    }
}
