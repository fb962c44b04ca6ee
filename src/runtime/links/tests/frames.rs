//! Frames to be sent, and what they carry.

use crate::base::{
    BLOCK, BlockRun, ChunkId, ChunkNo, DiskId, Epoch, FamilyId, LayerId, PgId, VolumeId, crc,
};
use crate::protocol::replication::fill::{FillAsk, FillHeader};
use crate::protocol::replication::{Answer, Change, Header, Message, Room};
use crate::runtime::links::{LinkId, Peer};
use crate::shard::ShardNo;
use crate::wire::{Frame, Version};

pub const DISK: DiskId = DiskId(7);
pub const PEER: Peer = Peer {
    node: crate::base::NodeId(3),
    shard: ShardNo(1),
    version: Version::PRESENT,
};
pub const LINK: LinkId = LinkId { place: 0, life: 0 };
pub const HEADER: Header = Header {
    range: VolumeId(1),
    pg: PgId(2),
    epoch: Epoch {
        generation: 1,
        site: 1,
        host: 1,
    },
    version: 4,
    session: 0,
    mark: 0,
};

pub fn at(chunk: u64) -> ChunkId {
    ChunkId {
        family: FamilyId(1),
        layer: LayerId(5),
        chunk: ChunkNo(chunk),
    }
}

/// What lies in a block: the same wherever it is made.
pub fn content(at: ChunkId, block: u32) -> Vec<u8> {
    let seed = (at.chunk.0 as u32).wrapping_mul(31).wrapping_add(block * 7);
    (0..BLOCK as u32)
        .map(|n| (seed.wrapping_add(n) % 251) as u8)
        .collect()
}

/// The blocks of a run, and the crc of each.
pub fn contents(at: ChunkId, run: BlockRun) -> (Vec<u8>, [u32; 16]) {
    let (mut all, mut crcs) = (Vec::new(), [0; 16]);
    for (n, block) in run.blocks().enumerate() {
        let bytes = content(at, block);
        crcs[n] = crc::of_block(at.layer, at.chunk.block(block), &bytes);
        all.extend(bytes);
    }
    (all, crcs)
}

pub fn write(sequence: u64, at: ChunkId, run: BlockRun) -> Frame {
    let crcs = contents(at, run).1;
    let change = Change::Write { run, crcs };
    let message = Message::Change {
        sequence,
        at,
        change,
    };
    Frame::Message(HEADER, message)
}

pub fn done(sequence: u64) -> Frame {
    let room = Room::Ample;
    Frame::Answer(HEADER, Answer::Done { sequence, room })
}

pub fn read(id: u64, at: ChunkId, run: BlockRun) -> Frame {
    Frame::Message(HEADER, Message::Read { id, at, run })
}

pub fn value(id: u64, at: ChunkId, run: BlockRun) -> Frame {
    let answer = Answer::Value {
        id,
        newest: None,
        crcs: contents(at, run).1,
        zeroes: 0,
    };
    Frame::Answer(HEADER, answer)
}

/// The same where all of it is zeroes.
pub fn zeroes(id: u64) -> Frame {
    let answer = Answer::Value {
        id,
        newest: None,
        crcs: [0; 16],
        zeroes: u16::MAX,
    };
    Frame::Answer(HEADER, answer)
}

pub fn mark() -> Frame {
    Frame::Message(HEADER, Message::Mark)
}

pub fn seal() -> Frame {
    Frame::Message(HEADER, Message::Seal)
}

/// A question of its own for each range.
pub fn seal_of(range: u64) -> Frame {
    let range = VolumeId(range);
    Frame::Message(Header { range, ..HEADER }, Message::Seal)
}

pub fn fetch(id: u64, at: ChunkId) -> Frame {
    let header = FillHeader {
        pg: PgId(2),
        version: 4,
        session: 3,
        id,
    };
    Frame::FillAsk(header, FillAsk::Fetch { at })
}
