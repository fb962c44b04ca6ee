//! Who somebody is, and how that stands in a certificate: as one URI.
//!
//! ```text
//!   sarsen://CLUSTER                            an authority
//!   sarsen://CLUSTER/node/7                     a node
//!   sarsen://CLUSTER/user/alice?role=operator   somebody who uses the API or an export
//! ```
//!
//! A URI has one spelling: what is read, and written again, is the same.

use crate::base::{ClusterId, NodeId};
use std::fmt;

const SCHEME: &str = "sarsen://";
/// Bytes of a user's name.
const USER_LEN_MAX: usize = 64;

/// What a user may do; a later one may do all that an earlier one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sees everything, changes nothing.
    Reader,
    /// Works with volumes and attachments.
    Operator,
    /// Changes the cluster: nodes, disks, policies, who may what.
    Admin,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Reader, Role::Operator, Role::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Role::Reader => "reader",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    pub fn read(text: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A user's name: 1 to 64 of a-z, 0-9, `.`, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

impl UserName {
    /// `None` where `text` is no such name.
    pub fn new(text: &str) -> Option<UserName> {
        let fits = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let is_name = (1..=USER_LEN_MAX).contains(&text.len()) && text.bytes().all(fits);
        is_name.then(|| UserName(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who holds a certificate of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    Node(NodeId),
    User { name: UserName, role: Role },
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Node(node) => write!(f, "node {node}"),
            Identity::User { name, role } => write!(f, "user {} ({role})", name.0),
        }
    }
}

impl Identity {
    /// As it stands in a certificate.
    pub fn uri(&self, cluster: ClusterId) -> String {
        match self {
            Identity::Node(node) => format!("{SCHEME}{cluster}/node/{node}"),
            Identity::User { name, role } => {
                format!("{SCHEME}{cluster}/user/{}?role={role}", name.0)
            }
        }
    }

    /// Reads what [`Identity::uri`] writes.
    pub fn read(uri: &str) -> Option<(ClusterId, Identity)> {
        let (cluster, path) = uri.strip_prefix(SCHEME)?.split_once('/')?;
        let cluster = ClusterId::read(cluster)?;
        let identity = match path.split_once('/')? {
            ("node", number) => Identity::Node(NodeId(number.parse().ok()?)),
            ("user", user) => {
                let (name, role) = user.split_once("?role=")?;
                Identity::User {
                    name: UserName::new(name)?,
                    role: Role::read(role)?,
                }
            }
            _ => return None,
        };
        // Numbers have more than one spelling: +7, 07.
        (identity.uri(cluster) == uri).then_some((cluster, identity))
    }
}

/// As the authority of a cluster stands in its own certificate.
pub(super) fn authority_uri(cluster: ClusterId) -> String {
    format!("{SCHEME}{cluster}")
}

/// Reads what [`authority_uri`] writes.
pub(super) fn read_authority(uri: &str) -> Option<ClusterId> {
    ClusterId::read(uri.strip_prefix(SCHEME)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_is_written_and_in_no_other_way() {
        let cluster = ClusterId([0xab; 16]);
        let alice = UserName::new("alice").unwrap();
        let mut all = vec![Identity::Node(NodeId(0)), Identity::Node(NodeId(u32::MAX))];
        all.extend(Role::ALL.map(|role| Identity::User {
            name: alice.clone(),
            role,
        }));
        for identity in all {
            let uri = identity.uri(cluster);
            assert_eq!(Identity::read(&uri), Some((cluster, identity)), "{uri}");
        }
        let id = "abababababababababababababababab";
        for odd in [
            format!("sarsen://{id}/node/07"),
            format!("sarsen://{id}/node/+7"),
            format!("sarsen://{id}/node/4294967296"),
            format!("sarsen://{id}/node/7/"),
            format!("sarsen://{id}/node/"),
            format!("sarsen://{id}/user/alice"),
            format!("sarsen://{id}/user/Alice?role=admin"),
            format!("sarsen://{id}/user/a/b?role=admin"),
            format!("sarsen://{id}/user/alice?role=root"),
            format!("sarsen://{id}"),
            format!("https://{id}/node/7"),
            "sarsen://ab/node/7".to_owned(),
            String::new(),
        ] {
            assert_eq!(Identity::read(&odd), None, "{odd}");
        }
    }
}
