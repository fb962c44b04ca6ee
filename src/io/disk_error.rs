//! Why a disk cannot be used: what is wrong, with which path, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A disk that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskError {
    path: PathBuf,
    problem: Problem,
}

/// What is wrong with a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    NotFound,
    Denied,
    Exists,
    /// Neither a block device nor a regular file.
    NotADisk,
    /// Another process has it open; its id where the kernel tells it.
    InUse {
        pid: Option<u32>,
    },
    /// This process has it open already, perhaps under another path.
    OpenHere,
    /// The file system cannot do direct I/O.
    NoDirectIo,
    SectorTooLarge {
        bytes: u32,
    },
    BadLength {
        bytes: u64,
    },
    TooShort {
        has: u64,
        wanted: u64,
    },
    /// Anything else that the kernel says.
    Os(i32),
}

impl Problem {
    pub(super) fn of(error: io::Error) -> Problem {
        match error.raw_os_error() {
            Some(libc::ENOENT) => Problem::NotFound,
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => Problem::Denied,
            Some(libc::EEXIST) => Problem::Exists,
            Some(libc::EINVAL) => Problem::NoDirectIo,
            Some(code) => Problem::Os(code),
            None => Problem::Os(libc::EIO),
        }
    }

    /// The same for opening, where the kernel's own lock says EBUSY.
    pub(super) fn of_open(error: io::Error, _device: u64) -> Problem {
        match error.raw_os_error() {
            Some(libc::EBUSY) => Problem::InUse { pid: None },
            _ => Problem::of(error),
        }
    }
}

impl DiskError {
    pub(super) fn new(path: &Path, problem: Problem) -> DiskError {
        DiskError {
            path: path.to_owned(),
            problem,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// What to do about it.
    pub fn cure(&self) -> &'static str {
        match self.problem {
            Problem::NotFound => "check the path",
            Problem::Denied => "run as a user that may read and write it",
            Problem::Exists => "choose another path, or add the file as it is",
            Problem::NotADisk => "name a block device or a regular file",
            Problem::InUse { .. } => "stop the other process, or unmount the file system on it",
            Problem::OpenHere => "name each disk once",
            Problem::NoDirectIo => "use a file system with direct I/O, such as ext4, xfs or btrfs",
            Problem::SectorTooLarge { .. } => "use a disk with sectors of 512 or 4096 bytes",
            Problem::BadLength { .. } => "give a length that is a multiple of 4096 bytes",
            Problem::TooShort { .. } => "make the device longer first",
            Problem::Os(_) => "look at the kernel's log",
        }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.problem {
            Problem::NotFound => f.write_str("there is nothing at this path"),
            Problem::Denied => f.write_str("access is denied"),
            Problem::Exists => f.write_str("there is something at this path already"),
            Problem::NotADisk => f.write_str("this is neither a block device nor a regular file"),
            Problem::InUse { pid: Some(pid) } => write!(f, "in use by process {pid}"),
            Problem::InUse { pid: None } => f.write_str("in use by another process or mounted"),
            Problem::OpenHere => f.write_str("this process uses the disk already"),
            Problem::NoDirectIo => f.write_str("direct I/O is not supported here"),
            Problem::SectorTooLarge { bytes } => write!(f, "its sectors have {bytes} bytes"),
            Problem::BadLength { bytes } => write!(f, "{bytes} bytes is no length for a disk"),
            Problem::TooShort { has, wanted } => {
                write!(f, "it has {has} bytes and should have {wanted}")
            }
            Problem::Os(code) => write!(f, "{}", io::Error::from_raw_os_error(*code)),
        }?;
        write!(f, "; {}", self.cure())
    }
}

impl std::error::Error for DiskError {}
