//! One attempt at one endpoint: up to the head of its answer, and on to its first token where another could still answer
//! in its place. Never touches the client's side.

use std::sync::Arc;
use std::time::Duration;

use pingora::http::ResponseHeader;
use pingora::protocols::ALPN;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::{HttpPeer, Peer};

use super::outlet::Outlet;
use super::response_reader::{Next, ResponseReader};
use super::send::{self, Sent};
use super::tap::{Setting, Tap};
use super::upstream_error::{Race, UpstreamError, Went, fault, late_error, retry_after};
use super::upstream_request::UpstreamRequest;
use super::upstream_response::{Held, UpstreamResponse};
use crate::config::address::Endpoint;
use crate::config::settings::{RouteKind, Target};
use crate::llm::usage_injection;
use crate::policy::deadlines::{Deadlines, Kind, Late};
use crate::policy::failover::{self, Stage};
use crate::policy::health::Sign;
use crate::policy::learned_usage;
use crate::proxy::client::headers::{self, Outgoing};
use crate::proxy::endpoints::connector::First;
use crate::proxy::endpoints::corked::Corked;
use crate::proxy::endpoints::dial::Unconnected;
use crate::proxy::endpoints::lease::Lease;
use crate::proxy::endpoints::retry_budget::{Again, RouteLoad};
use crate::proxy::endpoints::shared_h2;
use crate::proxy::endpoints::socket;
use crate::proxy::process::request_body::RequestBody;
use crate::proxy::process::usage::{Doubt, Metering};
use crate::proxy::request::attempts::AttemptLog;
use crate::proxy::request::client_progress::Upload;
use crate::telemetry::event::AttemptEvent;
use crate::telemetry::ids;
use crate::telemetry::record::{Attempt, Cause, ErrorType};

/// Most bytes, and most events, of an answer that are held back for its first token. What sends more before it is of a kind
/// that we do not know, and passes.
const HELD_BYTES_MAX: usize = 64 * 1024;
const HELD_FRAMES_MAX: u64 = 64;

/// A failed attempt.
pub(crate) struct Failed {
    pub(crate) stage: Stage,
    pub(crate) race: Race,
    pub(crate) error: ErrorType,
    /// Why it failed, in words, where more is known than the error's kind.
    pub(crate) cause: Option<String>,
    /// What the upstream said, where it said anything: it is passed on when nobody else can answer.
    pub(crate) answer: Option<Box<UpstreamResponse>>,
    pub(crate) upstream: Arc<str>,
    pub(crate) endpoint: Arc<Endpoint>,
}

/// An attempt that is about to be made.
pub(crate) struct Step<'a> {
    pub(crate) target: &'a Target,
    pub(crate) ticket: Lease,
    pub(crate) cause: Cause,
    /// Hold the answer back until its first token, since another could still take its place.
    pub(crate) holds: bool,
    /// Another place can be asked if this one brings nothing.
    pub(crate) another: bool,
    /// Use no kept connection.
    pub(crate) fresh: bool,
    /// Where leave is given to ask once more without the wish for usage; `None`: for a copy, nowhere.
    pub(crate) load: Option<&'a Arc<RouteLoad>>,
}

/// One attempt under way.
pub(crate) struct AttemptRun<'a> {
    request: &'a UpstreamRequest<'a>,
    step: Step<'a>,
    log: AttemptLog<'a>,
    span_id: u64,
    started: Duration,
}

/// The head of an answer, and how it was come by.
struct Answer {
    session: HttpSession,
    head: ResponseHeader,
    outlet: Option<Outlet>,
    early: bool,
    deadlines: Deadlines,
}

/// What came of asking.
enum Came {
    /// And what is wrong with it, as far as it was read.
    Answer(Box<UpstreamResponse>, Option<ErrorType>),
    Nothing(UpstreamError),
}

impl Came {
    fn status(&self) -> Option<u16> {
        match self {
            Self::Answer(opened, _) => Some(opened.head.status.as_u16()),
            Self::Nothing(_) => None,
        }
    }

    fn is_well(&self) -> bool {
        matches!(self, Self::Answer(opened, None) if opened.head.status.is_success())
    }

    /// Whether another place could be asked in its stead.
    fn is_replaceable(&self) -> bool {
        !matches!(self, Self::Answer(_, None))
    }

