//! What a person wants to see of an image that no daemon runs. It reads what opening reads, and
//! writes nothing.

use super::check::{Finding, Image, ReadAt, Report, Severity};
use super::door::{LayerMeta, OpenError, VolumeMeta};
use super::layers::Layers;
use super::record::Record;
use super::replica::{Replica, Replicas};
use super::superblock::{Geometry, SUPERBLOCK_AT, Superblock};
use crate::base::{BLOCK, FamilyId, LayerId, PgId, VolumeId};
use serde::Serialize;

/// One copy of the superblock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SuperblockSeen {
    pub offset_bytes: u64,
    /// What is wrong with it; `None`: nothing.
    pub wrong: Option<String>,
    pub sequence: Option<u64>,
    pub incarnation: Option<u64>,
    pub checkpoint: Option<u64>,
    /// The store was closed cleanly.
    pub closed: Option<bool>,
}

/// Where everything lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GeometrySeen {
    pub root_len_bytes: u64,
    pub manifest_offset_bytes: u64,
    pub manifest_blocks: u64,
    pub journal_offset_bytes: u64,
    pub journal_len_bytes: u64,
    pub table_offset_bytes: u64,
    pub pages: u64,
    pub slots_offset_bytes: u64,
    pub slots: u64,
    pub end_bytes: u64,
}

/// The journal: what the next opening replays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct JournalSeen {
    /// The oldest batch that is replayed, and where it lies in the ring.
    pub tail_batch: u64,
    pub tail_offset_bytes: u64,
    /// The batch that comes next, and where it goes in the ring.
    pub head_batch: u64,
    pub head_offset_bytes: u64,
    pub batches: u64,
    pub records: u64,
    /// What those batches take of the ring.
    pub used_bytes: u64,
    pub payload_bytes: u64,
    /// The last batch is an empty one: nothing was being written when the store stopped.
    pub closed: bool,
    /// Something that looks like a torn batch stands at the head.
    pub torn: bool,
    /// An acknowledged batch is missing or damaged.
    pub damaged: bool,
}

/// Table pages and slots, as the last checkpoint counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SpaceSeen {
    pub pages_used: u64,
    pub slots: u64,
    pub slots_used: u64,
    /// Slots from this one on were never given out.
    pub slots_touched: u64,
}

/// A layer of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LayerSeen {
    pub id: LayerId,
    pub parent: Option<LayerId>,
    pub frozen: bool,
}

/// A volume that the store has parts of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeSeen {
    pub id: VolumeId,
    pub name: String,
    pub family: FamilyId,
    pub size_bytes: u64,
    pub layers: Vec<LayerSeen>,
}

/// What the store keeps of the replica of a placement group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ReplicaSeen {
    pub pg: PgId,
    pub version: u32,
    /// The version with which it joins; 0: it does not.
    pub session: u32,
    pub ranges: u64,
    /// Writes above the marks.
    pub window_entries: u64,
}

/// What an image shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The newest version of the format that this build reads; the image's is not newer.
    pub format_version: u32,
    pub store: String,
    pub sequence: u64,
    pub incarnation: u64,
    pub checkpoint: u64,
    pub superblocks: Vec<SuperblockSeen>,
    pub geometry: GeometrySeen,
    pub journal: JournalSeen,
    pub space: SpaceSeen,
    /// With what the journal says of them.
    pub volumes: Vec<VolumeSeen>,
    /// Those of replicated placement groups, with what the journal says of them.
    pub replicas: Vec<ReplicaSeen>,
    /// Structures that are damaged; `check` says which.
    pub damaged_structures: u64,
}

