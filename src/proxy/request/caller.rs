//! Who calls: peer and trust, request id, trace.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::HeaderName;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

use crate::config::settings::{ContinueTraces, Settings};
use crate::policy::identity::{Identity, Source};
use crate::policy::trusted_proxies;
use crate::telemetry::record::{ClientInfo, TraceIds};
use crate::telemetry::{ids, sampler, trace_context};

/// Longest request id taken over from a client, in bytes.
const REQUEST_ID_MAX: usize = 128;

/// What is known of the caller. The proof that hygiene and trust were looked at.
#[derive(Clone)]
pub(crate) struct Caller {
    /// The connection's other end; `None` on a unix socket.
    pub(crate) peer: Option<SocketAddr>,
    /// The peer may speak for others: it set the forwarding headers.
    pub(crate) trusted: bool,
    pub(crate) tls: bool,
    pub(crate) request_id: Arc<str>,
    pub(crate) trace: TraceIds,
    /// Whether the caller's own `tracestate` goes on.
    pub(crate) continued: bool,
    /// The client's own address; `None` on a unix socket.
    pub(crate) address: Option<SocketAddr>,
    /// Nobody in particular, until identity was looked at.
    pub(crate) identity: Identity,
    pub(crate) source: Source,
    /// The header in which we tell upstreams the user whom a credential named.
    pub(crate) vouched: Option<HeaderName>,
}

impl Caller {
    /// As the record tells of it.
    pub(crate) fn client(&self) -> ClientInfo {
        let Identity { user, team, key } = self.identity.clone();
        ClientInfo { address: self.address, user, team, key }
    }
}

/// Looks at who is at the other end of `session`.
pub(crate) fn identify(session: &ServerSession, settings: &Settings) -> Caller {
    let head = session.req_header();
    let peer = session.client_addr().and_then(|address| address.as_inet().copied());
    let trusted = trusted_proxies::is_trusted(&settings.server.trusted_proxies, peer.map(|peer| peer.ip()));
    let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
    let trace = trace_ids(head, trusted, settings);
    let address = client_address(head, peer, trusted, settings);
    let continued = trace.parent.is_some();
    Caller {
        peer,
        trusted,
        tls,
        request_id: request_id(head),
        trace,
        continued,
        address,
        identity: Identity::default(),
        source: Source::default(),
        vouched: None,
    }
}

/// What is known of a request whose head could not be read: a new id, a trace of its own, and the connection's other end.
pub(crate) fn identify_unread(session: &ServerSession, settings: &Settings) -> (Arc<str>, TraceIds, ClientInfo) {
    let address = session.client_addr().and_then(|address| address.as_inet().copied());
    let ratio = sampler::ratio(settings.telemetry.sample_ratio);
    let trace = trace_context::decide(None, false, settings.server.continue_traces, ratio);
    (ids::new_request_id(), trace, ClientInfo { address, ..ClientInfo::default() })
}

fn trace_ids(head: &RequestHeader, trusted: bool, settings: &Settings) -> TraceIds {
    let policy: ContinueTraces = settings.server.continue_traces;
    let parent = head.headers.get("traceparent").map(|value| value.as_bytes());
    trace_context::decide(parent, trusted, policy, sampler::ratio(settings.telemetry.sample_ratio))
}

fn client_address(
    head: &RequestHeader,
    peer: Option<SocketAddr>,
    trusted: bool,
    settings: &Settings,
) -> Option<SocketAddr> {
    let peer = peer?;
    if !trusted {
        return Some(peer);
    }
    let hops = head.headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let ip = trusted_proxies::client_address(&settings.server.trusted_proxies, Some(peer.ip()), hops)?;
    Some(if ip == peer.ip().to_canonical() { peer } else { SocketAddr::new(ip, 0) })
}

/// The client's own request id where it is fit to be passed on, else a new one.
fn request_id(head: &RequestHeader) -> Arc<str> {
    match text(head, "x-request-id", REQUEST_ID_MAX) {
        Some(id) => Arc::from(id),
        None => ids::new_request_id(),
    }
}

/// A header's only value, when it is printable ASCII without spaces and not too long.
fn text<'a>(head: &'a RequestHeader, name: &str, max: usize) -> Option<&'a str> {
    let mut values = head.headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    let fit = values.next().is_none()
        && !value.is_empty()
        && value.len() <= max
        && value.bytes().all(|byte| byte.is_ascii_graphic());
    fit.then_some(value)
}
