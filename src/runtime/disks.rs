//! The disks of one shard: carries out the operations of its stores.
//!
//! Each operation is answered once, in the order in which they end. The driver's own buffers (heads of
//! writes, metadata, blocks that are only checked) come from a zone that clients cannot use; where even that is
//! full, operations wait for others to end.

use super::handle::AttachError;
use super::tags::Completed;
use super::transfer::{Next, Transfer, What};
use crate::base::{BLOCK, BufId, BufRef, Time};
use crate::io::{Arena, Buffers, Completion, Disk, FileNo, Part, Ring};
use crate::observe::DiskOperation;
use crate::shard::DiskSlot;
use crate::store::{DiskFault, DiskOp, Durability, IoId, Span, WriteKind};
use std::collections::VecDeque;
use std::io;

/// Zeroes that are written ahead, in blocks of one buffer: 256 KiB.
const ZERO_BLOCKS: u32 = 64;

struct Attached {
    /// Holds the lock; the ring has a duplicate of its file.
    disk: Disk,
    file: FileNo,
}

/// An operation that waits for a buffer of the driver's.
struct Parked {
    slot: DiskSlot,
    op: DiskOp,
    head: Vec<u8>,
    body: Vec<Span>,
    since: Time,
}

/// How an operation ended, and what its answer needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub slot: DiskSlot,
    pub id: IoId,
    pub result: Result<(), DiskFault>,
    pub what: What,
    pub operation: DiskOperation,
    /// When it was asked for.
    pub since: Time,
    /// To be freed when the answer was given.
    pub own: Option<BufId>,
}

/// Where the payload and metadata of a write lie.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub arena: &'a [u8],
    pub spans: &'a [Span],
}

pub(super) struct Disks {
    slots: Vec<Option<Attached>>,
    transfers: Vec<Transfer>,
    free: Vec<u32>,
    buffers: Buffers,
    zeroes: BufRef,
    parked: VecDeque<Parked>,
    /// Operations that could not even be submitted.
    failed: Vec<Ended>,
}

impl Disks {
    /// With the driver's own memory of this shard.
    pub fn new(mut buffers: Buffers) -> io::Result<Disks> {
        let zeroes = buffers
            .allocate(ZERO_BLOCKS)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let zeroes = BufRef {
            id: zeroes,
            block: 0,
        };
        buffers.arena().zero_blocks(zeroes, ZERO_BLOCKS);
        Ok(Disks {
            slots: Vec::new(),
            transfers: Vec::new(),
            free: Vec::new(),
            buffers,
            zeroes,
            parked: VecDeque::new(),
            failed: Vec::new(),
        })
    }

    /// The driver's own buffers.
    pub fn buffers(&mut self) -> &mut Buffers {
        &mut self.buffers
    }

    /// Takes a disk. `Stopped` where the ring cannot take its file.
    pub fn attach(
        &mut self,
        slot: DiskSlot,
        disk: Disk,
        ring: &mut Ring,
    ) -> Result<(), AttachError> {
        let place = usize::from(slot.0);
        if self.slots.len() <= place {
            self.slots.resize_with(place + 1, || None);
        }
        if self.slots[place].is_some() {
            return Err(AttachError::SlotTaken);
        }
        let file = ring
            .adopt_disk(&disk)
            .map_err(|_| AttachError::TooManyFiles)?;
        self.slots[place] = Some(Attached { disk, file });
        Ok(())
    }

    /// Makes the disk as long as its store is to become. `Gone` where it cannot.
    pub fn grow(&mut self, slot: DiskSlot, bytes: u64) -> Result<(), crate::io::DiskError> {
        match self.attached(slot) {
            Some(attached) => attached.disk.grow(bytes).map(drop),
            None => Ok(()), // the store answers for it
        }
    }

    fn attached(&mut self, slot: DiskSlot) -> Option<&mut Attached> {
        self.slots.get_mut(usize::from(slot.0))?.as_mut()
    }

    /// Begins an operation.
    pub fn start(
        &mut self,
        slot: DiskSlot,
        op: &DiskOp,
        from: Source<'_>,
        now: Time,
        ring: &mut Ring,
    ) {
        if !self.parked.is_empty() || !self.try_start(slot, op, from, now, ring) {
            self.park(slot, op, from, now);
        }
    }

