//! The bounds of a link.

use crate::wire::{Cost, Credit};
use std::time::Duration;

/// What a link may hold, and how long it waits. The same for all links of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What the peer may have sent and not got back: asks, and bytes that they hold here.
    pub credit: Credit,
    /// Asks that wait for the peer's credit; one more is refused.
    pub waiting: usize,
    /// The same in bytes of payload.
    pub waiting_bytes: u64,
    /// Bytes that are encoded and not sent; a peer that leaves more is cut off.
    pub unsent_bytes: u64,
    /// How long nothing may be heard while something is asked, until that is told.
    pub silent_after: Duration,
    /// How long the kernel may need to send what it was given at once (1 MiB, or one frame), until the peer is cut off.
    pub slow_after: Duration,
    /// How long an ask without an answer keeps its credit, at least; at most half as long again.
    pub forget_after: Duration,
}

impl Limits {
    /// 4 MiB: nine asks that cost the most, 64 writes of a chunk, 1,024 of a block.
    pub const USUAL: Limits = Limits {
        credit: Credit {
            asks: 1024,
            bytes: 4 << 20,
        },
        waiting: 4096,
        waiting_bytes: 16 << 20,
        // All answers that the credit pays for, four times over.
        unsent_bytes: 16 << 20,
        silent_after: Duration::from_secs(1),
        slow_after: Duration::from_secs(10),
        // Who still wants an answer asks again every 30 ms. A peer that has just started drops what it cannot know yet, and what its asker gave up on as a group began
        // anew keeps its credit for so long: with 30 s here a link stood still for that time after a node came back (seen with two nodes, one start in ten).
        forget_after: Duration::from_secs(2),
    };

    /// Bytes of credit below which an ask could wait for ever: grants are told when a quarter has come back.
    pub const LEAST_BYTES: u64 = Cost::MAX * 4 / 3 + 1;
    /// What a shard of a cluster needs for its links at least, in bytes: one link with little credit.
    pub const LEAST_LINK_BYTES: u64 = 2 << 20;
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::USUAL
    }
}
