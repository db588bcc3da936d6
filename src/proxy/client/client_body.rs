//! Reads a request's body from its client, within times and bounds.

use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::http::ServerSession;

use crate::proxy::request::outcome::Stop;
use crate::proxy::request::rejection::Rejection;
use crate::telemetry::record::ErrorType;

/// The next bytes of the request body, within their time; never none, which would read as the body's end further on.
pub(crate) async fn read_chunk(session: &mut ServerSession, patience: Duration) -> Result<Option<Bytes>, Stop> {
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
        Err(_) => {
            let message =
                format!("No byte of the request body came for {patience:?}. Send the body without such pauses.");
            Err(Rejection::refused(408, ErrorType::BodyTimeout, message).into())
        }
    }
}

/// A body that is framed wrongly is the client's mistake; any other failure is its going.
pub(crate) fn body_error(error: &pingora::Error) -> Stop {
    // pingora keeps these two kinds to itself.
    if ["InvalidChunk", "InvalidTrailerEnd"].contains(&error.etype().as_str()) {
        return Stop::Reject(Rejection::bad_request("The request body's chunked encoding is broken."));
    }
    Stop::ClientGone
}

/// `100 Continue`, where the client waits for it; once.
pub(crate) async fn answer_expectation(session: &mut ServerSession) -> Result<(), Stop> {
    let Some(expected) = session.req_header_mut().remove_header("expect") else { return Ok(()) };
    let expects = expected.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if expects && session.req_header().version != http::Version::HTTP_10 {
        session.write_continue_response().await.map_err(|_| Stop::ClientGone)?;
    }
    Ok(())
}

/// Refuses what is larger than its bound.
pub(crate) fn within(length: Option<u64>, bound: u64, key: &str) -> Result<(), Stop> {
    match length {
        Some(length) if length > bound => Err(too_large(bound, key, "").into()),
        _ => Ok(()),
    }
}

pub(crate) fn too_large(bound: u64, key: &str, when: &str) -> Rejection {
    let space = if when.is_empty() { "" } else { " " };
    let message = format!(
        "The request body{space}{when} is larger than {bound} bytes. Send less, or have `server.{key}` raised."
    );
    Rejection::refused(413, ErrorType::TooLarge, message)
}
