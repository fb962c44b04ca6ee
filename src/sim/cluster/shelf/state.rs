//! What is on a disk: of each replica its chunks, fences, marks and windows.

use super::{What, places};
use crate::base::{ChunkId, ChunkNo, Epoch, FamilyId, LayerId, PgId, Stamp, VolumeId};
use crate::protocol::replication::Entry;
use std::collections::BTreeMap;

/// A block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Block {
    /// It falls through to the layer below.
    #[default]
    Absent,
    Zero,
    /// The value of the write that it is from.
    Data(u64),
}

/// The blocks of a chunk.
pub type Content = [Block; 16];

/// A chunk of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub content: Content,
    /// Of its last write.
    pub stamp: Stamp,
}

/// What is kept of one range in one PG.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Range {
    epoch: Epoch,
    /// Of `epoch`, as it is on the medium; and as it is known in memory.
    mark: u64,
    mark_in_memory: u64,
    window: Vec<Entry>,
    /// What was in the window as a session began: no mark clears that.
    before: Vec<Entry>,
}

/// What is kept of one replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pg {
    /// The highest version that was made durable.
    pub version: u32,
    /// The session that has begun here; 0: none.
    pub session: u32,
    ranges: BTreeMap<VolumeId, Range>,
    pub chunks: BTreeMap<ChunkId, Chunk>,
}

/// What is on a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The number of the last opening, and of the last one that the manager is known to have recorded.
    pub incarnation: u64,
    pub recorded: u64,
    pub pgs: BTreeMap<PgId, Pg>,
    pub parents: BTreeMap<LayerId, LayerId>,
}

impl Chunk {
    pub fn has_data(&self) -> bool {
        let mut blocks = self.content.iter();
        blocks.any(|block| matches!(block, Block::Data(_)))
    }
}

static NOTHING: Pg = Pg {
    version: 0,
    session: 0,
    ranges: BTreeMap::new(),
    chunks: BTreeMap::new(),
};

impl Kept {
    pub fn pg(&self, pg: PgId) -> &Pg {
        self.pgs.get(&pg).unwrap_or(&NOTHING)
    }

    pub(super) fn pg_mut(&mut self, pg: PgId) -> &mut Pg {
        self.pgs.entry(pg).or_default()
    }

    /// How many chunks have data: what takes space.
    pub fn chunks(&self) -> usize {
        self.pgs.values().map(Pg::data_chunks).sum()
    }
}

impl Pg {
    /// What a store says of a replica, its version and session first.
    pub(super) fn found(
        (version, session): (u32, u32),
        ranges: impl IntoIterator<Item = (VolumeId, Epoch, u64, Vec<Entry>)>,
        chunks: impl IntoIterator<Item = (ChunkId, Chunk)>,
    ) -> Pg {
        let range = |(id, epoch, mark, window)| {
            let of = Range {
                epoch,
                mark,
                mark_in_memory: mark,
                window,
                before: Vec::new(),
            };
            (id, of)
        };
        Pg {
            version,
            session,
            ranges: ranges.into_iter().map(range).collect(),
            chunks: chunks.into_iter().collect(),
        }
    }

    /// Whether a chunk has data.
    pub fn has_data(&self, chunk: ChunkId) -> bool {
        self.chunks.get(&chunk).is_some_and(Chunk::has_data)
    }

    fn data_chunks(&self) -> usize {
        self.chunks
            .values()
            .filter(|chunk| chunk.has_data())
            .count()
    }

    pub fn block(&self, chunk: ChunkId, block: u32) -> Block {
        let chunk = self.chunks.get(&chunk);
        chunk.map_or(Block::Absent, |chunk| chunk.content[block as usize])
    }

    /// What a reader of the newest of these layers gets of a block, the newest first.
    pub fn as_read(
        &self,
        family: FamilyId,
        layers: &[LayerId],
        chunk: ChunkNo,
        block: u32,
    ) -> Block {
        let mut all = layers.iter().map(|&layer| {
            let id = ChunkId {
                family,
                layer,
                chunk,
            };
            self.block(id, block)
        });
        let found = all.find(|found| *found != Block::Absent);
        found.unwrap_or_default()
    }

    /// The entries of the range that has most of them.
    pub fn longest_window(&self) -> usize {
        let ranges = self.ranges.values();
        let lengths = ranges.map(|of| of.before.len() + of.window.len());
        lengths.max().unwrap_or(0)
    }

    /// The epoch that a range is fenced with.
    pub fn epoch(&self, range: VolumeId) -> Epoch {
        self.ranges
            .get(&range)
            .map_or(Epoch::default(), |range| range.epoch)
    }

