//! Event streams of AWS (`application/vnd.amazon.eventstream`): finds binary frames in bytes that come in any pieces.
//!
//! A frame is its length and its headers' length (four bytes each, big-endian), a checksum of both, the headers, the payload
//! and a checksum. Checksums are the client's to judge; lengths are checked, since what follows depends on them.

use super::sse::{EVENT_LIMIT, Event, Frame, clear};

/// Both lengths and their checksum.
const PRELUDE: usize = 12;

/// What a frame has beside headers and payload.
const OVERHEAD: usize = PRELUDE + 4;

/// The longest frame that the format allows, in bytes; a longer one is no frame.
const FRAME_MAX: usize = 24 << 20;

/// Splits a byte stream into frames. A frame of more than [`EVENT_LIMIT`] bytes goes by unread; after one whose lengths
/// cannot be, nothing more is found.
#[derive(Debug, Default)]
pub struct AwsScanner {
    /// The begun frame, or as much of it as is read.
    bytes: Vec<u8>,
    /// Bytes of a frame over the limit that are still to come.
    skip: usize,
    broken: bool,
}

impl AwsScanner {
    /// Reads the next bytes of the stream and hands every frame that ends in them to `found`: the event's name is that of
    /// its type, or of its exception.
    pub fn feed(&mut self, chunk: &[u8], mut found: impl FnMut(Frame<'_>)) {
        let mut rest = chunk;
        while !rest.is_empty() && !self.broken {
            if self.skip > 0 {
                let passed = self.skip.min(rest.len());
                self.skip -= passed;
                rest = rest.get(passed..).unwrap_or_default();
                if self.skip == 0 {
                    found(Frame::Oversized);
                }
                continue;
            }
            rest = self.frame(rest, &mut found);
        }
    }

    /// Whether the bytes so far end between two frames.
    pub fn at_boundary(&self) -> bool {
        self.bytes.is_empty() && self.skip == 0 && !self.broken
    }

    /// Takes as much of the begun frame as there is, and gives back what follows it.
    fn frame<'c>(&mut self, bytes: &'c [u8], found: &mut impl FnMut(Frame<'_>)) -> &'c [u8] {
        // A frame in one piece is lent.
        if self.bytes.is_empty()
            && let Some(Ok(len)) = frame_len(bytes).filter(|len| len.is_ok_and(|len| len <= EVENT_LIMIT))
            && let Some((frame, rest)) = bytes.split_at_checked(len)
        {
            found(event_of(frame));
            return rest;
        }
        let wanted = match frame_len(&self.bytes) {
            None => PRELUDE,
            Some(Ok(len)) => len,
            Some(Err(_)) => 0,
        };
        let (piece, rest) = bytes.split_at_checked(wanted.saturating_sub(self.bytes.len())).unwrap_or((bytes, &[]));
        self.bytes.extend_from_slice(piece);
        match frame_len(&self.bytes) {
            None => {}
            Some(Err(_)) => {
                self.broken = true;
                self.bytes = Vec::new();
            }
            Some(Ok(len)) if len > EVENT_LIMIT => {
                self.skip = len - self.bytes.len();
                clear(&mut self.bytes);
            }
            Some(Ok(len)) if len == self.bytes.len() => {
                found(event_of(&self.bytes));
                clear(&mut self.bytes);
            }
            Some(Ok(_)) => {}
        }
        rest
    }
}

/// Lengths that no frame can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NoFrame;

/// The length of the frame that begins here; `None` where its prelude is not whole yet.
fn frame_len(bytes: &[u8]) -> Option<Result<usize, NoFrame>> {
    let (len, headers) = (number(bytes.get(..4)?)?, number(bytes.get(4..8)?)?);
    bytes.get(..PRELUDE)?;
    let fits = (OVERHEAD..=FRAME_MAX).contains(&len) && headers <= len - OVERHEAD;
    Some(if fits { Ok(len) } else { Err(NoFrame) })
}

fn number(bytes: &[u8]) -> Option<usize> {
    let bytes: [u8; 4] = bytes.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(bytes)).ok()
}

fn event_of(frame: &[u8]) -> Frame<'_> {
    let headers = frame.get(4..8).and_then(number).unwrap_or_default();
    let payload = frame.get(PRELUDE + headers..frame.len().saturating_sub(4)).unwrap_or_default();
    let headers = frame.get(PRELUDE..PRELUDE + headers).unwrap_or_default();
    Frame::Event(Event { name: name_of(headers), data: payload, id: &[] })
}

