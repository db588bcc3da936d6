//! What a request says of how it wants to be answered, and in which conversation: for telemetry alone.

use serde::de::{IgnoredAny, MapAccess, SeqAccess};

use super::lenient_json;
use crate::llm::json::{Loose, Maybe, Number, Word, loose, member};
use crate::llm::reading::{TEXT_LIMIT, cut};

/// Stop sequences that are kept at most.
const STOPS_MAX: usize = 8;

/// The most bytes kept of a stop sequence, and of a reasoning level.
const WORD_MAX: usize = 64;

/// Beyond this a number may have come as another whole one.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// The parameters that the GenAI conventions name, from the body in any dialect. Of a key that comes twice the last counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    pub seed: Option<i64>,
    pub top_k: Option<i64>,
    pub frequency_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    /// The first 8, each bounded to 64 bytes.
    pub stop_sequences: Vec<String>,
    /// How hard the model is to think, as the request has it; bounded to 64 bytes.
    pub reasoning_level: Option<String>,
    /// `text`, `json`, `image` or `speech` (`gen_ai.output.type`), where a form was asked for.
    pub output_type: Option<&'static str>,
    /// Of a conversation, session or thread that the request names; bounded to 256 bytes, as is the next.
    pub conversation_id: Option<String>,
    pub previous_response_id: Option<String>,
}

impl Details {
    /// Reads the value of `key`, where that is one of a parameter. False: it is not, and its value is not read.
    pub(super) fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, fields: &mut A) -> Result<bool, A::Error> {
        // Gemini and Bedrock write `topK`, all others `top_k`.
        let folded = lenient_json::fold(key);
        match folded.as_deref().unwrap_or(key) {
            "seed" => self.seed = whole(fields.next_value()?),
            "top_k" | "topk" => self.top_k = whole(fields.next_value()?),
            "frequency_penalty" | "frequencypenalty" => self.frequency_penalty = fields.next_value::<Number>()?.get(),
            "presence_penalty" | "presencepenalty" => self.presence_penalty = fields.next_value::<Number>()?.get(),
            "stop" | "stop_sequences" | "stopsequences" => self.stop_sequences = fields.next_value::<Stops>()?.0,
            "reasoning_effort" => self.reasoning_level = kept(&fields.next_value()?, WORD_MAX),
            "reasoning" | "output_config" => {
                let level = fields.next_value::<Maybe<Effort>>()?.0.and_then(|effort| effort.0);
                self.reasoning_level = level.or(self.reasoning_level.take());
            }
            "response_format" | "format" | "text" | "responsemimetype" | "response_mime_type" => {
                let Form(form) = fields.next_value()?;
                self.output_type = form.or(self.output_type);
            }
            "modalities" | "responsemodalities" | "response_modalities" => {
                let Modalities(modality) = fields.next_value()?;
                self.output_type = modality.or(self.output_type);
            }
            "conversation" | "conversation_id" | "conversationid" | "thread_id" | "threadid" | "session_id"
            | "sessionid" => {
                let Id(id) = fields.next_value()?;
                self.conversation_id = id.or(self.conversation_id.take());
            }
            "previous_response_id" | "previous_interaction_id" => {
                self.previous_response_id = kept(&fields.next_value()?, TEXT_LIMIT);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What an object inside the body says counts where the body itself says nothing.
    pub(super) fn fill(&mut self, other: Self) {
        self.seed = self.seed.or(other.seed);
        self.top_k = self.top_k.or(other.top_k);
        self.frequency_penalty = self.frequency_penalty.or(other.frequency_penalty);
        self.presence_penalty = self.presence_penalty.or(other.presence_penalty);
        if self.stop_sequences.is_empty() {
            self.stop_sequences = other.stop_sequences;
        }
        self.reasoning_level = self.reasoning_level.take().or(other.reasoning_level);
        self.output_type = self.output_type.or(other.output_type);
    }

    /// What an operation is for says which form is wanted.
    pub(super) fn of_operation(&mut self, operation: Option<&'static str>) {
        match operation {
            Some("image_generation" | "image_edit" | "image_variation") => self.output_type = Some("image"),
            Some("speech") => self.output_type = Some("speech"),
            // Their `response_format` is what the text is wrapped in.
            Some("transcription" | "translation") => self.output_type = None,
            _ => {}
        }
    }
}

fn whole(number: Number) -> Option<i64> {
    number.get().filter(|value| value.fract() == 0.0 && value.abs() <= WHOLE_MAX).map(|value| value as i64)
}

fn kept(word: &Word<'_>, limit: usize) -> Option<String> {
    word.filled().map(|word| cut(word, limit).to_owned())
}

/// One text, or a list of them.
#[derive(Default)]
struct Stops(Vec<String>);

impl<'de> Loose<'de> for Stops {
    fn text(text: &str) -> Self {
        Self(vec![cut(text, WORD_MAX).to_owned()])
    }

    fn array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        let mut stops = Vec::new();
        while let Some(item) = items.next_element::<Word<'_>>()? {
            if stops.len() < STOPS_MAX {
                stops.extend(kept(&item, WORD_MAX));
            }
        }
        Ok(Self(stops))
    }
}

