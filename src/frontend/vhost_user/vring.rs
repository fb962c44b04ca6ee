//! One split ring (virtio 1.2, 2.7): heads are taken from the available ring, used elements put into the other, and each
//! side tells the other when it is to look.
//!
//! Not by `virtio-queue`'s own iterators: those end a bad chain as if it were a whole one, make every used element visible
//! by itself, and look the ring's addresses up at each access (see `docs/decisions/vhost_user_of_our_own`). Its descriptor is used.
//!
//! *A head is in flight once*: a driver that makes one available again before it was given back has broken the ring.

use super::chain::{Chain, DESCRIPTOR};
use super::inflight::Inflight;
use super::request::{Ask, Disk, Request, Status};
use crate::io::{DirtyLog, GuestMemory, Span, full_fence};
use std::collections::VecDeque;
use std::fmt;
use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};

/// Where index and elements lie in both rings.
const INDEX: usize = 2;
const ELEMENTS: usize = 4;
/// Bytes of an element of the available and of the used ring.
const AVAILABLE: usize = 2;
const USED: usize = 8;

/// Parts of a request whose memory is kept for the next one in its slot.
const PARTS_KEPT: usize = 64;

/// Why nothing more is taken from a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The ring's parts lie outside of the memory, or not where they may.
    Address,
    /// The in-flight region does not fit, or says what cannot be.
    Inflight,
    /// More heads are available than the ring has.
    Index { at: u16, available: u16 },
    /// A head that the ring does not have.
    Head(u16),
    /// A head that is in flight.
    Twice(u16),
    /// A chain that goes in circles, leaves its table, or has no place for a status.
    Chain(u16),
    /// The memory was taken away.
    Memory,
    /// Its kicks cannot be heard.
    Kick,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Address => f.write_str("its parts lie where they cannot"),
            Broken::Inflight => f.write_str("the in-flight region says what cannot be"),
            Broken::Index { at, available } => {
                write!(f, "the available index jumps from {at} to {available}")
            }
            Broken::Head(head) => write!(f, "head {head} is none of the ring"),
            Broken::Twice(head) => write!(f, "head {head} is made available while in flight"),
            Broken::Chain(head) => {
                write!(f, "the chain at head {head} is endless or has no status")
            }
            Broken::Kick => f.write_str("its kicks cannot be heard"),
            Broken::Memory => f.write_str("the front end cut its memory short"),
        }
    }
}

/// A ring as the front end describes it, its addresses as the guest's.
#[derive(Debug, Clone)]
pub struct Plan {
    pub size: u16,
    /// The available index to begin with, where no in-flight region says another.
    pub base: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    pub event_idx: bool,
    pub indirect: bool,
    /// Where writes to the used ring are logged as.
    pub log_used: Option<u64>,
}

/// Where the parts of a ring lie.
#[derive(Debug)]
struct Places {
    descriptors: Span,
    available: Span,
    used: Span,
}

impl Places {
    fn of(plan: &Plan, memory: &GuestMemory) -> Option<Places> {
        let size = usize::from(plan.size);
        // The two bytes behind the elements are the events'.
        let available = memory.span(plan.available, ELEMENTS + AVAILABLE * size + 2)?;
        let used = memory.span(plan.used, ELEMENTS + USED * size + 2)?;
        let descriptors = memory.span(plan.descriptors, DESCRIPTOR * size)?;
        let aligned = available.is_aligned(2) && used.is_aligned(4);
        aligned.then_some(Places {
            descriptors,
            available,
            used,
        })
    }
}

/// How a request or a part of one ended: the worst of its parts counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    #[default]
    Done,
    Failed,
    /// It could not be carried out now, and is to be tried again.
    Later,
}

#[derive(Debug, Default)]
struct Slot {
    busy: bool,
    request: Request,
    /// What is not answered of it, and the worst so far.
    left: u16,
    worst: Outcome,
}

/// A ring that runs.
#[derive(Debug)]
pub struct Vring {
    plan: Plan,
    places: Places,
    next_available: u16,
    /// Behind the last used element, and up to where the driver sees them.
    next_used: u16,
    visible: u16,
    /// By head.
    slots: Vec<Slot>,
    in_flight: u16,
    /// Heads that were taken before, to be carried out first.
    again: VecDeque<u16>,
    inflight: Option<Inflight>,
    /// Heads whose used elements are not visible yet.
    batch: Vec<u16>,
    chain: Chain,
    /// Whether the driver was told not to kick; only where there are no events.
    is_deaf: bool,
    log: Option<DirtyLog>,
}

