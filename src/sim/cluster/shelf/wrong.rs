//! What goes wrong with a shelf: crashes, damage, loss, and a state that is old.

use super::{Block, Chunk, Damaged, Failure, Fault, Kept, Outcome, Shelf};
use crate::base::{Break, ChunkId, LayerId, PgId};
use crate::sim::disk::Disk;
use std::collections::{BTreeMap, BTreeSet};

impl Shelf {
    /// The node lost its process, or its power: what is in flight happened or not.
    pub fn crash(&mut self) {
        if let Some(whole) = &mut self.whole {
            whole.crash();
            // Of one that is gone nothing is known any more; what was there counts until another one is in its place.
            if !self.is_gone {
                self.look_at_all();
            }
            return;
        }
        let keys: Vec<u32> = self.flying.iter().map(|(key, _)| key).collect();
        for key in keys {
            if self.flying[key].outcome.is_none() {
                let kept = self.prng.one_in(2);
                self.tally.both(if kept {
                    Fault::CrashKept
                } else {
                    Fault::CrashDropped
                });
                if kept {
                    self.happen(key);
                }
            }
            self.flying.remove(key);
        }
        self.agenda.clear();
        if self.breaks.on(Break::NoDsync) {
            let (incarnation, recorded) = (self.kept.incarnation, self.kept.recorded);
            self.kept = Kept {
                incarnation,
                recorded,
                ..self.synced.clone()
            };
        }
        for pg in self.kept.pgs.values_mut() {
            pg.lose_memory();
            if self.breaks.on(Break::LoseWindow) {
                pg.lose_windows();
            }
            if self.breaks.on(Break::LoseTombstone) {
                pg.chunks.retain(|_, chunk| chunk.has_data());
            }
        }
        self.counted.set(None);
    }

    /// The disk is gone: everything fails, what is in flight too.
    pub fn lose(&mut self) {
        self.tally.injected(Fault::DiskGone);
        self.is_gone = true;
        if let Some(whole) = &mut self.whole {
            whole.go();
        }
    }

    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// In its place there is an empty one.
    pub fn replace(&mut self) {
        self.counted.set(None);
        self.crash();
        (self.kept, self.older, self.is_gone) = (Kept::default(), None, false);
        (self.unreadable, self.rotten) = (BTreeSet::new(), BTreeSet::new());
        (self.torn, self.before) = (BTreeSet::new(), BTreeMap::new());
        if let Some(whole) = &mut self.whole {
            whole.replace();
            self.look_at_all();
        }
    }

    /// Remembers what is kept now, to come back with it.
    pub fn remember(&mut self) {
        if self.is_gone {
            return;
        }
        self.older = Some(self.kept.clone());
        if let Some(whole) = &mut self.whole {
            whole.remember();
        }
    }

    /// It comes back as it was when it last remembered, after a crash; whether it has anything to come back with. A copy that was taken and is
    /// brought back within one opening is beyond what the manager can know.
    pub fn age(&mut self) -> bool {
        self.counted.set(None);
        let recorded = self.kept.recorded;
        let Some(older) = self.older.take_if(|older| older.incarnation < recorded) else {
            return false;
        };
        self.crash();
        self.kept = older;
        self.is_gone = false;
        if let Some(whole) = &mut self.whole {
            whole.age();
            self.look_at_all();
        }
        (self.unreadable, self.rotten) = (BTreeSet::new(), BTreeSet::new());
        (self.torn, self.before) = (BTreeSet::new(), BTreeMap::new());
        for pg in self.kept.pgs.values_mut() {
            pg.lose_memory();
        }
        self.tally.both(Fault::DiskOld);
        true
    }

    /// A layer lies over another: what it does not have is read from there.
    pub fn put_layer(&mut self, layer: LayerId, parent: LayerId) {
        debug_assert!(parent < layer, "layers are numbered as they come");
        if let Some(whole) = &mut self.whole {
            whole.put_layer(layer, parent);
        }
        self.kept.parents.insert(layer, parent);
    }

