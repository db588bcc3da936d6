//! `streamgauge read`: how each event of a recorded stream is read, which is the first token, and why.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::llm::dialect::shape::Recogniser;
use crate::llm::{Basis, Dialect, Framing, Gauge, Progress, Reading, StreamEnd, StreamRules};

/// Bytes of an event that are shown.
const SHOWN_MAX: usize = 100;

/// The most bytes that are read.
const FILE_MAX: u64 = 256 << 20;

/// A recorded stream: what `curl -N URL > FILE` kept, with its head (`curl -iN`) or without.
#[derive(clap::Args)]
pub(super) struct Options {
    /// The recorded stream; `-` or nothing: what comes in, as behind `curl -N`.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// What the stream speaks, where that is not to be recognised.
    #[arg(long, value_name = "NAME")]
    dialect: Option<String>,
    /// The config file whose rules hold.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The upstream of the config file that the stream comes from; absent: the only one.
    #[arg(long, value_name = "NAME", requires = "config")]
    upstream: Option<String>,
    /// Name all dialects that are known.
    #[arg(long)]
    list: bool,
}

/// Reads a stream and tells of each event as it ends.
///
/// # Errors
/// What is wrong with what was typed, or with the file.
pub(super) fn read(options: &Options, out: &mut impl Write) -> Result<(), String> {
    let wrote = |error: io::Error| format!("cannot write: {error}");
    let rules = rules(options)?;
    if options.list {
        let own = rules.own.names().map(|name| format!("{name}  (yours)"));
        let known = Dialect::known().map(|dialect| dialect.as_str().to_owned());
        return known.chain(own).try_for_each(|name| writeln!(out, "{name}")).map_err(wrote);
    }
    let stdin;
    let file;
    let source: &mut dyn Read = match &options.file {
        Some(path) if path.as_os_str() != "-" => {
            let opened = std::fs::File::open(path);
            file = opened.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            &mut &file
        }
        _ => {
            stdin = io::stdin();
            &mut stdin.lock()
        }
    };
    let mut told = Telling::new(rules);
    let mut buffer = [0; 8 << 10];
    let mut source = source.take(FILE_MAX);
    loop {
        let read = source.read(&mut buffer).map_err(|error| format!("cannot read: {error}"))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        told.feed(bytes, out).map_err(wrote)?;
    }
    told.finish(out).map_err(wrote)
}

/// The rules that hold: those of the config's upstream, and the dialect that was typed.
fn rules(options: &Options) -> Result<Arc<StreamRules>, String> {
    let mut rules = match &options.config {
        None => StreamRules::default(),
        Some(path) => {
            let settings = config::load(path).map_err(|problems| problems.to_string())?;
            let named = |name: &str| settings.upstreams.iter().find(|upstream| &*upstream.name == name);
            let upstream = match (&options.upstream, settings.upstreams.as_slice()) {
                (Some(name), _) => named(name).ok_or_else(|| format!("no upstream is called {name:?}"))?,
                (None, [only]) => only,
                (None, _) => return Err("say which upstream the stream comes from: --upstream NAME".to_owned()),
            };
            StreamRules::clone(&upstream.stream)
        }
    };
    if let Some(name) = &options.dialect {
        let dialect = dialect_named(name, &rules.own);
        let unknown = || format!("no dialect is called {name:?}; `streamgauge read --list` names them");
        rules.dialect = Some(dialect.ok_or_else(unknown)?);
    }
    Ok(Arc::new(rules))
}

fn dialect_named(name: &str, own: &Recogniser) -> Option<Dialect> {
    own.named(name).map(|shape| Dialect::Shape(shape.name())).or_else(|| Dialect::named(name))
}

/// What is told of a stream as it comes.
struct Telling {
    rules: Arc<StreamRules>,
    /// Begins with the first bytes, which show the framing.
    gauge: Option<Gauge>,
    /// The bytes since the last event ended.
    event: Vec<u8>,
    events: u64,
    first_token: Option<u64>,
    first_answer: Option<u64>,
}

impl Telling {
    fn new(rules: Arc<StreamRules>) -> Self {
        Self { rules, gauge: None, event: Vec::new(), events: 0, first_token: None, first_answer: None }
    }

    fn feed(&mut self, bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
        let bytes = if self.gauge.is_none() { without_head(bytes) } else { bytes };
        if bytes.is_empty() {
            // A head alone shows no framing.
            return Ok(());
        }
        let rules = &self.rules;
        let gauge = self.gauge.get_or_insert_with(|| {
            let dialect = rules.dialect.unwrap_or(Dialect::PlainSse);
            let mut gauge = Gauge::new(dialect, framing(dialect, bytes), Arc::clone(rules), Duration::MAX);
            gauge.asked(Duration::ZERO);
            gauge
        });
        // Byte by byte: so each event is told by itself, however it is delimited.
        for byte in bytes {
            let before = Before::of(gauge);
            let progress = gauge.feed(std::slice::from_ref(byte), Duration::ZERO);
            self.event.push(*byte);
            if gauge.reading().frames > before.frames {
                let line = before.line(self.events, gauge, progress, &self.event);
                let is_token = progress.token;
                let is_taken_back = gauge.reading().token_frames <= before.tokens && is_token
                    || before.tokens > gauge.reading().token_frames;
                if is_taken_back {
                    (self.first_token, self.first_answer) = (None, None);
                    writeln!(
                        out,
                        "     - the stream is {}: what was taken for a token before was none",
                        gauge.dialect().as_str()
                    )?;
                }
                if is_token {
                    self.first_token.get_or_insert(self.events);
                }
                if gauge.reading().first_answer.is_some() {
                    self.first_answer.get_or_insert(self.events);
                }
                writeln!(out, "{line}")?;
                self.events += 1;
                self.event.clear();
            }
        }
        Ok(())
    }

