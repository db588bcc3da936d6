use proptest::prelude::*;

use super::*;

const HOST: (&str, &str) = ("Host", "h");

fn checked(version: Version, headers: &[(&str, &str)]) -> Result<Passed, Refusal> {
    let head = Head { method: "POST", target: b"/v1?a=b", version };
    check(&head, headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

#[track_caller]
fn refused(version: Version, headers: &[(&str, &str)], status: u16, words: &str) {
    let refusal = checked(version, headers).expect_err(words);
    assert_eq!(refusal.status, status, "{headers:?}: {}", refusal.message);
    assert!(refusal.message.contains(words), "{headers:?}: {}", refusal.message);
}

#[test]
fn ordinary_requests_pass() {
    for (version, headers) in [
        (Version::Http11, &[HOST, ("content-length", "5"), ("x-user-id", "a")][..]),
        (Version::Http11, &[HOST, ("Transfer-Encoding", "Chunked")]),
        (Version::Http11, &[("host", "[::1]:8080"), ("cookie", "a=b"), ("cookie", "c=d"), ("x", "tab\there, ünïcode")]),
        (Version::Http11, &[("host", "")]),
        (Version::Http10, &[]),
        (Version::Http2, &[("content-length", "0")]),
    ] {
        assert_eq!(checked(version, headers), Ok(Passed::default()), "{headers:?}");
    }
}

#[test]
fn lengths_are_found_in_a_head_as_it_came() {
    let head = b"POST /a:content-length HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 5\r\nX: content-length: 7\r\nContent-Length:6 \r\n\r\n";
    let found: Vec<_> = lengths(head).map(|(_, value)| value).collect();
    assert_eq!(found, [b"5", b"6"]);
    assert_eq!(lengths(b"").count() + lengths(b"GET / HTTP/1.1").count(), 0);
}

#[test]
fn two_lengths_are_refused() {
    use Version::*;
    refused(Http11, &[HOST, ("content-length", "5"), ("Content-Length", "5")], 400, "more than one Content-Length");
    refused(Http11, &[HOST, ("content-length", "5"), ("transfer-encoding", "chunked")], 400, "contradict");
    refused(Http11, &[HOST, ("transfer-encoding", "chunked"), ("content-length", "5")], 400, "contradict");
    refused(Http11, &[HOST, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], 400, "more than one");
    for value in ["", "+5", "-5", "5, 5", "5 ", " 5", "0x5", "5.0", "99999999999999999999"] {
        refused(Http11, &[HOST, ("content-length", value)], 400, "not a number");
    }
    for value in ["gzip, chunked", "chunked, chunked", "identity", "chunked ", " chunked", "xchunked", "", "chunked,"] {
        refused(Http11, &[HOST, ("transfer-encoding", value)], 400, "chunked and nothing else");
    }
    refused(Http10, &[("transfer-encoding", "chunked")], 400, "HTTP/1.1 alone");
    refused(Http2, &[("transfer-encoding", "chunked")], 400, "HTTP/1.1 alone");
}

#[test]
fn there_is_one_host() {
    use Version::*;
    refused(Http11, &[], 400, "Host header is missing");
    refused(Http11, &[HOST, HOST], 400, "more than one Host");
    refused(Http2, &[HOST, HOST], 400, "more than one Host");
    for value in ["a b", "user@h", "h/path", "a,b", "h\\", "hö", "h?x", "h#x", "<h>"] {
        refused(Http11, &[("host", value)], 400, "not a host");
    }
}

#[test]
fn targets_name_no_second_host() {
    use Version::*;
    for (method, target, version, host, passes) in [
        ("GET", "http://h/a", Http11, Some("H"), true),
        ("GET", "http://h", Http11, Some("h"), true),
        ("GET", "http://h?a", Http11, Some("h"), true),
        ("GET", "http://other/a", Http11, Some("h"), false),
        ("GET", "http://user@h/a", Http11, Some("h"), false),
        ("GET", "http://h/a", Http10, None, true),
        ("GET", "http://u@h/a", Http10, None, false),
        ("GET", "h:80", Http11, Some("h"), false),
        ("GET", "", Http11, Some("h"), false),
        ("GET", "*", Http11, Some("h"), false),
        ("OPTIONS", "*", Http11, Some("h"), true),
        ("GET", "https://h/a", Http2, None, true),
    ] {
        let head = Head { method, target: target.as_bytes(), version };
        let host = host.map(|host| (&b"host"[..], host.as_bytes()));
        assert_eq!(check(&head, host.into_iter()).is_ok(), passes, "{method} {target} for {host:?}");
    }
}

#[test]
fn there_is_one_user() {
    refused(Version::Http11, &[HOST, ("x-user-id", "a"), ("X-User-Id", "a")], 400, "x-user-id");
}

#[test]
fn control_bytes_are_refused() {
    for value in ["a\rb", "a\nb", "a\0b", "a\u{7f}b", "\u{1b}["] {
        refused(Version::Http11, &[HOST, ("x", value)], 400, "control character");
    }
    for name in ["", "a b", "a:", "a\n", "a(", "ä"] {
        refused(Version::Http11, &[HOST, (name, "v")], 400, "header's name");
    }
    for target in [&b"/a b"[..], b"/a\r\n", b"/\0", b"/\xff"] {
        let head = Head { method: "GET", target, version: Version::Http2 };
        assert_eq!(check(&head, std::iter::empty()).map_err(|refusal| refusal.status), Err(400), "{target:?}");
    }
}

#[test]
fn underscores_are_dropped_and_named() {
    let passed =
        checked(Version::Http11, &[HOST, ("X_User_Id", "root"), ("x-ok", "a"), ("content_length", "9")]).unwrap();
    assert_eq!(passed.dropped, ["x_user_id", "content_length"]);
}

#[test]
fn methods_that_are_never_passed_on() {
    for (method, status) in [("TRACE", 405), ("CONNECT", 405), ("", 400), ("GE T", 400), ("GET\n", 400)] {
        let head = Head { method, target: b"/", version: Version::Http2 };
        assert_eq!(check(&head, std::iter::empty()).map_err(|refusal| refusal.status), Err(status), "{method}");
    }
    for method in ["GET", "PROPFIND", "trace-me"] {
        let head = Head { method, target: b"/", version: Version::Http2 };
        assert_eq!(check(&head, std::iter::empty()), Ok(Passed::default()), "{method}");
    }
}

#[test]
fn a_large_head_is_refused() {
    let value = "v".repeat(HEAD_MAX - 200);
    assert!(checked(Version::Http11, &[HOST, ("x", &value)]).is_ok());
    refused(Version::Http11, &[HOST, ("x", &value), ("y", &"v".repeat(200))], 431, "32 KiB");
    let many: Vec<(&str, &str)> = std::iter::repeat_n(("a", ""), 10_000).collect();
    refused(Version::Http2, &many, 431, "32 KiB");
}

proptest! {
    /// Whatever passes has one way to be read.
    #[test]
    fn what_passes_is_unambiguous(
        headers in proptest::collection::vec((
            prop_oneof![Just("host"), Just("Content-Length"), Just("transfer-encoding"), Just("x_a"), Just("x")],
            prop_oneof![Just("5"), Just("chunked"), Just("h"), Just("5,5"), Just("a\nb"), Just("gzip, chunked")],
        ), 0..6),
    ) {
        let count = |wanted: &str| headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).count();
        if let Ok(passed) = checked(Version::Http11, &headers) {
            prop_assert_eq!(count("host"), 1);
            prop_assert!(count("content-length") + count("transfer-encoding") <= 1);
            prop_assert_eq!(passed.dropped.len(), count("x_a"));
            prop_assert!(headers.iter().all(|(_, value)| !value.contains('\n')));
        }
    }

    #[test]
    fn any_bytes_are_settled(
        method in "\\PC{0,8}",
        target in proptest::collection::vec(any::<u8>(), 0..20),
        headers in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..12), proptest::collection::vec(any::<u8>(), 0..12)), 0..8),
    ) {
        let head = Head { method: &method, target: &target, version: Version::Http11 };
        let result = check(&head, headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())));
        if let Err(refusal) = result {
            prop_assert!([400, 405, 431].contains(&refusal.status));
        }
    }
}

