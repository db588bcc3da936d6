//! What a value at a place says: a text, or the parts of a message as Anthropic, Gemini, OpenAI and LangChain write them.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::de::SeqAccess;
use serde::{Deserialize, Deserializer};

use super::selector::is_filled;
use crate::llm::json::{Filled, Flag, Loose, Word, loose, read_loose};
use crate::llm::reading::Produced;

/// Parts of one message that are looked at.
const PARTS_MAX: usize = 64;

/// What the rule that names a place takes it for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Answer,
    Reasoning,
    /// Names and arguments: JSON counts as it is written.
    Tool,
}

/// What a value says, which is put behind `said` where that is gathered.
pub(super) fn produced(value: &str, role: Role, said: Option<&mut String>) -> Produced {
    if !is_filled(value.as_bytes()) {
        return Produced::Nothing;
    }
    let kind = if role == Role::Reasoning { Produced::Reasoning } else { Produced::Answer };
    match value.as_bytes().first() {
        Some(b'"') => {
            if let Some(said) = said {
                push_string(value, said);
            }
            kind
        }
        Some(b'[' | b'{') if role != Role::Tool => {
            let parts = serde_json::from_str::<Parts<'_>>(value).unwrap_or_default();
            let produced = parts.0.iter().map(Part::produced).max().unwrap_or_default();
            if let Some(said) = said {
                parts.0.iter().for_each(|part| part.say(said));
            }
            if produced == Produced::Answer { kind } else { produced }
        }
        _ => {
            if let Some(said) = said {
                said.push_str(value);
            }
            kind
        }
    }
}

/// Tells texts apart.
pub(super) fn hashed(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.as_bytes().hash(&mut hasher);
    hasher.finish()
}

/// Adds a JSON string as what it means; one with half a surrogate pair as it is written.
fn push_string(value: &str, said: &mut String) {
    match serde_json::from_str::<Word<'_>>(value) {
        Ok(word) => said.push_str(word.0.as_deref().unwrap_or_default()),
        Err(_) => said.push_str(value.trim_matches('"')),
    }
}

/// A list of parts, or one alone.
#[derive(Default)]
struct Parts<'a>(Vec<Part<'a>>);

/// A part of a message; a string alone is its text.
#[derive(Default)]
struct Part<'a> {
    kind: Word<'a>,
    /// Of Gemini.
    is_thought: bool,
    text: Word<'a>,
    thinking: Word<'a>,
    /// Names and arguments of a call, a picture, code that runs.
    more: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Written<'a> {
    #[serde(borrow, rename = "type")]
    kind: Word<'a>,
    thought: Flag,
    text: Word<'a>,
    thinking: Word<'a>,
    reasoning: Word<'a>,
    partial_json: Filled,
    #[serde(rename = "functionCall", alias = "function_call", alias = "toolCall", alias = "toolUse")]
    call: Filled,
    #[serde(rename = "inlineData", alias = "inline_data", alias = "executableCode", alias = "executable_code")]
    made: Filled,
}

impl Part<'_> {
    fn is_reasoning(&self) -> bool {
        let of_kind = matches!(self.kind.filled(), Some("thinking" | "reasoning" | "reasoning_content" | "thought"));
        of_kind || self.is_thought
    }

    fn produced(&self) -> Produced {
        let is_tool = matches!(
            self.kind.filled(),
            Some("tool_use" | "tool_call" | "tool_call_chunk" | "function_call" | "image" | "image_url" | "audio")
        );
        if self.more || is_tool {
            Produced::Answer
        } else if self.thinking.filled().is_some() || (self.is_reasoning() && self.text.filled().is_some()) {
            Produced::Reasoning
        } else if self.text.filled().is_some() {
            Produced::Answer
        } else {
            Produced::Nothing
        }
    }

    fn say(&self, said: &mut String) {
        said.push_str(self.thinking.filled().unwrap_or_default());
        said.push_str(self.text.filled().unwrap_or_default());
    }
}

impl<'de: 'a, 'a> Loose<'de> for Parts<'a> {
    fn array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = items.next_element::<Part<'a>>()? {
            if parts.len() < PARTS_MAX {
                parts.push(part);
            }
        }
        Ok(Self(parts))
    }

    fn object<A: serde::de::MapAccess<'de>>(fields: A) -> Result<Self, A::Error> {
        Part::object(fields).map(|part| Self(vec![part]))
    }
}

impl<'de: 'a, 'a> Loose<'de> for Part<'a> {
    fn borrowed(text: &'de str) -> Self {
        Self { text: Word::borrowed(text), ..Self::default() }
    }

    fn text(text: &str) -> Self {
        Self { text: Word::text(text), ..Self::default() }
    }

    fn object<A: serde::de::MapAccess<'de>>(fields: A) -> Result<Self, A::Error> {
        let written = Written::deserialize(serde::de::value::MapAccessDeserializer::new(fields))?;
        let Written { kind, thought, text, thinking, reasoning, partial_json, call, made } = written;
        let thinking = if thinking.filled().is_some() { thinking } else { reasoning };
        let more = partial_json.0 || call.0 || made.0;
        Ok(Self { kind, is_thought: thought.0 == Some(true), text, thinking, more })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Parts<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        read_loose(from)
    }
}

loose!(Part<'a>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_parts_say_what_they_hold() {
        for (value, role, expected, text) in [
            (r#""The""#, Role::Answer, Produced::Answer, "The"),
            (r#""\u00e4""#, Role::Reasoning, Produced::Reasoning, "ä"),
            (r#""""#, Role::Answer, Produced::Nothing, ""),
            ("null", Role::Answer, Produced::Nothing, ""),
            ("[]", Role::Answer, Produced::Nothing, ""),
            ("[{}]", Role::Answer, Produced::Nothing, ""),
            ("7", Role::Answer, Produced::Answer, "7"),
            (r#"[{"type":"text","text":""}]"#, Role::Answer, Produced::Nothing, ""),
            (r#"[{"type":"text","text":"a"},"b"]"#, Role::Answer, Produced::Answer, "ab"),
            (r#"[{"type":"thinking","thinking":"a"}]"#, Role::Answer, Produced::Reasoning, "a"),
            (r#"[{"text":"a","thought":true}]"#, Role::Answer, Produced::Reasoning, "a"),
            (r#"[{"functionCall":{"name":"f"}}]"#, Role::Answer, Produced::Answer, ""),
            (r#"[{"functionResponse":{"name":"f"}}]"#, Role::Answer, Produced::Nothing, ""),
            (r#"{"text":"a"}"#, Role::Reasoning, Produced::Reasoning, "a"),
            (r#"[{"name":"f","args":""}]"#, Role::Tool, Produced::Answer, r#"[{"name":"f","args":""}]"#),
        ] {
            let mut said = String::new();
            assert_eq!(produced(value, role, Some(&mut said)), expected, "{value}");
            assert_eq!(said, text, "{value}");
        }
    }
}
