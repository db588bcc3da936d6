//! Copies of requests for a second upstream: its answers are measured, compared with those that the clients got, and
//! dropped. A copy is sent once the client's own answer has begun, by a task of its own: no client ever waits for it, and
//! nothing that happens to it is told to anybody but telemetry.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::HeaderName;
use pingora::http::RequestHeader;
use tokio::sync::oneshot;

use super::termination;
use crate::config::limits::Limit;
use crate::llm::{Reading, RequestFacts, StreamEnd, UsageSource};
use crate::policy::cors::Decision;
use crate::policy::limits::{Claim, Request, Standing};
use crate::policy::mirror::{self as policy, Side, Took};
use crate::proxy::clock::Clock;
use crate::proxy::process::drain::DrainStage;
use crate::proxy::process::mirror_memory::MirrorMemory;
use crate::proxy::process::request_body::{Admitted, RequestBody};
use crate::proxy::process::state::{Generation, Shared};
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::attempts::Attempts;
use crate::proxy::request::caller::Caller;
use crate::proxy::request::client_progress::ClientProgress;
use crate::proxy::request::context::RequestContext;
use crate::proxy::request::route::Routed;
use crate::proxy::request::routed_request::RoutedRequest;
use crate::proxy::upstream::attempt::{AttemptRun, Step};
use crate::proxy::upstream::response_reader::{Next, ResponseReader};
use crate::proxy::upstream::tap::Read;
use crate::proxy::upstream::upstream_error::late_error;
use crate::proxy::upstream::upstream_request::UpstreamRequest;
use crate::proxy::upstream::upstream_response::UpstreamResponse;
use crate::telemetry::event::AttemptEvent;
use crate::telemetry::ids;
use crate::telemetry::mirror::{MirrorRecord, side};
use crate::telemetry::record::{Attempt, Cause, ErrorType, Outcome};

/// Tells an upstream that nobody waits for its answer. From clients it is not believed.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-streamgauge-shadow");

/// The place of one copy. Given back when it is dropped.
struct Place {
    mirrors: Arc<MirrorMemory>,
    shared: Arc<Shared>,
    claim: Option<Claim>,
    facts: Arc<RequestFacts>,
    took: Took,
}

impl Place {
    fn take(request: &RoutedRequest<'_>, limit: &Arc<Limit>, body: u64) -> Option<Self> {
        let mirrors = request.generation.mirrors.get(&request.routed.route.name)?;
        let facts = request.facts();
        let asked = Request {
            model: facts.model.as_deref(),
            holder: "",
            body_bytes: body,
            counted: None,
            max_tokens: facts.max_tokens,
            answers: facts.answers,
        };
        let claim = mirrors.caps().take(limit, &asked, request.shared.now())?;
        Some(Self {
            mirrors: Arc::clone(mirrors),
            shared: Arc::clone(request.shared),
            claim: Some(claim),
            facts: Arc::clone(facts),
            took: Took { body_bytes: body, ..Took::default() },
        })
    }

