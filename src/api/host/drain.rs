//! Disks that are to go: emptied first, then removed. In a cluster only: a node that is alone has nobody who moves copies.

use super::cluster::name_of;
use super::notes::subject;
use super::view::no_disk;
use super::{Host, lock};
use crate::api::model::{Disk, DiskDrain, ErrorBody};
use crate::base::DiskId;
use crate::protocol::catalog::{self, Catalog, Command, DiskState};
use crate::protocol::placement::Level;
use std::collections::BTreeSet;

impl Host {
    /// Has everything on a disk move to others, or takes that back. Answered before it has; said again it changes nothing.
    pub async fn drain_disk(&self, id: DiskId, drain: DiskDrain) -> Result<Disk, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        let disk = catalog.disk(id).ok_or_else(|| no_disk(id))?;
        if !self.is_of_cluster() {
            let message = "this node is alone: nothing of a disk can move to another one";
            let hint = "copy its volumes away with `sarsen volume export`";
            return Err(ErrorBody::conflict("disk", message, hint));
        }
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

    /// Ends a disk that nothing is on any more.
    pub async fn remove_disk(&self, id: DiskId) -> Result<(), ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        let disk = catalog.disk(id).ok_or_else(|| no_disk(id))?;
        if !self.is_of_cluster() {
            let message = "this node is alone, and its disks stay";
            let hint = "copy its volumes away with `sarsen volume export`, and begin anew";
            return Err(ErrorBody::conflict("disk", message, hint));
        }
        let subject = subject(id, Some(&disk.path));
        let asked = self
            .manager()
            .propose(Command::RemoveDisk { disk: id })
            .await;
        self.known(&subject, asked)?;
        lock(&self.inner.disks).remove(&id);
        tracing::info!(disk = %id, path = disk.path, "disk removed");
        Ok(())
    }
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
