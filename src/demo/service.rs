//! Which path answers what.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::{Value, json};

use super::body::{Events, Play};
use super::script::Script;
use super::shapes::{Shape, Usage};
use super::stats::{Open, Stats};

/// Largest request body read.
const BODY_MAX: usize = 256 << 20;

/// Largest answer of `/large`.
const LARGE_MAX: usize = 256 << 20;

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// Answers one request.
///
/// # Errors
/// The client's body broke off.
pub(super) async fn answer(
    stats: Arc<Stats>,
    knobs: Arc<str>,
    request: Request<Incoming>,
) -> Result<Answer, io::Error> {
    let (parts, body) = request.into_parts();
    let open = stats.enter(parts.headers.get("x-request-id").and_then(|value| value.to_str().ok()));
    let query = parts.uri.query();
    let script = Script::read(query, &parts.headers, &knobs);
    let body = match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Ok(json_answer(413, &json!({ "detail": "too large" }), open));
        }
        Err(error) => return Err(io::Error::other(error)),
    };
    if script.never {
        std::future::pending::<()>().await;
    }
    if !script.headers.is_zero() {
        tokio::time::sleep(script.headers).await;
    }
    if let Some(status) = script.status {
        let mut answer = json_answer(status, &json!({ "detail": format!("status {status}, as asked") }), open);
        if let Some(seconds) = script.retry_after {
            answer.headers_mut().insert("retry-after", seconds.into());
        }
        return Ok(answer);
    }
    Ok(match parts.uri.path() {
        "/health" => json_answer(200, &json!({ "status": "ok" }), open),
        "/v1/models" => {
            json_answer(200, &json!({ "object": "list", "data": [{ "id": "demo", "object": "model" }] }), open)
        }
        "/__stats" => json_answer(200, &stats.json(), open),
        "/echo" => json_answer(200, &echo(&parts, &body), open),
        "/large" => large(query, open),
        "/v1/chat/completions" => generate(script, Shape::OpenAi, &body, false, open),
        "/v1/messages" => generate(script, Shape::Anthropic, &body, false, open),
        "/api/chat" => generate(script, Shape::Ollama { chat: true }, &body, true, open),
        "/api/generate" => generate(script, Shape::Ollama { chat: false }, &body, true, open),
        "/api/v1/chat" | "/api/v1/stream" => generate(script, Shape::Plain, &body, true, open),
        _ => json_answer(404, &json!({ "detail": "Not Found" }), open),
    })
}

/// Streams, or answers in one piece, as the body's `stream` says; `by_default` where it says nothing.
fn generate(script: Script, shape: Shape, body: &[u8], by_default: bool, open: Open) -> Answer {
    let asked: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let model = asked.get("model").and_then(Value::as_str).unwrap_or("demo").to_owned();
    let ask_usage = asked.pointer("/stream_options/include_usage").and_then(Value::as_bool).unwrap_or(false);
    let prompt = open.prompt(&asked, script.cache);
    if !asked.get("stream").and_then(Value::as_bool).unwrap_or(by_default) {
        let text: String = (0..script.tokens).map(|number| script.token(number)).collect();
        let usage = Usage { prompt, output: script.tokens };
        return json_answer(200, &shape.whole(&model, &text, usage), open);
    }
    let mut answer = Response::new(Events::of(Play { script, shape, model, ask_usage, prompt, open }).boxed_unsync());
    set(&mut answer, "content-type", shape.content_type());
    answer
}

fn echo(parts: &http::request::Parts, body: &[u8]) -> Value {
    let headers: Vec<(&str, String)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": parts.uri.query(),
        "version": format!("{:?}", parts.version),
        "headers": headers,
        "body_bytes": body.len(),
        "body": String::from_utf8_lossy(body.get(..body.len().min(65_536)).unwrap_or_default()),
    })
}

fn large(query: Option<&str>, open: Open) -> Answer {
    let asked = query
        .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("bytes=")))
        .and_then(|text| text.parse().ok());
    let bytes: usize = asked.unwrap_or(1 << 20);
    whole(vec![b'x'; bytes.min(LARGE_MAX)], "application/octet-stream", open)
}

fn json_answer(status: u16, value: &Value, open: Open) -> Answer {
    let mut answer = whole(value.to_string(), "application/json", open);
    *answer.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

/// Bytes that are there already; they count as open until they are dropped.
fn whole(bytes: impl Into<Bytes>, content_type: &'static str, open: Open) -> Answer {
    open.completed();
    let body = Full::new(bytes.into()).map_err(move |never: Infallible| {
        let _ = &open;
        match never {}
    });
    let mut answer = Response::new(body.boxed_unsync());
    set(&mut answer, "content-type", content_type);
    answer
}

fn set(answer: &mut Answer, name: &'static str, value: &'static str) {
    answer.headers_mut().insert(name, http::HeaderValue::from_static(value));
}
