//! No request gets around a control by what it looks like: every control is tried with every disguise. What backends in Go,
//! Node.js and Python make of the same requests is in `readers`.

use std::io::Write as _;
use std::process::Command;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::{Proxy, Seen, Upstream, soon};
use crate::versions::h2_on;

/// A request for little.
const SMALL: &str = r#"{"model":"big-model","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#;

/// How a body is sent.
#[derive(Clone, Copy, PartialEq)]
pub enum Framing {
    Length,
    /// In one chunk, or in one a byte.
    Chunk,
    Bytewise,
    Http10,
    Http2,
}

/// A request that asks for 5,000 tokens of `big-model`, in disguise.
pub struct Disguise {
    pub name: &'static str,
    path: &'static str,
    /// Header lines.
    labels: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    framing: Framing,
}

const PATH: &str = "/v1/chat/completions";
const JSON: (&str, &str) = ("content-type", "application/json");
const PLAIN: &str =
    r#"{"model":"big-model","max_tokens":5000,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

fn json_with(name: &'static str, body: impl Into<Vec<u8>>) -> Disguise {
    Disguise { name, path: PATH, labels: vec![JSON], body: body.into(), framing: Framing::Length }
}

fn labelled(name: &'static str, labels: &[(&'static str, &'static str)]) -> Disguise {
    Disguise { labels: labels.to_vec(), ..json_with(name, PLAIN) }
}

