//! The knobs of a run, all drawn from its seed.
//!
//! Swarm testing (Groce and others, 2012): a run in which everything happens a little finds less than many in
//! which some things never happen and others all the time. So each seed also draws which kinds of requests,
//! which control operations and which faults it has at all.

use super::disk::Rates;
use super::tally::{Draw, Weight};
use crate::base::{BLOCK, CHUNK, Prng};

const MIB: u64 = 1 << 20;

/// Requests by kind.
#[derive(Debug, Clone)]
pub struct Requests {
    pub read: Weight,
    pub write: Weight,
    pub zeroes: Weight,
    pub discard: Weight,
    pub flush: Weight,
    pub map: Weight,
}

/// Requests by size and alignment.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// Any bytes, up to three blocks.
    pub bytes: Weight,
    /// Whole sectors, up to three blocks.
    pub sectors: Weight,
    /// Whole blocks, up to a chunk.
    pub blocks: Weight,
    /// Whole chunks, up to four.
    pub chunks: Weight,
    /// Any bytes, up to 512 KiB.
    pub big: Weight,
}

/// Control operations.
#[derive(Debug, Clone)]
pub struct Controls {
    pub snapshot: Weight,
    pub clone: Weight,
    pub create: Weight,
    pub drop: Weight,
    pub resize: Weight,
    pub scrub: Weight,
    pub grow: Weight,
    /// One in so many requests is followed by one of them.
    pub one_in: u64,
}

/// Everything about a run that its seed decides.
#[derive(Debug, Clone)]
pub struct Knobs {
    pub disks: u64,
    pub disk_bytes: u64,
    pub journal_bytes: u64,
    pub table_pages: u64,
    pub volumes: u64,
    pub volume_bytes: u64,
    pub pgs: u64,
    /// Requests in flight, and how many at most are begun in a turn.
    pub depth: u64,
    pub burst: u64,
    pub requests: Requests,
    pub sizes: Sizes,
    pub controls: Controls,
    /// Few places that many requests go to.
    pub hot_spots: u64,
    /// One in so many requests goes somewhere else.
    pub cold_one_in: u64,
    /// Requests keep to the first so many blocks of a volume.
    pub reach: u64,
    /// Outputs between two power cuts, about.
    pub cut_after: u64,
    /// One in so many recoveries is cut off.
    pub cut_recovery_one_in: u64,
    /// One in so many lives ends with an orderly close.
    pub close_one_in: u64,
    /// One in so many turns the load pauses for some milliseconds.
    pub pause_one_in: u64,
    /// Whether disks destroy data or fail.
    pub hostile: bool,
    /// One in so many turns a bit turns over, or a disk goes; never where zero.
    pub rot_one_in: u64,
    pub gone_one_in: u64,
    pub rates: Rates,
    pub overlay_bytes: u64,
    pub zero_ahead: bool,
    pub discard: bool,
    /// Whether the first disk has a replica as well.
    pub replica: bool,
}

impl Knobs {
    /// The knobs of a seed.
    pub fn draw(seed: u64) -> Knobs {
        let mut draw = Draw(Prng::new(seed ^ 0x7377_6172_6d00));
        let hostile = draw.0.below(5) < 2;
        let disks = draw.one_of(&[1, 1, 1, 2, 3]);
        let disk_bytes = draw.one_of(&[12, 16, 24, 40]) * MIB;
        // A volume with as much as the disk has, so that some disks fill up.
        let volume_bytes = draw.one_of(&[1, 2, 5, 9, 16, 24]) * MIB + draw.0.below(4) * BLOCK;
        Knobs {
            disks,
            disk_bytes,
            journal_bytes: draw.one_of(&[512, 768, 1024, 2048]) * 1024,
            table_pages: draw.one_of(&[32, 64, 128]),
            volumes: 1 + draw.0.below(4),
            volume_bytes,
            pgs: 1 + draw.0.below(6),
            depth: draw.one_of(&[1, 2, 4, 8, 16, 32, 48]),
            burst: draw.one_of(&[1, 2, 4, 16]),
            requests: Requests {
                read: 1 + draw.weight(6),
                write: 1 + draw.0.below(12),
                zeroes: draw.weight(1),
                discard: draw.weight(2),
                flush: draw.weight(1),
                map: draw.weight(1),
            },
            sizes: Sizes {
                bytes: draw.weight(2),
                sectors: draw.weight(3),
                blocks: 1 + draw.weight(6),
                chunks: draw.weight(1),
                big: draw.0.below(4) / 3,
            },
            controls: Controls {
                snapshot: draw.weight(3),
                clone: draw.weight(1),
                create: draw.weight(1),
                drop: draw.weight(1),
                resize: draw.weight(1),
                scrub: draw.weight(1),
                grow: draw.weight(1),
                one_in: draw.one_of(&[50, 150, 500]),
            },
            hot_spots: 1 + draw.0.below(8),
            cold_one_in: draw.one_of(&[2, 4, 16]),
            reach: draw.one_of(&[64, 256, 1024, u64::MAX / CHUNK]),
            cut_after: draw.one_of(&[600, 2000, 5000, 10_000]),
            cut_recovery_one_in: draw.one_of(&[2, 4, 10]),
            close_one_in: draw.one_of(&[3, 8]),
            pause_one_in: draw.one_of(&[100, 1000]),
            hostile,
            rot_one_in: if hostile { draw.rate(400) } else { 0 },
            gone_one_in: if hostile { draw.rate(4000) } else { 0 },
            rates: draw_rates(&mut draw, hostile),
            overlay_bytes: draw.one_of(&[1, 2, 8]) * MIB,
            zero_ahead: draw.0.one_in(2),
            discard: draw.0.one_in(2),
            replica: !hostile && draw.0.one_in(2),
        }
    }
}

fn draw_rates(draw: &mut Draw, hostile: bool) -> Rates {
    let mut fault = |rate| if hostile { draw.rate(rate) } else { 0 };
    Rates {
        lost_write: fault(600),
        misdirected: fault(800),
        read_error: fault(600),
        write_error: fault(8000),
        slow: draw.rate(200),
        read_us: draw.one_of(&[5, 20, 80]),
        durable_us: draw.one_of(&[5, 20, 100]),
        cached_us: draw.one_of(&[5, 20, 60]),
        flush_us: draw.one_of(&[20, 200, 2000]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_its_knobs_and_seeds_differ() {
        let words = |seed| format!("{:?}", Knobs::draw(seed));
        assert_eq!(words(5), words(5));
        let mut all: Vec<String> = (0..100).map(words).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 100);
    }

    #[test]
    fn more_than_half_of_the_seeds_have_disks_that_destroy_nothing() {
        let kind = (0..1000).filter(|&seed| !Knobs::draw(seed).hostile).count();
        assert!((500..700).contains(&kind), "{kind}");
    }
}
