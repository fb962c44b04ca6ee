//! Commands about nodes, disks and pools.

use super::state::{Disk, DiskState, Node, Pg, Pool, PoolId, StoreName};
use super::{
    Catalog, Code, DEFAULT_POOL, DISK_BYTES_MIN, DISKS_MAX, Event, NODES_MAX, Refusal, check_name,
};
use crate::base::{DiskId, NodeId, PgId};

/// How many PGs the first disk of a pool brings. More would spread a volume no better over few disks; fewer
/// would make the shares of disks of different sizes coarse (3 % a PG).
const PGS_OF_FIRST_DISK: u64 = 32;
/// A disk brings at most so many PGs, however much larger than the first it is.
const PGS_OF_DISK_MAX: u64 = 1_024;
/// The longest path of a disk, in bytes (PATH_MAX).
const PATH_BYTES_MAX: usize = 4_096;
/// The largest disk, in bytes: sums over all disks stay far inside 64 bits.
const DISK_BYTES_MAX: u64 = 1 << 50;
/// How far a pool may be over-committed, in percent.
const OVERCOMMIT_PERCENT: std::ops::RangeInclusive<u32> = 100..=100_000;

impl Catalog {
    pub(super) fn add_node(&mut self, name: &str) -> Result<Vec<Event>, Refusal> {
        check_name("node", name)?;
        if self.node_named(name).is_some() {
            let reason = format!("there is a node named {name:?} already");
            return Err(Refusal::new(
                Code::Exists,
                "name",
                reason,
                "give it another name",
            ));
        }
        if self.nodes.len() == NODES_MAX {
            let reason = format!("there are {NODES_MAX} nodes already");
            return Err(Refusal::new(
                Code::Exhausted,
                "name",
                reason,
                "use another cluster",
            ));
        }
        let node = Node {
            id: NodeId(self.next.node),
            name: name.into(),
        };
        self.next.node += 1;
        self.nodes.insert(node.id, node.clone());
        Ok(vec![Event::NodeAdded { node }])
    }

    pub(super) fn add_disk(
        &mut self,
        node: NodeId,
        path: &str,
        store: StoreName,
        size: u64,
    ) -> Result<Vec<Event>, Refusal> {
        self.check_new_disk(node, path, store, size)?;
        let Some(pool) = self
            .pools
            .values_mut()
            .find(|pool| pool.name == DEFAULT_POOL)
        else {
            return Err(no_pool(DEFAULT_POOL));
        };
        if pool.bytes_per_pg == 0 {
            pool.bytes_per_pg = size.div_ceil(PGS_OF_FIRST_DISK);
        }
        let disk = Disk {
            id: DiskId(self.next.disk),
            node,
            pool: pool.id,
            path: path.into(),
            store,
            size,
            state: DiskState::Serving,
        };
        let count = pg_share(size, pool.bytes_per_pg);
        let pgs = self.add_pgs(disk.pool, disk.id, count);
        self.next.disk += 1;
        self.disks.insert(disk.id, disk.clone());
        Ok(vec![Event::DiskAdded { disk, pgs }])
    }

    fn check_new_disk(
        &self,
        node: NodeId,
        path: &str,
        store: StoreName,
        size: u64,
    ) -> Result<(), Refusal> {
        if !self.nodes.contains_key(&node) {
            let reason = format!("there is no node {node}");
            return Err(Refusal::not_found(
                "node",
                reason,
                "`sarsen status` shows the nodes",
            ));
        }
        check_path(path)?;
        check_disk_size(size)?;
        if let Some(other) = self.disks.values().find(|disk| disk.store == store) {
            let reason = format!(
                "its store {store} is disk {} at {} already",
                other.id, other.path
            );
            let hint =
                "the same disk under two paths can be added only once; a copy must be formatted";
            return Err(Refusal::new(Code::Exists, "path", reason, hint));
        }
        let same = |disk: &&Disk| disk.node == node && disk.path == path;
        if let Some(other) = self.disks.values().find(same) {
            let reason = format!("{path} is disk {} already", other.id);
            return Err(Refusal::new(
                Code::Exists,
                "path",
                reason,
                "add another disk",
            ));
        }
        if self.disks.len() == DISKS_MAX {
            let reason = format!("there are {DISKS_MAX} disks already");
            return Err(Refusal::new(
                Code::Exhausted,
                "path",
                reason,
                "use another cluster",
            ));
        }
        Ok(())
    }

    fn add_pgs(&mut self, pool: PoolId, disk: DiskId, count: u32) -> Vec<Pg> {
        let first = self.next.pg;
        self.next.pg += count;
        let new = (first..self.next.pg).map(|id| Pg {
            id: PgId(id),
            pool,
            version: 1,
            replicas: vec![disk],
            in_sync: vec![disk],
        });
        let pgs: Vec<Pg> = new.collect();
        self.pgs.extend(pgs.iter().map(|pg| (pg.id, pg.clone())));
        pgs
    }

