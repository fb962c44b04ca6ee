//! A site of many nodes: what the manager records of nodes, disks, pools, PGs, layers and ranges.

use super::*;
use crate::base::{Epoch, LayerId};
use crate::protocol::membership::{Incarnation, LeaseNumber, Term};
use crate::protocol::placement::Level;
use crate::protocol::replication::{Reconfigure, Role};

const PG: PgId = PgId(1);

fn n(id: u32) -> NodeId {
    NodeId(id)
}

fn d(id: u32) -> DiskId {
    DiskId(id)
}

fn disk_of(node: u32, store: u8) -> Command {
    Command::AddDisk {
        node: n(node),
        path: format!("/srv/disk{store}"),
        store: super::store(store),
        size: 16 * GIB,
        pool: None,
        incarnation: Incarnation(1),
    }
}

fn pool(copies: u32, min_copies: u32, level: Level) -> Command {
    Command::SetPool {
        pool: DEFAULT_POOL.into(),
        copies,
        min_copies,
        level,
    }
}

fn lay_out(catalog: &Catalog, replicas: &[&[u32]]) -> Command {
    Command::CreatePgs {
        pool: PoolId(1),
        first: catalog.next_pg(),
        replicas: replicas
            .iter()
            .map(|disks| disks.iter().map(|&disk| d(disk)).collect())
            .collect(),
        batch: Batch::Last,
    }
}

/// Four nodes with a disk each (disk 1 on node 1, and so on), two copies in different nodes, three PGs.
fn site() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.apply(&pool(2, 1, Level::Node)).unwrap();
    for node in 1..=4 {
        let name = format!("n{node}");
        catalog.apply(&Command::AddNode { name }).unwrap();
        catalog.apply(&disk_of(node, node as u8)).unwrap();
    }
    let pgs = lay_out(&catalog, &[&[1, 2], &[2, 3], &[3, 4]]);
    catalog.apply(&pgs).unwrap();
    catalog.apply(&create("a", GIB)).unwrap();
    catalog
}

fn change(catalog: &Catalog, change: Reconfigure) -> Command {
    let version = catalog.pg(PG).unwrap().version();
    Command::Reconfigure {
        pg: PG,
        version,
        change,
    }
}

fn role(catalog: &Catalog, disk: u32) -> Option<Role> {
    catalog.pg(PG).unwrap().configuration.role(d(disk))
}

fn open(disk: u32, before: u64, now: u64) -> Command {
    Command::OpenDisk {
        disk: d(disk),
        store: super::store(disk as u8),
        before: Incarnation(before),
        now: Incarnation(now),
        start: Incarnation(0),
        last_copies: LastCopies::Refuse,
    }
}

#[test]
fn a_pg_changes_under_its_version_and_never_below_the_least() {
    let mut catalog = site();
    let evict = change(&catalog, Reconfigure::Evict { disk: d(1) });
    let events = catalog.apply(&evict).unwrap();
    assert!(matches!(&events[..], [Event::PgChanged { pg }] if pg.version() == 2));
    assert_eq!(refused(&mut catalog, &evict).field, "version");
    let last = change(&catalog, Reconfigure::Evict { disk: d(2) });
    assert_eq!(refused(&mut catalog, &last).field, "change");
    let join = change(&catalog, Reconfigure::Join { disk: d(1) });
    catalog.apply(&join).unwrap();
    let (disk, session) = (d(1), 2);
    let old = change(&catalog, Reconfigure::Promote { disk, session });
    assert_eq!(refused(&mut catalog, &old).field, "change");
    let session = 3;
    let right = change(&catalog, Reconfigure::Promote { disk, session });
    catalog.apply(&right).unwrap();
    assert_eq!(role(&catalog, 1), Some(Role::InSync));
}

