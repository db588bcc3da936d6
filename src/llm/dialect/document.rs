//! Whole answers that their dialect's reader does not know: those of providers with a shape of their own, and of operations
//! beside the chat. Their usage has many names, which all mean one of a few numbers.

use serde::Deserialize;
use serde::de::SeqAccess;

use super::counts::Counts;
use crate::llm::json::{Loose, Maybe, Number, Word, loose, read_object};
use crate::llm::{Reading, Usage};

/// Fills in what `reading` lacks of the answer `json`.
pub(in crate::llm) fn complete(json: &[u8], reading: &mut Reading) {
    if reading.usage.is_known() || reading.error.is_some() {
        return;
    }
    let Some(answer) = read_object::<Answer<'_>>(json) else { return };
    let usage = answer.usage();
    if !usage.is_known() {
        return;
    }
    reading.note_id(answer.id.filled());
    reading.note_model(answer.model.filled());
    if reading.finish_reasons.is_empty() {
        reading.note_finish_reason(answer.finish_reason());
    }
    reading.usage = usage;
}

/// The outermost object.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer<'a> {
    id: Word<'a>,
    model: Word<'a>,
    object: Word<'a>,
    /// Of Gemini's interactions.
    status: Word<'a>,
    /// Of Cohere and others.
    finish_reason: Word<'a>,
    stop_reason: Word<'a>,
    /// Of Bedrock.
    #[serde(borrow, rename = "stopReason")]
    bedrock_stop_reason: Word<'a>,
    usage: Counts,
    /// Of Cohere's first version, of its embeddings and rankings.
    meta: Counts,
    /// Of Replicate and others.
    metrics: Counts,
    /// Of Titan's embeddings.
    #[serde(rename = "inputTextTokenCount")]
    input_text: Number,
    /// Of watsonx and Titan: one an answer.
    results: Results,
    /// Of Workers AI, which wraps what others send.
    result: Maybe<Wrapped>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wrapped {
    usage: Counts,
}

/// All results of an answer as one.
#[derive(Default)]
struct Results(Counts);

impl Answer<'_> {
    fn finish_reason(&self) -> Option<&str> {
        let told = [&self.finish_reason, &self.stop_reason, &self.bedrock_stop_reason];
        let told = told.into_iter().find_map(Word::filled);
        told.or_else(|| self.status.filled().filter(|_| self.object.is("interaction")))
    }

    fn usage(&self) -> Usage {
        let wrapped = self.result.0.as_ref().map(|result| result.usage).unwrap_or_default();
        let places = [self.usage, self.meta, self.metrics, wrapped, self.results.0];
        let told = places.iter().map(Counts::usage).find(Usage::is_known);
        // What generates nothing may tell a total alone.
        let total = || places.iter().find_map(|place| place.total.count());
        let told = told.unwrap_or_else(|| Usage { input: total(), ..Usage::default() });
        Usage { input: told.input.or(self.input_text.count()), ..told }
    }
}

impl<'de> Loose<'de> for Results {
    fn array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        let mut first = Counts::default();
        while let Some(item) = items.next_element::<Counts>()? {
            first.fill(item);
        }
        Ok(Self(first))
    }
}

loose!(Results);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> [Option<u64>; 5] {
        let mut reading = Reading::default();
        complete(json.as_bytes(), &mut reading);
        let Usage { input, cached_input, cache_write, output, reasoning, .. } = reading.usage;
        [input, cached_input, cache_write, output, reasoning]
    }

    #[test]
    fn every_providers_names_are_known() {
        let n = Some;
        let vectors = [
            // Bedrock: what went through a cache stands outside.
            (
                r#"{"output":{},"stopReason":"end_turn","usage":{"inputTokens":9,"outputTokens":4,"totalTokens":13}}"#,
                [n(9), None, None, n(4), None],
            ),
            (
                r#"{"usage":{"inputTokens":9,"outputTokens":4,"cacheReadInputTokens":100,"cacheWriteInputTokens":20}}"#,
                [n(129), n(100), n(20), n(4), None],
            ),
            (
                r#"{"inputTextTokenCount":7,"results":[{"tokenCount":3,"outputText":"x"}]}"#,
                [n(7), None, None, n(3), None],
            ),
            (r#"{"embedding":[1,2],"inputTextTokenCount":7}"#, [n(7), None, None, None, None]),
            // Gemini's interactions: thoughts stand outside.
            (
                r#"{"object":"interaction","usage":{"total_input_tokens":9,"total_cached_tokens":1,"total_output_tokens":4,
                    "total_thought_tokens":6,"total_tokens":19}}"#,
                [n(9), n(1), None, n(10), n(6)],
            ),
            // Cohere: what the model read and wrote, else what is billed.
            (
                r#"{"usage":{"billed_units":{"input_tokens":3,"output_tokens":4},"tokens":{"input_tokens":60,"output_tokens":5},
                    "cached_tokens":32}}"#,
                [n(60), n(32), None, n(5), None],
            ),
            (r#"{"meta":{"billed_units":{"input_tokens":3}}}"#, [n(3), None, None, None, None]),
            (r#"{"meta":{"billed_units":{"search_units":1}}}"#, [None; 5]),
            // Rerankers and embedders.
            (r#"{"data":[],"usage":{"total_tokens":26}}"#, [n(26), None, None, None, None]),
            // watsonx, DashScope, Workers AI, Replicate.
            (
                r#"{"results":[{"generated_text":"x","generated_token_count":4,"input_token_count":9}]}"#,
                [n(9), None, None, n(4), None],
            ),
            (r#"{"output":{},"usage":{"input_tokens":9,"output_tokens":4}}"#, [n(9), None, None, n(4), None]),
            (
                r#"{"result":{"response":"x","usage":{"prompt_tokens":9,"completion_tokens":4}}}"#,
                [n(9), None, None, n(4), None],
            ),
            (r#"{"metrics":{"input_token_count":9,"output_token_count":4}}"#, [n(9), None, None, n(4), None]),
            // Details, and what is no count.
            (
                r#"{"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":8},
                    "completion_tokens_details":{"reasoning_tokens":2}}}"#,
                [n(9), n(8), None, n(4), n(2)],
            ),
            (r#"{"usage":{"requests":9},"results":["a",{}],"meta":[1],"metrics":"m"}"#, [None; 5]),
            ("[1]", [None; 5]),
            ("", [None; 5]),
        ];
        for (json, expected) in vectors {
            assert_eq!(read(json), expected, "{json}");
        }
    }

    #[test]
    fn what_is_known_stays() {
        let known = Usage { output: Some(1), ..Usage::default() };
        let mut reading = Reading { usage: known, ..Reading::default() };
        complete(br#"{"model":"m","usage":{"input_tokens":9}}"#, &mut reading);
        assert_eq!((reading.usage, reading.response_model), (known, None));
        let mut reading = Reading { finish_reasons: vec!["stop".into()], ..Reading::default() };
        complete(br#"{"status":"completed","object":"interaction","model":"m"}"#, &mut reading);
        assert_eq!(reading.response_model, None, "what tells no usage is no answer that is known here");
        complete(
            br#"{"status":"completed","object":"interaction","model":"m","usage":{"total_tokens":1}}"#,
            &mut reading,
        );
        assert_eq!((reading.finish_reasons, reading.response_model.as_deref()), (vec!["stop".to_owned()], Some("m")));
    }

    #[test]
    fn any_depth_is_survived() {
        let deep = format!("{{\"usage\":{}1{}}}", "{\"a_details\":".repeat(10_000), "}".repeat(10_000));
        assert_eq!(read(&deep), [None; 5]);
    }
}
