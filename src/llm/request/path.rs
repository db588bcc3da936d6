//! Reads a request's path, in every spelling that a backend accepts.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, utf8_percent_encode};

use super::body::Body;
use super::form::{FormKind, RESERVED};
use super::operation::{
    CANCEL, CHAT, COMPACTION, CONTINUE, COUNT_TOKENS, EMBEDDINGS, GENERATE_CONTENT, INVOKE_AGENT, MODERATION, RERANK,
    RETRIEVE, TEXT_COMPLETION,
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
    let of_run = run_path(path).filter(|operation| *operation == CHAT || body.is_none_or(Body::asks_no_model));
    if let Some(operation) = of_run {
        return Some((ASSISTANTS, operation));
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

/// OpenAI's Assistants: each of their runs is made in the background, unless it is streamed.
const ASSISTANTS: Dialect = Dialect::Shape("assistants");

/// What a canonical path of OpenAI's Assistants is for: to have a run made, to see it or a step of it, to cancel it or go on
/// with it. LangGraph's server has the same paths, without a version.
fn run_path(path: &str) -> Option<&'static str> {
    let mut segments = path.split('/').skip_while(|segment| !segment.eq_ignore_ascii_case("threads")).skip(1);
    let is_runs = |segment: &str| segment.eq_ignore_ascii_case("runs");
    let thread = segments.next().filter(|_| is_api(path))?;
    let has_thread = !is_runs(thread);
    if has_thread && !segments.next().is_some_and(is_runs) {
        return None;
    }
    let (run, what, rest) = (segments.next(), segments.next(), segments.next());
    match (run.filter(|_| has_thread), what) {
        (None, None) if run.is_none() => Some(CHAT),
        (Some(_), None) => Some(RETRIEVE),
        (Some(_), Some(what)) if what.eq_ignore_ascii_case("steps") => Some(RETRIEVE),
        (Some(_), Some(what)) if rest.is_none() && what.eq_ignore_ascii_case("cancel") => Some(CANCEL),
        (Some(_), Some(what)) if rest.is_none() && what.eq_ignore_ascii_case("submit_tool_outputs") => Some(CONTINUE),
        _ => None,
    }
}

/// Whether answers of this dialect are kept under the path that asks for them, and a safe method lists them there.
pub(super) fn lists_answers(dialect: Dialect) -> bool {
    dialect == ASSISTANTS
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

/// Work of whose usage no answer here tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unseen {
    /// Of whoever asks for it.
    pub dialect: Dialect,
    /// It is done past this proxy, with a secret or a connection that the answer hands out; else later.
    pub elsewhere: bool,
}

/// Under which paths work is asked for that is done later: batches, trainings, evaluations.
const LATER: [(&str, Dialect); 12] = [
    ("/messages/batches", Dialect::Anthropic),
    (":batchGenerateContent", Dialect::Gemini),
    (":asyncBatchEmbedContent", Dialect::Gemini),
    ("/batchPredictionJobs", Dialect::Gemini),
    ("/tuningJobs", Dialect::Gemini),
    ("/tunedModels", Dialect::Gemini),
    ("/fine_tuning/jobs", Dialect::OpenAiChat),
    ("/fine-tunes", Dialect::OpenAiChat),
    // Mistral's and Bedrock's.
    ("/batch/jobs", Dialect::PlainSse),
    ("/model-invocation-job", Dialect::PlainSse),
    ("/model-invocation-jobs", Dialect::PlainSse),
    ("/model-customization-jobs", Dialect::PlainSse),
];

/// Under which paths a client is given what it can talk to a model with past this proxy (secrets for a browser, a call over
/// WebRTC), or talks with one in a protocol that is not read here (Gemini's Live API).
const ELSEWHERE: [(&str, Dialect); 9] = [
    ("/realtime/client_secrets", Dialect::OpenAiChat),
    ("/realtime/sessions", Dialect::OpenAiChat),
    ("/realtime/transcription_sessions", Dialect::OpenAiChat),
    ("/realtime/translations/client_secrets", Dialect::OpenAiChat),
    ("/realtime/calls", Dialect::OpenAiChat),
    ("/realtimeapi/sessions", Dialect::OpenAiChat),
    ("/chatkit/sessions", Dialect::OpenAiChat),
    ("/auth_tokens", Dialect::Gemini),
    ("BidiGenerateContent", Dialect::Gemini),
];

/// Whether a canonical path is one under which a POST, or a WebSocket, asks for work that no answer here tells of.
pub(super) fn unseen_work(path: &str) -> Option<Unseen> {
    let named = |paths: &[(&str, Dialect)], elsewhere| {
        let (_, dialect) = paths.iter().find(|(end, _)| ends_with(path, end))?;
        Some(Unseen { dialect: *dialect, elsewhere })
    };
    let is_openai = || ["/v1/", "/openai/"].iter().any(|start| path.contains(start));
    let is_evaluation = || ends_with(path, "/runs") && path.contains("/evals/");
    named(&LATER, false).or_else(|| named(&ELSEWHERE, true)).or_else(|| {
        let is_later = (ends_with(path, "/batches") || is_evaluation()) && is_openai();
        is_later.then_some(Unseen { dialect: Dialect::OpenAiChat, elsewhere: false })
    })
}

fn ends_with(path: &str, end: &str) -> bool {
    let start = path.len().checked_sub(end.len());
    start.and_then(|start| path.as_bytes().get(start..)).is_some_and(|last| last.eq_ignore_ascii_case(end.as_bytes()))
}

/// What follows the first `start` in `path`. With memchr, since every request is asked and the standard library's search begins
/// with a table.
fn after<'a>(path: &'a str, start: &str) -> Option<&'a str> {
    let at = memchr::memmem::find(path.as_bytes(), start.as_bytes())?;
    path.get(at + start.len()..)
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
        after(path.rsplit_once('/')?.0, "/model/")
    };
    let of_azure = || {
        let (model, rest) = after(path, "/openai/deployments/")?.split_once('/')?;
        (!model.is_empty() && !rest.is_empty()).then_some(model)
    };
    of_google().or_else(of_bedrock).or_else(of_azure)
}

