//! Token counts under the keys that providers and frameworks give them.

use serde::de::{IgnoredAny, MapAccess, SeqAccess};

use crate::llm::Usage;
use crate::llm::dialect::modalities::Sound;
use crate::llm::json::{Loose, Number, Word, loose};

/// Counts as they were told. The last of each counts; what stands beside another is added.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Tokens {
    input: Option<u64>,
    output: Option<u64>,
    cached: Option<u64>,
    cache_write: Option<u64>,
    reasoning: Option<u64>,
    /// Sound, inside of the input and of what of it was cached, and of the output.
    heard: Option<u64>,
    cached_sound: Option<u64>,
    spoken: Option<u64>,
    /// Cache reads and writes that the input does not include.
    beside_input: u64,
    /// Reasoning that the output does not include.
    beside_output: u64,
}

impl Tokens {
    /// Counts that a usage object holds, or a number of output tokens. `None`: it holds none.
    pub(super) fn read(value: &str) -> Option<Self> {
        let tokens: Self = serde_json::from_str(value).ok()?;
        (tokens != Self::default()).then_some(tokens)
    }

    /// What is told last counts; what is not told stays.
    pub(super) fn note(&self, usage: &mut Usage) {
        let input = self.input.map(|input| input.saturating_add(self.beside_input));
        let output = self.output.or((self.beside_output > 0).then_some(0));
        let output = output.map(|output| output.saturating_add(self.beside_output));
        usage.input = input.or(usage.input);
        usage.output = output.or(usage.output);
        usage.cached_input = self.cached.or(usage.cached_input);
        usage.cache_write = self.cache_write.or(usage.cache_write);
        usage.reasoning = self.reasoning.or(usage.reasoning);
        let heard = self.heard.map(|heard| heard.saturating_sub(self.cached_sound.unwrap_or(0)));
        usage.input_audio = heard.or(usage.input_audio);
        usage.output_audio = self.spoken.or(usage.output_audio);
    }

    /// Takes what Google tells by modality under `key`.
    fn take_sound(&mut self, key: &str, Sound(sound): Sound) {
        let slot = match key {
            "promptTokensDetails" | "prompt_tokens_details" => &mut self.heard,
            "toolUsePromptTokensDetails" | "tool_use_prompt_tokens_details" => &mut self.heard,
            "cacheTokensDetails" | "cache_tokens_details" => &mut self.cached_sound,
            _ => &mut self.spoken,
        };
        *slot = sound.map(|sound| sound.saturating_add(slot.unwrap_or(0))).or(*slot);
    }

    fn take(&mut self, key: &str, count: Option<u64>) {
        match key {
            "prompt_tokens" | "input_tokens" | "promptTokens" | "inputTokens" | "promptTokenCount"
            | "prompt_token_count" | "input_token_count" | "inputTokenCount" | "total_input_tokens"
            | "prompt_eval_count" => self.input = count,
            "completion_tokens"
            | "output_tokens"
            | "completionTokens"
            | "outputTokens"
            | "candidatesTokenCount"
            | "candidates_token_count"
            | "generated_tokens"
            | "generated_token_count"
            | "outputTokenCount"
            | "total_output_tokens"
            | "eval_count" => self.output = count,
            // Inside of the input.
            "cached_tokens"
            | "cache_read"
            | "cachedContentTokenCount"
            | "cached_content_token_count"
            | "cachedInputTokens"
            | "cached_input_tokens"
            | "prompt_cache_hit_tokens"
            | "cache_read_tokens"
            | "total_cached_tokens" => self.cached = count,
            "cache_creation" | "cache_write_tokens" => self.cache_write = count,
            // Beside it, as Anthropic and Bedrock count.
            "cache_read_input_tokens" | "cacheReadInputTokens" | "cacheReadInputTokenCount" => {
                self.cached = count;
                self.beside_input = self.beside_input.saturating_add(count.unwrap_or(0));
            }
            "cache_creation_input_tokens" | "cacheWriteInputTokens" | "cacheWriteInputTokenCount" => {
                self.cache_write = count;
                self.beside_input = self.beside_input.saturating_add(count.unwrap_or(0));
            }
            "reasoning_tokens" | "reasoningTokens" | "reasoning" => self.reasoning = count,
            // Beside the output, as Google counts.
            "thoughtsTokenCount" | "thoughts_token_count" | "total_thought_tokens" => {
                self.reasoning = count;
                self.beside_output = count.unwrap_or(0);
            }
            _ => {}
        }
    }
}