    /// From now on it is as it should be, damage aside.
    pub fn heal(&mut self) {
        self.manner.slow_one_in = 0;
        // Somebody has put a larger one in its place, with everything that was there.
        self.manner.room = usize::MAX;
    }
}

impl Shelf {
    /// The data of a chunk cannot be read until it is written anew, block by block; whether there is any.
    pub fn fail_chunk(&mut self, pg: PgId, chunk: ChunkId) -> bool {
        let mut data = self.data_of(pg, chunk);
        if let Some(whole) = &mut self.whole {
            data = whole.damage(chunk, data, Disk::fail_at);
        }
        if data != 0 {
            self.tally.injected(Fault::DiskError);
            let blocks = (0..16).filter(|block| data & 1 << block != 0);
            self.unreadable
                .extend(blocks.map(|block| (pg, chunk, block)));
        }
        data != 0
    }

    /// The blocks of a chunk that are data.
    pub fn data_of(&self, pg: PgId, chunk: ChunkId) -> u16 {
        let is_data = |block: &u32| {
            let found = self.kept.pg(pg).block(chunk, *block);
            matches!(found, Block::Data(_))
        };
        (0..16)
            .filter(is_data)
            .fold(0, |mask, block| mask | 1 << block)
    }

    /// Whether this disk has the same data as `other` has in the blocks of a mask, and none of it is damaged.
    pub fn has_the_same(&self, other: &Shelf, (pg, chunk): (PgId, ChunkId), mask: u16) -> bool {
        let blocks = (0..16u8).filter(|block| mask & 1 << block != 0);
        let mut differs = blocks.filter(|block| {
            let of = |shelf: &Shelf| shelf.kept.pg(pg).block(chunk, u32::from(*block));
            let place = (pg, chunk, *block);
            let is_damaged = self.unreadable.contains(&place) || self.rotten.contains(&place);
            is_damaged || of(self) != of(other)
        });
        differs.next().is_none()
    }

    /// What is not damaged any more in a whole store, and what it has found.
    pub(super) fn look_at_damage(&mut self, outcome: &Outcome) {
        let Some(whole) = &mut self.whole else {
            return;
        };
        let is_damaged =
            |(_, at, place): &(PgId, ChunkId, u8)| whole.is_damaged(*at, (*place).into());
        self.unreadable.retain(is_damaged);
        self.rotten.retain(is_damaged);
        let found = whole.take_found();
        for (pg, at, block, _) in &found {
            let place = (*pg, *at, *block as u8);
            let fault = match self.unreadable.contains(&place) {
                true => Fault::DiskError,
                false => Fault::Rot,
            };
            self.tally.consumed(fault);
        }
        let is_error = *outcome == Outcome::Failed(Failure::Error);
        let (injected, _) = self.tally.of(Fault::DiskError);
        assert!(
            !is_error || injected + self.tally.of(Fault::Rot).0 > 0,
            "an error without damage"
        );
        self.found.extend(found);
    }

    /// A background scrub has read everything.
    pub fn scrub(&mut self) {
        if self.is_gone {
            return;
        }
        if let Some(whole) = &mut self.whole {
            // Its reads take their time: what they find is told with the next answer, or the next scrub.
            whole.scrub();
            return self.look_at_damage(&Outcome::Stored);
        }
        let damaged: Vec<_> = self.unreadable.union(&self.rotten).copied().collect();
        for place in damaged {
            let is_error = self.unreadable.contains(&place);
            let fault = if is_error {
                Fault::DiskError
            } else {
                Fault::Rot
            };
            self.tally.consumed(fault);
            self.note_damaged(place);
        }
    }

    /// The damage that was found since it was asked last.
    pub fn take_found(&mut self) -> Vec<Damaged> {
        std::mem::take(&mut self.found)
    }

