//! The manifest: for every table page, whose it is, which home holds it, and the checksum that it must have.
//!
//! A page that a lying disk did not write, or wrote elsewhere, has another checksum than the manifest says:
//! it is damaged, and never taken for an older state that would be served as data.

use super::codec::{Put, Take, seal, unseal};
use super::superblock::PAGES_PER_MANIFEST_BLOCK;
use crate::base::{BLOCK, ExtentNo, FamilyId, PgId, StoreId};

const MAGIC: [u8; 8] = *b"SARSENMF";
const HEAD: usize = 64;

/// A page that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageRef {
    pub family: FamilyId,
    pub extent: ExtentNo,
    /// Its place among the pages of its extent.
    pub index: u16,
    /// Which of its homes holds it.
    pub home: u8,
    /// Every batch up to this one is in it.
    pub lsn: u64,
    pub crc: u32,
    /// The placement group of its extent.
    pub pg: PgId,
}

/// Appends the manifest block `number` (4096 bytes), which holds `pages`; returns its crc.
pub(super) fn encode(
    store: StoreId,
    number: u64,
    checkpoint: u64,
    pages: &[Option<PageRef>],
    out: &mut Vec<u8>,
) -> u32 {
    let start = out.len();
    let mut put = Put(out);
    put.bytes(&MAGIC);
    put.u32(0);
    put.u32(pages.len() as u32);
    put.bytes(&store.0);
    put.u64(number);
    put.u64(checkpoint);
    put.pad_to(start, HEAD);
    for page in pages {
        let Some(page) = page else {
            put.bytes(&[0; 32]);
            continue;
        };
        put.u64(page.family.0);
        put.u32(page.extent.0);
        put.u16(page.index);
        put.u8(page.home);
        put.u8(1);
        put.u64(page.lsn);
        put.u32(page.crc);
        put.u32(page.pg.0);
    }
    put.pad_to(start, BLOCK as usize);
    seal(&mut out[start..])
}

/// Reads a manifest block; `None` where it is damaged, another one, or does not carry `crc`.
pub(super) fn decode(
    bytes: &[u8],
    store: StoreId,
    number: u64,
    crc: u32,
) -> Option<Vec<Option<PageRef>>> {
    if unseal(bytes, MAGIC)? != crc {
        return None;
    }
    let mut take = Take::new(&bytes[12..]);
    let count = u64::from(take.u32()?);
    if take.id()? != store || take.u64()? != number || count > PAGES_PER_MANIFEST_BLOCK {
        return None;
    }
    let mut take = Take::new(bytes.get(HEAD..)?);
    (0..count)
        .map(|_| {
            let (family, extent, index) = (take.u64()?, take.u32()?, take.u16()?);
            let (home, used, lsn) = (take.u8()?, take.u8()?, take.u64()?);
            let (crc, pg) = (take.u32()?, PgId(take.u32()?));
            if home > 1 || used > 1 {
                return None;
            }
            Some((used == 1).then_some(PageRef {
                family: FamilyId(family),
                extent: ExtentNo(extent),
                index,
                home,
                lsn,
                crc,
                pg,
            }))
        })
        .collect()
}
