//! What the fabric itself sees to. What its machines do together is the simulator's to try.

use super::*;
use crate::base::{BlockRun, ChunkNo, Epoch, FamilyId};
use crate::protocol::replication::replica::Durable;
use crate::protocol::replication::{Change, Configuration, Reconfigure, Room};

const DISK: DiskId = DiskId(1);
const OTHER: DiskId = DiskId(2);
const PG: PgId = PgId(5);
const VOLUME: VolumeId = VolumeId(9);
const LAYER: LayerId = LayerId(4);
const NOW: Time = Time(1_000_000);

/// Blank stores.
struct Blank;

impl Stores for Blank {
    fn durable(&self, _: DiskId, _: PgId) -> Option<Durable> {
        None
    }

    fn room(&self, _: DiskId) -> Room {
        Room::Ample
    }

    fn is_torn(&self, _: DiskId, _: PgId) -> bool {
        false
    }
}

fn fabric() -> Fabric {
    let second = std::time::Duration::from_secs(1);
    let rests = Rests {
        between: second,
        after_change: second,
    };
    Fabric::new(Incarnation(1), rests, Off::default())
}

fn step(fabric: &mut Fabric, input: Input<'_>) -> Vec<Output> {
    let mut out = Vec::new();
    fabric.step(NOW, input, &Blank, &mut out);
    out
}

fn order(fabric: &mut Fabric, order: Order) -> Vec<Output> {
    step(fabric, Input::Order(order))
}

fn configured(fabric: &mut Fabric, of: &Configuration) -> Vec<Output> {
    let of = of.clone();
    order(fabric, Order::Configured { pg: PG, of })
}

fn header() -> Header {
    Header {
        range: VOLUME,
        pg: PG,
        epoch: Epoch {
            host: 1,
            ..Epoch::default()
        },
        version: 1,
        session: 0,
        mark: 0,
    }
}

/// A write of a coordinator.
fn write(fabric: &Fabric) -> Input<'static> {
    let at = ChunkId {
        family: FamilyId(9),
        layer: LAYER,
        chunk: ChunkNo(0),
    };
    let run = BlockRun::new(0, 1).unwrap();
    let change = Change::Write { run, crcs: [7; 16] };
    let message = Message::Change {
        sequence: 1,
        at,
        change,
    };
    let span = Span {
        blocks: 1,
        ..Span::default()
    };
    Input::Frame {
        from: Asker(8),
        disk: DISK,
        frame: Frame::Message(header(), message),
        payload: Some(fabric.holds().hold(span)),
    }
}

fn layers() -> Order {
    Order::Layers {
        volume: VOLUME,
        layers: vec![(LAYER, None)],
    }
}

fn asks(out: &[Output]) -> Vec<&StoreAsk> {
    let mut all = Vec::new();
    for output in out {
        if let Output::Store { ask, .. } = output {
            all.push(ask);
        }
    }
    all
}

#[test]
fn a_frame_whose_layer_is_not_recorded_waits_for_it_and_keeps_its_payload() {
    let mut fabric = fabric();
    order(&mut fabric, Order::Disk { disk: DISK });
    configured(&mut fabric, &Configuration::new([DISK]));
    let frame = write(&fabric);
    assert_eq!(step(&mut fabric, frame), []);
    assert_eq!(fabric.holds().held(), 1);
    let out = order(&mut fabric, layers());
    assert!(!asks(&out).is_empty(), "{out:?}");
}

#[test]
fn a_frame_for_a_replica_that_is_not_here_is_dropped_with_its_payload() {
    let mut fabric = fabric();
    order(&mut fabric, layers());
    let frame = write(&fabric);
    assert_eq!(step(&mut fabric, frame), []);
    assert_eq!(fabric.holds().held(), 0);
    let mut out = Vec::new();
    fabric.turn_ended(&mut out);
    assert!(
        matches!(out[..], [Output::Unpin { blocks: 1, .. }]),
        "{out:?}"
    );
}

#[test]
fn a_replica_that_is_listed_again_is_made_when_its_store_has_forgotten_the_one_before() {
    let mut fabric = fabric();
    order(&mut fabric, Order::Disk { disk: DISK });
    order(&mut fabric, layers());
    let mut of = Configuration::new([DISK, OTHER]);
    configured(&mut fabric, &of);
    for change in [
        Reconfigure::Evict { disk: DISK },
        Reconfigure::Remove { disk: DISK },
    ] {
        of.apply(of.version(), change, 1).unwrap();
    }
    let out = configured(&mut fabric, &of);
    assert_eq!(asks(&out), [&StoreAsk::Forget]);
    let again = Reconfigure::Add { disk: DISK };
    of.apply(of.version(), again, 1).unwrap();
    configured(&mut fabric, &of);
    assert!(
        fabric.replicas.is_empty(),
        "what is left of it is forgotten first"
    );
    let answered = Input::Answered {
        disk: DISK,
        pg: PG,
        answer: StoreAnswer::Forgotten,
        took: std::time::Duration::ZERO,
    };
    step(&mut fabric, answered);
    assert!(fabric.replicas.contains_key(&(DISK, PG)));
}
