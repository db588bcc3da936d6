//! Opens an answer: tries endpoints until one has sent a head that can be passed on. Never touches the client's side.

use std::sync::Arc;
use std::time::Duration;

use pingora::ErrorType as Kind;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;

use super::admit::{Admitted, RequestBody};
use super::exchange::Visit;
use super::headers::{self, Outgoing};
use super::hold::{Interim, Upload};
use super::pool::Place;
use super::reject::Rejection;
use super::route::Routed;
use super::send::{self, Sent};
use super::settle::Flight;
use super::usage::Metering;
use crate::config::settings::{Endpoint, EndpointAddress};
use crate::telemetry::ids;
use crate::telemetry::record::{Attempt, ErrorType, Phase};

/// Attempts a request may take at most.
const ATTEMPTS_MAX: usize = 3;

/// What is asked of the upstreams.
pub(super) struct Asked<'a> {
    pub(super) head: &'a RequestHeader,
    pub(super) routed: &'a Routed,
    pub(super) admitted: &'a Admitted,
    pub(super) interim: &'a Interim,
}

/// An upstream's answer, read up to the end of its head.
pub(super) struct Opened {
    pub(super) session: HttpSession,
    pub(super) peer: Arc<HttpPeer>,
    pub(super) head: ResponseHeader,
    /// The rest of a streamed body that the upstream has not got yet.
    pub(super) upload: Upload,
    /// The upstream answered before it had read the whole request: the connection serves nothing more.
    pub(super) early: bool,
    /// For the usage of the answer.
    pub(super) metering: Metering,
}

/// Asks endpoints in turn.
///
/// # Errors
/// The rejection says which upstream failed, and how.
pub(super) async fn open(
    visit: &Visit<'_>,
    flight: &mut Flight<'_>,
    asked: &Asked<'_>,
    mut upload: Upload,
) -> Result<Opened, Rejection> {
    let upstream = &asked.routed.target.upstream;
    flight.served_by(&upstream.name, &asked.routed.target.name);
    let places = asked.routed.pool.places();
    let mut tried = 0;
    loop {
        let Some(place) = asked.routed.pool.pick() else {
            let message = format!("The name of upstream `{}` cannot be resolved. Check its url.", upstream.name);
            return Err(Rejection::upstream(ErrorType::DnsFailed, message));
        };
        tried += 1;
        let before = flight.phases();
        let failure = match (Try { visit, asked, place: &place }).run(flight, &mut upload).await {
            Ok((Answer { session, head, early }, metering)) => {
                return Ok(Opened { session, peer: place.peer, head, upload, early, metering });
            }
            Err(failure) => failure,
        };
        let replaceable = match failure.stage {
            Stage::Connect => tried < places,
            Stage::ReusedRace => !matches!(asked.admitted.body, RequestBody::Streamed { .. }),
            Stage::Answer => false,
        };
        if !replaceable || tried >= ATTEMPTS_MAX {
            return Err(rejection(failure.error, &upstream.name, place.endpoint));
        }
        flight.write_off(&before);
    }
}

/// How far an attempt had come when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing was sent.
    Connect,
    /// A kept connection was closed under the request, before any byte of an answer: the upstream never saw it.
    ReusedRace,
    Answer,
}

/// A failed attempt.
#[derive(Debug)]
struct Failure {
    stage: Stage,
    error: ErrorType,
}

/// What the client is told of a failed attempt.
pub(super) fn rejection(error: ErrorType, upstream: &str, endpoint: &Endpoint) -> Rejection {
    let at = &endpoint.authority;
    let (what, hint) = match error {
        ErrorType::ConnectRefused => ("refused the connection", "Is it running there?"),
        ErrorType::ConnectTimeout => ("did not accept a connection in time", "Is its address right?"),
        ErrorType::TlsFailed => ("failed the TLS handshake", "Check its certificate, and `ca` of the upstream."),
        ErrorType::UpstreamReset => ("closed the connection without an answer", "Look into its log."),
        ErrorType::UpstreamProtocol => ("sent an answer that is not valid HTTP", "Look into its log."),
        ErrorType::FirstTokenTimeout => ("did not answer in time", "Is it overloaded? See `timeouts.first_token`."),
        ErrorType::TotalTimeout => ("did not answer in time", "See `timeouts.total`."),
        _ => ("could not be reached", "Check its url."),
    };
    let message = format!("Upstream `{upstream}` ({at}) {what}. {hint}");
    match error {
        ErrorType::FirstTokenTimeout | ErrorType::TotalTimeout => Rejection::timeout(error, message),
        _ => Rejection::upstream(error, message),
    }
}

