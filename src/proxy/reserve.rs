//! Reserves what a request may take of the limits of its route, and settles what it took.

use std::sync::Arc;
use std::time::Duration;

use super::admit::{Admitted, Content, RequestBody};
use super::counting::prompt_tokens;
use super::exchange::Visit;
use super::limiter::{Hold, Mode};
use super::reject::Rejection;
use super::route::Routed;
use super::settle::Flight;
use super::usage::vocabulary_of;
use crate::config::limits::Limit;
use crate::llm::price::{Cost, Price};
use crate::llm::websocket::Asked;
use crate::llm::{Reading, RequestFacts, Usage, UsageSource};
use crate::policy::limits::{self, Claim, Denial, Estimate, Reason, Request, Standing, Used};
use crate::telemetry::record::{ErrorType, LimitInfo, LimitVerdict, Outcome};

/// Bytes of a body that was not read, for a token.
const UNREAD_BYTES_PER_TOKEN: u64 = 4;

/// A stream tells of its tokens in steps: each costs a lock.
const STEP_TOKENS: u64 = 16;

/// Most seconds by which `Retry-After` is spread, and its greatest value: those who are refused together should not come
/// back together.
const JITTER_S: u64 = 3;
const RETRY_AFTER_MAX_S: u64 = 24 * 3600;

/// Takes what the request may need of every limit of its route, or of none.
///
/// # Errors
/// The refusal, in the words of the limit.
pub(super) async fn reserve(
    visit: &Visit<'_>,
    flight: &mut Flight<'_>,
    admitted: &Admitted,
    routed: &Routed,
) -> Result<Standing, Rejection> {
    let limits = &routed.route.limits;
    if limits.is_empty() {
        return Ok(Standing::default());
    }
    if admitted.facts.bad_max_tokens && limits.iter().any(|limit| limit.counts_tokens()) {
        let message = "`max_tokens` must be a whole number from 1 to 10,000,000: a limit counts on it.";
        return Err(Rejection::bad_request(message));
    }
    let mut ask = Ask::of(visit, admitted, routed);
    if let Some(budget) = limits.iter().find(|limit| limit.has_budget() && ask.lacks_price()) {
        flight.limited(ask.refused_by(budget, limits, flight.now()));
        return Err(ask.unpriced(budget));
    }
    let refused = ask.count(admitted, limits).await.err();
    let (claims, expected) = ask.claims(limits);
    let reserved = claims.iter().map(|claim| claim.tokens).max().unwrap_or(0);
    let prompt_counted = (reserved > 0).then_some(ask.counted.is_some());
    let before = flight.now();
    let decided = match refused {
        Some(denial) => Err(denial),
        None => visit.shared.limiter.admit(claims).await,
    };
    // Memory answers at once, and what it takes is our own.
    let is_shared = visit.shared.limiter.mode() != Mode::Memory;
    let waited = if is_shared { flight.now().saturating_sub(before) } else { Duration::ZERO };
    let told = |verdict, mode: Mode, standing: &Standing| LimitInfo {
        at: flight.now(),
        verdict,
        mode: mode.as_str(),
        names: limits.iter().map(|limit| Arc::clone(&limit.name)).collect(),
        waited,
        reserved,
        prompt_counted,
        used: 0,
        remaining: standing.tokens.map(|tokens| tokens.remaining),
        cut: false,
    };
    match decided {
        Ok((hold, standing)) => {
            let info = told(LimitVerdict::Admitted, hold.mode(), &standing);
            flight.limited(info);
            flight.reserved(Reservation::new(hold, expected, &ask));
            Ok(standing)
        }
        Err(denial) => {
            let refusing = LimitVerdict::Denied { limit: Arc::clone(&denial.limit), reason: denial.reason.as_str() };
            let info = told(refusing, visit.shared.limiter.mode(), &denial.standing);
            flight.limited(info);
            Err(refusal(&denial))
        }
    }
}

/// What a limit says of a response that it refuses.
pub(super) struct Refused {
    pub(super) info: LimitInfo,
    pub(super) message: String,
}

