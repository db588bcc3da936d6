//! `[identity]` as written.

use jsonwebtoken::Algorithm;
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::units::{At, DurationText, Table};

/// Which credentials say who calls. Absent: a trusted proxy's x-user-id alone, and all other credentials pass untouched.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityTable {
    /// Refuse requests of which nobody can tell who sent them.
    #[schemars(extend("default" = false))]
    pub required: Option<At<bool>>,
    /// The header in which trusted_proxies name the user.
    #[schemars(extend("default" = "x-user-id"))]
    pub user_header: Option<At<String>>,
    pub jwt: Option<Table<JwtTable>>,
    /// API keys of our own, as `streamgauge key new` prints them.
    #[serde(default)]
    pub key: Vec<Table<KeyTable>>,
}

/// Bearer tokens of an identity provider. Their keys come from one of jwks_file, jwks_url and secret_env.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtTable {
    /// A file with the public keys (JWKS), relative to the configuration file; it is read again when it changes.
    pub jwks_file: Option<At<String>>,
    /// Where the public keys (JWKS) are fetched, again and again.
    pub jwks_url: Option<At<String>>,
    /// The environment variable with the secret that HS256, HS384 or HS512 tokens are signed with.
    pub secret_env: Option<At<String>>,
    /// The only signatures that are taken. With secret_env the default is ["HS256"].
    #[schemars(extend("default" = ["RS256", "ES256"]))]
    pub algorithms: Option<At<Vec<At<AlgorithmWord>>>>,
    /// What `iss` must be. Absent: anything.
    pub issuer: Option<At<String>>,
    /// What `aud` must hold. Absent: anything, so that tokens for other services are taken too.
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

/// One API key and whom it stands for: a user, a team, or both.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyTable {
    /// The user's name. Absent: a trusted proxy names the user.
    pub user: Option<At<String>>,
    /// The team's name.
    pub team: Option<At<String>>,
    /// "sha256:" and 64 hex digits. The key itself is kept nowhere.
    #[schemars(required)]
    pub hash: Option<At<String>>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum AlgorithmWord {
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

impl AlgorithmWord {
    pub fn algorithm(self) -> Algorithm {
        match self {
            Self::HS256 => Algorithm::HS256,
            Self::HS384 => Algorithm::HS384,
            Self::HS512 => Algorithm::HS512,
            Self::RS256 => Algorithm::RS256,
            Self::RS384 => Algorithm::RS384,
            Self::RS512 => Algorithm::RS512,
            Self::PS256 => Algorithm::PS256,
            Self::PS384 => Algorithm::PS384,
            Self::PS512 => Algorithm::PS512,
            Self::ES256 => Algorithm::ES256,
            Self::ES384 => Algorithm::ES384,
            Self::EdDSA => Algorithm::EdDSA,
        }
    }
}
