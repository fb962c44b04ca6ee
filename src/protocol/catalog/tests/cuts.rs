//! Snapshots: when a layer is frozen, and on whose word (R21).

use super::*;
use crate::base::{Epoch, LayerId};
use crate::protocol::membership::{LeaseNumber, Term};
use crate::protocol::placement::Level;
use crate::protocol::replication::Reconfigure;

const V1: VolumeId = VolumeId(1);
const L1: LayerId = LayerId(1);

/// Two nodes, and the volume `a` with a copy at each.
fn site() -> Catalog {
    let mut catalog = Catalog::default();
    let apply = |catalog: &mut Catalog, command| catalog.apply(&command).map(|_| ()).unwrap();
    apply(
        &mut catalog,
        Command::SetPool {
            pool: DEFAULT_POOL.into(),
            copies: 2,
            min_copies: 1,
            level: Level::Node,
        },
    );
    for node in 1..=2 {
        let name = format!("n{node}");
        apply(&mut catalog, Command::AddNode { name });
        let (node, path) = (NodeId(node), format!("/srv/{node}"));
        apply(
            &mut catalog,
            Command::AddDisk {
                node,
                path,
                store: store(node.0 as u8),
                size: 16 * GIB,
                pool: None,
                incarnation: Default::default(),
            },
        );
    }
    apply(
        &mut catalog,
        Command::CreatePgs {
            pool: PoolId(1),
            first: PgId(1),
            replicas: vec![vec![DiskId(1), DiskId(2)]],
            batch: Batch::Last,
        },
    );
    apply(&mut catalog, create("a", GIB));
    catalog
}

fn lease(count: u64) -> LeaseNumber {
    let term = Term(1);
    LeaseNumber { term, count }
}

fn epoch(catalog: &Catalog) -> Epoch {
    catalog.range(V1).unwrap().epoch
}

fn take(catalog: &mut Catalog, node: u32, why: TakeWhy) -> Left {
    let command = Command::TakeRange {
        volume: V1,
        node: NodeId(node),
        lease: lease(u64::from(node)),
        after: catalog.range(V1).map(|range| range.epoch),
        why,
    };
    catalog.apply(&command).unwrap();
    catalog.range(V1).unwrap().left
}

fn give(catalog: &mut Catalog, node: u32, why: GiveWhy) {
    let (volume, node, epoch) = (V1, NodeId(node), epoch(catalog));
    let command = Command::GiveRange {
        volume,
        node,
        epoch,
        why,
    };
    catalog.apply(&command).unwrap();
}

fn snapshot(name: &str) -> Command {
    Command::SnapshotVolume {
        name: "a".into(),
        snapshot: name.into(),
    }
}

fn freeze(node: u32, epoch: Epoch) -> Command {
    Command::FreezeLayer {
        volume: V1,
        layer: L1,
        node: NodeId(node),
        epoch,
    }
}

fn state(catalog: &Catalog) -> LayerState {
    catalog.volume(V1).unwrap().layers[0].state
}

#[test]
fn a_volume_that_nobody_had_is_frozen_at_once() {
    let mut catalog = site();
    catalog.apply(&snapshot("s")).unwrap();
    assert_eq!(state(&catalog), LayerState::Frozen);
}

#[test]
fn a_volume_in_use_is_frozen_on_the_word_of_its_present_owner() {
    let mut catalog = site();
    assert_eq!(take(&mut catalog, 1, TakeWhy::Free), Left::Settled);
    let first = epoch(&catalog);
    catalog.apply(&snapshot("s")).unwrap();
    assert_eq!(state(&catalog), LayerState::Cutting);
    assert_eq!(refused(&mut catalog, &snapshot("t")).field, "name");
    let clone = Command::CloneVolume {
        name: "a".into(),
        snapshot: "s".into(),
        clone: "b".into(),
    };
    assert_eq!(refused(&mut catalog, &clone).field, "snapshot");
    assert_eq!(refused(&mut catalog, &freeze(2, first)).field, "epoch");
    // Its lease broke, and it took the range again: what it said before that counts no more.
    assert_eq!(take(&mut catalog, 1, TakeWhy::Free), Left::Unsettled);
    assert_eq!(refused(&mut catalog, &freeze(1, first)).field, "epoch");
    let now = epoch(&catalog);
    catalog.apply(&freeze(1, now)).unwrap();
    assert_eq!(state(&catalog), LayerState::Frozen);
    assert_eq!(refused(&mut catalog, &freeze(1, now)).field, "layer");
    catalog.apply(&clone).unwrap();
    catalog.apply(&snapshot("t")).unwrap();
    assert_eq!(Catalog::restore(&catalog.snapshot()), Ok(catalog));
}

