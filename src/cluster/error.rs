//! Why something about the cluster was not done, and what to do.

use crate::base::{ClusterId, NodeId};
use crate::calls::JoinError;
use crate::manager::{MembersError, ProposeError};
use crate::trust::{FileError, RequestError, TokenError};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why something about the cluster was not done.
#[derive(Debug)]
pub enum ClusterError {
    /// The configuration does not say where to listen.
    NotConfigured,
    /// This node is of a cluster, and the configuration has no section for it.
    Unconfigured {
        cluster: ClusterId,
        path: PathBuf,
    },
    /// This node is alone.
    Alone,
    /// This node is of a cluster already.
    Member(ClusterId),
    /// Only members of the manager can do it.
    NoAuthority {
        members: Vec<String>,
    },
    /// Nothing can listen there.
    Listen {
        address: SocketAddr,
        error: std::io::Error,
    },
    /// A file of the cluster cannot be used.
    Kept {
        path: PathBuf,
        why: String,
    },
    /// What lies in the folder does not belong together.
    Mixed {
        path: PathBuf,
        why: String,
    },
    File(FileError),
    Request(RequestError),
    Token(TokenError),
    Join(JoinError),
    Members(MembersError),
    Propose(ProposeError),
    /// There is no such node.
    NoNode(String),
    /// The calls of this node could not be begun.
    Calls(String),
}

impl ClusterError {
    /// What to do; empty where the words say it already.
    pub fn cure(&self) -> &'static str {
        match self {
            ClusterError::NotConfigured => {
                "add `[cluster]` with `listen = \"ADDRESS:PORT\"` to the daemon's configuration, and restart it"
            }
            ClusterError::Unconfigured { .. } => "put the section [cluster] back, and start again",
            ClusterError::Alone => {
                "make a cluster with `sarsen cluster init`, or join one with `sarsen join ADDR --token T`"
            }
            ClusterError::Member(_) => "`sarsen cluster members` shows its nodes",
            ClusterError::NoAuthority { .. } => "say it on one of the members",
            ClusterError::Listen { .. } => {
                "see to `listen` in [cluster] of the daemon's configuration, and who else has the address"
            }
            ClusterError::Kept { .. } | ClusterError::Mixed { .. } => {
                "restore it from a backup; or move the folder away, to begin anew"
            }
            ClusterError::Join(_) => "nothing has changed here; correct it and say it again",
            ClusterError::NoNode(_) => "`sarsen cluster members` shows the nodes",
            ClusterError::Propose(_) | ClusterError::Members(_) => {
                "`sarsen cluster members` shows who can be reached"
            }
            ClusterError::File(_)
            | ClusterError::Request(_)
            | ClusterError::Token(_)
            | ClusterError::Calls(_) => "",
        }
    }
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClusterError::NotConfigured => {
                f.write_str("this daemon is not told where to listen for other nodes")
            }
            ClusterError::Unconfigured { cluster, path } => write!(
                f,
                "this node is of cluster {cluster} ({}), and the configuration has no section [cluster]",
                path.display()
            ),
            ClusterError::Alone => f.write_str("this node is in no cluster"),
            ClusterError::Member(cluster) => {
                write!(f, "this node is of cluster {cluster} already")
            }
            ClusterError::NoAuthority { members } => write!(
                f,
                "this node does not hold the cluster's authority: it is no member of the manager, or has just become one (members: {})",
                members.join(", ")
            ),
            ClusterError::Listen { address, error } => {
                write!(f, "listening for other nodes at {address}: {error}")
            }
            ClusterError::Kept { path, why } | ClusterError::Mixed { path, why } => {
                write!(f, "{}: {why}", path.display())
            }
            ClusterError::File(error) => error.fmt(f),
            ClusterError::Request(error) => error.fmt(f),
            ClusterError::Token(error) => error.fmt(f),
            ClusterError::Join(error) => error.fmt(f),
            ClusterError::Members(error) => error.fmt(f),
            ClusterError::Propose(error) => error.fmt(f),
            ClusterError::NoNode(name) => write!(f, "there is no node {name:?}"),
            ClusterError::Calls(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ClusterError {}

macro_rules! from {
    ($($error:ty => $kind:ident),*) => {$(
        impl From<$error> for ClusterError {
            fn from(error: $error) -> ClusterError {
                ClusterError::$kind(error)
            }
        }
    )*};
}

from!(FileError => File, RequestError => Request, TokenError => Token, JoinError => Join,
      MembersError => Members, ProposeError => Propose);

impl ClusterError {
    /// Of a certificate that is another node's.
    pub(super) fn other_node(path: PathBuf, theirs: Option<NodeId>, ours: NodeId) -> ClusterError {
        let theirs = theirs.map_or_else(|| "a user".into(), |node| format!("node {node}"));
        ClusterError::Mixed {
            path,
            why: format!("the certificate is that of {theirs}, and this is node {ours}"),
        }
    }
}
