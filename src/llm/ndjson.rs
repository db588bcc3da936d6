//! Newline-delimited JSON: finds lines in bytes that come in any pieces.

use memchr::memchr;

use super::partial_buffer::{Partial, PartialBuffer};
use super::sse::{EVENT_LIMIT, Event, Frame};

/// Splits a byte stream into lines. Blank ones are passed over, and those of more than [`EVENT_LIMIT`] bytes told as
/// [`Frame::Skeleton`], or [`Frame::Oversized`]; a line within one chunk is lent out without a copy.
#[derive(Debug, Default)]
pub struct LineScanner {
    /// At least one byte of a line came whose end has not.
    begun: bool,
    /// The begun line.
    line: PartialBuffer,
    /// Bytes searched and copied so far: tests hold it against the bytes fed.
    #[cfg(test)]
    pub(super) work: usize,
}

impl LineScanner {
    /// Reads the next bytes of the stream and hands every line that ends in them to `found`.
    pub fn feed(&mut self, chunk: &[u8], mut found: impl FnMut(Frame<'_>)) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let Some((line, tail)) = memchr(b'\n', rest).and_then(|at| rest.split_at_checked(at)) else {
                self.count_work(rest.len());
                self.keep(rest);
                break;
            };
            self.count_work(line.len() + 1);
            rest = tail.get(1..).unwrap_or_default();
            if self.begun || line.len() >= EVENT_LIMIT {
                self.keep(line);
                self.end_kept(&mut found);
            } else {
                tell(line, &mut found);
            }
        }
    }

    /// The stream ended in order: a last line without its line end is told too.
    pub fn finish(&mut self, mut found: impl FnMut(Frame<'_>)) {
        if self.begun {
            self.end_kept(&mut found);
        }
    }

    /// Whether the bytes so far end between two lines.
    pub fn at_boundary(&self) -> bool {
        !self.begun
    }

    fn keep(&mut self, piece: &[u8]) {
        self.begun = true;
        self.count_work(piece.len());
        self.line.push(piece);
    }

    fn end_kept(&mut self, found: &mut impl FnMut(Frame<'_>)) {
        match self.line.carried() {
            Partial::Whole(line) => tell(line, found),
            Partial::Skeleton(json) => found(Frame::Skeleton(Event::of(json))),
            Partial::Lost => found(Frame::Oversized),
        }
        self.begun = false;
        self.line.clear();
    }

    #[cfg(test)]
    fn count_work(&mut self, bytes: usize) {
        self.work += bytes;
    }

    #[cfg(not(test))]
    #[inline(always)]
    fn count_work(&mut self, _: usize) {}
}

fn tell(line: &[u8], found: &mut impl FnMut(Frame<'_>)) {
    let line = line.trim_ascii();
    if !line.is_empty() {
        found(Frame::Event(Event::of(line)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Option<Vec<u8>>>, LineScanner) {
        let (mut scanner, mut lines) = (LineScanner::default(), Vec::new());
        let mut note = |frame: Frame<'_>| {
            lines.push(match frame {
                Frame::Event(event) => Some(event.data.to_vec()),
                Frame::Skeleton(_) | Frame::Oversized | Frame::Named(_) | Frame::Stray(_) => None,
            });
        };
        for piece in pieces {
            scanner.feed(piece, &mut note);
        }
        scanner.finish(&mut note);
        (lines, scanner)
    }

    #[test]
    fn an_endless_line_takes_no_memory() {
        let mut scanner = LineScanner::default();
        for _ in 0..100 {
            scanner.feed(&[b'x'; 64 << 10], |frame| panic!("{frame:?}"));
            assert!(scanner.line.held() <= 2 * EVENT_LIMIT && !scanner.at_boundary());
        }
        let mut told = Vec::new();
        for piece in ["\n{}\n{", "}\n"] {
            scanner.feed(piece.as_bytes(), |frame| told.push(frame == Frame::Oversized));
        }
        assert_eq!(told, [true, false, false]);
    }

    #[test]
    fn of_a_line_over_the_limit_the_skeleton_is_told() {
        let line = format!("{{\"image\":\"{}\",\"eval_count\":7}}\n", "A".repeat(EVENT_LIMIT));
        for size in [line.len(), 4_096] {
            let (mut scanner, mut told) = (LineScanner::default(), Vec::new());
            for piece in line.as_bytes().chunks(size) {
                scanner.feed(piece, |frame| match frame {
                    Frame::Skeleton(event) => told.push(String::from_utf8(event.data.to_vec()).unwrap()),
                    _ => panic!("{frame:?}"),
                });
            }
            assert_eq!(
                told,
                [format!("{{\"image\":\"{}\",\"eval_count\":7}}", "A".repeat(512))],
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn the_limit_is_the_same_in_any_pieces() {
        for over in [0, 1] {
            let line = [vec![b'x'; EVENT_LIMIT - 1 + over], b"\n".to_vec()].concat();
            for size in [line.len(), line.len() - 1, 4096, 1_001] {
                let (lines, scanner) = scan(line.chunks(size));
                assert_eq!(lines.iter().map(Option::is_some).collect::<Vec<_>>(), [over == 0], "in pieces of {size}");
                assert!(scanner.work <= 3 * line.len());
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            parts in prop::collection::vec(prop::sample::select(vec!["{\"a\":1}", "\n", "\r\n", " ", "ä", "{}"]), 0..30),
            size in 1usize..12,
        ) {
            let text = parts.concat();
            let expected: Vec<_> = text.split('\n').map(|line| line.trim_matches([' ', '\r']))
                .filter(|line| !line.is_empty()).map(|line| Some(line.as_bytes().to_vec())).collect();
            let mut scanner = LineScanner::default();
            for (at, piece) in text.as_bytes().chunks(size).enumerate() {
                scanner.feed(piece, |_| {});
                let end = (at * size + piece.len()).min(text.len());
                prop_assert_eq!(scanner.at_boundary(), text.as_bytes()[..end].ends_with(b"\n"));
            }
            prop_assert_eq!(scan(text.as_bytes().chunks(size)).0, expected);
        }
    }
}
