//! The manager's stories: what survives, and what is refused at the start.

mod follow;
mod group;
mod wires;

use super::raft::COMPACT_EVERY;
use super::*;
use crate::base::{NodeId, StoreId};
use crate::protocol::catalog::{Catalog, Code, Command, Purpose, StoreName};
use std::future::Future;
use std::path::{Path, PathBuf};

/// A folder of the test's own, gone when the test is.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("sarsen-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(super) fn file(&self) -> PathBuf {
        self.0.join("catalog")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn run<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(story)
}

/// A node, its disk, and volumes without end.
pub(super) fn commands() -> impl Iterator<Item = Command> {
    let node = Command::AddNode { name: "a".into() };
    let disk = Command::AddDisk {
        node: NodeId(1),
        path: "/srv/disk0".into(),
        store: StoreName(StoreId([3; 16])),
        size: 16 << 30,
        pool: None,
        incarnation: crate::protocol::membership::Incarnation(0),
    };
    [node, disk]
        .into_iter()
        .chain((0..).map(|n| create(&format!("v{n}"))))
}

pub(super) fn create(name: &str) -> Command {
    Command::CreateVolume {
        name: name.into(),
        size: 1 << 20,
        block_size: 4096,
        purpose: Purpose::Use,
        pool: None,
        locality: crate::protocol::catalog::Locality::Spread,
    }
}

async fn filled(path: &Path, count: usize) -> Catalog {
    let manager = Manager::open(path.into()).await.unwrap();
    for command in commands().take(count) {
        manager.propose(command).await.unwrap();
    }
    Catalog::clone(&manager.catalog())
}

#[test]
fn a_command_that_some_node_does_not_know_is_refused_with_its_name() {
    run(async {
        let folder = Folder::new("levels");
        let manager = Manager::open(folder.file()).await.unwrap();
        for name in ["a", "b"] {
            let name = name.into();
            manager.propose(Command::AddNode { name }).await.unwrap();
        }
        let set = Command::SetClients {
            name: "v".into(),
            clients: crate::protocol::catalog::NbdClients::Anybody,
        };
        let index = manager.index();
        let (new, old) = (set.since(), set.since() - 1);
        for (level, says) in [
            (None, "node b has not been looked at"),
            (Some(Some(old)), "node b runs a build that does not know"),
            // It is taken, and there is no such volume.
            (Some(Some(new)), "there is no volume"),
            (Some(None), "there is no volume"),
        ] {
            let levels = level.map(|level| (NodeId(2), level));
            manager.know_levels(levels.into_iter().collect());
            match manager.propose(set.clone()).await {
                Err(ProposeError::Refused(refusal)) => {
                    assert!(refusal.reason.contains(says), "{level:?}: {refusal}");
                    let is_in_the_log = manager.index() > index;
                    assert_eq!(is_in_the_log, says == "there is no volume", "{level:?}");
                }
                other => panic!("{level:?}: {other:?}"),
            }
        }
    });
}

#[test]
fn the_catalog_is_found_again_with_and_without_a_snapshot() {
    for count in [0, 1, 5, COMPACT_EVERY as usize, COMPACT_EVERY as usize + 3] {
        let folder = Folder::new(&format!("manager-again-{count}"));
        run(async {
            let before = filled(&folder.file(), count).await;
            let manager = Manager::open(folder.file()).await.unwrap();
            assert_eq!(*manager.catalog(), before);
            assert_eq!(before.applied(), count as u64);
        });
    }
}

#[test]
fn a_refused_command_is_not_in_the_log() {
    let folder = Folder::new("manager-refused");
    run(async {
        let before = filled(&folder.file(), 4).await;
        let manager = Manager::open(folder.file()).await.unwrap();
        let refused = manager.propose(create("v0")).await;
        assert!(matches!(refused, Err(ProposeError::Refused(r)) if r.code == Code::Exists));
        drop(manager);
        let manager = Manager::open(folder.file()).await.unwrap();
        assert_eq!(*manager.catalog(), before);
    });
}

#[test]
fn a_reader_keeps_the_catalog_that_it_looked_at() {
    let folder = Folder::new("manager-reader");
    run(async {
        filled(&folder.file(), 2).await;
        let manager = Manager::open(folder.file()).await.unwrap();
        let before = manager.catalog();
        manager.propose(create("v0")).await.unwrap();
        assert_eq!(before.volumes().count(), 0);
        assert_eq!(manager.catalog().volumes().count(), 1);
    });
}

