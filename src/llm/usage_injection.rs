//! Asks an OpenAI-shaped stream for its usage if the client did not: inserts `stream_options` into the request, and
//! removes the resulting chunk from the answer. All other bytes are unchanged.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use memchr::{memchr2, memmem};
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;

use super::json::{Filled, Flag, Loose, Maybe, Word, loose, read_object};
use super::splice::spliced;
use super::sse::{Frame, SseScanner};

const OPTIONS: &str = r#""stream_options":{"include_usage":true}"#;
const WISH: &str = r#""include_usage":true"#;

/// `body` with the wish for a usage chunk. `None`: the client asks for one itself, or this is no object that could.
///
/// Of a key that comes twice each value is edited: backends differ in which of them they believe.
pub fn with_usage(body: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(body).ok()?;
    let members = members(text)?;
    let mut edits = Vec::new();
    for (_, value) in members.iter().filter(|(key, _)| key.is("stream_options")) {
        edits.extend(edits_of(text, value)?);
    }
    if edits.is_empty() {
        edits.push(insertion(text, 0..text.len(), OPTIONS)?);
    }
    spliced(body, edits.iter().map(|(place, edit)| (place.clone(), edit.as_bytes())))
}

/// Whether the client asks llama.cpp for its times on every chunk: then those in the usage chunk are its too.
pub fn wants_timings(body: &[u8]) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Request {
        timings_per_token: Flag,
    }
    read_object::<Request>(body).is_some_and(|request| request.timings_per_token.0 == Some(true))
}

/// Whether an answer in one piece says that something went wrong, under whatever status.
pub fn is_error(json: &[u8]) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Answer {
        error: Filled,
    }
    read_object::<Answer>(json).is_some_and(|answer| answer.error.0)
}

/// What to put where.
type Edit = (Range<usize>, Cow<'static, str>);

/// What makes existing options ask; `None`: they do already, or are of no known kind.
fn edits_of(text: &str, options: &RawValue) -> Option<Vec<Edit>> {
    let place = place(text, options);
    if options.get() == "null" {
        return Some(vec![(place, "{\"include_usage\":true}".into())]);
    }
    let members = members(options.get())?;
    let wishes: Vec<_> = members.iter().filter(|(key, _)| key.is("include_usage")).map(|(_, value)| value).collect();
    if wishes.is_empty() {
        return Some(vec![insertion(text, place, WISH)?]);
    }
    if !wishes.iter().all(|wish| matches!(wish.get(), "false" | "null")) {
        return None;
    }
    Some(wishes.into_iter().map(|wish| (self::place(text, wish), "true".into())).collect())
}

/// Puts a member in front of those of the object at `place`.
fn insertion(text: &str, place: Range<usize>, member: &'static str) -> Option<Edit> {
    let object = text.get(place.clone())?;
    let inside = object.find('{')? + 1;
    let is_empty = object.get(inside..)?.trim_start().starts_with('}');
    let at = place.start + inside;
    Some((at..at, if is_empty { member.into() } else { format!("{member},").into() }))
}

/// Where a value stands in the text that it was read from.
fn place(text: &str, value: &RawValue) -> Range<usize> {
    let start = (value.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    start..start + value.get().len()
}

/// All members of an object, also those that come again.
#[derive(Default)]
struct Members<'a>(Vec<(Word<'a>, &'a RawValue)>);

impl<'de: 'a, 'a> Loose<'de> for Members<'a> {
    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = fields.next_entry()? {
            members.push(member);
        }
        Ok(Self(members))
    }
}

