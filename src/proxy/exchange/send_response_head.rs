//! Sends the head of an answer to the client.

use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::termination::End;
use crate::proxy::client::headers::{self, AnswerFraming, Incoming};
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::routed_request::RoutedRequest;
use crate::proxy::upstream::upstream_response::Source;
use crate::telemetry::event::Event;
use crate::telemetry::record::Phase;

/// Sends the head. After this, status and headers are fixed.
pub(crate) async fn commit(
    session: &mut ServerSession,
    flight: &mut Flight<'_>,
    head: ResponseHeader,
    source: &Source,
    request: &RoutedRequest<'_>,
) -> Result<AnswerFraming, End> {
    let events = source.reader.tap.is_sse();
    if request.client.is_committed() {
        // The early head promised an event stream.
        flight.tell(Event::StatusSent(200));
        let fits = events && !source.reader.tap.is_packed() && head.status.is_success();
        return if fits { Ok(early_framing(session)) } else { Err(End::Unfit) };
    }
    flight.enter(Phase::Proxy);
    let incoming = Incoming {
        context: request.context,
        client_version: session.req_header().version,
        events,
        phases: flight.phases(),
        standing: &request.standing,
    };
    let (head, framing) = headers::answer(head, &incoming).map_err(|_| End::Internal)?;
    if source.early {
        // The rest of the request body is in the client's way to its next request.
        session.set_keepalive(None);
    }
    let status = head.status.as_u16();
    flight.enter(Phase::ClientBlocked);
    session.write_response_header(Box::new(head)).await.map_err(|_| End::ClientGone)?;
    flight.tell(Event::StatusSent(status));
    Ok(framing)
}

fn early_framing(session: &ServerSession) -> AnswerFraming {
    match session.req_header().version {
        http::Version::HTTP_10 => AnswerFraming::ByClose,
        _ => AnswerFraming::Delimited,
    }
}
