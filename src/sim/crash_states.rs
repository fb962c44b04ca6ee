//! Crash states, enumerated: from one run, thousands of disks as a power cut could have left them.
//!
//! At many points of a run the power is cut in thought (CrashMonkey; Mohan and others, 2018): of the writes that
//! are not on the medium, every beginning is kept and the rest lost, random subsets are kept, and
//! the last one kept is torn. Each image that no one has seen before is given to a fresh shard beside a copy of the model. It is
//! opened, every block is read and judged, it is written again, cut off again (most times while it
//! is being opened), opened and judged once more. Images share their pages with the run that they come
//! from, so that one costs no copy of the disk.
//!
//! Ordinary images prove little: a run counts how many have a wrapped journal, a checkpoint cut in its middle, a
//! volume of two layers or more, or a trim that no checkpoint has covered; half must have one of them.

use super::checkers::{Failure, invariants};
use super::disk::{Disk, Entry, Fate};
use super::medium::Medium;
use super::node::Machine;
use super::swarm::{Controls, Knobs, Sizes};
use super::world::{Counts, World};
use crate::base::{Breaks, Prng};
use std::collections::BTreeSet;

/// How many images are built at one point of a run, at most.
const IMAGES_AT_ONCE: u64 = 12;
/// How many images one run gives, so that many runs take part.
const IMAGES_PER_SEED: u64 = 400;

/// How many images there were, and of what kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageCounts {
    pub distinct: u64,
    /// Built again, and not looked at again.
    pub repeated: u64,
    pub wrapped: u64,
    pub torn_checkpoint: u64,
    pub two_layers: u64,
    pub trim: u64,
    /// Of at least one of these kinds.
    pub special: u64,
}

