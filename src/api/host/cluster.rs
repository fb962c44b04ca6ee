//! This node in its cluster: what is asked of that by the API, and what of the cluster concerns the host.
//!
//! How volumes come to a node is in `held`.

use super::alerts::unix_seconds;
use super::{AlertKind, Host, lock};
use crate::api::model::{
    ClusterFounded, ClusterJoin, ClusterJoined, ClusterMembersSet, ClusterNode, ClusterStatus,
    ClusterToken, ErrorBody, ErrorCode, Maintenance, MembersChange,
};
use crate::base::{DiskId, NodeId, VolumeId};
use crate::cluster::{Cluster, ClusterError, Founded, Join, Place, Presence, View, Viewed};
use crate::manager::MembersError;
use crate::protocol::catalog::{self, Catalog, DiskState};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks at who is there.
const EVERY: Duration = Duration::from_secs(1);
/// For how many looks nobody leads before that is an alert: an election is none.
const ELECTION: u32 = 3;
/// For how many seconds a node is silent before that is an alert: one that joins or becomes another binary is away for less.
const SILENT: u64 = 3;
/// How long a token lasts at least and at most, in seconds.
const TOKEN_SECONDS: std::ops::RangeInclusive<u64> = 60..=90 * 24 * 3600;

impl Host {
    pub fn cluster(&self) -> &Cluster {
        &self.inner.parts.cluster
    }

    pub fn cluster_status(&self) -> Result<ClusterStatus, ErrorBody> {
        let status = self.cluster_seen();
        status.ok_or_else(|| ClusterError::Alone.into())
    }

    /// The cluster as this node sees it; nothing where it is alone.
    pub(super) fn cluster_seen(&self) -> Option<ClusterStatus> {
        let view = self.cluster().view()?;
        Some(shown(view, &self.manager().catalog()))
    }

    /// Founds a cluster, and has the daemon start again as its first node. Answered before it does.
    pub async fn found_cluster(&self) -> Result<ClusterFounded, ErrorBody> {
        let founded = self.cluster().found().await?;
        let (cluster, at, existed) = match founded {
            Founded::Now { cluster, at } => {
                // Its shards are those of a node alone.
                self.start_again();
                (cluster, at, false)
            }
            Founded::Before { cluster, at } => (cluster, at, true),
        };
        Ok(ClusterFounded {
            id: cluster.to_string(),
            address: at.to_string(),
            existed,
        })
    }

    pub fn make_token(&self, expires_seconds: u64) -> Result<ClusterToken, ErrorBody> {
        if !TOKEN_SECONDS.contains(&expires_seconds) {
            let message =
                format!("a token lasts from a minute to 90 days, not {expires_seconds} s");
            let hint = "an hour is enough to type it: --expires 1h";
            return Err(ErrorBody::invalid("expires_seconds", message, hint));
        }
        let issued = self.cluster().token(Duration::from_secs(expires_seconds))?;
        Ok(ClusterToken {
            token: issued.token,
            expires: issued.expires,
            address: issued.address,
        })
    }

