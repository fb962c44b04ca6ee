//! Planted breaks: faults of our own that the simulator switches on to show that its checkers see.

use super::switches::switches;

switches! {
    /// A fault that can be planted. Its name is what `cargo sim store --break NAME` takes.
    Break,
    /// The breaks that are switched on.
    Breaks:
    /// Journal batches are written without waiting for the medium.
    NoDsync = "no-dsync",
    /// A write is acknowledged when its batch is sent, not when it is durable.
    AckBeforeDurable = "ack-before-durable",
    /// Batches are acknowledged as they complete, though an earlier one is still in flight.
    AckOutOfOrder = "ack-out-of-order",
    /// The checksum of what was read is not compared.
    SkipCrc = "skip-crc",
    /// A checkpoint leaves one changed table page out.
    LoseTablePage = "lose-table-page",
    /// A table page that is older than the manifest says is taken.
    TakeOldPage = "take-old-page",
    /// The tail moves past batches that are not applied.
    TrimTooEarly = "trim-too-early",
    /// The checkpoint does not flush what was applied.
    NoFlush = "no-flush",
    /// A slot is used again before the record that freed it is durable.
    ReuseSlotTooEarly = "reuse-slot-too-early",
    /// A discard forgets the last block of its range.
    OffByOneRange = "off-by-one-range",
    /// Replay applies the records of the first batch again after the last.
    ReplayTwice = "replay-twice",
    /// A discarded block over an ancestor falls through to it.
    DiscardFallsThrough = "discard-falls-through",
    /// The data of a whole chunk is journaled before it is durable.
    RecordBeforeData = "record-before-data",
    /// A write that overlaps one in flight does not wait for it.
    NoOverlapWait = "no-overlap-wait",
    /// Zeroes that reach the edge of an extent end a chunk before it.
    ExtentEdge = "extent-edge",
    /// Read-modify-write merges over zeroes, not over what was there.
    ForgetMerge = "forget-merge",
    /// Apply writes one block too far to the right.
    ApplyOffByOne = "apply-off-by-one",
    /// The first block of a write is journaled in a batch before that of the others.
    TearWrite = "tear-write",
    /// A fence is answered when it is in memory.
    ForgetFence = "forget-fence",
    /// Replay adds nothing to the windows of the last checkpoint.
    LoseWindow = "lose-window",
    /// A checkpoint leaves tombstones out of its pages.
    LoseTombstone = "lose-tombstone",
    /// A fill of a whole chunk keeps the stamp that the chunk had, where that is higher.
    KeepStamp = "keep-stamp",
    /// Replay gives a replica that was dropped its chunks back.
    KeepDropped = "keep-dropped",
    /// Nothing says that a tombstone was let go.
    ForgetLetGo = "forget-let-go",
    /// A chunk that was discarded is said to have its slot still.
    LookPastSlots = "look-past-slots",
    /// The numbers of an opening are answered when the first superblock is on its way.
    ForgetOpening = "forget-opening",
}
