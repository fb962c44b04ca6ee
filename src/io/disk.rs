//! A disk: a raw block device or a file, opened directly (O_DIRECT) and by this process alone.
//!
//! What the device says of its write cache decides how a write becomes durable ([`Commit`]); everything
//! above only says *whether* it must be. Nothing here knows what is on the disk.

use super::disk_error::{DiskError, Problem};
use super::disk_facts::{self, Facts};
use super::lock;
use nix::unistd::{AccessFlags, access};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The unit of every transfer, in bytes.
const UNIT: u64 = crate::base::BLOCK;
/// The largest transfer of the blocking interface, in bytes; also the size of its aligned buffer.
const TRANSFER: usize = 1 << 20;

/// What is done with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For tools that must not change anything.
    ReadOnly,
    ReadWrite,
}

/// What a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskKind {
    BlockDevice,
    File,
}

/// How a write to this disk becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// The device has no volatile cache: a direct write that has ended is durable.
    WriteThrough,
    /// RWF_DSYNC: the device's FUA, or for a file what its file system needs.
    Dsync,
    /// A volatile cache without FUA: the write, then fdatasync.
    ThenFlush,
}

impl Commit {
    /// The flags of pwritev2 for a write that must be durable when it has ended.
    pub fn durable_flags(self) -> i32 {
        match self {
            Commit::Dsync if !cfg!(sarsen_no_dsync) => libc::RWF_DSYNC,
            _ => 0,
        }
    }

    /// Whether a flush must follow a write that is to be durable.
    pub fn flushes_after(self) -> bool {
        self == Commit::ThenFlush
    }
}

/// An open disk. Dropping it gives the lock back.
#[derive(Debug)]
pub struct Disk {
    file: File,
    path: PathBuf,
    access: Access,
    facts: Facts,
}

