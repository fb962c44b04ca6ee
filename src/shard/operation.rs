//! What the machines of a replica ask of its store, and what comes of it: where the words of `protocol` and those of `store` meet.
//!
//! ```text
//!   Replica, Mender, Comparer ──Output──► Operation ──give──► store::Input
//!   Replica, Mender, Comparer ◄──Input─── Outcome   ◄──end─── Answer ◄──of── store::Output
//! ```
//!
//! Who drives them makes an [`Operation`] of what a machine wants, gives it to the store under a name of its own, and takes the store's answer
//! to [`Operation::end`]. That says how it ended, or that it is to be given once more under another name: a store may look at many extents
//! without finding a chunk, and a list without chunks that says "there is more" would begin anew at the same place.
//!
//! The driver's duties:
//! 1. Buffers: what is read comes into a buffer of its own (`into`), one block for each of the run, or for each of the chunk where a whole chunk is meant.
//!    Payload is kept until the outcome is there; what the store needs longer it has pinned.
//! 2. A PG is forgotten when nothing else of it is at the store.
//! 3. Of an [`Outcome::Found`] the comparer is told with [`forgotten`], asked of the store at the same moment or later.
//!
//! It decides nothing, and knows neither versions nor sessions.

use crate::base::{BlockRun, BufRef, ChunkId, Epoch, PgId, Stamp, VolumeId};
use crate::protocol::replication::fill::Content;
use crate::protocol::replication::replica::Durable;
use crate::protocol::replication::{Change, Entry, Takes};
use crate::protocol::scrub::MendAsk;
use crate::store::{self, Holding, StoreError, StoreOp, WindowEntry};
use std::collections::BTreeMap;

/// What is asked of the store of one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Make fences durable, as one (R6).
    Fence {
        version: u32,
        session: u32,
        fences: Vec<(VolumeId, Epoch)>,
    },
    /// Make a change durable, as one with its stamp and its entry in the window. The payload of a write begins with the first block of its run.
    Change {
        range: VolumeId,
        at: ChunkId,
        change: Change,
        stamp: Stamp,
        payload: Option<BufRef>,
    },
    /// Blocks as seen from their layer.
    Read {
        at: ChunkId,
        run: BlockRun,
        into: BufRef,
    },
    /// Chunks that were stamped under a version above `since`, from behind one on (R14).
    List {
        since: u32,
        after: Option<ChunkId>,
        /// At most so many.
        most: u32,
    },
    /// What a layer itself holds of a chunk.
    Fetch { at: ChunkId, into: BufRef },
    /// Whether data in this chunk would take space.
    Look { at: ChunkId },
    /// What the table has of a chunk.
    Inspect { at: ChunkId },
    /// Blocks of a chunk come from another replica and keep that one's stamp (R15). The payload has a place for each block of the chunk.
    Fill {
        at: ChunkId,
        blocks: u16,
        content: Content,
        entries: Vec<(VolumeId, Entry)>,
        payload: Option<BufRef>,
    },
    /// The replica is no more (R24).
    Forget,
    /// Those blocks of a chunk that have these checksums.
    Salvage { ask: MendAsk, into: BufRef },
    /// The bytes of damaged blocks. The payload has a place for each block of the chunk.
    Mend { what: MendAsk, payload: BufRef },
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Stored,
    /// The blocks that were read: their checksums, in the order of the run, and a bit for each block of the chunk that is zeroes.
    Loaded {
        crcs: [u32; 16],
        zeroes: u16,
    },
    Listed {
        chunks: Vec<ChunkId>,
        more: bool,
    },
    Fetched(Content),
    /// `None`: the table has no entry of the chunk.
    Found(Option<Content>),
    Looked(Takes),
    /// These of them are there.
    Salvaged(MendAsk),
    Failed(Failure),
}

/// Why it failed. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A block cannot be read, or is not what was written. Which one was told before ([`store::Output::Damaged`]).
    Damaged,
    /// The table or the journal is damaged: the replica is to be made anew ([`store::Torn`]).
    Torn,
    NoSpace,
    /// Too much is under way, or marks are needed first.
    Busy,
    /// The disk failed.
    Gone,
    /// The store is not open, takes no changes, or does not know the layer.
    Refused,
}

/// What a store answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done(Result<(), StoreError>),
    Listed {
        chunks: Vec<ChunkId>,
        more: Option<ChunkId>,
    },
    Loaded(Holding),
    Fetched(Holding),
    Looked(store::Takes),
    Inspected(Option<Holding>),
    Salvaged(u16),
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Ended(Outcome),
    /// The same is given once more: it goes on from where it came to.
    Again,
}

