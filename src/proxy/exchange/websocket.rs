//! WebSockets: the handshake, and then bytes both ways, with a tap on each. What a model says there is followed by `turns`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::ALPN;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::{HttpPeer, Peer};
use serde_json::json;

use super::websocket_turns::{Objection, Talk};
use crate::config::defaults;
use crate::config::settings::{Failover, Target};
use crate::llm::RequestFacts;
use crate::llm::reply::{BUDGET_SPENT, OPENAI_SPENT};
use crate::llm::websocket::{Extensions, Messages, Side, close_frame, text_frame};
use crate::policy::failover::{Choice, Plan, Room, Stage};
use crate::policy::health::Sign;
use crate::policy::limits::Standing;
use crate::proxy::client::headers::{self, Incoming, Outgoing};
use crate::proxy::endpoints::endpoint::Member;
use crate::proxy::endpoints::lease::Lease;
use crate::proxy::process::body::RequestBody;
use crate::proxy::process::drain::DrainStage;
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::context::RequestContext;
use crate::proxy::request::outcome::{Ending, Stop};
use crate::proxy::request::rejection::Rejection;
use crate::proxy::request::route::Routed;
use crate::proxy::upstream::upstream_error;
use crate::telemetry::ids;
use crate::telemetry::record::{Attempt, Cause, ErrorType, Outcome, Phase, Phases, WebSocketInfo};

/// "Going away" (RFC 6455, section 7.4.1).
const GOING_AWAY: u16 = 1001;

/// "Policy violation": a limit is used up.
const POLICY_VIOLATION: u16 = 1008;

/// So many chunks of an answer are passed on at most, in search of a place between two frames, before a refused connection is
/// closed without a word.
const LAST_CHUNKS: usize = 64;

/// Any mask will do: it protects from intermediaries that we are not.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x1e, 0x87];

/// Serves one upgrade request.
pub(crate) async fn run(
    visit: &RequestContext<'_>,
    client: &mut ServerSession,
    flight: &mut Flight<'_>,
    facts: &RequestFacts,
    routed: &Routed,
) -> Result<Ending, Stop> {
    client.set_keepalive(None);
    let mut head = client.req_header().clone();
    if !routed.route.limits.is_empty() {
        keep_known_extensions(&mut head).map_err(|_| Rejection::internal())?;
    }
    let Shaken { mut upstream, head, target, ticket: _ticket } = tokio::select! {
        biased;
        answered = handshake(visit, &head, flight, routed) => answered?,
        // Nothing may come before the handshake's answer: what does is the client's going.
        _ = client.read_body_or_idle(true) => return Err(Stop::ClientGone),
        () = visit.shared.drain.reached(DrainStage::Cut) => return Err(Stop::Cut),
    };
    let status = head.status.as_u16();
    flight.enter(Phase::ClientBlocked);
    let answer = answer_head(visit, &head, status, flight.phases()).map_err(|_| Rejection::internal())?;
    client.write_response_header(Box::new(answer)).await.map_err(|_| Stop::ClientGone)?;
    flight.status_sent(status);
    if status != 101 {
        return Ok(refused(client, flight, &mut upstream, status).await);
    }
    if let HttpSession::H1(session) = &mut upstream {
        session.maybe_upgrade_body_writer();
    }
    flight.enter(Phase::Generation);
    let mut pipe = Pipe::new(&head, Talk::new(visit, routed, target, facts.model.as_deref()));
    let end = pipe.run(visit, client, &mut upstream, flight).await;
    pipe.book(flight, end, visit.shared.drain.why_cut()).await;
    upstream.shutdown().await;
    client.shutdown().await;
    Ok(Ending::Dirty)
}

/// Offers no extension that would hide what is said.
fn keep_known_extensions(head: &mut RequestHeader) -> pingora::Result<()> {
    const NAME: &str = "sec-websocket-extensions";
    let offered = head.headers.get_all(NAME).iter().filter_map(|value| value.to_str().ok());
    let known = Extensions::understood(offered);
    head.remove_header(NAME);
    known.map_or(Ok(()), |known| head.insert_header(NAME, known))
}

