//! Disks of this node: opened at the start, added while it runs, scrubbed.

use super::image::{self, Content};
use super::notes::subject;
use super::view::no_disk;
use super::volumes::control_error;
use super::{AlertKind, Host, lock};
use crate::api::model::{Disk, DiskAdd, ErrorBody, ErrorCode, ScrubResult};
use crate::base::{Breaks, BufRef, DiskId};
use crate::protocol::catalog::{self, Command, DiskState, Event, StoreName};
use crate::runtime::AttachError;
use crate::shard::Control;
use crate::store::Options;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long after the end of a scrub its note may arrive: it is on its way already.
const NOTE_TIME: Duration = Duration::from_secs(5);

impl Host {
    /// Opens every disk of this node and every volume of the catalog. What cannot be opened becomes an alert;
    /// fails where that leaves no disk at all.
    pub async fn open_all(&self) -> Result<(), ErrorBody> {
        let catalog = self.manager().catalog();
        let ours = |disk: &&catalog::Disk| {
            disk.node == self.inner.parts.node && disk.state == DiskState::Serving
        };
        let (mut open, mut last) = (0, None);
        for disk in catalog.disks().filter(ours) {
            match self.open_disk(disk).await {
                Ok(()) => open += 1,
                Err(error) => {
                    let subject = subject(disk.id, Some(&disk.path));
                    self.alerts()
                        .raise(AlertKind::DiskFailed, &subject, error.message.as_str());
                    let failed = Some(error.message.clone());
                    lock(&self.inner.disks).entry(disk.id).or_default().failed = failed;
                    last = Some(error);
                }
            }
        }
        if let (0, Some(error)) = (open, last) {
            return Err(error);
        }
        self.open_volumes().await;
        Ok(())
    }

