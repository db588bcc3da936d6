//! Reads a request's path, in every spelling that a backend accepts.

use std::borrow::Cow;

use super::body::Body;
use super::form::FormKind;
use super::operation::{
    CANCEL, CHAT, COMPACTION, COUNT_TOKENS, EMBEDDINGS, GENERATE_CONTENT, INVOKE_AGENT, MODERATION, RERANK, RETRIEVE,
    TEXT_COMPLETION,
};
use crate::llm::Dialect;
use crate::llm::dialect::shape::shapes;

/// The path that backends may read in `path`, which has no query: what is percent-encoded and need not be is decoded,
/// once; parameters of segments (`;x`), doubled slashes and a slash at the end are gone. `None`: it is that already.
///
/// Only what may stand in a path unencoded is decoded, the slash included: so nothing is decoded twice, and the outcome is a
/// path again.
#[must_use]
pub fn canonical_path(path: &str) -> Option<Cow<'_, str>> {
    let bytes = path.as_bytes();
    let is_plain = memchr::memchr2(b'%', b';', bytes).is_none()
        && !bytes.windows(2).any(|pair| pair == b"//")
        && (path.len() < 2 || !path.ends_with('/'));
    if is_plain {
        return None;
    }
    let mut decoded = String::with_capacity(path.len());
    let mut parts = path.split('%');
    decoded.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|byte| is_path_byte(*byte)).zip(part.get(2..)) {
            Some((byte, rest)) => {
                decoded.push(char::from(byte));
                decoded.push_str(rest);
            }
            None => {
                decoded.push('%');
                decoded.push_str(part);
            }
        }
    }
    let mut canonical = String::with_capacity(decoded.len());
    let segments = decoded.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    for segment in segments.filter(|segment| !segment.is_empty()) {
        canonical.push('/');
        canonical.push_str(segment);
    }
    if canonical.is_empty() {
        canonical.push('/');
    }
    (canonical != path).then_some(Cow::Owned(canonical))
}

/// What RFC 3986 lets stand in a path as it is.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)
}

/// Operations that only some paths tell, below a version or where the body names a model: OpenAI's, and those that Cohere,
/// Jina, Voyage, Mistral, vLLM and others have under the same names.
const PATHS: [(&str, Dialect, &str); 15] = [
    ("/images/generations", Dialect::OpenAiResponses, "image_generation"),
    ("/images/edits", Dialect::OpenAiResponses, "image_edit"),
    ("/images/variations", Dialect::OpenAiResponses, "image_variation"),
    ("/audio/speech", Dialect::OpenAiResponses, "speech"),
    ("/audio/transcriptions", Dialect::OpenAiResponses, "transcription"),
    ("/audio/translations", Dialect::OpenAiResponses, "translation"),
    ("/responses/compact", Dialect::OpenAiResponses, COMPACTION),
    ("/responses/input_tokens", Dialect::OpenAiResponses, COUNT_TOKENS),
    ("/messages/count_tokens", Dialect::Anthropic, COUNT_TOKENS),
    ("/moderations", Dialect::OpenAiChat, MODERATION),
    ("/rerank", Dialect::PlainSse, RERANK),
    ("/reranking", Dialect::PlainSse, RERANK),
    ("/embed", Dialect::PlainSse, EMBEDDINGS),
    ("/tokenize", Dialect::PlainSse, COUNT_TOKENS),
    ("/detokenize", Dialect::PlainSse, COUNT_TOKENS),
];

