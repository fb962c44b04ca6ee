//! What follows from the catalog and is kept so that no command searches it: who has this name, what lies on this disk.
//!
//! The index is not part of a snapshot. Everything that is recorded goes in by `put_*` and out by `drop_*`, and nowhere else, so it is
//! always what [`Index::of`] would find (*index-follows*).

use super::command::Locality;
use super::pg::Pg;
use super::range::Ownership;
use super::state::{Attachment, AttachmentKey, Catalog, Disk, Node, Pool, PoolId, Volume};
use crate::base::{DiskId, LayerId, NodeId, PgId, StoreId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// What belongs to a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct OfPool {
    /// In bytes, of all disks. 128 bits, because what a snapshot says is not believed before it is checked.
    pub capacity: u128,
    /// In bytes, to all volumes.
    pub promised: u128,
    pub disks: BTreeSet<DiskId>,
    pub pgs: Vec<PgId>,
    /// How many volumes hash over the first so many PGs.
    pub volumes: BTreeMap<u32, u32>,
}

/// See the file's head.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Index {
    pub volume_names: BTreeMap<String, VolumeId>,
    pub node_names: BTreeMap<String, NodeId>,
    pub pool_names: BTreeMap<String, PoolId>,
    pub of_pools: BTreeMap<PoolId, OfPool>,
    pub disks_of_node: BTreeMap<NodeId, BTreeSet<DiskId>>,
    pub stores: BTreeMap<StoreId, DiskId>,
    pub paths: BTreeMap<NodeId, BTreeMap<String, DiskId>>,
    pub pgs_on: BTreeMap<DiskId, BTreeSet<PgId>>,
    pub wanted: BTreeSet<PgId>,
    /// How many volumes name a PG in their list.
    pub listed: BTreeMap<PgId, u32>,
    pub keys: BTreeMap<AttachmentKey, VolumeId>,
    pub attached: BTreeSet<(NodeId, VolumeId, AttachmentKey)>,
    pub sockets: BTreeMap<NodeId, BTreeMap<String, VolumeId>>,
    pub owned: BTreeSet<(NodeId, VolumeId)>,
    /// How many local volumes have a node as their home.
    pub homes: BTreeMap<NodeId, u32>,
    /// How many layers lie over a layer.
    pub children: BTreeMap<LayerId, u32>,
}

fn more<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) {
    *counts.entry(key).or_default() += 1;
}

fn fewer<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// Takes `value` out of the set of `key`, and the set with its last value.
fn take<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: K, value: &V) {
    if let Some(set) = sets.get_mut(&key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(&key);
        }
    }
}

fn take_named<K: Ord, V>(maps: &mut BTreeMap<K, BTreeMap<String, V>>, key: K, name: &str) {
    if let Some(map) = maps.get_mut(&key) {
        map.remove(name);
        if map.is_empty() {
            maps.remove(&key);
        }
    }
}

impl Index {
    /// The index of a catalog, from nothing.
    pub fn of(catalog: &Catalog) -> Index {
        let mut index = Index::default();
        catalog.nodes.values().for_each(|node| index.add_node(node));
        catalog.pools.values().for_each(|pool| index.add_pool(pool));
        catalog.disks.values().for_each(|disk| index.add_disk(disk));
        for pg in catalog.pgs.values() {
            index.add_pg(pg);
            index.of_pools.entry(pg.pool).or_default().pgs.push(pg.id);
        }
        let volumes = catalog.volumes.values();
        volumes.for_each(|volume| index.add_volume(volume));
        let attachments = catalog.attachments();
        attachments.for_each(|attachment| index.add_attachment(attachment));
        let ranges = catalog.ranges.iter();
        ranges.for_each(|(volume, range)| index.add_range(*volume, range));
        index
    }

    fn add_node(&mut self, node: &Node) {
        self.node_names.insert(node.name.clone(), node.id);
    }

    fn add_pool(&mut self, pool: &Pool) {
        self.pool_names.insert(pool.name.clone(), pool.id);
        self.of_pools.entry(pool.id).or_default();
    }

    fn add_disk(&mut self, disk: &Disk) {
        let of = self.of_pools.entry(disk.pool).or_default();
        of.capacity += u128::from(disk.size);
        of.disks.insert(disk.id);
        self.disks_of_node
            .entry(disk.node)
            .or_default()
            .insert(disk.id);
        self.stores.insert(disk.store.0, disk.id);
        let paths = self.paths.entry(disk.node).or_default();
        paths.insert(disk.path.clone(), disk.id);
    }

    fn remove_disk(&mut self, disk: &Disk) {
        let of = self.of_pools.entry(disk.pool).or_default();
        of.capacity -= u128::from(disk.size);
        of.disks.remove(&disk.id);
        take(&mut self.disks_of_node, disk.node, &disk.id);
        self.stores.remove(&disk.store.0);
        take_named(&mut self.paths, disk.node, &disk.path);
    }

    fn add_pg(&mut self, pg: &Pg) {
        for disk in pg.disks() {
            self.pgs_on.entry(disk).or_default().insert(pg.id);
        }
        if pg.want.is_some() {
            self.wanted.insert(pg.id);
        }
    }

    fn remove_pg(&mut self, pg: &Pg) {
        for disk in pg.disks() {
            take(&mut self.pgs_on, disk, &pg.id);
        }
        self.wanted.remove(&pg.id);
    }

    fn add_volume(&mut self, volume: &Volume) {
        self.volume_names.insert(volume.name.clone(), volume.id);
        let of = self.of_pools.entry(volume.pool).or_default();
        of.promised += u128::from(volume.size);
        match volume.on.is_empty() {
            true => more(&mut of.volumes, volume.pgs),
            false => volume.on.iter().for_each(|&pg| more(&mut self.listed, pg)),
        }
        if let Locality::Local { home } = volume.locality {
            more(&mut self.homes, home);
        }
        let parents = volume.layers.iter().filter_map(|layer| layer.parent);
        parents.for_each(|parent| more(&mut self.children, parent));
    }

