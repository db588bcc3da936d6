//! The tokens of a prompt.

use super::Encoding;
use crate::llm::Dialect;
use crate::llm::request::lenient_json::fold;
use crate::llm::walk_texts::{Role, Sink, walk};

/// Bodies of more bytes are not counted: what a core does in a millisecond.
pub const PROMPT_MAX: usize = 32 << 10;

/// What each message of a chat takes beside its text, and what primes the answer: OpenAI's numbers, taken for all.
const MESSAGE_TOKENS: u64 = 3;
const PRIMER_TOKENS: u64 = 3;

/// What a picture, sound or file is taken for: OpenAI's price of a picture of 1024 × 1024 in high detail.
const MEDIA_TOKENS: u64 = 765;

/// How many tokens a prompt has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PromptCount {
    /// All of them: texts, tools and what stands between messages, and a guess for each of `media`.
    pub tokens: u64,
    /// Pictures, sounds and files, whose tokens are only guessed.
    pub media: u32,
}

/// How large a prompt is, as far as it takes to choose a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptSize {
    pub tokens: u64,
    /// A tokenizer counted all of it; else it is estimated.
    pub counted: bool,
}

/// Bytes of text a token, where nothing counts them: as for limits.
const BYTES_PER_TOKEN: u64 = 4;

impl PromptSize {
    /// The size of the prompt in a request's JSON body. It is estimated where [`count_prompt`] cannot count it, and where pictures, sounds
    /// or files are in it: by the bytes of its texts, or of all of it where no text is known.
    pub fn of(dialect: Option<Dialect>, model: Option<&str>, body: &[u8]) -> Self {
        let known = dialect.and_then(|dialect| Some((dialect, count_prompt(dialect, model, body)?)));
        if let Some((_, count)) = known {
            return Self { tokens: count.tokens, counted: count.media == 0 };
        }
        Self { tokens: estimate_prompt(dialect, body), counted: false }
    }
}

/// About how many tokens the prompt in a JSON body has, by the bytes of its texts.
fn estimate_prompt(dialect: Option<Dialect>, body: &[u8]) -> u64 {
    let mut prompt = Prompt { by: Measure::Bytes(0), count: PromptCount::default(), messages: 0 };
    let is_read = dialect.is_some() && walk(body, Role::Through, &mut prompt);
    match dialect.filter(|_| is_read) {
        Some(dialect) => prompt.finish(dialect).tokens,
        None => (body.len() as u64).div_ceil(BYTES_PER_TOKEN),
    }
}

/// Counts the prompt in a request's JSON body: the texts of messages, prompt, input, instructions and tools.
///
/// `None` where it cannot be counted in a millisecond: a body of more than [`PROMPT_MAX`] bytes or that is no JSON. Then
/// its bytes tell about how many tokens it is.
pub fn count_prompt(dialect: Dialect, model: Option<&str>, body: &[u8]) -> Option<PromptCount> {
    if body.len() > PROMPT_MAX {
        return None;
    }
    let by = Measure::Tokens(Encoding::of_model(model.unwrap_or_default()));
    let mut prompt = Prompt { by, count: PromptCount::default(), messages: 0 };
    walk(body, Role::Through, &mut prompt).then(|| prompt.finish(dialect))
}

struct Prompt {
    by: Measure,
    count: PromptCount,
    messages: u64,
}

/// What texts are measured with.
enum Measure {
    Tokens(Encoding),
    /// So many bytes so far.
    Bytes(u64),
}

impl Prompt {
    /// With what stands between messages, and a guess for media.
    fn finish(self, dialect: Dialect) -> PromptCount {
        let Self { by, mut count, messages } = self;
        let frame = match dialect {
            // What an app makes of its own request is not known.
            Dialect::PlainSse | Dialect::PlainText | Dialect::VercelUi | Dialect::VercelData => 0,
            _ if messages == 0 => 0,
            _ => messages * MESSAGE_TOKENS + PRIMER_TOKENS,
        };
        let estimated = match by {
            Measure::Tokens(_) => 0,
            Measure::Bytes(bytes) => bytes.div_ceil(BYTES_PER_TOKEN),
        };
        let beside = frame + estimated + u64::from(count.media) * MEDIA_TOKENS;
        count.tokens = count.tokens.saturating_add(beside);
        count
    }
}

