//! Opens an answer: attempts one after the other, or two at once, until one may be passed on. The first token is the last
//! moment to change one's mind: after it another backend's words would be mixed in. Never touches the client's side.

use std::sync::Arc;

use super::attempt::{AttemptRun, Failed, Step};
use super::upstream_error::{self, Race, rejection, retry_after};
use super::upstream_request::UpstreamRequest;
use super::upstream_response::UpstreamResponse;
use crate::config::settings::{Failover, Target};
use crate::policy::failover::{self, Choice, Plan, Room, Stage};
use crate::proxy::endpoints::endpoint::Member;
use crate::proxy::endpoints::endpoint_pool::EndpointPool;
use crate::proxy::endpoints::lease::Lease;
use crate::proxy::endpoints::retry_budget::{Again, RouteLoad};
use crate::proxy::request::client_progress::Upload;
use crate::proxy::request::rejection::Rejection;
use crate::telemetry::event::AttemptEvent;
use crate::telemetry::ids;
use crate::telemetry::metrics::HedgeResult;
use crate::telemetry::record::{Cause, ErrorType};

/// Asks until an answer may be passed on.
///
/// # Errors
/// The rejection says which upstream failed last, and how.
pub(crate) async fn open(
    request: &UpstreamRequest<'_>,
    load: &Arc<RouteLoad>,
    mut upload: Upload,
) -> Result<Box<UpstreamResponse>, Rejection> {
    let plan = Plan::new(&request.routed.route, &request.routed.target, request.routed.canary_share());
    let mut opening =
        AttemptLoop { request, load, plan, tried: Vec::new(), again: None, raced: false, told: None, last: None };
    let mut opened = opening.run(&mut upload).await?;
    opened.upload = upload;
    Ok(opened)
}

/// The way to an answer.
struct AttemptLoop<'a> {
    request: &'a UpstreamRequest<'a>,
    load: &'a Arc<RouteLoad>,
    plan: Plan,
    /// The places asked so far: none is asked twice.
    tried: Vec<Arc<Member>>,
    /// Leave to send this request again, of the route's budget.
    again: Option<Again>,
    /// A kept connection was closed under this request once.
    raced: bool,
    /// The failed answer that tells most, and how much.
    told: Option<(u8, Box<UpstreamResponse>)>,
    /// The last failure, for our own words where no upstream had any.
    last: Option<Failed>,
}

impl<'a> AttemptLoop<'a> {
    async fn run(&mut self, upload: &mut Upload) -> Result<Box<UpstreamResponse>, Rejection> {
        let mut step = self.next(Cause::First);
        while let Some(next) = step {
            match self.attempt(next, upload).await {
                Ok(opened) => return Ok(opened),
                Err(failed) => step = self.after(*failed),
            }
        }
        self.give_up()
    }

    /// One attempt, or two where the first stays silent for too long and the route hedges.
    async fn attempt(&mut self, step: Step<'a>, upload: &mut Upload) -> Result<Box<UpstreamResponse>, Box<Failed>> {
        // An answer in one piece has no first token that could be late.
        let hedges = self.may_send_again() && !self.request.facts().answers_whole();
        let Some(patience) = self.request.routed.route.hedge_after.filter(|_| hedges) else {
            return AttemptRun::new(self.request, step).run(upload).await;
        };
        let member = Arc::clone(&step.ticket.member);
        let first = AttemptRun::new(self.request, step);
        let number = first.number();
        let mut first = Box::pin(first.run(upload));
        tokio::select! {
            biased;
            ended = &mut first => return ended,
            () = tokio::time::sleep(patience) => {}
        }
        let Some(step) = self.hedge() else { return first.await };
        let ended = self.race(first, number, step).await;
        if ended.as_ref().is_ok_and(|opened| opened.number != number) {
            // It took at least so long: without this a slow place would never be known to be slow.
            let now = self.request.shared.now();
            member.state().load.answered(patience, true, now);
        }
        ended
    }

