//! The cases of `tests/corpus`: streams of bytes with times, and what the gauge must report of each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use streamgauge::llm::dialect::shape::{Places, Several};
use streamgauge::llm::{Dialect, Framing, Gauge, Reading, ShapeRules, StreamEnd, StreamRules};

/// Gaps longer than this are slow ones.
pub const SLOW_GAP: Duration = Duration::from_secs(1);

/// One stream and its report.
#[derive(Debug)]
pub struct Case {
    /// `<dialect>/<case>`.
    pub name: String,
    pub dialect: Dialect,
    pub framing: Framing,
    pub rules: StreamRules,
    pub reads: Vec<(Duration, Vec<u8>)>,
    pub end: (Duration, StreamEnd),
    pub expected: Report,
    pub source: String,
}

/// What `report.json` says; what it leaves out is null, zero, false or empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Report {
    /// What the gauge settles on, which may differ from what the answer's head told it.
    pub dialect: String,
    pub framing: String,
    pub first_byte_ms: Option<u64>,
    pub first_token_ms: Option<u64>,
    pub first_answer_ms: Option<u64>,
    pub last_token_ms: Option<u64>,
    pub max_gap_ms: Option<u64>,
    /// Each `[gap, time of its end]`.
    pub slow_gaps_ms: Vec<(u64, u64)>,
    pub frames: u64,
    pub token_frames: u64,
    pub usage: BTreeMap<String, u64>,
    pub usage_source: String,
    /// What the backend says of its own time.
    pub server_us: BTreeMap<String, u64>,
    pub finish_reasons: Vec<String>,
    pub error: Option<String>,
    pub normal_end: bool,
    pub id: Option<String>,
    pub model: Option<String>,
}

/// What `setup.json` may say: what the gauge is told, where that is not the directory's dialect in its usual framing.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Setup {
    dialect: Option<String>,
    framing: Option<String>,
    text: Option<String>,
    error: Option<String>,
    done: Option<String>,
    /// The rules of a `stream` table.
    rules: Option<ShapeRules>,
}

impl Setup {
    fn rules(&self) -> Option<ShapeRules> {
        let anywhere = |place: &Option<String>| match place {
            Some(place) => Places::Anywhere(Several::One(place.clone())),
            None => Places::default(),
        };
        let named = [&self.text, &self.error, &self.done].iter().any(|key| key.is_some());
        let pointers = || ShapeRules {
            text: anywhere(&self.text),
            error: anywhere(&self.error),
            done: self.done.clone(),
            ..ShapeRules::default()
        };
        self.rules.clone().or_else(|| named.then(pointers))
    }
}

impl Case {
    /// The gauge that the case is read with.
    pub fn gauge(&self) -> Gauge {
        Gauge::new(self.dialect, self.framing, Arc::new(self.rules.clone()), SLOW_GAP)
    }

    /// The stream in one piece.
    pub fn bytes(&self) -> Vec<u8> {
        self.reads.iter().flat_map(|(_, bytes)| bytes).copied().collect()
    }

    fn load(dir: &Path, name: String, home: Dialect) -> Self {
        let text = |file: &str| {
            let path = dir.join(file);
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let in_file = |file: &str, error: serde_json::Error| -> ! { panic!("{name}/{file}: {error}") };
        let setup: Setup = if dir.join("setup.json").exists() {
            serde_json::from_str(&text("setup.json")).unwrap_or_else(|error| in_file("setup.json", error))
        } else {
            Setup::default()
        };
        let expected = serde_json::from_str(&text("report.json")).unwrap_or_else(|error| in_file("report.json", error));
        let (reads, end) = read_stream(&text("stream.txt")).unwrap_or_else(|fault| panic!("{name}/stream.txt{fault}"));
        let rules = setup.rules().map_or_else(StreamRules::default, |rules| StreamRules::of(&rules).unwrap());
        let dialect = setup.dialect.map_or(home, |word| dialect_of(&word).unwrap_or_else(|| panic!("{name}: {word}?")));
        let framing = setup.framing.map_or_else(|| usual_framing(home), |word| framing_of(&name, &word));
        Self { dialect, framing, rules, reads, end, expected, source: text("source"), name }
    }
}

impl Report {
    pub fn of(gauge: &Gauge) -> Self {
        let Reading {
            first_byte,
            first_token,
            first_answer,
            last_token,
            max_gap,
            slow_gaps,
            frames,
            token_frames,
            usage,
            ..
        } = gauge.reading();
        let reading = gauge.reading().clone();
        let numbers = [
            ("input", usage.input),
            ("cached_input", usage.cached_input),
            ("cache_write", usage.cache_write),
            ("output", usage.output),
            ("reasoning", usage.reasoning),
        ];
        let told = reading.server.iter().flat_map(|server| server.named());
        Self {
            dialect: gauge.dialect().as_str().into(),
            framing: gauge.framing().as_str().into(),
            first_byte_ms: first_byte.map(millis),
            first_token_ms: first_token.map(millis),
            first_answer_ms: first_answer.map(millis),
            last_token_ms: last_token.map(millis),
            max_gap_ms: max_gap.map(millis),
            slow_gaps_ms: slow_gaps.iter().map(|(gap, at)| (millis(*gap), millis(*at))).collect(),
            frames: *frames,
            token_frames: *token_frames,
            usage: numbers.into_iter().filter_map(|(name, told)| Some((name.to_owned(), told?))).collect(),
            usage_source: reading.usage_source.as_str().into(),
            server_us: told.filter_map(|(name, time)| Some((name.to_owned(), micros(time?)))).collect(),
            finish_reasons: reading.finish_reasons,
            error: reading.error.map(String::from),
            normal_end: reading.normal_end,
            id: reading.response_id.map(String::from),
            model: reading.response_model.map(String::from),
        }
    }

