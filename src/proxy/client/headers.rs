//! What goes on and what does not: the heads of requests towards upstreams, and of answers towards clients.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Version};
use pingora::http::{RequestHeader, ResponseHeader};

use super::cors;
use crate::config::address::Endpoint;
use crate::config::secret::Secret;
use crate::config::settings::{HostPolicy, Route, Target};
use crate::llm::Dialect;
use crate::llm::request::with_model;
use crate::policy::identity::{CREDENTIAL_HEADERS, subprotocol};
use crate::policy::limits::Standing;
use crate::policy::location_header::{self, Way};
use crate::policy::{routing, trusted_proxies};
use crate::proxy::limits::ratelimit_headers;
use crate::proxy::process::request_body::RequestBody;
use crate::proxy::request::caller::Caller;
use crate::proxy::request::context::RequestContext;
use crate::proxy::request::identity;
use crate::telemetry::record::{Phase, Phases};
use crate::telemetry::trace_context;

/// Headers that belong to one connection only (RFC 9110, section 7.6.1), and those that the framing is made of.
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Request headers that we answer or write ourselves.
static OURS: [HeaderName; 3] =
    [header::EXPECT, HeaderName::from_static("http2-settings"), HeaderName::from_static("traceparent")];

/// Everything an upstream request is built from.
pub(crate) struct Outgoing<'a> {
    pub(crate) head: &'a RequestHeader,
    pub(crate) caller: &'a Caller,
    pub(crate) route: &'a Route,
    pub(crate) target: &'a Target,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) body: &'a RequestBody,
    /// The request is LLM-shaped: its answer must be readable, so not compressed.
    pub(crate) llm: Option<Dialect>,
    pub(crate) attempt_span: u64,
    /// The upstream speaks HTTP/2.
    pub(crate) h2: bool,
    /// A WebSocket handshake, whose upgrade headers go on.
    pub(crate) upgrade: bool,
}

/// The head of a request as the upstream gets it.
pub(crate) fn request(out: &Outgoing<'_>) -> pingora::Result<Box<RequestHeader>> {
    let mut head = Box::new(out.head.clone());
    let host = host(out);
    let base = &out.endpoint.base_path;
    let path = routing::upstream_path(out.route, out.target, base, origin_form(out.head));
    let renamed = out.target.model.as_deref().and_then(|model| with_model(&path, model));
    let path = renamed.map_or(path, Cow::Owned);
    let connection = connection_headers(&head.headers);
    let believed = |name: &HeaderName| !out.caller.trusted && trusted_proxies::is_believed(name.as_str());
    for name in present(&out.head.headers, |name| connection(name) || OURS.contains(name) || believed(name)) {
        head.remove_header(name);
    }
    forwarding(&mut head, out)?;
    head.insert_header("x-request-id", &*out.caller.request_id)?;
    let trace = &out.caller.trace;
    head.insert_header("traceparent", trace_context::traceparent(trace.trace_id, out.attempt_span, trace.sampled))?;
    tracestate(&mut head, out.caller.continued)?;
    if out.llm.is_some() {
        head.insert_header(header::ACCEPT_ENCODING, "identity")?;
    }
    if let Some(key) = &out.target.upstream.api_key {
        credentials(&mut head, key, out.target.upstream.dialect.or(out.llm))?;
        // Our users' names are none of a hosted API's business.
        if let Some(name) = &out.caller.vouched {
            head.remove_header(name);
        }
    }
    join_cookies(&mut head)?;
    framing(&mut head, out)?;
    target(&mut head, out, &path, &host)?;
    Ok(head)
}

