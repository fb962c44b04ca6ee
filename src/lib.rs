#![doc = include_str!("docs/architecture.md")]
#![cfg_attr(not(feature = "world"), forbid(unsafe_code))]

#[cfg(feature = "world")]
pub mod api;
pub mod base;
#[cfg(feature = "world")]
pub mod manager;
pub mod protocol;
pub mod shard;
pub mod store;
