//! Payload of the whole cluster: blocks are numbers, buffers are never used again, so what was sent stays what it was.

use super::contents::{Contents, SECTORS, Sectors};
use super::node::crc_of;
use super::shelf::{Block, Chunk};
use crate::base::{BlockRun, BufId, BufRef, SECTOR};
use crate::protocol::replication::fill::Content;
use crate::protocol::volume::groups::Value;

/// All buffers of a run.
#[derive(Debug, Default)]
pub struct Buffers {
    list: Vec<Vec<u64>>,
    pub contents: Contents,
}

impl Buffers {
    /// A buffer with these blocks.
    pub fn put(&mut self, blocks: Vec<u64>) -> BufRef {
        self.list.push(blocks);
        BufRef {
            id: BufId(self.list.len() as u32 - 1),
            block: 0,
        }
    }

    pub fn value(&self, at: BufRef) -> u64 {
        self.list[at.id.0 as usize][at.block as usize]
    }

    pub fn values(&self, at: BufRef, blocks: u32) -> impl Iterator<Item = u64> + '_ {
        (0..blocks).map(move |n| self.value(at.plus(n)))
    }

    fn set(&mut self, at: BufRef, value: u64) {
        self.list[at.id.0 as usize][at.block as usize] = value;
    }

    pub fn zero(&mut self, at: BufRef, blocks: u32) {
        (0..blocks).for_each(|n| self.set(at.plus(n), 0));
    }

    /// So many sectors of a buffer, from this one of its first block on.
    pub fn sectors(&self, at: BufRef, first: u64, count: u64) -> Vec<u64> {
        let blocks = (first + count).div_ceil(SECTORS) as u32;
        let of_block = |block| self.contents.sectors(block);
        let sectors = self.values(at, blocks).flat_map(of_block);
        sectors.skip(first as usize).take(count as usize).collect()
    }

    /// Blocks of which these sectors have a value, from this one of the first block on, and the others are nothing.
    pub fn blocks_of(&mut self, first: u64, count: u64, value: u64) -> Vec<u64> {
        let blocks = (first + count).div_ceil(SECTORS);
        let of_block = |block: u64| {
            let mut sectors = Sectors::default();
            for (n, sector) in (0..SECTORS).zip(&mut sectors) {
                let is_in = (first..first + count).contains(&(block * SECTORS + n));
                *sector = if is_in { value } else { 0 };
            }
            self.contents.block(sectors)
        };
        (0..blocks).map(of_block).collect()
    }

    /// So many bytes at the beginning and at the end of a block are taken from another one.
    pub fn merge(&mut self, from: BufRef, into: BufRef, head: u32, tail: u32) {
        let (old, mut new) = (self.value(from), self.contents.sectors(self.value(into)));
        let old = self.contents.sectors(old);
        let (head, tail) = (u64::from(head) / SECTOR, u64::from(tail) / SECTOR);
        for n in 0..SECTORS {
            if n < head || n >= SECTORS - tail {
                new[n as usize] = old[n as usize];
            }
        }
        let block = self.contents.block(new);
        self.set(into, block);
    }

    /// The blocks of a run, each in its place in the chunk.
    pub fn in_place(&self, run: BlockRun, at: BufRef) -> [u64; 16] {
        let mut values = [0; 16];
        for (n, place) in run.blocks().enumerate() {
            values[place as usize] = self.value(at.plus(n as u32));
        }
        values
    }

    /// Copies what was read to where it was asked for.
    pub fn place(&mut self, value: &Value) {
        for (n, place) in value.run.blocks().enumerate() {
            let found = match &value.from {
                Some(from) if value.zeroes & 1 << place == 0 => {
                    self.value(from.at().plus(n as u32))
                }
                _ => 0,
            };
            self.set(value.into.plus(n as u32), found);
        }
    }

    /// What a shelf read of a run: a bit for each block that is zeroes, crcs, and the blocks in their order.
    pub fn read(&mut self, content: &[Block; 16], run: BlockRun) -> (u16, [u32; 16], BufRef) {
        let (mut zeroes, mut crcs, mut blocks) = (0, [0; 16], Vec::new());
        for (n, place) in run.blocks().enumerate() {
            let value = match content[place as usize] {
                Block::Data(value) => value,
                Block::Zero | Block::Absent => {
                    zeroes |= 1 << place;
                    0
                }
            };
            crcs[n] = crc_of(value);
            blocks.push(value);
        }
        (zeroes, crcs, self.put(blocks))
    }

    /// A chunk that was fetched; its payload has a place for each block.
    pub fn fetched(&mut self, found: Option<Chunk>) -> (Content, Option<BufRef>) {
        let Some(chunk) = found else {
            let content = Content {
                stamp: Default::default(),
                data: 0,
                zeroes: 0,
                crcs: [0; 16],
            };
            return (content, None);
        };
        let (mut data, mut zeroes, mut crcs, mut blocks) = (0, 0, [0; 16], vec![0; 16]);
        for (place, block) in chunk.content.into_iter().enumerate() {
            match block {
                Block::Data(value) => {
                    data |= 1 << place;
                    crcs[place] = crc_of(value);
                    blocks[place] = value;
                }
                Block::Zero => zeroes |= 1 << place,
                Block::Absent => {}
            }
        }
        let content = Content {
            stamp: chunk.stamp,
            data,
            zeroes,
            crcs,
        };
        let payload = (data != 0).then(|| self.put(blocks));
        (content, payload)
    }
}
