//! The keys that tokens are signed with: a JSON Web Key Set (RFC 7517), or one secret.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::config::secret::Secret;

/// Most keys that a set may hold. Providers publish two or three.
const KEYS_MAX: usize = 100;

/// RSA keys, in bytes: shorter ones can be broken (RFC 7518, section 3.3), longer ones cost too much to verify with.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// Keys to verify with. Compares by the keys' texts.
#[derive(Debug, Clone, PartialEq)]
pub struct KeySet(Vec<SigningKey>);

/// One key and what it may be used for.
#[derive(Debug, Clone)]
pub struct SigningKey {
    kid: Option<String>,
    kind: Kind,
    /// The one algorithm that its publisher allows.
    pinned: Option<Algorithm>,
    pub key: DecodingKey,
    fingerprint: [u8; 32],
}

/// What a key is, and so which algorithms there are for it. A key is never used for another kind's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Reads a JWKS. Keys that are for something else, or of a kind unknown here, are passed over.
    ///
    /// # Errors
    /// The words that say what is wrong with the set.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(text)
            .map_err(|_| "is not a JWKS: JSON as {\"keys\": [{\"kty\": …}, …]}".to_owned())?;
        if document.keys.len() > KEYS_MAX {
            return Err(format!("holds more than {KEYS_MAX} keys"));
        }
        if document.keys.iter().any(|key| key.get("kty").is_some_and(|kind| kind == "oct")) {
            return Err("holds a symmetric key, which is a secret and belongs into `secret_env`".to_owned());
        }
        let keys: Vec<SigningKey> = document.keys.into_iter().filter_map(SigningKey::read).collect();
        if keys.is_empty() {
            return Err("holds no key to verify tokens with: RSA of 2048 to 4096 bits, EC P-256 or P-384, or Ed25519"
                .to_owned());
        }
        Ok(Self(keys))
    }

    /// The one secret of HMAC tokens.
    pub fn of_secret(secret: &Secret) -> Self {
        let bytes = secret.expose().as_bytes();
        let key = DecodingKey::from_secret(bytes);
        Self(vec![SigningKey {
            kid: None,
            kind: Kind::Secret,
            pinned: None,
            key,
            fingerprint: Sha256::digest(bytes).into(),
        }])
    }

    /// The keys that a token with this header may be signed with.
    pub fn fitting(&self, algorithm: Algorithm, kid: Option<&str>) -> impl Iterator<Item = &SigningKey> {
        self.named(kid).filter(move |key| key.fits(algorithm))
    }

    /// Whether there is a key that a token with this `kid` means.
    pub fn knows(&self, kid: Option<&str>) -> bool {
        self.named(kid).next().is_some()
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// A token without a `kid` may mean any key; a secret has no name, whatever a token calls it.
    fn named(&self, kid: Option<&str>) -> impl Iterator<Item = &SigningKey> {
        self.0.iter().filter(move |key| kid.is_none() || key.kind == Kind::Secret || key.kid.as_deref() == kid)
    }
}

