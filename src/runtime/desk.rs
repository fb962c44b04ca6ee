//! What everything that makes requests on a shard shares: the ring, payload memory, the table of requests
//! in flight, and the requests that the machine has not been given yet.
//!
//! *Every request is answered once*: it sits in the table from [`Desk::submit`] to [`Desk::answered`], and a reply
//! to what is not there is our error.
//!
//! On a node of several shards a request goes to the machine of the shard that coordinates its extents. Where that is
//! this one, it takes the way that it takes on a node of one shard. Else it goes there by letter, and where it lies
//! on several it goes in parts (`joins.rs`); in the table it is one request, and is answered as one.

use super::counters::Counters;
use super::handle::Shared;
use super::joins::Join;
use super::post::{Letter, PartOf, Trays};
use crate::base::{BufId, BufRef, IoError, Request, RequestKind, Slab, Time, Token, VolumeId};
use crate::frontend::nbd::Slot;
use crate::io::{Buffers, Ring};
use crate::observe::VolumeStats;
use crate::shard::{Router, ShardNo};
use std::collections::VecDeque;
use std::sync::Arc;

/// Requests in flight on a shard. Far above what clients may have; the table grows to what is used.
pub(super) const REQUESTS: usize = 1 << 20;

/// Who waits for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A command of an NBD client.
    Client { connection: u32, slot: Slot },
    /// A part of a client's write of zeroes that must stay allocated.
    Zeroing { connection: u32, job: u32 },
    /// A tag of a ublk queue.
    Device { queue: u16, tag: u16 },
    /// A head of a guest's queue, or a part of it.
    Guest { queue: u32, head: u16 },
    /// The control plane.
    Ask(u32),
    /// A place of the load.
    Load(u32),
    /// A part of a request, of this shard or another one.
    Part(PartOf),
    /// Nobody any more: it was answered with an error, as it took too long (`late.rs`).
    Nobody,
}

/// A request as its maker says it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub owner: Owner,
    pub volume: VolumeId,
    pub kind: RequestKind,
    pub offset: u64,
    pub len: u64,
    /// Belongs to the request from now on, where it has one.
    pub buf: Option<BufId>,
    /// When the work for it began.
    pub begun: Time,
}

/// A request in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    pub owner: Owner,
    pub kind: RequestKind,
    pub offset: u64,
    pub len: u64,
    pub volume: VolumeId,
    pub buf: Option<BufId>,
    pub begun: Time,
    /// When it was submitted.
    pub since: Time,
    /// Where its parts are put together, when it has several.
    pub join: Option<u32>,
}

pub(super) struct Desk {
    pub ring: Ring,
    pub buffers: Buffers,
    pub shared: Arc<Shared>,
    pub me: ShardNo,
    /// Of this turn.
    pub now: Time,
    pub arrivals: VecDeque<Request>,
    pub(super) requests: Slab<Pending>,
    pub(super) joins: Slab<Join>,
    counters: Counters,
    /// Which shard coordinates what. Unused where there is one shard.
    pub router: Router,
    pub trays: Trays,
    /// When it was last looked for requests that take too long.
    pub(super) looked_for_late: Time,
    /// Whether payload memory was freed since somebody waits for it.
    pub memory_freed: bool,
    /// Whether something here waits for payload memory, as the other shards see it.
    pub hungry: bool,
    /// Shards that are to look for payload memory after this one.
    pub look_after: u8,
}

impl Desk {
    pub fn new(
        ring: Ring,
        buffers: Buffers,
        shared: Arc<Shared>,
        me: ShardNo,
        counters: Counters,
    ) -> Desk {
        Desk {
            ring,
            buffers,
            trays: Trays::new(me, Arc::clone(&shared)),
            looked_for_late: Time(0),
            shared,
            me,
            now: Time(0),
            arrivals: VecDeque::new(),
            requests: Slab::new(REQUESTS),
            counters,
            joins: Slab::new(REQUESTS),
            router: Router::default(),
            memory_freed: false,
            hungry: false,
            look_after: 0,
        }
    }

