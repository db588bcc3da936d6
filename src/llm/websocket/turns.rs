//! Requests and responses on one WebSocket of OpenAI's Realtime API, or of its Responses API: any number of responses,
//! one after another or at one time, each with its own usage.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::llm::dialect::{Counts, Response};
use crate::llm::json::{Filled, Loose, Maybe, Word, loose, read_object, read_value};
use crate::llm::reading::{TEXT_LIMIT, cut};
use crate::llm::request::body_kind::Beginning;
use crate::llm::request::lenient_json::{in_utf8, is_same_key};
use crate::llm::token_count::{Encoding, count_prompt};
use crate::llm::{Background, Dialect, Reading, RequestFacts, Usage, UsageSource};

/// Responses asked for or running at a time. More than that nobody has; the oldest gives way.
const TURNS_MAX: usize = 16;

/// A connection whose first so many texts of a side say nothing that is known is some app's own.
const STRANGE_MAX: u8 = 32;

/// Bytes of encoded sound that are about a token: 50 ms of 24 kHz, 16 bit, in base64.
const SOUND_BYTES: u64 = 3_200;

/// Bytes of a prompt that are about a token.
const PROMPT_BYTES: u64 = 4;

/// The conversation on one connection.
#[derive(Default)]
pub struct Turns {
    /// As the session or the last request for a response says.
    model: Option<String>,
    turns: VecDeque<Turn>,
    /// Of all turns so far.
    numbered: u64,
    /// Tokens that the last response read and wrote: the next one reads them again.
    context: u64,
    /// When the server took the speech for ended that it answers unasked.
    spoken: Option<Duration>,
    /// What writes down what is said, where the session has that.
    transcriber: Option<String>,
    /// When the last speech was handed to it.
    committed: Option<Duration>,
    happened: Vec<Happened>,
    slow_gap: Duration,
    /// Texts that said nothing known, until one does.
    strange: u8,
    known: bool,
}

/// What a message brought.
#[derive(Debug)]
pub enum Happened {
    /// A response is asked for, by the client or by the server itself.
    Asked(Asked),
    /// About so many tokens of it have come by now.
    Generated {
        turn: u64,
        tokens: u64,
    },
    Ended(Box<Ended>),
}

/// A response that is asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The number of the response on its connection.
    pub turn: u64,
    pub facts: Arc<RequestFacts>,
    /// Its request's size.
    pub bytes: u64,
    /// About how many tokens it reads.
    pub prompt: u64,
}

/// A response that is over, with the times since it was asked for.
#[derive(Debug)]
pub struct Ended {
    pub turn: u64,
    pub facts: Arc<RequestFacts>,
    pub reading: Reading,
    /// When it was asked for, since the connection's beginning.
    pub asked_at: Duration,
    pub ended_at: Duration,
    /// The client or its user broke in, or the connection ended before it.
    pub cancelled: bool,
    /// It was not told before that it would come: a transcript beside the responses.
    pub unannounced: bool,
}

#[derive(Default)]
struct Turn {
    number: u64,
    facts: Arc<RequestFacts>,
    /// The client's name of its request.
    event_id: Option<String>,
    asked_at: Duration,
    prompt: u64,
    begun: bool,
    reading: Reading,
    generated: u64,
}

/// Any message of either side.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire<'a> {
    #[serde(borrow, rename = "type")]
    kind: Word<'a>,
    event_id: Word<'a>,
    response_id: Word<'a>,
    delta: Word<'a>,
    partial_image_b64: Filled,
    response: Option<&'a RawValue>,
    session: Option<&'a RawValue>,
    error: Maybe<Failure<'a>>,
    message: Word<'a>,
    /// Of a transcript.
    usage: Maybe<Counts>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Failure<'a> {
    #[serde(borrow)]
    event_id: Word<'a>,
    message: Word<'a>,
}

/// Whether backends may differ in what they take a message for: it begins as JSON, and is in another encoding than UTF-8, is
/// broken, or says twice, or in another case, of what kind it is.
pub fn is_ambiguous(text: &[u8]) -> bool {
    let is_clear = || read_object(text).is_some_and(|Kinds { count, odd }| count < 2 && !odd);
    Beginning::of(text) == Beginning::Json && (in_utf8(text).is_some() || !is_clear())
}

