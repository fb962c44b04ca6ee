//! A program that does nothing but change its memory and look whether what it wrote is there.

use crate::harness::{Step, ensure};
use sarsen::base::Prng;
use std::path::Path;
use std::time::{Duration, Instant};

/// Words of a page.
const WORDS: usize = 512;

/// Changes and checks pages of so many MiB until the file is there, and says every second how often. How often a page was
/// changed stands in it, and in another page too.
pub fn run(mib: u64, until: &Path) -> Step<()> {
    let pages = (mib << 20) as usize / 4096;
    let mut memory = vec![0u64; pages * WORDS];
    let mut versions = vec![0u64; pages];
    let mut dice = Prng::new(5);
    let (mut writes, mut told) = (0u64, Instant::now());
    loop {
        for _ in 0..1000 {
            let page = dice.below(pages as u64) as usize;
            let word = dice.below(WORDS as u64) as usize;
            let here = &mut memory[page * WORDS..][..WORDS];
            let found = here[0];
            ensure!(
                found == versions[page],
                "page {page} is of version {found}, and was of {}",
                versions[page]
            );
            versions[page] += 1;
            here[0] += 1;
            here[word.max(1)] = here[0];
            writes += 1;
        }
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            println!("acknowledged {writes}");
            if until.exists() {
                break;
            }
        }
    }
    let wrong = (0..pages)
        .filter(|&page| memory[page * WORDS] != versions[page])
        .count();
    ensure!(
        wrong == 0,
        "{wrong} pages of {pages} are not as they were written"
    );
    println!("{writes} writes of {pages} pages are there");
    Ok(())
}
