//! Disks of this node: opened at the start, added while it runs, made longer, scrubbed.

use super::arrival::disk_at;
use super::cluster::name_of;
use super::image::{self, Content, Made};
use super::notes::subject;
use super::view::no_disk;
use super::volumes::{LOOK, control_error};
use super::{AlertKind, Host, lock};
use crate::api::model::{Disk, DiskAdd, DiskGrow, ErrorBody, ErrorCode, ScrubResult};
use crate::base::{BLOCK, Breaks, BufRef, DiskId};
use crate::cluster::Places;
use crate::io::DiskKind;
use crate::manager::ProposeError;
use crate::protocol::catalog::{self, Catalog, Command, DiskState, Event, StoreName};
use crate::runtime::AttachError;
use crate::shard::{Control, ControlError};
use crate::store::{Options, StoreError};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long after the end of a scrub its note may arrive: it is on its way already.
const NOTE_TIME: Duration = Duration::from_secs(5);

impl Host {
    /// Opens every disk of this node and every volume of the catalog. What cannot be opened becomes an alert;
    /// fails where that leaves no disk at all.
    pub async fn open_all(&self) -> Result<(), ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        self.open_new().await
    }

    /// The same of those disks that were not tried yet. Nothing else is changed meanwhile.
    pub(super) async fn open_new(&self) -> Result<(), ErrorBody> {
        let catalog = self.manager().catalog();
        let tried: BTreeSet<DiskId> = lock(&self.inner.disks).keys().copied().collect();
        let new = |disk: &&catalog::Disk| {
            disk.state != DiskState::OutOfService && !tried.contains(&disk.id)
        };
        let (mut open, mut last) = (0, None);
        for disk in catalog.disks_of(self.inner.parts.node).filter(new) {
            match self.open_disk(disk).await {
                Ok(()) => open += 1,
                Err(error) => {
                    let subject = subject(disk.id, Some(&disk.path));
                    self.raise_disk_failed(disk.id, &subject, &error.message);
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
        match add.dry_run {
            true => self.would_add(&add).await,
            false => self.take_in(&add).await,
        }
    }

    /// Refuses a disk of which that is known before it is looked at.
    pub(super) fn may_be_added(&self, add: &DiskAdd) -> Result<(), ErrorBody> {
        if !Path::new(&add.path).is_absolute() {
            let message = format!("{:?} is not an absolute path", add.path);
            return Err(ErrorBody::invalid("path", message, "begin it with /"));
        }
        let catalog = self.manager().catalog();
        if let Some(disk) = disk_at(&catalog, self.inner.parts.node, &add.path) {
            let message = format!("{} is disk {} already", add.path, disk.id);
            return Err(ErrorBody::new(
                ErrorCode::Exists,
                "path",
                message,
                "add another disk",
            ));
        }
        self.may_use_pool(add.pool.as_deref())
    }

    /// The same as [`Host::add_disk`] by who changes something already.
    pub(super) async fn take_in(&self, add: &DiskAdd) -> Result<Disk, ErrorBody> {
        // Before anything is written to it.
        self.may_be_added(add)?;
        let (path, size) = (PathBuf::from(&add.path), add.size_bytes);
        let prepared = tokio::task::spawn_blocking(move || prepare(&path, size)).await;
        let (store, bytes, made) = prepared.map_err(|stopped| {
            ErrorBody::unavailable(format!("the formatting stopped: {stopped}"), "try again")
        })??;
        let command = Command::AddDisk {
            node: self.inner.parts.node,
            path: add.path.clone(),
            store,
            size: bytes,
            pool: add.pool.clone(),
            incarnation: crate::protocol::membership::Incarnation(0),
        };
        let asked = self.manager().propose(command).await;
        // Where nobody knows whether the catalog has the disk, its file stays.
        let is_unmade = matches!(
            asked,
            Err(ProposeError::Refused(_) | ProposeError::Unavailable(_))
        );
        let made = match is_unmade {
            true => {
                unmake(made).await;
                None
            }
            false => made,
        };
        let events = self.known(&format!("disk {}", add.path), asked)?;
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
            unmake(made).await;
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
        if let Some(pilot) = self.pilot() {
            self.tell_places();
            self.drop_forgotten(&[disk.id]).await;
            let kept = self.runtime().openings(disk.id).await;
            pilot.disk_found(disk.id, kept.unwrap_or_default()).await;
        }
        self.registry().name_disk(disk.id, &disk.path);
        let mut disks = lock(&self.inner.disks);
        let now = disks.entry(disk.id).or_default();
        (now.open, now.failed) = (true, None);
        drop(disks);
        self.alerts().clear(AlertKind::DiskFailed, &subject);
        Ok(())
    }

    /// Tells other nodes which shard has which disk.
    pub fn tell_places(&self) {
        let catalog = self.manager().catalog();
        let disks = catalog.disks_of(self.inner.parts.node).map(|disk| disk.id);
        let disks = self.runtime().shards_of(disks).into_iter();
        self.cluster().set_places(Places {
            shards: self.runtime().shards() as u16, // at most 64
            disks: disks.map(|(disk, shard)| (disk.0, shard.0)).collect(),
        });
    }

    /// Makes a disk longer. The disk comes first and the catalog last, because a catalog that promised what the
    /// store then refuses could not be taken back; after a crash in between, the same again ends it.
    pub async fn grow_disk(&self, id: DiskId, grow: DiskGrow) -> Result<Disk, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        let disk = catalog.disk(id).ok_or_else(|| no_disk(id))?;
        self.disk_is_here(&catalog, disk)?;
        let subject = subject(id, Some(&disk.path));
        let open = lock(&self.inner.disks).get(&id).is_some_and(|now| now.open);
        if !open {
            let message = format!("{subject} does not serve, and cannot grow");
            return Err(ErrorBody::io(message, LOOK));
        }
        let path = PathBuf::from(&disk.path);
        let looked = tokio::task::spawn_blocking(move || crate::io::length_now(&path)).await;
        let (kind, has) = looked
            .map_err(|stopped| {
                ErrorBody::unavailable(format!("looking at it stopped: {stopped}"), "try again")
            })?
            .map_err(|error| ErrorBody::io(error.to_string(), error.cure()))?;
        let bytes = grown(disk, kind, has, grow.size_bytes)?;
        let control = Control::Grow { disk: id, bytes };
        let done = self.runtime().control(control).await;
        done.map_err(|error| match error {
            ControlError::Store(StoreError::BadSize) => not_so_long(&subject, bytes),
            error => control_error(&error, &subject),
        })?;
        let command = Command::GrowDisk {
            disk: id,
            size: bytes,
        };
        self.manager().propose(command).await?;
        tracing::info!(disk = %id, path = disk.path, bytes, "disk grown");
        self.disk(id)
    }

    /// Refuses what only a disk's own node can do.
    pub(super) fn disk_is_here(
        &self,
        catalog: &Catalog,
        disk: &catalog::Disk,
    ) -> Result<(), ErrorBody> {
        if disk.node == self.inner.parts.node {
            return Ok(());
        }
        let node = name_of(catalog, disk.node);
        let message = format!("disk {} is of node {node}", disk.id);
        Err(ErrorBody::conflict("disk", message, "say it on that node"))
    }

    /// Reads and compares every block of a disk; answered when that has ended.
    pub async fn scrub_disk(&self, id: DiskId) -> Result<ScrubResult, ErrorBody> {
        let catalog = self.manager().catalog();
        let disk = catalog.disk(id).ok_or_else(|| no_disk(id))?;
        self.disk_is_here(&catalog, disk)?;
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

/// Makes sure that there is a store at `path` that was never used: its identity, and its disk's length; and the file, where that was made for it. One that was made
/// does not outlive a failure.
fn prepare(path: &Path, size: Option<u64>) -> Result<(StoreName, u64, Option<Made>), ErrorBody> {
    let (disk, made) = image::open_or_create(path, size)?;
    let store = match image::look(&disk) {
        Ok(Content::Store { id, fresh: true }) => Ok(id),
        Ok(found) => image::format_empty(&disk, found),
        Err(error) => Err(error),
    };
    match store {
        Ok(store) => Ok((StoreName(store), disk.bytes(), made)),
        Err(error) => {
            made.into_iter().for_each(Made::unmake);
            Err(error)
        }
    }
}

/// Removes a file that was made for a disk of which nothing came.
async fn unmake(made: Option<Made>) {
    let removed = tokio::task::spawn_blocking(|| made.into_iter().for_each(Made::unmake));
    if let Err(stopped) = removed.await {
        tracing::warn!(%stopped, "a file was made for a disk of which nothing came, and may stay");
    }
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

/// How long a disk that has `has` bytes now is to become.
fn grown(
    disk: &catalog::Disk,
    kind: DiskKind,
    has: u64,
    size: Option<u64>,
) -> Result<u64, ErrorBody> {
    let field = "size_bytes";
    let subject = subject(disk.id, Some(&disk.path));
    let bytes = size.unwrap_or(has);
    if bytes < disk.size {
        let message = format!("{subject} has {} bytes and cannot shrink", disk.size);
        let hint = "name a larger size; to use less space, add a smaller disk instead";
        return Err(ErrorBody::invalid(field, message, hint));
    }
    if !bytes.is_multiple_of(BLOCK) {
        let message = format!("{bytes} is no multiple of {BLOCK}");
        return Err(ErrorBody::invalid(field, message, "round it down"));
    }
    match kind {
        DiskKind::BlockDevice if bytes > has => {
            let message = format!("{subject} is a device of {has} bytes");
            let hint = "make the device itself longer first";
            Err(ErrorBody::invalid(field, message, hint))
        }
        _ if size.is_none() && bytes == disk.size => {
            let message = format!("{subject} has not become longer than {has} bytes");
            let hint = match kind {
                DiskKind::BlockDevice => "make the device itself longer first",
                DiskKind::File => "say with --size how long the file is to become",
            };
            Err(ErrorBody::conflict(field, message, hint))
        }
        _ => Ok(bytes),
    }
}

/// The store or the file under it cannot become so long.
fn not_so_long(subject: &str, bytes: u64) -> ErrorBody {
    let message = format!("{subject} cannot have {bytes} bytes");
    let hint = "a store grows to four times the size that it was formatted with, where there is \
                room; the daemon's log says more. Add another disk for more";
    ErrorBody::invalid("size_bytes", message, hint)
}

fn attach_error(error: AttachError, subject: &str) -> ErrorBody {
    ErrorBody::unavailable(format!("{subject}: {error}"), "restart the daemon")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{NodeId, StoreId};
    use crate::protocol::catalog::PoolId;

    const GIB: u64 = 1 << 30;

    fn disk() -> catalog::Disk {
        catalog::Disk {
            id: DiskId(1),
            node: NodeId(1),
            pool: PoolId(1),
            path: "/srv/disk0".into(),
            store: StoreName(StoreId([1; 16])),
            size: 2 * GIB,
            state: DiskState::Serving,
            incarnation: crate::protocol::membership::Incarnation(0),
            set_weight: None,
            returns_as: None,
        }
    }

    fn refused(kind: DiskKind, has: u64, size: Option<u64>) -> ErrorBody {
        grown(&disk(), kind, has, size).unwrap_err()
    }

    #[test]
    fn a_file_that_was_made_for_a_disk_goes_with_it_and_one_that_was_there_stays() {
        let folder = std::env::temp_dir().join(format!("sarsen-made-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("disk");
        let too_small = Some(64 << 10);
        // Too small for a store, so that its formatting fails.
        let error = prepare(&path, too_small).unwrap_err();
        assert_eq!(error.field, "size_bytes", "{error}");
        assert!(!path.exists(), "it was made for nothing");
        std::fs::write(&path, vec![0; 64 << 10]).unwrap();
        prepare(&path, too_small).unwrap_err();
        assert!(path.exists(), "it was there before");
        std::fs::remove_file(&path).unwrap();
        let (_, bytes, made) = prepare(&path, Some(GIB / 4)).unwrap();
        assert_eq!(
            (bytes, made.is_some(), path.exists()),
            (GIB / 4, true, true)
        );
        let (_, _, again) = prepare(&path, Some(GIB / 4)).unwrap();
        assert!(again.is_none(), "it was there the second time");
        // Another file under its path is not the one that was made.
        std::fs::rename(&path, folder.join("moved")).unwrap();
        std::fs::write(&path, "mine").unwrap();
        made.into_iter().for_each(Made::unmake);
        assert!(path.exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_disk_grows_to_what_is_named_or_to_what_is_there() {
        let file = |has, size| grown(&disk(), DiskKind::File, has, size);
        let device = |has, size| grown(&disk(), DiskKind::BlockDevice, has, size);
        assert_eq!(file(2 * GIB, Some(3 * GIB)), Ok(3 * GIB));
        assert_eq!(file(3 * GIB, None), Ok(3 * GIB));
        assert_eq!(device(3 * GIB, None), Ok(3 * GIB));
        assert_eq!(device(4 * GIB, Some(3 * GIB)), Ok(3 * GIB));
        // The same again is no mistake: the first time may have been cut short.
        assert_eq!(file(2 * GIB, Some(2 * GIB)), Ok(2 * GIB));
    }

    #[test]
    fn a_disk_does_not_shrink_and_a_device_is_as_long_as_it_is() {
        let error = refused(DiskKind::File, 2 * GIB, Some(GIB));
        assert_eq!(
            (error.code, error.field.as_str()),
            (ErrorCode::Invalid, "size_bytes")
        );
        assert!(error.message.contains("cannot shrink"), "{error}");
        assert!(
            refused(DiskKind::BlockDevice, GIB, None)
                .message
                .contains("cannot shrink")
        );
        let error = refused(DiskKind::BlockDevice, 3 * GIB, Some(4 * GIB));
        assert!(error.hint.contains("device itself"), "{error}");
        let error = refused(DiskKind::File, 2 * GIB, Some(2 * GIB + 512));
        assert!(error.message.contains("multiple"), "{error}");
        let error = refused(DiskKind::File, 2 * GIB, None);
        assert_eq!(error.code, ErrorCode::Conflict);
        assert!(error.hint.contains("--size"), "{error}");
    }
}
