//! Server-sent events: finds event boundaries and `data` fields in bytes that come in any pieces.
//!
//! Follows the event stream format of the WHATWG HTML standard: LF, CRLF and CR, one byte order mark, comments and
//! multi-line data. An event that lies within one chunk is lent out without a copy. Only the begun event is kept
//! between chunks, and of that at most [`EVENT_LIMIT`] bytes; of a longer one the skeleton, in constant memory.

use std::mem;

use memchr::memchr2;

use super::prune::Pruner;

/// The most bytes that one event, line or document may have to be read as it came; longer ones are told as
/// [`Frame::Skeleton`], or [`Frame::Oversized`].
pub const EVENT_LIMIT: usize = 1 << 20;

/// A buffer that grew past this many bytes for one event is given back after it: thousands of streams are open at once.
pub(super) const KEPT_CAPACITY: usize = 4 << 10;

const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];
const BOM_BYTES: u8 = BOM.len() as u8;

/// One event, lent for the time of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event` field; empty where there was none.
    pub name: &'a [u8],
    /// The `data` fields, joined by LF.
    pub data: &'a [u8],
    /// The last event id of the stream so far; empty where there was none.
    pub id: &'a [u8],
}

impl<'a> Event<'a> {
    /// An event of data alone, as a line of JSON is.
    pub fn of(data: &'a [u8]) -> Self {
        Self { name: &[], data, id: &[] }
    }
}

/// What ended in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    Event(Event<'a>),
    /// An event of more than [`EVENT_LIMIT`] bytes: JSON, in which long texts and lists are cut.
    Skeleton(Event<'a>),
    /// An event of more than [`EVENT_LIMIT`] bytes that is no JSON went by unread.
    Oversized,
    /// The name of an event without data. The standard passes over it; but many clients do not, and LangServe ends its
    /// streams so.
    Named(&'a [u8]),
    /// Lines that begin an object of JSON and stand bare among events. The standard passes over them; but a backend that
    /// breaks off may tell its error so, as Gemini does.
    Stray(&'a [u8]),
}

/// Splits a byte stream into events.
#[derive(Debug, Default)]
pub struct SseScanner {
    /// How many bytes of the byte order mark matched; its length once the start of the stream is behind.
    bom: u8,
    line: Begun,
    /// A line other than a comment came since the last blank one.
    in_block: bool,
    /// The last byte was a CR: a LF right after it belongs to the same line end.
    after_cr: bool,
    /// A CR without LF ended a line before: this stream does not mean CRLF by it.
    lone_cr: bool,
    /// The CR of a blank line was the last byte. Of a CRLF the LF belongs to the event, which ends with the next byte.
    ends: bool,
    /// The begun event is over its limit.
    skipping: bool,
    /// What is kept of its data then.
    pruner: Option<Box<Pruner>>,
    /// Bytes of the begun event's complete lines.
    block_bytes: usize,
    has_data: bool,
    /// The begun event is bare JSON.
    is_stray: bool,
    /// Fields of the begun event that came in earlier chunks.
    data: Vec<u8>,
    name: Vec<u8>,
    id: Vec<u8>,
    /// Bytes searched and copied so far: tests hold it against the bytes fed.
    #[cfg(test)]
    pub(super) work: usize,
}

/// The line that the last chunk broke off in.
#[derive(Debug, Default)]
struct Begun {
    /// At least one byte of it came.
    begun: bool,
    comment: bool,
    /// Its bytes; none of a comment, and of an event that is skipped those that tell the field.
    bytes: Vec<u8>,
    /// Of an event that is skipped.
    passed: Passed,
}

/// The field of a line that is not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Passed {
    /// It cannot be told yet.
    #[default]
    Unknown,
    Data,
    Other,
}

/// So many bytes tell whether a line is data, and where that begins.
const DATA: &[u8] = b"data: ";

/// Longer names are not kept of an event that is skipped.
const NAME_MAX: usize = 256;

/// Fields of the begun event that lie in the chunk at hand.
#[derive(Default)]
struct Lent<'c> {
    data: Option<&'c [u8]>,
    name: Option<&'c [u8]>,
}

