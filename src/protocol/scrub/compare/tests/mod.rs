//! The comparer's stories, and a world of a few replicas that lose writes.

mod bounds;
mod group;
mod stories;
mod world;