    /// Begins what waited, where there is room now. To be called once a turn.
    pub fn start_parked(&mut self, ring: &mut Ring) {
        while let Some(parked) = self.parked.pop_front() {
            let from = Source {
                arena: &parked.head,
                spans: &parked.body,
            };
            if !self.try_start(parked.slot, &parked.op, from, parked.since, ring) {
                self.parked.push_front(parked);
                return;
            }
        }
    }

    fn park(&mut self, slot: DiskSlot, op: &DiskOp, from: Source<'_>, since: Time) {
        let (mut op, mut bytes, mut spans) = (op.clone(), Vec::new(), Vec::new());
        if let DiskOp::Write { head, body, .. } = &mut op {
            bytes = from.arena[head.start as usize..head.end as usize].to_vec();
            spans = from.spans[body.start as usize..body.end as usize].to_vec();
            (*head, *body) = (0..bytes.len() as u32, 0..spans.len() as u32);
        }
        self.parked.push_back(Parked {
            slot,
            op,
            head: bytes,
            body: spans,
            since,
        });
    }

    /// False where there is no buffer for it now.
    fn try_start(
        &mut self,
        slot: DiskSlot,
        op: &DiskOp,
        from: Source<'_>,
        since: Time,
        ring: &mut Ring,
    ) -> bool {
        let own_blocks = match op {
            DiskOp::Write { head, .. } => (head.end - head.start).div_ceil(BLOCK as u32),
            DiskOp::CheckBlocks { blocks, .. } => *blocks,
            DiskOp::ReadMeta { len, .. } => len.div_ceil(BLOCK as u32),
            _ => 0,
        };
        let own = match own_blocks {
            0 => None,
            blocks => match self.buffers.allocate(blocks) {
                None => return false,
                own => own,
            },
        };
        let Some(attached) = self.attached(slot) else {
            // A store without its disk: it learns so.
            self.fail(slot, op, own, since);
            return true;
        };
        let (file, commit) = (attached.file, attached.disk.commit());
        let key = self.vacant(slot, file);
        let transfer = &mut self.transfers[key as usize];
        (transfer.own, transfer.operation, transfer.since) = (own, operation_of(op), since);
        fill(
            transfer,
            op,
            from,
            commit,
            self.buffers.arena(),
            self.zeroes,
        );
        self.submit(key, ring);
        true
    }

    fn vacant(&mut self, slot: DiskSlot, file: FileNo) -> u32 {
        if let Some(key) = self.free.pop() {
            let transfer = &mut self.transfers[key as usize];
            (transfer.slot, transfer.file, transfer.next) = (slot, file, 0);
            transfer.parts.clear();
            return key;
        }
        self.transfers.push(Transfer {
            slot,
            id: IoId(0),
            what: What::Flush,
            operation: DiskOperation::Flush,
            since: Time(0),
            own: None,
            file,
            offset: 0,
            parts: Vec::new(),
            next: 0,
        });
        self.transfers.len() as u32 - 1
    }

    fn submit(&mut self, key: u32, ring: &mut Ring) {
        let tag = Completed::Transfer(key).tag();
        if self.transfers[key as usize].submit(ring, tag).is_err() {
            // The ring itself refuses: nothing of this disk can be relied on any more.
            let ended = self.end(key, Err(DiskFault::Gone));
            self.failed.push(ended);
        }
    }

    /// Takes a completion in; what ended by it.
    pub fn completed(&mut self, key: u32, done: Completion, ring: &mut Ring) -> Option<Ended> {
        let next = self.transfers[key as usize].completed(done.outcome());
        match next {
            Next::Again => {
                self.submit(key, ring);
                None
            }
            Next::Ended(result) => Some(self.end(key, result)),
        }
    }

    /// An operation that failed before it was submitted, once each.
    pub fn take_failed(&mut self) -> Option<Ended> {
        self.failed.pop()
    }

    /// Whether no operation is in flight or waits.
    pub fn is_quiet(&self) -> bool {
        self.free.len() == self.transfers.len() && self.parked.is_empty()
    }

    /// Whether operations wait for something that no completion will tell of.
    pub fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    fn end(&mut self, key: u32, result: Result<(), DiskFault>) -> Ended {
        self.free.push(key);
        let transfer = &mut self.transfers[key as usize];
        Ended {
            slot: transfer.slot,
            id: transfer.id,
            result,
            what: transfer.what,
            operation: transfer.operation,
            since: transfer.since,
            own: transfer.own.take(),
        }
    }

