//! JWTs: whose are believed, what each bad one is told, and keys that change while all runs.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Answer, Proxy, Upstream, config, soon};
use crate::versions::{authority, install_crypto, server_config};

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Who signs tokens.
pub struct Issuer {
    algorithm: Algorithm,
    key: EncodingKey,
    kid: Option<&'static str>,
}

impl Issuer {
    pub fn hmac(secret: &str) -> Self {
        Self { algorithm: Algorithm::HS256, key: EncodingKey::from_secret(secret.as_bytes()), kid: None }
    }

    fn rsa() -> Self {
        let pem = include_bytes!("../keys/rsa.pem");
        Self { algorithm: Algorithm::RS256, key: EncodingKey::from_rsa_pem(pem).unwrap(), kid: Some("rsa") }
    }

    fn ec(kid: &'static str) -> Self {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        Self { algorithm: Algorithm::ES256, key: EncodingKey::from_ec_pem(pem.as_bytes()).unwrap(), kid: Some(kid) }
    }

    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = self.kid.map(str::to_owned);
        encode(&header, claims, &self.key).unwrap()
    }

    fn public(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = self.kid.map(str::to_owned);
        jwk
    }

    /// The JWKS with the public half.
    fn published(&self) -> String {
        published(&[self])
    }
}

fn published(issuers: &[&Issuer]) -> String {
    json!({ "keys": issuers.iter().map(|issuer| issuer.public()).collect::<Vec<_>>() }).to_string()
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn good() -> Value {
    json!({ "sub": "carol", "iss": "https://id", "aud": ["chat"], "exp": now() + 600, "team": "search" })
}

fn with(claim: &str, value: Value) -> Value {
    let mut claims = good();
    claims[claim] = value;
    claims
}

async fn call(proxy: &Proxy, token: &str, id: &str) -> Answer {
    proxy.client().await.get("/x", &format!("authorization: Bearer {token}\r\nx-request-id: {id}\r\n")).await
}

/// An issuer's JWKS endpoint whose answer the test changes; counts what it was asked.
async fn endpoint(answer: &Arc<Mutex<String>>) -> Upstream {
    let answer = Arc::clone(answer);
    Upstream::start(move |mut conn| {
        let answer = Arc::clone(&answer);
        async move {
            conn.request().await;
            let bytes = answer.lock().unwrap().clone();
            conn.write(bytes).await;
        }
    })
    .await
}

fn http(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

const JWT: &str = "issuer = \"https://id\"\naudience = \"chat\"\nteam_claim = \"team\"\nteams = [\"search\"]\n";

#[tokio::test]
async fn bad_tokens_are_told_what_is_wrong_and_good_ones_pass_on() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    let issuer = Issuer::rsa();
    std::fs::write(&file, issuer.published()).unwrap();
    let text = format!("[identity.jwt]\njwks_file = {file:?}\n{JWT}{}", config(upstream.address, ROUTE));
    let proxy = Proxy::start(&text).await;

    let token = issuer.sign(&good());
    assert_eq!(call(&proxy, &token, "good").await.status, 200);
    let request = soon("the request", seen.recv()).await.unwrap();
    assert_eq!(request.header("authorization"), Some(format!("Bearer {token}").as_str()), "the app may want it");
    assert_eq!(request.header("x-user-id"), Some("carol"));
    assert_eq!(proxy.record("good").await["user.id"], "carol");

    let (message, signature) = token.rsplit_once('.').unwrap();
    let other = Issuer { kid: Some("other"), ..Issuer::rsa() };
    let confused = Issuer { kid: Some("rsa"), ..Issuer::hmac(&issuer.published()) };
    let payload = message.split_once('.').unwrap().1;
    // {"alg":"none"}
    let none = format!("eyJhbGciOiJub25lIn0.{payload}.");
    let cases = [
        (issuer.sign(&with("exp", json!(now() - 120))), 401, "expired"),
        (issuer.sign(&with("nbf", json!(now() + 120))), 401, "not valid yet"),
        (issuer.sign(&with("aud", json!("other"))), 401, "audience"),
        (issuer.sign(&with("iss", json!("https://evil"))), 401, "issuer"),
        (issuer.sign(&with("sub", json!(7))), 401, "`sub`"),
        (issuer.sign(&with("team", json!("other"))), 403, "team"),
        (other.sign(&good()), 401, "`kid`"),
        (confused.sign(&good()), 401, "`alg`"),
        (none, 401, "not signed"),
        (format!("{message}."), 401, "not signed"),
        (
            format!("{message}.{}{}", if signature.starts_with('A') { "B" } else { "A" }, &signature[1..]),
            401,
            "signature",
        ),
    ];
    for (number, (bad, status, words)) in cases.iter().enumerate() {
        let answer = call(&proxy, bad, &format!("bad{number}")).await;
        assert_eq!(answer.status, *status, "{words}: {}", answer.text());
        assert!(answer.text().contains(words), "{words:?} is missing in {}", answer.text());
        assert_eq!(answer.header("www-authenticate"), (*status == 401).then_some("Bearer"));
        assert!(proxy.record(&format!("bad{number}")).await["user.id"].is_null());
    }
    assert_eq!(call(&proxy, "opaque", "app").await.status, 200, "what is no JWT is the app's own");

    let next = Issuer::ec("next");
    std::fs::write(&file, next.published()).unwrap();
    proxy.line("the reload", |line| line["event"] == "config.reloaded").await;
    assert_eq!(call(&proxy, &next.sign(&good()), "next").await.status, 200, "the file is watched");
    assert_eq!(call(&proxy, &token, "old").await.status, 401);
}

/// How many fetches of keys ended so.
async fn fetches(proxy: &Proxy, result: &str) -> f64 {
    let (_, metrics) = proxy.admin_get("/metrics").await;
    let series = format!("streamgauge_jwks_fetches_total{{result=\"{result}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap_or_else(|| panic!("no {series}in {metrics}")).parse().unwrap()
}

#[tokio::test]
async fn keys_behind_a_url_rotate_and_outlive_their_endpoint() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let (first, second) = (Issuer::ec("first"), Issuer::ec("second"));
    let answer = Arc::new(Mutex::new(http(&first.published())));
    let keys = endpoint(&answer).await;
    let text = format!(
        "[identity]\nrequired = true\n[identity.jwt]\njwks_url = \"http://{}/keys\"\n{JWT}{}",
        keys.address,
        config(upstream.address, ROUTE)
    );
    let proxy = Proxy::start(&text).await;
    assert_eq!(call(&proxy, &first.sign(&good()), "first").await.status, 200, "fetched before the first request");
    let asked = keys.connections();
    assert_eq!(fetches(&proxy, "failed").await, 0.0);
    let (_, shown) = proxy.admin_get("/api/config").await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert!(shown["identity_keys_age_s"].as_u64().is_some_and(|age| age < 60), "{shown}");

    *answer.lock().unwrap() = http(&published(&[&second, &Issuer::ec("third")]));
    let early = call(&proxy, &second.sign(&good()), "early").await;
    assert_eq!(early.status, 401, "no request waits for keys");
    assert!(early.text().contains("try again in a few seconds"), "{}", early.text());
    proxy.line("the new keys", |line| line["event"] == "identity.keys_fetched" && line["count"] == 2).await;
    assert_eq!(call(&proxy, &second.sign(&good()), "late").await.status, 200);
    assert_eq!(call(&proxy, &first.sign(&good()), "gone").await.status, 401, "what is withdrawn counts no more");
    assert_eq!(keys.connections(), asked + 1, "strangers' keys do not make us ask again and again");
    drop(keys);
    let reload = format!("{text}\n[telemetry]\nslow_gap = \"3s\"\n");
    proxy.write_config(&reload);
    proxy.line("the reload", |line| line["event"] == "config.reloaded").await;
    assert_eq!(call(&proxy, &second.sign(&good()), "dead").await.status, 200, "the last good keys stay");
}

#[tokio::test]
async fn an_endpoint_that_fails_blocks_nobody() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let issuer = Issuer::ec("a");
    let large = format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(300 << 10));
    let silent = Upstream::start(|mut conn| async move { conn.closed().await }).await;
    let silence = Proxy::start(&format!(
        "[identity.jwt]\njwks_url = \"http://{}/\"\n{JWT}{}",
        silent.address,
        config(upstream.address, ROUTE)
    ))
    .await;
    let line = silence.line("the failure", |line| line["event"] == "identity.keys_failed").await;
    assert!(line["reason"].as_str().unwrap().contains("did not answer"), "{line}");
    assert_eq!(call(&silence, &issuer.sign(&good()), "none").await.status, 503);
    assert!(fetches(&silence, "failed").await >= 1.0);
    let (_, shown) = silence.admin_get("/api/config").await;
    assert!(shown.contains("\"identity_keys_age_s\":null"), "{shown}");

    for (bytes, reason) in [
        ("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned(), "status 500"),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://evil/\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "redirects are not followed",
        ),
        (http("<html>"), "not a JWKS"),
        (http("{\"keys\": []}"), "no key"),
        (http(&large), "more than"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{".to_owned(), "broke off"),
        (String::new(), "broke off"),
    ] {
        let keys = endpoint(&Arc::new(Mutex::new(bytes))).await;
        let identity = format!("[identity.jwt]\njwks_url = \"http://{}/\"\n{JWT}", keys.address);
        let proxy = Proxy::start(&format!("{identity}{}", config(upstream.address, ROUTE))).await;
        let line = proxy.line("the failure", |line| line["event"] == "identity.keys_failed").await;
        assert!(line["reason"].as_str().unwrap().contains(reason), "{reason:?} is missing in {line}");
        let answer = call(&proxy, &issuer.sign(&good()), "none").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{}", answer.text());
        assert_eq!(call(&proxy, "opaque", "app").await.status, 200, "who needs no keys is served");
    }
}

/// A JWKS endpoint over https, and its authority's PEM.
async fn https_endpoint(body: String) -> (std::net::SocketAddr, String) {
    install_crypto();
    let (ca, certificate, key) = authority();
    let tls = tokio_rustls::TlsAcceptor::from(server_config(&certificate, &key, &[]));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tls, answer) = (tls.clone(), http(&body));
            tokio::spawn(async move {
                // A client that trusts nobody here ends the handshake.
                let Ok(mut stream) = tls.accept(stream).await else { return };
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap();
                assert!(head[..read].starts_with(b"GET /keys HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
            });
        }
    });
    (address, ca)
}

#[tokio::test]
async fn keys_come_over_https_from_those_alone_whom_the_system_trusts() {
    let (upstream, _seen) = Upstream::recording(OK).await;
    let issuer = Issuer::ec("a");
    let (keys, ca) = https_endpoint(issuer.published()).await;
    let directory = tempfile::tempdir().unwrap();
    let trusted = directory.path().join("trusted.pem");
    std::fs::write(&trusted, ca).unwrap();
    let url = format!("https://localhost:{}/keys", keys.port());
    let text = format!("[identity.jwt]\njwks_url = \"{url}\"\n{JWT}{}", config(upstream.address, ROUTE));
    let proxy = Proxy::start_with(&text, &[("SSL_CERT_FILE", trusted.to_str().unwrap())]).await;
    assert_eq!(call(&proxy, &issuer.sign(&good()), "https").await.status, 200);

    let proxy = Proxy::start(&text).await;
    let line = proxy.line("the failure", |line| line["event"] == "identity.keys_failed").await;
    assert!(line["reason"].as_str().unwrap().contains("TLS"), "{line}");
    assert_eq!(call(&proxy, &issuer.sign(&good()), "distrusted").await.status, 503);
}