#[test]
fn a_turn_that_ends_in_order_takes_the_snapshot_along() {
    let mut catalog = site();
    take(&mut catalog, 1, TakeWhy::Free);
    catalog.apply(&snapshot("s")).unwrap();
    give(&mut catalog, 1, GiveWhy::Drained);
    assert_eq!(state(&catalog), LayerState::Frozen);
    assert_eq!(take(&mut catalog, 2, TakeWhy::Free), Left::Settled);
}

#[test]
fn what_a_turn_left_unsettled_is_frozen_by_who_settles_it() {
    let mut catalog = site();
    take(&mut catalog, 1, TakeWhy::Free);
    give(&mut catalog, 1, GiveWhy::Undrained);
    catalog.apply(&snapshot("s")).unwrap();
    assert_eq!(state(&catalog), LayerState::Cutting);
    let who = |catalog: &Catalog| catalog.who_freezes(catalog.volume(V1).unwrap());
    assert_eq!(who(&catalog), Some(NodeId(1)));
    let attach = Command::Attach {
        volume: V1,
        node: NodeId(2),
        front_end: FrontEnd::None,
    };
    let mut attached = catalog.clone();
    attached.apply(&attach).unwrap();
    assert_eq!(who(&attached), None, "node 2 takes its turn anyway");
    // Node 1 does not answer.
    let evict = Command::Reconfigure {
        pg: PgId(1),
        version: 1,
        change: Reconfigure::Evict { disk: DiskId(1) },
    };
    catalog.apply(&evict).unwrap();
    assert_eq!(who(&catalog), Some(NodeId(2)));
    assert_eq!(take(&mut catalog, 2, TakeWhy::Free), Left::Unsettled);
    let now = epoch(&catalog);
    catalog.apply(&freeze(2, now)).unwrap();
    assert_eq!(who(&catalog), None);
    give(&mut catalog, 2, GiveWhy::Drained);
    assert_eq!(take(&mut catalog, 1, TakeWhy::Free), Left::Settled);
}

#[test]
fn an_owner_that_is_replaced_leaves_what_is_to_be_recovered() {
    let mut catalog = site();
    take(&mut catalog, 1, TakeWhy::Free);
    let ended = TakeWhy::LeaseEnded { lease: lease(1) };
    assert_eq!(take(&mut catalog, 2, ended), Left::Unsettled);
    let late = lease(2);
    give(&mut catalog, 2, GiveWhy::LeaseEnded { lease: late });
    assert_eq!(take(&mut catalog, 1, TakeWhy::Free), Left::Unsettled);
}

#[test]
fn a_layer_that_is_still_being_cut_is_not_merged_though_its_name_is_gone() {
    let mut catalog = site();
    take(&mut catalog, 1, TakeWhy::Free);
    catalog.apply(&snapshot("s")).unwrap();
    let delete = Command::DeleteSnapshot {
        name: "a".into(),
        snapshot: "s".into(),
    };
    catalog.apply(&delete).unwrap();
    let forget = Command::ForgetLayer {
        volume: V1,
        layer: L1,
    };
    assert_eq!(refused(&mut catalog, &forget).field, "layer");
    let now = epoch(&catalog);
    catalog.apply(&freeze(1, now)).unwrap();
    catalog.apply(&forget).unwrap();
}

#[test]
fn a_turn_that_is_handed_over_takes_the_snapshot_along() {
    let mut catalog = site();
    let share = Command::SetSharing {
        name: "a".into(),
        sharing: Sharing::Shared,
    };
    catalog.apply(&share).unwrap();
    take(&mut catalog, 1, TakeWhy::Free);
    catalog.apply(&snapshot("s")).unwrap();
    let hand = |catalog: &Catalog, left| Command::HandRange {
        volume: V1,
        node: NodeId(1),
        epoch: epoch(catalog),
        to: Owner {
            node: NodeId(2),
            lease: lease(2),
        },
        left,
    };
    let mut badly = catalog.clone();
    badly.apply(&hand(&catalog, Left::Unsettled)).unwrap();
    assert_eq!(state(&badly), LayerState::Cutting);
    let command = hand(&catalog, Left::Settled);
    catalog.apply(&command).unwrap();
    assert_eq!(state(&catalog), LayerState::Frozen);
    let range = catalog.range(V1).unwrap();
    assert_eq!((range.epoch.host, range.left), (2, Left::Settled));
    assert_eq!(range.owner.unwrap().node, NodeId(2));
    assert_eq!(refused(&mut catalog, &command).field, "epoch");
}
