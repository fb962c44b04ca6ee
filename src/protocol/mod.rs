//! The protocols, pure: deterministic machines that every driver runs in the same way.
//!
//! - [`catalog`]: what the manager of a site decides, and everyone else caches.

pub mod catalog;
