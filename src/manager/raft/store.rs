//! The one redb file of a member: log, vote and snapshot.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format`; `node` | the version of this layout (2); whose file it is |
//! | `state` | `vote`, `committed`, `purged`, `snapshot` | crc32c (4 bytes, little endian), then JSON |
//! | `entries` | the index of the entry | crc32c, then the entry as JSON |
//! | `pieces` | number of the snapshot << 20 \| number of the piece | crc32c, then up to 1 MiB of the catalog's JSON |
//!
//! One transaction makes one [`Batch`] durable. A snapshot is written piece by piece, each in a transaction of its own, so that no append
//! waits for all of it; the last one makes it the snapshot, and takes the one before away. redb verifies its own pages
//! only when it repairs after a crash, so each value carries a checksum.
//!
//! Format 1 was from before Raft ([`old_format`]); such a file is taken over in one transaction at opening, and older builds refuse it
//! from then on.
//!
//! Where redb had to fall back to an earlier transaction of a damaged file, a lone member goes on with it. A member among others does not: it
//! may have voted for what it then forgets, and two leaders of one term would be the end of the one log. That is seen only where the file was closed
//! in good order. After a crash redb goes back to the transaction before wherever the last one is broken, as it has to where that was cut short, and does not
//! say so: there a disk that breaks what was durable, and the power that goes, together make a member forget.

use super::{Entry, LogId, SnapshotMeta, StoredMembership, Types, Vote, old_format};
use crate::base::{NodeId, crc};
use crate::manager::message::json;
use crate::protocol::catalog::Catalog;
use openraft::{CommittedLeaderId, Membership, RaftLogId};
pub use redb::Database;
use redb::{DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use tokio::sync::watch;

/// The version of the layout in the file. 1: one node. 2: Raft.
const FORMAT: u64 = 2;
/// redb's page cache, in bytes: the catalog and the log are in memory anyway.
const CACHE_BYTES: usize = 1 << 20;
/// How much of a snapshot one transaction writes, in bytes.
const PIECE: usize = 1 << 20;
/// Bits of a piece's number in its key: snapshots of up to 1 TiB.
const PIECE_BITS: u32 = 20;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
const PIECES: TableDefinition<u64, &[u8]> = TableDefinition::new("pieces");

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

/// Where a database comes from.
pub enum Source {
    File(PathBuf),
    /// A test's own, with the path that errors name.
    #[cfg(test)]
    Made(
        PathBuf,
        Box<dyn FnOnce() -> Result<Database, DatabaseError> + Send>,
    ),
}

impl Source {
    pub fn path(&self) -> &Path {
        match self {
            Source::File(path) => path,
            #[cfg(test)]
            Source::Made(path, _) => path,
        }
    }

    fn database(self) -> Result<Database, DatabaseError> {
        match self {
            Source::File(path) => {
                let mut builder = Database::builder();
                builder.set_cache_size(CACHE_BYTES).create(path)
            }
            #[cfg(test)]
            Source::Made(_, make) => make(),
        }
    }
}

/// What the file of the snapshot says of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Header {
    meta: SnapshotMeta,
    number: u64,
    pieces: u64,
    bytes: u64,
}

/// What one transaction changes, in this order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Entries from this one on end.
    pub truncate: Option<u64>,
    /// Entries up to this one end.
    pub purge: Option<u64>,
    /// Index and JSON.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// Key and JSON.
    pub state: Vec<(&'static str, Vec<u8>)>,
}

/// What a file holds at opening.
#[derive(Debug)]
pub(super) struct Found {
    pub node: NodeId,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    /// By index, each with the length of its JSON.
    pub entries: BTreeMap<u64, (Entry, usize)>,
    /// Up to there entries are to go from the file, which they have from this already.
    pub purge_due: Option<LogId>,
    pub snapshot: Option<(SnapshotMeta, Catalog)>,
}

