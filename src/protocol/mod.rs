#![forbid(unsafe_code)]
//! The protocols, pure: each a deterministic machine with no clock, no socket, no file.

pub mod volume;