/// An upstream that answered the handshake.
struct Shaken<'r> {
    upstream: HttpSession,
    head: ResponseHeader,
    target: &'r Target,
    /// Counts the connection at its endpoint for as long as it lasts.
    ticket: Lease,
}

/// Connects, and sends the handshake on. Where no connection can be made, the next endpoint or target is tried.
async fn handshake<'r>(
    visit: &RequestContext<'_>,
    client: &RequestHeader,
    flight: &mut Flight<'_>,
    routed: &'r Routed,
) -> Result<Shaken<'r>, Rejection> {
    let route = &routed.route;
    let mut plan = Plan::new(route, &routed.target, routed.canary_share());
    let mut tried: Vec<Arc<Member>> = Vec::new();
    let mut failed = None;
    loop {
        let pool = |choice: Choice| visit.generation.pools.get(&*choice.of(route)?.upstream.name);
        let room = |choice: Choice| match pool(choice) {
            Some(pool) if routed.in_service.takes(choice) => pool.room(&tried),
            _ => Room::Exhausted,
        };
        let goes_on = |choice: &Choice| {
            route.failover != Failover::Never || plan.current().is_none_or(|current| current == *choice)
        };
        let Some(choice) = plan.next(room).filter(goes_on) else { break };
        let Some((target, pool)) = choice.of(route).zip(pool(choice)) else { break };
        let Some(mut ticket) = pool.take(&tried, true, ids::random()) else { break };
        plan.ask(choice);
        if plan.passes_over_assigned() {
            flight.tries().pass_over(routed.why_passed_over());
        }
        let cause = if tried.is_empty() { Cause::First } else { Cause::Failover };
        tried.push(Arc::clone(&ticket.member));
        flight.served_by(&target.upstream.name, &target.name);
        let before = flight.phases();
        match (Shake { visit, client, routed, target, member: &ticket.member, cause }).run(flight).await {
            Ok((upstream, head)) => {
                let status = head.status.as_u16();
                ticket.refused(status, upstream_error::retry_after(&head));
                if status < 500 && status != 429 {
                    ticket.tell(Sign::Well);
                }
                return Ok(Shaken { upstream, head, target, ticket });
            }
            Err((stage, error)) => {
                failed = Some(upstream_error::rejection(error, None, &target.upstream.name, &ticket.member.endpoint));
                if stage == Stage::Sent {
                    ticket.tell(Sign::Faulty);
                    break;
                }
                ticket.tell(Sign::Unreachable);
                flight.write_off(&before);
            }
        }
    }
    Err(failed.unwrap_or_else(|| upstream_error::nobody_to_ask(routed)))
}

/// One attempt at a handshake.
struct Shake<'a> {
    visit: &'a RequestContext<'a>,
    client: &'a RequestHeader,
    routed: &'a Routed,
    target: &'a Target,
    member: &'a Member,
    cause: Cause,
}

