//! A shard of a node of a cluster: it is told by orders what is so, and by frames what shards of other nodes, or of this one, ask and answer.
//!
//! Nothing is leased, configured or opened here but by [`Input::Order`](super::Input::Order). Orders have numbers, which rise, and each is brought to every shard of a node: a shard
//! carries out what concerns it. *A placement group has one coordinator*: of a volume that is this node's, the shard `pg % shards` coordinates the PG, under
//! the one epoch that all of them were told; were it sealed by another shard too, the two would number writes alike.
//!
//! *Payload that came is given back once* ([`Output::Release`](super::Output::Release)): it is held in the fabric's book like all payload there, and `came` knows which of what is dropped was the driver's. What
//! stores keep of it longer they have pinned.
//!
//! It does not know links, nor where the disks of others are.

use super::door::Outbox;
use super::fabric::{self, Order};
use super::machine::Shard;
use super::route::ShardNo;
use crate::base::{BufRef, DiskId, FixedMap, PgId, Span, Time};
use crate::protocol::replication::replica::Asker;
use crate::wire::Frame;

/// What a shard is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whole {
    /// A node that is alone: each PG has one replica for ever, and the lease never ends.
    Alone,
    /// A node of a cluster, of so many shards.
    Node { me: ShardNo, shards: u16 },
}

impl Whole {
    /// Whether this shard coordinates a PG.
    fn coordinates(self, pg: PgId) -> bool {
        match self {
            Whole::Alone => true,
            Whole::Node { me, shards } => coordinator_of(pg, shards) == me,
        }
    }
}

/// The shard that coordinates a PG on a node of a cluster that has so many shards.
pub fn coordinator_of(pg: PgId, shards: u16) -> ShardNo {
    ShardNo((pg.0 % u32::from(shards.max(1))) as u16)
}

/// Payload of the driver's that the fabric holds: by where it is, how often.
#[derive(Debug, Default)]
pub(super) struct Came(FixedMap<BufRef, u32>);

impl Came {
    fn put(&mut self, at: BufRef) {
        *self.0.entry(at).or_insert(0) += 1;
    }

    /// Whether what is dropped there was the driver's.
    pub fn take(&mut self, at: BufRef) -> bool {
        let Some(count) = self.0.get_mut(&at) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&at);
        }
        true
    }
}

impl Shard {
    /// The last order that was carried out; 0: none was.
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// Whether a turn is wanted though nothing has come: payload that the driver has let go is to be given back.
    pub fn wants_turn(&self) -> bool {
        self.fabric.holds().has_dropped()
    }

    pub(super) fn is_of_node(&self) -> bool {
        self.whole != Whole::Alone
    }

    /// Carries out an order of the node's control plane, as far as it concerns this shard.
    pub(super) fn on_order(&mut self, now: Time, number: u64, mut order: Order) {
        debug_assert!(number > self.upto, "the numbers of orders rise");
        self.upto = number;
        match &mut order {
            // Each shard hears of all disks of its node, and has replicas on its own.
            Order::Disk { disk } if self.disks.slot_of(*disk).is_none() => return,
            Order::FillLimit { disk, .. } if self.disks.slot_of(*disk).is_none() => return,
            Order::Settle { pgs, .. } => pgs.retain(|&pg| self.whole.coordinates(pg)),
            _ => {}
        }
        self.order(now, order);
    }

    /// A frame of another shard, of this node or another one, whose payload was held against its checksums.
    pub(super) fn on_frame(
        &mut self,
        now: Time,
        (from, disk): (Asker, DiskId),
        frame: Frame,
        payload: Option<Span>,
    ) {
        let payload = payload.map(|span| {
            self.came.put(span.buf);
            self.fabric.holds().hold(span)
        });
        let input = fabric::Input::Frame {
            from,
            disk,
            frame,
            payload,
        };
        self.tell(now, input);
    }