    /// Whether all that is wrong may be that usage was asked for.
    fn may_be_the_wishs(&self) -> bool {
        match self {
            Self::Answer(opened, error) if opened.head.status.is_success() => {
                matches!(error, Some(ErrorType::ErrorEvent | ErrorType::MissingEnd | ErrorType::UpstreamBodyReset))
            }
            Self::Answer(opened, _) => {
                learned_usage::may_refuse_the_wish(opened.head.status.as_u16(), retry_after(&opened.head).is_some())
            }
            Self::Nothing(fault) => {
                let late = matches!(fault.error, ErrorType::FirstTokenTimeout | ErrorType::TotalTimeout);
                fault.stage == Stage::Sent && !fault.race.happened() && !late
            }
        }
    }

    /// Frees the upstream.
    async fn break_off(self) {
        if let Self::Answer(mut opened, _) = self {
            opened.reader.session.shutdown().await;
        }
    }
}

impl<'a> AttemptRun<'a> {
    pub(crate) fn new(request: &'a UpstreamRequest<'a>, step: Step<'a>) -> Self {
        let span_id = ids::new_span_id();
        let started = request.clock.now();
        let log = request.attempts.begin(Attempt {
            upstream: Arc::clone(&step.target.upstream.name),
            place: step.ticket.member.place.clone(),
            span_id,
            started,
            ended: started,
            reused_connection: false,
            status: None,
            error: None,
            cause: step.cause,
        });
        Self { request, step, log, span_id, started }
    }

    /// Which attempt this is.
    pub(crate) fn number(&self) -> usize {
        self.log.number
    }

    /// Asks. Dropping the future before its end breaks the attempt off, and frees the upstream.
    ///
    /// Where usage is asked for on the client's behalf for the first time, and that may be what goes wrong, the request goes
    /// out once more as it came.
    pub(crate) async fn run(mut self, upload: &mut Upload) -> Result<Box<UpstreamResponse>, Box<Failed>> {
        let (mut came, doubt) = self.come(upload, true).await;
        if let Some(doubt) = doubt {
            if came.is_well() {
                doubt.was_wrong();
            } else if let Some(_leave) = self.leave(&came) {
                came.break_off().await;
                (came, _) = self.come(upload, false).await;
                if came.is_well() {
                    doubt.was_right();
                } else {
                    doubt.was_idle(came.status());
                }
            }
        }
        self.conclude(came)
    }

    /// Asks, with the wish for usage where it `asks` and that is to be made, and reads on as far as that is needed.
    async fn come(&mut self, upload: &mut Upload, asks: bool) -> (Came, Option<Doubt>) {
        let (upstream, admitted) = (&self.step.target.upstream, self.request.admitted);
        let own = self.request.body_for(self.step.target);
        let (metering, body) = Metering::begin(&self.request.shared.usage, upstream, admitted, own, asks);
        let doubt = metering.doubt();
        let mut answer = match self.exchange(upload, &body).await {
            Ok(answer) => answer,
            Err(fault) => return (Came::Nothing(fault), doubt),
        };
        metering.answered(&mut answer.head);
        self.log.tell(&AttemptEvent::Answered(answer.head.status.as_u16()));
        let mut opened = self.opened(answer, metering);
        let doubts = doubt.is_some() || !asks;
        let error = self.look(&mut opened, doubts).await.err();
        (Came::Answer(opened, error), doubt)
    }

    /// Whether the answer is one to pass on, as far as can be told; reads on to its first token where that is asked for.
    async fn look(&self, opened: &mut UpstreamResponse, doubts: bool) -> Result<(), ErrorType> {
        if failover::is_replaceable_status(opened.head.status.as_u16()) {
            Err(ErrorType::UpstreamStatus)
        } else if !opened.head.status.is_success() {
            Ok(())
        } else {
            match opened.reader.tap.kind() {
                Kind::Tokens if self.step.holds || doubts && opened.reader.tap.is_sse() => self.hold(opened).await,
                Kind::Whole { .. } if doubts => self.hold_document(opened).await,
                _ => Ok(()),
            }
        }
    }

    /// Leave to ask once more without the wish for usage; `None`: the wish is not what went wrong, or too much is sent again.
    fn leave(&self, came: &Came) -> Option<Option<Again>> {
        // What was refused unread cost nothing.
        if came.status().is_some_and(|status| matches!(status, 400 | 422)) {
            return Some(None);
        }
        // Another place may do better with the request as it is: where there is none, this one may without the wish.
        if !came.may_be_the_wishs() || came.is_replaceable() && self.step.holds {
            return None;
        }
        let retries = &self.request.routed.route.retries;
        if self.log.number + 1 >= retries.attempts as usize {
            return None;
        }
        self.step.load.and_then(|load| load.again(retries.budget)).map(Some)
    }

