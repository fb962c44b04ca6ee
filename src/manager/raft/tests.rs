//! The file and the log: openraft's own suite for both, files of before, damage, and power cuts.

use super::group::is_snapshot_due;
use super::log::LogStore;
use super::machine::Machine;
use super::store::{Database, Source, Store};
use super::{StorageError, Types, old_format};
use crate::base::{NodeId, Prng, crc};
use crate::manager::board::Board;
use crate::manager::tests::{Folder, commands, run};
use crate::manager::{Manager, Options, Start};
use crate::protocol::catalog::Catalog;
use openraft::testing::{StoreBuilder, Suite};
use redb::{ReadableTable, StorageBackend, TableDefinition};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Makes a store of its own for each test of the suite.
struct Stores {
    made: AtomicU64,
}

impl StoreBuilder<Types, LogStore, Machine, Folder> for Stores {
    async fn build(&self) -> Result<(Folder, LogStore, Machine), StorageError> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let folder = Folder::new(&format!("manager-suite-{number}"));
        let (store, found) = Store::open(Source::File(folder.file()), None).unwrap();
        let store = Arc::new(store);
        let board = Arc::new(Board::new(0, Catalog::default()));
        let machine = Machine::new(Arc::clone(&store), board, None);
        Ok((folder, LogStore::new(store, found), machine))
    }
}

#[test]
fn the_suite_of_openraft_for_log_stores_passes() {
    let stores = Stores {
        made: AtomicU64::new(0),
    };
    Suite::test_all(stores).unwrap();
}

#[test]
fn a_big_snapshot_is_written_less_often() {
    let evictions = |count: u64| (count, count * 120);
    assert!(!is_snapshot_due(evictions(255), 0));
    assert!(is_snapshot_due(evictions(256), 0));
    assert!(is_snapshot_due(evictions(256), 100_000));
    assert!(!is_snapshot_due(evictions(16_000), 58 << 20));
    assert!(is_snapshot_due(evictions(16_384), 58 << 20));
    assert!(is_snapshot_due((300, 17 << 20), 1 << 30));
}

fn sealed(bytes: &[u8]) -> Vec<u8> {
    [&crc::of(bytes).to_le_bytes()[..], bytes].concat()
}

/// A file as a build from before Raft left it: so many commands, of which the first `compacted` are in the snapshot.
fn of_format_1(path: &Path, count: usize, compacted: usize) -> Catalog {
    let meta: TableDefinition<&str, u64> = TableDefinition::new("meta");
    let database = Database::create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut catalog = Catalog::default();
    {
        let mut meta = transaction.open_table(meta).unwrap();
        meta.insert("format", 1).unwrap();
        let mut log = transaction.open_table(old_format::LOG).unwrap();
        let mut snapshots = transaction.open_table(old_format::SNAPSHOT).unwrap();
        for (number, command) in (1..).zip(commands().take(count)) {
            catalog.apply(&command).unwrap();
            if number > compacted as u64 {
                let json = serde_json::to_vec(&command).unwrap();
                log.insert(number, sealed(&json).as_slice()).unwrap();
            } else if number == compacted as u64 {
                let bytes = sealed(&catalog.snapshot());
                snapshots.insert(number, bytes.as_slice()).unwrap();
            }
        }
    }
    transaction.commit().unwrap();
    catalog
}

#[test]
fn a_file_of_format_1_is_taken_over_once() {
    for (count, compacted) in [(0, 0), (5, 0), (9, 6), (6, 6)] {
        let folder = Folder::new(&format!("manager-old-{count}-{compacted}"));
        let before = of_format_1(&folder.file(), count, compacted);
        run(async {
            let manager = Manager::open(folder.file()).await.unwrap();
            assert_eq!(*manager.catalog(), before);
            assert_eq!(manager.node(), NodeId(1));
            let next = commands().nth(count).unwrap();
            manager.propose(next).await.unwrap();
            let after = Catalog::clone(&manager.catalog());
            assert_eq!(after.applied(), count as u64 + 1);
            drop(manager);
            let manager = Manager::open(folder.file()).await.unwrap();
            assert_eq!(*manager.catalog(), after);
        });
        let database = Database::open(folder.file()).unwrap();
        let reading = redb::ReadableDatabase::begin_read(&database).unwrap();
        assert!(reading.open_table(old_format::LOG).is_err());
    }
}

