use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{AlgorithmFamily, EncodingKey, Header, encode};
use proptest::prelude::*;
use rcgen::KeyPair;
use serde_json::json;

use super::*;
use crate::config::identity::JwtKeys;
use crate::config::secret::Secret;

/// Seconds since the epoch, as the tests have it.
const NOW: u64 = 1_800_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What `identity.jwt.algorithms` may name.
const EVERY: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

struct Issuer {
    algorithm: Algorithm,
    key: EncodingKey,
    kid: Option<&'static str>,
}

impl Issuer {
    fn hmac(secret: &str) -> Self {
        Self { algorithm: Algorithm::HS256, key: EncodingKey::from_secret(secret.as_bytes()), kid: None }
    }

    fn rsa(algorithm: Algorithm) -> Self {
        let pem = include_bytes!("../../../tests/keys/rsa.pem");
        Self { algorithm, key: EncodingKey::from_rsa_pem(pem).unwrap(), kid: Some("rsa") }
    }

    fn ec() -> Self {
        let pem = KeyPair::generate().unwrap().serialize_pem();
        Self { algorithm: Algorithm::ES256, key: EncodingKey::from_ec_pem(pem.as_bytes()).unwrap(), kid: Some("ec") }
    }

    fn ed() -> Self {
        let pem = include_bytes!("../../../tests/keys/ed25519.pem");
        Self { algorithm: Algorithm::EdDSA, key: EncodingKey::from_ed_pem(pem).unwrap(), kid: Some("ed") }
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = self.kid.map(str::to_owned);
        encode(&header, claims, &self.key).unwrap()
    }

    /// The public half, pinned to the algorithm.
    fn published(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = self.kid.map(str::to_owned);
        serde_json::to_value(&jwk).unwrap()
    }
}

fn key_set(issuers: &[&Issuer]) -> KeySet {
    let keys: Vec<Value> = issuers.iter().map(|issuer| issuer.published()).collect();
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn rules(algorithms: &[Algorithm]) -> JwtRules {
    JwtRules {
        keys: JwtKeys::Secret(Arc::new(KeySet::of_secret(&Secret::new(SECRET.to_owned())))),
        algorithms: algorithms.to_vec(),
        issuer: Some("https://id".to_owned()),
        audience: Some("chat".to_owned()),
        leeway: Duration::from_secs(60),
        user_claim: "sub".to_owned(),
        team_claim: Some("team".to_owned()),
        teams: vec!["search".to_owned(), "support".to_owned()],
    }
}

thread_local! {
    /// An algorithm of each kind of public key, and a key for it.
    static EACH: Vec<(Algorithm, KeySet)> = [Issuer::rsa(Algorithm::RS256), Issuer::rsa(Algorithm::PS256), Issuer::ec(), Issuer::ed()]
        .iter()
        .map(|issuer| (issuer.algorithm, key_set(&[issuer])))
        .collect();
}

fn good() -> Value {
    json!({ "sub": "alice", "iss": "https://id", "aud": "chat", "exp": NOW + 600, "team": "search" })
}

/// The good claims with some replaced; null takes one out.
fn with(changes: Value) -> Value {
    let mut claims = good();
    for (claim, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(claim),
            value => claims.as_object_mut().unwrap().insert(claim.clone(), value.clone()),
        };
    }
    claims
}

fn verify(rules: &JwtRules, keys: &KeySet, token: &str) -> Result<Identity, TokenFault> {
    Token::read(token).expect("it has a token's shape").verify(rules, Some(keys), Duration::from_secs(NOW))
}

