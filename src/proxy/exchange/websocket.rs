//! WebSockets: after the handshake, which is an attempt as any other, bytes go both ways, with a tap on each, and to an end
//! that each side can read. What a model says there is followed by `websocket_turns`.

use std::time::Duration;

use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession;
use serde_json::json;

use super::websocket_turns::Talk;
use crate::llm::error_body::{BUDGET_SPENT, OPENAI_SPENT};
use crate::llm::websocket::{Extensions, Messages, Side, close_frame, text_frame};
use crate::policy::health::Sign;
use crate::proxy::process::drain::{Drain, DrainStage};
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::context::RequestContext;
use crate::proxy::request::outcome::{Ending, Stop};
use crate::proxy::request::rejection::Rejection;
use crate::proxy::request::routed_request::RoutedRequest;
use crate::proxy::upstream::response_reader::ResponseReader;
use crate::proxy::upstream::upstream_response::UpstreamResponse;
use crate::telemetry::event::Event;
use crate::telemetry::record::{ErrorType, Outcome, Phase, WebSocketInfo};

/// "Going away" (RFC 6455, section 7.4.1).
const GOING_AWAY: u16 = 1001;

/// "Policy violation": a limit is used up.
const POLICY_VIOLATION: u16 = 1008;

/// So long a message that is under way may take before a refused connection is closed without a word.
const REFUSAL: Duration = Duration::from_secs(5);

/// So long the last close frames may take: less than what a process that cuts off leaves to all.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Any mask will do: it protects from intermediaries that we are not.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x1e, 0x87];

/// Serves a connection whose handshake an upstream has taken.
pub(crate) async fn serve(
    client: &mut ServerSession,
    flight: &mut Flight<'_>,
    opened: UpstreamResponse,
    request: &RoutedRequest<'_>,
) -> Result<Ending, Stop> {
    let UpstreamResponse { reader, head, mut ticket, number, upstream: name, variant, .. } = opened;
    let ResponseReader { session: mut upstream, .. } = *reader;
    let RoutedRequest { context, routed, .. } = request;
    flight.tell(Event::PassedOn { number, upstream: &name, variant: &variant });
    ticket.tell(Sign::Well);
    flight.enter(Phase::ClientBlocked);
    let answer = answer_head(context, &head).map_err(|_| Rejection::internal())?;
    client.write_response_header(Box::new(answer)).await.map_err(|_| Stop::ClientGone)?;
    flight.tell(Event::StatusSent(101));
    if let HttpSession::H1(session) = &mut upstream {
        session.maybe_upgrade_body_writer();
    }
    flight.enter(Phase::Generation);
    let target = routed.target_named(&variant);
    let _open = context.shared.telemetry.metrics().websocket_in_flight();
    let mut pipe = Pipe::new(context, &head, Talk::new(context, routed, target, request.facts().model.as_deref()));
    let end = tokio::select! {
        biased;
        end = pipe.run(context, client, &mut upstream, flight) => end,
        () = context.revoked_for_long() => End::Refused(ErrorType::KeyRevoked),
    };
    pipe.book(flight, end).await;
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
fn answer_head(context: &RequestContext<'_>, upstream: &ResponseHeader) -> pingora::Result<ResponseHeader> {
    let mut head = upstream.clone();
    head.insert_header("connection", "Upgrade")?;
    head.insert_header("x-request-id", &*context.caller.request_id)?;
    Ok(head)
}

/// Writes to the client, unless what is left is cut off meanwhile.
async fn write_client(client: &mut ServerSession, drain: &Drain, bytes: Bytes) -> Result<(), End> {
    if bytes.is_empty() {
        return Ok(());
    }
    tokio::select! {
        biased;
        written = client.write_response_body(bytes, false) => written.map_err(|_| End::Client),
        () = drain.reached(DrainStage::Cut) => Err(End::Cut),
    }
}

/// As [`write_client`]. One task serves both ways: an upstream that reads nothing must not hold it for ever.
async fn write_upstream(
    upstream: &mut HttpSession,
    drain: &Drain,
    patience: Duration,
    bytes: Bytes,
) -> Result<(), End> {
    if bytes.is_empty() {
        return Ok(());
    }
    tokio::select! {
        biased;
        written = tokio::time::timeout(patience, upstream.write_request_body(bytes, false)) => match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Upstream),
        },
        () = drain.reached(DrainStage::Cut) => Err(End::Cut),
    }
}

