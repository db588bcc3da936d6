//! What an event of a shape that no rule knows seems to say: text under the usual keys counts, events that only begin,
//! end or report something do not.

use std::cell::Cell;

use serde::Deserialize;
use serde::de::MapAccess;
use serde_json::Value;

use crate::llm::Usage;
use crate::llm::dialect::counts::Counts;
use crate::llm::json::{Loose, Word, loose};
use crate::llm::reading::Produced;
use crate::llm::sse::Event;
use crate::llm::walk_texts::{Role, Sink, walk};

/// Texts further down are not looked for.
const DEPTH_MAX: usize = 5;

/// Bytes of a word or key that are kept to say why.
const WORD_MAX: usize = 64;

/// What an event seems to be.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Guess {
    pub(super) produced: Produced,
    pub(super) usage: Option<Usage>,
    /// The key whose one text is all that the event told.
    pub(super) text_key: Option<&'static str>,
}

/// Guesses what `event` says; its text is put behind `said` where that is gathered.
pub(super) fn guess(event: Event<'_>, said: Option<&mut String>) -> Guess {
    if is_ping(event.name) || event.data.is_empty() {
        return Guess::default();
    }
    let report = std::str::from_utf8(event.name).ok().and_then(report_of);
    let data = event.data.trim_ascii();
    let mut found = Found { said: String::new(), texts: 0, key: Cell::default(), report };
    let is_json = match data {
        [b'{', ..] => walk(data, Role::Through, &mut found),
        [b'"' | b'[', ..] => walk(data, Role::Text, &mut found),
        _ => false,
    };
    match data {
        [b'{' | b'[', ..] if is_json || !found.said.is_empty() => found.into_guess(data, said),
        [b'{' | b'[', ..] => Guess { produced: found.report.unwrap_or(Produced::Unknown), ..Guess::default() },
        _ if is_json => found.into_guess(data, said),
        _ => text_as_a_whole(report, event.data, said),
    }
}

fn text_as_a_whole(report: Option<Produced>, data: &[u8], said: Option<&mut String>) -> Guess {
    if let (Some(said), None) = (said, report) {
        said.push_str(&String::from_utf8_lossy(data));
    }
    Guess { produced: report.unwrap_or(Produced::Answer), ..Guess::default() }
}

/// Where an event has its text, and the word by which it tells what it is: for those who write a rule for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::llm) struct Sketch {
    /// Where the first text under a usual key stands; `data` where the event is text as a whole; empty where it has none.
    pub(in crate::llm) at: String,
    /// Empty where it has none.
    pub(in crate::llm) kind: String,
}

impl Sketch {
    /// What was taken for the first token, and the rule that would settle it.
    pub(in crate::llm) fn hint(&self) -> String {
        let Self { at, kind } = self;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
        let named = !kind.is_empty() && kind.chars().all(is_plain);
        let event = if named { format!("the event {kind:?}") } else { "an event".to_owned() };
        let place = if at == "data" { "as a whole".to_owned() } else { format!("by its text at {at}") };
        let rule = if named { format!("{{ {kind:?} = {at:?} }}") } else { format!("{at:?}") };
        format!(
            "{event} was taken for the first token, {place}, by guess; if it is, say so: stream = {{ text = {rule} }}"
        )
    }
}

/// Looks at one event in more detail than all are looked at.
pub(in crate::llm) fn sketch(event: Event<'_>) -> Sketch {
    let name = bounded(&String::from_utf8_lossy(event.name)).to_owned();
    let Ok(value) = serde_json::from_slice::<Value>(event.data) else {
        return Sketch { at: "data".to_owned(), kind: name };
    };
    let word = ["type", "event", "kind"].iter().find_map(|key| value.get(key)?.as_str());
    let kind = if name.is_empty() { word.map(bounded).unwrap_or_default().to_owned() } else { name };
    let mut at = String::new();
    let at = match &value {
        Value::Object(_) | Value::Array(_) if !place_of(&value, &mut at, 0) => match only_string(event.data) {
            Some((key, _)) => format!("/{}", escaped(bounded(&key))),
            None => String::new(),
        },
        Value::Object(_) | Value::Array(_) => at,
        _ => "data".to_owned(),
    };
    Sketch { at, kind }
}

/// Puts the way to the first text under a usual key behind `at`.
fn place_of(value: &Value, at: &mut String, depth: usize) -> bool {
    let mut enter = |step: &str, inner: &Value, is_text: bool| {
        let len = at.len();
        at.push('/');
        at.push_str(&escaped(step));
        let found = match inner {
            Value::String(text) => is_text && !text.is_empty(),
            _ => depth < DEPTH_MAX && place_of(inner, at, depth + 1),
        };
        if !found {
            at.truncate(len);
        }
        found
    };
    match value {
        Value::Object(members) => members.iter().any(|(key, inner)| match role_of(key) {
            Role::Text => enter(key, inner, true),
            Role::Through => enter(key, inner, false),
            _ => false,
        }),
        Value::Array(items) => items.iter().take(8).any(|inner| enter("*", inner, false)),
        _ => false,
    }
}

