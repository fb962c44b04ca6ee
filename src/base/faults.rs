//! Planted breaks: faults of our own that the simulator switches on to show that its checkers see.
//!
//! Outside a build with the feature `sim` there is no way to switch one on: [`Breaks`] is then an empty
//! type whose question is answered `false` at compile time.

macro_rules! breaks {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A fault that can be planted. Its name is what `cargo sim store --break NAME` takes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Break {
            $($(#[$doc])* $variant,)*
        }

        impl Break {
            /// Every break, in the order of their declaration.
            pub const ALL: &'static [Break] = &[$(Break::$variant),*];

            pub fn name(self) -> &'static str {
                match self { $(Break::$variant => $name,)* }
            }

            pub fn from_name(name: &str) -> Option<Break> {
                match name { $($name => Some(Break::$variant),)* _ => None }
            }
        }
    };
}

breaks! {
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

/// The breaks that are switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaks {
    #[cfg(feature = "sim")]
    on: u64,
}

impl Breaks {
    /// None: what every build but the simulator's has.
    pub const NONE: Breaks = Breaks {
        #[cfg(feature = "sim")]
        on: 0,
    };

    /// One break, for the simulator.
    #[cfg(feature = "sim")]
    pub fn only(which: Break) -> Breaks {
        Breaks {
            on: 1 << which as u8,
        }
    }

    /// Whether this break is switched on.
    #[inline(always)]
    pub fn on(self, which: Break) -> bool {
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
