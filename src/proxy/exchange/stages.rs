//! Walks one request through its stages, and acts on what each decides.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use http::StatusCode;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

use super::early_refusal;
use super::mirror;
use super::relay;
use super::reserve_tokens;
use super::websocket;
use crate::config::Settings;
use crate::config::identity::USER_HEADER;
use crate::config::settings::{RouteKind, Server};
use crate::llm::RequestFacts;
use crate::policy::cors::Decision;
use crate::policy::head_checks;
use crate::policy::hop_by_hop::nominated;
use crate::policy::routing::{BodyFacts, Needs};
use crate::proxy::client::admit;
use crate::proxy::client::client_side;
use crate::proxy::client::cors;
use crate::proxy::client::error_answer::{self, ReplyTo};
use crate::proxy::clock::Clock;
use crate::proxy::endpoints::retry_budget::RouteLoad;
use crate::proxy::process::concurrency::AddressPermit;
use crate::proxy::process::drain::DrainStage;
use crate::proxy::process::request_body::{Admitted, Content, RequestBody};
use crate::proxy::process::state::{Generation, Shared};
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::caller::{self, Caller};
use crate::proxy::request::client_progress::{ClientProgress, Upload};
use crate::proxy::request::context::RequestContext;
use crate::proxy::request::identity;
use crate::proxy::request::outcome::{Ending, Stop};
use crate::proxy::request::rejection::Rejection;
use crate::proxy::request::route::{self, Routed};
use crate::proxy::request::routed_request::RoutedRequest;
use crate::proxy::request::session as session_of;
use crate::proxy::upstream::attempt_loop;
use crate::proxy::upstream::upstream_request::UpstreamRequest;
use crate::proxy::upstream::upstream_response::UpstreamResponse;
use crate::telemetry::event::Event;
use crate::telemetry::ids;
use crate::telemetry::record::{ErrorType, Outcome, RequestInfo};

/// Serves one request. Whatever happens on the way, even a panic, it ends in one record.
pub(crate) async fn serve(shared: &Arc<Shared>, session: &mut ServerSession) -> Ending {
    let clock = Clock::start();
    let _in_flight = shared.drain.enter();
    let generation = shared.generation.load_full();
    let mut flight = Flight::begin(shared, &generation, clock, describe(session.req_header()));
    let contained = AssertUnwindSafe(walk(shared, &generation, session, &mut flight)).catch_unwind().await;
    match contained {
        Ok(ending) => ending,
        Err(_) => after_panic(session, &mut flight).await,
    }
}

async fn walk(
    shared: &Arc<Shared>,
    generation: &Arc<Generation>,
    session: &mut ServerSession,
    flight: &mut Flight<'_>,
) -> Ending {
    let settings = &generation.settings;
    session.set_write_timeout(Some(settings.server.write_timeout));
    // Before anything is read: what passes is what everyone after it sees, the backend included.
    let looked_over = look_over(session, settings);
    let mut context = RequestContext {
        shared,
        generation,
        caller: caller::identify(session, settings),
        cors: cors::decide(settings.cors.as_ref(), session.req_header()),
    };
    let Caller { request_id, trace, .. } = &context.caller;
    flight.tell(Event::Identified { request_id, trace: *trace, client: context.caller.client() });
    let staged = match looked_over {
        Ok(()) => stages(&mut context, session, flight).await,
        Err(rejection) => Err(rejection.into()),
    };
    let stop = match staged {
        Ok(ending) => return ending,
        Err(stop) => stop,
    };
    match stop {
        Stop::Reject(rejection) => {
            let dialect = RequestFacts::read(session.req_header().uri.path(), None).reads_errors_in();
            let to = ReplyTo { dialect, request_id: &context.caller.request_id, cors: &context.cors };
            error_answer::answer(session, flight, &to, &rejection).await
        }
        Stop::ClientGone => {
            flight.end(Outcome::ClientCancelled, Some(ErrorType::ClientGone));
            Ending::Dirty
        }
        Stop::Cut => {
            flight.end(Outcome::Stopped, Some(shared.drain.why_cut()));
            Ending::Dirty
        }
    }
}

