//! Nodes that are emptied, removed, worked at, or put into a rack. In a cluster only, but for what shows them: a node that is alone has nobody who
//! takes its part.
//!
//! | file | what it does |
//! |---|---|
//! | `maintenance` | says that somebody works at a node, and ends that when its time has come |
//! | `remove` | takes a node out of the cluster for good; what one that was taken out says of itself |
//!
//! Nothing is remembered: every command looks at the catalog, does what is left to do, and may be said again after it was interrupted.

mod maintenance;
mod remove;

#[cfg(test)]
mod tests;

pub(super) use remove::{only_copies, only_there};

use super::Host;
use super::cluster::maintenance_of;
use super::drain::may_go;
use crate::api::model::{
    ClusterNode, ErrorBody, ErrorCode, Node, NodeData, NodeDrain, NodeRack, Nodes,
};
use crate::base::{DiskId, NodeId, PgId, VolumeId};
use crate::protocol::catalog::{self, Catalog, Command, DiskState};
use std::collections::BTreeSet;

impl Host {
    /// All nodes, as this one sees them.
    pub fn cluster_nodes(&self) -> Nodes {
        let catalog = self.manager().catalog();
        let seen = self.cluster_seen().map(|seen| seen.nodes);
        let seen = seen.unwrap_or_default();
        let nodes = catalog.nodes().map(|node| {
            let seen = seen.iter().find(|seen| seen.id == node.id.0).cloned();
            view(
                &catalog,
                node,
                seen.unwrap_or_else(|| alone(&catalog, node)),
            )
        });
        Nodes {
            nodes: nodes.collect(),
        }
    }

    /// One node, by its name or number.
    pub fn cluster_node(&self, named: &str) -> Result<Node, ErrorBody> {
        let id = meant(&self.manager().catalog(), named)?.id;
        let mut nodes = self.cluster_nodes().nodes;
        nodes.retain(|node| node.seen.id == id.0);
        nodes.pop().ok_or_else(|| no_node(named))
    }

    /// Has everything on a node's disks move to others, or takes that back. Answered before it has; said again it changes nothing.
    pub async fn drain_node(&self, named: &str, drain: NodeDrain) -> Result<Node, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        let node = meant(&catalog, named)?;
        self.is_not_alone()?;
        let (from, to) = match drain.undo {
            true => (DiskState::Draining, DiskState::Serving),
            false => (DiskState::Serving, DiskState::Draining),
        };
        // Those that are missing or out of service are made anew elsewhere anyway.
        let disks = catalog.disks_of(node.id).filter(|disk| disk.state == from);
        let disks: BTreeSet<DiskId> = disks.map(|disk| disk.id).collect();
        if !drain.undo && !disks.is_empty() {
            if maintenance_of(&catalog, node.id).is_some() {
                let message = format!("somebody works at node {}: nothing of it moves", node.name);
                let hint = "end that first with `sarsen node maintenance NODE off`";
                return Err(ErrorBody::conflict("node", message, hint));
            }
            let what = format!("the disks of node {}", node.name);
            may_go(&catalog, &disks_of(&catalog, node.id), &what)?;
        }
        if !drain.dry_run {
            for disk in disks {
                let command = Command::SetDiskState { disk, state: to };
                let asked = self.manager().propose(command).await;
                self.known(&subject(&node.name), asked)?;
            }
            tracing::info!(
                node = node.name,
                ?to,
                "a node's disks are to have another state"
            );
        }
        let mut seen = self.cluster_node(named)?;
        if drain.dry_run && !drain.undo {
            let going = disks_of(&catalog, node.id);
            seen.moves = Some(self.moves_of(&catalog, going).await?);
        }
        Ok(seen)
    }

    /// Says in which rack a node stands.
    pub async fn set_rack(&self, named: &str, set: NodeRack) -> Result<Node, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        let node = meant(&catalog, named)?;
        let command = Command::SetRack {
            node: node.id,
            rack: set.rack.clone(),
        };
        let asked = self.manager().propose(command).await;
        self.known(&subject(&node.name), asked)?;
        tracing::info!(node = node.name, rack = ?set.rack, "a node stands in another rack");
        self.cluster_node(named)
    }

    fn is_not_alone(&self) -> Result<(), ErrorBody> {
        if self.is_of_cluster() {
            return Ok(());
        }
        let message = "this node is alone: nobody else has or takes what is on it";
        let hint = "`sarsen cluster init` makes a cluster, and others join it";
        Err(ErrorBody::conflict("node", message, hint))
    }
}

