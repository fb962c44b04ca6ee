//! The chunk table in memory: for each chunk of each layer, where its applied blocks lie and their checksums.
//!
//! An entry is 88 bytes, and a leaf of 64 places indexes the entries of one extent of one family: 92 bytes a chunk
//! in a full extent. The versions of one chunk (one a layer) form a chain; only chunks that have more
//! than one pay for the links, in a map beside. A leaf is made for every extent that has pages when the
//! store opens; its entries come when its pages are read.

use super::door::{Epoch, Stamp};
use super::page::NO_SLOT;
use crate::base::{ExtentNo, FamilyId, FixedMap, LayerId, PgId};
use std::collections::BTreeMap;

/// An entry's place in the table.
pub(super) type EntryId = u32;
/// A leaf's place in the table.
pub(super) type LeafId = u32;
const NONE: u32 = u32::MAX;

/// The entry has an overlay: payload that is journaled and not applied, or writes that are issued.
pub(super) const OVERLAID: u16 = 1;
/// An older version of the chunk follows in the chain.
const CHAINED: u16 = 2;
/// The entry stays although nothing is in it, because its stamp tells when that came about (R20).
pub(super) const TOMBSTONE: u16 = 4;

/// The applied state of one chunk of one layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub crcs: [u32; 16],
    pub sequence: u64,
    pub slot: u32,
    /// Layer, version and epoch, interned.
    origin: u32,
    pub data: u16,
    pub zero: u16,
    pub dirty: u16,
    pub flags: u16,
}
const _: () = assert!(size_of::<Entry>() == 88);

impl Entry {
    /// Whether nothing is in it, so that it need not exist.
    pub fn is_empty(&self) -> bool {
        self.data == 0 && self.zero == 0 && self.flags & (OVERLAID | TOMBSTONE) == 0
    }

    /// Whether it is only a tombstone.
    pub fn is_tombstone(&self) -> bool {
        self.data == 0 && self.zero == 0 && self.flags & TOMBSTONE != 0
    }
}

/// Whether the entries of a leaf are in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeafState {
    Unloaded,
    Loading,
    Loaded,
    /// A page of it is damaged, or its blocks cannot be told: it answers with errors.
    Damaged,
}

/// The chunks of one extent of one family.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    heads: [u32; 64],
    family: u32,
    pub extent: ExtentNo,
    /// The placement group of the extent.
    pub pg: PgId,
    pub first_page: u32,
    /// Pages that it holds, the first one and those beside.
    pub pages: u16,
    pub entries: u16,
    pub state: LeafState,
    /// Whether it differs from its pages.
    pub dirty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Origin {
    layer: LayerId,
    version: u32,
    epoch: Epoch,
}

/// Values under numbers, in pieces, so that growing copies nothing and wastes little.
#[derive(Debug)]
struct Pool<T> {
    pieces: Vec<Vec<T>>,
    free: Vec<u32>,
    len: u32,
}

const PIECE: u32 = 1024;

impl<T> Pool<T> {
    fn new() -> Pool<T> {
        Pool {
            pieces: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }
    fn insert(&mut self, value: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self[id] = value;
            return id;
        }
        if self.len.is_multiple_of(PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE as usize));
        }
        let piece = self.pieces.last_mut().expect("a piece was pushed");
        piece.push(value);
        self.len += 1;
        self.len - 1
    }
    fn in_use(&self) -> u32 {
        self.len - self.free.len() as u32
    }
}

impl<T> std::ops::Index<u32> for Pool<T> {
    type Output = T;
    fn index(&self, id: u32) -> &T {
        &self.pieces[(id / PIECE) as usize][(id % PIECE) as usize]
    }
}

impl<T> std::ops::IndexMut<u32> for Pool<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.pieces[(id / PIECE) as usize][(id % PIECE) as usize]
    }
}

#[derive(Debug)]
pub(super) struct Table {
    leaves: Pool<Leaf>,
    entries: Pool<Entry>,
    index: FixedMap<u64, LeafId>,
    older: FixedMap<EntryId, EntryId>,
    families: Vec<FamilyId>,
    family_numbers: FixedMap<FamilyId, u32>,
    origins: Vec<Origin>,
    origin_numbers: FixedMap<Origin, u32>,
    /// Pages beyond the first, of the few leaves that have them.
    more_pages: FixedMap<LeafId, Vec<u32>>,
    /// How many entries of a PG are stamped with which version; never 0. Without a stamp they are not counted, as they are not listed.
    stamped: BTreeMap<(PgId, u32), u64>,
}

