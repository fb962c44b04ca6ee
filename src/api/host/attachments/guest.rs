//! Those who serve guests: the shards, asked through the runtime's handle.

use super::Work;
use crate::runtime::{Guest, GuestState, Handle};

/// Those who serve guests. Errors say what is wrong and what to do.
pub trait Guests: Send + Sync {
    fn serve(&self, guest: Guest) -> Work<'_, Result<(), String>>;
    /// Without `force`, refused while a driver uses the disk.
    fn end(&self, key: u64, force: bool) -> Work<'_, Result<(), String>>;
    /// `None` where it is not served.
    fn state(&self, key: u64) -> Option<GuestState>;
}

impl Guests for Handle {
    fn serve(&self, guest: Guest) -> Work<'_, Result<(), String>> {
        let served = self.serve_guest(guest);
        Box::pin(async { served.await.map_err(|error| error.to_string()) })
    }

    fn end(&self, key: u64, force: bool) -> Work<'_, Result<(), String>> {
        let ended = self.end_guest(key, force);
        Box::pin(async { ended.await.map_err(|error| error.to_string()) })
    }

    fn state(&self, key: u64) -> Option<GuestState> {
        self.guest_state(key)
    }
}
