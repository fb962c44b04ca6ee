//! The manager: what keeps the catalog, and the only door through which it changes.
//!
//! ```text
//!   propose(Command) ──► catalog.apply on a copy ──► log entry durable (redb) ──► copy becomes the catalog
//!                               │                          │
//!                               └── Refusal                └── Unavailable: nothing is taken any more
//! ```
//!
//! Invariants:
//! - *log-before-state*: nobody sees a change of the catalog before its command is durable.
//! - *one-at-a-time*: commands are applied in one order, that of the log.
//! - *all-or-nothing*: a caller that goes away in the middle leaves a command fully applied or not at all (the
//!   whole step runs in one blocking task, which a dropped future does not stop).
//!
//! Today one node is the whole manager. Raft comes to stand behind the same door, so nothing outside this
//! room knows that there is a redb file.

mod log_store;
mod propose;

#[cfg(test)]
mod tests;

pub use log_store::OpenError;
pub use propose::{Manager, ProposeError};