/// Of an HMAC issuer, which is fast.
fn judge(changes: Value) -> Result<Identity, TokenFault> {
    let keys = KeySet::of_secret(&Secret::new(SECRET.to_owned()));
    verify(&rules(&[Algorithm::HS256]), &keys, &Issuer::hmac(SECRET).sign(&with(changes)))
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[test]
fn tokens_of_each_kind_of_key_are_believed() {
    let issuers = [Issuer::rsa(Algorithm::RS256), Issuer::rsa(Algorithm::PS384), Issuer::ec(), Issuer::ed()];
    for issuer in &issuers {
        let found = verify(&rules(&[issuer.algorithm]), &key_set(&[issuer]), &issuer.sign(&good())).unwrap();
        assert_eq!(
            (found.user.as_deref(), found.team.as_deref()),
            (Some("alice"), Some("search")),
            "{:?}",
            issuer.algorithm
        );
    }
    assert_eq!(judge(json!({})).unwrap().user.as_deref(), Some("alice"));
}

#[test]
fn tokens_of_each_algorithm_that_another_library_signed_are_believed_and_altered_ones_are_not() {
    let text = include_str!("../../../tests/keys/tokens.json");
    let signed: Value = serde_json::from_str(text).unwrap();
    let (public, secret) =
        (KeySet::parse(text.as_bytes()).unwrap(), KeySet::of_secret(&Secret::new(SECRET.to_owned())));
    let tokens = signed["tokens"].as_object().unwrap();
    for algorithm in EVERY {
        let token = tokens[&format!("{algorithm:?}")].as_str().unwrap();
        let keys = if algorithm.family() == AlgorithmFamily::Hmac { &secret } else { &public };
        let rules = rules(&[algorithm]);
        assert_eq!(verify(&rules, keys, token).unwrap().user.as_deref(), Some("alice"), "{algorithm:?}");

        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            bytes[at] ^= 1;
            let altered = format!("{message}.{}", URL_SAFE_NO_PAD.encode(&bytes));
            assert_eq!(verify(&rules, keys, &altered), Err(TokenFault::Signature), "{algorithm:?} at {at}");
            bytes[at] ^= 1;
        }
        let head = message.split_once('.').unwrap().0;
        let other = format!("{head}.{}.{signature}", part(&with(json!({ "sub": "mallory" }))));
        assert_eq!(verify(&rules, keys, &other), Err(TokenFault::Signature), "{algorithm:?}");
    }
    assert_eq!(tokens.len(), EVERY.len());
}

#[test]
fn what_is_no_token_is_not_ours_to_judge() {
    let payload = part(&good());
    let no_alg = format!("{}.{payload}.x", part(&json!({ "typ": "JWT" })));
    let list = format!("{}.{payload}.x", part(&json!(["alg"])));
    let encrypted = format!("{}.a.b.c.d", part(&json!({ "alg": "RSA-OAEP", "enc": "A256GCM" })));
    for other in ["", "a.b.c", "..", "sk-1234", "eyJhbGciOiJIUzI1NiJ9", no_alg.as_str(), &list, &encrypted] {
        assert!(Token::read(other).is_none(), "{other}");
    }
}

#[test]
fn a_token_cannot_choose_how_it_is_verified() {
    let rsa = Issuer::rsa(Algorithm::RS256);
    let keys = key_set(&[&rsa]);
    let accepted = rules(&[Algorithm::RS256]);
    let payload = part(&good());
    for none in ["none", "None", "NONE"] {
        for signature in ["", "x"] {
            let token = format!("{}.{payload}.{signature}", part(&json!({ "alg": none, "kid": "rsa" })));
            assert_eq!(verify(&accepted, &keys, &token), Err(TokenFault::Unsigned));
        }
    }
    let stripped = rsa.sign(&good()).rsplit_once('.').unwrap().0.to_owned() + ".";
    assert_eq!(verify(&accepted, &keys, &stripped), Err(TokenFault::Unsigned));

    // The public key as an HMAC secret, which is public as well.
    let public = rsa.published()["n"].as_str().unwrap().to_owned();
    let confused = Issuer { kid: Some("rsa"), ..Issuer::hmac(&public) }.sign(&good());
    assert_eq!(verify(&accepted, &keys, &confused), Err(TokenFault::Algorithm));
    let careless = rules(&[Algorithm::RS256, Algorithm::HS256]);
    assert_eq!(verify(&careless, &keys, &confused), Err(TokenFault::Algorithm), "the key's own kind forbids it too");

    let pinned = Issuer::rsa(Algorithm::PS256).sign(&good());
    let both = rules(&[Algorithm::RS256, Algorithm::PS256]);
    assert_eq!(verify(&both, &keys, &pinned), Err(TokenFault::Algorithm), "the key's publisher pins it to RS256");
    for odd in [json!({ "alg": 5 }), json!({ "alg": null })] {
        assert_eq!(verify(&accepted, &keys, &format!("{}.{payload}.x", part(&odd))), Err(TokenFault::Malformed));
    }
    let unknown = format!("{}.{payload}.x", part(&json!({ "alg": "RS999" })));
    assert_eq!(verify(&accepted, &keys, &unknown), Err(TokenFault::Algorithm));
    let critical = format!("{}.{payload}.x", part(&json!({ "alg": "RS256", "crit": ["b64"] })));
    assert_eq!(verify(&accepted, &keys, &critical), Err(TokenFault::Critical));
}

