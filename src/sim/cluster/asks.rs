//! What the machines of a node ask of its shelves, and what these answer: in the words of both.

use super::buffers::Buffers;
use super::node::{crc_of, hold};
use super::shelf::{Block, Chunk, Failure, Gives, Operation, Outcome, Takes, What};
use crate::base::{BlockRun, BufRef, ChunkId, DiskId, Holds, PgId};
use crate::protocol::replication::Change;
use crate::protocol::replication::fill::Content;
use crate::protocol::replication::replica::{self, Op};
use crate::protocol::scrub::compare;
use crate::protocol::scrub::{self, MendAsk, Rule};
use crate::shard::fabric::{Inspected, StoreAnswer, StoreAsk, Unread};
use std::collections::BTreeMap;

/// Chunks that a store lists at once for a joiner: few, so that lists have many pages.
const PAGE: usize = 5;
/// And for a comparer.
const COMPARED_PAGE: usize = 32;

/// Who asked a shelf for something, and is told how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Replica(Op),
    Mender(Mending),
    Comparer(Comparing),
    /// The replica is forgotten.
    Nobody,
}

/// What a mender asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mending {
    Salvage(u64, MendAsk),
    Mend(u64),
    Look(u64),
}

/// What a comparer asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparing {
    List(u64),
    Look(u64, ChunkId),
}

/// The asks of one node.
#[derive(Debug)]
pub struct Asks {
    /// Runs that shelves are reading.
    reading: BTreeMap<(DiskId, PgId, Op), BlockRun>,
    off: scrub::RulesOff,
}

impl Asks {
    pub fn new(off: scrub::RulesOff) -> Asks {
        let reading = BTreeMap::new();
        Asks { reading, off }
    }

    /// What is asked of the shelf, and for whom.
    pub fn operation(
        &mut self,
        of: (DiskId, PgId),
        ask: StoreAsk,
        buffers: &Buffers,
    ) -> (Operation, Whose) {
        match ask {
            StoreAsk::Replica(output) => {
                let (op, operation) = self.of_replica(of, output, buffers);
                (operation, Whose::Replica(op))
            }
            StoreAsk::Mender(output) => {
                let (mending, operation) = self.of_mender(output, buffers);
                (operation, Whose::Mender(mending))
            }
            StoreAsk::Comparer(output) => {
                let (comparing, operation) = of_comparer(output);
                (operation, Whose::Comparer(comparing))
            }
            StoreAsk::Forget => (Operation::Forget, Whose::Nobody),
        }
    }

    fn of_replica(
        &mut self,
        (disk, pg): (DiskId, PgId),
        output: replica::Output,
        buffers: &Buffers,
    ) -> (Op, Operation) {
        match output {
            replica::Output::Fence {
                op,
                version,
                session,
                fences,
            } => (
                op,
                Operation::Fence {
                    version,
                    session,
                    fences,
                },
            ),
            replica::Output::Change {
                op,
                range,
                at,
                change,
                stamp,
                payload,
            } => {
                let what = match change {
                    Change::Write { run, .. } => {
                        let payload = payload.expect("a write has payload");
                        let values = buffers.in_place(run, payload.at());
                        What::Data { run, values }
                    }
                    Change::Zero { run } => What::Zero { run },
                    Change::ZeroChunks { count } => What::ZeroChunks { count },
                };
                let change = Operation::Change {
                    range,
                    at,
                    what,
                    stamp,
                };
                (op, change)
            }
            replica::Output::Read { op, at, run } => {
                self.reading.insert((disk, pg, op), run);
                (op, Operation::Read { at, run })
            }
            replica::Output::List { op, since, after } => {
                let most = PAGE;
                (op, Operation::List { since, after, most })
            }
            replica::Output::Fetch { op, at } => (op, Operation::Fetch { chunk: at }),
            replica::Output::Look { op, at } => (op, Operation::Look { chunk: at }),
            replica::Output::Fill {
                op,
                at,
                blocks,
                content,
                entries,
                payload,
            } => {
                let mut held = [Block::Absent; 16];
                for (place, block) in held.iter_mut().enumerate() {
                    if content.zeroes & 1 << place != 0 {
                        *block = Block::Zero;
                    }
                    if content.data & 1 << place != 0 {
                        let payload = payload.as_ref().expect("data has payload");
                        *block = Block::Data(buffers.value(payload.at().plus(place as u32)));
                    }
                }
                let fill = Operation::Fill {
                    chunk: at,
                    blocks,
                    content: Box::new(held),
                    stamp: content.stamp,
                    entries,
                };
                (op, fill)
            }
            output => unreachable!("{output:?} is not for a store"),
        }
    }

    fn of_mender(&self, output: scrub::Output, buffers: &Buffers) -> (Mending, Operation) {
        match output {
            scrub::Output::Mend {
                op, what, payload, ..
            } => (Mending::Mend(op), self.mend(what, payload.at(), buffers)),
            scrub::Output::Look { op, at, .. } => {
                (Mending::Look(op), Operation::Fetch { chunk: at })
            }
            scrub::Output::Salvage { op, ask, .. } => {
                let gives = match self.off.on(Rule::Checksum) {
                    true => Gives::Anything,
                    false => Gives::Matching,
                };
                (Mending::Salvage(op, ask), Operation::Salvage { ask, gives })
            }
            output => unreachable!("{output:?} is not for a store"),
        }
    }