/// `{"effort": "low"}`, OpenAI's and Anthropic's.
#[derive(Default)]
struct Effort(Option<String>);

impl<'de> Loose<'de> for Effort {
    fn object<A: MapAccess<'de>>(fields: A) -> Result<Self, A::Error> {
        Ok(Self(kept(&member(fields, "effort")?, WORD_MAX)))
    }
}

/// A wish for a form: a word, a MIME type, an object with a type or a format of its own, or a JSON schema.
#[derive(Default)]
struct Form(Option<&'static str>);

impl<'de> Loose<'de> for Form {
    fn text(text: &str) -> Self {
        Self(match text {
            "json" | "json_object" | "json_schema" | "application/json" => Some("json"),
            "text" | "text/plain" => Some("text"),
            _ => None,
        })
    }

    fn object<A: MapAccess<'de>>(mut fields: A) -> Result<Self, A::Error> {
        let (mut form, mut is_schema) = (None, false);
        while let Some(key) = fields.next_key::<Word<'_>>()? {
            match key.0.as_deref() {
                // Of a JSON schema the type is that of its values.
                Some("type") => {
                    let kind: Word<'_> = fields.next_value()?;
                    is_schema |= kind.is("object") || kind.is("array");
                    form = form.or(kind.filled().and_then(|kind| Self::text(kind).0));
                }
                Some("format") => form = fields.next_value::<Self>()?.0.or(form),
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Self(form.or(is_schema.then_some("json"))))
    }
}

/// The kinds of output that may come; text comes with the others.
#[derive(Default)]
struct Modalities(Option<&'static str>);

impl<'de> Loose<'de> for Modalities {
    fn array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        let mut modality = None;
        while let Some(item) = items.next_element::<Word<'_>>()? {
            let told = item.filled().and_then(|word| match word {
                word if word.eq_ignore_ascii_case("image") => Some("image"),
                word if word.eq_ignore_ascii_case("audio") => Some("speech"),
                word if word.eq_ignore_ascii_case("text") => Some("text"),
                _ => None,
            });
            modality = match (modality, told) {
                (None | Some("text"), Some(told)) => Some(told),
                (known, _) => known,
            };
        }
        Ok(Self(modality))
    }
}

/// An id, or an object with one.
#[derive(Default)]
struct Id(Option<String>);

impl<'de> Loose<'de> for Id {
    fn text(text: &str) -> Self {
        Self((!text.is_empty()).then(|| cut(text, TEXT_LIMIT).to_owned()))
    }

    fn object<A: MapAccess<'de>>(fields: A) -> Result<Self, A::Error> {
        Ok(Self(kept(&member(fields, "id")?, TEXT_LIMIT)))
    }
}

