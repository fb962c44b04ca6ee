//! How another thread gets the attention of a ring that sleeps: an eventfd that is polled in the ring and
//! never read. A flag saves the system call where the ring is awake and has been rung already.

use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// A bell on a ring.
#[derive(Debug)]
pub struct Wake {
    event: EventFd,
    rung: AtomicBool,
}

impl Wake {
    pub fn new() -> std::io::Result<Wake> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Wake {
            event: EventFd::from_value_and_flags(0, flags)?,
            rung: AtomicBool::new(false),
        })
    }

    /// Wakes the listener, once until it has [`Wake::heard`].
    pub fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        // The counter is never read: after 2^64 - 2 rings it would be full. Nothing else can fail.
        let _ = self.event.write(1);
    }

    /// Says that the next ring shall wake again. To be called before what was rung for is looked at.
    pub fn heard(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// What the ring polls.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
