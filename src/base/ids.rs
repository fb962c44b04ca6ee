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

/// The identity of one cluster (a site), drawn at random when it is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    /// Reads what [`Display`](fmt::Display) writes: 32 hexadecimal digits, in lower case.
    pub fn read(text: &str) -> Option<ClusterId> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let digits: &[u8; 32] = text.as_bytes().try_into().ok()?;
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(ClusterId(id))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_read_as_it_is_written() {
        let id = ClusterId(std::array::from_fn(|at| (at * 17) as u8));
        assert_eq!(id.to_string(), "00112233445566778899aabbccddeeff");
        assert_eq!(ClusterId::read(&id.to_string()), Some(id));
        for odd in [
            "",
            "00",
            "00112233445566778899AABBCCDDEEFF",
            "0011223344556677 899aabbccddeefff",
        ] {
            assert_eq!(ClusterId::read(odd), None, "{odd}");
        }
    }
}