/// Maps where an answer leads back to what the client sees.
pub(crate) fn map_locations(head: &mut ResponseHeader, out: &Outgoing<'_>) {
    if ![header::LOCATION, header::CONTENT_LOCATION].iter().any(|name| head.headers.contains_key(name)) {
        return;
    }
    let (host, client) = (host(out), client_host(out.head));
    let way = Way {
        route: out.route,
        target: out.target,
        base_path: &out.endpoint.base_path,
        tls: out.endpoint.tls,
        upstream_host: host.to_str().unwrap_or_default(),
        client_host: client.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default(),
    };
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let location = head.headers.get(&name).and_then(|value| value.to_str().ok());
        if let Some(seen) = location.and_then(|location| location_header::mapped(location, &way)) {
            // A part of a header's value is one.
            let _ = head.insert_header(name, seen);
        }
    }
}

/// A continued trace's `tracestate` goes on in one header where it is well-formed; a new trace has none.
fn tracestate(head: &mut RequestHeader, continued: bool) -> pingora::Result<()> {
    if !head.headers.contains_key("tracestate") {
        return Ok(());
    }
    let values = head.headers.get_all("tracestate").iter().map(HeaderValue::as_bytes);
    match trace_context::tracestate(values).filter(|_| continued) {
        Some(state) => head.insert_header("tracestate", state)?,
        None => drop(head.remove_header("tracestate")),
    }
    Ok(())
}

fn target(head: &mut RequestHeader, out: &Outgoing<'_>, path: &str, host: &HeaderValue) -> pingora::Result<()> {
    if out.h2 {
        head.remove_header(&header::HOST);
        let authority = host.to_str().unwrap_or(&out.endpoint.authority);
        let uri = http::Uri::builder().scheme(out.endpoint.scheme()).authority(authority).path_and_query(path).build();
        let invalid =
            |_| pingora::Error::explain(pingora::ErrorType::InvalidHTTPHeader, "path cannot be sent over HTTP/2");
        head.set_uri(uri.map_err(invalid)?);
        head.set_version(Version::HTTP_2);
    } else {
        if head.raw_path() != path.as_bytes() {
            head.set_raw_path(path.as_bytes())?;
        }
        head.insert_header(header::HOST, host.clone())?;
        head.set_version(Version::HTTP_11);
    }
    Ok(())
}

/// Path and query as they came; of a target in absolute form, those of its URL.
fn origin_form(head: &RequestHeader) -> &str {
    match std::str::from_utf8(head.raw_path()) {
        Ok(raw) if raw.starts_with('/') || raw == "*" => raw,
        // Hygiene let only ASCII pass.
        _ => head.uri.path_and_query().map_or("/", |path| path.as_str()),
    }
}

/// The `Host` that the upstream sees.
fn host(out: &Outgoing<'_>) -> HeaderValue {
    let own = || HeaderValue::from_str(&out.endpoint.authority).unwrap_or_else(|_| HeaderValue::from_static(""));
    match &out.target.upstream.host {
        HostPolicy::Keep => client_host(out.head).unwrap_or_else(own),
        HostPolicy::Own => own(),
        HostPolicy::Name(name) => HeaderValue::from_str(name).unwrap_or_else(|_| own()),
    }
}

/// The host that the client asked for: HTTP/2 has it in the target.
fn client_host(head: &RequestHeader) -> Option<HeaderValue> {
    let authority = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    authority.or_else(|| head.headers.get(header::HOST).cloned())
}

/// `X-Forwarded-*`: replaced for peers that are not trusted, appended to for those that are. What the former sent is gone
/// by now.
fn forwarding(head: &mut RequestHeader, out: &Outgoing<'_>) -> pingora::Result<()> {
    let caller = out.caller;
    if let Some(peer) = caller.peer {
        let mut hops = String::new();
        for earlier in head.headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()) {
            hops.push_str(earlier);
            hops.push_str(", ");
        }
        // A String takes what is written to it.
        let _ = write!(hops, "{}", peer.ip().to_canonical());
        head.insert_header("x-forwarded-for", hops)?;
    }
    if !head.headers.contains_key("x-forwarded-proto") {
        head.insert_header("x-forwarded-proto", if caller.tls { "https" } else { "http" })?;
    }
    if !head.headers.contains_key("x-forwarded-host")
        && let Some(host) = client_host(out.head)
    {
        head.insert_header("x-forwarded-host", host)?;
    }
    Ok(())
}

