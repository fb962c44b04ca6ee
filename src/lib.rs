#![doc = include_str!("docs/architecture.md")]
#![cfg_attr(not(feature = "world"), forbid(unsafe_code))]

#[cfg(feature = "world")]
pub mod api;
pub mod base;
#[cfg(feature = "world")]
pub mod cli;
#[cfg(feature = "world")]
pub mod daemon;
#[cfg(doc)]
pub mod docs;
#[cfg(feature = "world")]
pub mod frontend;
#[cfg(feature = "world")]
pub mod io;
#[cfg(feature = "world")]
pub mod manager;
#[cfg(feature = "world")]
pub mod observe;
pub mod protocol;
#[cfg(feature = "world")]
pub mod runtime;
pub mod shard;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
#[cfg(test)]
mod tidy;
pub mod wire;

#[cfg(all(sarsen_no_dsync, not(debug_assertions)))]
compile_error!("sarsen_no_dsync leaves durability out; it is for tests and cannot be released");
