//! Which session a request belongs to, where an upstream keeps sessions at one of its endpoints.

use pingora::http::RequestHeader;

use crate::config::settings::{Route, Upstream};
use crate::llm::request::session::SessionName;
use crate::policy::affinity::{Key, Source};
use crate::policy::identity::Identity;
use crate::proxy::endpoints::affinity::Wanted;
use crate::proxy::process::request_body::Admitted;

/// Longest value of a header that names a session, in bytes.
const HEADER_MAX: usize = 1024;

/// Longer bodies are read off the serving threads: what a core does in half a millisecond.
const LONG_BYTES: usize = 64 << 10;

/// Whether one of the route's upstreams asks the body for the session.
pub(crate) fn is_in_body(route: &Route) -> bool {
    let mut upstreams = route.targets.iter().chain(&route.fallback).map(|target| &target.upstream);
    upstreams.any(|upstream| upstream.affinity.as_ref().is_some_and(|affinity| affinity.body))
}

/// What the body says of the session.
pub(crate) async fn read(admitted: &Admitted) -> Option<SessionName> {
    let text = admitted.content.json()?;
    if text.len() <= LONG_BYTES {
        return SessionName::read(text);
    }
    let text = text.clone();
    tokio::task::spawn_blocking(move || SessionName::read(&text)).await.ok().flatten()
}

/// Where a request to `upstream` wants to go; `None`: its upstream keeps no sessions. `named` is what the body says.
pub(crate) fn wanted(
    upstream: &Upstream,
    head: &RequestHeader,
    admitted: &Admitted,
    named: Option<&SessionName>,
    identity: &Identity,
) -> Option<Wanted> {
    let affinity = upstream.affinity.as_ref()?;
    let facts = &admitted.facts;
    let header = || {
        affinity.headers.iter().find_map(|name| {
            let value = head.headers.get(name)?.as_bytes();
            (1..=HEADER_MAX).contains(&value.len()).then_some((Source::Header(name), value))
        })
    };
    let conversation = || facts.details.conversation_id.as_deref().map(|id| (Source::Conversation, id.as_bytes()));
    let found = header().or_else(|| match named.filter(|_| affinity.body) {
        Some(key @ SessionName::CacheKey(_)) => Some((Source::CacheKey, key.bytes())),
        opening => conversation()
            .filter(|_| affinity.body)
            .or_else(|| opening.map(|opening| (Source::Opening, opening.bytes()))),
    });
    let key = found.map(|(source, value)| Key::new(source, value, identity, facts.model.as_deref()));
    Some(Wanted { key, spill: affinity.spill })
}
