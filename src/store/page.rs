//! A table page: the applied state of the chunks of one extent of a family, 112 bytes an entry.
//!
//! An entry with neither data nor zeroes is a tombstone: of a replicated PG it tells when the chunk was discarded (R20).

use super::codec::{Put, Take, seal, unseal};
use super::door::{Epoch, Stamp};
use super::superblock::PAGE_LEN;
use crate::base::{CHUNKS_PER_EXTENT, ExtentNo, FamilyId, LayerId, PgId, StoreId};

const MAGIC: [u8; 8] = *b"SARSENTP";
const HEAD: usize = 64;
const ENTRY: usize = 112;
/// Entries that a page holds: 72, so that an extent with one layer fits into one page.
pub(super) const ENTRIES_PER_PAGE: usize = (PAGE_LEN as usize - HEAD) / ENTRY;
const _: () = assert!(ENTRIES_PER_PAGE >= CHUNKS_PER_EXTENT as usize);
/// The slot number that says: none.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// One chunk of one layer, as it is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageEntry {
    /// The chunk's place in its extent, 0 to 63.
    pub place: u8,
    pub layer: LayerId,
    pub slot: u32,
    /// Blocks that are in the slot.
    pub data: u16,
    /// Blocks that read as zeroes whatever an ancestor holds.
    pub zero: u16,
    /// Blocks written since a replica left that is still missing.
    pub dirty: u16,
    pub stamp: Stamp,
    pub crcs: [u32; 16],
}

/// What a page says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageName {
    pub store: StoreId,
    pub page: u32,
    pub family: FamilyId,
    pub extent: ExtentNo,
    pub index: u16,
    pub lsn: u64,
    pub pg: PgId,
}

/// Appends a page (8192 bytes); returns its crc.
pub(super) fn encode(name: &PageName, entries: &[PageEntry], out: &mut Vec<u8>) -> u32 {
    assert!(
        entries.len() <= ENTRIES_PER_PAGE,
        "a page holds {ENTRIES_PER_PAGE} entries"
    );
    let start = out.len();
    let mut put = Put(out);
    put.bytes(&MAGIC);
    put.u32(0);
    put.u32(name.page);
    put.bytes(&name.store.0);
    put.u64(name.family.0);
    put.u32(name.extent.0);
    put.u16(name.index);
    put.u16(entries.len() as u16);
    put.u64(name.lsn);
    put.u32(name.pg.0);
    put.pad_to(start, HEAD);
    for entry in entries {
        put.u8(entry.place);
        put.u8(0);
        put.u16(entry.data);
        put.u16(entry.zero);
        put.u16(entry.dirty);
        put.u32(entry.slot);
        put.u32(entry.stamp.version);
        put.u64(entry.layer.0);
        put.u32(entry.stamp.epoch.generation);
        put.u32(entry.stamp.epoch.site);
        put.u32(entry.stamp.epoch.host);
        put.u32(0);
        put.u64(entry.stamp.sequence);
        entry.crcs.iter().for_each(|&crc| put.u32(crc));
    }
    put.pad_to(start, PAGE_LEN as usize);
    seal(&mut out[start..])
}

/// Reads a page into `entries`; `None` where it is damaged or not the page that `name` and `crc` say.
pub(super) fn decode(
    bytes: &[u8],
    name: &PageName,
    crc: u32,
    slots: u64,
    entries: &mut Vec<PageEntry>,
) -> Option<()> {
    if bytes.len() != PAGE_LEN as usize || unseal(bytes, MAGIC)? != crc {
        return None;
    }
    let mut take = Take::new(&bytes[12..]);
    let page = take.u32()?;
    let store = take.id()?;
    let (family, extent) = (FamilyId(take.u64()?), ExtentNo(take.u32()?));
    let (index, count, lsn) = (take.u16()?, usize::from(take.u16()?), take.u64()?);
    let pg = PgId(take.u32()?);
    let found = PageName {
        store,
        page,
        family,
        extent,
        index,
        lsn,
        pg,
    };
    if found != *name || count > ENTRIES_PER_PAGE {
        return None;
    }
    let first = entries.len();
    let read = decode_entries(&bytes[HEAD..], count, slots, entries);
    if read.is_none() {
        entries.truncate(first);
    }
    read
}

/// Reads `count` entries; `None` where one makes no sense.
fn decode_entries(
    bytes: &[u8],
    count: usize,
    slots: u64,
    entries: &mut Vec<PageEntry>,
) -> Option<()> {
    let mut take = Take::new(bytes);
    let first = entries.len();
    for _ in 0..count {
        let (place, _) = (take.u8()?, take.u8()?);
        let (data, zero, dirty) = (take.u16()?, take.u16()?, take.u16()?);
        let (slot, version, layer) = (take.u32()?, take.u32()?, LayerId(take.u64()?));
        let epoch = Epoch {
            generation: take.u32()?,
            site: take.u32()?,
            host: take.u32()?,
        };
        take.u32()?;
        let stamp = Stamp {
            version,
            epoch,
            sequence: take.u64()?,
        };
        let mut crcs = [0; 16];
        for crc in &mut crcs {
            *crc = take.u32()?;
        }
        let slot_fits = if data == 0 {
            slot == NO_SLOT
        } else {
            u64::from(slot) < slots
        };
        if u32::from(place) >= CHUNKS_PER_EXTENT || data & zero != 0 || !slot_fits {
            return None;
        }
        // Entries stand in the order of their places, so a second entry of a chunk is found among its
        // neighbours.
        let mut same = entries[first..].iter().rev();
        let last = same.clone().next().map_or(0, |entry| entry.place);
        let twice = |entry: &PageEntry| entry.layer == layer;
        if place < last || same.by_ref().take_while(|e| e.place == place).any(twice) {
            return None;
        }
        entries.push(PageEntry {
            place,
            layer,
            slot,
            data,
            zero,
            dirty,
            stamp,
            crcs,
        });
    }
    Some(())
}
