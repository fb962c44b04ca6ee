//! How a machine becomes a node, with nothing but a token.
//!
//! ```text
//!   joiner                                            member that holds the authority
//!   key of its own, kept in joining.pem
//!   dials an address of the token;
//!   the authority there has the token's fingerprint
//!   token, request for a certificate, name  ────────► token: genuine, in time, not used by another key?
//!                                                     owner: makes the node in the catalog
//!   certificate, authority, node, members   ◄──────── issues
//!   kept in node.pem; joining.pem goes
//! ```
//!
//! Interrupted anywhere it may be repeated with the same token, because it asks with the same key: the member sees the same machine again, and the owner, who is told
//! the key, has the same node for it.

use super::calls::{Calls, call_once};
use super::dial::{Protection, dial};
use super::error::CallError;
use super::hello::{Hello, Purpose, VERSIONS};
use super::limits::Limits;
use super::node::lock;
use super::service::Service;
use crate::base::{ClusterId, NodeId};
use crate::trust::{
    Authority, CertificateRequest, Clock, Credential, FileError, Fingerprint, Identity, Keeper,
    NODE_LIFE, RequestError, Root, Spent, Token, TokenId, client_config_to_join, key_of_request,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::time::timeout;

/// Tokens that were used and have not ended, as one member remembers them.
const SPENT_MAX: usize = 4096;
/// Bytes of a node's name.
const NAME_LEN_MAX: usize = 255;
const ADDRESSES_MAX: usize = super::calls::ADDRESSES_MAX;
/// Addresses that are tried, of all names of the token.
const TRIALS_MAX: usize = 32;
/// The key that a join is asked with, until it has succeeded.
const KEY_FILE: &str = "joining.pem";

/// A node, and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    pub addresses: Vec<SocketAddr>,
}

/// Who wants to become a node. His token is genuine and his.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joiner {
    pub name: String,
    /// Where he says that he will be reached.
    pub addresses: Vec<SocketAddr>,
    /// Where he asks from.
    pub from: SocketAddr,
    /// By this he is known again when he repeats.
    pub key: Fingerprint,
    pub token: TokenId,
}

/// What the owner made of him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    pub node: NodeId,
    /// Whom he talks to first: the manager's members.
    pub members: Vec<Member>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    token: String,
    /// PKCS #10, DER, base64.
    request: String,
    name: String,
    addresses: Vec<SocketAddr>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    node: NodeId,
    /// DER, base64, like the next.
    certificate: String,
    authority: String,
    members: Vec<Member>,
}

impl Calls {
    /// Takes in whoever has a token. `admit` makes a node of a joiner, durably; it is asked again with the same key where somebody repeats, and
    /// then has the same node for him. It may refuse, and its words go to the joiner. That a token is not used by two keys, this remembers in memory; an owner that wants it to hold over
    /// restarts and between members keeps the token's id with the node, and refuses another key.
    pub fn serve_joins<F, A>(&self, authority: Arc<Authority>, admit: F)
    where
        F: Fn(Joiner) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Admitted, String>> + Send + 'static,
    {
        let spent = Arc::new(Mutex::new(Spent::new(SPENT_MAX)));
        let admit = Arc::new(admit);
        self.handle(Service::Join, move |caller, body| {
            let (authority, spent, admit) = (authority.clone(), spent.clone(), admit.clone());
            async move {
                let (joiner, request) = check(&authority, &spent, caller.address, &body)?;
                let (name, key) = (joiner.name.clone(), joiner.key);
                let admitted = admit(joiner).await?;
                let node = admitted.node;
                let issued = authority.issue(&request, &Identity::Node(node), NODE_LIFE);
                let certificate = issued.map_err(|error| error.to_string())?;
                tracing::info!(%node, name, %key, "a node joins");
                let answer = Answer {
                    node,
                    certificate: STANDARD.encode(certificate),
                    authority: STANDARD.encode(authority.root().certificate()),
                    members: admitted.members,
                };
                serde_json::to_vec(&answer).map_err(|error| error.to_string())
            }
        });
    }
}

