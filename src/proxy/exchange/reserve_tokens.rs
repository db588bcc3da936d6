//! Reserves what a request may take of the limits of its route.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use pingora::http::RequestHeader;

use crate::config::limits::Limit;
use crate::llm::price::{Cost, Price};
use crate::llm::request::Unseen;
use crate::llm::websocket::Asked;
use crate::llm::{Dialect, RequestFacts, Usage};
use crate::policy::limits::{self, Claim, Denial, Estimate, Place, Reason, Request, Standing, Used};
use crate::proxy::limits::count_prompt::prompt_tokens;
use crate::proxy::limits::limiter::Mode;
use crate::proxy::limits::reservation::{Expected, Reservation};
use crate::proxy::process::request_body::{Admitted, Content, RequestBody};
use crate::proxy::process::usage::vocabulary_of;
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::context::RequestContext;
use crate::proxy::request::rejection::Rejection;
use crate::proxy::request::route::Routed;
use crate::telemetry::event::Event;
use crate::telemetry::record::{ErrorType, LimitInfo, LimitVerdict};

/// Most seconds by which `Retry-After` is spread, and its greatest value: those who are refused together should not come
/// back together.
const JITTER_S: u64 = 3;
const RETRY_AFTER_MAX_S: u64 = 24 * 3600;

/// Takes what the request may need of every limit of its route, or of none.
///
/// # Errors
/// The refusal, in the words of the limit.
pub(crate) async fn reserve(
    context: &RequestContext<'_>,
    flight: &mut Flight<'_>,
    admitted: &Admitted,
    routed: &Routed,
    head: &RequestHeader,
) -> Result<Standing, Rejection> {
    let limits = &routed.route.limits;
    if limits.is_empty() {
        return Ok(Standing::default());
    }
    if admitted.facts.bad_count && limits.iter().any(|limit| limit.counts_tokens()) {
        let message =
            "`max_tokens` must be a whole number from 1 to 10,000,000, and `n` a count: a limit counts on them.";
        return Err(Rejection::bad_request(message));
    }
    let mut ask = Ask::of(context, admitted, routed, head);
    let unseen = ask.facts.unseen.filter(|_| head.method == Method::POST || head.headers.contains_key("upgrade"));
    if let Some((unseen, counting)) = unseen.zip(limits.iter().find(|limit| limit.counts_tokens())) {
        let decision = if unseen.elsewhere { "elsewhere" } else { "batch" };
        flight.tell(Event::Limited(ask.refused_by(counting, decision, limits, flight.now())));
        return Err(uncountable(counting, unseen));
    }
    if let Some(budget) = limits.iter().find(|limit| limit.has_budget() && ask.lacks_price()) {
        flight.tell(Event::Limited(ask.refused_by(budget, "no_price", limits, flight.now())));
        return Err(ask.unpriced(budget));
    }
    let countable = ask.countable(admitted, limits);
    let before = flight.now();
    let refused = if countable.is_some() { ask.refusal_of_any_prompt(limits).await } else { None };
    let looked = flight.now().saturating_sub(before);
    if let Some((dialect, text)) = countable.filter(|_| refused.is_none()) {
        ask.count(dialect, text).await;
    }
    let (info, taken) = ask.take(limits, refused, || flight.now()).await;
    // Memory answers at once, and what it takes is our own.
    let waited = if info.mode == Mode::Memory.as_str() { Duration::ZERO } else { looked + info.waited };
    let prompt_counted = (info.reserved > 0 && ask.facts.is_llm()).then_some(ask.counted.is_some());
    flight.tell(Event::Limited(LimitInfo { waited, prompt_counted, ..info }));
    let (reservation, standing) = taken.map_err(|denial| refusal(&denial))?;
    flight.reserved(reservation);
    Ok(standing)
}