#[test]
fn a_second_daemon_on_the_same_catalog_is_refused() {
    let folder = Folder::new("manager-twice");
    run(async {
        let _first = Manager::open(folder.file()).await.unwrap();
        let error = Manager::open(folder.file())
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("another process uses it"), "{error}");
    });
}

#[test]
fn a_file_that_is_something_else_is_refused_by_name_and_left_alone() {
    let folder = Folder::new("manager-else");
    let other = b"a letter to a friend".repeat(1000);
    std::fs::write(folder.file(), &other).unwrap();
    run(async {
        let error = Manager::open(folder.file())
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(folder.file().to_str().unwrap()), "{error}");
    });
    assert_eq!(std::fs::read(folder.file()).unwrap(), other);
}

#[test]
fn a_flipped_byte_is_noticed_or_harmless() {
    let folder = Folder::new("manager-flipped");
    let good = run(filled(&folder.file(), 6));
    let bytes = std::fs::read(folder.file()).unwrap();
    let broken = folder.0.join("broken");
    let written: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
    for &at in written.iter().step_by(written.len() / 60) {
        let mut copy = bytes.clone();
        copy[at] ^= 0x40;
        std::fs::write(&broken, &copy).unwrap();
        // Either the old state that redb falls back to, or an error: never another catalog.
        match run(Manager::open(broken.clone())) {
            Ok(manager) => {
                let found = manager.catalog();
                assert!(found.applied() <= good.applied());
                assert_eq!(found.check(), Ok(()));
            }
            Err(error) => assert!(error.to_string().contains("broken"), "{error}"),
        }
    }
}

#[test]
fn a_catalog_of_a_newer_build_is_refused() {
    let folder = Folder::new("manager-newer");
    run(filled(&folder.file(), 2));
    let database = redb::Database::open(folder.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta: redb::TableDefinition<&str, u64> = redb::TableDefinition::new("meta");
    transaction
        .open_table(meta)
        .unwrap()
        .insert("format", 9)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = run(Manager::open(folder.file())).err().unwrap().to_string();
    assert!(error.contains("version 9"), "{error}");
}

/// By hand: `cargo test --all-features --lib manager::tests::what_a_proposal_costs -- --ignored --nocapture`.
#[test]
#[ignore = "it measures"]
fn what_a_proposal_costs() {
    let folder = Folder::new("manager-cost");
    let say = |what: &str, mut took: Vec<u128>| {
        took.sort_unstable();
        let mean = took.iter().sum::<u128>() / took.len() as u128;
        let at = |percent: usize| took[took.len() * percent / 100];
        println!("{what}: mean {mean} us, p50 {}, p99 {}", at(50), at(99));
    };
    run(async {
        let manager = Manager::open(folder.file()).await.unwrap();
        let mut took = Vec::new();
        for command in commands().take(2_000) {
            let begun = std::time::Instant::now();
            manager.propose(command).await.unwrap();
            took.push(begun.elapsed().as_micros());
        }
        say("one node, one at a time", took);
    });
    // What format 1 did: a copy of the catalog, and one transaction.
    let database = redb::Database::create(folder.0.join("bare")).unwrap();
    let log: redb::TableDefinition<u64, &[u8]> = redb::TableDefinition::new("log");
    let mut catalog = Catalog::default();
    let mut took = Vec::new();
    for (number, command) in (0..).zip(commands().take(2_000)) {
        let begun = std::time::Instant::now();
        let mut after = catalog.clone();
        after.apply(&command).unwrap();
        let entry = serde_json::to_vec(&command).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut table = transaction.open_table(log).unwrap();
        table.insert(number, entry.as_slice()).unwrap();
        drop(table);
        transaction.commit().unwrap();
        catalog = after;
        took.push(begun.elapsed().as_micros());
    }
    say("as it was before Raft, without its blocking task", took);
    run(async {
        let site = wires::Site::of_members("manager-cost-three", 3, 3).await;
        let leader = site.leader().await;
        let mut took = Vec::new();
        for number in 0..1_000 {
            let begun = std::time::Instant::now();
            let name = format!("v{number}");
            site.node(leader).propose(create(&name)).await.unwrap();
            took.push(begun.elapsed().as_micros());
        }
        say("three nodes in one process, at the leader", took);
    });
}
