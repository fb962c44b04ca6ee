//! What is newer than the table: payload that is durable in the journal and not yet applied.
//!
//! An overlay hangs on the entry of its chunk, from the moment when a write to it is issued until the last of its
//! payload is applied. Reads look here first. Applying copies payload into the slot and then *settles*
//! the block: its checksum goes into the entry, and its batch has one block less to wait for.

use super::page::NO_SLOT;
use super::table::{EntryId, LeafId};
use crate::base::{BufRef, FixedMap, LayerId};

/// Where the payload of a journaled block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// In a pinned buffer.
    Memory(BufRef),
    /// Only in the journal, at this offset of the disk: it was replayed.
    Journal(u64),
}

#[derive(Debug)]
pub(super) struct Overlay {
    pub leaf: LeafId,
    pub chunk: crate::base::ChunkNo,
    pub layer: LayerId,
    /// The slot that writes to this chunk go to.
    pub slot: u32,
    /// Blocks that are durable here and not applied.
    pub pending: u16,
    /// Blocks that are being applied now.
    pub applying: u16,
    /// Replayed blocks that did not come right from the journal with their neighbours: each is fetched alone once more.
    pub suspect: u16,
    /// Writes that are issued and not yet durable.
    pub issued: u16,
    /// Whether it stands in the queue of what is to be applied.
    pub queued: bool,
    source: [Source; 16],
    pub crc: [u32; 16],
    pub batch: [u64; 16],
}

impl Overlay {
    pub fn source(&self, block: u32) -> Source {
        self.source[block as usize]
    }

    /// Takes a durable block in.
    pub fn take(&mut self, block: u32, source: Source, crc: u32, batch: u64) {
        let at = block as usize;
        self.source[at] = source;
        self.crc[at] = crc;
        self.batch[at] = batch;
        self.pending |= 1 << block;
        self.suspect &= !(1 << block);
    }

    /// Whether nothing keeps it alive.
    pub fn is_idle(&self) -> bool {
        self.pending == 0 && self.applying == 0 && self.issued == 0
    }
}

/// All overlays, by the entry that they hang on.
#[derive(Debug, Default)]
pub(super) struct Overlays {
    places: Vec<Overlay>,
    free: Vec<u32>,
    of: FixedMap<EntryId, u32>,
}

impl Overlays {
    pub fn get(&self, entry: EntryId) -> Option<&Overlay> {
        self.of.get(&entry).map(|&at| &self.places[at as usize])
    }

    pub fn get_mut(&mut self, entry: EntryId) -> Option<&mut Overlay> {
        self.of.get(&entry).map(|&at| &mut self.places[at as usize])
    }

    pub fn add(
        &mut self,
        entry: EntryId,
        leaf: LeafId,
        (chunk, layer): (crate::base::ChunkNo, LayerId),
        slot: u32,
    ) -> &mut Overlay {
        let overlay = Overlay {
            leaf,
            chunk,
            layer,
            slot,
            pending: 0,
            applying: 0,
            suspect: 0,
            issued: 0,
            queued: false,
            source: [Source::Journal(0); 16],
            crc: [0; 16],
            batch: [0; 16],
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.places[at as usize] = overlay;
                at
            }
            None => {
                self.places.push(overlay);
                self.places.len() as u32 - 1
            }
        };
        let previous = self.of.insert(entry, at);
        assert!(previous.is_none(), "an entry has one overlay");
        &mut self.places[at as usize]
    }

    pub fn remove(&mut self, entry: EntryId) {
        if let Some(at) = self.of.remove(&entry) {
            let overlay = &mut self.places[at as usize];
            debug_assert!(overlay.is_idle());
            overlay.slot = NO_SLOT;
            self.free.push(at);
        }
    }

    /// Names every buffer that is held, and forgets all that is pending: the disk failed.
    pub fn take_memory(&mut self, mut each: impl FnMut(BufRef)) {
        for overlay in &mut self.places {
            for block in (0..16).filter(|block| overlay.pending & (1 << block) != 0) {
                if let Source::Memory(buf) = overlay.source[block] {
                    each(buf);
                }
            }
            overlay.pending = 0;
        }
    }

    pub fn len(&self) -> usize {
        self.of.len()
    }
}