impl Vring {
    /// Begins with a ring, with what was in flight in its region where it has one.
    pub fn start(
        plan: Plan,
        inflight: Option<Inflight>,
        memory: &GuestMemory,
    ) -> Result<Vring, Broken> {
        let places = Places::of(&plan, memory).ok_or(Broken::Address)?;
        let used = places.used.load_u16(INDEX);
        let mut ring = Vring {
            next_available: plan.base,
            next_used: used,
            visible: used,
            slots: (0..plan.size).map(|_| Slot::default()).collect(),
            in_flight: 0,
            again: VecDeque::new(),
            inflight,
            batch: Vec::new(),
            chain: Chain::default(),
            is_deaf: false,
            log: None,
            places,
            plan,
        };
        if let Some(inflight) = &mut ring.inflight {
            let again = inflight.recover(used).ok_or(Broken::Inflight)?;
            // Everything that was ever taken was given back or is in flight.
            ring.next_available = used.wrapping_add(again.len() as u16);
            again
                .iter()
                .for_each(|head| ring.slots[usize::from(*head)].busy = true);
            ring.again = again.into();
        }
        Ok(ring)
    }

    /// The next head to be carried out, and what it asks for. `None` where there is none now.
    pub fn next(
        &mut self,
        disk: &Disk,
        memory: &GuestMemory,
    ) -> Result<Option<(u16, Ask)>, Broken> {
        let head = match self.again.pop_front() {
            Some(head) => head,
            None => match self.take_head()? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        let slot = &mut self.slots[usize::from(head)];
        let bad = Broken::Chain(head);
        let (table, indirect) = (&self.places.descriptors, self.plan.indirect);
        let followed = self.chain.follow(table, head, indirect, memory);
        followed.map_err(|_| bad)?;
        let ask = slot.request.take(&self.chain, disk, memory);
        let ask = ask.map_err(|_| bad)?;
        slot.left = match ask {
            Ask::Ranges(_) => slot.request.ranges.len() as u16,
            _ => 1,
        };
        slot.worst = Outcome::Done;
        self.in_flight += 1;
        Ok(Some((head, ask)))
    }

    fn take_head(&mut self) -> Result<Option<u16>, Broken> {
        let (at, available) = (self.next_available, self.places.available.load_u16(INDEX));
        let waiting = available.wrapping_sub(at);
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > self.plan.size {
            return Err(Broken::Index { at, available });
        }
        let place = usize::from(at % self.plan.size);
        let head = self.places.available.load_u16(ELEMENTS + AVAILABLE * place);
        let slot = self.slots.get_mut(usize::from(head));
        let slot = slot.ok_or(Broken::Head(head))?;
        if slot.busy {
            return Err(Broken::Twice(head));
        }
        slot.busy = true;
        self.next_available = at.wrapping_add(1);
        if let Some(inflight) = &mut self.inflight {
            inflight.took(head);
        }
        Ok(Some(head))
    }

    /// What a head in flight asks for.
    pub fn request(&self, head: u16) -> &Request {
        &self.slots[usize::from(head)].request
    }

    /// Takes a head back that could not be carried out now: it comes first the next time.
    pub fn put_back(&mut self, head: u16) {
        self.in_flight -= 1;
        self.again.push_front(head);
    }

    /// A part of a head was answered. The outcome of the whole where it was the last: then the head is to be completed,
    /// or put back.
    pub fn part_done(&mut self, head: u16, outcome: Outcome) -> Option<Outcome> {
        let slot = &mut self.slots[usize::from(head)];
        slot.worst = slot.worst.max(outcome);
        slot.left = slot.left.saturating_sub(1);
        (slot.left == 0).then_some(slot.worst)
    }

    /// Answers a head. `written` counts the bytes of data that were written for it.
    pub fn complete(&mut self, head: u16, status: Status, written: u32, memory: &GuestMemory) {
        let slot = &mut self.slots[usize::from(head)];
        debug_assert!(slot.busy, "a head is answered once");
        slot.busy = false;
        let request = &slot.request;
        // It was there when the request was taken, and memory does not change with anything in flight.
        memory.write(request.status, &[status.byte()]);
        if let Some(log) = &self.log {
            let data = request.data.iter().filter(|_| written > 0);
            data.for_each(|part| log.mark(part.guest, part.len.into()));
            log.mark(request.status, 1);
        }
        if slot.request.data.capacity() > PARTS_KEPT {
            slot.request.data = Vec::new();
        }
        self.in_flight -= 1;
        let at = ELEMENTS + USED * usize::from(self.next_used % self.plan.size);
        let element = u64::from(head) | u64::from(written + 1) << 32;
        // Aligned to four bytes only, and not looked at before the index says so.
        self.places.used.write(at, element.to_le());
        self.next_used = self.next_used.wrapping_add(1);
        if let Some(inflight) = &mut self.inflight {
            inflight.giving(head);
        }
        self.batch.push(head);
    }

    /// Lets the driver see what was completed.
    pub fn publish(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        self.places.used.store_u16(INDEX, self.next_used);
        if let Some(inflight) = &mut self.inflight {
            inflight.gave(&self.batch, self.next_used);
        }
        if let (Some(log), Some(at)) = (&self.log, self.plan.log_used) {
            log.mark(at + INDEX as u64, 2);
            for n in 0..self.batch.len() as u16 {
                let place = self.next_used.wrapping_sub(n + 1) % self.plan.size;
                log.mark(
                    at + (ELEMENTS + USED * usize::from(place)) as u64,
                    USED as u64,
                );
            }
        }
        self.batch.clear();
    }

    /// Whether the driver wants to be told of what became visible since this was last asked.
    pub fn wants_call(&mut self) -> bool {
        let (before, now) = (self.visible, self.next_used);
        self.visible = now;
        if before == now {
            return false;
        }
        full_fence(); // the index is visible before the driver's wish is read
        let available = &self.places.available;
        if !self.plan.event_idx {
            return available.load_u16(0) & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0;
        }
        let event = available.load_u16(ELEMENTS + AVAILABLE * usize::from(self.plan.size));
        now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
    }

    /// Has the driver kick for what it makes available from here on. True where something is available already.
    pub fn listen(&mut self) -> bool {
        let used = &self.places.used;
        if self.plan.event_idx {
            let at = ELEMENTS + USED * usize::from(self.plan.size);
            used.store_u16(at, self.next_available);
            self.log_used(at);
        } else if std::mem::take(&mut self.is_deaf) {
            used.store_u16(0, 0);
            self.log_used(0);
        }
        full_fence(); // the driver sees the wish, or its index is seen here
        !self.again.is_empty() || self.places.available.load_u16(INDEX) != self.next_available
    }

    /// Has the driver not kick until [`Vring::listen`]. With events it does not anyway: it kicks once for each of those.
    pub fn be_deaf(&mut self) {
        if !self.plan.event_idx && !self.is_deaf {
            self.is_deaf = true;
            self.places.used.store_u16(0, VRING_USED_F_NO_NOTIFY as u16);
            self.log_used(0);
        }
    }

    fn log_used(&self, at: usize) {
        if let (Some(log), Some(guest)) = (&self.log, self.plan.log_used) {
            log.mark(guest + at as u64, 2);
        }
    }

    /// Whether heads were taken that are neither carried out nor given back.
    pub fn has_put_back(&self) -> bool {
        !self.again.is_empty()
    }

    /// Heads that are carried out.
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// The available index of the next head: what the front end is told when the ring stops. Where heads were put back only the
    /// in-flight region can say which they are.
    pub fn base(&self) -> u16 {
        self.next_available.wrapping_sub(self.again.len() as u16)
    }

    /// Logs writes from now on, or no more.
    pub fn set_log(&mut self, log: Option<DirtyLog>, used: Option<u64>) {
        self.log = log;
        self.plan.log_used = used;
        // A daemon that was killed may have let the driver see what it did not mark any more: it marks behind what it writes.
        if let (Some(log), Some(at)) = (&self.log, used) {
            log.mark(at, self.places.used.len() as u64);
        }
    }

    /// The ring lies elsewhere in our memory now, with nothing in flight.
    pub fn move_to(&mut self, plan: Plan, memory: &GuestMemory) -> Result<(), Broken> {
        debug_assert_eq!(self.in_flight, 0, "memory changes under a ring at rest");
        self.places = Places::of(&plan, memory).ok_or(Broken::Address)?;
        self.plan = Plan {
            size: self.plan.size,
            log_used: self.plan.log_used,
            ..plan
        };
        Ok(())
    }
}