#[test]
fn keys_are_found_by_name() {
    let (one, two) = (Issuer::ec(), Issuer { kid: Some("ec-2"), ..Issuer::ec() });
    let rules = rules(&[Algorithm::ES256]);
    let both = key_set(&[&one, &two]);
    for issuer in [&one, &two] {
        assert!(verify(&rules, &both, &issuer.sign(&good())).is_ok());
    }
    let mistaken = Issuer { kid: Some("ec"), algorithm: two.algorithm, key: two.key.clone() };
    assert_eq!(verify(&rules, &both, &mistaken.sign(&good())), Err(TokenFault::Signature));
    assert_eq!(verify(&rules, &key_set(&[&one]), &two.sign(&good())), Err(TokenFault::UnknownKey));
    let nameless = Issuer { kid: None, algorithm: two.algorithm, key: two.key.clone() };
    assert!(verify(&rules, &both, &nameless.sign(&good())).is_ok(), "each key that fits is tried");
    let token = one.sign(&good());
    let unfetched = Token::read(&token).unwrap().verify(&rules, None, Duration::from_secs(NOW));
    assert_eq!(unfetched, Err(TokenFault::KeysUnavailable));
}

#[test]
fn a_key_that_is_none_verifies_nothing_and_hides_no_other() {
    let issuer = Issuer { kid: None, ..Issuer::ec() };
    let zero = "A".repeat(43);
    let beside_the_curve = json!({ "kty": "EC", "crv": "P-256", "x": zero, "y": zero });
    let text = json!({ "keys": [beside_the_curve, issuer.published()] }).to_string();
    let both = KeySet::parse(text.as_bytes()).unwrap();
    let rules = rules(&[Algorithm::ES256]);
    assert!(verify(&rules, &both, &issuer.sign(&good())).is_ok());
    assert_eq!(verify(&rules, &both, &Issuer { kid: None, ..Issuer::ec() }.sign(&good())), Err(TokenFault::Signature));
}

#[test]
fn times_count_with_their_leeway() {
    for (changes, verdict) in [
        (json!({ "exp": NOW - 59 }), None),
        (json!({ "exp": NOW as f64 - 59.5 }), None),
        (json!({ "exp": NOW - 60 }), Some(TokenFault::Expired)),
        (json!({ "exp": -1 }), Some(TokenFault::Expired)),
        (json!({ "exp": u64::MAX }), None),
        (json!({ "exp": null }), Some(TokenFault::NoExpiry)),
        (json!({ "exp": "tomorrow" }), Some(TokenFault::Malformed)),
        (json!({ "nbf": NOW + 60 }), None),
        (json!({ "nbf": NOW + 61 }), Some(TokenFault::NotYetValid)),
        (json!({ "nbf": [] }), Some(TokenFault::Malformed)),
    ] {
        assert_eq!(judge(changes.clone()).err(), verdict, "{changes}");
    }
}

