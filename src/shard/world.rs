//! A shard over a disk in memory that answers at once: what the plain stories of the shard, and the
//! frozen and flipped images of the store, are told with.

use super::*;
use crate::base::{
    BLOCK, Breaks, BufId, BufRef, DiskId, FamilyId, IoError, LayerId, PgId, Request, RequestKind,
    StoreId, Time, Token, VolumeId, crc,
};
use crate::store::{
    Closing, DiskOp, IoData, IoId, LayerMeta, Note, Options, Plan, VolumeMeta, format,
};
use std::collections::{BTreeMap, VecDeque};

pub(crate) const VOLUME_BYTES: u64 = 64 << 20;
/// The buffer that the shard is lent.
const LENT: u32 = u32::MAX;
/// The name of the control operation that opens the disk.
const OPENING: ControlId = ControlId(1);

/// A shard, its disk, its buffers, and what it answered.
pub(crate) struct World {
    pub shard: Shard,
    pub disk: Vec<u8>,
    pub buffers: BTreeMap<u32, Vec<u8>>,
    pub replies: Vec<Result<(), IoError>>,
    pub notes: Vec<Note>,
    pub now: Time,
    /// Why the last control operation was refused.
    pub refused: Option<ControlError>,
    /// How the last disk was opened.
    pub opened: Result<(), ControlError>,
    /// What writes replaced, newest last, while it is kept: offset and bytes.
    pub undo: Option<Vec<(usize, Vec<u8>)>>,
    out: Outbox,
    /// What the disk and the checksums brought, and the shard is still to be told: behind all outputs that were there before.
    done: VecDeque<Done>,
}

/// See [`World::done`].
enum Done {
    Bytes(DiskSlot, IoId, Vec<u8>),
    Crcs(DiskSlot, IoId, Vec<u32>),
    Checksummed(u32, Vec<u32>),
}

impl World {
    /// The bytes of a disk that was just formatted.
    pub fn formatted(disk_bytes: u64) -> Vec<u8> {
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
        disk
    }

    /// A formatted disk, opened, with a volume.
    pub fn new(disk_bytes: u64) -> World {
        let mut world = World::with_disk(World::formatted(disk_bytes));
        world.open();
        world
    }

    /// A world with this disk, which is not opened.
    pub fn with_disk(disk: Vec<u8>) -> World {
        World {
            shard: Shard::alone(Breaks::NONE),
            disk,
            buffers: BTreeMap::new(),
            replies: Vec::new(),
            notes: Vec::new(),
            now: Time(1),
            refused: None,
            opened: Ok(()),
            undo: None,
            out: Outbox::default(),
            done: VecDeque::new(),
        }
    }

