//! Token counts under the names that providers and frameworks give them: many names, which all mean one of a few numbers.

use serde::de::{IgnoredAny, MapAccess, SeqAccess};

use super::modalities::Sound;
use super::openai_chat::usage::output;
use crate::llm::Usage;
use crate::llm::json::{Loose, Number, Word, loose};

/// Counts as they were told. Of one that comes twice the last counts; those in groups and what is billed only fill gaps.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::llm) struct Counts {
    input: Number,
    output: Number,
    pub(super) total: Number,
    /// Inside of the input.
    cached: Number,
    cache_write: Number,
    /// Inside of the output, or beside it, as the total shows.
    reasoning: Number,
    /// A second says how long the sound was that a model heard; its tokens are in the total alone.
    sound_seconds: Number,
    /// Sound: of the group that is read, and inside of the input, of what of it was cached, and of the output.
    sound: Number,
    heard: Number,
    cached_sound: Number,
    spoken: Number,
    beside: Beside,
}

/// What the input and the output do not include.
#[derive(Debug, Clone, Copy, Default)]
struct Beside {
    cache_read: Number,
    cache_write: Number,
    thoughts: Number,
    tool_use: Number,
}

impl Counts {
    /// The usage that an object tells, or a number of output tokens. `None`: it tells none.
    pub(super) fn read(value: &str) -> Option<Usage> {
        let usage = match serde_json::from_str(value).ok()? {
            number if Number::get(number).is_some() => Usage { output: number.count(), ..Usage::default() },
            _ => serde_json::from_str::<Self>(value).ok()?.usage(),
        };
        (usage != Usage::default()).then_some(usage)
    }

    pub(in crate::llm) fn usage(&self) -> Usage {
        let Beside { cache_read, cache_write, thoughts, tool_use } = self.beside;
        let plus = |sum: u64, beside: Number| sum.saturating_add(beside.count().unwrap_or_default());
        let output = output(self.input, self.output, self.reasoning.count(), self.total);
        let output = output.map(|output| plus(output, thoughts)).or(thoughts.count().filter(|thoughts| *thoughts > 0));
        let input = self.input.count().map(|input| [cache_read, cache_write, tool_use].into_iter().fold(input, plus));
        let hears = self.sound_seconds.count().is_some_and(|seconds| seconds > 0);
        let rest = self.total.count().filter(|_| hears).map(|total| total.saturating_sub(output.unwrap_or_default()));
        let cached_sound = self.cached_sound.count().unwrap_or_default();
        Usage {
            input: input.map(|input| input.max(rest.unwrap_or_default())),
            cached_input: self.cached.count().or(cache_read.count()),
            cache_write: self.cache_write.count().or(cache_write.count()),
            output,
            reasoning: self.reasoning.count().or(thoughts.count()),
            input_audio: self.heard.count().map(|heard| heard.saturating_sub(cached_sound)),
            output_audio: self.spoken.count(),
        }
    }

    /// Where `key` is kept; `None`: it is no count.
    fn slot(&mut self, key: &str) -> Option<&mut Number> {
        Some(match key {
            "prompt_tokens" | "input_tokens" | "promptTokens" | "inputTokens" | "promptTokenCount"
            | "inputTokenCount" | "prompt_token_count" | "input_token_count" | "total_input_tokens"
            | "prompt_eval_count" => &mut self.input,
            "output_tokens" | "completionTokens" | "outputTokens" | "generated_tokens" | "output_token_count"
            | "outputTokenCount" | "tokenCount" | "eval_count" | "completion_tokens" => &mut self.output,
            "total_output_tokens" | "generated_token_count" | "candidates_token_count" | "candidatesTokenCount" => {
                &mut self.output
            }
            "total_tokens" | "totalTokens" | "total_token_count" | "totalTokenCount" => &mut self.total,
            "cached_tokens" | "cachedTokens" | "cache_read" | "cachedInputTokens" | "cacheReadTokens"
            | "cache_read_tokens" => &mut self.cached,
            "total_cached_tokens" | "cached_input_tokens" | "cachedContentTokenCount" => &mut self.cached,
            "cached_content_token_count" | "prompt_cache_hit_tokens" => &mut self.cached,
            "cache_creation" | "cache_write_tokens" | "cacheWriteTokens" => &mut self.cache_write,
            "reasoning_tokens" | "reasoningTokens" | "reasoning" => &mut self.reasoning,
            "prompt_audio_seconds" => &mut self.sound_seconds,
            "audio_tokens" => &mut self.sound,
            "cacheReadInputTokens" | "cache_read_input_tokens" | "cacheReadInputTokenCount" => {
                &mut self.beside.cache_read
            }
            "cacheWriteInputTokens" | "cache_creation_input_tokens" | "cacheWriteInputTokenCount" => {
                &mut self.beside.cache_write
            }
            "total_thought_tokens" | "thoughtsTokenCount" | "thoughts_token_count" => &mut self.beside.thoughts,
            "total_tool_use_tokens" | "toolUsePromptTokenCount" => &mut self.beside.tool_use,
            _ => return None,
        })
    }

