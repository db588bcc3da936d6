//! Whose certificate is believed, and what is said where one is not.

use crate::support::{Proxy, Upstream};
use crate::versions::{authority, install_crypto, server_config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// The port of an upstream that shows this certificate.
async fn serve(certificate: &str, key: &str) -> u16 {
    let config = server_config(certificate, key, &[b"http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let config = config.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await else { return };
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// A certificate that is its own authority, as `openssl req -x509` makes them, and its key.
fn self_signed(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// The status of a request to `https://host:port`, what the client was told, and what stands in the log.
async fn asked(host: &str, port: u16, ca: Option<&str>) -> (u16, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let ca = ca.map(|pem| {
        std::fs::write(&path, pem).unwrap();
        format!("ca = \"{}\"\n", path.display())
    });
    let upstream = format!("[[upstream]]\nname = \"own\"\nurl = \"https://{host}:{port}\"\n{}", ca.unwrap_or_default());
    let proxy = Proxy::start(&upstream).await;
    let answer = proxy.client().await.get("/x", "").await;
    let cause = match answer.status {
        200 => String::new(),
        _ => {
            let line = proxy.line("the cause", |line| line["event"] == "upstream.tls_failed").await;
            line["cause"].as_str().unwrap().to_owned()
        }
    };
    (answer.status, answer.text(), cause)
}

#[tokio::test]
async fn a_certificate_that_is_its_own_anchor_is_believed_where_it_is_named() {
    install_crypto();
    let (certificate, key) = self_signed("127.0.0.1");
    let port = serve(&certificate, &key).await;
    assert_eq!(asked("127.0.0.1", port, Some(&certificate)).await.0, 200);
    let named = self_signed("localhost");
    let port = serve(&named.0, &named.1).await;
    assert_eq!(asked("localhost", port, Some(&named.0)).await.0, 200);
    // Among others, and beside an authority.
    let (ca, signed, signed_key) = authority();
    let both = format!("{ca}{}", named.0);
    assert_eq!(asked("localhost", port, Some(&both)).await.0, 200);
    let port = serve(&signed, &signed_key).await;
    assert_eq!(asked("127.0.0.1", port, Some(&both)).await.0, 200);
}

#[tokio::test]
async fn why_a_certificate_is_not_believed_is_told() {
    install_crypto();
    let (certificate, key) = self_signed("localhost");
    let port = serve(&certificate, &key).await;
    let another = self_signed("localhost").0;
    // A server of plain HTTP, for which a handshake's first bytes are a request line that is none.
    let plain = Upstream::start(|mut conn| async move {
        conn.bytes(5).await;
        conn.write("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    })
    .await;
    let cases = [
        ("localhost", port, None, "`ca`"),
        ("localhost", port, Some(another.as_str()), "nothing in the file that `ca` names"),
        ("127.0.0.1", port, Some(certificate.as_str()), "for another name than `127.0.0.1`"),
        ("127.0.0.1", plain.address.port(), None, "speaks no TLS"),
    ];
    for (host, port, ca, why) in cases {
        let (status, text, cause) = asked(host, port, ca).await;
        assert_eq!(status, 502, "{why}");
        assert!(text.contains("TLS handshake") && text.contains(why), "{why}: {text}");
        assert!(cause.contains(why), "{why}: {cause}");
    }
}