    /// What leaves the shard: frames, and what the node's control plane is told. A node that is alone has nobody to tell.
    pub(super) fn hand_out(&mut self, output: fabric::Output, out: &mut Outbox) {
        if self.is_of_node() {
            out.fabric.push(output);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{
        BlockRun, BufId, ChunkId, ChunkNo, Epoch, FamilyId, LayerId, Time, VolumeId,
    };
    use crate::protocol::membership::Incarnation;
    use crate::protocol::replication::{Change, Header, Message};
    use crate::shard::{Input, Output};

    const ME: Asker = Asker(1 << 26);

    fn shard() -> Shard {
        let no_breaks = crate::base::Breaks::NONE;
        Shard::of_node((ShardNo(1), 2), ME, Incarnation(1), no_breaks)
    }

    fn step(shard: &mut Shard, input: Input<'_>) -> Outbox {
        let mut out = Outbox::default();
        shard.step(Time(1), input, &mut out);
        out
    }

    fn order(shard: &mut Shard, order: Order) -> Outbox {
        let number = shard.upto() + 1;
        step(shard, Input::Order { number, order })
    }

    #[test]
    fn orders_are_counted_and_what_another_shard_coordinates_is_not_sealed_here() {
        let mut shard = shard();
        order(&mut shard, Order::Disk { disk: DiskId(7) });
        assert_eq!(shard.upto(), 1);
        let volume = VolumeId(1);
        let pgs = vec![PgId(0), PgId(2), PgId(4)];
        let open = crate::protocol::volume::OpenVolume {
            id: volume,
            family: FamilyId(1),
            layer: LayerId(1),
            size: 1 << 30,
            pgs: pgs.iter().map(|&pg| (pg, None)).collect(),
        };
        let epoch = Epoch {
            host: 1,
            ..Epoch::default()
        };
        let near = Default::default();
        order(&mut shard, Order::Open { open, epoch, near });
        // All of them are the other shard's: it is done at once, and nobody is sealed twice.
        let out = order(&mut shard, Order::Settle { volume, pgs });
        assert_eq!(out.fabric, [fabric::Output::Settled { volume }]);
        assert_eq!(shard.upto(), 3);
    }

    #[test]
    fn payload_that_came_is_given_back_once_for_each_time_that_it_came() {
        let mut shard = shard();
        let payload = Span {
            buf: BufRef {
                id: BufId(9),
                block: 4,
            },
            blocks: 1,
        };
        let header = Header {
            range: VolumeId(1),
            pg: PgId(1),
            epoch: Epoch::default(),
            version: 1,
            session: 0,
            mark: 0,
        };
        let frame = || {
            let run = BlockRun::new(0, 1).expect("it lies in a chunk");
            let change = Change::Write { run, crcs: [7; 16] };
            let at = ChunkId {
                family: FamilyId(1),
                layer: LayerId(1),
                chunk: ChunkNo(0),
            };
            let sequence = 1;
            let message = Message::Change {
                sequence,
                at,
                change,
            };
            Frame::Message(header, message)
        };
        let volume = VolumeId(1);
        let layers = vec![(LayerId(1), None)];
        // Before its layer is known it is kept; then there is no such replica.
        for _ in 0..2 {
            let input = Input::Frame {
                from: Asker(5),
                disk: DiskId(3),
                frame: frame(),
                payload: Some(payload),
            };
            assert!(step(&mut shard, input).list.is_empty());
            assert!(step(&mut shard, Input::TurnEnded).list.is_empty());
        }
        order(&mut shard, Order::Layers { volume, layers });
        assert!(shard.wants_turn());
        let out = step(&mut shard, Input::TurnEnded).list;
        let is_release =
            |of: &Output| matches!(of, Output::Release { payload: found } if *found == payload);
        assert!(out.len() == 2 && out.iter().all(is_release), "{out:?}");
        assert!(!shard.wants_turn());
    }
}
