//! What adding a disk would come to: every check of the real thing, but nothing is made, written or changed. What would move to it the steward's own solver says.
//!
//! The disk is opened and locked for a moment, as the real thing does. Whether a file system has direct I/O shows only when the file is made.

use super::image::{self, Content};
use super::moves::used;
use super::{Host, pools};
use crate::api::model::{Arrival, Disk, DiskAdd, ErrorBody};
use crate::base::{DiskId, NodeId};
use crate::cluster::DiskWork;
use crate::protocol::catalog::{self, Catalog, Command, DiskState, StoreName};
use crate::protocol::membership::Incarnation;
use crate::protocol::placement::{Change, Need, solve};
use crate::protocol::steward::{self, NewPgs};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is known of a disk that could be added.
pub(super) struct Tried {
    /// As it would be with the disk.
    pub catalog: Catalog,
    pub disk: DiskId,
    /// Room for payload.
    pub capacity_bytes: u64,
    is_formatted: bool,
}

/// What was found at its path.
struct Found {
    store: StoreName,
    bytes: u64,
    capacity_bytes: u64,
    is_formatted: bool,
}

impl Host {
    /// What [`Host::add_disk`] would do.
    pub(super) async fn would_add(&self, add: &DiskAdd) -> Result<Disk, ErrorBody> {
        let tried = self.try_disk(add).await?;
        self.view_tried(tried).await
    }

    /// The catalog as it would be with a disk, where nothing speaks against that.
    pub(super) async fn try_disk(&self, add: &DiskAdd) -> Result<Tried, ErrorBody> {
        self.may_be_added(add)?;
        let (path, size) = (PathBuf::from(&add.path), add.size_bytes);
        let found = tokio::task::spawn_blocking(move || look(&path, size)).await;
        let found = found.map_err(|stopped| {
            ErrorBody::unavailable(format!("looking at it stopped: {stopped}"), "try again")
        })??;
        let command = Command::AddDisk {
            node: self.inner.parts.node,
            path: add.path.clone(),
            store: found.store,
            size: found.bytes,
            pool: add.pool.clone(),
            incarnation: Incarnation(0),
        };
        let catalog = pools::tried(&self.manager().catalog(), &[command])?;
        let at_path = disk_at(&catalog, self.inner.parts.node, &add.path);
        let disk = at_path.map(|disk| disk.id).ok_or_else(|| {
            ErrorBody::unavailable("the catalog would add no disk", "see the log")
        })?;
        Ok(Tried {
            catalog,
            disk,
            capacity_bytes: found.capacity_bytes,
            is_formatted: found.is_formatted,
        })
    }

    /// The disk as it would be, and what would move to it.
    pub(super) async fn view_tried(&self, tried: Tried) -> Result<Disk, ErrorBody> {
        let Tried {
            catalog,
            disk,
            capacity_bytes,
            is_formatted,
        } = tried;
        let added = catalog
            .disk(disk)
            .ok_or_else(|| super::view::no_disk(disk))?;
        let mut seen = self.view_disk(&catalog, added);
        if !is_formatted {
            seen.store.clear();
        }
        let used = used(self.cluster().work());
        // The solver takes seconds at the bounds.
        let solved = tokio::task::spawn_blocking(move || arrival(&catalog, disk, &used)).await;
        let mut arrival = solved.map_err(|stopped| {
            ErrorBody::unavailable(format!("the planning stopped: {stopped}"), "try again")
        })?;
        arrival.capacity_bytes = capacity_bytes;
        seen.arrival = Some(arrival);
        Ok(seen)
    }
}

/// The disk that a node has under a path.
pub(super) fn disk_at<'a>(
    catalog: &'a Catalog,
    node: NodeId,
    path: &str,
) -> Option<&'a catalog::Disk> {
    let mut disks = catalog.disks_of(node);
    disks.find(|disk| disk.path == path)
}

/// Looks at what is at a path as the real thing would, and writes nothing.
fn look(path: &Path, size: Option<u64>) -> Result<Found, ErrorBody> {
    let (bytes, content) = image::look_only(path, size)?;
    let is_formatted = match content {
        Content::Store { id, fresh: true } => Some(id),
        found => {
            image::must_be_empty(path, found)?;
            None
        }
    };
    let (new, capacity_bytes) = image::new_store(path, bytes)?;
    Ok(Found {
        store: StoreName(is_formatted.unwrap_or(new)),
        bytes,
        capacity_bytes,
        is_formatted: is_formatted.is_some(),
    })
}