    /// What the attempt has come to.
    fn conclude(mut self, came: Came) -> Result<Box<UpstreamResponse>, Box<Failed>> {
        let (mut opened, error) = match came {
            Came::Answer(opened, error) => (opened, error),
            Came::Nothing(fault) => {
                let sign = if fault.stage == Stage::Unsent { Sign::Unreachable } else { Sign::Faulty };
                // A kept connection that was closed, or the whole request's time being over, says nothing of the endpoint.
                if !fault.race.happened() && fault.error != ErrorType::TotalTimeout {
                    self.step.ticket.tell(sign);
                }
                return Err(self.failed(fault, None));
            }
        };
        let retry_after = retry_after(&opened.head);
        opened.ticket.refused(opened.head.status.as_u16(), retry_after);
        // Held only to see whether the wish was taken: what came passes as it would have.
        let passes = !self.step.holds && opened.head.status.is_success();
        let Some(error) = error.filter(|error| !passes || *error == ErrorType::UpstreamBodyReset) else {
            opened.held.whole |= error == Some(ErrorType::MissingEnd);
            self.log.tell(&AttemptEvent::Opened);
            self.settle(&mut opened);
            return Ok(opened);
        };
        if matches!(error, ErrorType::FirstTokenTimeout | ErrorType::TotalTimeout) {
            shared_h2::retire(&opened.reader.session);
        }
        if !matches!(error, ErrorType::UpstreamStatus | ErrorType::TotalTimeout) {
            opened.ticket.tell(Sign::Faulty);
        }
        // What broke off cannot be passed on as an answer.
        let speaks = matches!(error, ErrorType::UpstreamStatus | ErrorType::ErrorEvent);
        Err(self.failed(UpstreamError::sent(error, Race::None), speaks.then_some(opened)))
    }

    /// Tells the endpoint how fast it was, where that is known by now; how it did is told when its answer has ended.
    fn settle(&self, opened: &mut UpstreamResponse) {
        if !opened.head.status.is_success() {
            return;
        }
        let is_delivery = self.request.facts().is_delivery();
        match (opened.reader.tap.kind(), opened.reader.tap.first_token()) {
            // How long it takes to begin is the app's own affair, and no measure for other answers; and its end, which would tell
            // how the endpoint did, may be hours away.
            (Kind::Other { .. }, _) => opened.ticket.tell(Sign::Well),
            (Kind::Whole { .. }, _) => {
                opened.ticket.answered(self.request.clock.now().saturating_sub(self.started), false, is_delivery)
            }
            (Kind::Tokens, Some(at)) => opened.ticket.answered(at.saturating_sub(self.started), true, is_delivery),
            (Kind::Tokens, None) => {}
        }
    }

