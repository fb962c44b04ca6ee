//! Changes that replicas ask for besides their writes: fills (R15), fences (R6), the end of a replica (R24).
//!
//! A fill makes some blocks of a chunk what another replica has there, in one record. All 16 blocks as data go durably to a
//! fresh slot first, as a whole chunk that is written does; anything else goes into the journal with its payload. A fill of
//! the whole chunk never goes to the slot that the chunk had, so that what has rotted there is left behind.

use super::batch::{Empty, Fill, Payload, Record};
use super::door::{Outbox, Output, StoreError, StoreOp};
use super::engine::{Ask, ChunkWrite, Store, done};
use super::journal::Act;
use super::page::NO_SLOT;
use super::table::LeafId;
use super::write::{NO_ENTRY, Short};
use crate::base::{BlockRun, Break, BufRef};

impl Store {
    pub(super) fn fill(
        &mut self,
        leaf: LeafId,
        op: StoreOp,
        buf: BufRef,
        mut fill: Box<Fill>,
        out: &mut Outbox,
    ) {
        if !fill.is_sane() {
            return done(op, Err(StoreError::Busy), out);
        }
        let at = fill.at;
        fill.empty = self.empty_of(fill.pg);
        let found = self.table.find(leaf, at.chunk.in_extent(), at.layer);
        let leaves_nothing = fill.data | fill.zero == 0 && fill.empty == Empty::Forgotten;
        if found.is_none() && leaves_nothing {
            return done(op, Ok(()), out);
        }
        let reserved = self.reserve_entry(leaf, at).and_then(|entry| {
            let slot = self.slot_for(entry, &fill)?;
            Ok((entry, slot))
        });
        let (entry, slot) = match reserved {
            Ok(reserved) => reserved,
            Err(short) => {
                let ask = Ask::Fill { op, buf, fill };
                return self.put_off(leaf, at, short, ask, out);
            }
        };
        fill.slot = slot;
        let overlay = self.overlay_of(entry, leaf, at);
        overlay.issued += 1;
        if !fill.is_whole() && slot != NO_SLOT {
            overlay.slot = slot;
        }
        if fill.payload == Payload::Slot {
            let write = ChunkWrite {
                op,
                at,
                entry,
                slot,
                buf,
                crcs: fill.crcs,
                pg: fill.pg,
                range: fill.range,
                stamp: fill.stamp,
                fill: Some(fill),
                recorded: false,
            };
            return self.gather(write, out);
        }
        for run in BlockRun::runs_of(fill.data) {
            out.list.push(Output::Pin {
                buf: buf.plus(run.first()),
                blocks: run.count(),
            });
        }
        self.memory_blocks += u64::from(fill.data.count_ones());
        self.push_record(Record::Fill(fill), Act { op, entry, buf });
        self.close_batch_if_full(out);
    }

    /// The slot that a fill goes to; none where it brings no data.
    fn slot_for(&mut self, entry: u32, fill: &Fill) -> Result<u32, Short> {
        if fill.data == 0 {
            return Ok(NO_SLOT);
        }
        let own = self.table.entry(entry).slot;
        let taken = self.overlays.get(entry).map_or(NO_SLOT, |o| o.slot);
        let has = if taken == NO_SLOT { own } else { taken };
        match fill.is_whole() {
            // It gives the slot back that the chunk has.
            true => self.new_slot(has != NO_SLOT),
            false if has == NO_SLOT => self.new_slot(false),
            false => Ok(has),
        }
    }

    /// Fences, and the end of a replica: records without payload.
    pub(super) fn change_replica(&mut self, ask: Ask, out: &mut Outbox) {
        let (op, record) = match ask {
            Ask::Fence {
                op,
                pg,
                version,
                session,
                fences,
            } => {
                if let Err(why) = self.replicas.check_fences(fences.len()) {
                    return done(op, Err(why), out);
                }
                let record = Record::Fence {
                    pg,
                    version,
                    session,
                    fences,
                };
                (op, record)
            }
            Ask::DropReplica { op, pg } => (op, Record::DropReplica(pg)),
            other => return debug_assert!(false, "no change of a replica: {other:?}"),
        };
        if self.breaks().on(Break::ForgetFence) && matches!(record, Record::Fence { .. }) {
            self.replicas.take(&record);
            return done(op, Ok(()), out);
        }
        let act = Act {
            op,
            entry: NO_ENTRY,
            buf: BufRef::default(),
        };
        self.push_record(record, act);
        self.close_batch_if_full(out);
    }
}
