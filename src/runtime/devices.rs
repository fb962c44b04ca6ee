//! The pump of ublk: moves requests between the queues of the kernel's driver and the machine.
//!
//! ```text
//!   driver ─► fetched ─► (copy in) ─► desk ─► machine
//!   driver ◄─ commit and fetch ◄─ (copy out) ◄─ reply
//! ```
//!
//! A tag has one command with the driver at any time, or a request here, never both: *every request is answered once*,
//! by the command that asks for the next one. The commands of a queue come from one shard. Data is copied once, by the
//! driver, between the pages of who asks and the arena; an answer with data is one submission, copy and command
//! linked.
//!
//! When the driver ends a command with an error, its tag is over; when all are, the queue is closed.

use super::desk::{Desk, Owner, Pending, Wanted};
use super::served::{Queue, ServeError};
use super::tags::Completed;
use crate::base::{BLOCK, BufId, BufRef, IoError, Request, RequestKind, Slab, Time, VolumeId};
use crate::frontend::ublk::{Descriptor, IoCommand, Order, copy_position, errno_of, io_op};
use crate::io::{Completion, Descriptors, FileNo, Part, Tag};
use crate::observe::Operation;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::oneshot;

/// Queues of one shard; their numbers fit the upper half of a tag's key.
const QUEUES: usize = 4096;

/// How long a request waits that the machine did not take.
const AGAIN: Duration = Duration::from_millis(50);

/// Whether an error passes: the node is stopping or the volume is not open yet. Who asked sees a pause, and when the
/// daemon ends the driver keeps the request for the next one.
fn is_passing(error: IoError) -> bool {
    matches!(error, IoError::Closed | IoError::Busy)
}

/// Where a tag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The driver has its command.
    Waiting,
    /// A request waits for payload memory.
    Hungry,
    /// The data of a write is copied into its buffer.
    CopyingIn,
    InMachine,
    /// The machine does not take it now; it is asked again.
    Again,
    /// The data of a read is copied out of its buffer, and the command follows.
    CopyingOut,
    /// The driver has ended it.
    Over,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    step: Step,
    order: Order,
    buf: Option<BufId>,
    /// When its request was fetched.
    begun: Time,
}

struct Live {
    file: FileNo,
    volume: VolumeId,
    number: u16,
    descriptors: Descriptors,
    tags: Box<[Place]>,
    /// Tags that are not over.
    alive: u16,
    /// Dropped with the queue, which tells the control plane.
    _ended: oneshot::Sender<()>,
}

pub(super) struct Devices {
    queues: Slab<Live>,
    /// Tags that wait for payload memory, first come first served.
    hungry: VecDeque<(u16, u16)>,
    /// Tags whose requests the machine did not take, and when it is asked again.
    again: Vec<(u16, u16)>,
    again_at: Option<Time>,
}

fn key(queue: u16, tag: u16) -> u32 {
    u32::from(queue) << 16 | u32::from(tag)
}

fn parts(key: u32) -> (u16, u16) {
    ((key >> 16) as u16, key as u16)
}

impl Devices {
    pub fn new() -> Devices {
        Devices {
            queues: Slab::new(QUEUES),
            hungry: VecDeque::new(),
            again: Vec::new(),
            again_at: None,
        }
    }

    /// Begins to serve a queue: a command for each of its tags.
    pub fn serve(
        &mut self,
        queue: Queue,
        ended: oneshot::Sender<()>,
        desk: &mut Desk,
    ) -> Result<(), ServeError> {
        let file = desk.ring.adopt(queue.device);
        let file = file.map_err(|_| ServeError::TooManyFiles)?;
        let idle = Place {
            step: Step::Waiting,
            order: Order {
                kind: RequestKind::Flush,
                offset: 0,
                len: 0,
            },
            buf: None,
            begun: desk.now,
        };
        let inserted = self.queues.insert(Live {
            file,
            volume: queue.volume,
            number: queue.number,
            descriptors: queue.descriptors,
            tags: vec![idle; usize::from(queue.depth)].into_boxed_slice(),
            alive: queue.depth,
            _ended: ended,
        });
        let Ok(place) = inserted else {
            desk.ring.drop_file(file);
            return Err(ServeError::Full);
        };
        desk.shared.attachments.take(queue.volume);
        let place = place as u16; // fewer than QUEUES
        for tag in 0..queue.depth {
            let command = IoCommand {
                queue: queue.number,
                tag,
                result: 0,
            };
            let named = Completed::Fetched(key(place, tag)).tag();
            let pushed = desk
                .ring
                .command(file, io_op::FETCH, command.bytes(), named);
            if let Err(error) = pushed {
                tracing::error!(%error, "a ublk queue could not be begun");
                // What was pushed ends when the device is deleted.
                for _ in tag..queue.depth {
                    self.end(place, tag, desk);
                }
                return Err(ServeError::NoRoom);
            }
        }
        Ok(())
    }

