//! Takes in the request's body as far as routing needs it, and reads what the request asks for.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

use super::body_bytes::BodyBytes;
use super::exchange::Stop;
use super::reject::Rejection;
use super::settle::Flight;
use crate::config::settings::Server;
use crate::llm::RequestFacts;
use crate::telemetry::record::{ErrorType, Phase};

/// A request whose body is in hand, or will be streamed.
pub(super) struct Admitted {
    pub(super) body: RequestBody,
    /// What the body takes of what all may, for as long as anybody has it.
    pub(super) bytes: Arc<BodyBytes>,
    pub(super) facts: Arc<RequestFacts>,
}

/// What there is of a body.
#[derive(Debug, Clone)]
pub(super) enum RequestBody {
    None,
    /// JSON, read to its end: it can be looked into and sent again.
    Buffered(Bytes),
    /// Passes through, once.
    Streamed {
        length: Option<u64>,
    },
}

/// Reads a JSON body to its end; leaves any other to be streamed.
pub(super) async fn admit(
    session: &mut ServerSession,
    flight: &mut Flight<'_>,
    bounds: &Server,
    mut bytes: BodyBytes,
) -> Result<Admitted, Stop> {
    let body = if session.is_body_done() {
        RequestBody::None
    } else {
        let length = content_length(session.req_header());
        if is_plain_json(session.req_header()) {
            flight.enter(Phase::Receive);
            RequestBody::Buffered(read_whole(session, flight, length, (bounds, &mut bytes)).await?)
        } else {
            within(length, bounds.max_upload, "max_upload")?;
            RequestBody::Streamed { length }
        }
    };
    flight.enter(Phase::Admit);
    let json = match &body {
        RequestBody::Buffered(bytes) => Some(bytes.as_ref()),
        RequestBody::None | RequestBody::Streamed { .. } => None,
    };
    let facts = RequestFacts::read(session.req_header().uri.path(), json);
    Ok(Admitted { body, bytes: Arc::new(bytes), facts: Arc::new(facts) })
}

async fn read_whole(
    session: &mut ServerSession,
    flight: &mut Flight<'_>,
    length: Option<u64>,
    (bounds, bytes): (&Server, &mut BodyBytes),
) -> Result<Bytes, Stop> {
    within(length, bounds.max_body, "max_body")?;
    answer_expectation(session).await?;
    let mut whole = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(chunk) = read_chunk(session, bounds.body_timeout).await? {
        flight.bytes(chunk.len() as u64, 0);
        if !bytes.grow(chunk.len() as u64, bounds.max_buffered) {
            let message = "Too many request bodies are held at once. Try again in a second, or have \
                `server.max_buffered` raised.";
            return Err(Rejection::overloaded(ErrorType::Overloaded, message).into());
        }
        if whole.is_empty() && joined.is_empty() {
            // Most bodies come in one piece: no copy.
            whole = chunk;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&whole);
            }
            joined.extend_from_slice(&chunk);
        }
        within(Some(whole.len().max(joined.len()) as u64), bounds.max_body, "max_body")?;
    }
    Ok(if joined.is_empty() { whole } else { joined.freeze() })
}

/// The next bytes of the request body, within their time; never none, which would read as the body's end further on.
pub(super) async fn read_chunk(session: &mut ServerSession, patience: Duration) -> Result<Option<Bytes>, Stop> {
    let read = async {
        loop {
            // pingora yields nothing where a chunk's size came without its bytes.
            match session.read_request_body().await {
                Ok(Some(chunk)) if chunk.is_empty() => {}
                read => return read,
            }
        }
    };
    match tokio::time::timeout(patience, read).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(error)) => Err(body_error(&error)),
        Err(_) => Err(Stop::Reject(Rejection {
            status: 408,
            ..Rejection::refused(
                408,
                ErrorType::BodyTimeout,
                format!("No byte of the request body came for {patience:?}. Send the body without such pauses."),
            )
        })),
    }
}

/// A body that is framed wrongly is the client's mistake; any other failure is its going.
pub(super) fn body_error(error: &pingora::Error) -> Stop {
    // pingora keeps these two kinds to itself.
    if ["InvalidChunk", "InvalidTrailerEnd"].contains(&error.etype().as_str()) {
        return Stop::Reject(Rejection::bad_request("The request body's chunked encoding is broken."));
    }
    Stop::ClientGone
}

/// `100 Continue`, where the client waits for it.
pub(super) async fn answer_expectation(session: &mut ServerSession) -> Result<(), Stop> {
    let head = session.req_header();
    let expects =
        head.headers.get("expect").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if expects && head.version != http::Version::HTTP_10 {
        session.write_continue_response().await.map_err(|_| Stop::ClientGone)?;
    }
    Ok(())
}

/// Refuses what is larger than its bound.
pub(super) fn within(length: Option<u64>, bound: u64, key: &str) -> Result<(), Stop> {
    match length {
        Some(length) if length > bound => Err(Stop::Reject(Rejection::refused(
            413,
            ErrorType::TooLarge,
            format!("The request body is larger than {bound} bytes. Send less, or have `server.{key}` raised."),
        ))),
        _ => Ok(()),
    }
}

fn content_length(head: &RequestHeader) -> Option<u64> {
    head.headers.get("content-length")?.to_str().ok()?.trim().parse().ok()
}

/// JSON that can be looked into: not compressed.
fn is_plain_json(head: &RequestHeader) -> bool {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let encoded = header("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"));
    let media_type = header("content-type").unwrap_or("").split(';').next().unwrap_or("").trim();
    let json = media_type.eq_ignore_ascii_case("application/json")
        || media_type.len() > 5 && media_type.to_ascii_lowercase().ends_with("+json");
    json && !encoded
}
