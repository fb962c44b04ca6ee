//! Reads into memory that nothing but the disk writes to, and that is looked at only in the end: what a migration leaves
//! out of it is there to be found, as no processor has marked those pages.

use super::block::{Aligned, Disk};
use crate::harness::{Step, ensure};
use sarsen::base::Prng;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
/// Pages of the part of the disk that is read, and of the memory.
const PAGES: u64 = 4096;
/// Pages of one read at most.
const READ_MAX: u64 = 8;

/// Fills a part of the disk from so many MiB on, and then reads from it until the file is there. What was read is checked before
/// it is read over, and in the end.
pub fn run(device: &str, from_mib: u64, until: &Path) -> Step<()> {
    let disk = Disk::open(device)?;
    let begin = from_mib << 20;
    let mut memory = Aligned::new(PAGES as usize * PAGE);
    for (number, page) in (0..).zip(memory.bytes().chunks_exact_mut(PAGE)) {
        fill(number, page);
    }
    for (place, part) in (0u64..).zip(memory.bytes().chunks(1 << 20)) {
        disk.file().write_all_at(part, begin + (place << 20))?;
    }
    // Which page of the disk each page of the memory has.
    let mut held: Vec<u64> = (0..PAGES).collect();
    let mut dice = Prng::new(11);
    let (mut reads, mut told) = (0u64, Instant::now());
    while !until.exists() {
        let count = dice.between(1, READ_MAX) as usize;
        let mut place = || dice.below(PAGES - READ_MAX) as usize;
        let (from, to) = (place(), place());
        let into = &mut memory.bytes()[to * PAGE..][..count * PAGE];
        let held = &mut held[to..][..count];
        check(held, into, to)?;
        disk.file()
            .read_exact_at(into, begin + (from * PAGE) as u64)?;
        (from as u64..)
            .zip(held)
            .for_each(|(number, page)| *page = number);
        reads += 1;
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            println!("acknowledged {reads}");
        }
    }
    check(&held, memory.bytes(), 0)?;
    println!("{reads} reads are where they went");
    Ok(())
}

/// Looks at memory, and leaves it as it is.
fn check(held: &[u64], memory: &[u8], first: usize) -> Step<()> {
    let mut right = vec![0; PAGE];
    let pages = held.iter().zip(memory.chunks_exact(PAGE)).enumerate();
    let mut wrong = Vec::new();
    for (place, (number, page)) in pages {
        fill(*number, &mut right);
        if page != right {
            wrong.push(first + place);
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} pages are not what was read into them: {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(16)]
    );
    Ok(())
}

fn fill(number: u64, page: &mut [u8]) {
    let words = page.chunks_exact_mut(8);
    (0u64..)
        .zip(words)
        .for_each(|(n, word)| word.copy_from_slice(&(number << 16 | n).to_le_bytes()));
}