/// Books that one of `limits` refuses a request of which nothing but its head is known; `waited`: for the shared store.
pub(super) fn deny(
    context: &RequestContext<'_>,
    flight: &mut Flight<'_>,
    limits: &[Arc<Limit>],
    denial: &Denial,
    facts: &RequestFacts,
    waited: Duration,
) -> Rejection {
    let limiter = &context.shared.limiter;
    let mode = limiter.mode();
    flight.tell(Event::Limited(LimitInfo {
        waited: if mode == Mode::Memory { Duration::ZERO } else { waited },
        prompt_counted: (facts.is_llm() && limits.iter().any(|limit| limit.counts_tokens())).then_some(false),
        ..decision(flight.now(), denied(denial), mode, limits, &denial.standing)
    }));
    limiter.refused(limits, denial);
    refusal(denial)
}

/// Takes what one response on a WebSocket may need of each of `limits`, or of none. `at` is the time on the connection's clock.
/// Returns what is to be told of it, and the refusal in the words of the limit.
pub(crate) async fn reserve_response(
    context: &RequestContext<'_>,
    routed: &Routed,
    limits: &[Arc<Limit>],
    asked: &Asked,
    at: Duration,
) -> (LimitInfo, Result<Reservation, Rejection>) {
    let (facts, route) = (&asked.facts, &*routed.route.name);
    let price = Ask::price(context, routed, facts);
    let (body_bytes, counted) = (asked.bytes, Some(asked.prompt));
    let ask = Ask { context, route, facts, body_bytes, counted, price, unforeseen: None, runs: false };
    if let Some(budget) = limits.iter().find(|limit| limit.has_budget() && ask.lacks_price()) {
        return (ask.refused_by(budget, "no_price", limits, at), Err(ask.unpriced(budget)));
    }
    let (info, taken) = ask.take(limits, None, || at).await;
    (info, taken.map(|(reservation, _)| reservation).map_err(|denial| refusal(&denial)))
}

/// Charges what one response on a WebSocket took that nobody was asked about before.
pub(crate) fn charge_response(
    context: &RequestContext<'_>,
    routed: &Routed,
    limits: &[Arc<Limit>],
    facts: &Arc<RequestFacts>,
    (usage, cost): (&Usage, Option<Cost>),
) {
    if limits.is_empty() {
        return;
    }
    let ask = Ask {
        context,
        route: &routed.route.name,
        facts,
        body_bytes: 0,
        counted: Some(0),
        price: None,
        unforeseen: None,
        runs: false,
    };
    let tokens = usage.input.unwrap_or(0).saturating_add(usage.output.unwrap_or(0));
    let used = Used { tokens, cost: cost.map_or(0, Cost::nano_dollars) };
    context.shared.limiter.charge(ask.claims(limits).0, used);
}

/// What is known of a request when it is reserved for.
struct Ask<'a> {
    context: &'a RequestContext<'a>,
    route: &'a str,
    facts: &'a Arc<RequestFacts>,
    body_bytes: u64,
    /// Prompt tokens, where a tokenizer could count them.
    counted: Option<u64>,
    price: Option<Price>,
    /// Where it goes, if its answer may be an LLM's though the request shows nothing of one.
    unforeseen: Option<Place>,
    /// It takes one of the places that limits have at one time: not so what only fetches an answer that may hold one already,
    /// nor a response on a connection that does.
    runs: bool,
}

impl<'a> Ask<'a> {
    fn of(context: &'a RequestContext<'a>, admitted: &'a Admitted, routed: &'a Routed, head: &RequestHeader) -> Self {
        let body_bytes = match (&admitted.content, &admitted.body) {
            (Content::Json { text, .. }, _) => text.len() as u64,
            (_, RequestBody::Streamed { length, .. }) => length.unwrap_or(0),
            _ => 0,
        };
        let facts = &admitted.facts;
        let counted = match &admitted.content {
            Content::Form { tokens, .. } => Some(*tokens),
            _ => None,
        };
        let price = Self::price(context, routed, facts);
        let has_body = !matches!(admitted.body, RequestBody::None);
        let (route, method) = (&*routed.route.name, head.method.as_str());
        let counts = routed.route.limits.iter().any(|limit| limit.counts_tokens());
        let unforeseen = (counts && limits::is_unforeseen(facts, routed.route.kind, method, has_body))
            .then(|| Place::new(route, method, head.uri.path()));
        Self { context, route, facts, body_bytes, counted, price, unforeseen, runs: !facts.retrieves() }
    }

