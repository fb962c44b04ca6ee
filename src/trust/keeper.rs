//! Keeps what this node or user shows, and exchanges it under running connections when it is renewed.
//!
//! ```text
//!   Keeper ── current: Credential ◄── install ── answer of a member ◄── request, two thirds into its life
//!     │
//!     ├── server_config_for(Purpose) ─┐  made once; each handshake asks the keeper
//!     └── client_config_for(Purpose) ─┘  what to show, and shows what is current
//! ```
//!
//! Invariants:
//! - *file-before-use*: a new certificate is shown only when it is durable. After a crash the node has the old one or the new one.
//! - *no-step-back*: one that ends earlier than what is current is not installed.
//! - *no-resumption*: every connection proves both sides anew; tickets would let in somebody whose certificate has run out.

use super::clock::{Clock, WallTime};
use super::credential::Credential;
use super::files::FileError;
use super::identity::Identity;
use super::request::{CertificateRequest, RequestError};
use super::root::Root;
use super::verify::{Anonymous, ByFingerprint, Peers, Verifier};
use super::{Token, verify};
use crate::base::{ClusterId, NodeId};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// What a connection is for, which decides who may be at its other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Between nodes. Whoever has no certificate gets in too, as nobody, to join; the caller admits nothing else to nobody.
    Calls,
    /// Data between nodes.
    Links,
    /// The HTTP API: nodes and users; nobody gets in too, for whom a token speaks.
    Api,
    /// NBD: nodes and users. Who of them may see which export is the caller's list.
    Nbd,
}

/// Why a renewal was not taken over. What was current stays so.
#[derive(Debug)]
pub enum RenewError {
    /// The answer is not a certificate for this node and that key.
    Answer(String),
    /// It is as good as the current one, or less.
    NotNewer {
        current: WallTime,
        offered: WallTime,
    },
    File(FileError),
}

impl fmt::Display for RenewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RenewError::Answer(why) => write!(f, "the new certificate is not taken: {why}"),
            RenewError::NotNewer { current, offered } => write!(
                f,
                "the new certificate ends at {offered} and the present one at {current}; is the clock of who issued it wrong?"
            ),
            RenewError::File(error) => write!(f, "the new certificate cannot be kept: {error}"),
        }
    }
}

impl std::error::Error for RenewError {}

/// Holds the current credential. Shared by all that makes connections.
pub struct Keeper {
    current: RwLock<Arc<Credential>>,
    root: Root,
    clock: Clock,
    /// Where it is kept; `None`: nowhere.
    folder: Option<PathBuf>,
    /// Names and addresses that a renewed certificate has too.
    hosts: Vec<String>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper({:?})", self.current())
    }
}

impl Keeper {
    /// Of what lies in `folder`.
    ///
    /// # Errors
    /// As [`Credential::open`].
    pub fn open(folder: &Path, hosts: &[String], clock: Clock) -> Result<Arc<Keeper>, FileError> {
        let credential = Credential::open(folder)?;
        Ok(Keeper::new(credential, Some(folder), hosts, clock))
    }

    /// Of a credential. What renews it goes to `folder`, if there is one.
    pub fn new(
        credential: Credential,
        folder: Option<&Path>,
        hosts: &[String],
        clock: Clock,
    ) -> Arc<Keeper> {
        Arc::new(Keeper {
            root: credential.root().clone(),
            current: RwLock::new(Arc::new(credential)),
            clock,
            folder: folder.map(Path::to_owned),
            hosts: hosts.to_vec(),
        })
    }

    pub fn current(&self) -> Arc<Credential> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn root(&self) -> &Root {
        &self.root
    }

    pub fn cluster(&self) -> ClusterId {
        self.root.cluster()
    }

