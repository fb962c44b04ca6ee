//! Planted breaks: faults of our own that the simulator switches on to show that its checkers see.
//!
//! Outside a build with the feature `sim` there is no way to switch one on: [`Breaks`] is then an empty
//! type whose question is answered `false` at compile time.

macro_rules! switches {
    ($(#[$of:meta])* $one:ident, $(#[$ofs:meta])* $set:ident:
     $($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        $(#[$of])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $one {
            $($(#[$doc])* $variant,)*
        }

        impl $one {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [$one] = &[$($one::$variant),*];

            pub fn name(self) -> &'static str {
                match self { $($one::$variant => $name,)* }
            }

            pub fn from_name(name: &str) -> Option<$one> {
                match name { $($name => Some($one::$variant),)* _ => None }
            }
        }

        $(#[$ofs])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $set {
            #[cfg(feature = "sim")]
            on: u64,
        }

        impl $set {
            /// None: what every build but the simulator's has.
            pub const NONE: $set = $set {
                #[cfg(feature = "sim")]
                on: 0,
            };

            /// One, for the simulator.
            #[cfg(feature = "sim")]
            pub fn only(which: $one) -> $set {
                $set {
                    on: 1 << which as u8,
                }
            }

            /// Whether this one is among them.
            #[inline(always)]
            pub fn on(self, which: $one) -> bool {
                #[cfg(feature = "sim")]
                {
                    self.on & (1 << which as u8) != 0
                }
                #[cfg(not(feature = "sim"))]
                {
                    let _ = which;
                    false
                }
            }
        }
    };
}

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
    /// Read-modify-write merges over zeroes, not over what was there.
    ForgetMerge = "forget-merge",
    /// Apply writes one block too far to the right.
    ApplyOffByOne = "apply-off-by-one",
}

switches! {
    /// A rule of the protocols (`protocol::replication` tells each) that the simulator can switch off, to show what goes wrong without it.
    Rule,
    /// The rules that are switched off.
    RulesOff:
    /// A replica refuses a lower epoch and a lower version.
    R1 = "r1",
    /// An acknowledgement counts under the version that it was given under only.
    R3Answers = "r3-answers",
    /// What is durable already is stamped with the new version.
    R3Stamps = "r3-stamps",
    /// A new owner seals every member, under one version.
    R5 = "r5",
    /// Fences are durable before they are answered under.
    R6 = "r6",
    /// What is in any window is written again to all.
    R7 = "r7",
    /// No read and no mark before recovery is done.
    R8 = "r8",
    /// A read that met a write in flight is held until that is acknowledged.
    R9 = "r9",
    /// A frame at or below the mark is answered, never applied.
    R10 = "r10",
    /// A member that joins is in the write set.
    R12 = "r12",
}
