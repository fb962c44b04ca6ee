//! Stories that end with a crash or a clean stop, each with the image that it leaves and what must
//! be read from it. Told by a whole shard over a disk in memory.

use crate::base::{BLOCK, CHUNK, RequestKind};
use crate::shard::world::World;
use crate::store::{DiskFault, Report, check};

/// The length of every disk here, in bytes: a little more than the shortest that can be formatted.
pub const DISK_BYTES: u64 = 12 << 20;
/// What the stories touch of their volume, in bytes.
pub const MODEL_BYTES: usize = 8 * CHUNK as usize;

/// An image, and what must be read from it.
pub struct Story {
    pub disk: Vec<u8>,
    pub layers: &'static [u64],
    pub model: Vec<u8>,
    /// What must be read if the last batch is taken for torn.
    pub before_last: Vec<u8>,
}

struct Teller {
    world: World,
    model: Vec<u8>,
    before: Vec<u8>,
}

impl Teller {
    fn new() -> Teller {
        Teller {
            world: World::new(DISK_BYTES),
            model: vec![0; MODEL_BYTES],
            before: vec![0; MODEL_BYTES],
        }
    }

    fn change(&mut self, kind: RequestKind, offset: u64, len: u64, fill: u8) {
        self.before.clone_from(&self.model);
        let bytes = vec![fill; len as usize];
        self.world.request(kind, offset, &bytes);
        self.model[offset as usize..][..len as usize].copy_from_slice(&bytes);
    }

    fn write(&mut self, offset: u64, len: u64, fill: u8) {
        self.change(RequestKind::Write, offset, len, fill);
    }

    fn zero(&mut self, offset: u64, len: u64) {
        self.change(RequestKind::WriteZeroes, offset, len, 0);
    }

    /// Whole chunks: of others nothing is given back.
    fn discard(&mut self, offset: u64, len: u64) {
        self.change(RequestKind::Discard, offset, len, 0);
    }

    fn end(self, layers: &'static [u64]) -> Story {
        Story {
            disk: self.world.disk,
            layers,
            model: self.model,
            before_last: self.before,
        }
    }
}

/// A disk that was formatted and never used.
pub fn empty() -> Story {
    Story {
        disk: World::formatted(DISK_BYTES),
        layers: &[1],
        model: vec![0; MODEL_BYTES],
        before_last: vec![0; MODEL_BYTES],
    }
}

fn filled() -> Teller {
    let mut teller = Teller::new();
    teller.write(0, 3 * BLOCK, 0x11);
    teller.write(CHUNK, CHUNK, 0x22);
    teller.write(2 * CHUNK + 100, 300, 0x33);
    teller.write(3 * CHUNK, BLOCK, 0x44);
    teller.zero(CHUNK, BLOCK);
    teller
}

/// Everything is in the table, the journal is empty.
pub fn table() -> Story {
    let mut teller = filled();
    teller.world.close();
    teller.end(&[1])
}

/// A checkpoint, and a closed journal over it that is still to be replayed.
fn journaled() -> Teller {
    let mut teller = filled();
    teller.world.close();
    teller.world.open();
    teller.write(BLOCK, BLOCK, 0x55);
    teller.write(4 * CHUNK, CHUNK, 0x66);
    teller.write(2 * CHUNK + 5 * BLOCK, 2 * BLOCK, 0x77);
    teller.discard(3 * CHUNK, CHUNK);
    teller.world.settle();
    teller
}

/// See [`journaled`].
pub fn journal() -> Story {
    journaled().end(&[1])
}

/// Two layers in table and journal, zeroes over an ancestor, and a last batch that is not closed.
pub fn layers() -> Story {
    let mut teller = filled();
    teller.world.open_volume(&[1, 2]);
    teller.write(BLOCK, 2 * BLOCK, 0x88);
    teller.zero(CHUNK, CHUNK / 2);
    teller.write(5 * CHUNK, CHUNK, 0x99);
    teller.world.close();
    teller.world.open_disk();
    teller.world.settle();
    teller.world.open_volume(&[1, 2]);
    teller.write(CHUNK + 2 * BLOCK, BLOCK, 0xaa);
    teller.write(6 * CHUNK, CHUNK, 0xbb);
    teller.write(0, BLOCK, 0xcc);
    teller.discard(5 * CHUNK, 2 * CHUNK);
    teller.world.settle();
    teller.write(3 * CHUNK + BLOCK, BLOCK, 0xdd);
    teller.end(&[1, 2])
}

/// The last batch was torn by the crash: half of its payload is missing.
pub fn torn() -> Story {
    let mut teller = journaled();
    teller.write(0, BLOCK, 0xee);
    let world = &mut teller.world;
    let is_it = |block: &[u8]| block.iter().all(|byte| *byte == 0xee);
    let blocks = world.disk.chunks(BLOCK as usize);
    let at = blocks
        .map(is_it)
        .position(|found| found)
        .expect("it is journaled");
    world.disk[at * BLOCK as usize + 2048..][..2048].fill(0);
    teller.model.clone_from(&teller.before);
    teller.end(&[1])
}

/// Tells a story.
pub type Tell = fn() -> Story;

/// Every story, by the name of its frozen image.
pub const ALL: [(&str, Tell); 5] = [
    ("empty", empty),
    ("table", table),
    ("journal", journal),
    ("layers", layers),
    ("torn", torn),
];

/// Checks the bytes of a disk.
pub fn check_bytes(disk: &[u8]) -> Report {
    let mut read = |offset: u64, bytes: &mut [u8]| -> Result<(), DiskFault> {
        let from = disk.get(offset as usize..).ok_or(DiskFault::Medium)?;
        bytes.copy_from_slice(from.get(..bytes.len()).ok_or(DiskFault::Medium)?);
        Ok(())
    };
    check(&mut read, disk.len() as u64)
}
