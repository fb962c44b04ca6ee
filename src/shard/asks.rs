//! What the machines above the stores ask of them: said in the stores' words ([`operation`](super::operation)), and the answers in theirs.
//!
//! An ask holds the payload that it is about until the store has answered: what is written, or the place that is read into.

use super::fabric::{Inspected, StoreAnswer, StoreAsk, Unread};
use super::operation::{Failure, Operation, Outcome};
use crate::base::{BufRef, ChunkId, DiskId, DiskSlot, Payload, PgId, Time};
use crate::protocol::replication::Change;
use crate::protocol::replication::fill;
use crate::protocol::replication::replica::{self, Op};
use crate::protocol::scrub::compare;
use crate::protocol::scrub::{self, MendAsk};

/// Blocks of a chunk.
const CHUNK_BLOCKS: u32 = 16;

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Replica(Op),
    Mender(Mending),
    Comparer(Comparing),
    /// The replica is forgotten.
    Nobody,
}

/// What a mender asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mending {
    Salvage(u64),
    Mend(u64),
    Look(u64),
}

/// What a comparer asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparing {
    List(u64),
    Look(u64, ChunkId),
}

/// An ask of one store that is under way, or waits for memory.
#[derive(Debug)]
pub(super) struct Asked {
    pub disk: DiskId,
    pub slot: DiskSlot,
    pub pg: PgId,
    pub operation: Operation,
    whose: Whose,
    payload: Option<Payload>,
    pub since: Time,
}

impl Asked {
    pub fn new((disk, slot, pg): (DiskId, DiskSlot, PgId), ask: StoreAsk, now: Time) -> Asked {
        let (whose, operation, payload) = match ask {
            StoreAsk::Replica(output) => of_replica(output),
            StoreAsk::Mender(output) => of_mender(output),
            StoreAsk::Comparer(output) => of_comparer(output),
            StoreAsk::Forget => (Whose::Nobody, Operation::Forget, None),
        };
        Asked {
            disk,
            slot,
            pg,
            operation,
            whose,
            payload,
            since: now,
        }
    }

    /// The PG that it fences, and under which version.
    pub fn fences(&self) -> Option<(DiskSlot, PgId, u32)> {
        match self.operation {
            Operation::Fence { version, .. } => Some((self.slot, self.pg, version)),
            _ => None,
        }
    }

    /// How many blocks it reads, for which there is no place yet.
    pub fn needs(&self) -> u32 {
        match &self.operation {
            _ if self.payload.is_some() => 0,
            Operation::Read { run, .. } => run.count(),
            Operation::Fetch { .. } | Operation::Salvage { .. } => CHUNK_BLOCKS,
            _ => 0,
        }
    }

    /// Here is the place.
    pub fn read_into(&mut self, place: Payload) {
        if let Operation::Read { into, .. }
        | Operation::Fetch { into, .. }
        | Operation::Salvage { into, .. } = &mut self.operation
        {
            *into = place.at();
            self.payload = Some(place);
        }
    }

    /// What the machine that asked is told. `forgotten`: the highest version of a tombstone of the PG that was let go.
    pub fn answer(self, outcome: Outcome, forgotten: u32) -> StoreAnswer {
        match self.whose {
            Whose::Replica(op) => StoreAnswer::Replica(to_replica(op, outcome, self.payload)),
            Whose::Mender(mending) => {
                StoreAnswer::Mender(to_mender(mending, outcome, self.payload))
            }
            Whose::Comparer(comparing) => to_comparer(comparing, outcome, forgotten),
            Whose::Nobody => StoreAnswer::Forgotten,
        }
    }
}

fn of_replica(output: replica::Output) -> (Whose, Operation, Option<Payload>) {
    let into = BufRef::default();
    let (op, operation, payload) = match output {
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
            None,
        ),
        replica::Output::Change {
            op,
            range,
            at,
            change,
            stamp,
            payload,
        } => {
            debug_assert!(payload.is_some() || !matches!(change, Change::Write { .. }));
            let at_buf = payload.as_ref().map(Payload::at);
            let change = Operation::Change {
                range,
                at,
                change,
                stamp,
                payload: at_buf,
            };
            (op, change, payload)
        }
        replica::Output::Read { op, at, run } => (op, Operation::Read { at, run, into }, None),
        replica::Output::List { op, since, after } => {
            let most = fill::PAGE_MAX as u32;
            (op, Operation::List { since, after, most }, None)
        }
        replica::Output::Fetch { op, at } => (op, Operation::Fetch { at, into }, None),
        replica::Output::Look { op, at } => (op, Operation::Look { at }, None),
        replica::Output::Fill {
            op,
            at,
            blocks,
            content,
            entries,
            payload,
        } => {
            let at_buf = payload.as_ref().map(Payload::at);
            let fill = Operation::Fill {
                at,
                blocks,
                content,
                entries,
                payload: at_buf,
            };
            (op, fill, payload)
        }
        replica::Output::Answer { .. }
        | replica::Output::FillAnswer { .. }
        | replica::Output::FillAsk { .. }
        | replica::Output::Filled { .. }
        | replica::Output::Lost { .. }
        | replica::Output::Learn { .. } => unreachable!("the fabric asks stores for nothing else"),
    };
    (Whose::Replica(op), operation, payload)
}

