//! A chunk with damaged blocks: what is wanted of it, and who is asked next.

use super::message::MendAsk;
use crate::base::{ChunkId, DiskId, Time};
use crate::protocol::replication::{Configuration, Role};
use std::time::Duration;

/// Chunks of one disk that are wanted at once, 140 bytes each.
pub const WANTS_MAX: usize = 1024;
/// A slot that cannot be read is told block by block: they are gathered for so long before the first question.
pub const GATHER: Duration = Duration::from_millis(2);
/// Who has not answered after so long is passed over. A round trip and a read take milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Where nobody could give a block, all are asked again after so long, and twice as long each time.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
pub const RETRY_MAX: Duration = Duration::from_secs(300);

/// What becomes of a want now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Somebody is asked from then on.
    Waits(Time),
    Asks {
        id: u64,
        to: DiskId,
        since: Time,
    },
    /// Everybody was asked. The store reads the chunk once more, and these blocks are still damaged.
    Looks {
        id: u64,
        still: u16,
    },
    /// The store puts these bytes back.
    Mends {
        id: u64,
        what: MendAsk,
    },
}

/// Blocks of a chunk that are damaged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Want {
    /// What is to be asked for.
    pub what: MendAsk,
    pub phase: Phase,
    /// How many sources were asked in this round.
    pub tried: usize,
    /// Rounds in which nobody had all of it; and those of them since somebody new may have it.
    pub rounds: u32,
    waited: u32,
}

impl Want {
    pub fn new(at: ChunkId, now: Time) -> Want {
        Want {
            what: MendAsk {
                at,
                blocks: 0,
                crcs: [0; 16],
            },
            phase: Phase::Waits(now + GATHER),
            tried: 0,
            rounds: 0,
            waited: 0,
        }
    }

    /// A block is damaged that should have this checksum; whether that is news.
    pub fn add(&mut self, block: u32, crc: u32) -> bool {
        let (at, bit) = (block as usize, 1 << block);
        let is_new = self.what.blocks & bit == 0 || self.what.crcs[at] != crc;
        self.what.blocks |= bit;
        self.what.crcs[at] = crc;
        if let Phase::Looks { still, .. } = &mut self.phase {
            *still |= bit;
        }
        is_new
    }

    /// These have their bytes back, or need them no more. What was asked for anew since, with another checksum, stays.
    pub fn settle(&mut self, done: &MendAsk) {
        let same = |place: &usize| self.what.crcs[*place] == done.crcs[*place];
        let same = (0..16).filter(same).fold(0u16, |mask, at| mask | 1 << at);
        self.what = self.what.of(!(done.blocks & same));
    }

    /// Nobody had all of it, and it is damaged still: it waits, longer each time.
    pub fn end_round(&mut self, now: Time) {
        let longer = RETRY_FIRST.saturating_mul(1 << self.waited.min(16));
        self.rounds += 1;
        self.waited += 1;
        self.tried = 0;
        self.phase = Phase::Waits(now + longer.min(RETRY_MAX));
    }

    /// Somebody new may have it: it is asked for from the first source on, as soon as may be, and a round that is about to end is followed by another one soon.
    pub fn begin_again(&mut self, now: Time) {
        (self.tried, self.waited) = (0, 0);
        if let Phase::Waits(at) = &mut self.phase {
            *at = (*at).min(now + GATHER);
        }
    }
}

/// Whom a disk asks, in this order: who is in sync has what counts now, the others may have what did once.
pub(super) fn sources(of: &Configuration, own: DiskId) -> impl Iterator<Item = DiskId> {
    let rank = |role: &Role| match role {
        Role::InSync => 0,
        Role::Joining { .. } => 1,
        Role::Out { .. } => 2,
    };
    (0..3).flat_map(move |wanted| {
        let members = of.members().iter();
        let is_it = move |role: &Role| rank(role) == wanted;
        members
            .filter(move |member| member.disk != own && is_it(&member.role))
            .map(|member| member.disk)
    })
}
