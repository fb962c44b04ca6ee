//! The public half of an authority: what a node needs to tell who is of its cluster.

use super::clock::{SKEW, WallTime};
use super::identity::{Identity, read_authority};
use super::refusal::Refusal;
use crate::base::ClusterId;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use std::fmt;
use std::sync::Arc;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};

/// SHA-256 of a certificate, or of a public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    pub(super) fn of(bytes: &[u8]) -> Fingerprint {
        let digest = ring_crypto::digest::digest(&ring_crypto::digest::SHA256, bytes);
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest.as_ref());
        Fingerprint(fingerprint)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a certificate is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    Client,
}

/// An authority as everybody may know it: its cluster and its certificate. Cheap to clone.
#[derive(Clone)]
pub struct Root(Arc<Parts>);

struct Parts {
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    fingerprint: Fingerprint,
    /// The point of the curve, as signatures are checked with.
    public_key: Vec<u8>,
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({})", self.0.cluster)
    }
}

/// What a certificate has in it, of what is looked at here.
pub(super) struct Inside {
    pub begins: WallTime,
    pub ends: WallTime,
    pub public_key: Vec<u8>,
    is_authority: bool,
}

/// Reads a certificate. Nothing of it is proven by that.
pub(super) fn inside(certificate: &[u8]) -> Result<Inside, String> {
    let (rest, read) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    if !rest.is_empty() {
        return Err(format!("{} bytes behind the certificate", rest.len()));
    }
    let time = |at: x509_parser::time::ASN1Time| WallTime(at.timestamp().max(0) as u64);
    let validity = read.validity();
    Ok(Inside {
        begins: time(validity.not_before),
        ends: time(validity.not_after),
        public_key: read.public_key().subject_public_key.data.to_vec(),
        is_authority: read.is_ca(),
    })
}

impl Root {
    /// Takes a certificate for that of an authority. Whether it is the right one is what a fingerprint, or the file that it came from, says.
    ///
    /// # Errors
    /// What about it is not as an authority's is, in words.
    pub fn of(certificate: CertificateDer<'static>) -> Result<Root, String> {
        let found = inside(&certificate)?;
        if !found.is_authority {
            return Err("it is not the certificate of an authority".into());
        }
        let odd = |error| format!("it is not a certificate as this build reads them: {error}");
        let read = EndEntityCert::try_from(&certificate).map_err(odd)?;
        let cluster = only(read.valid_uri_names()).and_then(read_authority);
        let cluster = cluster.ok_or("it does not name a cluster as Sarsen does")?;
        let anchor = webpki::anchor_from_trusted_cert(&certificate).map_err(odd)?;
        Ok(Root(Arc::new(Parts {
            cluster,
            anchor: anchor.to_owned(),
            fingerprint: Fingerprint::of(&certificate),
            public_key: found.public_key,
            certificate,
        })))
    }

    pub fn cluster(&self) -> ClusterId {
        self.0.cluster
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.0.certificate
    }

    /// The certificate as `openssl`, `curl` and QEMU read it.
    pub fn certificate_pem(&self) -> String {
        super::pem::of_certificate(&self.0.certificate)
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    pub(super) fn public_key(&self) -> &[u8] {
        &self.0.public_key
    }

    /// Who holds this certificate. It is of this authority, and within its time or [`SKEW`] of it.
    ///
    /// Others that came with it are not looked at: the authority issues none that issue.
    pub(super) fn identify(
        &self,
        certificate: &CertificateDer<'_>,
        side: Side,
        now: WallTime,
    ) -> Result<Identity, Refusal> {
        let read = EndEntityCert::try_from(certificate).map_err(|_| Refusal::Malformed)?;
        let claimed = only(read.valid_uri_names()).and_then(Identity::read);
        let verified = match self.verify(&read, side, now) {
            Err(webpki::Error::CertExpired { not_after, .. })
                if now.since(not_after.into()) <= SKEW =>
            {
                self.verify(&read, side, not_after.into())
            }
            Err(webpki::Error::CertNotValidYet { not_before, .. })
                if WallTime::from(not_before).since(now) <= SKEW =>
            {
                self.verify(&read, side, not_before.into())
            }
            verified => verified,
        };
        // What a certificate says of its cluster is not proven here, but tells people most.
        let ours = self.0.cluster;
        let elsewhere = claimed.as_ref().filter(|(theirs, _)| *theirs != ours);
        if let Some((theirs, _)) = elsewhere {
            let theirs = *theirs;
            return Err(Refusal::OtherCluster { theirs, ours });
        }
        verified.map_err(|error| Refusal::of_chain(error, now))?;
        let (_, identity) = claimed.ok_or(Refusal::Nameless)?;
        Ok(identity)
    }

    fn verify(
        &self,
        certificate: &EndEntityCert<'_>,
        side: Side,
        at: WallTime,
    ) -> Result<(), webpki::Error> {
        let usage = match side {
            Side::Server => KeyUsage::server_auth(),
            Side::Client => KeyUsage::client_auth(),
        };
        let algorithms = [webpki::ring::ECDSA_P256_SHA256];
        let anchors = std::slice::from_ref(&self.0.anchor);
        let usage = Needed(usage);
        let verified =
            certificate.verify_for_usage(&algorithms, anchors, &[], at.unix(), usage, None, None);
        verified.map(|_| ())
    }
}

/// As `KeyUsage`, which is not a validator by reference.
struct Needed(KeyUsage);

impl ExtendedKeyUsageValidator for Needed {
    fn validate(&self, found: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        self.0.validate(found)
    }
}

/// The one of them, where there is exactly one.
pub(super) fn only<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let first = names.next()?;
    names.next().is_none().then_some(first)
}
