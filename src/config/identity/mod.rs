//! `[identity]`, checked: which credentials say who calls.

mod keyset;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use jsonwebtoken::Algorithm;
pub use keyset::{KeySet, SigningKey};
use sha2::{Digest, Sha256};

use super::address::Endpoint;

/// How each of our keys begins, so that it is known for one wherever it turns up.
pub const KEY_PREFIX: &str = "sg-";

/// The header that a user's name comes in where nothing else is said.
pub const USER_HEADER: &str = "x-user-id";

/// How each hash in the file begins.
const HASH_PREFIX: &str = "sha256:";

/// `[identity]`.
#[derive(Debug, Clone, PartialEq)]
pub struct IdentityRules {
    /// Who cannot be told is refused.
    pub required: bool,
    /// The header in which trusted proxies name the user, in lower case.
    pub user_header: String,
    pub jwt: Option<JwtRules>,
    pub keys: BTreeMap<KeyHash, ApiKey>,
}

/// `[identity.jwt]`: which tokens are believed, and what is read of them.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtRules {
    pub keys: JwtKeys,
    /// Never empty. HMAC alone with a secret, and never with public keys: who knows a public key could sign with it.
    pub algorithms: Vec<Algorithm>,
    pub issuer: Option<String>,
    /// Absent: tokens for anyone are taken.
    pub audience: Option<String>,
    /// How far the issuer's clock may differ.
    pub leeway: Duration,
    pub user_claim: String,
    pub team_claim: Option<String>,
    /// The teams that may call; empty: any.
    pub teams: Vec<String>,
}

/// Where the keys are that tokens must be signed with.
#[derive(Debug, Clone, PartialEq)]
pub enum JwtKeys {
    Secret(Arc<KeySet>),
    File(PathBuf, Arc<KeySet>),
    /// Fetched in the background. The endpoint's base path is the whole path.
    Url(Endpoint),
}

/// Whom one of our API keys stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub user: Option<Arc<str>>,
    pub team: Option<Arc<str>>,
    /// Its public id: the first 12 hex digits of its hash.
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