#[test]
fn issuer_audience_user_and_team_must_be_right() {
    let no_user = || Some(TokenFault::NoUser("sub".to_owned()));
    for (changes, verdict) in [
        (json!({ "iss": "https://id/" }), Some(TokenFault::Issuer)),
        (json!({ "iss": null }), Some(TokenFault::Issuer)),
        (json!({ "iss": ["https://id"] }), Some(TokenFault::Issuer)),
        (json!({ "aud": "other" }), Some(TokenFault::Audience)),
        (json!({ "aud": null }), Some(TokenFault::Audience)),
        (json!({ "aud": { "chat": true } }), Some(TokenFault::Audience)),
        (json!({ "aud": ["other", "chat"] }), None),
        (json!({ "sub": null }), no_user()),
        (json!({ "sub": 7 }), no_user()),
        (json!({ "sub": " " }), no_user()),
        (json!({ "sub": "a\nb" }), no_user()),
        (json!({ "sub": "x".repeat(257) }), no_user()),
        (json!({ "team": "other" }), Some(TokenFault::Team)),
        (json!({ "team": null }), Some(TokenFault::Team)),
        (json!({ "team": ["other", 5, "support"] }), None),
    ] {
        assert_eq!(judge(changes.clone()).err(), verdict, "{changes}");
    }
    assert_eq!(judge(json!({ "team": ["other", "support"] })).unwrap().team.as_deref(), Some("support"));
}

#[test]
fn what_the_configuration_leaves_open_is_not_checked() {
    let keys = KeySet::of_secret(&Secret::new(SECRET.to_owned()));
    let open = JwtRules { issuer: None, audience: None, teams: Vec::new(), ..rules(&[Algorithm::HS256]) };
    let token = Issuer::hmac(SECRET).sign(&with(json!({ "iss": null, "aud": "x", "team": null })));
    assert_eq!(verify(&open, &keys, &token).unwrap().team, None);
    let named = Issuer { kid: Some("any"), ..Issuer::hmac(SECRET) }.sign(&good());
    assert!(verify(&open, &keys, &named).is_ok(), "a secret has no name");
}

#[test]
fn long_tokens_are_not_looked_into() {
    assert_eq!(judge(json!({ "more": "x".repeat(TOKEN_MAX) })), Err(TokenFault::Malformed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_altered_token_is_believed(at in 0_usize..400, letter in "[A-Za-z0-9_.-]") {
        let keys = KeySet::of_secret(&Secret::new(SECRET.to_owned()));
        let mut token = Issuer::hmac(SECRET).sign(&good());
        let at = at % token.len();
        prop_assume!(token[at..=at] != letter);
        token.replace_range(at..=at, &letter);
        // The last letter of a signature holds bits that mean nothing: those that differ in them alone do not decode.
        if let Some(read) = Token::read(&token) {
            let verdict = read.verify(&rules(&[Algorithm::HS256]), Some(&keys), Duration::from_secs(NOW));
            prop_assert!(verdict.is_err(), "{}", token);
        }
    }

    #[test]
    fn no_signature_of_any_length_panics(signature in "[A-Za-z0-9_-]{1,400}") {
        for (algorithm, keys) in EACH.with(Clone::clone) {
            let token = format!("{}.{}.{signature}", part(&json!({ "alg": algorithm })), part(&good()));
            let verdict = verify(&rules(&[algorithm]), &keys, &token);
            prop_assert!(matches!(verdict, Err(TokenFault::Signature | TokenFault::Malformed)), "{verdict:?}");
        }
    }

    #[test]
    fn no_text_panics(text in "[A-Za-z0-9_=.-]{0,200}", header in "\\{\"alg\":\"[A-Za-z0-9]{0,6}\"(,\"kid\":[0-9\"a-z]{0,4})?\\}") {
        let _ = Token::read(&text);
        let token = format!("{}.{text}", URL_SAFE_NO_PAD.encode(header));
        let keys = KeySet::of_secret(&Secret::new(SECRET.to_owned()));
        if let Some(read) = Token::read(&token) {
            let verdict = read.verify(&rules(&[Algorithm::HS256]), Some(&keys), Duration::from_secs(NOW));
            prop_assert!(verdict.is_err());
        }
    }
}