#[test]
fn a_move_is_wanted_until_the_new_replica_is_in_sync_and_the_old_one_gone() {
    let mut catalog = site();
    let want = |from, to| Command::WantMove {
        pg: PG,
        version: 1,
        from: Some(d(from)),
        to: Some(d(to)),
    };
    // Node 2 has the other replica; disk 4 none to give.
    assert_eq!(refused(&mut catalog, &want(1, 2)).field, "to");
    assert_eq!(refused(&mut catalog, &want(4, 3)).field, "from");
    catalog.apply(&want(1, 3)).unwrap();
    assert_eq!(refused(&mut catalog, &want(1, 4)).field, "pg");
    assert_eq!(catalog.wanted().collect::<Vec<_>>(), [PG]);
    assert_eq!(Catalog::restore(&catalog.snapshot()), Ok(catalog.clone()));
    for step in [
        Reconfigure::Add { disk: d(3) },
        Reconfigure::Join { disk: d(3) },
        Reconfigure::Promote {
            disk: d(3),
            session: 3,
        },
        Reconfigure::Remove { disk: d(1) },
    ] {
        assert!(catalog.pg(PG).unwrap().want.is_some());
        let step = change(&catalog, step);
        catalog.apply(&step).unwrap();
    }
    assert_eq!(catalog.pg(PG).unwrap().want, None);
    assert_eq!(catalog.pgs_on(d(1)).count(), 0);
    let remove = Command::RemoveDisk { disk: d(1) };
    catalog.apply(&remove).unwrap();
    catalog.apply(&Command::RemoveNode { node: n(1) }).unwrap();
    catalog.check().unwrap();
}

#[test]
fn a_disk_that_travelled_in_time_is_empty_and_the_last_copy_is_a_person_s_to_decide() {
    let mut catalog = site();
    catalog.apply(&open(1, 1, 5)).unwrap();
    assert_eq!(role(&catalog, 1), Some(Role::InSync));
    assert_eq!(refused(&mut catalog, &open(1, 1, 5)).field, "now");
    // An old copy of it, of before the opening 5.
    catalog.apply(&open(1, 4, 6)).unwrap();
    assert_eq!(role(&catalog, 1), Some(Role::Out { since: 0 }));
    // Disk 2 has the last copy now.
    let travelled = refused(&mut catalog, &open(2, 0, 2));
    assert_eq!(travelled.field, "last_copies");
    let Command::OpenDisk {
        store, before, now, ..
    } = open(2, 0, 2)
    else {
        unreachable!()
    };
    let taken = Command::OpenDisk {
        disk: d(2),
        store,
        before,
        now,
        start: Incarnation(0),
        last_copies: LastCopies::TakeAsFound,
    };
    catalog.apply(&taken).unwrap();
    assert_eq!(role(&catalog, 2), Some(Role::InSync));
    let other = catalog.pg(PgId(2)).unwrap();
    assert_eq!(other.configuration.role(d(2)), Some(Role::Out { since: 0 }));
}

#[test]
fn what_an_earlier_start_of_a_node_opened_is_void() {
    let mut catalog = site();
    let incarnation = Incarnation(3);
    let record = |incarnation| Command::RecordIncarnation {
        node: n(1),
        incarnation,
    };
    catalog.apply(&record(incarnation)).unwrap();
    assert_eq!(
        refused(&mut catalog, &record(incarnation)).field,
        "incarnation"
    );
    let Command::OpenDisk { disk, store, .. } = open(1, 1, 2) else {
        unreachable!()
    };
    let of_start = |start| Command::OpenDisk {
        disk,
        store,
        before: Incarnation(1),
        now: Incarnation(2),
        start: Incarnation(start),
        last_copies: LastCopies::Refuse,
    };
    assert_eq!(refused(&mut catalog, &of_start(2)).field, "start");
    catalog.apply(&of_start(3)).unwrap();
}

#[test]
fn a_missing_disk_serves_again_when_it_is_opened_and_drains_on_if_it_did() {
    let mut catalog = site();
    let set = |state| Command::SetDiskState { disk: d(1), state };
    catalog.apply(&set(DiskState::Draining)).unwrap();
    catalog.apply(&set(DiskState::Missing)).unwrap();
    catalog.apply(&open(1, 1, 2)).unwrap();
    assert_eq!(catalog.disk(d(1)).unwrap().state, DiskState::Draining);
    catalog.apply(&set(DiskState::Serving)).unwrap();
    catalog.apply(&set(DiskState::Missing)).unwrap();
    catalog.apply(&open(1, 2, 3)).unwrap();
    assert_eq!(catalog.disk(d(1)).unwrap().state, DiskState::Serving);
}

