//! Formatting: what an empty store looks like, as writes for whoever owns the disk.

use super::batch::JOURNAL_LEN_MIN;
use super::door::Openings;
use super::root::{ManifestRef, Position, Root};
use super::superblock::{
    FORMAT_VERSION, Geometry, PAGE_LEN, PAGES_PER_MANIFEST_BLOCK, ROOTS_AT, SUPERBLOCK_AT,
    Superblock,
};
use crate::base::{BLOCK, CHUNK, StoreId};
use std::fmt;

/// Slots for which one table page is laid out. A full extent has 64 chunks, so this leaves room for extents
/// that are only half full, at a price of 0.8 % of the disk.
const SLOTS_PER_PAGE: u64 = 32;
/// Slots for which one table page may serve after the disk grew.
pub(super) const SLOTS_PER_PAGE_GROWN: u64 = 4 * SLOTS_PER_PAGE;
/// Alignment of journal, table and slots: what file systems and flash like.
const ALIGN: u64 = 1024 * 1024;
const MIB: u64 = 1024 * 1024;

/// What a disk is to be formatted as.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub store: StoreId,
    /// Random, and known to nobody else.
    pub instance_key: [u8; 16],
    /// The length of the disk, in bytes.
    pub disk_bytes: u64,
    /// The length of the journal's ring in bytes; `None`: what suits the disk.
    pub journal_bytes: Option<u64>,
    /// How many table pages; `None`: what suits the disk.
    pub pages: Option<u64>,
}

/// What makes a disk a store: carried out in any order, then flushed, and the superblocks written last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formatted {
    pub geometry: Geometry,
    /// Ranges that must read as zeroes, as offset and length in bytes. The journal's must be written zeroes.
    pub zeroes: Vec<(u64, u64)>,
    /// Offset and bytes.
    pub writes: Vec<(u64, Vec<u8>)>,
    /// The superblocks: offset and bytes.
    pub superblocks: Vec<(u64, Vec<u8>)>,
}

/// The disk is too small: how many bytes are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSmall {
    pub needs: u64,
    pub has: u64,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a store needs at least {} bytes, the disk has {}",
            self.needs, self.has
        )
    }
}

impl std::error::Error for TooSmall {}

/// Lays a store out on a disk.
pub fn format(plan: &Plan) -> Result<Formatted, TooSmall> {
    let geometry = lay_out(plan)?;
    let start = Position {
        offset: 0,
        batch: 1,
        previous: 0,
    };
    let root = Root {
        store: plan.store,
        checkpoint: 1,
        tail: start,
        touched: 0,
        used: 0,
        manifest: vec![ManifestRef::default(); geometry.manifest_blocks as usize],
        volumes: Default::default(),
        replicas: Default::default(),
        replicas_through: 0,
    };
    let mut bytes = Vec::new();
    let root_crc = root.encode(&mut bytes);
    let superblock = Superblock {
        version: FORMAT_VERSION,
        openings: Openings::default(),
        store: plan.store,
        instance_key: plan.instance_key,
        sequence: 1,
        incarnation: 0,
        checkpoint: 1,
        root_crc,
        root_bytes: bytes.len() as u32,
        end: start,
        closed: true,
        geometry,
    };
    let mut first = Vec::new();
    superblock.encode(&mut first);
    Ok(Formatted {
        geometry,
        zeroes: vec![
            (0, geometry.journal_at),
            (geometry.journal_at, geometry.journal_len),
            (geometry.table_at, geometry.pages * 2 * PAGE_LEN),
        ],
        writes: (0..2)
            .map(|copy| (geometry.root_at(1, copy), bytes.clone()))
            .collect(),
        superblocks: SUPERBLOCK_AT
            .iter()
            .map(|&at| (at, first.clone()))
            .collect(),
    })
}

fn lay_out(plan: &Plan) -> Result<Geometry, TooSmall> {
    // A sixteenth of a small disk, 256 MiB of a large one: at 1 GB/s that is a checkpoint every 130 ms.
    let journal_len = plan
        .journal_bytes
        .unwrap_or((plan.disk_bytes / 16).clamp(JOURNAL_LEN_MIN, 256 * MIB))
        .max(JOURNAL_LEN_MIN)
        .next_multiple_of(BLOCK);
    let pages = plan
        .pages
        .unwrap_or((plan.disk_bytes / CHUNK / SLOTS_PER_PAGE).max(64))
        .max(1);
    let manifest_blocks = pages.div_ceil(PAGES_PER_MANIFEST_BLOCK);
    let volume_bytes = (plan.disk_bytes / 1024).clamp(64 * 1024, MIB);
    let root_len = Root::room(manifest_blocks, volume_bytes);
    let manifest_at = ROOTS_AT + 4 * root_len;
    let journal_at = (manifest_at + manifest_blocks * 2 * BLOCK).next_multiple_of(ALIGN);
    let table_at = (journal_at + journal_len).next_multiple_of(ALIGN);
    let slots_at = (table_at + pages * 2 * PAGE_LEN).next_multiple_of(ALIGN);
    let needs = slots_at + 16 * CHUNK;
    if plan.disk_bytes < needs {
        return Err(TooSmall {
            needs,
            has: plan.disk_bytes,
        });
    }
    let slots = ((plan.disk_bytes - slots_at) / CHUNK).min(u64::from(u32::MAX) - 1);
    Ok(Geometry {
        root_len,
        manifest_at,
        manifest_blocks,
        journal_at,
        journal_len,
        table_at,
        pages,
        slots_at,
        slots,
    })
}
