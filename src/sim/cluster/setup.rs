//! What is there before a run begins: nodes, disks, PGs and volumes, in a catalog that everybody has.

use super::shelf::Shelf;
use super::world::{Place, World};
use crate::base::{BLOCK, DiskId, NodeId, PgId, StoreId, mix64};
use crate::protocol::catalog::{Batch, Command, Locality, Purpose, Sharing, StoreName};
use crate::protocol::membership::Incarnation;
use crate::protocol::placement::Level;
use std::collections::VecDeque;

/// Whether several nodes use a volume at once. Not drawn from the world's numbers, so that all else of a seed is as without it.
fn shares(seed: u64, volume: u32) -> bool {
    mix64(seed ^ u64::from(volume) << 32).is_multiple_of(3)
}

fn store_of(disk: u32) -> StoreName {
    StoreName(StoreId([disk as u8; 16]))
}

impl World {
    /// What was there before the run: nodes, disks, PGs and volumes.
    pub(super) fn set_up(&mut self, nodes: &[NodeId]) {
        let shape = self.knobs.shape.clone();
        let copies = shape.copies.min(self.plan.nodes);
        self.order(Command::SetPool {
            pool: "default".to_owned(),
            copies,
            min_copies: shape.min_copies.min(copies),
            level: Level::Node,
        });
        let mut disks: Vec<Vec<DiskId>> = Vec::new();
        let mut count = 0;
        for (at, &node) in nodes.iter().enumerate() {
            self.order(Command::AddNode {
                name: format!("node-{}", node.0),
            });
            let mut own = Vec::new();
            for _ in 0..shape.disks[at] {
                count += 1;
                self.order(Command::AddDisk {
                    node,
                    path: format!("/dev/disk-{count}"),
                    store: store_of(count),
                    size: 1 << 40,
                    pool: None,
                    incarnation: Incarnation(0),
                });
                let disk = self.catalog.disks().last().expect("it was added").id;
                let prng = self.prng.fork();
                let mut shelf = Shelf::new(prng, self.knobs.manner);
                shelf.breaks = self.off.breaks;
                self.shelves.insert(disk, shelf);
                own.push(disk);
            }
            disks.push(own.clone());
            self.places.insert(
                node,
                Place {
                    node: None,
                    member: None,
                    incarnation: 0,
                    applied: 0,
                    is_paused: false,
                    wakes: None,
                    is_doomed: None,
                    waiting: VecDeque::new(),
                    disks: own,
                },
            );
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
        for volume in 0..self.knobs.volumes {
            self.order(Command::CreateVolume {
                name: format!("volume-{volume}"),
                size: self.knobs.volume_blocks[volume as usize] * BLOCK,
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