    fn finish(mut self, out: &mut impl Write) -> io::Result<()> {
        let Some(mut gauge) = self.gauge.take() else { return writeln!(out, "nothing came") };
        let before = Before::of(&gauge);
        gauge.finish(StreamEnd::Clean, Duration::ZERO);
        if gauge.reading().frames > before.frames {
            let token = gauge.reading().token_frames > before.tokens;
            writeln!(
                out,
                "{}",
                before.line(self.events, &gauge, Progress { token, ..Progress::default() }, &self.event)
            )?;
            if token {
                self.first_token.get_or_insert(self.events);
            }
        }
        write!(out, "\n{}", self.summary(&gauge))
    }

    fn summary(&self, gauge: &Gauge) -> String {
        let (reading, mut text) = (gauge.reading(), String::new());
        let mut line = |name: &str, value: String| {
            if !value.is_empty() {
                let _ = writeln!(text, "{name:<13}{value}");
            }
        };
        line("dialect", format!("{} over {}", gauge.dialect().as_str(), gauge.framing().as_str()));
        line(
            "first token",
            self.first_token.map_or("none".to_owned(), |at| format!("event {at}, {}", why(reading.basis))),
        );
        line("first answer", self.first_answer.map_or(String::new(), |at| format!("event {at}")));
        let usage = &reading.usage;
        let counts = [
            ("in", usage.input),
            ("cached", usage.cached_input),
            ("out", usage.output),
            ("reasoning", usage.reasoning),
        ];
        let counts = counts.into_iter().filter_map(|(name, count)| Some(format!("{} {name}", count?)));
        let calls = reading.calls.as_ref().map(|calls| calls.count()).filter(|count| *count > 1);
        let calls = calls.map(|count| format!("of {count} calls together"));
        line("usage", counts.chain(calls).collect::<Vec<_>>().join(", "));
        line("finish", reading.finish_reasons.join(", "));
        line("model", reading.response_model.as_deref().unwrap_or_default().to_owned());
        line("end", outcome(reading));
        line("hint", reading.hint.as_deref().cloned().unwrap_or_default());
        line("if wrong", advice(gauge));
        text
    }
}

fn why(basis: Basis) -> &'static str {
    match basis {
        Basis::Dialect => "as the format says",
        Basis::Rules => "as your rules say",
        Basis::Guess => "by guess: text under the usual keys",
        Basis::Bytes => "its first byte: text without events",
    }
}

fn outcome(reading: &Reading) -> String {
    match &reading.error {
        Some(error) => format!("failed: {error}"),
        None if reading.normal_end => "whole".to_owned(),
        None => "truncated: the end that this format has did not come".to_owned(),
    }
}

/// The rule to write where the reading is wrong.
fn advice(gauge: &Gauge) -> String {
    let dialect = gauge.dialect();
    match gauge.reading().basis {
        Basis::Rules => "change the rules of `stream` or [[dialect]]; --dialect tries another one".to_owned(),
        Basis::Bytes => "say what it speaks, as dialect = \"plain-sse\"; --dialect tries it".to_owned(),
        Basis::Guess => {
            "name the event and the place of its text, as stream = { text = { \"EVENT\" = \"/place\" } }".to_owned()
        }
        Basis::Dialect => format!(
            "say what it speaks on its [[upstream]], as dialect = \"{}\", or write rules of your own: stream = {{ text = {{ \"EVENT\" = \"/place\" }} }}",
            dialect.as_str()
        ),
    }
}

/// What was known before a byte.
struct Before {
    frames: u64,
    tokens: u64,
    has_answer: bool,
    usage: crate::llm::Usage,
    finishes: usize,
    has_error: bool,
    is_ended: bool,
}

impl Before {
    fn of(gauge: &Gauge) -> Self {
        let reading = gauge.reading();
        Self {
            frames: reading.frames,
            tokens: reading.token_frames,
            has_answer: reading.first_answer.is_some(),
            usage: reading.usage,
            finishes: reading.finish_reasons.len(),
            has_error: reading.error.is_some(),
            is_ended: reading.normal_end,
        }
    }