/// `first`, and `second` after it.
fn with(first: Bytes, second: Bytes) -> Bytes {
    match (first.is_empty(), second.is_empty()) {
        (_, true) => first,
        (true, false) => second,
        (false, false) => [first, second].concat().into(),
    }
}

/// How a WebSocket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Upstream,
    /// Both sides were told that the process goes down, and have closed.
    GoingDown,
    Cut,
    /// A limit refused a response or had one cut, or the key was revoked: how that is called.
    Refused(ErrorType),
}

/// What passes in one direction.
#[derive(Default)]
struct Way {
    messages: Messages,
    /// Passed on.
    bytes: u64,
    farewell: Farewell,
}

/// Whether the receiver of a direction was told that the process goes down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Farewell {
    #[default]
    NotYet,
    /// As soon as the frame at hand has ended.
    Due,
    /// It has a close frame: no frame may follow.
    Said,
}

impl Way {
    /// How much of `chunk`, which comes next, the receiver gets.
    fn passes(&self, chunk: &Bytes) -> usize {
        match self.farewell {
            Farewell::NotYet => chunk.len(),
            Farewell::Due => self.messages.frames().end_of_frame(chunk).unwrap_or(chunk.len()),
            Farewell::Said => 0,
        }
    }

    /// The close frame that is due, where one can be put in now; none where the sender has closed itself. `mask`: see [`close_frame`].
    fn farewell(&mut self, mask: Option<[u8; 4]>) -> Bytes {
        if self.farewell != Farewell::Due || !self.messages.frames().at_boundary() {
            return Bytes::new();
        }
        self.farewell = Farewell::Said;
        if self.messages.frames().closed() { Bytes::new() } else { close_frame(GOING_AWAY, mask) }
    }

    /// What ends the frame at hand, if that is possible, and the close frame.
    fn last_words(&mut self, mask: Option<[u8; 4]>) -> Bytes {
        let filler = self.messages.frames().filler(mask.is_some()).unwrap_or_default();
        self.messages.feed(&filler, &mut |_| {});
        with(filler, self.farewell(mask))
    }
}

/// Both directions, and what was seen of them.
struct Pipe<'a> {
    to_upstream: Way,
    to_client: Way,
    /// Until it is clear that nobody talks with a model here.
    talk: Option<Talk<'a>>,
    info: WebSocketInfo,
    /// When the client's first message had come.
    asked_at: Option<Duration>,
    /// The longest that a side may take nothing.
    patience: Duration,
    drain: &'a Drain,
}

impl<'a> Pipe<'a> {
    /// A connection that `head` agreed to.
    fn new(context: &'a RequestContext<'_>, head: &ResponseHeader, talk: Talk<'a>) -> Self {
        let named = head.headers.get_all("sec-websocket-extensions");
        let agreed = Extensions::read(named.iter().filter_map(|value| value.to_str().ok()));
        let (mut to_upstream, mut to_client) = (Way::default(), Way::default());
        to_upstream.messages.read(Side::Client, agreed);
        to_client.messages.read(Side::Server, agreed);
        Self {
            to_upstream,
            to_client,
            talk: Some(talk),
            info: WebSocketInfo::default(),
            asked_at: None,
            patience: context.settings().server.write_timeout,
            drain: &context.shared.drain,
        }
    }

    async fn run(
        &mut self,
        context: &RequestContext<'_>,
        client: &mut ServerSession,
        upstream: &mut HttpSession,
        flight: &mut Flight<'_>,
    ) -> End {
        let revoked = context.revoked();
        tokio::pin!(revoked);
        loop {
            // In no order, so that neither side can keep the other, or the end of the process, from being looked at.
            let passed = tokio::select! {
                read = upstream.read_response_body() => {
                    let Ok(Some(chunk)) = read else { return End::Upstream };
                    let passed = self.answered(chunk, flight);
                    write_client(client, self.drain, passed).await
                }
                read = client.read_request_body() => {
                    let Ok(Some(chunk)) = read else { return End::Client };
                    let passed = self.asked(chunk, flight);
                    // What is refused never reaches the upstream.
                    if let Some(refusal) = self.follow(flight).await {
                        return self.refuse(&refusal, client, upstream).await;
                    }
                    write_upstream(upstream, self.drain, self.patience, passed).await
                }
                () = self.drain.reached(DrainStage::ClosingWebSockets), if self.to_client.farewell == Farewell::NotYet => {
                    (self.to_client.farewell, self.to_upstream.farewell) = (Farewell::Due, Farewell::Due);
                    self.say_goodbye(client, upstream).await
                }
                () = self.drain.reached(DrainStage::Cut) => {
                    self.say_last_words(client, upstream).await;
                    return End::Cut;
                }
                () = &mut revoked => {
                    return self.refuse(&Rejection::revoked(), client, upstream).await;
                }
            };
            if let Err(end) = passed {
                return end;
            }
            if let Some(refusal) = self.follow(flight).await {
                return self.refuse(&refusal, client, upstream).await;
            }
            if self.is_over() {
                return End::GoingDown;
            }
        }
    }

