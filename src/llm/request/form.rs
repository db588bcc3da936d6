//! Requests in forms: uploads of sound and pictures (`multipart/form-data`), and plain fields
//! (`application/x-www-form-urlencoded`).

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use super::parameters::parameters;
use crate::llm::splice::spliced;

/// More fields nobody means to send.
const FIELDS_MAX: usize = 1_000;

/// RFC 2046: no boundary is longer.
const BOUNDARY_MAX: usize = 70;

/// How a form is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormKind {
    UrlEncoded,
    /// With what stands between its parts, without the two hyphens.
    Multipart(Box<[u8]>),
}

/// A form that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form<'a> {
    pub fields: Vec<Field<'a>>,
    /// Files that it uploads.
    pub files: u64,
    /// Names of fields that some readers see in the values of others.
    pub doubtful: Vec<String>,
}

/// A field that holds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: Cow<'a, str>,
    pub value: Cow<'a, [u8]>,
    /// Where the value stands in the body, as it is written there.
    place: Range<usize>,
}

impl FormKind {
    /// The form that a `Content-Type` announces; `None`: none, or one whose parts cannot be told apart.
    #[must_use]
    pub fn of_label(label: &str) -> Option<Self> {
        let (essence, labels) = label.split_once(';').unwrap_or((label, ""));
        let essence = essence.trim();
        if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Some(Self::UrlEncoded);
        }
        if !essence.eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        // Some readers take `boundary*` and `boundary*0` for it, too.
        let found = parameters(labels)?;
        let mut boundaries = found.iter().filter(|(name, _)| name.starts_with("boundary"));
        let (name, boundary) = boundaries.next()?;
        let fits = name == "boundary" && (1..=BOUNDARY_MAX).contains(&boundary.len()) && boundaries.next().is_none();
        fits.then(|| Self::Multipart(boundary.as_bytes().into()))
    }

    /// Reads a form. `None`: it is broken, or of a kind that two readers could take for two things.
    #[must_use]
    pub fn read<'a>(&self, body: &'a [u8]) -> Option<Form<'a>> {
        match self {
            Self::UrlEncoded => url_encoded(body),
            Self::Multipart(boundary) => multipart(body, boundary),
        }
    }

    /// `body` with `model` in place of the model that it names; every other byte stays. `None`: it names none.
    #[must_use]
    pub fn with_model(&self, body: &[u8], model: &str) -> Option<Bytes> {
        let form = self.read(body)?;
        let name = match self {
            Self::UrlEncoded => utf8_percent_encode(model, &RESERVED).to_string().into_bytes(),
            Self::Multipart(_) => model.as_bytes().to_vec(),
        };
        let mut places = form.fields.iter().filter(|field| field.name == "model").map(|field| &field.place).peekable();
        places.peek()?;
        spliced(body, places.map(|place| (place.clone(), &name)))
    }
}

impl Form<'_> {
    /// Bytes of all values that are no files.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        self.fields.iter().map(|field| field.value.len() as u64).sum()
    }
}

fn url_encoded(body: &[u8]) -> Option<Form<'_>> {
    let (mut fields, mut doubtful, mut at) = (Vec::new(), Vec::new(), 0);
    for pair in body.split(|byte| *byte == b'&') {
        let start = at;
        at += pair.len() + 1;
        if pair.is_empty() {
            continue;
        }
        let equals = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let value = pair.get(equals + 1..).unwrap_or_default();
        let value_at = start + (equals + 1).min(pair.len());
        // Older readers begin a field at a semicolon, too.
        doubtful.extend(pair.split(|byte| *byte == b';').skip(1).map(name_of));
        let name = name_of(pair);
        fields.push(Field {
            name: Cow::Owned(name),
            value: url_decoded(value),
            place: value_at..value_at + value.len(),
        });
        if fields.len() + doubtful.len() > FIELDS_MAX {
            return None;
        }
    }
    Some(Form { fields, files: 0, doubtful })
}

fn name_of(pair: &[u8]) -> String {
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
    String::from_utf8_lossy(&url_decoded(name)).into_owned()
}

/// Decodes a name or value of the URL encoding.
fn url_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'+', text).is_none() {
        return percent_decode(text).into();
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// What need not be encoded anywhere.
pub(super) const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn multipart<'a>(body: &'a [u8], boundary: &[u8]) -> Option<Form<'a>> {
    let mark = [b"--", boundary].concat();
    let mark = memmem::Finder::new(&mark);
    let mark_len = boundary.len() + 2;
    // What stands before the first mark is for nobody.
    let mut at = mark.find(body)?;
    if !begins_line(body, at) {
        return None;
    }
    let mut form = Form { fields: Vec::new(), files: 0, doubtful: Vec::new() };
    loop {
        at += mark_len;
        if body.get(at..)?.starts_with(b"--") {
            return Some(form);
        }
        let (mut end, mut doubt) = (at + mark.find(body.get(at..)?)?, None);
        while !is_mark(body, end, mark_len)? {
            doubt.get_or_insert(end);
            end += mark_len;
            end += mark.find(body.get(end..)?)?;
        }
        part(body, at..end, doubt, &mut form)?;
        if form.fields.len() > FIELDS_MAX || form.files > FIELDS_MAX as u64 {
            return None;
        }
        at = end;
    }
}

