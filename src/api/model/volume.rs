//! Volumes.

use super::attachment::Attachment;
use super::pool::PgStates;
use serde::{Deserialize, Serialize};

/// Where a volume is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    Ready,
    /// Ready, but parts of it are on disks that do not serve, and answer with I/O errors.
    Degraded,
    /// It should be ready, and nothing of it can be reached.
    Failed,
    Importing,
    Deleting,
}

/// A layer of a volume, read only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    pub id: u64,
    pub parent: Option<u64>,
    /// `writable` or `frozen`.
    pub state: String,
}

/// How far an import has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportState {
    /// Everything before this byte is durable.
    pub through_bytes: u64,
    /// Of those bytes, as 8 hexadecimal digits.
    pub crc32c: String,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub id: u64,
    pub name: String,
    /// The node on whose disks it lies.
    #[serde(default)]
    pub node: String,
    pub pool: String,
    pub size_bytes: u64,
    /// Of its logical sectors.
    pub block_size_bytes: u32,
    pub state: VolumeState,
    /// Why it is not whole; empty where it is.
    #[serde(default)]
    pub reason: String,
    /// Front-end connections to it at this node.
    pub connections: u64,
    /// Whether `bench` made it.
    pub bench: bool,
    /// Whether several nodes may attach it at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// After how long I/O without an answer gets an error; nothing where it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_timeout_seconds: Option<u32>,
    /// Which clients may use it over NBD under TLS; nothing where nobody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<NbdClients>,
    /// Over how many placement groups it is spread.
    pub pgs: u32,
    /// How those are; nothing where the node is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pg_states: Option<PgStates>,
    pub layers: Vec<Layer>,
    /// While it is being imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<ImportState>,
    /// What serves it to a guest, or as a device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// Where an NBD client finds it.
    pub uri: String,
}

/// `GET /v1/volumes`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeList {
    pub volumes: Vec<Volume>,
}

/// What a new volume is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeCreatePurpose {
    #[default]
    Use,
    /// It is filled through `/data` first, and nobody can attach it before.
    Import,
    /// `bench` may write to it.
    Bench,
}

/// `POST /v1/volumes`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeCreate {
    pub name: String,
    pub size_bytes: u64,
    #[serde(default = "default_block_size")]
    pub block_size_bytes: u32,
    #[serde(default)]
    pub purpose: VolumeCreatePurpose,
    /// By its name; nothing: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    #[serde(default, skip_serializing_if = "Locality::is_spread")]
    pub locality: Locality,
}

/// Where a new volume's data is to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Locality {
    /// On all disks of its pool.
    #[default]
    Spread,
    /// With one copy on the node that is asked.
    Local,
}

impl Locality {
    fn is_spread(&self) -> bool {
        *self == Locality::Spread
    }
}

fn default_block_size() -> u32 {
    4096
}

/// `PATCH /v1/volumes/NAME`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeChange {
    /// The new size, which must not be smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Whether several nodes may attach it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
    /// After how long I/O without an answer gets an error; 0 for one that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_timeout_seconds: Option<u32>,
    /// Which clients may use it over NBD under TLS. Over TCP only an admin changes that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<NbdClients>,
}

/// Which clients, by the names of their certificates, may use a volume: `"none"`, `"any"` or `{"only": [...]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NbdClients {
    None,
    Any,
    Only(Vec<String>),
}

/// `POST /v1/volumes/NAME/import`: the source has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportFinish {
    /// How long the source was; what lies behind it in the volume reads as zeroes.
    pub source_bytes: u64,
    /// Of the whole source, holes included, as 8 hexadecimal digits.
    pub crc32c: String,
}

/// A run of bytes of the same allocation state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRun {
    pub offset_bytes: u64,
    pub len_bytes: u64,
    /// Whether it reads as zeroes.
    pub zero: bool,
    /// Whether it takes no space.
    pub hole: bool,
}

/// `GET /v1/volumes/NAME/map`: the runs from the asked offset on; they may end before the asked length, but
/// cover at least its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    pub runs: Vec<MapRun>,
}
