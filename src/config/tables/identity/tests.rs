use std::time::Duration;

use super::jwt::{PUBLIC_ALGORITHMS, SECRET_ALGORITHMS};
use super::*;
use crate::config::load::tests::{env, files};
use crate::config::{Settings, parse};

const TAIL: &str = "\n[[upstream]]\nurl = \"http://h\"\n";
const HASH: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn parsed(identity: &str) -> Result<Settings, String> {
    let env = |name: &str| match name {
        "JWT_SECRET" => Some("canary-0123456789-0123456789-0123456789".to_owned()),
        "SHORT_SECRET" => Some("canary".to_owned()),
        other => env(other),
    };
    parse(&format!("{identity}{TAIL}"), "conf/test.toml", &env, &files).map_err(|problems| problems.to_string())
}

fn rules(identity: &str) -> IdentityRules {
    parsed(identity).unwrap().identity.unwrap()
}

#[test]
fn absent_means_absent_and_empty_means_defaults() {
    assert_eq!(parsed("").unwrap().identity, None);
    let rules = rules("[identity]");
    assert_eq!((rules.required, rules.user_header.as_str(), rules.keys.len()), (false, "x-user-id", 0));
    assert_eq!(rules.jwt, None);
}

#[test]
fn a_whole_table_is_read() {
    let text = format!(
        "[identity]\nrequired = true\nuser_header = \"X-Remote-User\"\n[identity.jwt]\njwks_file = \"jwks.json\"\n\
         algorithms = [\"PS256\", \"EdDSA\"]\nissuer = \"https://id\"\naudience = \"chat\"\nleeway = \"5s\"\n\
         user_claim = \"email\"\nteam_claim = \"groups\"\nteams = [\"a\"]\n[[identity.key]]\nuser = \"alice\"\nhash = \"{HASH}\""
    );
    let rules = rules(&text);
    assert!(rules.required && rules.user_header == "x-remote-user");
    let jwt = rules.jwt.unwrap();
    assert_eq!(jwt.algorithms, [Algorithm::PS256, Algorithm::EdDSA]);
    assert_eq!((jwt.issuer.as_deref(), jwt.audience.as_deref()), (Some("https://id"), Some("chat")));
    assert_eq!((jwt.leeway, jwt.user_claim.as_str()), (Duration::from_secs(5), "email"));
    assert_eq!((jwt.team_claim.as_deref(), jwt.teams.as_slice()), (Some("groups"), ["a".to_owned()].as_slice()));
    assert!(matches!(jwt.keys, JwtKeys::File(path, set) if path.ends_with("conf/jwks.json") && set.count() == 1));
    let key = &rules.keys[&HASH.parse().unwrap()];
    assert_eq!((key.user.as_deref(), key.team.as_deref(), &*key.id), (Some("alice"), None, "e3b0c44298fc"));
}

#[test]
fn the_algorithms_follow_the_kind_of_key() {
    let algorithms = |source: &str| rules(&format!("[identity.jwt]\n{source}")).jwt.unwrap().algorithms;
    assert_eq!(algorithms("jwks_file = \"jwks.json\""), PUBLIC_ALGORITHMS);
    assert_eq!(algorithms("jwks_url = \"https://id.example/keys\""), PUBLIC_ALGORITHMS);
    assert_eq!(algorithms("secret_env = \"JWT_SECRET\""), SECRET_ALGORITHMS);
    let settings = parsed("[identity.jwt]\nsecret_env = \"JWT_SECRET\"").unwrap();
    assert!(!format!("{settings:?}").contains("canary-0123456789"), "secrets mask themselves");
}

