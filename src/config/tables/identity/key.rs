//! `[[identity.key]]`: an API key of our own, and whom it stands for.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::checker::Checker;
use crate::config::units::{At, Table};
use crate::config::view::Shown;

/// How each of our keys begins, so that it is known for one wherever it turns up.
pub const KEY_PREFIX: &str = "sg-";

/// How each hash in the file begins.
const HASH_PREFIX: &str = "sha256:";

/// One API key and whom it stands for: a user, a team, or both.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyTable {
    /// The user's name. Absent: a trusted proxy names the user.
    pub user: Option<At<String>>,
    /// The team's name.
    pub team: Option<At<String>>,
    /// "sha256:" and 64 hex digits. The key itself is not stored.
    #[schemars(required)]
    pub hash: Option<At<String>>,
}

/// Whom one of our API keys stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiKey {
    #[serde(serialize_with = "Shown::shown")]
    pub user: Option<Arc<str>>,
    #[serde(serialize_with = "Shown::shown")]
    pub team: Option<Arc<str>>,
    /// Its public id: the first 12 hex digits of its hash.
    #[serde(serialize_with = "Shown::shown")]
    pub id: Arc<str>,
}

/// The SHA-256 of an API key: all that is kept of it. Keys are random, so that a hash without salt or stretching gives
/// nothing away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Of a key as a client sends it.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// The first 12 hex digits: enough to tell keys apart, in logs and limits.
    pub fn id(&self) -> Arc<str> {
        /// Of two digits each.
        const BYTES: usize = 6;
        Arc::from(hex(self.0.iter().take(BYTES)))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HASH_PREFIX}{}", hex(self.0.iter()))
    }
}

impl FromStr for KeyHash {
    /// The words that say what is wrong. They never repeat the text: it may be a key.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with(KEY_PREFIX) {
            return Err(
                "this is a key itself, and its hash belongs here. Whoever read this file may know the key: take \
                        a new one from `streamgauge key new`"
                    .to_owned(),
            );
        }
        let wrong = || "a hash is \"sha256:\" and 64 hex digits, as `streamgauge key new` prints it".to_owned();
        let digits = text.strip_prefix(HASH_PREFIX).filter(|digits| digits.len() == 64).ok_or_else(wrong)?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair =
                std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
            *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong)?;
        }
        Ok(Self(hash))
    }
}

fn hex<'a>(bytes: impl Iterator<Item = &'a u8>) -> String {
    bytes.fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Checker<'_> {
    pub fn keys(&mut self, tables: &[Table<KeyTable>]) -> BTreeMap<KeyHash, ApiKey> {
        let mut keys = BTreeMap::new();
        for table in tables {
            let file = &table.value;
            let user = self.filled("user", file.user.as_ref()).map(Arc::from);
            let team = self.filled("team", file.team.as_ref()).map(Arc::from);
            let is_anonymous = file.user.is_none() && file.team.is_none();
            if is_anonymous && !self.lost.may_have_lost(&table.span, &["user", "team"]) {
                self.problem(&table.span, "whose key is this? Write its `user`, its `team`, or both");
            }
            let missing = "this key has no `hash`: `streamgauge key new --user NAME` prints one";
            let Some(at) = self.needed(table, "hash", file.hash.as_ref(), missing) else { continue };
            let parsed = at.value.parse::<KeyHash>().map_err(|wrong| format!("`hash`: {wrong}"));
            let Some(hash) = self.checked(&at.span, parsed) else { continue };
            if keys.insert(hash, ApiKey { user, team, id: hash.id() }).is_some() {
                self.problem(&at.span, "`hash`: another [[identity.key]] has the same; a key stands for one caller");
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_as_they_are_written() {
        let hash = KeyHash::of("sg-canary");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string().to_uppercase().replace("SHA256", "sha256").parse(), Ok(hash));
        assert!(hash.to_string().starts_with(&format!("sha256:{}", hash.id())));
        assert_eq!(hash.id().len(), 12);
        assert_ne!(hash, KeyHash::of("sg-canarz"));
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(KeyHash::of("").to_string(), empty, "it is SHA-256");
    }

    #[test]
    fn what_is_no_hash_is_told_and_never_repeated() {
        let short = &KeyHash::of("x").to_string()[..70];
        let signed = format!("sha256:{}", "+1".repeat(32));
        for wrong in ["", "canary", "sha256:", "md5:canary", short, &signed] {
            let said = wrong.parse::<KeyHash>().unwrap_err();
            assert!(said.contains("64 hex digits") && !said.contains("canary"), "{said}");
        }
        let said = "sg-canary".parse::<KeyHash>().unwrap_err();
        assert!(said.contains("key new") && !said.contains("canary"), "{said}");
    }
}