async fn stages(
    context: &mut RequestContext<'_>,
    session: &mut ServerSession,
    flight: &mut Flight<'_>,
) -> Result<Ending, Stop> {
    let server = &context.generation.settings.server;
    if let Decision::Preflight(headers) = &context.cors {
        return Ok(cors::answer_preflight(session, flight, headers, &context.caller.request_id).await);
    }
    let Some(_place) = context.shared.streams.enter(server.max_streams) else {
        let message = "Too many requests are in progress. Try again in a second.";
        return Err(Rejection::overloaded(ErrorType::Overloaded, message).into());
    };
    let _share = place_of_address(context, session, server)?;
    if !context.caller.trusted {
        session.req_header_mut().remove_header(&mirror::HEADER);
    }
    let has_body = !session.is_body_done();
    identity::establish(context.shared, context.generation, session.req_header_mut(), has_body, &mut context.caller)?;
    flight.tell(Event::Authenticated(context.caller.client()));
    let context = &*context;
    let needs = match has_body || session.is_upgrade_req() {
        true => route::needs(context.generation, session.req_header(), &context.caller),
        false => Needs::default(),
    };
    if has_body && !session.is_upgrade_req() {
        early_refusal::refuse(context, flight, session.req_header()).await?;
    }
    let mut admitted = admit::admit(session, flight, server, context.shared.bodies.body(), needs.body).await?;
    if session.is_upgrade_req() {
        // What is asked for on a WebSocket is told by its messages.
        let asked = &session.req_header().uri;
        admitted.facts = Arc::new(RequestFacts::of_websocket(asked.path(), asked.query().unwrap_or_default()));
        (admitted.body, admitted.content) = (RequestBody::None, Content::Unknown);
    }
    if needs.body {
        admit::check_keys(&admitted.facts)?;
    }
    let body = match needs.contents || needs.prompt {
        true => Box::pin(route::look_into(&admitted, needs)).await,
        false => BodyFacts { streams: admitted.facts.asks_for_stream(), ..BodyFacts::default() },
    };
    let routed = choose_route(context, session, flight, &mut admitted, body, has_body)?;
    let _counted = context.shared.telemetry.metrics().in_flight(&routed.route.name);
    let standing = reserve_tokens::reserve(context, flight, &admitted, &routed, session.req_header()).await?;
    let (client, upload) = ClientProgress::new(&admitted.body);
    let request = RoutedRequest {
        context,
        admitted: &admitted,
        routed: &routed,
        standing,
        clock: flight.clock,
        upgrades: session.is_upgrade_req(),
        client,
    };
    forward(&request, session, flight, upload).await
}

/// Chooses the route and the target, and tells what the request asks for. Apart from the stages that wait, so that their task has no
/// room for what is only between two of them.
fn choose_route(
    context: &RequestContext<'_>,
    session: &ServerSession,
    flight: &mut Flight<'_>,
    admitted: &mut Admitted,
    body: BodyFacts,
    has_body: bool,
) -> Result<Routed, Rejection> {
    let known = (&*admitted.facts, body);
    let routed = route::route(context.generation, session.req_header(), known, &context.caller, ids::random());
    let kind = routed.as_ref().map_or(RouteKind::Auto, |routed| routed.route.kind);
    admit::learn_from_head(&mut admitted.facts, session.req_header(), has_body, kind);
    flight.asks(&admitted.facts);
    if context.settings().telemetry.capture_content {
        flight.prompt(admitted);
    }
    #[cfg(test)]
    super::panic_switch::panic_if_asked(session, "before the head");
    let routed = routed?;
    let target = Some((&routed.target.upstream.name, &routed.target.name));
    flight.tell(Event::Routed { route: &routed.route.name, target });
    flight.assigned(routed.assigned.clone(), &admitted.facts);
    flight.compares_cost_with(routed.first.clone());
    Ok(routed)
}

/// Where one connection carries many requests, an address is bound by what it asks, too.
fn place_of_address(
    context: &RequestContext<'_>,
    session: &ServerSession,
    server: &Server,
) -> Result<Option<AddressPermit>, Rejection> {
    let Some(peer) = context.caller.peer.filter(|_| session.is_http2() && !context.caller.trusted) else {
        return Ok(None);
    };
    let cap = server.share_of_address(server.max_streams);
    context.shared.streams_by_address.enter(peer.ip(), cap).map(Some).ok_or_else(|| {
        let message = "Too many requests from this address are in progress. Try again in a second; a proxy before many \
                       clients belongs into `server.trusted_proxies`, or have `server.address_share` raised.";
        Rejection::overloaded(ErrorType::Overloaded, message)
    })
}

/// Asks an upstream while the client's side is attended to, and passes its answer on.
async fn forward(
    request: &RoutedRequest<'_>,
    session: &mut ServerSession,
    flight: &mut Flight<'_>,
    upload: Upload,
) -> Result<Ending, Stop> {
    let Some(load) = request.generation.loads.get(&request.routed.route.name) else {
        // Built from the same settings: it cannot be missing.
        return Err(Rejection::internal().into());
    };
    let active = load.enter();
    // A stream lives for minutes, opening it for seconds: what only the opening needs is boxed, and freed with it.
    match Box::pin(ask(request, session, flight, load, upload)).await? {
        Ok(opened) if opened.head.status == StatusCode::SWITCHING_PROTOCOLS => {
            // A connection that lives for hours is no measure for how many requests may be sent again.
            drop(active);
            Box::pin(websocket::serve(session, flight, *opened, request)).await
        }
        Ok(opened) => Ok(relay::pass(session, flight, opened, request).await),
        Err(rejection) if request.client.is_committed() => Ok(relay::fail(session, flight, &rejection, request).await),
        Err(rejection) => Err(rejection.into()),
    }
}

