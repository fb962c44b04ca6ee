//! The rules of this protocol by name, so that each can be switched off and is then missed.

use crate::base::switches;

switches! {
    /// A rule of this protocol.
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
