//! The accounting of a request: stages tell it what happened, its folds make of that one outcome and one record, whatever happened.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::attempts::Attempts;
use crate::config::settings::Target;
use crate::llm::content::Prompt;
use crate::llm::price::{Bill, Cost};
use crate::llm::websocket::Ended;
use crate::llm::{Dialect, Reading, RequestFacts, Usage};
use crate::policy::mirror::Side;
use crate::proxy::clock::Clock;
use crate::proxy::limits::background_usage::{self, Booking};
use crate::proxy::limits::reservation::Reservation;
use crate::proxy::process::canary_sample::{Assigned, CanarySample};
use crate::proxy::process::request_body::Admitted;
use crate::proxy::process::state::{Generation, Shared};
use crate::telemetry::event::{AttemptEvent, Event, PassedOver};
use crate::telemetry::ids;
use crate::telemetry::live::LiveStream;
use crate::telemetry::mirror::side_of_client;
use crate::telemetry::record::{
    AskedBy, ErrorType, LimitInfo, LlmInfo, Outcome, Phase, Phases, Record, RequestInfo, Stopwatch,
};

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
    /// What it holds of its limits. In a box: most requests have none, and all would have its room.
    reservation: Option<Box<Reservation>>,
    /// What the judge of its route's canary will hear.
    sample: Option<Box<CanarySample>>,
    /// Who waits to compare the answer with a copy's.
    shadow: Option<oneshot::Sender<Side>>,
    attempts: Attempts,
    /// The attempt whose answer is passed on.
    passed_on: Option<usize>,
    /// At whose price the answer is compared with what it cost.
    first: Option<Box<Target>>,
}

impl<'a> Flight<'a> {
    /// Begins with a request whose head is complete.
    pub(crate) fn begin(shared: &'a Shared, generation: &'a Generation, clock: Clock, request: RequestInfo) -> Self {
        let live = shared.telemetry.live().enter(&request.method, &request.path);
        Self {
            shared,
            generation,
            clock,
            stopwatch: Stopwatch::start(Phase::Admit),
            record: Some(Record::begin(request, generation.number)),
            attempts: Attempts::new(clock, Some(live.follower())),
            live,
            reservation: None,
            sample: None,
            shadow: None,
            passed_on: None,
            first: None,
        }
    }

    /// Something happened: each fold hears of it, the record last, which keeps what the event brings. Inlined, with one arm left of
    /// each fold: to tell an event costs what it changes.
    #[inline(always)]
    pub(crate) fn tell(&mut self, event: Event<'_>) {
        match &event {
            Event::PassedOn { number, .. } => self.passes_on(*number),
            Event::AnswerEnded(error) => self.answer_ended(*error),
            _ => {}
        }
        self.live.apply(&event);
        if let Some(reservation) = &mut self.reservation {
            reservation.apply(&event);
        }
        if let Some(sample) = &mut self.sample {
            sample.apply(&event);
        }
        if let Some(record) = &mut self.record {
            record.apply(event);
        }
    }