impl Disk {
    /// Opens what is at `path`, which must be a block device or a regular file that nobody else uses.
    pub fn open(path: &Path, access: Access) -> Result<Disk, DiskError> {
        let wrong = |problem| DiskError::new(path, problem);
        let before = std::fs::metadata(path).map_err(|e| wrong(Problem::of(e)))?;
        let kind = match before.file_type() {
            t if t.is_block_device() => DiskKind::BlockDevice,
            t if t.is_file() => DiskKind::File,
            _ => return Err(wrong(Problem::NotADisk)),
        };
        // O_EXCL without O_CREAT: the kernel's own lock of a block device, which mounts take too.
        let exclusive = match kind {
            DiskKind::BlockDevice => libc::O_EXCL,
            DiskKind::File => 0,
        };
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(access == Access::ReadWrite)
            .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC | exclusive);
        let file = lock::open_exclusive(path, || options.open(path))
            .map_err(|e| wrong(Problem::of_open(e, before.rdev())))?;
        Disk::take(file, path, kind, access)
    }

    /// Makes a sparse file of `bytes`, which must not exist yet, and opens it.
    pub fn create(path: &Path, bytes: u64) -> Result<Disk, DiskError> {
        let wrong = |problem| DiskError::new(path, problem);
        if bytes == 0 || !bytes.is_multiple_of(UNIT) {
            return Err(wrong(Problem::BadLength { bytes }));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC)
            .mode(0o600)
            .open(path)
            .map_err(|e| wrong(Problem::of(e)))?;
        let sized = file.set_len(bytes).and_then(|()| sync_parent(path));
        let opened = match sized {
            Ok(()) => Disk::take(file, path, DiskKind::File, Access::ReadWrite),
            Err(e) => Err(wrong(Problem::of(e))),
        };
        if opened.is_err() {
            // What was made here is unmade; where that fails too, the first reason is the one to tell.
            let _ = std::fs::remove_file(path);
        }
        opened
    }

    /// Whether [`Disk::create`] would make such a file, as far as that is known without making it: whether the file system has direct I/O is not.
    pub fn may_create(path: &Path, bytes: u64) -> Result<(), DiskError> {
        let wrong = |problem| DiskError::new(path, problem);
        if bytes == 0 || !bytes.is_multiple_of(UNIT) {
            return Err(wrong(Problem::BadLength { bytes }));
        }
        // A link that leads nowhere is there, too.
        if std::fs::symlink_metadata(path).is_ok() {
            return Err(wrong(Problem::Exists));
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = parent.unwrap_or(Path::new("."));
        let no_folder = |problem| DiskError::new(folder, problem);
        let found = std::fs::metadata(folder).map_err(|e| no_folder(Problem::of(e)))?;
        if !found.is_dir() {
            return Err(no_folder(Problem::Os(libc::ENOTDIR)));
        }
        let adds = AccessFlags::W_OK | AccessFlags::X_OK;
        access(folder, adds).map_err(|e| no_folder(Problem::of(e.into())))
    }

    /// Whether [`Disk::grow`] would be refused, as far as that is known without trying it.
    pub fn may_grow(&self, bytes: u64) -> Result<(), DiskError> {
        let has = self.facts.bytes;
        let problem = match self.facts.kind {
            _ if bytes <= has => return Ok(()),
            DiskKind::File if bytes.is_multiple_of(UNIT) => return Ok(()),
            DiskKind::File => Problem::BadLength { bytes },
            DiskKind::BlockDevice => Problem::TooShort { has, wanted: bytes },
        };
        Err(DiskError::new(&self.path, problem))
    }

    fn take(file: File, path: &Path, kind: DiskKind, access: Access) -> Result<Disk, DiskError> {
        let wrong = |problem| DiskError::new(path, problem);
        lock::exclusive(&file).map_err(wrong)?;
        let facts = disk_facts::ask(&file, kind).map_err(|e| wrong(Problem::of(e)))?;
        if u64::from(facts.logical_sector) > UNIT {
            let bytes = facts.logical_sector;
            return Err(wrong(Problem::SectorTooLarge { bytes }));
        }
        Ok(Disk {
            file,
            path: path.to_owned(),
            access,
            facts,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn kind(&self) -> DiskKind {
        self.facts.kind
    }

    /// The length in bytes, rounded down to whole blocks.
    pub fn bytes(&self) -> u64 {
        self.facts.bytes
    }

    /// The logical sector size in bytes.
    pub fn logical_sector(&self) -> u32 {
        self.facts.logical_sector
    }

    pub fn commit(&self) -> Commit {
        self.facts.commit
    }

    /// Whether the device wants to be told of space that is not in use.
    pub fn takes_discards(&self) -> bool {
        self.facts.discards
    }

    /// Whether space must be written once before a durable write to it is fast: the extents of a file are
    /// unwritten ones at first (44 us a write against 21).
    pub fn wants_zeroes_ahead(&self) -> bool {
        self.facts.kind == DiskKind::File
    }

    /// Makes a file longer, or looks how long a device has become. Returns the length in bytes.
    pub fn grow(&mut self, bytes: u64) -> Result<u64, DiskError> {
        let wrong = |problem| DiskError::new(&self.path, problem);
        if self.facts.kind == DiskKind::File && bytes > self.facts.bytes {
            if !bytes.is_multiple_of(UNIT) {
                return Err(wrong(Problem::BadLength { bytes }));
            }
            let grown = self.file.set_len(bytes).and_then(|()| self.file.sync_all());
            grown.map_err(|e| wrong(Problem::of(e)))?;
        }
        let facts = disk_facts::ask(&self.file, self.facts.kind);
        self.facts = facts.map_err(|e| wrong(Problem::of(e)))?;
        if self.facts.bytes < bytes {
            let has = self.facts.bytes;
            return Err(wrong(Problem::TooShort { has, wanted: bytes }));
        }
        Ok(self.facts.bytes)
    }

    /// Reads all of `into` from `offset` on, waiting for it. Both are multiples of 4096 bytes.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        aligned(offset, into.len())?;
        let mut buffer = AlignedBytes::new(into.len().min(TRANSFER));
        let mut at = offset;
        for part in into.chunks_mut(TRANSFER) {
            let bytes = &mut buffer.bytes()[..part.len()];
            self.file.read_exact_at(bytes, at)?;
            part.copy_from_slice(bytes);
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Writes all of `from` at `offset`, waiting for it. Both are multiples of 4096 bytes. Durable after
    /// [`Disk::flush`].
    pub fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        aligned(offset, from.len())?;
        let mut buffer = AlignedBytes::new(from.len().min(TRANSFER));
        let mut at = offset;
        for part in from.chunks(TRANSFER) {
            let bytes = &mut buffer.bytes()[..part.len()];
            bytes.copy_from_slice(part);
            self.file.write_all_at(bytes, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Makes everything durable that was written before. A failure is final: what was written since the last
    /// flush may be lost, whatever a second flush says.
    pub fn flush(&self) -> io::Result<()> {
        if cfg!(sarsen_no_dsync) {
            return Ok(());
        }
        self.file.sync_data()
    }

    pub fn access(&self) -> Access {
        self.access
    }

    /// The open file, for a ring; the facts stay behind.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }
}

impl AsFd for Disk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn aligned(offset: u64, len: usize) -> io::Result<()> {
    if offset.is_multiple_of(UNIT) && (len as u64).is_multiple_of(UNIT) {
        return Ok(());
    }
    let what = "disks are read and written in whole blocks of 4096 bytes";
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// Makes the name of a new file durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Bytes that begin on a block boundary.
struct AlignedBytes {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    fn new(len: usize) -> AlignedBytes {
        let memory = vec![0; len + UNIT as usize];
        let start = memory.as_ptr().align_offset(UNIT as usize);
        AlignedBytes { memory, start, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_dir::TestDir;
    use super::*;

    #[test]
    fn what_was_written_is_read_back_after_opening_again() {
        let dir = TestDir::new();
        let path = dir.path("disk");
        let data: Vec<u8> = (0..3 * TRANSFER).map(|n| (n / 7) as u8).collect();
        let disk = Disk::create(&path, 16 << 20).unwrap();
        disk.write_at(8192, &data).unwrap();
        disk.flush().unwrap();
        drop(disk);
        let disk = Disk::open(&path, Access::ReadOnly).unwrap();
        assert_eq!((disk.bytes(), disk.kind()), (16 << 20, DiskKind::File));
        assert_eq!(disk.commit(), Commit::Dsync);
        let mut back = vec![0; data.len()];
        disk.read_at(8192, &mut back).unwrap();
        assert!(back == data);
        assert!(disk.write_at(0, &[0; 4096]).is_err());
        assert!(disk.read_at(512, &mut [0; 4096]).is_err());
    }

    #[test]
    fn a_disk_that_is_open_is_not_opened_again_and_the_message_says_so() {
        let dir = TestDir::new();
        let path = dir.path("disk");
        let _held = Disk::create(&path, 1 << 20).unwrap();
        let again = Disk::open(&path, Access::ReadOnly).unwrap_err();
        assert_eq!(*again.problem(), Problem::OpenHere);
        assert!(again.to_string().contains("disk"), "{again}");
        let created = Disk::create(&path, 1 << 20).unwrap_err();
        assert_eq!(*created.problem(), Problem::Exists);
    }

    #[test]
    fn what_is_not_a_disk_is_refused_with_its_path() {
        let dir = TestDir::new();
        let missing = Disk::open(&dir.path("nothing"), Access::ReadWrite).unwrap_err();
        assert_eq!(*missing.problem(), Problem::NotFound);
        let folder = Disk::open(&dir.path(""), Access::ReadWrite).unwrap_err();
        assert_eq!(*folder.problem(), Problem::NotADisk);
        let odd = Disk::create(&dir.path("odd"), 1000).unwrap_err();
        assert_eq!(*odd.problem(), Problem::BadLength { bytes: 1000 });
    }

    #[test]
    fn what_could_be_made_is_told_without_making_it() {
        let dir = TestDir::new();
        let path = dir.path("disk");
        let refused = |path: &Path, bytes| {
            let error = Disk::may_create(path, bytes).unwrap_err();
            error.problem().clone()
        };
        assert_eq!(Disk::may_create(&path, 1 << 20), Ok(()));
        assert!(!path.exists());
        assert_eq!(refused(&path, 1000), Problem::BadLength { bytes: 1000 });
        let nowhere = dir.path("folder").join("disk");
        assert_eq!(refused(&nowhere, 1 << 20), Problem::NotFound);
        std::os::unix::fs::symlink("nothing", dir.path("link")).unwrap();
        assert_eq!(refused(&dir.path("link"), 1 << 20), Problem::Exists);
        let disk = Disk::create(&path, 1 << 20).unwrap();
        assert_eq!(refused(&path, 1 << 20), Problem::Exists);
        assert_eq!(
            refused(&path.join("disk"), 1 << 20),
            Problem::Os(libc::ENOTDIR)
        );
        assert_eq!(disk.may_grow(2 << 20), Ok(()));
        assert!(disk.may_grow((2 << 20) + 1).is_err());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
    }

    #[test]
    fn a_file_grows_and_never_shrinks() {
        let dir = TestDir::new();
        let mut disk = Disk::create(&dir.path("disk"), 1 << 20).unwrap();
        assert_eq!(disk.grow(2 << 20).unwrap(), 2 << 20);
        assert_eq!(disk.grow(1 << 20).unwrap(), 2 << 20);
        assert_eq!(std::fs::metadata(disk.path()).unwrap().len(), 2 << 20);
    }
}
