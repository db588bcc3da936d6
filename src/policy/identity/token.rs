//! JSON Web Tokens (RFC 7519): who signed them, for whom, and until when.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode};
use serde_json::{Map, Value};

use super::principal::Identity;
use super::refusal::TokenFault;
use crate::config::identity::{JwtRules, KeySet, SigningKey};

/// Longest token that is verified, in bytes.
const TOKEN_MAX: usize = 16 << 10;

/// Longest name of a user or team that is taken over, in bytes.
const NAME_MAX: usize = 256;

/// Keys that are tried for one token: a token that names its key has one; without a name, each try costs a verification.
const TRIED_MAX: usize = 8;

/// Something that claims to be a JWT.
#[derive(Debug)]
pub(super) struct Token<'a> {
    text: &'a str,
    header: Map<String, Value>,
    is_signed: bool,
}

impl<'a> Token<'a> {
    /// Takes a credential for a JWT where it has three parts, the first of which is a JSON object with `alg`. Everything
    /// else is another kind of credential, and not ours to judge.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split('.');
        let (first, _, third) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let header: Map<String, Value> = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(first).ok()?).ok()?;
        header.contains_key("alg").then_some(Self { text, header, is_signed: !third.is_empty() })
    }

    /// Whom the token names, if all about it is right.
    pub(super) fn verify(
        &self,
        rules: &JwtRules,
        keys: Option<&KeySet>,
        now: Duration,
    ) -> Result<Identity, TokenFault> {
        if self.text.len() > TOKEN_MAX {
            return Err(TokenFault::Malformed);
        }
        let algorithm = self.algorithm(rules)?;
        if self.header.contains_key("crit") {
            return Err(TokenFault::Critical);
        }
        let kid = match self.header.get("kid") {
            None => None,
            Some(kid) => Some(kid.as_str().ok_or(TokenFault::Malformed)?),
        };
        let keys = keys.ok_or(TokenFault::KeysUnavailable)?;
        if !keys.knows(kid) {
            return Err(TokenFault::UnknownKey);
        }
        // Named, and for another algorithm: the name alone is right.
        let mut verdict = Err(if kid.is_some() { TokenFault::Algorithm } else { TokenFault::UnknownKey });
        for key in keys.fitting(algorithm, kid).take(TRIED_MAX) {
            verdict = self.signed_claims(algorithm, key);
            if verdict != Err(TokenFault::Signature) {
                break;
            }
        }
        let claims = verdict?;
        check_times(&claims, rules.leeway, now)?;
        check_parties(&claims, rules)?;
        Ok(Identity { user: Some(user(&claims, rules)?), team: team(&claims, rules)?, key: None })
    }

    /// The algorithm, which the configuration must name: what a token says of itself opens nothing.
    fn algorithm(&self, rules: &JwtRules) -> Result<Algorithm, TokenFault> {
        let Some(word) = self.header.get("alg").and_then(Value::as_str) else { return Err(TokenFault::Malformed) };
        if word.eq_ignore_ascii_case("none") || !self.is_signed {
            return Err(TokenFault::Unsigned);
        }
        let known = Algorithm::from_str(word).ok().filter(|algorithm| rules.algorithms.contains(algorithm));
        known.ok_or(TokenFault::Algorithm)
    }

    /// The claims, if `key` signed them. Their meaning is checked here and not by the library, whose clock is its own.
    fn signed_claims(&self, algorithm: Algorithm, key: &SigningKey) -> Result<Map<String, Value>, TokenFault> {
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        decode(self.text, &key.key, &validation).map(|token| token.claims).map_err(|error| match error.kind() {
            ErrorKind::Base64(_) | ErrorKind::Json(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidToken => {
                TokenFault::Malformed
            }
            // A key that is none, as a point beside its curve, signed nothing either.
            _ => TokenFault::Signature,
        })
    }
}

/// `exp`, which must be there, and `nbf`, which may be.
fn check_times(claims: &Map<String, Value>, leeway: Duration, now: Duration) -> Result<(), TokenFault> {
    let (now, leeway) = (now.as_secs_f64(), leeway.as_secs_f64());
    let seconds = |claim: &str| match claims.get(claim) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(TokenFault::Malformed),
    };
    match seconds("exp")? {
        None => return Err(TokenFault::NoExpiry),
        Some(end) if now >= end + leeway => return Err(TokenFault::Expired),
        Some(_) => {}
    }
    match seconds("nbf")? {
        Some(start) if now + leeway < start => Err(TokenFault::NotYetValid),
        _ => Ok(()),
    }
}

/// `iss` and `aud`, where the configuration says what they must be.
fn check_parties(claims: &Map<String, Value>, rules: &JwtRules) -> Result<(), TokenFault> {
    let issuer = claims.get("iss").and_then(Value::as_str);
    if rules.issuer.as_deref().is_some_and(|wanted| issuer != Some(wanted)) {
        return Err(TokenFault::Issuer);
    }
    match &rules.audience {
        Some(wanted) if !texts(claims.get("aud")).any(|audience| audience == wanted) => Err(TokenFault::Audience),
        _ => Ok(()),
    }
}

fn user(claims: &Map<String, Value>, rules: &JwtRules) -> Result<Arc<str>, TokenFault> {
    let named = claims.get(&rules.user_claim).and_then(Value::as_str).filter(|name| is_name(name));
    named.map(Arc::from).ok_or_else(|| TokenFault::NoUser(rules.user_claim.clone()))
}

/// The first team that the token names and that may call. Where any may, a token need not name one.
fn team(claims: &Map<String, Value>, rules: &JwtRules) -> Result<Option<Arc<str>>, TokenFault> {
    let Some(claim) = &rules.team_claim else { return Ok(None) };
    let is_let_in = |team: &&str| rules.teams.is_empty() || rules.teams.iter().any(|other| other == team);
    match texts(claims.get(claim)).filter(|team| is_name(team)).find(is_let_in) {
        Some(team) => Ok(Some(Arc::from(team))),
        None if rules.teams.is_empty() => Ok(None),
        None => Err(TokenFault::Team),
    }
}

/// A claim that is a text, or a list of them.
fn texts(claim: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = match claim {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    list.iter().filter_map(Value::as_str)
}

fn is_name(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= NAME_MAX && !text.chars().any(char::is_control)
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