/// Dialect and operation by the path, which is canonical. The body decides where others use the same path. Some backends
/// read paths without regard to case.
pub(super) fn known_path(path: &str, body: Option<&Body>) -> Option<(Dialect, &'static str)> {
    if let Some((_, operation)) = gemini_path(path, "") {
        return Some((Dialect::Gemini, operation));
    }
    if let Some((_, operation)) = bedrock_path(path) {
        return Some((Dialect::PlainSse, operation));
    }
    if agent_path(path).is_some() {
        return Some((Dialect::PlainSse, INVOKE_AGENT));
    }
    if body.is_none_or(Body::asks_for_nothing)
        && let Some(stored) = stored_path(path)
    {
        return Some(stored);
    }
    let ends = |with: &str| ends_with(path, with);
    let fits = |test: fn(&Body) -> bool| body.is_none_or(test);
    // `useChat` posts to `/api/chat` too, but names no model.
    if ends("/api/chat") && fits(|body| body.model.is_some()) {
        return Some((Dialect::Ollama, CHAT));
    }
    if ends("/api/generate") && fits(|body| body.model.is_some()) {
        return Some((Dialect::Ollama, TEXT_COMPLETION));
    }
    if ends("/api/embed") || (ends("/api/embeddings") && fits(|body| body.has_prompt)) {
        return Some((Dialect::Ollama, EMBEDDINGS));
    }
    let is_api = is_api(path);
    if let Some((_, dialect, operation)) = PATHS.iter().find(|(end, ..)| ends(end))
        && (is_api || body.is_some_and(|body| body.model.is_some() || body.has_messages || body.has_prompt))
    {
        return Some((*dialect, operation));
    }
    if ends("/chat/completions") {
        return Some((Dialect::OpenAiChat, CHAT));
    }
    let speaks_responses = |body: &Body| body.model.is_some() && (body.has_input || body.has_prompt);
    if ends("/v1/responses") || (ends("/responses") && body.is_some_and(speaks_responses)) {
        return Some((Dialect::OpenAiResponses, CHAT));
    }
    if ends("/completions") {
        return Some((Dialect::OpenAiChat, TEXT_COMPLETION));
    }
    if ends("/v1/embeddings") || (ends("/embeddings") && body.is_some_and(|body| body.has_input)) {
        return Some((Dialect::OpenAiChat, EMBEDDINGS));
    }
    let speaks_messages = |body: &Body| body.has_messages && body.model.is_some();
    if ends("/v1/messages") || (ends("/messages") && body.is_some_and(speaks_messages)) {
        return Some((Dialect::Anthropic, CHAT));
    }
    let shape = shapes().iter().find(|shape| shape.has_path(path));
    shape.map(|shape| (Dialect::Shape(shape.name()), CHAT))
}

/// Dialect and operation of a canonical path of one answer that a server keeps, as `/v1/responses/resp_1`, or of its
/// `/cancel`.
fn stored_path(path: &str) -> Option<(Dialect, &'static str)> {
    let (path, operation) = match path.strip_suffix("/cancel") {
        Some(path) => (path, CANCEL),
        None => (path, RETRIEVE),
    };
    let (collection, id) = path.rsplit_once('/')?;
    let is_of = |name: &str| ends_with(collection, name);
    let is_id = |prefix: &str| id.starts_with(prefix) || is_api(path);
    let dialect = match () {
        () if is_of("/responses") && is_id("resp_") && !matches!(id, "compact" | "input_tokens") => {
            Dialect::OpenAiResponses
        }
        () if is_of("/chat/completions") && is_id("chatcmpl") => Dialect::OpenAiChat,
        () => {
            let shape = shapes().iter().find(|shape| shape.keeps_answers() && shape.has_path(collection))?;
            Dialect::Shape(shape.name())
        }
    };
    Some((dialect, operation))
}

/// Whether the path is one of a versioned interface.
fn is_api(path: &str) -> bool {
    ["/v1/", "/v2/", "/openai/"].iter().any(|start| path.contains(start))
}

/// Whether a canonical path of A2A's REST binding streams the answer; `None`: it is none.
pub(super) fn agent_path(path: &str) -> Option<bool> {
    match path.rsplit('/').next() {
        Some("message:stream") => Some(true),
        Some("message:send") => Some(false),
        _ => None,
    }
}

