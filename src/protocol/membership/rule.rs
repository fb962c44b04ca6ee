//! The rules of this protocol by name, so that each can be switched off and is then found broken.
//!
//! They are not among [`Break`](crate::base::Break): those are the store simulator's, which runs all of them and names for each the
//! checker that finds it; these are found by the simulation in `tests/`.

use crate::base::switches;

switches! {
    /// A rule that can be switched off.
    Rule,
    /// The rules that are switched off.
    RulesOff:
    /// R17: the holder counts from its send. Off: from the answer's arrival.
    CountFromSend = "count-from-send",
    /// R17: drift is taken off at the holder and added at the grantor. Off: both count the plain length.
    DriftCounts = "drift-counts",
    /// R17: the lease is checked when the value is in hand. Off: when the request is admitted. The one who serves
    /// obeys it, so this room only names it.
    CheckInHand = "check-in-hand",
    /// R18: a new leader waits out one full lease. Off: it waits for nothing.
    NewLeaderWaits = "new-leader-waits",
    /// R18: an answer leaves after a majority confirmed that the grantor leads. Off: at once.
    MajorityConfirms = "majority-confirms",
    /// A lease is called expired after a majority confirmed that the grantor leads. Off: at once.
    ExpiryConfirmed = "expiry-confirmed",
    /// A later start of a node waits until the earlier one's lease is over. Off: it gets one beside it.
    LaterStartWaits = "later-start-waits",
    /// A node whose clock is out of bounds is found and refused. Off: clocks are believed.
    ClocksAreChecked = "clocks-are-checked",
}
