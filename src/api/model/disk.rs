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
