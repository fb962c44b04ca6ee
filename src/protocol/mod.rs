#![forbid(unsafe_code)]
//! The protocols, pure: each a deterministic machine with no clock, no socket, no file.
//!
//! - [`catalog`]: what the manager of a site decides, and everyone else caches.
//! - [`volume`]: what orders the requests of one attached volume.

pub mod catalog;
pub mod volume;
