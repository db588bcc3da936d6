use crate::llm::dialect::shape::{Places, Several};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::address::Listen;
use crate::config::settings::*;
use crate::config::tables::server::{ADMIN, LISTEN};
use crate::config::telemetry::Signal;

pub(super) const EXAMPLE: &str = include_str!("../../../config/streamgauge.toml");
pub(super) const MINIMAL: &str = include_str!("../../../config/minimal.toml");

pub(in crate::config) fn env(name: &str) -> Option<String> {
    match name {
        "HOME" => Some("/home/test".to_owned()),
        "OPENAI_API_KEY" => Some("sk-canary-secret\n".to_owned()),
        "REDIS_PASSWORD" => Some("redis-canary-secret".to_owned()),
        "FLEET_SECRET" => Some("fleet-canary-secret-of-thirty-two-bytes".to_owned()),
        "EMPTY" => Some(" ".to_owned()),
        "BROKEN" => Some("two words".to_owned()),
        _ => None,
    }
}

pub(in crate::config) fn files(path: &Path) -> io::Result<String> {
    match path.to_str() {
        Some("conf/cert.pem" | "conf/ca.pem") => Ok("-----BEGIN CERTIFICATE-----\nAA==\n".to_owned()),
        Some("conf/key.pem") => Ok("-----BEGIN EC PRIVATE KEY-----\nAA==\n".to_owned()),
        Some("conf/jwks.json") => Ok(include_str!("golden/jwks.json").to_owned()),
        Some("conf/internal.key") => Ok("file-canary-secret\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

pub(in crate::config) fn parsed(text: &str) -> Result<Settings, Problems> {
    parse(text, "conf/test.toml", &env, &files)
}

/// The example with every commented key in use.
pub(in crate::config) fn whole_example() -> String {
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.is_empty() && !key.starts_with(' ') => format!("{key}\n"),
        _ => format!("{line}\n"),
    };
    EXAMPLE.lines().map(uncomment).collect()
}

#[test]
fn the_minimal_file_is_all_defaults() {
    let settings = parsed(MINIMAL).unwrap();
    let server = &settings.server;
    assert_eq!(server.listen, [Listen::Tcp(LISTEN)]);
    assert_eq!(server.admin, Listen::Tcp(ADMIN));
    assert_eq!((server.max_body, server.max_upload, server.max_buffered), (32 << 20, 1 << 30, 1 << 30));
    assert_eq!((server.max_connections, server.max_streams), (10_000, 10_000));
    assert_eq!(server.drain_timeout, Duration::from_secs(600));
    assert_eq!(server.state_dir, Path::new("/home/test/.local/state/streamgauge"));
    assert!(server.trusted_proxies.is_empty() && server.tls.is_none() && settings.cors.is_none());
    assert_eq!(settings.telemetry.sample_ratio, None);
    let [route] = settings.routes.as_slice() else { panic!("one route") };
    assert_eq!((&*route.name, route.path.0.source.as_str()), ("*", "*"));
    assert_eq!(route.targets[0].upstream, settings.upstreams[0]);
    assert_eq!(&*route.targets[0].name, "127.0.0.1:8000");
    let times = &route.timeouts;
    assert_eq!((times.first_token, times.stall, times.total), (None, None, None));
    assert_eq!(route.kind, RouteKind::Auto);
    assert_eq!(route.keepalive, Duration::from_secs(15));
    assert_eq!(settings.upstreams[0].host, HostPolicy::Keep);
}

#[test]
fn a_url_alone_is_the_minimal_file() {
    let by_url = upstream_alone("http://127.0.0.1:8000", &env).unwrap();
    assert_eq!(by_url, parsed(MINIMAL).unwrap());
    let problems = upstream_alone("127.0.0.1:8000", &env).unwrap_err();
    assert_eq!(problems.to_string(), "--upstream: `url`: the scheme is missing: write http:// or https:// in front");
}

#[test]
fn the_example_runs_as_it_stands() {
    let settings = parse(EXAMPLE, "config/streamgauge.toml", &|_| None, &|_| panic!("reads no file")).unwrap();
    let minimal = parsed(MINIMAL).unwrap();
    assert_eq!(settings.telemetry, minimal.telemetry);
    assert_eq!(settings.upstreams.len(), 1);
    assert_eq!(&*settings.routes[0].targets[0].name, "fastapi");
}

#[test]
fn the_whole_example_is_right() {
    let text = whole_example();
    let settings = parsed(&text).map_err(|problems| panic!("{problems}")).unwrap();
    assert_eq!(settings.server.listen[1], Listen::Unix("/run/streamgauge.sock".into()));
    assert_eq!(settings.server.tls.as_ref().unwrap().cert, Path::new("conf/cert.pem"));
    let trusted =
        |text: &str| text.parse::<IpAddr>().map(|a| settings.server.trusted_proxies.iter().any(|n| n.contains(a)));
    assert_eq!((trusted("10.1.2.3"), trusted("192.0.2.8")), (Ok(true), Ok(false)));
    let cors = settings.cors.as_ref().unwrap();
    assert!(cors.origin_patterns[0].regex.is_match("https://my-app-git-main.vercel.app"));
    assert!(!cors.origin_patterns[0].regex.is_match("https://my-app-x.vercel.app.evil.example"));
    let upstream = |name: &str| settings.upstreams.iter().find(|u| &*u.name == name).unwrap();
    assert_eq!(upstream("openai").api_key.as_ref().unwrap().expose(), "sk-canary-secret");
    assert_eq!(upstream("internal").api_key.as_ref().unwrap().expose(), "file-canary-secret");
    assert_eq!(upstream("internal").host, HostPolicy::Own);
    assert_eq!(upstream("internal").ca.as_deref(), Some(Path::new("conf/ca.pem")));
    assert_eq!(upstream("vllm").endpoints.len(), 3);
    let stream = upstream("fastapi").stream.shape.as_ref().unwrap().written().clone();
    assert_eq!(stream.text, Places::Anywhere(Several::One("/token".to_owned())));
    let chat = &settings.routes[0];
    assert_eq!((chat.targets[0].weight, chat.targets[1].weight), (95, 5));
    assert_eq!((&*chat.targets[1].name, chat.targets[1].path.as_deref()), ("next", Some("/v1")));
    assert_eq!(chat.timeouts.total, Some(Duration::from_secs(3600)));
    assert!(chat.timeouts.first_token.is_some() && chat.timeouts.stall.is_some());
    assert_eq!(chat.headers, [("x-tier".to_owned(), "gold".to_owned())]);
    let files = ["conf/cert.pem", "conf/key.pem", "conf/jwks.json", "conf/ca.pem", "conf/internal.key"];
    assert_eq!(settings.files, files.map(std::path::PathBuf::from));
    assert!(!format!("{settings:?}").contains("canary-secret"), "secrets mask themselves");
}

#[test]
fn a_file_that_is_not_there_says_what_to_do_next() {
    let directory = tempfile::tempdir().unwrap();
    let missing = load(&directory.path().join("none.toml")).unwrap_err().to_string();
    for step in ["none.toml: cannot be read: there is no such file", "`streamgauge init`", "--config"] {
        assert!(missing.contains(step), "{step}: {missing}");
    }
    let unreadable = load(directory.path()).unwrap_err().to_string();
    assert!(!unreadable.contains("init"), "a directory is there: {unreadable}");
}

#[test]
fn a_file_is_read_with_its_neighbours() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("s.toml");
    std::fs::write(directory.path().join("k"), "from-a-file\n").unwrap();
    std::fs::write(&file, "[[upstream]]\nurl = \"http://h\"\napi_key_file = \"k\"\n").unwrap();
    let settings = load(&file).unwrap();
    assert_eq!(settings.upstreams[0].api_key.as_ref().unwrap().expose(), "from-a-file");

    let missing = load(&directory.path().join("none.toml")).unwrap_err().to_string();
    assert!(missing.contains("none.toml: cannot be read"), "{missing}");
    std::fs::write(&file, b"a = 1\nb = \"\xff\"\n").unwrap();
    let binary = load(&file).unwrap_err().to_string();
    assert!(binary.contains("not UTF-8 text (line 2)"), "{binary}");
    std::fs::write(&file, vec![b'#'; (FILE_MAX + 1) as usize]).unwrap();
    let large = load(&file).unwrap_err().to_string();
    assert!(large.contains("larger than 1 MiB"), "{large}");
}

#[test]
fn signals_are_known_words_each_named_once() {
    let read = |signals: &str| parsed(&format!("[telemetry]\nsignals = {signals}\n{MINIMAL}"));
    assert_eq!(parsed(MINIMAL).unwrap().telemetry.signals, [Signal::Traces], "as before there were others");
    let all = [Signal::Logs, Signal::Traces, Signal::Metrics];
    assert_eq!(read("[\"logs\", \"traces\", \"metrics\"]").unwrap().telemetry.signals, all);
    assert_eq!(read("[]").unwrap().telemetry.signals, []);
    let twice = read("[\"logs\", \"logs\"]").unwrap_err().to_string();
    assert!(twice.ends_with("2:20: `signals`: \"logs\" is listed twice"), "{twice}");
    let unknown = read("[\"traces\", \"spans\"]").unwrap_err().to_string();
    assert!(unknown.contains("2:22: ") && unknown.contains("\"spans\""), "{unknown}");
}
