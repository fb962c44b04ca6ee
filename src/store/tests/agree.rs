//! Checking carries the journal out in its own way: whatever a shard did before a crash, what
//! `check` says of the image is what opening it shows.

use super::story::check_bytes;
use crate::base::{BLOCK, CHUNK, DiskSlot, Prng, RequestKind};
use crate::shard::Control;
use crate::shard::world::World;
use crate::store::Closing;

const DISK_BYTES: u64 = 16 << 20;
const LAYERS: [&[u64]; 3] = [&[1], &[1, 2], &[1, 2, 3]];

fn act(world: &mut World, layers: &mut usize, prng: &mut Prng) {
    let blocks = 10 * CHUNK / BLOCK;
    let first = prng.below(blocks);
    let count = prng.between(1, 20).min(blocks - first);
    let chunk = prng.below(8) * CHUNK;
    match prng.below(16) {
        0..7 => world.write(
            first * BLOCK,
            (count * BLOCK) as usize,
            prng.below(256) as u8,
        ),
        7..9 => world.write(chunk, 2 * CHUNK as usize, prng.below(256) as u8),
        9 => {
            world.request(RequestKind::Discard, chunk, &[0; 2 * CHUNK as usize]);
        }
        10..12 => {
            let zeroes = vec![0; (count * BLOCK) as usize];
            world.request(RequestKind::WriteZeroes, first * BLOCK, &zeroes);
        }
        12 => world.settle(),
        13 if *layers < 2 => {
            *layers += 1;
            world.open_volume(LAYERS[*layers]);
        }
        14 => {
            match first % 2 {
                0 => world.close(),
                _ => world.control(Control::Close {
                    how: Closing::Quick,
                }),
            }
            reopen(world, *layers);
        }
        _ => reopen(world, *layers),
    }
}

fn reopen(world: &mut World, layers: usize) {
    world.buffers.clear();
    world.open_disk();
    world.settle();
    world.open_volume(LAYERS[layers]);
}

#[test]
fn check_finds_every_crash_sound_and_counts_the_slots_that_opening_counts() {
    let mut prng = Prng::new(5);
    for round in 0..20 {
        let (mut world, mut layers) = (World::new(DISK_BYTES), 0);
        for step in 0..40 {
            act(&mut world, &mut layers, &mut prng);
            if step % 4 != 0 {
                continue;
            }
            let report = check_bytes(&world.disk);
            assert!(report.is_sound(), "round {round}, step {step}: {report:?}");
            let mut other = World::with_disk(world.disk.clone());
            other.open_disk();
            other.settle();
            let (_, _, levels) = other.shard.disk(DiskSlot(0)).expect("it is open");
            assert_eq!(
                levels.slots_used, report.counts.slots_used,
                "round {round}, step {step}: {levels:?}"
            );
        }
    }
}
