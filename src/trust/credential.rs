//! What somebody shows to prove who he is: a certificate, its key, and the authority that both are of.
//!
//! All of it lies in one file, so that a renewal exchanges key and certificate in one step.

use super::authority::belongs;
use super::clock::{Clock, WallTime};
use super::files::{self, FileError, Secrecy};
use super::identity::Identity;
use super::pem;
use super::refusal::Refusal;
use super::request::CertificateRequest;
use super::root::{Root, Side, inside};
use rcgen::KeyPair;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FILE: &str = "node.pem";
const NO_CREDENTIAL: &str = "this node is of no cluster yet: make one with `sarsen cluster init`, or join one with `sarsen join ADDR --token T`";

/// A certificate with its key.
pub struct Credential {
    root: Root,
    identity: Identity,
    certificate: CertificateDer<'static>,
    key: KeyPair,
    begins: WallTime,
    ends: WallTime,
    certified: Arc<CertifiedKey>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Credential { identity, ends, .. } = self;
        write!(f, "Credential({identity}, until {ends})")
    }
}

impl Credential {
    /// Puts together what was asked and what was answered. The certificate is of this authority, in its time, and for the key.
    ///
    /// # Errors
    /// What of that is not so, in words.
    pub fn of(
        root: Root,
        request: CertificateRequest,
        certificate: CertificateDer<'static>,
        clock: &Clock,
    ) -> Result<Credential, String> {
        let credential = Credential::assemble(root, request.key, certificate)?;
        credential
            .check(clock.now())
            .map_err(|refusal| refusal.to_string())?;
        Ok(credential)
    }

    /// What was kept in `folder`. One that has run out is given too: what it says of node and cluster is still so.
    ///
    /// # Errors
    /// Where there is none, others can read it, or it is damaged; the words say what to do.
    pub fn open(folder: &Path) -> Result<Credential, FileError> {
        let path = Credential::path(folder);
        let bytes = files::read_secret(&path, NO_CREDENTIAL)?;
        Credential::read(&bytes).map_err(|what| files::malformed(&path, what))
    }

    /// Where it lies in `folder`.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// Keeps it in `folder`, in place of what was there.
    ///
    /// # Errors
    /// Where the file cannot be written; then the old one stands.
    pub fn save(&self, folder: &Path) -> Result<(), FileError> {
        let path = Credential::path(folder);
        files::write(&path, self.pem().as_bytes(), Secrecy::Secret)
    }

    /// Key, certificate and authority as text: for a user, who keeps it where nobody else reads it.
    pub fn pem(&self) -> String {
        pem::of(&self.key, &[&self.certificate, self.root.certificate()])
    }

    /// Reads what [`Credential::pem`] wrote.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Credential, String> {
        let key = pem::read_key(bytes)?;
        let certificates = pem::read_certificates(bytes)?;
        let count = certificates.len();
        let pair = <[CertificateDer<'static>; 2]>::try_from(certificates);
        let Ok([certificate, root]) = pair else {
            return Err(format!(
                "it has {count} certificates, not its own and the authority's"
            ));
        };
        Credential::assemble(Root::of(root)?, key, certificate)
    }

    fn assemble(
        root: Root,
        key: KeyPair,
        certificate: CertificateDer<'static>,
    ) -> Result<Credential, String> {
        belongs(&certificate, &key)?;
        let found = inside(&certificate)?;
        // In the middle of its time, so that only its time is left to be checked.
        let middle = WallTime(found.begins.0.midpoint(found.ends.0));
        let identity = root.identify(&certificate, Side::Client, middle);
        let identity = identity.map_err(|refusal| refusal.to_string())?;
        let der = PrivatePkcs8KeyDer::from(key.serialize_der());
        let chain = vec![certificate.clone(), root.certificate().clone()];
        let certified = CertifiedKey::from_der(chain, der.into(), &default_provider());
        let certified = certified.map_err(|error| error.to_string())?;
        Ok(Credential {
            root,
            identity,
            certificate,
            key,
            begins: found.begins,
            ends: found.ends,
            certified: Arc::new(certified),
        })
    }

    /// Whether others take it now.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, now: WallTime) -> Result<(), Refusal> {
        let identified = self.root.identify(&self.certificate, Side::Client, now);
        identified.map(|_| ())
    }

    pub fn root(&self) -> &Root {
        &self.root
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn ends(&self) -> WallTime {
        self.ends
    }

    /// When it is renewed: after two thirds of its life.
    pub fn renew_at(&self) -> WallTime {
        WallTime(self.begins.0 + self.ends.0.saturating_sub(self.begins.0) / 3 * 2)
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn key(&self) -> &KeyPair {
        &self.key
    }

    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}
