//! The superblock: what never changes of a store, and which checkpoint is the newest.
//!
//! Two copies, each 4 KiB, at bytes 0 and 64 Ki. A checkpoint writes the first, waits until it is durable,
//! then writes the second: a torn write leaves one, and rot of either leaves the other. Of two good ones
//! the one with the higher sequence counts.

use super::codec::{Put, Take, seal, unseal};
use super::door::{OpenError, Openings};
use super::root::Position;
use crate::base::{BLOCK, CHUNK, StoreId};

const MAGIC: [u8; 8] = *b"SARSENSB";
/// The format version that this build writes.
pub const FORMAT_VERSION: u32 = 5;
/// The oldest one that it reads. What is new in later ones stands in bytes that are zero in it, and nothing is what zero says there. Of one thing that is not
/// so: builds that wrote 4 let tombstones go and kept no word of it, which reads as "nothing was let go". No build that was released had replicas.
pub const FORMAT_VERSION_OLDEST: u32 = 4;
/// Where the two copies lie, in bytes.
pub const SUPERBLOCK_AT: [u64; 2] = [0, 64 * 1024];
/// The length of a superblock, in bytes.
pub const SUPERBLOCK_LEN: u64 = BLOCK;
/// Where the roots begin, in bytes.
pub(super) const ROOTS_AT: u64 = 128 * 1024;
/// Pages whose manifest entries share one manifest block: (4096 - 64) / 32.
pub(super) const PAGES_PER_MANIFEST_BLOCK: u64 = 126;
/// The length of a table page, in bytes.
pub(super) const PAGE_LEN: u64 = 8192;

/// Sequences, incarnations, checkpoints and batches stay below this: at a million a second that is 146,000
/// years, and counting on from it never overflows.
pub(super) const COUNT_MAX: u64 = 1 << 62;

/// Where everything lies on a disk. All offsets and lengths are in bytes and multiples of 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Room for one root. Four follow one another: two homes, two copies each.
    pub root_len: u64,
    pub manifest_at: u64,
    /// How many manifest blocks; each has two homes side by side.
    pub manifest_blocks: u64,
    pub journal_at: u64,
    pub journal_len: u64,
    /// The first homes of all pages, then the second homes.
    pub table_at: u64,
    pub pages: u64,
    pub slots_at: u64,
    pub slots: u64,
}

impl Geometry {
    /// Where a root lies.
    pub(super) fn root_at(&self, home: u64, copy: u64) -> u64 {
        ROOTS_AT + (home * 2 + copy) * self.root_len
    }

    /// Where a manifest block lies.
    pub(super) fn manifest_block_at(&self, block: u64, home: u64) -> u64 {
        self.manifest_at + (block * 2 + home) * BLOCK
    }

    /// Where a table page lies.
    pub(super) fn page_at(&self, page: u32, home: u8) -> u64 {
        self.table_at + (u64::from(home) * self.pages + u64::from(page)) * PAGE_LEN
    }

    /// Where a slot lies.
    pub(super) fn slot_at(&self, slot: u32) -> u64 {
        self.slots_at + u64::from(slot) * CHUNK
    }

    /// One past the last byte that the store uses.
    pub fn end(&self) -> u64 {
        self.slots_at + self.slots * CHUNK
    }

    /// Whether the parts follow one another without overlap; the field that is wrong where they do not.
    fn check(&self) -> Result<(), OpenError> {
        let wrong = |field, value| Err(OpenError::Inconsistent { field, value });
        let aligned = |value: u64| value.is_multiple_of(BLOCK) && value < 1 << 60;
        if self.root_len == 0 || !aligned(self.root_len) {
            return wrong("root_len", self.root_len);
        }
        if !aligned(self.manifest_at) || self.manifest_at < ROOTS_AT + 4 * self.root_len {
            return wrong("manifest_at", self.manifest_at);
        }
        if self.pages == 0 || self.pages > u64::from(u32::MAX) {
            return wrong("pages", self.pages);
        }
        if self.manifest_blocks != self.pages.div_ceil(PAGES_PER_MANIFEST_BLOCK) {
            return wrong("manifest_blocks", self.manifest_blocks);
        }
        let manifest_end = self.manifest_at + self.manifest_blocks * 2 * BLOCK;
        if !aligned(self.journal_at) || self.journal_at < manifest_end {
            return wrong("journal_at", self.journal_at);
        }
        if !aligned(self.journal_len) || self.journal_len < super::batch::JOURNAL_LEN_MIN {
            return wrong("journal_len", self.journal_len);
        }
        if !aligned(self.table_at) || self.table_at < self.journal_at + self.journal_len {
            return wrong("table_at", self.table_at);
        }
        if !aligned(self.slots_at) || self.slots_at < self.table_at + self.pages * 2 * PAGE_LEN {
            return wrong("slots_at", self.slots_at);
        }
        if self.slots == 0 || self.slots >= u64::from(u32::MAX) {
            return wrong("slots", self.slots);
        }
        Ok(())
    }
}

/// What one superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Of the format, in which it was written. The next writing has [`FORMAT_VERSION`].
    pub version: u32,
    pub store: StoreId,
    /// Drawn at random at format: stands in every journal header, so that a guest cannot forge one.
    pub instance_key: [u8; 16],
    /// Raised by every write of the superblock.
    pub sequence: u64,
    /// Raised by every opening of the store, by the store itself.
    pub incarnation: u64,
    /// What the manager has for openings (R19).
    pub openings: Openings,
    /// The newest checkpoint. Its root lies in the home `checkpoint % 2`.
    pub checkpoint: u64,
    /// The crc that this root carries.
    pub root_crc: u32,
    /// The bytes of this root.
    pub root_bytes: u32,
    pub geometry: Geometry,
    /// Where the journal ended when this incarnation opened it, or since it was closed: every batch before is durable, and
    /// what an earlier incarnation left behind is not part of it, whatever it looks like.
    pub(super) end: Position,
    /// The store was closed: no later batch was written. Both copies say so, or it does not count: see
    /// [`Superblock::choose`].
    pub closed: bool,
}