#[test]
fn a_node_with_the_last_copy_is_not_worked_at() {
    let mut catalog = site();
    let set = |node| Command::SetMaintenance {
        node: n(node),
        maintenance: Maintenance::On,
        until: None,
    };
    catalog.apply(&set(1)).unwrap();
    // With node 1 away, node 2 has the last copy of the first PG.
    assert_eq!(refused(&mut catalog, &set(2)).code, Code::Conflict);
    catalog.apply(&set(4)).unwrap();
}

#[test]
fn maintenance_that_was_prolonged_is_not_ended_by_its_first_end() {
    let mut catalog = site();
    let set = |maintenance, until| Command::SetMaintenance {
        node: n(1),
        maintenance,
        until,
    };
    let now = |catalog: &Catalog| {
        let node = catalog.node(n(1)).unwrap();
        (node.maintenance, node.maintenance_until)
    };
    catalog.apply(&set(Maintenance::On, Some(100))).unwrap();
    catalog.apply(&set(Maintenance::On, Some(200))).unwrap();
    let late = refused(&mut catalog, &set(Maintenance::Off, Some(100)));
    assert_eq!(late.field, "until");
    assert_eq!(now(&catalog), (Maintenance::On, Some(200)));
    catalog.apply(&set(Maintenance::Off, Some(200))).unwrap();
    assert_eq!(now(&catalog), (Maintenance::Off, None));
    // A person ends it whenever it was to end, and twice.
    catalog.apply(&set(Maintenance::On, Some(300))).unwrap();
    catalog.apply(&set(Maintenance::Off, None)).unwrap();
    catalog.apply(&set(Maintenance::Off, None)).unwrap();
    assert_eq!(now(&catalog), (Maintenance::Off, None));
}

#[test]
fn new_pgs_have_as_many_copies_as_the_pool_in_different_domains() {
    let mut catalog = site();
    for wrong in [&[1, 1][..], &[1], &[1, 2, 3], &[1, 9]] {
        let command = lay_out(&catalog, &[wrong]);
        assert_eq!(refused(&mut catalog, &command).field, "replicas");
    }
    let rack = |node| Command::SetRack {
        node: n(node),
        rack: Some("r1".into()),
    };
    catalog.apply(&rack(1)).unwrap();
    catalog.apply(&rack(3)).unwrap();
    // Two racks: r1, and all nodes without one.
    assert_eq!(
        refused(&mut catalog, &pool(3, 1, Level::Rack)).field,
        "copies"
    );
    catalog.apply(&pool(2, 1, Level::Rack)).unwrap();
    let command = lay_out(&catalog, &[&[1, 3]]);
    assert_eq!(refused(&mut catalog, &command).field, "replicas");
    let command = lay_out(&catalog, &[&[1, 2]]);
    catalog.apply(&command).unwrap();
    assert_eq!(refused(&mut catalog, &command).field, "first");
}

#[test]
fn a_volume_does_not_use_pgs_of_a_layout_that_is_not_complete() {
    let mut catalog = site();
    let Command::CreatePgs {
        pool,
        first,
        replicas,
        ..
    } = lay_out(&catalog, &[&[1, 4]])
    else {
        unreachable!()
    };
    let batch = Batch::MoreFollow;
    let some = Command::CreatePgs {
        pool,
        first,
        replicas,
        batch,
    };
    catalog.apply(&some).unwrap();
    catalog.apply(&create("b", GIB)).unwrap();
    assert_eq!(catalog.volume_named("b").unwrap().pgs, 3);
    let rest = lay_out(&catalog, &[&[2, 4]]);
    catalog.apply(&rest).unwrap();
    catalog.apply(&create("c", GIB)).unwrap();
    assert_eq!(catalog.volume_named("c").unwrap().pgs, 5);
}

