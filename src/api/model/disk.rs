//! Disks.

use serde::{Deserialize, Serialize};

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub id: u32,
    pub node: String,
    pub pool: String,
    pub path: String,
    /// The identity of the store on it, as 32 hexadecimal digits.
    pub store: String,
    pub size_bytes: u64,
    /// `serving`, `draining`, `missing` where it was away for so long that its copies are made anew elsewhere, `out_of_service`, or `failed` where the node could not open it or lost it; `elsewhere` where it is
    /// another node's, which knows how it is.
    pub state: String,
    /// Why it is `failed`; empty else.
    pub reason: String,
    /// How many placement groups have a replica on it.
    pub pgs: u32,
    /// What would move, where this answers `dry_run` of a drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<Moves>,
    /// What would come of it, where this answers `dry_run` of its being added. `id` is the number that it would be given now; `store` is empty where it would be formatted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival: Option<Arrival>,
}

/// What a new disk would bring and be given, as things are now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Its room for payload.
    pub capacity_bytes: u64,
    /// What the disks of its pool that take data would have together. Its share of what lies in the pool is about `size_bytes` of these.
    pub pool_size_bytes: u64,
    /// Copies of placement groups that would move to it, or be made there.
    pub copies: u32,
    /// About what they hold; nothing where that is not known of all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Why nothing would move to it; empty where something would.
    #[serde(default)]
    pub reason: String,
}

/// What a drain would move, as things are now. Bytes are about what is in use on the disks that are emptied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moves {
    /// Copies of placement groups that move, or are moving already.
    pub copies: u32,
    /// What they hold; nothing where that is not known of all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Copies that end without being made elsewhere: there are as many as the pool wants already, or nothing is left that they could be made from.
    pub staying: u32,
    /// Where they go, by disk.
    pub to: Vec<MoveTo>,
    /// Volumes that lack copies now: these are made first, or stay lacking where that cannot be done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes_lacking: Vec<String>,
}

/// What a disk would be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveTo {
    pub disk: u32,
    pub node: String,
    pub copies: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// What is free there now; nothing where its node does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Whether it has the room; nothing where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_room: Option<bool>,
}

/// `GET /v1/disks`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskList {
    pub disks: Vec<Disk>,
}

/// `POST /v1/disks`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskAdd {
    /// Absolute, as the node sees it.
    pub path: String,
    /// Of a file that is to be created; a block device or a file that is there has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// By its name; nothing: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Nothing is made, written or changed: what would come of it is answered, or why it cannot be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// `POST /v1/disks/ID/drain`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskDrain {
    /// The disk is to stay after all.
    #[serde(default)]
    pub undo: bool,
    /// Nothing is changed: what would move is answered, or why it cannot be.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/disks/ID/replace`: another disk of the same node is added to the same pool, and this one is drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskReplace {
    /// Of the new disk, as in [`DiskAdd`]. One that is there already, as after an interruption, is not added again.
    pub path: String,
    /// As in [`DiskAdd`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Nothing is made, written or changed: `arrival` of the new disk and `moves` of the old one are answered, or why it cannot be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// A disk that is being drained, and the one that takes its place. It is removed when it is empty, by who asks for that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReplaced {
    pub old: Disk,
    pub new: Disk,
}

/// `POST /v1/disks/ID/grow`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskGrow {
    /// What the disk is to have. A file is made that long; without it, what the device or file has by now is
    /// taken into use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

/// `POST /v1/disks/ID/scrub`: every block of the disk was read and compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubResult {
    pub disk: u32,
    pub path: String,
    pub blocks: u64,
    /// Blocks that do not match their checksum or could not be read.
    pub bad_blocks: u64,
    pub elapsed_ms: u64,
}
