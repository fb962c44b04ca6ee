//! Checking an image that no daemon runs: every structure and every block. It never writes.
//!
//! The structures are read by the decoders that opening uses, the journal by the same
//! [`super::chain`]. Then extent by extent: its pages, over them what the journal will carry out,
//! who owns each slot, and the checksum of every block that the next opening would take from a
//! slot. In memory are the manifest, what the journal says (bounded by the ring), one extent, and a
//! bit a slot; blocks are read a chunk at a time.
//!
//! It does not know files: whoever calls it hands in a way to read.

mod extent;
mod finding;
mod image;

use super::chain::Found;
use super::door::{ChunkId, DiskFault, OpenError};
use super::layers::Layers;
use super::page::{NO_SLOT, PageName, decode};
use super::record::Record;
use super::replica::Replicas;
use super::superblock::PAGE_LEN;
use crate::base::{
    BLOCK, BlockRun, CHUNK, ChunkNo, ExtentNo, FamilyId, FixedMap, LayerId, PgId, VolumeId, crc,
};
use extent::{Chunk, Extent};
pub use finding::{Counts, Finding, Place, Report, Severity, Wrong};
pub(super) use image::Image;
use image::{read, wrong_of};
use std::collections::BTreeMap;

/// Something that can be read like a disk.
pub trait ReadAt {
    /// Fills `bytes` from `offset` on. Both are multiples of 4096, and inside the disk.
    fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskFault>;
}

impl<F: FnMut(u64, &mut [u8]) -> Result<(), DiskFault>> ReadAt for F {
    fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskFault> {
        self(offset, bytes)
    }
}

/// Checks everything on a disk of `disk_bytes`.
pub fn check(disk: &mut impl ReadAt, disk_bytes: u64) -> Report {
    let mut gone = false;
    let mut reader = |offset: u64, bytes: &mut [u8]| {
        if gone {
            return Err(DiskFault::Gone);
        }
        let result = disk.read_at(offset, bytes);
        gone = result == Err(DiskFault::Gone);
        result
    };
    let mut report = Report::default();
    match Image::open(&mut reader, disk_bytes, &mut report) {
        Ok(image) => check_image(&mut reader, &image, &mut report),
        Err(error) => report.refused = Some(error),
    }
    if gone {
        report.refused = Some(OpenError::Disk(DiskFault::Gone));
    }
    report
}

/// A record of the journal, as its extent needs it.
struct Replayed {
    record: Record,
    lost: u16,
}

/// What is known of an extent before its pages are read.
#[derive(Default)]
struct Plan {
    /// The placement group of the extent, as far as is known.
    pg: PgId,
    pages: Vec<(u16, u32)>,
    records: Vec<Replayed>,
}

fn check_image(disk: &mut impl ReadAt, image: &Image, report: &mut Report) {
    let mut layers = Layers::new(image.root.volumes.clone(), 0);
    let mut plans: BTreeMap<(FamilyId, u32), Plan> = BTreeMap::new();
    for (page, named) in (0..).zip(&image.pages) {
        if let Some(named) = named {
            let plan = plans.entry((named.family, named.extent.0)).or_default();
            plan.pages.push((named.index, page));
            plan.pg = named.pg;
        }
    }
    let root = &image.root;
    let mut replicas = Replicas::new(root.replicas.clone(), root.replicas_through, 0);
    let mut touched = image.root.touched;
    let mut lost = Vec::new();
    image.follow(disk, report, |found, report| {
        report.counts.batches += 1;
        report.counts.records += found.records.len() as u64;
        if found.header.batch > image.root.replicas_through {
            found
                .records
                .iter()
                .for_each(|record| replicas.take(record));
        }
        report.counts.journal_blocks_checked += u64::from(found.header.payload_blocks);
        take_batch(
            image,
            found,
            (&mut layers, &mut plans, &mut touched),
            &mut lost,
        );
    });
    let slots = image.superblock.geometry.slots;
    let mut checker = Checker {
        disk,
        image,
        volume_of: volumes_by_layer(&layers),
        layers,
        touched,
        used: vec![0; slots.div_ceil(64) as usize],
        report,
        block: vec![0; CHUNK as usize],
    };
    checker.report_lost(&lost);
    for ((family, extent), mut plan) in plans {
        plan.pages.sort_unstable();
        checker.check_extent(family, ExtentNo(extent), &plan);
    }
    let volumes = &checker.layers.volumes;
    let counts = &mut checker.report.counts;
    counts.volumes = volumes.len() as u64;
    counts.replicas = replicas.iter().count() as u64;
    counts.layers = checker.volume_of.len() as u64;
    counts.slots_free = slots - counts.slots_used;
}

