//! Commands drawn from a seed: invariants hold after each, a snapshot gives the catalog back, what was accepted gives the same catalog
//! elsewhere, and what was refused has changed nothing.

use super::*;
use crate::base::{Epoch, LayerId};
use crate::protocol::membership::{Incarnation, LeaseNumber, Term};
use crate::protocol::placement::Level;
use crate::protocol::replication::{Reconfigure, Role};

#[test]
fn any_commands_on_a_site_keep_what_holds() {
    let mut accepted_of = std::collections::BTreeMap::new();
    for seed in 0..30 {
        let (mut prng, mut catalog) = (Prng::new(seed), Catalog::default());
        let mut log = Vec::new();
        for at in 0..1_500 {
            let command = any(&mut prng, &catalog);
            let before = catalog.clone();
            match catalog.apply(&command) {
                Ok(_) => {
                    *accepted_of.entry(name(&command)).or_insert(0) += 1;
                    log.push(command.clone());
                }
                Err(refusal) => {
                    assert_eq!(catalog, before, "seed {seed}: {command:?}: {refusal}");
                    assert!(!refusal.field.is_empty() && !refusal.hint.is_empty());
                }
            }
            assert_eq!(catalog.check(), Ok(()), "seed {seed}: {command:?}");
            if at % 50 == 0 {
                assert_eq!(Catalog::restore(&catalog.snapshot()), Ok(catalog.clone()));
            }
        }
        let mut again = Catalog::default();
        for command in &log {
            let text = serde_json::to_vec(command).unwrap();
            let read: Command = serde_json::from_slice(&text).unwrap();
            again.apply(&read).unwrap();
        }
        assert_eq!(again, catalog, "seed {seed}");
    }
    // Sometimes: of every command some were accepted.
    for name in NAMES {
        assert!(accepted_of.contains_key(*name), "{name}: {accepted_of:?}");
    }
}

const NAMES: &[&str] = &[
    "add_node",
    "join_node",
    "set_addresses",
    "choose_members",
    "admit_client",
    "revoke_client",
    "remove_node",
    "set_rack",
    "record_incarnation",
    "set_maintenance",
    "add_disk",
    "withdraw_disk",
    "remove_disk",
    "grow_disk",
    "set_disk_state",
    "set_weight",
    "open_disk",
    "create_pool",
    "set_pool",
    "set_rebuild_limit",
    "create_pgs",
    "reconfigure",
    "want_move",
    "drop_move",
    "create_volume",
    "resize_volume",
    "set_sharing",
    "set_io_timeout",
    "set_clients",
    "snapshot_volume",
    "delete_snapshot",
    "forget_layer",
    "clone_volume",
    "delete_volume",
    "forget_volume",
    "attach",
    "detach",
    "take_range",
    "give_range",
    "force_take_range",
];

fn name(command: &Command) -> String {
    let value = serde_json::to_value(command).unwrap();
    value["command"].as_str().unwrap().into()
}