/// Takes what one response on a WebSocket may need of each of `limits`, or of none. `at` is the time on the connection's clock.
///
/// # Errors
/// The refusal, in the words of the limit.
pub(super) async fn reserve_response(
    visit: &Visit<'_>,
    routed: &Routed,
    limits: &[Arc<Limit>],
    asked: &Asked,
    at: Duration,
) -> Result<(Reservation, LimitInfo), Refused> {
    let (facts, route) = (&asked.facts, &*routed.route.name);
    let price = Ask::price(visit, routed, facts);
    let ask = Ask { visit, route, facts, body_bytes: asked.bytes, counted: Some(asked.prompt), price };
    if let Some(budget) = limits.iter().find(|limit| limit.has_budget() && ask.lacks_price()) {
        let info = ask.refused_by(budget, limits, at);
        return Err(Refused { info, message: ask.unpriced(budget).message.into_owned() });
    }
    let (claims, expected) = ask.claims(limits);
    let reserved = claims.iter().map(|claim| claim.tokens).max().unwrap_or(0);
    let told = |verdict, mode: Mode, standing: &Standing| LimitInfo {
        at,
        verdict,
        mode: mode.as_str(),
        names: limits.iter().map(|limit| Arc::clone(&limit.name)).collect(),
        waited: Duration::ZERO,
        reserved,
        prompt_counted: None,
        used: 0,
        remaining: standing.tokens.map(|tokens| tokens.remaining),
        cut: false,
    };
    match visit.shared.limiter.admit(claims).await {
        Ok((hold, standing)) => {
            let info = told(LimitVerdict::Admitted, hold.mode(), &standing);
            Ok((Reservation::new(hold, expected, &ask), info))
        }
        Err(denial) => {
            let verdict = LimitVerdict::Denied { limit: Arc::clone(&denial.limit), reason: denial.reason.as_str() };
            let info = told(verdict, visit.shared.limiter.mode(), &denial.standing);
            Err(Refused { info, message: denial.to_string() })
        }
    }
}

/// What is known of a request when it is reserved for.
struct Ask<'a> {
    visit: &'a Visit<'a>,
    route: &'a str,
    facts: &'a Arc<RequestFacts>,
    body_bytes: u64,
    /// Prompt tokens, where a tokenizer could count them.
    counted: Option<u64>,
    price: Option<Price>,
}

impl<'a> Ask<'a> {
    fn of(visit: &'a Visit<'a>, admitted: &'a Admitted, routed: &'a Routed) -> Self {
        let body_bytes = match (&admitted.content, &admitted.body) {
            (Content::Json(text), _) => text.len() as u64,
            (_, RequestBody::Streamed { length, .. }) => length.unwrap_or(0),
            _ => 0,
        };
        let facts = &admitted.facts;
        let counted = match &admitted.content {
            Content::Form { tokens, .. } => Some(*tokens),
            _ => None,
        };
        let price = Self::price(visit, routed, facts);
        Self { visit, route: &routed.route.name, facts, body_bytes, counted, price }
    }

    /// Counts the prompt, where a limit asks for it and can still admit the request.
    ///
    /// # Errors
    /// The refusal, whatever the prompt is: whoever is refused anyway costs no count.
    async fn count(&mut self, admitted: &Admitted, limits: &[Arc<Limit>]) -> Result<(), Box<Denial>> {
        let Content::Json(text) = &admitted.content else { return Ok(()) };
        let Some(dialect) = self.facts.dialect.filter(|_| limits.iter().any(|limit| limit.counts_tokens())) else {
            return Ok(());
        };
        if let Some(denial) = self.refusal_of_any_prompt(limits) {
            return Err(denial);
        }
        let model = self.facts.model.as_deref();
        if self.facts.is_llm() {
            vocabulary_of(model).await;
        }
        self.counted = prompt_tokens(dialect, model, text).await;
        Ok(())
    }

    /// Why the request would be refused if its prompt were nothing.
    fn refusal_of_any_prompt(&mut self, limits: &[Arc<Limit>]) -> Option<Box<Denial>> {
        let limiter = &self.visit.shared.limiter;
        self.counted = Some(0);
        let (least, _) = self.claims(limits);
        self.counted = None;
        let least = limiter.refusal(least)?;
        // The client is told of its whole request, by its bytes; these alone do not make it one that never fits.
        let (about, _) = self.claims(limits);
        let told = limiter.refusal(about).filter(|denial| !matches!(denial.reason, Reason::TooLarge { .. }));
        Some(told.unwrap_or(least))
    }

    fn price(visit: &Visit<'_>, routed: &Routed, facts: &RequestFacts) -> Option<Price> {
        let target = &routed.target;
        let models = [target.model.as_deref(), facts.model.as_deref()];
        visit.settings().prices.find(target.upstream.provider.as_deref(), models).map(|(price, _)| price)
    }

    /// Whether nobody knows what the request will cost.
    fn lacks_price(&self) -> bool {
        self.facts.is_llm() && self.price.is_none()
    }

    /// What is told of a request that `budget` cannot count.
    fn refused_by(&self, budget: &Limit, limits: &[Arc<Limit>], at: Duration) -> LimitInfo {
        LimitInfo {
            at,
            verdict: LimitVerdict::Denied { limit: Arc::clone(&budget.name), reason: "no_price" },
            mode: self.visit.shared.limiter.mode().as_str(),
            names: limits.iter().map(|limit| Arc::clone(&limit.name)).collect(),
            waited: Duration::ZERO,
            reserved: 0,
            prompt_counted: None,
            used: 0,
            remaining: None,
            cut: false,
        }
    }

