//! Reads one answer by the rules of a shape.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::compiled::{Code, Coding, CountSlot, CountSlots, Rule, Says, Shape};
use super::guess::guess;
use super::selector::{Seen, Spot, is_filled};
use super::tree::Found;
use super::value::{Role, hashed, produced};
use crate::llm::Usage;
use crate::llm::calls::Taken;
use crate::llm::dialect::closing_events::Closing;
use crate::llm::dialect::counts::Counts;
use crate::llm::dialect::reader::Reader;
use crate::llm::dialect::stream_rules::StreamRules;
use crate::llm::event_pattern::Varying;
use crate::llm::json::{Fault, Number, Word, read_value};
use crate::llm::reading::{Background, Produced, Reading};
use crate::llm::sse::Event;
use crate::llm::token_count::AnswerTexts;

/// Ends a stream where nothing else does.
const DONE: &str = "[DONE]";

/// Reads the events of one answer by rules.
pub(in crate::llm) struct ShapeReader {
    shape: Arc<Shape>,
    children: Vec<Child>,
    /// The text of the last event is gathered.
    gathers: bool,
    said: String,
    /// Text was streamed, which an event with the whole may repeat.
    streamed: bool,
    /// Length and hash of what the last cumulative event said.
    before: (usize, u64),
    /// Calls of before this answer were told.
    met_earlier: bool,
    /// What found the one text that is all that the last event told.
    only_text: Option<Finder>,
}

/// What finds a text.
#[derive(Clone, Copy)]
enum Finder {
    /// The rule of that number.
    Rule(usize),
    /// A guess, by that key.
    Key(&'static str),
}

/// Reads what stands inside of events.
struct Child {
    reader: Box<dyn Reader>,
    /// Finds the texts of a dialect that does not hand them out.
    texts: AnswerTexts,
    gathers: bool,
    /// It tells the calls of models apart itself.
    tells_calls: bool,
}

/// What the rules made of one event.
#[derive(Default)]
struct Told {
    produced: Produced,
    /// A rule is for it.
    is_known: bool,
    /// Text rules that found something, and the last of them.
    texts: usize,
    text_rule: usize,
    /// It told more than text.
    told_more: bool,
    ended: bool,
    /// What it tells of an answer that is made in the background.
    background: Option<Background>,
    failed: bool,
    /// It opens something: nothing of it was generated.
    opens: bool,
    /// Its text came in one piece.
    whole: bool,
}

impl ShapeReader {
    pub(in crate::llm) fn new(shape: Arc<Shape>) -> Self {
        let children = shape.children.iter().map(Child::new).collect();
        Self {
            shape,
            children,
            gathers: false,
            said: String::new(),
            streamed: false,
            before: (0, 0),
            met_earlier: false,
            only_text: None,
        }
    }

    /// Whether `data` is a word that ends streams; of `[DONE]` alone it is no success where others are expected.
    fn is_done(&self, data: &[u8], reading: &mut Reading) -> bool {
        let is_own = self.shape.done.as_ref().is_some_and(|done| done.as_bytes() == data);
        if !is_own && data != DONE.as_bytes() {
            return false;
        }
        reading.normal_end |= is_own || (self.shape.done.is_none() && !self.shape.ends);
        true
    }

    fn rules(&mut self, shape: &Shape, seen: Seen<'_, '_>, reading: &mut Reading) -> Told {
        let mut told = Told::default();
        let gathers = self.gathers || !shape.cumulative.is_empty();
        for (at, rule) in shape.rules.iter().enumerate() {
            if rule.when.as_ref().is_some_and(|when| !when.fits(seen)) {
                continue;
            }
            told.is_known |= rule.when.is_some();
            match &rule.says {
                Says::Text(role, spot, _) => {
                    let said = gathers.then_some(&mut self.said);
                    let text = text(seen, *spot, *role, said);
                    if text > Produced::Nothing {
                        (told.texts, told.text_rule) = (told.texts + 1, at);
                    }
                    told.is_known |= text > Produced::Nothing;
                    told.produced = told.produced.max(text);
                }
                Says::Whole(spot) => self.whole(seen, *spot, &mut told),
                Says::Error(spots) => told.failed |= error(rule, spots, seen, reading),
                says => tell(says, shape, seen, reading, &mut told),
            }
        }
        told
    }

