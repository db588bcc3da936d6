//! Decodes compressed answers for reading. What the client gets stays as it came.

use pingora::http::ResponseHeader;

use crate::llm::content_encoding::{Decoder, codings};

/// What may come of few bytes, and of each byte more: text compresses to a fiftieth at best, what comes to more is not read.
const ALWAYS: u64 = 1 << 20;
const OF_A_BYTE: u64 = 256;

/// Whether an answer can be read.
pub(crate) enum Readable {
    /// As it comes.
    Plain,
    /// Once it is decoded.
    Packed(Box<Unpacker>),
    /// It has a coding that nobody here knows.
    No,
}

/// Decodes one answer as it comes, bounded in what it makes of it.
pub(crate) struct Unpacker {
    decoder: Decoder,
    came: u64,
    made: u64,
}

impl Readable {
    pub(crate) fn of(head: &ResponseHeader) -> Self {
        let values = head.headers.get_all("content-encoding").iter().map(|value| value.as_bytes());
        match codings(values) {
            Some(none) if none.is_empty() => Self::Plain,
            Some(codings) => Decoder::new(&codings)
                .map_or(Self::No, |decoder| Self::Packed(Box::new(Unpacker { decoder, came: 0, made: 0 }))),
            None => Self::No,
        }
    }
}

impl Unpacker {
    /// Hands what `chunk` decodes to on to `read`, in pieces. False: nothing more can be read.
    pub(crate) fn feed(&mut self, chunk: &[u8], mut read: impl FnMut(&[u8])) -> bool {
        self.came = self.came.saturating_add(chunk.len() as u64);
        let most = ALWAYS.saturating_add(self.came.saturating_mul(OF_A_BYTE));
        let made = &mut self.made;
        let mut take = |piece: &[u8]| {
            *made = made.saturating_add(piece.len() as u64);
            let fits = *made <= most;
            if fits {
                read(piece);
            }
            fits
        };
        self.decoder.feed(chunk, &mut take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(coding: &str) -> Box<Unpacker> {
        let mut head = ResponseHeader::build(200, None).unwrap();
        head.insert_header("content-encoding", coding).unwrap();
        match Readable::of(&head) {
            Readable::Packed(unpacker) => unpacker,
            Readable::Plain | Readable::No => panic!("{coding} is known"),
        }
    }

    #[test]
    fn a_bomb_is_not_read_to_its_end() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![0; 64 << 20]).unwrap();
        let bomb = encoder.finish().unwrap();
        let (mut unpacker, mut read) = (packed("gzip"), 0);
        let whole = bomb.chunks(16 << 10).all(|chunk| unpacker.feed(chunk, |piece| read += piece.len()));
        assert!(!whole && read < (32 << 20), "{read}");
    }

    #[test]
    fn what_no_one_knows_is_told() {
        let mut head = ResponseHeader::build(200, None).unwrap();
        assert!(matches!(Readable::of(&head), Readable::Plain));
        head.insert_header("content-encoding", "identity").unwrap();
        assert!(matches!(Readable::of(&head), Readable::Plain));
        head.insert_header("content-encoding", "compress").unwrap();
        assert!(matches!(Readable::of(&head), Readable::No));
        assert!(!packed("gzip").feed(b"not gzip at all", |_| {}));
    }
}
