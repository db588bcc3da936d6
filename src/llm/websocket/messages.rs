//! Puts the messages of one direction together, for reading: texts, and binary ones that begin as JSON, since many backends
//! parse either.

use super::frames::{Frame, FrameReader, Payloads};
use super::inflate::{Inflate, Unreadable};
use crate::llm::request::body_kind::Beginning;

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

/// Why something that may be meant for a model is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// The sides agreed on an extension that is not known here.
    Extension,
    /// It cannot be inflated, or grows without measure.
    Deflated,
    TooLong,
}

impl Hidden {
    /// For who sent it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Extension => "the connection has an extension that is not known here",
            Self::Deflated => "it cannot be inflated",
            Self::TooLong => "it is longer than 4 MiB",
        }
    }
}

/// Which side sends the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl Extensions {
    /// What of a client's `Sec-WebSocket-Extensions` is understood here; `None`: nothing of it.
    pub fn understood<'a>(values: impl Iterator<Item = &'a str>) -> Option<String> {
        let offers = values.flat_map(|value| value.split(',')).map(str::trim).filter(|offer| !offer.is_empty());
        let known: Vec<&str> = offers.filter(|offer| !Self::read(std::iter::once(*offer)).unknown).collect();
        (!known.is_empty()).then(|| known.join(", "))
    }

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

/// The messages of one direction: counted, and where they are texts, or begin as JSON, handed out whole. Takes no memory but for the message at
/// hand, 4 MiB at most, and for what inflating needs.
#[derive(Default)]
pub struct Messages {
    frames: FrameReader,
    text: Option<Box<Text>>,
    hidden: Option<Hidden>,
}

#[derive(Default)]
struct Text {
    inflate: Option<Inflate>,
    state: State,
    bytes: Vec<u8>,
    /// Something that began as JSON was too long to be gathered.
    overran: bool,
}

/// What the message at hand is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Between,
    Gathered {
        deflated: bool,
        binary: bool,
        begins: Beginning,
    },
    /// It is neither a text nor JSON, or too long; where it is deflated it is inflated all the same.
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
        self.hidden = agreed.unknown.then_some(Hidden::Extension);
    }

    /// Why something was not read that may be meant for a model; `None`: all was.
    pub fn hidden(&self) -> Option<Hidden> {
        self.hidden
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
        let failed = into.failed;
        if std::mem::take(&mut text.overran) {
            self.hidden = Some(Hidden::TooLong);
        }
        if failed {
            self.text = None;
            self.hidden = Some(Hidden::Deflated);
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
            let (deflated, binary) = (frame.deflated, frame.opcode != TEXT);
            self.state = State::Gathered { deflated, binary, begins: Beginning::Open };
        }
        match self.state {
            State::Gathered { deflated: false, .. } => {
                let from = self.bytes.len();
                self.gather(bytes);
                frame.unmask(self.bytes.get_mut(from..).unwrap_or_default());
                self.look(from);
                Ok(())
            }
            State::Gathered { deflated: true, .. } | State::PassedOver { deflated: true } => {
                let mut plain = bytes.to_vec();
                frame.unmask(&mut plain);
                self.inflated(|inflate, take| inflate.push(&plain, take))
            }
            State::PassedOver { deflated: false } | State::Between => Ok(()),
        }
    }

    /// Ends the message; tells whether it was gathered.
    fn end(&mut self) -> Result<bool, Unreadable> {
        if matches!(self.state, State::Gathered { deflated: true, .. } | State::PassedOver { deflated: true }) {
            self.inflated(Inflate::end)?;
        }
        Ok(matches!(self.state, State::Gathered { .. }))
    }

    fn inflated(
        &mut self,
        inflate: impl FnOnce(&mut Inflate, &mut dyn FnMut(&[u8])) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        let mut own = self.inflate.take().ok_or(Unreadable)?;
        let done = inflate(&mut own, &mut |piece| {
            let from = self.bytes.len();
            self.gather(piece);
            self.look(from);
        });
        self.inflate = Some(own);
        done
    }

    fn gather(&mut self, bytes: &[u8]) {
        let State::Gathered { deflated, begins, .. } = self.state else { return };
        if self.bytes.len() + bytes.len() > TEXT_MAX {
            self.overran |= begins != Beginning::Other;
            self.bytes = Vec::new();
            self.state = State::PassedOver { deflated };
            return;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Looks at what came after `from`, as long as it is not known how the message begins. Sound and pictures are not gathered.
    fn look(&mut self, from: usize) {
        let State::Gathered { deflated, binary, begins: Beginning::Open } = self.state else { return };
        let begins = Beginning::of(self.bytes.get(from..).unwrap_or_default());
        self.state = State::Gathered { deflated, binary, begins };
        if binary && begins == Beginning::Other {
            self.bytes.clear();
            self.state = State::PassedOver { deflated };
        }
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
