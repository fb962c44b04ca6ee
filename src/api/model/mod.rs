//! What the API speaks: plain JSON structs, shared by server and client. A field's name carries its unit. Within
//! `/v1` a field may be added; none changes its meaning or goes away. Golden tests hold that.

mod attachment;
mod bench;
mod client;
mod cluster;
mod disk;
mod error;
mod node;
mod pool;
mod status;
mod upgrade;
mod volume;

#[cfg(test)]
mod tests;

pub use attachment::{Attach, Attachment, AttachmentList, AttachmentState, Detach, FrontEnd};
pub use bench::{BenchRequest, BenchResult, Workload};
pub use client::{
    ClientRole, ClusterApiToken, ClusterClient, ClusterClientMade, ClusterClientMake,
    ClusterClients,
};
pub use cluster::{
    ClusterFounded, ClusterJoin, ClusterJoined, ClusterMembersSet, ClusterNode, ClusterStatus,
    ClusterToken, ClusterTokenMake, MembersChange,
};
pub use disk::{
    Arrival, Disk, DiskAdd, DiskDrain, DiskGrow, DiskList, DiskReplace, DiskReplaced, MoveTo,
    Moves, ScrubResult,
};
pub use error::{ErrorBody, ErrorCode};
pub use node::{
    Maintenance, Node, NodeData, NodeDrain, NodeMaintenance, NodeRack, NodeRemove, NodeRemoved,
    Nodes, Switch,
};
pub use pool::{
    FilledDisk, Lack, LackingDisk, Level, PgStates, Pool, PoolCreate, PoolList, PoolSet, Rebuild,
};
pub use status::{Alert, AlertList, NodeList, NodeStatus, Status};
pub use upgrade::{Checked, Restart, Upgrade, Upgrading};
pub use volume::{
    ImportFinish, ImportState, Layer, Locality, Map, MapRun, NbdClients, Volume, VolumeChange,
    VolumeCreate, VolumeCreatePurpose, VolumeList, VolumeState,
};

/// The header that carries the crc32c of a binary body, as 8 hexadecimal digits.
pub const CRC_HEADER: &str = "x-sarsen-crc32c";
/// The largest binary body, in bytes.
pub const DATA_BYTES_MAX: u64 = 4 << 20;

/// A crc32c as the API writes it.
pub fn crc_text(crc: u32) -> String {
    format!("{crc:08x}")
}

/// A crc32c as the API writes it, read back.
pub fn crc_of_text(text: &str) -> Option<u32> {
    let digits = text.len() == 8 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    digits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}
