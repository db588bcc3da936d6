//! OpenAI `/chat/completions`, and the legacy `/completions`: also vLLM, SGLang, llama.cpp and most others.
//!
//! A token is a delta with content, a refusal, a tool call or reasoning; the role chunk and empty deltas are none. The
//! last usage that comes counts: asked for, it stands in the last chunk, and vLLM can put it on each. `[DONE]` alone is no
//! success, since vLLM sends it after errors too: every choice that began must have told its finish reason, or usage must
//! stand right before it, as Snowflake has it.

pub(super) mod usage;

use serde::Deserialize;
use serde::de::SeqAccess;
use serde_json::json;

use super::closing_events::Closing;
use super::reader::Reader;
use crate::llm::Reading;
use crate::llm::event_pattern::Varying;
use crate::llm::json::{Fault, Filled, Loose, Maybe, Number, Word, each, loose, read_object};
use crate::llm::reading::Produced;
use crate::llm::sse::Event;
use usage::{Groq, Metrics, Timings, Tokens};

#[derive(Debug, Default)]
pub(super) struct OpenAiChat {
    /// One bit a choice; all from the 128th on share the last.
    begun: u128,
    finished: u128,
    created: u64,
    /// Choices have a `text`, as the legacy `/completions` has them.
    is_legacy: bool,
    told_usage: bool,
    /// The last chunk told usage: what follows it can be the end.
    usage_last: bool,
    /// The key of the one text that the last chunk told.
    only_text: Option<&'static str>,
}

/// A chunk of a stream, or a whole answer: the same but for `delta`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Chunk<'a> {
    #[serde(borrow)]
    id: Word<'a>,
    model: Word<'a>,
    created: Number,
    choices: Choices<'a>,
    usage: Maybe<Tokens>,
    /// Of Groq, which tells usage and what broke a stream in there.
    x_groq: Maybe<Groq>,
    /// Of vLLM.
    metrics: Maybe<Metrics>,
    /// Of llama.cpp.
    timings: Maybe<Timings>,
    error: Fault,
}

/// All choices of one chunk, folded while they are read.
#[derive(Default)]
struct Choices<'a> {
    /// There is a list of them, if an empty one.
    are_there: bool,
    produced: Produced,
    is_legacy: bool,
    begun: u128,
    finish_reasons: Vec<(u128, Word<'a>)>,
    only_text: Option<&'static str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Choice<'a> {
    index: Number,
    delta: Maybe<Delta>,
    /// Of the legacy `/completions`.
    text: Filled,
    #[serde(borrow)]
    finish_reason: Word<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Content,
    refusal: Filled,
    tool_calls: Filled,
    function_call: Filled,
    reasoning_content: Filled,
    reasoning: Filled,
    reasoning_details: Details,
}

/// A text; of Mistral also a list of parts, some of which may be thinking.
#[derive(Default)]
struct Content(Produced);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Part<'a> {
    #[serde(borrow, rename = "type")]
    kind: Word<'a>,
    text: Filled,
    thinking: Filled,
}

/// Reasoning in parts, of OpenRouter and MiniMax: whether one has text. Signatures and what is encrypted are none.
#[derive(Default)]
struct Details(bool);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Detail {
    text: Filled,
    summary: Filled,
}

impl Reader for OpenAiChat {
    fn event(&mut self, event: Event<'_>, reading: &mut Reading) -> Produced {
        self.only_text = None;
        if event.data.trim_ascii() == b"[DONE]" {
            reading.normal_end = self.all_finished() || self.usage_last;
            return Produced::Nothing;
        }
        let Some(chunk) = read_object::<Chunk<'_>>(event.data) else { return Produced::Unknown };
        reading.note_id(chunk.id.filled());
        reading.note_model(chunk.model.filled());
        if let Some(error) = chunk.error.0.as_ref().or(chunk.of_groq().and_then(|groq| groq.error.0.as_ref())) {
            reading.note_error(error);
        }
        self.note_usage(&chunk, reading);
        chunk.note_times(reading);
        self.only_text = chunk.only_text();
        self.created = chunk.created.count().unwrap_or(self.created);
        self.is_legacy |= chunk.choices.is_legacy;
        self.begun |= chunk.choices.begun;
        for (choice, reason) in &chunk.choices.finish_reasons {
            // Some backends repeat the reason on the usage chunk.
            if self.finished & choice == 0 {
                self.finished |= choice;
                reading.note_finish_reason(reason.filled());
            }
        }
        let is_known = chunk.choices.are_there || chunk.usage.0.is_some() || chunk.error.0.is_some();
        if is_known { chunk.choices.produced } else { Produced::Unknown }
    }

    fn varying(&self) -> Option<Varying<'_>> {
        // OpenAI pads its chunks, so that their lengths do not tell the text's.
        self.only_text.map(|text| Varying { text, noise: Some("obfuscation") })
    }

    fn end(&mut self, reading: &mut Reading) {
        // Several backends never send `[DONE]`: after the last finish reason an orderly end of the body is the end.
        reading.normal_end |= self.all_finished();
    }

    fn closing(&self, reading: &Reading, closing: &mut Closing) -> bool {
        let open = self.begun & !self.finished;
        let mut choices = Vec::new();
        for index in (0..128_u32).filter(|index| open >> index & 1 == 1) {
            let mut choice = json!({"index": index, "logprobs": null, "finish_reason": "length"});
            let (key, value) = if self.is_legacy { ("text", json!("")) } else { ("delta", json!({})) };
            if let Some(fields) = choice.as_object_mut() {
                fields.insert(key.to_owned(), value);
            }
            choices.push(choice);
        }
        if self.begun == 0 {
            return false;
        }
        if !choices.is_empty() {
            let object = if self.is_legacy { "text_completion" } else { "chat.completion.chunk" };
            closing.event(
                "",
                &json!({
                    "id": reading.response_id,
                    "object": object,
                    "created": self.created,
                    "model": reading.response_model,
                    "choices": choices,
                }),
            );
        }
        closing.data("[DONE]");
        true
    }
}