impl SigningKey {
    fn read(value: serde_json::Value) -> Option<Self> {
        let fingerprint = Sha256::digest(value.to_string().as_bytes()).into();
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let for_signatures =
            jwk.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        let operations = jwk.common.key_operations.as_ref();
        if !for_signatures || operations.is_some_and(|all| !all.contains(&KeyOperations::Verify)) {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let kind = kind(&jwk, &key)?;
        let pinned = match jwk.common.key_algorithm {
            // One that is not for signatures pins the key to nothing of ours.
            Some(algorithm) => Some(Algorithm::try_from(algorithm).ok()?),
            None => None,
        };
        Some(Self { kid: jwk.common.key_id, kind, pinned, key, fingerprint })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let is_kind = match self.kind {
            Kind::Secret => algorithm.family() == AlgorithmFamily::Hmac,
            Kind::Rsa => algorithm.family() == AlgorithmFamily::Rsa,
            Kind::P256 => algorithm == Algorithm::ES256,
            Kind::P384 => algorithm == Algorithm::ES384,
            Kind::Ed25519 => algorithm == Algorithm::EdDSA,
        };
        is_kind && self.pinned.is_none_or(|pinned| pinned == algorithm)
    }
}

fn kind(jwk: &Jwk, key: &DecodingKey) -> Option<Kind> {
    let bytes = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => n.iter().skip_while(|byte| **byte == 0).count(),
        DecodingKeyKind::SecretOrDer(bytes) => bytes.len(),
    };
    match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA_BYTES.contains(&bytes).then_some(Kind::Rsa),
        // A point in full, with the byte that says so in front.
        AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
            EllipticCurve::P256 => (bytes == 65).then_some(Kind::P256),
            EllipticCurve::P384 => (bytes == 97).then_some(Kind::P384),
            _ => None,
        },
        AlgorithmParameters::OctetKeyPair(pair) => {
            (pair.curve == EllipticCurve::Ed25519 && bytes == 32).then_some(Kind::Ed25519)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ec(more: serde_json::Value) -> serde_json::Value {
        let coordinate = "A".repeat(43);
        let mut key = json!({ "kty": "EC", "crv": "P-256", "x": coordinate, "y": coordinate });
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key
    }

    fn set(keys: &[serde_json::Value]) -> Result<KeySet, String> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn what_is_not_for_signatures_is_passed_over() {
        let usable = ec(json!({ "kid": "a" }));
        let others = [
            ec(json!({ "use": "enc" })),
            ec(json!({ "key_ops": ["deriveKey"] })),
            ec(json!({ "crv": "P-521" })),
            ec(json!({ "crv": "secp256k1" })),
            ec(json!({ "x": "AAAA" })),
            ec(json!({ "alg": "RSA-OAEP" })),
            ec(json!({ "kid": 5 })),
            json!({ "kty": "RSA", "n": "A".repeat(342), "e": "AQAB" }),
            json!({ "kty": "RSA", "n": "w".repeat(170), "e": "AQAB" }),
            json!({ "kty": "OKP", "crv": "X25519", "x": "A".repeat(43) }),
            json!({ "kty": "new" }),
            json!(7),
        ];
        for other in others {
            assert!(set(std::slice::from_ref(&other)).unwrap_err().contains("no key to verify"), "{other}");
            assert_eq!(set(&[other, usable.clone()]).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_set_that_cannot_be_right_is_refused_with_words() {
        let parse = |text: &str| KeySet::parse(text.as_bytes()).unwrap_err();
        for text in ["", "[]", "{}", "<html>", "{\"keys\": 5}"] {
            assert!(parse(text).contains("not a JWKS"), "{text}");
        }
        let oct = json!({ "kty": "oct", "k": "canary" });
        let said = set(&[ec(json!({})), oct]).unwrap_err();
        assert!(said.contains("secret_env") && !said.contains("canary"), "{said}");
        assert!(set(&vec![ec(json!({})); 101]).unwrap_err().contains("more than 100"));
    }

    #[test]
    fn keys_are_used_for_what_they_are_and_what_they_are_called() {
        let two = set(&[ec(json!({ "kid": "a", "alg": "ES256" })), ec(json!({ "kid": "b", "key_ops": ["verify"] }))])
            .unwrap();
        let count = |algorithm, kid| two.fitting(algorithm, kid).count();
        assert_eq!((count(Algorithm::ES256, Some("a")), count(Algorithm::ES256, None)), (1, 2));
        assert_eq!(count(Algorithm::ES256, Some("c")), 0);
        for other in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES384, Algorithm::EdDSA] {
            assert_eq!(count(other, Some("a")), 0, "{other:?}");
        }
        assert!(two.knows(Some("b")) && two.knows(None) && !two.knows(Some("c")));
        let pinned = set(&[ec(json!({ "alg": "ES384" }))]).unwrap();
        assert_eq!(pinned.fitting(Algorithm::ES256, None).count(), 0, "a pin to another algorithm leaves none");
    }

    #[test]
    fn sets_compare_by_their_keys_and_never_show_a_secret() {
        let secret = |text: &str| KeySet::of_secret(&Secret::new(text.to_owned()));
        assert_eq!(secret("canary"), secret("canary"));
        assert_ne!(secret("canary"), secret("other"));
        assert!(!format!("{:?}", secret("canary")).contains("canary"));
        assert_ne!(set(&[ec(json!({ "kid": "a" }))]), set(&[ec(json!({ "kid": "b" }))]));
    }
}