/// Whether somebody may join, and with what request.
fn check(
    authority: &Authority,
    spent: &Mutex<Spent>,
    from: SocketAddr,
    body: &[u8],
) -> Result<(Joiner, Vec<u8>), String> {
    let ask: Ask = serde_json::from_slice(body)
        .map_err(|error| format!("the request to join cannot be read: {error}"))?;
    let now = authority.clock().now();
    let token = Token::read(&ask.token).map_err(|error| error.to_string())?;
    let checked = token.check_join(authority.root(), now);
    checked.map_err(|error| error.to_string())?;
    if ask.name.is_empty() || ask.name.len() > NAME_LEN_MAX {
        return Err(format!("a node's name has 1 to {NAME_LEN_MAX} bytes"));
    }
    if ask.addresses.len() > ADDRESSES_MAX {
        return Err(format!("a node has at most {ADDRESSES_MAX} addresses"));
    }
    let request = STANDARD.decode(&ask.request);
    let request = request.map_err(|error| format!("the request for a certificate: {error}"))?;
    let key = key_of_request(&request).map_err(|error| error.to_string())?;
    let claimed = lock(spent).claim(&token, key, now);
    claimed.map_err(|error| error.to_string())?;
    let joiner = Joiner {
        name: ask.name,
        addresses: ask.addresses,
        from,
        key,
        token: token.id(),
    };
    Ok((joiner, request))
}

/// How to join.
#[derive(Debug, Clone)]
pub struct Joining<'a> {
    pub token: &'a Token,
    /// Addresses (host:port) that are tried before the token's.
    pub also: &'a [String],
    pub name: &'a str,
    /// Names and addresses that the certificate is to have, for clients that look for them.
    pub hosts: &'a [String],
    /// Where this node will be reached.
    pub addresses: &'a [SocketAddr],
    /// Where key and certificate are kept.
    pub folder: &'a Path,
    /// Whether the cluster's connections are plain; then whoever answers is believed.
    pub plain: bool,
    pub clock: Clock,
    /// How long each address is given.
    pub within: Duration,
}

/// This machine is a node now.
#[derive(Debug)]
pub struct Joined {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub members: Vec<Member>,
    pub keeper: Arc<Keeper>,
}

/// Why this machine is not a node. It may be tried again.
#[derive(Debug)]
pub enum JoinError {
    /// It is of another cluster.
    Elsewhere {
        cluster: ClusterId,
        path: String,
    },
    File(FileError),
    Request(RequestError),
    /// A member said no.
    Refused {
        by: String,
        why: String,
    },
    /// Nobody could be asked.
    Unreachable(Vec<(String, CallError)>),
    /// What came back is not what was asked for. Nothing was kept.
    Answer {
        by: String,
        why: String,
    },
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Elsewhere { cluster, path } => write!(
                f,
                "this node is of cluster {cluster} already; to have it leave that for good, stop it and remove {path}"
            ),
            JoinError::File(error) => error.fmt(f),
            JoinError::Request(error) => error.fmt(f),
            JoinError::Refused { by, why } => write!(f, "{by} refused: {why}"),
            JoinError::Unreachable(tried) => {
                f.write_str("no member of the cluster could be asked:")?;
                tried
                    .iter()
                    .try_for_each(|(at, why)| write!(f, "\n  {at}: {why}"))
            }
            JoinError::Answer { by, why } => write!(f, "{by} answered something else: {why}"),
        }
    }
}

impl std::error::Error for JoinError {}

