//! Reads WebSocket frames (RFC 6455) of one direction as they pass.

use std::mem;

use bytes::Bytes;

const FIN: u8 = 0x80;
/// Set on the first frame of a deflated message (RFC 7692).
const DEFLATED: u8 = 0x40;
const TEXT: u8 = 0x01;
const MASKED: u8 = 0x80;
/// Of control frames this bit of the opcode is set; they may stand between the fragments of a message.
const CONTROL: u8 = 0x08;
const CLOSE: u8 = 0x08;
/// The longest header: two bytes, eight of length, four of mask.
const HEADER_MAX: usize = 14;
/// What a frame is ended with, so that texts stay texts: a space.
const FILL: u8 = b' ';
/// A frame that lacks more is not ended.
const FILLER_MAX: usize = 64 << 10;

/// Counts the messages of one direction and remembers the close code. Feed it every byte after the 101.
///
/// It keeps a frame's header and two bytes, and passes payloads over without looking at them.
#[derive(Debug, Default, Clone)]
pub struct FrameReader {
    messages: u64,
    /// A message has begun, and its last frame has not ended.
    in_message: bool,
    close_code: Option<u16>,
    closed: bool,
    header: [u8; HEADER_MAX],
    /// How much of the header came.
    header_len: usize,
    /// The header is complete, and the payload is not.
    in_payload: bool,
    /// Payload bytes that are still to come, and that came.
    remaining: u64,
    seen: u64,
    /// The unmasked start of a close frame's payload.
    code: [u8; 2],
}

impl FrameReader {
    /// Reads one chunk; returns how many data messages ended in it.
    pub fn feed(&mut self, chunk: &[u8]) -> u64 {
        self.feed_into(chunk, &mut ())
    }

    /// As [`FrameReader::feed`]; hands payloads to `sink` as they come.
    pub(super) fn feed_into(&mut self, chunk: &[u8], sink: &mut impl Payloads) -> u64 {
        let before = self.messages;
        let mut rest = chunk;
        while !rest.is_empty() {
            rest = self.step(rest, sink);
        }
        self.messages - before
    }

    /// Whether the bytes so far end between two frames: only there may a frame be put in, and inside a message only a control frame.
    pub fn at_boundary(&self) -> bool {
        self.header_len == 0
    }

    /// Whether the bytes so far end between two messages.
    pub fn between_messages(&self) -> bool {
        self.at_boundary() && !self.in_message
    }

    /// How many bytes of what comes next belong to the frame at hand: 0 between two frames; `None` where it goes on after `next`.
    pub fn end_of_frame(&self, next: &[u8]) -> Option<usize> {
        self.end_of(next, Self::at_boundary)
    }

    /// As [`FrameReader::end_of_frame`], of the message at hand.
    pub fn end_of_message(&self, next: &[u8]) -> Option<usize> {
        self.end_of(next, Self::between_messages)
    }

    /// Bytes that end the frame at hand and no message with it, so that a close frame can follow; `masked`: its sender is a client.
    /// `None` where there are none: the frame is the last of its message, which would be taken for whole, or a close frame, or too
    /// much of it is missing.
    pub fn filler(&self, masked: bool) -> Option<Bytes> {
        if self.at_boundary() || self.opcode() == CLOSE || !self.is_control() && self.is_last() {
            return None;
        }
        let (mut ahead, mut filler) = (self.clone(), Vec::new());
        while !ahead.at_boundary() {
            if filler.len() >= FILLER_MAX {
                return None;
            }
            let byte = match ahead.header_len {
                _ if ahead.in_payload => ahead.frame().masked(FILL),
                1 if masked => MASKED,
                _ => 0,
            };
            filler.push(byte);
            ahead.feed(&[byte]);
        }
        Some(filler.into())
    }

    fn end_of(&self, next: &[u8], there: impl Fn(&Self) -> bool) -> Option<usize> {
        let (mut ahead, mut rest) = (self.clone(), next);
        while !there(&ahead) {
            if rest.is_empty() {
                return None;
            }
            rest = ahead.step(rest, &mut ());
        }
        Some(next.len() - rest.len())
    }