/// Looks at a disk of `disk_bytes`.
pub fn inspect(disk: &mut impl ReadAt, disk_bytes: u64) -> Result<Inspection, OpenError> {
    let mut report = Report::default();
    let image = Image::open(disk, disk_bytes, &mut report)?;
    let superblock = image.superblock;
    let mut layers = Layers::new(image.root.volumes.clone(), 0);
    let root = &image.root;
    let mut replicas = Replicas::new(root.replicas.clone(), root.replicas_through, 0);
    let tail = image.root.tail;
    let mut journal = JournalSeen {
        tail_batch: tail.batch,
        tail_offset_bytes: tail.offset,
        head_batch: 0,
        head_offset_bytes: 0,
        batches: 0,
        records: 0,
        used_bytes: 0,
        payload_bytes: 0,
        closed: true,
        torn: false,
        damaged: false,
    };
    let chain = image.follow(disk, &mut report, |found, _| {
        journal.batches += 1;
        journal.records += found.records.len() as u64;
        journal.used_bytes += found.len;
        journal.payload_bytes += u64::from(found.header.payload_blocks) * BLOCK;
        let is_news = found.header.batch > image.root.replicas_through;
        for record in found.records {
            if is_news {
                replicas.take(&record);
            }
            match record {
                Record::PutVolume(volume) => layers.put(*volume),
                Record::DropVolume(volume) => layers.drop(volume),
                _ => {}
            }
        }
    });
    journal.head_batch = chain.next.batch;
    journal.head_offset_bytes = chain.next.offset;
    journal.closed = chain.closed || image.superblock.closed;
    journal.torn = chain.torn.is_some() && !chain.is_broken();
    journal.damaged = chain.is_broken();
    let is_damage = |finding: &&Finding| finding.severity > Severity::Note;
    Ok(Inspection {
        format_version: superblock.version,
        store: superblock.store.to_string(),
        sequence: superblock.sequence,
        incarnation: superblock.incarnation,
        checkpoint: superblock.checkpoint,
        superblocks: superblocks(&image.copies),
        geometry: geometry(&superblock.geometry),
        journal,
        space: SpaceSeen {
            pages_used: image.pages.iter().flatten().count() as u64,
            slots: superblock.geometry.slots,
            slots_used: u64::from(image.root.used),
            slots_touched: u64::from(image.root.touched),
        },
        volumes: layers.volumes.values().map(volume).collect(),
        replicas: replicas.iter().map(replica).collect(),
        damaged_structures: report.findings.iter().filter(is_damage).count() as u64,
    })
}

fn superblocks(copies: &[Result<Superblock, OpenError>; 2]) -> Vec<SuperblockSeen> {
    let seen = |(&offset_bytes, copy): (&u64, &Result<Superblock, OpenError>)| SuperblockSeen {
        offset_bytes,
        wrong: copy.as_ref().err().map(OpenError::to_string),
        sequence: copy.as_ref().ok().map(|copy| copy.sequence),
        incarnation: copy.as_ref().ok().map(|copy| copy.incarnation),
        checkpoint: copy.as_ref().ok().map(|copy| copy.checkpoint),
        closed: copy.as_ref().ok().map(|copy| copy.closed),
    };
    SUPERBLOCK_AT.iter().zip(copies).map(seen).collect()
}

fn geometry(of: &Geometry) -> GeometrySeen {
    GeometrySeen {
        root_len_bytes: of.root_len,
        manifest_offset_bytes: of.manifest_at,
        manifest_blocks: of.manifest_blocks,
        journal_offset_bytes: of.journal_at,
        journal_len_bytes: of.journal_len,
        table_offset_bytes: of.table_at,
        pages: of.pages,
        slots_offset_bytes: of.slots_at,
        slots: of.slots,
        end_bytes: of.end(),
    }
}

fn replica((pg, of): (PgId, &Replica)) -> ReplicaSeen {
    ReplicaSeen {
        pg,
        version: of.version,
        session: of.session,
        ranges: of.ranges().count() as u64,
        window_entries: of
            .ranges()
            .map(|(_, range)| range.window().count() as u64)
            .sum(),
    }
}

fn volume(of: &VolumeMeta) -> VolumeSeen {
    let layer = |layer: &LayerMeta| LayerSeen {
        id: layer.id,
        parent: layer.parent,
        frozen: layer.frozen,
    };
    VolumeSeen {
        id: of.id,
        name: of.name.clone(),
        family: of.family,
        size_bytes: of.size,
        layers: of.layers.iter().map(layer).collect(),
    }
}