    pub(super) fn withdraw_disk(&mut self, id: DiskId) -> Result<Vec<Event>, Refusal> {
        let disk = self.disks.get(&id).ok_or_else(|| no_disk(id))?;
        let hint = "move its data away first";
        if self
            .disks
            .last_key_value()
            .is_some_and(|(&last, _)| last != id)
        {
            let reason = format!("disk {id} is not the one that was added last");
            return Err(Refusal::conflict("disk", reason, hint));
        }
        let pool = disk.pool;
        let (on_it, others): (Vec<&Pg>, Vec<&Pg>) = self
            .pgs
            .values()
            .filter(|pg| pg.pool == pool)
            .partition(|pg| pg.replicas.contains(&id));
        let left = others.len();
        let mut volumes = self.volumes.values().filter(|volume| volume.pool == pool);
        if let Some(volume) = volumes.find(|volume| volume.pgs as usize > left) {
            let reason = format!("the volume {} is spread over disk {id}", volume.name);
            return Err(Refusal::conflict("disk", reason, hint));
        }
        for pg in on_it.iter().map(|pg| pg.id).collect::<Vec<_>>() {
            self.pgs.remove(&pg);
        }
        self.disks.remove(&id);
        Ok(vec![Event::DiskWithdrawn { disk: id }])
    }

    pub(super) fn grow_disk(&mut self, id: DiskId, size: u64) -> Result<Vec<Event>, Refusal> {
        check_disk_size(size)?;
        let disk = self.disks.get_mut(&id).ok_or_else(|| no_disk(id))?;
        if size < disk.size {
            let reason = format!(
                "disk {id} has {} bytes, and a disk cannot shrink",
                disk.size
            );
            return Err(Refusal::invalid(
                "size",
                reason,
                "add a smaller disk instead",
            ));
        }
        disk.size = size;
        Ok(vec![Event::DiskChanged { disk: disk.clone() }])
    }

    pub(super) fn set_disk_state(
        &mut self,
        id: DiskId,
        state: DiskState,
    ) -> Result<Vec<Event>, Refusal> {
        let disk = self.disks.get_mut(&id).ok_or_else(|| no_disk(id))?;
        disk.state = state;
        Ok(vec![Event::DiskChanged { disk: disk.clone() }])
    }

    pub(super) fn set_overcommit(
        &mut self,
        name: &str,
        percent: u32,
    ) -> Result<Vec<Event>, Refusal> {
        if !OVERCOMMIT_PERCENT.contains(&percent) {
            let reason = format!("{percent} is not in {OVERCOMMIT_PERCENT:?}");
            let hint = "100 promises no more than there is";
            return Err(Refusal::invalid("percent", reason, hint));
        }
        let found = self.pools.values_mut().find(|pool| pool.name == name);
        let pool: &mut Pool = found.ok_or_else(|| no_pool(name))?;
        pool.overcommit_percent = percent;
        Ok(vec![Event::PoolChanged { pool: pool.clone() }])
    }
}

/// How many PGs a disk of `size` bytes brings: by its size, so that each PG stands for the same space.
fn pg_share(size: u64, bytes_per_pg: u64) -> u32 {
    let rounded = (size + bytes_per_pg / 2) / bytes_per_pg;
    rounded.clamp(1, PGS_OF_DISK_MAX) as u32
}

fn check_path(path: &str) -> Result<(), Refusal> {
    let reason = if !path.starts_with('/') {
        format!("{path:?} is not an absolute path")
    } else if path.len() > PATH_BYTES_MAX {
        format!(
            "the path has {} bytes, of at most {PATH_BYTES_MAX}",
            path.len()
        )
    } else if path.chars().any(char::is_control) {
        format!("{path:?} has a control character")
    } else {
        return Ok(());
    };
    let hint = "name a block device or a file, like /dev/disk/by-id/... or /srv/disk0";
    Err(Refusal::invalid("path", reason, hint))
}

fn check_disk_size(size: u64) -> Result<(), Refusal> {
    if (DISK_BYTES_MIN..=DISK_BYTES_MAX).contains(&size) {
        return Ok(());
    }
    let reason = format!("{size} bytes are not in {DISK_BYTES_MIN}..={DISK_BYTES_MAX}");
    Err(Refusal::invalid(
        "size",
        reason,
        "a disk has 64 MiB to 1 PiB",
    ))
}

fn no_disk(id: DiskId) -> Refusal {
    let hint = "`sarsen disk list` shows what there is";
    Refusal::not_found("disk", format!("there is no disk {id}"), hint)
}

fn no_pool(name: &str) -> Refusal {
    let hint = "the pool that exists from the start is \"default\"";
    Refusal::not_found("pool", format!("there is no pool named {name:?}"), hint)
}
