use super::*;

fn pull(setting: Setting) -> Pull {
    Pull { setting, since: Duration::from_secs(1_000), by: "127.0.0.1".to_owned(), reason: Some("slow".to_owned()) }
}

fn upstream() -> Lever {
    Lever::Upstream { upstream: "vllm".to_owned() }
}

fn endpoint(name: &str) -> Lever {
    Lever::Endpoint { upstream: "vllm".to_owned(), endpoint: name.to_owned() }
}

fn names() -> Names<'static> {
    Names {
        upstreams: vec![
            ("vllm", vec!["h1:8000".to_owned(), "h2:8000".to_owned(), "10.0.0.7:8000".to_owned()]),
            ("my/app", vec!["unix:/run/app.sock".to_owned()]),
        ],
        routes: vec![("chat", vec!["vllm", "next"])],
        keys: vec![
            KeyName { id: "0123456789ab", user: Some("alice"), team: Some("search") },
            KeyName { id: "aaaaaaaaaaaa", user: Some("bob"), team: None },
            KeyName { id: "bbbbbbbbbbbb", user: Some("bob"), team: None },
            KeyName { id: "cccccccccccc", user: None, team: Some("search") },
        ],
    }
}

#[test]
fn what_is_typed_is_found_or_the_names_are_told() {
    let names = names();
    let place = |typed: &str| names.place(typed, None);
    assert_eq!(place("vllm"), Ok(upstream()));
    assert_eq!(place("vllm/h2:8000"), Ok(endpoint("h2:8000")));
    assert_eq!(place("vllm/10.0.0.7:8000"), Ok(endpoint("10.0.0.7:8000")), "an address of a name");
    let socket = Lever::Endpoint { upstream: "my/app".to_owned(), endpoint: "unix:/run/app.sock".to_owned() };
    assert_eq!(place(&socket.typed()), Ok(socket));
    assert_eq!(place("vlm").unwrap_err().to_string(), "there is no upstream `vlm`; upstreams: my/app, vllm");
    assert_eq!(
        place("vllm/h3:8000").unwrap_err().to_string(),
        "upstream `vllm` has no endpoint `h3:8000`; its endpoints: 10.0.0.7:8000, h1:8000, h2:8000"
    );
    let target = |typed: &str, route: &str| names.place(typed, Some(route));
    assert_eq!(target("next", "chat"), Ok(Lever::Target { route: "chat".to_owned(), target: "next".to_owned() }));
    assert_eq!(
        target("old", "chat").unwrap_err().to_string(),
        "route `chat` has no target or fallback `old`; it has: next, vllm"
    );
    assert_eq!(target("next", "x").unwrap_err().to_string(), "there is no route `x`; routes: chat");
}

#[test]
fn a_key_is_known_by_its_id_or_by_whom_it_alone_is_of() {
    let names = names();
    let key = |id: &str| Ok(Lever::Key { key: id.to_owned() });
    assert_eq!(names.key("bbbbbbbbbbbb"), key("bbbbbbbbbbbb"));
    assert_eq!(names.key("alice"), key("0123456789ab"));
    assert_eq!(names.key("search"), key("cccccccccccc"), "the team's own, and no member's");
    assert_eq!(
        names.key("bob").unwrap_err().to_string(),
        "`bob` has 2 keys. Name one by its id: aaaaaaaaaaaa, bbbbbbbbbbbb"
    );
    assert_eq!(
        names.key("carol").unwrap_err().to_string(),
        "there is no API key of `carol`; keys, by user or team: alice, bob, search"
    );
    let many = Names { upstreams: (0..50).map(|_| ("u", vec![])).collect(), ..Names::default() };
    assert!(many.place("x", None).unwrap_err().to_string().ends_with("upstreams: u"), "each once");
}

#[test]
fn a_lever_is_set_once_and_let_go_once() {
    let mut pulled = Pulled::default();
    pulled.set(&endpoint("h1:8000"), pull(Setting::Drained)).unwrap();
    let again = pulled.set(&endpoint("h1:8000"), pull(Setting::Drained)).unwrap_err();
    assert_eq!(again.to_string(), "endpoint `h1:8000` of upstream `vllm` is drained already");
    pulled.set(&endpoint("h1:8000"), pull(Setting::Disabled)).unwrap();
    assert_eq!(pulled.get(&endpoint("h1:8000")).unwrap().setting, Setting::Disabled);
    assert_eq!(pulled.release(&endpoint("h1:8000")), Ok(vec![endpoint("h1:8000")]));
    let again = pulled.release(&endpoint("h1:8000")).unwrap_err();
    assert!(again.to_string().ends_with("nobody took it out by hand"), "{again}");
}

#[test]
fn a_whole_upstream_takes_its_endpoints_with_it() {
    let mut pulled = Pulled::default();
    pulled.set(&upstream(), pull(Setting::Drained)).unwrap();
    let held = pulled.release(&endpoint("h1:8000")).unwrap_err();
    assert!(held.to_string().ends_with("which is drained: `streamgauge enable vllm`"), "{held}");
    pulled.set(&endpoint("h1:8000"), pull(Setting::Disabled)).unwrap();
    let other = Lever::Endpoint { upstream: "other".to_owned(), endpoint: "h1:8000".to_owned() };
    pulled.set(&other, pull(Setting::Drained)).unwrap();
    assert_eq!(pulled.release(&upstream()), Ok(vec![upstream(), endpoint("h1:8000")]));
    assert_eq!(pulled.iter().map(|(lever, _)| lever).collect::<Vec<_>>(), [&other]);
}

#[test]
fn levers_are_bounded() {
    let mut pulled = Pulled::default();
    for at in 0..SET_MAX {
        pulled.set(&endpoint(&at.to_string()), pull(Setting::Drained)).unwrap();
    }
    assert_eq!(pulled.set(&upstream(), pull(Setting::Drained)), Err(Refusal::TooMany));
    pulled.set(&endpoint("7"), pull(Setting::Disabled)).unwrap();
}

#[test]
fn what_is_saved_is_read_back_and_nothing_else() {
    let mut pulled = Pulled::default();
    pulled.set(&endpoint("h1:8000"), pull(Setting::Drained)).unwrap();
    let key = Lever::Key { key: "0123456789ab".to_owned() };
    pulled.set(&key, Pull { reason: None, ..pull(Setting::Revoked) }).unwrap();
    let json = serde_json::to_string(&Saved::of(&pulled)).unwrap();
    assert_eq!(Saved::read(json.as_bytes()), Ok(pulled));
    for (what, other) in [
        ("\"version\":1", "\"version\":2"),
        ("\"revoked\"", "\"drained\""),
        ("\"drained\"", "\"revoked\""),
        ("\"drained\"", "\"broken\""),
        ("\"slow\"", "\"sl\\u001bow\""),
        ("\"by\"", "\"bye\""),
    ] {
        assert!(json.contains(what), "{what}");
        assert!(Saved::read(json.replace(what, other).as_bytes()).is_err(), "{what} as {other}");
    }
}
