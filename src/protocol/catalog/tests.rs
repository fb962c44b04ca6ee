//! The catalog's stories.

mod attachments;
mod cuts;
mod many_nodes;
mod properties;
mod scale;

use super::*;
use crate::base::{DiskId, NodeId, PgId, Prng, StoreId, VolumeId};

const GIB: u64 = 1 << 30;

fn store(n: u8) -> StoreName {
    StoreName(StoreId([n; 16]))
}

fn add_disk(n: u8, size: u64) -> Command {
    Command::AddDisk {
        node: NodeId(1),
        path: format!("/srv/disk{n}"),
        store: store(n),
        size,
        pool: None,
        incarnation: crate::protocol::membership::Incarnation(0),
    }
}

fn create(name: &str, size: u64) -> Command {
    Command::CreateVolume {
        name: name.into(),
        size,
        block_size: 4096,
        purpose: Purpose::Use,
        pool: None,
        locality: crate::protocol::catalog::Locality::Spread,
    }
}

fn import(name: &str, size: u64) -> Command {
    Command::CreateVolume {
        name: name.into(),
        size,
        block_size: 512,
        purpose: Purpose::Import,
        pool: None,
        locality: crate::protocol::catalog::Locality::Spread,
    }
}

fn delete(name: &str, connections: u64) -> Command {
    Command::DeleteVolume {
        name: name.into(),
        connections,
    }
}

fn resize(name: &str, size: u64) -> Command {
    Command::ResizeVolume {
        name: name.into(),
        size,
    }
}

fn host() -> Catalog {
    let mut catalog = Catalog::default();
    let name = "host-1".into();
    catalog.apply(&Command::AddNode { name }).unwrap();
    catalog.apply(&add_disk(0, 16 * GIB)).unwrap();
    catalog
}

fn refused(catalog: &mut Catalog, command: &Command) -> Refusal {
    let before = catalog.clone();
    let refusal = catalog.apply(command).expect_err("this must be refused");
    assert_eq!(*catalog, before, "a refused command changes nothing");
    assert!(!refusal.reason.is_empty() && !refusal.hint.is_empty());
    refusal
}

#[test]
fn a_client_that_was_revoked_is_not_admitted_again_before_what_it_has_is_over() {
    let mut catalog = host();
    let admit = |catalog: &mut Catalog, role, now: u64, until: u64| {
        let name = "alice".to_owned();
        let command = Command::AdmitClient {
            name,
            role,
            now,
            until,
        };
        let done = catalog.apply(&command);
        done.map(drop).map_err(|refusal| refusal.field)
    };
    assert_eq!(
        admit(&mut catalog, ClientRole::Reader, 10, 10),
        Err("until".into())
    );
    assert_eq!(admit(&mut catalog, ClientRole::Operator, 10, 500), Ok(()));
    // What was issued before counts on: the row has the most of both.
    assert_eq!(admit(&mut catalog, ClientRole::Reader, 20, 100), Ok(()));
    let row = *catalog.client("alice").unwrap();
    assert_eq!((row.role, row.until), (ClientRole::Operator, 500));
    let revoke = |name: &str| Command::RevokeClient { name: name.into() };
    assert_eq!(refused(&mut catalog, &revoke("bob")).code, Code::NotFound);
    catalog.apply(&revoke("alice")).unwrap();
    assert!(catalog.client("alice").unwrap().revoked);
    assert_eq!(
        admit(&mut catalog, ClientRole::Reader, 600, 700),
        Err("name".into())
    );
    assert_eq!(
        admit(&mut catalog, ClientRole::Reader, 9_000, 9_700),
        Ok(())
    );
    assert_eq!(catalog.client("alice").unwrap().role, ClientRole::Reader);
    // A catalog from before there were clients has none, and says nothing of them.
    let none = serde_json::to_string(&Catalog::default()).unwrap();
    assert!(!none.contains("clients"));
    assert_eq!(Catalog::restore(&catalog.snapshot()), Ok(catalog));
}

