//! Every byte of an image is flipped: what is read then is right or an error, never wrong, and
//! `check` names the place.
//!
//! The image has everything: a checkpoint, two layers, zeroes over an ancestor, a journal of which
//! all but the last batch is closed. Only that last batch may be taken for torn. Inside a long run
//! of equal bytes (padding, the fill of a block) one byte in 61 is flipped, because one checksum
//! covers them all; with SARSEN_FLIPS=all, every byte.

use super::story::{self, MODEL_BYTES, Story, check_bytes};
use crate::base::{BLOCK, CHUNK, Prng, RequestKind};
use crate::shard::world::World;
use crate::store::batch;
use crate::store::check::Image;
use crate::store::{DiskFault, Report, Severity, check};
use std::ops::Range;

/// Flips in places that hold nothing.
const FLIPS_ELSEWHERE: u64 = 100;

/// Parts of the image that something rests on, and the last batch among them.
struct Used {
    spans: Vec<Range<u64>>,
    last: Range<u64>,
}

impl Used {
    fn of(disk: &[u8]) -> Used {
        let mut report = Report::default();
        let mut spans = Vec::new();
        let copy = |offset: u64, bytes: &mut [u8]| -> Result<(), DiskFault> {
            bytes.copy_from_slice(&disk[offset as usize..][..bytes.len()]);
            Ok(())
        };
        let mut record = |offset: u64, bytes: &mut [u8]| {
            spans.push(offset..offset + bytes.len() as u64);
            copy(offset, bytes)
        };
        check(&mut record, disk.len() as u64);
        let image = Image::open(&mut { copy }, disk.len() as u64, &mut report).unwrap();
        let geometry = image.superblock.geometry;
        let journal = geometry.journal_at..geometry.journal_at + geometry.journal_len;
        spans.retain(|span| !journal.contains(&span.start));
        let mut last = 0..0;
        image.follow(&mut { copy }, &mut report, |found, _| {
            last = journal.start + found.offset..journal.start + found.offset + found.len;
            spans.push(last.clone());
        });
        Used { spans, last }
    }

    fn contains(&self, at: u64) -> bool {
        self.spans.iter().any(|span| span.contains(&at))
    }
}

/// The bytes that are flipped.
fn places(disk: &[u8]) -> Vec<usize> {
    let all = std::env::var("SARSEN_FLIPS").is_ok_and(|value| value == "all");
    let mut places = Vec::new();
    for (number, block) in disk.chunks(BLOCK as usize).enumerate() {
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        let mut at = number * BLOCK as usize;
        for run in block.chunk_by(|a, b| a == b) {
            let end = at + run.len();
            let long = run.len() > 16 && !all;
            places.extend(
                (at..end).filter(|&n| !long || (n - at).is_multiple_of(61) || n + 1 == end),
            );
            at = end;
        }
    }
    let mut prng = Prng::new(1);
    places.extend((0..FLIPS_ELSEWHERE).map(|_| prng.below(disk.len() as u64) as usize));
    places
}

/// What reading all of the volume brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Right,
    /// Something answered with an error, all else was right.
    Errors,
    /// The last batch was not there, all else was right.
    LastLost,
    Wrong {
        offset: u64,
    },
}

fn read_all(world: &mut World, story: &Story) -> Outcome {
    let mut outcome = Outcome::Right;
    let mut look = |world: &mut World, offset: u64, len: u64| {
        let room = vec![0; len as usize];
        let Ok(read) = world.try_request(RequestKind::Read, offset, &room) else {
            return false;
        };
        let part = offset as usize..(offset + len) as usize;
        if read != story.model[part.clone()] {
            outcome = if read == story.before_last[part] {
                Outcome::LastLost
            } else {
                Outcome::Wrong { offset }
            };
        }
        true
    };
    let mut errors = false;
    for chunk in (0..MODEL_BYTES as u64).step_by(CHUNK as usize) {
        if look(world, chunk, CHUNK) {
            continue;
        }
        errors = true;
        for block in (chunk..chunk + CHUNK).step_by(BLOCK as usize) {
            look(world, block, BLOCK);
        }
    }
    match outcome {
        Outcome::Right if errors => Outcome::Errors,
        other => other,
    }
}