impl Answer {
    /// The answer that this output is, and to what; `None`: it is none, or one to what no replica asks.
    pub fn of(output: &store::Output, out: &store::Outbox) -> Option<(StoreOp, Answer)> {
        let holding = |at: u32| out.holdings[at as usize];
        Some(match *output {
            store::Output::Done { op, result } => (op, Answer::Done(result)),
            store::Output::Listed { op, found } => {
                let store::Found { chunks, more } = &out.lists[found as usize];
                let chunks = &out.chunks[chunks.start as usize..chunks.end as usize];
                let chunks = chunks.iter().map(|(at, _)| *at).collect();
                let more = *more;
                (op, Answer::Listed { chunks, more })
            }
            store::Output::Loaded { op, holding: at } => (op, Answer::Loaded(holding(at))),
            store::Output::Fetched { op, holding: at } => (op, Answer::Fetched(holding(at))),
            store::Output::Looked { op, takes } => (op, Answer::Looked(takes)),
            store::Output::Inspected { op, holding: at } => {
                (op, Answer::Inspected(at.map(holding)))
            }
            store::Output::Salvaged { op, blocks } => (op, Answer::Salvaged(blocks)),
            _ => return None,
        })
    }
}

impl Operation {
    /// The chunk that it is about; `None`: it is about the replica.
    pub fn at(&self) -> Option<ChunkId> {
        match self {
            Operation::Change { at, .. }
            | Operation::Read { at, .. }
            | Operation::Fetch { at, .. }
            | Operation::Look { at }
            | Operation::Inspect { at }
            | Operation::Fill { at, .. } => Some(*at),
            Operation::Salvage { ask, .. } => Some(ask.at),
            Operation::Mend { what, .. } => Some(what.at),
            Operation::Fence { .. } | Operation::List { .. } | Operation::Forget => None,
        }
    }

