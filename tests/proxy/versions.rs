//! HTTP/1.0, HTTP/1.1, HTTP/2 in clear text and over TLS, towards clients and upstreams; unix sockets and IPv6.

use std::sync::Arc;

use crate::support::{Proxy, Upstream, config, soon};
use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};

const ROUTE: &str = "[[route]]\nname = \"all\"\npath = \"*\"\ntargets = [{ upstream = \"fake\" }]\n";

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";

/// An HTTP/2 connection on `stream`.
pub async fn h2_on<S>(stream: S) -> h2::client::SendRequest<Bytes>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    send.ready().await.unwrap()
}

/// One h2 exchange: status, headers, body, trailers; `Err` when the stream was reset.
pub async fn h2_get(
    send: &mut h2::client::SendRequest<Bytes>,
    request: http::Request<()>,
    body: Option<&'static str>,
) -> Result<(http::response::Parts, String, Option<http::HeaderMap>), h2::Error> {
    let (answer, mut stream) = send.send_request(request, body.is_none())?;
    if let Some(body) = body {
        stream.send_data(Bytes::from_static(body.as_bytes()), true)?;
    }
    let (parts, mut incoming) = soon("an h2 answer", answer).await?.into_parts();
    let mut text = String::new();
    while let Some(piece) = soon("h2 data", incoming.data()).await {
        let piece = piece?;
        incoming.flow_control().release_capacity(piece.len())?;
        text.push_str(&String::from_utf8_lossy(&piece));
    }
    let trailers = incoming.trailers().await?;
    Ok((parts, text, trailers))
}

fn request(path: &str) -> http::Request<()> {
    http::Request::get(format!("http://app.test{path}")).body(()).unwrap()
}

#[tokio::test]
async fn h2c_with_prior_knowledge_shares_the_port() {
    let (upstream, mut seen) = Upstream::recording(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut send = h2_on(TcpStream::connect(proxy.listen).await.unwrap()).await;
    let cookies =
        http::Request::get("http://app.test/a?b=c").header("cookie", "a=1").header("cookie", "b=2").body(()).unwrap();
    let (parts, text, _) = h2_get(&mut send, cookies, None).await.unwrap();
    assert_eq!((parts.status.as_u16(), text.as_str()), (200, "ok"));
    let got = seen.recv().await.unwrap();
    assert!(got.head.starts_with("GET /a?b=c HTTP/1.1"), "{}", got.head);
    assert_eq!(got.header("host"), Some("app.test"));
    assert_eq!(got.all("cookie"), ["a=1; b=2"]);

    let post = http::Request::post("http://app.test/p").header("content-type", "application/json").body(()).unwrap();
    let (parts, ..) = h2_get(&mut send, post, Some("{\"x\":1}")).await.unwrap();
    assert_eq!(parts.status, 200);
    assert_eq!(seen.recv().await.unwrap().body, b"{\"x\":1}");
    // And HTTP/1.1 on the same port.
    assert_eq!(proxy.client().await.get("/", "").await.text(), "ok");
}

#[tokio::test]
async fn the_shortest_http10_request_is_answered() {
    let upstream = Upstream::fixed(OK).await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
}

#[tokio::test]
async fn a_cut_upstream_is_a_reset_over_h2() {
    let upstream = Upstream::start(|mut conn| async move {
        conn.request().await;
        conn.event_stream().await;
        conn.chunk("data: one\n\n").await;
    })
    .await;
    let proxy = Proxy::start(&config(upstream.address, &format!("{ROUTE}\nkind = \"llm\"\n"))).await;
    let mut send = h2_on(TcpStream::connect(proxy.listen).await.unwrap()).await;
    let (answer, _) = send.send_request(request("/events"), true).unwrap();
    let mut incoming = soon("an answer", answer).await.unwrap().into_body();
    let mut text = String::new();
    let end = loop {
        match soon("data or a reset", incoming.data()).await {
            Some(Ok(piece)) => {
                incoming.flow_control().release_capacity(piece.len()).unwrap();
                text.push_str(&String::from_utf8_lossy(&piece));
            }
            other => break other,
        }
    };
    assert!(text.starts_with("data: one\n\n"));
    assert!(text.contains("upstream_body_reset"), "the error event comes before the reset: {text}");
    assert!(matches!(end, Some(Err(error)) if error.is_reset()), "no false end");
}

#[tokio::test]
async fn leaving_an_h2_stream_frees_the_upstream() {
    let (upstream, mut conns) = Upstream::handed().await;
    let proxy = Proxy::start(&config(upstream.address, ROUTE)).await;
    let mut send = h2_on(TcpStream::connect(proxy.listen).await.unwrap()).await;
    for streaming in [false, true] {
        let (answer, mut stream) = send.send_request(request("/s"), true).unwrap();
        let mut conn = soon("the request", conns.recv()).await.unwrap();
        conn.request().await.unwrap();
        if streaming {
            conn.event_stream().await;
            conn.chunk("data: x\n\n").await;
            let mut incoming = soon("an answer", answer).await.unwrap().into_body();
            soon("data", incoming.data()).await.unwrap().unwrap();
            stream.send_reset(h2::Reason::CANCEL);
            drop(incoming);
        } else {
            stream.send_reset(h2::Reason::CANCEL);
            drop(answer);
        }
        conn.closed().await;
    }
    // The connection itself goes on.
    let (answer, _) = send.send_request(request("/again"), true).unwrap();
    let mut conn = soon("the request", conns.recv()).await.unwrap();
    conn.request().await.unwrap();
    conn.write(OK).await;
    assert_eq!(soon("an answer", answer).await.unwrap().status(), 200);
}

/// An HTTP/2 upstream that answers with the request's target, and a trailer.
async fn h2_upstream(tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    None => h2_serve(stream).await,
                    Some(config) => {
                        if let Ok(stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await {
                            h2_serve(stream).await;
                        }
                    }
                }
            });
        }
    });
    address
}

