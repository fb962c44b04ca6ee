//! The pages that explain Sarsen as a whole. The crate's front page is the map of the rooms.
//!
//! They are part of the source, so that a change of the code and of what is said about it are one commit, and
//! rustdoc checks their links. Modules here hold text and nothing else.

#[doc = include_str!("life_of_a_write.md")]
pub mod life_of_a_write {}

#[doc = include_str!("life_of_a_read.md")]
pub mod life_of_a_read {}

#[doc = include_str!("life_of_a_failure.md")]
pub mod life_of_a_failure {}

#[doc = include_str!("cluster.md")]
pub mod cluster {}

#[doc = include_str!("pools.md")]
pub mod pools {}

#[doc = include_str!("disk_format.md")]
pub mod disk_format {}

#[doc = include_str!("wire_format.md")]
pub mod wire_format {}

#[doc = include_str!("upgrade.md")]
pub mod upgrade {}

#[doc = include_str!("simulation.md")]
pub mod simulation {}

#[doc = include_str!("scale.md")]
pub mod scale {}

#[doc = include_str!("glossary.md")]
pub mod glossary {}

pub mod decisions;
