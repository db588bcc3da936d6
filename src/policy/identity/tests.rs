use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const KEY: &str = "sg-0123456789abcdefghijABCDEFGHIJ0123456789xyz";
const OTHER: &str = "sg-9999999999abcdefghijABCDEFGHIJ0123456789xyz";
const SHARED: &str = "sg-7777777777abcdefghijABCDEFGHIJ0123456789xyz";

fn rules(required: bool) -> IdentityRules {
    let entry = |key: &str, user: Option<&str>, team: Option<&str>| {
        let hash = KeyHash::of(key);
        (hash, ApiKey { user: user.map(Arc::from), team: team.map(Arc::from), id: hash.id() })
    };
    let keys = BTreeMap::from([entry(KEY, Some("alice"), Some("search")), entry(SHARED, None, Some("apps"))]);
    IdentityRules { required, user_header: "x-user-id".to_owned(), jwt: None, keys }
}

fn ask(required: bool, credentials: &[(&'static str, &str)], user: Option<&str>) -> Result<Established, Refusal> {
    let credentials: Vec<(&'static str, &[u8])> =
        credentials.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    let claims = Claims { credentials: &credentials, user, query: None };
    establish(&rules(required), None, &claims, Duration::ZERO)
}

fn bearer(secret: &str) -> [(&'static str, String); 1] {
    [("authorization", format!("Bearer {secret}"))]
}

#[test]
fn a_key_is_found_in_each_header_that_clients_use() {
    let written = [format!("Bearer {KEY}"), format!("bearer  {KEY}"), KEY.to_owned(), format!(" {KEY} ")];
    for name in CREDENTIAL_HEADERS {
        for text in &written {
            let found = ask(true, &[(name, text)], None).unwrap();
            assert_eq!((found.source, found.spent.as_slice()), (Source::Key, [name].as_slice()), "{name}: {text}");
            assert_eq!(
                (found.identity.user.as_deref(), found.identity.team.as_deref()),
                (Some("alice"), Some("search"))
            );
            assert_eq!(found.identity.key, Some(KeyHash::of(KEY).id()));
        }
    }
}

#[test]
fn a_key_that_is_not_known_is_refused_always() {
    let [(name, text)] = bearer(OTHER);
    for required in [true, false] {
        assert_eq!(ask(required, &[(name, &text)], Some("alice")), Err(Refusal::UnknownKey));
        assert_eq!(ask(required, &[("x-api-key", "sg-")], None), Err(Refusal::UnknownKey));
        let longer = format!("{KEY}0");
        assert_eq!(ask(required, &[("x-api-key", &longer)], None), Err(Refusal::UnknownKey));
    }
    assert_eq!(Refusal::UnknownKey.status(), 401);
}

#[test]
fn other_credentials_are_the_backends_business_unless_somebody_must_be_known() {
    for other in ["Bearer sk-proj-1234", "Basic YWxpY2U6cHc=", "Bearer a.b.c", "Bearer opaque", "", "Bearer"] {
        let found = ask(false, &[("authorization", other)], None).unwrap();
        assert_eq!(found, Established::default(), "{other}");
        let refused = ask(true, &[("authorization", other)], None).unwrap_err();
        assert_eq!(refused, Refusal::Missing { other: true }, "{other}");
    }
    assert_eq!(ask(true, &[], None), Err(Refusal::Missing { other: false }));
}

#[test]
fn a_key_beside_the_backends_own_credential_leaves_that_one_alone() {
    let found = ask(true, &[("authorization", "Bearer app-token"), ("x-api-key", KEY)], None).unwrap();
    assert_eq!((found.source, found.spent.as_slice()), (Source::Key, ["x-api-key"].as_slice()));
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let key = format!("Bearer {KEY}");
    let both = ask(false, &[("authorization", &key), ("x-api-key", KEY)], None).unwrap();
    assert_eq!(both.spent, ["authorization", "x-api-key"], "the same key twice is one key");
    let two = ask(false, &[("authorization", &key), ("x-api-key", SHARED)], None);
    assert_eq!(two, Err(Refusal::SeveralKeys));
    let repeated = ask(false, &[("authorization", "Bearer a"), ("authorization", &key)], None);
    assert_eq!(repeated, Err(Refusal::Repeated("authorization")));
    let listed = ask(false, &[("authorization", &format!("{key}, Bearer x"))], None);
    assert_eq!(listed, Err(Refusal::UnknownKey));
}

#[test]
fn a_trusted_proxy_names_the_user_where_no_credential_does() {
    let found = ask(true, &[], Some("bob")).unwrap();
    assert_eq!((found.source, found.identity.user.as_deref()), (Source::Header, Some("bob")));
    let found = ask(true, &[("x-api-key", KEY)], Some("bob")).unwrap();
    assert_eq!(found.identity.user.as_deref(), Some("alice"), "the key's own user counts");
    let found = ask(true, &[("x-api-key", SHARED)], Some("bob")).unwrap();
    assert_eq!((found.source, found.identity.user.as_deref()), (Source::Key, Some("bob")));
    assert_eq!(found.identity.team.as_deref(), Some("apps"));
    assert_eq!(ask(true, &[("x-api-key", SHARED)], None).unwrap().identity.user, None);
}

#[test]
fn user_names_are_plain() {
    assert_eq!(user_name(b"alice@example.com"), Some("alice@example.com"));
    for wrong in [&b""[..], b"a b", b"a\xc3\xa9", b"a\tb", &[b'a'; 257]] {
        assert_eq!(user_name(wrong), None);
    }
}

#[test]
fn a_key_in_the_query_is_refused_known_or_not() {
    let asked = |query: &str| {
        let claims = Claims { query: Some(query), ..Claims::default() };
        establish(&rules(false), None, &claims, Duration::ZERO).map(|found| found.source)
    };
    let encoded: String = KEY.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for query in [
        format!("api_key={KEY}"),
        format!("a=b&key={OTHER}&c"),
        format!("a;token={KEY}"),
        KEY.to_owned(),
        format!("x={encoded}"),
        format!("x=sg%2D{}", &KEY[3..]),
        format!("authorization=Bearer%20{KEY}"),
        format!("authorization=Bearer+{KEY}"),
    ] {
        assert_eq!(asked(&query), Err(Refusal::KeyInQuery), "{query}");
    }
    for query in ["", "region=sg-01", "x=%", "x=%zz&y=%é", "model=sg-llama-3-70b-instruct-and-so-on-and-so-on", "a=b=c"]
    {
        assert_eq!(asked(query), Ok(Source::Address), "{query}");
    }
    assert_eq!(Refusal::KeyInQuery.status(), 400);
}

#[test]
fn refusals_say_what_to_do_and_repeat_nothing() {
    let all = [
        Refusal::Missing { other: false },
        Refusal::Missing { other: true },
        Refusal::UnknownKey,
        Refusal::SeveralKeys,
        Refusal::KeyInQuery,
        Refusal::Repeated("x-api-key"),
    ];
    for refusal in all {
        let said = refusal.message();
        assert!(said.contains("Send") || said.contains("Ask"), "{said}");
        assert!(!said.contains(KEY_PREFIX), "{said}");
    }
}

proptest! {
    #[test]
    fn nothing_a_stranger_sends_makes_him_somebody(
        name in proptest::sample::select(CREDENTIAL_HEADERS.to_vec()),
        value in proptest::collection::vec(any::<u8>(), 0..80),
        query in ".{0,80}",
    ) {
        let claims = Claims { credentials: &[(name, &value)], user: None, query: Some(&query) };
        if let Ok(found) = establish(&rules(false), None, &claims, Duration::ZERO) {
            prop_assert_eq!(found, Established::default());
        }
        prop_assert!(establish(&rules(true), None, &claims, Duration::ZERO).is_err());
    }

    #[test]
    fn no_part_of_a_key_is_the_key(cut in 0_usize..46, letter in "[a-zA-Z0-9]") {
        let mut altered = KEY.to_owned();
        altered.replace_range(cut..=cut, &letter);
        prop_assume!(altered != KEY);
        prop_assert!(ask(true, &[("x-api-key", &altered)], None).is_err());
        prop_assert!(ask(true, &[("x-api-key", &KEY[..cut])], None).is_err());
    }
}