/// The file, open. Its calls block.
pub(super) struct Store {
    /// Gone once it is closed.
    database: Mutex<Option<Database>>,
    /// Held over the whole writing of a snapshot, of which there is one at a time.
    header: Mutex<Option<Header>>,
    /// Of the snapshot.
    bytes: AtomicU64,
    /// The first index that is not in the durable snapshot.
    snapshot_ends: watch::Sender<u64>,
}

impl Store {
    /// Opens or makes the file. `wanted`: whose it has to be; where nothing is said, the one that it is of, or the first node of all.
    pub fn open(source: Source, wanted: Option<NodeId>) -> Result<(Store, Found), OpenError> {
        let path = source.path().to_owned();
        let wrong = |reason: String| OpenError {
            path: path.clone(),
            reason,
        };
        // redb promises errors for a damaged file, but checks page bounds with assertions too.
        let opened = catch_unwind(AssertUnwindSafe(|| open_and_read(source, &path, wanted)));
        let damaged = || wrong("the file is damaged; restore it from a backup".into());
        opened.map_err(|_| damaged())?.map_err(wrong)
    }

    fn database(&self) -> io::Result<MutexGuard<'_, Option<Database>>> {
        let guard = self.database.lock();
        let guard = guard.map_err(|_| io::Error::other("an earlier transaction panicked"))?;
        match guard.is_some() {
            true => Ok(guard),
            false => Err(io::Error::other("the catalog is closed")),
        }
    }

    /// Makes a batch durable.
    pub fn commit(&self, batch: &Batch) -> io::Result<()> {
        let guard = self.database()?;
        let database = guard.as_ref().expect("it was looked at");
        commit(database, batch).map_err(io::Error::other)
    }

    /// Makes a snapshot durable, and forgets the one before; an older one than there is, is dropped.
    pub fn put_snapshot(&self, meta: &SnapshotMeta, bytes: &[u8]) -> io::Result<()> {
        let header = self.header.lock();
        let mut header = header.map_err(|_| io::Error::other("an earlier snapshot panicked"))?;
        let newest = header.as_ref().and_then(|header| header.meta.last_log_id);
        if newest > meta.last_log_id {
            return Ok(());
        }
        let number = header.as_ref().map_or(1, |header| header.number + 1);
        let pieces = bytes.len().div_ceil(PIECE).max(1);
        let next = Header {
            meta: meta.clone(),
            number,
            pieces: pieces as u64,
            bytes: bytes.len() as u64,
        };
        for piece in 0..pieces {
            let part = &bytes[piece * PIECE..bytes.len().min((piece + 1) * PIECE)];
            let is_last = piece + 1 == pieces;
            let guard = self.database()?;
            let database = guard.as_ref().expect("it was looked at");
            put_piece(
                database,
                piece as u64,
                part,
                &next,
                match is_last {
                    true => Part::Last,
                    false => Part::MoreFollow,
                },
            )
            .map_err(io::Error::other)?;
        }
        self.bytes.store(next.bytes, Ordering::Relaxed);
        self.snapshot_ends.send_replace(end_of(&next.meta));
        *header = Some(next);
        Ok(())
    }

    /// The first index that is not in the durable snapshot, now and whenever it changes.
    pub fn snapshot_ends(&self) -> watch::Receiver<u64> {
        self.snapshot_ends.subscribe()
    }

    /// How long the snapshot is; 0 where there is none. Does not block.
    pub fn snapshot_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The snapshot and what is in it.
    pub fn snapshot(&self) -> io::Result<Option<(SnapshotMeta, Vec<u8>)>> {
        // Reading goes on without the guard, or an append would wait for all of it.
        let reading = {
            let guard = self.database()?;
            let database = guard.as_ref().expect("it was looked at");
            database.begin_read().map_err(io::Error::other)?
        };
        let found = read_snapshot(&reading).map_err(io::Error::other)?;
        Ok(found.map(|(header, bytes)| (header.meta, bytes)))
    }

    /// Lets the file go. What is asked afterwards fails; what is being written is waited for.
    pub fn close(&self) {
        let guard = self.database.lock();
        let mut guard = guard.unwrap_or_else(|poisoned| poisoned.into_inner());
        drop(guard.take());
    }
}

