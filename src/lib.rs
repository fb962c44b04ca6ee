#![doc = include_str!("docs/architecture.md")]
#![cfg_attr(not(feature = "world"), forbid(unsafe_code))]

pub mod base;
pub mod shard;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
