//! What the solver is told: disks, a pool's wishes, and the replicas that its PGs have now. Plain values of the
//! solver's own, so that it knows neither the catalog nor the network; and the reasons for which it says no.
//!
//! Invariants: none beyond the bounds below. A cluster that contradicts itself is answered with a [`Refusal`].

use crate::base::{DiskId, NodeId, PgId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The most copies of a pool (design: 1, 2 or 3).
pub const COPIES_MAX: u8 = 3;
/// The most replicas a PG may be listed with: all copies, and one more that is on its way.
pub const REPLICAS_MAX: usize = COPIES_MAX as usize + 1;
/// The most disks of a pool: the state of a disk is some 100 bytes while it is solved.
pub const DISKS_MAX: usize = 32 * 1024;
/// The most nodes with disks in a pool: the table of pairs has a `u32` for each two, 16 MiB at the bound.
pub const NODES_MAX: usize = 2048;
/// The most PGs of a pool: 32,768 disks with 24 replicas each at three copies.
pub const PGS_MAX: u32 = 256 * 1024;
/// The largest weight of a disk: its bytes may be taken as they are (a disk has 1 PiB at most).
pub const WEIGHT_MAX: u64 = 1 << 50;

/// A rack: the nodes that share power and a switch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RackId(pub u32);

/// What fails together. The order is that of size: a rack is made of nodes, a node of disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Disk,
    Node,
    Rack,
}

/// What a disk is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskState {
    /// Holds replicas and takes new ones.
    Serving,
    /// Is being emptied: what it holds is good, and moves away.
    Draining,
    /// Will not come back: what it held is made again from other replicas.
    Gone,
}

/// A disk of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    pub id: DiskId,
    pub node: NodeId,
    pub rack: RackId,
    /// Its part of the pool, in any unit that all disks share (bytes, say); 0 means draining. At most
    /// [`WEIGHT_MAX`].
    pub weight: u64,
    pub state: DiskState,
}

impl Disk {
    /// Whether it may be given replicas.
    pub fn takes(&self) -> bool {
        self.state == DiskState::Serving && self.weight > 0
    }
}

/// What a pool asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Replicas of each PG, 1 to [`COPIES_MAX`].
    pub copies: u8,
    /// No two replicas of a PG lie in one failure domain of this level.
    pub level: Level,
}

/// A PG and the disks that have its replicas now; of a new PG there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgReplicas {
    pub pg: PgId,
    /// At most [`REPLICAS_MAX`], in any order, none twice.
    pub disks: Vec<DiskId>,
}

/// A pool as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub pool: Pool,
    pub disks: Vec<Disk>,
    pub pgs: Vec<PgReplicas>,
}

/// Why there is no placement. Nothing has been decided then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Copies are 1 to [`COPIES_MAX`].
    Copies {
        copies: u8,
    },
    /// There are fewer failure domains that take replicas than a PG has copies. `would_do` is the highest level
    /// that has enough of them; without one, the pool has fewer disks than copies.
    TooFewDomains {
        level: Level,
        domains: usize,
        copies: u8,
        would_do: Option<Level>,
    },
    /// More of something than the solver holds.
    TooMany {
        what: &'static str,
        most: usize,
    },
    /// A weight above [`WEIGHT_MAX`].
    Weight {
        disk: DiskId,
    },
    DiskTwice {
        disk: DiskId,
    },
    PgTwice {
        pg: PgId,
    },
    /// Disks of one node claim to be in different racks.
    NodeInTwoRacks {
        node: NodeId,
    },
    /// A PG has a replica on a disk that the cluster does not list. A disk that is lost stays listed, as
    /// [`DiskState::Gone`], until no PG names it.
    UnknownDisk {
        pg: PgId,
        disk: DiskId,
    },
    /// A PG lists a disk twice, or more than [`REPLICAS_MAX`] disks.
    Replicas {
        pg: PgId,
    },
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Disk => "disk",
            Level::Node => "node",
            Level::Rack => "rack",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Copies { copies } => write!(f, "{copies} copies are not 1 to {COPIES_MAX}"),
            Refusal::TooFewDomains {
                level,
                domains,
                copies,
                would_do,
            } => {
                write!(f, "{copies} copies need as many failure domains: ")?;
                write!(
                    f,
                    "at level {level} there are {domains} that take replicas; "
                )?;
                match would_do {
                    Some(level) => write!(f, "level {level} would do"),
                    None => write!(f, "no level has enough, add disks or ask for fewer copies"),
                }
            }
            Refusal::TooMany { what, most } => write!(f, "more than {most} {what}"),
            Refusal::Weight { disk } => write!(f, "disk {disk} weighs more than {WEIGHT_MAX}"),
            Refusal::DiskTwice { disk } => write!(f, "disk {disk} is listed twice"),
            Refusal::PgTwice { pg } => write!(f, "PG {pg} is listed twice"),
            Refusal::NodeInTwoRacks { node } => {
                write!(f, "the disks of node {node} are in different racks")
            }
            Refusal::UnknownDisk { pg, disk } => {
                write!(
                    f,
                    "PG {pg} has a replica on disk {disk}, which is not listed"
                )
            }
            Refusal::Replicas { pg } => {
                write!(
                    f,
                    "PG {pg} lists a disk twice or more than {REPLICAS_MAX} disks"
                )
            }
        }
    }
}