/// The type of the event, or of the exception.
fn name_of(mut headers: &[u8]) -> &[u8] {
    while let Some((name, value, rest)) = header(headers) {
        if matches!(name, b":event-type" | b":exception-type" | b":error-code") {
            return value;
        }
        headers = rest;
    }
    &[]
}

/// The first header's name and value, and what follows. Of values that are no text the bytes are told.
fn header(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (len, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*len))?;
    let (kind, rest) = rest.split_first()?;
    let (len, rest) = match kind {
        0 | 1 => (0, rest),
        2 => (1, rest),
        3 => (2, rest),
        4 => (4, rest),
        5 | 8 => (8, rest),
        6 | 7 => {
            let (len, rest) = rest.split_at_checked(2)?;
            (usize::from(u16::from_be_bytes(len.try_into().ok()?)), rest)
        }
        9 => (16, rest),
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(len)?;
    Some((name, value, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame with headers of text; checksums are zero.
    fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
        let mut head = Vec::new();
        for (name, value) in headers {
            head.push(name.len() as u8);
            head.extend_from_slice(name.as_bytes());
            head.push(7);
            head.extend_from_slice(&(value.len() as u16).to_be_bytes());
            head.extend_from_slice(value.as_bytes());
        }
        let len = OVERHEAD + head.len() + payload.len();
        let prelude = [(len as u32).to_be_bytes(), (head.len() as u32).to_be_bytes(), [0; 4]].concat();
        [prelude, head, payload.to_vec(), vec![0; 4]].concat()
    }

    fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<(String, String)>, AwsScanner) {
        let (mut scanner, mut events) = (AwsScanner::default(), Vec::new());
        for piece in pieces {
            scanner.feed(piece, |frame| {
                events.push(match frame {
                    Frame::Event(event) => (
                        String::from_utf8_lossy(event.name).into_owned(),
                        String::from_utf8_lossy(event.data).into_owned(),
                    ),
                    _ => ("oversized".to_owned(), String::new()),
                });
            });
        }
        (events, scanner)
    }

    #[test]
    fn frames_are_found_in_any_pieces() {
        let event = [(":message-type", "event"), (":event-type", "chunk")];
        let bytes =
            [frame(&event, b"{\"a\":1}"), frame(&[(":exception-type", "throttlingException")], b"{}"), frame(&[], b"")];
        let bytes = bytes.concat();
        let expected = [("chunk", "{\"a\":1}"), ("throttlingException", "{}"), ("", "")];
        let expected = expected.map(|(name, data)| (name.to_owned(), data.to_owned()));
        for size in 1..=bytes.len() {
            let (events, scanner) = scan(bytes.chunks(size));
            assert_eq!(events, expected, "in pieces of {size}");
            assert!(scanner.at_boundary());
        }
        assert!(!scan([&bytes[..bytes.len() - 1]]).1.at_boundary());
    }

    #[test]
    fn lengths_that_cannot_be_end_the_reading() {
        for (len, headers) in [(0_u32, 0_u32), (15, 0), (16, 1), (u32::MAX, 0), (40, 30)] {
            let bytes = [len.to_be_bytes(), headers.to_be_bytes(), [0; 4], *b"abcd"].concat();
            let (events, mut scanner) = scan([bytes.as_slice()]);
            assert!(events.is_empty() && !scanner.at_boundary(), "{len} {headers}");
            scanner.feed(&frame(&[], b""), |frame| panic!("{frame:?}"));
        }
    }

    #[test]
    fn a_frame_over_the_limit_takes_no_memory() {
        let long = frame(&[], &vec![b'x'; 2 * EVENT_LIMIT]);
        let (events, scanner) = scan(long.chunks(1 << 16).chain([frame(&[], b"a").as_slice()]));
        assert_eq!(
            events.iter().map(|(name, data)| (name.as_str(), data.as_str())).collect::<Vec<_>>(),
            [("oversized", ""), ("", "a")]
        );
        assert!(scanner.bytes.capacity() <= 1 << 16);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_read_the_same(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 1usize..40) {
            let (at_once, in_pieces) = (scan([bytes.as_slice()]), scan(bytes.chunks(size)));
            prop_assert_eq!(at_once.0, in_pieces.0);
            prop_assert_eq!(at_once.1.at_boundary(), in_pieces.1.at_boundary());
        }
    }
}
