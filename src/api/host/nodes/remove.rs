//! Removal: a node is of the cluster no more.
//!
//! One that lives is drained first, and let go of. One that is dead for good is given up (`force`): its disks count as missing at once, rather than
//! after ten minutes, so that what they held is made anew elsewhere; volumes that were attached to it are taken over by this node for a moment, the
//! way that clients are served after a death, so nobody else's lease is broken. A node that comes back before it is removed is what it was.
//!
//! What is never given up is the only copy of anything: whoever wants that deletes the volumes.

use super::{disks_of, meant, names, replicas_on, subject, volumes_at, volumes_over};
use crate::api::host::drain::may_go;
use crate::api::host::{AlertKind, Host};
use crate::api::model::{ErrorBody, NodeRemove, NodeRemoved};
use crate::base::{DiskId, PgId, VolumeId};
use crate::cluster::Place;
use crate::protocol::catalog::{self, Catalog, Command, DiskState};
use std::collections::BTreeSet;

/// How many volumes are named.
const NAMES_MAX: usize = 5;

impl Host {
    /// Takes a node out of the cluster, as far as that can be done now.
    pub async fn remove_node(
        &self,
        named: &str,
        remove: NodeRemove,
    ) -> Result<NodeRemoved, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        let node = meant(&catalog, named)?;
        self.is_not_alone()?;
        self.is_none_of_the_manager(node)?;
        let is_silent = self.is_silent(node.id);
        match remove.force {
            true => may_be_given_up(&catalog, node, is_silent)?,
            false => is_let_go_of(&catalog, node, is_silent)?,
        }
        let removed = |removed: bool| NodeRemoved {
            name: node.name.clone(),
            removed,
            pgs: replicas_on(&self.manager().catalog(), node.id),
        };
        if remove.dry_run {
            return Ok(removed(false));
        }
        if remove.force {
            self.give_up(&catalog, node).await?;
        }
        if removed(false).pgs > 0 {
            return Ok(removed(false));
        }
        let catalog = self.manager().catalog();
        for disk in disks_of(&catalog, node.id) {
            let asked = self.manager().propose(Command::RemoveDisk { disk }).await;
            self.known(&subject(&node.name), asked)?;
            self.forget_disk(disk);
        }
        let asked = self
            .manager()
            .propose(Command::RemoveNode { node: node.id })
            .await;
        self.known(&subject(&node.name), asked)?;
        tracing::info!(node = node.name, id = %node.id, "a node is removed from the cluster");
        Ok(NodeRemoved {
            name: node.name.clone(),
            removed: true,
            pgs: 0,
        })
    }

    /// Refuses what would take the ground from under the manager, or from under this very command.
    fn is_none_of_the_manager(&self, node: &catalog::Node) -> Result<(), ErrorBody> {
        let name = &node.name;
        let view = self.cluster().view();
        let nodes = view.iter().flat_map(|view| &view.nodes);
        let mut of_node = nodes.filter(|seen| seen.node == node.id);
        if of_node.any(|seen| seen.place != Place::Follower) {
            let message = format!("node {name} is a member of the manager");
            let hint =
                "name members without it first: `sarsen cluster members set NODE...`, 1, 3 or 5";
            return Err(ErrorBody::conflict("node", message, hint));
        }
        if node.id == self.inner.parts.node {
            let message = format!("node {name} is the one that is asked");
            let hint = "say it on another node";
            return Err(ErrorBody::conflict("node", message, hint));
        }
        Ok(())
    }

    /// Does without a node that does not answer: what it held is made anew, and what was attached to it is taken over.
    async fn give_up(&self, catalog: &Catalog, node: &catalog::Node) -> Result<(), ErrorBody> {
        tracing::warn!(node = node.name, "a node that does not answer is given up");
        let good = catalog
            .disks_of(node.id)
            .filter(|disk| disk.state.is_good());
        for disk in good {
            let command = Command::SetDiskState {
                disk: disk.id,
                state: DiskState::Missing,
            };
            let asked = self.manager().propose(command).await;
            self.known(&subject(&node.name), asked)?;
        }
        let attached = catalog.attachments().filter(|one| one.node == node.id);
        for one in attached {
            let command = Command::Detach {
                volume: one.volume,
                key: Some(one.key),
            };
            // Somebody may have taken it over a moment ago.
            if let Err(error) = self.manager().propose(command).await {
                tracing::info!(volume = %one.volume, %error, "not detached");
            }
        }
        let owned: Vec<VolumeId> = self.manager().catalog().owned_by(node.id).collect();
        for volume in owned {
            drop(self.hold(volume).await?);
        }
        Ok(())
    }

    /// Raises an alert where this node was removed.
    pub(in crate::api::host) fn look_whether_removed(&self) {
        let subject = "this node";
        match self.cluster().removed() {
            Some(why) => {
                self.alerts().raise(AlertKind::NodeRemoved, subject, why);
            }
            None => self.alerts().clear(AlertKind::NodeRemoved, subject),
        }
    }
}

