//! Keys and certificates as files: written whole or not at all, and read only where nobody else can have read them.
//!
//! A file is written under another name, made durable, renamed, and its folder made durable: after a crash it is the old one or the new
//! one. What stays of an interrupted write is overwritten by the next.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a file that is read: a key and two certificates are under 3 KiB.
const FILE_LEN_MAX: u64 = 64 << 10;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Its owner: it holds a key.
    Secret,
    Public,
}

/// Why a file of this room cannot be used, or written.
#[derive(Debug)]
pub enum FileError {
    Missing {
        path: PathBuf,
        cure: &'static str,
    },
    /// There is one already, and it is not overwritten.
    Exists {
        path: PathBuf,
    },
    /// Others than its owner can read a key.
    Readable {
        path: PathBuf,
        mode: u32,
    },
    Malformed {
        path: PathBuf,
        what: String,
    },
    Io {
        path: PathBuf,
        doing: &'static str,
        error: io::Error,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Missing { path, cure } => {
                write!(f, "{} is not there; {cure}", path.display())
            }
            FileError::Exists { path } => write!(
                f,
                "{} is there already and is not overwritten: it may be the only copy; move it away if it is not needed",
                path.display()
            ),
            FileError::Readable { path, mode } => write!(
                f,
                "{} holds a key and others can read it (mode {mode:04o}); whoever did can pose as this node. If nobody did: chmod 600 {}",
                path.display(),
                path.display()
            ),
            FileError::Malformed { path, what } => write!(
                f,
                "{}: {what}; restore it from a backup, or join the cluster anew with a token",
                path.display()
            ),
            FileError::Io { path, doing, error } => {
                write!(f, "cannot {doing} {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FileError::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |error| FileError::Io { path, doing, error }
}

pub(super) fn malformed(path: &Path, what: impl fmt::Display) -> FileError {
    FileError::Malformed {
        path: path.to_owned(),
        what: what.to_string(),
    }
}

/// Makes the file hold `bytes`, whatever it held before.
pub(super) fn write(path: &Path, bytes: &[u8], secrecy: Secrecy) -> Result<(), FileError> {
    let folder = folder_of(path);
    make_folder(folder)?;
    let mode = match secrecy {
        Secrecy::Secret => 0o600,
        Secrecy::Public => 0o644,
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    // One that an interrupted write left may have another mode.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(&beside, "remove")(error));
        }
        _ => {}
    }
    let mut options = OpenOptions::new();
    let opened = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside);
    let mut file = opened.map_err(failed(&beside, "create"))?;
    file.write_all(bytes).map_err(failed(&beside, "write"))?;
    file.sync_all().map_err(failed(&beside, "make durable"))?;
    fs::rename(&beside, path).map_err(failed(path, "put in its place"))?;
    sync_folder(folder)
}

/// Keeps what is no secret beside keys and certificates, in the same way.
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, Secrecy::Public)
}

/// The folder that a path lies in; of a bare name it is the one where the process is.
pub(super) fn folder_of(path: &Path) -> &Path {
    let named = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    named.unwrap_or(Path::new("."))
}

/// Makes a folder, and those that it lies in, each durable in the one above it.
fn make_folder(folder: &Path) -> Result<(), FileError> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder_of(folder);
    make_folder(above)?;
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed(folder, "make the folder")(error));
        }
        // There meanwhile; or in the way, and then what is to be in it says so.
        _ => {}
    }
    sync_folder(above)
}

fn sync_folder(folder: &Path) -> Result<(), FileError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(failed(folder, "make durable"))
}

/// Reads a file that holds a key.
pub(super) fn read_secret(path: &Path, cure: &'static str) -> Result<Vec<u8>, FileError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = path.to_owned();
            return Err(FileError::Missing { path, cure });
        }
        opened => opened.map_err(failed(path, "open"))?,
    };
    let about = file.metadata().map_err(failed(path, "look at"))?;
    if !about.is_file() {
        return Err(malformed(path, "it is not a file"));
    }
    let mode = about.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(FileError::Readable { path, mode });
    }
    if about.len() > FILE_LEN_MAX {
        let what = format!(
            "it has {} bytes, and never more than {FILE_LEN_MAX}",
            about.len()
        );
        return Err(malformed(path, what));
    }
    let mut bytes = Vec::new();
    let read = Read::by_ref(&mut file)
        .take(FILE_LEN_MAX)
        .read_to_end(&mut bytes);
    read.map_err(failed(path, "read"))?;
    Ok(bytes)
}
