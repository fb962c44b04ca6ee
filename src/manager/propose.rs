//! The door: one command at a time, durable before it is seen.

use super::log_store::{LogStore, OpenError};
use crate::protocol::catalog::{Catalog, Command, Event, Refusal};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};

/// Why a command did not become part of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposeError {
    /// It was checked and not accepted; nothing has changed.
    Refused(Refusal),
    /// It could not be made durable. Whether it was is found out at the next start; until then no command is
    /// taken, so that nobody builds on what may not be there.
    Unavailable(String),
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProposeError::Refused(refusal) => refusal.fmt(f),
            ProposeError::Unavailable(why) => write!(f, "the catalog takes no changes: {why}"),
        }
    }
}

impl std::error::Error for ProposeError {}

impl From<Refusal> for ProposeError {
    fn from(refusal: Refusal) -> ProposeError {
        ProposeError::Refused(refusal)
    }
}

/// The keeper of the catalog. Clones are the same keeper.
#[derive(Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Mutex<Writer>,
    /// What readers see. A reader copies the pointer and never waits for the disk.
    catalog: RwLock<Arc<Catalog>>,
}

struct Writer {
    log: LogStore,
    /// Why no command is taken any more.
    broken: Option<String>,
}

impl Manager {
    /// Opens the catalog in the file at `path`, which is created where there is none.
    pub async fn open(path: PathBuf) -> Result<Manager, OpenError> {
        let wrong = path.clone();
        let opened = tokio::task::spawn_blocking(move || LogStore::open(&path)).await;
        let (log, catalog) = opened.map_err(|stopped| OpenError {
            path: wrong,
            reason: format!("opening it was stopped: {stopped}"),
        })??;
        let writer = Writer { log, broken: None };
        Ok(Manager {
            inner: Arc::new(Inner {
                writer: Mutex::new(writer),
                catalog: RwLock::new(Arc::new(catalog)),
            }),
        })
    }

    /// The catalog as it is now. It does not change under the caller.
    pub fn catalog(&self) -> Arc<Catalog> {
        let guard = self.inner.catalog.read();
        Arc::clone(&guard.unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Asks for a change. Answered when it is durable and visible in [`Manager::catalog`].
    pub async fn propose(&self, command: Command) -> Result<Vec<Event>, ProposeError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || inner.propose(&command)).await;
        done.unwrap_or_else(|stopped| {
            Err(ProposeError::Unavailable(format!(
                "the change was stopped: {stopped}"
            )))
        })
    }
}

impl Inner {
    fn propose(&self, command: &Command) -> Result<Vec<Event>, ProposeError> {
        let Ok(mut writer) = self.writer.lock() else {
            let why = "an earlier change ended in the middle; restart the daemon";
            return Err(ProposeError::Unavailable(why.into()));
        };
        if let Some(why) = &writer.broken {
            return Err(ProposeError::Unavailable(why.clone()));
        }
        let before = {
            let guard = self.catalog.read();
            Arc::clone(&guard.unwrap_or_else(|poisoned| poisoned.into_inner()))
        };
        let mut after = Catalog::clone(&before);
        let events = after.apply(command)?;
        if let Err(error) = writer.log.append(command, &after) {
            let why = format!("{error}; restart the daemon when the cause is gone");
            writer.broken = Some(why.clone());
            return Err(ProposeError::Unavailable(why));
        }
        let mut guard = self
            .catalog
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        *guard = Arc::new(after);
        Ok(events)
    }
}
