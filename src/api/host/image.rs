//! A disk before it belongs to the shards: what is on it, and how it gets its first store. All of it waits for the
//! disk, so callers run it in blocking tasks.
//!
//! Invariant *nothing-is-overwritten*: only a disk whose beginning and end are all zeroes is formatted.
//! Partition tables, LVM, file systems and other stores all leave their mark there.

use crate::api::model::{ErrorBody, ErrorCode};
use crate::base::{BLOCK, CHUNK, StoreId};
use crate::io::{Access, Disk};
use crate::store::{self, OpenError, Superblock};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How much of the beginning of a disk must be empty, in bytes.
const HEAD: u64 = 1 << 20;
/// And of its end, where GPT and some RAID formats keep their second copy.
const TAIL: u64 = 64 << 10;
/// What is zeroed at once, in bytes.
const ZEROES: usize = 4 << 20;

/// What is on a disk.
#[derive(Debug)]
pub enum Content {
    Empty,
    /// A store; `fresh` where no daemon ever opened it.
    Store {
        id: StoreId,
        fresh: bool,
    },
    /// A store that cannot be used, and why.
    Damaged(String),
    Other,
}

/// A file that was made for a disk, to be unmade where nothing came of it.
#[derive(Debug)]
#[must_use]
pub struct Made {
    path: PathBuf,
    /// Its device and inode: another one may stand there by then.
    file: (u64, u64),
}

impl Made {
    /// The file at `path`, which was made a moment ago; nothing where it is there no more.
    fn at(path: &Path) -> Option<Made> {
        let file = identity(path)?;
        let path = path.to_owned();
        Some(Made { path, file })
    }

    /// Removes the file. Where that fails it stays, and the daemon's log says so: the reason for which nothing came of it is the one to tell.
    pub fn unmake(self) {
        if identity(&self.path) != Some(self.file) {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "a file was made for a disk of which nothing came, and stays");
        }
    }
}

/// What tells a file from another one under its path.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(path).ok()?;
    found.is_file().then(|| (found.dev(), found.ino()))
}

/// The disk at `path`. With `size`, a file that does not exist is made, which is said, and an empty one gets this length.
pub fn open_or_create(path: &Path, size: Option<u64>) -> Result<(Disk, Option<Made>), ErrorBody> {
    let mut disk = match (size, path.exists()) {
        (Some(bytes), false) => {
            let disk = Disk::create(path, bytes).map_err(disk_error)?;
            return Ok((disk, Made::at(path)));
        }
        (None, false) => return Err(nothing_there(path)),
        (_, true) => open(path)?,
    };
    match size {
        Some(bytes) if disk.bytes() == 0 => {
            disk.grow(bytes).map_err(disk_error)?;
        }
        Some(bytes) if disk.bytes() != bytes => return Err(not_so_long(&disk, bytes)),
        _ => {}
    }
    Ok((disk, None))
}

/// What [`open_or_create`] would find or make at `path`: its length, and what is on it. Nothing is made, and nothing written.
pub(super) fn look_only(path: &Path, size: Option<u64>) -> Result<(u64, Content), ErrorBody> {
    let disk = match (size, path.exists()) {
        (Some(bytes), false) => {
            Disk::may_create(path, bytes).map_err(disk_error)?;
            return Ok((bytes, Content::Empty));
        }
        (None, false) => return Err(nothing_there(path)),
        (_, true) => open(path)?,
    };
    let has = disk.bytes();
    let bytes = match size {
        Some(bytes) if has == 0 => {
            disk.may_grow(bytes).map_err(disk_error)?;
            bytes
        }
        Some(bytes) if has != bytes => return Err(not_so_long(&disk, bytes)),
        _ => has,
    };
    // A file that is shorter than a block counts as one of no length, and has something on it all the same.
    let is_file = std::fs::metadata(path).ok().filter(|found| found.is_file());
    let content = match is_file {
        Some(file) if has == 0 && file.len() > 0 => Content::Other,
        _ => look(&disk)?,
    };
    Ok((bytes, content))
}

fn nothing_there(path: &Path) -> ErrorBody {
    let message = format!("there is nothing at {}", path.display());
    let hint = "say --size to make a file there";
    ErrorBody::new(ErrorCode::NotFound, "path", message, hint)
}

fn not_so_long(disk: &Disk, bytes: u64) -> ErrorBody {
    let (path, has) = (disk.path().display(), disk.bytes());
    let message = format!("{path} has {has} bytes, not {bytes}");
    let hint = "a disk is used as a whole: leave the size out";
    ErrorBody::invalid("size_bytes", message, hint)
}

/// The disk at `path`, for this process alone.
pub(super) fn open(path: &Path) -> Result<Disk, ErrorBody> {
    Disk::open(path, Access::ReadWrite).map_err(disk_error)
}