impl Shake<'_> {
    async fn run(&self, flight: &mut Flight<'_>) -> Result<(HttpSession, ResponseHeader), (Stage, ErrorType)> {
        let Self { visit, client, routed, target, member, cause } = *self;
        let span_id = ids::new_span_id();
        let started = flight.now();
        flight.enter(Phase::Connect);
        let peer = http1_only(&member.peer);
        let connect = tokio::time::timeout(routed.limits.connect, visit.shared.connector.session(&peer)).await;
        let connected = match connect {
            Ok(Ok((session, _))) => Ok(session),
            Ok(Err(unconnected)) => Err((Stage::Unsent, unconnected.error)),
            Err(_) => Err((Stage::Unsent, ErrorType::ConnectTimeout)),
        };
        flight.enter(Phase::UpstreamWait);
        let result = match connected {
            Ok(mut session) => {
                let outgoing = Outgoing {
                    head: client,
                    caller: &visit.caller,
                    route: &routed.route,
                    target,
                    endpoint: &member.endpoint,
                    body: &RequestBody::None,
                    llm: None,
                    attempt_span: span_id,
                    h2: false,
                    upgrade: true,
                };
                let patience = routed.limits.first_token.unwrap_or(defaults::HANDSHAKE_TIMEOUT);
                let asked = tokio::time::timeout(patience, ask(&mut session, &outgoing)).await;
                match asked {
                    Ok(Ok(head)) => Ok((session, head)),
                    Ok(Err(_)) => Err((Stage::Sent, ErrorType::UpstreamReset)),
                    Err(_) => Err((Stage::Sent, ErrorType::FirstTokenTimeout)),
                }
            }
            Err(error) => Err(error),
        };
        flight.attempted(Attempt {
            upstream: Arc::clone(&target.upstream.name),
            place: member.place.clone(),
            span_id,
            started,
            ended: flight.now(),
            reused_connection: false,
            status: result.as_ref().ok().map(|(_, head)| head.status.as_u16()),
            error: result.as_ref().err().map(|(_, error)| *error),
            cause,
        });
        result
    }
}

async fn ask(session: &mut HttpSession, outgoing: &Outgoing<'_>) -> pingora::Result<ResponseHeader> {
    session.write_request_header(headers::request(outgoing)?).await?;
    loop {
        session.read_response_header().await?;
        match session.response_header() {
            Some(head) if head.status.as_u16() == 101 || !head.status.is_informational() => return Ok(head.clone()),
            _ => {}
        }
    }
}

/// A handshake goes over HTTP/1.1, whatever else the upstream speaks.
fn http1_only(peer: &HttpPeer) -> HttpPeer {
    let mut peer = peer.clone();
    if let Some(options) = peer.get_mut_peer_options() {
        options.alpn = ALPN::H1;
    }
    peer
}

/// An upgrade goes on as it came; what declines it is an answer as any other.
fn answer_head(
    visit: &RequestContext<'_>,
    upstream: &ResponseHeader,
    status: u16,
    phases: Phases,
) -> pingora::Result<ResponseHeader> {
    let mut head = upstream.clone();
    if status == 101 {
        head.insert_header("connection", "Upgrade")?;
    } else {
        let incoming = Incoming {
            visit,
            client_version: http::Version::HTTP_11,
            events: false,
            phases,
            standing: &Standing::default(),
        };
        return headers::answer(upstream.clone(), &incoming).map(|(head, _)| head);
    }
    head.insert_header("x-request-id", &*visit.caller.request_id)?;
    Ok(head)
}

/// The upstream declined: its answer is passed on as any other.
async fn refused(
    client: &mut ServerSession,
    flight: &mut Flight<'_>,
    upstream: &mut HttpSession,
    status: u16,
) -> Ending {
    loop {
        match upstream.read_response_body().await {
            Ok(Some(chunk)) => {
                flight.bytes(0, chunk.len() as u64);
                if client.write_response_body(chunk, false).await.is_err() {
                    flight.end(Outcome::ClientCancelled, Some(ErrorType::ClientGone));
                    return Ending::Dirty;
                }
            }
            Ok(None) => break,
            Err(_) => {
                flight.end(Outcome::Truncated, Some(ErrorType::UpstreamBodyReset));
                return Ending::Dirty;
            }
        }
    }
    let outcome = if status >= 500 { Outcome::UpstreamError } else { Outcome::Completed };
    flight.end(outcome, (status >= 400).then_some(ErrorType::UpstreamStatus));
    if client.write_response_body(Bytes::new(), true).await.is_err() {
        return Ending::Dirty;
    }
    Ending::Clean
}

/// How a WebSocket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Upstream,
    GoingDown,
    Cut,
    /// A limit refused a response, or had one cut: how that is called.
    Refused(ErrorType),
}

