//! Text → the file's types, with every misfit found. Serde stops at the first, so each is recorded, cut out of the
//! parsed document, and the rest is read again.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::problems::{Gathered, hint, nearest};

/// What was written and could not be read.
#[derive(Default)]
pub(super) struct Lost(Vec<LostEntry>);

/// What was cut out.
struct LostEntry {
    /// Where its table's header starts; [`ROOT`] for the file itself.
    table: usize,
    /// The key that was meant; `None` where that is not known.
    key: Option<String>,
    /// The value, where it is a text. It may be a secret.
    text: Option<String>,
}

/// Stands for the file itself where the starts of tables are listed.
const ROOT: usize = usize::MAX;

impl Lost {
    /// Whether a key of the table with this header was written and refused: that it is missing is not worth a second
    /// problem.
    pub(super) fn is_lost(&self, table: &Range<usize>, key: &str) -> bool {
        self.lost_of(table).any(|lost| lost.key.as_deref() == Some(key))
    }

    /// Whether one of these keys may have been written in the table with this header, and refused: also under a name that
    /// nobody knows.
    pub(super) fn may_have_lost(&self, table: &Range<usize>, keys: &[&str]) -> bool {
        self.lost_of(table).any(|lost| lost.key.as_deref().is_none_or(|key| keys.contains(&key)))
    }

    /// Whether the table with this header may be what is called `name`, where `written` is the name that could be read.
    pub(super) fn may_be_called(&self, table: &Range<usize>, written: Option<&str>, name: &str) -> bool {
        let reads = |text: &str| text.trim() == name;
        match written {
            Some(written) => reads(written),
            None => self.lost_of(table).any(|lost| match &lost.text {
                Some(text) => reads(text),
                None => lost.key.as_deref() == Some("name"),
            }),
        }
    }

    /// The texts that were refused in the table with this header; `None` where one of `keys` was no text.
    pub(super) fn lost_texts(&self, table: &Range<usize>, keys: &[&str]) -> Option<Vec<&str>> {
        let is_of_keys = |lost: &&LostEntry| lost.key.as_deref().is_some_and(|key| keys.contains(&key));
        if self.lost_of(table).filter(is_of_keys).any(|lost| lost.text.is_none()) {
            return None;
        }
        Some(self.lost_of(table).filter_map(|lost| lost.text.as_deref()).collect())
    }

    fn lost_of(&self, table: &Range<usize>) -> impl Iterator<Item = &LostEntry> {
        let start = table.start;
        self.0.iter().filter(move |lost| lost.table == start)
    }

    /// Whether a table of this name, at the top level of the file, was written and refused.
    pub(super) fn is_table_lost(&self, name: &str) -> bool {
        self.0.iter().any(|lost| lost.table == ROOT && lost.key.as_deref() == Some(name))
    }
}

/// Reads what can be read; `None` where the text is no TOML at all. Problems go to `problems`. `one` and `several` are the
/// names of the tables of which there may be one, and several.
pub(super) fn read<T: DeserializeOwned>(
    text: &str,
    one: &[&str],
    several: &[&str],
    problems: &mut Gathered,
) -> Option<(T, Lost)> {
    if text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}').is_empty() {
        problems.push(
            0,
            "the file is empty: at the least say where the backend is, with [[upstream]] and its url".to_owned(),
        );
        return None;
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        syntax_problems(text, &errors, problems);
        return None;
    }
    let root_span = document.span();
    let mut root = document.into_inner();
    let mut lost = Vec::new();
    mend_brackets(&mut root, one, several, &mut lost, problems);
    while !problems.is_full() {
        let document = Spanned::new(root_span.clone(), root.clone());
        match T::deserialize(toml::de::Deserializer::from(document)) {
            Ok(file) => return Some((file, Lost(lost))),
            Err(error) => {
                let span = error.span().unwrap_or_default();
                let Some(cut) = cut(&mut root, &span, ROOT) else {
                    problems.push(span.start, error.message().to_owned());
                    return None;
                };
                let (message, meant) = describe(&cut, error.message());
                problems.push(span.start, message);
                lost.push(LostEntry { table: cut.table, key: meant, text: cut.text });
            }
        }
    }
    None
}

