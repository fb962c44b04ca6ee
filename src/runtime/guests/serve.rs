//! From a guest's ring to the machine, and back.
//!
//! The data of a write is copied once, out of guest memory; that of a read once into it.

use super::super::desk::{Desk, Owner, Pending, Wanted};
use super::{AGAIN, Guests};
use crate::base::{BLOCK, BufId, BufRef, IoError, Request, RequestKind};
use crate::frontend::vhost_user::{Ask, Outcome, Part, Status};
use crate::observe::Operation;
use std::time::Duration;

/// Heads that are taken from one queue before others have their turn.
const AT_ONCE: u32 = 128;

impl Guests {
    /// Takes what a driver has made available.
    pub(super) fn serve(&mut self, key: u32, desk: &mut Desk) {
        let mut taken = 0;
        loop {
            let queue = &mut self.queues[key];
            if !queue.serves() {
                return;
            }
            if taken == AT_ONCE {
                queue.has_more = true;
                return self.touch(key);
            }
            match queue.vring.next(&queue.disk, &queue.memory) {
                Ok(Some((head, ask))) => {
                    taken += 1;
                    queue.vring.be_deaf();
                    if !self.begin(key, head, ask, desk) {
                        return;
                    }
                }
                Ok(None) => {
                    queue.has_more = false;
                    if !queue.vring.listen() {
                        return;
                    }
                    // What came in between is taken without a kick.
                }
                Err(broken) => return self.break_queue(key, broken, desk),
            }
        }
    }

    /// Begins what a head asks for. False where nothing more can be taken from its queue now.
    fn begin(&mut self, key: u32, head: u16, ask: Ask, desk: &mut Desk) -> bool {
        match ask {
            Ask::Refused(status) => self.complete(key, head, status, 0),
            Ask::Id(len) => self.complete(key, head, Status::Ok, len),
            Ask::Flush => self.submit(key, head, RequestKind::Flush, (0, 0), None, desk),
            Ask::Data { kind, offset, len } => {
                return self.begin_data(key, head, kind, (offset, len.into()), desk);
            }
            Ask::Ranges(kind) => return self.begin_ranges(key, head, kind, desk),
        }
        true
    }

    fn begin_data(
        &mut self,
        key: u32,
        head: u16,
        kind: RequestKind,
        at: (u64, u64),
        desk: &mut Desk,
    ) -> bool {
        // The request is shorter than a payload may be, so this fits.
        let blocks = Request::buffer_blocks(kind, at.0, at.1) as u32;
        let Some(buf) = desk.allocate(blocks) else {
            if blocks > desk.buffers.largest() {
                self.complete(key, head, Status::Failed, 0);
                return true;
            }
            return self.starve(key, head);
        };
        if kind == RequestKind::Write {
            let queue = &self.queues[key];
            let memory = &queue.memory;
            each(&queue.vring.request(head).data, at.0, |part, skip| {
                let at = BufRef { id: buf, block: 0 };
                let arena = desk.buffers.arena();
                arena.fill(at, skip, part.len as usize, |bytes| {
                    memory.read(part.guest, bytes)
                });
            });
        }
        self.submit(key, head, kind, at, Some(buf), desk);
        true
    }

    fn begin_ranges(&mut self, key: u32, head: u16, kind: RequestKind, desk: &mut Desk) -> bool {
        let count = self.queues[key].vring.request(head).ranges.len();
        if count == 0 {
            self.complete(key, head, Status::Ok, 0);
            return true;
        }
        // All memory first: none of it is begun where some of it would have to wait.
        let mut bufs: Vec<Option<BufId>> = Vec::new(); // no memory unless something is pushed
        for place in 0..count {
            let (offset, len) = self.queues[key].vring.request(head).ranges[place];
            let blocks = Request::buffer_blocks(kind, offset, len) as u32;
            if blocks == 0 {
                continue;
            }
            let buf = desk.allocate(blocks);
            if buf.is_none() {
                let held = bufs.into_iter().flatten();
                held.for_each(|buf| desk.release(buf, 1));
                return self.starve(key, head);
            }
            bufs.resize(place, None);
            bufs.push(buf);
        }
        for place in 0..count {
            let range = self.queues[key].vring.request(head).ranges[place];
            let buf = bufs.get(place).copied().flatten();
            self.submit(key, head, kind, range, buf, desk);
        }
        true
    }

