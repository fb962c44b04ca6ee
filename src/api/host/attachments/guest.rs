//! Those who serve guests: the shards, asked through the runtime's handle.

use super::super::lock;
use super::Work;
use crate::frontend::vhost_user::Handed;
use crate::runtime::{Guest, GuestState, Handle};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

/// Connections of guests' front ends that the process before left open, by the key of the guest.
#[derive(Debug, Default)]
pub struct HandedOver(Mutex<BTreeMap<u64, Handed<OwnedFd>>>);

impl HandedOver {
    pub fn new(handed: Vec<Handed<OwnedFd>>) -> HandedOver {
        let by_guest = handed.into_iter().map(|handed| (handed.guest, handed));
        HandedOver(Mutex::new(by_guest.collect()))
    }

    /// Whether the rings of that guest ran: it goes before another of the same volume.
    pub(super) fn ran(&self, key: u64) -> bool {
        lock(&self.0).get(&key).is_some_and(|handed| handed.ran)
    }

    pub(super) fn take(&self, key: u64) -> Option<Handed<OwnedFd>> {
        lock(&self.0).remove(&key)
    }

    /// Closes what nobody took: its front end connects again, where there is still something for it.
    pub(super) fn close(&self) {
        for guest in std::mem::take(&mut *lock(&self.0)).into_keys() {
            tracing::warn!(
                guest,
                "a connection that was handed over belongs to no attachment"
            );
        }
    }
}

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