/// Whether a canonical path is one under which batches are made: they run models later, and their answers come elsewhere.
pub(super) fn makes_batches(path: &str) -> bool {
    const NAMED: [&str; 5] = [
        "/messages/batches",
        "/batch/jobs",
        ":batchGenerateContent",
        ":asyncBatchEmbedContent",
        "/batchPredictionJobs",
    ];
    let is_openai = || ["/v1/", "/openai/"].iter().any(|start| path.contains(start)) && ends_with(path, "/batches");
    NAMED.iter().any(|end| ends_with(path, end)) || ends_with(path, "/model-invocation-job") || is_openai()
}

fn ends_with(path: &str, end: &str) -> bool {
    let start = path.len().checked_sub(end.len());
    start.and_then(|start| path.as_bytes().get(start..)).is_some_and(|last| last.eq_ignore_ascii_case(end.as_bytes()))
}

/// The model that a canonical path names: Gemini's and Vertex's before a colon, Bedrock's and Azure's in segments of their own.
/// It goes before what the body says: these backends look at nothing else.
pub(super) fn path_model(path: &str) -> Option<&str> {
    let of_google = || {
        let (resource, method) = path.rsplit_once(':')?;
        let model = resource.rsplit('/').next().filter(|model| !model.is_empty())?;
        let is_vertex = ["rawPredict", "streamRawPredict"].iter().any(|name| method.eq_ignore_ascii_case(name));
        (is_vertex || gemini_path(path, "").is_some()).then_some(model)
    };
    let of_bedrock = || {
        bedrock_path(path)?;
        Some(path.rsplit_once('/')?.0.split_once("/model/")?.1)
    };
    let of_azure = || {
        let (model, rest) = path.split_once("/openai/deployments/")?.1.split_once('/')?;
        (!model.is_empty() && !rest.is_empty()).then_some(model)
    };
    of_google().or_else(of_bedrock).or_else(of_azure)
}

/// `path_and_query` with `model` in place of the model that its path or its query names; every other byte stays, but that a path
/// which names it only when spelled plainly goes on so. `None`: it names none.
#[must_use]
pub fn with_model(path_and_query: &str, model: &str) -> Option<String> {
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    let canonical = canonical_path(path).unwrap_or(Cow::Borrowed(path));
    let renamed_path = path_model(&canonical).map(|named| {
        let at = named.as_ptr() as usize - canonical.as_ptr() as usize;
        let (before, after) =
            (canonical.get(..at).unwrap_or_default(), canonical.get(at + named.len()..).unwrap_or_default());
        format!("{before}{}{after}", encoded(model))
    });
    let renamed_query = FormKind::UrlEncoded.with_model(query.as_bytes(), model);
    if renamed_path.is_none() && renamed_query.is_none() {
        return None;
    }
    let mut renamed = renamed_path.unwrap_or_else(|| path.to_owned());
    if !query.is_empty() {
        renamed.push('?');
        match &renamed_query {
            Some(query) => renamed.push_str(&String::from_utf8_lossy(query)),
            None => renamed.push_str(query),
        }
    }
    Some(renamed)
}

