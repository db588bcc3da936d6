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
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Number,
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
        Usage {
            input: self.prompt_tokens.count(),
            cached_input: prompt
                .and_then(|details| details.cached_tokens.count())
                .or_else(|| self.prompt_cache_hit_tokens.count()),
            cache_write: prompt.and_then(PromptDetails::cache_write),
            output: self.completion_tokens.count(),
            reasoning: completion.and_then(|details| details.reasoning_tokens.count()),
            ..Usage::default()
        }
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
