//! Sarsen: block storage for Linux KVM hosts. The crate is the daemon and its command line (`main.rs`), the machines that decide within it, and the simulator that tries
//! those.
//!
//! A *room* is a folder, and the head of its `mod.rs` says what it is. The pure rooms decide, and see neither clock nor file nor socket; what carries out, and what speaks to
//! the world, is behind the feature `world`.
//!
//! ```text
//!   world   cli ► daemon ► api ► cluster ► manager ───► io ► observe
//!                                        ► calls ► trust
//!                              ► runtime ► frontend ───►
//!                              ► pilot ► manager, calls
//!   ──────────────────────────────────────────────────────────────────
//!   pure    sim ► node ► shard ► wire ► protocol ► base
//!                              ► store ──────────►
//! ```
//!
//! A room uses at most what is to its right in this picture, and rooms of the world what is pure, but for `sim`, which nobody uses. Which ones exactly stands in `tidy.rs`, as a test. The
//! rest of this page is `docs/architecture.md`.
//!
#![doc = include_str!("docs/architecture.md")]
#![cfg_attr(not(feature = "world"), forbid(unsafe_code))]

#[cfg(feature = "world")]
pub mod api;
pub mod base;
#[cfg(feature = "world")]
pub mod calls;
#[cfg(feature = "world")]
pub mod cli;
#[cfg(feature = "world")]
pub mod cluster;
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
pub mod node;
#[cfg(feature = "world")]
pub mod observe;
#[cfg(feature = "world")]
pub mod pilot;
pub mod protocol;
#[cfg(feature = "world")]
pub mod runtime;
pub mod shard;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
#[cfg(test)]
mod tidy;
#[cfg(feature = "world")]
pub mod trust;
pub mod wire;

#[cfg(all(sarsen_no_dsync, not(debug_assertions)))]
compile_error!("sarsen_no_dsync leaves durability out; it is for tests and cannot be released");
