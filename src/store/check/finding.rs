//! What checking an image brings to light: findings, each with its place, and counts.

use crate::base::{FamilyId, LayerId, VolumeId};
use crate::store::door::OpenError;
use serde::{Serialize, Serializer};
use std::fmt;

/// Findings that a report keeps; of those beyond, only their number. A disk that is damaged all
/// over must not fill the memory of who looks at it.
const FINDINGS_MAX: usize = 10_000;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// What a crash leaves behind rightly.
    Note,
    /// Nothing is lost yet: another copy or a later write covers it.
    Warning,
    /// Data is lost, or the store cannot know what is the newest.
    Error,
}

/// The structure that a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "structure", rename_all = "snake_case")]
pub enum Place {
    Superblock {
        copy: u8,
    },
    Root {
        copy: u8,
    },
    ManifestBlock {
        block: u64,
    },
    Page {
        page: u32,
        family: FamilyId,
        extent: u32,
    },
    /// The ring as a whole, or a place in it that belongs to no batch.
    Journal,
    Batch {
        batch: u64,
    },
    /// A block of a volume as it lies in the journal.
    Payload {
        batch: u64,
        volume: Option<VolumeId>,
        layer: LayerId,
        block: u64,
    },
    /// A chunk of a volume, as the table or the journal names it.
    Chunk {
        volume: Option<VolumeId>,
        layer: LayerId,
        chunk: u64,
        slot: u32,
    },
    /// A block of a volume as it lies in its slot.
    Block {
        volume: Option<VolumeId>,
        layer: LayerId,
        block: u64,
        slot: u32,
    },
}

/// What is wrong there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "wrong", rename_all = "snake_case")]
pub enum Wrong {
    /// The disk answers with an I/O error.
    Unreadable,
    /// It does not match its checksum, or is another thing than what should be there.
    Damaged,
    /// It is whole, and a value in it is impossible.
    Impossible { field: &'static str, value: u64 },
    /// A version of the format that this build does not read.
    OtherVersion { found: u32 },
    /// It is older than the other copy: a crash fell between the two writes.
    OlderCopy { sequence: u64 },
    /// A batch was written under this checkpoint, which is newer than the one that the superblocks
    /// name.
    CheckpointLost { checkpoint: u64 },
    /// An acknowledged batch should be here.
    BatchMissing,
    /// The journal was not closed: a batch that was being written when the store stopped may be
    /// lost here.
    NotClosed,
    /// Something that looks like a batch stands where the journal ends: a write that the crash
    /// tore.
    Torn,
    /// Another chunk has this slot too.
    SlotShared,
    /// Slots from a certain one on were never given out, and this is one of them.
    SlotNeverUsed { touched: u32 },
    /// The same chunk stands in the extent's pages twice.
    Doubled,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    #[serde(flatten)]
    pub place: Place,
    #[serde(flatten)]
    pub wrong: Wrong,
    /// Where it lies on the disk, in bytes.
    #[serde(rename = "offset_bytes")]
    pub offset: u64,
    #[serde(rename = "len_bytes")]
    pub len: u64,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    pub manifest_blocks: u64,
    /// Table pages in use.
    pub pages: u64,
    /// Batches that the next opening replays.
    pub batches: u64,
    pub records: u64,
    pub volumes: u64,
    pub layers: u64,
    pub extents: u64,
    pub chunks: u64,
    /// Those of replicated placement groups.
    pub replicas: u64,
    pub slots_used: u64,
    pub slots_free: u64,
    /// Blocks in slots whose checksum was compared.
    pub blocks_checked: u64,
    /// Blocks in the journal whose checksum was compared.
    pub journal_blocks_checked: u64,
    /// Blocks, in slots, that cannot be read or do not match.
    pub blocks_bad: u64,
}

/// What checking an image brought.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// Why the store cannot be opened, where it cannot; nothing behind that point was looked at.
    #[serde(serialize_with = "as_text")]
    pub refused: Option<OpenError>,
    pub findings: Vec<Finding>,
    /// Findings beyond those that are kept.
    pub findings_dropped: u64,
    pub counts: Counts,
}

fn as_text<S: Serializer>(error: &Option<OpenError>, to: S) -> Result<S::Ok, S::Error> {
    error.as_ref().map(OpenError::to_string).serialize(to)
}

impl Report {
    /// Whether the image is as good as a store can be after a crash.
    pub fn is_sound(&self) -> bool {
        self.refused.is_none() && self.worst() <= Some(Severity::Note)
    }

    /// The worst severity of what was found; `None` where nothing was.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    pub(super) fn add(
        &mut self,
        severity: Severity,
        place: Place,
        wrong: Wrong,
        (offset, len): (u64, u64),
    ) {
        let finding = Finding {
            severity,
            place,
            wrong,
            offset,
            len,
        };
        if self.findings.len() < FINDINGS_MAX {
            return self.findings.push(finding);
        }
        self.findings_dropped += 1;
        // What is kept must not hide how bad it is.
        if let Some(last) = self.findings.last_mut()
            && last.severity < severity
        {
            *last = finding;
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |volume: &Option<VolumeId>| volume.map_or("?".into(), |id| id.to_string());
        match self {
            Place::Superblock { copy } => write!(f, "superblock {copy}"),
            Place::Root { copy } => write!(f, "root, copy {copy}"),
            Place::ManifestBlock { block } => write!(f, "manifest block {block}"),
            Place::Page {
                page,
                family,
                extent,
            } => write!(f, "table page {page} (family {family}, extent {extent})"),
            Place::Journal => f.write_str("journal"),
            Place::Batch { batch } => write!(f, "journal batch {batch}"),
            Place::Payload {
                batch,
                volume,
                layer,
                block,
            } => {
                let volume = of(volume);
                write!(
                    f,
                    "journal batch {batch} (volume {volume}, layer {layer}, block {block})"
                )
            }
            Place::Chunk {
                volume,
                layer,
                chunk,
                slot,
            } => {
                let volume = of(volume);
                write!(
                    f,
                    "slot {slot} (volume {volume}, layer {layer}, chunk {chunk})"
                )
            }
            Place::Block {
                volume,
                layer,
                block,
                slot,
            } => {
                let volume = of(volume);
                write!(
                    f,
                    "slot {slot} (volume {volume}, layer {layer}, block {block})"
                )
            }
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Unreadable => f.write_str("cannot be read"),
            Wrong::Damaged => f.write_str("does not match its checksum"),
            Wrong::Impossible { field, value } => {
                write!(f, "the field {field} has the impossible value {value}")
            }
            Wrong::OtherVersion { found } => write!(
                f,
                "is of format version {found}, which this build does not read"
            ),
            Wrong::OlderCopy { sequence } => {
                write!(f, "is older than the other copy (sequence {sequence})")
            }
            Wrong::CheckpointLost { checkpoint } => {
                write!(
                    f,
                    "checkpoint {checkpoint} was durable, and no superblock names it"
                )
            }
            Wrong::BatchMissing => f.write_str("is missing or damaged though it was acknowledged"),
            Wrong::NotClosed => f.write_str("the journal ends here and was not closed"),
            Wrong::Torn => f.write_str("is not whole: torn by a crash, and never acknowledged"),
            Wrong::SlotShared => f.write_str("belongs to another chunk too"),
            Wrong::SlotNeverUsed { touched } => {
                write!(f, "was never given out (only slots below {touched} were)")
            }
            Wrong::Doubled => f.write_str("stands in the table twice"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.place, self.offset, self.wrong)
    }
}
