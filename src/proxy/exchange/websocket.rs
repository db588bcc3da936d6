//! WebSockets: after the handshake, which is an attempt as any other, bytes go both ways, with a tap on each. What a model says there is followed by `turns`.

use std::time::Duration;

use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession;
use serde_json::json;

use super::websocket_turns::{Objection, Talk};
use crate::llm::reply::{BUDGET_SPENT, OPENAI_SPENT};
use crate::llm::websocket::{Extensions, Messages, Side, close_frame, text_frame};
use crate::policy::health::Sign;
use crate::proxy::client::client_side::ClientSide;
use crate::proxy::process::drain::DrainStage;
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::context::RequestContext;
use crate::proxy::request::outcome::{Ending, Stop};
use crate::proxy::request::rejection::Rejection;
use crate::proxy::upstream::response_reader::ResponseReader;
use crate::proxy::upstream::upstream_response::UpstreamResponse;
use crate::telemetry::record::{ErrorType, Outcome, Phase, WebSocketInfo};

/// "Going away" (RFC 6455, section 7.4.1).
const GOING_AWAY: u16 = 1001;

/// "Policy violation": a limit is used up.
const POLICY_VIOLATION: u16 = 1008;

/// So many chunks of an answer are passed on at most, in search of a place between two frames, before a refused connection is
/// closed without a word.
const LAST_CHUNKS: usize = 64;

/// Any mask will do: it protects from intermediaries that we are not.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x1e, 0x87];

/// Serves a connection whose handshake an upstream has taken.
pub(crate) async fn serve(
    client: &mut ServerSession,
    flight: &mut Flight<'_>,
    opened: UpstreamResponse,
    side: &ClientSide<'_>,
) -> Result<Ending, Stop> {
    let UpstreamResponse { reader, head, mut ticket, number, upstream: name, variant, .. } = opened;
    let ResponseReader { session: mut upstream, .. } = reader;
    let ClientSide { visit, routed, facts, .. } = side;
    flight.passes_on(number);
    flight.served_by(&name, &variant);
    ticket.tell(Sign::Well);
    flight.enter(Phase::ClientBlocked);
    let answer = answer_head(visit, &head).map_err(|_| Rejection::internal())?;
    client.write_response_header(Box::new(answer)).await.map_err(|_| Stop::ClientGone)?;
    flight.status_sent(101);
    if let HttpSession::H1(session) = &mut upstream {
        session.maybe_upgrade_body_writer();
    }
    flight.enter(Phase::Generation);
    let target = routed.target_named(&variant);
    let mut pipe = Pipe::new(&head, Talk::new(visit, routed, target, facts.model.as_deref()));
    let end = pipe.run(visit, client, &mut upstream, flight).await;
    pipe.book(flight, end, visit.shared.drain.why_cut()).await;
    upstream.shutdown().await;
    client.shutdown().await;
    Ok(Ending::Dirty)
}

/// Offers no extension that would hide what is said.
pub(crate) fn keep_known_extensions(head: &mut RequestHeader) -> pingora::Result<()> {
    const NAME: &str = "sec-websocket-extensions";
    let offered = head.headers.get_all(NAME).iter().filter_map(|value| value.to_str().ok());
    let known = Extensions::understood(offered);
    head.remove_header(NAME);
    known.map_or(Ok(()), |known| head.insert_header(NAME, known))
}

/// An upgrade goes on as it came.
fn answer_head(visit: &RequestContext<'_>, upstream: &ResponseHeader) -> pingora::Result<ResponseHeader> {
    let mut head = upstream.clone();
    head.insert_header("connection", "Upgrade")?;
    head.insert_header("x-request-id", &*visit.caller.request_id)?;
    Ok(head)
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