/// Where the value of `key` stands, in the table with this header.
pub(super) fn value_span(text: &str, header: &Range<usize>, key: &str) -> Option<Range<usize>> {
    fn within(value: &Spanned<DeValue<'_>>, header: &Range<usize>, key: &str) -> Option<Range<usize>> {
        match value.get_ref() {
            DeValue::Table(table) if value.span() == *header => table.get(key).map(Spanned::span),
            DeValue::Table(table) => table.values().find_map(|inner| within(inner, header, key)),
            DeValue::Array(list) => list.iter().find_map(|inner| within(inner, header, key)),
            _ => None,
        }
    }
    DeTable::parse(text).ok()?.get_ref().values().find_map(|value| within(value, header, key))
}

/// One problem a line: a missing quote or bracket makes the parser stumble over everything after it.
fn syntax_problems(text: &str, errors: &[toml::de::Error], problems: &mut Gathered) {
    let mut found: Vec<(usize, &str)> =
        errors.iter().map(|e| (e.span().map_or(0, |span| span.start), e.message())).collect();
    found.sort_by_key(|(offset, _)| *offset);
    let line_of = |offset: usize| text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count();
    let mut last_line = None;
    for (offset, message) in found.into_iter().take(20) {
        let line = line_of(offset);
        if last_line == Some(line) {
            continue;
        }
        last_line = Some(line);
        let words = match message {
            m if m.starts_with("invalid boolean") => "a text must stand in quotes (or write true or false)",
            m if m.starts_with("duplicate key") => "written twice: keep one of the two",
            m if m.starts_with("invalid basic string") => "the text's closing quote is missing",
            m => m,
        };
        problems.push(offset, format!("not TOML: {words}"));
    }
}

/// The most usual slip: `[upstream]` for `[[upstream]]`, and the other way round. What is meant is clear, and is read on,
/// unless it stands several times.
fn mend_brackets(
    root: &mut DeTable<'_>,
    one: &[&str],
    several: &[&str],
    lost: &mut Vec<LostEntry>,
    problems: &mut Gathered,
) {
    let mut unclear = Vec::new();
    for (key, value) in root.iter_mut() {
        let name = key.get_ref().as_ref();
        let message = match (name, value.get_ref()) {
            (name, DeValue::Table(_)) if several.contains(&name) => {
                format!("[{name}] must be [[{name}]], with two brackets: there may be several")
            }
            (name, DeValue::Array(_)) if one.contains(&name) => {
                format!("[[{name}]] must be [{name}], with one bracket: there is only one")
            }
            _ => continue,
        };
        let span = value.span();
        problems.push(span.start, message);
        let written = std::mem::replace(value.get_mut(), DeValue::Boolean(false));
        *value = match written {
            DeValue::Array(list) => match <[_; 1]>::try_from(list.into_iter().collect::<Vec<_>>()) {
                Ok([only]) if matches!(only.get_ref(), DeValue::Table(_)) => only,
                _ => {
                    unclear.push(name.to_owned());
                    continue;
                }
            },
            table => Spanned::new(span.clone(), DeValue::Array(std::iter::once(Spanned::new(span, table)).collect())),
        };
    }
    for name in unclear {
        root.remove(name.as_str());
        lost.push(LostEntry { table: ROOT, key: Some(name), text: None });
    }
}

/// What was cut out.
struct Cut {
    key: String,
    /// The key itself was refused, not its value.
    is_key: bool,
    is_date: bool,
    /// The value, where it is a text.
    text: Option<String>,
    /// Where the header starts of the table that it was cut out of.
    table: usize,
}

/// Cuts out the innermost entry whose key or value stands at `at`. `start` is where the table's header stands.
fn cut(table: &mut DeTable<'_>, at: &Range<usize>, start: usize) -> Option<Cut> {
    let mut found = None;
    for (key, value) in table.iter_mut() {
        let is_key = key.span() == *at;
        let value_start = value.span().start;
        let inner = match value.get_mut() {
            _ if is_key => None,
            DeValue::Table(inner) => cut(inner, at, value_start),
            DeValue::Array(list) => cut_element(list, at, key.get_ref(), start),
            _ => None,
        };
        if inner.is_some() {
            return inner;
        }
        if is_key || value.span() == *at {
            let is_date = matches!(value.get_ref(), DeValue::Datetime(_));
            let text = text_of(value.get_ref());
            found = Some(Cut { key: key.get_ref().to_string(), is_key, is_date, text, table: start });
            break;
        }
    }
    if let Some(cut) = &found {
        table.remove(cut.key.as_str());
    }
    found
}