    fn fail(&mut self, slot: DiskSlot, op: &DiskOp, own: Option<BufId>, since: Time) {
        self.failed.push(Ended {
            slot,
            id: id_of(op),
            result: Err(DiskFault::Gone),
            what: What::Flush,
            operation: operation_of(op),
            since,
            own,
        });
    }
}

/// What an operation is in the words of a transfer.
fn fill(
    transfer: &mut Transfer,
    op: &DiskOp,
    from: Source<'_>,
    commit: crate::io::Commit,
    memory: &Arena,
    zeroes: BufRef,
) {
    transfer.id = id_of(op);
    let own = transfer.own.map(|id| BufRef { id, block: 0 });
    let parts = &mut transfer.parts;
    match op {
        DiskOp::Write {
            offset,
            head,
            body,
            durability,
            ..
        } => {
            if let Some(own) = own {
                let head = &from.arena[head.start as usize..head.end as usize];
                memory.copy_in(own, 0, head);
                let (skip, len) = (0, head.len() as u32);
                parts.push(Part { at: own, skip, len });
            }
            let spans = &from.spans[body.start as usize..body.end as usize];
            parts.extend(spans.iter().map(|span| Part::blocks(span.buf, span.blocks)));
            let durable = *durability == Durability::Durable;
            transfer.offset = *offset;
            transfer.what = What::Write {
                flags: if durable { commit.durable_flags() } else { 0 },
                flush: durable && commit.flushes_after(),
            };
        }
        &DiskOp::ReadBlocks {
            offset,
            buf,
            blocks,
            layer,
            first,
            ..
        } => {
            parts.push(Part::blocks(buf, blocks));
            transfer.offset = offset;
            transfer.what = What::Blocks {
                buf,
                blocks,
                layer,
                first,
            };
        }
        &DiskOp::CheckBlocks {
            offset,
            blocks,
            layer,
            first,
            ..
        } => {
            let buf = own.expect("a check of no blocks");
            parts.push(Part::blocks(buf, blocks));
            transfer.offset = offset;
            transfer.what = What::Blocks {
                buf,
                blocks,
                layer,
                first,
            };
        }
        &DiskOp::ReadMeta { offset, len, .. } => {
            let buf = own.expect("a read of no metadata");
            let skip = 0;
            parts.push(Part { at: buf, skip, len });
            transfer.offset = offset;
            transfer.what = What::Meta { buf, len };
        }
        DiskOp::Flush { .. } => transfer.what = What::Flush,
        &DiskOp::Discard { offset, len, .. } => {
            transfer.offset = offset;
            transfer.what = What::Discard { len };
        }
        &DiskOp::ZeroRun { offset, len, .. } => {
            let mut left = len;
            while left > 0 {
                let blocks = (left / BLOCK).min(u64::from(ZERO_BLOCKS)) as u32;
                parts.push(Part::blocks(zeroes, blocks));
                left -= u64::from(blocks) * BLOCK;
            }
            transfer.offset = offset;
            transfer.what = What::Write {
                flags: 0,
                flush: false,
            };
        }
    }
}

/// What an operation is counted as.
fn operation_of(op: &DiskOp) -> DiskOperation {
    match op {
        DiskOp::Write { kind, .. } => match kind {
            WriteKind::Journal => DiskOperation::Journal,
            WriteKind::Payload => DiskOperation::Write,
            WriteKind::Apply => DiskOperation::Apply,
            WriteKind::Checkpoint => DiskOperation::Checkpoint,
        },
        DiskOp::ReadBlocks { .. } => DiskOperation::Read,
        DiskOp::CheckBlocks { .. } => DiskOperation::Scrub,
        DiskOp::ReadMeta { .. } => DiskOperation::Load,
        DiskOp::Flush { .. } => DiskOperation::Flush,
        DiskOp::Discard { .. } => DiskOperation::Discard,
        DiskOp::ZeroRun { .. } => DiskOperation::Zero,
    }
}

fn id_of(op: &DiskOp) -> IoId {
    match *op {
        DiskOp::Write { id, .. }
        | DiskOp::ReadBlocks { id, .. }
        | DiskOp::CheckBlocks { id, .. }
        | DiskOp::ReadMeta { id, .. }
        | DiskOp::Flush { id }
        | DiskOp::Discard { id, .. }
        | DiskOp::ZeroRun { id, .. } => id,
    }
}