/// A key as a step of a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// What an event that only reports something is, by the word that it calls itself; `None`: it may carry text. Work outweighs.
fn report_of(kind: &str) -> Option<Produced> {
    let words = kind.split(|c: char| !c.is_ascii_alphanumeric()).flat_map(humps);
    words.filter_map(|word| report_in(&word.to_ascii_lowercase())).max()
}

fn report_in(word: &str) -> Option<Produced> {
    match word {
        // Events that begin, end or report something.
        "start" | "started" | "starting" | "begin" | "end" | "ended" | "done" | "stop" | "finish" | "finished"
        | "complete" | "completed" | "created" | "queued" | "init" | "initialized" | "ready" | "open" | "opened"
        | "connected" | "connect" | "hello" | "meta" | "metadata" | "session" | "thread" | "conversation" | "usage"
        | "source" | "sources" | "citation" | "citations" | "reference" | "references" | "title" | "suggestions"
        | "ping" | "heartbeat" | "keepalive" | "ack" | "log" | "debug" | "info" | "config" => Some(Produced::Nothing),
        // Events that tell of work.
        "status" | "progress" | "step" | "tool" | "tools" | "search" | "searching" | "retrieval" | "retrieving"
        | "agent" | "update" | "updates" | "running" | "working" | "processing" => Some(Produced::Work),
        _ => None,
    }
}

/// The words of `RunStarted` and the like.
fn humps(word: &str) -> impl Iterator<Item = &str> {
    let bytes = word.as_bytes();
    let begins = move |at: usize| {
        let (Some(before), Some(here)) = (at.checked_sub(1).and_then(|at| bytes.get(at)), bytes.get(at)) else {
            return true;
        };
        before.is_ascii_lowercase() && here.is_ascii_uppercase()
    };
    let starts: Vec<usize> = (0..bytes.len()).filter(|at| begins(*at)).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([bytes.len()]).collect();
    starts.into_iter().zip(ends).filter_map(|(from, to)| word.get(from..to))
}

pub(super) fn is_ping(name: &[u8]) -> bool {
    matches!(name, b"ping" | b"heartbeat" | b"keepalive" | b"keep-alive")
}

fn bounded(word: &str) -> &str {
    word.get(..word.floor_char_boundary(WORD_MAX)).unwrap_or_default()
}

struct Found {
    said: String,
    /// How many texts were found, and under which key the walk is.
    texts: usize,
    key: Cell<Option<&'static str>>,
    report: Option<Produced>,
}

impl Found {
    fn into_guess(self, data: &[u8], said: Option<&mut String>) -> Guess {
        let Self { said: mut text, texts, key, report } = self;
        let usage = usage_of(data);
        if let Some(produced) = report {
            return Guess { produced, usage, text_key: None };
        }
        let text_key = key.get().filter(|_| texts == 1 && usage.is_none());
        if text.is_empty() {
            text = only_string(data).map(|(_, text)| text).unwrap_or_default();
        }
        let produced = match text.is_empty() {
            false => Produced::Answer,
            // Nobody can say what it means to a client; but what is empty, or only counts, shows nothing.
            true if usage.is_some() || matches!(data, b"{}" | b"[]" | b"\"\"") => Produced::Nothing,
            true => Produced::Unknown,
        };
        if let Some(said) = said {
            said.push_str(&text);
        }
        Guess { produced, usage, text_key }
    }
}

/// What stands under a key, as far as can be guessed.
fn role_of(key: &str) -> Role {
    match key {
        _ if text_key(key).is_some() => Role::Text,
        "data" | "choices" | "payload" | "result" | "outputs" | "value" | "messages" => Role::Through,
        _ => Role::Skip,
    }
}

/// The key, where it is one that text usually stands under.
fn text_key(key: &str) -> Option<&'static str> {
    Some(match key {
        "content" => "content",
        "text" => "text",
        "token" => "token",
        "delta" => "delta",
        "answer" => "answer",
        "response" => "response",
        "output" => "output",
        "completion" => "completion",
        "chunk" => "chunk",
        "message" => "message",
        "generated_text" => "generated_text",
        "output_text" => "output_text",
        "reasoning_content" => "reasoning_content",
        "reasoning" => "reasoning",
        "thinking" => "thinking",
        _ => return None,
    })
}

impl Sink for Found {
    fn role(&self, key: &str, depth: usize) -> Role {
        match key {
            "type" | "event" | "kind" if depth == 1 => Role::Kind,
            _ if depth > DEPTH_MAX => Role::Skip,
            _ => {
                let role = role_of(key);
                if role == Role::Text && self.texts == 0 {
                    self.key.set(text_key(key));
                }
                role
            }
        }
    }