    /// Gives it to a store by `step`, under the name `op`. Where the store need not be asked, this is how it ended: nonsense is refused (data without payload, a
    /// chunk in the windows of several ranges); and of a fill that replaces no block, because all of them were written in the session, nothing is to be stored.
    pub fn give(
        &self,
        (pg, op): (PgId, StoreOp),
        step: impl FnOnce(store::Input<'_>),
    ) -> Result<(), Outcome> {
        const NONSENSE: Outcome = Outcome::Failed(Failure::Refused);
        match self {
            Operation::Fence {
                version,
                session,
                fences,
            } => step(store::Input::Fence {
                op,
                pg,
                version: *version,
                session: *session,
                fences: fences.clone(),
            }),
            Operation::Change {
                range,
                at,
                change,
                stamp,
                payload,
            } => {
                let (at, stamp, range) = (*at, *stamp, Some(*range));
                match change {
                    Change::Write { run, crcs } => step(store::Input::Write {
                        op,
                        at,
                        run: *run,
                        buf: payload.ok_or(NONSENSE)?,
                        crcs: &crcs[..run.count() as usize],
                        pg,
                        range,
                        stamp,
                    }),
                    Change::Zero { run } => step(store::Input::Zero {
                        op,
                        at,
                        run: *run,
                        pg,
                        range,
                        stamp,
                    }),
                    Change::ZeroChunks { count } => step(store::Input::ZeroChunks {
                        op,
                        at,
                        count: *count,
                        pg,
                        range,
                        stamp,
                    }),
                }
            }
            Operation::Read { at, run, into } => step(store::Input::Load {
                op,
                at: *at,
                run: *run,
                buf: *into,
            }),
            Operation::List { since, after, most } => step(store::Input::List {
                op,
                pg,
                since: *since,
                after: *after,
                max: *most,
            }),
            Operation::Fetch { at, into } => step(store::Input::Fetch {
                op,
                at: *at,
                buf: *into,
            }),
            Operation::Look { at } => step(store::Input::Look { op, at: *at }),
            Operation::Inspect { at } => step(store::Input::Inspect { op, at: *at }),
            Operation::Fill { blocks: 0, .. } => return Err(Outcome::Stored),
            Operation::Fill {
                at,
                blocks,
                content,
                entries,
                payload,
            } => {
                let (range, window) = window_of(*at, entries).ok_or(NONSENSE)?;
                let (data, zero) = (content.data & blocks, content.zeroes & blocks);
                let buf = match data {
                    0 => payload.unwrap_or_default(),
                    _ => payload.ok_or(NONSENSE)?,
                };
                step(store::Input::Fill {
                    op,
                    at: *at,
                    pg,
                    blocks: *blocks,
                    data,
                    zero: zero & !data,
                    buf,
                    crcs: &content.crcs,
                    stamp: content.stamp,
                    range,
                    window: &window,
                });
            }
            Operation::Forget => step(store::Input::DropReplica { op, pg }),
            Operation::Salvage { ask, into } => step(store::Input::Salvage {
                op,
                at: ask.at,
                blocks: ask.blocks,
                crcs: &ask.crcs,
                buf: *into,
            }),
            Operation::Mend { what, payload } => step(store::Input::Mend {
                op,
                at: what.at,
                blocks: what.blocks,
                crcs: &what.crcs,
                buf: *payload,
            }),
        }
        Ok(())
    }

    /// Takes the store's answer.
    pub fn end(&mut self, answer: Answer) -> Next {
        Next::Ended(match (&mut *self, answer) {
            (_, Answer::Done(Err(why))) => Outcome::Failed(failure(why)),
            (Operation::List { after, .. }, Answer::Listed { chunks, more }) => {
                if chunks.is_empty() && more.is_some() {
                    *after = more;
                    return Next::Again;
                }
                let more = more.is_some();
                Outcome::Listed { chunks, more }
            }
            (Operation::Read { run, .. }, Answer::Loaded(found)) => {
                let mut crcs = [0; 16];
                for (n, block) in run.blocks().enumerate() {
                    crcs[n] = found.crcs[block as usize];
                }
                let zeroes = found.zero;
                Outcome::Loaded { crcs, zeroes }
            }
            (Operation::Fetch { .. }, Answer::Fetched(found)) => {
                Outcome::Fetched(content_of(&found))
            }
            (Operation::Inspect { .. }, Answer::Inspected(found)) => {
                Outcome::Found(found.as_ref().map(content_of))
            }
            (Operation::Look { .. }, Answer::Looked(takes)) => Outcome::Looked(match takes {
                store::Takes::Nothing => Takes::Nothing,
                store::Takes::Slot => Takes::Space,
            }),
            (Operation::Salvage { ask, .. }, Answer::Salvaged(blocks)) => {
                Outcome::Salvaged(ask.of(blocks))
            }
            (
                Operation::Fence { .. }
                | Operation::Change { .. }
                | Operation::Fill { .. }
                | Operation::Forget
                | Operation::Mend { .. },
                Answer::Done(Ok(())),
            ) => Outcome::Stored,
            (of, answer) => {
                debug_assert!(false, "{answer:?} is no answer to {of:?}");
                Outcome::Failed(Failure::Refused)
            }
        })
    }
}

/// What a fill says to a window: the range, and for each block at most one entry, the newest. An older one of the same block says nothing more: the
/// block has what the newest wrote, and what is in flight does not overlap (R2). The version 0 says that the writes as such were not carried out here. `None`: entries of several
/// ranges, or of other chunks.
fn window_of(
    at: ChunkId,
    entries: &[(VolumeId, Entry)],
) -> Option<(Option<VolumeId>, Vec<WindowEntry>)> {
    let range = entries.first().map(|(range, _)| *range);
    let is_one = |(of, entry): &(VolumeId, Entry)| Some(*of) == range && entry.at == at;
    if !entries.iter().all(is_one) {
        return None;
    }
    let mut newest_first: Vec<&Entry> = entries.iter().map(|(_, entry)| entry).collect();
    newest_first.sort_unstable_by_key(|entry| std::cmp::Reverse((entry.epoch, entry.sequence)));
    let mut window: BTreeMap<(Epoch, u64), WindowEntry> = BTreeMap::new();
    let mut covered = 0u16;
    for entry in newest_first {
        let blocks = entry.blocks & !covered;
        covered |= entry.blocks;
        if blocks != 0 {
            let stamp = Stamp {
                version: 0,
                epoch: entry.epoch,
                sequence: entry.sequence,
            };
            let entry = WindowEntry { at, blocks, stamp };
            window.insert((stamp.epoch, stamp.sequence), entry);
        }
    }
    Some((range, window.into_values().collect()))
}

fn content_of(found: &Holding) -> Content {
    Content {
        stamp: found.stamp,
        data: found.data,
        zeroes: found.zero,
        crcs: found.crcs,
    }
}

fn failure(why: StoreError) -> Failure {
    match why {
        StoreError::Damaged => Failure::Damaged,
        StoreError::Torn => Failure::Torn,
        StoreError::NoSpace => Failure::NoSpace,
        StoreError::Busy => Failure::Busy,
        StoreError::DiskFailed => Failure::Gone,
        StoreError::ReadOnly
        | StoreError::NotOpen
        | StoreError::NoSuchLayer
        | StoreError::BadSize => Failure::Refused,
    }
}

/// What a replica knows when its store was opened. What was written in a layer that is no more is nowhere, and nobody will ask for it.
pub fn durable_of(store: &store::Store, pg: PgId) -> Option<Durable> {
    let found = store.replica(pg)?;
    let ranges = found.ranges().map(|(id, range)| {
        let entries = range.window().filter(|held| store.has_layer(held.at.layer));
        let entries = entries.map(|held| entry_of(&held)).collect();
        (id, range.epoch, range.mark, entries)
    });
    Some(Durable::found(found.version, found.session, ranges))
}

/// An entry of a window in the protocol's words.
pub fn entry_of(held: &WindowEntry) -> Entry {
    Entry {
        epoch: held.stamp.epoch,
        sequence: held.stamp.sequence,
        at: held.at,
        blocks: held.blocks,
        version: held.stamp.version,
    }
}

/// The highest version of a tombstone that may be missing of a PG, which goes with what a comparer is told of a look.
pub fn forgotten(found: Option<&store::Replica>) -> u32 {
    found.map_or(0, |replica| replica.let_go)
}

#[cfg(test)]
#[path = "operation_tests.rs"]
mod tests;
