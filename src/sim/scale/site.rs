//! A site of any size, made by the catalog's own commands and placed by the shipped solver.
//!
//! What is committed is counted as the manager's log has it: each command as JSON, each event as it is told to the nodes. It knows
//! no time.

use crate::base::{DiskId, NodeId, PgId, StoreId, VolumeId};
use crate::protocol::catalog::{
    Batch, Catalog, Command, DEFAULT_POOL, Event, FrontEnd, Locality, PGS_OF_COMMAND_MAX, PoolId,
    Purpose, Refusal, StoreName, TakeWhy,
};
use crate::protocol::membership::{Incarnation, LeaseNumber};
use crate::protocol::placement::{
    self, Cluster, Disk, DiskState, Level, PgReplicas, RackId, pgs_wanted, solve,
};

pub const COPIES: u32 = 3;
pub const GIB: u64 = 1 << 30;
/// Of a disk, in bytes.
const DISK_BYTES: u64 = 4 << 40;

/// How many PGs a site has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pgs {
    /// As many as placement wants: 32 replicas a disk.
    AsWanted,
    /// So many for each disk.
    ADisk(u32),
}

/// What a site is made of.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub nodes: u32,
    pub disks_a_node: u32,
    pub racks: u32,
    pub level: Level,
    pub pgs: Pgs,
    pub volumes_a_node: u32,
}

impl Shape {
    /// Nodes of 10 disks in 20 racks (or as many as there are nodes), no volumes, and a node as the failure domain.
    pub fn of(nodes: u32) -> Shape {
        Shape {
            nodes,
            disks_a_node: 10,
            racks: nodes.min(20),
            level: Level::Node,
            pgs: Pgs::AsWanted,
            volumes_a_node: 0,
        }
    }

    pub fn disks(&self) -> u32 {
        self.nodes * self.disks_a_node
    }
}

/// The catalog, and the size of what made it.
pub struct Log {
    pub catalog: Catalog,
    pub commands: u64,
    /// Of the commands, in bytes.
    pub bytes: u64,
    pub events: u64,
    /// Of the events, in bytes, each told once.
    pub event_bytes: u64,
}

impl Log {
    /// Applies a command and counts it, where it is taken.
    pub fn order(&mut self, command: &Command) -> Result<Vec<Event>, Refusal> {
        let events = self.catalog.apply(command)?;
        self.count(command, &events);
        Ok(events)
    }

    /// Counts a command that was taken.
    pub fn count(&mut self, command: &Command, events: &[Event]) {
        self.commands += 1;
        self.bytes += json(command);
        self.events += events.len() as u64;
        self.event_bytes += events.iter().map(json).sum::<u64>();
    }

    /// The same, of a command that nothing speaks against.
    fn must(&mut self, command: &Command) {
        let refused = self.order(command).err();
        assert!(refused.is_none(), "{command:?}: {refused:?}");
    }

    /// Counts from here on.
    pub fn start_over(&mut self) {
        (self.commands, self.bytes, self.events, self.event_bytes) = (0, 0, 0, 0);
    }
}

/// How long a value is as the log and the snapshot write it, in bytes.
pub fn json(value: &impl serde::Serialize) -> u64 {
    serde_json::to_vec(value).map_or(0, |bytes| bytes.len() as u64)
}

/// The site, or why placement refuses it.
pub fn build(shape: &Shape) -> Result<Log, placement::Refusal> {
    let mut log = Log {
        catalog: Catalog::default(),
        commands: 0,
        bytes: 0,
        events: 0,
        event_bytes: 0,
    };
    log.must(&Command::SetPool {
        pool: DEFAULT_POOL.into(),
        copies: COPIES,
        min_copies: 2,
        level: shape.level,
    });
    for n in 0..shape.nodes {
        let node = NodeId(n + 1);
        log.must(&Command::AddNode {
            name: format!("host-{n:04}"),
        });
        log.must(&Command::SetRack {
            node,
            rack: Some(format!("rack-{:02}", n % shape.racks)),
        });
        let incarnation = Incarnation(1);
        log.must(&Command::RecordIncarnation { node, incarnation });
    }
    for n in 0..shape.disks() {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        log.must(&Command::AddDisk {
            node: NodeId(1 + n / shape.disks_a_node),
            path: format!("/dev/disk/by-id/nvme-eui.{n:016x}"),
            store: StoreName(StoreId(id)),
            size: DISK_BYTES,
            pool: None,
            incarnation: Incarnation(1),
        });
    }
    lay_out(shape, &mut log)?;
    volumes(shape, &mut log);
    Ok(log)
}

/// Has the solver place the PGs.
fn lay_out(shape: &Shape, log: &mut Log) -> Result<(), placement::Refusal> {
    let disks = log.catalog.disks().map(|disk| Disk {
        id: disk.id,
        node: disk.node,
        rack: RackId((disk.node.0 - 1) % shape.racks),
        weight: disk.weight(),
        state: DiskState::Serving,
    });
    let disks: Vec<Disk> = disks.collect();
    let pool = placement::Pool {
        copies: COPIES as u8,
        level: shape.level,
    };
    let count = match shape.pgs {
        Pgs::AsWanted => pgs_wanted(&disks, pool, 0),
        Pgs::ADisk(count) => count * shape.disks(),
    };
    let pgs = (0..count).map(|at| PgReplicas {
        pg: PgId(at + 1),
        disks: Vec::new(),
    });
    let pgs = pgs.collect();
    let plan = solve(&Cluster { pool, disks, pgs })?;
    let mut replicas: Vec<Vec<DiskId>> = vec![Vec::new(); count as usize];
    for change in plan.changes {
        replicas[change.pg.0 as usize - 1].extend(change.to);
    }
    let last = replicas.len().div_ceil(PGS_OF_COMMAND_MAX) - 1;
    for (at, replicas) in replicas.chunks(PGS_OF_COMMAND_MAX).enumerate() {
        log.must(&Command::CreatePgs {
            pool: PoolId(1),
            first: log.catalog.next_pg(),
            replicas: replicas.to_vec(),
            batch: match at == last {
                true => Batch::Last,
                false => Batch::MoreFollow,
            },
        });
    }
    Ok(())
}

/// Volumes of 100 GiB, each attached to a guest and owned there.
fn volumes(shape: &Shape, log: &mut Log) {
    let percent = Command::SetOvercommit {
        pool: DEFAULT_POOL.into(),
        percent: 10_000,
    };
    log.must(&percent);
    for n in 0..shape.nodes * shape.volumes_a_node {
        let (node, volume) = (NodeId(1 + n % shape.nodes), VolumeId(1 + u64::from(n)));
        log.must(&Command::CreateVolume {
            name: format!("guest-{n:06}-disk-0"),
            size: 100 * GIB,
            block_size: 4096,
            purpose: Purpose::Use,
            pool: None,
            locality: Locality::Spread,
        });
        let front_end = FrontEnd::VhostUser {
            socket: format!("/run/sarsen/vhost/guest-{n:06}.sock"),
            queues: 4,
            incoming: false,
        };
        log.must(&Command::Attach {
            volume,
            node,
            front_end,
        });
        log.must(&Command::TakeRange {
            volume,
            node,
            lease: LeaseNumber::NONE,
            after: None,
            why: TakeWhy::Free,
        });
    }
}