impl OpenAiChat {
    fn note_usage(&mut self, chunk: &Chunk<'_>, reading: &mut Reading) {
        self.usage_last = chunk.usage.0.is_some();
        if let Some(tokens) = chunk.tokens() {
            reading.usage = if chunk.choices.are_there { tokens.usage() } else { tokens.usage_of_input() };
            self.told_usage = true;
        } else if !self.told_usage
            && let Some(usage) = chunk.timings.0.as_ref().and_then(Timings::usage)
        {
            reading.usage = usage;
        }
    }

    fn all_finished(&self) -> bool {
        self.finished != 0 && self.begun & !self.finished == 0
    }
}

impl Chunk<'_> {
    fn of_groq(&self) -> Option<&Groq> {
        self.x_groq.0.as_ref()
    }

    /// The key of its text, where it told that alone.
    fn only_text(&self) -> Option<&'static str> {
        let tells_more = self.usage.0.is_some()
            || self.x_groq.0.is_some()
            || self.metrics.0.is_some()
            || self.timings.0.is_some()
            || self.error.0.is_some()
            || !self.choices.finish_reasons.is_empty();
        self.choices.only_text.filter(|_| !tells_more)
    }

    fn tokens(&self) -> Option<&Tokens> {
        self.usage.0.as_ref().or_else(|| self.of_groq()?.usage.0.as_ref())
    }

    fn note_times(&self, reading: &mut Reading) {
        let metrics = self.metrics.0.as_ref().map(Metrics::times);
        let timings = self.timings.0.as_ref().map(Timings::times);
        for times in [self.tokens().map(Tokens::times), metrics, timings].into_iter().flatten() {
            reading.note_server(times);
        }
    }
}

impl Delta {
    fn produced(&self) -> Produced {
        let answers = self.tool_calls.0 || self.refusal.0 || self.function_call.0;
        let reasons = self.reasoning_content.0 || self.reasoning.0 || self.reasoning_details.0;
        if answers {
            Produced::Answer
        } else {
            self.content.0.max(if reasons { Produced::Reasoning } else { Produced::Nothing })
        }
    }
}

impl Delta {
    /// The key of its text, where it has nothing else.
    fn only_text(&self) -> Option<&'static str> {
        let texts = [
            ("content", self.content.0 > Produced::Nothing),
            ("reasoning_content", self.reasoning_content.0),
            ("reasoning", self.reasoning.0),
            // Of calls the arguments alone vary; they are written with escapes.
            ("", self.refusal.0 || self.tool_calls.0 || self.function_call.0 || self.reasoning_details.0),
        ];
        let mut filled = texts.into_iter().filter(|(_, filled)| *filled).map(|(key, _)| key);
        filled.next().filter(|key| !key.is_empty() && filled.next().is_none())
    }
}

impl Part<'_> {
    fn produced(&self) -> Produced {
        match self.kind.filled() {
            Some("thinking") if self.thinking.0 => Produced::Reasoning,
            Some("text") if !self.text.0 => Produced::Nothing,
            Some("thinking") => Produced::Nothing,
            _ => Produced::Answer,
        }
    }
}

impl Choice<'_> {
    fn only_text(&self) -> Option<&'static str> {
        match &self.delta.0 {
            Some(delta) => delta.only_text().filter(|_| !self.text.0),
            None => self.text.0.then_some("text"),
        }
    }

    fn produced(&self) -> Produced {
        if self.text.0 { Produced::Answer } else { self.delta.0.as_ref().map(Delta::produced).unwrap_or_default() }
    }
}

impl<'de> Loose<'de> for Content {
    fn text(text: &str) -> Self {
        Self(if text.is_empty() { Produced::Nothing } else { Produced::Answer })
    }

    fn number(_: f64) -> Self {
        Self(Produced::Answer)
    }

    fn array<A: SeqAccess<'de>>(items: A) -> Result<Self, A::Error> {
        let mut produced = Produced::Nothing;
        each(items, |part: Part<'_>| produced = produced.max(part.produced()))?;
        Ok(Self(produced))
    }
}

impl<'de> Loose<'de> for Details {
    fn array<A: SeqAccess<'de>>(items: A) -> Result<Self, A::Error> {
        let mut has_text = false;
        each(items, |detail: Detail| has_text |= detail.text.0 || detail.summary.0)?;
        Ok(Self(has_text))
    }
}

loose!(Content, Details);

impl<'de: 'a, 'a> Loose<'de> for Choices<'a> {
    fn array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        let mut choices = Self { are_there: true, ..Self::default() };
        while let Some(item) = items.next_element::<Maybe<Choice<'a>>>()? {
            let Some(choice) = item.0 else { continue };
            let bit = 1 << choice.index.count().unwrap_or_default().min(127);
            choices.only_text = choice.only_text().filter(|_| choices.begun == 0);
            choices.begun |= bit;
            choices.is_legacy |= choice.text.0;
            choices.produced = choices.produced.max(choice.produced());
            if choice.finish_reason.filled().is_some() {
                choices.finish_reasons.push((bit, choice.finish_reason));
            }
        }
        Ok(choices)
    }
}

loose!(Choices<'a>);
