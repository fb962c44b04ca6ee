//! The comparison of replicas: it finds who has lost a write that its own disk said was done.
//!
//! ```text
//!   Comparer of disk A, in sync                                   Comparer of disk B, in sync
//!     │ List: the chunks that its store keeps, page by page           │
//!     │ Look: what is it here, and is it quiet?                        │
//!     │ CompareAsk, if it is ────────────────────────────────────────► │ Look, after the question has come
//!     │ ◄──────────────────────────────────────────── CompareAnswer ── │
//!     │ Report, to the manager, where one of them is wrong
//! ```
//!
//! A replica whose disk lost a write has an old table and old data that agree. No checksum of its own speaks against it, so repair by checksum sees
//! nothing, and it serves old data. Only another replica knows better. So each replica that is in sync walks the chunks that it keeps, a few at a
//! time, and asks another one that is in sync what that has.
//!
//! # Why the order matters
//! Writes are in flight all the time, and one of two replicas has each of them first. That must not look like a loss. So A looks at itself before
//! it asks. It is *quiet* there when no window has an entry of the chunk and nothing of it is on its way to the disk: then all that A has of
//! the chunk is acknowledged, so every replica that is in sync has it, and has it when it is asked *after that*. What B lacks then, B has lost.
//! The other way round nothing follows: what B has and A has not may have come since A looked.
//!
//! # What follows
//! | what B has, against A's quiet look | then |
//! |---|---|
//! | the same content | they agree, whatever their stamps are |
//! | an older stamp, and other content | B has lost a write |
//! | nothing, not even a tombstone | B has lost it; unless a tombstone may have gone there (R20), then as below |
//! | the same stamp, other content, and it is quiet there | they differ: the others are asked too, A looks once more, and more than half of all decide |
//! | another word about whether anything lies below the layer | one of the two catalogs is behind: as below |
//! | a newer stamp, or it is not quiet there | something came between: both are looked at once more, later, [`TRIES_MAX`] times |
//!
//! Two replicas that differ at one stamp are two words: nobody knows which is right, nothing is changed, and it stands in [`Comparer::unknown`] for a
//! person until a walk does not find it any more. Stamps are of chunks: that is what a replica comes to that lost one write and took a later one to another block of the chunk.
//!
//! Who is wrong is told to the manager with the version of the configuration that the comparison was made under, again and again until that
//! changes. The manager acts on it only while it has that very version, and takes the replica out *empty*: its session then lists everything. By
//! its stamps it would list what is newer than the last version that it was in sync under, which is not what it lacks.
//!
//! The same way goes a replica whose store found its own table or journal damaged ([`Input::Torn`]): there nobody knows what it has. When the
//! manager has emptied it since, its store forgets what is left ([`Output::Forget`]), and it joins as a new one.
//!
//! It is made for one failure at a time. What two at once can do, each at another replica, stands in `docs/decisions/scrub_compares_replicas.md`.
//!
//! # Invariants
//! - *acknowledged-first*: nobody is asked about a look that was not quiet.
//! - *one-configuration*: a look and an answer count only if both replicas are in sync under one version all the while.
//! - *comparisons-are-bounded*: one PG is walked at a time, at most [`PACE_MAX`] chunks of it are compared at once, at most [`LENDS_MAX`] questions of
//!   others are at the store, [`WRONG_MAX`] replicas are named and [`UNKNOWN_MAX`] chunks are noted. What has no room is found by the next walk. Own tables that are
//!   damaged are always told: nobody else finds them, and there are no more of them than PGs of the disk.
//!
//! # The driver's duties
//! 1. [`Input::Looked`] is composed in this order: the store reads the chunk's entry of the table (no data), *then* the replica is asked whether the chunk is
//!    quiet ([`Replica::is_quiet`](crate::protocol::replication::Replica::is_quiet)).
//! 2. Of a layer that the node's catalog does not have (not yet, or not any more) nothing is told: `found` is `None`. Nor of a layer that another one is being merged
//!    into here, or may be: stores merge in their own time, and the stamps do not say who has done it.
//! 3. `Configured` before the first `Torn` of a PG; each later error of the table tells it again, each time with the highest version that the replica has answered under.
//! 4. A store answers everything that it was asked, [`Output::List`] and [`Output::Look`], once, also with an error (`found` is `None`). They have no deadline: a
//!    walk stands still until its list and its looks are answered, and a question of another disk keeps its place among [`LENDS_MAX`].
//! 5. [`Input::Unanswered`] for each disk behind a connection that was lost.
//!
//! It does not know what a block holds, why a store's table is damaged, or whether the manager will act.

mod check;
mod comparer;
mod summary;
mod walk;
mod wrong;

#[cfg(test)]
mod tests;

pub use check::{Found, PATIENCE, TRIES_MAX};
pub use comparer::{Comparer, Counts, Input, LENDS_MAX, Output, PACE_MAX, Rests};
pub use summary::{Below, CompareAnswer, CompareHeader, Motion, Summary};
pub use walk::{PAGE_MAX, REST};
pub use wrong::{UNKNOWN_MAX, WRONG_MAX, Wrong};