    /// Reads until the first token, or until it is clear that none will come.
    async fn hold(&self, opened: &mut UpstreamResponse) -> Result<(), ErrorType> {
        let UpstreamResponse { reader, held, .. } = opened;
        let mut bytes = 0;
        while reader.tap.kind() == Kind::Tokens && bytes <= HELD_BYTES_MAX && reader.tap.frames() <= HELD_FRAMES_MAX {
            let chunk = match reader.next(None).await {
                Next::Chunk(chunk) => chunk,
                Next::End if reader.tap.may_be_whole() => {
                    held.whole = true;
                    return Ok(());
                }
                Next::End => return Err(ErrorType::MissingEnd),
                Next::Died => return Err(ErrorType::UpstreamBodyReset),
                Next::Late(late) => return Err(late_error(late)),
                Next::Idle => continue,
            };
            bytes += chunk.len();
            let progress = reader.look_at(&chunk, self.request.clock.now());
            reader.tap.let_through(chunk, &mut held.chunks);
            // What we do not know a user may be looking at already, were it passed on.
            if progress.token || progress.unknown || reader.tap.has_ended() {
                return Ok(());
            }
            if reader.tap.told_error() {
                return Err(ErrorType::ErrorEvent);
            }
            // With nobody else to ask nothing is held back that shows that the request was taken.
            if !self.step.holds && reader.tap.at_boundary() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads an answer in one piece to a request for a stream, as far as it could be the words of an error under a good status.
    async fn hold_document(&self, opened: &mut UpstreamResponse) -> Result<(), ErrorType> {
        let UpstreamResponse { reader, held, .. } = opened;
        let mut bytes = 0;
        while bytes <= HELD_BYTES_MAX {
            let chunk = match reader.next(None).await {
                Next::Chunk(chunk) => chunk,
                Next::End => {
                    held.whole = true;
                    let is_error = usage_injection::is_error(&held.chunks.concat());
                    return if is_error { Err(ErrorType::ErrorEvent) } else { Ok(()) };
                }
                Next::Died => return Err(ErrorType::UpstreamBodyReset),
                // Whoever passes it on sees to its time.
                Next::Late(_) => return Ok(()),
                Next::Idle => continue,
            };
            bytes += chunk.len();
            reader.look_at(&chunk, self.request.clock.now());
            reader.tap.let_through(chunk, &mut held.chunks);
        }
        Ok(())
    }

    fn opened(&mut self, answer: Answer, metering: Metering) -> Box<UpstreamResponse> {
        let upstream = &self.step.target.upstream;
        let setting = Setting {
            facts: self.request.facts(),
            kind: self.request.routed.route.kind,
            posted: self.request.head.method == http::Method::POST,
            rules: &upstream.stream,
            slow_gap: self.request.settings().telemetry.slow_gap,
        };
        let mut tap = Tap::new(&setting, &answer.head).metered(metering);
        if !self.request.routed.route.limits.is_empty() && setting.kind != RouteKind::Stream {
            tap = tap.billed(&answer.head, &upstream.stream);
        }
        if self.request.settings().telemetry.capture_content {
            tap.capture();
        }
        tap.asked(self.started);
        let mut deadlines = answer.deadlines;
        deadlines.head_came(tap.kind(), self.request.clock.now());
        Box::new(UpstreamResponse {
            reader: ResponseReader::new(answer.session, tap, deadlines, self.request.clock),
            peer: Arc::clone(&self.step.ticket.member.peer),
            head: answer.head,
            held: Held::default(),
            upload: None,
            outlet: answer.outlet,
            // A connection that was to be another protocol's serves nothing more.
            early: answer.early || self.request.upgrades,
            ticket: self.step.ticket.hand_on(),
            upstream: Arc::clone(&upstream.name),
            variant: Arc::clone(&self.step.target.name),
            number: self.log.number,
            started: self.started,
        })
    }

    fn failed(self, fault: UpstreamError, answer: Option<Box<UpstreamResponse>>) -> Box<Failed> {
        self.log.tell(&AttemptEvent::Failed(fault.error));
        Box::new(Failed {
            stage: fault.stage,
            race: fault.race,
            cause: fault.cause,
            error: fault.error,
            answer,
            upstream: Arc::clone(&self.step.target.upstream.name),
            endpoint: Arc::clone(&self.step.ticket.member.endpoint),
        })
    }

    async fn exchange(&mut self, upload: &mut Upload, body: &RequestBody) -> Result<Answer, UpstreamError> {
        let (mut session, reused) = self.connect().await?;
        self.log.tell(&AttemptEvent::Connected { reused });
        let socket = session.as_http1().and_then(|_| session.stream()).map(|stream| stream.id());
        let taken = || socket.filter(|_| reused).and_then(socket::acknowledged);
        let clock = self.request.clock;
        let (before, sent_at) = (taken(), clock.now());
        let fail = |error: &pingora::Error| {
            let untaken = before.is_some() && before == taken();
            fault(error, Went { reused, untaken, since: clock.now().saturating_sub(sent_at) })
        };
        let head =
            headers::request(&self.outgoing(session.as_http2().is_some(), body)).map_err(|error| fail(&error))?;
        let follows = !self.request.upgrades && body.is_in_hand();
        Corked::cork(&session, follows);
        session.write_request_header(head).await.map_err(|error| fail(&error))?;
        Corked::cork(&session, false);
        let mut outlet = None;
        let sent = self.send_body(&mut session, body, upload, &mut outlet).await;
        if let Some(error) = outlet.as_mut().and_then(|outlet| outlet.fault.take()) {
            return Err(fail(&error));
        }
        // A failed write may have an answer behind it: only when there is none, the write's error counts.
        let early = !matches!(sent, Ok(Sent::Whole | Sent::Answering));
        let asked = self.request.clock.now();
        let deadlines = Deadlines::new(self.request.times(), self.request.expects(), self.step.another, asked);
        let (by, late) = deadlines.next().unwrap_or((Duration::MAX, Late::Total));
        let read = tokio::time::timeout_at(self.request.clock.instant(by), self.read_head(&mut session)).await;
        match (read, sent) {
            (Ok(Ok(mut head)), _) => {
                headers::map_locations(&mut head, &self.outgoing(false, body));
                Ok(Answer { session, head, outlet, early, deadlines })
            }
            (Ok(Err(error)), _) => Err(fail(&error)),
            (Err(_), _) => {
                shared_h2::retire(&session);
                session.shutdown().await;
                Err(UpstreamError::sent(late_error(late), Race::None))
            }
        }
    }

    /// A session, and whether its connection served another request before.
    async fn connect(&mut self) -> Result<(HttpSession, bool), UpstreamError> {
        match tokio::time::timeout(self.request.routed.limits.connect, self.connect_somewhere()).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(Unconnected { error, cause })) => Err(UpstreamError::unsent(error, Some(cause))),
            Err(_) => Err(UpstreamError::unsent(ErrorType::ConnectTimeout, None)),
        }
    }

