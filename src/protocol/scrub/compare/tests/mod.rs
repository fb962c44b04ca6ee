//! The comparer's stories, and a world of a few replicas that lose writes.

mod stories;
mod world;