fn begins_line(body: &[u8], at: usize) -> bool {
    at.checked_sub(1).and_then(|before| body.get(before)).is_none_or(|before| *before == b'\n')
}

/// Whether what looks like a mark is one: at the beginning of a line, with nothing behind it there. python-multipart and Go take
/// all else for data; busboy lets a part end where more stands behind it, and throws away what follows; Django takes one
/// inside a line for a mark. `None`: the form may be over there for some readers.
fn is_mark(body: &[u8], at: usize, mark_len: usize) -> Option<bool> {
    let behind = body.get(at + mark_len..)?;
    match (begins_line(body, at), behind.starts_with(b"--")) {
        (false, true) => None,
        (begins, ends) => Some(begins && (ends || behind.first().is_none_or(u8::is_ascii_whitespace))),
    }
}

/// Whether a part could begin in there, to any reader.
fn has_disposition(data: &[u8]) -> bool {
    const NAME: &[u8] = b"content-disposition";
    let mut starts = memchr::memchr2_iter(b'c', b'C', data);
    starts.any(|at| data.get(at..at + NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))
}

/// Reads the part that stands at `place`, from behind one mark to the next. `doubt`: the first place in it that is a mark to some
/// readers only; a file may hold it by chance, but no value, and nothing that some would read as a part.
fn part<'a>(body: &'a [u8], place: Range<usize>, doubt: Option<usize>, form: &mut Form<'a>) -> Option<()> {
    let text = body.get(place.clone())?;
    let (padding, _) = text.split_at(memchr::memchr(b'\n', text)? + 1);
    if !padding.iter().all(u8::is_ascii_whitespace) {
        return None;
    }
    let mut disposition = None;
    let mut at = padding.len();
    loop {
        let rest = text.get(at..)?;
        let line = rest.get(..memchr::memchr(b'\n', rest)?)?;
        at += line.len() + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        if name.trim().eq_ignore_ascii_case("content-disposition")
            && disposition.replace(Disposition::read(value)?).is_some()
        {
            return None;
        }
        // Some readers decode what this header names, others do not.
        let is_plain = |value: &str| matches!(&*value.trim().to_ascii_lowercase(), "7bit" | "8bit" | "binary");
        if name.trim().eq_ignore_ascii_case("content-transfer-encoding") && !is_plain(value) {
            return None;
        }
    }
    let value = text.get(at..)?.strip_suffix(b"\n")?;
    let value = value.strip_suffix(b"\r").unwrap_or(value);
    let Disposition { name, is_file, is_value } = disposition?;
    form.files += u64::from(is_file);
    let start = place.start + at;
    if let Some(doubt) = doubt
        && (is_value || doubt < start || has_disposition(body.get(doubt..place.end)?))
    {
        return None;
    }
    if !is_value {
        return Some(());
    }
    form.fields.push(Field { name: Cow::Owned(name), value: Cow::Borrowed(value), place: start..start + value.len() });
    Some(())
}

/// What a part is.
struct Disposition {
    name: String,
    is_file: bool,
    /// Also of a file without a name, or with one that only some readers understand: to others it is a value.
    is_value: bool,
}

impl Disposition {
    /// Reads `form-data; name="model"`. `None`: it is none, or is written so that readers differ: names twice, extended
    /// (`name*`), in pieces (`name*0`), or with escapes.
    fn read(text: &str) -> Option<Self> {
        let mut rest = text.trim_start().strip_prefix("form-data").or_else(|| {
            let start = text.trim_start();
            start.get(..9).filter(|word| word.eq_ignore_ascii_case("form-data")).and(start.get(9..))
        })?;
        let (mut name, mut is_file, mut is_value) = (None, false, true);
        loop {
            rest = rest.trim_start();
            let Some(parameter) = rest.strip_prefix(';') else { break };
            let Some((key, after)) = parameter.split_once('=') else { break };
            let (value, after) = match after.trim_start().strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_at(after.find(';').unwrap_or(after.len())),
            };
            match &*key.trim().to_ascii_lowercase() {
                "name" if value.contains('\\') || name.replace(value.trim().to_owned()).is_some() => return None,
                extended if extended.starts_with("name*") => return None,
                "filename" => (is_file, is_value) = (true, is_file && is_value || value.trim().is_empty()),
                extended if extended.starts_with("filename*") => (is_file, is_value) = (true, true),
                _ => {}
            }
            rest = after;
        }
        rest.trim().is_empty().then_some(())?;
        Some(Self { name: name?, is_file, is_value })
    }
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
