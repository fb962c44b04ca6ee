//! Those who serve guests: the shards, asked through the runtime's handle.

use super::Work;
use crate::base::VolumeId;
use std::os::fd::OwnedFd;

/// A guest's disk that is to be served.
#[derive(Debug)]
pub struct Guest {
    /// The attachment's own number.
    pub key: u64,
    pub volume: VolumeId,
    /// A listening unix socket.
    pub listener: OwnedFd,
    pub queues: u16,
    /// Whether the guest still runs at the volume's first socket.
    pub incoming: bool,
}

/// Whether a guest has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestState {
    Listening,
    Connected,
}

/// Those who serve guests. Errors say what is wrong and what to do.
pub trait Guests: Send + Sync {
    fn serve(&self, guest: Guest) -> Work<'_, Result<(), String>>;
    /// Without `force`, refused while a driver uses the disk.
    fn end(&self, key: u64, force: bool) -> Work<'_, Result<(), String>>;
    /// `None` where it is not served.
    fn state(&self, key: u64) -> Option<GuestState>;
}

impl Guests for crate::runtime::Handle {
    fn serve(&self, _: Guest) -> Work<'_, Result<(), String>> {
        Box::pin(async { Err("this build does not serve guests".to_owned()) })
    }

    fn end(&self, _: u64, _: bool) -> Work<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn state(&self, _: u64) -> Option<GuestState> {
        None
    }
}
