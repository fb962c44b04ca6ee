//! The authority of a cluster: the key that says who is of it.
//!
//! `sarsen cluster init` makes it; every member of the manager holds it, so that any of them can take in a node or renew a certificate when the others
//! are down. It lies in one file, key and certificate, that only its owner can read. There is one key and one authority for the
//! life of a cluster: its certificate lasts 20 years, and nothing here exchanges it.

use super::clock::{Clock, SKEW};
use super::credential::Credential;
use super::files::{self, FileError, Secrecy};
use super::identity::{Identity, authority_uri};
use super::pem;
use super::request::{self, CertificateRequest, RequestError};
use super::root::{Root, inside};
use super::token::{self, Grant, Token, TokenId};
use crate::base::ClusterId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, SigningKey,
};
use ring_crypto::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a node's certificate lasts. It is renewed after two thirds, so that a node may be cut off for ten days.
pub const NODE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// The longest that a user's may last.
pub const USER_LIFE_MAX: Duration = Duration::from_secs(400 * 24 * 3600);
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

const FILE: &str = "authority.pem";
const PUBLIC_FILE: &str = "ca.pem";
const NO_AUTHORITY: &str = "this node does not hold the cluster's authority: make a cluster with `sarsen cluster init`, or ask a member of the manager";

/// Randomness of the kernel, for what nobody may guess.
///
/// # Panics
/// Where the kernel has none: nothing here could go on without.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.expect("the kernel gives random bytes");
    bytes
}

/// The key of a cluster, with its certificate.
pub struct Authority {
    key: KeyPair,
    root: Root,
    clock: Clock,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.root.cluster())
    }
}

impl Authority {
    /// Makes the authority of a new cluster, durably, in `folder`.
    ///
    /// # Errors
    /// Where there is one already, or the folder cannot be written.
    pub fn create(folder: &Path, clock: Clock) -> Result<Authority, FileError> {
        let path = folder.join(FILE);
        if path.exists() {
            return Err(FileError::Exists { path });
        }
        let authority = Authority::new(ClusterId(random()), clock);
        authority.save(folder)?;
        Ok(authority)
    }

    /// The authority in `folder`.
    ///
    /// # Errors
    /// Where there is none, others can read it, or it is damaged; the words say what to do.
    pub fn open(folder: &Path, clock: Clock) -> Result<Authority, FileError> {
        let path = folder.join(FILE);
        let bytes = files::read_secret(&path, NO_AUTHORITY)?;
        Authority::read(&bytes, clock).map_err(|what| files::malformed(&path, what))
    }

    /// Whether `folder` has an authority, readable or not.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// The authority as bytes, for another member of the manager: to be sent only to a node whose identity is proven, over a
    /// connection that nobody else reads.
    pub fn export_for_member(&self) -> Vec<u8> {
        self.text().into_bytes()
    }

    /// Takes over what [`Authority::export_for_member`] gave, and keeps it in `folder`. It is that of `root`, or it is refused. Repeating
    /// it changes nothing.
    ///
    /// # Errors
    /// Where the bytes are not this cluster's authority, or another one is in `folder`.
    pub fn import(
        folder: &Path,
        root: &Root,
        bytes: &[u8],
        clock: Clock,
    ) -> Result<Authority, FileError> {
        let path = folder.join(FILE);
        let wrong = |what: String| files::malformed(&path, format!("what was sent for it: {what}"));
        let authority = Authority::read(bytes, clock.clone()).map_err(wrong)?;
        if authority.root.fingerprint() != root.fingerprint() {
            let theirs = authority.root.cluster();
            return Err(wrong(format!(
                "it is the authority of cluster {theirs}, not that of {}",
                root.cluster()
            )));
        }
        if path.exists() {
            let there = Authority::open(folder, clock)?;
            return match there.root.fingerprint() == root.fingerprint() {
                true => Ok(there),
                false => Err(FileError::Exists { path }),
            };
        }
        authority.save(folder)?;
        Ok(authority)
    }

    /// One that lies in no file.
    pub(super) fn new(cluster: ClusterId, clock: Clock) -> Authority {
        let now = clock.now();
        let mut params = CertificateParams::default();
        params.not_before = now.minus(SKEW).date();
        params.not_after = now.plus(AUTHORITY_LIFE).date();
        params.serial_number = Some(serial());
        params.distinguished_name = named(&format!("sarsen cluster {cluster}"));
        params.subject_alt_names = vec![uri(&authority_uri(cluster))];
        // It issues certificates, and none that issue.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = new_key();
        let made = params.self_signed(&key);
        let certificate = made.expect("a certificate of our own form").der().clone();
        let root = Root::of(certificate).expect("it is an authority's");
        Authority { key, root, clock }
    }

