//! Who is let through a TLS handshake: rustls asks, and [`Root::identify`] answers.

use super::clock::WallTime;
use super::identity::Identity;
use super::refusal::Refusal;
use super::root::{Fingerprint, Root, Side, only};
use crate::base::ClusterId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::EndEntityCert;

/// Whose certificates are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peers {
    Nodes,
    NodesAndUsers,
}

/// Whether one without a certificate gets in, as nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anonymous {
    Refused,
    Admitted,
}

/// Takes certificates of one authority.
#[derive(Debug)]
pub(super) struct Verifier {
    root: Root,
    peers: Peers,
    anonymous: Anonymous,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(root: Root, peers: Peers, anonymous: Anonymous) -> Verifier {
        Verifier {
            root,
            peers,
            anonymous,
            algorithms: default_provider().signature_verification_algorithms,
        }
    }

    fn admit(&self, shown: &CertificateDer<'_>, side: Side, now: UnixTime) -> Result<(), Error> {
        let identified = self.root.identify(shown, side, WallTime::from(now));
        match (identified, self.peers) {
            (Ok(Identity::User { .. }), Peers::Nodes) => Err(Refusal::NotANode.into_tls()),
            (Ok(_), _) => Ok(()),
            (Err(refusal), _) => Err(refusal.into_tls()),
        }
    }
}

/// What rustls asks of every verifier about signatures: TLS 1.3, with the one kind of key that there is here.
macro_rules! tls_13_only {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(never_12())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    };
}

/// No configuration here offers it, so rustls never asks.
fn never_12() -> Error {
    Error::General("TLS 1.2 is not spoken".into())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.admit(end_entity, Side::Server, now)
            .map(|()| ServerCertVerified::assertion())
    }

    tls_13_only!();
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.anonymous == Anonymous::Refused
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.admit(end_entity, Side::Client, now)
            .map(|()| ClientCertVerified::assertion())
    }

    tls_13_only!();
}

/// Takes a node whose authority has a certain fingerprint: what one checks that has only a token.
#[derive(Debug)]
pub(super) struct ByFingerprint {
    cluster: ClusterId,
    authority: Fingerprint,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ByFingerprint {
    pub(super) fn new(cluster: ClusterId, authority: Fingerprint) -> ByFingerprint {
        ByFingerprint {
            cluster,
            authority,
            algorithms: default_provider().signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut sent = intermediates.iter();
        let authority = sent.find(|sent| Fingerprint::of(sent) == self.authority);
        let authority = authority.ok_or_else(|| Refusal::NotTheTokens.into_tls())?;
        let unfit = |why| Refusal::Unfit(why).into_tls();
        let root = Root::of(authority.clone().into_owned()).map_err(unfit)?;
        if root.cluster() != self.cluster {
            return Err(Refusal::NotTheTokens.into_tls());
        }
        match root.identify(end_entity, Side::Server, WallTime::from(now)) {
            Ok(Identity::Node(_)) => Ok(ServerCertVerified::assertion()),
            Ok(Identity::User { .. }) => Err(Refusal::NotANode.into_tls()),
            Err(refusal) => Err(refusal.into_tls()),
        }
    }

    tls_13_only!();
}

/// Who holds a certificate that a handshake has let through.
pub(super) fn identity_of(cluster: ClusterId, shown: &CertificateDer<'_>) -> Option<Identity> {
    let read = EndEntityCert::try_from(shown).ok()?;
    let named = only(read.valid_uri_names()).and_then(Identity::read);
    named
        .filter(|(of, _)| *of == cluster)
        .map(|(_, identity)| identity)
}