#[test]
fn a_volume_has_a_list_of_clients_or_is_for_all_or_none() {
    let mut catalog = host();
    catalog.apply(&create("a", GIB)).unwrap();
    let before = serde_json::to_string(catalog.volume(VolumeId(1)).unwrap()).unwrap();
    assert!(
        !before.contains("clients"),
        "as it was before there were lists: {before}"
    );
    let mut set = |clients: NbdClients| {
        let name = "a".to_owned();
        let done = catalog.apply(&Command::SetClients { name, clients });
        let now = catalog.volume(VolumeId(1)).unwrap().clients.clone();
        (done.map(drop).map_err(|refusal| refusal.field), now)
    };
    let only = |names: &[&str]| NbdClients::Only(names.iter().map(ToString::to_string).collect());
    let both = only(&["alice", "bob"]);
    assert_eq!(set(both.clone()), (Ok(()), both.clone()));
    let many: Vec<String> = (0..65).map(|n| format!("c{n:02}")).collect();
    for odd in [
        only(&[]),
        only(&["bob", "alice"]),
        only(&["bob", "bob"]),
        NbdClients::Only(many),
    ] {
        assert_eq!(set(odd), (Err("clients".into()), both.clone()));
    }
    assert!(set(only(&["a b"])).0.is_err());
    assert_eq!(set(NbdClients::Anybody), (Ok(()), NbdClients::Anybody));
    assert_eq!(set(NbdClients::Nobody), (Ok(()), NbdClients::Nobody));
}

#[test]
fn a_volume_has_an_io_timeout_within_a_day_or_none() {
    let mut catalog = host();
    catalog.apply(&create("a", GIB)).unwrap();
    let mut set = |seconds| {
        let name = "a".to_owned();
        let done = catalog.apply(&Command::SetIoTimeout { name, seconds });
        let now = catalog.volume(VolumeId(1)).unwrap().io_timeout;
        (done.map(drop).map_err(|refusal| refusal.field), now)
    };
    assert_eq!(set(Some(30)), (Ok(()), Some(30)));
    for odd in [0, IO_TIMEOUT_MAX + 1] {
        assert_eq!(set(Some(odd)), (Err("io_timeout".into()), Some(30)));
    }
    assert_eq!(set(None), (Ok(()), None));
}

#[test]
fn a_pool_has_a_rebuild_limit_within_bounds_or_none() {
    let mut catalog = host();
    let mut set = |bytes_per_second| {
        let pool = DEFAULT_POOL.to_owned();
        let done = catalog.apply(&Command::SetRebuildLimit {
            pool,
            bytes_per_second,
        });
        let now = catalog.pool_named(DEFAULT_POOL).unwrap().rebuild_limit;
        (done.map(drop).map_err(|refusal| refusal.field), now)
    };
    assert_eq!(set(Some(20 << 20)), (Ok(()), Some(20 << 20)));
    for odd in [0, (1 << 20) - 1, (1 << 40) + 1] {
        let refused = Err("rebuild_limit".into());
        assert_eq!(set(Some(odd)), (refused, Some(20 << 20)));
    }
    assert_eq!(set(None), (Ok(()), None));
}

#[test]
fn the_first_disk_brings_32_pgs_and_later_ones_bring_theirs_by_size() {
    let mut catalog = host();
    assert_eq!(catalog.pgs().count(), 32);
    catalog.apply(&add_disk(1, 8 * GIB)).unwrap();
    assert_eq!(catalog.pgs().count(), 48);
    catalog.apply(&add_disk(2, 64 * GIB)).unwrap();
    assert_eq!(catalog.pgs().count(), 48 + 128);
    catalog.apply(&add_disk(3, DISK_BYTES_MIN)).unwrap();
    assert_eq!(catalog.pgs().count(), 48 + 128 + 1);
}

#[test]
fn a_volume_stays_on_the_pgs_that_its_pool_had_when_it_was_created() {
    let mut catalog = host();
    catalog.apply(&create("old", GIB)).unwrap();
    catalog.apply(&add_disk(1, 16 * GIB)).unwrap();
    catalog.apply(&create("new", GIB)).unwrap();
    let placement = |name| catalog.placement(catalog.volume_named(name).unwrap());
    assert_eq!(placement("old").len(), 32);
    assert!(placement("old").iter().all(|&(_, disk)| disk == DiskId(1)));
    assert_eq!(placement("new").len(), 64);
    assert_eq!(placement("new")[63], (PgId(64), DiskId(2)));
    assert_eq!(placement("new")[..32], placement("old"));
}

#[test]
fn a_disk_that_is_there_already_is_refused_by_path_and_by_store() {
    let mut catalog = host();
    let again = Command::AddDisk {
        node: NodeId(1),
        path: "/srv/other".into(),
        store: store(0),
        size: GIB,
        pool: None,
        incarnation: crate::protocol::membership::Incarnation(0),
    };
    assert_eq!(refused(&mut catalog, &again).code, Code::Exists);
    let same_path = Command::AddDisk {
        node: NodeId(1),
        path: "/srv/disk0".into(),
        store: store(9),
        size: GIB,
        pool: None,
        incarnation: crate::protocol::membership::Incarnation(0),
    };
    assert_eq!(refused(&mut catalog, &same_path).code, Code::Exists);
}

