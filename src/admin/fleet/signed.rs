//! Requests of other replicas of the fleet, as their signatures let them in.

use pingora::http::RequestHeader;

use super::merge;
use crate::admin::access::{Came, Denial};
use crate::admin::pages::Page;
use crate::policy::peer_signature::{self, Question, Wrong};
use crate::proxy::Shared;

/// Whether a request says that another replica signed it.
pub(in crate::admin) fn is_signed(head: &RequestHeader) -> bool {
    authorization(head).is_some_and(peer_signature::is_signed)
}

/// What is to be said of a request's signature; `None`: it has none.
pub(in crate::admin) fn check(
    shared: &Shared,
    head: &RequestHeader,
    page: Page,
    came: &Came,
) -> Option<Result<(), Denial>> {
    let authorization = authorization(head).filter(|value| peer_signature::is_signed(value))?;
    Some(checked(shared, head, page, came, authorization))
}

fn checked(shared: &Shared, head: &RequestHeader, page: Page, came: &Came, authorization: &[u8]) -> Result<(), Denial> {
    let fleet = shared.fleet.configured().ok_or(Denial::NoFleetSecret)?;
    let secret = fleet.secret.as_ref().ok_or(Denial::NoFleetSecret)?;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let bound = came.at.map(|at| at.to_string());
    let advertised = shared.fleet.advertised().map(|admin| admin.authority().to_owned());
    let own: Vec<String> = bound.into_iter().chain(advertised).collect();
    peer_signature::check(secret, Question { fleet: &fleet.name, path }, authorization, &own, came.time).map_err(
        |wrong| match wrong {
            Wrong::Forged => Denial::ForgedSignature,
            Wrong::Old => Denial::OldSignature,
            Wrong::ForAnother => Denial::SignatureForAnother,
        },
    )?;
    let is_shown = matches!(page, Page::Fleet | Page::Events) || merge::lists(page).is_some();
    let may_be_read = is_shown && head.method == http::Method::GET;
    if may_be_read { Ok(()) } else { Err(Denial::NotForReplicas) }
}

fn authorization(head: &RequestHeader) -> Option<&[u8]> {
    head.headers.get("authorization").map(|value| value.as_bytes())
}