/// A model's name as one segment of a path.
fn encoded(model: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(model.len());
    for byte in model.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // A String takes what is written to it.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Streaming and operation of a canonical path of Amazon Bedrock, such as `/model/amazon.nova-lite-v1:0/converse`.
pub(super) fn bedrock_path(path: &str) -> Option<(Option<bool>, &'static str)> {
    let (resource, method) = path.rsplit_once('/')?;
    resource.split_once("/model/").filter(|(_, model)| !model.is_empty())?;
    let (stream, operation) = match method {
        "converse" | "invoke" => (false, CHAT),
        "converse-stream" | "invoke-with-response-stream" => (true, CHAT),
        "count-tokens" => (false, COUNT_TOKENS),
        _ => return None,
    };
    Some((Some(stream), operation))
}

/// Streaming and operation of a canonical path such as `/v1beta/models/gemini-2.5-flash:streamGenerateContent`.
/// Whether it streams is `None` where it streams JSON, not events.
pub(super) fn gemini_path(path: &str, query: &str) -> Option<(Option<bool>, &'static str)> {
    let (resource, method) = path.rsplit_once(':')?;
    resource.rsplit('/').next().filter(|model| !model.is_empty())?;
    let is = |name: &str| method.eq_ignore_ascii_case(name);
    let (stream, operation) = if is("streamGenerateContent") {
        let as_events = query.split('&').any(|pair| pair == "alt=sse" || pair == "%24alt=sse" || pair == "$alt=sse");
        (as_events.then_some(true), GENERATE_CONTENT)
    } else if is("generateContent") {
        (Some(false), GENERATE_CONTENT)
    } else if is("countTokens") || is("computeTokens") {
        (Some(false), COUNT_TOKENS)
    } else if is("embedContent") || is("batchEmbedContents") {
        (Some(false), EMBEDDINGS)
    } else {
        return None;
    };
    Some((stream, operation))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_path_has_one_canonical_spelling() {
        for (path, expected) in [
            ("/v1/chat/completions", None),
            ("/", None),
            ("", None),
            ("*", None),
            ("/v1/chat/%63ompletions", Some("/v1/chat/completions")),
            ("/v1%2Fchat/completions", Some("/v1/chat/completions")),
            ("/v1/chat/completions/", Some("/v1/chat/completions")),
            ("//v1///chat/completions", Some("/v1/chat/completions")),
            ("/v1/chat;a=b/completions;x", Some("/v1/chat/completions")),
            ("/v1/chat/completions%3Bx", Some("/v1/chat/completions")),
            ("/m/g%3Agenerate%43ontent", Some("/m/g:generateContent")),
            ("/a%2563", None),
            ("/a%20b%3f%23%00%ff", None),
            ("/a%zz%6", None),
            ("//", Some("/")),
        ] {
            assert_eq!(canonical_path(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn batches_are_known_by_their_paths() {
        for path in [
            "/v1/batches",
            "/v1/messages/batches",
            "/v1/batch/jobs",
            "/v1beta/models/m:batchGenerateContent",
            "/openai/batches",
        ] {
            assert!(makes_batches(path), "{path}");
        }
        for path in ["/v1/batches/b1/cancel", "/batches", "/v1/messages", "/v1beta/models/m:batchEmbedContents"] {
            assert!(!makes_batches(path), "{path}");
        }
    }

    #[test]
    fn the_model_of_a_path_or_a_query_is_replaced() {
        for (path, expected) in [
            ("/v1beta/models/gemini-pro:generateContent?alt=sse", Some("/v1beta/models/m%2F2:generateContent?alt=sse")),
            ("/v1beta//models/gemini-pro%3Agenerate%43ontent;x", Some("/v1beta/models/m%2F2:generateContent")),
            (
                "/v1/publishers/anthropic/models/claude:streamRawPredict",
                Some("/v1/publishers/anthropic/models/m%2F2:streamRawPredict"),
            ),
            ("/model/anthropic.claude-v1:0/invoke", Some("/model/m%2F2/invoke")),
            (
                "/openai/deployments/gpt/chat/completions?api-version=1",
                Some("/openai/deployments/m%2F2/chat/completions?api-version=1"),
            ),
            ("/v1/realtime?x=1&mod%65l=gpt", Some("/v1/realtime?x=1&mod%65l=m%2F2")),
            ("/v1/chat/completions?x=1", None),
            ("/openai/deployments/gpt", None),
            ("/a:b", None),
        ] {
            assert_eq!(with_model(path, "m/2").as_deref(), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_comes_out_is_a_path(path in "/([a-z%;/:]|%[2-7][0-9a-f]|%25){0,20}") {
            let canonical = canonical_path(&path).unwrap_or(Cow::Borrowed(&path)).into_owned();
            prop_assert!(canonical.starts_with('/') && !canonical.contains("//") && !canonical.contains(';'));
            prop_assert!(canonical == "/" || !canonical.ends_with('/'));
            prop_assert!(canonical.bytes().all(|byte| is_path_byte(byte) || byte == b'%'));
        }
    }
}
