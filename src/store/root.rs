//! The root of a checkpoint: where replay starts, every manifest block with its checksum, the volumes, and what is kept of
//! replicas.
//!
//! The superblock holds the root's checksum, the root holds those of the manifest blocks, and they hold
//! those of the table pages: what the superblock names is one state of the whole table, and anything older or
//! newer does not match. Two copies of it are written, so that one rotten sector does not cost a disk.

use super::codec::{Put, Take, seal, unseal};
use super::door::{LayerMeta, OpenError, VolumeMeta};
use super::replica::{Replica, decode_replica, encode_replica};
use super::superblock::{COUNT_MAX, Geometry, Superblock};
use crate::base::{BLOCK, FamilyId, LayerId, PgId, StoreId, VolumeId};
use std::collections::BTreeMap;

const MAGIC: [u8; 8] = *b"SARSENRT";
/// Bytes before the references to manifest blocks.
const HEAD: usize = 96;
/// The longest name of a volume, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// The longest chain of layers.
pub const LAYERS_MAX: usize = 2048;
/// What is kept of replicas has so many times the room of volumes: 2 MiB at most, 65,000 ranges or 37,000 writes in windows.
const REPLICA_SHARE: u64 = 2;

/// A place in the journal's ring between two batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// In bytes from the start of the ring.
    pub offset: u64,
    /// The number of the batch that stands there, or will.
    pub batch: u64,
    /// The crc of the header of the batch before it.
    pub previous: u32,
}

impl Position {
    /// Whether it can be in a ring; `names` are what is wrong where offset or batch cannot be.
    pub fn check(&self, geometry: &Geometry, names: [&'static str; 2]) -> Result<(), OpenError> {
        let [offset, batch] = names;
        let wrong = |field, value| Err(OpenError::Inconsistent { field, value });
        if self.offset > geometry.journal_len || !self.offset.is_multiple_of(BLOCK) {
            return wrong(offset, self.offset);
        }
        if self.batch == 0 || self.batch >= COUNT_MAX {
            return wrong(batch, self.batch);
        }
        Ok(())
    }
}

/// A manifest block as the root names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ManifestRef {
    pub crc: u32,
    /// Which of its homes holds it.
    pub home: u8,
    /// Whether it was ever written; if not, none of its pages is in use.
    pub written: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    pub store: StoreId,
    pub checkpoint: u64,
    pub tail: Position,
    /// Slots from here on were never used.
    pub touched: u32,
    /// Slots in use, as a hint for people until the table is loaded.
    pub used: u32,
    pub manifest: Vec<ManifestRef>,
    pub volumes: BTreeMap<VolumeId, VolumeMeta>,
    /// What is kept of replicas, with every batch up to `replicas_through`.
    pub replicas: BTreeMap<PgId, Replica>,
    pub replicas_through: u64,
}

impl Root {
    /// Appends the root, padded to whole blocks; returns its crc.
    pub fn encode(&self, out: &mut Vec<u8>) -> u32 {
        let start = out.len();
        let mut put = Put(out);
        put.bytes(&MAGIC);
        put.u32(0);
        put.u32(self.manifest.len() as u32);
        put.bytes(&self.store.0);
        put.u64(self.checkpoint);
        put.u64(self.tail.offset);
        put.u64(self.tail.batch);
        put.u32(self.tail.previous);
        put.u32(self.touched);
        put.u32(self.used);
        put.u32(self.volumes.len() as u32);
        put.u32(self.replicas.len() as u32);
        put.u32(0);
        put.u64(self.replicas_through);
        put.pad_to(start, HEAD);
        for block in &self.manifest {
            put.u32(block.crc);
            put.u8(block.home);
            put.u8(u8::from(block.written));
            put.u16(0);
        }
        for volume in self.volumes.values() {
            encode_volume(volume, &mut put);
        }
        for (&pg, replica) in &self.replicas {
            encode_replica(pg, replica, &mut put);
        }
        let len = (put.0.len() - start).next_multiple_of(BLOCK as usize);
        put.pad_to(start, len);
        seal(&mut out[start..])
    }

