//! Where a request goes: route, target, endpoints, and the times it is given.

use std::sync::Arc;

use pingora::http::RequestHeader;

use super::caller::Caller;
use super::rejection::Rejection;
use crate::config::settings::{Route, Target, Timeouts};
use crate::llm::RequestFacts;
use crate::llm::request::contents::Contents;
use crate::llm::token_count::PromptSize;
use crate::policy::cohort;
use crate::policy::routing::{self, BodyFacts, Needs, RequestHead};
use crate::proxy::limits::count_prompt;
use crate::proxy::process::canary_sample::Assigned;
use crate::proxy::process::in_service::InService;
use crate::proxy::process::request_body::{Admitted, Content};
use crate::proxy::process::state::Generation;
use crate::proxy::process::usage::vocabulary_of;
use crate::telemetry::event::PassedOver;
use crate::telemetry::record::ErrorType;

/// A request that has a place to go.
pub(crate) struct Routed {
    pub(crate) route: Arc<Route>,
    pub(crate) target: Target,
    /// Where the route has conditions on what a request is: the target whose price its cost is compared with.
    pub(crate) first: Option<Box<Target>>,
    pub(crate) limits: Timeouts,
    /// Its side of the comparison, where the route has a canary.
    pub(crate) assigned: Option<Assigned>,
    /// Which of the route's places may be asked.
    pub(crate) in_service: Arc<InService>,
}

impl Routed {
    /// The share of the route's canary, in percent.
    pub(crate) fn canary_share(&self) -> Option<u8> {
        self.assigned.as_ref().map(|assigned| assigned.rollout.draw().share)
    }
}

impl Routed {
    /// The target of the route that has this name; the one that the request was assigned to, if none has.
    pub(crate) fn target_named(&self, name: &str) -> &Target {
        let mut all = self.route.targets.iter().chain(&self.route.fallback);
        all.find(|target| &*target.name == name).unwrap_or(&self.target)
    }

    /// Why another was asked than the target that the request was assigned to.
    pub(crate) fn why_passed_over(&self) -> PassedOver {
        let at = self.route.targets.iter().position(|target| target.name == self.target.name);
        let takes = at.is_none_or(|at| self.in_service.target(at));
        if takes { PassedOver::Down } else { PassedOver::TakenOut }
    }
}

/// What has to be known of the body of a request with this head before it can be routed.
pub(crate) fn needs(generation: &Generation, head: &RequestHeader, caller: &Caller) -> Needs {
    with_head(head, caller, UNREAD, |head| routing::needs(&generation.settings.routes, head))
}

/// The route that takes a request with this head whatever its body says; `None`: none does, or the body decides.
pub(crate) fn route_of_head<'g>(
    generation: &'g Generation,
    head: &RequestHeader,
    caller: &Caller,
) -> Option<&'g Arc<Route>> {
    with_head(head, caller, UNREAD, |head| routing::pick_by_head(&generation.settings.routes, head))
}

/// Nothing is known of the body: its model, and the rest.
const UNREAD: (Option<&str>, BodyFacts) = (
    None,
    BodyFacts { streams: false, contents: Contents { tools: false, images: false, audio: false }, prompt: None },
);

fn with_head<T>(
    head: &RequestHeader,
    caller: &Caller,
    (model, body): (Option<&str>, BodyFacts),
    ask: impl FnOnce(&RequestHead<'_>) -> T,
) -> T {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    ask(&RequestHead {
        method: head.method.as_str(),
        path: head.uri.path(),
        header: &header,
        identity: &caller.identity,
        model,
        body,
    })
}

/// Looks into a body as far as routes ask.
pub(crate) async fn look_into(admitted: &Admitted, needs: Needs) -> BodyFacts {
    let facts = &admitted.facts;
    let known = BodyFacts { streams: facts.asks_for_stream(), ..BodyFacts::default() };
    match &admitted.content {
        Content::Unknown => known,
        Content::Form { tokens, .. } => BodyFacts {
            contents: Contents::of_form(facts.operation),
            prompt: Some(PromptSize { tokens: *tokens, counted: false }),
            ..known
        },
        Content::Json { text, .. } => {
            if needs.prompt && facts.is_llm() {
                vocabulary_of(facts.model.as_deref()).await;
            }
            let (contents, prompt) = count_prompt::measure(facts, text, needs.contents, needs.prompt).await;
            BodyFacts { contents, prompt, ..known }
        }
    }
}

/// Finds the route and the target of a request, of whose body so much is known. `roll` is a random number, for callers whom
/// nothing keeps together.
pub(crate) fn route(
    generation: &Generation,
    head: &RequestHeader,
    (facts, body): (&RequestFacts, BodyFacts),
    caller: &Caller,
    roll: u64,
) -> Result<Routed, Rejection> {
    let routes = &generation.settings.routes;
    let picked = with_head(head, caller, (facts.model.as_deref(), body), |head| {
        let route = routing::pick(routes, head)?;
        let first = route.conditions.as_ref().and_then(|_| routing::first_target(routes, route, head));
        Some((route, first.map(|first| Box::new(first.clone()))))
    });
    let Some((route, first)) = picked else { return Err(no_route(generation, head)) };
    let Some(in_service) = generation.in_service.get(&route.name).cloned() else {
        // Every route has its entry.
        return Err(Rejection::internal());
    };
    // A draw hashes twice and more: only where there is something to draw.
    let (target, assigned) = match routing::only_target(route) {
        Some(only) => (only, None),
        None => draw(generation, route, &in_service, caller, roll)?,
    };
    Ok(Routed { route: Arc::clone(route), target: target.clone(), first, limits: route.timeouts, assigned, in_service })
}

/// Shares out the requests of a route that has several targets.
fn draw<'a>(
    generation: &Generation,
    route: &'a Route,
    in_service: &InService,
    caller: &Caller,
    roll: u64,
) -> Result<(&'a Target, Option<Assigned>), Rejection> {
    let unit = cohort::unit(route.sticky, &caller.identity, caller.address.map(|address| address.ip()), roll);
    let rollout = generation.rollouts.get(&route.name);
    // Once: a decision may come at any moment, and the epoch must be that of the share.
    let draw = rollout.map(|rollout| rollout.draw());
    let share = draw.map(|draw| draw.share);
    let target = routing::target(route, share, unit, |at| in_service.target(at))
        // All are out of service: a fallback may answer, or nobody.
        .or_else(|| routing::target(route, share, unit, |_| true));
    let Some(target) = target else {
        // Only where all weights are zero, which no checked route has.
        return Err(Rejection::internal());
    };
    let assigned = rollout.zip(draw).map(|(rollout, draw)| Assigned {
        rollout: Arc::clone(rollout),
        sample: rollout.assign(&target.name, unit, draw),
        counts: in_service.holds_canary(route).is_none(),
    });
    Ok((target, assigned))
}

fn no_route(generation: &Generation, head: &RequestHeader) -> Rejection {
    /// Patterns named in the message.
    const SHOWN: usize = 5;
    let patterns: Vec<&str> =
        generation.settings.routes.iter().take(SHOWN).map(|route| route.path.0.source.as_str()).collect();
    let path: String = head.uri.path().chars().take(200).collect();
    Rejection::refused(
        404,
        ErrorType::NoRoute,
        format!("No route for {} {path}. Configured paths: {}.", head.method, patterns.join(", ")),
    )
}
