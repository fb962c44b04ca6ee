//! Why a certificate is not taken, and how that is told on both sides.
//!
//! A TLS alert is one byte. The side that refuses knows the reason and logs it; the other one has the byte, and says what it most likely means and what to do.
//!
//! | refused for | the alert | what the other side says |
//! |---|---|---|
//! | its time | certificate_expired | renew it; look at both clocks |
//! | another authority | unknown_ca | not of this cluster |
//! | what it says of itself | certificate_unknown | not of this cluster, or not what is taken here |
//! | none was shown | certificate_required | join first |

use super::clock::WallTime;
use crate::base::ClusterId;
use rustls::{AlertDescription, CertificateError, OtherError};
use std::fmt;
use std::io;
use std::sync::Arc;

/// Why a certificate is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It says itself that it is of another cluster.
    OtherCluster {
        theirs: ClusterId,
        ours: ClusterId,
    },
    /// Another authority issued it.
    OtherAuthority,
    Expired {
        ended: WallTime,
        now: WallTime,
    },
    NotYet {
        begins: WallTime,
        now: WallTime,
    },
    /// It names nobody, or in another form than Sarsen's.
    Nameless,
    /// A user's where only nodes are served.
    NotANode,
    Malformed,
    /// It is not for this use, or signed in a way that is not taken.
    Unfit(String),
    /// The authority is not the one that the token was made for.
    NotTheTokens,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::OtherCluster { theirs, ours } => write!(
                f,
                "the certificate is of cluster {theirs}, and this is cluster {ours}"
            ),
            Refusal::OtherAuthority => f.write_str(
                "the certificate was issued by another authority than this cluster's; the node has to join this cluster with a token of it",
            ),
            Refusal::Expired { ended, now } => write!(
                f,
                "the certificate ended at {ended} and it is {now}; if the clocks of both are right, join again with a new token"
            ),
            Refusal::NotYet { begins, now } => write!(
                f,
                "the certificate begins at {begins} and it is {now} here; set the clocks of both"
            ),
            Refusal::Nameless => f.write_str(
                "the certificate does not say who its holder is in Sarsen's form; it was not made by `sarsen`",
            ),
            Refusal::NotANode => {
                f.write_str("the certificate is a user's, and only nodes are served here")
            }
            Refusal::Malformed => f.write_str("the certificate cannot be read"),
            Refusal::Unfit(why) => write!(f, "the certificate cannot be used here: {why}"),
            Refusal::NotTheTokens => f.write_str(
                "the other side's authority is not the one that the token was made for: the address is another cluster's, somebody poses as a member, or the cluster was made anew since; ask for a new token there and compare",
            ),
        }
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    pub(super) fn of_chain(error: webpki::Error, now: WallTime) -> Refusal {
        use webpki::Error as E;
        match error {
            E::CertExpired { not_after, .. } => Refusal::Expired {
                ended: not_after.into(),
                now,
            },
            E::CertNotValidYet { not_before, .. } => Refusal::NotYet {
                begins: not_before.into(),
                now,
            },
            // A signature that does not fit: an authority of the same name with another key.
            E::UnknownIssuer | E::InvalidSignatureForPublicKey => Refusal::OtherAuthority,
            E::BadDer | E::BadDerTime | E::TrailingData(_) => Refusal::Malformed,
            other => Refusal::Unfit(format!("{other:?}")),
        }
    }

    /// As rustls carries it: what it turns into the alert of the table above.
    pub(super) fn into_tls(self) -> rustls::Error {
        let wrong = match self {
            Refusal::Expired { ended, now } => CertificateError::ExpiredContext {
                time: now.unix(),
                not_after: ended.unix(),
            },
            Refusal::NotYet { begins, now } => CertificateError::NotValidYetContext {
                time: now.unix(),
                not_before: begins.unix(),
            },
            Refusal::OtherAuthority => CertificateError::UnknownIssuer,
            Refusal::Malformed => CertificateError::BadEncoding,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        };
        rustls::Error::InvalidCertificate(wrong)
    }

    /// What [`Refusal::into_tls`] was given.
    fn of_tls(error: &CertificateError) -> Option<Refusal> {
        Some(match error {
            CertificateError::ExpiredContext { time, not_after } => Refusal::Expired {
                ended: (*not_after).into(),
                now: (*time).into(),
            },
            CertificateError::NotValidYetContext { time, not_before } => Refusal::NotYet {
                begins: (*not_before).into(),
                now: (*time).into(),
            },
            CertificateError::UnknownIssuer => Refusal::OtherAuthority,
            CertificateError::BadEncoding => Refusal::Malformed,
            CertificateError::Other(OtherError(inner)) => inner.downcast_ref::<Refusal>()?.clone(),
            _ => return None,
        })
    }
}

/// What an error of a connection under TLS means, for people on this side.
pub fn explain(error: &io::Error) -> String {
    let inner = error.get_ref();
    match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => explain_tls(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the other side closed the connection without a word".into()
        }
        None => error.to_string(),
    }
}

/// As [`explain`], of what rustls says itself.
pub fn explain_tls(error: &rustls::Error) -> String {
    use rustls::Error as E;
    match error {
        E::InvalidCertificate(wrong) => match Refusal::of_tls(wrong) {
            Some(refusal) => refusal.to_string(),
            None => format!("the certificate is refused: {wrong}"),
        },
        E::NoCertificatesPresented => {
            "the other side showed no certificate; it has to join the cluster first".into()
        }
        E::AlertReceived(alert) => explain_alert(*alert),
        E::InvalidMessage(_) => "what came is not TLS; the other side may be set to plain connections, or not be a Sarsen node at all".into(),
        E::PeerIncompatible(why) => format!(
            "both sides have no way of TLS 1.3 in common ({why:?}); upgrade the older one"
        ),
        other => format!("TLS failed: {other}"),
    }
}

fn explain_alert(alert: AlertDescription) -> String {
    use AlertDescription as A;
    let likely = match alert {
        A::CertificateExpired => {
            "it found this side's certificate out of its time: if it did run out, join again with a new token, else set both clocks"
        }
        A::UnknownCA => {
            "it does not know the authority of this side's certificate: it is of another cluster"
        }
        A::CertificateUnknown | A::BadCertificate | A::UnsupportedCertificate | A::AccessDenied => {
            "it does not take this side's certificate: it is of another cluster, or serves others than this; its log has the exact reason"
        }
        A::CertificateRequired => "it asks for a certificate, and this side has none: join first",
        A::DecryptError => {
            "it could not verify this side's signature: certificate and key do not belong together"
        }
        A::ProtocolVersion | A::HandshakeFailure => {
            "both sides have no way of TLS 1.3 in common; upgrade the older one"
        }
        _ => "its log has the exact reason",
    };
    format!("the other side ended the handshake ({alert:?}): {likely}")
}
