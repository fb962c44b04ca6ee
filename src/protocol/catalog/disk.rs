//! Commands about disks: they come, grow, are drained, go missing, come back and go.
//!
//! # Disks that travel in time (R19)
//! Each opening of a store writes an incarnation on the disk, and the manager records it. If the store found another one than is
//! recorded, then what is on the disk is not what was there last: an old copy, or a disk that was formatted anew. Every replica on
//! it counts as empty then: it is taken off its PG's list and put on it again, which leaves it as one that was never in sync (R24). That
//! goes below `min_copies` where it must, because what is not there is no copy.
//!
//! For that to be right, three things are the store's and the node's: an opening takes a number above what it found and above what
//! is recorded; a store remembers the last two, because it may stop between writing one and hearing that it is recorded, and names
//! as `before` the one of them that is recorded; and what an earlier start of the node asked for is void (`start`), because that number
//! may be given again by a later start that found an older disk. A copy that was taken and brought back within one opening is not seen.
//!
//! An opening is recorded once. A caller whose answer was lost looks for its incarnation in the catalog; asking again is refused.

use super::command::LastCopies;
use super::pg::Pg;
use super::state::{Disk, DiskState, PoolId, StoreName};
use super::{Catalog, Code, DEFAULT_POOL, DISK_BYTES_MIN, DISKS_MAX, Event, PGS_MAX, Refusal};
use crate::base::{DiskId, NodeId, PgId};
use crate::protocol::membership::Incarnation;
use crate::protocol::placement::WEIGHT_MAX;
use crate::protocol::replication::{Reconfigure, Role};

/// How many PGs the first disk of a pool brings. More would spread a volume no better over few disks; fewer
/// would make the shares of disks of different sizes coarse (3 % a PG).
const PGS_OF_FIRST_DISK: u64 = 32;
/// A disk brings at most so many PGs, however much larger than the first it is.
const PGS_OF_DISK_MAX: u64 = 1_024;
/// The longest path of a disk, in bytes (PATH_MAX).
const PATH_BYTES_MAX: usize = 4_096;
/// The largest disk, in bytes: sums over all disks stay far inside 64 bits.
const DISK_BYTES_MAX: u64 = 1 << 50;

/// A disk that is to be added.
pub(super) struct NewDisk<'a> {
    pub node: NodeId,
    pub path: &'a str,
    pub store: StoreName,
    pub size: u64,
    pub pool: Option<&'a str>,
    pub incarnation: Incarnation,
}

/// What a node says of a disk that it has opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    pub store: StoreName,
    pub before: Incarnation,
    pub now: Incarnation,
    pub start: Incarnation,
}

/// The number of an opening by this start of a node: above both, what the store found and what is recorded, and of no other start (R19). `None`: there is
/// none above, so what was found is damaged: no disk is opened four billion times.
pub fn next_opening(above: u64, start: Incarnation) -> Option<Incarnation> {
    const START_BITS: u32 = 32;
    let turn = u32::try_from((above >> START_BITS) + 1).ok()?;
    let start = start.0 & u64::from(u32::MAX);
    Some(Incarnation(u64::from(turn) << START_BITS | start))
}

impl Catalog {
    /// In a pool of one copy a disk brings its own PGs, so that nothing moves by itself; in the others they are solved for.
    pub(super) fn add_disk(&mut self, new: &NewDisk) -> Result<Vec<Event>, Refusal> {
        self.check_new_disk(new)?;
        let mut pool = self.known_pool(new.pool.unwrap_or(DEFAULT_POOL))?.clone();
        let disk = Disk {
            id: DiskId(self.next.disk),
            node: new.node,
            pool: pool.id,
            path: new.path.into(),
            store: new.store,
            size: new.size,
            state: DiskState::Serving,
            incarnation: new.incarnation,
            set_weight: None,
            returns_as: None,
        };
        let mut count = 0;
        if pool.copies == 1 {
            if pool.bytes_per_pg == 0 {
                pool.bytes_per_pg = new.size.div_ceil(PGS_OF_FIRST_DISK);
            }
            count = pg_share(new.size, pool.bytes_per_pg) as usize;
            if self.pgs.len() + count > PGS_MAX {
                let reason = format!("there are {} placement groups already", self.pgs.len());
                let hint = "use another cluster";
                return Err(Refusal::new(Code::Exhausted, "size", reason, hint));
            }
            self.put_pool(pool);
        }
        self.next.disk += 1;
        self.put_disk(disk.clone());
        let replicas = [disk.id];
        let pgs = self.add_pgs(disk.pool, std::iter::repeat_n(&replicas[..], count));
        Ok(vec![Event::DiskAdded { disk, pgs }])
    }

