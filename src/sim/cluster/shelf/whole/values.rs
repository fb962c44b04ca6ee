//! Values, as blocks that say them over and over with the checksums of their places, and back; and what is asked and answered in values, asked and answered in
//! blocks.

use super::Whole;
use crate::base::{BLOCK, BlockRun, BufId, BufRef, ChunkId, PgId, crc};
use crate::protocol::replication::Change;
use crate::protocol::replication::fill::Content as Holds;
use crate::protocol::scrub::MendAsk;
use crate::shard::operation::{self, entry_of};
use crate::sim::cluster::shelf::{Block, Chunk, Failure, Operation, Outcome, Pg, What};
use crate::store::Holding;

fn bytes_of(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(BLOCK as usize / 8)
}

fn value_of(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>().0;
    let value = words[0];
    assert!(
        words.iter().all(|word| *word == value),
        "a block that its store took for right is not what was written"
    );
    u64::from_le_bytes(value)
}

fn crc_of(at: ChunkId, place: u32, value: u64) -> u32 {
    crc::of_block(at.layer, at.chunk.block(place), &bytes_of(value))
}

impl Whole {
    fn chunk_buffer(&mut self) -> BufId {
        self.buffers
            .take(16)
            .expect("buffers are bounded by what is asked")
    }

    /// Puts a value into its place of a buffer; its checksum there.
    fn put(&mut self, at: ChunkId, place: u32, buf: BufId, value: u64) -> u32 {
        let bytes = bytes_of(value);
        let crc = crc::of_block(at.layer, at.chunk.block(place), &bytes);
        let into = BufRef {
            id: buf,
            block: place,
        };
        let into = self.buffers.bytes_mut(into, 1);
        into.expect("its own buffer").copy_from_slice(&bytes);
        self.values
            .insert((at.layer, at.chunk.block(place).0, crc), value);
        self.by_half.insert(value as u32, value);
        crc
    }

    pub(super) fn translated(&mut self, of: &Operation) -> (operation::Operation, Option<BufId>) {
        use operation::Operation as To;
        match of {
            Operation::Fence {
                version,
                session,
                fences,
            } => {
                let fence = To::Fence {
                    version: *version,
                    session: *session,
                    fences: fences.clone(),
                };
                (fence, None)
            }
            Operation::Change {
                range,
                at,
                what,
                stamp,
            } => {
                let (mut buf, mut payload) = (None, None);
                let change = match *what {
                    What::Data { run, values } => {
                        let id = self.chunk_buffer();
                        let mut crcs = [0; 16];
                        for (n, place) in run.blocks().enumerate() {
                            crcs[n] = self.put(*at, place, id, values[place as usize]);
                        }
                        buf = Some(id);
                        payload = Some(BufRef {
                            id,
                            block: run.first(),
                        });
                        Change::Write { run, crcs }
                    }
                    What::Zero { run } => Change::Zero { run },
                    What::ZeroChunks { count } => Change::ZeroChunks { count },
                };
                let change = To::Change {
                    range: *range,
                    at: *at,
                    change,
                    stamp: *stamp,
                    payload,
                };
                (change, buf)
            }
            Operation::Read { at, run } => {
                let id = self.chunk_buffer();
                let into = BufRef {
                    id,
                    block: run.first(),
                };
                let (at, run) = (*at, *run);
                (To::Read { at, run, into }, Some(id))
            }
            Operation::List { since, after, most } => {
                let list = To::List {
                    since: *since,
                    after: *after,
                    most: *most as u32,
                };
                (list, None)
            }
            Operation::Fetch { chunk } => {
                let id = self.chunk_buffer();
                let into = BufRef { id, block: 0 };
                (To::Fetch { at: *chunk, into }, Some(id))
            }
            Operation::Look { chunk } => (To::Look { at: *chunk }, None),
            Operation::Inspect { chunk } => (To::Inspect { at: *chunk }, None),
            Operation::Fill {
                chunk,
                blocks,
                content,
                stamp,
                entries,
            } => {
                let id = self.chunk_buffer();
                let mut holds = Holds {
                    stamp: *stamp,
                    data: 0,
                    zeroes: 0,
                    crcs: [0; 16],
                };
                for (place, block) in (0..16u32).zip(content.iter()) {
                    match *block {
                        Block::Data(value) => {
                            holds.data |= 1 << place;
                            holds.crcs[place as usize] = self.put(*chunk, place, id, value);
                        }
                        Block::Zero => holds.zeroes |= 1 << place,
                        Block::Absent => {}
                    }
                }
                let fill = To::Fill {
                    at: *chunk,
                    blocks: *blocks,
                    content: holds,
                    entries: entries.clone(),
                    payload: Some(BufRef { id, block: 0 }),
                };
                (fill, Some(id))
            }
            Operation::Forget => (To::Forget, None),
            Operation::Salvage { ask, .. } => {
                let id = self.chunk_buffer();
                let value = |crc: u32| self.by_half.get(&crc).copied();
                let ask = translated_ask(ask, value);
                let into = BufRef { id, block: 0 };
                (To::Salvage { ask, into }, Some(id))
            }
            Operation::Mend { what, values, .. } => {
                let id = self.chunk_buffer();
                let mut right = *what;
                for place in 0..16u32 {
                    let value = values[place as usize];
                    let is_it = value as u32 == what.crcs[place as usize];
                    match what.blocks & 1 << place != 0 && is_it {
                        true => right.crcs[place as usize] = self.put(what.at, place, id, value),
                        false => right.blocks &= !(1 << place),
                    }
                }
                let payload = BufRef { id, block: 0 };
                let what = right;
                (To::Mend { what, payload }, Some(id))
            }
        }
    }

