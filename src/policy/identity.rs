//! Who calls, as limits, cohorts and telemetry know it.

mod principal;
mod refusal;
pub mod subprotocol;
mod token;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::config::identity::{ApiKey, IdentityRules, KEY_PREFIX, KeyHash, KeySet};
pub use principal::Identity;
pub use refusal::{Refusal, TokenFault};
use token::Token;

/// The headers that clients send keys and tokens in: everyone's, Anthropic's, Azure's and Google's.
pub const CREDENTIAL_HEADERS: [&str; 4] = ["authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// Longest user name taken over from a trusted proxy, in bytes.
pub const USER_MAX: usize = 256;

/// From so many letters and digits on, something that begins as our keys do is one, wherever it stands.
const KEY_LETTERS_MIN: usize = 32;

/// How an identity was established.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Source {
    /// An API key of ours.
    Key,
    /// A token that its issuer signed.
    Jwt,
    /// A trusted proxy's word.
    Header,
    /// Nothing but where the request comes from.
    #[default]
    Address,
}

/// Who calls, and how that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Established {
    pub identity: Identity,
    pub source: Source,
    /// The headers that held one of our keys. They are for us alone.
    pub spent: Vec<&'static str>,
}

/// What a request says of its sender.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claims<'a> {
    /// The fields named in [`CREDENTIAL_HEADERS`], in that order, and what a browser offers as a WebSocket's subprotocol.
    pub credentials: &'a [(&'static str, &'a [u8])],
    /// The user whom a trusted proxy names; nothing from anyone else.
    pub user: Option<&'a str>,
    /// The query, without its question mark.
    pub query: Option<&'a str>,
}

/// Finds out who calls. What a credential says counts; a trusted proxy fills in the user that it leaves open. `keys` are
/// those that tokens are signed with, where they are known; `now` is the time since the Unix epoch.
///
/// Our own keys and, where `[identity.jwt]` stands, JWTs in `Authorization` are judged. Any other credential is the
/// backend's business.
///
/// # Errors
/// Why the request goes no further.
pub fn establish(
    rules: &IdentityRules,
    keys: Option<&KeySet>,
    claims: &Claims<'_>,
    now: Duration,
) -> Result<Established, Refusal> {
    if claims.query.is_some_and(holds_key) {
        return Err(Refusal::KeyInQuery);
    }
    let mut credentials = Vec::new();
    for (name, value) in claims.credentials {
        if credentials.iter().any(|(other, _)| other == name) {
            return Err(Refusal::Repeated(name));
        }
        credentials.push((*name, secret_of(value)));
    }
    if let Some((key, spent)) = own_key(rules, &credentials)? {
        let user = key.user.clone().or_else(|| claims.user.map(Arc::from));
        let identity = Identity { user, team: key.team.clone(), key: Some(Arc::clone(&key.id)) };
        return Ok(Established { identity, source: Source::Key, spent });
    }
    let bearer = |name: &str| credentials.iter().find(|(other, _)| *other == name).and_then(|(_, text)| *text);
    let bearer = bearer("authorization").or_else(|| bearer(subprotocol::HEADER));
    if let (Some(jwt), Some(token)) = (&rules.jwt, bearer.and_then(Token::read)) {
        let identity = token.verify(jwt, keys, now).map_err(Refusal::Token)?;
        return Ok(Established { identity, source: Source::Jwt, spent: Vec::new() });
    }
    match claims.user {
        Some(user) => {
            let identity = Identity { user: Some(Arc::from(user)), ..Identity::default() };
            Ok(Established { identity, source: Source::Header, spent: Vec::new() })
        }
        None if rules.required => Err(Refusal::Missing { other: credentials.iter().any(|(_, text)| text.is_some()) }),
        None => Ok(Established::default()),
    }
}

/// A user's name as a trusted proxy may send it: printable ASCII without spaces, and not too long.
#[must_use]
pub fn user_name(value: &[u8]) -> Option<&str> {
    let fit = !value.is_empty() && value.len() <= USER_MAX && value.iter().all(u8::is_ascii_graphic);
    if fit { std::str::from_utf8(value).ok() } else { None }
}

/// The one of our keys that the request carries, and the headers it stands in.
fn own_key<'a>(
    rules: &'a IdentityRules,
    credentials: &[(&'static str, Option<&str>)],
) -> Result<Option<(&'a ApiKey, Vec<&'static str>)>, Refusal> {
    let mut presented = None;
    let mut spent = Vec::new();
    for (name, text) in credentials {
        let Some(key) = text.filter(|text| text.starts_with(KEY_PREFIX)) else { continue };
        if presented.replace(key).is_some_and(|other| other != key) {
            return Err(Refusal::SeveralKeys);
        }
        spent.push(*name);
    }
    let Some(key) = presented else { return Ok(None) };
    // How long the lookup takes tells of hashes at most, and nobody can work from a hash towards a key.
    let known = rules.keys.get(&KeyHash::of(key)).ok_or(Refusal::UnknownKey)?;
    Ok(Some((known, spent)))
}

/// A credential without its scheme. That of another scheme than bearer is whole: it may be one of our keys all the same,
/// or none of our business.
fn secret_of(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let bearer = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Some(bearer.map_or(text, |(_, secret)| secret.trim_start()))
}

/// Whether any value in a query is one of our keys, known or not.
fn holds_key(query: &str) -> bool {
    query.split(['&', ';']).any(|pair| {
        let value = pair.split_once('=').map_or(pair, |(_, value)| value);
        is_key(&Cow::from(percent_decode_str(value)))
    })
}

/// Whether a text is one of our keys, known or not.
#[must_use]
pub fn is_key(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"Bearer ").or_else(|| text.strip_prefix(b"Bearer+")).unwrap_or(text);
    text.strip_prefix(KEY_PREFIX.as_bytes())
        .is_some_and(|rest| rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count() >= KEY_LETTERS_MIN)
}

#[cfg(test)]
#[path = "identity/tests.rs"]
mod tests;