    /// The prompt, where a limit asks how long it is.
    fn countable<'t>(&self, admitted: &'t Admitted, limits: &[Arc<Limit>]) -> Option<(Dialect, &'t Bytes)> {
        let text = admitted.content.json()?;
        let dialect = self.facts.dialect.filter(|_| limits.iter().any(|limit| limit.counts_tokens()))?;
        Some((dialect, text))
    }

    async fn count(&mut self, dialect: Dialect, text: &Bytes) {
        let model = self.facts.model.as_deref();
        if self.facts.is_llm() {
            vocabulary_of(model).await;
        }
        self.counted = prompt_tokens(dialect, model, text).await;
    }

    /// Why the request would be refused if its prompt were nothing: whoever is refused anyway costs no count.
    async fn refusal_of_any_prompt(&mut self, limits: &[Arc<Limit>]) -> Option<Box<Denial>> {
        let limiter = &self.context.shared.limiter;
        self.counted = Some(0);
        let (least, _) = self.claims(limits);
        self.counted = None;
        let least = limiter.refusal(least).await?;
        // The client is told of its whole request, by its bytes; these alone do not make it one that never fits.
        let (about, _) = self.claims(limits);
        let told = limiter.refusal(about).await.filter(|denial| !matches!(denial.reason, Reason::TooLarge { .. }));
        Some(told.unwrap_or(least))
    }

    fn price(context: &RequestContext<'_>, routed: &Routed, facts: &RequestFacts) -> Option<Price> {
        let target = &routed.target;
        let models = [target.model.as_deref(), facts.model.as_deref()];
        context.settings().prices.find(target.upstream.provider.as_deref(), models).map(|(price, _)| price)
    }

    /// Whether nobody knows what the request will cost.
    fn lacks_price(&self) -> bool {
        self.facts.is_llm() && self.price.is_none()
    }

    /// What is told of a request that `limit` cannot count.
    fn refused_by(&self, limit: &Limit, reason: &'static str, limits: &[Arc<Limit>], at: Duration) -> LimitInfo {
        let verdict = LimitVerdict::Denied { limit: Arc::clone(&limit.name), reason };
        decision(at, verdict, self.context.shared.limiter.mode(), limits, &Standing::default())
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

    /// Takes what each of `limits` is asked for, or nothing where one refuses, or has `refused` already. Returns what is to be told of
    /// it too; `waited` is the time by `now` that it took.
    async fn take(
        &self,
        limits: &[Arc<Limit>],
        refused: Option<Box<Denial>>,
        now: impl Fn() -> Duration,
    ) -> (LimitInfo, Result<(Reservation, Standing), Box<Denial>>) {
        let limiter = &self.context.shared.limiter;
        let (claims, expected) = self.claims(limits);
        let reserved = claims.iter().map(|claim| claim.tokens).max().unwrap_or(0);
        let before = now();
        let decided = match refused {
            Some(denial) => Err(denial),
            None => limiter.admit(claims).await,
        };
        let at = now();
        let told = |verdict, mode, standing: &Standing| {
            let waited = at.saturating_sub(before);
            LimitInfo { waited, reserved, ..decision(at, verdict, mode, limits, standing) }
        };
        match decided {
            Ok((hold, standing)) => {
                let info = told(LimitVerdict::Admitted, hold.mode(), &standing);
                let model = Arc::from(self.subject());
                let reservation = Reservation::new(hold, expected, self.facts, model, self.body_bytes, self.price)
                    .unforeseen(self.unforeseen.clone());
                (info, Ok((reservation, standing)))
            }
            Err(denial) => {
                limiter.refused(limits, &denial);
                (told(denied(&denial), limiter.mode(), &denial.standing), Err(denial))
            }
        }
    }

    /// The claims, and what is expected of each.
    fn claims(&self, limits: &[Arc<Limit>]) -> (Vec<Claim>, Expected) {
        let mut expected: Option<Expected> = None;
        let claim = |limit: &Arc<Limit>| {
            let caller = &self.context.caller;
            let address = caller.address.map(|address| address.ip());
            let holder = limits::holder(limit.key, &caller.identity, address, self.route);
            let estimate = self.estimate(limit, &holder);
            if let Some(Estimate { prompt, usual_output, .. }) = estimate {
                // What is charged is the same under each limit, and within what each holds.
                let least = expected.map_or(usual_output, |expected| expected.usual_output.min(usual_output));
                expected = Some(Expected { prompt, usual_output: least });
            }
            let (tokens, cost) = match &self.unforeseen {
                None => (estimate.map_or(0, |estimate| estimate.total()), self.cost(estimate)),
                Some(place) => {
                    let Used { tokens, cost } = self.context.shared.limiter.expected(&holder, place);
                    // A guess refuses nobody for ever: what is larger than the burst passes when the bucket is empty.
                    (tokens.min(limit.token_limit().burst), cost)
                }
            };
            let tokens = if limit.tokens.is_some() { tokens } else { 0 };
            Claim {
                limit: Arc::clone(limit),
                holder,
                tokens,
                cost,
                unforeseen: self.unforeseen.is_some(),
                runs: self.runs,
            }
        };
        let claims = limits.iter().map(claim).collect();
        (claims, expected.unwrap_or_default())
    }

    /// What answers are compared by: their model, or the route where the request names none.
    fn subject(&self) -> &str {
        self.facts.model.as_deref().unwrap_or(self.route)
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
            model: Some(self.subject()),
            holder,
            body_bytes: self.body_bytes,
            counted: self.counted,
            max_tokens: self.facts.max_tokens,
            answers: self.facts.answers,
        };
        self.context.shared.limiter.estimate(&request, limit)
    }
}