    fn remove_volume(&mut self, volume: &Volume) {
        self.volume_names.remove(&volume.name);
        let of = self.of_pools.entry(volume.pool).or_default();
        of.promised -= u128::from(volume.size);
        match volume.on.is_empty() {
            true => fewer(&mut of.volumes, volume.pgs),
            false => volume.on.iter().for_each(|&pg| fewer(&mut self.listed, pg)),
        }
        if let Locality::Local { home } = volume.locality {
            fewer(&mut self.homes, home);
        }
        let parents = volume.layers.iter().filter_map(|layer| layer.parent);
        parents.for_each(|parent| fewer(&mut self.children, parent));
    }

    fn add_attachment(&mut self, one: &Attachment) {
        // Those from before there were keys all have zero.
        if one.key.0 != 0 {
            self.keys.insert(one.key, one.volume);
        }
        self.attached.insert((one.node, one.volume, one.key));
        if let Some(socket) = one.front_end.socket() {
            let sockets = self.sockets.entry(one.node).or_default();
            sockets.insert(socket.into(), one.volume);
        }
    }

    fn remove_attachment(&mut self, one: &Attachment) {
        self.keys.remove(&one.key);
        self.attached.remove(&(one.node, one.volume, one.key));
        if let Some(socket) = one.front_end.socket() {
            take_named(&mut self.sockets, one.node, socket);
        }
    }

    fn add_range(&mut self, volume: VolumeId, range: &Ownership) {
        if let Some(owner) = range.owner {
            self.owned.insert((owner.node, volume));
        }
    }

    fn remove_range(&mut self, volume: VolumeId, range: &Ownership) {
        if let Some(owner) = range.owner {
            self.owned.remove(&(owner.node, volume));
        }
    }
}

/// Which of a volume's attachments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    First,
    Incoming,
    /// Of a shared volume, at another node than the first one's.
    Shared(NodeId),
}

/// How everything is recorded.
impl Catalog {
    pub(super) fn put_node(&mut self, node: Node) {
        self.index.add_node(&node);
        self.nodes.insert(node.id, node);
    }

    pub(super) fn drop_node(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.remove(&id) {
            self.index.node_names.remove(&node.name);
        }
    }

    pub(super) fn put_pool(&mut self, pool: Pool) {
        self.index.add_pool(&pool);
        self.pools.insert(pool.id, pool);
    }

    pub(super) fn put_disk(&mut self, disk: Disk) {
        if let Some(old) = self.disks.get(&disk.id) {
            self.index.remove_disk(old);
        }
        self.index.add_disk(&disk);
        self.disks.insert(disk.id, disk);
    }

    pub(super) fn drop_disk(&mut self, id: DiskId) {
        if let Some(disk) = self.disks.remove(&id) {
            self.index.remove_disk(&disk);
        }
    }

    pub(super) fn put_pg(&mut self, pg: Pg) {
        match self.pgs.get(&pg.id) {
            Some(old) => self.index.remove_pg(old),
            // New ones have the highest number, so the list stays sorted.
            None => self
                .index
                .of_pools
                .entry(pg.pool)
                .or_default()
                .pgs
                .push(pg.id),
        }
        self.index.add_pg(&pg);
        self.pgs.insert(pg.id, pg);
    }

    pub(super) fn drop_pg(&mut self, id: PgId) {
        if let Some(pg) = self.pgs.remove(&id) {
            self.index.remove_pg(&pg);
            let pgs = &mut self.index.of_pools.entry(pg.pool).or_default().pgs;
            if let Ok(at) = pgs.binary_search(&id) {
                pgs.remove(at);
            }
        }
    }

    pub(super) fn put_volume(&mut self, volume: Volume) {
        if let Some(old) = self.volumes.get(&volume.id) {
            self.index.remove_volume(old);
        }
        self.index.add_volume(&volume);
        self.volumes.insert(volume.id, volume);
    }

    pub(super) fn drop_volume(&mut self, id: VolumeId) {
        if let Some(volume) = self.volumes.remove(&id) {
            self.index.remove_volume(&volume);
        }
        if let Some(range) = self.ranges.remove(&id) {
            self.index.remove_range(id, &range);
        }
    }

    pub(super) fn put_attachment(&mut self, place: Place, one: Attachment) {
        self.drop_attachment(place, one.volume);
        self.index.add_attachment(&one);
        match place {
            Place::First => self.attachments.insert(one.volume, one),
            Place::Incoming => self.incoming.insert(one.volume, one),
            Place::Shared(node) => {
                let of = self.shared.entry(one.volume).or_default();
                of.insert(node, one)
            }
        };
    }

    pub(super) fn drop_attachment(&mut self, place: Place, id: VolumeId) -> Option<Attachment> {
        let one = match place {
            Place::First => self.attachments.remove(&id)?,
            Place::Incoming => self.incoming.remove(&id)?,
            Place::Shared(node) => {
                let of = self.shared.get_mut(&id)?;
                let one = of.remove(&node)?;
                if of.is_empty() {
                    self.shared.remove(&id);
                }
                one
            }
        };
        self.index.remove_attachment(&one);
        Some(one)
    }

    pub(super) fn put_range(&mut self, id: VolumeId, range: Ownership) {
        if let Some(old) = self.ranges.get(&id) {
            self.index.remove_range(id, old);
        }
        self.index.add_range(id, &range);
        self.ranges.insert(id, range);
    }
}
