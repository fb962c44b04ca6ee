//! What the fabric itself sees to. What its machines do together is the simulator's to try.

use super::*;
use crate::base::{BlockRun, ChunkNo, Epoch, FamilyId};
use crate::protocol::replication::fill::{Content, FillAnswer, FillAsk, FillHeader};
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

/// A joiner at a disk, its source at another node, and a store that takes everything at once.
struct Joiner {
    fabric: Fabric,
    now: Time,
    /// Chunks that were asked for, and the last that was listed.
    fetched: u64,
    listed: u64,
    /// Blocks that each chunk has.
    data: u16,
}

impl Joiner {
    fn new(limit: Option<u64>, data: u16) -> Joiner {
        let mut joiner = Joiner {
            fabric: fabric(),
            now: NOW,
            fetched: 0,
            listed: 0,
            data,
        };
        let mut of = Configuration::new([OTHER]);
        for change in [
            Reconfigure::Add { disk: DISK },
            Reconfigure::Join { disk: DISK },
        ] {
            of.apply(of.version(), change, 1).unwrap();
        }
        joiner.order(Order::FillLimit {
            disk: DISK,
            bytes_per_second: limit,
        });
        joiner.order(Order::Disk { disk: DISK });
        joiner.order(Order::Configured { pg: PG, of });
        joiner
    }

    fn order(&mut self, order: Order) {
        self.step(Input::Order(order));
    }

    fn step(&mut self, input: Input<'_>) {
        let mut out = Vec::new();
        (self.fabric).step(self.now, input, &Blank, &mut out);
        self.answer(out);
    }

    /// Answers what was asked, but for chunks of more than are wanted by now.
    fn answer(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send {
                    frame: Frame::FillAsk(header, ask),
                    ..
                } => self.source(header, ask),
                Output::Store { ask, .. } => self.store(ask),
                _ => {}
            }
        }
    }

    fn source(&mut self, header: FillHeader, ask: FillAsk) {
        let at = |chunk| ChunkId {
            family: FamilyId(9),
            layer: LAYER,
            chunk: ChunkNo(chunk),
        };
        let (mut payload, answer) = match ask {
            FillAsk::Fences { .. } => (
                None,
                FillAnswer::Fences {
                    fences: Vec::new(),
                    more: false,
                },
            ),
            FillAsk::List { .. } => {
                let chunks = (self.listed..self.listed + 256).map(at).collect();
                self.listed += 256;
                (None, FillAnswer::Listed { chunks, more: true })
            }
            FillAsk::Fetch { at } => {
                self.fetched += 1;
                let content = Content {
                    stamp: crate::base::Stamp::default(),
                    data: self.data,
                    zeroes: 0,
                    crcs: [7; 16],
                };
                let span = Span {
                    blocks: 16,
                    ..Span::default()
                };
                let answer = FillAnswer::Content {
                    at,
                    content,
                    entries: Vec::new(),
                };
                (Some(self.fabric.holds().hold(span)), answer)
            }
        };
        self.step(Input::Frame {
            from: Asker(8),
            disk: OTHER,
            frame: Frame::FillAnswer(header, answer),
            payload: payload.take(),
        });
    }

    fn store(&mut self, ask: StoreAsk) {
        let StoreAsk::Replica(asked) = ask else {
            return;
        };
        let answer = match asked {
            replica::Output::Fence { op, .. } | replica::Output::Fill { op, .. } => {
                replica::Input::Stored { op, ok: true }
            }
            replica::Output::List { op, .. } => replica::Input::Listed {
                op,
                chunks: Vec::new(),
                more: false,
            },
            _ => return,
        };
        self.step(Input::Answered {
            disk: DISK,
            pg: PG,
            answer: StoreAnswer::Replica(answer),
            took: std::time::Duration::from_micros(100),
        });
    }

    /// Lets time pass; how many bytes were filled meanwhile.
    fn run(&mut self, millis: u64) -> u64 {
        let (before, end) = (self.fetched, self.now.0 + millis * 1_000_000);
        while let Some(at) = self.fabric.deadline().filter(|at| at.0 <= end) {
            self.now = self.now.max(at);
            let mut out = Vec::new();
            self.fabric.expire(self.now, &mut out);
            self.answer(out);
        }
        self.now = Time(end);
        (self.fetched - before) * u64::from(self.data.count_ones()) * crate::base::BLOCK
    }
}