/// A block of an acknowledged batch that is damaged in the journal.
struct LostBlock {
    batch: u64,
    layer: LayerId,
    block: u64,
    offset: u64,
}

/// Sorts a batch's records by the extents that they change.
fn take_batch(
    image: &Image,
    found: Found,
    (layers, plans, touched): (&mut Layers, &mut BTreeMap<(FamilyId, u32), Plan>, &mut u32),
    lost: &mut Vec<LostBlock>,
) {
    let payload_at = image.superblock.geometry.journal_at + found.offset + found.header_len;
    let mut first = 0;
    for record in found.records {
        let blocks = record.payload_blocks();
        let mut mask = 0u16;
        let at = match &record {
            Record::PutVolume(volume) => {
                layers.put((**volume).clone());
                continue;
            }
            Record::DropVolume(volume) => {
                layers.drop(*volume);
                continue;
            }
            Record::DropReplica(pg) => {
                for plan in plans.values_mut().filter(|plan| plan.pg == *pg) {
                    let record = record.clone();
                    plan.records.push(Replayed { record, lost: 0 });
                }
                continue;
            }
            _ => record.place(),
        };
        let Some((at, pg)) = at else { continue };
        if let Some(slot) = record.slot() {
            *touched = (*touched).max(slot + 1);
        }
        for (n, (block, _)) in (0..).zip(record.payload()) {
            if found.lost.contains(&(first + n)) {
                mask |= 1 << n;
                lost.push(LostBlock {
                    batch: found.header.batch,
                    layer: at.layer,
                    block: at.chunk.block(block).0,
                    offset: payload_at + u64::from(first + n) * BLOCK,
                });
            }
        }
        let key = (at.family, at.chunk.extent().0);
        let plan = plans.entry(key).or_default();
        plan.pg = pg;
        plan.records.push(Replayed { record, lost: mask });
        first += blocks;
    }
}

fn volumes_by_layer(layers: &Layers) -> FixedMap<LayerId, VolumeId> {
    let mut of = FixedMap::default();
    for volume in layers.volumes.values() {
        for layer in &volume.layers {
            of.entry(layer.id).or_insert(volume.id);
        }
    }
    of
}

/// Checks extents, one after the other.
struct Checker<'a, R> {
    disk: &'a mut R,
    image: &'a Image,
    layers: Layers,
    volume_of: FixedMap<LayerId, VolumeId>,
    /// Slots from here on were never given out.
    touched: u32,
    /// A bit for each slot that has an owner.
    used: Vec<u64>,
    report: &'a mut Report,
    /// Room for one chunk.
    block: Vec<u8>,
}