    /// Fills gaps.
    pub(super) fn fill(&mut self, other: Self) {
        let fill = |number: &mut Number, other: Number| *number = number.or(other);
        fill(&mut self.input, other.input);
        fill(&mut self.output, other.output);
        fill(&mut self.total, other.total);
        fill(&mut self.cached, other.cached);
        fill(&mut self.cache_write, other.cache_write);
        fill(&mut self.reasoning, other.reasoning);
        fill(&mut self.sound_seconds, other.sound_seconds);
        fill(&mut self.heard, other.heard);
        fill(&mut self.cached_sound, other.cached_sound);
        fill(&mut self.spoken, other.spoken);
        fill(&mut self.beside.cache_read, other.beside.cache_read);
        fill(&mut self.beside.cache_write, other.beside.cache_write);
        fill(&mut self.beside.thoughts, other.beside.thoughts);
        fill(&mut self.beside.tool_use, other.beside.tool_use);
    }

    /// Takes over a group of counts, whose name says of what its sound is a part.
    fn group(&mut self, name: &str, group: Self) {
        let of = match name {
            _ if name.starts_with("cache") => &mut self.cached_sound,
            _ if ["prompt", "input", "tool"].iter().any(|of| name.starts_with(of)) => &mut self.heard,
            _ => &mut self.spoken,
        };
        if let Some(sound) = group.sound.get() {
            *of = Number::of(sound + of.get().unwrap_or_default());
        }
        self.fill(group);
    }
}

/// Whether counts inside of `key` are such as those beside it.
fn is_group(key: &str) -> bool {
    key == "tokens" || key.ends_with("_details") || key.ends_with("Details")
}

impl<'de> Loose<'de> for Counts {
    /// As Google tells them by modality.
    fn array<A: SeqAccess<'de>>(items: A) -> Result<Self, A::Error> {
        let Sound(sound) = Sound::array(items)?;
        Ok(Self { sound: sound.map_or_else(Number::default, |tokens| Number::of(tokens as f64)), ..Self::default() })
    }

    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let (mut counts, mut billed) = (Self::default(), Self::default());
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            let key = key.0.as_deref().unwrap_or_default();
            if let Some(slot) = counts.slot(key) {
                *slot = fields.next_value::<Number>()?.or(*slot);
            } else if key == "billed_units" {
                billed = fields.next_value()?;
            } else if is_group(key) {
                counts.group(key, fields.next_value()?);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        counts.fill(billed);
        Ok(counts)
    }
}

loose!(Counts);

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(json: &str) -> Option<[Option<u64>; 5]> {
        let usage = Counts::read(json)?;
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
            usage.update(Counts::read(json).unwrap());
            assert_eq!((usage.input, usage.input_audio, usage.output_audio), (Some(9), Some(4), Some(4)));
        }
        for json in ["null", "{}", "{\"total\":1}", "\"7\"", "nope"] {
            assert_eq!(usage(json), None, "{json}");
        }
    }
}