    /// Joins a cluster, and has the daemon start again as a node of it. Answered before it does.
    pub async fn join_cluster(&self, join: ClusterJoin) -> Result<ClusterJoined, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        if self.cluster().view().is_none() {
            self.has_nothing()?;
        }
        let name = self.inner.parts.name.clone();
        let asked = Join {
            address: &join.address,
            token: &join.token,
            name: &name,
        };
        let node = self.cluster().join(asked).await?;
        self.start_again();
        Ok(ClusterJoined { node: node.0, name })
    }

    /// Whether this node has nothing that it would have to give up.
    fn has_nothing(&self) -> Result<(), ErrorBody> {
        let catalog = self.manager().catalog();
        let conflict = |message: String| {
            let hint = "what it has would be lost: join with a daemon that has nothing yet, that is with an empty data_dir and no [[disk]] in \
                        its configuration, and add the disks afterwards";
            Err(ErrorBody::conflict("", message, hint))
        };
        if let Some(volume) = catalog.volumes().next() {
            let count = catalog.volumes().count();
            let name = &volume.name;
            return conflict(format!(
                "this node has {count} volume(s) of its own: {name}"
            ));
        }
        if let Some(disk) = catalog.disks().next() {
            let count = catalog.disks().count();
            let path = &disk.path;
            return conflict(format!("this node has {count} disk(s) of its own: {path}"));
        }
        Ok(())
    }

    pub async fn set_members(&self, set: ClusterMembersSet) -> Result<ClusterStatus, ErrorBody> {
        if set.dry_run {
            let would = self.cluster().would_set_members(&set.nodes).await?;
            let catalog = self.manager().catalog();
            let names = |nodes: BTreeSet<NodeId>| {
                let names = nodes.into_iter().map(|node| name_of(&catalog, node));
                names.collect::<Vec<String>>()
            };
            let mut seen = self.cluster_status()?;
            seen.change = Some(MembersChange {
                members: names(would.after),
                added: names(would.added),
                removed: names(would.removed),
                silent: names(would.silent),
            });
            return Ok(seen);
        }
        self.cluster().set_members(&set.nodes).await?;
        self.cluster_status()
    }

    /// Whether another node does not answer.
    pub(super) fn is_silent(&self, node: NodeId) -> bool {
        let view = self.cluster().view();
        let seen = view.iter().flat_map(|view| &view.nodes);
        let of_node = seen.into_iter().find(|seen| seen.node == node);
        of_node.is_some_and(|seen| matches!(seen.presence, Presence::Unreachable { .. }))
    }

    /// Opens what the catalog comes to have of this node without its doing: all of it, where a start did not get to know the catalog. And keeps
    /// what clients see in step with what other nodes change.
    pub async fn watch_catalog(&self) {
        let mut watch = self.manager().watch();
        let mut volumes: BTreeSet<VolumeId> = BTreeSet::new();
        loop {
            watch.next().await;
            // What comes at once is one change for clients.
            while watch.try_next().is_some() {}
            self.look_at_timeouts().await;
            let _changing = self.inner.changing.lock().await;
            let catalog = self.manager().catalog();
            let known: BTreeSet<_> = lock(&self.inner.disks).keys().copied().collect();
            let node = self.inner.parts.node;
            let ours = catalog
                .disks_of(node)
                .filter(|disk| disk.state != DiskState::OutOfService);
            let new = ours.filter(|disk| !known.contains(&disk.id)).count();
            let open: Vec<DiskId> = catalog
                .disks_of(node)
                .map(|disk| disk.id)
                .filter(|id| known.contains(id))
                .collect();
            let now: BTreeSet<_> = catalog.volumes().map(|volume| volume.id).collect();
            let gone = known.iter().filter(|id| catalog.disk(**id).is_none());
            // Another node removed them.
            gone.for_each(|id| self.forget_disk(*id));
            drop(catalog);
            if volumes.difference(&now).next().is_some() {
                self.drop_forgotten(&open).await;
            }
            volumes = now;
            if new == 0 {
                if self.is_of_cluster() {
                    self.look_at_served().await;
                }
                continue;
            }
            tracing::info!(
                disks = new,
                "the catalog has disks of this node that are not open"
            );
            if let Err(error) = self.open_new().await {
                tracing::error!(%error, "none of this node's disks could be opened");
            }
            drop(_changing);
            self.take_up_attachments().await;
        }
    }

    /// Raises and ends the alerts about other nodes, for as long as the daemon runs.
    pub async fn watch_cluster(&self) {
        let (mut raised, mut silent) = (BTreeSet::new(), 0);
        loop {
            sleep(EVERY).await;
            let Some(view) = self.cluster().view() else {
                continue;
            };
            silent = if view.leader.is_none() { silent + 1 } else { 0 };
            match silent {
                0 => self.alerts().clear(AlertKind::NoLeader, MANAGER),
                ELECTION.. => {
                    let why = "this node hears of nobody who leads: the catalog takes no changes";
                    self.alerts().raise(AlertKind::NoLeader, MANAGER, why);
                }
                _ => {}
            }
            self.look_at_pools();
            self.look_at_maintenance(view.leader == Some(view.this))
                .await;
            self.look_whether_removed();
            let mut now = BTreeSet::new();
            for node in &view.nodes {
                if let Presence::Unreachable { why, since } = &node.presence
                    && since + SILENT <= unix_seconds()
                {
                    let subject = format!("node {}", node.name);
                    self.alerts()
                        .raise(AlertKind::NodeUnreachable, &subject, why.as_str());
                    now.insert(subject);
                }
            }
            for subject in raised.difference(&now) {
                self.alerts().clear(AlertKind::NodeUnreachable, subject);
            }
            raised = now;
        }
    }
}