/// What is told of a decision of `limits`, where nothing was reserved or waited for.
fn decision(at: Duration, verdict: LimitVerdict, mode: Mode, limits: &[Arc<Limit>], standing: &Standing) -> LimitInfo {
    LimitInfo {
        at,
        verdict,
        mode: mode.as_str(),
        names: limits.iter().map(|limit| Arc::clone(&limit.name)).collect(),
        waited: Duration::ZERO,
        reserved: 0,
        prompt_counted: None,
        used: 0,
        remaining: standing.tokens.map(|tokens| tokens.remaining),
        cut: false,
    }
}

fn denied(denial: &Denial) -> LimitVerdict {
    LimitVerdict::Denied { limit: Arc::clone(&denial.limit), reason: denial.reason.as_str() }
}

fn uncountable(limit: &Limit, unseen: Unseen) -> Rejection {
    let name = &limit.name;
    let message = if unseen.elsewhere {
        format!(
            "What is asked for here goes on past this proxy, and no answer tells what it takes: the limit `{name}` cannot count it. Have \
             such requests sent on by a route without limits on tokens and dollars."
        )
    } else {
        format!(
            "A batch, a training or an evaluation runs later, and no answer tells what it took: the limit `{name}` cannot count it. Send \
             a batch's requests one by one, or have such work sent on by a route without limits on tokens and dollars."
        )
    };
    Rejection::refused(403, ErrorType::Forbidden, message)
}

fn status_of(reason: Reason) -> (u16, ErrorType) {
    match reason {
        Reason::TooLarge { .. } => (413, ErrorType::TooLarge),
        Reason::Store => (503, ErrorType::LimitStore),
        Reason::Spent { .. } => (429, ErrorType::BudgetSpent),
        Reason::Tokens { .. }
        | Reason::Debt { .. }
        | Reason::Requests { .. }
        | Reason::Concurrent { .. }
        | Reason::Held { .. } => (429, ErrorType::RateLimited),
    }
}

fn refusal(denial: &Denial) -> Rejection {
    let message = denial.to_string();
    let (status, error) = status_of(denial.reason);
    let retry_after = denial.retry_after.map(|wait| retry_after_s(wait, crate::telemetry::ids::random()));
    Rejection { retry_after, standing: Box::new(denial.standing), ..Rejection::refused(status, error, message) }
}

/// Whole seconds, never less than the wait.
fn retry_after_s(wait: Duration, random: u64) -> u32 {
    let least = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).clamp(1, RETRY_AFTER_MAX_S);
    // A tenth of the wait, so that short ones stay short.
    let spread = (least / 10).min(JITTER_S);
    u32::try_from(least + random % (spread + 1)).unwrap_or(u32::MAX)
}