/// Opens the disk as it is and reads all of the volume; leaves the disk as it was.
fn open_and_read(world: &mut World, story: &Story) -> Outcome {
    world.buffers.clear();
    world.notes.clear();
    world.undo = Some(Vec::new());
    world.open_disk();
    assert_eq!(world.opened, Ok(()), "two copies of what opening needs");
    world.open_volume_at_once(story.layers);
    let outcome = read_all(world, story);
    world.take_back();
    outcome
}

#[test]
fn a_flipped_byte_is_never_returned_and_check_names_the_place() {
    let story = story::layers();
    let used = Used::of(&story.disk);
    let mut world = World::with_disk(story.disk.clone());
    assert_eq!(open_and_read(&mut world, &story), Outcome::Right);
    assert!(world.disk == story.disk, "what was written is taken back");
    let mut counts = [0u32; 3];
    for at in places(&story.disk) {
        world.disk[at] ^= 1 << (at % 8);
        let report = check_bytes(&world.disk);
        let outcome = open_and_read(&mut world, &story);
        world.disk[at] ^= 1 << (at % 8);
        let place = at as u64;
        let names = |span: Range<u64>| span.contains(&place);
        let named = report
            .findings
            .iter()
            .any(|found| names(found.offset..found.offset + found.len));
        let about = || format!("byte {at}: {outcome:?}, {:?}", report.findings);
        match outcome {
            Outcome::Right => counts[0] += 1,
            Outcome::Errors => {
                assert!(report.worst() == Some(Severity::Error), "{}", about());
                counts[1] += 1;
            }
            Outcome::LastLost => {
                assert!(used.last.contains(&place), "{}", about());
                counts[2] += 1;
            }
            Outcome::Wrong { .. } => panic!("{}", about()),
        }
        assert!(named || !used.contains(place), "not named: {}", about());
        assert!(named || outcome == Outcome::Right, "{}", about());
    }
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
}

#[test]
fn a_missing_acknowledged_batch_is_damage_and_a_missing_last_one_is_not() {
    let story = story::layers();
    let used = Used::of(&story.disk);
    let mut world = World::with_disk(story.disk.clone());
    world.disk[used.last.start as usize..used.last.end as usize].fill(0);
    assert_eq!(open_and_read(&mut world, &story), Outcome::LastLost);
    // The one before it is the empty batch that closed the journal, and before that stands a
    // discard.
    let closing = used.last.start as usize - BLOCK as usize;
    assert!(batch::begins_here(&world.disk[closing..]));
    world.disk[closing - BLOCK as usize] ^= 1;
    assert_eq!(open_and_read(&mut world, &story), Outcome::Errors);
    assert_eq!(check_bytes(&world.disk).worst(), Some(Severity::Error));
}

#[test]
fn an_unreadable_sector_in_the_journal_does_not_hide_the_batches_around_it() {
    let story = story::layers();
    let used = Used::of(&story.disk);
    let bad = used.last.end + 4 * BLOCK;
    let mut read = |offset: u64, bytes: &mut [u8]| {
        if (offset..offset + bytes.len() as u64).contains(&bad) {
            return Err(DiskFault::Medium);
        }
        bytes.copy_from_slice(&story.disk[offset as usize..][..bytes.len()]);
        Ok(())
    };
    let report = check(&mut read, story.disk.len() as u64);
    assert_eq!(report.counts, check_bytes(&story.disk).counts);
    let warned = report
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Warning);
    assert_eq!(warned.map(|f| f.offset).collect::<Vec<_>>(), [bad]);
}
