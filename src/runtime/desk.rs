//! What everything that makes requests on a shard shares: the ring, payload memory, the table of requests
//! in flight, and the requests that the machine has not been given yet.
//!
//! *Every request is answered once*: it sits in the table from [`Desk::submit`] to [`Desk::answered`], and a reply
//! to what is not there is our error.

use super::counters::Counters;
use super::handle::Shared;
use super::routes::ShardNo;
use crate::base::{BufId, BufRef, IoError, Request, RequestKind, Slab, Time, Token, VolumeId};
use crate::frontend::nbd::Slot;
use crate::io::{Buffers, Ring};
use crate::observe::VolumeStats;
use std::collections::VecDeque;
use std::sync::Arc;

/// Requests in flight on a shard. Far above what clients may have; the table grows to what is used.
const REQUESTS: usize = 1 << 20;

/// Who waits for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A command of an NBD client.
    Client { connection: u32, slot: Slot },
    /// A part of a client's write of zeroes that must stay allocated.
    Zeroing { connection: u32, job: u32 },
    /// The control plane.
    Ask(u32),
    /// A place of the load.
    Load(u32),
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
}

pub(super) struct Desk {
    pub ring: Ring,
    pub buffers: Buffers,
    pub shared: Arc<Shared>,
    pub me: ShardNo,
    /// Of this turn.
    pub now: Time,
    pub arrivals: VecDeque<Request>,
    requests: Slab<Pending>,
    counters: Counters,
    /// Whether payload memory was freed since somebody waits for it.
    pub memory_freed: bool,
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
            shared,
            me,
            now: Time(0),
            arrivals: VecDeque::new(),
            requests: Slab::new(REQUESTS),
            counters,
            memory_freed: false,
        }
    }

    /// Puts a request before the machine. Where the table is full the caller keeps the buffer.
    pub fn submit(&mut self, wanted: Wanted) -> Result<(), IoError> {
        let pending = Pending {
            owner: wanted.owner,
            kind: wanted.kind,
            offset: wanted.offset,
            len: wanted.len,
            volume: wanted.volume,
            buf: wanted.buf,
            begun: wanted.begun,
            since: self.now,
        };
        let key = self.requests.insert(pending).map_err(|_| IoError::Busy)?;
        self.arrivals.push_back(Request {
            token: Token(u64::from(key)),
            volume: wanted.volume,
            kind: wanted.kind,
            offset: wanted.offset,
            len: wanted.len,
            buf: BufRef {
                id: wanted.buf.unwrap_or_default(),
                block: 0,
            },
        });
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