/// What is on `disk`.
pub fn look(disk: &Disk) -> Result<Content, ErrorBody> {
    let mut head = vec![0; HEAD.min(disk.bytes()) as usize];
    let mut tail = vec![0; TAIL.min(disk.bytes()) as usize];
    read(disk, 0, &mut head)?;
    read(disk, disk.bytes() - tail.len() as u64, &mut tail)?;
    if head.iter().chain(&tail).all(|&byte| byte == 0) {
        return Ok(Content::Empty);
    }
    let copy = |at: u64| {
        let end = at + store::SUPERBLOCK_LEN;
        Superblock::decode(head.get(at as usize..end as usize).unwrap_or_default())
    };
    let [first, second] = store::SUPERBLOCK_AT;
    Ok(
        match Superblock::choose(copy(first), copy(second), disk.bytes()) {
            Ok(found) => Content::Store {
                id: found.store,
                fresh: found.incarnation == 0,
            },
            Err(OpenError::NotASarsenDisk) => Content::Other,
            Err(error) => Content::Damaged(error.to_string()),
        },
    )
}

/// Puts an empty store on `disk`, on which `found` was found: refused where that is anything.
pub fn format_empty(disk: &Disk, found: Content) -> Result<StoreId, ErrorBody> {
    must_be_empty(disk.path(), found)?;
    format(disk)
}

/// Refuses a disk on which anything was found.
pub(super) fn must_be_empty(path: &Path, found: Content) -> Result<(), ErrorBody> {
    let why = match found {
        Content::Empty => return Ok(()),
        Content::Store { id, .. } => format!("it holds the store {id}"),
        Content::Damaged(why) => format!("it holds a store: {why}"),
        Content::Other => "there is something on it".into(),
    };
    let message = format!("{}: {why}", path.display());
    let hint = "name an empty disk; `wipefs -a` or truncate empties one whose data nobody needs";
    Err(ErrorBody::new(ErrorCode::Conflict, "path", message, hint))
}

/// Puts an empty store on `disk`, durably.
fn format(disk: &Disk) -> Result<StoreId, ErrorBody> {
    let (store, formatted) = lay_out(disk.path(), disk.bytes())?;
    let carried_out = carry_out(disk, &formatted);
    carried_out.map_err(|error| disk_failed(disk, error))?;
    Ok(store)
}

/// A new store for a disk of `bytes` at `path`.
fn lay_out(path: &Path, bytes: u64) -> Result<(StoreId, store::Formatted), ErrorBody> {
    let plan = store::Plan {
        store: StoreId(random()?),
        instance_key: random()?,
        disk_bytes: bytes,
        journal_bytes: None,
        pages: None,
    };
    let formatted = store::format(&plan).map_err(|too_small| {
        let message = format!("{}: {too_small}", path.display());
        ErrorBody::invalid("size_bytes", message, "use a larger disk")
    })?;
    Ok((plan.store, formatted))
}

/// The identity that a new store on a disk of `bytes` could have, and its room for payload, in bytes.
pub(super) fn new_store(path: &Path, bytes: u64) -> Result<(StoreId, u64), ErrorBody> {
    let (store, formatted) = lay_out(path, bytes)?;
    Ok((store, formatted.geometry.slots * CHUNK))
}

/// Superblocks last, behind a flush: a disk whose formatting broke off has none.
fn carry_out(disk: &Disk, formatted: &store::Formatted) -> std::io::Result<()> {
    let zeroes = vec![0; ZEROES];
    for &(offset, len) in &formatted.zeroes {
        let mut done = 0;
        while done < len {
            let part = (len - done).min(ZEROES as u64);
            disk.write_at(offset + done, &zeroes[..part as usize])?;
            done += part;
        }
    }
    formatted
        .writes
        .iter()
        .try_for_each(|(offset, bytes)| disk.write_at(*offset, bytes))?;
    disk.flush()?;
    formatted
        .superblocks
        .iter()
        .try_for_each(|(offset, bytes)| disk.write_at(*offset, bytes))?;
    disk.flush()
}

/// Numbers that nobody can guess.
pub(super) fn random() -> Result<[u8; 16], ErrorBody> {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| {
        ErrorBody::unavailable(
            format!("/dev/urandom: {error}"),
            "mount /dev in the container",
        )
    })?;
    Ok(bytes)
}

fn read(disk: &Disk, offset: u64, into: &mut [u8]) -> Result<(), ErrorBody> {
    debug_assert!(offset.is_multiple_of(BLOCK));
    disk.read_at(offset, into)
        .map_err(|error| disk_failed(disk, error))
}

fn disk_failed(disk: &Disk, error: std::io::Error) -> ErrorBody {
    ErrorBody::io(
        format!("{}: {error}", disk.path().display()),
        "see the host's kernel log",
    )
}

fn disk_error(error: crate::io::DiskError) -> ErrorBody {
    let code = match error.problem() {
        crate::io::Problem::NotFound => ErrorCode::NotFound,
        crate::io::Problem::BadLength { .. } | crate::io::Problem::NotADisk => ErrorCode::Invalid,
        crate::io::Problem::Exists
        | crate::io::Problem::InUse { .. }
        | crate::io::Problem::OpenHere => ErrorCode::Conflict,
        _ => ErrorCode::Io,
    };
    let whole = error.to_string();
    // The cure is the hint here, and need not stand in the message as well.
    let message = whole
        .strip_suffix(error.cure())
        .unwrap_or(&whole)
        .trim_end_matches("; ");
    ErrorBody::new(code, "path", message, error.cure())
}