    fn mend(&self, what: MendAsk, payload: BufRef, buffers: &Buffers) -> Operation {
        let value = |place: usize| match what.blocks & 1 << place {
            0 => 0,
            _ => buffers.value(payload.plus(place as u32)),
        };
        let takes = match self.off.on(Rule::Checksum) || self.off.on(Rule::Newer) {
            true => Takes::Blocks(what.blocks),
            false => Takes::ByChecksum,
        };
        Operation::Mend {
            what,
            values: Box::new(std::array::from_fn(value)),
            takes,
        }
    }

    /// What the machine that asked is told. `None`: it was asked for by nobody here.
    pub fn answer(
        &mut self,
        (disk, pg, whose): (DiskId, PgId, Whose),
        outcome: Outcome,
        (buffers, holds): (&mut Buffers, &Holds),
    ) -> Option<StoreAnswer> {
        Some(match whose {
            Whose::Replica(op) => {
                let run = self.reading.remove(&(disk, pg, op));
                StoreAnswer::Replica(to_replica(op, outcome, run, (buffers, holds))?)
            }
            Whose::Mender(mending) => {
                StoreAnswer::Mender(to_mender(mending, outcome, (buffers, holds)))
            }
            Whose::Comparer(comparing) => to_comparer(comparing, outcome),
            Whose::Nobody => StoreAnswer::Forgotten,
        })
    }
}

fn of_comparer(output: compare::Output) -> (Comparing, Operation) {
    match output {
        compare::Output::List { op, after, .. } => {
            let list = Operation::List {
                since: 0,
                after,
                most: COMPARED_PAGE,
            };
            (Comparing::List(op), list)
        }
        compare::Output::Look { op, at, .. } => {
            (Comparing::Look(op, at), Operation::Inspect { chunk: at })
        }
        output => unreachable!("{output:?} is not for a store"),
    }
}

fn to_replica(
    op: Op,
    outcome: Outcome,
    run: Option<BlockRun>,
    (buffers, holds): (&mut Buffers, &Holds),
) -> Option<replica::Input> {
    Some(match outcome {
        Outcome::Stored => replica::Input::Stored { op, ok: true },
        Outcome::Failed(_) => match op {
            Op::Fence | Op::Change { .. } | Op::Fill(_) => replica::Input::Stored { op, ok: false },
            _ => replica::Input::NotLoaded { op },
        },
        Outcome::Value(content) => {
            let (zeroes, crcs, payload) = buffers.read(&content, run?);
            let payload = hold(holds, payload);
            replica::Input::Loaded {
                op,
                crcs,
                zeroes,
                payload,
            }
        }
        Outcome::Looked(takes) => replica::Input::Looked { op, takes },
        Outcome::Salvaged(_) => unreachable!("a replica salvages nothing"),
        Outcome::Chunks { chunks, more } => replica::Input::Listed { op, chunks, more },
        Outcome::Chunk(found) => {
            let (content, payload) = buffers.fetched(found);
            let payload = payload.map(|at| hold(holds, at));
            replica::Input::Fetched {
                op,
                content,
                payload,
            }
        }
    })
}

fn to_mender(
    mending: Mending,
    outcome: Outcome,
    (buffers, holds): (&mut Buffers, &Holds),
) -> scrub::Input {
    let is_gone = outcome == Outcome::Failed(Failure::Gone);
    match (mending, outcome) {
        (Mending::Mend(op), outcome) => scrub::Input::Mended {
            op,
            ok: outcome == Outcome::Stored,
        },
        (Mending::Look(op), _) => scrub::Input::Looked { op, ok: !is_gone },
        (Mending::Salvage(op, ask), Outcome::Salvaged(values)) => {
            let mut found = ask;
            found.blocks = 0;
            for (place, value) in values.iter().enumerate() {
                if let Some(value) = value {
                    found.blocks |= 1 << place;
                    found.crcs[place] = crc_of(*value);
                }
            }
            let blocks = values.map(Option::unwrap_or_default).to_vec();
            let payload = (found.blocks != 0).then(|| hold(holds, buffers.put(blocks)));
            let found = Some(found.of(u16::MAX));
            scrub::Input::Salvaged { op, found, payload }
        }
        (Mending::Salvage(op, _), _) => scrub::Input::Salvaged {
            op,
            found: None,
            payload: None,
        },
    }
}

fn to_comparer(comparing: Comparing, outcome: Outcome) -> StoreAnswer {
    match comparing {
        Comparing::List(op) => {
            let found = match outcome {
                Outcome::Chunks { chunks, more } => Some((chunks, more)),
                _ => None,
            };
            StoreAnswer::Comparer(compare::Input::Listed { op, found })
        }
        Comparing::Look(op, at) => {
            let found = match outcome {
                Outcome::Chunk(found) => Ok(Inspected {
                    content: found.map(|chunk| content_of(&chunk)),
                    // A shelf keeps its tombstones.
                    forgotten: 0,
                }),
                _ => Err(Unread),
            };
            StoreAnswer::Inspected { op, at, found }
        }
    }
}

fn content_of(chunk: &Chunk) -> Content {
    let mut of = Content {
        stamp: chunk.stamp,
        data: 0,
        zeroes: 0,
        crcs: [0; 16],
    };
    for (place, block) in chunk.content.iter().enumerate() {
        match block {
            Block::Data(value) => {
                of.data |= 1 << place;
                of.crcs[place] = crc_of(*value);
            }
            Block::Zero => of.zeroes |= 1 << place,
            Block::Absent => {}
        }
    }
    of
}
