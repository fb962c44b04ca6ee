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

/// A bell for a thread that sleeps in [`super::wait`].
#[derive(Debug)]
pub struct Nudge(EventFd);

impl Nudge {
    pub fn new() -> std::io::Result<Nudge> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Nudge(EventFd::from_value_and_flags(0, flags)?))
    }

    pub fn ring(&self) {
        let _ = self.0.write(1); // a full counter is as good
    }

    /// Takes back all rings so far. To be called before what was rung for is looked at.
    pub fn heard(&self) {
        let _ = self.0.read(); // nothing was rung
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
