//! Pools: their copies, and how whole what lies in them is.
//!
//! How whole a placement group is follows from the catalog, and from which nodes answer, alone. Nothing of it is remembered: since when a pool is not whole, the alert says,
//! which each daemon raises when it first sees it.

use super::cluster::name_of;
use super::{AlertKind, Host};
use crate::api::model::{
    ErrorBody, ErrorCode, Level, Pool, PoolCreate, PoolList, PoolPgs, PoolSet,
};
use crate::base::{DiskId, NodeId};
use crate::protocol::catalog::{self, Catalog, Command, Pg};
use crate::protocol::placement;
use crate::protocol::replication::Role;
use std::collections::BTreeSet;

/// How many disks the reason names.
const NAMES_MAX: usize = 5;

impl Host {
    pub fn pools(&self) -> PoolList {
        let catalog = self.manager().catalog();
        let pools = catalog.pools().map(|pool| self.view_pool(&catalog, pool));
        PoolList {
            pools: pools.collect(),
        }
    }

    pub fn pool(&self, name: &str) -> Result<Pool, ErrorBody> {
        let catalog = self.manager().catalog();
        let pool = catalog.pool_named(name).ok_or_else(|| no_pool(name))?;
        Ok(self.view_pool(&catalog, pool))
    }

    pub async fn create_pool(&self, create: PoolCreate) -> Result<Pool, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let command = Command::CreatePool {
            name: create.name.clone(),
            copies: create.copies,
            min_copies: create.min_copies,
            level: level_of(create.level),
        };
        self.may_have_copies(create.copies)?;
        let asked = self.manager().propose(command).await;
        self.known(&format!("pool {}", create.name), asked)?;
        self.pool(&create.name)
    }

    pub async fn set_pool(&self, name: &str, set: PoolSet) -> Result<Pool, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        let pool = catalog.pool_named(name).ok_or_else(|| no_pool(name))?;
        let subject = format!("pool {name}");
        if let Some(copies) = set.copies {
            self.may_have_copies(copies)?;
        }
        // What asks for more copies than one and says no more, means copies that survive a node.
        let goes_up = pool.copies == 1 && set.copies.is_some_and(|copies| copies > 1);
        let level = match set.level {
            Some(level) => level_of(level),
            None if goes_up => placement::Level::Node,
            None => pool.level,
        };
        let copies = set.copies.unwrap_or(pool.copies);
        let command = Command::SetPool {
            pool: name.to_owned(),
            copies,
            min_copies: set.min_copies.unwrap_or(pool.min_copies.min(copies.max(1))),
            level,
        };
        if set.copies.is_some() || set.min_copies.is_some() || set.level.is_some() {
            let asked = self.manager().propose(command).await;
            self.known(&subject, asked)?;
        }
        if let Some(percent) = set.overcommit_percent {
            let pool = name.to_owned();
            let command = Command::SetOvercommit { pool, percent };
            let asked = self.manager().propose(command).await;
            self.known(&subject, asked)?;
        }
        self.pool(name)
    }

    /// Only a cluster has somebody who makes copies.
    fn may_have_copies(&self, copies: u32) -> Result<(), ErrorBody> {
        if copies <= 1 || self.is_of_cluster() {
            return Ok(());
        }
        let message = format!("{copies} copies need a cluster, and this node is alone");
        let hint = "`sarsen cluster init` makes one, and others join it";
        Err(ErrorBody::conflict("copies", message, hint))
    }

    fn view_pool(&self, catalog: &Catalog, pool: &catalog::Pool) -> Pool {
        let away = |node: NodeId| self.is_silent(node);
        let seen = look(catalog, pool, &away);
        Pool {
            name: pool.name.clone(),
            copies: pool.copies,
            min_copies: pool.min_copies,
            level: match pool.level {
                placement::Level::Disk => Level::Disk,
                placement::Level::Node => Level::Node,
                placement::Level::Rack => Level::Rack,
            },
            overcommit_percent: pool.overcommit_percent,
            disks: catalog.disks().filter(|disk| disk.pool == pool.id).count() as u32,
            capacity_bytes: catalog.capacity(pool.id),
            promised_bytes: catalog.promised(pool.id),
            pgs: seen.pgs,
            reason: seen.reason(catalog),
        }
    }

    /// Says of every pool of a cluster whether it is whole.
    pub(super) fn look_at_pools(&self) {
        if !self.is_of_cluster() {
            return;
        }
        for pool in self.pools().pools {
            let subject = format!("pool {}", pool.name);
            if pool.reason.is_empty() {
                self.alerts().clear(AlertKind::PoolDegraded, &subject);
            } else {
                (self.alerts()).raise(AlertKind::PoolDegraded, &subject, pool.reason);
            }
        }
    }
}

