//! The certificate that clients see. It can be replaced while connections are open: each handshake takes the current one.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::listeners::tls::TlsSettings;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::settings::Tls;

/// The current certificate chain and key.
pub struct Certificates {
    current: ArcSwap<CertifiedKey>,
}

impl Certificates {
    /// Reads the chain and key that `tls` names.
    ///
    /// # Errors
    /// See [`read`].
    pub fn load(tls: &Tls) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self { current: ArcSwap::from_pointee(read(tls)?) }))
    }

    /// Makes `next` the certificate of all handshakes to come.
    pub fn replace(&self, next: CertifiedKey) {
        self.current.store(Arc::new(next));
    }

    /// What a listener needs: this certificate, and HTTP/2 or HTTP/1.1 by ALPN.
    ///
    /// # Errors
    /// Pingora refuses the settings.
    pub fn listener_settings(self: &Arc<Self>) -> Result<TlsSettings, String> {
        // No file names: the resolver takes their place.
        let mut settings = TlsSettings::intermediate("", "").map_err(|error| error.to_string())?;
        settings.set_cert_resolver(Arc::<Self>::clone(self));
        settings.enable_h2();
        Ok(settings)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

/// Reads a certificate chain and its private key from PEM files.
///
/// # Errors
/// A file cannot be read or holds nothing of its kind, or the key does not belong to the certificate. The words name
/// the file and never its content.
pub fn read(tls: &Tls) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_slice_iter(&read_file(&tls.cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{} is not valid PEM: {error}", tls.cert.display()))?;
    if chain.is_empty() {
        return Err(format!("{} holds no certificate (a PEM block `CERTIFICATE`)", tls.cert.display()));
    }
    let key = PrivateKeyDer::from_pem_slice(&read_file(&tls.key)?)
        .map_err(|_| format!("{} holds no private key (a PEM block `PRIVATE KEY`)", tls.key.display()))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| {
        format!("the certificate {} and the key {} do not fit: {error}", tls.cert.display(), tls.key.display())
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(directory: &Path, name: &str) -> Tls {
        let pair = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let tls = Tls { cert: directory.join(format!("{name}.pem")), key: directory.join(format!("{name}.key")) };
        fs::write(&tls.cert, pair.cert.pem()).unwrap();
        fs::write(&tls.key, pair.signing_key.serialize_pem()).unwrap();
        tls
    }

    #[test]
    fn a_replaced_certificate_is_served_from_then_on() {
        let directory = tempfile::tempdir().unwrap();
        let first = write_pair(directory.path(), "first.example");
        let second = write_pair(directory.path(), "second.example");
        let certificates = Certificates::load(&first).unwrap();
        let before = certificates.current.load_full();
        certificates.replace(read(&second).unwrap());
        assert_ne!(before.cert, certificates.current.load_full().cert);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let good = write_pair(directory.path(), "good.example");
        let other = write_pair(directory.path(), "other.example");
        let empty = directory.path().join("empty.pem");
        fs::write(&empty, "nothing here").unwrap();
        let missing = directory.path().join("missing.pem");
        let cases = [
            (Tls { cert: missing.clone(), key: good.key.clone() }, "cannot read"),
            (Tls { cert: empty.clone(), key: good.key.clone() }, "holds no certificate"),
            (Tls { cert: good.cert.clone(), key: empty }, "holds no private key"),
            (Tls { cert: good.cert.clone(), key: other.key }, "do not fit"),
        ];
        for (tls, words) in cases {
            let message = read(&tls).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn the_key_is_never_printed() {
        let directory = tempfile::tempdir().unwrap();
        let tls = write_pair(directory.path(), "quiet.example");
        let certificates = Certificates::load(&tls).unwrap();
        assert_eq!(format!("{certificates:?}"), "Certificates");
    }
}