/// The bit of a superblock's flags that says it was closed.
const CLOSED: u32 = 1;

impl Superblock {
    /// Appends the 4096 bytes of this superblock.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut put = Put(out);
        put.bytes(&MAGIC);
        put.u32(0);
        put.u32(FORMAT_VERSION);
        put.bytes(&self.store.0);
        put.bytes(&self.instance_key);
        put.u64(self.sequence);
        put.u64(self.incarnation);
        put.u64(self.checkpoint);
        put.u32(self.root_crc);
        put.u32(self.root_bytes);
        let g = &self.geometry;
        for value in [
            g.root_len,
            g.manifest_at,
            g.manifest_blocks,
            g.journal_at,
            g.journal_len,
            g.table_at,
            g.pages,
            g.slots_at,
            g.slots,
        ] {
            put.u64(value);
        }
        put.u64(self.end.offset);
        put.u64(self.end.batch);
        put.u32(self.end.previous);
        put.u32(if self.closed { CLOSED } else { 0 });
        put.u64(self.openings.last);
        put.u64(self.openings.recorded);
        put.pad_to(start, SUPERBLOCK_LEN as usize);
        seal(&mut out[start..]);
    }

    /// Reads one copy, of this version or the one before. The version is looked at before the checksum: a newer format may seal otherwise.
    pub fn decode(bytes: &[u8]) -> Result<Superblock, OpenError> {
        if bytes.len() != SUPERBLOCK_LEN as usize || bytes[..8] != MAGIC {
            return Err(OpenError::NotASarsenDisk);
        }
        let sealed = unseal(bytes, MAGIC).is_some();
        let mut take = Take::new(&bytes[12..]);
        let fields = || -> Option<(u32, Superblock)> {
            let version = take.u32()?;
            let store = take.id()?;
            let instance_key = take.key()?;
            let (sequence, incarnation, checkpoint) = (take.u64()?, take.u64()?, take.u64()?);
            let (root_crc, root_bytes) = (take.u32()?, take.u32()?);
            let geometry = Geometry {
                root_len: take.u64()?,
                manifest_at: take.u64()?,
                manifest_blocks: take.u64()?,
                journal_at: take.u64()?,
                journal_len: take.u64()?,
                table_at: take.u64()?,
                pages: take.u64()?,
                slots_at: take.u64()?,
                slots: take.u64()?,
            };
            let end = Position {
                offset: take.u64()?,
                batch: take.u64()?,
                previous: take.u32()?,
            };
            let closed = take.u32()? & CLOSED != 0;
            let openings = Openings {
                last: take.u64()?,
                recorded: take.u64()?,
            };
            Some((
                version,
                Superblock {
                    version,
                    openings,
                    store,
                    instance_key,
                    sequence,
                    incarnation,
                    checkpoint,
                    root_crc,
                    root_bytes,
                    geometry,
                    end,
                    closed,
                },
            ))
        };
        let (version, superblock) = { fields }().ok_or(OpenError::DamagedSuperblock)?;
        if !sealed {
            return Err(OpenError::DamagedSuperblock);
        }
        if !(FORMAT_VERSION_OLDEST..=FORMAT_VERSION).contains(&version) {
            return Err(OpenError::UnknownVersion {
                found: version,
                reads: FORMAT_VERSION,
            });
        }
        superblock.geometry.check()?;
        for (field, value) in [
            ("sequence", superblock.sequence),
            ("incarnation", superblock.incarnation),
            ("checkpoint", superblock.checkpoint),
        ] {
            if value >= COUNT_MAX {
                return Err(OpenError::Inconsistent { field, value });
            }
        }
        if superblock.openings.recorded > superblock.openings.last {
            return Err(OpenError::Inconsistent {
                field: "recorded opening",
                value: superblock.openings.recorded,
            });
        }
        let names = ["journal's end", "batch of the journal's end"];
        superblock.end.check(&superblock.geometry, names)?;
        let value = u64::from(superblock.root_bytes);
        let fits = value > 0 && value <= superblock.geometry.root_len;
        if !fits || !value.is_multiple_of(BLOCK) {
            return Err(OpenError::Inconsistent {
                field: "root_bytes",
                value,
            });
        }
        Ok(superblock)
    }

    /// Which of two copies counts, given what decoding each brought, on a disk of `disk_bytes`. An opening clears `closed`
    /// in one copy after the other before it writes anything else: two equal copies prove that none has come so far.
    pub fn choose(
        a: Result<Superblock, OpenError>,
        b: Result<Superblock, OpenError>,
        disk_bytes: u64,
    ) -> Result<Superblock, OpenError> {
        let chosen = match (a, b) {
            // The copy of another build is not passed over for an older state that this one can read.
            (Err(other @ OpenError::UnknownVersion { .. }), _)
            | (_, Err(other @ OpenError::UnknownVersion { .. })) => Err(other),
            (Ok(a), Ok(b)) => {
                let closed = a.closed && a == b;
                let newest = if b.sequence > a.sequence { b } else { a };
                Ok(Superblock { closed, ..newest })
            }
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(Superblock {
                closed: false,
                ..one
            }),
            (Err(OpenError::NotASarsenDisk), Err(other)) => Err(other),
            (Err(first), Err(_)) => Err(first),
        }?;
        let needs = chosen.geometry.end();
        if needs > disk_bytes {
            return Err(OpenError::DiskTooShort {
                needs,
                has: disk_bytes,
            });
        }
        Ok(chosen)
    }
}
