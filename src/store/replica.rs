//! What a store keeps of the replicas on it besides their blocks: fences (R6), marks (R10), windows (R22).
//!
//! All of it is a consequence of the journal's records: fences and marks have records of their own, and a window is made of
//! the records of changes, each of which names its range and stamp. A checkpoint writes all of it into the root, with the
//! batch up to which it counts, and replay goes on from there. So a coordinator that is lost does not hold the journal's tail
//! back, and a window costs nothing when its writes are made. What is in memory is bounded by the room in the root.
//!
//! A window here may hold more than the replica's own: an entry stays until a mark passes it, or, if its epoch is fenced,
//! until later writes cover it. Marks are durable some time after they are said.
//!
//! It does not know what a version or a session means to the manager, and decides nothing: `protocol::replication` does.

use super::codec::{Put, Take};
use super::door::{ChunkId, Epoch, Stamp, StoreError, WindowEntry};
use super::record::{
    Empty, FENCES_MAX, Record, decode_epoch, decode_stamp, encode_epoch, encode_stamp,
};
use crate::base::{ChunkNo, FamilyId, LayerId, PgId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes that a replica, a range and an entry of a window take in a root.
const REPLICA_BYTES: u64 = 24;
const RANGE_BYTES: u64 = 32;
const ENTRY_BYTES: u64 = 56;

/// What is durable of the replica of one PG besides its blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replica {
    /// The highest version that was taken over.
    pub version: u32,
    /// The version with which it joins; 0: it does not.
    pub session: u32,
    /// As of this version all replicas were in sync: tombstones up to it may go.
    pub forgotten: u32,
    /// The highest version of a tombstone that is not here though its chunk was discarded: it was let go here, or where this replica was
    /// filled from. Of a chunk of a higher version nothing was let go. It is durable as soon as the table without the tombstone is.
    pub let_go: u32,
    ranges: BTreeMap<VolumeId, ReplicaRange>,
}

/// What is durable of one range in one PG.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicaRange {
    /// The highest epoch that was taken over.
    pub epoch: Epoch,
    /// Of that epoch. After a crash it may be behind.
    pub mark: u64,
    /// The joining session in which the mark was said: what was held before it is not below the mark (R10).
    mark_session: u32,
    window: BTreeMap<(Epoch, u64, ChunkId), Held>,
}

/// What a window holds of one write in one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    version: u32,
    blocks: u16,
}

impl Replica {
    /// Its ranges, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (VolumeId, &ReplicaRange)> {
        self.ranges.iter().map(|(&id, range)| (id, range))
    }

    pub fn range(&self, range: VolumeId) -> Option<&ReplicaRange> {
        self.ranges.get(&range)
    }

    fn bytes(&self) -> u64 {
        let ranges = self.ranges.values();
        REPLICA_BYTES + ranges.map(ReplicaRange::bytes).sum::<u64>()
    }
}

impl ReplicaRange {
    /// What is above the mark, by epoch, sequence and chunk. A write of several chunks has an entry for each.
    pub fn window(&self) -> impl Iterator<Item = WindowEntry> {
        self.window
            .iter()
            .map(|(&(epoch, sequence, at), held)| WindowEntry {
                at,
                blocks: held.blocks,
                stamp: Stamp {
                    version: held.version,
                    epoch,
                    sequence,
                },
            })
    }

    fn bytes(&self) -> u64 {
        RANGE_BYTES + self.window.len() as u64 * ENTRY_BYTES
    }

    /// Whether an entry is below the mark.
    fn is_passed(&self, stamp: Stamp) -> bool {
        let newer = stamp.version >= self.mark_session;
        stamp.epoch == self.epoch && stamp.sequence <= self.mark && newer
    }

    /// Takes an entry in; returns by how many entries the window grew, and by how many it shrank.
    fn put(&mut self, entry: WindowEntry) -> (u64, u64) {
        let before = self.window.len() as u64;
        let WindowEntry { at, blocks, stamp } = entry;
        // Of an epoch that is fenced, no duplicate is taken any more: what later writes cover need not be known. There
        // is such an entry only after a range has changed hands.
        let oldest = self.window.first_key_value();
        if oldest.is_some_and(|((epoch, ..), _)| *epoch < stamp.epoch) {
            let older = |epoch: Epoch| epoch < stamp.epoch;
            self.window.retain(|(epoch, _, of), held| {
                if older(*epoch) && *of == at {
                    held.blocks &= !blocks;
                }
                !older(*epoch) || held.blocks != 0
            });
        }
        let shrunk = before - self.window.len() as u64;
        if self.is_passed(stamp) {
            return (0, shrunk);
        }
        let held = Held {
            version: stamp.version,
            blocks,
        };
        let key = (stamp.epoch, stamp.sequence, at);
        // What came with a fill does not say that the write was carried out here; a write that was says so on.
        if stamp.version == 0 && self.window.contains_key(&key) {
            return (0, shrunk);
        }
        let grown = u64::from(self.window.insert(key, held).is_none());
        (grown, shrunk)
    }

