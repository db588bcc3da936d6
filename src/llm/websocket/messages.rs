//! Puts the text messages of one direction together, for reading.

use super::frames::{Frame, FrameReader, Payloads};
use super::inflate::{Inflate, Unreadable};

/// Longer messages are not read.
const TEXT_MAX: usize = 4 << 20;

/// What is kept between two messages.
const KEPT_MAX: usize = 64 << 10;

const TEXT: u8 = 1;

/// What both sides agreed on in the handshake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Messages may be deflated.
    deflates: bool,
    client_resets: bool,
    server_resets: bool,
    /// There is an extension that is not known: frames may mean anything.
    unknown: bool,
}

/// Which side sends the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl Extensions {
    /// Reads the answer's `Sec-WebSocket-Extensions`, all of them.
    pub fn read<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut agreed = Self::default();
        for extension in values.flat_map(|value| value.split(',')).map(str::trim).filter(|text| !text.is_empty()) {
            let mut words = extension.split(';').map(str::trim);
            if !words.next().is_some_and(|name| name.eq_ignore_ascii_case("permessage-deflate")) || agreed.deflates {
                agreed.unknown = true;
                continue;
            }
            agreed.deflates = true;
            for word in words {
                agreed.client_resets |= word.eq_ignore_ascii_case("client_no_context_takeover");
                agreed.server_resets |= word.eq_ignore_ascii_case("server_no_context_takeover");
            }
        }
        agreed
    }
}

/// The messages of one direction: counted, and where they are texts handed out whole. Takes no memory but for the message at
/// hand, 4 MiB at most, and for what inflating needs.
#[derive(Default)]
pub struct Messages {
    frames: FrameReader,
    text: Option<Box<Text>>,
}

#[derive(Default)]
struct Text {
    inflate: Option<Inflate>,
    state: State,
    bytes: Vec<u8>,
}

/// What the message at hand is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Between,
    Gathered {
        deflated: bool,
    },
    /// It is no text, or too long; where it is deflated it is inflated all the same.
    PassedOver {
        deflated: bool,
    },
}

impl Messages {
    /// Begins to read, from the first frame on.
    pub fn read(&mut self, side: Side, agreed: Extensions) {
        let resets = match side {
            Side::Client => agreed.client_resets,
            Side::Server => agreed.server_resets,
        };
        let inflate = agreed.deflates.then(|| Inflate::new(resets));
        self.text = (!agreed.unknown).then(|| Box::new(Text { inflate, ..Text::default() }));
    }

    /// From now on messages are counted alone.
    pub fn only_count(&mut self) {
        self.text = None;
    }

    /// What is known of the frames.
    pub fn frames(&self) -> &FrameReader {
        &self.frames
    }

    /// Takes one chunk, and hands each text that ended in it to `take`; returns how many messages ended.
    pub fn feed(&mut self, chunk: &[u8], take: &mut dyn FnMut(&[u8])) -> u64 {
        let Some(text) = &mut self.text else { return self.frames.feed(chunk) };
        let mut into = Into { text, take, failed: false };
        let ended = self.frames.feed_into(chunk, &mut into);
        if into.failed {
            self.text = None;
        }
        ended
    }
}

/// Where payloads go while one chunk is read.
struct Into<'a> {
    text: &'a mut Text,
    take: &'a mut dyn FnMut(&[u8]),
    failed: bool,
}

impl Payloads for Into<'_> {
    fn payload(&mut self, frame: &Frame, bytes: &[u8]) {
        if frame.is_control() || self.failed {
            return;
        }
        self.failed |= self.text.payload(frame, bytes).is_err();
    }

    fn end(&mut self, frame: &Frame) {
        if frame.is_control() || !frame.is_last || self.failed {
            return;
        }
        match self.text.end() {
            Ok(true) => (self.take)(&self.text.bytes),
            Ok(false) => {}
            Err(Unreadable) => self.failed = true,
        }
        self.text.clear();
    }
}

impl Text {
    fn payload(&mut self, frame: &Frame, bytes: &[u8]) -> Result<(), Unreadable> {
        if self.state == State::Between {
            let deflated = frame.deflated;
            self.state =
                if frame.opcode == TEXT { State::Gathered { deflated } } else { State::PassedOver { deflated } };
        }
        match self.state {
            State::Gathered { deflated: false } => {
                let from = self.bytes.len();
                self.gather(bytes);
                frame.unmask(self.bytes.get_mut(from..).unwrap_or_default());
                Ok(())
            }
            State::Gathered { deflated: true } | State::PassedOver { deflated: true } => {
                let mut plain = bytes.to_vec();
                frame.unmask(&mut plain);
                self.inflated(|inflate, take| inflate.push(&plain, take))
            }
            State::PassedOver { deflated: false } | State::Between => Ok(()),
        }
    }

    /// Ends the message; tells whether it is a text that was gathered.
    fn end(&mut self) -> Result<bool, Unreadable> {
        if matches!(self.state, State::Gathered { deflated: true } | State::PassedOver { deflated: true }) {
            self.inflated(Inflate::end)?;
        }
        Ok(matches!(self.state, State::Gathered { .. }))
    }

    fn inflated(
        &mut self,
        inflate: impl FnOnce(&mut Inflate, &mut dyn FnMut(&[u8])) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        let mut own = self.inflate.take().ok_or(Unreadable)?;
        let done = inflate(&mut own, &mut |piece| self.gather(piece));
        self.inflate = Some(own);
        done
    }

    fn gather(&mut self, bytes: &[u8]) {
        let State::Gathered { deflated } = self.state else { return };
        if self.bytes.len() + bytes.len() > TEXT_MAX {
            self.bytes = Vec::new();
            self.state = State::PassedOver { deflated };
            return;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn clear(&mut self) {
        self.state = State::Between;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_MAX);
    }
}

#[cfg(test)]
#[path = "messages_tests.rs"]
mod tests;
