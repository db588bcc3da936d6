//! `[identity]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, AlgorithmFamily};

use super::super::address::{Endpoint, EndpointAddress};
use super::super::file::{AlgorithmWord, IdentityTable, JwtTable, KeyTable};
use super::super::grammar::is_token;
use super::super::identity::{ApiKey, IdentityRules, JwtKeys, JwtRules, KeyHash, KeySet, USER_HEADER};
use super::super::read::Readable;
use super::super::units::{At, Table};
use super::Checker;

/// Longest name of a user or team, in bytes.
const NAME_MAX: usize = 256;

/// Shortest secret of HMAC tokens, in bytes: as long as the shortest hash (RFC 7518, section 3.2). Shorter ones can be
/// guessed from any one token.
const SECRET_MIN: usize = 32;

const LEEWAY: Duration = Duration::from_secs(60);
const USER_CLAIM: &str = "sub";
const PUBLIC_ALGORITHMS: [Algorithm; 2] = [Algorithm::RS256, Algorithm::ES256];
const SECRET_ALGORITHMS: [Algorithm; 1] = [Algorithm::HS256];

/// Headers that mean something else.
const TAKEN: [&str; 7] =
    ["authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "host", "x-forwarded-for"];

impl Checker<'_> {
    pub(super) fn identity(&mut self, table: &Table<IdentityTable>, readable: &Readable) -> IdentityRules {
        let file = &table.value;
        IdentityRules {
            required: file.required.as_ref().is_some_and(|at| at.value),
            user_header: file.user_header.as_ref().map_or(USER_HEADER.to_owned(), |at| self.user_header(at)),
            jwt: file.jwt.as_ref().and_then(|jwt| self.jwt(jwt, readable)),
            keys: self.keys(&file.key, readable),
        }
    }

    /// Says so where nobody could call: a caller must be known, and nothing makes one known.
    pub(super) fn way_in(&mut self, readable: &Readable) {
        let Some(table) = &readable.file.identity else { return };
        let Some(required) = table.value.required.as_ref().filter(|at| at.value) else { return };
        let server = readable.file.server.as_ref();
        let is_known_somehow = table.value.jwt.is_some()
            || !table.value.key.is_empty()
            || server.is_some_and(|server| !server.value.trusted_proxies.is_empty());
        let may_have_lost_one = readable.may_have_lost(&table.span, &["jwt", "key"])
            || readable.is_table_lost("server")
            || server.is_some_and(|server| readable.may_have_lost(&server.span, &["trusted_proxies"]));
        if !is_known_somehow && !may_have_lost_one {
            let message = "`required`: nobody could call, for nothing says who anybody is: add [[identity.key]] \
                           (`streamgauge key new --user NAME` prints one), [identity.jwt], or `server.trusted_proxies` \
                           for a proxy that names the user";
            self.problem(&required.span, message);
        }
    }

    fn user_header(&mut self, at: &At<String>) -> String {
        let name = at.value.to_ascii_lowercase();
        if !is_token(name.as_bytes()) || name.contains('_') {
            self.problem(&at.span, "`user_header` is a header's name, without underscores, as \"x-user-id\"");
        } else if TAKEN.contains(&name.as_str()) {
            self.problem(&at.span, format!("`user_header`: {name} means something else; take one of its own"));
        }
        name
    }

    fn jwt(&mut self, table: &Table<JwtTable>, readable: &Readable) -> Option<JwtRules> {
        let file = &table.value;
        let keys = self.jwt_keys(table, readable);
        let is_secret = file.secret_env.is_some() && file.jwks_file.is_none() && file.jwks_url.is_none();
        let is_part_lost = readable.may_have_lost(&table.span, &["algorithms"]);
        let algorithms = self.algorithms(file.algorithms.as_ref(), is_secret, is_part_lost);
        if let (None, Some(at)) = (&file.team_claim, &file.teams)
            && !readable.is_lost(&table.span, "team_claim")
        {
            self.problem(&at.span, "`teams` says which teams may call, and without `team_claim` no token names one");
        }
        let rules = JwtRules {
            algorithms,
            issuer: self.filled("issuer", file.issuer.as_ref()),
            audience: self.filled("audience", file.audience.as_ref()),
            leeway: self.duration(file.leeway.as_ref(), LEEWAY),
            user_claim: self.filled("user_claim", file.user_claim.as_ref()).unwrap_or_else(|| USER_CLAIM.to_owned()),
            team_claim: self.filled("team_claim", file.team_claim.as_ref()),
            teams: self.teams(file.teams.as_ref()),
            keys: keys?,
        };
        Some(rules)
    }

    fn jwt_keys(&mut self, table: &Table<JwtTable>, readable: &Readable) -> Option<JwtKeys> {
        let file = &table.value;
        match (&file.jwks_file, &file.jwks_url, &file.secret_env) {
            (Some(at), None, None) => self.jwks_file(at),
            (None, Some(at), None) => self.jwks_url(at),
            (None, None, Some(at)) => self.jwt_secret(at),
            (None, None, None) => {
                if !readable.may_have_lost(&table.span, &["jwks_file", "jwks_url", "secret_env"]) {
                    let message = "where are the keys that tokens are signed with? Write `jwks_file`, `jwks_url` or \
                                   `secret_env`";
                    self.problem(&table.span, message);
                }
                None
            }
            (file, url, secret) => {
                let second = [file, url, secret].into_iter().flatten().nth(1).map_or(0..0, |at| at.span.clone());
                self.problem(&second, "keep one of `jwks_file`, `jwks_url` and `secret_env`");
                None
            }
        }
    }

    fn jwks_file(&mut self, at: &At<String>) -> Option<JwtKeys> {
        let path = self.path(&at.value);
        let shown = path.display().to_string();
        let set = self
            .read(&path)
            .and_then(|text| KeySet::parse(text.as_bytes()).map_err(|wrong| format!("`jwks_file`: {shown} {wrong}")));
        self.checked(&at.span, set).map(|set| JwtKeys::File(path, Arc::new(set)))
    }

    fn jwks_url(&mut self, at: &At<String>) -> Option<JwtKeys> {
        let parsed = at.value.parse::<Endpoint>().map_err(|wrong| format!("`jwks_url`: {wrong}"));
        let endpoint = self.checked(&at.span, parsed)?;
        match &endpoint.address {
            EndpointAddress::Unix(_) => self.problem(&at.span, "`jwks_url` is an https:// or http:// url"),
            EndpointAddress::Tcp { host, .. } if !endpoint.tls && !is_near(host) => {
                let message =
                    "`jwks_url`: over plain http anyone on the way could put keys of their own in: write https://";
                self.problem(&at.span, message);
            }
            EndpointAddress::Tcp { .. } => {}
        }
        Some(JwtKeys::Url(endpoint))
    }

    fn jwt_secret(&mut self, at: &At<String>) -> Option<JwtKeys> {
        let secret = self.secret_from_env(at)?;
        if secret.expose().len() < SECRET_MIN {
            let message = format!(
                "`secret_env`: the secret is shorter than {SECRET_MIN} bytes and can be guessed from a token: make one \
                 with `openssl rand -hex 32`"
            );
            self.problem(&at.span, message);
        }
        Some(JwtKeys::Secret(Arc::new(KeySet::of_secret(&secret))))
    }

    fn algorithms(
        &mut self,
        written: Option<&At<Vec<At<AlgorithmWord>>>>,
        is_secret: bool,
        is_part_lost: bool,
    ) -> Vec<Algorithm> {
        let Some(list) = written else {
            return if is_secret { SECRET_ALGORITHMS.to_vec() } else { PUBLIC_ALGORITHMS.to_vec() };
        };
        if list.value.is_empty() && !is_part_lost {
            self.problem(
                &list.span,
                "`algorithms` is empty, so that no token would pass: leave it out for the default",
            );
        }
        for at in &list.value {
            let algorithm = at.value.algorithm();
            let is_hmac = algorithm.family() == AlgorithmFamily::Hmac;
            if is_hmac && !is_secret {
                let message = format!(
                    "`algorithms`: {algorithm:?} signs with a shared secret. With public keys anyone could sign: write \
                     what the keys are for, as \"RS256\""
                );
                self.problem(&at.span, message);
            } else if !is_hmac && is_secret {
                let message = format!(
                    "`algorithms`: {algorithm:?} needs public keys, and `secret_env` is for HS256, HS384 and HS512"
                );
                self.problem(&at.span, message);
            }
        }
        list.value.iter().map(|at| at.value.algorithm()).collect()
    }

    fn teams(&mut self, written: Option<&At<Vec<At<String>>>>) -> Vec<String> {
        let Some(list) = written else { return Vec::new() };
        if list.value.is_empty() {
            self.problem(&list.span, "`teams` is empty, so that nobody could call: leave it out to let every team in");
        }
        list.value.iter().filter_map(|at| self.filled("teams", Some(at))).collect()
    }

    fn keys(&mut self, tables: &[Table<KeyTable>], readable: &Readable) -> BTreeMap<KeyHash, ApiKey> {
        let mut keys = BTreeMap::new();
        for table in tables {
            let file = &table.value;
            let user = self.filled("user", file.user.as_ref()).map(Arc::from);
            let team = self.filled("team", file.team.as_ref()).map(Arc::from);
            let is_anonymous = file.user.is_none() && file.team.is_none();
            if is_anonymous && !readable.may_have_lost(&table.span, &["user", "team"]) {
                self.problem(&table.span, "whose key is this? Write its `user`, its `team`, or both");
            }
            let Some(at) = &file.hash else {
                if !readable.is_lost(&table.span, "hash") {
                    self.problem(&table.span, "this key has no `hash`: `streamgauge key new --user NAME` prints one");
                }
                continue;
            };
            let parsed = at.value.parse::<KeyHash>().map_err(|wrong| format!("`hash`: {wrong}"));
            let Some(hash) = self.checked(&at.span, parsed) else { continue };
            if keys.insert(hash, ApiKey { user, team, id: hash.id() }).is_some() {
                self.problem(&at.span, "`hash`: another [[identity.key]] has the same; a key stands for one caller");
            }
        }
        keys
    }

    /// A text that says something, and that headers and logs can carry.
    fn filled(&mut self, key: &str, written: Option<&At<String>>) -> Option<String> {
        let at = written?;
        if at.value.trim().is_empty() {
            self.problem(&at.span, format!("`{key}` is empty: leave it out, or fill it in"));
        } else if at.value.len() > NAME_MAX || at.value.chars().any(char::is_control) {
            self.problem(&at.span, format!("`{key}`: at most {NAME_MAX} bytes, without control characters"));
        }
        Some(at.value.clone())
    }
}

/// This machine, a private network, or a name without dots, as containers call each other: nobody strange is on the way.
fn is_near(host: &str) -> bool {
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(v4)) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        Ok(IpAddr::V6(v6)) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
        Err(_) => !host.contains('.'),
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
