//! The dialler's half of a handshake.

use super::conduit::Conduit;
use super::error::CallError;
use super::frame::text;
use super::hello::{Cover, HELLO_LEN, Hello, NOD, NotWelcome, Preamble, REFUSAL_LEN, Way, Welcome};
use super::link::Tunnel;
use crate::base::NodeId;
use crate::trust::explain;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The node that showed certificates.
pub(super) type NodeOf<'a> = &'a (dyn Fn(Option<&[CertificateDer<'_>]>) -> Option<NodeId> + Sync);

/// How a connection that is dialled is protected.
pub(super) enum Protection<'a> {
    Plain,
    Tls {
        config: Arc<ClientConfig>,
        /// Whose certificate it is; compared with who is meant. Without, whoever gets through the handshake is right.
        node_of: Option<NodeOf<'a>>,
    },
}

impl Protection<'_> {
    fn cover(&self) -> Cover {
        match self {
            Protection::Plain => Cover::Plain,
            Protection::Tls { .. } => Cover::Tls,
        }
    }
}

/// Makes a connection: both sides know who the other one is, and speak one version.
///
/// # Errors
/// In the words of whichever side refused.
pub(super) async fn dial(
    address: SocketAddr,
    protection: Protection<'_>,
    hello: &Hello,
    within: Duration,
) -> Result<(Conduit, Welcome), CallError> {
    match timeout(within, shake_hands(address, protection, hello)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(CallError::Unreachable { why })) => {
            Err(CallError::unreachable(format!("{address}: {why}")))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(CallError::unreachable(format!(
            "{address}: no handshake within {within:?}; the other side is silent or very slow"
        ))),
    }
}

async fn shake_hands(
    address: SocketAddr,
    protection: Protection<'_>,
    hello: &Hello,
) -> Result<(Conduit, Welcome), CallError> {
    let lost = |error: io::Error| CallError::unreachable(explain(&error));
    let mut socket = TcpStream::connect(address).await.map_err(lost)?;
    socket.set_nodelay(true).map_err(lost)?;
    let preamble = Preamble {
        cover: protection.cover(),
        way: hello.purpose.way(),
    };
    socket.write_all(&preamble.encode()).await.map_err(lost)?;
    let mut answer = [0; REFUSAL_LEN];
    socket.read_exact(&mut answer).await.map_err(lost)?;
    if NotWelcome::is_begun_by(&answer) {
        return Err(refusal(&mut Conduit::Plain(socket), &answer).await);
    }
    if answer != NOD {
        return Err(no_node());
    }
    let mut conduit = match (protection, preamble.way) {
        (Protection::Plain, Way::Calls) => Conduit::Plain(socket),
        (Protection::Plain, Way::Link) => Conduit::Link(Box::new(Tunnel::plain(socket))),
        (Protection::Tls { config, node_of }, way) => {
            let name = ServerName::try_from("sarsen").expect("a name that DNS could have");
            let conduit = match way {
                Way::Calls => {
                    let tls = TlsConnector::from(config).connect(name, socket).await;
                    Conduit::Tls(Box::new(tls.map_err(lost)?.into()))
                }
                Way::Link => {
                    let tunnel = Tunnel::connect(socket, config, name).await;
                    Conduit::Link(Box::new(tunnel.map_err(CallError::unreachable)?))
                }
            };
            if let (Some(node_of), Some(meant)) = (node_of, hello.to) {
                check_node(node_of(conduit.certificates()), meant)?;
            }
            conduit
        }
    };
    // The other side may have refused this one's certificate by now: then its alert says more than a failed write.
    let written = conduit.write_all(&hello.encode()).await;
    let mut head = [0; REFUSAL_LEN];
    if let Err(error) = conduit.read_exact(&mut head).await {
        let first = written
            .err()
            .filter(|_| error.kind() == io::ErrorKind::UnexpectedEof);
        return Err(lost(first.unwrap_or(error)));
    }
    if NotWelcome::is_begun_by(&head) {
        return Err(refusal(&mut conduit, &head).await);
    }
    let mut bytes = [0; HELLO_LEN];
    bytes[..REFUSAL_LEN].copy_from_slice(&head);
    let rest = conduit.read_exact(&mut bytes[REFUSAL_LEN..]).await;
    rest.map_err(lost)?;
    let welcome = Welcome::decode(&bytes).map_err(|_| no_node())?;
    check(&welcome, hello)?;
    Ok((conduit, welcome))
}

async fn refusal(conduit: &mut Conduit, head: &[u8; REFUSAL_LEN]) -> CallError {
    let (reason, len) = match NotWelcome::decode_head(head) {
        Ok(head) => head,
        Err(wrong) => return CallError::unreachable(wrong.to_string()),
    };
    let mut words = vec![0; len];
    match conduit.read_exact(&mut words).await {
        Ok(()) => CallError::NotWelcome {
            reason,
            why: text(&words),
        },
        Err(error) => CallError::unreachable(explain(&error)),
    }
}

fn no_node() -> CallError {
    CallError::unreachable("what answers there is not a Sarsen node")
}

fn check_node(found: Option<NodeId>, meant: NodeId) -> Result<(), CallError> {
    match found {
        Some(node) if node == meant => Ok(()),
        Some(node) => Err(CallError::unreachable(format!(
            "node {node} answers there, and node {meant} is meant; the address of node {meant} has changed"
        ))),
        None => Err(CallError::unreachable(
            "whoever answers there is not a node of this cluster",
        )),
    }
}

fn check(welcome: &Welcome, hello: &Hello) -> Result<(), CallError> {
    if welcome.cluster != hello.cluster {
        return Err(CallError::unreachable(format!(
            "it is of cluster {}, and this is cluster {}",
            welcome.cluster, hello.cluster
        )));
    }
    if let Some(meant) = hello.to {
        check_node(Some(welcome.node), meant)?;
    }
    match hello.versions.contains(&welcome.version) {
        true => Ok(()),
        false => Err(CallError::unreachable(format!(
            "it chose version {}, which this node did not offer",
            welcome.version
        ))),
    }
}