impl<R: ReadAt> Checker<'_, R> {
    fn report_lost(&mut self, lost: &[LostBlock]) {
        for lost in lost {
            let place = Place::Payload {
                batch: lost.batch,
                volume: self.volume_of.get(&lost.layer).copied(),
                layer: lost.layer,
                block: lost.block,
            };
            let at = (lost.offset, BLOCK);
            self.report
                .add(Severity::Warning, place, Wrong::Damaged, at);
        }
    }

    fn check_extent(&mut self, family: FamilyId, number: ExtentNo, plan: &Plan) {
        let mut extent = Extent::default();
        let mut whole = true;
        for &(_, page) in &plan.pages {
            whole &= self.read_page(page, &mut extent);
        }
        self.report.counts.extents += 1;
        if !whole {
            return; // what the rest says may be older than what is lost
        }
        for Replayed { record, lost } in &plan.records {
            let layer = record.place().map(|(at, _)| self.layers.get(at.layer));
            match layer {
                Some(Some(layer)) => extent.carry_out(record, *lost, layer.has_parent()),
                // Of a layer that was dropped.
                Some(None) => {}
                None => extent.carry_out(record, *lost, false),
            }
        }
        for ((place, layer), chunk) in &extent.chunks {
            let at = ChunkId {
                family,
                layer: *layer,
                chunk: number.chunk(usize::from(*place)),
            };
            self.report.counts.chunks += 1;
            if chunk.has_slot() {
                self.own_slot(at, chunk.slot);
                self.check_chunk(at, chunk);
            }
        }
    }

    /// Reads a page into its extent; false where it is damaged.
    fn read_page(&mut self, page: u32, extent: &mut Extent) -> bool {
        let Some(of) = self.image.pages[page as usize] else {
            return true;
        };
        let superblock = &self.image.superblock;
        let name = PageName {
            store: superblock.store,
            page,
            family: of.family,
            extent: of.extent,
            index: of.index,
            lsn: of.lsn,
            pg: of.pg,
        };
        let at = superblock.geometry.page_at(page, of.home);
        let place = Place::Page {
            page,
            family: of.family,
            extent: of.extent.0,
        };
        self.report.counts.pages += 1;
        let bytes = read(self.disk, at, PAGE_LEN);
        let slots = superblock.geometry.slots;
        let mut entries = Vec::new();
        let whole = bytes
            .as_ref()
            .is_ok_and(|bytes| decode(bytes, &name, of.crc, slots, &mut entries).is_some());
        if !whole {
            let wrong = wrong_of(&bytes);
            self.report
                .add(Severity::Error, place, wrong, (at, PAGE_LEN));
            return false;
        }
        // Entries of layers that were dropped are garbage until their page is written anew.
        let alive = entries
            .iter()
            .filter(|entry| self.layers.is_alive(entry.layer));
        for entry in alive {
            if !extent.install(entry) {
                self.report
                    .add(Severity::Error, place, Wrong::Doubled, (at, PAGE_LEN));
            }
        }
        true
    }

    /// Notes the owner of a slot: *a slot has one owner*.
    fn own_slot(&mut self, at: ChunkId, slot: u32) {
        if slot == NO_SLOT {
            return;
        }
        let place = Place::Chunk {
            volume: self.volume_of.get(&at.layer).copied(),
            layer: at.layer,
            chunk: at.chunk.0,
            slot,
        };
        let span = (self.image.superblock.geometry.slot_at(slot), CHUNK);
        let (word, bit) = (slot as usize / 64, 1u64 << (slot % 64));
        if self.used[word] & bit != 0 {
            self.report
                .add(Severity::Error, place, Wrong::SlotShared, span);
        } else {
            self.report.counts.slots_used += 1;
        }
        self.used[word] |= bit;
        if slot >= self.touched {
            let touched = self.touched;
            let wrong = Wrong::SlotNeverUsed { touched };
            self.report.add(Severity::Error, place, wrong, span);
        }
    }

    /// Compares every block of a chunk that must be right in its slot.
    fn check_chunk(&mut self, at: ChunkId, chunk: &Chunk) {
        let slot_at = self.image.superblock.geometry.slot_at(chunk.slot);
        for run in BlockRun::runs_of(chunk.settled()) {
            let len = run.count() as usize * BLOCK as usize;
            let offset = slot_at + u64::from(run.first()) * BLOCK;
            if self.disk.read_at(offset, &mut self.block[..len]).is_ok() {
                for (n, block) in run.blocks().enumerate() {
                    let bytes = &self.block[n * BLOCK as usize..][..BLOCK as usize];
                    let right = is_right(at.layer, at.chunk, block, bytes, chunk);
                    self.count_block(at, block, chunk.slot, (!right).then_some(Wrong::Damaged));
                }
                continue;
            }
            // One sector that cannot be read must not condemn its neighbours.
            for block in run.blocks() {
                let offset = slot_at + u64::from(block) * BLOCK;
                let bytes = &mut self.block[..BLOCK as usize];
                let wrong = match self.disk.read_at(offset, bytes) {
                    Ok(()) if is_right(at.layer, at.chunk, block, bytes, chunk) => None,
                    Ok(()) => Some(Wrong::Damaged),
                    Err(_) => Some(Wrong::Unreadable),
                };
                self.count_block(at, block, chunk.slot, wrong);
            }
        }
    }

    fn count_block(&mut self, at: ChunkId, block: u32, slot: u32, wrong: Option<Wrong>) {
        self.report.counts.blocks_checked += 1;
        let Some(wrong) = wrong else { return };
        self.report.counts.blocks_bad += 1;
        let offset = self.image.superblock.geometry.slot_at(slot) + u64::from(block) * BLOCK;
        let place = Place::Block {
            volume: self.volume_of.get(&at.layer).copied(),
            layer: at.layer,
            block: at.chunk.block(block).0,
            slot,
        };
        self.report
            .add(Severity::Error, place, wrong, (offset, BLOCK));
    }
}

fn is_right(layer: LayerId, at: ChunkNo, block: u32, bytes: &[u8], chunk: &Chunk) -> bool {
    crc::of_block(layer, at.block(block), bytes) == chunk.crcs[block as usize]
}
