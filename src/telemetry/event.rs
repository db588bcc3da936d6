//! What happens to a request, told once by the stage that knows it first. The record (`record_fold`), the live view (`live/stream`),
//! the token reservation, the canary's sample and the phases are folds over these events.

use std::sync::Arc;
use std::time::Duration;

use super::record::{
    Attempt, ClientInfo, ErrorType, LimitInfo, LlmInfo, Outcome, ServerAddress, TraceIds, WebSocketInfo,
};
use crate::llm::content::Prompt;
use crate::llm::price::{Cost, PriceSource};
use crate::llm::{Dialect, Framing, RequestFacts, StreamReading};

/// Something that happened to a request.
#[expect(clippy::large_enum_variant, reason = "told and taken within one inlined call: no event is moved or stored")]
pub enum Event<'e> {
    /// The head was looked over: what the request is called, and who is on the other side.
    Identified { request_id: &'e Arc<str>, trace: TraceIds, client: ClientInfo },
    /// Its credentials name a principal, or nobody.
    Authenticated(ClientInfo),
    /// So many bytes of its body came.
    Received(u64),
    /// What it asks for was read.
    Requested(&'e RequestFacts),
    /// What it says was kept, where the configuration wants that.
    PromptKept(Option<Box<Prompt>>),
    /// Its route is known, and upstream and variant of the target that it was assigned to.
    Routed { route: &'e Arc<str>, target: Option<(&'e Arc<str>, &'e Arc<str>)> },
    /// The limits of its route have decided.
    Limited(LimitInfo),
    /// The answer of the attempt `number` is passed on, from this upstream and variant.
    PassedOn { number: usize, upstream: &'e Arc<str>, variant: &'e Arc<str> },
    /// A head with this status went to the client.
    StatusSent(u16),
    /// What the answer speaks, where it is an LLM's, as far as it has shown.
    Recognised(Option<(Dialect, Framing)>),
    /// Whether the answer is a stream that is no LLM's, as far as it has shown.
    OtherStream(bool),
    /// The first token passed, so long after the head.
    FirstToken(Duration),
    /// So many bytes of the answer's body went to the client.
    Sent(u64),
    /// A limit had the stream cut.
    Cut,
    /// The answer that was passed on has ended, and this went wrong with it.
    AnswerEnded(Option<ErrorType>),
    /// What was read of an LLM's answer, and what it costs; first of the request alone.
    Read(LlmInfo),
    /// What was read of a stream that is no LLM's.
    StreamRead(Box<StreamReading>),
    /// A WebSocket is over.
    WebSocketClosed(WebSocketInfo),
    /// How the request ended. What is told last counts.
    Ended(Outcome, Option<ErrorType>),
    /// All attempts are over.
    Attempted(Attempted),
    /// The attempts that lost a race cost so much.
    HedgesBilled(Cost, PriceSource),
}

/// What was tried for one request.
pub struct Attempted {
    /// In the order of their beginning.
    pub attempts: Vec<Attempt>,
    /// Whose answer was passed on.
    pub passed_on: Option<usize>,
    /// An upstream got the request, or a part of it.
    pub sent: bool,
    /// Another target was asked in place of the one that the request was assigned to.
    pub passed_over: Option<PassedOver>,
}

/// Why the target that a request was assigned to was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassedOver {
    Down,
    /// By hand, after the request was assigned.
    TakenOut,
}

/// Something that happened to one attempt.
pub enum AttemptEvent<'e> {
    /// Another address of the same name is asked.
    Moved(&'e ServerAddress),
    /// The connection stands; `reused`: it served another request before.
    Connected {
        reused: bool,
    },
    /// The answer's head came, with this status.
    Answered(u16),
    Failed(ErrorType),
    /// Its answer may be passed on.
    Opened,
    /// It was broken off, since another was faster.
    Outrun,
    /// Its answer was passed on, and has ended; this went wrong with it.
    Ended(Option<ErrorType>),
    /// It was dropped. That tells nothing new of one that had failed or opened.
    Dropped,
}