#[test]
fn a_disk_with_a_limit_is_filled_as_fast_as_that_says_and_no_faster() {
    for (rate, data) in [(4 << 20, u16::MAX), (64 << 20, u16::MAX), (4 << 20, 0b11)] {
        let mut joiner = Joiner::new(Some(rate), data);
        for _ in 0..3 {
            let filled = joiner.run(1_000);
            assert!(
                filled <= rate + rate / 10 && filled >= rate - rate / 5,
                "{filled} of {rate}, {data:b}"
            );
        }
    }
}

#[test]
fn a_limit_is_changed_while_a_disk_is_filled_and_taken_away() {
    let mut joiner = Joiner::new(Some(1 << 20), u16::MAX);
    assert!(joiner.run(2_000) <= (2 << 20) + (256 << 10));
    let limit = |bytes_per_second| Order::FillLimit {
        disk: DISK,
        bytes_per_second,
    };
    joiner.order(limit(Some(32 << 20)));
    let faster = joiner.run(2_000);
    assert!(faster > 50 << 20, "{faster}");
    let at = (DISK, PG);
    assert!(joiner.fabric.replicas[&at].allowed().is_some());
    let filling = joiner.fabric.filling();
    assert_eq!(filling.len(), 1);
    assert_eq!(
        filling[0].chunks, joiner.fetched,
        "what was filled is counted"
    );
    // Without one a source that answers at once is asked for ever: it has nothing more.
    joiner.data = 0;
    joiner.now = joiner.now + std::time::Duration::from_secs(1);
    let mut out = Vec::new();
    let none = Input::Order(limit(None));
    (joiner.fabric).step(joiner.now, none, &Blank, &mut out);
    assert_eq!(joiner.fabric.replicas[&at].allowed(), None);
    assert_eq!(joiner.fabric.shares_out_at(), None);
    let asked = |output: &Output| {
        let frame = match output {
            Output::Send { frame, .. } => frame,
            _ => return false,
        };
        matches!(frame, Frame::FillAsk(_, FillAsk::Fetch { .. }))
    };
    assert!(out.iter().any(asked), "{out:?}");
}

/// Chunks that are read at once, for joiners of so many groups of which each asks for so many; and how many each was read.
fn read_for(groups: u32, each: u64) -> (usize, Vec<u64>) {
    let mut fabric = fabric();
    order(&mut fabric, Order::Disk { disk: DISK });
    let mut reads = std::collections::VecDeque::new();
    for pg in (0..groups).map(PgId) {
        let of = Configuration::new([DISK]);
        order(&mut fabric, Order::Configured { pg, of });
    }
    let asked = (0..groups).flat_map(|pg| (0..each).map(move |chunk| (PgId(pg), chunk)));
    for (pg, chunk) in asked {
        let at = ChunkId {
            family: FamilyId(9),
            layer: LAYER,
            chunk: ChunkNo(chunk),
        };
        let header = FillHeader {
            pg,
            version: 1,
            session: 1,
            id: chunk,
        };
        let frame = Frame::FillAsk(header, FillAsk::Fetch { at });
        let input = Input::Frame {
            from: Asker(8),
            disk: DISK,
            frame,
            payload: None,
        };
        reads.extend(fetches(&step(&mut fabric, input)));
    }
    let mut done = vec![0; groups as usize];
    let mut most = 0;
    for count in 0.. {
        let Some((pg, op)) = reads.pop_front() else {
            assert_eq!(count, u64::from(groups) * each, "all are read");
            break;
        };
        let answered = Input::Answered {
            disk: DISK,
            pg,
            answer: StoreAnswer::Replica(replica::Input::NotLoaded { op }),
            took: std::time::Duration::from_micros(100),
        };
        reads.extend(fetches(&step(&mut fabric, answered)));
        done[pg.0 as usize] += 1;
        // What was on its way before they were told of turns is over by then.
        if count >= u64::from(groups) * each / 2 {
            most = most.max(reads.len());
        }
        if count == u64::from(groups) * (each - 1) {
            assert!(done.iter().all(|of| *of + 1 >= each - 1), "{done:?}");
        }
    }
    (most, done)
}

fn fetches(out: &[Output]) -> Vec<(PgId, replica::Op)> {
    let mut all = Vec::new();
    for output in out {
        if let Output::Store {
            pg,
            ask: StoreAsk::Replica(replica::Output::Fetch { op, .. }),
            ..
        } = output
        {
            all.push((*pg, *op));
        }
    }
    all
}

#[test]
fn where_more_replicas_fill_others_than_chunks_may_be_read_at_once_they_take_turns() {
    // A disk of which nothing is known reads four at once.
    let (most, done) = read_for(12, 20);
    assert_eq!((most, done), (4, vec![20; 12]));
    let (most, _) = read_for(3, 20);
    assert!(most <= 4, "{most}");
}