    /// Where there is no connection yet, one is made to whichever address of the endpoint answers first.
    async fn connect_somewhere(&mut self) -> Result<(HttpSession, bool), Unconnected> {
        let connector = &self.request.shared.connector;
        let upgrades = self.request.upgrades;
        if !self.step.fresh
            && !upgrades
            && let Some(session) = connector.reused(&self.step.ticket.member.peer).await
        {
            return Ok((session, true));
        }
        let places = self.step.ticket.addresses();
        let peers: Vec<_> = places
            .iter()
            .map(|place| if upgrades { http1_only(&place.peer) } else { Arc::clone(&place.peer) })
            .collect();
        let First { session, at, behind } = connector.first(&peers).await?;
        let ticket = &mut self.step.ticket;
        if let Some(place) = places.get(at).filter(|_| at > 0) {
            ticket.move_to(place);
            self.log.tell(&AttemptEvent::Moved(&place.place));
        }
        for place in behind.iter().filter_map(|behind| places.get(*behind)) {
            ticket.tell_unreachable(place);
        }
        Ok((session, false))
    }

    /// What the request's head is built from, and its answer's read by.
    fn outgoing<'b>(&'b self, h2: bool, body: &'b RequestBody) -> Outgoing<'b> {
        Outgoing {
            head: self.request.head,
            caller: &self.request.caller,
            route: &self.request.routed.route,
            target: self.step.target,
            endpoint: &self.step.ticket.member.endpoint,
            body,
            llm: self.request.dialect(),
            attempt_span: self.span_id,
            h2,
            upgrade: self.request.upgrades,
        }
    }

    async fn send_body(
        &self,
        session: &mut HttpSession,
        body: &RequestBody,
        upload: &mut Upload,
        outlet: &mut Option<Outlet>,
    ) -> pingora::Result<Sent> {
        let patience = self.request.settings().server.body_timeout;
        match (body, upload) {
            // What follows a handshake comes after its answer.
            _ if self.request.upgrades => Ok(Sent::Whole),
            (RequestBody::Buffered(body) | RequestBody::Edited(body), _) => {
                send::buffered(session, body, patience).await
            }
            (RequestBody::Streamed { .. }, Some(chunks)) if let Some(way) = Outlet::of(session) => {
                outlet.insert(way).send(session, chunks, patience).await
            }
            (RequestBody::None | RequestBody::Streamed { .. }, _) => {
                session.finish_request_body().await?;
                Ok(Sent::Whole)
            }
        }
    }

    /// Reads up to the final head; interim ones go to the client's side.
    async fn read_head(&self, session: &mut HttpSession) -> pingora::Result<ResponseHeader> {
        // Over HTTP/2 it may have come while the body was sent.
        let mut came = session.as_http2().is_some() && session.response_header().is_some();
        loop {
            if !std::mem::take(&mut came) {
                session.read_response_header().await?;
            }
            let Some(head) = session.response_header() else {
                return Err(pingora::Error::explain(pingora::ErrorType::InvalidHTTPHeader, "no response header"));
            };
            match head.status.as_u16() {
                // We answered `Expect` ourselves.
                100 => {}
                101 if self.request.upgrades => return Ok(head.clone()),
                101 => {
                    return Err(pingora::Error::explain(
                        pingora::ErrorType::InvalidHTTPHeader,
                        "101 without an upgrade",
                    ));
                }
                102..=199 => self.request.client.interim.put(head.clone()),
                _ => return Ok(head.clone()),
            }
        }
    }
}

/// A handshake goes over HTTP/1.1, whatever else the upstream speaks.
fn http1_only(peer: &HttpPeer) -> Arc<HttpPeer> {
    let mut peer = peer.clone();
    if let Some(options) = peer.get_mut_peer_options() {
        options.alpn = ALPN::H1;
    }
    Arc::new(peer)
}