impl ImageCounts {
    /// The kinds by name.
    pub fn kinds(&self) -> [(&'static str, u64); 4] {
        [
            ("wrapped journal", self.wrapped),
            ("torn checkpoint", self.torn_checkpoint),
            ("two layers", self.two_layers),
            ("trim", self.trim),
        ]
    }

    /// What makes a run void: too few special images, or a kind that is missing.
    pub fn void(&self) -> Option<String> {
        let missing = self.kinds().into_iter().find(|&(_, count)| count == 0);
        match missing {
            Some((kind, _)) => Some(format!("no image has a {kind}")),
            None if self.special * 2 < self.distinct => Some(format!(
                "only {} of {} images are special",
                self.special, self.distinct
            )),
            None => None,
        }
    }

    fn count(&mut self, kinds: [bool; 4]) {
        self.distinct += 1;
        let [wrapped, torn, layers, trim] = kinds.map(u64::from);
        self.wrapped += wrapped;
        self.torn_checkpoint += torn;
        self.two_layers += layers;
        self.trim += trim;
        self.special += u64::from(kinds.contains(&true));
    }
}

/// What was found on an image.
#[derive(Debug)]
pub struct BadImage {
    pub seed: u64,
    /// Which image of the seed.
    pub image: u64,
    pub failure: Failure,
}

/// What an enumeration did.
#[derive(Debug, Default)]
pub struct Enumeration {
    pub images: ImageCounts,
    pub counts: Counts,
    pub bad: Vec<BadImage>,
    seen: BTreeSet<u64>,
    /// A bad image is judged once more, with a line for every event.
    trace: bool,
}

/// Builds and judges images from the runs of seeds from `start` on, until there are `wanted` distinct ones.
pub fn enumerate<M: Machine>(wanted: u64, start: u64, breaks: Breaks, trace: bool) -> Enumeration {
    let mut all = Enumeration {
        trace,
        ..Enumeration::default()
    };
    for seed in start.. {
        let before = all.images.distinct;
        if before >= wanted || !all.bad.is_empty() {
            break;
        }
        run_seed::<M>(seed, wanted.min(before + IMAGES_PER_SEED), breaks, &mut all);
        if all.images.distinct == before && all.bad.is_empty() {
            // A run that gives no image at all would go on for ever.
            break;
        }
    }
    all
}

/// Small volumes and journals, much that overlaps, and disks that do no more than lose power.
fn knobs(seed: u64) -> Knobs {
    let drawn = Knobs::draw(seed);
    let mut prng = Prng::new(seed ^ 0x696d_6167_6573);
    let mut knobs = Knobs {
        disks: 1,
        disk_bytes: 12 << 20,
        journal_bytes: 512 << 10,
        table_pages: 32,
        volumes: 1 + prng.below(2),
        volume_bytes: (1 << 20) + prng.below(16) * 65_536,
        pgs: 1,
        depth: 4 + prng.below(12),
        reach: 64 + prng.below(128),
        cold_one_in: 4,
        hostile: false,
        rot_one_in: 0,
        gone_one_in: 0,
        cut_after: 8000,
        cut_recovery_one_in: 8,
        overlay_bytes: 1 << 20,
        replica: prng.one_in(2),
        sizes: Sizes {
            big: 0,
            ..drawn.sizes.clone()
        },
        controls: Controls {
            snapshot: 1,
            clone: prng.below(2),
            create: 0,
            drop: 0,
            resize: 0,
            scrub: 0,
            grow: 0,
            one_in: 200,
        },
        ..drawn
    };
    knobs.requests.write += 6;
    knobs.requests.discard += 1;
    let rates = &mut knobs.rates;
    let destroying = [
        &mut rates.lost_write,
        &mut rates.misdirected,
        &mut rates.read_error,
        &mut rates.write_error,
    ];
    destroying.into_iter().for_each(|rate| *rate = 0);
    knobs
}

fn run_seed<M: Machine>(seed: u64, wanted: u64, breaks: Breaks, all: &mut Enumeration) {
    let mut prng = Prng::new(seed ^ 0x706f_696e_7473);
    let mut world = World::<M>::new(seed, knobs(seed), breaks, false);
    while all.images.distinct < wanted && all.bad.is_empty() {
        let until = world.turns() + 1 + prng.below(60);
        let reached = |world: &World<M>| world.turns() >= until && world.serves();
        let went = invariants::judge(|| world.run_until(reached)).and_then(|went| went);
        if let Err(failure) = went {
            let image = all.images.distinct;
            all.bad.push(BadImage {
                seed,
                image,
                failure,
            });
            break;
        }
        if world.has_ended() {
            break;
        }
        cut_here(&world, seed, &mut prng, all);
    }
    all.counts.add(&world.counts());
}

/// Builds the images of this point of a run and judges those that are new.
fn cut_here<M: Machine>(world: &World<M>, seed: u64, prng: &mut Prng, all: &mut Enumeration) {
    let disk = world.disk();
    let open = disk.undecided().filter(|entry| !entry.is_sure()).count() as u64;
    let prefixes = (open + 1).min(IMAGES_AT_ONCE / 2);
    for n in 0..IMAGES_AT_ONCE.min(1 + open * 3) {
        let (fates, torn) = draw_fates(prng, open, n, prefixes);
        let mut fates = fates.into_iter();
        let mut cut_checkpoint = false;
        let image = disk.image(|entry: &Entry| {
            let fate = fates.next().unwrap_or(Fate::Lose);
            cut_checkpoint |= fate != Fate::Keep && disk.layout.is_checkpoint(entry.offset);
            fate
        });
        debug_assert!(torn <= open);
        if !all.seen.insert(image.hash()) {
            all.images.repeated += 1;
            continue;
        }
        let [wrapped, layers, trim] = world.kinds();
        all.images.count([wrapped, cut_checkpoint, layers, trim]);
        let life_seed = prng.next_u64();
        let mut life = world.on_image(image.clone(), life_seed, false);
        let judged = invariants::judge(|| life.judge_image()).and_then(|judged| judged);
        all.counts.add(&life.counts());
        if let Err(failure) = judged {
            if all.trace {
                let mut again = world.on_image(image, life_seed, true);
                // How it ends is known; it is run again to be told.
                let _ = invariants::judge(|| again.judge_image());
            }
            let image = all.images.distinct;
            all.bad.push(BadImage {
                seed,
                image,
                failure,
            });
            return;
        }
    }
}

/// The fates of `open` undecided writes for the `n`th image: first the beginnings, evenly chosen where there are
/// many, each second one with its last write torn; then random subsets.
fn draw_fates(prng: &mut Prng, open: u64, n: u64, prefixes: u64) -> (Vec<Fate>, u64) {
    let torn = |prng: &mut Prng| match prng.one_in(2) {
        true => Fate::TornAfter(prng.below(16)),
        false => Fate::Torn(prng.next_u64()),
    };
    if n >= prefixes {
        let one = |prng: &mut Prng| match prng.below(5) {
            0 | 1 => Fate::Keep,
            2 | 3 => Fate::Lose,
            _ => torn(prng),
        };
        return ((0..open).map(|_| one(prng)).collect(), 0);
    }
    let kept = match prefixes > open {
        true => n,
        false => prng.below(open + 1),
    };
    let mut fates = vec![Fate::Keep; kept as usize];
    if kept < open && prng.one_in(2) {
        fates.push(torn(prng));
    }
    (fates, open.min(kept))
}

/// A disk that holds an image.
pub(super) fn disk_of(image: Medium, like: &Disk, knobs: &Knobs, prng: Prng) -> Disk {
    Disk::new(image, like.layout.clone(), knobs.rates.clone(), prng)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_cover_every_beginning_where_writes_are_few() {
        let mut prng = Prng::new(1);
        for n in 0..4 {
            let (fates, _) = draw_fates(&mut prng, 3, n, 4);
            let kept = fates.iter().take_while(|&fate| *fate == Fate::Keep).count();
            assert_eq!(kept as u64, n);
            assert!(fates.len() as u64 <= n + 1);
        }
    }

    #[test]
    fn a_run_without_a_kind_of_image_is_void() {
        let mut counts = ImageCounts::default();
        counts.count([true, true, true, false]);
        assert!(counts.void().is_some());
        counts.count([false, false, false, true]);
        assert_eq!(counts.void(), None);
        (0..3).for_each(|_| counts.count([false; 4]));
        assert!(counts.void().is_some());
    }
}
