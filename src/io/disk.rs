//! A disk: a raw block device or a file, opened directly (O_DIRECT) and for this process alone.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// An open disk. Dropping it gives the lock back.
#[derive(Debug)]
pub struct Disk {
    #[expect(dead_code)]
    file: OwnedFd,
    #[expect(dead_code)]
    path: PathBuf,
}
