//! `[identity.jwt]`: which tokens of an identity provider are believed, and what is read of them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::keyset::KeySet;
use crate::config::address::{Endpoint, EndpointAddress};
use crate::config::checker::Checker;
use crate::config::secret::MASK;
use crate::config::units::{At, DurationText, Table};
use crate::config::view::Shown;

/// Shortest secret of HMAC tokens, in bytes: as long as the shortest hash (RFC 7518, section 3.2). Shorter ones can be
/// guessed from any one token.
const SECRET_MIN: usize = 32;

const LEEWAY: Duration = Duration::from_secs(60);
const USER_CLAIM: &str = "sub";
pub(super) const PUBLIC_ALGORITHMS: [Algorithm; 2] = [Algorithm::RS256, Algorithm::ES256];
pub(super) const SECRET_ALGORITHMS: [Algorithm; 1] = [Algorithm::HS256];

/// Bearer tokens of an identity provider. Their keys come from one of jwks_file, jwks_url and secret_env.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtTable {
    /// A file with the public keys (JWKS), relative to the configuration file; it is read again when it changes.
    pub jwks_file: Option<At<String>>,
    /// The URL from which the public keys (JWKS) are fetched regularly.
    pub jwks_url: Option<At<String>>,
    /// The environment variable with the secret that HS256, HS384 or HS512 tokens are signed with.
    pub secret_env: Option<At<String>>,
    /// The only accepted signature algorithms. With secret_env the default is ["HS256"].
    #[schemars(with = "Option<Vec<AlgorithmWord>>", extend("default" = ["RS256", "ES256"]))]
    pub algorithms: Option<At<Vec<At<Algorithm>>>>,
    /// What `iss` must be. Absent: anything.
    pub issuer: Option<At<String>>,
    /// What `aud` must contain. Absent: anything, so that tokens for other services are accepted too.
    pub audience: Option<At<String>>,
    /// How far the issuer's clock may differ from ours.
    #[schemars(extend("default" = "60s"))]
    pub leeway: Option<At<DurationText>>,
    /// The claim that names the user.
    #[schemars(extend("default" = "sub"))]
    pub user_claim: Option<At<String>>,
    /// The claim that names the team, or lists teams.
    pub team_claim: Option<At<String>>,
    /// The teams that may call. Absent: any.
    pub teams: Option<At<Vec<At<String>>>>,
}

// The words of `Algorithm`.
#[derive(JsonSchema)]
#[schemars(inline)]
#[expect(dead_code, reason = "stands for a type in the schema")]
enum AlgorithmWord {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// `[identity.jwt]`: which tokens are believed, and what is read of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JwtRules {
    #[serde(flatten)]
    pub keys: JwtKeys,
    /// Never empty. HMAC alone with a secret, and never with public keys: who knows a public key could sign with it.
    pub algorithms: Vec<Algorithm>,
    pub issuer: Option<String>,
    /// Absent: tokens for anyone are taken.
    pub audience: Option<String>,
    /// How far the issuer's clock may differ.
    #[serde(serialize_with = "Shown::shown")]
    pub leeway: Duration,
    pub user_claim: String,
    pub team_claim: Option<String>,
    /// The teams that may call; empty: any.
    pub teams: Vec<String>,
}

/// Where the keys are that tokens must be signed with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum JwtKeys {
    #[serde(rename = "secret", serialize_with = "masked")]
    Secret(Arc<KeySet>),
    #[serde(rename = "jwks_file", serialize_with = "path_alone")]
    File(PathBuf, Arc<KeySet>),
    /// Fetched in the background. The endpoint's base path is the whole path.
    #[serde(rename = "jwks_url")]
    Url(Endpoint),
}

fn masked<S: Serializer>(_: &KeySet, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(MASK)
}

fn path_alone<S: Serializer>(path: &Path, _: &KeySet, to: S) -> Result<S::Ok, S::Error> {
    path.serialize(to)
}

impl Checker<'_> {
    pub fn jwt(&mut self, table: &Table<JwtTable>) -> Option<JwtRules> {
        let file = &table.value;
        let keys = self.jwt_keys(table);
        let is_secret = file.secret_env.is_some() && file.jwks_file.is_none() && file.jwks_url.is_none();
        let is_part_lost = self.lost.may_have_lost(&table.span, &["algorithms"]);
        let algorithms = self.algorithms(file.algorithms.as_ref(), is_secret, is_part_lost);
        if let (None, Some(at)) = (&file.team_claim, &file.teams)
            && !self.lost.is_lost(&table.span, "team_claim")
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

    fn jwt_keys(&mut self, table: &Table<JwtTable>) -> Option<JwtKeys> {
        let file = &table.value;
        match (&file.jwks_file, &file.jwks_url, &file.secret_env) {
            (Some(at), None, None) => self.jwks_file(at),
            (None, Some(at), None) => self.jwks_url(at),
            (None, None, Some(at)) => self.jwt_secret(at),
            (None, None, None) => {
                if !self.lost.may_have_lost(&table.span, &["jwks_file", "jwks_url", "secret_env"]) {
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
        written: Option<&At<Vec<At<Algorithm>>>>,
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
            let algorithm = at.value;
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
        list.value.iter().map(|at| at.value).collect()
    }

    fn teams(&mut self, written: Option<&At<Vec<At<String>>>>) -> Vec<String> {
        let Some(list) = written else { return Vec::new() };
        if list.value.is_empty() {
            self.problem(&list.span, "`teams` is empty, so that nobody could call: leave it out to let every team in");
        }
        list.value.iter().filter_map(|at| self.filled("teams", Some(at))).collect()
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
