//! Listing: which chunks of a PG were changed since a version, for whoever fills another replica (R14).
//!
//! The order is that of families, chunks and layers, and does not depend on when what was loaded. The extents of the PG are
//! looked up once, at the first list of it, and kept in their order until the last one was listed; an extent that is made meanwhile is
//! put in. A step looks at a bounded number of extents, and has a bounded number of them loaded.

use super::door::{ChunkId, Found, Outbox, Output, Stamp, StoreError, StoreOp};
use super::engine::{Ask, Store, done};
use super::table::{LeafId, LeafState};
use crate::base::{CHUNKS_PER_EXTENT, ExtentNo, FamilyId, LayerId, PgId};

/// Chunks of one answer, 56 bytes each.
const CHUNKS_MAX: u32 = 1024;
/// Extents that one step looks at: 16,384 chunks.
const EXTENTS_MAX: u32 = 256;
/// Extents that are loaded ahead.
const AHEAD: usize = 8;
/// PGs that are listed at once without being looked up again.
const LISTINGS_MAX: usize = 4;

/// A list that is being made.
#[derive(Debug, Clone)]
pub(super) struct ListJob {
    pg: PgId,
    since: u32,
    after: Option<ChunkId>,
    max: u32,
    found: Vec<(ChunkId, Stamp)>,
}

impl ListJob {
    pub fn new(pg: PgId, since: u32, after: Option<ChunkId>, max: u32) -> ListJob {
        ListJob {
            pg,
            since,
            after,
            max: max.clamp(1, CHUNKS_MAX),
            found: Vec::new(),
        }
    }

    fn is_behind(&self, at: ChunkId) -> bool {
        self.after.is_none_or(|after| key(at) > key(after))
    }
}

/// The order of chunks in a list.
fn key(at: ChunkId) -> (FamilyId, u64, LayerId) {
    (at.family, at.chunk.0, at.layer)
}

/// The extents of one PG, in order.
#[derive(Debug)]
struct Listing {
    pg: PgId,
    extents: Vec<(FamilyId, ExtentNo)>,
}

/// The PGs that are being listed.
#[derive(Debug, Default)]
pub(super) struct Listings {
    of: Vec<Listing>,
}

impl Listings {
    /// Notes an extent of a PG.
    pub fn add(&mut self, pg: PgId, family: FamilyId, extent: ExtentNo) {
        if let Some(listing) = self.of.iter_mut().find(|listing| listing.pg == pg)
            && let Err(at) = listing.extents.binary_search(&(family, extent))
        {
            listing.extents.insert(at, (family, extent));
        }
    }

    fn get(&self, pg: PgId) -> Option<&Listing> {
        self.of.iter().find(|listing| listing.pg == pg)
    }

    fn put(&mut self, listing: Listing) {
        if self.of.len() == LISTINGS_MAX {
            self.of.remove(0);
        }
        self.of.push(listing);
    }

    fn end(&mut self, pg: PgId) {
        self.of.retain(|listing| listing.pg != pg);
    }
}

/// What became of a step of a list.
enum Progress {
    /// The answer is full, or long enough was looked; behind this chunk it goes on.
    Pause(ChunkId),
    End,
    Load(LeafId),
    Damaged,
}

impl Store {
    pub(super) fn on_list(&mut self, op: StoreOp, mut job: Box<ListJob>, out: &mut Outbox) {
        if self.listings.get(job.pg).is_none() {
            let listing = self.look_extents_up(job.pg);
            self.listings.put(listing);
        }
        let more = match self.list_on(&mut job) {
            Progress::Pause(at) => Some(at),
            Progress::End => {
                self.listings.end(job.pg);
                None
            }
            Progress::Damaged => return done(op, Err(StoreError::Torn), out),
            Progress::Load(leaf) => {
                self.load_ahead(job.pg, leaf, out);
                return self.load_for(leaf, Ask::List { op, job }, out);
            }
        };
        let start = out.chunks.len() as u32;
        out.chunks.append(&mut job.found);
        let chunks = start..out.chunks.len() as u32;
        let found = out.lists.len() as u32;
        out.lists.push(Found { chunks, more });
        out.list.push(Output::Listed { op, found });
    }

    fn look_extents_up(&self, pg: PgId) -> Listing {
        let mut extents: Vec<_> = (0..self.table.leaf_bound())
            .filter(|&leaf| self.table.leaf(leaf).pg == pg && self.table.is_leaf(leaf))
            .map(|leaf| (self.table.family_of(leaf), self.table.leaf(leaf).extent))
            .collect();
        extents.sort_unstable();
        Listing { pg, extents }
    }

    fn list_on(&self, job: &mut ListJob) -> Progress {
        let Some(listing) = self.listings.get(job.pg) else {
            return Progress::End;
        };
        let extents = &listing.extents;
        let first = job.after.map_or(0, |after| {
            let of = (after.family, after.chunk.extent());
            extents.partition_point(|extent| *extent < of)
        });
        let mut looked = 0;
        for &(family, extent) in &extents[first..] {
            // It may be gone since it was looked up, or belong to another PG.
            let leaf = self.table.leaf_of(family, extent);
            let Some(leaf) = leaf.filter(|&leaf| self.table.leaf(leaf).pg == job.pg) else {
                continue;
            };
            match self.table.leaf(leaf).state {
                LeafState::Loaded => {}
                LeafState::Damaged => return Progress::Damaged,
                LeafState::Unloaded | LeafState::Loading => return Progress::Load(leaf),
            }
            self.list_extent(job, leaf, family, extent);
            if let Some(&(last, _)) = job.found.last()
                && job.found.len() >= job.max as usize
            {
                return Progress::Pause(last);
            }
            let end = ChunkId {
                family,
                layer: LayerId(u64::MAX),
                chunk: extent.chunk(CHUNKS_PER_EXTENT as usize - 1),
            };
            job.after = Some(end);
            looked += 1;
            if looked == EXTENTS_MAX {
                return Progress::Pause(end);
            }
        }
        Progress::End
    }

    /// Finds the chunks of one extent, until the answer is full.
    fn list_extent(&self, job: &mut ListJob, leaf: LeafId, family: FamilyId, extent: ExtentNo) {
        for place in 0..CHUNKS_PER_EXTENT as usize {
            let first = job.found.len();
            for entry in self.table.versions(leaf, place) {
                let (layer, stamp) = (self.table.layer_of(entry), self.table.stamp_of(entry));
                let chunk = extent.chunk(place);
                let at = ChunkId {
                    family,
                    layer,
                    chunk,
                };
                let counts = stamp.version > job.since && self.layers.is_alive(layer);
                if counts && job.is_behind(at) {
                    job.found.push((at, stamp));
                }
            }
            job.found[first..].sort_unstable_by_key(|&(at, _)| at.layer);
            if job.found.len() >= job.max as usize {
                return job.found.truncate(job.max as usize);
            }
        }
    }

    /// Has the next extents of a PG loaded from this one on.
    fn load_ahead(&mut self, pg: PgId, from: LeafId, out: &mut Outbox) {
        let from = (self.table.family_of(from), self.table.leaf(from).extent);
        let Some(listing) = self.listings.get(pg) else {
            return;
        };
        let first = listing.extents.partition_point(|extent| *extent < from);
        let next: Vec<LeafId> = listing.extents[first..]
            .iter()
            .take(AHEAD)
            .filter_map(|&(family, extent)| self.table.leaf_of(family, extent))
            .collect();
        next.into_iter().for_each(|leaf| self.start_load(leaf, out));
    }
}
