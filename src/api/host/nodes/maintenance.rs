//! Maintenance: somebody works at a node, and what it holds is not made anew elsewhere meanwhile.
//!
//! The catalog keeps when it ends and has no clock; the node that leads looks at its own, once a second. Where nobody leads nothing is made anew
//! either. A clock that steps ends maintenance early or late, and that is all: no promise rests on it.

use super::{meant, names, subject, volumes_over};
use crate::api::host::pools::tried;
use crate::api::host::{AlertKind, Host, alerts};
use crate::api::model::{ErrorBody, Node, NodeMaintenance, Restart, Switch};
use crate::base::{DiskId, NodeId, PgId};
use crate::cluster::{Place, Presence, View, date_of};
use crate::protocol::catalog::{self, Catalog, Command, Maintenance};
use std::collections::{BTreeMap, BTreeSet};

/// How long it lasts where nothing is said: a restart, a kernel update.
const DEFAULT_SECONDS: u64 = 30 * 60;
/// How long it lasts at least and at most: what takes longer than a week is a removal.
const SECONDS: std::ops::RangeInclusive<u64> = 1..=7 * 24 * 3600;

impl Host {
    /// Whether this node may be away for a moment. Alone it is the only one that could serve anything, and nobody waits for copies.
    pub(in crate::api::host) fn restart(&self) -> Restart {
        let catalog = self.manager().catalog();
        let node = catalog.node(self.inner.parts.node);
        let (Some(node), Some(view)) = (node, self.cluster().view()) else {
            return Restart::default();
        };
        let away = self.away();
        let copies = may_be_away(&catalog, node, &away);
        let majority = leaves_a_majority(&catalog, node, &view);
        let reasons = copies.err().into_iter().chain(majority.err());
        let reasons: Vec<String> = reasons.map(|error| error.message).collect();
        let pgs: Vec<PgId> = short_without(&catalog, node, &away).into_keys().collect();
        let looked = self.look_at_pgs(&catalog);
        let lacks = |pool: &&catalog::Pool| {
            let look = looked.get(&pool.id);
            look.is_some_and(|look| look.pgs.lacking() > 0)
        };
        let lacking = catalog.pools().filter(lacks);
        Restart {
            reason: reasons.join("; "),
            volumes: names(&catalog, volumes_over(&catalog, &pgs)),
            pools_lacking: lacking.map(|pool| pool.name.clone()).collect(),
            pgs: pgs.into_iter().map(|pg| pg.0).collect(),
        }
    }

    /// Begins, prolongs or ends maintenance of a node.
    pub async fn set_maintenance(
        &self,
        named: &str,
        set: NodeMaintenance,
    ) -> Result<Node, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        let node = meant(&catalog, named)?;
        self.is_not_alone()?;
        let command = match set.maintenance {
            Switch::On => {
                let seconds = set.for_seconds.unwrap_or(DEFAULT_SECONDS);
                if !SECONDS.contains(&seconds) {
                    let message =
                        format!("maintenance lasts from a second to 7 days, not {seconds} s");
                    let hint = "drain a node that is away for longer: `sarsen node drain`";
                    return Err(ErrorBody::invalid("for_seconds", message, hint));
                }
                may_be_away(&catalog, node, &self.away())?;
                if let Some(view) = self.cluster().view() {
                    leaves_a_majority(&catalog, node, &view)?;
                }
                Command::SetMaintenance {
                    node: node.id,
                    maintenance: Maintenance::On,
                    until: Some(alerts::unix_seconds() + seconds),
                }
            }
            Switch::Off if set.for_seconds.is_some() => {
                let message = "what ends lasts for no time";
                let hint = "leave for_seconds out, or begin maintenance";
                return Err(ErrorBody::invalid("for_seconds", message, hint));
            }
            Switch::Off => Command::SetMaintenance {
                node: node.id,
                maintenance: Maintenance::Off,
                until: None,
            },
        };
        if set.dry_run {
            tried(&catalog, &[command])?;
            return self.cluster_node(named);
        }
        let asked = self.manager().propose(command).await;
        self.known(&subject(&node.name), asked)?;
        tracing::info!(node = node.name, ?set, "maintenance is set");
        self.tell_of_maintenance();
        self.cluster_node(named)
    }

    /// Ends maintenance whose time has come, where this node leads; and says of which nodes there is any.
    pub(in crate::api::host) async fn look_at_maintenance(&self, leads: bool) {
        if leads {
            let catalog = self.manager().catalog();
            let now = alerts::unix_seconds();
            let ended = catalog.nodes().filter_map(|node| {
                let until = node.maintenance_until.filter(|until| *until <= now)?;
                Some((node.id, node.name.clone(), until))
            });
            for (node, name, until) in ended.collect::<Vec<_>>() {
                let off = Command::SetMaintenance {
                    node,
                    maintenance: Maintenance::Off,
                    until: Some(until),
                };
                match self.manager().propose(off).await {
                    Ok(_) => tracing::info!(node = name, "maintenance has ended by itself"),
                    // It was prolonged meanwhile, or it is tried again in a second.
                    Err(error) => tracing::info!(node = name, %error, "maintenance is not ended"),
                }
            }
        }
        self.tell_of_maintenance();
    }

    /// Raises and ends the alerts about maintenance.
    fn tell_of_maintenance(&self) {
        let catalog = self.manager().catalog();
        let mut now = BTreeSet::new();
        for node in catalog.nodes() {
            if node.maintenance == Maintenance::On {
                let subject = subject(&node.name);
                let reason = in_words(node);
                self.alerts()
                    .raise(AlertKind::NodeMaintenance, &subject, reason);
                now.insert(subject);
            }
        }
        for alert in self.alerts().list() {
            if alert.name == AlertKind::NodeMaintenance.name() && !now.contains(&alert.subject) {
                self.alerts()
                    .clear(AlertKind::NodeMaintenance, &alert.subject);
            }
        }
    }
}