    /// The fields in which two reports differ, one a line; empty where none does.
    pub fn differences(&self, read: &Self) -> Vec<String> {
        let fields = |report: &Self| match serde_json::to_value(report) {
            Ok(serde_json::Value::Object(fields)) => fields,
            other => panic!("a report is an object: {other:?}"),
        };
        let (expected, read) = (fields(self), fields(read));
        let differs = expected.iter().filter(|(name, value)| read.get(*name) != Some(value));
        differs.map(|(name, value)| format!("{name}: expected {value}, read {}", read[name])).collect()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap()
}

/// The dialect that a word names.
pub fn dialect_of(word: &str) -> Option<Dialect> {
    Dialect::named(word)
}

/// The directories below one, sorted by name.
pub fn directories(under: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(under).unwrap_or_else(|error| panic!("{}: {error}", under.display()));
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    found.sort();
    found
}

/// All cases below `corpus`, of all dialects that there are.
pub fn load_all(corpus: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for (word, path) in directories(corpus) {
        let Some(dialect) = dialect_of(&word) else { continue };
        let of_dialect = directories(&path).into_iter();
        cases.extend(of_dialect.map(|(case, dir)| Case::load(&dir, format!("{word}/{case}"), dialect)));
    }
    assert!(!cases.is_empty(), "no case in {}", corpus.display());
    cases
}

/// How the answers of a dialect come where nothing else is said.
fn usual_framing(dialect: Dialect) -> Framing {
    match dialect.as_str() {
        "ollama" | "vercel-data" => Framing::JsonLines,
        "plain-text" => Framing::Opaque,
        "bedrock-converse" | "bedrock-invoke" => Framing::AwsEvents,
        _ => Framing::Sse,
    }
}

fn framing_of(name: &str, word: &str) -> Framing {
    let all =
        [Framing::Sse, Framing::AwsEvents, Framing::JsonLines, Framing::Json, Framing::Opaque, Framing::JsonValues];
    let known = all.into_iter().find(|framing| framing.as_str() == word);
    known.unwrap_or_else(|| panic!("{name}/setup.json: no framing is called {word}"))
}

type Stream = (Vec<(Duration, Vec<u8>)>, (Duration, StreamEnd));

/// Reads a `stream.txt`: `# comment`, `<ms> "JSON string"`, `<ms> base64:<bytes>`, and last `<ms> end` or `<ms> cut`.
fn read_stream(text: &str) -> Result<Stream, String> {
    let (mut reads, mut end, mut before) = (Vec::new(), None, 0);
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let fault = |what: &str| format!(":{}: {what}", at + 1);
        let (ms, rest) = line.split_once(' ').ok_or_else(|| fault("a time and a read, separated by a space"))?;
        let ms: u64 = ms.parse().map_err(|_| fault("the line begins with milliseconds"))?;
        if end.is_some() || ms < before {
            return Err(fault("times only grow, and nothing follows the end"));
        }
        before = ms;
        let now = Duration::from_millis(ms);
        match rest {
            "end" => end = Some((now, StreamEnd::Clean)),
            "cut" => end = Some((now, StreamEnd::Cut)),
            _ => reads.push((now, read_bytes(rest).map_err(|error| fault(&error))?)),
        }
    }
    Ok((reads, end.ok_or(": the last line says `<ms> end` or `<ms> cut`")?))
}

fn read_bytes(told: &str) -> Result<Vec<u8>, String> {
    match told.strip_prefix("base64:") {
        Some(coded) => BASE64_STANDARD.decode(coded).map_err(|error| error.to_string()),
        None => serde_json::from_str::<String>(told).map(String::into_bytes).map_err(|error| error.to_string()),
    }
}