    /// Two attempts at once: the first that may be passed on wins, and the other is broken off. One that fails leaves it to
    /// the other.
    async fn race<F>(
        &mut self,
        mut first: F,
        number: usize,
        step: Step<'a>,
    ) -> Result<Box<UpstreamResponse>, Box<Failed>>
    where
        F: Future<Output = Result<Box<UpstreamResponse>, Box<Failed>>> + Unpin,
    {
        let second = AttemptRun::new(self.request, step);
        let hedge = second.number();
        let mut none = None;
        let mut second = Box::pin(second.run(&mut none));
        let (ended, outrun) = tokio::select! {
            biased;
            ended = &mut first => match ended {
                Ok(opened) => (Ok(opened), Some(hedge)),
                Err(failed) => {
                    self.keep(*failed);
                    (second.await, None)
                }
            },
            ended = &mut second => match ended {
                Ok(opened) => (Ok(opened), Some(number)),
                Err(failed) => {
                    self.keep(*failed);
                    (first.await, None)
                }
            },
        };
        if let Some(loser) = outrun {
            self.request.attempts.tell(loser, &AttemptEvent::Outrun);
        }
        let result = match &ended {
            Ok(opened) if opened.number == hedge => HedgeResult::Won,
            Ok(_) => HedgeResult::Lost,
            Err(_) => HedgeResult::Failed,
        };
        self.request.shared.telemetry.metrics().hedged(&self.request.routed.route.name, result);
        ended
    }