    fn read(bytes: &[u8], clock: Clock) -> Result<Authority, String> {
        let key = pem::read_key(bytes)?;
        let mut certificates = pem::read_certificates(bytes)?;
        if certificates.len() != 1 {
            return Err(format!(
                "it has {} certificates, not one",
                certificates.len()
            ));
        }
        let root = Root::of(certificates.remove(0))?;
        match root.public_key() == key.public_key_raw() {
            true => Ok(Authority { key, root, clock }),
            false => Err("its key and its certificate do not belong together".into()),
        }
    }

    fn text(&self) -> String {
        pem::of(&self.key, &[self.root.certificate()])
    }

    fn save(&self, folder: &Path) -> Result<(), FileError> {
        let public = folder.join(PUBLIC_FILE);
        let pem = self.root.certificate_pem();
        files::write(&public, pem.as_bytes(), Secrecy::Public)?;
        // Last, because it is what says that there is an authority.
        files::write(&folder.join(FILE), self.text().as_bytes(), Secrecy::Secret)
    }

    pub fn root(&self) -> &Root {
        &self.root
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Issues the certificate that `request` (PKCS #10, DER) asks for, to `identity`. What the request says of who asks is not looked at: the caller has proven
    /// it otherwise. The hosts that it names are taken over for a node, so that clients which look for a host's name find it.
    ///
    /// # Errors
    /// Where the request is not one of [`CertificateRequest`]'s form.
    pub fn issue(
        &self,
        request: &[u8],
        identity: &Identity,
        life: Duration,
    ) -> Result<CertificateDer<'static>, RequestError> {
        let asked = request::read(request)?;
        let now = self.clock.now();
        let (longest, hosts, usages) = match identity {
            Identity::Node(_) => (
                NODE_LIFE,
                asked.hosts,
                vec![
                    ExtendedKeyUsagePurpose::ServerAuth,
                    ExtendedKeyUsagePurpose::ClientAuth,
                ],
            ),
            Identity::User { .. } => (
                USER_LIFE_MAX,
                Vec::new(),
                vec![ExtendedKeyUsagePurpose::ClientAuth],
            ),
        };
        let mut params = CertificateParams::default();
        params.not_before = now.minus(SKEW).date();
        params.not_after = now.plus(life.min(longest)).date();
        params.serial_number = Some(serial());
        // For people who look at it with other tools; X.500 has room for 64 characters.
        params.distinguished_name = match identity {
            Identity::Node(node) => named(&format!("node {node}")),
            Identity::User { name, .. } => named(name.as_str()),
        };
        params.subject_alt_names = vec![uri(&identity.uri(self.root.cluster()))];
        params.subject_alt_names.extend(hosts);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if let Identity::User { .. } = identity {
            // Says nothing with this kind of key; QEMU before 10 does not take its own certificate without it.
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        params.extended_key_usages = usages;
        let failed = |error: rcgen::Error| RequestError::NotIssued(error.to_string());
        let issuer =
            Issuer::from_ca_cert_der(self.root.certificate(), &self.key).map_err(failed)?;
        let issued = params.signed_by(&asked.public_key, &issuer);
        Ok(issued.map_err(failed)?.der().clone())
    }

    /// Issues a certificate with a key that is made here: for the first node of a cluster, which nobody else could issue one to, and for users, who keep
    /// [`Credential::pem`].
    ///
    /// # Errors
    /// Where one of `hosts` is neither a name nor an address.
    pub fn credential(
        &self,
        identity: &Identity,
        hosts: &[String],
        life: Duration,
    ) -> Result<Credential, RequestError> {
        let request = CertificateRequest::new(hosts)?;
        let certificate = self.issue(request.der(), identity, life)?;
        let made = Credential::of(self.root.clone(), request, certificate, &self.clock);
        made.map_err(RequestError::NotIssued)
    }

    /// Makes a token: it is good for `life` (at most 90 days), for whoever holds it. `addresses` are members' (host:port, one to eight).
    ///
    /// # Errors
    /// Where an address is not one, or there are none or too many of them.
    pub fn token(
        &self,
        grant: Grant,
        addresses: &[String],
        life: Duration,
    ) -> Result<Token, token::TokenError> {
        let token = token::Body {
            cluster: self.root.cluster(),
            authority: self.root.fingerprint(),
            id: TokenId(random()),
            expires: self.clock.now().plus(life.min(90 * DAY)),
            grant,
            addresses: addresses.to_vec(),
        };
        token.signed(|bytes| {
            let signed = self.key.sign(bytes);
            signed.expect("a key that signed its own certificate signs")
        })
    }

    /// Where the authority lies in `folder`.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }
}

pub(super) fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("the kernel gives random bytes")
}

/// Numbers that do not tell how many there are: 127 random bits.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = random();
    bytes[0] &= 0x7f;
    SerialNumber::from(bytes.to_vec())
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("our URIs are ASCII"))
}

/// A certificate that was issued a moment ago, as whoever asked for it checks it.
pub(super) fn belongs(certificate: &[u8], key: &KeyPair) -> Result<(), String> {
    match inside(certificate)?.public_key == key.public_key_raw() {
        true => Ok(()),
        false => Err("certificate and key do not belong together".into()),
    }
}