/// What a disk of this catalog, which has nothing yet, would be given of what is there. Its capacity is not the catalog's to know.
fn arrival(catalog: &Catalog, new: DiskId, used: &BTreeMap<DiskId, DiskWork>) -> Arrival {
    let mut seen = Arrival {
        capacity_bytes: 0,
        pool_size_bytes: 0,
        copies: 0,
        bytes: Some(0),
        reason: String::new(),
    };
    let pool = catalog.disk(new).and_then(|disk| catalog.pool(disk.pool));
    let Some(pool) = pool else {
        return seen;
    };
    let takes = |disk: &&catalog::Disk| disk.state == DiskState::Serving;
    let disks = catalog.disks_of_pool(pool.id).filter(takes);
    seen.pool_size_bytes = disks.map(|disk| disk.size).sum();
    if pool.copies == 1 {
        seen.reason = "a pool of one copy is not balanced: the disk brings placement groups of its own, for volumes that are created from then on".into();
        return seen;
    }
    let question = steward::question(catalog, pool, NewPgs::AsWanted);
    let plan = match solve(&question) {
        Ok(plan) => plan,
        Err(refusal) => {
            seen.reason = format!("the pool's copies have no place yet: {refusal}");
            return seen;
        }
    };
    // What one copy holds, where that is known.
    let each = |disk: &DiskId| {
        let copies = catalog.pgs_on(*disk).count() as u64;
        used.get(disk).map(|of| of.used_bytes / copies.max(1))
    };
    let comes = |change: &&Change| change.to == Some(new) && change.need != Need::New;
    for change in plan.changes.iter().filter(comes) {
        let pg = catalog.pg(change.pg);
        let in_sync = pg.into_iter().flat_map(|pg| pg.configuration.in_sync());
        let bytes = change
            .from
            .into_iter()
            .chain(in_sync)
            .find_map(|disk| each(&disk));
        seen.copies += 1;
        seen.bytes = seen.bytes.zip(bytes).map(|(sum, more)| sum + more);
    }
    if seen.copies == 0 {
        seen.reason = match catalog.pgs_of(pool.id).is_empty() {
            true => {
                "the pool has no placement groups yet: they are made for the disks that there are"
                    .into()
            }
            false => "the copies that there are lie where they belong".into(),
        };
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::super::moves::tests::{GIB, catalog, half_full};
    use super::*;
    use crate::base::StoreId;

    fn with_disk(catalog: &Catalog, node: u32) -> (Catalog, DiskId) {
        let add = Command::AddDisk {
            node: NodeId(node),
            path: "/new".into(),
            store: StoreName(StoreId([9; 16])),
            size: GIB,
            pool: None,
            incarnation: Incarnation(0),
        };
        let tried = pools::tried(catalog, &[add]).unwrap();
        let disk = tried.disks().map(|disk| disk.id).max().unwrap();
        (tried, disk)
    }

    #[test]
    fn a_new_disk_is_given_its_share_and_the_bytes_of_that() {
        let (tried, new) = with_disk(&catalog(), 1);
        let seen = arrival(&tried, new, &half_full(&[1, 2, 3, 4]));
        assert_eq!(seen.pool_size_bytes, 5 * GIB);
        // 24 copies over five disks.
        assert!((4..=5).contains(&seen.copies), "{seen:?}");
        let each = GIB / 2 / 8;
        assert_eq!(seen.bytes, Some(u64::from(seen.copies) * each));
        assert_eq!(seen.reason, "");
        let unknown = arrival(&tried, new, &BTreeMap::new());
        assert_eq!((unknown.copies, unknown.bytes), (seen.copies, None));
    }

    #[test]
    fn nothing_moves_in_a_pool_of_one_copy_or_where_copies_have_no_place() {
        let mut alone = Catalog::default();
        let add = Command::AddNode { name: "n1".into() };
        alone.apply(&add).unwrap();
        let (one, new) = with_disk(&alone, 1);
        let seen = arrival(&one, new, &BTreeMap::new());
        assert_eq!((seen.copies, seen.pool_size_bytes), (0, GIB));
        assert!(seen.reason.contains("one copy"), "{seen:?}");
        let two = Command::SetPool {
            pool: "default".into(),
            copies: 2,
            min_copies: 1,
            level: crate::protocol::placement::Level::Node,
        };
        alone.apply(&two).unwrap();
        let (two, new) = with_disk(&alone, 1);
        let seen = arrival(&two, new, &BTreeMap::new());
        assert!(seen.reason.contains("no place yet"), "{seen:?}");
    }

    #[test]
    fn a_path_is_looked_at_as_for_the_real_thing_and_stays_as_it_was() {
        let folder = std::env::temp_dir().join(format!("sarsen-arrival-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("disk");
        let why = |size| look(&path, size).err().map(|error| error.message).unwrap();
        assert!(why(None).contains("there is nothing at"));
        assert!(why(Some(1000)).contains("no length for a disk"));
        assert!(why(Some(64 << 10)).contains("a store needs at least"));
        let found = look(&path, Some(GIB)).unwrap();
        assert!(found.bytes == GIB && found.capacity_bytes < GIB && !found.is_formatted);
        assert!(!path.exists(), "a dry run makes no file");
        std::fs::write(&path, "mine").unwrap();
        assert!(why(Some(GIB)).contains("there is something on it"));
        std::fs::write(&path, vec![7; 128 << 20]).unwrap();
        assert!(why(None).contains("there is something on it"));
        assert!(why(Some(GIB)).contains("bytes, not"));
        std::fs::write(&path, "").unwrap();
        let empty = look(&path, Some(GIB)).unwrap();
        assert_eq!((empty.bytes, empty.is_formatted), (GIB, false));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        let (disk, _made) = image::open_or_create(&path, Some(GIB)).unwrap();
        let held = why(None);
        assert!(held.contains("uses the disk already"), "{held}");
        let store = image::format_empty(&disk, Content::Empty).unwrap();
        drop(disk);
        let fresh = look(&path, None).unwrap();
        assert_eq!((fresh.store, fresh.is_formatted), (StoreName(store), true));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