#[test]
fn a_disk_with_a_bad_node_path_or_size_is_refused_with_its_field() {
    let mut catalog = host();
    let disk = |node, path: &str, size| Command::AddDisk {
        node: NodeId(node),
        path: path.into(),
        store: store(7),
        size,
        pool: None,
        incarnation: crate::protocol::membership::Incarnation(0),
    };
    for (command, field) in [
        (disk(9, "/srv/a", GIB), "node"),
        (disk(1, "srv/a", GIB), "path"),
        (disk(1, "/srv/\na", GIB), "path"),
        (disk(1, "/srv/a", DISK_BYTES_MIN - 1), "size"),
        (disk(1, "/srv/a", u64::MAX), "size"),
    ] {
        assert_eq!(refused(&mut catalog, &command).field, field);
    }
}

#[test]
fn only_the_newest_disk_is_withdrawn_and_only_while_no_volume_is_on_it() {
    let mut catalog = host();
    let withdraw = |disk| Command::WithdrawDisk { disk: DiskId(disk) };
    catalog.apply(&create("old", GIB)).unwrap();
    catalog.apply(&add_disk(1, 16 * GIB)).unwrap();
    assert_eq!(refused(&mut catalog, &withdraw(1)).code, Code::Conflict);
    catalog.apply(&create("new", GIB)).unwrap();
    assert_eq!(refused(&mut catalog, &withdraw(2)).code, Code::Conflict);
    catalog.apply(&delete("new", 0)).unwrap();
    catalog
        .apply(&Command::ForgetVolume {
            volume: VolumeId(2),
        })
        .unwrap();
    catalog.apply(&withdraw(2)).unwrap();
    assert_eq!((catalog.disks().count(), catalog.pgs().count()), (1, 32));
    catalog.apply(&add_disk(1, 16 * GIB)).unwrap();
    assert_eq!(catalog.disks().last().unwrap().id, DiskId(3));
}

#[test]
fn a_disk_grows_and_never_shrinks() {
    let mut catalog = host();
    let grow = |size| Command::GrowDisk {
        disk: DiskId(1),
        size,
    };
    catalog.apply(&grow(32 * GIB)).unwrap();
    assert_eq!(refused(&mut catalog, &grow(16 * GIB)).field, "size");
    assert_eq!(catalog.disk(DiskId(1)).unwrap().size, 32 * GIB);
}

#[test]
fn a_volume_has_one_writable_layer_and_ids_of_its_own() {
    let mut catalog = host();
    catalog.apply(&create("a", GIB)).unwrap();
    catalog.apply(&create("b", GIB)).unwrap();
    let (a, b) = (
        catalog.volume_named("a").unwrap(),
        catalog.volume_named("b").unwrap(),
    );
    assert_ne!(
        (a.id, a.family, a.layers[0].id),
        (b.id, b.family, b.layers[0].id)
    );
    assert_eq!(a.layers[0].state, LayerState::Writable);
    assert_eq!(a.layers[0].parent, None);
}

#[test]
fn an_id_is_never_used_again() {
    let mut catalog = host();
    catalog.apply(&create("a", GIB)).unwrap();
    let first = catalog.volume_named("a").unwrap().clone();
    catalog.apply(&delete("a", 0)).unwrap();
    catalog
        .apply(&Command::ForgetVolume { volume: first.id })
        .unwrap();
    catalog.apply(&create("a", GIB)).unwrap();
    let second = catalog.volume_named("a").unwrap();
    assert!(second.id > first.id && second.layers[0].id > first.layers[0].id);
}

#[test]
fn a_volume_of_an_impossible_size_is_refused() {
    let mut catalog = host();
    for size in [
        0,
        1,
        4095,
        4097,
        GIB + 512,
        VOLUME_BYTES_MAX + 4096,
        u64::MAX,
    ] {
        assert_eq!(refused(&mut catalog, &create("a", size)).field, "size");
    }
    let odd = Command::CreateVolume {
        name: "a".into(),
        size: GIB,
        block_size: 1024,
        purpose: Purpose::Use,
        pool: None,
        locality: crate::protocol::catalog::Locality::Spread,
    };
    assert_eq!(refused(&mut catalog, &odd).field, "block_size");
}

