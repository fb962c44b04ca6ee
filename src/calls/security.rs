//! How this node's connections are protected, and who it is on them.

use super::hello::Cover;
use crate::base::{ClusterId, NodeId};
use crate::trust::{Identity, Keeper, Purpose};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};
use std::net::SocketAddr;
use std::sync::Arc;

/// How connections between nodes are protected.
#[derive(Debug, Clone)]
pub enum Security {
    /// Both sides prove who they are, and nobody else reads.
    MutualTls(Arc<Keeper>),
    /// Nothing of that, between processes of one machine. Whoever is on it may pose as a node.
    PlainLoopback { cluster: ClusterId, node: NodeId },
    /// Nothing of that, over any network, because the configuration says so in so many words.
    Plain { cluster: ClusterId, node: NodeId },
}

/// What of TLS is made once.
pub(super) struct Configs {
    pub calls: (Arc<ServerConfig>, Arc<ClientConfig>),
    pub links: (Arc<ServerConfig>, Arc<ClientConfig>),
}

/// Who this node is on its connections.
pub(super) struct Me {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub security: Security,
    pub tls: Option<Configs>,
}

impl Me {
    /// # Errors
    /// Where the keeper holds a user's certificate.
    pub fn of(security: Security) -> Result<Me, String> {
        match &security {
            Security::MutualTls(keeper) => {
                let of = |purpose| {
                    (
                        keeper.server_config_for(purpose),
                        keeper.client_config_for(purpose),
                    )
                };
                let node = keeper.node();
                let node =
                    node.ok_or("only a node makes calls, and the certificate is a user's")?;
                Ok(Me {
                    cluster: keeper.cluster(),
                    node,
                    tls: Some(Configs {
                        calls: of(Purpose::Calls),
                        links: of(Purpose::Links),
                    }),
                    security,
                })
            }
            Security::PlainLoopback { cluster, node } | Security::Plain { cluster, node } => {
                Ok(Me {
                    cluster: *cluster,
                    node: *node,
                    tls: None,
                    security,
                })
            }
        }
    }

    pub fn cover(&self) -> Cover {
        match self.security {
            Security::MutualTls(_) => Cover::Tls,
            _ => Cover::Plain,
        }
    }

    /// Whether there may be a connection with this address at all.
    pub fn allows(&self, address: SocketAddr) -> Result<(), String> {
        match self.security {
            Security::PlainLoopback { .. } if !address.ip().to_canonical().is_loopback() => {
                Err(format!(
                    "{} is another machine, and without TLS connections stay on this one; set up TLS (`sarsen cluster init`), or allow plain connections in so many words in the configuration",
                    address.ip()
                ))
            }
            _ => Ok(()),
        }
    }

    /// The node that showed these certificates.
    pub fn node_of(&self, certificates: Option<&[CertificateDer<'_>]>) -> Option<NodeId> {
        match &self.security {
            Security::MutualTls(keeper) => match keeper.identity_of(certificates)? {
                Identity::Node(node) => Some(node),
                Identity::User { .. } => None,
            },
            _ => None,
        }
    }
}
