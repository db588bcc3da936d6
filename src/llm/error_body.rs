//! Error bodies and error events in the client's dialect.

use bytes::Bytes;

use super::{Dialect, Framing};

/// The code of a refusal for money that is spent: no waiting of seconds mends it, unlike other limits.
pub const BUDGET_SPENT: &str = "budget_spent";

/// One refusal or failure, for a client to read.
#[derive(Debug, Clone, Copy)]
pub struct ErrorBody<'a> {
    /// What happened and what to do.
    pub message: &'a str,
    /// The machine word, as `first_token_timeout`.
    pub code: &'a str,
    pub status: u16,
    pub request_id: &'a str,
}

/// The JSON body of an error answer. `None`: FastAPI's shape.
pub fn error_body(dialect: Option<Dialect>, error: &ErrorBody<'_>) -> Bytes {
    match dialect {
        Some(
            Dialect::OpenAiChat | Dialect::OpenAiResponses | Dialect::Anthropic | Dialect::Gemini | Dialect::Ollama,
        ) => json_of(dialect, error),
        // The SDK's hooks show a body as it is.
        Some(Dialect::VercelUi | Dialect::VercelData | Dialect::PlainSse | Dialect::PlainText | Dialect::Shape(_))
        | None => {
            let [detail, code] = [error.message, error.code].map(quoted);
            // Where no request was read there is none.
            let id = Some(error.request_id).filter(|id| !id.is_empty());
            let id = id.map_or_else(String::new, |id| format!(r#","request_id":{}"#, quoted(id)));
            format!(r#"{{"detail":{detail},"code":{code}{id}}}"#)
        }
    }
    .into()
}

/// The event that tells a client inside a running stream that it failed; `None` where the framing has no such thing.
///
/// It may be put in only where [`Gauge::at_boundary`](super::Gauge::at_boundary) holds. No `[DONE]` follows it: a failed
/// stream must not look complete.
pub fn error_event(dialect: Dialect, framing: Framing, error: &ErrorBody<'_>) -> Option<Bytes> {
    let text = quoted(&one_text(error));
    let body = match dialect {
        // Its number is no more than a number: the next is not known here.
        Dialect::OpenAiResponses => {
            let code = quoted(error.code);
            format!(r#"{{"type":"error","sequence_number":0,"code":{code},"message":{text},"param":null}}"#)
        }
        Dialect::VercelUi => format!(r#"{{"type":"error","errorText":{text}}}"#),
        // A code, and a string.
        Dialect::VercelData => format!("3:{text}"),
        _ => json_of(Some(dialect), error),
    };
    let name = match dialect {
        // Their clients look into the data of unnamed events.
        Dialect::OpenAiChat | Dialect::Gemini | Dialect::VercelUi | Dialect::VercelData => "",
        Dialect::OpenAiResponses
        | Dialect::Anthropic
        | Dialect::Ollama
        | Dialect::PlainSse
        | Dialect::PlainText
        | Dialect::Shape(_) => "event: error\n",
    };
    match framing {
        Framing::Sse => Some(format!("{name}data: {body}\n\n").into()),
        Framing::JsonLines => Some(format!("{body}\n").into()),
        // The boundary is inside an array.
        Framing::JsonValues => Some(format!(",\n{body}\n]\n").into()),
        Framing::Json | Framing::AwsEvents | Framing::Opaque => None,
    }
}

/// The error as an event's data: with a top-level `error` key in every dialect, so that its readers see it.
fn json_of(dialect: Option<Dialect>, error: &ErrorBody<'_>) -> String {
    let &ErrorBody { message, code, status, request_id } = error;
    let kind = |spent| if code == BUDGET_SPENT { spent } else { type_word(status) };
    let [text, message, code, id] = [&*one_text(error), message, code, request_id].map(quoted);
    match dialect {
        Some(Dialect::OpenAiChat | Dialect::OpenAiResponses) => {
            let kind = kind(OPENAI_SPENT);
            format!(
                r#"{{"error":{{"message":{message},"type":"{kind}","param":null,"code":{code},"request_id":{id}}}}}"#
            )
        }
        // Without a code of its own, the type says it.
        Some(Dialect::Anthropic) => {
            let kind = kind("billing_error");
            format!(r#"{{"type":"error","error":{{"type":"{kind}","message":{message}}},"request_id":{id}}}"#)
        }
        Some(Dialect::Gemini) => {
            let word = status_word(status);
            format!(r#"{{"error":{{"code":{status},"message":{text},"status":"{word}"}}}}"#)
        }
        // Its clients take a string alone.
        Some(Dialect::Ollama) => format!(r#"{{"error":{text}}}"#),
        Some(Dialect::VercelUi | Dialect::VercelData | Dialect::PlainSse | Dialect::PlainText | Dialect::Shape(_))
        | None => format!(r#"{{"error":{message},"code":{code},"request_id":{id}}}"#),
    }
}

/// All of an error in one text, for clients that take no further field.
fn one_text(error: &ErrorBody<'_>) -> String {
    let ErrorBody { message, code, request_id, .. } = error;
    format!("{message} ({code}, request {request_id})")
}

/// The status of an error, as Google words it (`google.rpc.Code`).
fn status_word(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        504 => "DEADLINE_EXCEEDED",
        502 | 503 | 529 => "UNAVAILABLE",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}

/// The type of the error that OpenAI's clients know for money that is spent.
pub const OPENAI_SPENT: &str = "insufficient_quota";

/// The type of an error, as OpenAI and Anthropic word it.
fn type_word(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// A text as JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::llm::{Gauge, StreamRules};

    const ERROR: ErrorBody<'_> =
        ErrorBody { message: "no \"token\"\nyet", code: "first_token_timeout", status: 504, request_id: "r-1" };

    fn body(dialect: Option<Dialect>) -> String {
        String::from_utf8(error_body(dialect, &ERROR).to_vec()).unwrap()
    }

    #[test]
    fn bodies_are_in_the_dialect() {
        let vectors = [
            (
                Some(Dialect::OpenAiChat),
                r#"{"error":{"message":"no \"token\"\nyet","type":"api_error","param":null,"code":"first_token_timeout","request_id":"r-1"}}"#,
            ),
            (
                Some(Dialect::Anthropic),
                r#"{"type":"error","error":{"type":"api_error","message":"no \"token\"\nyet"},"request_id":"r-1"}"#,
            ),
            (
                Some(Dialect::Gemini),
                r#"{"error":{"code":504,"message":"no \"token\"\nyet (first_token_timeout, request r-1)","status":"DEADLINE_EXCEEDED"}}"#,
            ),
            (Some(Dialect::Ollama), r#"{"error":"no \"token\"\nyet (first_token_timeout, request r-1)"}"#),
            (None, r#"{"detail":"no \"token\"\nyet","code":"first_token_timeout","request_id":"r-1"}"#),
        ];
        for (dialect, expected) in vectors {
            assert_eq!(body(dialect), expected);
        }
        assert_eq!(body(Some(Dialect::PlainSse)), body(None));
        assert_eq!(body(Some(Dialect::PlainText)), body(None));
        assert_eq!(body(Some(Dialect::VercelUi)), body(None));
        assert_eq!(body(Some(Dialect::OpenAiResponses)), body(Some(Dialect::OpenAiChat)));
    }

    #[test]
    fn money_that_is_spent_is_told_from_a_limit_a_minute() {
        let body = |dialect, code| {
            let error = ErrorBody { message: "m", code, status: 429, request_id: "r-1" };
            String::from_utf8(error_body(dialect, &error).to_vec()).unwrap()
        };
        let vectors = [
            (Some(Dialect::OpenAiChat), r#""type":"insufficient_quota","param":null,"code":"budget_spent""#),
            (Some(Dialect::Anthropic), r#"{"type":"billing_error","message":"m"}"#),
            (Some(Dialect::Gemini), r#""message":"m (budget_spent, request r-1)","status":"RESOURCE_EXHAUSTED""#),
            (Some(Dialect::Ollama), r#"{"error":"m (budget_spent, request r-1)"}"#),
            (None, r#"{"detail":"m","code":"budget_spent","request_id":"r-1"}"#),
        ];
        for (dialect, words) in vectors {
            let spent = body(dialect, BUDGET_SPENT);
            assert!(spent.contains(words), "{spent}");
            assert_ne!(spent, body(dialect, "rate_limited"));
        }
        assert!(body(Some(Dialect::OpenAiChat), "rate_limited").contains(r#""type":"rate_limit_error""#));
        assert!(body(Some(Dialect::Anthropic), "rate_limited").contains(r#""type":"rate_limit_error""#));
    }

    #[test]
    fn types_follow_the_status() {
        let vectors = [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (403, "permission_error"),
            (404, "not_found_error"),
            (413, "request_too_large"),
            (422, "invalid_request_error"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (502, "api_error"),
            (503, "overloaded_error"),
            (529, "overloaded_error"),
        ];
        for (status, word) in vectors {
            assert_eq!(type_word(status), word, "{status}");
        }
    }

    #[test]
    fn an_event_reads_as_an_error_in_its_own_dialect() {
        let mut tried = 0;
        for dialect in Dialect::ALL {
            for framing in [Framing::Sse, Framing::JsonLines] {
                if (dialect, framing) == (Dialect::VercelData, Framing::Sse) {
                    // It has lines alone.
                    continue;
                }
                let event = error_event(dialect, framing, &ERROR).unwrap();
                let mut gauge = Gauge::new(dialect, framing, Arc::new(StreamRules::default()), Duration::ZERO);
                gauge.feed(&event, Duration::ZERO);
                assert!(gauge.at_boundary(), "{dialect:?} {framing:?}");
                let reading = gauge.reading();
                assert!(reading.error.as_ref().is_some_and(|error| error.contains("no \"token\"\nyet")), "{reading:?}");
                assert_eq!((reading.frames, reading.token_frames), (1, 0), "{dialect:?} {framing:?}");
                tried += 1;
            }
            assert_eq!(error_event(dialect, Framing::Json, &ERROR), None);
            assert_eq!(error_event(dialect, Framing::Opaque, &ERROR), None);
        }
        assert_eq!(tried, 17);
    }

    #[test]
    fn events_are_framed_for_their_clients() {
        let anthropic = error_event(Dialect::Anthropic, Framing::Sse, &ERROR).unwrap();
        assert!(anthropic.starts_with(b"event: error\ndata: {\"type\":\"error\","));
        let openai = error_event(Dialect::OpenAiChat, Framing::Sse, &ERROR).unwrap();
        assert!(openai.starts_with(b"data: {\"error\":{"));
        let exact = [
            (
                Dialect::OpenAiResponses,
                Framing::Sse,
                "event: error\ndata: {\"type\":\"error\",\"sequence_number\":0,\"code\":\"first_token_timeout\",\"message\":\"no \\\"token\\\"\\nyet (first_token_timeout, request r-1)\",\"param\":null}\n\n",
            ),
            (
                Dialect::VercelUi,
                Framing::Sse,
                "data: {\"type\":\"error\",\"errorText\":\"no \\\"token\\\"\\nyet (first_token_timeout, request r-1)\"}\n\n",
            ),
            (
                Dialect::VercelData,
                Framing::JsonLines,
                "3:\"no \\\"token\\\"\\nyet (first_token_timeout, request r-1)\"\n",
            ),
        ];
        for (dialect, framing, expected) in exact {
            assert_eq!(error_event(dialect, framing, &ERROR).unwrap(), expected);
        }
        let mut array = Gauge::new(Dialect::Gemini, Framing::Json, Arc::new(StreamRules::default()), Duration::ZERO);
        array.feed(b"[{}", Duration::ZERO);
        array.feed(&error_event(Dialect::Gemini, array.framing(), &ERROR).unwrap(), Duration::ZERO);
        assert!(array.reading().error.as_ref().is_some_and(|error| error.starts_with("DEADLINE_EXCEEDED: no")));
        for event in [anthropic, openai] {
            assert!(event.ends_with(b"}\n\n"));
        }
    }
}