    /// What an event was read as, and its beginning.
    fn line(&self, at: u64, gauge: &Gauge, progress: Progress, event: &[u8]) -> String {
        let reading = gauge.reading();
        let mut words = Vec::new();
        if progress.token {
            words.push(if reading.first_answer.is_none() { "reasoning" } else { "token" });
        }
        let facts = [
            (progress.token && self.tokens == 0, "FIRST TOKEN"),
            (progress.token && !self.has_answer && reading.first_answer.is_some() && self.tokens > 0, "FIRST ANSWER"),
            (progress.work, "work"),
            (reading.usage != self.usage, "usage"),
            (reading.finish_reasons.len() > self.finishes, "finish"),
            (reading.error.is_some() && !self.has_error, "error"),
            (reading.normal_end && !self.is_ended, "end"),
            (progress.unknown, "unknown to this format"),
        ];
        words.extend(facts.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word));
        if words.is_empty() {
            words.push("nothing");
        }
        format!("{at:>6} {:<24} {}", words.join(", "), shown(event))
    }
}

/// The beginning of an event in one line, without what a terminal would obey.
fn shown(event: &[u8]) -> String {
    let text = String::from_utf8_lossy(event.trim_ascii());
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = text.chars().take(SHOWN_MAX).map(plain).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// What follows the head that `curl -i` puts in front.
fn without_head(bytes: &[u8]) -> &[u8] {
    if !bytes.starts_with(b"HTTP/") {
        return bytes;
    }
    let ends: [&[u8]; 2] = [b"\r\n\r\n", b"\n\n"];
    let body = ends.iter().find_map(|end| Some(memchr::memmem::find(bytes, end)? + end.len()));
    body.and_then(|at| bytes.get(at..)).unwrap_or_default()
}

/// How the first bytes look: of a recorded stream nobody says it.
fn framing(dialect: Dialect, first: &[u8]) -> Framing {
    match first.trim_ascii_start().first() {
        Some(0) => Framing::AwsEvents,
        Some(b'[') => Framing::JsonValues,
        Some(b'{') if memchr::memchr(b'\n', first.trim_ascii()).is_none() => Framing::Json,
        _ if dialect == Dialect::PlainText => Framing::Opaque,
        Some(b'{') => Framing::JsonLines,
        _ => Framing::Sse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rules: &str, stream: &str) -> String {
        let rules = if rules.is_empty() { StreamRules::default() } else { StreamRules::read(rules).unwrap() };
        let (mut telling, mut out) = (Telling::new(Arc::new(rules)), Vec::new());
        telling.feed(stream.as_bytes(), &mut out).unwrap();
        telling.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_event_is_told_and_the_first_token_explained() {
        let stream = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
                      data: {\"type\":\"RUN_STARTED\",\"threadId\":\"t\",\"runId\":\"r\"}\n\n\
                      data: {\"type\":\"TEXT_MESSAGE_CONTENT\",\"messageId\":\"m\",\"delta\":\"The\"}\n\n\
                      data: {\"type\":\"RUN_FINISHED\",\"threadId\":\"t\",\"runId\":\"r\"}\n\n";
        let told = told("", stream);
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].starts_with("     0 nothing "), "{told}");
        assert!(lines[1].starts_with("     1 token, FIRST TOKEN "), "{told}");
        assert!(lines[2].starts_with("     2 end "), "{told}");
        assert!(told.contains("dialect      ag-ui over sse\nfirst token  event 1, as the format says\n"), "{told}");
        assert!(told.contains("end          whole\n"), "{told}");
    }

    #[test]
    fn a_guess_comes_with_the_rule_that_settles_it() {
        let stream = "data: {\"type\":\"chunk\",\"data\":{\"content\":\"The\"}}\n\n";
        let guessed = told("", stream);
        assert!(guessed.contains("first token  event 0, by guess"), "{guessed}");
        assert!(guessed.contains("stream = { text = { \"chunk\" = \"/data/content\" } }"), "{guessed}");
        let settled = told("text = { chunk = '/data/content' }", stream);
        assert!(settled.contains("first token  event 0, as your rules say"), "{settled}");
        assert!(!settled.contains("by guess"), "{settled}");
    }

    #[test]
    fn the_usage_of_several_calls_is_told_as_their_sum() {
        let stream = "data: {\"call\":\"a\",\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}\n\n\
                      data: {\"call\":\"a\",\"usage\":{\"input_tokens\":3,\"output_tokens\":2}}\n\n\
                      data: {\"call\":\"b\",\"usage\":{\"input_tokens\":5,\"output_tokens\":4}}\n\n";
        let told_of = told("text = '/delta'\nusage = '/usage'\ncalls = '/call'", stream);
        assert!(told_of.contains("usage        8 in, 6 out, of 2 calls together\n"), "{told_of}");
        let told_of = told("text = '/delta'\nusage = '/usage'", stream);
        assert!(told_of.contains("usage        5 in, 4 out\n"), "{told_of}");
    }

    #[test]
    fn what_comes_in_other_framings_is_told_too() {
        assert!(told("", "").contains("nothing came"));
        assert!(
            told("", "{\"event_type\":\"stream-start\"}\n{\"event_type\":\"text-generation\",\"text\":\"a\"}\n")
                .contains("cohere-v1 over json-lines")
        );
        assert!(told("", "data: a\u{1b}[2J\n\n").contains("data: a [2J"));
    }
}