impl Sink for Prompt {
    fn role(&self, key: &str, depth: usize) -> Role {
        match role(key, depth) {
            // Some backends read keys without regard to case.
            Role::Skip => fold(key).map_or(Role::Skip, |key| role(&key, depth)),
            role => role,
        }
    }

    fn text(&mut self, text: &str) {
        match &mut self.by {
            Measure::Tokens(encoding) => {
                self.count.tokens = self.count.tokens.saturating_add(encoding.count(text));
            }
            Measure::Bytes(bytes) => *bytes = bytes.saturating_add(text.len() as u64),
        }
    }

    fn message(&mut self) {
        self.messages += 1;
    }

    fn media(&mut self) {
        self.count.media = self.count.media.saturating_add(1);
    }

    fn token_id(&mut self) {
        self.count.tokens = self.count.tokens.saturating_add(1);
    }
}

/// What stands under `key`. The keys of all dialects in one place: no two mean different things by one.
fn role(key: &str, depth: usize) -> Role {
    match key {
        "messages" | "contents" => Role::Messages,
        // A request's own input is a prompt; deeper it is a tool's, as an object.
        "input" | "inputs" if depth == 1 => Role::Messages,
        "input" | "args" | "input_schema" | "response" => Role::Raw,
        "tools" | "functions" | "response_format" => Role::Raw,
        "content" | "text" | "parts" | "prompt" | "suffix" | "system" | "instructions" | "system_instruction"
        | "systemInstruction" | "thinking" | "reasoning_content" | "reasoning" | "refusal" | "arguments" | "output"
        | "name" | "query" => Role::Text,
        "tool_calls" | "function_call" | "functionCall" | "functionResponse" | "function" | "data" => Role::Through,
        "image_url" | "input_audio" | "audio" | "image" | "images" | "source" | "inline_data" | "inlineData"
        | "file" | "file_data" | "fileData" => Role::Media,
        _ => Role::Skip,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(dialect: Dialect, body: &str) -> Option<PromptCount> {
        count_prompt(dialect, Some("gpt-4o"), body.as_bytes())
    }

    /// Tokens of the given texts, as one message each would have them.
    fn texts(texts: &[&str]) -> u64 {
        texts.iter().map(|text| Encoding::O200k.count(text)).sum()
    }

    #[test]
    fn chats_are_counted_in_every_dialect() {
        let vectors = [
            (
                Dialect::OpenAiChat,
                r#"{"model":"x","messages":[{"role":"system","content":"Be brief."},
                {"role":"user","content":[{"type":"text","text":"How deep is the river?"}]}],"user":"not counted"}"#,
                2,
            ),
            (
                Dialect::Anthropic,
                r#"{"system":"Be brief.","messages":[{"role":"user","content":"How deep is the river?"}]}"#,
                1,
            ),
            (Dialect::Ollama, r#"{"model":"x","system":"Be brief.","prompt":"How deep is the river?"}"#, 0),
            (
                Dialect::OpenAiChat,
                r#"{"instructions":"Be brief.","input":[{"role":"user","content":
                [{"type":"input_text","text":"How deep is the river?"}]}]}"#,
                1,
            ),
            (
                Dialect::OpenAiChat,
                r#"{"systemInstruction":{"parts":[{"text":"Be brief."}]},
                "contents":[{"role":"user","parts":[{"text":"How deep is the river?"}]}]}"#,
                1,
            ),
            (Dialect::PlainSse, r#"{"messages":[{"content":"Be brief."},{"content":"How deep is the river?"}]}"#, 0),
        ];
        for (dialect, body, messages) in vectors {
            let frame = if messages == 0 { 0 } else { messages * 3 + 3 };
            let expected = texts(&["Be brief.", "How deep is the river?"]) + frame;
            assert_eq!(count(dialect, body), Some(PromptCount { tokens: expected, media: 0 }), "{body}");
        }
    }

    #[test]
    fn tools_count_as_they_are_written() {
        let tools = r#"[{"type":"function","function":{"name":"depth","parameters":{"type":"object"}}}]"#;
        let body = format!(r#"{{"tools":{tools},"messages":[]}}"#);
        assert_eq!(count(Dialect::OpenAiChat, &body).map(|count| count.tokens), Some(texts(&[tools])));
        let body = r#"{"messages":[{"content":[{"type":"tool_use","id":"t","input":{"at":"bridge"}}]},
            {"content":[{"type":"tool_result","content":"2 m"}]}]}"#;
        let expected = texts(&[r#"{"at":"bridge"}"#, "2 m"]) + 9;
        assert_eq!(count(Dialect::Anthropic, body).map(|count| count.tokens), Some(expected));
    }

    #[test]
    fn media_are_guessed_and_never_read() {
        let data = "QUJD".repeat(2_000);
        for body in [
            format!(r#"{{"messages":[{{"content":[{{"type":"image_url","image_url":{{"url":"data:{data}"}}}}]}}]}}"#),
            format!(r#"{{"messages":[{{"content":[{{"type":"image","source":{{"data":"{data}"}}}}]}}]}}"#),
            format!(r#"{{"messages":[{{"content":"","images":["{data}"]}}]}}"#),
            format!(r#"{{"contents":[{{"parts":[{{"inline_data":{{"mime_type":"image/png","data":"{data}"}}}}]}}]}}"#),
        ] {
            let expected = Some(PromptCount { tokens: 6 + 765, media: 1 });
            assert_eq!(count(Dialect::OpenAiChat, &body), expected, "{}", body.get(..60).unwrap_or_default());
        }
    }

    #[test]
    fn token_ids_are_tokens() {
        let tokens = |body| count(Dialect::OpenAiChat, body).map(|count| count.tokens);
        assert_eq!(tokens(r#"{"prompt":[1,2,3]}"#), Some(3));
        assert_eq!(tokens(r#"{"input":[[1,2],[3]]}"#), Some(3));
        assert_eq!(tokens(r#"{"input":["river","river"]}"#), Some(texts(&["river", "river"])));
    }

    #[test]
    fn what_cannot_be_counted_is_left_to_its_bytes() {
        for body in ["", "{", "{\"prompt\":\"x\"} y", "\u{1}"] {
            assert_eq!(count(Dialect::OpenAiChat, body), None, "{body}");
        }
        let large = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(PROMPT_MAX));
        assert_eq!(count(Dialect::OpenAiChat, &large), None);
        let deep = format!(r#"{{"prompt":{}1{}}}"#, "[".repeat(1_000), "]".repeat(1_000));
        assert_eq!(count(Dialect::OpenAiChat, &deep), None, "depth costs no stack");
    }

    #[test]
    fn a_size_is_counted_or_said_to_be_estimated() {
        let size = |body: &str| PromptSize::of(Some(Dialect::OpenAiChat), Some("gpt-4o"), body.as_bytes());
        let hello = r#"{"messages":[{"role":"user","content":"hello"}]}"#;
        assert_eq!(size(hello), PromptSize { tokens: 7, counted: true });
        let picture = r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:x"}}]}]}"#;
        assert_eq!(size(picture), PromptSize { tokens: 6 + 765, counted: false });
        // Too long to count: texts go by their bytes, and a picture's do not.
        let long = format!(
            r#"{{"messages":[{{"content":"{}","images":["{}"]}}]}}"#,
            "river ".repeat(8_000),
            "QUJD".repeat(10_000)
        );
        assert_eq!(size(&long), PromptSize { tokens: 12_000 + 6 + 765, counted: false });
        let unknown = PromptSize::of(None, None, br#"{"message":"hello you"}"#);
        assert_eq!(unknown, PromptSize { tokens: 6, counted: false }, "an app's own goes by all of its bytes");
        assert_eq!(size(r#"{"messages":[NaN]}"#), PromptSize { tokens: 5, counted: false });
    }

    proptest! {
        #[test]
        fn any_body_is_survived(body in prop::collection::vec(any::<u8>(), 0..200)) {
            count_prompt(Dialect::OpenAiChat, None, &body);
        }

        #[test]
        fn more_text_is_never_fewer_tokens(texts in prop::collection::vec("[a-z ]{0,40}", 0..8)) {
            let messages: Vec<_> = texts.iter().map(|text| serde_json::json!({ "content": text })).collect();
            let of = |count: usize| {
                let body = serde_json::json!({ "messages": messages.get(..count).unwrap() }).to_string();
                count_prompt(Dialect::OpenAiChat, None, body.as_bytes()).unwrap().tokens
            };
            prop_assert!((1..=messages.len()).all(|count| of(count - 1) < of(count)));
        }
    }
}
