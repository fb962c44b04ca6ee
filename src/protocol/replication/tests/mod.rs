//! The machines in small worlds, exhaustively, and in stories.

mod alone;
mod bounds;
mod reads;
// Rules can be switched off where there is a simulator.
#[cfg(feature = "sim")]
mod explore;
mod recovery;
mod stories;
#[cfg(feature = "sim")]
mod world;