    fn unpriced(&self, budget: &Limit) -> Rejection {
        let model = self.facts.model.as_deref().map_or("no model".to_owned(), |model| format!("the model `{model}`"));
        let message = format!(
            "The request names {model}, whose price is not known, and the limit `{}` counts dollars. Ask for another model, \
             or have a [[price]] added for it.",
            budget.name
        );
        Rejection::refused(403, ErrorType::Forbidden, message)
    }

    /// The claims, and what is expected of each.
    fn claims(&self, limits: &[Arc<Limit>]) -> (Vec<Claim>, Expected) {
        let mut expected: Option<Expected> = None;
        let claim = |limit: &Arc<Limit>| {
            let caller = &self.visit.caller;
            let address = caller.address.map(|address| address.ip());
            let holder = limits::holder(limit.key, &caller.identity, address, self.route);
            let estimate = self.estimate(limit, &holder);
            if let Some(Estimate { prompt, usual_output, .. }) = estimate {
                // What is charged is the same under each limit, and within what each holds.
                let least = expected.map_or(usual_output, |expected| expected.usual_output.min(usual_output));
                expected = Some(Expected { prompt, usual_output: least });
            }
            let tokens = estimate.filter(|_| limit.tokens.is_some()).map_or(0, |estimate| estimate.total());
            Claim { limit: Arc::clone(limit), holder, tokens, cost: self.cost(estimate) }
        };
        let claims = limits.iter().map(claim).collect();
        (claims, expected.unwrap_or_default())
    }

    /// What the request may cost, where its model has a price.
    fn cost(&self, estimate: Option<Estimate>) -> u64 {
        let (Some(price), Some(estimate)) = (&self.price, estimate) else { return 0 };
        let usage = Usage { input: Some(estimate.prompt), output: Some(estimate.output), ..Usage::default() };
        price.cost(&usage).nano_dollars()
    }

    /// Only LLM requests take tokens.
    fn estimate(&self, limit: &Limit, holder: &str) -> Option<Estimate> {
        if !self.facts.is_llm() {
            return None;
        }
        let request = Request {
            model: self.facts.model.as_deref(),
            holder,
            body_bytes: self.body_bytes,
            counted: self.counted,
            max_tokens: self.facts.max_tokens,
            answers: self.facts.answers,
        };
        self.visit.shared.limiter.estimate(&request, limit)
    }
}

/// Tokens that a request is expected to take.
#[derive(Debug, Clone, Copy, Default)]
struct Expected {
    prompt: u64,
    /// As [`Estimate::usual_output`]; of several limits the least.
    usual_output: u64,
}

/// What one request holds of its limits. Dropping it settles: after a normal end, a panic or an abort alike.
pub(super) struct Reservation {
    hold: Hold,
    /// Prompt tokens, as estimated.
    prompt: u64,
    body_bytes: u64,
    model: Option<Arc<str>>,
    /// Where the answer comes in one piece: what such answers take, at most what is held. Nothing else tells of one whose client
    /// went before it came.
    whole_output: Option<u64>,
    /// The request was sent to an upstream.
    asked: bool,
    /// Tokens that were seen to flow.
    generated: u64,
    usage: Usage,
    /// The upstream itself said all of `usage`.
    reported: bool,
    /// The answer was an LLM's.
    is_llm: bool,
    /// What `usage` cost.
    cost: Option<Cost>,
    /// What attempts cost that were outrun.
    outrun: Cost,
    price: Option<Price>,
    outcome: Outcome,
}

impl Reservation {
    fn new(hold: Hold, held: Expected, ask: &Ask<'_>) -> Self {
        Self {
            hold,
            prompt: held.prompt,
            // Embeddings have no output.
            whole_output: (ask.facts.answers_whole() && ask.facts.operation != Some("embeddings"))
                .then_some(held.usual_output),
            body_bytes: ask.body_bytes,
            model: ask.facts.model.as_deref().map(Arc::from),
            asked: false,
            generated: 0,
            usage: Usage::default(),
            reported: false,
            is_llm: false,
            cost: None,
            outrun: Cost::ZERO,
            price: ask.price,
            outcome: Outcome::InternalError,
        }
    }

    /// The request is on its way to an upstream.
    pub(super) fn asked(&mut self) {
        self.asked = true;
    }

    /// So many tokens have flowed by now. Tells whether the stream must be cut.
    pub(super) fn generated(&mut self, tokens: u64) -> bool {
        self.generated = self.generated.max(tokens);
        let told = self.hold.told();
        let used = Used { tokens: self.prompt + self.generated, cost: self.price_of(self.prompt, self.generated) };
        used.tokens >= told.tokens + STEP_TOKENS && self.hold.report(used, false)
    }

