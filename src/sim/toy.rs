//! A toy in the place of a shard, for the simulator's own tests: it keeps every block at a fixed place of its
//! disk, one request at a time, without a journal. It can be made to err in chosen ways, so that the world and
//! its checkers are seen to find it; and it cannot keep writes atomic, which they must find too.

use super::checkers::Checker;
use super::node::Machine;
use super::swarm::{Controls, Knobs, Requests, Sizes};
use super::world::{Outcome, World};
use crate::base::{BLOCK, BlockNo, Break, Breaks, LayerId, Request, RequestKind, Time, VolumeId};
use crate::shard::{Control, DiskSlot, Input, Outbox, Output};
use crate::store::{DiskOp, Durability, IoId, Span, WriteKind};
use std::collections::VecDeque;

struct Toy {
    breaks: Breaks,
    volumes: Vec<VolumeId>,
    queue: VecDeque<Request>,
    /// What the disk works on, with the operation's number.
    current: Option<(u64, Request)>,
    next: u64,
    reads: u64,
}

impl Toy {
    fn begin_next(&mut self, out: &mut Outbox) {
        while self.current.is_none()
            && let Some(request) = self.queue.pop_front()
        {
            self.begin(request, out);
        }
    }

    fn begin(&mut self, request: Request, out: &mut Outbox) {
        self.next += 1;
        let id = IoId(self.next);
        let place = self
            .volumes
            .iter()
            .position(|&id| id == request.volume)
            .unwrap() as u64;
        let offset = (3 + place) * (2 << 20) + request.offset;
        let blocks = (request.len / BLOCK) as u32;
        let op = match request.kind {
            RequestKind::Read => DiskOp::ReadBlocks {
                id,
                offset,
                buf: request.buf,
                blocks,
                layer: LayerId(1),
                first: BlockNo(0),
            },
            RequestKind::Write => {
                let from = out.store.spans.len() as u32;
                let buf = request.buf;
                out.store.spans.push(Span { buf, blocks });
                let cached = self.breaks.on(Break::NoDsync);
                let durability = [Durability::Durable, Durability::Cached][usize::from(cached)];
                let (head, body) = (0..0, from..from + 1);
                DiskOp::Write {
                    id,
                    offset,
                    head,
                    body,
                    durability,
                    kind: WriteKind::Payload,
                }
            }
            _ => return reply(&request, out),
        };
        self.current = Some((self.next, request));
        out.list.push(Output::Disk {
            disk: DiskSlot(0),
            op,
        });
    }
}

fn reply(request: &Request, out: &mut Outbox) {
    let (token, result, map) = (request.token, Ok(()), 0..0);
    out.list.push(Output::Reply { token, result, map });
}

impl Machine for Toy {
    fn born(breaks: Breaks) -> Toy {
        Toy {
            breaks,
            volumes: Vec::new(),
            queue: VecDeque::new(),
            current: None,
            next: 0,
            reads: 0,
        }
    }

    fn step(&mut self, _: Time, input: Input<'_>, out: &mut Outbox) {
        match input {
            Input::Control { id, control } => {
                if let Control::OpenVolume { meta, .. } = control {
                    self.volumes.push(meta.id);
                }
                let result = Ok(());
                out.list.push(Output::ControlDone { id, result });
            }
            Input::Request(request) => self.queue.push_back(request),
            Input::Disk { id, .. } => {
                let (number, request) = self.current.take().unwrap();
                assert_eq!(id.0, number);
                self.reads += u64::from(request.kind == RequestKind::Read);
                match () {
                    _ if self.breaks.on(Break::AckOutOfOrder) && self.reads == 100 => {}
                    _ if self.breaks.on(Break::NoOverlapWait) && self.reads == 100 => {
                        out.list.push(Output::Fill {
                            buf: request.buf,
                            blocks: 1,
                        });
                        reply(&request, out);
                    }
                    _ => reply(&request, out),
                }
                if self.breaks.on(Break::TrimTooEarly) {
                    out.list.push(Output::Unpin {
                        buf: request.buf,
                        blocks: 1,
                    });
                }
            }
            _ => {}
        }
        self.begin_next(out);
    }

    fn deadline(&self) -> Option<Time> {
        None
    }

    fn expire(&mut self, _: Time, _: &mut Outbox) {}
}

fn run(seed: u64, breaks: Breaks, cut_after: u64) -> Outcome {
    let knobs = Knobs {
        disks: 1,
        volumes: 2,
        volume_bytes: 2 << 20,
        hostile: false,
        rot_one_in: 0,
        gone_one_in: 0,
        cut_after,
        cut_recovery_one_in: u64::MAX,
        close_one_in: 2,
        requests: Requests {
            read: 1,
            write: 1,
            zeroes: 0,
            discard: 0,
            flush: 1,
            map: 0,
        },
        sizes: Sizes {
            bytes: 0,
            sectors: 0,
            blocks: 1,
            chunks: 0,
            big: 0,
        },
        controls: Controls {
            snapshot: 0,
            clone: 0,
            create: 0,
            drop: 0,
            resize: 0,
            scrub: 0,
            grow: 0,
            one_in: 100,
        },
        replica: false,
        ..Knobs::draw(seed)
    };
    let mut knobs = knobs;
    knobs.rates.slow = 50;
    for rate in [
        &mut knobs.rates.lost_write,
        &mut knobs.rates.misdirected,
        &mut knobs.rates.read_error,
        &mut knobs.rates.write_error,
    ] {
        *rate = 0;
    }
    World::<Toy>::new(seed, knobs, breaks, false).run()
}

/// The checker that finds fault first, over some seeds.
fn found(breaks: Breaks, cut_after: u64) -> Option<Checker> {
    (0..20).find_map(|seed| run(seed, breaks, cut_after).result.err().map(|f| f.checker))
}

const NEVER: u64 = 1 << 40;

#[test]
fn an_honest_toy_passes_where_the_power_stays_on() {
    for seed in 0..20 {
        let outcome = run(seed, Breaks::NONE, NEVER);
        assert_eq!(outcome.result, Ok(()), "seed {seed}");
        assert!(outcome.counts.operations >= 2000 && outcome.counts.faults.all_consumed() >= 20);
    }
}

#[test]
fn a_toy_without_a_journal_is_found_torn_after_a_power_cut() {
    assert_eq!(found(Breaks::NONE, 100), Some(Checker::Atomic));
}

#[test]
fn a_toy_that_answers_before_the_medium_has_it_is_found() {
    assert_eq!(
        found(Breaks::only(Break::NoDsync), 300),
        Some(Checker::Durable)
    );
}

#[test]
fn a_toy_that_forgets_a_request_is_found() {
    assert_eq!(
        found(Breaks::only(Break::AckOutOfOrder), NEVER),
        Some(Checker::Answered)
    );
}

#[test]
fn a_toy_that_returns_zeroes_for_data_is_found() {
    assert_eq!(
        found(Breaks::only(Break::NoOverlapWait), NEVER),
        Some(Checker::Linearizable)
    );
}

#[test]
fn a_toy_that_unpins_what_it_never_pinned_is_found() {
    assert_eq!(
        found(Breaks::only(Break::TrimTooEarly), NEVER),
        Some(Checker::Pins)
    );
}

#[test]
fn the_same_seed_leaves_the_same_trace() {
    let hash = |seed| run(seed, Breaks::NONE, NEVER).hash;
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}
