//! The catalog: nodes, disks, pools, placement groups and volumes, as one deterministic state machine.
//!
//! ```text
//!   Command ──► Catalog::apply ──► events   (accepted: the state has changed, the command belongs in the log)
//!                      │
//!                      └─────────► Refusal  (nothing has changed: field, reason, hint)
//! ```
//!
//! The same commands in the same order give the same catalog and the same events on every machine: there is
//! no clock, no randomness and no map whose order differs here. What has to be random (a store's
//! identity) or was seen in the world (how many clients are connected) comes in with the command.
//!
//! Invariants, held by [`Catalog::check`]:
//! - *ids-never-return*: an id is below its counter, and counters only grow.
//! - *names-are-unique*: no two volumes and no two nodes have the same name.
//! - *references-hold*: every disk has its node, every PG its disks and pool, every attachment its volume.
//! - *pgs-are-a-prefix*: a volume hashes its extents over the first `pgs` PGs of its pool, and the pool
//!   never has fewer. A disk that comes later brings new PGs behind them, so nothing moves by itself.
//! - *one-socket-one-attachment*: no two attachments of a node have the same socket, and no two the same key.
//! - *incoming-follows*: a volume has an incoming attachment only beside one by vhost-user on the same node.
//! - *in-sync-are-replicas*: the in-sync set of a PG is a non-empty part of its replicas.
//!
//! The catalog does not know where a volume's data lies inside a disk, or who is connected right now.

mod attachment;
mod command;
mod disk;
mod name;
mod refusal;
mod snapshot;
mod state;
mod volume;

#[cfg(test)]
mod tests;

pub use command::{Command, Event, Purpose};
pub use name::{NAME_MAX, check_name};
pub use refusal::{Code, Refusal};
pub use snapshot::{RestoreError, SNAPSHOT_VERSION};
pub use state::{
    Attachment, AttachmentKey, Catalog, Disk, DiskState, FrontEnd, ImportMark, Layer, LayerState,
    Node, Pg, Pool, PoolId, StoreName, Volume, VolumeState,
};

/// The name of the pool that exists from the start.
pub const DEFAULT_POOL: &str = "default";
/// The largest volume: what 32 bits of extent numbers of 4 MiB can name, in bytes.
pub const VOLUME_BYTES_MAX: u64 = 16 << 50;
/// The smallest disk that can be added, in bytes: below it, journal and table leave nothing for data.
pub const DISK_BYTES_MIN: u64 = 64 << 20;
/// How many volumes, disks and nodes a catalog holds at most: all of it is kept in memory and copied with
/// each change, and 10,000 volumes are 4 MiB of it.
pub const VOLUMES_MAX: usize = 10_000;
/// See [`VOLUMES_MAX`].
pub const DISKS_MAX: usize = 1_024;
/// See [`VOLUMES_MAX`].
pub const NODES_MAX: usize = 256;
/// The most queues of one attachment: what a guest's driver and the kernel's ublk have use for.
pub const QUEUES_MAX: u16 = 128;

impl Catalog {
    /// Checks `command`, and where nothing speaks against it, carries it out. A refused command has changed
    /// nothing.
    pub fn apply(&mut self, command: &Command) -> Result<Vec<Event>, Refusal> {
        let events = match command {
            Command::AddNode { name } => self.add_node(name),
            Command::AddDisk {
                node,
                path,
                store,
                size,
            } => self.add_disk(*node, path, *store, *size),
            Command::WithdrawDisk { disk } => self.withdraw_disk(*disk),
            Command::GrowDisk { disk, size } => self.grow_disk(*disk, *size),
            Command::SetDiskState { disk, state } => self.set_disk_state(*disk, *state),
            Command::SetOvercommit { pool, percent } => self.set_overcommit(pool, *percent),
            Command::CreateVolume {
                name,
                size,
                block_size,
                purpose,
            } => self.create_volume(name, *size, *block_size, *purpose),
            Command::ResizeVolume { name, size } => self.resize_volume(name, *size),
            Command::RecordImport { volume, mark } => self.record_import(*volume, *mark),
            Command::FinishImport { volume } => self.finish_import(*volume),
            Command::DeleteVolume { name, connections } => self.delete_volume(name, *connections),
            Command::ForgetVolume { volume } => self.forget_volume(*volume),
            Command::Attach {
                volume,
                node,
                front_end,
            } => self.attach(*volume, *node, front_end),
            Command::RecordDevice { key, device } => self.record_device(*key, *device),
            Command::Detach { volume, key } => self.detach(*volume, *key),
        }?;
        self.applied += 1;
        debug_assert_eq!(self.check(), Ok(()));
        Ok(events)
    }
}