    /// The mark of a range, with the epoch it belongs to.
    pub fn mark_of(&self, range: VolumeId) -> (Epoch, u64) {
        let of = self.ranges.get(&range);
        of.map_or((Epoch::default(), 0), |of| (of.epoch, of.mark_in_memory))
    }

    /// What is above the mark of a range, in the order in which it became durable.
    pub fn window(&self, range: VolumeId) -> Vec<Entry> {
        let of = self.ranges.get(&range);
        let entries = of.map(|of| of.before.iter().chain(&of.window).copied());
        entries.into_iter().flatten().collect()
    }

    /// The ranges that anything is known of.
    pub fn ranges(&self) -> impl Iterator<Item = VolumeId> {
        self.ranges.keys().copied()
    }

    pub(super) fn fence(&mut self, version: u32, session: u32, fences: &[(VolumeId, Epoch)]) {
        self.version = self.version.max(version);
        if session != 0 && session != self.session {
            for of in self.ranges.values_mut() {
                of.before.append(&mut of.window);
            }
        }
        self.session = session;
        for &(range, epoch) in fences {
            let of = self.ranges.entry(range).or_default();
            if epoch > of.epoch {
                (of.epoch, of.mark, of.mark_in_memory) = (epoch, 0, 0);
            }
        }
    }

    /// Entries that came with a fill; what was held of these blocks before is not any more.
    pub(super) fn adopt(&mut self, chunk: ChunkId, mask: u16, entries: Vec<(VolumeId, Entry)>) {
        for of in self.ranges.values_mut() {
            for entries in [&mut of.window, &mut of.before] {
                for entry in entries.iter_mut().filter(|entry| entry.at == chunk) {
                    entry.blocks &= !mask;
                }
                entries.retain(|entry| entry.blocks != 0);
            }
        }
        for (range, entry) in entries {
            let of = self.ranges.entry(range).or_default();
            if entry.blocks != 0 {
                of.window.push(Entry {
                    version: 0,
                    ..entry
                });
            }
        }
    }

    pub(super) fn mark(&mut self, range: VolumeId, epoch: Epoch, mark: u64) {
        let of = self.ranges.entry(range).or_default();
        if epoch == of.epoch {
            of.mark_in_memory = of.mark_in_memory.max(mark);
        }
    }

    pub(super) fn change(&mut self, range: VolumeId, at: ChunkId, what: What, stamp: Stamp) {
        for (chunk, mask) in places(at, what) {
            let content = match what {
                What::Data { values, .. } => values.map(Block::Data),
                What::Zero { .. } | What::ZeroChunks { .. } => [Block::Zero; 16],
            };
            self.fill(chunk, mask, &content, stamp);
        }
        let of = self.ranges.entry(range).or_default();
        let name = (stamp.epoch, stamp.sequence);
        of.window
            .retain(|entry| (entry.epoch, entry.sequence) != name);
        for (chunk, mask) in places(at, what) {
            // What a later write covers is of no use any more where its epoch is fenced.
            for entries in [&mut of.window, &mut of.before] {
                let covered = |entry: &&mut Entry| entry.at == chunk && entry.epoch < stamp.epoch;
                for entry in entries.iter_mut().filter(covered) {
                    entry.blocks &= !mask;
                }
                entries.retain(|entry| entry.blocks != 0 || entry.epoch == stamp.epoch);
            }
        }
        let entries = places(at, what).into_iter().map(|(at, blocks)| Entry {
            epoch: stamp.epoch,
            sequence: stamp.sequence,
            at,
            blocks,
            version: stamp.version,
        });
        of.window.extend(entries);
        // The mark becomes durable with it.
        of.mark = of.mark_in_memory;
        let (epoch, mark) = (of.epoch, of.mark);
        of.window
            .retain(|entry| entry.epoch != epoch || entry.sequence > mark);
    }

    pub(super) fn fill(&mut self, chunk: ChunkId, mask: u16, content: &Content, stamp: Stamp) {
        let content_of = [Block::Absent; 16];
        let new = || Chunk {
            content: content_of,
            stamp,
        };
        let of = self.chunks.entry(chunk).or_insert_with(new);
        for block in (0..16).filter(|block| mask & 1 << block != 0) {
            of.content[block] = content[block];
        }
        let has_others = (0..16).any(|at| mask & 1 << at == 0 && of.content[at] != Block::Absent);
        of.stamp = match has_others {
            true => of.stamp.max(stamp),
            false => stamp,
        };
    }

    /// What was kept in memory only is behind now.
    pub(super) fn lose_memory(&mut self) {
        for of in self.ranges.values_mut() {
            of.mark_in_memory = of.mark;
        }
    }

    /// With a planted break: nothing is known of what was above the marks.
    pub(super) fn lose_windows(&mut self) {
        for of in self.ranges.values_mut() {
            of.before.clear();
            of.window.clear();
        }
    }
}
