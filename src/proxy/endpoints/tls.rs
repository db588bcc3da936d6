//! TLS towards upstreams: who is believed to be the upstream, and why a handshake failed.
//!
//! Not pingora's: that makes a configuration for each connection, so that no session is resumed, and cannot take a
//! certificate that is its own anchor, as everybody makes them for a backend in their own network.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{CaType, SslDigest};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora::upstreams::peer::HttpPeer;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::TlsConnector;

/// Configurations kept; there is one for each set of authorities and protocols, and reloads bring more.
const CONFIGS_MAX: usize = 256;

/// The system's authorities, read once.
static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read some of the system's certificate authorities");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    Arc::new(roots)
});

/// What is offered by ALPN.
type Protocols = &'static [&'static [u8]];

/// Makes TLS connections.
pub(crate) struct Handshakes {
    /// By the authorities' fingerprint, and the protocols that are offered.
    configs: Mutex<HashMap<(u64, Protocols), Arc<ClientConfig>>>,
}

impl Handshakes {
    /// Reads the system's authorities, which takes a while: no connection is to wait for it.
    pub(crate) fn new() -> Self {
        LazyLock::force(&SYSTEM);
        Self { configs: Mutex::default() }
    }

    /// Shakes hands over `socket`.
    ///
    /// # Errors
    /// Why there is no connection, in words.
    pub(crate) async fn shake(&self, socket: Socket, peer: &HttpPeer) -> Result<TlsStream, String> {
        let name = ServerName::try_from(peer.sni.clone())
            .map_err(|_| format!("`{}` is no name that a certificate could be for", peer.sni))?;
        let config = self.config(peer).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(config).connect(name, socket).await.map_err(|error| cause(&error, peer))?;
        let (_, session) = stream.get_ref();
        let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or_default();
        let digest = Arc::new(SslDigest::new("", version, None, None, Vec::new()));
        Ok(TlsStream { stream, digest })
    }

    fn config(&self, peer: &HttpPeer) -> Result<Arc<ClientConfig>, rustls::Error> {
        let offered = offered(&peer.options.alpn);
        let key = (peer.group_key, offered);
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = configs.get(&key) {
            return Ok(Arc::clone(config));
        }
        if configs.len() >= CONFIGS_MAX {
            configs.clear();
        }
        let config = Arc::new(configure(peer.options.ca.clone(), offered)?);
        configs.insert(key, Arc::clone(&config));
        Ok(config)
    }
}

fn offered(alpn: &ALPN) -> Protocols {
    match (alpn.get_max_http_version(), alpn.get_min_http_version()) {
        (2, 2) => &[b"h2"],
        (2, _) => &[b"h2", b"http/1.1"],
        _ => &[b"http/1.1"],
    }
}

fn configure(anchors: Option<Arc<CaType>>, offered: &[&[u8]]) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = match &anchors {
        None => Arc::clone(&SYSTEM),
        Some(anchors) => {
            let mut roots = RootCertStore::empty();
            let given = anchors.iter().map(|anchor| CertificateDer::from(anchor.borrow_raw_cert().clone()));
            roots.add_parsable_certificates(given);
            Arc::new(roots)
        }
    };
    let chain = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
    let chain = chain.map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anchored { chain, anchors }))
        .with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// Takes what chains to an anchor, and an anchor itself: a self-signed certificate may say that it is an authority's, and
/// webpki takes none of those for a server's.
#[derive(Debug)]
struct Anchored {
    chain: Arc<WebPkiServerVerifier>,
    /// `None`: the system's, none of which is a server's own.
    anchors: Option<Arc<CaType>>,
}