    /// Whether both sides were told that the process goes down, and have closed.
    fn is_over(&self) -> bool {
        [&self.to_client, &self.to_upstream]
            .iter()
            .all(|way| way.farewell == Farewell::Said && way.messages.frames().closed())
    }

    /// Reads a chunk of the upstream; what the client gets for it.
    fn answered(&mut self, mut chunk: Bytes, flight: &Flight<'_>) -> Bytes {
        let passed = chunk.split_to(self.to_client.passes(&chunk));
        self.to_client.bytes += passed.len() as u64;
        self.note_answer(&passed, flight);
        let farewell = self.to_client.farewell(None);
        // What nobody gets is told and paid all the same.
        self.note_answer(&chunk, flight);
        with(passed, farewell)
    }

    fn note_answer(&mut self, chunk: &Bytes, flight: &Flight<'_>) {
        let Self { to_client, talk, .. } = self;
        let messages = to_client.messages.feed(chunk, &mut |text| {
            if let Some(talk) = talk {
                talk.server(text, flight.now());
            }
        });
        if messages > 0
            && self.info.first_message.is_none()
            && let Some(asked_at) = self.asked_at
        {
            self.info.first_message = Some(flight.now().saturating_sub(asked_at));
        }
    }

    /// Reads a chunk of the client; what the upstream gets for it.
    fn asked(&mut self, mut chunk: Bytes, flight: &Flight<'_>) -> Bytes {
        let passed = chunk.split_to(self.to_upstream.passes(&chunk));
        self.to_upstream.bytes += passed.len() as u64;
        self.note_question(&passed, flight);
        let farewell = self.to_upstream.farewell(Some(MASK));
        // What the upstream does not get is no question.
        self.to_upstream.messages.feed(&chunk, &mut |_| {});
        with(passed, farewell)
    }

    fn note_question(&mut self, chunk: &Bytes, flight: &Flight<'_>) {
        let Self { to_upstream, talk, .. } = self;
        let messages = to_upstream.messages.feed(chunk, &mut |text| {
            if let Some(talk) = talk {
                talk.client(text, flight.now());
            }
        });
        if messages > 0 && self.asked_at.is_none() {
            self.asked_at = Some(flight.now());
        }
    }

    /// Follows what was said; returns what a limit has against it.
    async fn follow(&mut self, flight: &Flight<'_>) -> Option<Rejection> {
        let talk = self.talk.as_mut()?;
        if talk.is_limited()
            && let Some(why) = self.to_upstream.messages.hidden()
        {
            let why = why.words();
            let message = format!("A limit depends on what is said here, and a message cannot be read: {why}.");
            return Some(Rejection::limited(message));
        }
        if talk.is_strange() {
            self.talk = None;
            self.to_upstream.messages.only_count();
            self.to_client.messages.only_count();
            return None;
        }
        talk.follow(flight, &mut self.info).await
    }

    /// Tells the client why it goes no further, where it speaks what is known here, and closes.
    async fn refuse(&mut self, refusal: &Rejection, client: &mut ServerSession, upstream: &mut HttpSession) -> End {
        tokio::select! {
            biased;
            () = self.drain.reached(DrainStage::Cut) => {}
            () = tokio::time::sleep(REFUSAL) => {}
            // Whoever has gone hears nothing.
            _ = self.say_why(refusal, client, upstream) => {}
        }
        End::Refused(refusal.error)
    }

