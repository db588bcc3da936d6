//! The responses of one WebSocket: each takes of the limits, and is told, as a request of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::reserve_tokens;
use crate::config::limits::Limit;
use crate::config::settings::Target;
use crate::llm::websocket::{Asked, Ended, Happened, Turns, is_ambiguous};
use crate::proxy::limits::reservation::Reservation;
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::context::RequestContext;
use crate::proxy::request::rejection::Rejection;
use crate::proxy::request::route::Routed;
use crate::telemetry::record::{ErrorType, LimitInfo, Outcome, WebSocketInfo};

/// What is said on one connection.
pub(crate) struct Talk<'a> {
    context: &'a RequestContext<'a>,
    routed: &'a Routed,
    target: &'a Target,
    turns: Turns,
    /// Those of the route that count what a response takes: how many requests run at a time, the connection is one of.
    limits: Vec<Arc<Limit>>,
    /// By the number of the response. Never more than [`Turns`] has at a time.
    held: BTreeMap<u64, Held>,
    /// The response that a limit refused, and how that is called.
    refused: Option<(u64, ErrorType)>,
    /// The client sent what a backend may take for something else than is read here.
    is_ambiguous: bool,
    /// How the connection ended, and with it the responses that still ran.
    lost: (Outcome, Option<ErrorType>),
}

/// What a response holds, or why it holds nothing.
struct Held {
    reservation: Option<Reservation>,
    info: LimitInfo,
}

impl<'a> Talk<'a> {
    pub(crate) fn new(
        context: &'a RequestContext<'a>,
        routed: &'a Routed,
        target: &'a Target,
        model: Option<&str>,
    ) -> Self {
        let counts = |limit: &&Arc<Limit>| limit.counts_tokens() || limit.requests_per_minute.is_some();
        let turns = Turns::new(model, context.settings().telemetry.slow_gap);
        let limits = routed.route.limits.iter().filter(counts).cloned().collect();
        Self {
            context,
            routed,
            target,
            turns,
            limits,
            held: BTreeMap::new(),
            refused: None,
            is_ambiguous: false,
            lost: (Outcome::ClientCancelled, None),
        }
    }

    /// Whether nothing is said that anybody here understands, nor has to: what a limit depends on is looked for to the end.
    pub(crate) fn is_strange(&self) -> bool {
        !self.is_limited() && self.turns.is_strange()
    }

    /// Whether something was said that is OpenAI's.
    pub(super) fn is_known(&self) -> bool {
        self.turns.is_known()
    }

    /// Whether a limit depends on what is said.
    pub(crate) fn is_limited(&self) -> bool {
        !self.limits.is_empty()
    }

    pub(crate) fn client(&mut self, text: &[u8], now: Duration) {
        self.is_ambiguous |= self.is_limited() && is_ambiguous(text);
        self.turns.client(text, now);
    }

    pub(crate) fn server(&mut self, text: &[u8], now: Duration) {
        self.turns.server(text, now);
    }

    /// Follows what was said since the last call. Returns what the client is to be told where a limit refuses a response, or
    /// wants one cut.
    pub(crate) async fn follow(&mut self, flight: &Flight<'_>, told: &mut WebSocketInfo) -> Option<Rejection> {
        let mut refusal = self.is_ambiguous.then(|| {
            Rejection::limited(
                "A limit depends on what is said here, and backends may differ in what they take this message for. Send JSON in UTF-8 with \
                 one `type`.",
            )
        });
        for happened in self.turns.happened() {
            match happened {
                Happened::Asked(asked) if self.limits.is_empty() => drop(asked),
                Happened::Asked(asked) => refusal = self.reserve(&asked, flight).await.or(refusal),
                Happened::Generated { turn, tokens } => refusal = self.generated(turn, tokens).or(refusal),
                Happened::Ended(ended) => self.ended(*ended, flight, told),
            }
        }
        refusal
    }

    /// The connection is over, so are the responses that still run.
    pub(crate) async fn close(
        &mut self,
        flight: &Flight<'_>,
        told: &mut WebSocketInfo,
        (outcome, error): (Outcome, Option<ErrorType>),
    ) {
        if outcome != Outcome::Completed {
            self.lost = (outcome, error);
        }
        self.turns.close(flight.now());
        self.follow(flight, told).await;
    }

    async fn reserve(&mut self, asked: &Asked, flight: &Flight<'_>) -> Option<Rejection> {
        let now = flight.now();
        let (info, taken) = reserve_tokens::reserve_response(self.context, self.routed, &self.limits, asked, now).await;
        let (reservation, refusal) = match taken {
            Ok(mut reservation) => {
                reservation.asked();
                (Some(reservation), None)
            }
            Err(refusal) => {
                self.refused = Some((asked.turn, refusal.error));
                (None, Some(refusal))
            }
        };
        self.held.insert(asked.turn, Held { reservation, info });
        refusal
    }

    fn generated(&mut self, turn: u64, tokens: u64) -> Option<Rejection> {
        let held = self.held.get_mut(&turn)?;
        let cuts = held.reservation.as_mut()?.generated(tokens);
        held.info.cut |= cuts;
        let message = "A limit on tokens is used up, and this response has outrun what it held.";
        cuts.then(|| Rejection::limited(message))
    }

    /// Settles a response, and tells of it.
    fn ended(&mut self, ended: Ended, flight: &Flight<'_>, told: &mut WebSocketInfo) {
        let refused = self.refused.filter(|(refused, _)| *refused == ended.turn);
        let end = match () {
            () if refused.is_some() => (Outcome::Rejected, refused.map(|(_, error)| error)),
            () if ended.reading.error.is_some() => (Outcome::ErrorInStream, Some(ErrorType::ErrorEvent)),
            () if ended.cancelled || !ended.reading.normal_end => self.lost,
            () => (Outcome::Completed, None),
        };
        let (hold, limit) = self.held.remove(&ended.turn).map(|held| (held.reservation, held.info)).unzip();
        let (facts, unannounced) = (Arc::clone(&ended.facts), ended.unannounced);
        let (usage, cost) = flight.response_ended(ended, end, (hold.flatten(), limit), self.target.model.as_deref());
        if unannounced {
            reserve_tokens::charge_response(self.context, self.routed, &self.limits, &facts, (&usage, cost));
        }
        told.responses += 1;
        told.input_tokens = told.input_tokens.saturating_add(usage.input.unwrap_or(0));
        told.output_tokens = told.output_tokens.saturating_add(usage.output.unwrap_or(0));
        told.cost = told.cost + cost.unwrap_or_default();
    }
}