impl<'de> Loose<'de> for Tokens {
    fn number(value: f64) -> Self {
        Self { output: Number::of(value).count(), ..Self::default() }
    }

    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let mut tokens = Self::default();
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            let key = key.0.as_deref().unwrap_or_default();
            match key {
                "prompt_tokens_details"
                | "completion_tokens_details"
                | "input_token_details"
                | "output_token_details"
                | "input_tokens_details"
                | "output_tokens_details"
                | "tokens" => {
                    let inner: Details = fields.next_value()?;
                    tokens.take_sound(key, inner.sound);
                    inner.counts.into_iter().for_each(|(key, count)| tokens.take(&key, count));
                }
                "promptTokensDetails"
                | "toolUsePromptTokensDetails"
                | "cacheTokensDetails"
                | "candidatesTokensDetails"
                | "tool_use_prompt_tokens_details"
                | "cache_tokens_details"
                | "candidates_tokens_details" => tokens.take_sound(key, fields.next_value()?),
                _ if key.to_ascii_lowercase().contains("token") || key.ends_with("eval_count") => {
                    tokens.take(key, fields.next_value::<Number>()?.count());
                }
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(tokens)
    }
}

/// The counts of an object inside of a usage; of Google a list by modality.
#[derive(Default)]
struct Details {
    counts: Vec<(String, Option<u64>)>,
    sound: Sound,
}

/// Counts of one object that are looked at.
const DETAILS_MAX: usize = 16;

impl<'de> Loose<'de> for Details {
    fn array<A: SeqAccess<'de>>(items: A) -> Result<Self, A::Error> {
        Ok(Self { sound: Sound::array(items)?, ..Self::default() })
    }

    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let mut counts = Vec::new();
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            let count = fields.next_value::<Number>()?.count();
            if counts.len() < DETAILS_MAX {
                counts.push((key.0.unwrap_or_default().into_owned(), count));
            }
        }
        Ok(Self { counts, ..Self::default() })
    }
}

loose!(Tokens, Details);

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(json: &str) -> Option<[Option<u64>; 5]> {
        let mut usage = Usage::default();
        Tokens::read(json)?.note(&mut usage);
        Some([usage.input, usage.cached_input, usage.cache_write, usage.output, usage.reasoning])
    }

    #[test]
    fn counts_are_known_by_their_usual_keys() {
        for (json, expected) in [
            ("7", [None, None, None, Some(7), None]),
            (
                r#"{"input_tokens":9,"output_tokens":5,"input_token_details":{"cache_read":4},"output_token_details":{"reasoning":2}}"#,
                [Some(9), Some(4), None, Some(5), Some(2)],
            ),
            (
                r#"{"inputTokens":9,"outputTokens":5,"totalTokens":20,"cacheReadInputTokens":4,"cacheWriteInputTokens":2}"#,
                [Some(15), Some(4), Some(2), Some(5), None],
            ),
            (
                r#"{"promptTokenCount":9,"candidatesTokenCount":5,"thoughtsTokenCount":3}"#,
                [Some(9), None, None, Some(8), Some(3)],
            ),
            (
                r#"{"billed_units":{"input_tokens":1},"tokens":{"input_tokens":9,"output_tokens":5},"cached_tokens":4}"#,
                [Some(9), Some(4), None, Some(5), None],
            ),
        ] {
            assert_eq!(usage(json), Some(expected), "{json}");
        }
        let by_modality = r#"{"promptTokenCount":9,"candidatesTokenCount":5,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":6}],
            "cacheTokensDetails":[{"modality":"AUDIO","tokenCount":2}],"candidatesTokensDetails":[{"modality":"AUDIO","tokenCount":4}]}"#;
        for json in [by_modality, &by_modality.replace("promptTokensDetails", "prompt_tokens_details")] {
            let mut usage = Usage::default();
            Tokens::read(json).unwrap().note(&mut usage);
            assert_eq!((usage.input, usage.input_audio, usage.output_audio), (Some(9), Some(4), Some(4)));
        }
        for json in ["null", "{}", "{\"total\":1}", "\"7\"", "nope"] {
            assert_eq!(usage(json), None, "{json}");
        }
    }
}