/// Commands that are often right: most of what they name is there.
fn any(prng: &mut Prng, catalog: &Catalog) -> Command {
    let node = NodeId(1 + prng.below(6) as u32);
    let disk = DiskId(1 + prng.below(10) as u32);
    let volume = VolumeId(1 + prng.below(12));
    let pool = ["default", "other", "none"][prng.below(3) as usize];
    let of_name = |prng: &mut Prng| ["a", "b", "c", "d"][prng.below(4) as usize].to_string();
    let of_snapshot = |prng: &mut Prng| ["s", "t"][prng.below(2) as usize].to_string();
    let copies = 1 + prng.below(3) as u32;
    let level = [Level::Disk, Level::Node, Level::Rack][prng.below(3) as usize];
    match prng.below(44) {
        43 if prng.one_in(4) => Command::RevokeClient {
            name: of_name(prng),
        },
        43 => {
            let now = prng.below(100_000);
            Command::AdmitClient {
                name: of_name(prng),
                role: [ClientRole::Reader, ClientRole::Admin][prng.below(2) as usize],
                now,
                until: now + prng.below(1_000),
            }
        }
        40 => Command::JoinNode {
            name: format!("n{}", prng.below(6)),
            addresses: vec![format!("10.0.0.{}:7400", prng.below(6))],
            entry: Entry {
                key: format!("k{}", prng.below(6)),
                token: format!("t{}", prng.below(6)),
            },
        },
        41 => Command::SetAddresses {
            node,
            addresses: vec![["a:1", "a:0", "nowhere"][prng.below(3) as usize].into()],
        },
        42 => Command::ChooseMembers {
            by: [MembersBy::Arrival, MembersBy::Hand][prng.below(2) as usize],
        },
        0 => Command::AddNode {
            name: format!("n{}", prng.below(6)),
        },
        1 if prng.one_in(4) => Command::RemoveNode { node },
        2 => Command::SetRack {
            node,
            rack: prng.one_in(2).then(|| format!("r{}", prng.below(3))),
        },
        3 => Command::RecordIncarnation {
            node,
            incarnation: Incarnation(prng.below(40)),
        },
        4 => Command::SetMaintenance {
            node,
            maintenance: [Maintenance::On, Maintenance::Off][prng.below(2) as usize],
            until: prng.one_in(4).then(|| prng.below(3)),
        },
        5 | 6 => Command::AddDisk {
            node,
            path: format!("/d{}", prng.below(3)),
            store: store(prng.below(12) as u8),
            size: GIB * (1 + prng.below(3)),
            pool: prng.one_in(2).then(|| pool.into()),
            incarnation: Incarnation(prng.below(2)),
        },
        7 => Command::WithdrawDisk { disk },
        8 => Command::RemoveDisk { disk },
        9 => Command::GrowDisk {
            disk,
            size: GIB * (1 + prng.below(5)),
        },
        10 => Command::SetDiskState {
            disk,
            state: [
                DiskState::Serving,
                DiskState::Serving,
                DiskState::Draining,
                DiskState::Missing,
                DiskState::OutOfService,
            ][prng.below(5) as usize],
        },
        11 => Command::SetWeight {
            disk,
            weight: prng.one_in(2).then(|| prng.below(1 << 51)),
        },
        12 | 13 => {
            let recorded = catalog.disk(disk).map_or(0, |disk| disk.incarnation.0);
            let before = recorded.saturating_sub(prng.below(2));
            Command::OpenDisk {
                disk,
                store: match catalog.disk(disk) {
                    Some(disk) if !prng.one_in(8) => disk.store,
                    _ => store(prng.below(14) as u8),
                },
                before: Incarnation(before),
                now: Incarnation(recorded + prng.below(3)),
                start: Incarnation(prng.below(40)),
                last_copies: match prng.one_in(3) {
                    true => LastCopies::TakeAsFound,
                    false => LastCopies::Refuse,
                },
            }
        }
        14 => Command::CreatePool {
            name: "other".into(),
            copies,
            min_copies: 1 + prng.below(2) as u32,
            level,
        },
        15 if prng.one_in(3) => Command::SetRebuildLimit {
            pool: pool.into(),
            bytes_per_second: prng.one_in(2).then(|| prng.below(4) << 20),
        },
        15 => Command::SetPool {
            pool: pool.into(),
            copies,
            min_copies: 1 + prng.below(2) as u32,
            level,
        },
        16 | 17 => Command::CreatePgs {
            pool: PoolId(1 + prng.below(2) as u32),
            first: catalog.next_pg(),
            replicas: (0..prng.below(3))
                .map(|_| {
                    (0..copies)
                        .map(|_| DiskId(1 + prng.below(10) as u32))
                        .collect()
                })
                .collect(),
            batch: [Batch::Last, Batch::MoreFollow][prng.below(2) as usize],
        },
        18..=22 => of_pg(prng, catalog),
        23 | 24 => Command::CreateVolume {
            name: of_name(prng),
            size: GIB,
            block_size: 4096,
            purpose: Purpose::Use,
            pool: prng.one_in(2).then(|| pool.into()),
            locality: match prng.one_in(3) {
                true => Locality::Local { home: node },
                false => Locality::Spread,
            },
        },
        25 => resize(&of_name(prng), GIB * (1 + prng.below(3))),
        26 if prng.one_in(3) => Command::SetClients {
            name: of_name(prng),
            clients: match prng.below(3) {
                0 => NbdClients::Nobody,
                1 => NbdClients::Anybody,
                _ => NbdClients::Only((0..prng.below(3)).map(|n| format!("c{n}")).collect()),
            },
        },
        26 if prng.one_in(2) => Command::SetIoTimeout {
            name: of_name(prng),
            seconds: prng.one_in(2).then(|| prng.below(100) as u32),
        },
        26 => Command::SetSharing {
            name: of_name(prng),
            sharing: [Sharing::Exclusive, Sharing::Shared][prng.below(2) as usize],
        },
        27 => Command::SnapshotVolume {
            name: of_name(prng),
            snapshot: of_snapshot(prng),
        },
        28 => Command::DeleteSnapshot {
            name: of_name(prng),
            snapshot: of_snapshot(prng),
        },
        29 => match catalog.volume(volume) {
            Some(found) => Command::ForgetLayer {
                volume,
                layer: found.layers[prng.below(found.layers.len() as u64) as usize].id,
            },
            None => Command::ForgetLayer {
                volume,
                layer: LayerId(1),
            },
        },
        30 => Command::CloneVolume {
            name: of_name(prng),
            snapshot: of_snapshot(prng),
            clone: of_name(prng),
        },
        31 => delete(&of_name(prng), 0),
        32 => Command::ForgetVolume { volume },
        33 => Command::Attach {
            volume,
            node,
            front_end: any_front_end(prng),
        },
        34 => Command::Detach { volume, key: None },
        _ => of_range(prng, catalog, volume, node),
    }
}