loose!(Members<'a>);

fn members(object: &str) -> Option<Vec<(Word<'_>, &RawValue)>> {
    let Maybe(members) = serde_json::from_str::<Maybe<Members<'_>>>(object).ok()?;
    Some(members?.0)
}

/// Most bytes of an event that are held until it is whole. A usage chunk is far smaller: what is larger passes.
const HELD_MAX: usize = 64 << 10;

/// Takes usage chunks out of an event stream. Whole events pass as slices of what came; of an incomplete one the bytes
/// so far are held, at most 64 KiB.
#[derive(Debug, Default)]
pub struct UsageFilter {
    /// A usage chunk with llama.cpp's times is the client's.
    leaves_timings: bool,
    /// Pieces of the begun event.
    held: Vec<Bytes>,
    held_bytes: usize,
    /// The begun event is too long to be held.
    passing: bool,
    line_begun: bool,
    after_cr: bool,
    /// The event before was taken out: a LF that still belongs to it goes too.
    took_last: bool,
    /// Bytes taken out so far.
    taken: u64,
}

impl UsageFilter {
    /// A filter that leaves usage chunks with llama.cpp's `timings` in the answer if the client asked for them.
    pub fn new(leaves_timings: bool) -> Self {
        Self { leaves_timings, ..Self::default() }
    }

    /// Takes the next bytes of the stream; puts what the client gets of them into `out`. Of events that end in them
    /// `only_tokens` says that none is a usage chunk.
    pub fn pass(&mut self, chunk: Bytes, only_tokens: bool, out: &mut Vec<Bytes>) {
        if only_tokens && self.is_at_rest() && (chunk.ends_with(b"\n\n") || chunk.ends_with(b"\r\n\r\n")) {
            // Whole events, as nearly every chunk is.
            self.took_last = false;
            return out.push(chunk);
        }
        // Where the begun event starts, and where the run of events that pass does.
        let (mut start, mut run) = (0, 0);
        let mut at = 0;
        if std::mem::take(&mut self.after_cr) && chunk.first() == Some(&b'\n') {
            // The second half of a CRLF: no line of its own.
            at = 1;
            if self.held.is_empty() && !self.passing {
                start = 1;
                run = usize::from(self.took_last);
                self.taken += u64::from(self.took_last);
            }
        }
        while let Some(end) = memchr2(b'\n', b'\r', chunk.get(at..).unwrap_or_default()).map(|found| at + found) {
            let is_blank = end == at && !self.line_begun;
            self.line_begun = false;
            let is_cr = chunk.get(end) == Some(&b'\r');
            let is_crlf = is_cr && chunk.get(end + 1) == Some(&b'\n');
            self.after_cr = is_cr && end + 1 == chunk.len();
            at = end + 1 + usize::from(is_crlf);
            if is_blank {
                self.end_event(&chunk, start..at, &mut run, out);
                start = at;
            }
        }
        self.line_begun |= at < chunk.len();
        if run == 0 && start == chunk.len() {
            // Whole events: they pass as they came.
            return push(out, chunk);
        }
        push(out, chunk.slice(run..start));
        self.hold(chunk.slice(start..), out);
    }

    /// Between two events, with nothing of the last line end to come.
    fn is_at_rest(&self) -> bool {
        self.held.is_empty() && !self.passing && !self.line_begun && !self.after_cr
    }

    /// The stream ended: buffered bytes are passed on, unless they are a usage chunk without its blank line.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) {
        if self.is_usage_chunk(&self.held.concat()) {
            self.taken += self.held_bytes as u64;
            self.held.clear();
        }
        out.append(&mut self.held);
    }

    /// Bytes taken out so far.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    fn end_event(&mut self, chunk: &Bytes, place: Range<usize>, run: &mut usize, out: &mut Vec<Bytes>) {
        self.took_last = false;
        if std::mem::take(&mut self.passing) {
            return;
        }
        let last = chunk.get(place.clone()).unwrap_or_default();
        let is_usage = match self.held.as_slice() {
            [] => self.is_usage_chunk(last),
            pieces => self.is_usage_chunk(&[&pieces.concat(), last].concat()),
        };
        if is_usage {
            push(out, chunk.slice(*run..place.start));
            *run = place.end;
            self.taken += (self.held_bytes + last.len()) as u64;
            self.held.clear();
            self.took_last = true;
        }
        out.append(&mut self.held);
        self.held_bytes = 0;
    }

    /// Whether an event is the chunk that was asked for: usage, and choices that say nothing.
    fn is_usage_chunk(&self, event: &[u8]) -> bool {
        // Most events have no such word, and need not be parsed.
        static WORD: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"usage\""));
        if WORD.find(event).is_none() {
            return false;
        }
        let mut found = false;
        let mut look = |frame: Frame<'_>| {
            if let Frame::Event(event) = frame {
                let chunk = read_object::<Chunk>(event.data);
                found = chunk.is_some_and(|chunk| chunk.has_usage_alone() && !(self.leaves_timings && chunk.timings.0));
            }
        };
        let mut scanner = SseScanner::default();
        scanner.feed(event, &mut look);
        scanner.finish(&mut look);
        found
    }

    fn hold(&mut self, rest: Bytes, out: &mut Vec<Bytes>) {
        if rest.is_empty() {
            return;
        }
        self.held_bytes += rest.len();
        self.held.push(rest);
        if self.passing || self.held_bytes > HELD_MAX {
            self.passing = true;
            out.append(&mut self.held);
            self.held_bytes = 0;
        }
    }
}

fn push(out: &mut Vec<Bytes>, piece: Bytes) {
    if !piece.is_empty() {
        out.push(piece);
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Chunk {
    choices: Choices,
    usage: Maybe<Numbers>,
    timings: Filled,
}

#[derive(Deserialize)]
struct Numbers {}

/// Whether there is a list of choices, and nothing in it; of LiteLLM one of choices that begin nothing and end nothing.
#[derive(Default)]
struct Choices {
    say_nothing: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Choice<'a> {
    delta: Empty,
    text: Filled,
    #[serde(borrow)]
    finish_reason: Word<'a>,
}

/// Whether there is an object with nothing but nulls and empty texts in it.
#[derive(Default)]
struct Empty(bool);

impl Chunk {
    fn has_usage_alone(&self) -> bool {
        self.choices.say_nothing && self.usage.0.as_ref().is_some_and(|Numbers {}| true)
    }
}

impl<'de> Loose<'de> for Choices {
    fn array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        let mut say_nothing = true;
        while let Some(item) = items.next_element::<Maybe<Choice<'_>>>()? {
            let silent =
                |choice: &Choice<'_>| choice.delta.0 && !choice.text.0 && choice.finish_reason.filled().is_none();
            say_nothing &= item.0.as_ref().is_some_and(silent);
        }
        Ok(Self { say_nothing })
    }
}

impl<'de> Loose<'de> for Empty {
    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let mut empty = true;
        while let Some((_, value)) = fields.next_entry::<IgnoredAny, Filled>()? {
            empty &= !value.0;
        }
        Ok(Self(empty))
    }
}

loose!(Choices, Empty);

#[cfg(test)]
#[path = "usage_injection_tests.rs"]
mod tests;