    /// What the answer said that it took.
    pub(super) fn read(&mut self, reading: &Reading, cost: Option<Cost>) {
        self.usage = reading.usage;
        self.reported = reading.usage_source == UsageSource::Reported && reading.usage.output.is_some();
        self.cost = cost;
        self.is_llm = true;
    }

    /// So many bytes came of the request's body. Where nothing of it was read, its size is all that is known of the prompt
    /// of what turned out to be an LLM's answer.
    pub(super) fn received(&mut self, bytes: u64) {
        if self.is_llm && self.prompt == 0 {
            self.prompt = bytes / UNREAD_BYTES_PER_TOKEN;
        }
    }

    /// Attempts that were outrun cost so much. The caller's budget pays it, as the bill will have it; of its tokens a minute
    /// they take nothing: that was asked twice was not its wish.
    pub(super) fn outrun(&mut self, cost: Cost) {
        self.outrun = cost;
    }

    pub(super) fn ended(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// Ends the hold; tells how many tokens the request is charged with.
    pub(super) fn settle(self) -> u64 {
        self.charge().tokens
    }

    /// What the request is charged with.
    fn charge(&self) -> Used {
        if let Some(output) = self.lost_output() {
            let output = output.max(self.generated);
            let cost = self.price_of(self.prompt, output).max(self.cost.map_or(0, Cost::nano_dollars));
            let tokens = self.prompt.saturating_add(output);
            return Used { tokens, cost: cost.saturating_add(self.outrun.nano_dollars()) };
        }
        let tokens = match (self.usage.input, self.usage.output) {
            // Usage that came on the way tells only of what was before it, unless the answer is whole.
            (Some(input), Some(output)) if self.outcome == Outcome::Completed => input.saturating_add(output),
            (input, output) if self.generated > 0 => {
                input.unwrap_or(self.prompt).saturating_add(output.unwrap_or(0).max(self.generated))
            }
            (Some(input), output) => input.saturating_add(output.unwrap_or(0)),
            // Nothing was generated: the prompt was read for nothing where the client went, or the upstream fell silent.
            _ if self.asked && wasted(self.outcome) => self.prompt,
            _ => 0,
        };
        let cost = match self.cost {
            Some(cost) => cost.nano_dollars(),
            None if tokens > 0 => self.price_of(self.prompt, self.generated),
            None => 0,
        };
        Used { tokens, cost: cost.saturating_add(self.outrun.nano_dollars()) }
    }

    /// What a whole answer is taken for whose client went before its usage came: its upstream may well have made all of it.
    fn lost_output(&self) -> Option<u64> {
        let is_lost = self.asked && self.outcome == Outcome::ClientCancelled && !self.reported;
        self.whole_output.filter(|_| is_lost)
    }

    fn price_of(&self, input: u64, output: u64) -> u64 {
        let usage = Usage { input: Some(input), output: Some(output), ..Usage::default() };
        self.price.map_or(0, |price| price.cost(&usage).nano_dollars())
    }

    fn learn(&self) {
        let (Some(model), Some(output)) = (&self.model, self.usage.output) else { return };
        let is_answer = self.generated > 0 || (self.whole_output.is_some() && output > 0);
        if self.outcome == Outcome::Completed && is_answer {
            for claim in self.hold.claims().iter().filter(|claim| claim.limit.tokens.is_some()) {
                self.hold.limiter().learn(&claim.holder, model, self.body_bytes, self.usage.input, output);
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let charge = self.charge();
        self.hold.report(charge, true);
        self.learn();
    }
}

/// Whether a request that ended so has cost its upstream a prompt, though no token came of it.
fn wasted(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::ClientCancelled | Outcome::Timeout | Outcome::Stalled | Outcome::Truncated)
}

fn refusal(denial: &Denial) -> Rejection {
    let message = denial.to_string();
    let (status, error) = match denial.reason {
        Reason::TooLarge { .. } => (413, ErrorType::TooLarge),
        Reason::Store => (503, ErrorType::LimitStore),
        _ => (429, ErrorType::RateLimited),
    };
    let retry_after = denial.retry_after.map(|wait| retry_after_s(wait, crate::telemetry::ids::random()));
    Rejection { retry_after, standing: denial.standing, ..Rejection::refused(status, error, message) }
}

/// Whole seconds, never less than the wait.
fn retry_after_s(wait: Duration, random: u64) -> u32 {
    let least = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).clamp(1, RETRY_AFTER_MAX_S);
    // A tenth of the wait, so that short ones stay short.
    let spread = (least / 10).min(JITTER_S);
    u32::try_from(least + random % (spread + 1)).unwrap_or(u32::MAX)
}
