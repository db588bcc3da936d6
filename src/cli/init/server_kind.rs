//! What a server is, by its answers to three questions.

use serde::Deserialize;
use serde_json::Value;

use super::ask::Answer;
use super::sample_request::{self, Sample};

/// What each server is asked.
pub(super) const QUESTIONS: [&str; 3] = ["/openapi.json", "/v1/models", "/api/tags"];

/// Names of models that are kept.
const MODELS_MAX: usize = 100;

/// Characters that are kept of a title or of a model's name.
const NAME_MAX: usize = 80;

/// What answers at a port.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// FastAPI, or another app that describes itself at `/openapi.json`.
    App { title: String, operations: usize, sample: Option<Sample> },
    /// It lists models at `/v1/models` or `/api/tags`.
    Models { software: Software, models: Vec<String> },
    /// Streamgauge itself.
    Streamgauge,
    /// HTTP, but nothing of the above.
    OtherHttp,
}

/// What serves models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Software {
    Ollama,
    Vllm,
    Sglang,
    LlamaCpp,
    /// Another with OpenAI's API.
    Other,
}

impl Software {
    /// By what it writes as the owner of its models.
    fn of_owner(owner: &str) -> Self {
        match owner {
            "vllm" => Self::Vllm,
            "sglang" => Self::Sglang,
            "llamacpp" => Self::LlamaCpp,
            _ => Self::Other,
        }
    }

    /// For people.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Ollama => "Ollama",
            Self::Vllm => "vLLM",
            Self::Sglang => "SGLang",
            Self::LlamaCpp => "llama.cpp",
            Self::Other => "a server with OpenAI's API",
        }
    }

    /// The name of its upstream, and of the provider in telemetry.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::LlamaCpp => "llamacpp",
            Self::Other => "models",
        }
    }
}

/// What [`QUESTIONS`] were answered with, in their order; `None` where there was no answer.
pub(super) fn kind_of(answers: &[Option<Answer>; 3]) -> Kind {
    let [description, models, tags] = answers;
    if answers.iter().flatten().any(is_streamgauge) {
        return Kind::Streamgauge;
    }
    // Before the description: vLLM and SGLang are FastAPI apps, Ollama lists its models twice.
    if let Some(models) = tags.as_ref().and_then(json).and_then(|tags| names(&tags, "models", "name")) {
        return Kind::Models { software: Software::Ollama, models };
    }
    if let Some(list) = models.as_ref().and_then(json)
        && let Some(models) = names(&list, "data", "id")
    {
        let owner = list.pointer("/data/0/owned_by").and_then(Value::as_str).unwrap_or("");
        return Kind::Models { software: Software::of_owner(owner), models };
    }
    description.as_ref().and_then(app).unwrap_or(Kind::OtherHttp)
}

/// Only the proxy's own phases begin so.
fn is_streamgauge(answer: &Answer) -> bool {
    answer.head.lines().any(|line| line.starts_with("server-timing: admit;"))
}

fn json(answer: &Answer) -> Option<Value> {
    (answer.status == 200).then(|| serde_json::from_slice(&answer.body).ok())?
}

/// The names in a list of objects; `None` where it is no such list.
fn names(answer: &Value, list: &str, name: &str) -> Option<Vec<String>> {
    let list = answer.get(list)?.as_array()?;
    list.iter().take(MODELS_MAX).map(|entry| entry.get(name)?.as_str().map(plain)).collect()
}

fn app(answer: &Answer) -> Option<Kind> {
    #[derive(Deserialize)]
    struct Info {
        #[serde(default)]
        title: String,
    }
    let description = json(answer)?;
    description.get("openapi")?.as_str().filter(|version| version.starts_with("3."))?;
    let info = Info::deserialize(description.get("info")?).ok()?;
    let paths = description.get("paths")?.as_object()?;
    let operations = paths.values().filter_map(Value::as_object).map(serde_json::Map::len).sum();
    Some(Kind::App { title: plain(&info.title), operations, sample: sample_request::of(&description) })
}