    /// How the request ended. The last word counts.
    pub(crate) fn end(&mut self, outcome: Outcome, error: Option<ErrorType>) {
        self.tell(Event::Ended(outcome, error));
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

    /// Where attempts tell what they do.
    pub(crate) fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// The answer of this attempt is passed on: where the time went is told by it, and what came before it was lost.
    fn passes_on(&mut self, number: usize) {
        self.attempts.book(number, &mut self.stopwatch);
        self.enter(self.stopwatch.current());
        self.passed_on = Some(number);
    }

    fn answer_ended(&self, error: Option<ErrorType>) {
        if let Some(number) = self.passed_on {
            self.attempts.tell(number, &AttemptEvent::Ended(error));
        }
    }

    /// The id by which its client can name it.
    pub(crate) fn request_id(&self) -> Arc<str> {
        self.record.as_ref().map_or_else(|| Arc::from(""), |record| Arc::clone(&record.request_id))
    }

    /// What the request asks for, where it is LLM-shaped.
    pub(crate) fn asks(&mut self, request: &Arc<RequestFacts>) {
        self.tell(Event::Requested(request));
        if let Some(dialect) = request.dialect.filter(|_| request.is_llm()) {
            self.read(dialect, request, Reading::default());
        }
    }

    /// What was asked, for those whose configuration wants it kept.
    pub(crate) fn prompt(&mut self, admitted: &Admitted) {
        if let Some(body) = admitted.content.json()
            && admitted.facts.is_llm()
        {
            self.tell(Event::PromptKept(Prompt::read(body).map(Box::new)));
        }
    }

    /// What the request holds, until it ends.
    pub(crate) fn reserved(&mut self, reservation: Reservation) {
        self.reservation = Some(Box::new(reservation));
    }

    /// Which side of a comparison it was assigned to, where its route has a canary.
    pub(crate) fn assigned(&mut self, assigned: Option<Assigned>, facts: &RequestFacts) {
        let counts = assigned.filter(|assigned| assigned.counts);
        self.sample = counts.map(|assigned| Box::new(CanarySample::new(assigned, facts)));
    }

    /// Its route has conditions on what a request is: what it costs is compared with what the same tokens cost at this target.
    pub(crate) fn compares_cost_with(&mut self, first: Option<Box<Target>>) {
        self.first = first;
    }

    /// What the tokens of an answer cost at the target that it is compared with, where both have a price. The usage of another
    /// request is compared with nothing.
    fn cost_at_first(&self, llm: &LlmInfo) -> Option<Cost> {
        let first = self.first.as_ref().filter(|_| llm.is_own() && llm.bill.cost().is_some())?;
        let models = [first.model.as_deref(), llm.request.model.as_deref()];
        self.generation.settings.prices.bill(first.upstream.provider.as_deref(), models, &llm.reading.usage).cost()
    }

    /// A copy of the request was sent, whose answer is compared with the client's.
    pub(crate) fn shadowed(&mut self, tell: oneshot::Sender<Side>) {
        self.shadow = Some(tell);
    }

    /// So many tokens have flowed by now. Tells whether a limit wants the stream cut.
    #[must_use]
    pub(crate) fn generated(&mut self, tokens: u64) -> bool {
        self.reservation.as_mut().is_some_and(|reservation| reservation.generated(tokens))
    }

    /// How far the answer has come, and when a token came with it, for those who watch.
    pub(crate) fn progress(&self, frames: u64, bytes: u64, token: Option<Duration>) {
        self.live.progress(frames, bytes, token);
    }

    /// What was read of the answer.
    pub(crate) fn read(&mut self, dialect: Dialect, request: &Arc<RequestFacts>, reading: Reading) {
        let Some(record) = &self.record else { return };
        let span_id = record.llm.as_ref().map_or_else(ids::new_span_id, |known| known.span_id);
        let (llm, booking) = self.billed(record, span_id, dialect, request, None, reading);
        match booking {
            Booking::Of(_, Some(hold)) => background_usage::settle(*hold, &llm.reading, llm.bill.cost()),
            Booking::Pending if !llm.request.retrieves() => {
                let hold = self.reservation.take().map(|reservation| *reservation);
                self.runs_on(record, &llm, hold);
            }
            _ => {}
        }
        self.tell(Event::Read(llm));
    }

    /// A response on a WebSocket has ended, with what it held: it is told as a request of its own, beside the connection. `model`
    /// is what its target calls it. Returns what it took, and cost.
    pub(crate) fn response_ended(
        &self,
        ended: Ended,
        (outcome, error): (Outcome, Option<ErrorType>),
        (mut reservation, limit): (Option<Reservation>, Option<LimitInfo>),
        model: Option<&str>,
    ) -> (Usage, Option<Cost>) {
        let Some(connection) = &self.record else { return Default::default() };
        let span_id = ids::new_span_id();
        let (llm, booking) =
            self.billed(connection, span_id, Dialect::OpenAiResponses, &ended.facts, model, ended.reading);
        if matches!(booking, Booking::Pending) {
            self.runs_on(connection, &llm, reservation.take());
        }
        let took = (llm.reading.usage, llm.bill.cost());
        let mut record = Record {
            cost_at_first: self.cost_at_first(&llm),
            started: connection.started + ended.asked_at,
            duration: ended.ended_at.saturating_sub(ended.asked_at),
            attempts: Vec::new(),
            phases: Phases::default(),
            limit,
            of_websocket: true,
            ..connection.clone()
        };
        for event in [Event::Read(llm), Event::Ended(outcome, error)] {
            reservation.iter_mut().for_each(|reservation| reservation.apply(&event));
            record.apply(event);
        }
        record.charge(reservation.map_or(0, Reservation::settle));
        self.shared.telemetry.publish_response(record);
        took
    }

    /// What is known of an answer to `request`, and whose usage it tells. `model`: what the target calls it.
    fn billed(
        &self,
        record: &Record,
        span_id: u64,
        dialect: Dialect,
        request: &Arc<RequestFacts>,
        model: Option<&str>,
        mut reading: Reading,
    ) -> (LlmInfo, Booking) {
        let (settings, upstream) = (&self.generation.settings, record.upstream());
        let booking = match upstream {
            Some(upstream) => self.shared.usage.background.booking(upstream, request, &mut reading),
            None => Booking::Own,
        };
        let asked_by = if let Booking::Of(by, _) = &booking { Some(Arc::clone(by)) } else { None };
        let request = Arc::clone(asked_by.as_ref().map_or(request, |by| &by.request));
        let models = [reading.response_model.as_deref(), model, request.model.as_deref()];
        let provider = upstream.and_then(|upstream| settings.provider_of(upstream));
        let bill = settings.prices.bill(provider.as_deref(), models, &reading.usage);
        (LlmInfo { dialect, request, reading, bill, provider, span_id, asked_by }, booking)
    }

    /// The response is made in the background: what is held waits for its end.
    fn runs_on(&self, record: &Record, llm: &LlmInfo, hold: Option<Reservation>) {
        let Some(upstream) = record.upstream() else { return };
        let by = AskedBy {
            request_id: Arc::clone(&record.request_id),
            route: record.route.clone(),
            client: record.client.clone(),
            request: Arc::clone(&llm.request),
        };
        let hold = hold.map(|mut hold| {
            hold.asked();
            hold
        });
        self.shared.usage.background.runs(upstream, llm.reading.response_id.as_deref(), by, hold);
    }
}

impl Flight<'_> {
    /// All attempts are over.
    fn attempted(&mut self) {
        if let (None, Some(last)) = (self.passed_on, self.attempts.last()) {
            self.attempts.book(last, &mut self.stopwatch);
        }
        let mut tried = self.attempts.take(self.passed_on);
        let levers = &self.shared.levers;
        if self.sample.is_some() && tried.attempts.iter().any(|one| levers.is_out(&one.upstream, &one.place)) {
            tried.passed_over = Some(PassedOver::TakenOut);
        }
        let outrun = tried.attempts.iter().filter(|one| one.error == Some(ErrorType::HedgeLost)).count();
        self.tell(Event::Attempted(tried));
        if outrun > 0 {
            self.bill_hedges(outrun);
        }
    }

