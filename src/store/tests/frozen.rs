//! Images of the format as they were once written, of versions 4 and 5. Whoever changes the format breaks these,
//! and raises `FORMAT_VERSION`; images of old versions stay here as long as that version is read.
//!
//! In a file: the disk's length, then for each block that is not all zeroes its number and its
//! bytes, packed: a `u16` with the top bit set is a run of one byte, without it that many bytes
//! follow as they are.

use super::story::{self, MODEL_BYTES, Story, check_bytes};
use crate::base::BLOCK;
use crate::shard::world::World;
use crate::store::{Severity, inspect};

const IMAGES: [(&str, &[u8]); 5] = [
    ("empty", include_bytes!("../fixtures/empty.img")),
    ("table", include_bytes!("../fixtures/table.img")),
    ("journal", include_bytes!("../fixtures/journal.img")),
    ("layers", include_bytes!("../fixtures/layers.img")),
    ("torn", include_bytes!("../fixtures/torn.img")),
];

/// The same stories as version 5 was written by a shard without a coordinator: no fences, no windows, stamps of epoch 0.
const IMAGES_PLAIN: [(&str, &[u8]); 5] = [
    ("empty", include_bytes!("../fixtures/v5_plain/empty.img")),
    ("table", include_bytes!("../fixtures/v5_plain/table.img")),
    (
        "journal",
        include_bytes!("../fixtures/v5_plain/journal.img"),
    ),
    ("layers", include_bytes!("../fixtures/v5_plain/layers.img")),
    ("torn", include_bytes!("../fixtures/v5_plain/torn.img")),
];

/// The same stories as version 4 wrote them.
const IMAGES_4: [(&str, &[u8]); 5] = [
    ("empty", include_bytes!("../fixtures/v4/empty.img")),
    ("table", include_bytes!("../fixtures/v4/table.img")),
    ("journal", include_bytes!("../fixtures/v4/journal.img")),
    ("layers", include_bytes!("../fixtures/v4/layers.img")),
    ("torn", include_bytes!("../fixtures/v4/torn.img")),
];

const RUN: u16 = 0x8000;

fn pack(disk: &[u8]) -> Vec<u8> {
    let mut packed = (disk.len() as u64).to_le_bytes().to_vec();
    for (number, block) in (0u32..).zip(disk.chunks(BLOCK as usize)) {
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        packed.extend_from_slice(&number.to_le_bytes());
        let mut plain: Vec<u8> = Vec::new();
        for run in block.chunk_by(|a, b| a == b) {
            if run.len() < 4 {
                plain.extend_from_slice(run);
                continue;
            }
            put_plain(&mut plain, &mut packed);
            packed.extend_from_slice(&(RUN | run.len() as u16).to_le_bytes());
            packed.push(run[0]);
        }
        put_plain(&mut plain, &mut packed);
    }
    packed
}

fn put_plain(plain: &mut Vec<u8>, packed: &mut Vec<u8>) {
    if !plain.is_empty() {
        packed.extend_from_slice(&(plain.len() as u16).to_le_bytes());
        packed.append(plain);
    }
}

fn unpack(packed: &[u8]) -> Vec<u8> {
    let (len, mut left) = packed.split_at(8);
    let mut disk = vec![0; u64::from_le_bytes(len.try_into().unwrap()) as usize];
    let mut take = |n: usize| -> Option<&[u8]> {
        let (taken, rest) = left.split_at_checked(n)?;
        left = rest;
        Some(taken)
    };
    while let Some(number) = take(4) {
        let at = u32::from_le_bytes(number.try_into().unwrap()) as usize * BLOCK as usize;
        let mut done = 0;
        while done < BLOCK as usize {
            let head = u16::from_le_bytes(take(2).unwrap().try_into().unwrap());
            let len = usize::from(head & !RUN);
            let place = &mut disk[at + done..][..len];
            if head & RUN != 0 {
                place.fill(take(1).unwrap()[0]);
            } else {
                place.copy_from_slice(take(len).unwrap());
            }
            done += len;
        }
    }
    disk
}

