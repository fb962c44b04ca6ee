//! The byte tables of docs/disk_format.md, held against the code: known values stand at the
//! documented places.

use crate::base::{BlockRun, ChunkNo, ExtentNo, FamilyId, LayerId, PgId, StoreId, VolumeId};
use crate::store::batch::{self, Header};
use crate::store::manifest::{self, PageRef};
use crate::store::page::{self, PageEntry, PageName};
use crate::store::record::{Empty, Fill, Mend, Record};
use crate::store::replica::{Replica, Replicas};
use crate::store::root::{ManifestRef, Position, Root};
use crate::store::superblock::{Geometry, Superblock};
use crate::store::{ChunkId, Epoch, LayerMeta, Openings, Stamp, VolumeMeta, WindowEntry};

const STORE: StoreId = StoreId([0x5a; 16]);
const KEY: [u8; 16] = [0xa5; 16];

/// Bytes that are looked at by their documented offsets; what was not looked at must be zero.
struct Table<'a> {
    bytes: &'a [u8],
    seen: Vec<bool>,
}

impl<'a> Table<'a> {
    fn of(bytes: &'a [u8], magic: &[u8; 8]) -> Table<'a> {
        let seen = vec![false; bytes.len()];
        let mut table = Table { bytes, seen };
        table.is(0, magic);
        let mut sealed = bytes.to_vec();
        sealed[8..12].fill(0);
        table.u32(8, crc32c::crc32c(&sealed));
        table
    }
    fn is(&mut self, at: usize, expected: &[u8]) {
        let range = at..at + expected.len();
        assert_eq!(&self.bytes[range.clone()], expected, "at {at}");
        self.seen[range].fill(true);
    }
    fn u8(&mut self, at: usize, expected: u8) {
        self.is(at, &[expected]);
    }
    fn u16(&mut self, at: usize, expected: u16) {
        self.is(at, &expected.to_le_bytes());
    }
    fn u32(&mut self, at: usize, expected: u32) {
        self.is(at, &expected.to_le_bytes());
    }
    fn u64(&mut self, at: usize, expected: u64) {
        self.is(at, &expected.to_le_bytes());
    }
    fn epoch(&mut self, at: usize) {
        self.u32(at, 31);
        self.u32(at + 4, 32);
        self.u32(at + 8, 33);
    }
    fn stamp(&mut self, at: usize) {
        self.u32(at, 30);
        self.epoch(at + 4);
        self.u64(at + 16, 34);
    }
    fn end(self) {
        let rest = self
            .bytes
            .iter()
            .zip(&self.seen)
            .position(|(b, seen)| *b != 0 && !seen);
        assert_eq!(rest, None, "a byte that no table names is not zero");
    }
}

fn stamp() -> Stamp {
    let epoch = Epoch {
        generation: 31,
        site: 32,
        host: 33,
    };
    Stamp {
        version: 30,
        epoch,
        sequence: 34,
    }
}

fn volume() -> VolumeMeta {
    let layer = |id, parent: Option<u64>, frozen| LayerMeta {
        id: LayerId(id),
        parent: parent.map(LayerId),
        frozen,
    };
    VolumeMeta {
        id: VolumeId(21),
        family: FamilyId(22),
        name: "disk".into(),
        size: 23 << 20,
        layers: vec![layer(24, None, true), layer(25, Some(24), false)],
    }
}

/// The volume of [`volume`] at `at`: 84 bytes.
fn is_volume(table: &mut Table<'_>, at: usize) {
    table.u64(at, 21);
    table.u64(at + 8, 22);
    table.u64(at + 16, 23 << 20);
    table.u32(at + 24, 4);
    table.u32(at + 28, 2);
    table.is(at + 32, b"disk");
    for (n, value) in [24, 0, 2, 25, 24, 1].into_iter().enumerate() {
        table.u64(at + 36 + n * 8, value);
    }
}

#[test]
fn a_superblock_is_as_documented() {
    let geometry = Geometry {
        root_len: 1,
        manifest_at: 2,
        manifest_blocks: 3,
        journal_at: 4,
        journal_len: 5,
        table_at: 6,
        pages: 7,
        slots_at: 8,
        slots: 9,
    };
    let mut bytes = Vec::new();
    Superblock {
        version: 5,
        openings: Openings {
            last: 19,
            recorded: 18,
        },
        store: STORE,
        instance_key: KEY,
        sequence: 10,
        incarnation: 11,
        checkpoint: 12,
        root_crc: 13,
        root_bytes: 14,
        end: Position {
            offset: 15,
            batch: 16,
            previous: 17,
        },
        closed: true,
        geometry,
    }
    .encode(&mut bytes);
    assert_eq!(bytes.len(), 4096);
    let mut table = Table::of(&bytes, b"SARSENSB");
    table.u32(12, 5);
    table.is(16, &STORE.0);
    table.is(32, &KEY);
    table.u64(48, 10);
    table.u64(56, 11);
    table.u64(64, 12);
    table.u32(72, 13);
    table.u32(76, 14);
    (0..9).for_each(|n| table.u64(80 + n * 8, n as u64 + 1));
    table.u64(152, 15);
    table.u64(160, 16);
    table.u32(168, 17);
    table.u32(172, 1);
    table.u64(176, 19);
    table.u64(184, 18);
    table.end();
}

#[test]
fn a_root_is_as_documented() {
    let written = ManifestRef {
        crc: 77,
        home: 1,
        written: true,
    };
    let tail = Position {
        offset: 4096,
        batch: 41,
        previous: 42,
    };
    let mut bytes = Vec::new();
    Root {
        store: STORE,
        checkpoint: 40,
        tail,
        touched: 43,
        used: 44,
        manifest: vec![written, ManifestRef::default()],
        volumes: [(VolumeId(21), volume())].into(),
        replicas: [(PgId(35), replica())].into(),
        replicas_through: 45,
    }
    .encode(&mut bytes);
    assert_eq!(bytes.len(), 4096);
    let mut table = Table::of(&bytes, b"SARSENRT");
    table.u32(12, 2);
    table.is(16, &STORE.0);
    table.u64(32, 40);
    table.u64(40, 4096);
    table.u64(48, 41);
    [42, 43, 44, 1]
        .into_iter()
        .enumerate()
        .for_each(|(n, value)| table.u32(56 + n * 4, value));
    table.u32(96, 77);
    table.u8(100, 1);
    table.u8(101, 1);
    is_volume(&mut table, 96 + 2 * 8);
    table.u32(72, 1);
    table.u64(80, 45);
    let at = 96 + 2 * 8 + 84;
    table.u32(at, 35);
    table.u32(at + 4, 81);
    table.u32(at + 8, 82);
    table.u32(at + 12, 0);
    table.u32(at + 16, 1);
    table.u32(at + 20, 81);
    table.u64(at + 24, 21);
    table.epoch(at + 32);
    table.u32(at + 44, 1);
    table.u64(at + 48, 0);
    let at = at + 56;
    table.u64(at, 22);
    table.u64(at + 8, 24);
    table.u64(at + 16, 71);
    table.stamp(at + 24);
    table.u64(at + 48, 0b11100);
    table.end();
}

#[test]
fn a_manifest_block_is_as_documented() {
    let page = PageRef {
        family: FamilyId(22),
        extent: ExtentNo(51),
        index: 52,
        home: 1,
        lsn: 53,
        crc: 54,
        pg: PgId(57),
    };
    let mut bytes = Vec::new();
    manifest::encode(STORE, 55, 56, &[None, Some(page)], &mut bytes);
    assert_eq!(bytes.len(), 4096);
    let mut table = Table::of(&bytes, b"SARSENMF");
    table.u32(12, 2);
    table.is(16, &STORE.0);
    table.u64(32, 55);
    table.u64(40, 56);
    let at = 64 + 32;
    table.u64(at, 22);
    table.u32(at + 8, 51);
    table.u16(at + 12, 52);
    table.u8(at + 14, 1);
    table.u8(at + 15, 1);
    table.u64(at + 16, 53);
    table.u32(at + 24, 54);
    table.u32(at + 28, 57);
    table.end();
}

#[test]
fn a_table_page_is_as_documented() {
    let name = PageName {
        store: STORE,
        page: 61,
        family: FamilyId(22),
        extent: ExtentNo(62),
        index: 63,
        lsn: 64,
        pg: PgId(66),
    };
    let entry = PageEntry {
        place: 5,
        layer: LayerId(24),
        slot: 65,
        data: 0x0f0f,
        zero: 0xf000,
        dirty: 0x0101,
        stamp: stamp(),
        crcs: std::array::from_fn(|n| 100 + n as u32),
    };
    let mut bytes = Vec::new();
    page::encode(&name, &[entry, entry], &mut bytes);
    assert_eq!(bytes.len(), 8192);
    let mut table = Table::of(&bytes, b"SARSENTP");
    table.u32(12, 61);
    table.is(16, &STORE.0);
    table.u64(32, 22);
    table.u32(40, 62);
    table.u16(44, 63);
    table.u16(46, 2);
    table.u64(48, 64);
    table.u32(56, 66);
    for at in [64, 64 + 112] {
        table.u8(at, 5);
        table.u16(at + 2, 0x0f0f);
        table.u16(at + 4, 0xf000);
        table.u16(at + 6, 0x0101);
        table.u32(at + 8, 65);
        table.u32(at + 12, 30);
        table.u64(at + 16, 24);
        table.epoch(at + 24);
        table.u64(at + 40, 34);
        (0..16).for_each(|n| table.u32(at + 48 + n * 4, 100 + n as u32));
    }
    table.end();
}

fn chunk() -> ChunkId {
    ChunkId {
        family: FamilyId(22),
        layer: LayerId(24),
        chunk: ChunkNo(64 + 7),
    }
}

fn replica() -> Replica {
    let mut replicas = Replicas::new(Default::default(), 0, 1 << 20);
    replicas.take(&fence());
    replicas.take(&Record::Zero {
        at: chunk(),
        run: BlockRun::new(2, 3).unwrap(),
        pg: PgId(35),
        range: Some(VolumeId(21)),
        stamp: stamp(),
        empty: Empty::Tombstone,
    });
    replicas.get(PgId(35)).unwrap().clone()
}

fn fence() -> Record {
    Record::Fence {
        pg: PgId(35),
        version: 81,
        session: 82,
        fences: vec![(VolumeId(21), stamp().epoch)],
    }
}

/// One record of each kind, with the length that the tables give it.
fn records() -> Vec<(Record, usize)> {
    let (at, pg, stamp) = (chunk(), PgId(35), stamp());
    let range = Some(VolumeId(21));
    let run = BlockRun::new(2, 3).unwrap();
    let crcs: [u32; 16] = std::array::from_fn(|n| 100 + n as u32);
    let (slot, count, empty) = (65, 9, Empty::Tombstone);
    let entry = WindowEntry {
        at,
        blocks: 0b1000,
        stamp,
    };
    let filled = (0b1111, 0b0111, 0b1000);
    let mut fill = Fill::new(at, (pg, range, stamp), filled, &crcs, &[entry]);
    fill.slot = slot;
    vec![
        (
            Record::Data {
                at,
                run,
                slot,
                pg,
                range,
                stamp,
                crcs,
            },
            96,
        ),
        (
            Record::Chunk {
                at,
                slot,
                pg,
                range: None,
                stamp,
                crcs,
            },
            144,
        ),
        (
            Record::Zero {
                at,
                run,
                pg,
                range,
                stamp,
                empty,
            },
            80,
        ),
        (
            Record::ZeroChunks {
                at,
                count,
                pg,
                range,
                stamp,
                empty: Empty::Forgotten,
            },
            80,
        ),
        (Record::PutVolume(Box::new(volume())), 96),
        (Record::DropVolume(VolumeId(21)), 16),
        (Record::Fill(Box::new(fill)), 128),
        (fence(), 48),
        (
            Record::Mark {
                pg,
                range: VolumeId(21),
                epoch: stamp.epoch,
                mark: 91,
                session: 92,
            },
            48,
        ),
        (Record::DropReplica(pg), 16),
        (
            Record::Mend(Box::new(Mend {
                pg,
                ..Mend::new(at, 0b0111, &crcs)
            })),
            96,
        ),
    ]
}

#[test]
fn a_batch_and_its_records_are_as_documented() {
    let header = Header {
        store: STORE,
        instance_key: KEY,
        batch: 77,
        offset: 8192,
        previous: 72,
        payload_blocks: 9,
        tail: 73,
        durable_through: 74,
        incarnation: 75,
        checkpoint: 76,
    };
    let records = records();
    let mut bytes = Vec::new();
    batch::encode(
        &header,
        records.iter().map(|(record, _)| record),
        &mut bytes,
    );
    assert_eq!(bytes.len(), 4096);
    let mut table = Table::of(&bytes, b"SARSENJN");
    table.u32(12, 4096);
    table.is(16, &STORE.0);
    table.is(32, &KEY);
    table.u64(48, 77);
    table.u64(56, 8192);
    table.u32(64, 72);
    table.u32(68, 9);
    (0..4).for_each(|n| table.u64(72 + n * 8, 73 + n as u64));
    table.u32(104, 11);
    let mut at = 128;
    for (kind, (record, len)) in (1u8..).zip(&records) {
        assert_eq!(record.len(), *len);
        table.u8(at, kind);
        table.u32(at + 4, *len as u32);
        is_record(&mut table, at, record);
        at += len;
    }
    table.end();
    let (found, _, decoded) = batch::decode(&bytes).expect("it is valid");
    assert_eq!(found, header);
    // Crcs beyond a run do not stand in the record.
    assert_eq!(
        decoded[1..],
        records.into_iter().map(|(r, _)| r).collect::<Vec<_>>()[1..]
    );
}

fn is_record(table: &mut Table<'_>, at: usize, record: &Record) {
    let (first, count, flags, slot, range, crcs) = match record {
        Record::Data { .. } => (2, 3, 0, 65, 21, 3),
        Record::Chunk { .. } => (0, 16, 0, 65, 0, 16),
        Record::Zero { .. } => (2, 3, 1, u32::MAX, 21, 0),
        Record::ZeroChunks { .. } => (0, 9, 0, u32::MAX, 21, 0),
        Record::PutVolume(_) => return is_volume(table, at + 8),
        Record::DropVolume(_) => return table.u64(at + 8, 21),
        Record::Fill(_) => {
            table.u16(at + 72, 0b1111);
            table.u16(at + 74, 0b0111);
            table.u16(at + 76, 0b1000);
            table.u16(at + 78, 1);
            table.stamp(at + 96);
            table.u64(at + 120, 0b1000);
            (0, 16, 0, 65, 21, 3)
        }
        Record::Mend(_) => {
            (0..3).for_each(|n| table.u64(at + 8 + n * 8, [22, 24, 71][n]));
            table.u8(at + 2, 16);
            table.u32(at + 32, u32::MAX);
            table.u32(at + 36, 35);
            table.u16(at + 72, 0b0111);
            return (0..3).for_each(|n| table.u32(at + 80 + n * 4, 100 + n as u32));
        }
        Record::Fence { .. } => {
            table.u32(at + 8, 35);
            table.u32(at + 12, 81);
            table.u32(at + 16, 82);
            table.u32(at + 20, 1);
            table.u64(at + 24, 21);
            return table.epoch(at + 32);
        }
        Record::Mark { .. } => {
            table.u32(at + 8, 35);
            table.epoch(at + 12);
            table.u64(at + 24, 21);
            table.u32(at + 40, 92);
            return table.u64(at + 32, 91);
        }
        Record::DropReplica(_) => return table.u32(at + 8, 35),
    };
    table.u8(at + 1, first);
    table.u8(at + 2, count);
    table.u8(at + 3, flags);
    table.u64(at + 8, 22);
    table.u64(at + 16, 24);
    table.u64(at + 24, 71);
    table.u32(at + 32, slot);
    table.u32(at + 36, 35);
    table.stamp(at + 40);
    table.u64(at + 64, range);
    (0..crcs).for_each(|n| table.u32(at + 80 + n * 4, 100 + n as u32));
}