    /// The node that this is; `None` for a user.
    pub fn node(&self) -> Option<NodeId> {
        match self.current().identity() {
            Identity::Node(node) => Some(*node),
            Identity::User { .. } => None,
        }
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How long it is until a renewal is due; nothing where it is.
    pub fn renewal_in(&self) -> Duration {
        self.current().renew_at().since(self.clock.now())
    }

    /// What a renewal is asked with: a new key.
    ///
    /// # Errors
    /// Where a host is none.
    pub fn request(&self) -> Result<CertificateRequest, RequestError> {
        CertificateRequest::new(&self.hosts)
    }

    /// Takes over what a member answered: checks it, keeps it, and shows it from then on. Connections that are open stay so.
    ///
    /// # Errors
    /// Why not; the current one then goes on.
    pub fn install(
        &self,
        request: CertificateRequest,
        certificate: Vec<u8>,
    ) -> Result<(), RenewError> {
        let root = self.root.clone();
        let made = Credential::of(root, request, certificate.into(), &self.clock);
        let made = made.map_err(RenewError::Answer)?;
        let current = self.current();
        if made.identity() != current.identity() {
            let why = format!(
                "it is for {}, and this is {}",
                made.identity(),
                current.identity()
            );
            return Err(RenewError::Answer(why));
        }
        if made.ends() <= current.ends() {
            return Err(RenewError::NotNewer {
                current: current.ends(),
                offered: made.ends(),
            });
        }
        if let Some(folder) = &self.folder {
            made.save(folder).map_err(RenewError::File)?;
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(made);
        Ok(())
    }

    /// How this is a server.
    pub fn server_config_for(self: &Arc<Keeper>, purpose: Purpose) -> Arc<ServerConfig> {
        let (peers, anonymous) = match purpose {
            Purpose::Calls => (Peers::Nodes, Anonymous::Admitted),
            Purpose::Links => (Peers::Nodes, Anonymous::Refused),
            Purpose::Api => (Peers::NodesAndUsers, Anonymous::Admitted),
            Purpose::Nbd => (Peers::NodesAndUsers, Anonymous::Refused),
        };
        let verifier = Verifier::new(self.root.clone(), peers, anonymous);
        let builder = ServerConfig::builder_with_details(provider(), Arc::new(self.clock.clone()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]);
        let mut config = builder
            .expect("ring has TLS 1.3")
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(Shown(self.clone())));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        if purpose == Purpose::Api {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Arc::new(config)
    }

    /// How this is a client of a node. Its name does not matter, only that it is a node of the cluster: who expects a certain one asks
    /// [`Keeper::identity_of`] after the handshake.
    pub fn client_config_for(self: &Arc<Keeper>, purpose: Purpose) -> Arc<ClientConfig> {
        let verifier = Verifier::new(self.root.clone(), Peers::Nodes, Anonymous::Refused);
        let mut config = client_builder(&self.clock)
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(Shown(self.clone())));
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        if purpose == Purpose::Api {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Arc::new(config)
    }

    /// Who is at the other end of a connection that was made with one of these configurations: what rustls' `peer_certificates` gave. `None`: nobody that has a name.
    pub fn identity_of(
        &self,
        certificates: Option<&[rustls::pki_types::CertificateDer<'_>]>,
    ) -> Option<Identity> {
        verify::identity_of(self.root.cluster(), certificates?.first()?)
    }
}

/// How one that has only a token is a client: whoever answers has the token's authority, or hears nothing.
pub fn client_config_to_join(token: &Token, clock: &Clock) -> Arc<ClientConfig> {
    let verifier = ByFingerprint::new(token.cluster(), token.authority());
    let mut config = client_builder(clock)
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Arc::new(config)
}

/// How one that has only a token for the API is a client: whoever answers has the token's authority, or is told nothing, the token neither.
pub fn client_config_by_token(token: &Token, clock: &Clock) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(&client_config_to_join(token, clock));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn client_builder(clock: &Clock) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]);
    builder.expect("ring has TLS 1.3")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Shows what is current at each handshake.
#[derive(Debug)]
struct Shown(Arc<Keeper>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().certified())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