/// Which piece of a snapshot it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    MoreFollow,
    Last,
}

fn end_of(snapshot: &SnapshotMeta) -> u64 {
    snapshot.last_log_id.map_or(0, |last| last.index + 1)
}

fn key(number: u64, piece: u64) -> u64 {
    number << PIECE_BITS | piece
}

fn put_piece(
    database: &Database,
    piece: u64,
    part: &[u8],
    header: &Header,
    which: Part,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut pieces = transaction.open_table(PIECES)?;
        pieces.insert(key(header.number, piece), sealed(part).as_slice())?;
        if which == Part::Last {
            pieces.retain(|key, _| key >> PIECE_BITS == header.number)?;
            let mut state = transaction.open_table(STATE)?;
            state.insert("snapshot", sealed(&json(header)).as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn commit(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        if let Some(from) = batch.truncate {
            entries.retain_in(from.., |_, _| false)?;
        }
        if let Some(to) = batch.purge {
            entries.retain_in(..=to, |_, _| false)?;
        }
        for (index, entry) in &batch.entries {
            entries.insert(index, sealed(entry).as_slice())?;
        }
        let mut state = transaction.open_table(STATE)?;
        for (key, value) in &batch.state {
            state.insert(key, sealed(value).as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn open_and_read(
    source: Source,
    path: &Path,
    wanted: Option<NodeId>,
) -> Result<(Store, Found), String> {
    let mut database = source.database().map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => {
            "another process uses it; is a daemon running already?".into()
        }
        error => error.to_string(),
    })?;
    // Reads every page and compares its checksum, and builds the list of free pages anew: a rotten one would
    // otherwise be found by an assertion at some later write. The file is small, so this takes milliseconds.
    let is_sound = database.check_integrity().map_err(text)?;
    prepare(&database, wanted)?;
    let (found, header) = read(&database, wanted)?;
    if !is_sound {
        let members = members(&found);
        if members.len() > 1 {
            return Err(
                "the file was damaged, and may have forgotten what this member voted for; \
                        first, on another node, remove this one from the manager's members; only then \
                        move the file away, start this node, and add it again"
                    .into(),
            );
        }
        tracing::warn!(path = %path.display(), "the catalog's file was damaged and is repaired");
    }
    let ends = header.as_ref().map_or(0, |header| end_of(&header.meta));
    let store = Store {
        database: Mutex::new(Some(database)),
        snapshot_ends: watch::Sender::new(ends),
        bytes: AtomicU64::new(header.as_ref().map_or(0, |header| header.bytes)),
        header: Mutex::new(header),
    };
    Ok((store, found))
}

/// The voters that a file last heard of.
fn members(found: &Found) -> BTreeSet<u64> {
    // `pass_over` has left no entry that is older than the snapshot's word, unless all of them up to it are there.
    let in_log = found.entries.values().rev().find_map(|(entry, _)| {
        let openraft::EntryPayload::Membership(membership) = &entry.payload else {
            return None;
        };
        Some(membership.voter_ids().collect())
    });
    let in_snapshot = || {
        let (meta, _) = found.snapshot.as_ref()?;
        Some(meta.last_membership.voter_ids().collect())
    };
    in_log.or_else(in_snapshot).unwrap_or_default()
}

/// Looks at the file's format; a new file gets ours, and one of the first is taken over.
fn prepare(database: &Database, wanted: Option<NodeId>) -> Result<(), String> {
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
        Some(old_format::FORMAT) => {
            let catalog = old_format::read(database)?;
            take_over(database, &catalog, wanted).map_err(text)
        }
        Some(newer) if newer > FORMAT => Err(format!(
            "its format is version {newer}, this build reads up to {FORMAT}; run a newer sarsen"
        )),
        Some(odd) => Err(format!("its format is version {odd}, which never was")),
        None => make(database, wanted.unwrap_or(NodeId(1))).map_err(text),
    }
}

fn make(database: &Database, node: NodeId) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("node", u64::from(node.0))?;
        transaction.open_table(STATE)?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(PIECES)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Makes a file of format 1 one of format 2, in one transaction: its catalog becomes the snapshot of a group of one member, as of the
/// entry with the number of its last command.
fn take_over(
    database: &Database,
    catalog: &Catalog,
    wanted: Option<NodeId>,
) -> Result<(), redb::Error> {
    let first = || catalog.nodes().next().map(|node| node.id);
    let node = wanted.or_else(first).unwrap_or(NodeId(1));
    let id = u64::from(node.0);
    let transaction = database.begin_write()?;
    {
        transaction.delete_table(old_format::SNAPSHOT)?;
        transaction.delete_table(old_format::LOG)?;
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("node", id)?;
        transaction.open_table(ENTRIES)?;
        let mut pieces = transaction.open_table(PIECES)?;
        let mut state = transaction.open_table(STATE)?;
        // A file without a command in it is as good as a new one.
        if catalog.applied() > 0 {
            let last = LogId::new(CommittedLeaderId::new(1, id), catalog.applied());
            let alone = Membership::new(vec![BTreeSet::from([id])], None);
            let bytes = catalog.snapshot();
            let header = Header {
                meta: SnapshotMeta {
                    last_log_id: Some(last),
                    last_membership: StoredMembership::new(Some(LogId::default()), alone),
                    snapshot_id: format!("taken-over-{}", catalog.applied()),
                },
                number: 1,
                pieces: bytes.len().div_ceil(PIECE) as u64,
                bytes: bytes.len() as u64,
            };
            for (piece, part) in bytes.chunks(PIECE).enumerate() {
                pieces.insert(key(1, piece as u64), sealed(part).as_slice())?;
            }
            state.insert("snapshot", sealed(&json(&header)).as_slice())?;
            state.insert("purged", sealed(&json(&last)).as_slice())?;
            state.insert("committed", sealed(&json(&last)).as_slice())?;
            state.insert("vote", sealed(&json(&Vote::new(1, id))).as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(database: &Database, wanted: Option<NodeId>) -> Result<(Found, Option<Header>), String> {
    let reading = database.begin_read().map_err(text)?;
    let meta = reading.open_table(META).map_err(text)?;
    let node = meta.get("node").map_err(text)?;
    let node = node.ok_or("it does not say whose it is; restore the file from a backup")?;
    let node = u32::try_from(node.value())
        .map(NodeId)
        .map_err(|_| "whose it is, is no number of a node; restore the file from a backup")?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != node) {
        return Err(format!(
            "it is the file of node {node}, and this is node {wanted}"
        ));
    }
    let state = reading.open_table(STATE).map_err(text)?;
    let snapshot = match read_snapshot(&reading)? {
        None => None,
        Some((header, bytes)) => {
            let what = format!("snapshot {}", header.number);
            let catalog = Catalog::restore(&bytes).map_err(|error| format!("{what}: {error}"))?;
            Some((header, catalog))
        }
    };
    let header = snapshot.as_ref().map(|(header, _)| header.clone());
    let mut found = Found {
        node,
        vote: one(&state, "vote")?,
        committed: one(&state, "committed")?,
        purged: one(&state, "purged")?,
        entries: read_entries(&reading)?,
        purge_due: None,
        snapshot: snapshot.map(|(header, catalog)| (header.meta, catalog)),
    };
    in_order(&found)?;
    pass_over(&mut found);
    Ok((found, header))
}

/// Forgets a log that ends before the snapshot does: the power went when a leader's snapshot was durable, and the entries that it passes over were
/// not taken from the file yet. None of them is needed, and the last may be ones that no leader has.
fn pass_over(found: &mut Found) {
    let snapshot = found.snapshot.as_ref();
    let Some(covered) = snapshot.and_then(|(meta, _)| meta.last_log_id) else {
        return;
    };
    let last = found.entries.last_key_value().map(|(index, _)| *index);
    let last = last.max(found.purged.map(|purged| purged.index));
    if last < Some(covered.index) {
        found.entries.clear();
        found.purged = Some(covered);
        found.purge_due = Some(covered);
    }
}

/// Whether the log is one without a hole, from where the snapshot ends or before.
fn in_order(found: &Found) -> Result<(), String> {
    let first = found.purged.map_or(0, |last| last.index + 1);
    for (next, (index, (entry, _))) in (first..).zip(&found.entries) {
        if *index != next || entry.get_log_id().index != next {
            return Err(format!(
                "entry {index} is where entry {next} belongs; restore the file from a backup"
            ));
        }
    }
    let snapshot = found.snapshot.as_ref();
    let in_snapshot = snapshot.and_then(|(meta, _)| meta.last_log_id);
    if in_snapshot < found.purged {
        return Err(
            "entries that are in no snapshot are gone; restore the file from a backup".into(),
        );
    }
    let last = found.entries.last_key_value().map(|(index, _)| *index);
    let last = last.max(in_snapshot.map(|last| last.index));
    if found.committed.map(|committed| committed.index) > last {
        return Err("entries that were committed are gone; restore the file from a backup".into());
    }
    Ok(())
}

fn read_entries(reading: &redb::ReadTransaction) -> Result<BTreeMap<u64, (Entry, usize)>, String> {
    let table = reading.open_table(ENTRIES).map_err(text)?;
    let mut entries = BTreeMap::new();
    for entry in table.iter().map_err(text)? {
        let (index, value) = entry.map_err(text)?;
        let what = format!("entry {}", index.value());
        let bytes = unsealed(value.value(), &what)?;
        let entry: openraft::Entry<Types> = serde_json::from_slice(bytes)
            .map_err(|error| format!("{what} is not one that this build knows: {error}"))?;
        entries.insert(index.value(), (entry, bytes.len()));
    }
    Ok(entries)
}

fn read_snapshot(reading: &redb::ReadTransaction) -> Result<Option<(Header, Vec<u8>)>, String> {
    let state = reading.open_table(STATE).map_err(text)?;
    let Some(header) = one::<Header>(&state, "snapshot")? else {
        return Ok(None);
    };
    let pieces = reading.open_table(PIECES).map_err(text)?;
    let mut bytes = Vec::new();
    for piece in 0..header.pieces {
        let what = format!("piece {piece} of snapshot {}", header.number);
        let part = pieces.get(key(header.number, piece)).map_err(text)?;
        let part =
            part.ok_or_else(|| format!("{what} is missing; restore the file from a backup"))?;
        bytes.extend_from_slice(unsealed(part.value(), &what)?);
    }
    match bytes.len() as u64 == header.bytes {
        true => Ok(Some((header, bytes))),
        false => Err(format!(
            "snapshot {} has {} bytes and should have {}; restore the file from a backup",
            header.number,
            bytes.len(),
            header.bytes
        )),
    }
}

fn one<T: DeserializeOwned>(
    state: &redb::ReadOnlyTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<T>, String> {
    let Some(value) = state.get(key).map_err(text)? else {
        return Ok(None);
    };
    let what = format!("the {key}");
    let found = serde_json::from_slice(unsealed(value.value(), &what)?);
    found
        .map(Some)
        .map_err(|error| format!("{what} is not one that this build knows: {error}"))
}

fn sealed(bytes: &[u8]) -> Vec<u8> {
    [&crc::of(bytes).to_le_bytes()[..], bytes].concat()
}

pub(super) fn unsealed<'a>(value: &'a [u8], what: &str) -> Result<&'a [u8], String> {
    match value.split_first_chunk::<4>() {
        Some((sum, bytes)) if u32::from_le_bytes(*sum) == crc::of(bytes) => Ok(bytes),
        _ => Err(format!(
            "{what} does not match its checksum; restore the file from a backup"
        )),
    }
}

pub(super) fn text(error: impl fmt::Display) -> String {
    error.to_string()
}