/// How often a message says of what kind it is, and whether in another case.
#[derive(Default)]
struct Kinds {
    count: u32,
    odd: bool,
}

impl<'de> Loose<'de> for Kinds {
    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let mut kinds = Self::default();
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            let key = key.0.as_deref().unwrap_or_default();
            if is_same_key(key, "type") {
                kinds.count += 1;
                kinds.odd |= key != "type";
            }
            fields.next_value::<IgnoredAny>()?;
        }
        Ok(kinds)
    }
}

loose!(Kinds);

impl Turns {
    /// A connection whose path or request names `model`.
    pub fn new(model: Option<&str>, slow_gap: Duration) -> Self {
        Self { model: model.map(str::to_owned), slow_gap, ..Self::default() }
    }

    /// Whether nothing was said that is known, so often that nothing will be.
    pub fn is_strange(&self) -> bool {
        !self.known && self.strange >= STRANGE_MAX
    }

    /// Whether something was said that is known here.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// What happened since the last call.
    pub fn happened(&mut self) -> Vec<Happened> {
        mem::take(&mut self.happened)
    }

    /// Reads a text of the client that came at `now`, on the connection's clock.
    pub fn client(&mut self, text: &[u8], now: Duration) {
        let Some(wire) = self.read(text) else { return };
        match wire.kind.filled().unwrap_or_default() {
            "response.create" => self.asked(text, &wire, now),
            kind => self.note_known(is_clients(kind)),
        }
    }

    /// Reads a text of the server.
    pub fn server(&mut self, text: &[u8], now: Duration) {
        let Some(wire) = self.read(text) else { return };
        let kind = wire.kind.filled().unwrap_or_default();
        if let Some(session) = wire.session.and_then(|session| read_value(session.get())) {
            self.note_session(&session);
        }
        match kind {
            "response.created" => self.began(&wire, now),
            "response.done" | "response.completed" | "response.incomplete" | "response.failed" => {
                self.ended(kind, &wire, now);
            }
            "input_audio_buffer.speech_stopped" => self.spoken = Some(now),
            "input_audio_buffer.committed" => self.committed = Some(now),
            "conversation.item.input_audio_transcription.completed" => self.transcribed(&wire, now),
            "error" => self.failed(&wire, now),
            _ => self.passed(kind, &wire, text.len() as u64, now),
        }
        self.note_known(kind.starts_with("response.") || is_servers(kind));
    }

    /// The connection is over: so are all responses on it.
    pub fn close(&mut self, now: Duration) {
        while let Some(turn) = self.turns.pop_front() {
            self.conclude(turn, now, true);
        }
    }

