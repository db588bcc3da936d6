//! The end of a request: one outcome, one record, whatever happened.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use super::attempts::{Attempts, PassedOver};
use crate::llm::content::Prompt;
use crate::llm::price::{Bill, Cost};
use crate::llm::rpc::RpcProtocol;
use crate::llm::{Claim, Dialect, Framing, Reading, RequestFacts, StreamReading, Usage};
use crate::policy::shadow::Side;
use crate::proxy::clock::Clock;
use crate::proxy::limits::background::{self, Booking};
use crate::proxy::limits::reservation::Reservation;
use crate::proxy::process::body::Admitted;
use crate::proxy::process::canary_sample::{Assigned, Witness};
use crate::proxy::process::state::{Generation, Shared};
use crate::telemetry::ids;
use crate::telemetry::live::LiveStream;
use crate::telemetry::record::{
    AskedBy, Attempt, ClientInfo, ErrorType, LimitInfo, LlmInfo, Outcome, Phase, Phases, Record, RequestInfo, ServedBy,
    Stopwatch, TraceIds, WebSocketInfo,
};
use crate::telemetry::shadow::side_of_client;

/// A request under way. Dropping it publishes its record: after a normal end, a panic or an abort alike.
pub(crate) struct Flight<'a> {
    shared: &'a Shared,
    generation: &'a Generation,
    pub(crate) clock: Clock,
    stopwatch: Stopwatch,
    /// Taken when published.
    record: Option<Record>,
    /// Shows the request as running until it is dropped.
    live: LiveStream,
    /// What it holds of its limits.
    reservation: Option<Reservation>,
    /// What the judge of its route's canary will hear.
    witness: Option<Witness>,
    /// Who waits to compare the answer with a copy's.
    shadow: Option<oneshot::Sender<Side>>,
    tries: Arc<Attempts>,
    /// The attempt whose answer is passed on.
    passed_on: Option<usize>,
}