fn of_pg(prng: &mut Prng, catalog: &Catalog) -> Command {
    let count = catalog.pgs().len() as u64;
    let at = prng.below(count.max(1)) as usize;
    let found = catalog.pgs().nth(at);
    let pg = found.map_or(PgId(1), |pg| pg.id);
    let version = found.map_or(1, |pg| pg.version()) - u32::from(prng.one_in(10));
    let member = found.map(|pg| {
        let members = pg.configuration.members();
        members[prng.below(members.len() as u64) as usize]
    });
    let other = DiskId(1 + prng.below(10) as u32);
    let disk = member.map_or(other, |member| member.disk);
    let session = match member.map(|member| member.role) {
        Some(Role::Joining { session, .. }) => session,
        _ => version,
    };
    let change = match prng.below(8) {
        0 => Reconfigure::Add { disk: other },
        1 => Reconfigure::Remove { disk },
        2 => Reconfigure::Evict { disk },
        3 => Reconfigure::Join { disk },
        4 => Reconfigure::Promote { disk, session },
        5 => {
            return Command::WantMove {
                pg,
                version,
                from: (!prng.one_in(4)).then_some(disk),
                to: (!prng.one_in(4)).then_some(other),
            };
        }
        6 => Reconfigure::Empty { disk },
        _ => return Command::DropMove { pg, version },
    };
    Command::Reconfigure {
        pg,
        version,
        change,
    }
}

fn of_range(prng: &mut Prng, catalog: &Catalog, volume: VolumeId, node: NodeId) -> Command {
    let present = catalog.range(volume).map(|range| range.epoch);
    let after = match prng.one_in(8) {
        true => Some(Epoch::default()),
        false => present,
    };
    let number = |prng: &mut Prng| LeaseNumber {
        term: Term(prng.below(3)),
        count: prng.below(5),
    };
    let (lease, ended) = (number(prng), number(prng));
    match prng.below(6) {
        0..=2 => Command::TakeRange {
            volume,
            node,
            lease,
            after,
            why: match prng.one_in(2) {
                true => TakeWhy::Free,
                false => TakeWhy::LeaseEnded { lease: ended },
            },
        },
        3 => Command::GiveRange {
            volume,
            node,
            epoch: present.unwrap_or_default(),
            why: match prng.below(4) {
                0..=1 => GiveWhy::Drained,
                2 => GiveWhy::Undrained,
                _ => GiveWhy::LeaseEnded { lease: ended },
            },
        },
        4 => Command::FreezeLayer {
            volume,
            layer: catalog
                .volume(volume)
                .and_then(|found| found.cutting())
                .unwrap_or(LayerId(1)),
            node: catalog
                .range(volume)
                .and_then(|range| range.owner)
                .map_or(node, |owner| owner.node),
            epoch: present.unwrap_or_default(),
        },
        _ => Command::ForceTakeRange {
            volume,
            node,
            lease,
            after,
        },
    }
}