/// What the alert is about that nobody leads.
const MANAGER: &str = "manager";

/// What a node is called; its number where the catalog does not have it.
pub(super) fn name_of(catalog: &Catalog, node: NodeId) -> String {
    let known = catalog.node(node);
    known.map_or_else(|| node.to_string(), |node| node.name.clone())
}

/// Whether somebody works at a node.
pub(super) fn maintenance_of(catalog: &Catalog, node: NodeId) -> Option<Maintenance> {
    let node = catalog.node(node)?;
    let until_unix_seconds = node.maintenance_until;
    (node.maintenance == catalog::Maintenance::On).then_some(Maintenance { until_unix_seconds })
}

fn shown(view: View, catalog: &Catalog) -> ClusterStatus {
    let name = |id: NodeId| {
        let found = view.nodes.iter().find(|node| node.node == id);
        found.map_or_else(|| id.to_string(), |node| node.name.clone())
    };
    let node = |node: &Viewed| {
        let (state, since, reason) = match &node.presence {
            Presence::This => ("this", None, String::new()),
            Presence::Unknown => ("unknown", None, String::new()),
            Presence::Reachable { since } => ("reachable", Some(*since), String::new()),
            Presence::Unreachable { since, why } => ("unreachable", Some(*since), why.clone()),
        };
        ClusterNode {
            id: node.node.0,
            name: node.name.clone(),
            addresses: node.addresses.clone(),
            role: match node.place {
                Place::Member => "member",
                Place::Learner => "learner",
                Place::Follower => "follower",
            }
            .into(),
            leads: view.leader == Some(node.node),
            state: state.into(),
            since_unix_seconds: since,
            reason,
            lag: node.lag,
            version: node.version.clone(),
            maintenance: maintenance_of(catalog, node.node),
        }
    };
    ClusterStatus {
        id: view.cluster.to_string(),
        node: name(view.this),
        leader: view.leader.map(name),
        nodes: view.nodes.iter().map(node).collect(),
        change: None,
    }
}

impl From<ClusterError> for ErrorBody {
    fn from(error: ClusterError) -> ErrorBody {
        let error = match error {
            ClusterError::Propose(error) => return error.into(),
            error => error,
        };
        let code = match &error {
            ClusterError::NoNode(_) => ErrorCode::NotFound,
            ClusterError::Token(_) => ErrorCode::Invalid,
            ClusterError::NotConfigured
            | ClusterError::Unconfigured { .. }
            | ClusterError::Alone
            | ClusterError::Member(_)
            | ClusterError::NoAuthority { .. }
            | ClusterError::Mixed { .. }
            | ClusterError::Join(_)
            | ClusterError::Members(MembersError::Refused(_)) => ErrorCode::Conflict,
            ClusterError::Listen { .. } | ClusterError::Kept { .. } | ClusterError::File(_) => {
                ErrorCode::Io
            }
            ClusterError::Request(_)
            | ClusterError::Members(MembersError::Interrupted(_))
            | ClusterError::Propose(_)
            | ClusterError::Calls(_) => ErrorCode::Unavailable,
        };
        ErrorBody::new(code, "", error.to_string(), error.cure())
    }
}