    /// Passes on what is under way, and puts the reason and a close frame where they can stand.
    async fn say_why(
        &mut self,
        refusal: &Rejection,
        client: &mut ServerSession,
        upstream: &mut HttpSession,
    ) -> Result<(), End> {
        if self.to_client.farewell == Farewell::Said {
            return Ok(());
        }
        while !self.to_client.messages.frames().between_messages() {
            let Ok(Some(mut chunk)) = upstream.read_response_body().await else { return Err(End::Upstream) };
            let begun = chunk.split_to(self.to_client.messages.frames().end_of_message(&chunk).unwrap_or(chunk.len()));
            self.to_client.bytes += begun.len() as u64;
            self.to_client.messages.feed(&begun, &mut |_| {});
            write_client(client, self.drain, begun).await?;
        }
        if self.to_client.messages.frames().closed() {
            return Ok(());
        }
        let (kind, code) = match refusal.error {
            ErrorType::BudgetSpent => (OPENAI_SPENT, BUDGET_SPENT),
            ErrorType::KeyRevoked => ("authentication_error", refusal.error.as_str()),
            _ => ("tokens", "rate_limit_exceeded"),
        };
        let error = json!({ "type": "error", "error": {
            "type": kind, "code": code, "message": &refusal.message, "param": null,
        }});
        // An app's own protocol has its own errors.
        let is_understood = self.talk.as_ref().is_some_and(|talk| talk.is_limited() || talk.is_known());
        let why = text_frame(&error.to_string()).filter(|_| is_understood).unwrap_or_default();
        write_client(client, self.drain, with(why, close_frame(POLICY_VIOLATION, None))).await
    }

    /// Close frames to those sides to which nothing is under way; the others get theirs after the frame at hand.
    async fn say_goodbye(&mut self, client: &mut ServerSession, upstream: &mut HttpSession) -> Result<(), End> {
        let (to_client, to_upstream) = (self.to_client.farewell(None), self.to_upstream.farewell(Some(MASK)));
        write_client(client, self.drain, to_client).await?;
        write_upstream(upstream, self.drain, self.patience, to_upstream).await
    }

    /// There is no more time: ends the frames that can be ended, with close frames after them.
    async fn say_last_words(&mut self, client: &mut ServerSession, upstream: &mut HttpSession) {
        for way in [&mut self.to_client, &mut self.to_upstream] {
            if way.farewell == Farewell::NotYet {
                way.farewell = Farewell::Due;
            }
        }
        let (to_client, to_upstream) = (self.to_client.last_words(None), self.to_upstream.last_words(Some(MASK)));
        let both = async {
            // Who takes nothing, or has gone, is cut off without a word.
            let _ = tokio::join!(
                client.write_response_body(to_client, false),
                upstream.write_request_body(to_upstream, false)
            );
        };
        let _ = tokio::time::timeout(LAST_WORDS, both).await;
    }

    async fn book(mut self, flight: &mut Flight<'_>, end: End) {
        let why_cut = self.drain.why_cut();
        let (client, upstream) = (self.to_upstream.messages.frames(), self.to_client.messages.frames());
        self.info.messages_in = client.messages();
        self.info.messages_out = upstream.messages();
        let said = self.to_client.farewell == Farewell::Said && self.to_upstream.farewell == Farewell::Said;
        // Whoever was told of our going and went has closed in order, with a close frame of its own or without.
        let ours = Some(GOING_AWAY).filter(|_| said && end != End::Cut);
        self.info.close_code = upstream.close_code().or(client.close_code()).or(ours);
        // A close frame need not have a code: that of a browser's `close()` has none.
        let bare = (upstream.closed() || client.closed()) && self.info.close_code.is_none();
        let normal = bare || matches!(self.info.close_code, Some(1000 | 1001));
        let (outcome, error) = match end {
            End::Refused(error @ ErrorType::KeyRevoked) => (Outcome::Stopped, Some(error)),
            End::Refused(error) => (Outcome::Truncated, Some(error)),
            _ if normal => (Outcome::Completed, None),
            End::GoingDown | End::Cut => (Outcome::Stopped, Some(why_cut)),
            End::Client => (Outcome::ClientCancelled, Some(ErrorType::ClientGone)),
            End::Upstream => (Outcome::Truncated, Some(ErrorType::UpstreamBodyReset)),
        };
        if let Some(talk) = &mut self.talk {
            // What still ran was broken off by our going, however well the connection was closed.
            let lost = if said { (Outcome::Stopped, Some(why_cut)) } else { (outcome, error) };
            talk.close(flight, &mut self.info, lost).await;
        }
        flight.tell(Event::Received(self.to_upstream.bytes));
        flight.tell(Event::Sent(self.to_client.bytes));
        flight.tell(Event::WebSocketClosed(self.info));
        flight.tell(Event::AnswerEnded(error.filter(|_| end == End::Upstream)));
        flight.end(outcome, error);
    }
}
