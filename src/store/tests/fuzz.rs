//! Mutated structures: no decoder panics or allocates much, and a disk with nonsense under right
//! checksums is opened or refused, and checked, without a panic.
//!
//! The input is mostly valid, and half of it is sealed again after it was mutated, so that the
//! parser behind the checksum is entered. SARSEN_FUZZ_ITERATIONS makes it longer, SARSEN_FUZZ_SEED
//! another one.

use super::story::{self, check_bytes};
use crate::base::{BLOCK, ExtentNo, FamilyId, Prng, RequestKind, StoreId};
use crate::shard::world::World;
use crate::store::check::Image;
use crate::store::codec::seal;
use crate::store::page::{PageName, decode as decode_page};
use crate::store::record::Record;
use crate::store::root::Root;
use crate::store::superblock::{PAGE_LEN, SUPERBLOCK_AT, SUPERBLOCK_LEN, Superblock};
use crate::store::{DiskFault, Report, Severity, Wrong, batch, manifest};

fn from_env(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok();
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

fn seed() -> Prng {
    Prng::new(from_env("SARSEN_FUZZ_SEED", 1))
}

/// Changes some bytes; values that are edges are likelier than others. Most changes fall into the
/// first `busy`.
fn mutate(bytes: &mut [u8], busy: usize, prng: &mut Prng) {
    for _ in 0..prng.between(1, 6) {
        let bound = if prng.one_in(4) { bytes.len() } else { busy };
        let at = prng.below(bound.min(bytes.len()) as u64) as usize;
        let width = (1usize << prng.below(4)).min(bytes.len() - at);
        let value: u64 = match prng.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << prng.below(64),
            3 => prng.below(300),
            4 => u64::from(bytes[at]).wrapping_add(1),
            _ => prng.next_u64(),
        };
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// Runs `enter` on mutated copies of `valid`, of which half are sealed again.
fn fuzz(valid: &[u8], busy: usize, mut enter: impl FnMut(&[u8], u32)) {
    let mut prng = seed();
    for _ in 0..from_env("SARSEN_FUZZ_ITERATIONS", 20_000) {
        let mut bytes = valid.to_vec();
        mutate(&mut bytes, busy, &mut prng);
        let sealed = prng.one_in(2);
        let crc = if sealed { seal(&mut bytes) } else { 0 };
        if prng.one_in(20) {
            bytes.truncate(prng.below(bytes.len() as u64) as usize);
        }
        enter(&bytes, crc);
    }
}

/// An image with everything in it, and where its structures lie.
struct Parts {
    disk: Vec<u8>,
    image: Image,
    page: u32,
    /// Where the header of the last batch lies, and its length in bytes.
    last: (usize, usize),
    headers: Vec<Vec<u8>>,
}

fn parts() -> Parts {
    let disk = story::layers().disk;
    let mut report = Report::default();
    let mut read = |offset: u64, bytes: &mut [u8]| -> Result<(), DiskFault> {
        bytes.copy_from_slice(&disk[offset as usize..][..bytes.len()]);
        Ok(())
    };
    let image = Image::open(&mut read, disk.len() as u64, &mut report).unwrap();
    let mut headers = Vec::new();
    let mut last = (0, 0);
    image.follow(&mut read, &mut report, |found, _| {
        let at = (image.superblock.geometry.journal_at + found.offset) as usize;
        last = (at, found.header_len as usize);
        headers.push(disk[at..][..found.header_len as usize].to_vec());
    });
    let page = image.pages.iter().position(Option::is_some).unwrap() as u32;
    Parts {
        disk,
        image,
        page,
        last,
        headers,
    }
}

impl Parts {
    fn root_at(&self) -> (usize, usize) {
        let superblock = &self.image.superblock;
        let at = superblock.geometry.root_at(superblock.checkpoint % 2, 0);
        (at as usize, superblock.root_bytes as usize)
    }

    fn manifest_at(&self) -> usize {
        let home = u64::from(self.image.root.manifest[0].home);
        self.image.superblock.geometry.manifest_block_at(0, home) as usize
    }

    fn page_at(&self) -> usize {
        let named = self.image.pages[self.page as usize].unwrap();
        self.image
            .superblock
            .geometry
            .page_at(self.page, named.home) as usize
    }

    fn page_name(&self) -> PageName {
        let named = self.image.pages[self.page as usize].unwrap();
        PageName {
            store: self.image.superblock.store,
            page: self.page,
            family: named.family,
            extent: named.extent,
            index: named.index,
            lsn: named.lsn,
            pg: named.pg,
        }
    }

    /// Makes every checksum from the table page up to the superblocks right, over what the bytes
    /// are now.
    fn seal_all(&self, disk: &mut [u8]) {
        let put = |disk: &mut [u8], at: usize, crc: u32| {
            disk[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        };
        let page = seal(&mut disk[self.page_at()..][..PAGE_LEN as usize]);
        let entry = self.manifest_at() + 64 + self.page as usize * 32;
        put(disk, entry + 24, page);
        let block = seal(&mut disk[self.manifest_at()..][..BLOCK as usize]);
        let (root_at, root_len) = self.root_at();
        put(disk, root_at + 96, block);
        let root = seal(&mut disk[root_at..][..root_len]);
        for at in SUPERBLOCK_AT {
            put(disk, at as usize + 72, root);
            seal(&mut disk[at as usize..][..SUPERBLOCK_LEN as usize]);
        }
    }
}

#[test]
fn a_mutated_superblock_is_no_harm() {
    let parts = parts();
    fuzz(&parts.disk[..SUPERBLOCK_LEN as usize], 160, |bytes, _| {
        let decoded = Superblock::decode(bytes);
        if let Ok(superblock) = decoded {
            let geometry = superblock.geometry;
            assert!(geometry.slots_at < geometry.end() && geometry.journal_len >= BLOCK);
        }
        let _ = Superblock::choose(decoded.clone(), decoded, 1 << 40);
    });
}

#[test]
fn a_mutated_root_is_no_harm() {
    let parts = parts();
    let (at, len) = parts.root_at();
    fuzz(&parts.disk[at..at + len], 256, |bytes, _| {
        if let Some((root, _)) = Root::decode(bytes) {
            assert!(root.manifest.len() <= len && root.volumes.len() <= len);
            let _ = root.check(&parts.image.superblock.geometry);
        }
    });
}

#[test]
fn a_mutated_manifest_block_is_no_harm() {
    let parts = parts();
    let at = parts.manifest_at();
    let store = parts.image.superblock.store;
    fuzz(&parts.disk[at..][..BLOCK as usize], 192, |bytes, crc| {
        if let Some(pages) = manifest::decode(bytes, store, 0, crc) {
            assert!(pages.len() <= 126 && pages.iter().flatten().all(|page| page.home < 2));
        }
    });
}

#[test]
fn a_mutated_page_is_no_harm_and_leaves_no_half_of_it() {
    let parts = parts();
    let (at, name) = (parts.page_at(), parts.page_name());
    let mut entries = Vec::new();
    let mut taken = 0;
    fuzz(&parts.disk[at..][..PAGE_LEN as usize], 400, |bytes, crc| {
        entries.clear();
        match decode_page(bytes, &name, crc, 50, &mut entries) {
            Some(()) => taken += 1,
            None => assert!(entries.is_empty()),
        }
        assert!(entries.iter().all(|entry| entry.place < 64));
    });
    assert!(taken > 0);
    let other = PageName {
        store: StoreId([1; 16]),
        family: FamilyId(99),
        extent: ExtentNo(1),
        ..name
    };
    let bytes = &parts.disk[at..][..PAGE_LEN as usize];
    let crc = parts.image.pages[parts.page as usize].unwrap().crc;
    assert!(decode_page(bytes, &other, crc, 50, &mut entries).is_none());
}

#[test]
fn a_mutated_batch_is_no_harm() {
    for header in parts().headers {
        fuzz(&header, 400, |bytes, _| {
            let _ = batch::claimed_len(bytes);
            if let Some((header, _, records)) = batch::decode(bytes) {
                let payload: u32 = records.iter().map(Record::payload_blocks).sum();
                assert_eq!(payload, header.payload_blocks);
            }
        });
    }
}

/// Opens a disk and uses it, whatever is on it.
fn use_disk(world: &mut World) {
    world.buffers.clear();
    world.notes.clear();
    world.undo = Some(Vec::new());
    world.open_disk();
    if world.opened.is_ok() {
        world.open_volume_at_once(&[1, 2]);
        for offset in (0..8 << 16).step_by(1 << 16) {
            let _ = world.try_request(RequestKind::Read, offset, &[0; 1 << 16]);
        }
        world.settle();
        world.close();
    }
    world.take_back();
}

#[test]
fn a_disk_with_nonsense_under_right_checksums_is_opened_or_refused() {
    let parts = parts();
    let mut prng = seed();
    let mut world = World::with_disk(parts.disk.clone());
    let (root_at, root_len) = parts.root_at();
    let places = [
        (0, SUPERBLOCK_LEN as usize, 160),
        (root_at, root_len, 256),
        (parts.manifest_at(), BLOCK as usize, 192),
        (parts.page_at(), PAGE_LEN as usize, 400),
        (parts.last.0, parts.last.1, 256),
    ];
    let mut refused = 0;
    for _ in 0..from_env("SARSEN_FUZZ_ITERATIONS", 20_000) / 10 {
        let (at, len, busy) = places[prng.below(places.len() as u64) as usize];
        let disk = &mut world.disk;
        mutate(&mut disk[at..at + len], busy, &mut prng);
        if at == 0 {
            disk.copy_within(0..SUPERBLOCK_LEN as usize, SUPERBLOCK_AT[1] as usize);
        }
        if at == parts.last.0 {
            seal(&mut disk[at..at + len]);
        }
        parts.seal_all(disk);
        check_bytes(&world.disk);
        use_disk(&mut world);
        refused += u32::from(world.opened.is_err());
        for (at, len, _) in places {
            world.disk[at..at + len].copy_from_slice(&parts.disk[at..at + len]);
        }
        let second = SUPERBLOCK_AT[1] as usize;
        world.disk[second..][..4096].copy_from_slice(&parts.disk[second..][..4096]);
    }
    assert!(
        world.disk == parts.disk,
        "every round begins with the same disk"
    );
    assert!(refused > 10, "{refused}");
}

#[test]
fn a_slot_with_two_owners_and_one_never_given_out_are_found() {
    let parts = parts();
    let slot_of = |n: usize| parts.page_at() + 64 + n * 112 + 8;
    let found = |slot: [u8; 4]| {
        let mut disk = parts.disk.clone();
        disk[slot_of(1)..][..4].copy_from_slice(&slot);
        parts.seal_all(&mut disk);
        let report = check_bytes(&disk);
        assert_eq!(report.worst(), Some(Severity::Error));
        report
            .findings
            .into_iter()
            .map(|found| found.wrong)
            .collect::<Vec<_>>()
    };
    let first: [u8; 4] = parts.disk[slot_of(0)..][..4].try_into().unwrap();
    assert!(found(first).contains(&Wrong::SlotShared));
    let last = parts.image.superblock.geometry.slots as u32 - 1;
    let never = |wrong: &Wrong| matches!(wrong, Wrong::SlotNeverUsed { .. });
    assert!(found(last.to_le_bytes()).iter().any(never));
}