#[test]
fn a_name_that_is_taken_is_refused() {
    let mut catalog = host();
    catalog.apply(&create("a", GIB)).unwrap();
    assert_eq!(refused(&mut catalog, &create("a", GIB)).code, Code::Exists);
    let twice = Command::AddNode {
        name: "host-1".into(),
    };
    assert_eq!(refused(&mut catalog, &twice).code, Code::Exists);
}

#[test]
fn a_volume_grows_and_never_shrinks() {
    let mut catalog = host();
    catalog.apply(&create("a", 2 * GIB)).unwrap();
    catalog.apply(&resize("a", 3 * GIB)).unwrap();
    assert_eq!(refused(&mut catalog, &resize("a", GIB)).field, "size");
    assert_eq!(
        refused(&mut catalog, &resize("b", GIB)).code,
        Code::NotFound
    );
    assert_eq!(catalog.volume_named("a").unwrap().size, 3 * GIB);
}

#[test]
fn no_more_is_promised_than_the_over_commit_ratio_allows() {
    let mut catalog = host();
    let percent = |percent| Command::SetOvercommit {
        pool: DEFAULT_POOL.into(),
        percent,
    };
    catalog.apply(&percent(150)).unwrap();
    catalog.apply(&create("a", 24 * GIB)).unwrap();
    assert_eq!(
        refused(&mut catalog, &create("b", 4096)).code,
        Code::Exhausted
    );
    assert_eq!(
        refused(&mut catalog, &resize("a", 25 * GIB)).code,
        Code::Exhausted
    );
    catalog.apply(&percent(200)).unwrap();
    catalog.apply(&create("b", 8 * GIB)).unwrap();
    assert_eq!(refused(&mut catalog, &percent(99)).field, "percent");
}

#[test]
fn a_pool_without_a_disk_promises_nothing() {
    let refusal = refused(&mut Catalog::default(), &create("a", GIB));
    assert_eq!(refusal.code, Code::Exhausted);
}

#[test]
fn deleting_a_volume_that_is_connected_is_refused() {
    let mut catalog = host();
    catalog.apply(&create("a", GIB)).unwrap();
    assert_eq!(refused(&mut catalog, &delete("a", 1)).code, Code::Conflict);
    let volume = catalog.volume_named("a").unwrap().id;
    let node = NodeId(1);
    let front_end = FrontEnd::default();
    let attach = Command::Attach {
        volume,
        node,
        front_end,
    };
    catalog.apply(&attach).unwrap();
    assert_eq!(refused(&mut catalog, &delete("a", 0)).code, Code::Conflict);
    catalog
        .apply(&Command::Detach { volume, key: None })
        .unwrap();
    catalog.apply(&delete("a", 0)).unwrap();
}

#[test]
fn a_deletion_is_begun_again_after_a_crash_and_ended_once() {
    let mut catalog = host();
    catalog.apply(&create("a", GIB)).unwrap();
    let forget = Command::ForgetVolume {
        volume: VolumeId(1),
    };
    assert_eq!(refused(&mut catalog, &forget).code, Code::Conflict);
    catalog.apply(&delete("a", 0)).unwrap();
    catalog.apply(&delete("a", 0)).unwrap();
    assert_eq!(refused(&mut catalog, &create("a", GIB)).code, Code::Exists);
    assert_eq!(
        refused(&mut catalog, &resize("a", 2 * GIB)).code,
        Code::Conflict
    );
    catalog.apply(&forget).unwrap();
    assert_eq!(refused(&mut catalog, &forget).code, Code::NotFound);
}

#[test]
fn an_import_only_goes_on_and_ends_once() {
    let mut catalog = host();
    catalog.apply(&import("a", GIB)).unwrap();
    let volume = VolumeId(1);
    let record = |through| Command::RecordImport {
        volume,
        mark: ImportMark { through, crc32c: 7 },
    };
    catalog.apply(&record(4096)).unwrap();
    assert_eq!(refused(&mut catalog, &record(0)).field, "mark");
    assert_eq!(refused(&mut catalog, &record(GIB + 1)).field, "mark");
    let attach = Command::Attach {
        volume,
        node: NodeId(1),
        front_end: FrontEnd::Ublk {
            device: None,
            queues: 1,
        },
    };
    assert_eq!(refused(&mut catalog, &attach).code, Code::Conflict);
    assert_eq!(
        refused(&mut catalog, &resize("a", 2 * GIB)).code,
        Code::Conflict
    );
    catalog.apply(&Command::FinishImport { volume }).unwrap();
    let again = Command::FinishImport { volume };
    assert_eq!(refused(&mut catalog, &again).code, Code::Conflict);
}

