//! Brings the policy of identity to a request's head: what it says of its sender is judged, and what is not for upstreams
//! is taken out.

use std::time::SystemTime;

use http::HeaderValue;
use http::header::HeaderName;
use pingora::http::RequestHeader;

use super::caller::Caller;
use super::rejection::Rejection;
use crate::config::identity::{IdentityRules, JwtKeys, JwtRules, KeySet, USER_HEADER};
use crate::policy::identity::{self as policy, CREDENTIAL_HEADERS, Claims, Established, Refusal, Source, subprotocol};
use crate::proxy::clock::since_1970;
use crate::proxy::process::state::{Generation, Shared};
use crate::telemetry::record::ErrorType;

/// Finds out who calls, and leaves in `head` what an upstream may read: a user's name that is vouched for, and no key of
/// ours.
pub(crate) fn establish(
    shared: &Shared,
    generation: &Generation,
    head: &mut RequestHeader,
    has_body: bool,
    caller: &mut Caller,
) -> Result<(), Rejection> {
    if !caller.trusted {
        note_ignored_user(shared, generation, head, caller);
    }
    let Some(rules) = &generation.settings.identity else {
        let found = by_header_alone(head, caller.trusted);
        (caller.identity, caller.source) = (found.identity, found.source);
        return Ok(());
    };
    if !caller.trusted {
        head.remove_header(USER_HEADER);
        head.remove_header(rules.user_header.as_str());
    }
    if !has_body && is_preflight(head) {
        return Ok(());
    }
    let found = judge(shared, generation, rules, head, caller.trusted).map_err(|refusal| rejection(&refusal))?;
    if found.identity.key.as_deref().is_some_and(|key| shared.levers.is_revoked(key)) {
        return Err(rejection(&Refusal::RevokedKey));
    }
    for name in &found.spent {
        if *name == subprotocol::HEADER {
            without_subprotocol_key(head);
        } else {
            head.remove_header(*name);
        }
    }
    if matches!(found.source, Source::Key | Source::Jwt) {
        caller.vouched = tell_user(head, &rules.user_header, found.identity.user.as_deref());
    }
    (caller.identity, caller.source) = (found.identity, found.source);
    Ok(())
}

/// The subprotocols that a client offers, a header's value each.
fn offers(head: &RequestHeader) -> impl Iterator<Item = &str> {
    head.headers.get_all(subprotocol::HEADER).iter().filter_map(|value| value.to_str().ok())
}

/// Takes credentials out of the subprotocols that a client offers. A browser has no other place for them.
pub(crate) fn without_subprotocol_key(head: &mut RequestHeader) {
    let rest = subprotocol::without_credentials(offers(head));
    head.remove_header(subprotocol::HEADER);
    if let Some(value) = rest.and_then(|rest| HeaderValue::from_str(&rest).ok()) {
        // It is made of what came in a header.
        let _ = head.insert_header(subprotocol::HEADER, value);
    }
}

/// Tells of a user whom somebody named and nobody believes.
fn note_ignored_user(shared: &Shared, generation: &Generation, head: &RequestHeader, caller: &Caller) {
    let header = generation.settings.identity.as_ref().map_or(USER_HEADER, |rules| rules.user_header.as_str());
    if let (Some(user), Some(peer)) = (head.headers.get(header), caller.peer) {
        shared.telemetry.live().hints().user_ignored(peer.ip(), user.as_bytes(), SystemTime::now());
    }
}

/// Without `[identity]`, a trusted proxy's word is all there is.
fn by_header_alone(head: &mut RequestHeader, trusted: bool) -> Established {
    if !trusted {
        head.remove_header(USER_HEADER);
        return Established::default();
    }
    let user = head.headers.get(USER_HEADER).and_then(|value| policy::user_name(value.as_bytes()));
    match user {
        Some(user) => {
            let identity = policy::Identity { user: Some(user.into()), ..policy::Identity::default() };
            Established { identity, source: Source::Header, ..Established::default() }
        }
        None => Established::default(),
    }
}

/// A browser's question before its request, which never carries a credential, nor a body. Where it comes this far, the backend
/// answers it.
fn is_preflight(head: &RequestHeader) -> bool {
    head.method == http::Method::OPTIONS
        && head.headers.contains_key("origin")
        && head.headers.contains_key("access-control-request-method")
        && !CREDENTIAL_HEADERS.iter().any(|name| head.headers.contains_key(*name))
}

fn judge(
    shared: &Shared,
    generation: &Generation,
    rules: &IdentityRules,
    head: &RequestHeader,
    trusted: bool,
) -> Result<Established, Refusal> {
    let values = |name: &'static str| head.headers.get_all(name).iter().map(move |value| (name, value.as_bytes()));
    let offered = subprotocol::credentials(offers(head)).map(|secret| (subprotocol::HEADER, secret.as_bytes()));
    let credentials: Vec<(&'static str, &[u8])> =
        CREDENTIAL_HEADERS.into_iter().flat_map(values).chain(offered).collect();
    let mut users = head.headers.get_all(rules.user_header.as_str()).iter();
    let user = users.next().filter(|_| trusted);
    if users.next().is_some() {
        return Err(Refusal::RepeatedUser);
    }
    let claims = Claims {
        credentials: &credentials,
        user: user.and_then(|value| policy::user_name(value.as_bytes())),
        query: head.uri.query(),
    };
    let fetched = generation.remote_keys.as_ref().and_then(|remote| remote.current());
    let keys = rules.jwt.as_ref().and_then(|jwt| known_keys(jwt, fetched.as_deref()));
    let found = policy::establish(rules, keys, &claims, since_1970());
    if let (Err(refusal), Some(remote)) = (&found, &generation.remote_keys)
        && refusal.asks_for_newer_keys()
        && remote.ask_for_newer()
    {
        shared.keys_wanted.notify_one();
    }
    found
}

fn known_keys<'a>(jwt: &'a JwtRules, fetched: Option<&'a KeySet>) -> Option<&'a KeySet> {
    match &jwt.keys {
        JwtKeys::Secret(keys) | JwtKeys::File(_, keys) => Some(keys),
        JwtKeys::Url(_) => fetched,
    }
}

/// Puts the user that a credential names into the header that backends read, in place of what stood there. A name that
/// no header can carry leaves none.
fn tell_user(head: &mut RequestHeader, header: &str, user: Option<&str>) -> Option<HeaderName> {
    let name = HeaderName::try_from(header).ok()?;
    head.remove_header(&name);
    let value = HeaderValue::from_str(user?).ok()?;
    head.insert_header(name.clone(), value).ok()?;
    Some(name)
}

fn rejection(refusal: &Refusal) -> Rejection {
    let error = match refusal.status() {
        400 => ErrorType::BadRequest,
        403 => ErrorType::Forbidden,
        _ => ErrorType::Unauthorized,
    };
    let retry_after = (refusal.status() == 503).then_some(RETRY_AFTER_S);
    Rejection { retry_after, ..Rejection::refused(refusal.status(), error, refusal.message()) }
}

/// When to try again where keys are being fetched.
const RETRY_AFTER_S: u32 = 5;
