//! Certificate authorities of an upstream's own.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::Arc;

use pingora::protocols::tls::CaType;
use pingora::utils::tls::{WrappedX509, parse_x509};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Reads all certificates of a PEM file.
///
/// # Errors
/// The file cannot be read, or holds no certificate.
pub(crate) fn load(path: &Path) -> io::Result<Arc<CaType>> {
    let pem = std::fs::read(path)?;
    let certificates: Vec<WrappedX509> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?
        .into_iter()
        .filter(|der| is_x509(der))
        .map(|der| WrappedX509::new(der.to_vec(), parse_x509))
        .collect();
    if certificates.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no certificate in the file"));
    }
    Ok(certificates.into())
}

/// A number that tells connections of different authorities apart: by what the file says, not by its name.
pub(crate) fn fingerprint(path: Option<&Path>) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.map(|path| std::fs::read(path).ok()).hash(&mut hasher);
    hasher.finish()
}

/// Whether this can be an authority at all: pingora's own parser panics on what it does not understand.
fn is_x509(der: &CertificateDer<'_>) -> bool {
    rustls::RootCertStore::empty().add(der.clone()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_an_error_and_no_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        for text in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(load(&path).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_changed_file_has_another_fingerprint() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, "one").unwrap();
        let one = fingerprint(Some(&path));
        assert_eq!(one, fingerprint(Some(&path)));
        std::fs::write(&path, "two").unwrap();
        assert_ne!(one, fingerprint(Some(&path)));
        assert_ne!(one, fingerprint(None));
    }

    #[test]
    fn a_real_authority_is_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, format!("{pem}{pem}")).unwrap();
        assert_eq!(load(&path).unwrap().len(), 2);
    }
}