impl<'a> Flight<'a> {
    /// Begins the record of a request whose head is complete. Until [`Flight::end`] says otherwise, it ended in an
    /// internal error: that is what a drop without an end is.
    pub(crate) fn begin(shared: &'a Shared, generation: &'a Generation, clock: Clock, request: RequestInfo) -> Self {
        let live = shared.telemetry.live().enter(&request.method, &request.path);
        let record = Record {
            request_id: Arc::from(""),
            trace: TraceIds { trace_id: 0, span_id: 0, parent: None, link: None, sampled: false },
            started: SystemTime::now(),
            duration: Duration::ZERO,
            client: ClientInfo::default(),
            request,
            route: None,
            served_by: None,
            config_generation: generation.number,
            status: None,
            outcome: Outcome::InternalError,
            error: Some(ErrorType::Internal),
            attempts: Vec::new(),
            passed_on: None,
            phases: Phases::default(),
            bytes_in: 0,
            bytes_out: 0,
            llm: None,
            stream: None,
            rpc: None,
            websocket: None,
            prompt: None,
            limit: None,
            canary: None,
            of_websocket: false,
        };
        let (tries, stopwatch) = (Attempts::new(clock, Some(live.follower())), Stopwatch::start(Phase::Admit));
        Self {
            shared,
            generation,
            clock,
            stopwatch,
            record: Some(record),
            live,
            reservation: None,
            witness: None,
            shadow: None,
            tries,
            passed_on: None,
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// The time from now on is spent on `phase`.
    pub(crate) fn enter(&mut self, phase: Phase) {
        let now = self.clock.now();
        self.stopwatch.enter(phase, now);
        self.live.entered_for_long(&self.stopwatch, now);
    }

    /// As [`Flight::enter`], for a caller that has just looked at the clock.
    pub(crate) fn enter_at(&mut self, phase: Phase, now: Duration) {
        self.stopwatch.enter(phase, now);
        self.live.entered(phase, now, &self.stopwatch);
    }

    /// What was spent on each phase so far.
    pub(crate) fn phases(&self) -> Phases {
        self.stopwatch.read(self.clock.now())
    }

    /// Where attempts write what they do.
    pub(crate) fn tries(&self) -> &Arc<Attempts> {
        &self.tries
    }

    /// The answer of this attempt is passed on: where the time went is told by it, and what came before it was lost.
    pub(crate) fn passes_on(&mut self, number: usize) {
        self.tries.book(number, &mut self.stopwatch);
        let now = self.clock.now();
        self.stopwatch.enter(self.stopwatch.current(), now);
        self.live.entered_for_long(&self.stopwatch, now);
        self.passed_on = Some(number);
    }

    pub(crate) fn identified(&mut self, request_id: &Arc<str>, trace: TraceIds, client: ClientInfo) {
        self.live.identified(request_id, trace);
        self.live.known(client.user.as_ref());
        self.note(|record| {
            record.request_id = Arc::clone(request_id);
            record.trace = trace;
            record.client = client;
        });
    }

    /// The id by which its client can name it.
    pub(crate) fn request_id(&self) -> Arc<str> {
        self.record.as_ref().map_or_else(|| Arc::from(""), |record| Arc::clone(&record.request_id))
    }

    /// Who calls is known better now.
    pub(crate) fn known(&mut self, client: ClientInfo) {
        self.live.known(client.user.as_ref());
        self.note(|record| record.client = client);
    }

    pub(crate) fn routed(&mut self, route: &Arc<str>) {
        self.live.routed(route);
        self.note(|record| record.route = Some(Arc::clone(route)));
    }

    pub(crate) fn served_by(&mut self, upstream: &Arc<str>, variant: &Arc<str>) {
        if let Some(witness) = &mut self.witness {
            witness.asked(self.clock.now());
        }
        self.live.served_by(upstream, variant);
        self.note(|record| {
            record.served_by = Some(ServedBy { upstream: Arc::clone(upstream), variant: Arc::clone(variant) });
        });
    }

    /// The attempt whose answer is passed on ended: books its end and what went wrong, if anything did.
    pub(crate) fn last_attempt_ended(&mut self, error: Option<ErrorType>) {
        if let Some(number) = self.passed_on {
            self.tries.ended(number, error);
        }
    }

    pub(crate) fn status_sent(&mut self, status: u16) {
        self.live.status(status);
        self.note(|record| record.status = Some(status));
    }

    pub(crate) fn bytes(&mut self, received: u64, sent: u64) {
        self.note(|record| {
            record.bytes_in += received;
            record.bytes_out += sent;
        });
    }

    /// What the request asks for, where it is LLM-shaped.
    pub(crate) fn asks(&mut self, request: &Arc<RequestFacts>) {
        if let Some(model) = &request.model {
            self.live.asks_for(model);
        }
        if let Some(dialect) = request.dialect.filter(|_| request.is_llm()) {
            self.read((dialect, Claim::Request), request, Reading::default());
        }
        if let Some(rpc) = &request.rpc {
            self.note(|record| record.rpc = Some(rpc.clone()));
        }
    }

    /// What was read of an answer that is a stream of another kind than an LLM's.
    pub(crate) fn streamed(&mut self, mut stream: Box<StreamReading>) {
        self.note(|record| {
            record.llm = None;
            if let Some(told) = stream.rpc.take() {
                let known = record.rpc.get_or_insert_with(|| told.clone());
                // The request has named its call; of a stream that asked for none the first message is the name.
                if known.method.is_none() {
                    known.method = told.method;
                    if known.protocol == RpcProtocol::JsonRpc {
                        known.protocol = told.protocol;
                    }
                }
            }
            record.stream = Some(stream);
        });
    }

    /// What the limits of its route say of the request.
    pub(crate) fn limited(&mut self, info: LimitInfo) {
        self.note(|record| record.limit = Some(info));
    }

    /// What the request holds, until it ends.
    pub(crate) fn reserved(&mut self, reservation: Reservation) {
        self.reservation = Some(reservation);
    }

    /// Which side of a comparison it was assigned to, where its route has a canary.
    pub(crate) fn assigned(&mut self, assigned: Option<Assigned>, facts: &RequestFacts) {
        self.witness = assigned.filter(|assigned| assigned.counts).map(|assigned| Witness::new(assigned, facts));
    }

    /// A copy of the request was sent, whose answer is compared with the client's.
    pub(crate) fn shadowed(&mut self, tell: oneshot::Sender<Side>) {
        self.shadow = Some(tell);
    }

    /// The request is on its way to an upstream.
    pub(crate) fn asked(&mut self) {
        if let Some(reservation) = &mut self.reservation {
            reservation.asked();
        }
    }

    /// So many tokens have flowed by now. Tells whether a limit wants the stream cut.
    #[must_use]
    pub(crate) fn generated(&mut self, tokens: u64) -> bool {
        self.reservation.as_mut().is_some_and(|reservation| reservation.generated(tokens))
    }

    /// A limit had the stream cut.
    pub(crate) fn cut(&mut self) {
        self.note(|record| {
            if let Some(limit) = &mut record.limit {
                limit.cut = true;
            }
        });
    }

    /// What was read of the answer.
    pub(crate) fn read(
        &mut self,
        (dialect, claim): (Dialect, Claim),
        request: &Arc<RequestFacts>,
        mut reading: Reading,
    ) {
        let upstream = self.upstream();
        let booking = match &upstream {
            Some(upstream) => self.shared.usage.background.booking(upstream, request, &mut reading),
            None => Booking::Own,
        };
        let asked_by = if let Booking::Of(by, _) = &booking { Some(Arc::clone(by)) } else { None };
        let request = &Arc::clone(asked_by.as_ref().map_or(request, |by| &by.request));
        let models = [reading.response_model.as_deref(), request.model.as_deref()];
        let provider = self.provider();
        let bill = self.generation.settings.prices.bill(provider.as_deref(), models, &reading.usage);
        match (booking, &mut self.reservation) {
            (Booking::Own, Some(reservation)) => reservation.read(&reading, bill.cost()),
            (Booking::Of(_, Some(hold)), _) => background::settle(*hold, &reading, bill.cost()),
            (Booking::Pending, _) if !request.retrieves() => self.runs_on(upstream, request, &reading),
            _ => {}
        }
        if let Some(witness) = &mut self.witness {
            witness.read(&reading);
        }
        self.note(|record| {
            let span_id = record.llm.as_ref().map_or_else(ids::new_span_id, |llm| llm.span_id);
            record.llm = Some(LlmInfo {
                dialect,
                claim,
                request: Arc::clone(request),
                reading,
                bill,
                provider,
                span_id,
                asked_by,
            });
        });
    }

    /// The response is made in the background: what is held waits for its end.
    fn runs_on(&mut self, upstream: Option<Arc<str>>, request: &Arc<RequestFacts>, reading: &Reading) {
        let (Some(record), Some(upstream)) = (&self.record, upstream) else { return };
        let by = AskedBy {
            request_id: Arc::clone(&record.request_id),
            route: record.route.clone(),
            client: record.client.clone(),
            request: Arc::clone(request),
        };
        let hold = self.reservation.take().map(|mut hold| {
            hold.asked();
            hold.received(record.bytes_in);
            hold
        });
        self.shared.usage.background.runs(&upstream, reading.response_id.as_deref(), by, hold);
    }

    /// What was asked, for those whose configuration wants it kept.
    pub(crate) fn prompt(&mut self, admitted: &Admitted) {
        if let Some(body) = admitted.content.json()
            && admitted.facts.is_llm()
        {
            let prompt = Prompt::read(body).map(Box::new);
            self.note(|record| record.prompt = prompt);
        }
    }

    /// How far the answer has come, and when a token came with it, for those who watch.
    pub(crate) fn progress(&self, frames: u64, bytes: u64, token: Option<Duration>) {
        self.live.progress(frames, bytes, token);
    }

    /// What the answer speaks, where it is an LLM's, as far as it has shown.
    pub(crate) fn speaks(&self, speaks: Option<(Dialect, Framing)>) {
        self.live.speaks(speaks);
    }

    /// Whether the answer is a stream that is no LLM's, as far as it has shown.
    pub(crate) fn is_other_stream(&self, other: bool) {
        self.live.is_other(other);
    }

    /// The first token has passed.
    pub(crate) fn first_token(&self, at: Duration) {
        self.live.first_token(at);
    }

    /// Tells of one response on a WebSocket, beside the connection's own record. Times are on the connection's clock.
    pub(crate) fn tell_response(
        &self,
        asked_at: Duration,
        ended_at: Duration,
        (outcome, error): (Outcome, Option<ErrorType>),
        llm: LlmInfo,
        limit: Option<LimitInfo>,
    ) {
        let Some(connection) = &self.record else { return };
        self.shared.telemetry.publish_response(Record {
            started: connection.started + asked_at,
            duration: ended_at.saturating_sub(asked_at),
            outcome,
            error,
            attempts: Vec::new(),
            phases: Phases::default(),
            llm: Some(llm),
            limit,
            of_websocket: true,
            ..connection.clone()
        });
    }

    pub(crate) fn websocket(&mut self, info: WebSocketInfo) {
        self.note(|record| record.websocket = Some(info));
    }

    /// How the request ended. The last word counts.
    pub(crate) fn end(&mut self, outcome: Outcome, error: Option<ErrorType>) {
        if let Some(reservation) = &mut self.reservation {
            reservation.ended(outcome);
            if outcome == Outcome::Completed && error.is_none() {
                reservation.succeeded();
            }
        }
        if let Some(witness) = &mut self.witness {
            witness.ended(outcome, error);
        }
        self.note(|record| {
            record.outcome = outcome;
            record.error = error;
        });
    }

    /// Who runs the models of the upstream that is asked.
    fn provider(&self) -> Option<Arc<str>> {
        self.generation.settings.provider_of(&self.upstream()?)
    }

    fn upstream(&self) -> Option<Arc<str>> {
        self.record.as_ref()?.served_by.as_ref().map(|served_by| Arc::clone(&served_by.upstream))
    }

    /// Nobody has said how it ended.
    fn is_unended(&self) -> bool {
        self.record
            .as_ref()
            .is_some_and(|record| record.outcome == Outcome::InternalError && record.error == Some(ErrorType::Internal))
    }

    fn note(&mut self, write: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            write(record);
        }
    }
}

impl Flight<'_> {
    /// Tells the canary's judge of the attempts. How the one went whose answer was passed on is told by its end.
    fn testify(&mut self, tries: &[Attempt]) {
        let Some(witness) = &mut self.witness else { return };
        // What was taken out by hand may have been stopped as well: nobody failed.
        let levers = &self.shared.levers;
        let is_out = tries.iter().any(|attempt| levers.is_out(&attempt.upstream, &attempt.place));
        match self.tries.passed_over() {
            _ if is_out => return self.witness = None,
            Some(PassedOver::TakenOut) => return self.witness = None,
            Some(PassedOver::Down) => return witness.passed_over(),
            None => {}
        }
        for (number, attempt) in tries.iter().enumerate() {
            if self.passed_on == Some(number) {
                witness.attempted(&Attempt { error: None, ..attempt.clone() });
            } else if attempt.status.is_none() && attempt.error.is_none() {
                // Broken off with the request.
                witness.asked(attempt.started);
            } else {
                witness.attempted(attempt);
            }
        }
    }