    /// The chunks that are damaged.
    pub fn damaged(&self) -> BTreeSet<(PgId, ChunkId)> {
        let all = self.unreadable.union(&self.rotten);
        all.map(|(pg, chunk, _)| (*pg, *chunk)).collect()
    }

    /// A block rots; whether data is kept there.
    pub fn rot(&mut self, pg: PgId, chunk: ChunkId, block: u32) -> bool {
        let mut is_data = matches!(self.kept.pg(pg).block(chunk, block), Block::Data(_));
        if let Some(whole) = &mut self.whole {
            is_data = is_data && whole.damage(chunk, 1 << block, Disk::rot_at) != 0;
        }
        if is_data && self.rotten.insert((pg, chunk, block as u8)) {
            self.tally.injected(Fault::Rot);
        }
        is_data
    }

    /// A block with data, picked, for who wants to damage one.
    pub fn any_data(&self, pick: u64) -> Option<(PgId, ChunkId, u32)> {
        let data = |(pg, chunk, of): (PgId, ChunkId, &Chunk)| {
            let of = *of;
            let is_data = move |block: &u32| matches!(of.content[*block as usize], Block::Data(_));
            (0..16).filter(is_data).map(move |block| (pg, chunk, block))
        };
        let chunks = self.kept.pgs.iter();
        let chunks =
            chunks.flat_map(|(pg, of)| of.chunks.iter().map(|(id, chunk)| (*pg, *id, chunk)));
        let all: Vec<_> = chunks.flat_map(data).collect();
        match all.is_empty() {
            true => None,
            false => Some(all[(pick % all.len() as u64) as usize]),
        }
    }

    /// The table of a PG is damaged, until the replica is forgotten.
    pub fn tear(&mut self, pg: PgId) {
        self.struck.insert(pg);
        if self.torn.insert(pg) {
            self.tally.injected(Fault::TornTable);
        }
    }

    /// Whether something was done to what is here of a PG, or was there before this: what was said of that may take effect yet.
    pub fn is_struck(&self, pg: PgId) -> bool {
        self.struck.contains(&pg) || self.torn.contains(&pg)
    }

    /// What is here of a PG came from where something was done to it.
    pub fn strike(&mut self, pg: PgId) {
        self.struck.insert(pg);
    }

    /// What is here of a PG is all right, or is not there any more for the manager: whatever was done to it counts no longer.
    pub fn absolve(&mut self, pg: PgId) {
        self.struck.remove(&pg);
    }

    /// The PGs whose table is damaged.
    pub fn torn(&self) -> impl Iterator<Item = PgId> {
        self.torn.iter().copied()
    }

    /// The chunks of which is known what they were before their last change.
    pub fn changed(&self) -> impl Iterator<Item = (PgId, ChunkId)> {
        self.before.keys().copied()
    }

    /// What a chunk was before its last change.
    pub fn before(&self, pg: PgId, chunk: ChunkId) -> Option<&Chunk> {
        self.before.get(&(pg, chunk)).and_then(Option::as_ref)
    }

    /// The last change of a chunk never happened, though it was said to be done. What the chunk was with it.
    pub fn lose_change(&mut self, pg: PgId, chunk: ChunkId) -> Chunk {
        self.counted.set(None);
        let before = self.before.remove(&(pg, chunk)).expect("it was changed");
        let chunks = &mut self.kept.pg_mut(pg).chunks;
        let right = chunks.remove(&chunk).expect("it was changed");
        chunks.extend(before.map(|before| (chunk, before)));
        self.struck.insert(pg);
        self.tally.injected(Fault::LostWrite);
        right
    }

    /// Whether a chunk is damaged.
    pub fn is_damaged(&self, pg: PgId, chunk: ChunkId) -> bool {
        let of = (pg, chunk, 0)..=(pg, chunk, u8::MAX);
        self.unreadable.range(of.clone()).next().is_some() || self.rotten.range(of).next().is_some()
    }
}