    /// An attempt that was outrun was broken off before its first token: its upstream has read the prompt for nothing, and
    /// bills it. How many tokens that is can only be estimated: as many as the winner's.
    fn bill_hedges(&mut self, outrun: usize) {
        let Some((record, llm)) = self.record.as_ref().and_then(|record| Some((record, record.llm.as_ref()?))) else {
            return;
        };
        let settings = &self.generation.settings;
        let provider = record.upstream().and_then(|upstream| settings.provider_of(upstream));
        let prompt = Usage { input: llm.reading.usage.input, ..Usage::default() };
        let models = [llm.reading.response_model.as_deref(), llm.request.model.as_deref()];
        let Bill::Priced { cost, source } = settings.prices.bill(provider.as_deref(), models, &prompt) else { return };
        let cost: Cost = std::iter::repeat_n(cost, outrun).sum();
        self.tell(Event::HedgesBilled(cost, source));
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if self.shared.drain.is_cut() && self.record.as_ref().is_some_and(Record::is_unended) {
            // Its task was dropped with the process: that is the operator's doing, and no fault of ours.
            self.end(Outcome::Stopped, Some(self.shared.drain.why_cut()));
        }
        self.attempted();
        let Some(mut record) = self.record.take() else { return };
        if let Some(llm) = &mut record.llm {
            let by = record.served_by.as_ref();
            llm.provider = by.and_then(|by| self.generation.settings.provider_of(&by.upstream));
        }
        record.cost_at_first = record.llm.as_ref().and_then(|llm| self.cost_at_first(llm));
        let now = self.clock.now();
        record.phases = self.stopwatch.read(now);
        record.duration = record.phases.total();
        if let Some(mut reservation) = self.reservation.take() {
            reservation.received(record.bytes_in);
            record.charge(reservation.settle());
        }
        if let Some((assigned, attempt)) = self.sample.take().and_then(|sample| sample.conclude(now)) {
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
