//! Gemini `:streamGenerateContent`: events with `?alt=sse`, else one JSON array that grows; and `:generateContent`.
//!
//! Each piece is a whole response object with what is new. The last usage counts, and generated tokens stand outside
//! those of thoughts. There is no `[DONE]`: a stream has ended when every candidate told its finish reason, or it was
//! blocked, which can come after text too.

use serde::Deserialize;
use serde::de::SeqAccess;
use serde_json::json;

use super::closing_events::Closing;
use super::modalities::Sound;
use super::reader::Reader;
use crate::llm::json::{Fault, Filled, Flag, Loose, Maybe, Number, Word, each, loose, read_object};
use crate::llm::reading::Produced;
use crate::llm::sse::Event;
use crate::llm::{Reading, Usage};

#[derive(Debug, Default)]
pub(super) struct Gemini {
    /// One bit a candidate; all from the 128th on share the last.
    begun: u128,
    finished: u128,
    blocked: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Piece<'a> {
    #[serde(borrow)]
    candidates: Candidates<'a>,
    prompt_feedback: Maybe<Feedback<'a>>,
    usage_metadata: Maybe<Tokens>,
    model_version: Word<'a>,
    response_id: Word<'a>,
    error: Fault,
}

/// All candidates of one piece, folded while they are read.
#[derive(Default)]
struct Candidates<'a> {
    /// There is a list of them, if an empty one.
    are_there: bool,
    produced: Produced,
    begun: u128,
    finish_reasons: Vec<(u128, FinishReason<'a>)>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Candidate<'a> {
    index: Number,
    content: Maybe<Content>,
    #[serde(borrow)]
    finish_reason: FinishReason<'a>,
}

/// A word; of Vertex AI also the number that stands for it.
#[derive(Default)]
struct FinishReason<'a>(Word<'a>);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Content {
    parts: Parts,
}

/// What all parts hold, the greatest.
#[derive(Default)]
struct Parts(Produced);

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Part {
    text: Filled,
    thought: Flag,
    function_call: Filled,
    /// A tool that runs at the server.
    tool_call: Filled,
    inline_data: Filled,
    file_data: Filled,
    executable_code: Filled,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Feedback<'a> {
    #[serde(borrow)]
    block_reason: Word<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Tokens {
    prompt_token_count: Number,
    tool_use_prompt_token_count: Number,
    cached_content_token_count: Number,
    candidates_token_count: Number,
    thoughts_token_count: Number,
    prompt_tokens_details: Sound,
    tool_use_prompt_tokens_details: Sound,
    cache_tokens_details: Sound,
    candidates_tokens_details: Sound,
}

impl Reader for Gemini {
    fn event(&mut self, event: Event<'_>, reading: &mut Reading) -> Produced {
        let Some(piece) = read_object::<Piece<'_>>(event.data) else { return Produced::Unknown };
        reading.note_id(piece.response_id.filled());
        reading.note_model(piece.model_version.filled());
        if let Some(error) = &piece.error.0 {
            reading.note_error(error);
        }
        if let Some(tokens) = &piece.usage_metadata.0 {
            reading.usage = tokens.usage();
        }
        self.begun |= piece.candidates.begun;
        for (candidate, reason) in &piece.candidates.finish_reasons {
            // Some versions repeat the reason on each piece.
            if self.finished & candidate == 0 {
                self.finished |= candidate;
                reading.note_finish_reason(reason.0.filled());
            }
        }
        let blocked = piece.prompt_feedback.0.as_ref().and_then(|feedback| feedback.block_reason.filled());
        self.blocked |= blocked.is_some();
        if blocked.is_some() && reading.finish_reasons.is_empty() {
            reading.note_finish_reason(blocked);
        }
        let all_finished = !reading.finish_reasons.is_empty() && self.begun & !self.finished == 0;
        reading.normal_end = all_finished || self.blocked;
        let is_known = piece.candidates.are_there
            || piece.usage_metadata.0.is_some()
            || piece.prompt_feedback.0.is_some()
            || piece.error.0.is_some();
        if is_known { piece.candidates.produced } else { Produced::Unknown }
    }

    fn closing(&self, reading: &Reading, closing: &mut Closing) -> bool {
        let open = (self.begun & !self.finished).max(1);
        let candidates: Vec<_> = (0..128_u32)
            .filter(|index| open >> index & 1 == 1)
            .map(|index| {
                json!({
                    "content": {"parts": [{"text": ""}], "role": "model"},
                    "finishReason": "MAX_TOKENS",
                    "index": index,
                })
            })
            .collect();
        let mut piece = json!({ "candidates": candidates });
        for (key, value) in [("modelVersion", &reading.response_model), ("responseId", &reading.response_id)] {
            if let (Some(value), Some(fields)) = (value, piece.as_object_mut()) {
                fields.insert(key.to_owned(), json!(value));
            }
        }
        closing.event("", &piece);
        true
    }
}

impl Tokens {
    fn usage(&self) -> Usage {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or_default().saturating_add(b.unwrap_or_default())),
        };
        let heard = sum(self.prompt_tokens_details.0, self.tool_use_prompt_tokens_details.0);
        let cached_sound = self.cache_tokens_details.0.unwrap_or_default();
        Usage {
            input: sum(self.prompt_token_count.count(), self.tool_use_prompt_token_count.count()),
            cached_input: self.cached_content_token_count.count(),
            cache_write: None,
            output: sum(self.candidates_token_count.count(), self.thoughts_token_count.count()),
            reasoning: self.thoughts_token_count.count(),
            input_audio: heard.map(|heard| heard.saturating_sub(cached_sound)),
            output_audio: self.candidates_tokens_details.0,
        }
    }
}

