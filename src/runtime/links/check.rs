//! The checksums of what came, against those that its frame says. An answer is held against what was asked, too.

use super::memory::Memory;
use crate::base::{BLOCKS_PER_CHUNK, BlockRun, ChunkId, Span};
use crate::protocol::replication::fill::{FillAnswer, FillAsk};
use crate::protocol::replication::{Answer, Change, Message};
use crate::protocol::scrub::MendAnswer;
use crate::wire::Frame;

/// What an ask wants to be answered with payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// None comes.
    Nothing,
    Run(ChunkId, BlockRun),
    /// A place for each block.
    Chunk(ChunkId),
}

impl Wanted {
    pub fn of(ask: &Frame) -> Wanted {
        match *ask {
            Frame::Message(_, Message::Read { at, run, .. }) => Wanted::Run(at, run),
            Frame::FillAsk(_, FillAsk::Fetch { at }) => Wanted::Chunk(at),
            Frame::MendAsk(_, ask) => Wanted::Chunk(ask.at),
            _ => Wanted::Nothing,
        }
    }

    /// Blocks of payload that may come.
    pub fn blocks(self) -> u32 {
        match self {
            Wanted::Nothing => 0,
            Wanted::Run(_, run) => run.count(),
            Wanted::Chunk(_) => BLOCKS_PER_CHUNK,
        }
    }

    /// Whether an answer with so many blocks of payload is one to this.
    pub fn fits(self, answer: &Frame, blocks: u32) -> bool {
        match (self, answer) {
            (Wanted::Run(_, run), Frame::Answer(_, Answer::Value { zeroes, .. })) => match blocks {
                0 => run.mask() & !zeroes == 0,
                _ => blocks == run.count(),
            },
            (Wanted::Chunk(at), Frame::FillAnswer(_, FillAnswer::Content { at: of, .. })) => {
                at == *of
            }
            (Wanted::Chunk(at), Frame::MendAnswer(_, MendAnswer::Blocks(found))) => at == found.at,
            _ => blocks == 0,
        }
    }
}

/// The blocks of a chunk with these crcs: by their places in the chunk, or from the payload's start on.
struct Blocks<'a> {
    at: ChunkId,
    mask: u16,
    /// The block of the chunk that payload and crcs begin with.
    first: u32,
    crcs: &'a [u32; 16],
}

/// Whether the payload is what its frame says. `scratch` is used again from call to call.
pub(super) fn is_right(
    frame: &Frame,
    wanted: Wanted,
    payload: Span,
    memory: &impl Memory,
    scratch: &mut Vec<u32>,
) -> bool {
    let blocks = match frame {
        Frame::Message(
            _,
            Message::Change {
                at,
                change: Change::Write { run, crcs },
                ..
            },
        ) => Blocks {
            at: *at,
            mask: run.mask(),
            first: run.first(),
            crcs,
        },
        Frame::Answer(_, Answer::Value { crcs, zeroes, .. }) => {
            let Wanted::Run(at, run) = wanted else {
                return false;
            };
            Blocks {
                at,
                mask: run.mask() & !zeroes,
                first: run.first(),
                crcs,
            }
        }
        Frame::FillAnswer(_, FillAnswer::Content { at, content, .. }) => Blocks {
            at: *at,
            mask: content.data,
            first: 0,
            crcs: &content.crcs,
        },
        Frame::MendAnswer(_, MendAnswer::Blocks(found)) => Blocks {
            at: found.at,
            mask: found.blocks,
            first: 0,
            crcs: &found.crcs,
        },
        _ => return false,
    };
    blocks.are_right(payload, memory, scratch)
}

impl Blocks<'_> {
    fn are_right(&self, payload: Span, memory: &impl Memory, scratch: &mut Vec<u32>) -> bool {
        BlockRun::runs_of(self.mask).all(|run| {
            let place = run.first() - self.first;
            debug_assert!(place + run.count() <= payload.blocks);
            scratch.clear();
            let (layer, first) = (self.at.layer, self.at.chunk.block(run.first()));
            memory.checksums(payload.buf.plus(place), run.count(), layer, first, scratch);
            scratch[..] == self.crcs[place as usize..][..run.count() as usize]
        })
    }
}