/// Cuts inside a list, or an element of it. `key` is what the list is called, `table` the start of the table it is in.
fn cut_element(list: &mut DeArray<'_>, at: &Range<usize>, key: &str, table: usize) -> Option<Cut> {
    for value in list.iter_mut() {
        let start = value.span().start;
        let inner = match value.get_mut() {
            DeValue::Table(inner) => cut(inner, at, start),
            DeValue::Array(inner) => cut_element(inner, at, key, table),
            _ => None,
        };
        if inner.is_some() {
            return inner;
        }
    }
    let element = list.iter().find(|value| value.span() == *at)?;
    let (is_date, text) = (matches!(element.get_ref(), DeValue::Datetime(_)), text_of(element.get_ref()));
    *list = std::mem::replace(list, DeArray::new()).into_iter().filter(|value| value.span() != *at).collect();
    Some(Cut { key: key.to_owned(), is_key: false, is_date, text, table })
}

fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        _ => None,
    }
}

/// Serde's words → ours, and the key that was meant, where that is known.
fn describe(cut: &Cut, message: &str) -> (String, Option<String>) {
    let key = &cut.key;
    if cut.is_key {
        return unknown_key(key, message);
    }
    let words = if cut.is_date { "a date has no place here".to_owned() } else { wrong_value(message) };
    (format!("`{key}`: {words}"), Some(key.clone()))
}

fn wrong_value(message: &str) -> String {
    let expectation = |start: &str| message.strip_prefix(start).and_then(|rest| rest.split_once(", expected "));
    if let Some((found, expected)) = expectation("invalid type: ") {
        return format!("expected {}, found {}", plain_type(expected), plain_found(found));
    }
    if let Some((found, expected)) = expectation("invalid value: ") {
        return format!("{} is out of bounds, expected {}", plain_found(found), plain_type(expected));
    }
    if let Some((word, known)) = unknown(message, "unknown variant `") {
        return format!("unknown word \"{word}\": {}", hint(&word, known.iter().map(String::as_str)));
    }
    if message.starts_with("wanted ") {
        return "expected a text in quotes".to_owned();
    }
    message.to_owned()
}

fn unknown_key(key: &str, message: &str) -> (String, Option<String>) {
    let known = unknown(message, "unknown field `").map(|(_, known)| known).unwrap_or_default();
    match nearest(key, known.iter().map(String::as_str)) {
        Some(near) => (format!("unknown key `{key}`: did you mean `{near}`?"), Some(near.to_owned())),
        None => (format!("unknown key `{key}`: known here are {}", known.join(", ")), None),
    }
}

/// Takes serde's "unknown … `x`, expected one of `a`, `b`" apart.
fn unknown(message: &str, start: &str) -> Option<(String, Vec<String>)> {
    let (word, expected) = message.strip_prefix(start)?.rsplit_once("`, expected ")?;
    let known = expected.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((word.to_owned(), known))
}

/// What was found, without the text of texts: it may be a secret.
fn plain_found(found: &str) -> String {
    match found.split_once(' ') {
        _ if found == "map" => "a table".to_owned(),
        _ if found == "sequence" => "a list".to_owned(),
        Some(("string", _)) => "a text".to_owned(),
        Some((_, value)) if found.starts_with("integer") || found.starts_with("boolean") => value.replace('`', ""),
        Some((_, value)) if found.starts_with("floating point") => value.replace("point ", "").replace('`', ""),
        _ => found.to_owned(),
    }
}

fn plain_type(expected: &str) -> &str {
    match expected {
        "a string" => "a text in quotes",
        "a sequence" => "a list, as [\"a\", \"b\"]",
        "a map" => "a table, as { key = \"value\" }",
        "a boolean" => "true or false",
        "u32" => "a whole number from 0 to 4294967295",
        "f64" => "a number",
        other => other,
    }
}