    fn read<'t>(&mut self, text: &'t [u8]) -> Option<Wire<'t>> {
        let wire = text.trim_ascii_start().starts_with(b"{").then(|| read_object::<Wire<'_>>(text)).flatten();
        if wire.is_none() {
            self.note_known(false);
        }
        wire
    }

    fn note_known(&mut self, known: bool) {
        self.known |= known;
        self.strange = self.strange.saturating_add(u8::from(!known));
    }

    fn asked(&mut self, text: &[u8], wire: &Wire<'_>, now: Duration) {
        self.known = true;
        // Realtime has the parameters in an object of their own.
        let body = wire.response.map_or(text, |response| response.get().as_bytes());
        let mut facts = RequestFacts::read("/v1/responses", Some(body));
        facts.stream = Some(true);
        if let Some(model) = &facts.model {
            self.model = Some(model.clone());
        }
        facts.model.clone_from(&self.model);
        let encoding = Encoding::of_model(facts.model.as_deref().unwrap_or_default());
        let counted = encoding.is_ready().then(|| count_prompt(Dialect::OpenAiResponses, None, body)).flatten();
        let own = counted.map_or(body.len() as u64 / PROMPT_BYTES, |count| count.tokens);
        let event_id = wire.event_id.filled().map(|id| cut(id, TEXT_LIMIT).to_owned());
        self.enter(facts, text.len() as u64, own, event_id, now);
    }

    fn enter(&mut self, facts: RequestFacts, bytes: u64, own: u64, event_id: Option<String>, now: Duration) {
        if self.turns.len() >= TURNS_MAX
            && let Some(oldest) = self.turns.pop_front()
        {
            self.conclude(oldest, now, true);
        }
        let (number, facts, prompt) = (self.numbered, Arc::new(facts), own.saturating_add(self.context));
        self.numbered += 1;
        self.happened.push(Happened::Asked(Asked { turn: number, facts: Arc::clone(&facts), bytes, prompt }));
        self.turns.push_back(Turn { number, facts, event_id, asked_at: now, prompt, ..Turn::default() });
    }

    fn note_session(&mut self, session: &Value) {
        let model = |place: &str| session.pointer(place)?.as_str().filter(|model| !model.is_empty());
        let kept = |model: &str| cut(model, TEXT_LIMIT).to_owned();
        // The second is from before the interface was final.
        let transcriber =
            model("/audio/input/transcription/model").or_else(|| model("/input_audio_transcription/model"));
        self.model = model("/model").map(kept).or(self.model.take());
        self.transcriber = transcriber.map(kept).or(self.transcriber.take());
    }

    /// Another model wrote down what was said. Where it is billed by time it tells no tokens, and nothing is told of it.
    fn transcribed(&mut self, wire: &Wire<'_>, now: Duration) {
        let usage = wire.usage.0.as_ref().map(Counts::usage).unwrap_or_default();
        if !usage.is_known() {
            return;
        }
        let facts =
            RequestFacts { model: self.transcriber.clone(), ..RequestFacts::read("/v1/audio/transcriptions", None) };
        let asked_at = self.committed.take().unwrap_or(now);
        let first_byte = Some(now.saturating_sub(asked_at));
        let mut reading = Reading { usage, first_byte, frames: 1, normal_end: true, ..Reading::default() };
        reading.settle();
        let turn = self.numbered;
        self.numbered += 1;
        let ended = Ended {
            turn,
            facts: Arc::new(facts),
            reading,
            asked_at,
            ended_at: now,
            cancelled: false,
            unannounced: true,
        };
        self.happened.push(Happened::Ended(Box::new(ended)));
    }

    /// A response begins: the first that was asked for, or one that nobody asked for but a voice.
    fn began(&mut self, wire: &Wire<'_>, now: Duration) {
        if !self.turns.iter().any(|turn| !turn.begun) {
            let facts = RequestFacts {
                model: self.model.clone(),
                stream: Some(true),
                ..RequestFacts::read("/v1/responses", None)
            };
            let from = self.spoken.take().unwrap_or(now);
            self.enter(facts, 0, 0, None, from);
        }
        let response = wire.response();
        let Some(turn) = self.turns.iter_mut().find(|turn| !turn.begun) else { return };
        turn.begun = true;
        turn.reading.note_id(response.id.filled());
        turn.reading.note_model(response.model.filled());
        if response.background.0 == Some(true) || response.status.is("queued") {
            turn.reading.background = Background::Running;
        }
        turn.heard(now);
    }

    /// Any other event: it may carry output.
    fn passed(&mut self, kind: &str, wire: &Wire<'_>, bytes: u64, now: Duration) {
        let slow_gap = self.slow_gap;
        let Some(turn) = self.running(wire.response_id.filled()) else { return };
        turn.heard(now);
        let has_output = wire.delta.filled().is_some() && kind.ends_with(".delta") || wire.partial_image_b64.0;
        if !has_output || !kind.starts_with("response.") {
            return;
        }
        let is_answer = !kind.starts_with("response.reasoning");
        turn.reading.note_token(is_answer, now.saturating_sub(turn.asked_at), slow_gap);
        let is_sound = kind.ends_with("audio.delta");
        turn.generated += if is_sound { (bytes / SOUND_BYTES).max(1) } else { 1 };
        let (turn, tokens) = (turn.number, turn.generated);
        self.happened.push(Happened::Generated { turn, tokens });
    }

    fn ended(&mut self, kind: &str, wire: &Wire<'_>, now: Duration) {
        let response = wire.response();
        let id = response.id.filled();
        let at = self.position(id).or_else(|| self.turns.iter().position(|turn| turn.begun));
        let Some(mut turn) = at.and_then(|at| self.turns.remove(at)) else { return };
        turn.heard(now);
        let reading = &mut turn.reading;
        reading.note_id(id);
        reading.note_model(response.model.filled());
        if let Some(tokens) = &response.usage.0 {
            reading.usage = tokens.usage();
            self.context = reading.usage.input.unwrap_or(0).saturating_add(reading.usage.output.unwrap_or(0));
        }
        let details = [&response.status_details, &response.incomplete_details].into_iter().find_map(|it| it.0.as_ref());
        let reason = details.and_then(|details| details.reason.filled());
        let status = response.status.filled().unwrap_or_else(|| kind.trim_start_matches("response."));
        reading.note_finish_reason(reason.or(Some(status)));
        if status == "failed" {
            let told = response.error.0.or_else(|| details.and_then(|details| details.error.0.clone()));
            reading.note_error(told.as_deref().unwrap_or("the response failed"));
        }
        reading.normal_end = matches!(status, "completed" | "incomplete" | "done");
        if response.background.0 == Some(true) || reading.background == Background::Running {
            reading.background = Background::Ended;
        }
        self.conclude(turn, now, status == "cancelled");
    }

    /// Something that the client asked for went wrong: where that was a response, it is over.
    fn failed(&mut self, wire: &Wire<'_>, now: Duration) {
        let error = wire.error.0.as_ref();
        let named = error.and_then(|error| error.event_id.filled());
        let is_meant = |turn: &Turn| !turn.begun && turn.event_id.as_deref() == named;
        let Some(at) = self.turns.iter().position(is_meant) else { return };
        let Some(mut turn) = self.turns.remove(at) else { return };
        turn.heard(now);
        let told = error.and_then(|error| error.message.filled()).or_else(|| wire.message.filled());
        turn.reading.note_error(told.unwrap_or("error"));
        self.conclude(turn, now, false);
    }

    fn position(&self, id: Option<&str>) -> Option<usize> {
        let id = id?;
        self.turns.iter().position(|turn| turn.reading.response_id.as_deref() == Some(id))
    }

    /// The response that an event is of; where it does not tell, the one that began last.
    fn running(&mut self, id: Option<&str>) -> Option<&mut Turn> {
        let at = self.position(id).or_else(|| self.turns.iter().rposition(|turn| turn.begun))?;
        self.turns.get_mut(at)
    }

    fn conclude(&mut self, turn: Turn, now: Duration, cancelled: bool) {
        let Turn { number, facts, asked_at, prompt, begun, mut reading, generated, .. } = turn;
        reading.settle();
        let runs_on = reading.background == Background::Running;
        if !reading.usage.is_known() && begun && reading.error.is_none() && !runs_on {
            // It was cut off before it told.
            reading.usage = Usage { input: Some(prompt), output: Some(generated), ..Usage::default() };
            reading.usage_source = UsageSource::Estimated;
        }
        let ended = Ended { turn: number, facts, reading, asked_at, ended_at: now, cancelled, unannounced: false };
        self.happened.push(Happened::Ended(Box::new(ended)));
    }
}

impl Turn {
    fn heard(&mut self, now: Duration) {
        self.reading.frames += 1;
        self.reading.first_byte.get_or_insert(now.saturating_sub(self.asked_at));
    }
}

impl<'a> Wire<'a> {
    fn response(&self) -> Response<'a> {
        self.response.and_then(|response| read_object(response.get().as_bytes())).unwrap_or_default()
    }
}

/// What clients of these interfaces send beside requests for responses.
fn is_clients(kind: &str) -> bool {
    kind == "session.update"
        || kind == "response.cancel"
        || kind.starts_with("input_audio_buffer.")
        || kind.starts_with("conversation.item.")
}

fn is_servers(kind: &str) -> bool {
    kind.starts_with("session.") || kind.starts_with("input_audio_buffer.") || kind.starts_with("conversation.")
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
