//! What goes wrong with a shelf: crashes, damage, loss, and a state that is old.

use super::{Block, Chunk, Fault, Kept, Shelf};
use crate::base::{ChunkId, LayerId, PgId};
use std::collections::BTreeSet;

impl Shelf {
    /// The node lost its process, or its power: what is in flight happened or not.
    pub fn crash(&mut self) {
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
        for pg in self.kept.pgs.values_mut() {
            pg.lose_memory();
        }
    }

    /// The disk is gone: everything fails, what is in flight too.
    pub fn lose(&mut self) {
        self.tally.injected(Fault::DiskGone);
        self.is_gone = true;
    }

    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// In its place there is an empty one.
    pub fn replace(&mut self) {
        self.crash();
        (self.kept, self.older, self.is_gone) = (Kept::default(), None, false);
        (self.unreadable, self.rotten) = (BTreeSet::new(), BTreeSet::new());
    }

    /// Remembers what is kept now, to come back with it.
    pub fn remember(&mut self) {
        self.older = Some(self.kept.clone());
    }

    /// It comes back as it was when it last remembered, after a crash; whether it has anything to come back with. A copy that was taken and is
    /// brought back within one opening is beyond what the manager can know.
    pub fn age(&mut self) -> bool {
        let recorded = self.kept.recorded;
        let Some(older) = self.older.take_if(|older| older.incarnation < recorded) else {
            return false;
        };
        self.crash();
        self.kept = older;
        self.is_gone = false;
        (self.unreadable, self.rotten) = (BTreeSet::new(), BTreeSet::new());
        for pg in self.kept.pgs.values_mut() {
            pg.lose_memory();
        }
        self.tally.both(Fault::DiskOld);
        true
    }

    /// A layer lies over another: what it does not have is read from there.
    pub fn put_layer(&mut self, layer: LayerId, parent: LayerId) {
        debug_assert!(parent < layer, "layers are numbered as they come");
        self.kept.parents.insert(layer, parent);
    }

    /// From now on it is as it should be, damage aside.
    pub fn heal(&mut self) {
        self.manner.slow_one_in = 0;
    }
}

#[cfg_attr(not(test), expect(dead_code, reason = "damage waits for repair"))]
impl Shelf {
    /// A chunk cannot be read until something of it is written; whether it is kept here.
    pub fn fail_chunk(&mut self, pg: PgId, chunk: ChunkId) -> bool {
        let is_here = self.kept.pg(pg).chunks.contains_key(&chunk);
        if is_here {
            self.tally.injected(Fault::DiskError);
            self.unreadable.insert((pg, chunk));
        }
        is_here
    }

    /// A block rots; whether data is kept there.
    pub fn rot(&mut self, pg: PgId, chunk: ChunkId, block: u32) -> bool {
        let is_data = matches!(self.kept.pg(pg).block(chunk, block), Block::Data(_));
        if is_data && self.rotten.insert((pg, chunk, block as u8)) {
            self.tally.injected(Fault::Rot);
        }
        is_data
    }

    /// A block with data, drawn, for who wants to damage one.
    pub fn any_data(&mut self) -> Option<(PgId, ChunkId, u32)> {
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
            false => Some(all[self.prng.below(all.len() as u64) as usize]),
        }
    }

    /// Whether a chunk is damaged.
    pub fn is_damaged(&self, pg: PgId, chunk: ChunkId) -> bool {
        let rotten = (pg, chunk, 0)..=(pg, chunk, u8::MAX);
        self.unreadable.contains(&(pg, chunk)) || self.rotten.range(rotten).next().is_some()
    }
}