    /// The driver has ended a command: with a request, or for good.
    pub fn fetched(&mut self, at: u32, done: &Completion, desk: &mut Desk) {
        let (queue, tag) = parts(at);
        let live = &mut self.queues[u32::from(queue)];
        let place = &mut live.tags[usize::from(tag)];
        match done.result {
            0 => {}
            // The copy before the command failed, so it was not given.
            result if place.step == Step::CopyingOut && result == -libc::ECANCELED => {
                return self.commit(queue, tag, -libc::EIO, desk);
            }
            result => {
                if result != -libc::ENODEV {
                    tracing::warn!(result, tag, "a ublk queue's command failed");
                }
                return self.end(queue, tag, desk);
            }
        }
        place.begun = desk.now;
        match Descriptor::read(&live.descriptors.read(tag)).order() {
            Ok(order) => {
                place.order = order;
                self.begin(queue, tag, desk);
            }
            Err(errno) => {
                tracing::warn!(errno, tag, "a ublk request was refused");
                self.commit(queue, tag, -errno, desk);
            }
        }
    }

    /// Begins a request, or has it wait for payload memory.
    fn begin(&mut self, queue: u16, tag: u16, desk: &mut Desk) {
        let live = &mut self.queues[u32::from(queue)];
        let place = &mut live.tags[usize::from(tag)];
        let Order { kind, offset, len } = place.order;
        // No longer than 1 MiB where there is data, so this fits.
        let blocks = Request::buffer_blocks(kind, offset, len) as u32;
        if blocks > 0 {
            place.buf = desk.allocate(blocks);
            if place.buf.is_none() {
                place.step = Step::Hungry;
                return self.hungry.push_back((queue, tag));
            }
        }
        let (RequestKind::Write, Some(id)) = (kind, place.buf) else {
            return self.submit(queue, tag, desk);
        };
        place.step = Step::CopyingIn;
        let part = part_of(&place.order, id);
        let position = copy_position(live.number, tag);
        let named = Completed::Copied(key(queue, tag)).tag();
        let pushed = desk
            .ring
            .read_unregistered(live.file, position, part, named);
        if let Err(error) = pushed {
            tracing::error!(%error, "the data of a ublk request was not copied");
            self.commit(queue, tag, -libc::EIO, desk);
        }
    }

    /// Data was copied, into or out of a buffer.
    pub fn copied(&mut self, at: u32, done: &Completion, desk: &mut Desk) {
        let (queue, tag) = parts(at);
        let live = &mut self.queues[u32::from(queue)];
        let place = &mut live.tags[usize::from(tag)];
        let whole = u64::try_from(done.result) == Ok(place.order.len);
        if !whole {
            tracing::warn!(result = done.result, "a ublk request's data was not copied");
        }
        match (place.step, whole) {
            (Step::CopyingIn, true) => self.submit(queue, tag, desk),
            (Step::CopyingIn, false) => self.commit(queue, tag, -libc::EIO, desk),
            // The command follows by itself, or says that it was not given.
            _ => {
                let buf = place.buf.take();
                buf.into_iter().for_each(|buf| desk.release(buf, 1));
            }
        }
    }

    fn submit(&mut self, queue: u16, tag: u16, desk: &mut Desk) {
        let live = &mut self.queues[u32::from(queue)];
        let place = &mut live.tags[usize::from(tag)];
        place.step = Step::InMachine;
        let wanted = Wanted {
            owner: Owner::Device { queue, tag },
            volume: live.volume,
            kind: place.order.kind,
            offset: place.order.offset,
            len: place.order.len,
            buf: place.buf,
            begun: place.begun,
        };
        match desk.submit(wanted) {
            Ok(()) => {}
            Err(error) if is_passing(error) => self.put_off(queue, tag, desk),
            Err(error) => self.commit(queue, tag, -errno_of(error), desk),
        }
    }

