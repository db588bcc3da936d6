//! The client's side while an upstream is asked: takes in the rest of the body, passes interim answers on, keeps the
//! client's patience with comments, and notices when it goes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use pingora::protocols::http::ServerSession;

use super::body_pace::BodyPace;
use super::client_body;
use super::headers;
use crate::llm::Dialect;
use crate::proxy::request::outcome::Stop;
use crate::proxy::request::routed_request::RoutedRequest;

/// An SSE comment: every client ignores it, and every hop between sees that the stream lives.
pub(crate) const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// Holds until there is a reason to stop: the client went, or its body broke a rule. Otherwise for ever.
pub(crate) async fn wait(request: &RoutedRequest<'_>, session: &mut ServerSession) -> Stop {
    match hold(request, session).await {
        Err(stop) => stop,
        Ok(never) => match never {},
    }
}

async fn hold(request: &RoutedRequest<'_>, session: &mut ServerSession) -> Result<std::convert::Infallible, Stop> {
    if !request.client.is_body_done() {
        client_body::answer_expectation(session).await?;
        take_body(request, session).await?;
    }
    let every = comment_interval(request, session);
    let mut next_comment = tokio::time::Instant::now() + every.unwrap_or(Duration::MAX / 4);
    loop {
        tokio::select! {
            biased;
            () = request.client.interim.came.notified() => pass_interim(request, session).await?,
            // Any byte, an end or an error here means that the client has given up on this answer.
            _ = session.read_body_or_idle(true) => return Err(Stop::ClientGone),
            () = tokio::time::sleep_until(next_comment), if every.is_some() => {
                comment(request, session).await?;
                next_comment += every.unwrap_or(Duration::MAX / 4);
            }
        }
    }
}

async fn take_body(request: &RoutedRequest<'_>, session: &mut ServerSession) -> Result<(), Stop> {
    let server = &request.settings().server;
    let Some(chunks) = &request.client.chunks else { return Ok(()) };
    let mut pace = BodyPace::new(server);
    loop {
        // The place is taken before the chunk is read, so that no chunk is in hand when this future is dropped. Without
        // a place, the upstream has stopped listening: then the rest is read and thrown away.
        let read = async { (chunks.reserve().await.ok(), pace.read_chunk(session).await) };
        let (place, chunk) = tokio::select! {
            biased;
            () = request.client.interim.came.notified() => { pass_interim(request, session).await?; continue }
            read = read => read,
        };
        let Some(chunk) = chunk? else {
            // An empty chunk is the end of the body.
            if let Some(place) = place {
                place.send(Bytes::new());
            }
            break;
        };
        let received = request.client.received.fetch_add(chunk.len() as u64, Ordering::Relaxed) + chunk.len() as u64;
        client_body::within(Some(received), server.max_upload, "max_upload")?;
        if let Some(place) = place {
            place.send(chunk);
        }
    }
    request.client.body_done.store(true, Ordering::Relaxed);
    Ok(())
}

/// Passes interim answers on that have come so far.
pub(crate) async fn pass_interim(request: &RoutedRequest<'_>, session: &mut ServerSession) -> Result<(), Stop> {
    // RFC 9110, section 15.2: never to an HTTP/1.0 client.
    let understands = session.req_header().version != Version::HTTP_10;
    for head in request.client.interim.take() {
        if understands && !request.client.is_committed() {
            session.write_response_header(Box::new(head)).await.map_err(|_| Stop::ClientGone)?;
        }
    }
    Ok(())
}

/// How often to send a comment before the upstream's head came; `None`: never.
fn comment_interval(request: &RoutedRequest<'_>, session: &ServerSession) -> Option<Duration> {
    let route = &request.routed.route;
    let accept = session.req_header().headers.get("accept").map_or(&b""[..], |value| value.as_bytes());
    let streams_events = !matches!(request.facts().dialect, Some(Dialect::Ollama | Dialect::VercelData))
        && (request.facts().stream == Some(true) || accept.starts_with(b"text/event-stream"));
    let wanted = route.keepalive_before_headers && !route.keepalive.is_zero() && streams_events;
    wanted.then_some(route.keepalive)
}

async fn comment(request: &RoutedRequest<'_>, session: &mut ServerSession) -> Result<(), Stop> {
    if !request.client.is_committed() {
        let head = headers::early_event_stream(session.req_header(), request)
            .map_err(|_| Stop::Reject(crate::proxy::request::rejection::Rejection::internal()))?;
        session.write_response_header(Box::new(head)).await.map_err(|_| Stop::ClientGone)?;
        request.client.committed.store(true, Ordering::Relaxed);
    }
    session.write_response_body(KEEP_ALIVE, false).await.map_err(|_| Stop::ClientGone)
}
