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
//! - *names-are-unique*: no two volumes, no two nodes and no two pools have the same name.
//! - *references-hold*: every disk has its node, every PG its disks and pool, every attachment its volume.
//! - *pgs-are-a-prefix*: a volume hashes its extents over the first `pgs` PGs of its pool, and the pool
//!   never has fewer. A disk that comes later brings new PGs behind them, so nothing moves by itself.
//! - *one-socket-one-attachment*: no two attachments of a node have the same socket, and no two the same key.
//! - *incoming-follows*: a volume has an incoming attachment only beside one by vhost-user on the same node.
//! - *shared-by-nodes*: only a shared volume is attached at several nodes, at each of them once.
//! - *in-sync-are-replicas*: the in-sync set of a PG is a non-empty part of its replicas.
//! - *one-store-one-disk*: no store is on two disks.
//! - *copies-are-in-range*: a pool has 1 to 3 copies, of which at least one and at most all must be in sync.
//! - *wants-can-be-met*: what moves from a disk is a replica there, and what moves to one has a disk to move to.
//! - *one-layer-takes-writes*: a volume's newest layer takes new writes. The one below may still be *cutting*; all others are frozen, and each
//!   lies over the one before.
//! - *epochs-only-grow*, *owners-are-known*: a range's epoch is above every one before (R4), and its owner is a node.
//! - *sizes-are-in-range*: of volumes, and of their lists of layers.
//! - *index-follows*: what is kept for lookups is what follows from the records.
//!
//! Configurations change only by [`replication::Configuration`](super::replication::Configuration), so R11, R16 and R24 hold because
//! they hold there. No command searches what grows with the site (the refusals that name a culprit, and the maintenance of a
//! node, look through what belongs to one disk, node or pool); `cargo sim scale` counts what that takes.
//!
//! A refused command has changed nothing, so a catalog may be changed in place.
//!
//! The catalog does not know where a volume's data lies inside a disk, or who is connected right now.

mod attachment;
mod check;
mod client;
mod command;
mod disk;
mod index;
mod layer;
mod name;
mod node;
mod pg;
mod pool;
mod range;
mod refusal;
mod snapshot;
mod state;
mod volume;

#[cfg(test)]
mod tests;

pub use command::{Batch, Command, Event, LEVEL, LastCopies, Locality, Purpose};
pub use disk::next_opening;
pub use name::{NAME_MAX, check_name};
pub use pg::{Move, Pg};
pub use range::{GiveWhy, Left, Owner, Ownership, TakeWhy};
pub use refusal::{Code, Refusal};
pub use snapshot::{RestoreError, SNAPSHOT_VERSION};
pub use state::{
    Attachment, AttachmentKey, Catalog, Client, ClientRole, Disk, DiskState, Entry, FrontEnd,
    ImportMark, Layer, LayerState, Maintenance, MembersBy, NbdClients, Node, Pool, PoolId, Sharing,
    Snapshot, StoreName, Volume, VolumeState,
};

/// The name of the pool that exists from the start.
pub const DEFAULT_POOL: &str = "default";
/// The largest volume: what 32 bits of extent numbers of 4 MiB can name, in bytes.
pub const VOLUME_BYTES_MAX: u64 = 16 << 50;
/// The smallest disk that can be added, in bytes: below it, journal and table leave nothing for data.
pub const DISK_BYTES_MIN: u64 = 64 << 20;
/// How much a catalog holds at most: a site of 1,000 nodes with 10 disks each, and as many volumes as it has PGs. `docs/scale.md`
/// has what that takes in memory.
pub const VOLUMES_MAX: usize = 100_000;
/// How many bytes a second a disk may be limited to be filled with: below 1 MiB it would take two weeks to fill one of 1 TB, and copies are lacking meanwhile.
pub const REBUILD_LIMIT: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 40;
/// The longest time, in seconds, after which I/O without an answer gets an error: a day.
pub const IO_TIMEOUT_MAX: u32 = 86_400;
/// The most clients that hold a certificate or a token at a time.
pub const CLIENTS_MAX: usize = 4_096;
/// The most clients on one volume's list.
pub const CLIENTS_OF_VOLUME_MAX: usize = 64;
/// See [`VOLUMES_MAX`].
pub const DISKS_MAX: usize = 10_240;
/// See [`VOLUMES_MAX`]; as many as `membership` keeps leases for.
pub const NODES_MAX: usize = 1_024;
/// See [`VOLUMES_MAX`]; as many as the solver takes.
pub const PGS_MAX: usize = crate::protocol::placement::PGS_MAX as usize;
/// The most pools of a site.
pub const POOLS_MAX: usize = 256;
/// The most addresses of one node.
pub const ADDRESSES_MAX: usize = 8;
/// The most racks of a site.
pub const RACKS_MAX: usize = 1_024;
/// The most PGs that one command makes: about 100 KiB of a log.
pub const PGS_OF_COMMAND_MAX: usize = 4_096;
/// The most layers of one volume; each costs a read that falls through to it.
pub const LAYERS_MAX: usize = 256;
/// The most PGs that a local volume hashes over: three times what spreads its load to 5 %
/// ([`LOCAL_PGS_MIN`](crate::protocol::placement::LOCAL_PGS_MIN)).
pub const LOCAL_PGS_MAX: usize = 64;
/// The most queues of one attachment: what a guest's driver and the kernel's ublk have use for.
pub const QUEUES_MAX: u16 = 128;

