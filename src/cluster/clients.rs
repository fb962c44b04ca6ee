//! Clients: who uses the cluster from outside, by NBD or the API over TCP.
//!
//! ```text
//!   issue ──► the catalog admits the name ──► authority signs ──► certificate and key, or a token: to whoever asked, kept nowhere
//!   shown ──► proven by TLS, or by the token's signature ──► Cluster::admit ── is the name in the catalog? ──► its role, or why not
//! ```
//!
//! A certificate and a token carry name and role, so that any node can check them by itself; the catalog has the names that count, so that one can be revoked.
//! The lesser role counts.

use super::error::ClusterError;
use super::site::{Cluster, lock};
use crate::protocol::catalog::{ClientRole, Command};
use crate::trust::{
    Authority, ClientFiles, Grant, Identity, Keeper, Role, SKEW, Token, USER_LIFE_MAX, UserName,
    WallTime,
};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The longest that a token for the API lasts.
pub const TOKEN_LIFE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
/// The longest that a client's certificate lasts.
pub const CLIENT_LIFE_MAX: Duration = USER_LIFE_MAX;

/// A certificate that was issued to a client, with its key.
#[derive(Debug)]
pub struct IssuedClient {
    pub files: ClientFiles,
    /// When it ends, for people.
    pub ends: String,
}

/// A token for the API that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedToken {
    pub token: String,
    /// When it ends, for people.
    pub ends: String,
}

/// Why somebody who has proven who he is, or tried to, is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAdmitted {
    /// A node's certificate is for what nodes say to one another.
    Node,
    /// The catalog does not have the name.
    Unknown(UserName),
    Revoked(UserName),
    /// Not a token, or not a good one.
    Token(String),
    /// This node is in no cluster.
    Alone,
}

impl fmt::Display for NotAdmitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotAdmitted::Node => f.write_str(
                "the certificate is a node's, and clients have their own: make one with `sarsen cluster client NAME`",
            ),
            NotAdmitted::Unknown(name) => write!(
                f,
                "the cluster knows no client {:?}: `sarsen cluster clients` shows those that it knows",
                name.as_str()
            ),
            NotAdmitted::Revoked(name) => {
                write!(f, "the client {:?} was revoked", name.as_str())
            }
            NotAdmitted::Token(why) => f.write_str(why),
            NotAdmitted::Alone => f.write_str("this node is in no cluster, and knows no clients"),
        }
    }
}

impl std::error::Error for NotAdmitted {}

fn in_catalog(role: Role) -> ClientRole {
    match role {
        Role::Reader => ClientRole::Reader,
        Role::Operator => ClientRole::Operator,
        Role::Admin => ClientRole::Admin,
    }
}

fn of_catalog(role: ClientRole) -> Role {
    match role {
        ClientRole::Reader => Role::Reader,
        ClientRole::Operator => Role::Operator,
        ClientRole::Admin => Role::Admin,
    }
}

impl Cluster {
    /// What this node shows, and checks others with; nothing where it is alone.
    pub fn keeper(&self) -> Option<Arc<Keeper>> {
        let running = lock(&self.0.running);
        running.as_ref().map(|running| Arc::clone(&running.keeper))
    }

    /// Issues a certificate, with a key that is made here, to a client.
    pub async fn issue_certificate(
        &self,
        name: &UserName,
        role: Role,
        life: Duration,
    ) -> Result<IssuedClient, ClusterError> {
        let (authority, _) = self.issuer()?;
        // A certificate is taken for a while after its end.
        self.admit_name(name, role, life.min(CLIENT_LIFE_MAX) + SKEW)
            .await?;
        let name = name.clone();
        let made = authority.credential(&Identity::User { name, role }, &[], life)?;
        Ok(IssuedClient {
            ends: made.ends().to_string(),
            files: made.client_files(),
        })
    }

    /// Makes a token that speaks for a client at the API.
    pub async fn issue_token(
        &self,
        name: &UserName,
        role: Role,
        life: Duration,
    ) -> Result<IssuedToken, ClusterError> {
        let (authority, addresses) = self.issuer()?;
        self.admit_name(name, role, life.min(TOKEN_LIFE_MAX))
            .await?;
        let name = name.clone();
        let token = authority.token(Grant::Use { name, role }, &addresses, life)?;
        Ok(IssuedToken {
            ends: token.expires().to_string(),
            token: token.text(),
        })
    }

    /// Takes nothing any more that shows this name.
    pub async fn revoke_client(&self, name: &str) -> Result<(), ClusterError> {
        let manager = self.0.manager.get().ok_or(ClusterError::Alone)?;
        let name = name.to_owned();
        manager.propose(Command::RevokeClient { name }).await?;
        Ok(())
    }

    async fn admit_name(
        &self,
        name: &UserName,
        role: Role,
        life: Duration,
    ) -> Result<(), ClusterError> {
        let manager = self.0.manager.get().ok_or(ClusterError::Alone)?;
        let now = self.0.clock.now();
        let admit = Command::AdmitClient {
            name: name.as_str().to_owned(),
            role: in_catalog(role),
            now: now.0,
            until: now.plus(life).0,
        };
        manager.propose(admit).await?;
        Ok(())
    }

    /// The authority, if this node has it, and where members are reached.
    pub(super) fn issuer(&self) -> Result<(Arc<Authority>, Vec<String>), ClusterError> {
        let (authority, own) = match &*lock(&self.0.running) {
            Some(running) => (running.authority.clone(), running.reached_at),
            None => return Err(ClusterError::Alone),
        };
        let authority = authority.ok_or_else(|| ClusterError::NoAuthority {
            members: self.0.names_of_members(),
        })?;
        let mut addresses = vec![own.to_string()];
        let others = self.0.members_reached_at();
        let others = others.iter().flat_map(|member| &member.addresses);
        let others = others.map(SocketAddr::to_string);
        addresses.extend(others.filter(|at| *at != own.to_string()));
        addresses.truncate(crate::trust::ADDRESSES_MAX);
        Ok((authority, addresses))
    }

    /// What somebody may do whom his certificate has proven to be `identity`.
    ///
    /// # Errors
    /// Where nothing.
    pub fn admit(&self, identity: &Identity) -> Result<(UserName, Role), NotAdmitted> {
        let Identity::User { name, role } = identity else {
            return Err(NotAdmitted::Node);
        };
        let manager = self.0.manager.get().ok_or(NotAdmitted::Alone)?;
        match manager.catalog().client(name.as_str()) {
            None => Err(NotAdmitted::Unknown(name.clone())),
            Some(client) if client.revoked => Err(NotAdmitted::Revoked(name.clone())),
            Some(client) => Ok((name.clone(), of_catalog(client.role).min(*role))),
        }
    }

    /// What the holder of a token may do.
    ///
    /// # Errors
    /// Where nothing: it is no token of this cluster, has ended, or its name does not count.
    pub fn admit_token(&self, line: &str) -> Result<(UserName, Role), NotAdmitted> {
        let keeper = self.keeper().ok_or(NotAdmitted::Alone)?;
        let now: WallTime = self.0.clock.now();
        let read = Token::read(line);
        let checked = read.and_then(|token| token.check_use(keeper.root(), now));
        let (name, role) = checked.map_err(|error| NotAdmitted::Token(error.to_string()))?;
        self.admit(&Identity::User { name, role })
    }
}