    /// Has a queue wait for payload memory, its head with it.
    fn starve(&mut self, key: u32, head: u16) -> bool {
        let queue = &mut self.queues[key];
        queue.vring.put_back(head);
        queue.is_hungry = true;
        self.hungry.push_back(key);
        self.touch(key);
        false
    }

    /// Whether queues wait for payload memory.
    pub fn is_hungry(&self) -> bool {
        !self.hungry.is_empty()
    }

    /// Lets go on what waited for payload memory, as far as it reaches.
    pub fn feed(&mut self, desk: &mut Desk) {
        for _ in 0..self.hungry.len() {
            let Some(key) = self.hungry.pop_front() else {
                return;
            };
            let queue = &mut self.queues[key];
            queue.is_hungry = false;
            queue.has_more = true;
            self.serve(key, desk);
            self.touch(key);
        }
    }

    fn submit(
        &mut self,
        key: u32,
        head: u16,
        kind: RequestKind,
        (offset, len): (u64, u64),
        buf: Option<BufId>,
        desk: &mut Desk,
    ) {
        let wanted = Wanted {
            owner: Owner::Guest { queue: key, head },
            volume: self.queues[key].volume,
            kind,
            offset,
            len,
            buf,
            begun: desk.now,
        };
        if let Err(error) = desk.submit(wanted) {
            buf.into_iter().for_each(|buf| desk.release(buf, 1));
            self.part_done(key, head, Err(error), 0, desk);
        }
    }

    /// The machine answered a head, or a part of it.
    pub fn reply(
        &mut self,
        key: u32,
        head: u16,
        pending: &Pending,
        result: Result<(), IoError>,
        desk: &mut Desk,
    ) {
        let mut written = 0;
        if let (Ok(()), RequestKind::Read, Some(id)) = (result, pending.kind, pending.buf) {
            let queue = &self.queues[key];
            let memory = &queue.memory;
            each(
                &queue.vring.request(head).data,
                pending.offset,
                |part, skip| {
                    let at = BufRef { id, block: 0 };
                    let arena = desk.buffers.arena();
                    arena.look(at, skip, part.len as usize, |bytes| {
                        memory.write(part.guest, bytes)
                    });
                },
            );
            written = pending.len as u32; // as long as a payload may be
        }
        pending.buf.into_iter().for_each(|buf| desk.release(buf, 1));
        if let (Ok(()), Some(operation)) = (result, Operation::of(pending.kind)) {
            // It is in the guest's memory, and seen with the end of the turn.
            desk.stats_of(pending.volume)
                .sent(operation, Duration::ZERO, 1);
        }
        self.part_done(key, head, result, written, desk);
    }

    fn part_done(
        &mut self,
        key: u32,
        head: u16,
        result: Result<(), IoError>,
        written: u32,
        desk: &mut Desk,
    ) {
        let outcome = match result {
            Ok(()) => Outcome::Done,
            // The node is stopping, or the volume is on its way here: its guests see a pause and no error.
            Err(IoError::Closed | IoError::Busy) => Outcome::Later,
            Err(_) => Outcome::Failed,
        };
        match self.queues[key].vring.part_done(head, outcome) {
            None => {}
            Some(Outcome::Done) => self.complete(key, head, Status::Ok, written),
            Some(Outcome::Failed) => self.complete(key, head, Status::Failed, 0),
            Some(Outcome::Later) => {
                let queue = &mut self.queues[key];
                queue.vring.put_back(head);
                queue.is_waiting = true;
                self.again_at.get_or_insert(desk.now + AGAIN);
                self.touch(key);
            }
        }
    }

    fn complete(&mut self, key: u32, head: u16, status: Status, written: u32) {
        let queue = &mut self.queues[key];
        queue.vring.complete(head, status, written, &queue.memory);
        self.touch(key);
    }
}

/// Goes through the parts of a request's data: each, and where it begins in the request's buffer.
fn each(parts: &[Part], offset: u64, mut by: impl FnMut(Part, usize)) {
    let mut skip = (offset % BLOCK) as usize;
    for part in parts {
        by(*part, skip);
        skip += part.len as usize;
    }
}