impl Table {
    pub fn new() -> Table {
        Table {
            leaves: Pool::new(),
            entries: Pool::new(),
            index: FixedMap::default(),
            older: FixedMap::default(),
            families: Vec::new(),
            family_numbers: FixedMap::default(),
            origins: Vec::new(),
            origin_numbers: FixedMap::default(),
            more_pages: FixedMap::default(),
            stamped: BTreeMap::new(),
        }
    }

    /// The leaf of an extent, where it has one.
    pub fn leaf_of(&self, family: FamilyId, extent: ExtentNo) -> Option<LeafId> {
        let number = *self.family_numbers.get(&family)?;
        self.index.get(&key(number, extent)).copied()
    }

    /// Makes the leaf of an extent that has none.
    pub fn add_leaf(
        &mut self,
        (family, extent): (FamilyId, ExtentNo),
        pg: PgId,
        state: LeafState,
    ) -> LeafId {
        let families = &mut self.families;
        let number = *self.family_numbers.entry(family).or_insert_with(|| {
            families.push(family);
            families.len() as u32 - 1
        });
        let id = self.leaves.insert(Leaf {
            heads: [NONE; 64],
            family: number,
            extent,
            pg,
            first_page: NONE,
            pages: 0,
            entries: 0,
            state,
            dirty: false,
        });
        let previous = self.index.insert(key(number, extent), id);
        assert!(previous.is_none(), "an extent has one leaf");
        id
    }

    /// Forgets a leaf that has no entries and no pages.
    pub fn remove_leaf(&mut self, id: LeafId) {
        let leaf = &mut self.leaves[id];
        assert!(
            leaf.entries == 0 && leaf.pages == 0,
            "only an empty leaf is removed"
        );
        leaf.state = LeafState::Damaged; // nobody finds it any more
        let key = key(leaf.family, leaf.extent);
        self.index.remove(&key);
        self.leaves.free.push(id);
    }

    pub fn leaf(&self, id: LeafId) -> &Leaf {
        &self.leaves[id]
    }

    pub fn leaf_mut(&mut self, id: LeafId) -> &mut Leaf {
        &mut self.leaves[id]
    }

    pub fn family_of(&self, id: LeafId) -> FamilyId {
        self.families[self.leaves[id].family as usize]
    }

    /// One past the highest leaf id there ever was.
    pub fn leaf_bound(&self) -> LeafId {
        self.leaves.len
    }

    /// Whether this id names a leaf now.
    pub fn is_leaf(&self, id: LeafId) -> bool {
        let leaf = &self.leaves[id];
        self.index.get(&key(leaf.family, leaf.extent)) == Some(&id)
    }

    pub fn leaf_count(&self) -> u32 {
        self.leaves.in_use()
    }

    pub fn entry_count(&self) -> u32 {
        self.entries.in_use()
    }

    pub fn entry(&self, id: EntryId) -> &Entry {
        &self.entries[id]
    }

    pub fn entry_mut(&mut self, id: EntryId) -> &mut Entry {
        &mut self.entries[id]
    }

    pub fn layer_of(&self, id: EntryId) -> LayerId {
        self.origins[self.entries[id].origin as usize].layer
    }

    pub fn stamp_of(&self, id: EntryId) -> Stamp {
        let entry = &self.entries[id];
        let origin = self.origins[entry.origin as usize];
        Stamp {
            version: origin.version,
            epoch: origin.epoch,
            sequence: entry.sequence,
        }
    }

    /// Takes the stamp of a newer change of some blocks. Of changes in flight together the one of the lower number may be durable
    /// last: the chunk's stamp is the highest.
    #[inline]
    pub fn raise_stamp(&mut self, leaf: LeafId, id: EntryId, stamp: Stamp) {
        if stamp > self.stamp_of(id) {
            self.set_stamp(leaf, id, stamp);
        }
    }

    /// Gives an entry of this leaf another stamp.
    pub fn set_stamp(&mut self, leaf: LeafId, id: EntryId, stamp: Stamp) {
        let before = self.origins[self.entries[id].origin as usize];
        let (layer, pg) = (before.layer, self.leaves[leaf].pg);
        // Seldom: a version lasts until a replica comes or goes.
        if before.version != stamp.version {
            self.count((pg, before.version), (pg, stamp.version));
        }
        let origin = self.origin(layer, stamp);
        let entry = &mut self.entries[id];
        entry.origin = origin;
        entry.sequence = stamp.sequence;
    }