    /// The second of two attempts at once, where the budget has room and there is another place.
    fn hedge(&mut self) -> Option<Step<'a>> {
        self.take_leave().then(|| self.next(Cause::Hedge)).flatten()
    }

    /// What comes after a failed attempt; `None`: nothing may.
    fn after(&mut self, failed: Failed) -> Option<Step<'a>> {
        let (stage, race, error) = (failed.stage, failed.race, failed.error);
        let nature = self.request.nature();
        self.keep(failed);
        let rule = self.request.routed.route.failover;
        let may = failover::may_replace(rule, nature, stage);
        let asks_again = match race {
            Race::None => false,
            Race::Unseen => nature.replayable,
            Race::Perhaps => nature.replayable && (may || self.request.is_idempotent()),
        };
        if asks_again && !self.raced {
            self.raced = true;
            return self.on_a_fresh_connection();
        }
        // The whole request's time is over.
        if error == ErrorType::TotalTimeout {
            return None;
        }
        if rule == Failover::Never && stage == Stage::Unsent {
            return self.elsewhere_at_the_same();
        }
        // What never went out costs the upstreams nothing: only what was sent is sent again within the budget.
        let may = may && (stage == Stage::Unsent || self.was_sent_to_the_lost() || self.take_leave());
        may.then(|| self.next(Cause::Failover)).flatten()
    }

    /// The place asked last has been taken out, and another is believed to answer: what was sent there goes where requests to
    /// it go by now, and nobody gets more work by that. So it costs no leave; nor does the one request that finds out whether
    /// a place is back.
    fn was_sent_to_the_lost(&self) -> bool {
        let now = self.request.shared.now();
        let is_lost = self.tried.last().is_some_and(|member| !member.state().health.is_up(now));
        is_lost && self.plan.next(|choice| self.room(choice)).is_some_and(|choice| self.room(choice) == Room::Up)
    }

    /// A kept connection was closed under the request: the same place is asked over a new one.
    fn on_a_fresh_connection(&mut self) -> Option<Step<'a>> {
        let (target, member) = (self.current()?, self.tried.last()?);
        let pool = self.pool(target)?;
        let ticket = Lease::take(pool, member, pool.now());
        Some(self.step(target, ticket, Cause::Failover, true))
    }

    /// Another address of the same upstream: reaching it is no failover.
    fn elsewhere_at_the_same(&mut self) -> Option<Step<'a>> {
        let target = self.current()?;
        let ticket = self.place(target)?;
        Some(self.step(target, ticket, Cause::Failover, false))
    }

    /// The next attempt by the plan.
    fn next(&mut self, cause: Cause) -> Option<Step<'a>> {
        let choice = self.plan.next(|choice| self.room(choice))?;
        self.plan.ask(choice);
        if self.plan.passes_over_assigned() {
            self.request.attempts.pass_over(self.request.routed.why_passed_over());
        }
        let target = self.target(choice)?;
        let ticket = self.place(target)?;
        Some(self.step(target, ticket, cause, false))
    }

    fn step(&self, target: &'a Target, ticket: Lease, cause: Cause, fresh: bool) -> Step<'a> {
        let (holds, another) = (self.holds(), self.another());
        Step { target, ticket, cause, holds, another, fresh, load: Some(self.load) }
    }

    fn place(&mut self, target: &Target) -> Option<Lease> {
        let wanted = self.request.wanted(target);
        let pool = self.pool(target)?;
        let ticket = pool.take(&self.tried, self.request.expects_stream(), ids::random(), wanted.as_ref())?;
        self.tried.push(Arc::clone(&ticket.member));
        Some(ticket)
    }

    /// Whether an answer is held back until its first token: another could still take its place.
    fn holds(&self) -> bool {
        let hedges = self.request.routed.route.hedge_after.is_some() && !self.request.facts().answers_whole();
        self.another() || hedges && self.may_send_again() && self.has_budget()
    }

    /// Whether another place can be asked, should the one that is asked now bring nothing.
    fn another(&self) -> bool {
        self.may_send_again() && self.has_budget() && self.plan.next(|choice| self.room(choice)).is_some()
    }

    fn has_budget(&self) -> bool {
        self.again.is_some() || self.load.has_budget(self.request.routed.route.retries.budget)
    }

    /// Whether this request may go out a second time at all.
    fn may_send_again(&self) -> bool {
        failover::may_replace(self.request.routed.route.failover, self.request.nature(), Stage::Sent)
    }

    fn take_leave(&mut self) -> bool {
        if self.again.is_none() {
            self.again = self.load.again(self.request.routed.route.retries.budget);
        }
        self.again.is_some()
    }

    fn room(&self, choice: Choice) -> Room {
        if !self.request.routed.in_service.takes(choice) {
            return Room::Exhausted;
        }
        self.target(choice).and_then(|target| self.pool(target)).map_or(Room::Exhausted, |pool| pool.room(&self.tried))
    }

    fn target(&self, choice: Choice) -> Option<&'a Target> {
        choice.of(&self.request.routed.route)
    }

    fn current(&self) -> Option<&'a Target> {
        self.plan.current().and_then(|choice| self.target(choice))
    }

    fn pool(&self, target: &Target) -> Option<&'a Arc<EndpointPool>> {
        self.request.generation.pools.get(&*target.upstream.name)
    }

    /// Remembers a failure: the answer that tells most is kept for the client.
    fn keep(&mut self, mut failed: Failed) {
        if let Some(answer) = failed.answer.take() {
            let tells = failover::tells(answer.head.status.as_u16(), retry_after(&answer.head).is_some());
            if self.told.as_ref().is_none_or(|(most, _)| tells > *most) {
                self.told = Some((tells, answer));
            }
        }
        self.last = Some(failed);
    }

    /// Nobody is left to ask.
    fn give_up(&mut self) -> Result<Box<UpstreamResponse>, Rejection> {
        if let Some((_, answer)) = self.told.take() {
            return Ok(answer);
        }
        Err(match &self.last {
            Some(last) => rejection(last.error, last.cause.as_deref(), &last.upstream, &last.endpoint),
            None => upstream_error::nobody_to_ask(self.request.routed),
        })
    }
}