    /// What the rules say of an event, and of those inside of it.
    fn rules_and_insides(&mut self, seen: Seen<'_, '_>, reading: &mut Reading) -> Told {
        let shape = Arc::clone(&self.shape);
        let taken = shape.calls.as_ref().and_then(|calls| calls.taken(seen, &mut self.met_earlier));
        if let Some(taken) = taken {
            reading.take_calls(taken);
        }
        let mut told = self.rules(&shape, seen, reading);
        self.insides(&shape, seen, reading, &mut told);
        if taken.is_some() {
            reading.take_calls(Taken::Whole);
        }
        if let Some(calls) = shape.calls.as_ref().filter(|calls| calls.ends(seen)) {
            reading.end_call(calls.id(seen));
        }
        told
    }

    /// What comes in one piece is new where nothing of it was streamed.
    fn whole(&mut self, seen: Seen<'_, '_>, spot: Spot, told: &mut Told) {
        told.told_more = true;
        let mut text_of_it = String::new();
        let text = text(seen, spot, Role::Answer, Some(&mut text_of_it));
        if text > Produced::Nothing && !std::mem::take(&mut self.streamed) {
            told.produced = told.produced.max(text);
            told.whole = true;
            if self.gathers {
                self.said.push_str(&text_of_it);
            }
        }
    }

    fn insides(&mut self, shape: &Shape, seen: Seen<'_, '_>, reading: &mut Reading, told: &mut Told) {
        let gathers = self.gathers || !shape.cumulative.is_empty();
        for inside in shape.insides.iter().filter(|inside| inside.when.fits(seen)) {
            (told.is_known, told.told_more) = (true, true);
            let Some(child) = self.children.get_mut(inside.child) else { continue };
            let name = inside.name.and_then(|spot| seen.value(spot)).map(word).unwrap_or_default();
            for value in seen.all(inside.spot) {
                let decoded;
                let data = match inside.coding {
                    Coding::Plain => value.as_bytes(),
                    Coding::Json => {
                        decoded = word(value).into_bytes();
                        &decoded
                    }
                    Coding::Base64 => {
                        decoded = BASE64_STANDARD.decode(word(value)).unwrap_or_default();
                        &decoded
                    }
                };
                let event = Event { name: name.as_bytes(), data, id: &[] };
                let ended = reading.normal_end;
                let said = gathers.then_some(&mut self.said);
                let produced = match &shape.calls {
                    Some(calls) if !child.tells_calls => {
                        reading.within_call(calls.id(seen), |reading| child.event(event, reading, said))
                    }
                    _ => child.event(event, reading, said),
                };
                told.produced = told.produced.max(produced);
                reading.normal_end = ended || (reading.normal_end && inside.ends);
            }
        }
    }