/// Asks until an answer may be passed on or there is none, and attends to the client meanwhile.
async fn ask(
    request: &RoutedRequest<'_>,
    session: &mut ServerSession,
    flight: &mut Flight<'_>,
    load: &Arc<RouteLoad>,
    upload: Upload,
) -> Result<Result<Box<UpstreamResponse>, Rejection>, Stop> {
    let mut head = session.req_header().clone();
    if request.upgrades {
        session.set_keepalive(None);
        if !request.routed.route.limits.is_empty() {
            websocket::keep_known_extensions(&mut head).map_err(|_| Rejection::internal())?;
        }
    }
    let named = match session_of::is_in_body(&request.routed.route) {
        true => Box::pin(session_of::read(request.admitted)).await,
        false => None,
    };
    let asked = UpstreamRequest { request, head: &head, attempts: flight.attempts(), session: named.as_ref() };
    let opened = tokio::select! {
        biased;
        () = request.revoked() => return Ok(Err(Rejection::revoked())),
        opened = attempt_loop::open(&asked, load, upload) => opened,
        stop = client_side::wait(request, session) => return Err(stop),
        () = request.shared.drain.reached(DrainStage::Cut) => return Err(Stop::Cut),
    };
    // Those that came right before the final head.
    client_side::pass_interim(request, session).await?;
    if opened.is_ok() {
        mirror::cast(request, &head, flight);
    }
    Ok(opened)
}

/// The rules that every head must keep before anything believes it; names that backends could misread go.
fn look_over(session: &mut ServerSession, settings: &Settings) -> Result<(), Rejection> {
    // pingora drops a Content-Length beside a Transfer-Encoding before anybody sees it.
    let chunked = session.req_header().headers.contains_key("transfer-encoding");
    let came = session.as_http1().filter(|_| chunked).map(|session| session.get_headers_raw_bytes());
    let dropped = came.as_deref().map(head_checks::lengths).into_iter().flatten();
    let head = session.req_header_mut();
    let looked_at = head_checks::Head {
        method: head.method.as_str(),
        target: head.raw_path(),
        version: match head.version {
            http::Version::HTTP_2 => head_checks::Version::Http2,
            http::Version::HTTP_11 => head_checks::Version::Http11,
            _ => head_checks::Version::Http10,
        },
    };
    let fields = head.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    let passed = head_checks::check(&looked_at, fields.chain(dropped)).map_err(|refusal| refused(&refusal))?;
    let user_header = settings.identity.as_ref().map_or(USER_HEADER, |rules| &rules.user_header);
    let connection = head.headers.get_all(http::header::CONNECTION).iter().map(http::HeaderValue::as_bytes);
    let nominated = nominated(connection, user_header).map_err(|refusal| refused(&refusal))?;
    let header = |name: &str| head.headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    let ignores_upgrade =
        head.headers.contains_key(http::header::UPGRADE) && !head_checks::asks_for_websocket(&looked_at, header);
    for name in passed.dropped.iter().chain(&nominated) {
        head.remove_header(name.as_str());
    }
    if ignores_upgrade {
        head.remove_header(&http::header::UPGRADE);
    }
    Ok(())
}

fn refused(refusal: &head_checks::Refusal) -> Rejection {
    Rejection::refused(refusal.status, ErrorType::BadRequest, refusal.message)
}

fn describe(head: &RequestHeader) -> RequestInfo {
    /// Longest method and path kept, in bytes.
    const METHOD_MAX: usize = 32;
    const PATH_MAX: usize = 1024;
    RequestInfo {
        method: Arc::from(clip(head.method.as_str(), METHOD_MAX)),
        path: Arc::from(clip(head.uri.path(), PATH_MAX)),
        http_version: match head.version {
            http::Version::HTTP_2 => "2",
            http::Version::HTTP_10 => "1.0",
            _ => "1.1",
        },
    }
}

fn clip(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or("")
}

async fn after_panic(session: &mut ServerSession, flight: &mut Flight<'_>) -> Ending {
    let rejection = Rejection { error: ErrorType::Panic, ..Rejection::internal() };
    if session.response_written().is_some_and(|head| !head.status.is_informational()) {
        flight.end(rejection.outcome, Some(rejection.error));
        return Ending::Dirty;
    }
    session.set_keepalive(None);
    error_answer::answer_unparsed(session, flight, &rejection).await;
    Ending::Dirty
}
