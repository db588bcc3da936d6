//! Token usage, normalised to the same numbers over all dialects.

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
}

/// Where the numbers of a [`Usage`] come from, the best first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsageSource {
    /// The upstream reported it.
    Reported,
    /// Our tokenizer counted prompt and answer, or what of it the upstream did not report.
    Counted,
    /// A part of it is a guess from bytes or frames.
    Estimated,
    /// Nobody knows.
    #[default]
    Missing,
    /// The response is made in the background, and tells its usage when it has ended.
    Pending,
    /// None is told here: the answer is one that was booked before, and is only handed out again.
    Delivery,
}

impl UsageSource {
    pub const ALL: [Self; 6] =
        [Self::Reported, Self::Counted, Self::Estimated, Self::Missing, Self::Pending, Self::Delivery];

    /// The word used in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Counted => "counted",
            Self::Estimated => "estimated",
            Self::Missing => "missing",
            Self::Pending => "pending",
            Self::Delivery => "delivery",
        }
    }
}