/// Both directions, and what was seen of them.
struct Pipe<'a> {
    from_client: Messages,
    from_upstream: Messages,
    /// Until it is clear that nobody talks with a model here.
    talk: Option<Talk<'a>>,
    info: WebSocketInfo,
    /// When the client's first message had come.
    asked_at: Option<Duration>,
    bytes_in: u64,
    bytes_out: u64,
}

impl<'a> Pipe<'a> {
    /// A connection that `head` agreed to.
    fn new(head: &ResponseHeader, talk: Talk<'a>) -> Self {
        let named = head.headers.get_all("sec-websocket-extensions");
        let agreed = Extensions::read(named.iter().filter_map(|value| value.to_str().ok()));
        let (mut from_client, mut from_upstream) = (Messages::default(), Messages::default());
        from_client.read(Side::Client, agreed);
        from_upstream.read(Side::Server, agreed);
        let info = WebSocketInfo::default();
        Self { from_client, from_upstream, talk: Some(talk), info, asked_at: None, bytes_in: 0, bytes_out: 0 }
    }

    async fn run(
        &mut self,
        visit: &RequestContext<'_>,
        client: &mut ServerSession,
        upstream: &mut HttpSession,
        flight: &mut Flight<'_>,
    ) -> End {
        let drain = &visit.shared.drain;
        let _open = visit.shared.telemetry.websocket_in_flight();
        let patience = visit.settings().server.write_timeout;
        let mut asked_to_close = false;
        loop {
            // In no order, so that neither side can keep the other, or the end of the process, from being looked at.
            tokio::select! {
                read = upstream.read_response_body() => {
                    let Ok(Some(chunk)) = read else { return End::Upstream };
                    self.note_answer(&chunk, flight);
                    if client.write_response_body(chunk, false).await.is_err() {
                        return End::Client;
                    }
                    if let Some(refusal) = self.follow(flight).await {
                        return self.refuse(&refusal, patience, client, upstream).await;
                    }
                }
                read = client.read_request_body() => {
                    let Ok(Some(chunk)) = read else { return End::Client };
                    self.note_question(&chunk, flight);
                    if let Some(refusal) = self.follow(flight).await {
                        return self.refuse(&refusal, patience, client, upstream).await;
                    }
                    // One task serves both ways: an upstream that reads nothing must not hold it for ever.
                    let written = tokio::select! {
                        written = tokio::time::timeout(patience, upstream.write_request_body(chunk, false)) => written,
                        () = drain.reached(DrainStage::Cut) => return End::Cut,
                    };
                    if !matches!(written, Ok(Ok(()))) {
                        return End::Upstream;
                    }
                }
                () = drain.reached(DrainStage::ClosingWebSockets), if !asked_to_close => {
                    asked_to_close = true;
                    if !self.say_goodbye(client, upstream).await {
                        return End::GoingDown;
                    }
                }
                () = drain.reached(DrainStage::Cut) => return End::Cut,
            }
        }
    }

    fn note_answer(&mut self, chunk: &Bytes, flight: &Flight<'_>) {
        self.bytes_out += chunk.len() as u64;
        let Self { from_upstream, talk, .. } = self;
        let messages = match talk {
            Some(talk) => {
                let now = flight.now();
                from_upstream.feed(chunk, &mut |text| talk.server(text, now))
            }
            None => from_upstream.feed(chunk, &mut |_| {}),
        };
        if messages > 0
            && self.info.first_message.is_none()
            && let Some(asked_at) = self.asked_at
        {
            self.info.first_message = Some(flight.now().saturating_sub(asked_at));
        }
    }

    fn note_question(&mut self, chunk: &Bytes, flight: &Flight<'_>) {
        self.bytes_in += chunk.len() as u64;
        let Self { from_client, talk, .. } = self;
        let messages = match talk {
            Some(talk) => {
                let now = flight.now();
                from_client.feed(chunk, &mut |text| talk.client(text, now))
            }
            None => from_client.feed(chunk, &mut |_| {}),
        };
        if messages > 0 && self.asked_at.is_none() {
            self.asked_at = Some(flight.now());
        }
    }

