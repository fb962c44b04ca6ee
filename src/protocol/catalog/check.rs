//! The invariants of the catalog, by name (the room's door says what each means).
//!
//! Each is a question about one record, so that after a command only what it touched is asked about, in time that does not grow with
//! the site. [`Catalog::check`] asks about everything, and whether the index is what follows from the records.

use super::command::{Event, Locality};
use super::index::Index;
use super::pg::Pg;
use super::range::Ownership;
use super::state::{Attachment, Catalog, Disk, LayerState, Node, Pool, Sharing, Volume};
use super::{LAYERS_MAX, VOLUME_BYTES_MAX};
use crate::base::{NodeId, VolumeId};
use crate::protocol::placement::COPIES_MAX;

type Checked = Result<(), &'static str>;

fn hold(holds: bool, name: &'static str) -> Checked {
    match holds {
        true => Ok(()),
        false => Err(name),
    }
}

impl Catalog {
    /// The name of the first invariant (see the room's door) that does not hold, of all records.
    pub fn check(&self) -> Result<(), &'static str> {
        self.check_keys()?;
        hold(
            self.index.volume_names.len() == self.volumes.len()
                && self.index.node_names.len() == self.nodes.len()
                && self.index.pool_names.len() == self.pools.len(),
            "names-are-unique",
        )?;
        hold(self.sockets_are_unique(), "one-socket-one-attachment")?;
        hold(
            self.index.stores.len() == self.disks.len(),
            "one-store-one-disk",
        )?;
        self.nodes
            .values()
            .try_for_each(|node| self.check_node(node))?;
        self.pools
            .values()
            .try_for_each(|pool| self.check_pool(pool))?;
        self.disks
            .values()
            .try_for_each(|disk| self.check_disk(disk))?;
        self.pgs.values().try_for_each(|pg| self.check_pg(pg))?;
        let mut volumes = self.volumes.values();
        volumes.try_for_each(|volume| self.check_volume(volume))?;
        let mut attachments = self.attachments();
        attachments.try_for_each(|one| self.check_attachment(one))?;
        let mut ranges = self.ranges.iter();
        ranges.try_for_each(|(volume, range)| self.check_range(*volume, range))?;
        hold(Index::of(self) == self.index, "index-follows")
    }

    /// The same of the records that these events speak of.
    pub(super) fn check_touched(&self, events: &[Event]) -> Checked {
        events.iter().try_for_each(|event| match event {
            Event::NodeAdded { node } | Event::NodeChanged { node } => self.check_node(node),
            Event::DiskAdded { disk, pgs } => {
                self.check_disk(disk)?;
                pgs.iter().try_for_each(|pg| self.check_pg(pg))
            }
            Event::DiskChanged { disk } => self.check_disk(disk),
            Event::PoolAdded { pool } | Event::PoolChanged { pool } => self.check_pool(pool),
            Event::PgsCreated { pool, pgs } => {
                self.pools
                    .get(pool)
                    .map_or(Ok(()), |pool| self.check_pool(pool))?;
                pgs.iter().try_for_each(|pg| self.check_pg(pg))
            }
            Event::PgChanged { pg } => self.check_pg(pg),
            Event::VolumeCreated { volume } | Event::VolumeChanged { volume } => {
                self.check_volume(volume)
            }
            Event::Attached { attachment } => self.check_attachment(attachment),
            Event::RangeTaken { volume, range } | Event::RangeGiven { volume, range } => {
                self.check_range(*volume, range)
            }
            // What is gone is asked about by those that refused to let it go.
            Event::NodeRemoved { .. }
            | Event::DiskWithdrawn { .. }
            | Event::DiskRemoved { .. }
            | Event::VolumeForgotten { .. }
            | Event::Detached { .. }
            | Event::ClientRevoked { .. } => Ok(()),
        })
    }

    fn check_keys(&self) -> Checked {
        let holds = self.nodes.iter().all(|(id, node)| *id == node.id)
            && self.disks.iter().all(|(id, disk)| *id == disk.id)
            && self.pools.iter().all(|(id, pool)| *id == pool.id)
            && self.pgs.iter().all(|(id, pg)| *id == pg.id)
            && self.volumes.iter().all(|(id, volume)| *id == volume.id)
            && self.racks.keys().all(|rack| rack.0 < self.next.rack);
        hold(holds, "ids-never-return")?;
        let both = self.attachments.iter().chain(&self.incoming);
        let mut both = both.map(|(id, one)| *id == one.volume);
        hold(both.all(|same| same), "references-hold")
    }

    fn check_node(&self, node: &Node) -> Checked {
        hold(node.id.0 < self.next.node, "ids-never-return")?;
        let named = self.index.node_names.get(&node.name);
        hold(named == Some(&node.id), "names-are-unique")?;
        let rack = node.rack.is_none_or(|rack| self.racks.contains_key(&rack));
        hold(rack, "references-hold")
    }

    fn check_pool(&self, pool: &Pool) -> Checked {
        hold(pool.id.0 < self.next.pool, "ids-never-return")?;
        let named = self.index.pool_names.get(&pool.name);
        hold(named == Some(&pool.id), "names-are-unique")?;
        let sound = (1..=u32::from(COPIES_MAX)).contains(&pool.copies)
            && (1..=pool.copies).contains(&pool.min_copies);
        hold(sound, "copies-are-in-range")?;
        let has = self.pgs_of(pool.id).len() as u32;
        let of = self.index.of_pools.get(&pool.id);
        let most = of.and_then(|of| of.volumes.last_key_value());
        let least = of.and_then(|of| of.volumes.first_key_value());
        let is_prefix =
            most.is_none_or(|(&most, _)| most <= has) && least.is_none_or(|(&least, _)| least >= 1);
        hold(is_prefix, "pgs-are-a-prefix")
    }

    fn check_disk(&self, disk: &Disk) -> Checked {
        hold(disk.id.0 < self.next.disk, "ids-never-return")?;
        let store = self.index.stores.get(&disk.store.0);
        hold(store == Some(&disk.id), "one-store-one-disk")?;
        let holds = self.nodes.contains_key(&disk.node) && self.pools.contains_key(&disk.pool);
        hold(holds, "references-hold")
    }

    fn check_pg(&self, pg: &Pg) -> Checked {
        hold(pg.id.0 < self.next.pg, "ids-never-return")?;
        let disks = pg.disks().all(|disk| self.disks.contains_key(&disk));
        hold(
            disks && self.pools.contains_key(&pg.pool),
            "references-hold",
        )?;
        let in_sync = pg.configuration.in_sync().next().is_some();
        hold(in_sync, "in-sync-are-replicas")?;
        let wanted = pg.want.is_none_or(|want| {
            let from = want.from.is_none_or(|from| pg.has(from));
            let to = want.to.is_none_or(|to| self.disks.contains_key(&to));
            from && to && (want.from.is_some() || want.to.is_some())
        });
        hold(wanted, "wants-can-be-met")
    }

    fn check_volume(&self, volume: &Volume) -> Checked {
        let next = &self.next;
        let mut layers = volume.layers.iter();
        let ids = volume.id.0 < next.volume
            && volume.family.0 < next.family
            && layers.all(|layer| layer.id.0 < next.layer);
        hold(ids, "ids-never-return")?;
        let named = self.index.volume_names.get(&volume.name);
        hold(named == Some(&volume.id), "names-are-unique")?;
        let home = match volume.locality {
            Locality::Spread => true,
            Locality::Local { home } => self.nodes.contains_key(&home),
        };
        hold(
            home && self.pools.contains_key(&volume.pool),
            "references-hold",
        )?;
        let has = self.pgs_of(volume.pool).len();
        let of_pool = |pg| self.pgs.get(pg).is_some_and(|pg| pg.pool == volume.pool);
        let pgs = match volume.on.is_empty() {
            true => (1..=has).contains(&(volume.pgs as usize)),
            false => volume.pgs as usize == volume.on.len() && volume.on.iter().all(of_pool),
        };
        hold(pgs, "pgs-are-a-prefix")?;
        let sizes = (1..=VOLUME_BYTES_MAX).contains(&volume.size)
            && matches!(volume.block_size, 512 | 4096)
            && (1..=LAYERS_MAX).contains(&volume.layers.len());
        hold(sizes, "sizes-are-in-range")?;
        hold(layers_are_a_chain(volume), "one-layer-takes-writes")
    }

    fn check_attachment(&self, one: &Attachment) -> Checked {
        hold(one.key.0 < self.next.attachment, "ids-never-return")?;
        let holds = self.volumes.contains_key(&one.volume) && self.nodes.contains_key(&one.node);
        hold(holds, "references-hold")?;
        let (first, second) = self.attachments_of(one.volume);
        let apart = self.shared.get(&one.volume).is_none_or(|of| {
            let volume = self.volumes.get(&one.volume);
            let other = |(node, other): (&NodeId, &Attachment)| {
                *node == other.node
                    && !other.front_end.is_incoming()
                    && first.is_some_and(|first| first.node != *node)
            };
            // Of a volume that is not shared the second one is where its guest moves to.
            let moves = of.len() == 1
                && first.is_some_and(|first| first.front_end.socket().is_some())
                && of.values().all(|to| to.front_end.socket().is_some());
            volume.is_some_and(|volume| volume.sharing == Sharing::Shared || moves)
                && !of.is_empty()
                && of.iter().all(other)
        });
        hold(apart, "shared-by-nodes")?;
        let follows = first.is_none_or(|first| !first.front_end.is_incoming())
            && second.is_none_or(|second| {
                second.front_end.is_incoming()
                    && first.is_some_and(|first| {
                        first.node == second.node && first.front_end.socket().is_some()
                    })
            });
        hold(follows, "incoming-follows")
    }

    fn check_range(&self, id: VolumeId, range: &Ownership) -> Checked {
        let owner = range
            .owner
            .is_none_or(|owner| self.nodes.contains_key(&owner.node));
        hold(owner && self.volumes.contains_key(&id), "owners-are-known")?;
        hold(range.epoch.host >= 1, "epochs-only-grow")
    }

    /// Every attachment that has a key or a socket has it alone, so there are as many of them as places in the index.
    fn sockets_are_unique(&self) -> bool {
        let keys = self.attachments().filter(|one| one.key.0 != 0).count();
        let sockets = self
            .attachments()
            .filter(|one| one.front_end.socket().is_some());
        let listed: usize = self.index.sockets.values().map(|of| of.len()).sum();
        keys == self.index.keys.len() && sockets.count() == listed
    }
}

/// A volume's layers lie over one another, and the newest takes writes; what has a name is frozen, or about to be.
fn layers_are_a_chain(volume: &Volume) -> bool {
    let newest = volume.layers.len() - 1;
    let may_be = |at: usize, state| match state {
        LayerState::Writable => at == newest,
        LayerState::Cutting => at + 1 == newest,
        LayerState::Frozen => at < newest,
    };
    let numbered = volume.layers.iter().enumerate();
    let mut states = numbered.map(|(at, layer)| may_be(at, layer.state));
    let frozen = &volume.layers[..newest];
    states.all(|right| right)
        && volume
            .layers
            .windows(2)
            .all(|two| two[1].parent == Some(two[0].id) && two[0].id < two[1].id)
        && volume
            .snapshots
            .iter()
            .all(|one| frozen.iter().any(|layer| layer.id == one.layer))
}