    /// The machine answered.
    pub fn reply(
        &mut self,
        queue: u16,
        tag: u16,
        pending: &Pending,
        result: Result<(), IoError>,
        desk: &mut Desk,
    ) {
        let live = &mut self.queues[u32::from(queue)];
        let place = &mut live.tags[usize::from(tag)];
        let success = place.order.success();
        if result.is_err_and(is_passing) {
            return self.put_off(queue, tag, desk);
        }
        if let (Ok(()), Some(operation)) = (result, Operation::of(pending.kind)) {
            // The answer goes out with this turn.
            let stats = desk.stats_of(live.volume);
            stats.sent(operation, Duration::ZERO, 1);
        }
        let (Ok(()), RequestKind::Read, Some(id)) = (result, pending.kind, place.buf) else {
            let result = result.map_or_else(|error| -errno_of(error), |()| success);
            return self.commit(queue, tag, result, desk);
        };
        place.step = Step::CopyingOut;
        let part = part_of(&place.order, id);
        let position = copy_position(live.number, tag);
        let command = IoCommand {
            queue: live.number,
            tag,
            result: success,
        };
        let (copied, fetched) = names(queue, tag);
        let pushed = desk.ring.write_then_command(
            live.file,
            (position, part, copied),
            (io_op::COMMIT_AND_FETCH, command.bytes(), fetched),
        );
        if let Err(error) = pushed {
            // Of the two, none or only the first was pushed; who asked waits until the next start issues it again.
            tracing::error!(%error, "a ublk request was not answered");
        }
    }

    /// Keeps a request, with its data, until the machine is asked again.
    fn put_off(&mut self, queue: u16, tag: u16, desk: &mut Desk) {
        let live = &mut self.queues[u32::from(queue)];
        live.tags[usize::from(tag)].step = Step::Again;
        self.again.push((queue, tag));
        self.again_at.get_or_insert(desk.now + AGAIN);
    }

    /// When [`Devices::try_again`] is to be called.
    pub fn deadline(&self) -> Option<Time> {
        self.again_at
    }

    /// Asks the machine again for what it did not take.
    pub fn try_again(&mut self, desk: &mut Desk) {
        if self.again_at.is_none_or(|at| at > desk.now) {
            return;
        }
        self.again_at = None;
        for (queue, tag) in std::mem::take(&mut self.again) {
            self.submit(queue, tag, desk);
        }
    }

    /// Answers a request that has no data to be copied, and asks for the next one.
    fn commit(&mut self, queue: u16, tag: u16, result: i32, desk: &mut Desk) {
        let live = &mut self.queues[u32::from(queue)];
        let place = &mut live.tags[usize::from(tag)];
        let buf = place.buf.take();
        buf.into_iter().for_each(|buf| desk.release(buf, 1));
        place.step = Step::Waiting;
        let command = IoCommand {
            queue: live.number,
            tag,
            result,
        };
        let (_, fetched) = names(queue, tag);
        let (op, bytes) = (io_op::COMMIT_AND_FETCH, command.bytes());
        if let Err(error) = desk.ring.command(live.file, op, bytes, fetched) {
            tracing::error!(%error, "a ublk request was not answered");
        }
    }

    /// A tag is over. With the last one, the queue is.
    fn end(&mut self, queue: u16, tag: u16, desk: &mut Desk) {
        let live = &mut self.queues[u32::from(queue)];
        let place = &mut live.tags[usize::from(tag)];
        place.step = Step::Over;
        let buf = place.buf.take();
        buf.into_iter().for_each(|buf| desk.release(buf, 1));
        live.alive -= 1;
        if live.alive == 0
            && let Some(live) = self.queues.remove(u32::from(queue))
        {
            desk.ring.drop_file(live.file);
            desk.shared.attachments.give_back(live.volume);
        }
    }

    /// Whether requests wait for payload memory.
    pub fn is_hungry(&self) -> bool {
        !self.hungry.is_empty()
    }

    /// Lets go on what waited for payload memory, as far as it reaches.
    pub fn feed(&mut self, desk: &mut Desk) {
        for _ in 0..self.hungry.len() {
            if let Some((queue, tag)) = self.hungry.pop_front() {
                self.begin(queue, tag, desk);
            }
        }
    }
}

/// The names of a tag's copy and command.
fn names(queue: u16, tag: u16) -> (Tag, Tag) {
    let key = key(queue, tag);
    (Completed::Copied(key).tag(), Completed::Fetched(key).tag())
}

/// Where the data of a request lies in its buffer.
fn part_of(order: &Order, id: BufId) -> Part {
    Part {
        at: BufRef { id, block: 0 },
        skip: (order.offset % BLOCK) as u32,
        len: order.len as u32, // at most MAX_IO_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_again_by_its_key() {
        for (queue, tag) in [(0, 0), (4095, 4095), (1, 127), (127, 1)] {
            assert_eq!(parts(key(queue, tag)), (queue, tag));
        }
        let (copied, fetched) = names(3, 4);
        assert_eq!(Completed::of(copied), Completed::Copied(key(3, 4)));
        assert_eq!(Completed::of(fetched), Completed::Fetched(key(3, 4)));
    }
}