loose!(Stops, Effort, Form, Modalities, Id);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::llm::RequestFacts;

    use super::*;

    fn read(path: &str, body: &Value) -> Details {
        RequestFacts::read(path, Some(body.to_string().as_bytes())).details
    }

    #[test]
    fn parameters_are_read_in_every_dialect() {
        let expected = Details {
            seed: Some(7),
            top_k: Some(40),
            frequency_penalty: Some(0.5),
            presence_penalty: Some(-0.5),
            stop_sequences: vec!["END".to_owned(), "STOP".to_owned()],
            output_type: Some("json"),
            ..Details::default()
        };
        let flat = json!({ "model": "m", "messages": [], "seed": 7, "top_k": 40, "frequency_penalty": 0.5, "presence_penalty": -0.5,
            "stop": ["END", "STOP"], "response_format": { "type": "json_schema", "json_schema": { "type": "object" } } });
        let ollama = json!({ "model": "m", "messages": [], "format": { "type": "object", "properties": {} }, "options": { "seed": 7, "top_k": 40,
            "frequency_penalty": 0.5, "presence_penalty": -0.5, "stop": ["END", "STOP"] } });
        let gemini = json!({ "contents": [], "generationConfig": { "seed": 7, "topK": 40, "frequencyPenalty": 0.5, "presencePenalty": -0.5,
            "stopSequences": ["END", "STOP"], "responseMimeType": "application/json" } });
        for (path, body) in [
            ("/v1/chat/completions", flat),
            ("/api/chat", ollama),
            ("/v1beta/models/gemini-pro:generateContent", gemini),
        ] {
            assert_eq!(read(path, &body), expected, "{body}");
        }
        let one = read("/v1/chat/completions", &json!({ "messages": [], "stop": "END" }));
        assert_eq!(one.stop_sequences, ["END"]);
    }

    #[test]
    fn the_form_of_the_output_is_told_where_it_was_asked_for() {
        for (path, body, output_type) in [
            ("/v1/chat/completions", json!({ "messages": [] }), None),
            ("/v1/chat/completions", json!({ "messages": [], "response_format": { "type": "text" } }), Some("text")),
            ("/v1/chat/completions", json!({ "messages": [], "modalities": ["text", "audio"] }), Some("speech")),
            (
                "/v1/responses",
                json!({ "model": "m", "input": "x", "text": { "format": { "type": "json_object" } } }),
                Some("json"),
            ),
            ("/api/generate", json!({ "model": "m", "prompt": "x", "format": "json" }), Some("json")),
            (
                "/v1/images/generations",
                json!({ "model": "m", "prompt": "x", "response_format": "b64_json" }),
                Some("image"),
            ),
            ("/v1/audio/speech", json!({ "model": "m", "input": "x", "response_format": "mp3" }), Some("speech")),
            (
                "/v1beta/models/g:generateContent",
                json!({ "contents": [], "generationConfig": { "responseModalities": ["TEXT", "IMAGE"] } }),
                Some("image"),
            ),
        ] {
            assert_eq!(read(path, &body).output_type, output_type, "{body}");
        }
    }

    #[test]
    fn conversations_are_those_that_the_request_names() {
        for (body, id) in [
            (json!({ "input": "x", "model": "m", "conversation": "conv_1" }), Some("conv_1")),
            (json!({ "input": "x", "model": "m", "conversation": { "id": "conv_1" } }), Some("conv_1")),
            (json!({ "messages": [], "threadId": "conv_1" }), Some("conv_1")),
            (json!({ "messages": [], "session_id": "conv_1" }), Some("conv_1")),
            (json!({ "messages": [], "id": "conv_1" }), None),
            (json!({ "messages": [], "session_id": 7 }), None),
        ] {
            assert_eq!(read("/v1/responses", &body).conversation_id.as_deref(), id, "{body}");
        }
        let body = json!({ "model": "m", "input": "x", "previous_response_id": "resp_1", "reasoning": { "effort": "low", "summary": "auto" } });
        let details = read("/v1/responses", &body);
        assert_eq!(details.previous_response_id.as_deref(), Some("resp_1"));
        assert_eq!(details.reasoning_level.as_deref(), Some("low"));
    }

    #[test]
    fn foreign_values_are_bounded_and_odd_ones_read_as_absent() {
        let long = "ä".repeat(10_000);
        let body = json!({ "messages": [], "stop": vec![long.clone(); 100], "conversation_id": long, "reasoning_effort": long,
            "previous_response_id": long });
        let details = read("/v1/chat/completions", &body);
        assert_eq!(details.stop_sequences.len(), 8);
        assert!(details.stop_sequences.iter().all(|stop| stop.len() <= 64));
        assert_eq!(details.conversation_id.map(|id| id.len()), Some(256));
        assert_eq!(details.previous_response_id.map(|id| id.len()), Some(256));
        assert_eq!(details.reasoning_level.map(|level| level.len()), Some(64));
        let odd = json!({ "messages": [], "seed": 1.5, "top_k": "40", "stop": 7, "response_format": 1, "modalities": "x", "reasoning": "deep",
            "frequency_penalty": null, "conversation": ["x"] });
        assert_eq!(read("/v1/chat/completions", &odd), Details::default());
        assert_eq!(read("/v1/chat/completions", &json!({ "messages": [], "seed": u64::MAX })).seed, None);
    }
}