async fn h2_serve<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: S) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (parts, mut body) = request.into_parts();
        let text = format!("{} {}", parts.method, parts.uri);
        tokio::spawn(async move {
            let mut length = 0;
            while let Some(Ok(piece)) = body.data().await {
                length += piece.len();
                let _ = body.flow_control().release_capacity(piece.len());
            }
            let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
            stream.send_data(format!("{text} {length}").into(), false).unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-checksum", "abc".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        });
    }
}

#[tokio::test]
async fn a_hedged_h2_stream_that_loses_is_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    let reset = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let reset = std::future::poll_fn(|context| respond.poll_reset(context));
        tokio::select! {
            reason = reset => reason.unwrap(),
            // Drives the connection.
            _ = connection.accept() => panic!("no second request, and no end of the connection"),
        }
    });
    let quick = h2_upstream(None).await;
    let table = |name: &str, at: std::net::SocketAddr| {
        format!("[[upstream]]\nname = \"{name}\"\nurl = \"http://{at}\"\nprotocol = \"http2\"\n")
    };
    let route = "[[route]]\nupstream = \"silent\"\nfallback = [{ upstream = \"quick\" }]\nhedge_after = \"50ms\"\n";
    let proxy = Proxy::start(&format!("{}{}{route}", table("silent", silent), table("quick", quick))).await;
    let mut client = proxy.client().await;
    client.post("/v1/chat/completions", "{\"stream\":true,\"messages\":[]}", "").await;
    assert!(client.answer().await.text().starts_with("POST http://"));
    assert_eq!(soon("the loser's reset", reset).await.unwrap(), h2::Reason::CANCEL);
}

#[tokio::test]
async fn h2_upstreams_are_spoken_to_in_h2_and_trailers_pass() {
    let address = h2_upstream(None).await;
    let text = format!("[[upstream]]\nname = \"fake\"\nurl = \"http://{address}\"\nprotocol = \"http2\"\n{ROUTE}");
    let proxy = Proxy::start(&text).await;
    let mut client = proxy.client().await;
    client.post("/v1/x?y=1", "{\"a\":1}", "").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "POST http://app.test/v1/x?y=1 7"));
    let mut send = h2_on(TcpStream::connect(proxy.listen).await.unwrap()).await;
    let (_, text, trailers) = h2_get(&mut send, request("/t"), None).await.unwrap();
    assert_eq!(text, "GET http://app.test/t 0");
    assert_eq!(trailers.unwrap()["x-checksum"], "abc");
}

