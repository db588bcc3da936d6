//! JSON values one after the other, or in one array that grows: finds them in bytes that come in any pieces, over any
//! lines. Gemini streams that way where it was not asked for events.

use memchr::memchr2;

use super::partial_buffer::{Partial, PartialBuffer};
use super::sse::{EVENT_LIMIT, Event, Frame};

/// Splits a byte stream into JSON objects. One that lies within one chunk is lent out without a copy; those of more than
/// [`EVENT_LIMIT`] bytes are told as [`Frame::Skeleton`]. What stands between objects is passed over.
#[derive(Debug, Default)]
pub struct ValueScanner {
    /// An object began and has not ended.
    begun: bool,
    /// How deep the begun object is nested so far.
    depth: usize,
    in_string: bool,
    /// The last byte was a backslash inside a string.
    escaped: bool,
    array: Array,
    /// What earlier chunks had of the begun object.
    object: PartialBuffer,
}

/// Where in the array around all objects the bytes so far end.
#[derive(Debug, Default, PartialEq, Eq)]
enum Array {
    /// There is none.
    #[default]
    Outside,
    /// After the bracket or a comma.
    Before,
    /// After an object.
    After,
}

impl ValueScanner {
    /// Reads the next bytes of the stream and hands every object that ends in them to `found`.
    pub fn feed(&mut self, chunk: &[u8], mut found: impl FnMut(Frame<'_>)) {
        let mut rest = chunk;
        while !rest.is_empty() {
            if !self.begun {
                rest = self.seek(rest);
                continue;
            }
            let Some((piece, tail)) = self.end_of_object(rest).and_then(|end| rest.split_at_checked(end)) else {
                return self.object.push(rest);
            };
            rest = tail;
            self.tell(piece, &mut found);
        }
    }

    /// Whether the bytes so far end after an object of an array that goes on: there another may be put, after a comma.
    pub fn at_boundary(&self) -> bool {
        !self.begun && self.array == Array::After
    }

    /// Passes over what stands between objects, up to the first byte of the next.
    fn seek<'c>(&mut self, bytes: &'c [u8]) -> &'c [u8] {
        let mut rest = bytes;
        while let Some((byte, tail)) = rest.split_first() {
            match byte {
                b'{' => {
                    self.begun = true;
                    return rest;
                }
                b'[' => self.array = Array::Before,
                b',' if self.array == Array::After => self.array = Array::Before,
                b']' => self.array = Array::Outside,
                _ => {}
            }
            rest = tail;
        }
        rest
    }

    /// How many of these bytes belong to the begun object; `None`: all, and it goes on.
    fn end_of_object(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if self.in_string && !self.escaped {
                at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
                self.in_string = bytes.get(at) != Some(&b'"');
                self.escaped = self.in_string;
            } else if !std::mem::take(&mut self.escaped) {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
                if self.depth == 0 {
                    return Some(at + 1);
                }
            }
            at += 1;
        }
        None
    }

    /// Ends the begun object with its last piece.
    fn tell(&mut self, piece: &[u8], found: &mut impl FnMut(Frame<'_>)) {
        if !self.object.is_empty() || piece.len() >= EVENT_LIMIT {
            self.object.push(piece);
        }
        found(match self.object.carried() {
            Partial::Whole([]) => Frame::Event(Event::of(piece)),
            Partial::Whole(object) => Frame::Event(Event::of(object)),
            Partial::Skeleton(json) => Frame::Skeleton(Event::of(json)),
            Partial::Lost => Frame::Oversized,
        });
        self.object.clear();
        self.begun = false;
        if self.array == Array::Before {
            self.array = Array::After;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Option<String>>, bool) {
        let (mut scanner, mut values) = (ValueScanner::default(), Vec::new());
        for piece in pieces {
            scanner.feed(piece, |frame| {
                values.push(match frame {
                    Frame::Event(event) => Some(String::from_utf8(event.data.to_vec()).unwrap()),
                    Frame::Skeleton(_) | Frame::Oversized | Frame::Named(_) | Frame::Stray(_) => None,
                });
            });
        }
        (values, scanner.at_boundary())
    }

    #[test]
    fn objects_are_found_in_any_pieces() {
        let text = "[{\n \"a\": \"}\\\"{\\\\\"\n}\r\n,\r\n{\"b\": [{}, []]}\n]\n{}";
        let expected = ["{\n \"a\": \"}\\\"{\\\\\"\n}", "{\"b\": [{}, []]}", "{}"];
        for size in 1..=text.len() {
            let (values, _) = scan(text.as_bytes().chunks(size));
            assert_eq!(values.iter().flatten().collect::<Vec<_>>(), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_value_may_be_put_in_after_one_of_an_open_array() {
        let vectors = [
            ("[", false),
            ("[{}", true),
            ("[{}\n", true),
            ("[{},", false),
            ("[{},{}", true),
            ("[{}]", false),
            ("{}", false),
        ];
        for (text, expected) in vectors {
            assert_eq!(scan([text.as_bytes()]).1, expected, "{text}");
        }
    }

    #[test]
    fn an_endless_value_takes_no_memory() {
        let mut scanner = ValueScanner::default();
        scanner.feed(b"[{\"a\":\"", |frame| panic!("{frame:?}"));
        for _ in 0..100 {
            scanner.feed(&[b'x'; 64 << 10], |frame| panic!("{frame:?}"));
            assert!(scanner.object.held() <= 2 * EVENT_LIMIT && !scanner.at_boundary());
        }
        let mut told = Vec::new();
        scanner.feed(b"\"},{}", |frame| told.push(matches!(frame, Frame::Skeleton(_))));
        assert_eq!(told, [true, false]);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            parts in prop::collection::vec(prop::sample::select(vec!["{", "}", "[", "]", "\"", "\\", ",", "a", "{}", "\n"]), 0..40),
            size in 1usize..9,
        ) {
            let text = parts.concat();
            prop_assert_eq!(scan(text.as_bytes().chunks(size)), scan([text.as_bytes()]));
        }
    }
}