    /// Of an event whose text begins with what the last one said only the rest is new.
    fn cumulate(&mut self, seen: Seen<'_, '_>, told: &mut Told) {
        if told.produced <= Produced::Unknown || !self.shape.cumulative.iter().any(|when| when.fits(seen)) {
            return;
        }
        told.told_more = true;
        let (len, hash) = self.before;
        self.before = (self.said.len(), hashed(&self.said));
        let repeats = len > 0 && self.said.get(..len).is_some_and(|start| hashed(start) == hash);
        if repeats {
            self.said.drain(..len);
        }
        if repeats && self.said.is_empty() {
            told.produced = Produced::Nothing;
        }
    }
}

impl Reader for ShapeReader {
    fn event(&mut self, event: Event<'_>, reading: &mut Reading) -> Produced {
        self.only_text = None;
        self.said.clear();
        if self.is_done(event.data.trim_ascii(), reading) {
            return Produced::Nothing;
        }
        let mut found = Found::default();
        if let Ok(json) = std::str::from_utf8(event.data) {
            self.shape.tree.find(json, &mut found);
        }
        let seen = Seen { event, found: &found };
        let mut told = self.rules_and_insides(seen, reading);
        reading.normal_end |= told.ended;
        if let Some(background) = told.background {
            reading.background = background;
        }
        if told.failed {
            return Produced::Nothing;
        }
        if self.shape.guesses && !told.is_known {
            let guess = guess(event, self.gathers.then_some(&mut self.said));
            if let Some(usage) = guess.usage {
                reading.usage.update(usage);
            }
            if guess.produced > Produced::Unknown && !told.told_more {
                self.only_text = guess.text_key.map(Finder::Key);
            }
            return guess.produced;
        }
        if told.opens {
            self.said.clear();
            return Produced::Nothing;
        }
        self.cumulate(seen, &mut told);
        let is_token = told.produced > Produced::Unknown;
        self.streamed |= is_token && !told.whole;
        if is_token && !told.told_more && told.texts == 1 {
            self.only_text = Some(Finder::Rule(told.text_rule));
        }
        if told.produced == Produced::Nothing && !told.is_known { Produced::Unknown } else { told.produced }
    }

    fn varying(&self) -> Option<Varying<'_>> {
        let text = match self.only_text? {
            Finder::Key(key) => key,
            Finder::Rule(at) => match self.shape.rules.get(at) {
                Some(Rule { says: Says::Text(_, _, Some(key)), .. }) => key.as_str(),
                _ => return None,
            },
        };
        Some(Varying { text, noise: None })
    }

    fn gather(&mut self) {
        self.gathers = true;
    }

    fn said(&self) -> Option<&str> {
        self.gathers.then_some(&self.said)
    }

    fn end(&mut self, reading: &mut Reading) {
        reading.normal_end |= self.shape.done.is_none() && !self.shape.ends;
    }

    fn closing(&self, _: &Reading, closing: &mut Closing) -> bool {
        if let Some(done) = &self.shape.done {
            closing.data(done);
        }
        !self.shape.ends
    }
}

impl Child {
    fn new(code: &Code) -> Self {
        let reader: Box<dyn Reader> = match code {
            Code::Shape(shape) => Box::new(ShapeReader::new(Arc::clone(shape))),
            Code::Dialect(dialect) => dialect.reader(&StreamRules::default()),
        };
        Self { reader, texts: AnswerTexts::default(), gathers: false, tells_calls: code.tells_calls() }
    }

    fn event(&mut self, event: Event<'_>, reading: &mut Reading, said: Option<&mut String>) -> Produced {
        if said.is_some() && !std::mem::replace(&mut self.gathers, true) {
            self.reader.gather();
        }
        let produced = self.reader.event(event, reading);
        if let Some(said) = said {
            match self.reader.said() {
                Some(text) => said.push_str(text),
                None => self.texts.event(event, |text| said.push_str(text)),
            }
        }
        // The shape around it knows the event.
        if produced == Produced::Unknown { Produced::Nothing } else { produced }
    }
}

