//! The machines in small worlds, exhaustively, and in stories.

mod explore;
mod stories;
mod world;
