//! What the kernel knows of a disk: length, sector size, write cache, discard.

use super::disk::{Commit, DiskKind};
use super::disk_error::{DiskError, Problem};
use crate::base::BLOCK;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What is known of an open disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub kind: DiskKind,
    /// Rounded down to whole blocks.
    pub bytes: u64,
    pub logical_sector: u32,
    pub commit: Commit,
    pub discards: bool,
}

/// What is at `path`, and how long it is now, in bytes. Takes no lock: the disk may be in use, by us too.
pub fn length_now(path: &Path) -> Result<(DiskKind, u64), DiskError> {
    let wrong = |error| DiskError::new(path, Problem::of(error));
    let kind = match std::fs::metadata(path).map_err(wrong)?.file_type() {
        t if t.is_block_device() => DiskKind::BlockDevice,
        t if t.is_file() => DiskKind::File,
        _ => return Err(DiskError::new(path, Problem::NotADisk)),
    };
    let facts = File::open(path).and_then(|file| ask(&file, kind));
    Ok((kind, facts.map_err(wrong)?.bytes))
}

pub(super) fn ask(file: &File, kind: DiskKind) -> io::Result<Facts> {
    match kind {
        DiskKind::File => of_file(file),
        DiskKind::BlockDevice => of_device(file),
    }
}

fn of_file(file: &File) -> io::Result<Facts> {
    let bytes = file.metadata()?.len();
    Ok(Facts {
        kind: DiskKind::File,
        bytes: bytes - bytes % BLOCK,
        logical_sector: 512,
        commit: Commit::Dsync,
        // Holes in a file would be unwritten extents again, whose durable writes are slow.
        discards: false,
    })
}

nix::ioctl_read!(length_of_device, 0x12, 114, u64); // BLKGETSIZE64
nix::ioctl_read_bad!(sector_of_device, libc::BLKSSZGET, libc::c_int);

fn of_device(file: &File) -> io::Result<Facts> {
    let (mut bytes, mut sector) = (0u64, 0);
    // SAFETY: each call writes one value of the type that its request is declared with.
    unsafe {
        length_of_device(file.as_raw_fd(), &mut bytes)?;
        sector_of_device(file.as_raw_fd(), &mut sector)?;
    }
    let queue = Queue::of(file.metadata()?.rdev());
    let commit = commit_of(queue.value("write_cache"), queue.value("fua"));
    let discards = queue.value("discard_max_bytes");
    Ok(Facts {
        kind: DiskKind::BlockDevice,
        bytes: bytes - bytes % BLOCK,
        logical_sector: u32::try_from(sector).unwrap_or(u32::MAX),
        commit,
        discards: discards.is_some_and(|bytes| bytes != "0"),
    })
}

/// What is not known is taken for a volatile cache.
fn commit_of(cache: Option<String>, fua: Option<String>) -> Commit {
    match (cache.as_deref(), fua.as_deref()) {
        (Some("write through"), _) => Commit::WriteThrough,
        (_, Some("1")) => Commit::Dsync,
        _ => Commit::ThenFlush,
    }
}

/// The folder of a device's queue in sysfs.
struct Queue(PathBuf);

impl Queue {
    fn of(device: u64) -> Queue {
        let (major, minor) = (libc::major(device), libc::minor(device));
        let folder = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        let own = folder.join("queue");
        if own.is_dir() {
            return Queue(own);
        }
        // A partition: the queue is its disk's. The link is resolved, so that `..` is the disk.
        let real = std::fs::canonicalize(&folder).unwrap_or(folder);
        Queue(real.join("../queue"))
    }

    /// `None` where the kernel has no such file.
    fn value(&self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.0.join(name)).ok()?;
        Some(text.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_of_unknown_kind_is_taken_for_a_volatile_one() {
        let s = |text: &str| Some(text.to_owned());
        assert_eq!(commit_of(s("write through"), s("0")), Commit::WriteThrough);
        assert_eq!(commit_of(s("write back"), s("1")), Commit::Dsync);
        assert_eq!(commit_of(s("write back"), s("0")), Commit::ThenFlush);
        assert_eq!(commit_of(None, None), Commit::ThenFlush);
    }
}
