//! The usage counters of the GenAI conventions.

use super::labels::Modality;
use crate::llm::Usage;
use crate::telemetry::record::LlmInfo;

/// Most tokens that one answer is believed to have taken: a number out of an upstream's text must not spoil a counter.
pub(super) const TOKENS_MAX: u64 = 1 << 30;

/// One of the counters `gen_ai.client.inference.usage.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Used {
    Input,
    Output,
    CacheRead,
    CacheWrite,
    Reasoning,
}

impl Used {
    pub(super) const ALL: [Self; 5] = [Self::Input, Self::Output, Self::CacheRead, Self::CacheWrite, Self::Reasoning];
}

/// What is to be added to which counter: 0 where nobody told, as the conventions want it.
pub(super) fn used(usage: &Usage) -> impl Iterator<Item = (Used, Modality, u64)> {
    let parted = |counter, all: Option<u64>, audio: Option<u64>| {
        let all = tokens(all);
        let audio = tokens(audio).min(all);
        [Some((counter, Modality::Unknown, all - audio)), (audio > 0).then_some((counter, Modality::Audio, audio))]
    };
    let whole = |counter, count| [Some((counter, Modality::Unknown, tokens(count))), None];
    [
        parted(Used::Input, usage.input, usage.input_audio),
        parted(Used::Output, usage.output, usage.output_audio),
        whole(Used::CacheRead, usage.cached_input),
        whole(Used::CacheWrite, usage.cache_write),
        whole(Used::Reasoning, usage.reasoning),
    ]
    .into_iter()
    .flatten()
    .flatten()
}

/// A count that may be believed; 0 where there is none.
pub(super) fn tokens(count: Option<u64>) -> u64 {
    count.unwrap_or_default().min(TOKENS_MAX)
}

/// Which of the conventions' groups of metrics a call belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// A model makes something.
    Inference,
    Embeddings,
    /// Reranking, moderation.
    Other,
}

impl Group {
    pub(super) fn of(llm: &LlmInfo) -> Self {
        match llm.request.operation {
            Some("embeddings") => Self::Embeddings,
            Some("rerank" | "moderation") => Self::Other,
            _ => Self::Inference,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_is_told_apart_and_what_nobody_told_is_nothing() {
        let usage = Usage {
            input: Some(100),
            input_audio: Some(30),
            cached_input: Some(40),
            output: Some(9),
            output_audio: Some(99),
            ..Usage::default()
        };
        let counted: Vec<_> = used(&usage).collect();
        assert_eq!(
            counted,
            [
                (Used::Input, Modality::Unknown, 70),
                (Used::Input, Modality::Audio, 30),
                (Used::Output, Modality::Unknown, 0),
                (Used::Output, Modality::Audio, 9),
                (Used::CacheRead, Modality::Unknown, 40),
                (Used::CacheWrite, Modality::Unknown, 0),
                (Used::Reasoning, Modality::Unknown, 0),
            ]
        );
        let nothing: Vec<_> = used(&Usage::default()).collect();
        assert_eq!(nothing, Used::ALL.map(|counter| (counter, Modality::Unknown, 0)));
        let absurd = Usage { input: Some(u64::MAX), ..Usage::default() };
        assert_eq!(used(&absurd).next(), Some((Used::Input, Modality::Unknown, 1 << 30)));
    }

    #[test]
    fn slots_have_their_places() {
        for (slot, counter) in Used::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, slot);
        }
        for (slot, modality) in Modality::ALL.into_iter().enumerate() {
            assert_eq!(modality as usize, slot);
        }
    }
}