/// What is written, and each of the problems' words in order.
const CASES: [(&str, &[&str]); 26] = [
    ("[identity]\nrequird = true", &["2:1: unknown key `requird`: did you mean `required`?"]),
    (
        "[[identity]]\nrequired = true",
        &["1:1: [[identity]] must be [identity], with one bracket", "2:12: `required`: nobody could call"],
    ),
    ("[identity]\nuser_header = \"x user\"", &["2:15: `user_header` is a header's name"]),
    ("[identity]\nuser_header = \"x_user\"", &["2:15: `user_header` is a header's name, without underscores"]),
    ("[identity]\nuser_header = \"Authorization\"", &["2:15: `user_header`: authorization means something else"]),
    ("[identity.jwt]\nissuer = \"i\"", &["1:1: where are the keys that tokens are signed with?"]),
    (
        "[identity.jwt]\njwks_file = \"jwks.json\"\njwks_url = \"https://id\"",
        &["3:12: keep one of `jwks_file`, `jwks_url` and `secret_env`"],
    ),
    (
        "[identity.jwt]\njwks_file = \"jwks.json\"\nsecret_env = \"JWT_SECRET\"\nalgorithms = [\"HS256\"]",
        &["3:14: keep one of", "4:15: `algorithms`: HS256 signs with a shared secret"],
    ),
    ("[identity.jwt]\njwks_file = \"none.json\"", &["2:13: cannot read conf/none.json"]),
    ("[identity.jwt]\njwks_file = \"ca.pem\"", &["2:13: `jwks_file`: conf/ca.pem is not a JWKS"]),
    ("[identity.jwt]\njwks_url = \"id.example\"", &["2:12: `jwks_url`: the scheme is missing"]),
    ("[identity.jwt]\njwks_url = \"http://id.example/keys\"", &["2:12: `jwks_url`: over plain http anyone"]),
    ("[identity.jwt]\njwks_url = \"unix:/run/keys\"", &["2:12: `jwks_url` is an https:// or http:// url"]),
    ("[identity.jwt]\nsecret_env = \"UNSET\"", &["2:14: the environment variable UNSET is not set"]),
    ("[identity.jwt]\nsecret_env = \"SHORT_SECRET\"", &["2:14: `secret_env`: the secret is shorter than 32 bytes"]),
    (
        "[identity.jwt]\njwks_file = \"jwks.json\"\nalgorithms = [\"RS257\"]",
        &["3:15: `algorithms`: unknown word \"RS257\""],
    ),
    ("[identity.jwt]\njwks_file = \"jwks.json\"\nalgorithms = []", &["3:14: `algorithms` is empty"]),
    (
        "[identity.jwt]\njwks_file = \"jwks.json\"\nalgorithms = [\"RS256\", \"HS256\"]",
        &["3:24: `algorithms`: HS256 signs with a shared secret. With public keys anyone could sign"],
    ),
    (
        "[identity.jwt]\nsecret_env = \"JWT_SECRET\"\nalgorithms = [\"RS256\"]",
        &["3:15: `algorithms`: RS256 needs public keys"],
    ),
    (
        "[identity.jwt]\njwks_file = \"jwks.json\"\nteams = [\"a\"]\naudience = \"\"",
        &["3:9: `teams` says which teams may call", "4:12: `audience` is empty"],
    ),
    ("[[identity.key]]\nuser = \"a\"", &["1:1: this key has no `hash`: `streamgauge key new"]),
    ("[[identity.key]]\nuser = \"a\"\nhash = \"canary\"", &["3:8: `hash`: a hash is \"sha256:\" and 64 hex digits"]),
    ("[[identity.key]]\nuser = \"a\"\nhash = \"sg-canary\"", &["3:8: `hash`: this is a key itself"]),
    (
        "[[identity.key]]\nhash = \"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"",
        &["1:1: whose key is this?"],
    ),
    (
        "[[identity.key]]\nuser = \"a\"\nhash = \"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n\
         [[identity.key]]\nuser = \"b\"\nhash = \"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"",
        &["6:8: `hash`: another [[identity.key]] has the same"],
    ),
    (
        "[[identity.key]]\nuser = \" \"\nteam = \"a\\u0007\"\nhash = 5",
        &["2:8: `user` is empty", "3:8: `team`: at most 256 bytes", "4:8: `hash`: expected a text in quotes, found 5"],
    ),
];

#[test]
fn every_problem_has_its_place_and_its_words() {
    for (text, wanted) in CASES {
        let said = parsed(text).map(|_| ()).expect_err(text);
        assert!(!said.contains("canary"), "secrets stay in: {said}");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), wanted.len(), "{text}\n{said}");
        for (line, words) in lines.iter().zip(wanted) {
            assert!(line.starts_with(&format!("conf/test.toml:{words}")), "{text}\nsaid:   {line}\nwanted: {words}");
        }
    }
}

#[test]
fn plain_http_is_for_neighbours() {
    for host in ["127.0.0.1:1", "localhost:8081", "keycloak:8080", "10.1.2.3", "[::1]:80", "[fd00::1]"] {
        assert!(parsed(&format!("[identity.jwt]\njwks_url = \"http://{host}/keys\"")).is_ok(), "{host}");
    }
    for host in ["id.example", "192.0.2.1", "[2001:db8::1]"] {
        assert!(parsed(&format!("[identity.jwt]\njwks_url = \"http://{host}/keys\"")).is_err(), "{host}");
    }
}

#[test]
fn whoever_must_be_known_can_be() {
    for nobody in [
        "[identity]\nrequired = true",
        "[server]\ntrusted_proxies = []\n[identity]\nuser_header = \"x-u\"\nrequired = true",
    ] {
        let said = parsed(nobody).map(|_| ()).expect_err(nobody);
        for words in ["`required`: nobody could call", "[[identity.key]]", "[identity.jwt]", "trusted_proxies"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        let line = nobody.lines().count();
        assert!(said.starts_with(&format!("conf/test.toml:{line}:12: ")), "{said}");
    }
    for somebody in [
        "[identity]\nrequired = false".to_owned(),
        "[server]\ntrusted_proxies = [\"10.0.0.1\"]\n[identity]\nrequired = true".to_owned(),
        "[identity]\nrequired = true\n[identity.jwt]\njwks_file = \"jwks.json\"".to_owned(),
        format!("[identity]\nrequired = true\n[[identity.key]]\nuser = \"a\"\nhash = \"{HASH}\""),
    ] {
        assert!(parsed(&somebody).is_ok(), "{somebody}");
    }
    // What was meant to let somebody in is the one problem.
    for broken in [
        "[identity]\nrequired = true\njwtt = { jwks_file = \"jwks.json\" }",
        "[server]\ntrusted_proxies = [\"10.0.0.1/33\"]\n[identity]\nrequired = true",
        "[identity]\nrequired = true\n[[identity.key]]\nuser = \"a\"",
    ] {
        let said = parsed(broken).map(|_| ()).expect_err(broken);
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