    /// Takes the next byte of a header, or what `bytes` have of a payload; what is left of them.
    fn step<'c>(&mut self, bytes: &'c [u8], sink: &mut impl Payloads) -> &'c [u8] {
        if self.in_payload {
            return self.pass_payload(bytes, sink);
        }
        let Some((first, rest)) = bytes.split_first() else { return bytes };
        if let Some(slot) = self.header.get_mut(self.header_len) {
            *slot = *first;
        }
        self.header_len += 1;
        self.end_header(sink);
        rest
    }

    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// The code of the first close frame; `None` before it, and where it has none.
    pub fn close_code(&self) -> Option<u16> {
        self.close_code
    }

    /// Whether a close frame came: no frame may follow it.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Once the header is complete, starts on the payload.
    fn end_header(&mut self, sink: &mut impl Payloads) {
        let [_, second, extended @ ..] = &self.header;
        let length_bytes = self.length_bytes();
        let mask_bytes = if second & MASKED == 0 { 0 } else { 4 };
        if self.header_len < 2 + length_bytes + mask_bytes {
            return;
        }
        self.remaining = match length_bytes {
            0 => u64::from(second & !MASKED),
            wide => extended.iter().take(wide).fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        self.seen = 0;
        self.in_payload = true;
        if self.remaining == 0 {
            self.end_frame(sink);
        }
    }

    fn pass_payload<'c>(&mut self, rest: &'c [u8], sink: &mut impl Payloads) -> &'c [u8] {
        let here = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(rest.len());
        let (payload, rest) = rest.split_at_checked(here).unwrap_or((rest, &[]));
        if self.opcode() == CLOSE {
            self.read_code(payload);
        }
        sink.payload(&self.frame(), payload);
        self.seen += payload.len() as u64;
        self.remaining -= payload.len() as u64;
        if self.remaining == 0 {
            self.end_frame(sink);
        }
        rest
    }

    /// Takes the first two payload bytes, which may come one at a time.
    fn read_code(&mut self, payload: &[u8]) {
        let start = usize::try_from(self.seen).unwrap_or(usize::MAX);
        let masked = self.header[1] & MASKED != 0;
        let mask_at = 2 + self.length_bytes();
        for (at, byte) in (start..self.code.len()).zip(payload) {
            if let (Some(slot), Some(mask)) = (self.code.get_mut(at), self.header.get(mask_at + at)) {
                *slot = if masked { byte ^ mask } else { *byte };
            }
        }
    }

    fn end_frame(&mut self, sink: &mut impl Payloads) {
        sink.end(&self.frame());
        if !self.is_control() {
            self.in_message = !self.is_last();
            self.messages += u64::from(self.is_last());
        }
        if self.opcode() == CLOSE && !mem::replace(&mut self.closed, true) && self.seen >= 2 {
            self.close_code = Some(u16::from_be_bytes(self.code));
        }
        self.header_len = 0;
        self.header = [0; HEADER_MAX];
        self.in_payload = false;
    }

    /// How many bytes of length follow the first two.
    fn length_bytes(&self) -> usize {
        match self.header[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn opcode(&self) -> u8 {
        self.header[0] & 0x0f
    }

    fn is_control(&self) -> bool {
        self.opcode() & CONTROL != 0
    }

    fn is_last(&self) -> bool {
        self.header[0] & FIN != 0
    }

    fn frame(&self) -> Frame {
        let at = 2 + self.length_bytes();
        let mask = self.header.get(at..at + 4).and_then(|mask| mask.try_into().ok());
        Frame {
            opcode: self.opcode(),
            is_last: self.is_last(),
            deflated: self.header[0] & DEFLATED != 0,
            mask: mask.filter(|_| self.header[1] & MASKED != 0),
            offset: self.seen,
        }
    }
}

/// Where the payloads of frames go.
pub(super) trait Payloads {
    /// A part of a frame's payload, still masked.
    fn payload(&mut self, frame: &Frame, bytes: &[u8]);
    /// The frame is over.
    fn end(&mut self, frame: &Frame);
}

/// Nobody looks at them.
impl Payloads for () {
    fn payload(&mut self, _: &Frame, _: &[u8]) {}
    fn end(&mut self, _: &Frame) {}
}

/// The frame that a payload is of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) opcode: u8,
    /// It ends its message.
    pub(super) is_last: bool,
    /// Of a message's first frame: the message is deflated.
    pub(super) deflated: bool,
    mask: Option<[u8; 4]>,
    /// Bytes of its payload that came before.
    offset: u64,
}

impl Frame {
    pub(super) fn is_control(&self) -> bool {
        self.opcode & CONTROL != 0
    }