impl Catalog {
    /// Checks `command`, and where nothing speaks against it, carries it out. A refused command has changed
    /// nothing.
    pub fn apply(&mut self, command: &Command) -> Result<Vec<Event>, Refusal> {
        let events = self.carry_out(command)?;
        self.applied += 1;
        assert_eq!(self.check_touched(&events), Ok(()), "after {command:?}");
        Ok(events)
    }

    /// One arm a command, so that the compiler says which one is missing.
    fn carry_out(&mut self, command: &Command) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::AddNode { name } => self.add_node(name),
            Command::JoinNode {
                name,
                addresses,
                entry,
            } => self.join_node(name, addresses, entry),
            Command::SetAddresses { node, addresses } => self.set_addresses(*node, addresses),
            Command::ChooseMembers { by } => self.choose_members(*by),
            Command::AdmitClient {
                name,
                role,
                now,
                until,
            } => self.admit_client(name, *role, (*now, *until)),
            Command::RevokeClient { name } => self.revoke_client(name),
            Command::RemoveNode { node } => self.remove_node(*node),
            Command::SetRack { node, rack } => self.set_rack(*node, rack.as_deref()),
            Command::RecordIncarnation { node, incarnation } => {
                self.record_incarnation(*node, *incarnation)
            }
            Command::SetMaintenance {
                node,
                maintenance,
                until,
            } => self.set_maintenance(*node, *maintenance, *until),
            Command::AddDisk {
                node,
                path,
                store,
                size,
                pool,
                incarnation,
            } => self.add_disk(&disk::NewDisk {
                node: *node,
                path,
                store: *store,
                size: *size,
                pool: pool.as_deref(),
                incarnation: *incarnation,
            }),
            Command::WithdrawDisk { disk } => self.withdraw_disk(*disk),
            Command::RemoveDisk { disk } => self.remove_disk(*disk),
            Command::GrowDisk { disk, size } => self.grow_disk(*disk, *size),
            Command::SetDiskState { disk, state } => self.set_disk_state(*disk, *state),
            Command::SetWeight { disk, weight } => self.set_weight(*disk, *weight),
            Command::OpenDisk {
                disk,
                store,
                before,
                now,
                start,
                last_copies,
            } => {
                let opening = disk::Opening {
                    store: *store,
                    before: *before,
                    now: *now,
                    start: *start,
                };
                self.open_disk(*disk, opening, *last_copies)
            }
            Command::CreatePool {
                name,
                copies,
                min_copies,
                level,
            } => self.create_pool(
                name,
                pool::Wish {
                    copies: *copies,
                    min_copies: *min_copies,
                    level: *level,
                },
            ),
            Command::SetPool {
                pool,
                copies,
                min_copies,
                level,
            } => self.set_pool(
                pool,
                pool::Wish {
                    copies: *copies,
                    min_copies: *min_copies,
                    level: *level,
                },
            ),
            Command::SetOvercommit { pool, percent } => self.set_overcommit(pool, *percent),
            Command::SetRebuildLimit {
                pool,
                bytes_per_second,
            } => self.set_rebuild_limit(pool, *bytes_per_second),
            Command::CreatePgs {
                pool,
                first,
                replicas,
                batch,
            } => self.create_pgs(*pool, *first, replicas, *batch),
            Command::Reconfigure {
                pg,
                version,
                change,
            } => self.reconfigure(*pg, *version, *change),
            Command::WantMove {
                pg,
                version,
                from,
                to,
            } => {
                let (from, to) = (*from, *to);
                self.want_move(*pg, *version, Move { from, to })
            }
            Command::DropMove { pg, version } => self.drop_move(*pg, *version),
            Command::CreateVolume {
                name,
                size,
                block_size,
                purpose,
                pool,
                locality,
            } => self.create_volume(&volume::NewVolume {
                name,
                size: *size,
                block_size: *block_size,
                purpose: *purpose,
                pool: pool.as_deref(),
                locality: *locality,
            }),
            Command::ResizeVolume { name, size } => self.resize_volume(name, *size),
            Command::SetSharing { name, sharing } => self.set_sharing(name, *sharing),
            Command::SetIoTimeout { name, seconds } => self.set_io_timeout(name, *seconds),
            Command::SetClients { name, clients } => self.set_clients(name, clients),
            Command::SnapshotVolume { name, snapshot } => self.snapshot_volume(name, snapshot),
            Command::DeleteSnapshot { name, snapshot } => self.delete_snapshot(name, snapshot),
            Command::FreezeLayer {
                volume,
                layer,
                node,
                epoch,
            } => self.freeze_layer(*volume, *layer, (*node, *epoch)),
            Command::ForgetLayer { volume, layer } => self.forget_layer(*volume, *layer),
            Command::CloneVolume {
                name,
                snapshot,
                clone,
            } => self.clone_volume(name, snapshot, clone),
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
            Command::TakeRange {
                volume,
                node,
                lease,
                after,
                why,
            } => {
                let (node, lease) = (*node, *lease);
                self.take_range(*volume, Owner { node, lease }, *after, *why)
            }
            Command::GiveRange {
                volume,
                node,
                epoch,
                why,
            } => self.give_range(*volume, *node, *epoch, *why),
            Command::HandRange {
                volume,
                node,
                epoch,
                to,
                left,
            } => self.hand_range(*volume, (*node, *epoch), *to, *left),
            Command::ForceTakeRange {
                volume,
                node,
                lease,
                after,
            } => {
                let (node, lease) = (*node, *lease);
                self.force_take_range(*volume, Owner { node, lease }, *after)
            }
        }
    }
}
