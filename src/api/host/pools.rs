//! Pools: their copies, and how whole what lies in them is.
//!
//! | file | what it says |
//! |---|---|
//! | `look` | how whole placement groups are, as numbers |
//! | `words` | why they are not, and what is done about it |
//! | `rebuild` | how long that takes, by what all nodes say |
//!
//! Nothing of it is remembered: since when a pool is not whole, the alert says, which each daemon raises when it first sees it.

mod look;
mod rebuild;
mod words;

#[cfg(test)]
mod tests;

use super::cluster::name_of;
use super::{AlertKind, Host};
use crate::api::model::{
    ErrorBody, ErrorCode, FilledDisk, LackingDisk, Level, Pool, PoolCreate, PoolList, PoolSet,
    Rebuild,
};
use crate::base::NodeId;
use crate::cluster::Presence;
use crate::protocol::catalog::{self, Catalog, Command, PoolId};
use crate::protocol::placement;
pub(super) use look::Look;
use std::collections::{BTreeMap, BTreeSet};

impl Host {
    pub fn pools(&self) -> PoolList {
        let (catalog, away) = (self.manager().catalog(), self.away());
        let work = self.cluster().work();
        let view = |pool| {
            let rebuild = self.rebuild_of(&catalog, pool, &work);
            self.view_pool(&catalog, pool, &away, rebuild)
        };
        PoolList {
            pools: catalog.pools().map(view).collect(),
        }
    }

    /// Those that are not whole, and those that are whole of which copies move to other disks.
    pub(super) fn restless_pools(&self) -> (Vec<Pool>, Vec<Pool>) {
        let mut pools = self.pools().pools;
        pools.retain(|pool| pool.pgs.lacking() > 0 || pool.rebuild.is_some());
        pools.into_iter().partition(|pool| pool.pgs.lacking() > 0)
    }

    pub fn pool(&self, name: &str) -> Result<Pool, ErrorBody> {
        let catalog = self.manager().catalog();
        let pool = catalog.pool_named(name).ok_or_else(|| no_pool(name))?;
        let rebuild = self.rebuild_of(&catalog, pool, &self.cluster().work());
        Ok(self.view_pool(&catalog, pool, &self.away(), rebuild))
    }

    /// A pool as it would be. How long that would take, nodes could say only if it were so.
    fn pool_of(&self, catalog: &Catalog, name: &str) -> Result<Pool, ErrorBody> {
        let pool = catalog.pool_named(name).ok_or_else(|| no_pool(name))?;
        Ok(self.view_pool(catalog, pool, &self.away(), None))
    }