fn assert_reads(world: &mut World, story: &Story, when: &str) {
    let read = world.read(0, MODEL_BYTES);
    let wrong = (0..MODEL_BYTES).find(|&at| read[at] != story.model[at]);
    assert_eq!(wrong, None, "{when}: the first wrong byte");
}

#[test]
fn a_packed_image_is_unpacked_as_it_was() {
    let disk = story::layers().disk;
    assert!(unpack(&pack(&disk)) == disk);
}

#[test]
fn every_frozen_image_opens_with_its_contents_and_is_found_sound() {
    let sets = [IMAGES, IMAGES_PLAIN, IMAGES_4].into_iter();
    let all = sets.flat_map(|images| images.into_iter().zip(story::ALL));
    for ((name, packed), (of, tell)) in all {
        assert_eq!(name, of);
        let story = tell();
        let disk = unpack(packed);
        let report = check_bytes(&disk);
        assert!(report.is_sound(), "{name}: {report:?}");
        let mut world = World::with_disk(disk);
        world.open_disk();
        assert_eq!(world.opened, Ok(()), "{name}");
        world.open_volume(story.layers);
        assert_reads(&mut world, &story, name);
        world.close();
        let report = check_bytes(&world.disk);
        assert_eq!(report.worst(), None, "{name}, closed again: {report:?}");
        world.open_disk();
        world.open_volume(story.layers);
        assert_reads(&mut world, &story, &format!("{name}, opened again"));
    }
}

#[test]
fn checking_counts_what_is_there() {
    let disk = unpack(IMAGES[3].1);
    let counts = check_bytes(&disk).counts;
    assert_eq!((counts.volumes, counts.layers), (1, 2));
    assert!(counts.pages > 0 && counts.batches > 4 && counts.journal_blocks_checked > 0);
    assert!(
        counts.blocks_checked > 16 && counts.blocks_bad == 0,
        "{counts:?}"
    );
}

#[test]
fn a_torn_and_an_unclosed_journal_are_told_from_a_closed_one() {
    let seen = |n: usize| {
        let disk = unpack(IMAGES[n].1);
        let mut read = |offset: u64, bytes: &mut [u8]| {
            bytes.copy_from_slice(&disk[offset as usize..][..bytes.len()]);
            Ok(())
        };
        inspect(&mut read, disk.len() as u64).unwrap()
    };
    let (table, journal, layers, torn) = (seen(1), seen(2), seen(3), seen(4));
    assert_eq!((table.journal.batches, table.journal.used_bytes), (0, 0));
    assert!(journal.journal.closed && journal.journal.batches > 3);
    assert!(!layers.journal.closed && !layers.journal.torn);
    assert!(torn.journal.torn && !torn.journal.damaged);
    assert_eq!(layers.volumes[0].layers.len(), 2);
    assert_eq!(layers.damaged_structures, 0);
    assert_eq!(
        layers.volumes[0].size_bytes,
        crate::shard::world::VOLUME_BYTES
    );
}

#[test]
fn what_check_says_of_a_torn_batch_is_a_note() {
    let report = check_bytes(&unpack(IMAGES[4].1));
    assert_eq!(report.worst(), Some(Severity::Note), "{report:?}");
    assert_eq!(report.findings[0].wrong, crate::store::Wrong::Torn);
}

#[test]
fn the_stories_are_told_today_as_the_frozen_images_have_them() {
    for ((name, packed), (_, tell)) in IMAGES.into_iter().zip(story::ALL) {
        assert!(unpack(packed) == tell().disk, "{name}");
    }
}

/// Run by hand once for a version of the format: `cargo test --lib freeze_the_images -- --ignored`.
#[test]
#[ignore = "it writes the fixtures of a new version of the format"]
fn freeze_the_images() {
    for (name, tell) in story::ALL {
        let path = format!(
            "{}/src/store/fixtures/{name}.img",
            env!("CARGO_MANIFEST_DIR")
        );
        std::fs::write(path, pack(&tell().disk)).unwrap();
    }
}