    fn check_new_disk(&self, new: &NewDisk) -> Result<(), Refusal> {
        self.known_node(new.node)?;
        check_path(new.path)?;
        check_disk_size(new.size)?;
        self.check_store_is_new(new.store)?;
        let paths = self.index.paths.get(&new.node);
        if let Some(other) = paths.and_then(|paths| paths.get(new.path)) {
            let reason = format!("{} is disk {other} already", new.path);
            return Err(Refusal::new(
                Code::Exists,
                "path",
                reason,
                "add another disk",
            ));
        }
        if self.disks.len() >= DISKS_MAX {
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

    fn check_store_is_new(&self, store: StoreName) -> Result<(), Refusal> {
        let Some(other) = self.index.stores.get(&store.0) else {
            return Ok(());
        };
        let path = self.disk(*other).map_or("", |disk| disk.path.as_str());
        let reason = format!("its store {store} is disk {other} at {path} already");
        let hint = "the same disk under two paths can be added only once; a copy must be formatted";
        Err(Refusal::new(Code::Exists, "path", reason, hint))
    }

    pub(super) fn withdraw_disk(&mut self, id: DiskId) -> Result<Vec<Event>, Refusal> {
        let disk = self.disk(id).ok_or_else(|| no_disk(id))?;
        let hint = "move its data away first";
        if self
            .disks
            .last_key_value()
            .is_some_and(|(&last, _)| last != id)
        {
            let reason = format!("disk {id} is not the one that was added last");
            return Err(Refusal::conflict("disk", reason, hint));
        }
        let on_it: Vec<PgId> = self.pgs_on(id).collect();
        let of = &self.index.of_pools[&disk.pool];
        let left = of.pgs.len() - on_it.len();
        // A volume names its PGs by their number in the pool, so only the last ones may go.
        let first = of.pgs.get(left);
        let is_tail = on_it.iter().all(|pg| Some(pg) >= first);
        let most = of.volumes.last_key_value().map_or(0, |(&most, _)| most);
        let is_listed = on_it.iter().any(|pg| self.index.listed.contains_key(pg));
        if most as usize > left || is_listed {
            let name = self.volume_beyond(disk.pool, left, &on_it);
            let reason = format!("the volume {name} is spread over disk {id}");
            return Err(Refusal::conflict("disk", reason, hint));
        }
        let alone = |pg: &PgId| self.pgs[pg].configuration.members().len() == 1;
        if !is_tail || !on_it.iter().all(alone) {
            let reason = format!("disk {id} has replicas of placement groups of other disks");
            return Err(Refusal::conflict("disk", reason, hint));
        }
        let is_target = |pg: PgId| self.pgs[&pg].want.is_some_and(|want| want.to == Some(id));
        if self.wanted().any(is_target) {
            let reason = format!("a replica is to be made on disk {id}");
            return Err(Refusal::conflict("disk", reason, hint));
        }
        for pg in on_it {
            self.drop_pg(pg);
        }
        self.drop_disk(id);
        Ok(vec![Event::DiskWithdrawn { disk: id }])
    }

    /// A volume that uses more of a pool's PGs than the first `left`: only for the words of a refusal.
    fn volume_beyond(&self, pool: PoolId, left: usize, listed: &[PgId]) -> &str {
        let uses = |volume: &&super::Volume| {
            volume.pool == pool
                && (volume.pgs as usize > left || volume.on.iter().any(|pg| listed.contains(pg)))
        };
        let found = self.volumes.values().find(uses);
        found.map_or("", |volume| volume.name.as_str())
    }

    pub(super) fn remove_disk(&mut self, id: DiskId) -> Result<Vec<Event>, Refusal> {
        self.disk(id).ok_or_else(|| no_disk(id))?;
        let hint = "drain it, and wait until nothing is on it";
        if let Some(pg) = self.pgs_on(id).next() {
            let reason = format!("the placement group {pg} has a replica on disk {id}");
            return Err(Refusal::conflict("disk", reason, hint));
        }
        let is_target = |pg: &PgId| self.pgs[pg].want.is_some_and(|want| want.to == Some(id));
        if let Some(pg) = self.wanted().find(is_target) {
            let reason = format!("the placement group {pg} is to have a replica on disk {id}");
            return Err(Refusal::conflict("disk", reason, hint));
        }
        self.drop_disk(id);
        Ok(vec![Event::DiskRemoved { disk: id }])
    }

    pub(super) fn grow_disk(&mut self, id: DiskId, size: u64) -> Result<Vec<Event>, Refusal> {
        check_disk_size(size)?;
        let disk = self.disk(id).ok_or_else(|| no_disk(id))?;
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
        self.change_disk(id, |disk| disk.size = size)
    }

    pub(super) fn set_weight(
        &mut self,
        id: DiskId,
        weight: Option<u64>,
    ) -> Result<Vec<Event>, Refusal> {
        if let Some(weight) = weight.filter(|&weight| weight > WEIGHT_MAX) {
            let reason = format!("{weight} is more than {WEIGHT_MAX}");
            let hint = "weigh disks in bytes, or in any smaller unit";
            return Err(Refusal::invalid("weight", reason, hint));
        }
        self.change_disk(id, |disk| disk.set_weight = weight)
    }

    pub(super) fn set_disk_state(
        &mut self,
        id: DiskId,
        state: DiskState,
    ) -> Result<Vec<Event>, Refusal> {
        self.change_disk(id, |disk| {
            disk.returns_as = match (disk.state, state) {
                (DiskState::Draining, DiskState::Missing) => Some(DiskState::Draining),
                (DiskState::Missing, DiskState::Missing) => disk.returns_as,
                _ => None,
            };
            disk.state = state;
        })
    }

    fn change_disk(
        &mut self,
        id: DiskId,
        change: impl FnOnce(&mut Disk),
    ) -> Result<Vec<Event>, Refusal> {
        let mut disk = self.disk(id).ok_or_else(|| no_disk(id))?.clone();
        change(&mut disk);
        self.put_disk(disk.clone());
        Ok(vec![Event::DiskChanged { disk }])
    }

    pub(super) fn open_disk(
        &mut self,
        id: DiskId,
        opening: Opening,
        last_copies: LastCopies,
    ) -> Result<Vec<Event>, Refusal> {
        let mut disk = self.disk(id).ok_or_else(|| no_disk(id))?.clone();
        let Opening {
            store,
            before,
            now,
            start,
        } = opening;
        let newest = self.node(disk.node).map(|node| node.incarnation);
        if newest.is_some_and(|newest| start < newest && start != Incarnation(0)) {
            let reason = "the node has started anew since";
            return Err(Refusal::conflict("start", reason, "open it again"));
        }
        if now <= before || now <= disk.incarnation {
            let reason = format!(
                "{} is not above what the store found and what is recorded, {}",
                now.0, disk.incarnation.0
            );
            let hint = "an opening takes a number above both; if this one is recorded, it is done";
            return Err(Refusal::conflict("now", reason, hint));
        }
        let is_other = store != disk.store;
        if is_other {
            self.check_store_is_new(store)?;
        }
        let is_first = disk.incarnation == Incarnation(0);
        let changed = match is_other || !(is_first || before == disk.incarnation) {
            true => self.emptied(id, last_copies)?,
            false => Vec::new(),
        };
        if disk.state == DiskState::Missing {
            disk.state = disk.returns_as.take().unwrap_or(DiskState::Serving);
        }
        disk.store = store;
        disk.incarnation = now;
        self.put_disk(disk.clone());
        let mut events = vec![Event::DiskChanged { disk }];
        for pg in changed {
            self.put_pg(pg.clone());
            events.push(Event::PgChanged { pg });
        }
        Ok(events)
    }

    /// The PGs of a disk as they are when nothing is on it.
    fn emptied(&self, id: DiskId, last_copies: LastCopies) -> Result<Vec<Pg>, Refusal> {
        let mut changed = Vec::new();
        for pg in self.pgs_on(id) {
            let mut pg = self.pgs[&pg].clone();
            if pg.configuration.role(id) == Some(Role::Out { since: 0 }) {
                continue;
            }
            let remove = Reconfigure::Remove { disk: id };
            let version = pg.version();
            let is_good = |other: DiskId| self.disks[&other].state.is_good();
            let is_copy = |other: DiskId| other != id && is_good(other);
            let is_alone = !pg.configuration.in_sync().any(is_copy);
            let was_in_sync = pg.configuration.role(id) == Some(Role::InSync);
            // A copy on a disk that has failed is none. (Nothing but being the last one makes the removal of a replica fail.)
            if was_in_sync && is_alone || pg.configuration.apply(version, remove, 1).is_err() {
                if last_copies == LastCopies::Refuse {
                    let reason = format!(
                        "disk {id} is not as it was last, and has the last copy of the placement group {}",
                        pg.id
                    );
                    let hint = "bring the right disk back, or say that what is on it is to be taken as it is";
                    return Err(Refusal::conflict("last_copies", reason, hint));
                }
                continue;
            }
            let add = Reconfigure::Add { disk: id };
            let added = pg.configuration.apply(version + 1, add, 1);
            added.expect("what has just left the list has room on it");
            changed.push(pg);
        }
        Ok(changed)
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