fn level_of(level: Level) -> placement::Level {
    match level {
        Level::Disk => placement::Level::Disk,
        Level::Node => placement::Level::Node,
        Level::Rack => placement::Level::Rack,
    }
}

fn no_pool(name: &str) -> ErrorBody {
    let message = format!("there is no pool named {name:?}");
    let hint = "`sarsen pool list` shows what there is";
    ErrorBody::new(ErrorCode::NotFound, "pool", message, hint)
}

/// How a pool is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    pgs: PoolPgs,
    copies: u32,
    /// The disks that lack what others have, or are out of reach.
    missing: BTreeSet<DiskId>,
    /// PGs that have fewer places than copies.
    short: u32,
}

/// Looks at all placement groups of a pool. `away`: whether a node does not answer.
fn look(catalog: &Catalog, pool: &catalog::Pool, away: &dyn Fn(NodeId) -> bool) -> Seen {
    let is_reached = |id: DiskId| {
        let disk = catalog.disk(id);
        disk.is_some_and(|disk| disk.state.is_good() && !away(disk.node))
    };
    let mut seen = Seen {
        copies: pool.copies,
        ..Seen::default()
    };
    for pg in catalog
        .pgs_of(pool.id)
        .iter()
        .filter_map(|pg| catalog.pg(*pg))
    {
        look_at(pg, pool, &is_reached, &mut seen);
    }
    seen
}

fn look_at(pg: &Pg, pool: &catalog::Pool, is_reached: &dyn Fn(DiskId) -> bool, seen: &mut Seen) {
    let members = pg.configuration.members();
    let reached = pg.configuration.in_sync().filter(|disk| is_reached(*disk));
    let reached = reached.count() as u32;
    let is_filled = |role: Role| matches!(role, Role::Joining { .. });
    let fills = members.iter().any(|member| is_filled(member.role))
        || pg.want.is_some_and(|want| want.to.is_some());
    let pgs = &mut seen.pgs;
    pgs.all += 1;
    pgs.filling += u32::from(fills);
    match reached {
        0 => pgs.unreachable += 1,
        few if few < pool.min_copies => pgs.waiting += 1,
        few if few < pool.copies => pgs.degraded += 1,
        _ => {
            pgs.whole += 1;
            return;
        }
    }
    seen.short += u32::from((members.len() as u32) < pool.copies);
    let lacking = members
        .iter()
        .filter(|member| member.role != Role::InSync || !is_reached(member.disk));
    seen.missing.extend(lacking.map(|member| member.disk));
}