impl Part {
    fn produced(&self) -> Produced {
        let thinks = self.thought.0 == Some(true);
        if self.text.0 && thinks {
            Produced::Reasoning
        } else if self.text.0 || self.calls() || self.inline_data.0 || self.file_data.0 || self.executable_code.0 {
            Produced::Answer
        } else {
            Produced::Nothing
        }
    }

    fn calls(&self) -> bool {
        self.function_call.0 || self.tool_call.0
    }
}

impl<'de> Loose<'de> for Parts {
    fn array<A: SeqAccess<'de>>(items: A) -> Result<Self, A::Error> {
        let mut produced = Produced::Nothing;
        each(items, |part: Part| produced = produced.max(part.produced()))?;
        Ok(Self(produced))
    }
}

impl<'de: 'a, 'a> Loose<'de> for Candidates<'a> {
    fn array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        let mut candidates = Self { are_there: true, ..Self::default() };
        while let Some(item) = items.next_element::<Maybe<Candidate<'a>>>()? {
            let Some(candidate) = item.0 else { continue };
            let bit = 1 << candidate.index.count().unwrap_or_default().min(127);
            candidates.begun |= bit;
            candidates.produced =
                candidates.produced.max(candidate.content.0.map_or(Produced::Nothing, |content| content.parts.0));
            if candidate.finish_reason.0.filled().is_some() {
                candidates.finish_reasons.push((bit, candidate.finish_reason));
            }
        }
        Ok(candidates)
    }
}

impl<'de: 'a, 'a> Loose<'de> for FinishReason<'a> {
    fn borrowed(text: &'de str) -> Self {
        Self(Word::borrowed(text))
    }

    fn text(text: &str) -> Self {
        Self(Word::text(text))
    }

    /// `FinishReason` of `google/cloud/aiplatform/v1/content.proto`.
    fn number(value: f64) -> Self {
        const WORDS: &str = " STOP MAX_TOKENS SAFETY RECITATION OTHER BLOCKLIST PROHIBITED_CONTENT SPII \
            MALFORMED_FUNCTION_CALL MODEL_ARMOR IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION IMAGE_OTHER \
            UNEXPECTED_TOOL_CALL NO_IMAGE";
        Self(Word::text(WORDS.split(' ').nth(value as usize).unwrap_or("OTHER")))
    }
}

loose!(Candidates<'a>);
loose!(FinishReason<'a>);
loose!(Parts);