    /// Follows what was said; returns what a limit has against it.
    async fn follow(&mut self, flight: &Flight<'_>) -> Option<Objection> {
        let talk = self.talk.as_mut()?;
        if talk.is_limited()
            && let Some(why) = self.from_client.hidden()
        {
            let why = why.words();
            let message = format!("A limit depends on what is said here, and a message cannot be read: {why}.");
            return Some(Objection::limited(message));
        }
        if talk.is_strange() {
            self.talk = None;
            self.from_client.only_count();
            self.from_upstream.only_count();
            return None;
        }
        talk.follow(flight, &mut self.info).await
    }

    /// Tells the client what a limit has against its last wish, and closes. What is refused never reaches the upstream.
    async fn refuse(
        &mut self,
        refusal: &Objection,
        patience: Duration,
        client: &mut ServerSession,
        upstream: &mut HttpSession,
    ) -> End {
        for _ in 0..LAST_CHUNKS {
            if self.from_upstream.frames().at_boundary() {
                let (kind, code) = match refusal.error {
                    ErrorType::BudgetSpent => (OPENAI_SPENT, BUDGET_SPENT),
                    _ => ("tokens", "rate_limit_exceeded"),
                };
                let error = json!({ "type": "error", "error": {
                    "type": kind, "code": code, "message": &refusal.message, "param": null,
                }});
                let frames = [text_frame(&error.to_string()), Some(close_frame(POLICY_VIOLATION, None))];
                for frame in frames.into_iter().flatten() {
                    if client.write_response_body(frame, false).await.is_err() {
                        break;
                    }
                }
                break;
            }
            let Ok(Ok(Some(chunk))) = tokio::time::timeout(patience, upstream.read_response_body()).await else {
                break;
            };
            self.bytes_out += chunk.len() as u64;
            self.from_upstream.feed(&chunk, &mut |_| {});
            if client.write_response_body(chunk, false).await.is_err() {
                break;
            }
        }
        End::Refused(refusal.error)
    }

    /// Close frames both ways, where one can be put in; whether both sides were told.
    async fn say_goodbye(&mut self, client: &mut ServerSession, upstream: &mut HttpSession) -> bool {
        let fits = self.from_client.frames().at_boundary() && self.from_upstream.frames().at_boundary();
        fits && client.write_response_body(close_frame(GOING_AWAY, None), false).await.is_ok()
            && upstream.write_request_body(close_frame(GOING_AWAY, Some(MASK)), false).await.is_ok()
    }

    async fn book(mut self, flight: &mut Flight<'_>, end: End, why_cut: ErrorType) {
        let (client, upstream) = (self.from_client.frames(), self.from_upstream.frames());
        self.info.messages_in = client.messages();
        self.info.messages_out = upstream.messages();
        self.info.close_code = upstream.close_code().or(client.close_code());
        let normal = matches!(self.info.close_code, Some(1000 | 1001));
        let (outcome, error) = match end {
            End::Refused(error) => (Outcome::Truncated, Some(error)),
            _ if normal => (Outcome::Completed, None),
            End::GoingDown | End::Cut => (Outcome::Stopped, Some(why_cut)),
            End::Client => (Outcome::ClientCancelled, Some(ErrorType::ClientGone)),
            End::Upstream => (Outcome::Truncated, Some(ErrorType::UpstreamBodyReset)),
        };
        if let Some(talk) = &mut self.talk {
            talk.close(flight, &mut self.info, (outcome, error)).await;
        }
        flight.bytes(self.bytes_in, self.bytes_out);
        flight.websocket(self.info);
        flight.last_attempt_ended(error.filter(|_| end == End::Upstream));
        flight.end(outcome, error);
    }
}