#[test]
fn a_local_volume_keeps_to_the_pgs_of_its_home() {
    let mut catalog = site();
    let local = |name: &str, home| Command::CreateVolume {
        name: name.into(),
        size: GIB,
        block_size: 4096,
        purpose: Purpose::Use,
        pool: None,
        locality: Locality::Local { home: n(home) },
    };
    catalog.apply(&local("l", 3)).unwrap();
    let volume = catalog.volume_named("l").unwrap();
    assert_eq!(catalog.pgs_of_volume(volume), [PgId(2), PgId(3)]);
    let name = "empty".into();
    catalog.apply(&Command::AddNode { name }).unwrap();
    assert_eq!(refused(&mut catalog, &local("m", 5)).field, "locality");
}

#[test]
fn a_snapshot_freezes_and_a_clone_shares_the_family_and_its_map() {
    let mut catalog = site();
    let of = |snapshot: &str| (String::from("a"), String::from(snapshot));
    let take = |s: &str| {
        let (name, snapshot) = of(s);
        Command::SnapshotVolume { name, snapshot }
    };
    let delete_snapshot = |s: &str| {
        let (name, snapshot) = of(s);
        Command::DeleteSnapshot { name, snapshot }
    };
    catalog.apply(&take("s1")).unwrap();
    assert_eq!(refused(&mut catalog, &take("s1")).code, Code::Exists);
    let (name, snapshot) = of("s1");
    let clone = Command::CloneVolume {
        name,
        snapshot,
        clone: "b".into(),
    };
    catalog.apply(&clone).unwrap();
    let (a, b) = (
        catalog.volume_named("a").unwrap().clone(),
        catalog.volume_named("b").unwrap().clone(),
    );
    assert_eq!((a.family, a.pgs), (b.family, b.pgs));
    assert_eq!(b.layers[0].parent, Some(a.layers[0].id));
    assert_eq!(a.layers[0].state, LayerState::Frozen);
    assert_eq!(
        refused(&mut catalog, &delete_snapshot("s1")).field,
        "snapshot"
    );
    assert_eq!(refused(&mut catalog, &delete("a", 0)).field, "name");
    let forget = Command::ForgetLayer {
        volume: a.id,
        layer: LayerId(1),
    };
    assert_eq!(refused(&mut catalog, &forget).field, "layer");
    assert_eq!(Catalog::restore(&catalog.snapshot()), Ok(catalog.clone()));
    catalog.apply(&delete("b", 0)).unwrap();
    catalog
        .apply(&Command::ForgetVolume { volume: b.id })
        .unwrap();
    catalog.apply(&delete_snapshot("s1")).unwrap();
    catalog.apply(&forget).unwrap();
    let a = catalog.volume_named("a").unwrap();
    assert_eq!((a.layers.len(), a.layers[0].parent), (1, None));
    catalog.check().unwrap();
}

fn lease(count: u64) -> LeaseNumber {
    let term = Term(1);
    LeaseNumber { term, count }
}

fn take(node: u32, of: u64, after: Option<u32>, why: TakeWhy) -> Command {
    let epoch = |host| Epoch {
        generation: 0,
        site: 1,
        host,
    };
    Command::TakeRange {
        volume: VolumeId(1),
        node: n(node),
        lease: lease(of),
        after: after.map(epoch),
        why,
    }
}

fn host_epoch(catalog: &Catalog) -> u32 {
    catalog.range(VolumeId(1)).unwrap().epoch.host
}

