//! The log and the vote, as openraft wants them: in memory for whoever reads, and durable in the file before anyone hears of them.
//!
//! The whole log is in memory: what the last snapshot does not have, and a few hundred entries before. openraft waits for one append
//! before it begins the next, so there is nothing to gather: one append is one transaction, in a thread that may block.

use super::store::{Batch, Found, Store, json};
use super::{Entry, LogId, StorageError, Types, Vote};
use crate::base::NodeId;
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{AnyError, OptionalSend, RaftLogId, RaftLogReader, StorageIOError};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard};

/// How much one message carries of the log, in bytes of JSON. An entry is at most [`COMMAND_MAX`](crate::manager::propose::COMMAND_MAX), so that
/// what has one more than this is still below a message's bound.
const READ_BYTES: usize = 256 << 10;

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
        }
        let store = Arc::clone(&self.store);
        blocking(move || store.commit(&batch)).await
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
        callback.log_io_completed(self.commit(batch).await);
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
        {
            let mut log = self.log();
            log.entries = log.entries.split_off(&(to.index + 1));
            log.purged = log.purged.max(Some(to));
        }
        let batch = Batch {
            purge: Some(to.index),
            state: vec![("purged", json(&to))],
            ..Batch::default()
        };
        let done = self.commit(batch).await;
        done.map_err(|error| StorageIOError::write_logs(AnyError::new(&error)).into())
    }
}
