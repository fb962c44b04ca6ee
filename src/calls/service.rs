//! What can be asked of a node, and which connection carries it.

use std::fmt;

/// Which of a peer's connections something goes over. What is small and must not wait has one of its own, so that no snapshot stands in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    Urgent,
    Bulk,
    /// As urgent, and apart: a connection is worked by the runtime that dialled it, and who renews leases has one where nothing else is done. For the
    /// other side it is one more that is urgent.
    Lease,
}

impl Class {
    pub(super) const ALL: [Class; 3] = [Class::Urgent, Class::Bulk, Class::Lease];
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $class:ident;)*) => {
        /// What is asked. Numbers are never used again; one that a node does not know it answers with *unsupported*.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Service {
            $($(#[$doc])* $name = $number,)*
        }

        impl Service {
            pub const ALL: &[Service] = &[$(Service::$name),*];

            /// Which connection carries it.
            pub fn class(self) -> Class {
                match self {
                    $(Service::$name => Class::$class,)*
                }
            }

            pub(super) fn of(number: u16) -> Option<Service> {
                match number {
                    $($number => Some(Service::$name),)*
                    _ => None,
                }
            }
        }
    };
}

services! {
    /// Raft between members of the manager, but for snapshots.
    Manager = 1, Urgent;
    /// Snapshots of the manager.
    Snapshot = 2, Bulk;
    /// Leases of nodes.
    Lease = 3, Lease;
    /// What nodes tell the manager of disks, replicas and progress.
    Report = 4, Bulk;
    /// Changes of the catalog, to who follows it; and commands for it.
    Catalog = 5, Bulk;
    /// To become a node. The only one that answers somebody without a certificate.
    Join = 6, Bulk;
    /// Renewal of certificates.
    Trust = 7, Bulk;
    /// Seals, probes and other words between nodes about what they serve, which fail-over waits for.
    Node = 8, Urgent;
    /// The authority's key, which a member of the manager asks of another. Answered to members only, and over TLS only.
    Authority = 9, Bulk;
    /// Whether a node is there, and how far its catalog has come.
    Presence = 10, Urgent;
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