/// What alerts about a node are about.
fn subject(name: &str) -> String {
    format!("node {name}")
}

/// The node that somebody means by a name or a number.
fn meant<'a>(catalog: &'a Catalog, named: &str) -> Result<&'a catalog::Node, ErrorBody> {
    let by_number = || catalog.node(NodeId(named.parse().ok()?));
    let found = catalog.node_named(named).or_else(by_number);
    found.ok_or_else(|| no_node(named))
}

fn no_node(named: &str) -> ErrorBody {
    let message = format!("there is no node {named:?}");
    let hint = "`sarsen node list` shows what there is";
    ErrorBody::new(ErrorCode::NotFound, "node", message, hint)
}

fn disks_of(catalog: &Catalog, node: NodeId) -> BTreeSet<DiskId> {
    catalog.disks_of(node).map(|disk| disk.id).collect()
}

/// How many replicas are on a node's disks.
fn replicas_on(catalog: &Catalog, node: NodeId) -> u32 {
    let disks = catalog.disks_of(node);
    disks
        .map(|disk| catalog.pgs_on(disk.id).count() as u32)
        .sum()
}

/// Volumes that are attached to a node, or that it serves.
fn volumes_at(catalog: &Catalog, node: NodeId) -> BTreeSet<VolumeId> {
    let attached = catalog.attachments().filter(|one| one.node == node);
    let attached = attached.map(|one| one.volume);
    attached.chain(catalog.owned_by(node)).collect()
}

/// Volumes that have a part of these placement groups, which are in order.
fn volumes_over(catalog: &Catalog, pgs: &[PgId]) -> Vec<VolumeId> {
    let of = catalog.volumes().filter(|volume| {
        let of_volume = catalog.pgs_of_volume(volume);
        of_volume.iter().any(|pg| pgs.binary_search(pg).is_ok())
    });
    of.map(|volume| volume.id).collect()
}

/// Names of volumes, for people and programs.
fn names(catalog: &Catalog, volumes: impl IntoIterator<Item = VolumeId>) -> Vec<String> {
    let name = |id| catalog.volume(id).map(|volume| volume.name.clone());
    let mut names: Vec<String> = volumes.into_iter().filter_map(name).collect();
    names.sort();
    names
}

fn view(catalog: &Catalog, node: &catalog::Node, seen: ClusterNode) -> Node {
    let takes = |disk: &catalog::Disk| disk.state == DiskState::Serving;
    let pgs = replicas_on(catalog, node.id);
    let data = match catalog.disks_of(node.id).next() {
        None => NodeData::None,
        Some(_) if catalog.disks_of(node.id).any(takes) => NodeData::Taking,
        Some(_) if pgs > 0 => NodeData::Leaving,
        Some(_) => NodeData::Left,
    };
    let rack = node.rack.and_then(|rack| catalog.rack(rack));
    Node {
        seen,
        rack: rack.map(str::to_owned),
        disks: catalog.disks_of(node.id).map(|disk| disk.id.0).collect(),
        size_bytes: catalog.disks_of(node.id).map(|disk| disk.size).sum(),
        pgs,
        data,
        volumes: names(catalog, volumes_at(catalog, node.id)),
        moves: None,
    }
}

/// What there is to see of a node that is in no cluster.
fn alone(catalog: &Catalog, node: &catalog::Node) -> ClusterNode {
    ClusterNode {
        id: node.id.0,
        name: node.name.clone(),
        addresses: node.addresses.clone(),
        role: "alone".into(),
        leads: false,
        state: "this".into(),
        since_unix_seconds: None,
        reason: String::new(),
        lag: None,
        version: Some(env!("CARGO_PKG_VERSION").into()),
        maintenance: maintenance_of(catalog, node.id),
    }
}
