//! A shard over a disk in memory that answers at once: the plain stories. The simulator tells the others.

use super::*;
use crate::base::{
    BLOCK, Breaks, BufId, BufRef, DiskId, FamilyId, IoError, LayerId, PgId, Request, RequestKind,
    StoreId, Time, Token, VolumeId, crc,
};
use crate::store::{DiskOp, IoData, LayerMeta, Note, Options, Plan, VolumeMeta, format};
use std::collections::BTreeMap;

const VOLUME_BYTES: u64 = 64 << 20;

/// A shard, its disk, its buffers, and what it answered.
struct World {
    shard: Shard,
    disk: Vec<u8>,
    buffers: BTreeMap<u32, Vec<u8>>,
    replies: Vec<Result<(), IoError>>,
    notes: Vec<Note>,
    now: Time,
    out: Outbox,
}

impl World {
    fn new(disk_bytes: u64) -> World {
        let plan = Plan {
            store: StoreId([7; 16]),
            instance_key: [9; 16],
            disk_bytes,
            journal_bytes: None,
            pages: None,
        };
        let mut disk = vec![0; disk_bytes as usize];
        let formatted = format(&plan).unwrap();
        for (at, bytes) in formatted.writes.iter().chain(&formatted.superblocks) {
            disk[*at as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        let mut world = World {
            shard: Shard::new(Breaks::NONE),
            disk,
            buffers: BTreeMap::new(),
            replies: Vec::new(),
            notes: Vec::new(),
            now: Time(1),
            out: Outbox::default(),
        };
        world.open();
        world
    }

    /// Opens the disk and the volume with a new shard: what was in memory is lost.
    fn open(&mut self) {
        self.shard = Shard::new(Breaks::NONE);
        self.buffers.insert(0, vec![0; 128 * BLOCK as usize]);
        let options = Options {
            disk_bytes: self.disk.len() as u64,
            scratch: BufRef::default(),
            scratch_blocks: 128,
            overlay_bytes: 1 << 20,
            zero_ahead: false,
            discard: false,
            entropy: [0; 16],
            breaks: Breaks::NONE,
        };
        let (disk, slot) = (DiskId(0), DiskSlot(0));
        self.control(Control::OpenDisk {
            disk,
            slot,
            options,
        });
        self.open_volume(&[1]);
    }

    fn open_volume(&mut self, layers: &[u64]) {
        let layers = layers
            .iter()
            .enumerate()
            .map(|(n, &id)| LayerMeta {
                id: LayerId(id),
                parent: n.checked_sub(1).map(|n| LayerId(layers[n])),
                frozen: n + 1 < layers.len(),
            })
            .collect();
        let meta = VolumeMeta {
            id: VolumeId(1),
            family: FamilyId(1),
            name: "v".into(),
            size: VOLUME_BYTES,
            layers,
        };
        self.control(Control::OpenVolume {
            meta,
            pgs: vec![(PgId(0), DiskId(0))],
        });
    }

    fn control(&mut self, control: Control) {
        self.step(Input::Control {
            id: ControlId(0),
            control,
        });
        self.settle();
    }

    fn step(&mut self, input: Input<'_>) {
        let mut out = std::mem::take(&mut self.out);
        self.shard.step(self.now, input, &mut out);
        self.perform(&mut out);
        out.clear();
        self.out = out;
    }

    /// Turns, until nothing happens any more and no deadline is near.
    fn settle(&mut self) {
        for _ in 0..50 {
            self.step(Input::TurnEnded);
            self.now = Time(self.now.0 + 1_000_000);
            let mut out = std::mem::take(&mut self.out);
            self.shard.expire(self.now, &mut out);
            self.perform(&mut out);
            out.clear();
            self.out = out;
        }
    }

    fn perform(&mut self, out: &mut Outbox) {
        let arena = std::mem::take(&mut out.store.arena);
        let spans = std::mem::take(&mut out.store.spans);
        for output in std::mem::take(&mut out.list) {
            match output {
                Output::Disk { disk, op } => self.disk_op(disk, op, &arena, &spans),
                Output::Merge {
                    from,
                    into,
                    head,
                    tail,
                } => {
                    let old = self.blocks(from, 1).to_vec();
                    let new = self.blocks(into, 1);
                    let (head, tail) = (head as usize, BLOCK as usize - tail as usize);
                    new[..head].copy_from_slice(&old[..head]);
                    new[tail..].copy_from_slice(&old[tail..]);
                }
                Output::Checksum {
                    op,
                    buf,
                    blocks,
                    layer,
                    first,
                } => {
                    let crcs = self.crcs(buf, blocks, layer, first);
                    self.step(Input::Checksummed { op, crcs: &crcs });
                }
                Output::Copy { from, to, blocks } => {
                    let bytes = self.blocks(from, blocks).to_vec();
                    self.blocks(to, blocks).copy_from_slice(&bytes);
                }
                Output::Fill { buf, blocks } => self.blocks(buf, blocks).fill(0),
                Output::Pin { .. } | Output::Unpin { .. } => {}
                Output::Reply { result, .. } => self.replies.push(result),
                Output::ControlDone { result, .. } => assert_eq!(result, Ok(())),
                Output::Note { note, .. } => self.notes.push(note),
            }
        }
    }

    fn blocks(&mut self, at: BufRef, blocks: u32) -> &mut [u8] {
        let buffer = self.buffers.get_mut(&at.id.0).unwrap();
        &mut buffer[at.block as usize * 4096..][..blocks as usize * 4096]
    }

    fn crcs(
        &mut self,
        buf: BufRef,
        blocks: u32,
        layer: LayerId,
        first: crate::base::BlockNo,
    ) -> Vec<u32> {
        let bytes = self.blocks(buf, blocks);
        let number = |n| crate::base::BlockNo(first.0 + n as u64);
        bytes
            .chunks(4096)
            .enumerate()
            .map(|(n, b)| crc::of_block(layer, number(n), b))
            .collect()
    }

    fn disk_op(&mut self, disk: DiskSlot, op: DiskOp, arena: &[u8], spans: &[crate::store::Span]) {
        let (id, data) = match op {
            DiskOp::Write {
                id,
                offset,
                head,
                body,
                ..
            } => {
                let mut bytes = arena[head.start as usize..head.end as usize].to_vec();
                for span in &spans[body.start as usize..body.end as usize] {
                    bytes.extend_from_slice(self.blocks(span.buf, span.blocks));
                }
                self.disk[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                (id, Vec::new())
            }
            DiskOp::ReadBlocks {
                id,
                offset,
                buf,
                blocks,
                layer,
                first,
            } => {
                let bytes = self.disk[offset as usize..][..blocks as usize * 4096].to_vec();
                self.blocks(buf, blocks).copy_from_slice(&bytes);
                let crcs = self.crcs(buf, blocks, layer, first);
                let (result, id) = (Ok(IoData::Crcs(&crcs)), id);
                return self.step(Input::Disk { disk, id, result });
            }
            DiskOp::ReadMeta { id, offset, len } => {
                (id, self.disk[offset as usize..][..len as usize].to_vec())
            }
            DiskOp::CheckBlocks {
                id,
                offset,
                blocks,
                layer,
                first,
            } => {
                let number = |n| crate::base::BlockNo(first.0 + n as u64);
                let bytes = &self.disk[offset as usize..][..blocks as usize * 4096];
                let crcs: Vec<_> = bytes
                    .chunks(4096)
                    .enumerate()
                    .map(|(n, b)| crc::of_block(layer, number(n), b))
                    .collect();
                return self.step(Input::Disk {
                    disk,
                    id,
                    result: Ok(IoData::Crcs(&crcs)),
                });
            }
            DiskOp::Flush { id } | DiskOp::Discard { id, .. } | DiskOp::ZeroRun { id, .. } => {
                (id, Vec::new())
            }
        };
        self.step(Input::Disk {
            disk,
            id,
            result: Ok(IoData::Bytes(&data)),
        });
    }

    fn request(&mut self, kind: RequestKind, offset: u64, bytes: &[u8]) -> Vec<u8> {
        let len = bytes.len() as u64;
        let blocks = Request::buffer_blocks(kind, offset, len);
        let key = self.buffers.len() as u32;
        let mut buffer = vec![0xee; blocks as usize * 4096];
        let skip = (offset % BLOCK) as usize;
        if kind == RequestKind::Write {
            buffer[skip..][..bytes.len()].copy_from_slice(bytes);
        }
        self.buffers.insert(key, buffer);
        let buf = BufRef {
            id: BufId(key),
            block: 0,
        };
        let (token, volume) = (Token(0), VolumeId(1));
        self.step(Input::Request(Request {
            token,
            volume,
            kind,
            offset,
            len,
            buf,
        }));
        // One turn for the payload of whole chunks, one for their records.
        self.step(Input::TurnEnded);
        self.step(Input::TurnEnded);
        assert_eq!(self.replies.pop(), Some(Ok(())), "{kind:?} at {offset}");
        match kind {
            RequestKind::Read => self.buffers[&key][skip..][..bytes.len()].to_vec(),
            _ => Vec::new(),
        }
    }

    fn write(&mut self, offset: u64, len: usize, fill: u8) {
        self.request(RequestKind::Write, offset, &vec![fill; len]);
    }

    fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        self.request(RequestKind::Read, offset, &vec![0; len])
    }
}

fn all(bytes: &[u8], value: u8) -> bool {
    bytes.iter().all(|byte| *byte == value)
}

#[test]
fn what_was_written_is_read_before_and_after_a_crash() {
    let mut world = World::new(64 << 20);
    world.write(0, 4096, 1);
    world.write(65536, 65536, 2);
    world.write(200_000, 300_000, 3);
    world.write(100, 17, 4);
    for round in 0..3 {
        assert!(all(&world.read(0, 100), 1), "round {round}");
        assert!(all(&world.read(100, 17), 4));
        assert!(all(&world.read(117, 4096 - 117), 1));
        assert!(all(&world.read(65536, 65536), 2));
        assert!(all(&world.read(200_000, 300_000), 3));
        assert!(all(&world.read(500_000, 4096), 0));
        if round == 1 {
            world.settle();
        }
        world.open();
    }
}

#[test]
fn the_journal_goes_round_and_nothing_is_lost() {
    let mut world = World::new(64 << 20);
    for n in 0..6000u64 {
        world.write((n * 7919 % 1000) * 4096, 4096, (n % 251) as u8);
    }
    let (_, stats, levels) = world.shard.disk(DiskSlot(0)).unwrap();
    assert!(
        levels.journal_wraps > 1 && stats.checkpoints > 2,
        "{levels:?} {stats:?}"
    );
    world.open();
    for n in 5000..6000u64 {
        assert!(
            all(&world.read((n * 7919 % 1000) * 4096, 4096), (n % 251) as u8),
            "{n}"
        );
    }
}

#[test]
fn a_snapshot_keeps_the_old_and_a_discard_does_not_fall_through() {
    let mut world = World::new(64 << 20);
    world.write(0, 131_072, 1);
    world.open_volume(&[1, 2]);
    world.write(4096, 4096, 2);
    world.request(RequestKind::Discard, 65536, &[0; 65536]);
    for _ in 0..2 {
        assert!(all(&world.read(0, 4096), 1));
        assert!(all(&world.read(4096, 4096), 2));
        assert!(all(&world.read(8192, 4096), 1));
        assert!(all(&world.read(65536, 65536), 0));
        world.open();
        world.open_volume(&[1, 2]);
    }
}

#[test]
fn zeroes_are_zeroes_and_their_space_comes_back() {
    let mut world = World::new(64 << 20);
    world.write(0, 1 << 20, 5);
    world.request(RequestKind::WriteZeroes, 1000, &[0; 500_000]);
    assert!(all(&world.read(0, 1000), 5));
    assert!(all(&world.read(1000, 500_000), 0));
    assert!(all(&world.read(501_000, 10_000), 5));
    world.request(RequestKind::Discard, 0, &[0; 1 << 20]);
    world.settle();
    assert_eq!(world.shard.disk(DiskSlot(0)).unwrap().2.slots_used, 0);
}

#[test]
fn a_flipped_byte_is_never_returned() {
    let mut world = World::new(64 << 20);
    world.write(65536, 65536, 2);
    world.control(Control::Scrub { disk: DiskId(0) });
    assert!(matches!(
        world.notes.last(),
        Some(Note::Scrubbed { blocks: 16, bad: 0 })
    ));
    let at = world.disk.windows(4096).position(|w| all(w, 2)).unwrap();
    world.disk[at + 5] ^= 1;
    let (token, volume, kind) = (Token(0), VolumeId(1), RequestKind::Read);
    let buf = BufRef {
        id: BufId(0),
        block: 0,
    };
    let request = Request {
        token,
        volume,
        kind,
        offset: 65536,
        len: 65536,
        buf,
    };
    world.step(Input::Request(request));
    assert_eq!(world.replies.pop(), Some(Err(IoError::Failed)));
    world.control(Control::Scrub { disk: DiskId(0) });
    assert!(matches!(
        world.notes.last(),
        Some(Note::Scrubbed { bad: 1, .. })
    ));
}

#[test]
fn a_closed_store_has_an_empty_journal() {
    let mut world = World::new(64 << 20);
    world.write(0, 4096, 1);
    world.control(Control::Close);
    assert_eq!(world.shard.disk(DiskSlot(0)).unwrap().2.journal_used, 0);
    world.open();
    assert!(matches!(
        world
            .notes
            .iter()
            .rev()
            .find(|n| matches!(n, Note::Opened { .. })),
        Some(Note::Opened { replayed: 0 })
    ));
    assert!(all(&world.read(0, 4096), 1));
}