#[test]
fn a_range_is_taken_by_one_and_no_epoch_is_given_twice() {
    let mut catalog = site();
    let ended = |count| TakeWhy::LeaseEnded {
        lease: lease(count),
    };
    catalog.apply(&take(1, 5, None, TakeWhy::Free)).unwrap();
    assert_eq!(host_epoch(&catalog), 1);
    let late = take(2, 6, None, TakeWhy::Free);
    assert_eq!(refused(&mut catalog, &late).field, "after");
    let not_given = take(2, 6, Some(1), TakeWhy::Free);
    assert_eq!(refused(&mut catalog, &not_given).field, "why");
    // The owner's lease broke, and it took its range again: the proof of the earlier end is void.
    let earlier = take(1, 4, Some(1), TakeWhy::Free);
    assert_eq!(refused(&mut catalog, &earlier).field, "lease");
    catalog.apply(&take(1, 7, Some(1), TakeWhy::Free)).unwrap();
    assert_eq!(
        refused(&mut catalog, &take(2, 6, Some(2), ended(5))).field,
        "why"
    );
    catalog.apply(&take(2, 6, Some(2), ended(7))).unwrap();
    assert_eq!(catalog.owned_by(n(2)).collect::<Vec<_>>(), [VolumeId(1)]);
    assert_eq!(refused(&mut catalog, &delete("a", 0)).field, "name");
    assert_eq!(
        refused(&mut catalog, &Command::RemoveNode { node: n(2) }).field,
        "node"
    );
    let epoch = catalog.range(VolumeId(1)).unwrap().epoch;
    let give = Command::GiveRange {
        volume: VolumeId(1),
        node: n(2),
        epoch,
        why: GiveWhy::Drained,
    };
    catalog.apply(&give).unwrap();
    assert_eq!(refused(&mut catalog, &give).field, "volume");
    let force = Command::ForceTakeRange {
        volume: VolumeId(1),
        node: n(3),
        lease: lease(9),
        after: Some(epoch),
    };
    catalog.apply(&force).unwrap();
    let forced = catalog.range(VolumeId(1)).unwrap().epoch;
    assert_eq!((forced.generation, forced.host), (1, 4));
    assert!(forced > epoch);
    assert_eq!(Catalog::restore(&catalog.snapshot()), Ok(catalog));
}

#[test]
fn a_range_of_a_volume_that_is_attached_elsewhere_is_not_taken_unless_it_is_shared() {
    let mut catalog = site();
    let share = Command::SetSharing {
        name: "a".into(),
        sharing: Sharing::Shared,
    };
    let attach = Command::Attach {
        volume: VolumeId(1),
        node: n(1),
        front_end: FrontEnd::default(),
    };
    let mut shared = catalog.clone();
    catalog.apply(&attach).unwrap();
    let taken = take(2, 1, None, TakeWhy::Free);
    assert_eq!(refused(&mut catalog, &taken).field, "node");
    assert_eq!(refused(&mut catalog, &share).field, "name");
    shared.apply(&share).unwrap();
    shared.apply(&attach).unwrap();
    shared.apply(&taken).unwrap();
}

#[test]
fn what_the_first_builds_wrote_is_read_as_it_was_meant() {
    let old = br#"{"version":1,"catalog":{"applied":3,
        "next":{"node":2,"disk":2,"pool":2,"pg":2,"volume":2,"family":2,"layer":2},
        "nodes":{"1":{"id":1,"name":"h"}},
        "disks":{"1":{"id":1,"node":1,"pool":1,"path":"/d","store":"01010101010101010101010101010101",
            "size":17179869184,"state":"serving"}},
        "pools":{"1":{"id":1,"name":"default","copies":1,"overcommit_percent":2000,"bytes_per_pg":17179869184}},
        "pgs":{"1":{"id":1,"pool":1,"version":1,"replicas":[1],"in_sync":[1]}},
        "volumes":{"1":{"id":1,"name":"v","pool":1,"family":1,"size":4096,"block_size":4096,"state":"ready",
            "bench":false,"layers":[{"id":1,"parent":null,"state":"writable"}],"pgs":1}},
        "attachments":{}}}"#;
    let catalog = Catalog::restore(old).unwrap();
    let volume = catalog.volume_named("v").unwrap();
    assert_eq!(catalog.placement(volume), [(PgId(1), DiskId(1))]);
    let pool = catalog.pool_named(DEFAULT_POOL).unwrap();
    assert_eq!((pool.min_copies, pool.level), (1, Level::Disk));
    let text = String::from_utf8(catalog.snapshot()).unwrap();
    assert!(
        text.contains(r#"{"id":1,"pool":1,"version":1,"in_sync":[1]}"#),
        "{text}"
    );
    let old = r#"{"command":"add_disk","node":1,"path":"/e","store":"02020202020202020202020202020202","size":17179869184}"#;
    let command: Command = serde_json::from_str(old).unwrap();
    assert_eq!(serde_json::to_string(&command).unwrap(), old);
}

fn joins(name: &str, key: &str, token: &str, at: &str) -> Command {
    Command::JoinNode {
        name: name.into(),
        addresses: vec![at.into()],
        entry: Entry {
            key: key.into(),
            token: token.into(),
        },
    }
}