    /// Takes the mask off the bytes that begin where this one stands.
    pub(super) fn unmask(&self, bytes: &mut [u8]) {
        let Some(mask) = self.mask else { return };
        let turned = usize::try_from(self.offset % 4).unwrap_or(0);
        let endless = mask.iter().cycle().skip(turned);
        bytes.iter_mut().zip(endless).for_each(|(byte, mask)| *byte ^= mask);
    }

    /// The next byte of its payload, with the mask on.
    fn masked(&self, byte: u8) -> u8 {
        let mut byte = [byte];
        self.unmask(&mut byte);
        byte[0]
    }
}

/// A text message in one frame, from a server, of at most 64 KiB; `None` where it is longer.
pub fn text_frame(text: &str) -> Option<Bytes> {
    let mut frame = vec![FIN | TEXT];
    match text.len() {
        short @ ..126 => frame.push(u8::try_from(short).ok()?),
        longer => {
            frame.push(126);
            frame.extend(u16::try_from(longer).ok()?.to_be_bytes());
        }
    }
    frame.extend(text.as_bytes());
    Some(frame.into())
}

/// A close frame without a reason. `mask`: what a client must send with; a server must not mask.
pub fn close_frame(code: u16, mask: Option<[u8; 4]>) -> Bytes {
    let [high, low] = code.to_be_bytes();
    match mask {
        None => Bytes::copy_from_slice(&[FIN | CLOSE, 2, high, low]),
        Some([a, b, c, d]) => Bytes::copy_from_slice(&[FIN | CLOSE, MASKED | 2, a, b, c, d, high ^ a, low ^ b]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A frame as RFC 6455 5.2 lays it out.
    fn frame(fin: bool, opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![if fin { FIN } else { 0 } | opcode];
        let masked = if mask.is_some() { MASKED } else { 0 };
        match payload.len() {
            short @ ..126 => bytes.push(masked | short as u8),
            medium @ ..65_536 => {
                bytes.push(masked | 126);
                bytes.extend((medium as u16).to_be_bytes());
            }
            long => {
                bytes.push(masked | 127);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        bytes.extend(mask.iter().flatten());
        bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask.map_or(0, |mask| mask[at % 4])));
        bytes
    }

    #[test]
    fn the_examples_of_the_rfc_are_messages() {
        let examples: [&[u8]; 5] = [
            &[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f],
            &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58],
            &[0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f],
            &frame(true, 2, None, &[0; 256]),
            &frame(true, 2, None, &[0; 65_536]),
        ];
        for example in examples {
            let mut reader = FrameReader::default();
            assert_eq!(reader.feed(example), 1, "{:x?}", &example[..2]);
            assert!(reader.at_boundary());
        }
    }

    #[test]
    fn control_frames_are_no_messages_even_between_fragments() {
        let mut reader = FrameReader::default();
        assert_eq!(reader.feed(&frame(true, 9, None, b"ping")), 0);
        assert_eq!(reader.feed(&frame(false, 1, None, b"Hel")), 0);
        assert_eq!(reader.feed(&frame(true, 10, None, b"")), 0);
        assert!(reader.at_boundary(), "between frames, though inside a message");
        assert_eq!(reader.feed(&frame(true, 0, None, b"lo")), 1);
        assert_eq!((reader.messages(), reader.close_code(), reader.closed()), (1, None, false));
    }

    #[test]
    fn close_codes_are_read_masked_and_bare() {
        for mask in [None, Some(MASK), Some([0; 4])] {
            for bytes in [frame(true, 8, mask, b"\x03\xe9going away"), close_frame(1001, mask).to_vec()] {
                let mut reader = FrameReader::default();
                for byte in &bytes {
                    reader.feed(&[*byte]);
                }
                assert_eq!((reader.close_code(), reader.closed()), (Some(1001), true), "{mask:?}");
                assert!(reader.at_boundary());
            }
        }
        for payload in [b"".as_slice(), b"\x03"] {
            let mut reader = FrameReader::default();
            reader.feed(&frame(true, 8, Some(MASK), payload));
            assert_eq!((reader.close_code(), reader.closed()), (None, true), "{payload:?}");
        }
    }

    #[test]
    fn the_longest_length_is_no_trouble() {
        let mut reader = FrameReader::default();
        reader.feed(&[0x82, 127]);
        reader.feed(&[0xff; 8]);
        for _ in 0..100 {
            assert_eq!(reader.feed(&[0; 4096]), 0);
        }
        assert!(!reader.at_boundary());
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            frames in prop::collection::vec(
                (any::<bool>(), prop::sample::select(vec![0u8, 1, 2, 8, 9, 10]), prop::option::of(any::<[u8; 4]>()),
                 prop::sample::select(vec![0, 1, 2, 5, 125, 126, 300]).prop_flat_map(|len| prop::collection::vec(any::<u8>(), len))),
                1..8),
            cuts in prop::collection::vec(1usize..40, 1..20),
        ) {
            let encoded: Vec<_> = frames.iter().map(|(fin, opcode, mask, data)| frame(*fin, *opcode, *mask, data)).collect();
            let ends: Vec<_> = encoded.iter().scan(0, |end, bytes| { *end += bytes.len(); Some(*end) }).collect();
            let expected = frames.iter().filter(|(fin, opcode, ..)| *fin && *opcode < 8).count() as u64;
            let code = frames.iter().find(|(_, opcode, ..)| *opcode == 8)
                .and_then(|(.., data)| Some(u16::from_be_bytes([*data.first()?, *data.get(1)?])));

            let bytes = encoded.concat();
            let (mut reader, mut at, mut counted) = (FrameReader::default(), 0, 0);
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(bytes.len());
                counted += reader.feed(&bytes[at..end]);
                at = end;
                prop_assert_eq!(reader.at_boundary(), ends.contains(&at));
                if at == bytes.len() {
                    break;
                }
            }
            prop_assert_eq!((counted, reader.messages(), reader.close_code()), (expected, expected, code));
        }
    }

    #[test]
    fn the_end_of_a_frame_and_of_a_message_are_found_ahead() {
        let (first, last) = (frame(false, 1, None, b"Hel"), frame(true, 0, None, b"lo"));
        let ping = frame(true, 9, None, b"");
        let bytes = [&first[..], &ping, &last, b"\x81"].concat();
        let mut reader = FrameReader::default();
        assert_eq!((reader.end_of_frame(&bytes), reader.end_of_message(&bytes)), (Some(0), Some(0)));
        reader.feed(&bytes[..1]);
        let message = first.len() + ping.len() + last.len();
        assert_eq!(reader.end_of_frame(&bytes[1..]), Some(first.len() - 1));
        assert_eq!(reader.end_of_message(&bytes[1..]), Some(message - 1));
        assert_eq!((reader.end_of_frame(&bytes[1..3]), reader.end_of_message(&bytes[1..9])), (None, None));
        reader.feed(&bytes[1..first.len()]);
        assert!(reader.at_boundary() && !reader.between_messages());
        assert_eq!(reader.end_of_frame(&bytes[first.len()..]), Some(0));
        reader.feed(&bytes[first.len()..message]);
        assert!(reader.between_messages());
    }

    #[test]
    fn a_frame_that_ends_no_message_can_be_ended_by_others() {
        for mask in [None, Some(MASK)] {
            for (whole, opcode) in [(frame(false, 1, mask, &[b'x'; 300]), 1), (frame(true, 9, mask, b"ping"), 9)] {
                for cut in 1..whole.len() {
                    let mut reader = FrameReader::default();
                    reader.feed(&whole[..cut]);
                    let filler = reader.filler(mask.is_some()).unwrap();
                    reader.feed(&filler);
                    assert!(reader.at_boundary() && reader.messages() == 0, "{opcode} {mask:?} {cut}");
                    reader.feed(&close_frame(1001, mask));
                    assert_eq!(reader.close_code(), Some(1001), "{opcode} {mask:?} {cut}");
                }
                let payload = FrameReader::default().filler(mask.is_some());
                assert_eq!(payload, None, "between two frames");
            }
            let long = frame(false, 2, mask, &vec![0; FILLER_MAX + 100]);
            for none in
                [&frame(true, 1, mask, b"Hello")[..], &frame(true, 0, mask, b"lo"), &close_frame(1000, mask), &long]
            {
                let mut reader = FrameReader::default();
                reader.feed(&none[..none.len().min(15) - 1]);
                assert_eq!(reader.filler(mask.is_some()), None, "{:x?}", &none[..2]);
            }
        }
        let mut reader = FrameReader::default();
        reader.feed(&frame(false, 1, Some(MASK), b"Hello")[..8]);
        assert_eq!(&reader.filler(true).unwrap()[..], [b' ' ^ MASK[2], b' ' ^ MASK[3], b' ' ^ MASK[0]], "spaces");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let mut reader = FrameReader::default();
            reader.feed(&bytes);
            let _ = (reader.filler(true), reader.filler(false));
            prop_assert!(reader.end_of_frame(&bytes).is_none_or(|end| end <= bytes.len()));
        }
    }
}
