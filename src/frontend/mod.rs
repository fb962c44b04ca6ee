//! Front ends: what a user attaches a volume through.
//!
//! ```text
//!   client ── bytes ──> dialect (nbd, vhost_user) ── base::Request ──> shard
//!   client <── bytes ── dialect            <── base::Reply  ──
//! ```
//!
//! A front end speaks one dialect and nothing else: it turns what a client sends into requests of
//! [`crate::base`], and replies into what the client understands. It does not know stores, catalogs
//! or sockets: the protocol half of each is a plain value that is handed bytes, and the
//! runtime, which owns the sockets, carries out what it says.

pub mod nbd;
pub mod nbd_device;
pub mod ublk;
pub mod vhost_user;