/// Makes this machine a node of the token's cluster. Safe to interrupt and to repeat.
///
/// # Errors
/// In words that say what to do.
pub async fn join(how: &Joining<'_>) -> Result<Joined, JoinError> {
    let request = request(how)?;
    let ask = Ask {
        token: how.token.text(),
        request: STANDARD.encode(request.der()),
        name: how.name.to_owned(),
        addresses: how.addresses.to_vec(),
    };
    let body = serde_json::to_vec(&ask).unwrap_or_default();
    let mut tried = Vec::new();
    for name in how.also.iter().chain(how.token.addresses()) {
        let addresses = match timeout(how.within, lookup_host(name)).await {
            Ok(Ok(found)) => found.collect::<Vec<_>>(),
            Ok(Err(error)) => {
                tried.push((name.clone(), CallError::unreachable(error.to_string())));
                continue;
            }
            Err(_) => {
                let within = how.within;
                tried.push((name.clone(), CallError::TimedOut { within }));
                continue;
            }
        };
        for address in addresses {
            if tried.len() >= TRIALS_MAX {
                return Err(JoinError::Unreachable(tried));
            }
            match ask_one(how, address, body.clone()).await {
                Ok(answer) => return keep(how, request, name, &answer),
                // Another member would say the same.
                Err(CallError::Refused { why }) => {
                    let by = name.clone();
                    return Err(JoinError::Refused { by, why });
                }
                Err(error) => tried.push((name.clone(), error)),
            }
        }
    }
    Err(JoinError::Unreachable(tried))
}

/// With the key of a join that was interrupted, or of the certificate that there is.
fn request(how: &Joining<'_>) -> Result<CertificateRequest, JoinError> {
    let path = Credential::path(how.folder);
    if !path.exists() {
        let key = how.folder.join(KEY_FILE);
        return CertificateRequest::kept_at(&key, how.hosts).map_err(JoinError::File);
    }
    let there = Credential::open(how.folder).map_err(JoinError::File)?;
    let cluster = there.root().cluster();
    if cluster != how.token.cluster() {
        let path = path.display().to_string();
        return Err(JoinError::Elsewhere { cluster, path });
    }
    CertificateRequest::again(&there, how.hosts).map_err(JoinError::Request)
}

async fn ask_one(
    how: &Joining<'_>,
    address: SocketAddr,
    body: Vec<u8>,
) -> Result<Vec<u8>, CallError> {
    let hello = Hello {
        versions: VERSIONS,
        cluster: how.token.cluster(),
        from: None,
        to: None,
        purpose: Purpose::Join,
    };
    let protection = match how.plain {
        true => Protection::Plain,
        false => Protection::Tls {
            config: client_config_to_join(how.token, &how.clock),
            node_of: None,
        },
    };
    let within = how.within.min(Limits::default().handshake);
    let (conduit, welcome) = dial(address, protection, &hello, within).await?;
    call_once(conduit, &welcome, address, body, how.within).await
}

/// Checks the answer, and keeps it.
fn keep(
    how: &Joining<'_>,
    request: CertificateRequest,
    by: &str,
    answer: &[u8],
) -> Result<Joined, JoinError> {
    let odd = |why: String| JoinError::Answer {
        by: by.to_owned(),
        why,
    };
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| odd(error.to_string()))?;
    let bytes = |text: &str| {
        STANDARD
            .decode(text)
            .map_err(|error| odd(error.to_string()))
    };
    let root = Root::of(bytes(&answer.authority)?.into()).map_err(odd)?;
    if root.fingerprint() != how.token.authority() {
        return Err(odd("its authority is not the token's".into()));
    }
    let certificate = bytes(&answer.certificate)?;
    let credential = Credential::of(root, request, certificate.into(), &how.clock).map_err(odd)?;
    if credential.identity() != &Identity::Node(answer.node) {
        return Err(odd(format!(
            "the certificate is for {}",
            credential.identity()
        )));
    }
    credential.save(how.folder).map_err(JoinError::File)?;
    // The certificate counts from here on; a key that stays behind does no harm, and is not used again.
    if let Err(error) = std::fs::remove_file(how.folder.join(KEY_FILE))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("{KEY_FILE} stays behind: {error}");
    }
    Ok(Joined {
        cluster: how.token.cluster(),
        node: answer.node,
        members: answer.members,
        keeper: Keeper::new(credential, Some(how.folder), how.hosts, how.clock.clone()),
    })
}
