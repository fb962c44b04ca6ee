//! Identities. Each is a newtype, so that a layer is never passed where a volume is meant.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(/// A volume: what a user creates and attaches. Never used again.
    VolumeId(u64));
id!(/// A writable or frozen state of a volume. Unique in a cluster, never used again.
    LayerId(u64));
id!(/// A volume with its snapshots and clones: what shares one extent-to-PG map.
    FamilyId(u64));
id!(/// A placement group.
    PgId(u32));
id!(/// A disk in the catalog.
    DiskId(u32));
id!(/// A node in the catalog.
    NodeId(u32));

/// A disk of a shard: its place in the shard's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskSlot(pub u16);

/// The identity of one store, drawn at random when its disk is formatted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
