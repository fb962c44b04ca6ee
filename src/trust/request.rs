//! What a node or user asks a certificate with: a key of its own, which never leaves it, and a request (PKCS #10) that proves that it has it.

use super::authority::new_key;
use super::credential::Credential;
use super::files::{self, FileError, Secrecy};
use super::pem;
use super::root::Fingerprint;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKey, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

/// Bytes of a request. One with the most and longest hosts has less than 5 KiB.
pub const REQUEST_LEN_MAX: usize = 8 << 10;
/// Names and addresses that a node's certificate has for clients which look for them.
pub const HOSTS_MAX: usize = 16;
/// Bytes of a host's name, as DNS has it.
const HOST_LEN_MAX: usize = 253;

/// Why a request for a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    TooLong(usize),
    /// It cannot be read, or its signature is not that of its key.
    Malformed(String),
    /// It is of another kind of key than ECDSA over P-256.
    Key,
    Hosts(usize),
    Host(String),
    NotIssued(String),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::TooLong(len) => write!(
                f,
                "the request for a certificate has {len} bytes, and {REQUEST_LEN_MAX} are the most"
            ),
            RequestError::Malformed(why) => {
                write!(f, "the request for a certificate cannot be read: {why}")
            }
            RequestError::Key => f.write_str(
                "the request for a certificate is for a key of another kind than ECDSA over P-256",
            ),
            RequestError::Hosts(count) => write!(
                f,
                "the request for a certificate names {count} hosts, and {HOSTS_MAX} are the most"
            ),
            RequestError::Host(name) => write!(
                f,
                "{name:?} is neither a name that DNS could have nor an address"
            ),
            RequestError::NotIssued(why) => write!(f, "the certificate could not be made: {why}"),
        }
    }
}

impl std::error::Error for RequestError {}

/// A key, and the request that goes with it.
pub struct CertificateRequest {
    pub(super) key: KeyPair,
    der: Vec<u8>,
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateRequest({:?})", self.key_fingerprint())
    }
}

impl CertificateRequest {
    /// With a new key. `hosts` are names and addresses under which the node is reached.
    ///
    /// # Errors
    /// Where one of `hosts` is neither, or there are too many.
    pub fn new(hosts: &[String]) -> Result<CertificateRequest, RequestError> {
        CertificateRequest::of(new_key(), hosts)
    }

    /// With the key in the file at `path`; a new one is put there where there is none. Who is interrupted and asks again so asks with the same key.
    ///
    /// # Errors
    /// Where the file cannot be read or written, or one of `hosts` is none.
    pub fn kept_at(path: &Path, hosts: &[String]) -> Result<CertificateRequest, FileError> {
        let key = match path.exists() {
            true => {
                let bytes = files::read_secret(path, "repeat the command")?;
                pem::read_key(&bytes).map_err(|what| files::malformed(path, what))?
            }
            false => {
                let key = new_key();
                files::write(path, key.serialize_pem().as_bytes(), Secrecy::Secret)?;
                key
            }
        };
        CertificateRequest::of(key, hosts).map_err(|error| files::malformed(path, error))
    }

    /// With the key of a credential: who asks is known again by it.
    ///
    /// # Errors
    /// Where one of `hosts` is none.
    pub fn again(
        credential: &Credential,
        hosts: &[String],
    ) -> Result<CertificateRequest, RequestError> {
        let der = PrivatePkcs8KeyDer::from(credential.key().serialize_der());
        let key = pem::key_of(&der).map_err(RequestError::Malformed)?;
        CertificateRequest::of(key, hosts)
    }

    fn of(key: KeyPair, hosts: &[String]) -> Result<CertificateRequest, RequestError> {
        if hosts.len() > HOSTS_MAX {
            return Err(RequestError::Hosts(hosts.len()));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = hosts
            .iter()
            .map(|host| san(host))
            .collect::<Result<_, _>>()?;
        let made = params.serialize_request(&key);
        let made = made.map_err(|error| RequestError::Malformed(error.to_string()))?;
        let der = made.der().to_vec();
        Ok(CertificateRequest { key, der })
    }

    /// The request, as [`Authority::issue`](super::Authority::issue) takes it.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// What its key is known by.
    pub fn key_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.key.public_key_raw())
    }
}

fn san(host: &str) -> Result<SanType, RequestError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let wrong = || RequestError::Host(host.chars().take(HOST_LEN_MAX).collect());
    let name = dns(host).then(|| host.try_into().ok()).flatten();
    name.map(SanType::DnsName).ok_or_else(wrong)
}

fn dns(name: &str) -> bool {
    let label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(fits)
    };
    name.len() <= HOST_LEN_MAX && name.split('.').all(label)
}

/// What a request asks for.
pub(super) struct Asked {
    pub public_key: PublicKey,
    pub hosts: Vec<SanType>,
}

/// What the key of a request is known by, once it is read.
pub(super) fn fingerprint(request: &[u8]) -> Result<Fingerprint, RequestError> {
    Ok(Fingerprint::of(read(request)?.public_key.der_bytes()))
}

/// Reads a request; its signature is that of its key.
pub(super) fn read(request: &[u8]) -> Result<Asked, RequestError> {
    if request.len() > REQUEST_LEN_MAX {
        return Err(RequestError::TooLong(request.len()));
    }
    let der = CertificateSigningRequestDer::from(request);
    let read = CertificateSigningRequestParams::from_der(&der);
    let CertificateSigningRequestParams { params, public_key } =
        read.map_err(|error| RequestError::Malformed(error.to_string()))?;
    if public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(RequestError::Key);
    }
    if params.subject_alt_names.len() > HOSTS_MAX {
        return Err(RequestError::Hosts(params.subject_alt_names.len()));
    }
    let host = |name: SanType| match name {
        SanType::IpAddress(address) => Ok(SanType::IpAddress(address)),
        SanType::DnsName(name) => san(name.as_str()),
        // A URI would be an identity that nobody has proven.
        other => Err(RequestError::Host(format!("{other:?}"))),
    };
    let hosts = params.subject_alt_names.into_iter().map(host);
    Ok(Asked {
        public_key,
        hosts: hosts.collect::<Result<_, _>>()?,
    })
}