/// The upstream's own key in place of whatever the client sent.
fn credentials(head: &mut RequestHeader, key: &Secret, llm: Option<Dialect>) -> pingora::Result<()> {
    for name in CREDENTIAL_HEADERS.into_iter().chain(["cookie"]) {
        head.remove_header(name);
    }
    if head.headers.contains_key(subprotocol::HEADER) {
        identity::without_subprotocol_key(head);
    }
    let (name, text) = match llm {
        Some(Dialect::Anthropic) => ("x-api-key", key.expose().to_owned()),
        Some(Dialect::Gemini) => ("x-goog-api-key", key.expose().to_owned()),
        _ => ("authorization", format!("Bearer {}", key.expose())),
    };
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| pingora::Error::explain(pingora::ErrorType::InvalidHTTPHeader, "api key is not a header value"))?;
    value.set_sensitive(true);
    head.insert_header(name, value)
}

/// HTTP/2 clients may split `Cookie`; HTTP/1 servers want it whole (RFC 9113, section 8.2.3).
fn join_cookies(head: &mut RequestHeader) -> pingora::Result<()> {
    if head.headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return Ok(());
    }
    let parts: Vec<&[u8]> = head.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let whole = parts.join(&b"; "[..]);
    head.insert_header(header::COOKIE, whole)
}

fn framing(head: &mut RequestHeader, out: &Outgoing<'_>) -> pingora::Result<()> {
    match out.body {
        RequestBody::Buffered(_) | RequestBody::Streamed { length: Some(_), .. } => {}
        // What was edited was decoded before.
        RequestBody::Edited(_) => drop(head.remove_header(&header::CONTENT_ENCODING)),
        RequestBody::None | RequestBody::Streamed { length: None, .. } => {
            head.remove_header(&header::CONTENT_LENGTH);
        }
    }
    match out.body {
        RequestBody::Buffered(bytes) | RequestBody::Edited(bytes) => {
            head.insert_header(header::CONTENT_LENGTH, bytes.len().to_string())?;
        }
        RequestBody::Streamed { length: Some(length), .. } => {
            head.insert_header(header::CONTENT_LENGTH, length.to_string())?;
        }
        RequestBody::Streamed { length: None, .. } if !out.h2 => {
            head.insert_header(header::TRANSFER_ENCODING, "chunked")?
        }
        RequestBody::Streamed { length: None, .. } => {}
        // Without a body, methods that usually have one say so.
        RequestBody::None if [Method::POST, Method::PUT, Method::PATCH].contains(&out.head.method) => {
            head.insert_header(header::CONTENT_LENGTH, "0")?;
        }
        RequestBody::None => {}
    }
    if out.upgrade {
        head.insert_header(header::CONNECTION, "Upgrade")?;
        head.insert_header(header::UPGRADE, "websocket")?;
    }
    Ok(())
}

/// The names among `fields` that `goes` picks out. In one pass: most heads have none of all the names that must not go on,
/// and to look each of them up costs more than all the rest of the head.
fn present(fields: &HeaderMap, goes: impl Fn(&HeaderName) -> bool) -> impl Iterator<Item = &HeaderName> {
    fields.keys().filter(move |name| goes(name))
}

/// Tells what belongs to one connection: the known names, and those that `Connection` lists.
fn connection_headers(fields: &HeaderMap) -> impl Fn(&HeaderName) -> bool + use<> {
    let nominated: Vec<HeaderName> = fields
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    move |name| HOP_BY_HOP.contains(name) || nominated.contains(name)
}

/// How an answer's body will be delimited towards the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerFraming {
    /// `Content-Length`, chunks, or HTTP/2 frames: its end can be told.
    Delimited,
    /// HTTP/1.0: the connection's end is the body's.
    ByClose,
}

