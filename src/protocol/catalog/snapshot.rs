//! The catalog as bytes and back. JSON, because it is small, a person can read it in an emergency, and fields
//! can be added; with a version, because a meaning may change all the same.

use super::{Catalog, VOLUME_BYTES_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// The version of the snapshot's format (1: the first).
pub const SNAPSHOT_VERSION: u32 = 1;

/// Why bytes are not a catalog that this build can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreError {
    /// Written by a newer build.
    NewerVersion { found: u32, newest: u32 },
    /// Not what a snapshot looks like; where and why.
    Malformed(String),
    /// An invariant of the catalog does not hold in it.
    Inconsistent(&'static str),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::NewerVersion { found, newest } => {
                write!(
                    f,
                    "the catalog has version {found}, this build reads up to {newest}"
                )
            }
            RestoreError::Malformed(why) => write!(f, "the catalog cannot be read: {why}"),
            RestoreError::Inconsistent(what) => {
                write!(f, "the catalog contradicts itself: {what} does not hold")
            }
        }
    }
}

impl std::error::Error for RestoreError {}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    catalog: &'a Catalog,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Read {
    catalog: Catalog,
}

impl Catalog {
    /// The whole catalog as bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let written = Written {
            version: SNAPSHOT_VERSION,
            catalog: self,
        };
        serde_json::to_vec(&written).expect("maps keyed by numbers and plain structs are JSON")
    }

    /// The catalog of a snapshot; refused as a whole where anything about it is wrong.
    pub fn restore(bytes: &[u8]) -> Result<Catalog, RestoreError> {
        let malformed = |error: serde_json::Error| RestoreError::Malformed(error.to_string());
        // The version first: what a newer build wrote may not have the shape that this one knows.
        let Version { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version > SNAPSHOT_VERSION {
            return Err(RestoreError::NewerVersion {
                found: version,
                newest: SNAPSHOT_VERSION,
            });
        }
        let Read { catalog } = serde_json::from_slice(bytes).map_err(malformed)?;
        catalog.check().map_err(RestoreError::Inconsistent)?;
        Ok(catalog)
    }

    /// The name of the first invariant (see the room's door) that does not hold.
    pub fn check(&self) -> Result<(), &'static str> {
        let all = [
            (self.ids_never_return(), "ids-never-return"),
            (self.names_are_unique(), "names-are-unique"),
            (self.references_hold(), "references-hold"),
            (self.pgs_are_a_prefix(), "pgs-are-a-prefix"),
            (self.sockets_are_unique(), "one-socket-one-attachment"),
            (self.incoming_follow(), "incoming-follows"),
            (self.in_sync_are_replicas(), "in-sync-are-replicas"),
            (self.sizes_are_in_range(), "sizes-are-in-range"),
        ];
        all.iter()
            .find(|(holds, _)| !holds)
            .map_or(Ok(()), |(_, name)| Err(name))
    }

    fn ids_never_return(&self) -> bool {
        let next = &self.next;
        let layers = |id: u64| id < next.layer;
        self.nodes
            .iter()
            .all(|(id, node)| *id == node.id && id.0 < next.node)
            && self
                .disks
                .iter()
                .all(|(id, disk)| *id == disk.id && id.0 < next.disk)
            && self
                .pools
                .iter()
                .all(|(id, pool)| *id == pool.id && id.0 < next.pool)
            && self
                .pgs
                .iter()
                .all(|(id, pg)| *id == pg.id && id.0 < next.pg)
            && self
                .attachments()
                .all(|attachment| attachment.key.0 < next.attachment)
            && self.volumes.iter().all(|(id, volume)| {
                *id == volume.id
                    && id.0 < next.volume
                    && volume.family.0 < next.family
                    && volume.layers.iter().all(|layer| layers(layer.id.0))
            })
    }

    fn names_are_unique(&self) -> bool {
        let volumes: BTreeSet<&str> = self.volumes.values().map(|v| v.name.as_str()).collect();
        let nodes: BTreeSet<&str> = self.nodes.values().map(|n| n.name.as_str()).collect();
        volumes.len() == self.volumes.len() && nodes.len() == self.nodes.len()
    }

    fn references_hold(&self) -> bool {
        let disks = |disk: &super::Disk| {
            self.nodes.contains_key(&disk.node) && self.pools.contains_key(&disk.pool)
        };
        let pgs = |pg: &super::Pg| {
            self.pools.contains_key(&pg.pool)
                && pg.replicas.iter().all(|disk| self.disks.contains_key(disk))
        };
        let attachments = |(id, wanted): (&crate::base::VolumeId, &super::Attachment)| {
            *id == wanted.volume
                && self.volumes.contains_key(id)
                && self.nodes.contains_key(&wanted.node)
        };
        self.disks.values().all(disks)
            && self.pgs.values().all(pgs)
            && self
                .attachments
                .iter()
                .chain(&self.incoming)
                .all(attachments)
            && self
                .volumes
                .values()
                .all(|volume| self.pools.contains_key(&volume.pool))
    }

    fn sockets_are_unique(&self) -> bool {
        let (mut keys, mut sockets) = (BTreeSet::new(), BTreeSet::new());
        self.attachments().all(|one| {
            let socket = one.front_end.socket();
            // Those from before there were keys all have zero.
            (one.key.0 == 0 || keys.insert(one.key))
                && socket.is_none_or(|socket| sockets.insert((one.node, socket)))
        })
    }

    fn incoming_follow(&self) -> bool {
        let first = |id| self.attachments.get(id);
        self.attachments
            .values()
            .all(|one| !one.front_end.is_incoming())
            && self.incoming.iter().all(|(id, second)| {
                second.front_end.is_incoming()
                    && first(id).is_some_and(|first| {
                        first.node == second.node && first.front_end.socket().is_some()
                    })
            })
    }

    fn pgs_are_a_prefix(&self) -> bool {
        let count = |pool| self.pgs.values().filter(|pg| pg.pool == pool).count();
        self.pools.keys().all(|&pool| {
            let has = count(pool);
            let mut volumes = self.volumes.values().filter(|volume| volume.pool == pool);
            volumes.all(|volume| (1..=has).contains(&(volume.pgs as usize)))
        })
    }

    fn in_sync_are_replicas(&self) -> bool {
        self.pgs.values().all(|pg| {
            !pg.in_sync.is_empty() && pg.in_sync.iter().all(|disk| pg.replicas.contains(disk))
        })
    }

    fn sizes_are_in_range(&self) -> bool {
        self.volumes.values().all(|volume| {
            (1..=VOLUME_BYTES_MAX).contains(&volume.size)
                && matches!(volume.block_size, 512 | 4096)
                && !volume.layers.is_empty()
        })
    }
}
