//! Keys and certificates as text: PEM, which `openssl`, `curl` and QEMU read too.

use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// Certificates in one file: a node's has two.
const CERTIFICATES_MAX: usize = 8;

pub(super) fn of_certificate(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for at in (0..text.len()).step_by(64) {
        pem.push_str(&text[at..text.len().min(at + 64)]);
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// A key, and certificates in their order.
pub(super) fn of(key: &KeyPair, certificates: &[&CertificateDer<'_>]) -> String {
    let mut pem = key.serialize_pem();
    certificates
        .iter()
        .for_each(|certificate| pem.push_str(&of_certificate(certificate)));
    pem
}

/// Reads a key.
pub(super) fn read_key(pem: &[u8]) -> Result<KeyPair, String> {
    let read = PrivatePkcs8KeyDer::from_pem_slice(pem);
    let key = read.map_err(|error| format!("it holds no key ({error})"))?;
    key_of(&key)
}

/// A key from its bytes: only those of ECDSA over P-256 are used.
pub(super) fn key_of(pkcs8: &PrivatePkcs8KeyDer<'_>) -> Result<KeyPair, String> {
    let made = KeyPair::from_pkcs8_der_and_sign_algo(pkcs8, &rcgen::PKCS_ECDSA_P256_SHA256);
    made.map_err(|error| format!("its key is not one for ECDSA over P-256 ({error})"))
}

/// Reads the certificates, in their order.
pub(super) fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut certificates = Vec::new();
    for read in CertificateDer::pem_slice_iter(pem) {
        certificates
            .push(read.map_err(|error| format!("a certificate in it is damaged ({error})"))?);
        if certificates.len() > CERTIFICATES_MAX {
            return Err(format!("it has more than {CERTIFICATES_MAX} certificates"));
        }
    }
    Ok(certificates)
}
