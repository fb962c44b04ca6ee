//! Payload as a link sees it: buffers by their ids, and what is to be done with them.

use super::super::desk::Desk;
use crate::base::{BlockNo, BufId, BufRef, LayerId};
use crate::io::Buffers;

/// The memory that payload lies in.
pub(super) trait Memory {
    /// A buffer for what a peer sends, held once; `None`: there is no room now.
    fn allocate(&mut self, blocks: u32) -> Option<BufId>;
    /// Lets one hold go.
    fn release(&mut self, buf: BufId);
    fn copy_in(&mut self, at: BufRef, skip: usize, bytes: &[u8]);
    /// Appends the checksum of each block from `at` on, which are blocks `first` and following of `layer`.
    fn checksums(
        &self,
        at: BufRef,
        blocks: u32,
        layer: LayerId,
        first: BlockNo,
        into: &mut Vec<u32>,
    );
}

/// The arena: what peers send comes from memory that is theirs, and everything goes back where it is from.
pub(super) struct Real<'a> {
    pub peers: &'a mut Buffers,
    pub desk: &'a mut Desk,
}

impl Memory for Real<'_> {
    fn allocate(&mut self, blocks: u32) -> Option<BufId> {
        self.peers.allocate(blocks)
    }

    fn release(&mut self, buf: BufId) {
        match self.peers.is_own(buf) {
            true => drop(self.peers.release(buf, 1)),
            false => self.desk.release(buf, 1),
        }
    }

    fn copy_in(&mut self, at: BufRef, skip: usize, bytes: &[u8]) {
        self.peers.arena().copy_in(at, skip, bytes);
    }

    fn checksums(
        &self,
        at: BufRef,
        blocks: u32,
        layer: LayerId,
        first: BlockNo,
        into: &mut Vec<u32>,
    ) {
        self.peers.arena().checksums(at, blocks, layer, first, into);
    }
}