    /// How many chunks of a PG, layer by layer, are stamped with a version above `since`, of the extents that are loaded.
    pub fn stamped_since(&self, pg: PgId, since: u32) -> u64 {
        let of_pg = self.stamped.range((pg, since.saturating_add(1))..);
        let of_pg = of_pg.take_while(|((of, _), _)| *of == pg);
        of_pg.map(|(_, count)| count).sum()
    }

    /// The extent belongs to this PG from now on.
    pub fn set_pg(&mut self, leaf: LeafId, pg: PgId) {
        let before = std::mem::replace(&mut self.leaves[leaf].pg, pg);
        if before == pg || self.leaves[leaf].entries == 0 {
            return;
        }
        for place in 0..64 {
            for id in self.versions(leaf, place).collect::<Vec<_>>() {
                let version = self.stamp_of(id).version;
                self.count((before, version), (pg, version));
            }
        }
    }

    /// One entry more counts for `to`, and one less for `from`.
    fn count(&mut self, from: (PgId, u32), to: (PgId, u32)) {
        if from.1 != 0 {
            let left = self.stamped.get_mut(&from);
            debug_assert!(left.is_some(), "what is stamped is counted");
            if let Some(left) = left {
                *left -= 1;
                if *left == 0 {
                    self.stamped.remove(&from);
                }
            }
        }
        if to.1 != 0 {
            *self.stamped.entry(to).or_default() += 1;
        }
    }

    fn origin(&mut self, layer: LayerId, stamp: Stamp) -> u32 {
        // Nearly always the newest one is asked for.
        let wanted = Origin {
            layer,
            version: stamp.version,
            epoch: stamp.epoch,
        };
        if self.origins.last() == Some(&wanted) {
            return self.origins.len() as u32 - 1;
        }
        let origins = &mut self.origins;
        *self.origin_numbers.entry(wanted).or_insert_with(|| {
            origins.push(wanted);
            origins.len() as u32 - 1
        })
    }

    /// The versions of a chunk, newest first.
    pub fn versions(&self, leaf: LeafId, place: usize) -> impl Iterator<Item = EntryId> {
        let mut next = self.leaves[leaf].heads[place];
        std::iter::from_fn(move || {
            let id = (next != NONE).then_some(next)?;
            next = if self.entries[id].flags & CHAINED != 0 {
                self.older[&id]
            } else {
                NONE
            };
            Some(id)
        })
    }

    /// The entry of a chunk in one layer.
    pub fn find(&self, leaf: LeafId, place: usize, layer: LayerId) -> Option<EntryId> {
        self.versions(leaf, place)
            .find(|&id| self.layer_of(id) == layer)
    }

    /// Adds an empty entry for a chunk in a layer, as its newest version.
    pub fn add_entry(&mut self, leaf: LeafId, place: usize, layer: LayerId) -> EntryId {
        let origin = self.origin(layer, Stamp::default());
        let head = self.leaves[leaf].heads[place];
        let id = self.entries.insert(Entry {
            crcs: [0; 16],
            sequence: 0,
            slot: NO_SLOT,
            origin,
            data: 0,
            zero: 0,
            dirty: 0,
            flags: if head == NONE { 0 } else { CHAINED },
        });
        if head != NONE {
            self.older.insert(id, head);
        }
        let leaf = &mut self.leaves[leaf];
        leaf.heads[place] = id;
        leaf.entries += 1;
        id
    }

    /// Takes an entry out of its chain.
    pub fn remove_entry(&mut self, leaf: LeafId, place: usize, id: EntryId) {
        let newer = self
            .versions(leaf, place)
            .take_while(|&other| other != id)
            .last();
        let older = self.older.remove(&id);
        match (newer, older) {
            (None, older) => self.leaves[leaf].heads[place] = older.unwrap_or(NONE),
            (Some(newer), Some(older)) => {
                self.older.insert(newer, older);
            }
            (Some(newer), None) => {
                self.older.remove(&newer);
                self.entries[newer].flags &= !CHAINED;
            }
        }
        let (pg, version) = (self.leaves[leaf].pg, self.stamp_of(id).version);
        self.count((pg, version), (pg, 0));
        self.leaves[leaf].entries -= 1;
        self.entries.free.push(id);
    }