#[test]
fn a_machine_that_joins_again_is_the_node_that_it_was_and_a_token_is_for_one_key() {
    let mut catalog = Catalog::default();
    catalog
        .apply(&Command::AddNode { name: "a".into() })
        .unwrap();
    catalog
        .apply(&joins("b", "k1", "t1", "10.0.0.2:7400"))
        .unwrap();
    let again = catalog
        .apply(&joins("b", "k1", "t1", "10.0.0.3:7400"))
        .unwrap();
    let b = catalog.node(n(2)).unwrap().clone();
    assert_eq!(again, [Event::NodeChanged { node: b.clone() }]);
    assert_eq!(b.addresses, ["10.0.0.3:7400"]);
    assert_eq!(catalog.nodes().count(), 2);

    let stolen = refused(&mut catalog, &joins("c", "k2", "t1", "10.0.0.4:7400"));
    assert!(
        stolen.reason.contains("used already, by node b"),
        "{stolen}"
    );
    let twin = refused(&mut catalog, &joins("a", "k2", "t2", "10.0.0.4:7400"));
    assert_eq!((twin.code, twin.field.as_str()), (Code::Exists, "name"));
    let keyless = refused(&mut catalog, &joins("c", "", "t2", "10.0.0.4:7400"));
    assert_eq!(keyless.field, "entry");
    catalog
        .apply(&joins("c", "k2", "t2", "10.0.0.4:7400"))
        .unwrap();
    assert_eq!(Catalog::restore(&catalog.snapshot()), Ok(catalog));
}

#[test]
fn an_address_has_a_host_and_a_port_and_a_node_has_few() {
    let mut catalog = site();
    let set = |addresses: Vec<String>| Command::SetAddresses {
        node: n(1),
        addresses,
    };
    catalog
        .apply(&set(vec!["[::1]:7400".into(), "host.lan:1".into()]))
        .unwrap();
    for odd in [
        "",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "ho st:1",
        "h\u{f6}st:1",
        &"h".repeat(300),
    ] {
        assert_eq!(
            refused(&mut catalog, &set(vec![odd.into()])).field,
            "addresses",
            "{odd}"
        );
    }
    let many = vec!["host:1".to_owned(); 9];
    assert!(
        refused(&mut catalog, &set(many))
            .reason
            .contains("9 are more than 8")
    );
    catalog.apply(&set(Vec::new())).unwrap();
}

#[test]
fn what_only_holds_a_volume_gives_its_place_to_another_attachment_of_its_node() {
    let mut catalog = site();
    let attach = |node: u32, front_end: FrontEnd| Command::Attach {
        volume: VolumeId(1),
        node: n(node),
        front_end,
    };
    let ublk = || FrontEnd::Ublk {
        device: None,
        queues: 1,
    };
    catalog.apply(&attach(1, FrontEnd::None)).unwrap();
    let held = catalog.attached_at(VolumeId(1), n(1)).unwrap().key;
    // Held twice is held.
    catalog.apply(&attach(1, FrontEnd::None)).unwrap();
    assert_eq!(
        catalog.attached_at(VolumeId(1), n(1)).unwrap().key,
        held,
        "it is the same one"
    );
    assert_eq!(refused(&mut catalog, &attach(2, ublk())).field, "name");
    catalog.apply(&attach(1, ublk())).unwrap();
    let named = catalog.attached_at(VolumeId(1), n(1)).unwrap();
    assert_eq!(named.front_end, ublk());
    assert!(named.key > held && catalog.attachment(held).is_none());
    // And not the other way round.
    assert_eq!(
        refused(&mut catalog, &attach(1, FrontEnd::None)).field,
        "name"
    );
    catalog.check().unwrap();
    assert_eq!(Catalog::restore(&catalog.snapshot()), Ok(catalog));
}

#[test]
fn the_first_epoch_of_a_range_is_above_those_that_a_lone_node_gave() {
    let mut catalog = site();
    catalog.apply(&take(1, 5, None, TakeWhy::Free)).unwrap();
    let first = catalog.range(VolumeId(1)).unwrap().epoch;
    let alone = Epoch {
        generation: 0,
        site: 0,
        host: u32::MAX,
    };
    assert!(first > alone, "{first:?}");
}