    /// Whether there are other shards.
    pub fn has_others(&self) -> bool {
        self.shared.lines.len() > 1
    }

    /// Puts a request before the machine that coordinates its extents. Where it cannot be, the caller keeps the buffer.
    pub fn submit(&mut self, wanted: Wanted) -> Result<(), IoError> {
        if !self.has_others() {
            return self.submit_here(wanted);
        }
        let range = wanted.offset.checked_add(wanted.len);
        let end = range.ok_or(IoError::OutOfRange)?;
        let routes = self.router.volume(wanted.volume).ok_or(IoError::Closed)?;
        if wanted.kind == RequestKind::Flush && routes.is_on(self.me) {
            return self.submit_here(wanted); // what was acknowledged before is durable on every shard
        }
        let (shard, until) = routes.run(wanted.offset, end);
        if until < end {
            // The machines look at their parts only: the whole would be written in part.
            if end > routes.size() {
                return Err(IoError::OutOfRange);
            }
            self.submit_split(wanted)
        } else if shard == self.me {
            self.submit_here(wanted)
        } else {
            self.submit_there(shard, wanted)
        }
    }

    fn submit_here(&mut self, wanted: Wanted) -> Result<(), IoError> {
        let request = self.enter(wanted, None)?;
        self.arrivals.push_back(request);
        Ok(())
    }

    fn submit_there(&mut self, shard: ShardNo, wanted: Wanted) -> Result<(), IoError> {
        let request = self.enter(wanted, None)?;
        let part = PartOf {
            origin: self.me,
            whole: request.token.0 as u32,
            place: 0,
        };
        self.trays.put(shard, Letter::Ask { part, request });
        Ok(())
    }

    /// Notes a request in the table. Its token is its place there.
    pub(super) fn enter(&mut self, wanted: Wanted, join: Option<u32>) -> Result<Request, IoError> {
        let Wanted {
            owner,
            volume,
            kind,
            offset,
            len,
            buf,
            begun,
        } = wanted;
        let pending = Pending {
            owner,
            kind,
            offset,
            len,
            volume,
            buf,
            begun,
            since: self.now,
            join,
        };
        let key = self.requests.insert(pending).map_err(|_| IoError::Busy)?;
        let buf = BufRef {
            id: buf.unwrap_or_default(),
            block: 0,
        };
        Ok(Request {
            token: Token(u64::from(key)),
            volume,
            kind,
            offset,
            len,
            buf,
            scratch: Request::scratch_of(kind, offset, len, buf),
        })
    }

    /// Takes a part of another shard's request, or of one of this shard that lies on several.
    pub fn take_part(&mut self, part: PartOf, request: Request) -> Result<(), IoError> {
        let wanted = Wanted {
            owner: Owner::Part(part),
            volume: request.volume,
            kind: request.kind,
            offset: request.offset,
            len: request.len,
            buf: None, // it belongs to the whole
            begun: self.now,
        };
        let token = self.enter(wanted, None)?.token;
        self.arrivals.push_back(Request { token, ..request });
        Ok(())
    }

    /// Takes an answered request out of the table.
    pub fn answered(&mut self, token: Token) -> Pending {
        let pending = self.requests.remove(token.0 as u32);
        pending.expect("a request is answered once, while it is in flight")
    }

    /// Where operations of a volume are counted.
    pub fn stats_of(&mut self, volume: VolumeId) -> &VolumeStats {
        self.counters.of(volume, self.me)
    }

    /// Whether no request is in flight.
    pub fn is_quiet(&self) -> bool {
        self.requests.is_empty()
    }

    pub fn release(&mut self, buf: BufId, times: u32) {
        self.memory_freed |= self.buffers.release(buf, times);
    }
}
