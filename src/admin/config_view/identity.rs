//! `[identity]` as JSON. Of a key only its public id is shown, of a secret nothing.

use serde_json::{Value, json};

use super::{duration, url};
use crate::config::identity::{ApiKey, IdentityRules, JwtKeys, JwtRules};

pub(super) fn identity(rules: &IdentityRules) -> Value {
    json!({
        "required": rules.required,
        "user_header": rules.user_header,
        "jwt": rules.jwt.as_ref().map(jwt),
        "key": rules.keys.values().map(key).collect::<Vec<_>>(),
    })
}

fn jwt(rules: &JwtRules) -> Value {
    let (file, url, secret) = match &rules.keys {
        JwtKeys::File(path, _) => (Some(path), None, None),
        JwtKeys::Url(endpoint) => (None, Some(url(endpoint)), None),
        JwtKeys::Secret(_) => (None, None, Some("***")),
    };
    json!({
        "jwks_file": file,
        "jwks_url": url,
        "secret": secret,
        "algorithms": rules.algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect::<Vec<_>>(),
        "issuer": rules.issuer,
        "audience": rules.audience,
        "leeway": duration(rules.leeway),
        "user_claim": rules.user_claim,
        "team_claim": rules.team_claim,
        "teams": rules.teams,
    })
}

fn key(key: &ApiKey) -> Value {
    json!({ "id": &*key.id, "user": key.user.as_deref(), "team": key.team.as_deref() })
}