    /// Takes back every write since `undo` was set.
    pub fn take_back(&mut self) {
        for (at, bytes) in self.undo.take().into_iter().flatten().rev() {
            self.disk[at..][..bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// Opens the disk and the volume with a new shard: what was in memory is lost.
    pub fn open(&mut self) {
        self.open_disk();
        self.settle();
        assert_eq!(self.opened, Ok(()));
        self.open_volume(&[1]);
    }

    /// Opens the disk with a new shard; `opened` says how that went. No time passes.
    pub fn open_disk(&mut self) {
        self.opened = Err(ControlError::NoSuchDisk);
        self.refused = None;
        self.shard = Shard::alone(Breaks::NONE);
        self.buffers.insert(0, vec![0; 128 * BLOCK as usize]);
        self.buffers.insert(LENT, vec![0; 256 * BLOCK as usize]);
        let buf = BufRef {
            id: BufId(LENT),
            block: 0,
        };
        self.step(Input::Memory { buf, blocks: 256 });
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
        let control = Control::OpenDisk {
            disk,
            slot,
            options,
        };
        let id = OPENING;
        self.step(Input::Control { id, control });
    }

    pub fn open_volume(&mut self, layers: &[u64]) {
        self.control(World::volume(layers));
    }

    /// Opens the volume as [`World::open_volume`] does, or not, and lets no time pass.
    pub fn open_volume_at_once(&mut self, layers: &[u64]) {
        let (id, control) = (ControlId(0), World::volume(layers));
        self.step(Input::Control { id, control });
        self.step(Input::TurnEnded);
    }

    fn volume(layers: &[u64]) -> Control {
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
        Control::OpenVolume {
            meta,
            pgs: vec![(PgId(0), DiskId(0))],
        }
    }

    pub fn control(&mut self, control: Control) {
        self.step(Input::Control {
            id: ControlId(0),
            control,
        });
        self.settle();
        assert_eq!(self.refused, None);
    }

    /// Closes the store, with everything applied.
    pub fn close(&mut self) {
        let how = Closing::Whole;
        self.control(Control::Close { how });
    }

    pub fn step(&mut self, input: Input<'_>) {
        self.step_once(input);
        self.tell_done();
    }

    fn tell_done(&mut self) {
        while let Some(done) = self.done.pop_front() {
            match done {
                Done::Bytes(disk, id, bytes) => {
                    let result = Ok(IoData::Bytes(&bytes));
                    self.step_once(Input::Disk { disk, id, result });
                }
                Done::Crcs(disk, id, crcs) => {
                    let result = Ok(IoData::Crcs(&crcs));
                    self.step_once(Input::Disk { disk, id, result });
                }
                Done::Checksummed(op, crcs) => {
                    self.step_once(Input::Checksummed { op, crcs: &crcs });
                }
            }
        }
    }

    fn step_once(&mut self, input: Input<'_>) {
        let mut out = std::mem::take(&mut self.out);
        self.shard.step(self.now, input, &mut out);
        self.perform(&mut out);
        out.clear();
        self.out = out;
    }

    /// Turns, until nothing happens any more and no deadline is near.
    pub fn settle(&mut self) {
        for _ in 0..50 {
            self.step(Input::TurnEnded);
            self.now = Time(self.now.0 + 1_000_000);
            let mut out = std::mem::take(&mut self.out);
            self.shard.expire(self.now, &mut out);
            self.perform(&mut out);
            out.clear();
            self.out = out;
            self.tell_done();
        }
    }

    pub fn perform(&mut self, out: &mut Outbox) {
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
                    self.done.push_back(Done::Checksummed(op, crcs));
                }
                Output::Copy { from, to, blocks } => {
                    let bytes = self.blocks(from, blocks).to_vec();
                    self.blocks(to, blocks).copy_from_slice(&bytes);
                }
                Output::Fill { buf, blocks } => self.blocks(buf, blocks).fill(0),
                Output::Pin { .. } | Output::Unpin { .. } | Output::Release { .. } => {}
                Output::Reply { result, .. } => self.replies.push(result),
                Output::ControlDone { id, result } if id == OPENING => self.opened = result,
                Output::ControlDone { result, .. } => self.refused = result.err(),
                Output::Note { note, .. } => self.notes.push(note),
            }
        }
    }

    pub fn blocks(&mut self, at: BufRef, blocks: u32) -> &mut [u8] {
        let buffer = self.buffers.get_mut(&at.id.0).unwrap();
        &mut buffer[at.block as usize * 4096..][..blocks as usize * 4096]
    }

    pub fn crcs(
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

    pub fn disk_op(
        &mut self,
        disk: DiskSlot,
        op: DiskOp,
        arena: &[u8],
        spans: &[crate::store::Span],
    ) {
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
                let place = &mut self.disk[offset as usize..][..bytes.len()];
                if let Some(undo) = &mut self.undo {
                    undo.push((offset as usize, place.to_vec()));
                }
                place.copy_from_slice(&bytes);
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
                return self.done.push_back(Done::Crcs(disk, id, crcs));
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
                return self.done.push_back(Done::Crcs(disk, id, crcs));
            }
            DiskOp::Flush { id } | DiskOp::Discard { id, .. } | DiskOp::ZeroRun { id, .. } => {
                (id, Vec::new())
            }
        };
        self.done.push_back(Done::Bytes(disk, id, data));
    }

    pub fn request(&mut self, kind: RequestKind, offset: u64, bytes: &[u8]) -> Vec<u8> {
        self.try_request(kind, offset, bytes)
            .unwrap_or_else(|error| panic!("{kind:?} at {offset}: {error:?}"))
    }

    pub fn try_request(
        &mut self,
        kind: RequestKind,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Vec<u8>, IoError> {
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
            scratch: Request::scratch_of(kind, offset, len, buf),
        }));
        // A turn for the payload of whole chunks, one for their records; before the first request those for the fence, and for what is recovered.
        for _ in 0..16 {
            self.step(Input::TurnEnded);
        }
        if self.replies.is_empty() {
            // What was refused for now is asked again a while later.
            self.settle();
        }
        self.replies.pop().expect("a request is answered")?;
        Ok(match kind {
            RequestKind::Read => self.buffers[&key][skip..][..bytes.len()].to_vec(),
            _ => Vec::new(),
        })
    }

    pub fn write(&mut self, offset: u64, len: usize, fill: u8) {
        self.request(RequestKind::Write, offset, &vec![fill; len]);
    }

    pub fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        self.request(RequestKind::Read, offset, &vec![0; len])
    }
}