/// The head of an answer.
struct Answer {
    session: HttpSession,
    head: ResponseHeader,
    early: bool,
}

/// One attempt at one endpoint.
struct Try<'a> {
    visit: &'a Visit<'a>,
    asked: &'a Asked<'a>,
    place: &'a Place<'a>,
}

impl Try<'_> {
    async fn run(&self, flight: &mut Flight<'_>, upload: &mut Upload) -> Result<(Answer, Metering), Failure> {
        let span_id = ids::new_span_id();
        let started = flight.now();
        let mut reused = false;
        let result = self.ask(flight, upload, span_id, &mut reused).await;
        let (host, port) = server_address(self.place.endpoint);
        flight.attempted(Attempt {
            upstream: Arc::clone(&self.asked.routed.target.upstream.name),
            address: host,
            port,
            span_id,
            started,
            ended: flight.now(),
            reused_connection: reused,
            status: result.as_ref().ok().map(|(answer, _)| answer.head.status.as_u16()),
            error: result.as_ref().err().map(|failure| failure.error),
        });
        result
    }

    /// Asks, with the wish for usage where it is to be made; a request that is refused for that goes out as it came.
    async fn ask(
        &self,
        flight: &mut Flight<'_>,
        upload: &mut Upload,
        span_id: u64,
        reused: &mut bool,
    ) -> Result<(Answer, Metering), Failure> {
        let upstream = &self.asked.routed.target.upstream;
        let admitted = self.asked.admitted;
        let (mut metering, body) = Metering::begin(&self.visit.shared.usage, upstream, admitted, admitted.body.clone());
        let mut answer = self.exchange(flight, upload, &body, span_id, reused).await?;
        if metering.may_be_refused(answer.head.status.as_u16()) {
            answer.session.shutdown().await;
            answer = self.exchange(flight, upload, &admitted.body, span_id, reused).await?;
            metering.was_refused(answer.head.status.as_u16());
        }
        metering.answered(&mut answer.head);
        Ok((answer, metering))
    }

    async fn exchange(
        &self,
        flight: &mut Flight<'_>,
        upload: &mut Upload,
        body: &RequestBody,
        span_id: u64,
        reused: &mut bool,
    ) -> Result<Answer, Failure> {
        flight.enter(Phase::Connect);
        let (mut session, was_reused) = self.connect().await?;
        *reused = was_reused;
        flight.enter(Phase::UpstreamWait);
        let fail = |error: &pingora::Error| self.failure(error, was_reused);
        let head = self.request_head(&session, body, span_id).map_err(|error| fail(&error))?;
        session.write_request_header(head).await.map_err(|error| fail(&error))?;
        flight.asked();
        let sent = self.send_body(&mut session, body, upload).await;
        // A failed write may have an answer behind it: only when there is none, the write's error counts.
        let early = !matches!(sent, Ok(Sent::Whole | Sent::Answering));
        let deadline = self.deadline(flight);
        let read = tokio::time::timeout_at(flight.clock.instant(deadline), self.read_head(&mut session)).await;
        match (read, sent) {
            (Ok(Ok(head)), _) => Ok(Answer { session, head, early }),
            (Ok(Err(_)), Err(error)) | (Ok(Err(error)), Ok(_)) => Err(fail(&error)),
            (Err(_), _) => {
                session.shutdown().await;
                let total = self.asked.routed.limits.total(self.is_llm());
                let error = if total.is_some_and(|total| deadline >= total) {
                    ErrorType::TotalTimeout
                } else {
                    ErrorType::FirstTokenTimeout
                };
                Err(Failure { stage: Stage::Answer, error })
            }
        }
    }

    async fn connect(&self) -> Result<(HttpSession, bool), Failure> {
        let patience = self.asked.routed.limits.connect;
        let connect = self.visit.shared.connector.get_http_session(&*self.place.peer);
        match tokio::time::timeout(patience, connect).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(Failure { stage: Stage::Connect, error: connect_error(&error) }),
            Err(_) => Err(Failure { stage: Stage::Connect, error: ErrorType::ConnectTimeout }),
        }
    }

    fn request_head(
        &self,
        session: &HttpSession,
        body: &RequestBody,
        span_id: u64,
    ) -> pingora::Result<Box<RequestHeader>> {
        headers::request(&Outgoing {
            head: self.asked.head,
            caller: &self.visit.caller,
            routed: self.asked.routed,
            endpoint: self.place.endpoint,
            body,
            llm: self.asked.admitted.facts.dialect,
            attempt_span: span_id,
            h2: session.as_http2().is_some(),
            upgrade: false,
        })
    }

    async fn send_body(
        &self,
        session: &mut HttpSession,
        body: &RequestBody,
        upload: &mut Upload,
    ) -> pingora::Result<Sent> {
        let patience = self.visit.settings().server.body_timeout;
        match (body, upload) {
            (RequestBody::Buffered(body), _) => send::buffered(session, body, patience).await,
            (RequestBody::Streamed { .. }, Some(chunks)) => send::streamed(session, chunks, patience).await,
            (RequestBody::None | RequestBody::Streamed { .. }, _) => {
                session.finish_request_body().await?;
                Ok(Sent::Whole)
            }
        }
    }

    /// Reads up to the final head; interim ones go to the client's side.
    async fn read_head(&self, session: &mut HttpSession) -> pingora::Result<ResponseHeader> {
        loop {
            session.read_response_header().await?;
            let Some(head) = session.response_header() else {
                return Err(pingora::Error::explain(Kind::InvalidHTTPHeader, "no response header"));
            };
            match head.status.as_u16() {
                // We answered `Expect` ourselves.
                100 => {}
                101 => return Err(pingora::Error::explain(Kind::InvalidHTTPHeader, "101 without an upgrade")),
                102..=199 => self.asked.interim.put(head.clone()),
                _ => return Ok(head.clone()),
            }
        }
    }

    /// When the head must have come, on the request's clock. An answer in one piece has no first token to wait for.
    fn deadline(&self, flight: &Flight<'_>) -> Duration {
        let limits = &self.asked.routed.limits;
        let first = (!self.asked.admitted.facts.answers_whole()).then(|| flight.now() + limits.first_token);
        [first, limits.total(self.is_llm())].into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    fn is_llm(&self) -> bool {
        self.asked.admitted.facts.is_llm()
    }

    fn failure(&self, error: &pingora::Error, reused: bool) -> Failure {
        let protocol = [Kind::InvalidHTTPHeader, Kind::HTTPStatus(0), Kind::H2Error, Kind::InvalidH2];
        if protocol.contains(error.etype()) && !error.retry() {
            return Failure { stage: Stage::Answer, error: ErrorType::UpstreamProtocol };
        }
        let race = reused && matches!(error.retry, pingora::RetryType::ReusedOnly | pingora::RetryType::Decided(true));
        let stage = if race { Stage::ReusedRace } else { Stage::Answer };
        Failure { stage, error: ErrorType::UpstreamReset }
    }
}

/// Which kind of failure to connect this is.
pub(super) fn connect_error(error: &pingora::Error) -> ErrorType {
    match error.etype() {
        Kind::ConnectRefused => ErrorType::ConnectRefused,
        Kind::ConnectTimedout => ErrorType::ConnectTimeout,
        Kind::TLSHandshakeFailure
        | Kind::TLSHandshakeTimedout
        | Kind::InvalidCert
        | Kind::HandshakeError
        | Kind::TLSWantX509Lookup => ErrorType::TlsFailed,
        _ => ErrorType::ConnectFailed,
    }
}

/// `server.address` and `server.port` of an endpoint.
pub(super) fn server_address(endpoint: &Endpoint) -> (Arc<str>, Option<u16>) {
    match &endpoint.address {
        EndpointAddress::Tcp { host, port } => (Arc::from(host.as_str()), Some(*port)),
        EndpointAddress::Unix(path) => (Arc::from(path.to_string_lossy()), None),
    }
}
