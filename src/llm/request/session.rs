//! What a request's body says of the session that it belongs to, for those who keep a session at one endpoint.

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::llm::walk_texts::{Role, Sink, walk};

/// What names a session in a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionName {
    /// `prompt_cache_key`.
    CacheKey(String),
    /// A hash of what stays the same in all of a session's requests: instructions, tools, and the first message of the user.
    Opening([u8; 32]),
}

/// The members that tell. Of those that mean the same at most one is there.
#[derive(Deserialize)]
struct Opening<'a> {
    #[serde(default)]
    prompt_cache_key: Option<serde_json::Value>,
    #[serde(default)]
    previous_response_id: Option<serde_json::Value>,
    #[serde(borrow, default, alias = "instructions", alias = "systemInstruction", alias = "system_instruction")]
    system: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "functions", alias = "toolConfig")]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "input", alias = "contents", alias = "prompt", alias = "inputs")]
    messages: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default)]
    role: Option<String>,
    #[serde(borrow, default, alias = "parts")]
    content: Option<&'a RawValue>,
}

impl SessionName {
    /// Reads a JSON body. `None`: it names no session, as where it goes on from another answer (`previous_response_id`), which is another in
    /// each turn and stands for what the body does not repeat.
    pub fn read(body: &[u8]) -> Option<Self> {
        let opening: Opening<'_> = serde_json::from_slice(body).ok()?;
        if let Some(key) = opening.prompt_cache_key.as_ref().and_then(|key| key.as_str()).filter(|key| !key.is_empty())
        {
            return Some(Self::CacheKey(key.to_owned()));
        }
        if opening.previous_response_id.is_some_and(|id| !id.is_null()) {
            return None;
        }
        let mut hasher = Texts(Sha256::new());
        let mut is_there = opening.system.is_some() || opening.tools.is_some();
        opening.system.iter().for_each(|system| hasher.part(b"system", system));
        opening.tools.iter().for_each(|tools| hasher.raw(b"tools", tools.get()));
        if let Some(messages) = opening.messages {
            is_there |= hasher.messages(messages);
        }
        is_there.then(|| Self::Opening(hasher.0.finalize().into()))
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::CacheKey(key) => key.as_bytes(),
            Self::Opening(hash) => hash,
        }
    }
}

/// Hashes texts, and not what stands beside them: marks for caches wander from message to message.
struct Texts(Sha256);

impl Texts {
    /// All messages up to the first one of the user; false: there are none.
    fn messages(&mut self, raw: &RawValue) -> bool {
        let Ok(messages) = serde_json::from_str::<Vec<Message<'_>>>(raw.get()) else {
            // A prompt in one text, or a list of them.
            self.raw(b"prompt", raw.get());
            return true;
        };
        let mut some = false;
        for message in &messages {
            some = true;
            let role = message.role.as_deref().unwrap_or("user");
            message.content.iter().for_each(|content| self.part(role.as_bytes(), content));
            if role == "user" {
                break;
            }
        }
        some
    }

    fn part(&mut self, kind: &[u8], raw: &RawValue) {
        self.0.update((kind.len() as u64).to_be_bytes());
        self.0.update(kind);
        walk(raw.get().as_bytes(), Role::Text, self);
    }

    fn raw(&mut self, kind: &[u8], text: &str) {
        self.0.update((kind.len() as u64).to_be_bytes());
        self.0.update(kind);
        self.text(text);
    }
}

impl Sink for Texts {
    fn role(&self, key: &str, _: usize) -> Role {
        match key {
            "text" | "content" | "parts" => Role::Text,
            // What it shows is no text, and as much a part of the session.
            "image_url" | "source" | "inline_data" | "inlineData" | "file_data" | "fileData" | "input_audio"
            | "image" => Role::Raw,
            _ => Role::Skip,
        }
    }

    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(body: &Value) -> Option<SessionName> {
        SessionName::read(body.to_string().as_bytes())
    }

    /// The same session in its first turn and its second.
    fn turns(first: &Value, second: &Value) {
        let (one, two) = (read(first), read(second));
        assert!(matches!(one, Some(SessionName::Opening(_))), "{first}");
        assert_eq!(one, two, "{first} {second}");
    }

    #[test]
    fn a_session_opens_the_same_in_each_of_its_turns() {
        let (system, hello) =
            (json!({"role": "system", "content": "Be brief."}), json!({"role": "user", "content": "hello"}));
        let answer = json!({"role": "assistant", "content": "hi"});
        turns(
            &json!({"model": "m", "messages": [system, hello], "temperature": 1}),
            &json!({"temperature": 0, "messages": [system, hello, answer, {"role": "user", "content": "more"}], "model": "m"}),
        );
        turns(
            &json!({"instructions": "Be brief.", "input": [hello]}),
            &json!({"instructions": "Be brief.", "input": [hello, {"type": "function_call", "name": "f"}, answer]}),
        );
        turns(
            &json!({"system_instruction": {"parts": [{"text": "Be brief."}]}, "contents": [{"role": "user", "parts": [{"text": "hello"}]}]}),
            &json!({"system_instruction": {"parts": [{"text": "Be brief."}]}, "contents": [{"role": "user", "parts": [{"text": "hello"}]},
                {"role": "model", "parts": [{"text": "hi"}]}]}),
        );
        // Marks of what is to be cached wander on.
        let marked = |mark: bool| {
            let mut block = json!({"type": "text", "text": "hello"});
            if mark {
                block["cache_control"] = json!({"type": "ephemeral"});
            }
            json!({"system": [{"type": "text", "text": "Be brief."}], "messages": [{"role": "user", "content": [block]}]})
        };
        turns(&marked(true), &marked(false));
    }

    #[test]
    fn other_sessions_open_otherwise() {
        let of = |system: &str, tools: Value, user: Value| {
            read(&json!({"system": system, "tools": tools, "messages": [{"role": "user", "content": user}]})).unwrap()
        };
        let picture = |data: &str| json!([{"type": "image", "source": {"data": data}}]);
        let all = [
            of("a", json!([]), json!("x")),
            of("b", json!([]), json!("x")),
            of("a", json!([{"name": "f"}]), json!("x")),
            of("a", json!([]), json!("y")),
            of("a", json!([]), picture("1")),
            of("a", json!([]), picture("2")),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| one != other), "{at}");
        }
    }

    #[test]
    fn a_key_for_the_cache_goes_first_and_an_earlier_answer_is_none() {
        let body = json!({"prompt_cache_key": "k", "previous_response_id": "r", "input": "x"});
        assert_eq!(read(&body), Some(SessionName::CacheKey("k".to_owned())));
        assert_eq!(read(&json!({"previous_response_id": "r1", "input": "x"})), None);
        assert!(read(&json!({"previous_response_id": null, "input": "x"})).is_some());
        assert!(read(&json!({"prompt_cache_key": "", "prompt": "x"})).is_some());
    }

    #[test]
    fn what_opens_nothing_names_nothing() {
        for body in [
            "",
            "{}",
            "[]",
            "7",
            "{\"model\":\"m\"}",
            "{\"messages\":[]}",
            "{\"messages\":[{\"role\":\"user\"}]",
            "{\"system\":\"a\",\"instructions\":\"b\"}",
        ] {
            assert_eq!(SessionName::read(body.as_bytes()), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_survived(body in prop::collection::vec(any::<u8>(), 0..200)) {
            SessionName::read(&body);
        }
    }
}
