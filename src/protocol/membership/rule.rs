//! The rules of this protocol by name, so that each can be switched off and is then found broken.
//!
//! The way of [`Break`](crate::base::Break): outside a build with the feature `sim` nothing can be switched off, the
//! type is empty and its question is answered `true` at compile time. It is not that enum itself, since every
//! `Break` is one of the store simulator's, which runs all of them and names for each the checker that finds it;
//! these are found by the simulation in `tests/`.

/// A rule that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Rule {
    /// R17: the holder counts from its send. Off: from the answer's arrival.
    CountFromSend,
    /// R17: drift is taken off at the holder and added at the grantor. Off: both count the plain length.
    DriftCounts,
    /// R17: the lease is checked when the value is in hand. Off: when the request is admitted. The one who serves
    /// obeys it, so this room only names it.
    CheckInHand,
    /// R18: a new leader waits out one full lease. Off: it waits for nothing.
    NewLeaderWaits,
    /// R18: an answer leaves after a majority confirmed that the grantor leads. Off: at once.
    MajorityConfirms,
    /// A lease is called expired after a majority confirmed that the grantor leads. Off: at once.
    ExpiryConfirmed,
    /// A later start of a node waits until the earlier one's lease is over. Off: it gets one beside it.
    LaterStartWaits,
    /// A node whose clock is out of bounds is found and refused. Off: clocks are believed.
    ClocksAreChecked,
}

impl Rule {
    /// Every rule, in the order of their declaration.
    pub const ALL: &'static [Rule] = &[
        Rule::CountFromSend,
        Rule::DriftCounts,
        Rule::CheckInHand,
        Rule::NewLeaderWaits,
        Rule::MajorityConfirms,
        Rule::ExpiryConfirmed,
        Rule::LaterStartWaits,
        Rule::ClocksAreChecked,
    ];

    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Rule::CountFromSend => "count-from-send",
            Rule::DriftCounts => "drift-counts",
            Rule::CheckInHand => "check-in-hand",
            Rule::NewLeaderWaits => "new-leader-waits",
            Rule::MajorityConfirms => "majority-confirms",
            Rule::ExpiryConfirmed => "expiry-confirmed",
            Rule::LaterStartWaits => "later-start-waits",
            Rule::ClocksAreChecked => "clocks-are-checked",
        }
    }
}

/// Which rules are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    #[cfg(feature = "sim")]
    off: u16,
}

impl Rules {
    /// All: what every build but the simulator's has.
    pub const KEPT: Rules = Rules {
        #[cfg(feature = "sim")]
        off: 0,
    };

    /// All but one, for the simulator.
    #[cfg(feature = "sim")]
    pub fn without(rule: Rule) -> Rules {
        Rules {
            off: 1 << rule as u8,
        }
    }

    /// Whether this rule is kept.
    #[inline(always)]
    pub fn keep(self, rule: Rule) -> bool {
        #[cfg(feature = "sim")]
        {
            self.off & (1 << rule as u8) == 0
        }
        #[cfg(not(feature = "sim"))]
        {
            let _ = rule;
            true
        }
    }
}