impl Seen {
    /// In words; empty where the pool is whole.
    fn reason(&self, catalog: &Catalog) -> String {
        let PoolPgs {
            all,
            whole,
            waiting,
            unreachable,
            filling,
            ..
        } = self.pgs;
        if whole == all {
            return String::new();
        }
        let mut words = format!(
            "{} of {all} placement groups have not all copies",
            all - whole
        );
        if unreachable > 0 {
            words += &format!("; of {unreachable} no copy is reached, and I/O there waits");
        }
        if waiting > 0 {
            words +=
                &format!("; of {waiting} fewer than min_copies are, and writes there may wait");
        }
        if !self.missing.is_empty() {
            let name = |id: &DiskId| {
                let disk = catalog.disk(*id);
                disk.map_or_else(
                    || format!("disk {id}"),
                    |disk| format!("disk {id} of node {}", name_of(catalog, disk.node)),
                )
            };
            let some: Vec<String> = self.missing.iter().take(NAMES_MAX).map(name).collect();
            words += &format!("; missing at {}", some.join(", "));
            if self.missing.len() > NAMES_MAX {
                words += &format!(" and {} more", self.missing.len() - NAMES_MAX);
            }
        }
        match (filling, self.short) {
            (0, 0) => {
                words += "; they come back with what is missing, or are made anew elsewhere after ten minutes"
            }
            (0, short) => {
                words += &format!(
                    "; {short} have no place for {} copies: another disk is needed, on another node perhaps",
                    self.copies
                );
            }
            (filling, _) => words += &format!("; {filling} are being filled"),
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::StoreId;
    use crate::protocol::catalog::StoreName;
    use crate::protocol::membership::Incarnation;
    use crate::protocol::replication::Reconfigure;

    fn apply(catalog: &mut Catalog, command: Command) {
        catalog.apply(&command).unwrap();
    }

    /// Two nodes with a disk each, and a pool of two copies.
    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        for n in 1..=2 {
            apply(
                &mut catalog,
                Command::AddNode {
                    name: format!("n{n}"),
                },
            );
        }
        let pool = "default".to_owned();
        apply(
            &mut catalog,
            Command::SetPool {
                pool,
                copies: 2,
                min_copies: 1,
                level: placement::Level::Node,
            },
        );
        for n in 1..=2u8 {
            apply(
                &mut catalog,
                Command::AddDisk {
                    node: NodeId(n.into()),
                    path: format!("/d{n}"),
                    store: StoreName(StoreId([n; 16])),
                    size: 1 << 30,
                    pool: None,
                    incarnation: Incarnation(0),
                },
            );
        }
        let pool = catalog.pools().next().unwrap().id;
        apply(
            &mut catalog,
            Command::CreatePgs {
                pool,
                first: crate::base::PgId(1),
                replicas: vec![vec![DiskId(1), DiskId(2)]; 4],
                batch: crate::protocol::catalog::Batch::Last,
            },
        );
        catalog
    }

    fn seen(catalog: &Catalog, away: &[u32]) -> Seen {
        let pool = catalog.pools().next().unwrap();
        look(catalog, pool, &|node| away.contains(&node.0))
    }

    #[test]
    fn a_pool_is_whole_while_all_copies_are_there_and_reached() {
        let catalog = catalog();
        let whole = seen(&catalog, &[]);
        assert_eq!((whole.pgs.all, whole.pgs.whole), (4, 4));
        assert_eq!(whole.reason(&catalog), "");
        let one = seen(&catalog, &[2]);
        assert_eq!((one.pgs.degraded, one.pgs.unreachable), (4, 0));
        assert!(
            one.reason(&catalog)
                .contains("missing at disk 2 of node n2")
        );
        let none = seen(&catalog, &[1, 2]);
        assert_eq!(none.pgs.unreachable, 4);
        assert!(none.reason(&catalog).contains("I/O there waits"));
    }

    #[test]
    fn what_was_taken_out_is_missing_until_it_is_in_sync_again() {
        let mut catalog = catalog();
        let pg = catalog.pgs().next().unwrap().id;
        let change = |catalog: &mut Catalog, change| {
            let version = catalog.pg(pg).unwrap().version();
            apply(
                catalog,
                Command::Reconfigure {
                    pg,
                    version,
                    change,
                },
            );
        };
        let disk = DiskId(2);
        change(&mut catalog, Reconfigure::Evict { disk });
        let out = seen(&catalog, &[]);
        assert_eq!(
            (out.pgs.whole, out.pgs.degraded, out.pgs.filling),
            (3, 1, 0)
        );
        assert!(out.reason(&catalog).starts_with("1 of 4 placement groups"));
        change(&mut catalog, Reconfigure::Join { disk });
        let joins = seen(&catalog, &[]);
        assert_eq!((joins.pgs.degraded, joins.pgs.filling), (1, 1));
        assert!(joins.reason(&catalog).contains("1 are being filled"));
    }
}