impl Anchored {
    /// Name and time are all there is to look at: the certificate is trusted as it stands, to the byte.
    fn verify_itself(
        &self,
        end_entity: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Option<Result<ServerCertVerified, rustls::Error>> {
        let mut anchors = self.anchors.iter().flat_map(|anchors| anchors.iter());
        let anchor = anchors.find(|anchor| anchor.borrow_raw_cert().as_slice() == end_entity.as_ref())?;
        let validity = anchor.borrow_cert().validity();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let verified = if now < validity.not_before.timestamp() {
            Err(CertificateError::NotValidYet.into())
        } else if now > validity.not_after.timestamp() {
            Err(CertificateError::Expired.into())
        } else {
            ParsedCertificate::try_from(end_entity).and_then(|parsed| verify_server_name(&parsed, name))
        };
        Some(verified.map(|()| ServerCertVerified::assertion()))
    }
}

impl ServerCertVerifier for Anchored {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.verify_itself(end_entity, name, now) {
            Some(verified) => verified,
            None => self.chain.verify_server_cert(end_entity, intermediates, name, ocsp, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Why a handshake failed, and what to do about it.
fn cause(error: &io::Error, peer: &HttpPeer) -> String {
    let name = &peer.sni;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(inner) = inner else { return format!("the connection ended during it ({error})") };
    let hint = match inner {
        rustls::Error::InvalidCertificate(why) if is_strange(why) && peer.options.ca.is_some() => {
            "nothing in the file that `ca` names is its certificate, or issued it".to_owned()
        }
        rustls::Error::InvalidCertificate(why) if is_strange(why) => {
            "nobody who is trusted here issued its certificate: name its authority, or the certificate itself where it is \
             self-signed, with `ca`"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("its certificate is for another name than `{name}`"),
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired".to_owned()
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "what answers there speaks no TLS: should the url begin with http://?".to_owned()
        }
        _ => return inner.to_string(),
    };
    format!("{hint} ({inner})")
}

/// Whether nobody is known who issued a certificate; of a self-signed one webpki says that it is no server's.
fn is_strange(why: &CertificateError) -> bool {
    match why {
        CertificateError::UnknownIssuer => true,
        CertificateError::Other(other) => other.to_string().contains("CaUsedAsEndEntity"),
        _ => false,
    }
}

/// A TLS connection as pingora's sessions take it.
#[derive(Debug)]
pub(crate) struct TlsStream {
    stream: tokio_rustls::client::TlsStream<Socket>,
    digest: Arc<SslDigest>,
}

impl TlsStream {
    /// Whether HTTP/2 was agreed on.
    pub(crate) fn is_h2(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(b"h2")
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for TlsStream {
    async fn shutdown(&mut self) {
        // The other end may be gone.
        let _ = AsyncWriteExt::shutdown(&mut self.stream).await;
    }
}

impl UniqueID for TlsStream {
    fn id(&self) -> UniqueIDType {
        self.stream.get_ref().0.id()
    }
}

impl Ssl for TlsStream {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        Some(Arc::clone(&self.digest))
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.is_h2() { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for TlsStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_ref().0.get_timing_digest()
    }
}

impl GetProxyDigest for TlsStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for TlsStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_ref().0.get_socket_digest()
    }
}

impl Peek for TlsStream {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    /// A self-signed certificate for `localhost` that says that it is an authority's, as `openssl req -x509` makes them.
    fn own(not_after: i32) -> (CertificateDer<'static>, Arc<CaType>) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(not_after, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, certificate.pem()).unwrap();
        (certificate.der().clone(), super::super::ca::load(&path).unwrap())
    }

    fn verify(
        server: &CertificateDer<'_>,
        anchors: &Arc<CaType>,
        name: &str,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut roots = RootCertStore::empty();
        let given = anchors.iter().map(|anchor| CertificateDer::from(anchor.borrow_raw_cert().clone()));
        roots.add_parsable_certificates(given);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Anchored { chain, anchors: Some(Arc::clone(anchors)) }.verify_server_cert(server, &[], &name, &[], now)
    }

    #[test]
    fn an_anchor_is_taken_for_itself_and_for_nothing_else() {
        let (server, anchors) = own(2100);
        verify(&server, &anchors, "localhost").unwrap();
        let refused = verify(&server, &anchors, "example.com").unwrap_err().to_string();
        assert!(refused.contains("not valid for name"), "{refused}");
        let (other, _) = own(2100);
        verify(&other, &anchors, "localhost").unwrap_err();
        let (old, anchors) = own(2021);
        let refused = verify(&old, &anchors, "localhost").unwrap_err();
        assert_eq!(refused, CertificateError::Expired.into());
    }
}