    /// Everything of the present epoch up to `mark` is acknowledged; returns how many entries went.
    fn pass(&mut self, mark: u64, session: u32) -> u64 {
        let before = self.window.len() as u64;
        let from = self.mark;
        (self.mark, self.mark_session) = (mark, session);
        let first = ChunkId {
            family: FamilyId(0),
            layer: LayerId(0),
            chunk: ChunkNo(0),
        };
        let bounds = (self.epoch, 0, first)..(self.epoch, mark.saturating_add(1), first);
        let passed: Vec<_> = self
            .window
            .range(bounds)
            .filter(|(_, held)| held.version >= session)
            .map(|(key, _)| *key)
            .collect();
        debug_assert!(from <= mark, "a mark only grows");
        for key in passed {
            self.window.remove(&key);
        }
        before - self.window.len() as u64
    }
}

/// All replicas of a store.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    of: BTreeMap<PgId, Replica>,
    /// Marks that no record has.
    unsaid: BTreeSet<(PgId, VolumeId)>,
    /// Bytes that it takes in a root, and what changes on their way may add.
    bytes: u64,
    reserved: u64,
    /// Bytes that a root has room for.
    room: u64,
    /// The batch up to which records are in it.
    pub through: u64,
}

impl Replicas {
    /// What a root held, with every batch up to `through`.
    pub fn new(of: BTreeMap<PgId, Replica>, through: u64, room: u64) -> Replicas {
        Replicas {
            bytes: of.values().map(Replica::bytes).sum(),
            of,
            unsaid: BTreeSet::new(),
            reserved: 0,
            room,
            through,
        }
    }

    pub fn get(&self, pg: PgId) -> Option<&Replica> {
        self.of.get(&pg)
    }

    pub fn iter(&self) -> impl Iterator<Item = (PgId, &Replica)> {
        self.of.iter().map(|(&pg, replica)| (pg, replica))
    }

    /// Whether a PG was fenced.
    pub fn has(&self, pg: PgId) -> bool {
        // Most stores have none, and ask at each change.
        !self.of.is_empty() && self.of.contains_key(&pg)
    }

    /// Whether a tombstone of this stamp may go.
    pub fn may_forget(&self, pg: PgId, stamp: Stamp) -> bool {
        self.of
            .get(&pg)
            .is_none_or(|replica| stamp.version <= replica.forgotten)
    }

    /// A tombstone of this stamp is let go.
    pub fn let_go(&mut self, pg: PgId, stamp: Stamp) {
        if let Some(replica) = self.of.get_mut(&pg) {
            replica.let_go = replica.let_go.max(stamp.version);
        }
    }

    /// A record leaves no tombstone where it leaves nothing. Noted with the record and not where it is carried out: by then the replica may be another one.
    fn may_let_go(&mut self, pg: PgId, stamp: Stamp, empty: Empty) {
        if empty == Empty::Forgotten {
            self.let_go(pg, stamp);
        }
    }

    /// What a record may add, in bytes of a root.
    pub fn cost(&self, record: &Record) -> u64 {
        if self.of.is_empty() && !matches!(record, Record::Fence { .. }) {
            return 0;
        }
        let entries = |range: &Option<VolumeId>, pg, count: u32| match range {
            Some(_) if self.has(pg) => u64::from(count) * ENTRY_BYTES,
            _ => 0,
        };
        match record {
            Record::Data { pg, range, .. }
            | Record::Chunk { pg, range, .. }
            | Record::Zero { pg, range, .. } => entries(range, *pg, 1),
            Record::ZeroChunks {
                pg, range, count, ..
            } => entries(range, *pg, *count),
            Record::Fill(fill) => entries(&fill.range, fill.pg, fill.window.len() as u32),
            Record::Fence { fences, .. } => REPLICA_BYTES + fences.len() as u64 * RANGE_BYTES,
            _ => 0,
        }
    }

    /// Whether `range` of a PG may get `entries` more.
    #[inline]
    pub fn has_room(&self, pg: PgId, range: Option<VolumeId>, entries: u32) -> bool {
        range.is_none()
            || !self.has(pg)
            || self.bytes + self.reserved + u64::from(entries) * ENTRY_BYTES <= self.room
    }