fn coded(name: &'static str, codings: &'static str, body: Vec<u8>) -> Disguise {
    Disguise { labels: vec![JSON, ("content-encoding", codings)], body, ..json_with(name, "") }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn brotli(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    brotli::BrotliCompress(&mut &*body, &mut out, &brotli::enc::BrotliEncoderParams::default()).unwrap();
    out
}

fn wide(little: bool) -> Vec<u8> {
    PLAIN.encode_utf16().flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
}

const FORM: &str = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nbig-model\r\n\
    --b\r\ncontent-disposition: form-data; name=\"max_tokens\"\r\n\r\n5000\r\n\
    --b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--b--\r\n";

fn labels_and_codings() -> Vec<Disguise> {
    let body = PLAIN.as_bytes();
    let mut unlabelled_gzip = coded("gzip without a type", "gzip", gzip(body));
    unlabelled_gzip.labels.remove(0);
    vec![
        labelled("plain", &[JSON]),
        labelled("as text", &[("content-type", "text/plain")]),
        labelled("as nothing", &[]),
        labelled("as bytes", &[("content-type", "application/octet-stream")]),
        labelled("as a form", &[("content-type", "application/x-www-form-urlencoded")]),
        labelled("as an upload", &[("content-type", "multipart/form-data; boundary=b")]),
        labelled("two types", &[("content-type", "text/plain"), JSON]),
        labelled("two types, the other way", &[JSON, ("content-type", "text/plain")]),
        labelled("in an odd charset", &[("content-type", "application/json; charset=utf-7")]),
        coded("gzip", "gzip", gzip(body)),
        coded("x-gzip", "X-GZIP", gzip(body)),
        coded("gzip twice named", "identity, gzip", gzip(body)),
        coded("deflate", "deflate", deflate(body)),
        coded("zstd", "zstd", zstd::encode_all(body, 3).unwrap()),
        coded("brotli", "br", brotli(body)),
        coded("gzip in zstd", "gzip, zstd", zstd::encode_all(&*gzip(body), 3).unwrap()),
        coded("gzip that is none", "gzip", body.to_vec()),
        coded("a coding nobody knows", "rot13", body.to_vec()),
        coded("gzip cut short", "gzip", gzip(body)[..30].to_vec()),
        unlabelled_gzip,
    ]
}

fn nominations() -> Vec<Disguise> {
    let nominate = |name, what| labelled(name, &[JSON, ("content-encoding", "gzip"), ("connection", what)]);
    vec![
        nominate("coding nominated", "content-encoding"),
        nominate("type nominated", "close, Content-Type"),
        nominate("user nominated", "x-user-id, content-encoding"),
        nominate("host nominated", "host"),
        labelled("user alone nominated", &[JSON, ("connection", "X-User-Id")]),
        labelled("key nominated", &[JSON, ("connection", "authorization")]),
        labelled("length nominated", &[JSON, ("connection", "content-length")]),
    ]
}

fn keys_and_encodings() -> Vec<Disguise> {
    let with = |from: &str, to: &str| PLAIN.replace(from, to);
    let bom = [&b"\xef\xbb\xbf"[..], PLAIN.as_bytes()].concat();
    let mut invalid = with("hi", "~").into_bytes();
    invalid.iter_mut().filter(|byte| **byte == b'~').for_each(|byte| *byte = 0xff);
    vec![
        json_with("key in another case", with("\"model\"", "\"Model\"").replace("\"max_tokens\"", "\"MAX_TOKENS\"")),
        json_with("key with a long s", with("\"messages\"", "\"me\\u017fsages\"")),
        json_with("another case beside it", with("{\"model\"", "{\"Model\":\"big-model\",\"model\":\"tiny\",\"x\"")),
        json_with(
            "another case behind it",
            with("}]}", "}],\"MODEL\":\"big-model\"}").replacen("big-model", "tiny", 1),
        ),
        json_with("model in a list", with("\"big-model\"", "[\"big-model\"]")),
        json_with("model in another case", with("big-model", "BIG-Model")),
        json_with("key twice", with("{\"model\"", "{\"model\":\"tiny\",\"model\"")),
        json_with("bound twice", with("\"max_tokens\":5000", "\"max_tokens\":5000,\"max_tokens\":1")),
        json_with("smaller bound beside it", with("5000", "5000,\"max_completion_tokens\":1")),
        json_with("smaller bound in options", with("5000", "5000,\"options\":{\"num_predict\":1}")),
        json_with("many answers", with("5000", "50,\"n\":\"100\"")),
        json_with("best of many", with("5000", "50,\"best_of\":100")),
        json_with("many answers in a list", with("5000", "50,\"n\":[\"100\"]")),
        json_with("many answers in hexadecimal", with("5000", "50,\"n\":\"0x64\"")),
        json_with("key with an escape", with("\"model\"", "\"mod\\u0065l\"")),
        json_with("byte order mark", bom),
        json_with("UTF-16", wide(true)),
        json_with("UTF-16, the other way", wide(false)),
        json_with("UTF-16 with a mark", [&b"\xff\xfe"[..], &wide(true)].concat()),
        json_with("NaN", with("5000", "5000,\"top_p\":NaN")),
        json_with("half a surrogate pair", with("hi", "\\ud800")),
        json_with("bytes that are no UTF-8", invalid),
        json_with("a value behind it", format!("{PLAIN}\n{{}}")),
        json_with("something behind it", format!("{PLAIN} x")),
        json_with("spaces before it", format!("{}{PLAIN}", " \r\n\t".repeat(5_000))),
        Disguise { labels: vec![], ..json_with("NaN as nothing", with("5000", "5000,\"top_p\":NaN")) },
        Disguise { labels: vec![], ..json_with("UTF-16 as nothing", wide(true)) },
    ]
}

fn spellings_and_framings() -> Vec<Disguise> {
    let at = |name, path| Disguise { path, ..json_with(name, PLAIN) };
    let gemini = |name, path| Disguise {
        path,
        ..json_with(name, r#"{"contents":[],"generationConfig":{"maxOutputTokens":5000}}"#)
    };
    let framed = |name, framing| Disguise { framing, ..labelled(name, &[("content-type", "text/plain")]) };
    let tiny = PLAIN.replace("big-model", "tiny");
    vec![
        at("a letter encoded", "/v1/chat/completion%73"),
        at("a slash encoded", "/v1%2Fchat/completions"),
        at("a slash at the end", "/v1/chat/completions/"),
        at("two slashes", "/v1//chat/completions"),
        at("a parameter", "/v1/chat/completions;x=y"),
        at("an app's own path", "/v1/chat/ask"),
        gemini("Gemini", "/v1/chat/models/big-model:generateContent"),
        gemini("Gemini, a letter encoded", "/v1/chat/models/big-model:generate%43ontent"),
        gemini("Gemini, the colon encoded", "/v1/chat/models/big-model%3AgenerateContent"),
        gemini("Gemini, a parameter", "/v1/chat/models/big-model:generateContent;x"),
        gemini("Gemini, a slash at the end", "/v1/chat/models/big-model:generateContent/"),
        gemini("Gemini, the model encoded", "/v1/chat/models/%62ig-model:generateContent"),
        gemini("Gemini, a backslash", "/v1/chat/models\\big-model:generateContent"),
        Disguise { path: "/v1/chat/models/big-model:rawPredict", ..json_with("Vertex", tiny.clone()) },
        Disguise { path: "/v1/chat/openai/deployments/big-model/chat/completions", ..json_with("Azure", tiny) },
        Disguise {
            path: "/v1/chat/completions?model=big-model",
            ..json_with("a query", PLAIN.replace("\"model\":\"big-model\",", ""))
        },
        at("letters in another case", "/V1/Chat/Completions"),
        at("an absolute URL", "http://app.test/v1/chat/completions"),
        framed("one chunk", Framing::Chunk),
        framed("a chunk a byte", Framing::Bytewise),
        framed("HTTP/1.0", Framing::Http10),
        framed("HTTP/2", Framing::Http2),
        Disguise { framing: Framing::Http2, ..coded("gzip over HTTP/2", "gzip", gzip(PLAIN.as_bytes())) },
        Disguise {
            framing: Framing::Bytewise,
            ..coded("zstd by bytes", "zstd", zstd::encode_all(PLAIN.as_bytes(), 3).unwrap())
        },
        Disguise { labels: vec![("content-type", "multipart/form-data; boundary=b")], ..json_with("a form", FORM) },
        Disguise {
            labels: vec![("content-type", "application/x-www-form-urlencoded")],
            ..json_with("plain fields", "mod%65l=big-model&max_tokens=5000&prompt=hi")
        },
    ]
}

fn form_with(name: &'static str, label: &'static str, body: impl Into<Vec<u8>>) -> Disguise {
    Disguise { labels: vec![("content-type", label)], ..json_with(name, body) }
}

fn forms() -> Vec<Disguise> {
    const FIELDS: &str = "application/x-www-form-urlencoded";
    const PARTS: &str = "multipart/form-data; boundary=b";
    let part = |head: &str, value: &str| format!("--b\r\ncontent-disposition: form-data; {head}\r\n\r\n{value}\r\n");
    let bound = part("name=max_tokens", "5000");
    let parts = |head: &str| [&part(head, "big-model"), &*bound, "--b--\r\n"].concat();
    let tiny = "--a\r\ncontent-disposition: form-data; name=model\r\n\r\ntiny\r\n--a--\r\n";
    let with_query = |path, disguise| Disguise { path, ..disguise };
    let file = |data: &str| part("name=file; filename=a", data);
    let hidden = "content-disposition: form-data; name=model\r\n\r\nbig-model";
    let beside =
        |data: String| [file(&data), part("name=model", "tiny"), bound.clone(), "--b--\r\n".to_owned()].concat();
    vec![
        form_with(
            "marks of a kind in a file",
            PARTS,
            [file("x--b\r\ny\r\n--bz\r\n--b-\n--b\0"), parts("name=model")].concat(),
        ),
        form_with("a part behind half a mark", PARTS, beside(format!("\r\n--bx\r\n{hidden}"))),
        form_with("a part behind a mark inside a line", PARTS, beside(format!("x--b\r\n{hidden}"))),
        form_with("a part behind a mark and blanks", PARTS, beside(format!("\r\n--b \t\r\n{hidden}"))),
        form_with("an end inside a line", PARTS, [file("x--b--"), parts("name=model")].concat()),
        form_with("a file without a name", PARTS, parts("name=model; filename=\"\"")),
        form_with("a file with a name that few read", PARTS, parts("name=model; filename*=utf-8''")),
        form_with("a file with two names", PARTS, parts("name=model; filename=a; filename*=utf-8''")),
        form_with("a name in pieces", PARTS, parts("name=x; name*0=mod; name*1=el")),
        form_with("an extended name", PARTS, parts("name*=utf-8''model")),
        form_with(
            "a bound that is a file",
            PARTS,
            parts("name=model").replace("name=max_tokens", "name=max_tokens; filename=\"\""),
        ),
        form_with(
            "two boundaries",
            "multipart/form-data; boundary=a; boundary*=utf-8''b",
            [tiny, &parts("name=model")].concat(),
        ),
        form_with("a boundary in quotes", "multipart/form-data; x=\"; boundary=a\"; boundary=b", parts("name=model")),
        form_with("a field twice", PARTS, [part("name=model", "tiny"), parts("name=model")].concat()),
        form_with("JSON that is a form", FIELDS, r#"{"x":"&model=big-model&max_tokens=5000&prompt=hi&y="}"#),
        Disguise {
            labels: vec![JSON, ("content-type", FIELDS)],
            ..json_with("JSON and a form", r#"{"x":"&model=big-model&max_tokens=5000&prompt=hi&y="}"#)
        },
        form_with("a key in brackets", FIELDS, "[model]=big-model&max_tokens=5000&prompt=hi"),
        form_with("a key with brackets", FIELDS, "model[]=big-model&max_tokens=5000&prompt=hi"),
        form_with("brackets encoded", FIELDS, "%5Bmodel%5D=big-model&max_tokens=5000&prompt=hi"),
        form_with("a bound in brackets", FIELDS, "model=big-model&options[num_predict]=5000&prompt=hi"),
        form_with("a semicolon", FIELDS, "prompt=hi;model=big-model&max_tokens=5000"),
        form_with(
            "fields in an odd charset",
            "application/x-www-form-urlencoded; charset=utf-7",
            "model=big-model&max_tokens=5000",
        ),
        with_query(
            "/v1/chat/app?model=big-model&max_tokens=5000",
            form_with("a query beside fields", FIELDS, "prompt=hi"),
        ),
        with_query(
            "/v1/chat/app?model=big-model",
            form_with("a query against parts", PARTS, parts("name=model").replace("big", "tiny")),
        ),
    ]
}

pub fn disguises() -> Vec<Disguise> {
    [labels_and_codings(), nominations(), keys_and_encodings(), spellings_and_framings(), forms()]
        .into_iter()
        .flatten()
        .collect()
}

/// Sends a request in disguise; its status.
async fn send(proxy: &Proxy, disguise: &Disguise, more: &[(&str, &str)]) -> u16 {
    ask(proxy, disguise, more).await.0
}

/// Sends a request in disguise; its answer's status and body.
pub async fn ask(proxy: &Proxy, disguise: &Disguise, more: &[(&str, &str)]) -> (u16, Vec<u8>) {
    let headers = disguise.labels.iter().chain(more);
    if disguise.framing == Framing::Http2 {
        let mut send = h2_on(TcpStream::connect(proxy.listen).await.unwrap()).await;
        let mut request = http::Request::post(format!("http://app.test{}", disguise.path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (answer, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from(disguise.body.clone()), true).unwrap();
        let (head, mut body) = soon("an answer over HTTP/2", answer).await.unwrap().into_parts();
        let mut whole = Vec::new();
        while let Some(piece) = soon("its body", body.data()).await {
            whole.extend_from_slice(&piece.unwrap());
        }
        return (head.status.as_u16(), whole);
    }
    let version = if disguise.framing == Framing::Http10 { "1.0" } else { "1.1" };
    let mut head = format!("POST {} HTTP/{version}\r\nhost: app.test\r\n", disguise.path);
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let is_chunked = matches!(disguise.framing, Framing::Chunk | Framing::Bytewise);
    head += &match is_chunked {
        true => "transfer-encoding: chunked\r\n\r\n".to_owned(),
        false => format!("content-length: {}\r\n\r\n", disguise.body.len()),
    };
    let mut client = proxy.client().await;
    client.send(head).await;
    if is_chunked {
        let size = if disguise.framing == Framing::Chunk { disguise.body.len() } else { 1 };
        for piece in disguise.body.chunks(size) {
            client.send([format!("{:x};x=y\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await;
        }
        client.send("0\r\n\r\n").await;
    } else {
        client.send(&disguise.body).await;
    }
    let answer = client.answer().await;
    (answer.status, answer.body)
}

/// Two upstreams behind a route a control; which one a request went to is told by its name.
struct Stage {
    proxy: Proxy,
    _upstreams: [Upstream; 2],
    seen: [(&'static str, mpsc::Receiver<Seen>); 2],
}

fn answer(kind: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// An answer of 10,010 tokens.
const DEAR: &str = r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},
    "finish_reason":"stop"}],"usage":{"prompt_tokens":10000,"completion_tokens":10,"total_tokens":10010}}"#;

const ROUTES: &str = r#"
[[price]]
model = "*"
input = 1.0
output = 1.0

[[limit]]
name = "tokens"
key = "global"
tokens_per_minute = 1000

[[limit]]
name = "budget"
key = "global"
cost_per_day = 0.012

[[route]]
name = "tokens"
path = "/v1/chat/*"
headers = { x-control = "tokens" }
upstream = "other"
limits = ["tokens"]

[[route]]
name = "budget"
path = "/v1/chat/*"
headers = { x-control = "budget" }
upstream = "other"
limits = ["budget"]

[[route]]
name = "rename"
path = "/v1/chat/*"
headers = { x-control = "rename" }
targets = [{ upstream = "other", model = "small-model" }]

[[route]]
name = "model"
path = "/v1/chat/*"
headers = { x-control = "model" }
models = ["big-*"]
upstream = "big"

[[route]]
name = "rest"
path = "*"
upstream = "other"
"#;

impl Stage {
    async fn set(identity: &str) -> Self {
        let (big, seen_by_big) = Upstream::recording(answer("application/json", DEAR)).await;
        let (other, seen_by_other) = Upstream::recording(answer("application/json", DEAR)).await;
        let upstream = |name: &str, upstream: &Upstream| {
            format!("[[upstream]]\nname = \"{name}\"\nurl = \"http://{}\"\n", upstream.address)
        };
        let text = [identity, &upstream("big", &big), &upstream("other", &other), ROUTES].concat();
        let seen = [("big", seen_by_big), ("other", seen_by_other)];
        Self { proxy: Proxy::start(&text).await, _upstreams: [big, other], seen }
    }

    /// What reached an upstream so far, and which.
    fn seen(&mut self) -> Vec<(&'static str, Seen)> {
        let mut all = Vec::new();
        for (name, seen) in &mut self.seen {
            while let Ok(request) = seen.try_recv() {
                all.push((*name, request));
            }
        }
        all
    }
}

#[tokio::test]
async fn limits_and_budgets_see_through_every_disguise() {
    let mut stage = Stage::set("").await;
    // Most of the budget goes: what is left is enough for a small request, and for none of 5,000 tokens.
    assert_eq!(
        send(&stage.proxy, &json_with("small", SMALL), &[("x-control", "budget"), ("x-request-id", "dear")]).await,
        200
    );
    assert_eq!(stage.proxy.record("dear").await["limit"]["used"], 10_010);
    stage.seen();
    let mut around = Vec::new();
    for disguise in disguises() {
        for control in ["tokens", "budget"] {
            let status = send(&stage.proxy, &disguise, &[("x-control", control)]).await;
            let seen = stage.seen();
            if !(400..500).contains(&status) || !seen.is_empty() {
                around.push((control, disguise.name, status));
            }
        }
    }
    assert!(around.is_empty(), "got around them: {around:?}");
    assert_eq!(send(&stage.proxy, &json_with("small", SMALL), &[("x-control", "budget")]).await, 200);
}

#[tokio::test]
async fn the_models_route_is_taken_in_every_disguise() {
    let mut stage = Stage::set("").await;
    let (mut passed, mut around) = (0, Vec::new());
    for disguise in disguises() {
        let status = send(&stage.proxy, &disguise, &[("x-control", "model")]).await;
        let seen = stage.seen();
        let went: Vec<_> = seen.iter().map(|(name, _)| *name).collect();
        if !matches!((status, &went[..]), (200, ["big"]) | (400, [])) {
            around.push((disguise.name, status, went));
        }
        passed += u32::from(status == 200);
    }
    assert!(around.is_empty(), "got around it: {around:?}");
    assert!(passed > 30, "only {passed} passed: nothing is shown by refusing all");
}

#[tokio::test]
async fn the_user_is_whom_the_key_names_in_every_disguise() {
    let out = Command::new(env!("CARGO_BIN_EXE_streamgauge")).args(["key", "new", "--user", "alice"]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let key = text.lines().find(|line| line.starts_with("sg-")).unwrap();
    let entry = &text[text.find("[[identity.key]]").unwrap()..];
    let mut stage = Stage::set(&format!("[identity]\nrequired = true\n{entry}\n")).await;
    let bearer = format!("Bearer {key}");
    let mut passed = 0;
    for disguise in disguises() {
        let more =
            [("authorization", &*bearer), ("x-user-id", "mallory"), ("x_user_id", "mallory"), ("x-control", "none")];
        let status = send(&stage.proxy, &disguise, &more).await;
        for (_, request) in stage.seen() {
            assert_eq!(request.all("x-user-id"), ["alice"], "{}", disguise.name);
            assert!(!request.head.to_ascii_lowercase().contains("mallory"), "{}: {}", disguise.name, request.head);
            assert_eq!(request.header("authorization"), None, "{}", disguise.name);
            passed += 1;
        }
        assert!(matches!(status, 200 | 400), "{}: {status}", disguise.name);
        let is_malformed =
            disguise.labels.iter().any(|(name, _)| *name == "connection") || disguise.path.contains('\\');
        assert_eq!(
            status == 400,
            is_malformed,
            "{}: where nothing depends on the body, it passes as it came",
            disguise.name
        );
    }
    assert!(passed > 50, "{passed}");
}

#[tokio::test]
async fn what_an_answer_reports_is_booked_whatever_the_request_was() {
    let frame = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
    let end = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let stream = [&frame.repeat(20), end].concat();
    let vectors = [
        ("whole", answer("application/json", DEAR), 10_010..=10_010),
        // 4,000 bytes of what nobody read, and 20 tokens of an answer that reports nothing.
        ("streamed", answer("text/event-stream", &stream), 1_020..=1_030),
        ("no LLM's", answer("application/json", r#"{"users":[{"name":"x"}]}"#), 0..=0),
    ];
    for (name, answer, expected) in vectors {
        let upstream = Upstream::fixed(answer).await;
        let limited = "[[limit]]\nname = \"l\"\nkey = \"global\"\ntokens_per_minute = 100000\n\n[[route]]\nname = \"all\"\npath = \"*\"\n\
            upstream = \"fake\"\nlimits = [\"l\"]\n";
        let proxy = Proxy::start(&crate::support::config(upstream.address, limited)).await;
        let opaque = Disguise {
            labels: vec![("content-type", "text/plain")],
            path: "/app",
            ..json_with("opaque", "x".repeat(4_000))
        };
        assert_eq!(send(&proxy, &opaque, &[("x-request-id", "it")]).await, 200, "{name}");
        let record = proxy.record("it").await;
        let used = record["limit"]["used"].as_u64().unwrap_or(0);
        assert!(expected.contains(&used), "{name}: {used} in {record}");
    }
}

#[tokio::test]
async fn what_is_read_is_bounded_after_decoding_too() {
    let mut stage = Stage::set("[server]\nmax_body = \"64KiB\"\n").await;
    let long = PLAIN.replace("hi", &"x".repeat(100_000));
    let bodies = [
        json_with("plain", &*long),
        coded("gzip", "gzip", gzip(long.as_bytes())),
        coded("zstd", "zstd", zstd::encode_all(long.as_bytes(), 3).unwrap()),
        Disguise { labels: vec![], framing: Framing::Chunk, ..json_with("as nothing", &*long) },
    ];
    for body in &bodies {
        assert_eq!(send(&stage.proxy, body, &[("x-control", "model")]).await, 413, "{}", body.name);
        assert!(stage.seen().is_empty(), "{}", body.name);
    }
    let upload = Disguise { labels: vec![], framing: Framing::Chunk, ..json_with("an upload", vec![7; 1_000_000]) };
    assert_eq!(send(&stage.proxy, &upload, &[("x-control", "model")]).await, 200, "what is not read is not bounded so");
    assert_eq!(stage.seen().pop().map(|(_, request)| request.body.len()), Some(1_000_000));
}

#[tokio::test]
async fn bodies_without_anything_in_them_pass() {
    for framing in [Framing::Length, Framing::Chunk, Framing::Http2] {
        for body in ["", " \r\n"] {
            // Each before an empty bucket: the answers are dear.
            let stage = Stage::set("").await;
            let empty = Disguise { framing, path: "/v1/chat/app", ..json_with("empty", body) };
            if body.is_empty() && framing == Framing::Chunk {
                continue;
            }
            assert_eq!(send(&stage.proxy, &empty, &[("x-control", "tokens")]).await, 200, "{body:?}");
        }
    }
}

#[tokio::test]
async fn what_need_not_be_edited_goes_on_as_it_came() {
    let mut stage = Stage::set("").await;
    let body = gzip(PLAIN.as_bytes());
    let coded = coded("gzip", "gzip", body.clone());
    assert_eq!(send(&stage.proxy, &coded, &[("x-control", "model")]).await, 200);
    let (_, request) = stage.seen().pop().unwrap();
    assert_eq!(request.header("content-encoding"), None, "usage was asked for: it is edited");
    let whole = gzip(PLAIN.replace("\"stream\":true", "\"stream\":false").as_bytes());
    assert_eq!(send(&stage.proxy, &Disguise { body: whole.clone(), ..coded }, &[("x-control", "model")]).await, 200);
    let (_, request) = stage.seen().pop().unwrap();
    assert_eq!((request.header("content-encoding"), &request.body), (Some("gzip"), &whole));
}
