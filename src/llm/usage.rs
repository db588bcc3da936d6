//! Token usage, normalised to the same numbers over all dialects.

use crate::words::worded;

/// How many tokens one answer took. A number that the upstream did not tell is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, those read from a cache included.
    pub input: Option<u64>,
    /// The part of `input` that was read from a cache.
    pub cached_input: Option<u64>,
    /// Tokens written to a cache.
    pub cache_write: Option<u64>,
    /// Generated tokens, reasoning included.
    pub output: Option<u64>,
    /// The part of `output` that was reasoning.
    pub reasoning: Option<u64>,
    /// The part of `input` that was sound and not read from a cache.
    pub input_audio: Option<u64>,
    /// The part of `output` that was sound.
    pub output_audio: Option<u64>,
}

impl Usage {
    /// Whether anything is known at all.
    pub fn is_known(&self) -> bool {
        self.input.is_some() || self.output.is_some()
    }

    /// Both together; what one of them did not tell is what the other told.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        Self {
            input: sum(self.input, other.input),
            cached_input: sum(self.cached_input, other.cached_input),
            cache_write: sum(self.cache_write, other.cache_write),
            output: sum(self.output, other.output),
            reasoning: sum(self.reasoning, other.reasoning),
            input_audio: sum(self.input_audio, other.input_audio),
            output_audio: sum(self.output_audio, other.output_audio),
        }
    }

    /// Takes over what `later` tells.
    pub(super) fn update(&mut self, later: Self) {
        self.input = later.input.or(self.input);
        self.cached_input = later.cached_input.or(self.cached_input);
        self.cache_write = later.cache_write.or(self.cache_write);
        self.output = later.output.or(self.output);
        self.reasoning = later.reasoning.or(self.reasoning);
        self.input_audio = later.input_audio.or(self.input_audio);
        self.output_audio = later.output_audio.or(self.output_audio);
    }
}

worded! {
    /// Where the numbers of a [`Usage`] come from, the best first.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
    pub enum UsageSource {
        /// The upstream reported it.
        Reported = "reported",
        /// Our tokenizer counted prompt and answer, or what of it the upstream did not report.
        Counted = "counted",
        /// A part of it is a guess from bytes or frames.
        Estimated = "estimated",
        /// Nobody knows.
        #[default]
        Missing = "missing",
        /// The response is made in the background, and tells its usage when it has ended.
        Pending = "pending",
        /// None is told here: the answer is one that was booked before, and is only handed out again.
        Delivery = "delivery",
    }
}