#[test]
fn a_snapshot_gives_the_same_catalog_back() {
    let mut catalog = host();
    catalog.apply(&create("a", GIB)).unwrap();
    catalog.apply(&import("b", GIB)).unwrap();
    assert_eq!(Catalog::restore(&catalog.snapshot()), Ok(catalog));
}

#[test]
fn a_snapshot_of_a_newer_build_is_refused_whatever_else_is_in_it() {
    let newer = br#"{"version": 3, "something": "else"}"#;
    let expected = RestoreError::NewerVersion {
        found: 3,
        newest: 2,
    };
    assert_eq!(Catalog::restore(newer), Err(expected));
}

#[test]
fn a_snapshot_that_contradicts_itself_is_refused() {
    let mut catalog = host();
    catalog.apply(&create("a", GIB)).unwrap();
    let mut broken = catalog.clone();
    broken.next.volume = 1;
    let restored = Catalog::restore(&broken.snapshot());
    assert_eq!(
        restored,
        Err(RestoreError::Inconsistent("ids-never-return"))
    );
    let mut broken = catalog.clone();
    broken.disks.clear();
    let restored = Catalog::restore(&broken.snapshot());
    assert_eq!(restored, Err(RestoreError::Inconsistent("references-hold")));
    let text = String::from_utf8(catalog.snapshot()).unwrap();
    let nobody = text.replacen(r#""in_sync":[1]"#, r#""in_sync":[]"#, 1);
    let error = Catalog::restore(nobody.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("in-sync-are-replicas"), "{error}");
}

#[test]
fn a_command_reads_back_as_it_was_written_and_unknown_fields_are_refused() {
    let text = r#"{"command":"resize_volume","name":"a","size":4096}"#;
    let command: Command = serde_json::from_str(text).unwrap();
    assert_eq!(command, resize("a", 4096));
    assert_eq!(serde_json::to_string(&command).unwrap(), text);
    let odd = r#"{"command":"resize_volume","name":"a","size":4096,"shrink":true}"#;
    assert!(serde_json::from_str::<Command>(odd).is_err());
}

/// Commands drawn from a seed, valid ones and others, keep every invariant and give the same catalog twice.
#[test]
fn any_commands_in_the_same_order_give_the_same_catalog() {
    for seed in 0..20 {
        let run = || {
            let (mut prng, mut catalog) = (Prng::new(seed), host());
            let mut accepted = 0;
            for _ in 0..600 {
                accepted += u64::from(catalog.apply(&any_command(&mut prng)).is_ok());
                catalog.check().unwrap();
            }
            assert!(
                accepted >= 10,
                "seed {seed}: only {accepted} commands were accepted"
            );
            catalog
        };
        assert_eq!(run().snapshot(), run().snapshot());
    }
}

fn any_command(prng: &mut Prng) -> Command {
    let name = ["a", "b", "c", "-d"][prng.below(4) as usize];
    let size = prng.below(64) * GIB / 8 + prng.below(2) * prng.below(4096);
    let volume = VolumeId(prng.below(20));
    match prng.below(11) {
        0 | 1 => create(name, size),
        2 => import(name, size),
        3 => resize(name, size),
        4 => delete(name, prng.below(2)),
        5 => Command::ForgetVolume { volume },
        6 => Command::FinishImport { volume },
        7 | 8 => Command::Attach {
            volume,
            node: NodeId(prng.below(3) as u32),
            front_end: any_front_end(prng),
        },
        9 => Command::RecordDevice {
            key: AttachmentKey(prng.below(20)),
            device: prng.below(9) as u32,
        },
        _ if prng.one_in(4) => add_disk(prng.below(6) as u8, size),
        _ => Command::Detach {
            volume,
            key: prng.one_in(2).then(|| AttachmentKey(prng.below(20))),
        },
    }
}

fn any_front_end(prng: &mut Prng) -> FrontEnd {
    let queues = prng.below(130) as u16;
    match prng.below(4) {
        0 => FrontEnd::Ublk {
            device: None,
            queues,
        },
        1 => FrontEnd::Nbd {
            device: None,
            queues,
        },
        _ => FrontEnd::VhostUser {
            socket: format!("/run/{}", prng.below(8)),
            queues,
            incoming: prng.one_in(3),
        },
    }
}