/// Does what a rule says that is for no text.
fn tell(says: &Says, shape: &Shape, seen: Seen<'_, '_>, reading: &mut Reading, told: &mut Told) {
    match says {
        Says::End => told.ended = true,
        Says::Runs => told.background = Some(Background::Running),
        Says::Ran => told.background = Some(Background::Ended),
        Says::Start => told.opens = true,
        Says::Work => told.produced = told.produced.max(Produced::Work),
        Says::Usage(spot) => {
            let Some(counts) = seen.all(*spot).into_iter().filter_map(Counts::read).next_back() else { return };
            note_usage(shape, seen, reading, |usage| usage.update(counts));
            told.is_known = true;
        }
        Says::Counts(counts) => {
            let Some(counts) = told_counts(counts, seen) else { return };
            note_usage(shape, seen, reading, |usage| usage.update(counts));
            told.is_known = true;
        }
        Says::Finish(spot) => {
            let Some(reason) = seen.value(*spot).filter(|value| is_filled(value.as_bytes())) else { return };
            let reason = word(reason);
            if !reading.finish_reasons.contains(&reason) {
                reading.note_finish_reason(Some(&reason));
            }
            told.is_known = true;
        }
        Says::Model(spot) => return reading.note_model(named(seen, *spot).as_deref()),
        Says::Id(spot) => return reading.note_id(named(seen, *spot).as_deref()),
        Says::Noise | Says::Text(..) | Says::Whole(_) | Says::Error(_) => return,
    }
    told.told_more = true;
}

/// An event that is chosen as an error is one, whatever it says of it.
fn error(rule: &Rule, spots: &[Spot], seen: Seen<'_, '_>, reading: &mut Reading) -> bool {
    let found = spots.iter().find_map(|spot| match spot {
        Spot::Data => Some(String::from_utf8_lossy(seen.event.data).into_owned()),
        _ => read_value::<Fault>(seen.value(*spot)?)?.0,
    });
    let found = found.or_else(|| rule.when.is_some().then(|| "the stream told of a failure".to_owned()));
    if let Some(error) = &found {
        reading.note_error(error);
    }
    found.is_some()
}

fn text(seen: Seen<'_, '_>, spot: Spot, role: Role, mut said: Option<&mut String>) -> Produced {
    match spot {
        Spot::At(slot) => {
            let values = seen.found.all(slot);
            values.map(|value| produced(value, role, said.as_deref_mut())).max().unwrap_or_default()
        }
        Spot::Name | Spot::Id => Produced::Nothing,
        Spot::Data if seen.event.data.is_empty() => Produced::Nothing,
        Spot::Data => {
            if let Some(said) = said {
                said.push_str(&String::from_utf8_lossy(seen.event.data));
            }
            if role == Role::Reasoning { Produced::Reasoning } else { Produced::Answer }
        }
    }
}

/// Notes usage: of the call that it is of, where the shape tells calls apart.
fn note_usage(shape: &Shape, seen: Seen<'_, '_>, reading: &mut Reading, tell: impl FnOnce(&mut Usage)) {
    match &shape.calls {
        Some(calls) => reading.note_call(calls.id(seen), tell),
        None => tell(&mut reading.usage),
    }
}

/// Counts that stand each for itself. `None` where none stands there.
fn told_counts(counts: &CountSlots, seen: Seen<'_, '_>) -> Option<Usage> {
    let number = |value: &str| serde_json::from_str::<Number>(value).ok().and_then(Number::count);
    let sum = |slots: &[CountSlot]| {
        let told = slots.iter().filter_map(|at| match at.adds {
            true => seen.found.all(at.slot).filter_map(number).reduce(u64::saturating_add),
            false => number(seen.found.last(at.slot)?),
        });
        told.reduce(u64::saturating_add)
    };
    let told = Usage {
        input: sum(&counts.input),
        cached_input: sum(&counts.cached_input),
        cache_write: sum(&counts.cache_write),
        output: sum(&counts.output),
        reasoning: sum(&counts.reasoning),
        ..Usage::default()
    };
    (told != Usage::default()).then_some(told)
}

/// A value as a word: a string without its quotes, all else as it is written.
fn word(value: &str) -> String {
    match serde_json::from_str::<Word<'_>>(value) {
        Ok(Word(Some(word))) => word.into_owned(),
        _ => value.to_owned(),
    }
}

fn named(seen: Seen<'_, '_>, spot: Spot) -> Option<String> {
    seen.value(spot).filter(|value| value.starts_with('"') && value.len() > 2).map(word)
}