/// What is encoded in a segment of a path.
const IN_SEGMENTS: AsciiSet = RESERVED.remove(b':').remove(b'@');

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
        let model = utf8_percent_encode(model, &IN_SEGMENTS);
        format!("{before}{model}{after}")
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

/// Streaming and operation of a canonical path of Amazon Bedrock, such as `/model/amazon.nova-lite-v1:0/converse`.
pub(super) fn bedrock_path(path: &str) -> Option<(Option<bool>, &'static str)> {
    let (resource, method) = path.rsplit_once('/')?;
    let (stream, operation) = match method {
        "converse" | "invoke" => (false, CHAT),
        "converse-stream" | "invoke-with-response-stream" => (true, CHAT),
        "count-tokens" => (false, COUNT_TOKENS),
        _ => return None,
    };
    let model = after(resource, "/model/")?;
    (!model.is_empty()).then_some((Some(stream), operation))
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
    fn work_that_nobody_sees_is_known_by_its_paths() {
        let unseen = |dialect, elsewhere| Some(Unseen { dialect, elsewhere });
        for (path, dialect) in [
            ("/v1/realtime/client_secrets", Dialect::OpenAiChat),
            ("/v1/realtime/calls", Dialect::OpenAiChat),
            ("/openai/realtimeapi/sessions", Dialect::OpenAiChat),
            ("/v1alpha/auth_tokens", Dialect::Gemini),
            ("/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent", Dialect::Gemini),
        ] {
            assert_eq!(unseen_work(path), unseen(dialect, true), "{path}");
        }
        let openai = Some(Dialect::OpenAiChat);
        for (path, dialect) in [
            ("/v1/batches", openai),
            ("/openai/batches", openai),
            ("/v1/fine_tuning/jobs", openai),
            ("/v1/evals/eval_1/runs", openai),
            ("/v1/messages/batches", Some(Dialect::Anthropic)),
            ("/v1beta/models/m:batchGenerateContent", Some(Dialect::Gemini)),
            ("/v1/projects/p/locations/l/batchPredictionJobs", Some(Dialect::Gemini)),
            ("/v1beta/tunedModels", Some(Dialect::Gemini)),
            ("/v1/batch/jobs", Some(Dialect::PlainSse)),
            ("/model-customization-jobs", Some(Dialect::PlainSse)),
        ] {
            assert_eq!(unseen_work(path), dialect.and_then(|dialect| unseen(dialect, false)), "{path}");
        }
        for path in [
            "/v1/batches/b1/cancel",
            "/batches",
            "/v1/messages",
            "/v1beta/models/m:batchEmbedContents",
            "/v1/fine_tuning/jobs/j/cancel",
            "/v1/threads/t/runs",
            "/v1/evals",
            "/v1/realtime",
            "/v1/realtime/calls/rtc_1/hangup",
        ] {
            assert_eq!(unseen_work(path), None, "{path}");
        }
    }

    #[test]
    fn runs_of_assistants_are_made_seen_and_gone_on_with() {
        for (path, operation) in [
            ("/v1/threads/runs", Some(CHAT)),
            ("/v1/threads/thread_1/runs", Some(CHAT)),
            ("/openai/Threads/thread_1/Runs", Some(CHAT)),
            ("/v1/threads/thread_1/runs/run_1", Some(RETRIEVE)),
            ("/v1/threads/thread_1/runs/run_1/steps", Some(RETRIEVE)),
            ("/v1/threads/thread_1/runs/run_1/steps/step_1", Some(RETRIEVE)),
            ("/v1/threads/thread_1/runs/run_1/cancel", Some(CANCEL)),
            ("/v1/threads/thread_1/runs/run_1/submit_tool_outputs", Some(CONTINUE)),
            ("/v1/threads/thread_1/runs/run_1/cancel/now", None),
            ("/v1/threads/thread_1/messages", None),
            ("/v1/threads/thread_1", None),
            ("/v1/threads", None),
            ("/v1/threads/runs/run_1", None),
            // LangGraph's.
            ("/threads/thread_1/runs", None),
        ] {
            assert_eq!(run_path(path), operation, "{path}");
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