#[test]
fn dot_segments_are_refused_in_every_disguise() {
    let path = |target: &str| {
        check(
            &Head { method: "GET", target: target.as_bytes(), version: Version::Http11 },
            [(&b"host"[..], &b"h"[..])].into_iter(),
        )
    };
    for target in [
        "/a/../b",
        "/..",
        "/.",
        "/a/./b",
        "/a/%2e%2E/b",
        "/a/.%2e",
        "/a/..%2fb",
        "/a/..%5Cb",
        "/a/..\\b",
        "/a\\..\\b",
        "/a/..;x=1/b",
        "http://h/a/../b",
    ] {
        let refusal = path(target).unwrap_err();
        assert_eq!((refusal.status, refusal.message.contains("dot segments")), (400, true), "{target}");
    }
    for target in ["/a\\b", "/a\\"] {
        assert!(path(target).unwrap_err().message.contains("backslash"), "{target}");
    }
    for target in [
        "/a/...",
        "/a/.b",
        "/a?b\\c",
        "/a%5cb",
        "/a..b/c",
        "/a/b..",
        "/.well-known/x",
        "/a%2fb",
        "/a?x=/../b",
        "/a%20b",
    ] {
        assert!(path(target).is_ok(), "{target}");
    }
}

#[test]
fn hosts_have_ports_and_urls_are_http() {
    for (host, ok) in
        [("a:80", true), ("a:", true), ("[::1]", true), ("[::1]:8080", true), ("a:99999", false), ("a:x", false)]
    {
        assert_eq!(checked(Version::Http11, &[("host", host)]).is_ok(), ok, "{host}");
    }
    let url = |target: &str| {
        check(
            &Head { method: "GET", target: target.as_bytes(), version: Version::Http11 },
            [(&b"host"[..], &b"a"[..])].into_iter(),
        )
    };
    assert!(url("HTTP://a/x").is_ok() && url("https://a/x").is_ok() && url("ftp://a/x").is_err());
}