    /// Whether fences can be taken.
    pub fn check_fences(&self, fences: usize) -> Result<(), StoreError> {
        let more = REPLICA_BYTES + fences as u64 * RANGE_BYTES;
        match fences <= FENCES_MAX && self.bytes + self.reserved + more <= self.room {
            true => Ok(()),
            false => Err(StoreError::NoSpace),
        }
    }

    /// Keeps room for what is on its way; it is taken back when the record is carried out.
    pub fn reserve(&mut self, bytes: u64) {
        self.reserved += bytes;
    }

    pub fn unreserve(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// Takes a durable record in.
    pub fn take(&mut self, record: &Record) {
        if self.of.is_empty() && !matches!(record, Record::Fence { .. }) {
            return;
        }
        match record {
            Record::Fence {
                pg,
                version,
                session,
                fences,
            } => self.fence(*pg, *version, *session, fences),
            Record::Mark {
                pg,
                range,
                epoch,
                mark,
                session,
            } => {
                self.pass(*pg, *range, *epoch, *mark, *session);
            }
            Record::DropReplica(pg) => {
                if let Some(dropped) = self.of.remove(pg) {
                    self.bytes -= dropped.bytes();
                }
                self.unsaid.retain(|(of, _)| of != pg);
            }
            Record::DropVolume(volume) => self.drop_range(*volume),
            Record::Data {
                at,
                run,
                pg,
                range,
                stamp,
                ..
            } => self.put(*pg, *range, [(*at, run.mask())], *stamp),
            Record::Zero {
                at,
                run,
                pg,
                range,
                stamp,
                empty,
            } => {
                self.put(*pg, *range, [(*at, run.mask())], *stamp);
                self.may_let_go(*pg, *stamp, *empty);
            }
            Record::Chunk {
                at,
                pg,
                range,
                stamp,
                ..
            } => self.put(*pg, *range, [(*at, u16::MAX)], *stamp),
            Record::ZeroChunks {
                at,
                count,
                pg,
                range,
                stamp,
                empty,
            } => {
                let chunks = (0..u64::from(*count)).map(|n| {
                    let chunk = ChunkNo(at.chunk.0 + n);
                    (ChunkId { chunk, ..*at }, u16::MAX)
                });
                self.put(*pg, *range, chunks, *stamp);
                self.may_let_go(*pg, *stamp, *empty);
            }
            Record::Fill(fill) => {
                for entry in &fill.window {
                    self.put(fill.pg, fill.range, [(fill.at, entry.blocks)], entry.stamp);
                }
            }
            Record::PutVolume(_) | Record::Mend(_) => {}
        }
    }

    fn fence(&mut self, pg: PgId, version: u32, session: u32, fences: &[(VolumeId, Epoch)]) {
        let replica = self.of.entry(pg).or_insert_with(|| {
            self.bytes += REPLICA_BYTES;
            // One that is made for a session is filled with what its source has: what that has let go of before is missing here too.
            let let_go = session.saturating_sub(1);
            Replica {
                let_go,
                ..Replica::default()
            }
        });
        if version >= replica.version {
            replica.version = version;
            replica.session = session;
        }
        for &(range, epoch) in fences {
            let found = replica.ranges.entry(range).or_insert_with(|| {
                self.bytes += RANGE_BYTES;
                ReplicaRange::default()
            });
            if epoch > found.epoch {
                found.epoch = epoch;
                (found.mark, found.mark_session) = (0, 0);
            }
        }
    }

    fn put(
        &mut self,
        pg: PgId,
        range: Option<VolumeId>,
        places: impl IntoIterator<Item = (ChunkId, u16)>,
        stamp: Stamp,
    ) {
        // A range that nobody has fenced has no owner: its volume was dropped.
        let (Some(range), Some(replica)) = (range, self.of.get_mut(&pg)) else {
            return;
        };
        let Some(range) = replica.ranges.get_mut(&range) else {
            return;
        };
        for (at, blocks) in places {
            let (grown, shrunk) = range.put(WindowEntry { at, blocks, stamp });
            self.bytes = self.bytes + grown * ENTRY_BYTES - shrunk * ENTRY_BYTES;
        }
    }

    /// A coordinator's mark: in memory at once, durable with a later record.
    pub fn mark(&mut self, pg: PgId, range: VolumeId, epoch: Epoch, mark: u64) {
        // The session that is in force now: by the time of the record another one may be.
        let session = self.of.get(&pg).map_or(0, |replica| replica.session);
        if self.pass(pg, range, epoch, mark, session) {
            self.unsaid.insert((pg, range));
        }
    }

    /// Whether it is news.
    fn pass(&mut self, pg: PgId, range: VolumeId, epoch: Epoch, mark: u64, session: u32) -> bool {
        let Some(replica) = self.of.get_mut(&pg) else {
            return false;
        };
        match replica.ranges.get_mut(&range) {
            Some(found) if found.epoch == epoch && found.mark < mark => {
                self.bytes -= found.pass(mark, session) * ENTRY_BYTES;
                true
            }
            _ => false,
        }
    }

    /// The next mark that no record has, as one.
    pub fn next_mark(&mut self) -> Option<Record> {
        while let Some((pg, range)) = self.unsaid.pop_first() {
            let found = self.of.get(&pg).and_then(|of| of.ranges.get(&range));
            if let Some(&ReplicaRange {
                epoch,
                mark,
                mark_session: session,
                ..
            }) = found
            {
                return Some(Record::Mark {
                    pg,
                    range,
                    epoch,
                    mark,
                    session,
                });
            }
        }
        None
    }

    /// All replicas of a PG were in sync as of a version; whether that is news.
    pub fn forget(&mut self, pg: PgId, version: u32) -> bool {
        let Some(replica) = self.of.get_mut(&pg) else {
            return false;
        };
        let news = version > replica.forgotten;
        replica.forgotten = replica.forgotten.max(version);
        news
    }

    fn drop_range(&mut self, volume: VolumeId) {
        for replica in self.of.values_mut() {
            if let Some(range) = replica.ranges.remove(&volume) {
                self.bytes -= range.bytes();
            }
        }
        self.unsaid.retain(|(_, range)| *range != volume);
    }

    /// A checkpoint's root has everything: no mark needs a record for its own sake.
    pub fn is_saved(&mut self) {
        self.unsaid.clear();
    }

    /// Borrows what goes into a root.
    pub fn lend(&mut self) -> BTreeMap<PgId, Replica> {
        std::mem::take(&mut self.of)
    }

    pub fn give_back(&mut self, of: BTreeMap<PgId, Replica>) {
        self.of = of;
    }

    /// Asserts that the bytes are counted right.
    pub fn check(&self) {
        let bytes: u64 = self.of.values().map(Replica::bytes).sum();
        assert_eq!(bytes, self.bytes, "windows-are-bounded");
    }
}

/// Appends a replica: PG, version, session, forgotten, let go, its ranges with their windows.
pub(super) fn encode_replica(pg: PgId, replica: &Replica, put: &mut Put<'_>) {
    put.u32(pg.0);
    put.u32(replica.version);
    put.u32(replica.session);
    put.u32(replica.forgotten);
    put.u32(replica.ranges.len() as u32);
    put.u32(replica.let_go);
    for (id, range) in &replica.ranges {
        put.u64(id.0);
        encode_epoch(&range.epoch, put);
        put.u32(range.window.len() as u32);
        put.u64(range.mark);
        for entry in range.window() {
            put.u64(entry.at.family.0);
            put.u64(entry.at.layer.0);
            put.u64(entry.at.chunk.0);
            encode_stamp(&entry.stamp, put);
            put.u64(u64::from(entry.blocks));
        }
    }
}

pub(super) fn decode_replica(take: &mut Take<'_>) -> Option<(PgId, Replica)> {
    let pg = PgId(take.u32()?);
    let (version, session, forgotten) = (take.u32()?, take.u32()?, take.u32()?);
    let (count, let_go) = (take.u32()?, take.u32()?);
    let mut replica = Replica {
        version,
        session,
        forgotten,
        let_go,
        ranges: BTreeMap::new(),
    };
    for _ in 0..count {
        let (id, epoch) = (VolumeId(take.u64()?), decode_epoch(take)?);
        let (entries, mark) = (take.u32()?, take.u64()?);
        let mut window = BTreeMap::new();
        for _ in 0..entries {
            let at = ChunkId {
                family: FamilyId(take.u64()?),
                layer: LayerId(take.u64()?),
                chunk: ChunkNo(take.u64()?),
            };
            let stamp = decode_stamp(take)?;
            let held = Held {
                version: stamp.version,
                blocks: take.u64()? as u16,
            };
            window.insert((stamp.epoch, stamp.sequence, at), held);
        }
        let range = ReplicaRange {
            epoch,
            mark,
            mark_session: session,
            window,
        };
        replica.ranges.insert(id, range);
    }
    Some((pg, replica))
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
