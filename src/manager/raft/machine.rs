//! The catalog as openraft's state machine. It is in memory, on the board; what is durable is its snapshot and the log after it.

use super::log::blocking;
use super::store::Store;
use super::{Answer, Entry, LogId, SnapshotMeta, StorageError, StoredMembership, Types};
use crate::manager::board::Board;
use crate::protocol::catalog::Catalog;
use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError,
};
use std::io::{self, Cursor};
use std::sync::Arc;

pub(super) struct Machine {
    store: Arc<Store>,
    board: Arc<Board>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// Goes on from the snapshot that the board shows.
    pub fn new(store: Arc<Store>, board: Arc<Board>, snapshot: Option<&SnapshotMeta>) -> Machine {
        Machine {
            store,
            board,
            applied: snapshot.and_then(|meta| meta.last_log_id),
            membership: snapshot
                .map(|meta| meta.last_membership.clone())
                .unwrap_or_default(),
        }
    }

    fn apply_one(&mut self, entry: Entry) -> Answer {
        let index = entry.log_id.index;
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Normal(command) => {
                let verdict = self.board.apply(index, Some(&command));
                Answer::Result(verdict.expect("a command has a verdict"))
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                self.board.apply(index, None);
                Answer::Nothing
            }
            EntryPayload::Blank => {
                self.board.apply(index, None);
                Answer::Nothing
            }
        }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answer>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(entries
            .into_iter()
            .map(|entry| self.apply_one(entry))
            .collect())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let (_, catalog) = self.board.own();
        let index = self.applied.map_or(0, |applied| applied.index);
        let term = self.applied.map_or(0, |applied| applied.leader_id.term);
        Builder {
            store: Arc::clone(&self.store),
            catalog,
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
                snapshot_id: format!("{term}-{index}"),
            },
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let store = Arc::clone(&self.store);
        let (bytes, of) = (snapshot.into_inner(), meta.clone());
        let restored = blocking(move || {
            let catalog = Catalog::restore(&bytes).map_err(io::Error::other)?;
            store.put_snapshot(&of, &bytes)?;
            Ok(catalog)
        });
        let catalog = restored.await.map_err(|error| {
            StorageIOError::write_snapshot(Some(meta.signature()), AnyError::new(&error))
        })?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let index = self.applied.map_or(0, |applied| applied.index);
        self.board.install(index, catalog);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let store = Arc::clone(&self.store);
        let found = blocking(move || store.snapshot()).await;
        let found =
            found.map_err(|error| StorageIOError::read_snapshot(None, AnyError::new(&error)))?;
        Ok(found.map(|(meta, bytes)| Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(bytes)),
        }))
    }
}

/// Writes one snapshot, off the runtime's thread, while the log goes on.
pub(super) struct Builder {
    store: Arc<Store>,
    /// While it is held here, the next command copies the catalog.
    catalog: Arc<Catalog>,
    meta: SnapshotMeta,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let (store, catalog) = (Arc::clone(&self.store), std::mem::take(&mut self.catalog));
        let meta = self.meta.clone();
        let written = blocking(move || {
            let bytes = catalog.snapshot();
            drop(catalog);
            store.put_snapshot(&meta, &bytes)?;
            Ok(bytes)
        });
        let bytes = written.await.map_err(|error| {
            StorageIOError::write_snapshot(Some(self.meta.signature()), AnyError::new(&error))
        })?;
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: Box::new(Cursor::new(bytes)),
        })
    }
}
