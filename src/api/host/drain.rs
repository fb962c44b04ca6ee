//! Disks that are to go: emptied first, then removed. In a cluster only: a node that is alone has nobody who moves copies.

use super::cluster::name_of;
use super::nodes::{only_copies, only_there};
use super::notes::subject;
use super::view::no_disk;
use super::{Host, lock};
use crate::api::model::{Disk, DiskDrain, ErrorBody};
use crate::base::{DiskId, PgId};
use crate::protocol::catalog::{self, Catalog, Command, DiskState};
use crate::protocol::placement::Level;
use std::collections::BTreeSet;

impl Host {
    /// Has everything on a disk move to others, or takes that back. Answered before it has; said again it changes nothing.
    pub async fn drain_disk(&self, id: DiskId, drain: DiskDrain) -> Result<Disk, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        let disk = catalog.disk(id).ok_or_else(|| no_disk(id))?;
        self.disks_can_move()?;
        let state = match drain.undo {
            true => DiskState::Serving,
            false => DiskState::Draining,
        };
        if !drain.undo {
            may_go(&catalog, &BTreeSet::from([id]), &format!("disk {id}"))?;
        }
        let from = match drain.undo {
            true => DiskState::Draining,
            false => DiskState::Serving,
        };
        // One that is missing or out of service is rebuilt elsewhere anyway.
        if disk.state == from && !drain.dry_run {
            let asked = self
                .manager()
                .propose(Command::SetDiskState { disk: id, state })
                .await;
            self.known(&subject(id, Some(&disk.path)), asked)?;
            tracing::info!(disk = %id, ?state, "a disk is to have another state");
        }
        let mut seen = self.disk(id)?;
        if drain.dry_run && !drain.undo {
            seen.moves = Some(self.moves_of(&catalog, BTreeSet::from([id])).await?);
        }
        Ok(seen)
    }

    /// Refuses to move anything where nobody else has a disk.
    pub(super) fn disks_can_move(&self) -> Result<(), ErrorBody> {
        if self.is_of_cluster() {
            return Ok(());
        }
        let message = "this node is alone: nothing of a disk can move to another one";
        let hint = "copy its volumes away with `sarsen volume export`";
        Err(ErrorBody::conflict("disk", message, hint))
    }

    /// The disk, where it could be removed now; else exactly why not. Nothing is changed.
    pub fn may_remove_disk(&self, id: DiskId) -> Result<Disk, ErrorBody> {
        let catalog = self.manager().catalog();
        let disk = catalog.disk(id).ok_or_else(|| no_disk(id))?;
        self.disks_may_go()?;
        is_empty(&catalog, disk)?;
        self.disk(id)
    }

    fn disks_may_go(&self) -> Result<(), ErrorBody> {
        if self.is_of_cluster() {
            return Ok(());
        }
        let message = "this node is alone, and its disks stay";
        let hint = "copy its volumes away with `sarsen volume export`, and begin anew";
        Err(ErrorBody::conflict("disk", message, hint))
    }

    /// Ends a disk that nothing is on any more.
    pub async fn remove_disk(&self, id: DiskId) -> Result<(), ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        let disk = catalog.disk(id).ok_or_else(|| no_disk(id))?;
        self.disks_may_go()?;
        let subject = subject(id, Some(&disk.path));
        let asked = self
            .manager()
            .propose(Command::RemoveDisk { disk: id })
            .await;
        self.known(&subject, asked)?;
        self.forget_disk(id);
        tracing::info!(disk = %id, path = disk.path, "disk removed");
        Ok(())
    }

    /// What was known of a disk that is none any more: a failed one is no alert from then on.
    pub(super) fn forget_disk(&self, id: DiskId) {
        lock(&self.inner.disks).remove(&id);
        let (with_path, without) = (subject(id, Some("")), subject(id, None));
        let with_path = with_path.trim_end_matches(')');
        (self.alerts()).forget(|about| about == without || about.starts_with(with_path));
    }
}