/// Others' words, on one line and not long.
fn plain(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ok(body: &Value) -> Option<Answer> {
        Some(Answer { status: 200, head: "http/1.1 200 ok".to_owned(), body: body.to_string().into_bytes() })
    }

    fn status(status: u16) -> Option<Answer> {
        Some(Answer { status, head: String::new(), body: b"{\"detail\":\"Not Found\"}".to_vec() })
    }

    fn openapi() -> Value {
        json!({"openapi": "3.1.0", "info": {"title": "Support\u{1b} chat", "version": "1"},
            "paths": {"/a": {"get": {}, "post": {}}, "/b": {"get": {}}}})
    }

    fn models(owner: &str) -> Value {
        json!({"object": "list", "data": [{"id": "llama-3", "object": "model", "owned_by": owner}]})
    }

    #[test]
    fn an_app_is_told_by_its_description() {
        let kind = kind_of(&[ok(&openapi()), status(404), status(404)]);
        assert_eq!(kind, Kind::App { title: "Support chat".to_owned(), operations: 3, sample: None });
    }

    #[test]
    fn servers_of_models_are_told_apart() {
        for (owner, software) in [
            ("vllm", Software::Vllm),
            ("sglang", Software::Sglang),
            ("llamacpp", Software::LlamaCpp),
            ("organization_owner", Software::Other),
            ("", Software::Other),
        ] {
            // vLLM describes itself too.
            let kind = kind_of(&[ok(&openapi()), ok(&models(owner)), status(404)]);
            assert_eq!(kind, Kind::Models { software, models: vec!["llama-3".to_owned()] }, "{owner}");
        }
        let tags = json!({"models": [{"name": "llama3.2:1b", "size": 1}]});
        let kind = kind_of(&[status(404), ok(&models("library")), ok(&tags)]);
        assert_eq!(kind, Kind::Models { software: Software::Ollama, models: vec!["llama3.2:1b".to_owned()] });
        let empty = kind_of(&[status(404), ok(&json!({"object": "list", "data": []})), None]);
        assert_eq!(empty, Kind::Models { software: Software::Other, models: vec![] });
    }

    #[test]
    fn the_proxy_itself_is_no_backend() {
        let head = "http/1.1 200 ok\r\nserver-timing: admit;dur=0.1, connect;dur=0.2".to_owned();
        let through = Answer { status: 200, head, body: models("vllm").to_string().into_bytes() };
        assert_eq!(kind_of(&[None, Some(through), None]), Kind::Streamgauge);
    }

    #[test]
    fn anything_else_is_some_http() {
        let garbage = |body: &[u8]| Some(Answer { status: 200, head: String::new(), body: body.to_vec() });
        let deep = "[".repeat(100_000);
        for body in [
            &b""[..],
            b"<!doctype html>",
            b"null",
            b"[]",
            b"{}",
            b"\xff\xfe",
            deep.as_bytes(),
            b"{\"data\":[1]}",
            b"{\"models\":{}}",
            b"{\"openapi\":3,\"paths\":{}}",
        ] {
            let kind = kind_of(&[garbage(body), garbage(body), garbage(body)]);
            assert_eq!(kind, Kind::OtherHttp, "{}", String::from_utf8_lossy(&body[..body.len().min(30)]));
        }
        assert_eq!(kind_of(&[status(401), status(500), None]), Kind::OtherHttp);
        assert_eq!(kind_of(&[None, None, None]), Kind::OtherHttp);
    }

    #[test]
    fn others_words_are_bounded() {
        let many: Vec<Value> =
            (0..5_000).map(|number| json!({"id": format!("{number}{}", "x".repeat(1_000))})).collect();
        let Kind::Models { models, .. } = kind_of(&[None, ok(&json!({ "data": many })), None]) else { panic!() };
        assert_eq!(models.len(), MODELS_MAX);
        assert!(models.iter().all(|model| model.chars().count() <= NAME_MAX));
    }
}