    pub async fn create_pool(&self, create: PoolCreate) -> Result<Pool, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        let name = create.name.clone();
        let command = Command::CreatePool {
            name: create.name,
            copies: create.copies,
            min_copies: create.min_copies,
            level: level_of(create.level),
        };
        let tried = tried(&catalog, std::slice::from_ref(&command));
        if let Err(error) = &tried
            && error.code == ErrorCode::Invalid
        {
            return Err(error.clone());
        }
        self.may_have_copies(create.copies)?;
        if create.dry_run {
            return self.pool_of(&tried?, &name);
        }
        let asked = self.manager().propose(command).await;
        self.known(&format!("pool {name}"), asked)?;
        tracing::info!(pool = name, copies = create.copies, "pool created");
        self.pool(&name)
    }

    pub async fn set_pool(&self, name: &str, set: PoolSet) -> Result<Pool, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        let pool = catalog.pool_named(name).ok_or_else(|| no_pool(name))?;
        let commands = changes(pool, &set);
        // What is nonsense is refused as a whole, before half of it is done. Whether the rest can be, only the leader knows: this node's catalog may be behind.
        let tried = tried(&catalog, &commands);
        if let Err(error) = &tried
            && error.code == ErrorCode::Invalid
        {
            return Err(error.clone());
        }
        if let Some(copies) = set.copies {
            self.may_have_copies(copies)?;
        }
        if set.dry_run {
            return self.pool_of(&tried?, name);
        }
        for command in commands {
            let asked = self.manager().propose(command).await;
            self.known(&format!("pool {name}"), asked)
                .map_err(in_our_words)?;
        }
        tracing::info!(pool = name, ?set, "pool changed");
        self.pool(name)
    }

    /// Refuses the name of a pool that there is not.
    pub(super) fn may_use_pool(&self, name: Option<&str>) -> Result<(), ErrorBody> {
        let catalog = self.manager().catalog();
        match name.filter(|name| catalog.pool_named(name).is_none()) {
            Some(unknown) => Err(no_pool(unknown)),
            None => Ok(()),
        }
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

    /// The nodes that do not answer this one.
    pub(super) fn away(&self) -> BTreeSet<NodeId> {
        let view = self.cluster().view();
        let nodes = view.iter().flat_map(|view| &view.nodes);
        let silent = nodes.filter(|seen| matches!(seen.presence, Presence::Unreachable { .. }));
        silent.map(|seen| seen.node).collect()
    }

    /// How the placement groups of each pool are; nothing where this node is alone, whose volumes are as whole as its disks.
    pub(super) fn look_at_pgs(&self, catalog: &Catalog) -> BTreeMap<PoolId, Look> {
        if !self.is_of_cluster() {
            return BTreeMap::new();
        }
        let away = self.away();
        let looked = catalog
            .pools()
            .map(|pool| (pool.id, look::look(catalog, pool, &away)));
        looked.collect()
    }

    fn view_pool(
        &self,
        catalog: &Catalog,
        pool: &catalog::Pool,
        away: &BTreeSet<NodeId>,
        rebuild: Option<Rebuild>,
    ) -> Pool {
        let seen = look::look(catalog, pool, away);
        let is_whole = seen.pgs.lacking() == 0;
        let lacking_bytes_max = seen.lacking_bytes_max(catalog, pool);
        let node = |id| {
            let disk = catalog.disk(id);
            disk.map_or_else(String::new, |disk| name_of(catalog, disk.node))
        };
        let lacking = seen.lacking.iter().map(|(&id, &(why, pgs))| LackingDisk {
            disk: id.0,
            node: node(id),
            why,
            pgs,
        });
        let filled = seen.filled.iter().map(|(&id, &pgs)| FilledDisk {
            disk: id.0,
            node: node(id),
            pgs,
        });
        let since = self
            .alerts()
            .since(AlertKind::PoolDegraded, &subject(&pool.name));
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
            rebuild_limit_bytes_per_second: pool.rebuild_limit,
            disks: catalog.disks_of_pool(pool.id).count() as u32,
            capacity_bytes: catalog.capacity(pool.id),
            promised_bytes: catalog.promised(pool.id),
            pgs: seen.pgs,
            reason: words::reason(catalog, pool, &seen, lacking_bytes_max),
            since_unix_seconds: since.filter(|_| !is_whole),
            lacking_bytes_max,
            lacking: lacking.collect(),
            filled: filled.collect(),
            rebuild,
        }
    }

    /// Says of every pool of a cluster whether it is whole.
    pub(super) fn look_at_pools(&self) {
        if !self.is_of_cluster() {
            return;
        }
        for pool in self.pools().pools {
            let subject = subject(&pool.name);
            match pool.pgs.lacking() {
                0 => self.alerts().clear(AlertKind::PoolDegraded, &subject),
                _ => {
                    (self.alerts()).raise(AlertKind::PoolDegraded, &subject, pool.reason);
                }
            }
        }
    }
}

/// What the alert about a pool is about.
fn subject(pool: &str) -> String {
    format!("pool {pool}")
}

/// The commands for what is to be changed of a pool.
fn changes(pool: &catalog::Pool, set: &PoolSet) -> Vec<Command> {
    // What asks for more copies than one and says no more, means copies that survive a node.
    let goes_up = pool.copies == 1 && set.copies.is_some_and(|copies| copies > 1);
    let level = match set.level {
        Some(level) => level_of(level),
        None if goes_up => placement::Level::Node,
        None => pool.level,
    };
    let copies = set.copies.unwrap_or(pool.copies);
    let mut commands = Vec::new();
    if set.copies.is_some() || set.min_copies.is_some() || set.level.is_some() {
        commands.push(Command::SetPool {
            pool: pool.name.clone(),
            copies,
            min_copies: set.min_copies.unwrap_or(pool.min_copies.min(copies.max(1))),
            level,
        });
    }
    if let Some(percent) = set.overcommit_percent {
        let pool = pool.name.clone();
        commands.push(Command::SetOvercommit { pool, percent });
    }
    if let Some(rate) = set.rebuild_limit_bytes_per_second {
        commands.push(Command::SetRebuildLimit {
            pool: pool.name.clone(),
            bytes_per_second: (rate > 0).then_some(rate),
        });
    }
    commands
}

/// The catalog as it would be. A copy of all of it (some 100 MB at the bounds on volumes and placement groups), for what is asked by hand and seldom.
pub(super) fn tried(catalog: &Catalog, commands: &[Command]) -> Result<Catalog, ErrorBody> {
    let mut tried = catalog.clone();
    for command in commands {
        let done = tried.apply(command);
        done.map_err(|refusal| in_our_words(refusal.into()))?;
    }
    Ok(tried)
}

/// A field as the API has it.
fn in_our_words(mut error: ErrorBody) -> ErrorBody {
    match error.field.as_str() {
        "percent" => error.field = "overcommit_percent".into(),
        "rebuild_limit" => error.field = "rebuild_limit_bytes_per_second".into(),
        _ => {}
    }
    error
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