    /// An attempt that was outrun was broken off before its first token: its upstream has read the prompt for nothing, and
    /// bills it. How many tokens that is can only be estimated: as many as the winner's.
    fn charge_outrun(&mut self, record: &mut Record) {
        let outrun = record.attempts.iter().filter(|attempt| attempt.error == Some(ErrorType::HedgeLost)).count();
        let Some(llm) = record.llm.as_mut().filter(|_| outrun > 0) else { return };
        let prompt = Usage { input: llm.reading.usage.input, ..Usage::default() };
        let models = [llm.reading.response_model.as_deref(), llm.request.model.as_deref()];
        let one = self.generation.settings.prices.bill(llm.provider.as_deref(), models, &prompt);
        let Bill::Priced { cost: one, source } = one else { return };
        let cost: Cost = std::iter::repeat_n(one, outrun).sum();
        llm.bill = llm.bill.plus(cost, source);
        if let Some(reservation) = &mut self.reservation {
            reservation.outrun(cost);
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if self.shared.drain.is_cut() && self.is_unended() {
            // Its task was dropped with the process: that is the operator's doing, and no fault of ours.
            self.end(Outcome::Stopped, Some(self.shared.drain.why_cut()));
        }
        let Some(mut record) = self.record.take() else { return };
        if let (None, Some(last)) = (self.passed_on, self.tries.last()) {
            self.tries.book(last, &mut self.stopwatch);
        }
        if self.tries.any_sent() {
            self.asked();
        }
        if let Some(reservation) = &mut self.reservation {
            reservation.received(record.bytes_in);
        }
        let tries = self.tries.take();
        self.testify(&tries);
        record.attempts.extend(tries);
        record.passed_on = self.passed_on;
        if record.outcome == Outcome::Rejected && record.attempts.is_empty() {
            // It would have gone there, and nobody there heard of it.
            record.served_by = None;
        }
        if let Some(llm) = &mut record.llm {
            llm.provider = record.served_by.as_ref().and_then(|by| self.generation.settings.provider_of(&by.upstream));
        }
        self.charge_outrun(&mut record);
        let now = self.clock.now();
        record.phases = self.stopwatch.read(now);
        record.duration = record.phases.total();
        if let (Some(reservation), Some(limit)) = (self.reservation.take(), &mut record.limit) {
            limit.used = reservation.settle();
        }
        if let Some((assigned, attempt)) = self.witness.take().and_then(|witness| witness.conclude(now)) {
            record.canary = self.shared.judge(&assigned, &attempt);
        }
        if let Some(tell) = self.shadow.take()
            && let Some(side) = side_of_client(&record)
        {
            // The copy may have been given up.
            let _ = tell.send(side);
        }
        self.shared.telemetry.publish(record);
    }
}