    /// The pages that a leaf holds, in order.
    pub fn pages_of(&self, id: LeafId) -> impl Iterator<Item = u32> {
        let leaf = &self.leaves[id];
        let first = (leaf.pages > 0).then_some(leaf.first_page);
        let more = self
            .more_pages
            .get(&id)
            .map(Vec::as_slice)
            .unwrap_or_default();
        first.into_iter().chain(more.iter().copied())
    }

    /// Gives a leaf one more page.
    pub fn push_page(&mut self, id: LeafId, page: u32) {
        let leaf = &mut self.leaves[id];
        leaf.pages += 1;
        if leaf.pages == 1 {
            leaf.first_page = page;
        } else {
            self.more_pages.entry(id).or_default().push(page);
        }
    }

    /// Takes a leaf's last page away.
    pub fn pop_page(&mut self, id: LeafId) -> Option<u32> {
        let leaf = &mut self.leaves[id];
        if leaf.pages == 0 {
            return None;
        }
        leaf.pages -= 1;
        if leaf.pages == 0 {
            return Some(leaf.first_page);
        }
        let more = self.more_pages.get_mut(&id)?;
        let page = more.pop();
        if more.is_empty() {
            self.more_pages.remove(&id);
        }
        page
    }
}

fn key(family: u32, extent: ExtentNo) -> u64 {
    u64::from(family) << 32 | u64::from(extent.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_of_a_chunk_survive_the_removal_of_any_of_them() {
        for removed in 0..3 {
            let mut table = Table::new();
            let leaf = table.add_leaf((FamilyId(1), ExtentNo(0)), PgId(0), LeafState::Loaded);
            let ids: Vec<_> = (0..3)
                .map(|n| table.add_entry(leaf, 5, LayerId(n)))
                .collect();
            table.remove_entry(leaf, 5, ids[removed]);
            let left: Vec<_> = table
                .versions(leaf, 5)
                .map(|id| table.layer_of(id).0)
                .collect();
            let expected: Vec<_> = (0..3).rev().filter(|&n| n != removed as u64).collect();
            assert_eq!(left, expected);
        }
    }

    #[test]
    fn what_a_pg_has_of_each_version_is_counted_through_every_change() {
        let stamp = |version| Stamp {
            version,
            ..Stamp::default()
        };
        let mut table = Table::new();
        let (one, two) = (PgId(1), PgId(2));
        let leaf = table.add_leaf((FamilyId(1), ExtentNo(0)), one, LeafState::Loaded);
        let ids: Vec<_> = (0..4)
            .map(|place| table.add_entry(leaf, place, LayerId(1)))
            .collect();
        assert_eq!(table.stamped_since(one, 0), 0, "nothing is stamped yet");
        for (&id, version) in ids.iter().zip([1, 1, 3, 5]) {
            table.set_stamp(leaf, id, stamp(version));
        }
        let since = |table: &Table, pg| [0, 1, 2, 3, 5].map(|since| table.stamped_since(pg, since));
        assert_eq!(since(&table, one), [4, 2, 2, 1, 0]);
        table.raise_stamp(leaf, ids[0], stamp(5));
        table.raise_stamp(leaf, ids[3], stamp(4));
        assert_eq!(since(&table, one), [4, 3, 3, 2, 0]);
        table.set_pg(leaf, two);
        assert_eq!(since(&table, one), [0; 5]);
        assert_eq!(since(&table, two), [4, 3, 3, 2, 0]);
        table.remove_entry(leaf, 0, ids[0]);
        table.set_stamp(leaf, ids[2], Stamp::default());
        assert_eq!(since(&table, two), [2, 1, 1, 1, 0]);
    }

    #[test]
    fn a_full_extent_costs_at_most_96_bytes_a_chunk_and_a_touched_one_400() {
        let bucket = size_of::<(u64, LeafId)>() + 1;
        let full = size_of::<Entry>() + (size_of::<Leaf>() + bucket * 8 / 7 * 2).div_ceil(64);
        assert!(full <= 96, "{full}");
        let sparse = size_of::<Entry>() + size_of::<Leaf>() + bucket * 8 / 7;
        assert!(sparse <= 400, "{sparse}");
    }
}