    fn text(&mut self, text: &str) {
        self.texts += 1;
        self.said.push_str(text);
    }

    fn kind(&mut self, kind: &str) {
        self.report = self.report.max(report_of(kind));
    }
}

/// Token counts under the usual keys.
fn usage_of(data: &[u8]) -> Option<Usage> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Keyed<'a> {
        #[serde(borrow, alias = "usage_metadata", alias = "usageMetadata", alias = "token_usage")]
        usage: Option<&'a serde_json::value::RawValue>,
    }
    memchr::memmem::find(data, b"sage")?;
    let keyed: Keyed<'_> = serde_json::from_slice(data).ok()?;
    keyed.usage.filter(|usage| usage.get().starts_with('{')).and_then(|usage| Counts::read(usage.get()))
}

/// The one member of an object, where it is a string that may be text.
fn only_string(data: &[u8]) -> Option<(String, String)> {
    let OnlyString(key, text) = serde_json::from_slice(data).ok()?;
    let is_name = report_of(&key).is_some()
        || ["id", "model", "error", "name", "role", "url", "state"].contains(&key.as_str())
        || key.to_ascii_lowercase().ends_with("id");
    (!text.is_empty() && !is_name).then_some((key, text))
}

#[derive(Default)]
struct OnlyString(String, String);

impl<'de> Loose<'de> for OnlyString {
    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let (mut only, mut members) = (Self::default(), 0);
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            members += 1;
            let text: Word<'_> = fields.next_value()?;
            only = Self(key.0.unwrap_or_default().into_owned(), text.0.unwrap_or_default().into_owned());
        }
        Ok(if members == 1 { only } else { Self::default() })
    }
}

loose!(OnlyString);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_under_the_usual_keys_counts_and_reports_do_not() {
        use Produced::{Answer, Nothing, Unknown, Work};
        for (name, data, expected, text) in [
            ("", "Hello", Answer, "Hello"),
            ("", " ", Answer, " "),
            ("", "", Nothing, ""),
            ("ping", "x", Nothing, ""),
            ("", "\"Hello\"", Answer, "Hello"),
            ("", "\"half", Answer, "\"half"),
            ("", "7", Answer, "7"),
            ("", r#"{"token":"a"}"#, Answer, "a"),
            ("", r#"{"data":{"chunk":{"content":"a"}}}"#, Answer, "a"),
            ("", r#"{"choices":[{"delta":{"content":"a"}}]}"#, Answer, "a"),
            ("", r#"{"type":"token","content":"a"}"#, Answer, "a"),
            ("", r#"{"v":"a"}"#, Answer, "a"),
            ("", r#"{"session_id":"a"}"#, Unknown, ""),
            ("", r#"["a",{"id":"b"}]"#, Answer, "a"),
            ("", r#"{"run":"a","b":1}"#, Unknown, ""),
            ("", r#"{"type":"start","message":"a"}"#, Nothing, ""),
            ("", r#"{"type":"RunStarted","content":"a"}"#, Nothing, ""),
            ("", r#"{"type":"tool_call","content":"a"}"#, Work, ""),
            ("status", r#"{"message":"a"}"#, Work, ""),
            ("status", "searching", Work, ""),
            ("sources", r#"[{"text":"a"}]"#, Nothing, ""),
            ("message", r#"{"content":"a"}"#, Answer, "a"),
            ("", r#"{"usage":{"output_tokens":3}}"#, Nothing, ""),
            ("", "{}", Nothing, ""),
            ("", r#"{"content":""}"#, Unknown, ""),
            ("", r#"{"content":"half"#, Unknown, ""),
            ("", "{x", Unknown, ""),
        ] {
            let mut said = String::new();
            let event = Event { name: name.as_bytes(), data: data.as_bytes(), id: &[] };
            let read = guess(event, Some(&mut said));
            assert_eq!((read.produced, said.as_str()), (expected, text), "{name} {data}");
        }
    }

    #[test]
    fn a_rule_can_be_written_from_a_sketch() {
        for (name, data, at, kind) in [
            ("", "Hello", "data", ""),
            ("chunk", "Hello", "data", "chunk"),
            ("", r#"{"type":"token","data":{"content":"a"}}"#, "/data/content", "token"),
            ("", r#"{"choices":[{"delta":{"content":"a"}}]}"#, "/choices/*/delta/content", ""),
            ("", r#"{"a/b":"x"}"#, "/a~1b", ""),
            ("", r#"{"type":"x","n":1}"#, "", "x"),
        ] {
            let event = Event { name: name.as_bytes(), data: data.as_bytes(), id: &[] };
            assert_eq!(sketch(event), Sketch { at: at.to_owned(), kind: kind.to_owned() }, "{name} {data}");
        }
    }
}