    /// Reads a root, and returns it with the crc that it carries; `None` where it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<(Root, u32)> {
        let crc = unseal(bytes, MAGIC)?;
        let mut take = Take::new(&bytes[12..]);
        let blocks = take.u32()? as usize;
        let store = take.id()?;
        let checkpoint = take.u64()?;
        let tail = Position {
            offset: take.u64()?,
            batch: take.u64()?,
            previous: take.u32()?,
        };
        let (touched, used, count) = (take.u32()?, take.u32()?, take.u32()?);
        let (replica_count, _, replicas_through) = (take.u32()?, take.u32()?, take.u64()?);
        let mut take = Take::new(bytes.get(HEAD..)?);
        if blocks > bytes.len() / 8 {
            return None;
        }
        let mut manifest = Vec::with_capacity(blocks);
        for _ in 0..blocks {
            let (crc, home, written, _) = (take.u32()?, take.u8()?, take.u8()?, take.u16()?);
            if home > 1 || written > 1 {
                return None;
            }
            manifest.push(ManifestRef {
                crc,
                home,
                written: written == 1,
            });
        }
        let mut volumes = BTreeMap::new();
        for _ in 0..count {
            let volume = decode_volume(&mut take)?;
            volumes.insert(volume.id, volume);
        }
        let mut replicas = BTreeMap::new();
        for _ in 0..replica_count {
            let (pg, replica) = decode_replica(&mut take)?;
            replicas.insert(pg, replica);
        }
        Some((
            Root {
                store,
                checkpoint,
                tail,
                touched,
                used,
                manifest,
                volumes,
                replicas,
                replicas_through,
            },
            crc,
        ))
    }

    /// Reads the root that a superblock names; `None` where these bytes are damaged or another one.
    pub fn decode_named(bytes: &[u8], superblock: &Superblock) -> Option<Root> {
        let (root, crc) = Root::decode(bytes)?;
        let is_it = crc == superblock.root_crc
            && root.store == superblock.store
            && root.checkpoint == superblock.checkpoint;
        is_it.then_some(root)
    }

    /// Whether it fits the store's geometry; the field that does not where it does not.
    pub fn check(&self, geometry: &Geometry) -> Result<(), OpenError> {
        let wrong = |field, value| Err(OpenError::Inconsistent { field, value });
        let blocks = self.manifest.len() as u64;
        if blocks != geometry.manifest_blocks {
            return wrong("manifest blocks", blocks);
        }
        self.tail
            .check(geometry, ["journal tail", "batch of the journal tail"])?;
        if u64::from(self.touched) > geometry.slots {
            return wrong("touched slots", u64::from(self.touched));
        }
        Ok(())
    }

    /// How many bytes a root has room for besides its manifest references: for volumes, and for what is kept of replicas.
    pub fn rooms(root_len: u64, manifest_blocks: u64) -> (u64, u64) {
        let both = root_len.saturating_sub(HEAD as u64 + manifest_blocks * 8);
        let volumes = both / (1 + REPLICA_SHARE);
        (volumes, both - volumes)
    }

    /// The room that a root needs with `volume_bytes` for volumes, and in proportion for replicas.
    pub fn room(manifest_blocks: u64, volume_bytes: u64) -> u64 {
        let both = volume_bytes * (1 + REPLICA_SHARE);
        (HEAD as u64 + manifest_blocks * 8 + both).next_multiple_of(BLOCK)
    }
}

/// The bytes that `volume` takes in a root and in a journal record.
pub(super) fn volume_len(volume: &VolumeMeta) -> usize {
    32 + volume.name.len() + volume.layers.len() * 24
}

/// Appends a volume: id, family, size, lengths, name, layers.
pub(super) fn encode_volume(volume: &VolumeMeta, put: &mut Put<'_>) {
    put.u64(volume.id.0);
    put.u64(volume.family.0);
    put.u64(volume.size);
    put.u32(volume.name.len() as u32);
    put.u32(volume.layers.len() as u32);
    put.bytes(volume.name.as_bytes());
    for layer in &volume.layers {
        put.u64(layer.id.0);
        put.u64(layer.parent.map_or(0, |parent| parent.0));
        put.u64(u64::from(layer.parent.is_some()) | u64::from(layer.frozen) << 1);
    }
}

pub(super) fn decode_volume(take: &mut Take<'_>) -> Option<VolumeMeta> {
    let (id, family, size) = (take.u64()?, take.u64()?, take.u64()?);
    let (name_len, layer_count) = (take.u32()? as usize, take.u32()? as usize);
    if name_len > NAME_BYTES_MAX || layer_count > LAYERS_MAX {
        return None;
    }
    let name = String::from_utf8(take.bytes(name_len)?.to_vec()).ok()?;
    let mut layers = Vec::with_capacity(layer_count);
    for _ in 0..layer_count {
        let (id, parent, flags) = (take.u64()?, take.u64()?, take.u64()?);
        layers.push(LayerMeta {
            id: LayerId(id),
            parent: (flags & 1 != 0).then_some(LayerId(parent)),
            frozen: flags & 2 != 0,
        });
    }
    let volume = VolumeMeta {
        id: VolumeId(id),
        family: FamilyId(family),
        name,
        size,
        layers,
    };
    has_a_chain(&volume).then_some(volume)
}

/// Whether the layers of a volume are a chain: at least one, ids rising, each over the one before it.
pub(super) fn has_a_chain(volume: &VolumeMeta) -> bool {
    let parents = std::iter::once(None).chain(volume.layers.iter().map(|layer| Some(layer.id)));
    (1..=LAYERS_MAX).contains(&volume.layers.len())
        && volume.layers.is_sorted_by(|a, b| a.id < b.id)
        && volume
            .layers
            .iter()
            .map(|layer| layer.parent)
            .eq(parents.take(volume.layers.len()))
}
