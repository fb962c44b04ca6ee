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
    /// After a turn that did not end in good order nothing is served before every PG is sealed and recovered.
    R5Settled = "r5-settled",
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
    /// A joiner takes nothing until a source has taken over the joining version, and has handed over its fences.
    R13 = "r13",
    /// Before a source hands them over, what it took under an older version is on its disk.
    R13Settled = "r13-settled",
    /// What the joiner itself has newer than its last in-sync version is filled as well.
    R14Own = "r14-own",
    /// What the joiner had in its window is filled as well.
    R14Window = "r14-window",
    /// A source does not win over blocks that were written in this session.
    R14Written = "r14-written",
    /// What is filled was read and is written under equal versions.
    R15Versions = "r15-versions",
    /// What is filled brings the source's window entries along.
    R15Entries = "r15-entries",
    /// What is filled keeps the source's stamp (also O17).
    R15Stamps = "r15-stamps",
    /// A restart of a joiner ends its session.
    R16 = "r16",
    /// What was read is handed out only while the lease holds, or when it is confirmed. Off: with neither.
    R17 = "r17",
    /// A lease that is held anew covers what was opened under it only.
    R17Anew = "r17-anew",
    /// Without the lease every member confirms. Off: all but one.
    R18Confirm = "r18-confirm",
    /// Those that join confirm as well.
    R18Joining = "r18-joining",
    /// A confirmation counts for what was there when it was asked for.
    R18After = "r18-after",
    /// A layer is frozen when nothing is in flight in it any more.
    R21 = "r21",
    /// A change is acknowledged when every member has it, not when one has.
    All = "all-members",
    /// A replica acknowledges what is durable, not what has come.
    Durable = "done-is-durable",
    /// A mark passes what is acknowledged, not what is numbered.
    Mark = "marks-are-acknowledged",
    /// A member that joins is not in the read set.
    Reads = "joiners-are-not-read",
    /// A list goes on behind its first page.
    Pages = "lists-have-pages",
    /// A session has filled when everything that it fetched is on the disk.
    Filled = "filled-is-on-disk",
    /// A replica says that its disk is low while there is a reserve left.
    Reserve = "low-before-full",
    /// On a low disk only what takes new space is refused.
    Overwrites = "overwrites-go-on",
    /// What is refused for want of space was sent to nobody.
    Unsent = "refused-is-not-sent",
}
