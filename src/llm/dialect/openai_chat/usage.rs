//! Usage and times, as OpenAI and those who followed it write them.

use serde::Deserialize;

use crate::llm::json::{Fault, Maybe, Number};
use crate::llm::{ServerTimings, Usage};

/// Groq's own, which tells usage and what broke a stream.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Groq {
    pub(super) usage: Maybe<Tokens>,
    pub(super) error: Fault,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Tokens {
    prompt_tokens: Number,
    completion_tokens: Number,
    total_tokens: Number,
    /// Of Mistral: the tokens of sound stand beside the prompt's, in the total alone.
    prompt_audio_seconds: Number,
    prompt_tokens_details: Maybe<PromptDetails>,
    completion_tokens_details: Maybe<CompletionDetails>,
    /// Of DeepSeek.
    prompt_cache_hit_tokens: Number,
    /// Of Groq, in seconds.
    queue_time: Number,
    prompt_time: Number,
    completion_time: Number,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Number,
    /// Of OpenRouter, LiteLLM and vLLM.
    cache_write_tokens: Number,
    cache_creation_tokens: Number,
    created_cache_tokens: Number,
    audio_tokens: Number,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Number,
    audio_tokens: Number,
}

/// vLLM's times of a request.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Metrics {
    queue_time_ms: Number,
    /// From when the request left the queue.
    time_to_first_token_ms: Number,
    generation_time_ms: Number,
}

/// llama.cpp's times and counts.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Timings {
    /// Tokens from the cache, tokens read, tokens written. Versions that do not tell the first do not tell the prompt's length.
    cache_n: Number,
    prompt_n: Number,
    predicted_n: Number,
    prompt_ms: Number,
    predicted_ms: Number,
}

impl Tokens {
    pub(super) fn usage(&self) -> Usage {
        let prompt = self.prompt_tokens_details.0.as_ref();
        let completion = self.completion_tokens_details.0.as_ref();
        let reasoning = completion.and_then(|details| details.reasoning_tokens.count());
        Usage {
            input: self.input(),
            cached_input: prompt
                .and_then(|details| details.cached_tokens.count())
                .or_else(|| self.prompt_cache_hit_tokens.count()),
            cache_write: prompt.and_then(PromptDetails::cache_write),
            output: output(self.prompt_tokens, self.completion_tokens, reasoning, self.total_tokens),
            reasoning,
            input_audio: prompt
                .and_then(|details| details.audio_tokens.count())
                .or_else(|| self.sound_beside_the_prompt()),
            output_audio: completion.and_then(|details| details.audio_tokens.count()),
        }
    }

    /// The usage of an answer that generates nothing, as of embeddings: all may be told as one total.
    pub(super) fn usage_of_input(&self) -> Usage {
        let usage = self.usage();
        let total = self.total_tokens.count().filter(|_| !usage.is_known());
        Usage { input: usage.input.or(total), ..usage }
    }

    fn input(&self) -> Option<u64> {
        let input = self.prompt_tokens.count()?;
        if self.prompt_audio_seconds.count().unwrap_or_default() == 0 {
            return Some(input);
        }
        // Without a total nobody knows how much the sound is.
        self.total_tokens.count()?;
        Some(input.saturating_add(self.sound_beside_the_prompt().unwrap_or_default()))
    }

    /// Mistral's tokens of sound: what the total has beyond the prompt's text and the answer.
    fn sound_beside_the_prompt(&self) -> Option<u64> {
        self.prompt_audio_seconds.count().filter(|seconds| *seconds > 0)?;
        let rest = self.total_tokens.count()?.saturating_sub(self.completion_tokens.count().unwrap_or_default());
        Some(rest.saturating_sub(self.prompt_tokens.count()?))
    }

    pub(super) fn times(&self) -> ServerTimings {
        ServerTimings {
            queue: self.queue_time.seconds(),
            prefill: self.prompt_time.seconds(),
            generation: self.completion_time.seconds(),
            ..ServerTimings::default()
        }
    }
}

/// The generated tokens. xAI counts reasoning beside the completion: there the total is the sum of all three.
pub(in crate::llm::dialect) fn output(
    prompt: Number,
    completion: Number,
    reasoning: Option<u64>,
    total: Number,
) -> Option<u64> {
    let completion = completion.count()?;
    let (Some(prompt), Some(reasoning), Some(total)) = (prompt.count(), reasoning, total.count()) else {
        return Some(completion);
    };
    let with_reasoning = completion.saturating_add(reasoning);
    let is_beside = reasoning > 0 && total == prompt.saturating_add(with_reasoning);
    Some(if is_beside { with_reasoning } else { completion })
}

impl Metrics {
    pub(super) fn times(&self) -> ServerTimings {
        ServerTimings {
            queue: self.queue_time_ms.millis(),
            prefill: self.time_to_first_token_ms.millis(),
            generation: self.generation_time_ms.millis(),
            ..ServerTimings::default()
        }
    }
}

impl PromptDetails {
    fn cache_write(&self) -> Option<u64> {
        let told = [self.cache_write_tokens, self.cache_creation_tokens, self.created_cache_tokens];
        told.into_iter().find_map(Number::count)
    }
}

impl Timings {
    pub(super) fn usage(&self) -> Option<Usage> {
        let cached = self.cache_n.count()?;
        Some(Usage {
            input: Some(self.prompt_n.count()?.saturating_add(cached)),
            cached_input: Some(cached),
            output: Some(self.predicted_n.count()?),
            ..Usage::default()
        })
    }
    pub(super) fn times(&self) -> ServerTimings {
        ServerTimings {
            prefill: self.prompt_ms.millis(),
            generation: self.predicted_ms.millis(),
            ..ServerTimings::default()
        }
    }
}
