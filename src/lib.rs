#![doc = include_str!("docs/architecture.md")]
#![cfg_attr(not(feature = "world"), forbid(unsafe_code))]

pub mod base;
#[cfg(feature = "world")]
pub mod frontend;
pub mod protocol;
pub mod shard;
pub mod store;
#[cfg(test)]
mod tidy;
