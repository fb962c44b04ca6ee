#![forbid(unsafe_code)]
//! Who is of this cluster, and how that is proven: the authority, certificates, tokens, and the configurations of TLS that come of them.
//!
//! ```text
//!   Authority ── issue(request, Identity) ──► certificate, 30 days       Root: its public half, which everybody has
//!       │                                          │
//!       └── token(Grant) ──► one line              ▼
//!            │                        Keeper: what this node shows now; renewed after two thirds, while connections run
//!            ▼                              │
//!   Token: checked with Root alone          ├── server_config_for(Purpose)
//!                                           └── client_config_for(Purpose) ──► peer verified ──► Identity: node, or user with a role
//! ```
//!
//! There is TLS 1.3 and nothing older, ECDSA over P-256 and nothing else. Who somebody is stands in one URI of his certificate ([`Identity`]); host names count for
//! clients that are not ours.
//!
//! # Invariants
//! - *one-authority*: only certificates that this cluster's authority issued are taken, and they are never taken to issue others.
//! - *said-on-both-sides*: who refuses logs the exact reason; who is refused says what the alert most likely means ([`explain`]).
//! - *key-stays*: a node's key is made by the node and never sent. The authority's key goes to members only, by their owner's hand.
//! - *whole-or-not*: files are replaced in one step.
//! - *nothing-is-believed*: tokens, requests and certificates of others are bounded in length, and read to the last byte or refused.
//!
//! # What it does not do
//! There are no lists of revoked certificates. A node that was removed, and a user that was revoked or never admitted, is refused by the owner, who has the catalog,
//! wherever an [`Identity`] is handed to him. The authority's key is never exchanged.
//!
//! It does not know connections, the catalog, or when to ask whom for a renewal: [`calls`](crate::calls) does.

mod authority;
mod client_files;
mod clock;
mod credential;
mod files;
mod identity;
mod keeper;
mod pem;
mod refusal;
mod request;
mod root;
mod token;
mod verify;

#[cfg(test)]
pub(crate) mod tests;

pub use authority::{Authority, NODE_LIFE, USER_LIFE_MAX};
pub use client_files::{CA_FILE, CERTIFICATE_FILE, ClientFiles, KEY_FILE};
pub use clock::{Clock, SKEW, WallTime};
pub use credential::Credential;
pub use files::{FileError, write_public};
pub use identity::{Identity, Role, UserName};
pub use keeper::{Keeper, Purpose, RenewError, client_config_by_token, client_config_to_join};
pub use refusal::{Refusal, explain, explain_tls};
pub use request::{CertificateRequest, HOSTS_MAX, REQUEST_LEN_MAX, RequestError};
pub use root::{Fingerprint, Root};
pub use token::{ADDRESSES_MAX, Claim, Grant, Spent, Token, TokenError, TokenId};

/// What the key of a request for a certificate (PKCS #10, DER) is known by.
///
/// # Errors
/// Where it is not such a request.
pub fn key_of_request(request: &[u8]) -> Result<Fingerprint, RequestError> {
    request::fingerprint(request)
}