#[test]
fn a_damaged_file_of_format_1_is_named_and_left_as_it_is() {
    let folder = Folder::new("manager-old-damaged");
    of_format_1(&folder.file(), 5, 2);
    let database = Database::open(folder.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut log = transaction.open_table(old_format::LOG).unwrap();
    log.insert(4, b"xxxx{}".as_slice()).unwrap();
    drop(log);
    transaction.commit().unwrap();
    drop(database);
    let error = run(Manager::open(folder.file())).err().unwrap().to_string();
    assert!(error.contains("command 4 does not match"), "{error}");
    let database = Database::open(folder.file()).unwrap();
    let reading = redb::ReadableDatabase::begin_read(&database).unwrap();
    assert!(reading.open_table(old_format::LOG).is_ok());
}

/// Opens a file of six commands after something was done to its tables, and gives back what is said of it.
fn said_of(name: &str, harm: impl FnOnce(&redb::WriteTransaction)) -> String {
    let folder = Folder::new(name);
    run(async {
        let manager = Manager::open(folder.file()).await.unwrap();
        for command in commands().take(6) {
            manager.propose(command).await.unwrap();
        }
        manager.end().await;
    });
    let database = Database::open(folder.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    harm(&transaction);
    transaction.commit().unwrap();
    drop(database);
    let error = run(Manager::open(folder.file())).err().unwrap().to_string();
    assert!(error.contains(folder.file().to_str().unwrap()), "{error}");
    error
}

#[test]
fn damage_is_found_and_named() {
    let entries: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
    let state: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
    let meta: TableDefinition<&str, u64> = TableDefinition::new("meta");
    let error = said_of("manager-harm-entry", |on| {
        let mut table = on.open_table(entries).unwrap();
        let mut bytes = table.get(4).unwrap().unwrap().value().to_vec();
        bytes[9] ^= 1;
        table.insert(4, bytes.as_slice()).unwrap();
    });
    assert!(
        error.contains("entry 4 does not match its checksum"),
        "{error}"
    );
    let error = said_of("manager-harm-hole", |on| {
        on.open_table(entries).unwrap().remove(4).unwrap();
    });
    assert!(error.contains("where entry 4 belongs"), "{error}");
    let error = said_of("manager-harm-vote", |on| {
        let mut table = on.open_table(state).unwrap();
        table.insert("vote", b"12345".as_slice()).unwrap();
    });
    assert!(error.contains("the vote does not match"), "{error}");
    let error = said_of("manager-harm-end", |on| {
        let mut table = on.open_table(entries).unwrap();
        table.retain_in(3.., |_, _| false).unwrap();
    });
    assert!(error.contains("committed are gone"), "{error}");
    let error = said_of("manager-harm-whose", |on| {
        on.open_table(meta).unwrap().remove("node").unwrap();
    });
    assert!(error.contains("does not say whose"), "{error}");
}

#[test]
fn the_file_of_another_node_is_refused() {
    let folder = Folder::new("manager-whose");
    run(async {
        drop(Manager::open(folder.file()).await.unwrap());
        let options = Options {
            start: Start::Join { node: NodeId(2) },
            ..Options::alone(folder.file())
        };
        let error = Manager::open_with(options).await.err().unwrap().to_string();
        assert!(error.contains("the file of node 1"), "{error}");
    });
}

/// A file that can lose power: what was not synced may be lost, whole or by the sector. It keeps what a power cut would
/// have left at `KEPT` of the moments of a run, all equally likely.
#[derive(Debug)]
struct Medium {
    durable: Vec<u8>,
    now: Vec<u8>,
    unsynced: Vec<Write>,
    /// How many commands whoever writes was told of as durable.
    acknowledged: u64,
    prng: Prng,
    moments: u64,
    images: Vec<(u64, Vec<u8>)>,
}

const KEPT: usize = 120;

#[derive(Debug)]
enum Write {
    At(usize, Vec<u8>),
    Length(usize),
}

const SECTOR: usize = 512;

impl Medium {
    fn of(bytes: Vec<u8>) -> Medium {
        Medium {
            durable: bytes.clone(),
            now: bytes,
            unsynced: Vec::new(),
            acknowledged: 0,
            prng: Prng::new(11),
            moments: 0,
            images: Vec::new(),
        }
    }

    /// Before each thing that is done to the file once something was acknowledged: one more moment at which the power
    /// might go. One of `moments` so far is kept with a chance of `KEPT / moments` (Vitter's algorithm R, 1985).
    fn moment(&mut self) {
        if self.acknowledged == 0 {
            return;
        }
        self.moments += 1;
        if self.images.len() < KEPT {
            let image = self.cut();
            self.images.push((self.acknowledged, image));
            return;
        }
        let place = self.prng.below(self.moments) as usize;
        if place < KEPT {
            self.images[place] = (self.acknowledged, self.cut());
        }
    }

    /// What is there after a power cut now.
    fn cut(&mut self) -> Vec<u8> {
        let prng = &mut self.prng;
        let mut image = self.durable.clone();
        // All, none, or by chance.
        let kept_of_100 = [0, 30, 70, 100][prng.below(4) as usize];
        for write in &self.unsynced {
            match write {
                Write::Length(length) => {
                    if prng.below(100) < kept_of_100 {
                        image.resize(*length, 0);
                    }
                }
                Write::At(at, bytes) => {
                    for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                        let at = at + number * SECTOR;
                        let has_room = image.len() >= at + sector.len();
                        if has_room && prng.below(100) < kept_of_100 {
                            image[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        image
    }
}

#[derive(Debug, Clone)]
struct Cuttable(Arc<Mutex<Medium>>);

impl Cuttable {
    fn of(bytes: Vec<u8>) -> Cuttable {
        Cuttable(Arc::new(Mutex::new(Medium::of(bytes))))
    }
}

impl StorageBackend for Cuttable {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let medium = self.0.lock().unwrap();
        let from = offset as usize;
        let found = medium.now.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut medium = self.0.lock().unwrap();
        medium.moment();
        medium.now.resize(len as usize, 0);
        medium.unsynced.push(Write::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut medium = self.0.lock().unwrap();
        medium.moment();
        medium.durable = medium.now.clone();
        medium.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut medium = self.0.lock().unwrap();
        medium.moment();
        let from = offset as usize;
        medium.now[from..from + data.len()].copy_from_slice(data);
        medium.unsynced.push(Write::At(from, data.to_vec()));
        Ok(())
    }
}

async fn on(medium: &Cuttable) -> Result<Manager, super::OpenError> {
    let backend = medium.clone();
    let path = PathBuf::from("a medium");
    let make = move || Database::builder().create_with_backend(backend);
    let source = Source::Made(path.clone(), Box::new(make));
    Manager::open_source(source, Options::alone(path)).await
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged() {
    let medium = Cuttable::of(Vec::new());
    let all: Vec<_> = commands().take(700).collect();
    run(async {
        let manager = on(&medium).await.unwrap();
        for command in &all {
            manager.propose(command.clone()).await.unwrap();
            medium.0.lock().unwrap().acknowledged += 1;
        }
    });
    let images = std::mem::take(&mut medium.0.lock().unwrap().images);
    assert_eq!(images.len(), KEPT);
    let mut in_the_middle = 0;
    for (acknowledged, image) in images {
        run(async {
            let manager = on(&Cuttable::of(image)).await.unwrap();
            let found = manager.catalog();
            assert!(found.applied() >= acknowledged);
            let mut expected = Catalog::default();
            for command in &all[..found.applied() as usize] {
                expected.apply(command).unwrap();
            }
            assert_eq!(*found, expected);
            in_the_middle += usize::from(acknowledged < all.len() as u64);
        });
    }
    assert!(in_the_middle >= KEPT / 2, "{in_the_middle}");
}
