//! What is there before a run begins: nodes, disks, PGs and volumes, in a catalog that everybody has.

use super::coverage::Fault;
use super::world::{Place, World};
use crate::base::{BLOCK, DiskId, NodeId, PgId, StoreId, mix64};
use crate::protocol::catalog::{Batch, Command, Locality, Purpose, Sharing, StoreName};
use crate::protocol::membership::Incarnation;
use crate::protocol::placement::Level;

/// Whether several nodes use a volume at once. Not drawn from the world's numbers, so that all else of a seed is as without it.
fn shares(seed: u64, volume: u32) -> bool {
    mix64(seed ^ u64::from(volume) << 32).is_multiple_of(3)
}

/// Of every disk, in bytes.
pub(super) const DISK_SIZE: u64 = 1 << 40;

pub(super) fn name_of(node: NodeId) -> String {
    format!("node-{}", node.0)
}

pub(super) fn store_of(number: u32) -> StoreName {
    StoreName(StoreId([number as u8; 16]))
}

/// Adds the disk of this number.
pub(super) fn add_disk(node: NodeId, number: u32) -> Command {
    Command::AddDisk {
        node,
        path: format!("/dev/disk-{number}"),
        store: store_of(number),
        size: DISK_SIZE,
        pool: None,
        incarnation: Incarnation(0),
    }
}

impl World {
    /// What was there before the run: nodes, disks, PGs and volumes.
    pub(super) fn set_up(&mut self, nodes: &[NodeId]) {
        let shape = self.knobs.shape.clone();
        // One joins while the run goes on, where that leaves enough.
        let least = shape.copies.max(shape.members).max(3);
        let last = nodes.last().copied();
        let may_join = self.knobs.every(Fault::NodeAdded).is_some() && self.plan.nodes > least;
        let late = last.filter(|_| may_join);
        let copies = shape.copies.min(self.plan.nodes);
        self.order(Command::SetPool {
            pool: "default".to_owned(),
            copies,
            min_copies: shape.min_copies.min(copies),
            level: Level::Node,
        });
        let mut disks: Vec<Vec<DiskId>> = Vec::new();
        for (at, &node) in nodes.iter().enumerate() {
            self.places.insert(node, Place::default());
            if late == Some(node) {
                self.workload.leave(at as u32);
                self.operators.expect_late(node);
                continue;
            }
            self.order(Command::AddNode {
                name: name_of(node),
            });
            for _ in 0..shape.disks[at] {
                let number = self.operators.next_number();
                self.order(add_disk(node, number));
                let disk = self.catalog.disks().last().expect("it was added").id;
                self.put_disk(node, disk);
            }
            disks.push(self.places[&node].disks.clone());
        }
        let replicas = (0..shape.pgs as usize).map(|pg| {
            let place = |copy: usize| {
                let own = &disks[(pg + copy) % disks.len()];
                own[(pg / disks.len() + copy) % own.len()]
            };
            (0..copies as usize).map(place).collect()
        });
        let pool = self.catalog.pool_named("default").expect("there is one").id;
        if self.catalog.pgs().len() == 0 {
            self.order(Command::CreatePgs {
                pool,
                first: self.catalog.next_pg(),
                replicas: replicas.collect(),
                batch: Batch::Last,
            });
        }
        // Volumes that may grow begin with half of their size.
        let part = 1 + u64::from(self.knobs.every(Fault::Grown).is_some());
        for volume in 0..self.knobs.volumes {
            self.order(Command::CreateVolume {
                name: format!("volume-{volume}"),
                size: self.knobs.volume_blocks[volume as usize] / part * BLOCK,
                block_size: 4096,
                purpose: Purpose::Use,
                pool: None,
                locality: Locality::Spread,
            });
        }
        let seed = self.plan.seed;
        for volume in (0..self.knobs.volumes).filter(|&volume| shares(seed, volume)) {
            self.order(Command::SetSharing {
                name: format!("volume-{volume}"),
                sharing: Sharing::Shared,
            });
        }
        self.volumes = self.catalog.volumes().map(|volume| volume.id).collect();
        let pgs: Vec<PgId> = self.catalog.pgs().map(|pg| pg.id).collect();
        for pg in pgs {
            self.tell_atlas(pg);
        }
    }

    fn order(&mut self, command: Command) {
        let refused = self.catalog.apply(&command).err();
        assert!(refused.is_none(), "{command:?}: {refused:?}");
    }
}
