//! The log and the vote, as openraft wants them: in memory for whoever reads, and durable in the file before anyone hears of them.
//!
//! The whole log is in memory: what the last snapshot does not have, and a few hundred entries before. openraft waits for one append
//! before it begins the next, so there is nothing to gather: one append is one transaction, in a thread that may block.
//!
//! *covered-before-gone*: what is taken from the file is in a durable snapshot. openraft purges the log as soon as it has handed a leader's snapshot on to be
//! installed. Here that is done in memory at once, and in the file with the first transaction after the snapshot is durable. An entry that would be behind
//! a hole in the file waits for that.

use super::store::{Batch, Found, Store};
use super::{Entry, LogId, StorageError, Types, Vote};
use crate::base::NodeId;
use crate::manager::message::json;
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{AnyError, OptionalSend, RaftLogId, RaftLogReader, StorageIOError};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::timeout;

/// How much one message carries of the log, in bytes of JSON: at most this, or one entry. Of those one has at most
/// [`COMMAND_MAX`](crate::manager::propose::COMMAND_MAX), which is below a message's bound.
const READ_BYTES: usize = 256 << 10;
/// How long an entry waits for the snapshot that it is behind: as long as a leader waits for the member to install it.
const COVER_TIME: Duration = Duration::from_secs(20);

/// What of the log is in memory.
#[derive(Debug, Default)]
struct Log {
    /// By index, with the length of their JSON.
    entries: BTreeMap<u64, (Entry, usize)>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// `committed` goes along with the next transaction.
    is_committed_new: bool,
    /// Up to there entries go from the file, with the first transaction after a snapshot has them.
    purge_due: Option<LogId>,
    /// Between what is in the file and there are entries that never were: the next one has to wait.
    has_hole: bool,
}

/// The log of one member. Clones are the same.
#[derive(Clone)]
pub(super) struct LogStore {
    store: Arc<Store>,
    log: Arc<Mutex<Log>>,
}

impl LogStore {
    pub fn new(store: Arc<Store>, found: Found) -> LogStore {
        let log = Log {
            entries: found.entries,
            purged: found.purged,
            vote: found.vote.map(|vote| first_vote(vote, found.node)),
            committed: found.committed,
            is_committed_new: false,
            has_hole: found.purge_due.is_some(),
            purge_due: found.purge_due,
        };
        LogStore {
            store,
            log: Arc::new(Mutex::new(log)),
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("no holder panics")
    }

    /// How long the log is behind an entry, in bytes of JSON.
    pub fn bytes_after(&self, index: u64) -> u64 {
        let log = self.log();
        let later = log.entries.range(index + 1..);
        later.map(|(_, (_, length))| *length as u64).sum()
    }

    async fn commit(&self, mut batch: Batch) -> io::Result<()> {
        {
            let mut log = self.log();
            if std::mem::take(&mut log.is_committed_new) {
                batch.state.push(("committed", json(&log.committed)));
            }
            let ends = *self.store.snapshot_ends().borrow();
            if let Some(to) = log.purge_due.take_if(|to| to.index < ends) {
                log.has_hole = false;
                batch.purge = Some(to.index);
                batch.state.push(("purged", json(&to)));
            }
        }
        let store = Arc::clone(&self.store);
        blocking(move || store.commit(&batch)).await
    }

    /// Waits until an entry that is appended would not lie behind a hole.
    async fn covered(&self) -> io::Result<()> {
        let due = {
            let log = self.log();
            log.purge_due.filter(|_| log.has_hole)
        };
        let Some(to) = due else {
            return Ok(());
        };
        let mut ends = self.store.snapshot_ends();
        let covered = timeout(COVER_TIME, ends.wait_for(|ends| to.index < *ends)).await;
        match covered {
            Ok(Ok(_)) => Ok(()),
            _ => Err(io::Error::other(format!(
                "the snapshot up to entry {} is not durable within {COVER_TIME:?}",
                to.index
            ))),
        }
    }
}

/// The vote that a life begins with. *one-turn-a-life*: what it led before, it was only a candidate for.
fn first_vote(vote: Vote, me: NodeId) -> Vote {
    match vote.leader_id().node_id == u64::from(me.0) {
        true => Vote::new(vote.leader_id().term, vote.leader_id().node_id),
        false => vote,
    }
}

/// Does what waits for the disk in a thread that may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|stopped| Err(io::Error::other(format!("it was stopped: {stopped}"))))
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        let log = self.log();
        let found = log.entries.range(range);
        Ok(found.map(|(_, (entry, _))| entry.clone()).collect())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let log = self.log();
        let mut bytes = 0;
        let found = log
            .entries
            .range(start..end)
            .take_while(|(_, (_, length))| {
                let is_first = bytes == 0;
                bytes += length;
                is_first || bytes <= READ_BYTES
            });
        Ok(found.map(|(_, (entry, _))| entry.clone()).collect())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let log = self.log();
        let last = log.entries.last_key_value();
        Ok(LogState {
            last_purged_log_id: log.purged,
            last_log_id: last
                .map(|(_, (entry, _))| *entry.get_log_id())
                .or(log.purged),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let batch = Batch {
            state: vec![("vote", json(vote))],
            ..Batch::default()
        };
        let done = self.commit(batch).await;
        done.map_err(|error| StorageIOError::write_vote(AnyError::new(&error)))?;
        self.log().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.log().vote)
    }

    /// Not durable by itself: a member that does not know it hears it from the next leader.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let mut log = self.log();
        log.committed = committed;
        log.is_committed_new = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.log().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Batch::default();
        {
            let mut log = self.log();
            for entry in entries {
                let (index, bytes) = (entry.get_log_id().index, json(&entry));
                log.entries.insert(index, (entry, bytes.len()));
                batch.entries.push((index, bytes));
            }
        }
        let done = match self.covered().await {
            Ok(()) => self.commit(batch).await,
            Err(error) => Err(error),
        };
        callback.log_io_completed(done);
        Ok(())
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        self.log().entries.split_off(&from.index);
        let batch = Batch {
            truncate: Some(from.index),
            ..Batch::default()
        };
        let done = self.commit(batch).await;
        done.map_err(|error| StorageIOError::write_logs(AnyError::new(&error)).into())
    }

    async fn purge(&mut self, to: LogId) -> Result<(), StorageError> {
        let is_covered = {
            let mut log = self.log();
            let last = log.entries.last_key_value().map(|(index, _)| *index);
            log.has_hole |= last.max(log.purged.map(|purged| purged.index)) < Some(to.index);
            log.entries = log.entries.split_off(&(to.index + 1));
            log.purged = log.purged.max(Some(to));
            log.purge_due = log.purge_due.max(Some(to));
            to.index < *self.store.snapshot_ends().borrow()
        };
        if !is_covered {
            return Ok(());
        }
        let done = self.commit(Batch::default()).await;
        done.map_err(|error| StorageIOError::write_logs(AnyError::new(&error)).into())
    }
}
