//! The kernel's nbd driver as this host's client: what is said to it over netlink, without the socket.
//!
//! ```text
//!   /dev/nbdN ── kernel nbd ══ socket pair ══ nbd::Session (transmission phase, simple replies)
//!                    ▲
//!                    └── generic netlink, family "nbd": connect, reconfigure, disconnect, status
//! ```
//!
//! The kernel speaks the transmission phase only: what a handshake would agree on is said in [`Connect`].
//! `netlink` is the envelope, `command` what stands in it. Both are bytes and values; `io` has the socket.

#![forbid(unsafe_code)]

mod command;
mod netlink;

pub use command::{
    Connect, FAMILY, Family, NBD_FLAGS, Reconfigure, TIMEOUT_S, connected, disconnect, family_of,
    find_family, slower,
};
pub use netlink::{Answer, Malformed, Refusal, answer};