fn of_mender(output: scrub::Output) -> (Whose, Operation, Option<Payload>) {
    let into = BufRef::default();
    let (mending, operation, payload) = match output {
        scrub::Output::Mend {
            op, what, payload, ..
        } => {
            let mend = Operation::Mend {
                what,
                payload: payload.at(),
            };
            (Mending::Mend(op), mend, Some(payload))
        }
        // Reading all of it finds what is damaged.
        scrub::Output::Look { op, at, .. } => {
            (Mending::Look(op), Operation::Fetch { at, into }, None)
        }
        scrub::Output::Salvage { op, ask, .. } => {
            (Mending::Salvage(op), Operation::Salvage { ask, into }, None)
        }
        scrub::Output::Ask { .. } | scrub::Output::Answer { .. } => {
            unreachable!("the fabric asks stores for nothing else")
        }
    };
    (Whose::Mender(mending), operation, payload)
}

fn of_comparer(output: compare::Output) -> (Whose, Operation, Option<Payload>) {
    let (comparing, operation) = match output {
        compare::Output::List { op, after, .. } => {
            let list = Operation::List {
                since: 0,
                after,
                most: compare::PAGE_MAX as u32,
            };
            (Comparing::List(op), list)
        }
        compare::Output::Look { op, at, .. } => {
            (Comparing::Look(op, at), Operation::Inspect { at })
        }
        compare::Output::Ask { .. }
        | compare::Output::Answer { .. }
        | compare::Output::Report { .. }
        | compare::Output::Forget { .. } => unreachable!("the fabric asks stores for nothing else"),
    };
    (Whose::Comparer(comparing), operation, None)
}

fn to_replica(op: Op, outcome: Outcome, payload: Option<Payload>) -> replica::Input {
    let stores = matches!(op, Op::Fence | Op::Change { .. } | Op::Fill(_));
    match (outcome, payload) {
        (Outcome::Stored, _) => replica::Input::Stored { op, ok: true },
        (Outcome::Loaded { crcs, zeroes }, Some(payload)) => replica::Input::Loaded {
            op,
            crcs,
            zeroes,
            payload,
        },
        (Outcome::Listed { chunks, more }, _) => replica::Input::Listed { op, chunks, more },
        (Outcome::Fetched(content), payload) => replica::Input::Fetched {
            op,
            content,
            payload: payload.filter(|_| content.data != 0),
        },
        (Outcome::Looked(takes), _) => replica::Input::Looked { op, takes },
        (Outcome::Failed(Failure::NoSpace), _) if matches!(op, Op::Change { .. }) => {
            replica::Input::NoSpace { op }
        }
        (outcome, _) => {
            debug_assert!(
                matches!(outcome, Outcome::Failed(_)),
                "{outcome:?} to {op:?}"
            );
            match stores {
                true => replica::Input::Stored { op, ok: false },
                false => replica::Input::NotLoaded { op },
            }
        }
    }
}

fn to_mender(mending: Mending, outcome: Outcome, payload: Option<Payload>) -> scrub::Input {
    match (mending, outcome) {
        (Mending::Mend(op), outcome) => scrub::Input::Mended {
            op,
            ok: outcome == Outcome::Stored,
        },
        (Mending::Look(op), outcome) => scrub::Input::Looked {
            op,
            ok: outcome != Outcome::Failed(Failure::Gone),
        },
        (Mending::Salvage(op), Outcome::Salvaged(found)) => scrub::Input::Salvaged {
            op,
            payload: payload.filter(|_| found.blocks != 0),
            found: Some(found),
        },
        (Mending::Salvage(op), _) => scrub::Input::Salvaged {
            op,
            found: None::<MendAsk>,
            payload: None,
        },
    }
}

fn to_comparer(comparing: Comparing, outcome: Outcome, forgotten: u32) -> StoreAnswer {
    match comparing {
        Comparing::List(op) => {
            let found = match outcome {
                Outcome::Listed { chunks, more } => Some((chunks, more)),
                _ => None,
            };
            StoreAnswer::Comparer(compare::Input::Listed { op, found })
        }
        Comparing::Look(op, at) => {
            let found = match outcome {
                Outcome::Found(content) => Ok(Inspected { content, forgotten }),
                _ => Err(Unread),
            };
            StoreAnswer::Inspected { op, at, found }
        }
    }
}