/// Everything the head of an answer is built from.
pub(crate) struct Incoming<'a> {
    pub(crate) context: &'a RequestContext<'a>,
    pub(crate) client_version: Version,
    /// The answer streams events.
    pub(crate) events: bool,
    /// Time per phase so far, for `server-timing`.
    pub(crate) phases: Phases,
    pub(crate) standing: &'a Standing,
}

/// The head of an answer as the client gets it.
pub(crate) fn answer(mut head: ResponseHeader, to: &Incoming<'_>) -> pingora::Result<(ResponseHeader, AnswerFraming)> {
    let connection = connection_headers(&head.headers);
    let gone: Vec<HeaderName> = present(&head.headers, connection).cloned().collect();
    for name in &gone {
        head.remove_header(name);
    }
    head.set_version(Version::HTTP_11);
    common(&mut head, to.context)?;
    if to.events {
        mark_events(&mut head)?;
    }
    head.append_header("server-timing", server_timing(&to.phases))?;
    ratelimit_headers::insert(&mut head, to.standing)?;
    let framing = delimit(&mut head, to.client_version)?;
    Ok((head, framing))
}

/// In milliseconds, to the tenth.
fn server_timing(phases: &Phases) -> String {
    let mut timing = String::with_capacity(64);
    for (word, phase) in [("admit", Phase::Admit), (", connect", Phase::Connect), (", upstream", Phase::UpstreamWait)] {
        let tenths = (phases.get(phase).as_micros() + 50) / 100;
        // A String takes what is written to it.
        let _ = write!(timing, "{word};dur={}.{}", tenths / 10, tenths % 10);
    }
    timing
}

/// The head that is sent before the upstream's own, when the client's patience must be kept.
pub(crate) fn early_event_stream(
    request: &RequestHeader,
    context: &RequestContext<'_>,
) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(200, Some(8))?;
    head.insert_header(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")?;
    common(&mut head, context)?;
    mark_events(&mut head)?;
    delimit(&mut head, request.version)?;
    Ok(head)
}

fn common(head: &mut ResponseHeader, context: &RequestContext<'_>) -> pingora::Result<()> {
    cors::apply(&context.cors, head)?;
    head.insert_header("x-request-id", &*context.caller.request_id)
}

/// Tells every hop on the way to the browser to pass events on at once.
fn mark_events(head: &mut ResponseHeader) -> pingora::Result<()> {
    if !head.headers.contains_key("x-accel-buffering") {
        head.insert_header("x-accel-buffering", "no")?;
    }
    let said: Vec<String> = head
        .headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(|directive| directive.trim().to_owned())
        .collect();
    let lacks = |name: &str| !said.iter().any(|directive| directive.eq_ignore_ascii_case(name));
    let no_store = !lacks("no-store");
    let mut added = said.clone();
    if lacks("no-cache") && !no_store {
        added.push("no-cache".into());
    }
    if lacks("no-transform") {
        added.push("no-transform".into());
    }
    if added.len() > said.len() {
        head.insert_header(header::CACHE_CONTROL, added.join(", "))?;
    }
    Ok(())
}

fn delimit(head: &mut ResponseHeader, client: Version) -> pingora::Result<AnswerFraming> {
    if head.status == http::StatusCode::NO_CONTENT {
        // RFC 9110, section 8.6: it has no length, whatever the backend says.
        head.remove_header(&header::CONTENT_LENGTH);
        return Ok(AnswerFraming::Delimited);
    }
    if head.headers.contains_key(header::CONTENT_LENGTH) || client == Version::HTTP_2 {
        return Ok(AnswerFraming::Delimited);
    }
    if client == Version::HTTP_10 {
        return Ok(AnswerFraming::ByClose);
    }
    if head.status != http::StatusCode::NOT_MODIFIED {
        head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    }
    Ok(AnswerFraming::Delimited)
}