/// What one line adds to its event.
enum Field<'x> {
    Data(&'x [u8]),
    Name(&'x [u8]),
    Other,
}

impl SseScanner {
    /// Reads the next bytes of the stream and hands every event that ends in them to `found`.
    pub fn feed(&mut self, chunk: &[u8], mut found: impl FnMut(Frame<'_>)) {
        let mut rest = self.pass_bom(chunk);
        let mut lent = Lent::default();
        while let Some(first) = rest.first() {
            if mem::take(&mut self.after_cr) {
                let is_crlf = *first == b'\n';
                self.lone_cr |= !is_crlf;
                if mem::take(&mut self.ends) {
                    self.end_held_event(&mut lent, &mut found);
                }
                if is_crlf {
                    rest = rest.get(1..).unwrap_or_default();
                    continue;
                }
            }
            // Every other line is blank: what it begins with is known.
            let is_blank = matches!(first, b'\n' | b'\r');
            let end = if is_blank { Some(0) } else { memchr2(b'\n', b'\r', rest) };
            let Some((line, tail)) = end.and_then(|at| rest.split_at_checked(at)) else {
                self.count_work(rest.len());
                self.begin_line(rest);
                break;
            };
            self.count_work(line.len() + 1);
            self.after_cr = tail.first() == Some(&b'\r');
            rest = tail.get(1..).unwrap_or_default();
            self.ends = self.after_cr && rest.is_empty() && !self.lone_cr && line.is_empty() && !self.line.begun;
            if !self.ends {
                self.end_line(line, &mut lent, &mut found);
            }
        }
        self.keep(&mut lent);
    }

    /// The stream broke off: an event whose blank line ended in a CR is told, as no LF can follow any more.
    pub fn cut(&mut self, mut found: impl FnMut(Frame<'_>)) {
        if mem::take(&mut self.ends) {
            self.end_held_event(&mut Lent::default(), &mut found);
        }
    }

    /// The stream ended in order: an event whose blank line is missing is told too. The standard drops it, but
    /// llama.cpp's last `[DONE]` comes that way.
    pub fn finish(&mut self, mut found: impl FnMut(Frame<'_>)) {
        self.cut(&mut found);
        let mut lent = Lent::default();
        if self.line.begun {
            self.end_line(&[], &mut lent, &mut found);
        }
        if self.in_block {
            self.end_event(&mut lent, &mut found);
        }
    }

    /// Whether the bytes so far end between two events, where a comment or a whole event may be put in. Before the first
    /// byte it is true; after a CR that may be half of a CRLF it is not.
    pub fn at_boundary(&self) -> bool {
        let past_bom = self.bom == 0 || self.bom == BOM_BYTES;
        past_bom && !self.line.begun && !self.in_block && (!self.after_cr || self.lone_cr)
    }

    /// Drops the byte order mark at the start of the stream, which may come in pieces.
    fn pass_bom<'c>(&mut self, chunk: &'c [u8]) -> &'c [u8] {
        let mut rest = chunk;
        while let (Some(expected), Some((first, tail))) = (BOM.get(usize::from(self.bom)), rest.split_first()) {
            if first != expected {
                let matched = mem::replace(&mut self.bom, BOM_BYTES);
                self.begin_line(BOM.get(..usize::from(matched)).unwrap_or_default());
                break;
            }
            self.bom += 1;
            rest = tail;
        }
        rest
    }

    /// Keeps a piece of a line whose end has not come yet.
    fn begin_line(&mut self, piece: &[u8]) {
        let Some(first) = piece.first() else { return };
        if !mem::replace(&mut self.line.begun, true) {
            self.line.comment = *first == b':';
            self.line.passed = Passed::Unknown;
        }
        if self.line.comment {
            return;
        }
        if self.skipping {
            return self.pass_line(piece);
        }
        if self.block_bytes + self.line.bytes.len() + piece.len() >= EVENT_LIMIT {
            self.skip();
            return self.pass_line(piece);
        }
        self.count_work(piece.len());
        self.line.bytes.extend_from_slice(piece);
    }

    fn end_line<'c>(&mut self, line: &'c [u8], lent: &mut Lent<'c>, found: &mut impl FnMut(Frame<'_>)) {
        if self.line.begun {
            return self.end_begun_line(line);
        }
        if line.is_empty() {
            return self.end_event(lent, found);
        }
        if self.block_bytes + line.len() >= EVENT_LIMIT {
            // What is lent belongs before what is passed over.
            self.keep(lent);
        }
        match self.field(line) {
            Field::Data(value) if !mem::replace(&mut self.has_data, true) => lent.data = Some(value),
            Field::Data(value) => {
                if let Some(first) = lent.data.take() {
                    self.count_work(first.len());
                    self.data.extend_from_slice(first);
                }
                self.join_data(value);
            }
            Field::Name(value) => lent.name = Some(value),
            Field::Other => {}
        }
    }

    /// Ends a line that began in an earlier chunk; no field of the chunk at hand can stand before it.
    fn end_begun_line(&mut self, last: &[u8]) {
        self.begin_line(last);
        self.line.begun = false;
        if mem::take(&mut self.line.comment) {
            return;
        }
        if self.skipping {
            if self.line.passed == Passed::Unknown {
                self.settle_line();
            }
            return;
        }
        let mut bytes = mem::take(&mut self.line.bytes);
        match self.field(&bytes) {
            Field::Data(value) if !mem::replace(&mut self.has_data, true) => {
                self.count_work(value.len());
                self.data.extend_from_slice(value);
            }
            Field::Data(value) => self.join_data(value),
            Field::Name(value) => replace(&mut self.name, value),
            Field::Other => {}
        }
        clear(&mut bytes);
        self.line.bytes = bytes;
    }

    /// Reads one complete line that is not blank.
    fn field<'x>(&mut self, line: &'x [u8]) -> Field<'x> {
        if line.first() == Some(&b':') {
            return Field::Other;
        }
        let is_first = !mem::replace(&mut self.in_block, true);
        self.is_stray |= is_first && line.first() == Some(&b'{');
        self.block_bytes = self.block_bytes.saturating_add(line.len() + 1);
        if self.block_bytes > EVENT_LIMIT {
            self.skip();
        }
        if self.skipping {
            if let Some(value) = value_of(b"data", line) {
                self.pass_data(value);
            }
            return Field::Other;
        }
        if self.is_stray {
            return Field::Data(line);
        }
        if let Some(value) = value_of(b"data", line) {
            return Field::Data(value);
        }
        if let Some(value) = value_of(b"event", line) {
            return Field::Name(value);
        }
        if let Some(value) = value_of(b"id", line).filter(|value| !value.contains(&0)) {
            replace(&mut self.id, value);
        }
        Field::Other
    }

    fn join_data(&mut self, value: &[u8]) {
        self.count_work(value.len());
        self.data.push(b'\n');
        self.data.extend_from_slice(value);
    }

    /// Where the event's last byte came after the rest of it.
    #[cold]
    #[inline(never)]
    fn end_held_event<'c>(&mut self, lent: &mut Lent<'c>, found: &mut impl FnMut(Frame<'_>)) {
        self.end_event(lent, found);
    }

    #[inline(always)]
    fn end_event<'c>(&mut self, lent: &mut Lent<'c>, found: &mut impl FnMut(Frame<'_>)) {
        let (data, name) = (lent.data.take(), lent.name.take());
        if mem::take(&mut self.skipping) {
            let pruner = self.pruner.take();
            let data = pruner.as_ref().filter(|_| !self.is_stray).and_then(|pruner| pruner.skeleton());
            found(
                data.map_or(Frame::Oversized, |data| Frame::Skeleton(Event { name: &self.name, data, id: &self.id })),
            );
        } else if self.has_data {
            let (name, data) = (name.unwrap_or(&self.name), data.unwrap_or(&self.data));
            let event = Event { name, data, id: &self.id };
            found(if self.is_stray { Frame::Stray(data) } else { Frame::Event(event) });
        } else if let Some(name) = Some(name.unwrap_or(&self.name)).filter(|name| !name.is_empty()) {
            found(Frame::Named(name));
        }
        self.in_block = false;
        self.has_data = false;
        self.is_stray = false;
        self.block_bytes = 0;
        clear(&mut self.data);
        clear(&mut self.name);
    }

    /// Copies what the begun event has in the chunk that goes away now.
    fn keep(&mut self, lent: &mut Lent<'_>) {
        if self.skipping {
            return;
        }
        if let Some(data) = lent.data.take() {
            self.count_work(data.len());
            self.data.extend_from_slice(data);
        }
        if let Some(name) = lent.name.take() {
            replace(&mut self.name, name);
        }
    }

    /// The begun event is over the limit: from now on only the skeleton of its data is kept.
    fn skip(&mut self) {
        self.skipping = true;
        self.in_block = true;
        self.line.passed = Passed::Unknown;
        if self.name.len() > NAME_MAX {
            self.name = Vec::new();
        }
        let (data, begun) = (mem::take(&mut self.data), mem::take(&mut self.line.bytes));
        self.pruner.get_or_insert_default().feed(&data);
        if !self.line.comment {
            self.pass_line(&begun);
        }
    }

    /// Goes on with a line of an event that is skipped.
    fn pass_line(&mut self, piece: &[u8]) {
        let mut rest = piece;
        if self.line.passed == Passed::Unknown {
            let missing = DATA.len().saturating_sub(self.line.bytes.len());
            let (head, tail) = piece.split_at_checked(missing).unwrap_or((piece, &[]));
            self.line.bytes.extend_from_slice(head);
            if head.len() < missing {
                return;
            }
            self.settle_line();
            rest = tail;
        }
        if let (Passed::Data, Some(pruner)) = (self.line.passed, &mut self.pruner) {
            pruner.feed(rest);
        }
    }

    /// Tells what a line is that is passed over, by the bytes kept of it.
    fn settle_line(&mut self) {
        let bytes = mem::take(&mut self.line.bytes);
        self.line.passed = Passed::Other;
        if let Some(value) = value_of(b"data", &bytes) {
            self.line.passed = Passed::Data;
            self.pass_data(value);
        }
    }

    /// Begins a line of data of an event that is skipped.
    fn pass_data(&mut self, value: &[u8]) {
        let joins = mem::replace(&mut self.has_data, true);
        if let Some(pruner) = &mut self.pruner {
            pruner.feed(if joins { b"\n" } else { b"" });
            pruner.feed(value);
        }
    }

    #[cfg(test)]
    fn count_work(&mut self, bytes: usize) {
        self.work += bytes;
    }

    #[cfg(not(test))]
    #[inline(always)]
    fn count_work(&mut self, _: usize) {}
}

/// The value that a line gives to the field `name`: what follows its colon, less one space; empty where the line is the name
/// alone. `None` where it is another field's.
#[inline(always)]
fn value_of<'x>(name: &[u8], line: &'x [u8]) -> Option<&'x [u8]> {
    match line.strip_prefix(name)? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

fn replace(buffer: &mut Vec<u8>, value: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(value);
}

/// Empties a buffer, and gives its memory back where one event made it large.
pub(super) fn clear(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEPT_CAPACITY {
        *buffer = Vec::new();
    }
    buffer.clear();
}

#[cfg(test)]
mod tests;
