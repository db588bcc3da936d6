//! Refuses a request before its body is read, where nothing that the body could say would let it pass: its route is known by its
//! head, and one of that route's limits takes nothing more of this caller, however little it asks for. Whoever is refused has no
//! body read and held for nothing.

use std::sync::Arc;

use pingora::http::RequestHeader;

use super::reserve_tokens;
use crate::config::limits::Limit;
use crate::config::settings::{Route, RouteKind};
use crate::llm::RequestFacts;
use crate::policy::limits::{self, Claim, Denial};
use crate::proxy::client::admit;
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::context::RequestContext;
use crate::proxy::request::rejection::Rejection;
use crate::proxy::request::route;
use crate::telemetry::event::Event;

/// A body of at most so many bytes is read before it is refused: it is here as soon as its head, and the connection can be kept. Of
/// one that is refused unread the rest would have to be read for nothing, or the client has to connect anew.
const SHORT: u64 = 64 << 10;

/// Refuses a request with a long body that has not been read, if it would be refused whatever its body is. Takes nothing.
///
/// # Errors
/// The refusal, in the words of the limit.
pub(super) async fn refuse(
    context: &RequestContext<'_>,
    flight: &mut Flight<'_>,
    head: &RequestHeader,
) -> Result<(), Rejection> {
    if is_short(head) {
        return Ok(());
    }
    let Some(route) =
        route::route_of_head(context.generation, head, &context.caller).filter(|route| !route.limits.is_empty())
    else {
        return Ok(());
    };
    let before = flight.now();
    let Some(mut denial) = refusal(context, route, true).await else { return Ok(()) };
    let mut facts = Arc::new(RequestFacts::read(admit::target(head), None));
    admit::learn_from_head(&mut facts, head, true, route.kind);
    if facts.retrieves() {
        // What fetches an answer takes no place and no token.
        let Some(still) = refusal(context, route, false).await else { return Ok(()) };
        denial = still;
    }
    let waited = flight.now().saturating_sub(before);
    flight.asks(&facts);
    flight.tell(Event::Routed { route: &route.name, target: None });
    Err(reserve_tokens::deny(context, flight, &route.limits, &denial, &facts, waited))
}

/// Whether the body is short, and nobody waits to be asked for it.
fn is_short(head: &RequestHeader) -> bool {
    admit::content_length(head).is_some_and(|length| length <= SHORT) && !head.headers.contains_key("expect")
}

/// Why the least that a request could ask for is refused; `runs`: it may have something made.
async fn refusal(context: &RequestContext<'_>, route: &Route, runs: bool) -> Option<Box<Denial>> {
    let caller = &context.caller;
    let address = caller.address.map(|address| address.ip());
    // Whatever brings a body is refused while the bucket is in debt, an LLM's request as what may turn out to be one.
    let unforeseen = runs && route.kind != RouteKind::Stream;
    let claim = |limit: &Arc<Limit>| {
        let holder = limits::holder(limit.key, &caller.identity, address, &route.name);
        Claim { unforeseen, runs, ..Claim::new(limit, holder) }
    };
    context.shared.limiter.refusal(route.limits.iter().map(claim).collect()).await
}