    /// Takes a disk into the pool. An empty one is formatted; one that holds anything is refused.
    pub async fn add_disk(&self, add: DiskAdd) -> Result<Disk, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let path = PathBuf::from(&add.path);
        if !path.is_absolute() {
            let message = format!("{:?} is not an absolute path", add.path);
            return Err(ErrorBody::invalid("path", message, "begin it with /"));
        }
        let catalog = self.manager().catalog();
        let same =
            |disk: &&catalog::Disk| disk.node == self.inner.parts.node && disk.path == add.path;
        if let Some(disk) = catalog.disks().find(same) {
            let message = format!("{} is disk {} already", add.path, disk.id);
            return Err(ErrorBody::new(
                ErrorCode::Exists,
                "path",
                message,
                "add another disk",
            ));
        }
        let size = add.size_bytes;
        let prepared = tokio::task::spawn_blocking(move || prepare(&path, size)).await;
        let (store, bytes) = prepared.map_err(|stopped| {
            ErrorBody::unavailable(format!("the formatting stopped: {stopped}"), "try again")
        })??;
        let command = Command::AddDisk {
            node: self.inner.parts.node,
            path: add.path.clone(),
            store,
            size: bytes,
        };
        let events = self.manager().propose(command).await?;
        let Some(Event::DiskAdded { disk, .. }) = events.into_iter().next() else {
            return Err(ErrorBody::unavailable(
                "the catalog added no disk",
                "see the log",
            ));
        };
        if let Err(error) = self.open_disk(&disk).await {
            self.manager()
                .propose(Command::WithdrawDisk { disk: disk.id })
                .await?;
            return Err(error);
        }
        tracing::info!(disk = %disk.id, path = disk.path, bytes, "disk added");
        self.disk(disk.id)
    }

    async fn open_disk(&self, disk: &catalog::Disk) -> Result<(), ErrorBody> {
        let path = PathBuf::from(&disk.path);
        let expected = disk.store;
        let opened = tokio::task::spawn_blocking(move || open(&path, expected)).await;
        let (file, entropy) = opened.map_err(|stopped| {
            ErrorBody::unavailable(format!("opening it stopped: {stopped}"), "try again")
        })??;
        let options = Options {
            disk_bytes: file.bytes(),
            overlay_bytes: self.inner.parts.overlay_bytes,
            zero_ahead: file.wants_zeroes_ahead(),
            discard: file.takes_discards(),
            entropy,
            breaks: Breaks::NONE,
            // Buffers are the runtime's to name: it puts its own here.
            scratch: BufRef::default(),
            scratch_blocks: 0,
        };
        let subject = subject(disk.id, Some(&disk.path));
        let attached = self.runtime().attach_disk(disk.id, file).await;
        let slot = attached.map_err(|error| attach_error(error, &subject))?;
        let control = Control::OpenDisk {
            disk: disk.id,
            slot,
            options,
        };
        let done = self.runtime().control(control).await;
        done.map_err(|error| control_error(&error, &subject))?;
        self.registry().name_disk(disk.id, &disk.path);
        let mut disks = lock(&self.inner.disks);
        let now = disks.entry(disk.id).or_default();
        (now.open, now.failed) = (true, None);
        drop(disks);
        self.alerts().clear(AlertKind::DiskFailed, &subject);
        Ok(())
    }

    /// Reads and compares every block of a disk; answered when that has ended.
    pub async fn scrub_disk(&self, id: DiskId) -> Result<ScrubResult, ErrorBody> {
        let catalog = self.manager().catalog();
        let disk = catalog.disk(id).ok_or_else(|| no_disk(id))?;
        let scrubs = || {
            lock(&self.inner.disks)
                .get(&id)
                .map(|now| now.scrubbed)
                .unwrap_or_default()
        };
        let (before, begun) = (scrubs().count, Instant::now());
        let done = self.runtime().control(Control::Scrub { disk: id }).await;
        done.map_err(|error| control_error(&error, &subject(id, Some(&disk.path))))?;
        let arrived = async {
            loop {
                let noted = self.inner.noted.notified();
                tokio::pin!(noted);
                noted.as_mut().enable();
                if scrubs().count > before {
                    return;
                }
                noted.await;
            }
        };
        if tokio::time::timeout(NOTE_TIME, arrived).await.is_err() {
            let message = "the scrub has ended, but what it found got lost among other notes";
            return Err(ErrorBody::unavailable(
                message,
                "scrub again when the daemon is less busy",
            ));
        }
        let found = scrubs();
        Ok(ScrubResult {
            disk: id.0,
            path: disk.path.clone(),
            blocks: found.blocks,
            bad_blocks: found.bad,
            elapsed_ms: begun.elapsed().as_millis() as u64,
        })
    }
}

/// Makes sure that there is a store at `path` that was never used: its identity, and its disk's length.
fn prepare(path: &Path, size: Option<u64>) -> Result<(StoreName, u64), ErrorBody> {
    let disk = image::open_or_create(path, size)?;
    let store = match image::look(&disk)? {
        Content::Store { id, fresh: true } => id,
        found => image::format_empty(&disk, found)?,
    };
    Ok((StoreName(store), disk.bytes()))
}

/// Opens the disk at `path` for the shards, where it is the one that the catalog means.
fn open(path: &Path, expected: StoreName) -> Result<(crate::io::Disk, [u8; 16]), ErrorBody> {
    let disk = image::open(path)?;
    let why = match image::look(&disk)? {
        Content::Store { id, .. } if StoreName(id) == expected => {
            return Ok((disk, image::random()?));
        }
        Content::Store { id, .. } => format!("the store on it is {id}, not {expected}"),
        Content::Empty => "it is empty".into(),
        Content::Other => "there is no Sarsen superblock on it".into(),
        Content::Damaged(why) => why,
    };
    let hint = "connect the disk that was added under this path, or restore it";
    Err(ErrorBody::io(format!("{}: {why}", path.display()), hint))
}

fn attach_error(error: AttachError, subject: &str) -> ErrorBody {
    ErrorBody::unavailable(format!("{subject}: {error}"), "restart the daemon")
}