/// Refuses the removal of a disk that is a copy of anything, or is to become one.
fn is_empty(catalog: &Catalog, disk: &catalog::Disk) -> Result<(), ErrorBody> {
    let id = disk.id;
    let on_it = catalog.pgs_on(id).count();
    let comes = |pg: &PgId| {
        let want = catalog.pg(*pg).and_then(|pg| pg.want);
        want.is_some_and(|want| want.to == Some(id))
    };
    let coming = catalog.wanted().filter(comes).count();
    let only = only_there(catalog, &BTreeSet::from([id]));
    let message = match (on_it, only.is_empty()) {
        (0, _) if coming == 0 => return Ok(()),
        (0, _) => format!("{coming} placement groups are to have a copy on disk {id}"),
        (_, true) => format!("{on_it} placement groups have a copy on disk {id}"),
        (_, false) => format!(
            "{on_it} placement groups have a copy on disk {id}, which {}",
            only_copies(catalog, &only)
        ),
    };
    let hint = match disk.state {
        DiskState::Serving => format!("drain it first: `sarsen disk drain {id} --wait`"),
        DiskState::Draining => {
            format!(
                "it is being drained: `sarsen disk drain {id} --wait` waits for the end of that"
            )
        }
        DiskState::Missing | DiskState::OutOfService if only.is_empty() => {
            "what it has is made anew elsewhere: `sarsen status` says how long that takes".into()
        }
        DiskState::Missing | DiskState::OutOfService => {
            "bring it back, or delete the volumes that have their only copy there".into()
        }
    };
    Err(ErrorBody::conflict("disk", message, &hint))
}

/// Refuses what would leave too little for the copies of a pool, were these disks gone. `what` they are together, for people.
pub(super) fn may_go(
    catalog: &Catalog,
    going: &BTreeSet<DiskId>,
    what: &str,
) -> Result<(), ErrorBody> {
    let of_going = |pool: &&catalog::Pool| {
        let mut disks = catalog.disks_of_pool(pool.id);
        disks.any(|disk| going.contains(&disk.id))
    };
    let mut pools = catalog.pools().filter(of_going);
    pools.try_for_each(|pool| may_go_from(catalog, pool, going, what))
}

fn may_go_from(
    catalog: &Catalog,
    pool: &catalog::Pool,
    going: &BTreeSet<DiskId>,
    what: &str,
) -> Result<(), ErrorBody> {
    let left = catalog
        .disks_of_pool(pool.id)
        .filter(|other| !going.contains(&other.id) && other.state == DiskState::Serving);
    let left: Vec<_> = left.collect();
    let domains: BTreeSet<String> = left
        .iter()
        .map(|disk| match pool.level {
            Level::Disk => disk.id.to_string(),
            Level::Node => name_of(catalog, disk.node),
            Level::Rack => {
                let rack = catalog.node(disk.node).and_then(|node| node.rack);
                rack.map_or_else(|| "none".into(), |rack| format!("{rack:?}"))
            }
        })
        .collect();
    if (domains.len() as u32) < pool.copies {
        let message = format!(
            "without {what}, pool {} has disks in {} places, and {} copies need as many",
            pool.name,
            domains.len(),
            pool.copies
        );
        let hint = "add a disk first, on another node where copies lie on different nodes, or have fewer copies with `sarsen pool set`";
        return Err(ErrorBody::conflict("disk", message, hint));
    }
    let has: u64 = left.iter().map(|disk| disk.size).sum();
    let needs = catalog.promised(pool.id).saturating_mul(pool.copies.into());
    let may_promise = u128::from(has) * u128::from(pool.overcommit_percent) / 100;
    if u128::from(needs) > may_promise {
        let message = format!(
            "without {what}, pool {} has {has} bytes, and {needs} are promised, copies and all",
            pool.name
        );
        let hint =
            "add a disk first, delete volumes, or allow more with `sarsen pool set --overcommit`";
        return Err(ErrorBody::conflict("disk", message, hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::moves::tests::catalog;
    use super::*;

    fn refused(catalog: &Catalog) -> String {
        let disk = catalog.disk(DiskId(1)).unwrap();
        is_empty(catalog, disk).unwrap_err().to_string()
    }

    fn set(catalog: &mut Catalog, disk: u32, state: DiskState) {
        let disk = DiskId(disk);
        let command = Command::SetDiskState { disk, state };
        catalog.apply(&command).unwrap();
    }

    #[test]
    fn a_disk_that_is_not_empty_is_not_removed_and_why_follows_from_its_state() {
        let mut catalog = catalog();
        let said = refused(&catalog);
        assert!(said.contains("8 placement groups have a copy"), "{said}");
        assert!(said.contains("sarsen disk drain 1 --wait"), "{said}");
        assert!(!said.contains("only copy"), "{said}");
        set(&mut catalog, 1, DiskState::Draining);
        let said = refused(&catalog);
        assert!(said.contains("is being drained"), "{said}");
        set(&mut catalog, 1, DiskState::Missing);
        let said = refused(&catalog);
        assert!(said.contains("made anew elsewhere"), "{said}");
        // Of the PGs on 1 and 2.
        set(&mut catalog, 2, DiskState::OutOfService);
        let said = refused(&catalog);
        let only = "which has the only copy of 4 placement groups, which no volume uses";
        assert!(
            said.contains(only) && said.contains("bring it back"),
            "{said}"
        );
        let empty = catalog.disk(DiskId(4)).unwrap();
        assert_eq!(is_empty(&catalog, empty), Ok(()));
    }
}