/// Refuses the removal of a node that holds or serves anything.
pub(super) fn is_let_go_of(
    catalog: &Catalog,
    node: &catalog::Node,
    is_silent: bool,
) -> Result<(), ErrorBody> {
    let name = &node.name;
    let pgs = replicas_on(catalog, node.id);
    let serving = catalog
        .disks_of(node.id)
        .find(|disk| disk.state == DiskState::Serving);
    if pgs > 0 || serving.is_some() {
        let only = only_there(catalog, &disks_of(catalog, node.id));
        let message = match (only.len(), pgs, serving) {
            (0, 0, Some(disk)) => format!("disk {} of node {name} takes data", disk.id),
            (0, ..) => format!("{pgs} copies of placement groups are on the disks of node {name}"),
            _ => format!("node {name} {}", only_copies(catalog, &only)),
        };
        let hint = match (is_silent, only.is_empty()) {
            (false, _) => "empty it first: `sarsen node drain NODE --wait`",
            (true, true) => {
                "it does not answer: what it held is made anew elsewhere after ten minutes, or at once with `--force` where it will not come back"
            }
            (true, false) => "it does not answer: bring it back, or delete these volumes",
        };
        return Err(ErrorBody::conflict("node", message, hint));
    }
    let volumes = volumes_at(catalog, node.id);
    if !volumes.is_empty() {
        let message = format!(
            "node {name} has {} volume(s) attached, or serves them: {}",
            volumes.len(),
            some(names(catalog, volumes))
        );
        let hint = match is_silent {
            false => {
                "detach them there, or let clients connect to another node; what nobody uses is let go of after 2 s"
            }
            true => "it does not answer: `--force` takes them from it where it will not come back",
        };
        return Err(ErrorBody::conflict("node", message, hint));
    }
    has_no_local_volumes(catalog, node)
}

/// Refuses to give up a node that lives, or that is needed.
pub(super) fn may_be_given_up(
    catalog: &Catalog,
    node: &catalog::Node,
    is_silent: bool,
) -> Result<(), ErrorBody> {
    let name = &node.name;
    if !is_silent {
        let message = format!("node {name} answers, and is not given up");
        let hint = "drain it and remove it without --force; or stop its daemon first";
        return Err(ErrorBody::conflict("force", message, hint));
    }
    let only = only_there(catalog, &disks_of(catalog, node.id));
    if !only.is_empty() {
        let message = format!("node {name} {}", only_copies(catalog, &only));
        let hint =
            "bring it back and drain it, or delete these volumes first; --force gives up no data";
        return Err(ErrorBody::conflict("node", message, hint));
    }
    has_no_local_volumes(catalog, node)?;
    if replicas_on(catalog, node.id) > 0 {
        let what = format!("the disks of node {name}");
        may_go(catalog, &disks_of(catalog, node.id), &what)?;
    }
    Ok(())
}

fn has_no_local_volumes(catalog: &Catalog, node: &catalog::Node) -> Result<(), ErrorBody> {
    let home = catalog::Locality::Local { home: node.id };
    let local = catalog.volumes().filter(|volume| volume.locality == home);
    let local: Vec<VolumeId> = local.map(|volume| volume.id).collect();
    if local.is_empty() {
        return Ok(());
    }
    let message = format!(
        "node {} is the home of local volumes: {}",
        node.name,
        some(names(catalog, local))
    );
    let hint = "copy them to others and delete them";
    Err(ErrorBody::conflict("node", message, hint))
}

/// The placement groups of which no copy in sync is on a good disk but these.
pub(in crate::api::host) fn only_there(catalog: &Catalog, going: &BTreeSet<DiskId>) -> Vec<PgId> {
    let is_elsewhere = |disk: DiskId| {
        let is_good = |disk: &catalog::Disk| disk.state.is_good();
        !going.contains(&disk) && catalog.disk(disk).is_some_and(is_good)
    };
    let mut only = BTreeSet::new();
    for &disk in going {
        for pg in catalog.pgs_on(disk).filter_map(|pg| catalog.pg(pg)) {
            let mut in_sync = pg.configuration.in_sync();
            if pg.configuration.in_sync().any(|one| one == disk) && !in_sync.any(is_elsewhere) {
                only.insert(pg.id);
            }
        }
    }
    only.into_iter().collect()
}

/// What a node or disk has the only copies of, with the volumes that have a part of that.
pub(in crate::api::host) fn only_copies(catalog: &Catalog, pgs: &[PgId]) -> String {
    let volumes = volumes_over(catalog, pgs);
    let of = match volumes.is_empty() {
        true => ", which no volume uses".into(),
        false => format!(", of volumes {}", some(names(catalog, volumes))),
    };
    format!("has the only copy of {} placement groups{of}", pgs.len())
}

fn some(names: Vec<String>) -> String {
    let (some, rest) = names.split_at(names.len().min(NAMES_MAX));
    match rest.len() {
        0 => some.join(", "),
        more => format!("{} and {more} more", some.join(", ")),
    }
}
