//! `[identity]`: which credentials say who calls.

mod jwt;
mod key;
mod keyset;

use std::collections::BTreeMap;

pub use jsonwebtoken::Algorithm;
pub use jwt::{JwtKeys, JwtRules, JwtTable};
pub use key::{ApiKey, KEY_PREFIX, KeyHash, KeyTable};
pub use keyset::{KeySet, SigningKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::config::checker::Checker;
use crate::config::grammar::is_token;
use crate::config::units::{At, Table, Written};

/// The header that a user's name comes in where nothing else is said.
pub const USER_HEADER: &str = "x-user-id";

/// Headers that mean something else.
const TAKEN: [&str; 7] =
    ["authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "host", "x-forwarded-for"];

/// Authentication. Absent: only a trusted proxy's x-user-id, and all credentials are passed on unchanged.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityTable {
    /// Refuse requests without a valid credential.
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

/// `[identity]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IdentityRules {
    /// Who cannot be told is refused.
    pub required: bool,
    /// The header in which trusted proxies name the user, in lower case.
    pub user_header: String,
    pub jwt: Option<JwtRules>,
    #[serde(rename = "key", serialize_with = "callers")]
    pub keys: BTreeMap<KeyHash, ApiKey>,
}

impl Checker<'_> {
    pub fn identity(&mut self, table: &Table<IdentityTable>) -> IdentityRules {
        let file = &table.value;
        IdentityRules {
            required: file.required.value_or_default(),
            user_header: file.user_header.as_ref().map_or(USER_HEADER.to_owned(), |at| self.user_header(at)),
            jwt: file.jwt.as_ref().and_then(|jwt| self.jwt(jwt)),
            keys: self.keys(&file.key),
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
}

/// Whom the keys stand for.
fn callers<S: Serializer>(keys: &BTreeMap<KeyHash, ApiKey>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(keys.values())
}

#[cfg(test)]
mod tests;