    fn give_back(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.mirrors.caps().give_back(claim, self.facts.model.as_deref(), self.took, self.shared.now());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Sends a copy of a request whose answer has begun, where its route has a shadow and chance will have it.
pub(crate) fn cast(request: &RoutedRequest<'_>, head: &RequestHeader, flight: &mut Flight<'_>) {
    let &RoutedRequest { context, admitted, routed, .. } = request;
    let Some(shadow) = &routed.route.shadow else { return };
    // What is not LLM-shaped may act on the world: done twice it would do harm.
    let RequestBody::Buffered(body) = &admitted.body else { return };
    if !admitted.facts.is_llm() || !policy::is_drawn(shadow.share, ids::random()) {
        return;
    }
    let limit = policy::caps_of(shadow);
    let Some(place) = Place::take(request, &limit, body.len() as u64) else {
        return context.shared.telemetry.mirror_skipped(&routed.route.name);
    };
    let (tell, client) = oneshot::channel();
    flight.shadowed(tell);
    let sending = Sending {
        shared: Arc::clone(context.shared),
        generation: Arc::clone(context.generation),
        head: marked(head),
        caller: Caller { request_id: format!("{}-shadow", context.caller.request_id).into(), ..context.caller.clone() },
        request_id: Arc::clone(&context.caller.request_id),
        routed: Routed {
            route: Arc::clone(&routed.route),
            target: shadow.target.clone(),
            first: None,
            limits: routed.limits,
            assigned: None,
            in_service: Arc::clone(&routed.in_service),
        },
        admitted: admitted.clone(),
        place,
    };
    drop(tokio::spawn(sending.run(client)));
}

fn marked(head: &RequestHeader) -> RequestHeader {
    let mut head = head.clone();
    // Cannot fail: it is a fixed text.
    let _ = head.insert_header(HEADER, "true");
    head
}

/// A copy with all that it takes to send it: its request may be over before it is.
struct Sending {
    shared: Arc<Shared>,
    generation: Arc<Generation>,
    head: RequestHeader,
    caller: Caller,
    /// Of the client's request.
    request_id: Arc<str>,
    routed: Routed,
    admitted: Admitted,
    place: Place,
}

/// What became of a copy.
struct Heard {
    started: SystemTime,
    duration: Duration,
    attempts: Vec<Attempt>,
    reading: Option<Reading>,
    side: Side,
}

impl Sending {
    /// Sends the copy and compares its answer with the one of which `client` tells, unless the client or the process goes.
    async fn run(mut self, client: oneshot::Receiver<Side>) {
        let shared = Arc::clone(&self.shared);
        let route = Arc::clone(&self.routed.route.name);
        let compared = tokio::select! {
            biased;
            () = shared.drain.reached(DrainStage::Draining) => None,
            compared = self.compare(client) => compared,
        };
        match compared {
            Some(record) => shared.telemetry.publish_mirror(record),
            None => shared.telemetry.mirror_skipped(&route),
        }
    }

    /// `None`: the client's answer is none to compare with, and its copy is broken off.
    async fn compare(&mut self, mut client: oneshot::Receiver<Side>) -> Option<MirrorRecord> {
        let (heard, early) = {
            let heard = self.hear();
            tokio::pin!(heard);
            tokio::select! {
                biased;
                told = &mut client => {
                    let told = told.ok()?;
                    (heard.await, Some(told))
                }
                heard = &mut heard => (heard, None),
            }
        };
        let cost = heard.reading.as_ref().and_then(|reading| self.settle(reading));
        // The place is free, whatever the client's answer still takes.
        let (route, target) = (Arc::clone(&self.routed.route.name), &self.routed.target);
        let variant = Arc::clone(&target.name);
        self.place.give_back();
        let told = match early {
            Some(told) => told,
            None => client.await.ok()?,
        };
        let (verdict, differences) = policy::compare(&told, &heard.side);
        Some(MirrorRecord {
            request_id: Arc::clone(&self.request_id),
            trace: self.caller.trace,
            started: heard.started,
            route,
            variant,
            attempts: heard.attempts,
            duration: heard.duration,
            client: told,
            copy: heard.side,
            verdict,
            differences,
            cost,
        })
    }

    /// Books what the copy took, and what that costs.
    fn settle(&mut self, reading: &Reading) -> Option<crate::llm::price::Cost> {
        self.place.took.input = reading.usage.input;
        self.place.took.output = reading.usage.output;
        self.place.took.reported = reading.usage_source == UsageSource::Reported;
        let models = [
            reading.response_model.as_deref(),
            self.routed.target.model.as_deref(),
            self.admitted.facts.model.as_deref(),
        ];
        let provider = self.routed.target.upstream.provider.as_deref();
        self.generation.settings.prices.bill(provider, models, &reading.usage).cost()
    }

    /// Asks, and hears the answer to its end.
    async fn hear(&self) -> Heard {
        let (clock, started) = (Clock::start(), SystemTime::now());
        let attempts = Attempts::new(clock, None);
        let (reading, error, began) = match self.ask(clock, &attempts).await {
            Some(opened) => self.listen(*opened, clock, &attempts).await,
            None => (None, None, Duration::ZERO),
        };
        let attempts = attempts.take(None).attempts;
        let last = attempts.last();
        let whole = error.is_none() && last.is_some_and(|attempt| is_whole(attempt, reading.as_ref()));
        let side = side(last.and_then(|attempt| attempt.status), whole, reading.as_ref(), began);
        Heard { started, duration: clock.now(), attempts, reading, side }
    }

    /// One attempt; a second on a fresh connection where a kept one had been closed.
    async fn ask(&self, clock: Clock, attempts: &Attempts) -> Option<Box<UpstreamResponse>> {
        let context = RequestContext {
            shared: &self.shared,
            generation: &self.generation,
            caller: self.caller.clone(),
            cors: Decision::None,
        };
        let (client, _) = ClientProgress::new(&self.admitted.body);
        let routed = RoutedRequest {
            context: &context,
            admitted: &self.admitted,
            routed: &self.routed,
            standing: Standing::default(),
            clock,
            upgrades: false,
            client,
        };
        let request = UpstreamRequest { request: &routed, head: &self.head, attempts, session: None };
        let target = &self.routed.target;
        let pool = self.generation.pools.get(&*target.upstream.name)?;
        for fresh in [false, true] {
            let ticket = pool.take_aside(ids::random())?;
            let step = Step { target, ticket, cause: Cause::First, holds: false, another: false, fresh, load: None };
            match AttemptRun::new(&request, step).run(&mut None).await {
                Ok(opened) => return Some(opened),
                Err(failed) if failed.race.happened() && !fresh => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Hears an answer to its end; what was read of it, what went wrong, and when the attempt began.
    async fn listen(
        &self,
        mut opened: UpstreamResponse,
        clock: Clock,
        attempts: &Attempts,
    ) -> (Option<Reading>, Option<ErrorType>, Duration) {
        let error = listen(&mut opened, clock).await.err();
        attempts.tell(opened.number, &AttemptEvent::Ended(error));
        let UpstreamResponse { reader, peer, early, started, .. } = opened;
        let ResponseReader { mut session, mut tap, .. } = *reader;
        let end = if error.is_none() { StreamEnd::Clean } else { StreamEnd::Cut };
        let reading = match tap.finish(end, clock.now()) {
            Read::Llm(_, reading) => Some(*reading),
            Read::Stream(_) | Read::Nothing => None,
        };
        if error.is_none() && !early {
            self.shared.connector.release(session, &peer).await;
        } else {
            session.shutdown().await;
        }
        (reading, error, started)
    }
}

/// Reads to the end of an answer, within the times that its route gives.
async fn listen(opened: &mut UpstreamResponse, clock: Clock) -> Result<(), ErrorType> {
    let reader = &mut opened.reader;
    loop {
        match reader.next(None).await {
            Next::Chunk(chunk) => {
                let now = clock.now();
                reader.look_at(&chunk, now);
                if reader.tap.has_ended() {
                    reader.deadlines.end(now);
                }
            }
            Next::End => return Ok(()),
            Next::Idle => {}
            // What came is the whole answer, and its connection serves nothing more.
            Next::Died | Next::Late(_) if reader.tap.is_whole() => {
                opened.early = true;
                return Ok(());
            }
            Next::Died => return Err(ErrorType::UpstreamBodyReset),
            Next::Late(late) => return Err(late_error(late)),
        }
    }
}

/// Whether an answer ended as it should; one that refuses in order did.
fn is_whole(attempt: &Attempt, reading: Option<&Reading>) -> bool {
    match (attempt.error, attempt.status) {
        (Some(ErrorType::UpstreamStatus), _) => true,
        (None, Some(status)) => termination::judge(status, reading).0 == Outcome::Completed,
        _ => false,
    }
}