/// A certificate authority's PEM, and a server configuration signed by it for `localhost`.
pub fn authority() -> (String, String, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.clone().self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    (ca_pem, certificate.pem(), key.serialize_pem())
}

pub fn server_config(certificate: &str, key: &str, alpn: &[&[u8]]) -> Arc<tokio_rustls::rustls::ServerConfig> {
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config =
        tokio_rustls::rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

pub fn install_crypto() {
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
}

#[tokio::test]
async fn https_upstreams_are_verified_by_their_own_authority() {
    install_crypto();
    let (ca, certificate, key) = authority();
    let address = h2_upstream(Some(server_config(&certificate, &key, &[b"h2"]))).await;
    let directory = tempfile::tempdir().unwrap();
    let ca_path = directory.path().join("ca.pem");
    std::fs::write(&ca_path, ca).unwrap();
    let port = address.port();
    let trusted = format!(
        "[[upstream]]\nname = \"fake\"\nurl = \"https://localhost:{port}/base\"\nca = \"{}\"\n{ROUTE}",
        ca_path.display()
    );
    let proxy = Proxy::start(&trusted).await;
    let answer = proxy.client().await.get("/x", "").await;
    let wanted = format!("GET https://localhost:{port}/base/x 0");
    assert_eq!(answer.text(), wanted, "its own host, and the base path in front");

    let distrusted = format!("[[upstream]]\nname = \"fake\"\nurl = \"https://localhost:{port}\"\n{ROUTE}");
    let proxy = Proxy::start(&distrusted).await;
    let answer = proxy.client().await.get("/x", "x-request-id: tls\r\n").await;
    assert_eq!(answer.status, 502);
    assert_eq!(proxy.record("tls").await["error_type"], "tls_failed", "{}", answer.text());
}

#[tokio::test]
async fn tls_towards_clients_speaks_both_versions() {
    install_crypto();
    let (ca, certificate, key) = authority();
    let upstream = Upstream::fixed(OK).await;
    let directory = tempfile::tempdir().unwrap();
    let (cert_path, key_path) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&cert_path, &certificate).unwrap();
    std::fs::write(&key_path, &key).unwrap();
    let tls = format!("[server]\ntls = {{ cert = \"{}\", key = \"{}\" }}\n", cert_path.display(), key_path.display());
    let proxy = Proxy::start(&format!("{tls}{}", config(upstream.address, ROUTE))).await;
    for alpn in [&b"h2"[..], b"http/1.1"] {
        use tokio_rustls::rustls::{
            ClientConfig, RootCertStore,
            pki_types::{CertificateDer, ServerName, pem::PemObject},
        };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let tcp = TcpStream::connect(proxy.listen).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = soon("a TLS handshake", tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp))
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        if alpn == b"h2" {
            let mut send = h2_on(stream).await;
            let (parts, text, _) = h2_get(&mut send, request("/tls"), None).await.unwrap();
            assert_eq!((parts.status.as_u16(), text.as_str()), (200, "ok"));
        } else {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut text = String::new();
            soon("the answer", stream.read_to_string(&mut text)).await.unwrap();
            assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("ok"), "{text}");
        }
    }
}

#[tokio::test]
async fn unix_sockets_and_ipv6_on_both_sides() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let directory = tempfile::tempdir().unwrap();
    let (front, back) = (directory.path().join("front.sock"), directory.path().join("back.sock"));
    let listener = tokio::net::UnixListener::bind(&back).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                while stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                    if stream.write_all(OK.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    let text = format!(
        "[server]\nlisten = [\"unix:{}\", \"[::1]:0\"]\n[[upstream]]\nname = \"fake\"\nurl = \"unix:{}\"\n{ROUTE}",
        front.display(),
        back.display()
    );
    let proxy = Proxy::start_listening(&text).await;
    let mut stream = soon("the socket", tokio::net::UnixStream::connect(&front)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("ok"), "{answer}");
    assert!(proxy.listen.is_ipv6());
    assert_eq!(proxy.client().await.get("/6", "").await.text(), "ok");
}