fn in_words(node: &catalog::Node) -> String {
    let until = match node.maintenance_until {
        Some(until) => format!("until {}", date_of(until)),
        None => "until somebody ends it".into(),
    };
    format!("somebody works at it {until}: what it holds is not made anew elsewhere")
}

/// The placement groups of volumes of which fewer than `min_copies` copies would be reached without a node, and how many would. What the node is not in sync
/// with does not count, so one that is away already may be worked at.
pub(super) fn short_without(
    catalog: &Catalog,
    node: &catalog::Node,
    away: &BTreeSet<NodeId>,
) -> BTreeMap<PgId, u32> {
    let is_up = |disk: &DiskId| {
        let disk = catalog.disk(*disk);
        disk.is_some_and(|disk| {
            let of = catalog.node(disk.node);
            disk.node != node.id
                && disk.state.is_good()
                && !away.contains(&disk.node)
                && of.is_some_and(|of| of.maintenance == Maintenance::Off)
        })
    };
    let mut short = BTreeMap::new();
    for disk in catalog.disks_of(node.id) {
        for pg in catalog.pgs_on(disk.id).filter_map(|pg| catalog.pg(pg)) {
            let in_sync = pg.configuration.in_sync();
            let pool = catalog.pool(pg.pool);
            let min_copies = pool.map_or(1, |pool| pool.min_copies);
            let left = in_sync.filter(is_up).count() as u32;
            let counts = pg.configuration.in_sync().any(|one| one == disk.id);
            if counts && left < min_copies && catalog.has_volumes(pg.id) {
                short.insert(pg.id, left);
            }
        }
    }
    short
}

/// Refuses maintenance of a node without which I/O would wait.
pub(super) fn may_be_away(
    catalog: &Catalog,
    node: &catalog::Node,
    away: &BTreeSet<NodeId>,
) -> Result<(), ErrorBody> {
    // How many PGs of each pool would have too few copies, and of how many of these there would be none.
    let mut short: BTreeMap<catalog::PoolId, (u32, u32)> = BTreeMap::new();
    for (pg, left) in short_without(catalog, node, away) {
        if let Some(pg) = catalog.pg(pg) {
            let (few, none) = short.entry(pg.pool).or_default();
            *few += 1;
            *none += u32::from(left == 0);
        }
    }
    let Some((pool, (few, none))) = short.first_key_value() else {
        return Ok(());
    };
    let pool = catalog.pool(*pool);
    let pool = pool.map_or_else(String::new, |pool| pool.name.clone());
    let what = match none {
        0 => format!(
            "fewer copies than min_copies of {few} placement groups of pool {pool} would be reached, and writes there would wait"
        ),
        _ => format!(
            "{none} placement groups of pool {pool} would lose their last copy that is up, and I/O there would wait"
        ),
    };
    let message = format!("without node {}, {what}", node.name);
    let hint = "wait until the pool is whole (`sarsen pool show`), have other nodes back, or drain the node instead";
    Err(ErrorBody::conflict("node", message, hint))
}

/// Refuses maintenance of a member without which the manager would have no majority: no lease could be renewed, and I/O would wait everywhere.
fn leaves_a_majority(
    catalog: &Catalog,
    node: &catalog::Node,
    view: &View,
) -> Result<(), ErrorBody> {
    let members = view.nodes.iter().filter(|seen| seen.place == Place::Member);
    let members: Vec<_> = members.collect();
    let is_member = members.iter().any(|seen| seen.node == node.id);
    let stays = members.iter().filter(|seen| {
        let of = catalog.node(seen.node);
        seen.node != node.id
            && !matches!(seen.presence, Presence::Unreachable { .. })
            && of.is_none_or(|of| of.maintenance == Maintenance::Off)
    });
    let stays = stays.count();
    if !is_member || 2 * stays > members.len() {
        return Ok(());
    }
    let message = format!(
        "without node {}, {stays} of {} members of the manager would be left, no majority, and all I/O would wait",
        node.name,
        members.len()
    );
    let hint = "have other members back, or name others with `sarsen cluster members set NODE...`";
    Err(ErrorBody::conflict("node", message, hint))
}
