//! The log of commands and the snapshot that it goes on from, in one redb file.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format` | the version of this layout (1) |
//! | `snapshot` | how many commands are in it | crc32c (4 bytes, little endian), then the catalog as JSON |
//! | `log` | the number of the command, from 1 on | crc32c (4 bytes, little endian), then the command as JSON |
//!
//! One transaction appends a command; every [`COMPACT_EVERY`] commands it also replaces the snapshot and empties
//! the log. redb verifies its own pages only when it repairs after a crash, so each value carries a checksum.

use crate::base::crc;
use crate::protocol::catalog::{Catalog, Command};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The version of the layout in the file (1: the first).
const FORMAT: u64 = 1;
/// How many commands the log holds before they become a snapshot. Replaying one takes microseconds, and a
/// snapshot of 10,000 volumes 4 MiB: at 256 the log stays small and snapshots rare.
pub(super) const COMPACT_EVERY: u64 = 256;
/// redb's page cache, in bytes: the catalog is in memory anyway.
const CACHE_BYTES: usize = 1 << 20;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const SNAPSHOT: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshot");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");

/// Why the catalog in a file cannot be used. Nothing was changed in it.
#[derive(Debug)]
pub struct OpenError {
    pub path: PathBuf,
    pub reason: String,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the catalog in {}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for OpenError {}

pub(super) struct LogStore {
    database: Database,
}

impl LogStore {
    /// Opens or creates the file, and gives back the catalog that is in it.
    pub fn open(path: &Path) -> Result<(LogStore, Catalog), OpenError> {
        let wrong = |reason: String| OpenError {
            path: path.into(),
            reason,
        };
        // redb promises errors for a damaged file, but checks page bounds with assertions too.
        let opened = catch_unwind(AssertUnwindSafe(|| open_and_read(path)));
        let damaged = || wrong("the file is damaged; restore it from a backup".into());
        opened
            .unwrap_or_else(|_| Err(String::new()))
            .map_err(|reason| {
                if reason.is_empty() {
                    damaged()
                } else {
                    wrong(reason)
                }
            })
    }

    /// Makes a command durable, and where it is time the catalog after it.
    pub fn append(&self, command: &Command, after: &Catalog) -> Result<(), redb::Error> {
        let number = after.applied();
        let entry = serde_json::to_vec(command).expect("a command is plain JSON");
        let transaction = self.database.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            if number.is_multiple_of(COMPACT_EVERY) {
                log.retain(|_, _| false)?;
                let mut snapshots = transaction.open_table(SNAPSHOT)?;
                snapshots.retain(|_, _| false)?;
                snapshots.insert(number, sealed(&after.snapshot()).as_slice())?;
            } else {
                log.insert(number, sealed(&entry).as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn open_and_read(path: &Path) -> Result<(LogStore, Catalog), String> {
    let mut database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(path)
        .map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                "another process uses it; is a daemon running already?".into()
            }
            error => error.to_string(),
        })?;
    // Reads every page and compares its checksum, and builds the list of free pages anew: a rotten one would
    // otherwise be found by an assertion at some later write. The file is small, so this takes milliseconds.
    if !database.check_integrity().map_err(text)? {
        tracing::warn!(path = %path.display(), "the catalog's file was damaged and is repaired");
    }
    check_format(&database)?;
    let catalog = read(&database)?;
    Ok((LogStore { database }, catalog))
}

/// Says what format the file has, and where it has none yet, gives it ours.
fn check_format(database: &Database) -> Result<(), String> {
    let found = {
        let reading = database.begin_read().map_err(text)?;
        match reading.open_table(META) {
            Ok(meta) => meta
                .get("format")
                .map_err(text)?
                .map(|version| version.value()),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(text(error)),
        }
    };
    match found {
        Some(FORMAT) => Ok(()),
        Some(newer) if newer > FORMAT => Err(format!(
            "its format is version {newer}, this build reads up to {FORMAT}; run a newer sarsen"
        )),
        Some(odd) => Err(format!("its format is version {odd}, which never was")),
        None => write_format(database).map_err(text),
    }
}

fn write_format(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert("format", FORMAT)?;
    transaction.open_table(SNAPSHOT)?;
    transaction.open_table(LOG)?;
    transaction.commit()?;
    Ok(())
}

/// The snapshot, and every command after it.
fn read(database: &Database) -> Result<Catalog, String> {
    let reading = database.begin_read().map_err(text)?;
    let snapshots = reading.open_table(SNAPSHOT).map_err(text)?;
    let mut catalog = match snapshots.last().map_err(text)? {
        None => Catalog::default(),
        Some((number, value)) => {
            let what = format!("snapshot {}", number.value());
            let bytes = unsealed(value.value(), &what)?;
            let catalog = Catalog::restore(bytes).map_err(|error| format!("{what}: {error}"))?;
            if catalog.applied() != number.value() {
                return Err(format!(
                    "{what} says that it is number {}",
                    catalog.applied()
                ));
            }
            catalog
        }
    };
    let log = reading.open_table(LOG).map_err(text)?;
    for entry in log.iter().map_err(text)? {
        let (number, value) = entry.map_err(text)?;
        let what = format!("command {}", number.value());
        let bytes = unsealed(value.value(), &what)?;
        let command: Command = serde_json::from_slice(bytes)
            .map_err(|error| format!("{what} is not one that this build knows: {error}"))?;
        if number.value() != catalog.applied() + 1 {
            return Err(format!("{what} follows command {}", catalog.applied()));
        }
        catalog
            .apply(&command)
            .map_err(|refusal| format!("{what} was accepted once and is refused now: {refusal}"))?;
    }
    Ok(catalog)
}

fn sealed(bytes: &[u8]) -> Vec<u8> {
    [&crc::of(bytes).to_le_bytes()[..], bytes].concat()
}

fn unsealed<'a>(value: &'a [u8], what: &str) -> Result<&'a [u8], String> {
    match value.split_first_chunk::<4>() {
        Some((sum, bytes)) if u32::from_le_bytes(*sum) == crc::of(bytes) => Ok(bytes),
        _ => Err(format!(
            "{what} does not match its checksum; restore the file from a backup"
        )),
    }
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}
