//! Payload memory of a shard's own: where blocks go that are read for somebody else, or before they are handed on.
//!
//! The driver lends a piece of it once. It is cut into places of one block and of a whole chunk; who finds none waits, and goes on when the next turn has given
//! some back. A store may keep such a place longer than who gave it ([`Pool::pin`]). So what a shard reads at once is bounded, and nothing is asked of the driver while it works.

use crate::base::{BufRef, Span};

const CHUNK_BLOCKS: u32 = 16;
/// One part in so many is cut into single blocks.
const SINGLES_PART: u32 = 8;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Pool {
    at: Option<BufRef>,
    /// Blocks of the first part, that of single ones.
    singles_end: u32,
    singles: Vec<u32>,
    chunks: Vec<u32>,
    /// By the block that a place begins with: how often it is held or pinned.
    uses: Vec<u32>,
}

impl Pool {
    /// Takes over what the driver lends: so many blocks from `at` on.
    pub fn lend(&mut self, at: BufRef, blocks: u32) {
        debug_assert!(self.at.is_none(), "memory is lent once");
        self.at = Some(at);
        self.singles_end = blocks / SINGLES_PART / CHUNK_BLOCKS * CHUNK_BLOCKS;
        self.singles.extend((0..self.singles_end).rev());
        let chunks = (blocks - self.singles_end) / CHUNK_BLOCKS;
        let chunk = |n: u32| self.singles_end + n * CHUNK_BLOCKS;
        self.chunks.extend((0..chunks).rev().map(chunk));
        self.uses = vec![0; blocks as usize];
    }

    /// A place for so many blocks, 16 at most, that is held until it is [given back](Pool::give_back); `None`: there is none now.
    pub fn take(&mut self, blocks: u32) -> Option<Span> {
        debug_assert!(blocks <= CHUNK_BLOCKS);
        let at = self.at?;
        let single = (blocks <= 1).then(|| self.singles.pop()).flatten();
        let (first, blocks) = match single {
            Some(first) => (first, 1),
            None => (self.chunks.pop()?, CHUNK_BLOCKS),
        };
        self.uses[first as usize] = 1;
        let buf = at.plus(first);
        Some(Span { buf, blocks })
    }

    /// Nobody holds it any more; whether it is of this memory.
    pub fn give_back(&mut self, span: Span) -> bool {
        let place = self.place_of(span.buf);
        if let Some(first) = place {
            self.unused(first, 1);
        }
        place.is_some()
    }

    /// A store keeps blocks of it, until they are unpinned as often; whether they are of this memory.
    pub fn pin(&mut self, buf: BufRef, blocks: u32) -> bool {
        let place = self.place_of(buf);
        if let Some(first) = place {
            self.uses[first as usize] += blocks;
        }
        place.is_some()
    }

    pub fn unpin(&mut self, buf: BufRef, blocks: u32) -> bool {
        let place = self.place_of(buf);
        if let Some(first) = place {
            self.unused(first, blocks);
        }
        place.is_some()
    }

    fn unused(&mut self, first: u32, times: u32) {
        let uses = &mut self.uses[first as usize];
        debug_assert!(*uses >= times, "what is given back was taken");
        *uses -= times;
        if *uses == 0 {
            match first < self.singles_end {
                true => self.singles.push(first),
                false => self.chunks.push(first),
            }
        }
    }

    /// The block that its place begins with; `None`: it is not of this memory.
    fn place_of(&self, buf: BufRef) -> Option<u32> {
        let at = self.at.filter(|at| at.id == buf.id)?;
        let block = buf.block.checked_sub(at.block)?;
        let in_chunk = match block < self.singles_end {
            true => 0,
            false => (block - self.singles_end) % CHUNK_BLOCKS,
        };
        Some(block - in_chunk).filter(|&first| (first as usize) < self.uses.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BufId;

    #[test]
    fn what_is_lent_is_handed_out_once_and_again_when_it_is_back() {
        let mut pool = Pool::default();
        assert_eq!(pool.take(1), None);
        let at = BufRef {
            id: BufId(3),
            block: 5,
        };
        pool.lend(at, 256);
        let mut taken = Vec::new();
        let mut seen = vec![false; 256];
        while let Some(span) = pool.take(1) {
            for n in 0..span.blocks {
                let place = (span.buf.block - 5 + n) as usize;
                assert!(!std::mem::replace(&mut seen[place], true), "{place} twice");
            }
            taken.push(span);
        }
        assert!(seen.iter().all(|&seen| seen));
        assert_eq!(pool.take(16), None);
        for span in &taken {
            assert!(pool.give_back(*span));
        }
        let place = pool.take(16).unwrap();
        assert_eq!(place.blocks, 16);
        let behind = place.buf.plus(3);
        assert!(pool.pin(behind, 2));
        assert!(pool.give_back(place));
        let free = pool.chunks.len();
        assert!(pool.unpin(behind, 1));
        assert_eq!(pool.chunks.len(), free, "a store has a block of it");
        assert!(pool.unpin(behind.plus(1), 1));
        assert_eq!(pool.chunks.len(), free + 1);
        let other = Span {
            buf: BufRef::default(),
            blocks: 1,
        };
        assert!(!pool.give_back(other));
    }
}
