//! OpenAI `/chat/completions`, and the legacy `/completions`: also vLLM, SGLang, llama.cpp and most others.
//!
//! A token is a delta with content, a refusal, a tool call or reasoning; the role chunk and empty deltas are none. The
//! last usage that comes counts: asked for, it stands in the last chunk, and vLLM can put it on each. `[DONE]` alone is no
//! success, since vLLM sends it after errors too: every choice that began must have told its finish reason.

use serde::Deserialize;
use serde::de::SeqAccess;
use serde_json::json;

use super::{Closing, Produced, Reader};
use crate::llm::json::{Fault, Filled, Loose, Maybe, Number, Word, loose, read_object};
use crate::llm::sse::Event;
use crate::llm::{Reading, ServerTimings, Usage};

#[derive(Debug, Default)]
pub(super) struct OpenAiChat {
    /// One bit a choice; all from the 128th on share the last.
    begun: u128,
    finished: u128,
    created: u64,
    /// Choices have a `text`, as the legacy `/completions` has them.
    is_legacy: bool,
}

/// A chunk of a stream, or a whole answer: the same but for `delta`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Chunk<'a> {
    #[serde(borrow)]
    id: Word<'a>,
    #[serde(borrow)]
    model: Word<'a>,
    created: Number,
    #[serde(borrow)]
    choices: Choices<'a>,
    usage: Maybe<Tokens>,
    /// Of vLLM.
    metrics: Maybe<Metrics>,
    /// Of llama.cpp.
    timings: Maybe<Timings>,
    error: Fault,
}

/// All choices of one chunk, folded while they are read.
#[derive(Default)]
struct Choices<'a> {
    produced: Produced,
    is_legacy: bool,
    begun: u128,
    finish_reasons: Vec<(u128, Word<'a>)>,
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
    content: Filled,
    refusal: Filled,
    tool_calls: Filled,
    function_call: Filled,
    reasoning_content: Filled,
    reasoning: Filled,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tokens {
    prompt_tokens: Number,
    completion_tokens: Number,
    prompt_tokens_details: Maybe<PromptDetails>,
    completion_tokens_details: Maybe<CompletionDetails>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Number,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Number,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metrics {
    queue_time_ms: Number,
    time_to_first_token_ms: Number,
    generation_time_ms: Number,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Timings {
    prompt_ms: Number,
    predicted_ms: Number,
}

impl Reader for OpenAiChat {
    fn event(&mut self, event: Event<'_>, reading: &mut Reading) -> Produced {
        if event.data.trim_ascii() == b"[DONE]" {
            reading.normal_end = self.all_finished();
            return Produced::Nothing;
        }
        let Some(chunk) = read_object::<Chunk<'_>>(event.data) else { return Produced::Nothing };
        reading.note_id(chunk.id.filled());
        reading.note_model(chunk.model.filled());
        if let Some(error) = &chunk.error.0 {
            reading.note_error(error);
        }
        if let Some(tokens) = &chunk.usage.0 {
            reading.usage = tokens.usage();
        }
        chunk.note_timings(reading);
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
        chunk.choices.produced
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
    fn all_finished(&self) -> bool {
        self.finished != 0 && self.begun & !self.finished == 0
    }
}

impl Chunk<'_> {
    fn note_timings(&self, reading: &mut Reading) {
        if let Some(metrics) = &self.metrics.0 {
            reading.note_server(ServerTimings {
                queue: metrics.queue_time_ms.millis(),
                time_to_first_token: metrics.time_to_first_token_ms.millis(),
                generation: metrics.generation_time_ms.millis(),
                ..ServerTimings::default()
            });
        }
        if let Some(timings) = &self.timings.0 {
            reading.note_server(ServerTimings {
                prefill: timings.prompt_ms.millis(),
                generation: timings.predicted_ms.millis(),
                ..ServerTimings::default()
            });
        }
    }
}

impl Tokens {
    fn usage(&self) -> Usage {
        let prompt = self.prompt_tokens_details.0.as_ref();
        let completion = self.completion_tokens_details.0.as_ref();
        Usage {
            input: self.prompt_tokens.count(),
            cached_input: prompt.and_then(|details| details.cached_tokens.count()),
            cache_write: None,
            output: self.completion_tokens.count(),
            reasoning: completion.and_then(|details| details.reasoning_tokens.count()),
        }
    }
}

impl Choice<'_> {
    fn produced(&self) -> Produced {
        let delta = self.delta.0.as_ref();
        let answers = |delta: &Delta| delta.content.0 || delta.tool_calls.0 || delta.refusal.0 || delta.function_call.0;
        if self.text.0 || delta.is_some_and(answers) {
            Produced::Answer
        } else if delta.is_some_and(|delta| delta.reasoning_content.0 || delta.reasoning.0) {
            Produced::Reasoning
        } else {
            Produced::Nothing
        }
    }
}

impl<'de: 'a, 'a> Loose<'de> for Choices<'a> {
    fn array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        let mut choices = Self::default();
        while let Some(item) = items.next_element::<Maybe<Choice<'a>>>()? {
            let Some(choice) = item.0 else { continue };
            let bit = 1 << choice.index.count().unwrap_or_default().min(127);
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