    fn read_value(&self, buf: Option<BufId>, place: u32) -> u64 {
        let id = buf.expect("what is read has a buffer");
        let bytes = self.buffers.bytes(BufRef { id, block: place }, 1);
        value_of(bytes.expect("its own buffer"))
    }

    pub(super) fn outcome(
        &self,
        operation: &operation::Operation,
        outcome: operation::Outcome,
        buf: Option<BufId>,
    ) -> Outcome {
        use operation::Outcome as From;
        match outcome {
            From::Stored => Outcome::Stored,
            From::Loaded { zeroes, .. } => {
                let operation::Operation::Read { run, .. } = operation else {
                    panic!("{operation:?} reads nothing");
                };
                let mut content = [Block::Absent; 16];
                for place in run.blocks() {
                    content[place as usize] = match zeroes & 1 << place {
                        0 => Block::Data(self.read_value(buf, place)),
                        _ => Block::Zero,
                    };
                }
                Outcome::Value(content)
            }
            From::Listed { chunks, more } => Outcome::Chunks { chunks, more },
            From::Fetched(holds) => {
                let content = std::array::from_fn(|place| match (holds.data, holds.zeroes) {
                    (data, _) if data & 1 << place != 0 => {
                        Block::Data(self.read_value(buf, place as u32))
                    }
                    (_, zeroes) if zeroes & 1 << place != 0 => Block::Zero,
                    _ => Block::Absent,
                });
                let stamp = holds.stamp;
                let is_nothing = holds.data | holds.zeroes == 0 && stamp == Default::default();
                Outcome::Chunk((!is_nothing).then_some(Chunk { content, stamp }))
            }
            From::Found(found) => {
                let operation::Operation::Inspect { at } = operation else {
                    panic!("{operation:?} finds nothing");
                };
                let found = found.map(|holds| {
                    let holding = Holding {
                        data: holds.data,
                        zero: holds.zeroes,
                        stamp: holds.stamp,
                        crcs: holds.crcs,
                    };
                    self.chunk(*at, &holding)
                });
                Outcome::Chunk(found)
            }
            From::Looked(takes) => Outcome::Looked(takes),
            From::Salvaged(found) => {
                let is_here = |place: &u32| found.blocks & 1 << place != 0;
                let value = |place: u32| self.read_value(buf, place);
                Outcome::Salvaged(std::array::from_fn(|place| {
                    Some(place as u32).filter(is_here).map(value)
                }))
            }
            From::Failed(failure) => Outcome::Failed(match failure {
                operation::Failure::Damaged => Failure::Error,
                operation::Failure::Torn => Failure::Torn,
                operation::Failure::NoSpace => Failure::NoSpace,
                operation::Failure::Gone => Failure::Gone,
                operation::Failure::Busy | operation::Failure::Refused => {
                    panic!("{operation:?} is refused: {failure:?}")
                }
            }),
        }
    }

    fn chunk(&self, at: ChunkId, holding: &Holding) -> Chunk {
        let content = std::array::from_fn(|place| match (holding.data, holding.zero) {
            (data, _) if data & 1 << place != 0 => {
                let block = at.chunk.block(place as u32).0;
                let value = self.values.get(&(at.layer, block, holding.crcs[place]));
                Block::Data(*value.expect("what is here was written"))
            }
            (_, zero) if zero & 1 << place != 0 => Block::Zero,
            _ => Block::Absent,
        });
        let stamp = holding.stamp;
        Chunk { content, stamp }
    }

    /// What is kept of a replica, as its store has it in memory: what is durable, and marks that may not be. `None`: nothing.
    pub fn kept(&self, pg: PgId) -> Option<Pg> {
        let replica = self.store.replica(pg)?;
        let ranges = replica.ranges().map(|(id, range)| {
            let window = range.window().map(|held| entry_of(&held)).collect();
            (id, range.epoch, range.mark, window)
        });
        let chunks = self.store.holdings(pg);
        let chunks = chunks
            .iter()
            .map(|(at, holding)| (*at, self.chunk(*at, holding)));
        let (version, session) = (replica.version, replica.session);
        Some(Pg::found((version, session), ranges, chunks))
    }

    /// The PGs that it has replicas of.
    pub fn pgs(&self) -> Vec<PgId> {
        self.store.replicas().map(|(pg, _)| pg).collect()
    }
}

/// What is asked by the lower halves of values, asked by checksums.
fn translated_ask(ask: &MendAsk, value: impl Fn(u32) -> Option<u64>) -> MendAsk {
    let mut right = *ask;
    for run in BlockRun::runs_of(ask.blocks) {
        for place in run.blocks() {
            match value(ask.crcs[place as usize]) {
                Some(value) => right.crcs[place as usize] = crc_of(ask.at, place, value),
                None => right.blocks &= !(1 << place),
            }
        }
    }
    right.of(u16::MAX)
}
