//! A shard of a node of a cluster: its machine between the links, the other shards, and the control plane.
//!
//! What the machine wants to leave is brought to where it goes at once (`peers`), and what comes is given to it in the turn in which it comes. Orders are carried out in
//! their order, so many in a turn that completions are not kept waiting; what the machine and the links say goes to the control plane (`said`).

use super::asker::Who;
use super::core_loop::Core;
use super::handle::{Handle, Runtime};
use super::links::{Event, LinkId, Peer};
use super::machine::Machine;
use super::mailbox::Mail;
use super::post::Whom;
use super::said::SaidReceiver;
use crate::base::{DiskId, FamilyId, NodeId, PgId, Span, VolumeId};
use crate::protocol::replication::replica::Asker;
use crate::shard::fabric::{self, Order};
use crate::shard::{Copies, Input, Reach, RouteChange, ShardNo, ToFill, What};
use crate::store::Openings;
use crate::wire::{Frame, Question};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Orders that are carried out in one turn.
const AT_ONCE: usize = 256;
/// Orders that wait for a shard. Nobody can say what follows from one that is lost, so there is no going on past that: far above what a catalog of the largest site is told with.
const ORDERS: usize = 1 << 22;

/// Orders that wait for a shard, in their order.
#[derive(Debug, Default)]
pub(super) struct Orders(Mutex<VecDeque<(u64, Order)>>);

impl Orders {
    /// Puts one at the end. What a lease is extended to takes the place of what it was extended to right before.
    fn put(&self, number: u64, order: Order) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Order::Extended { .. }, Some(last @ (_, Order::Extended { .. }))) =
            (&order, list.back_mut())
        {
            *last = (number, order);
            return;
        }
        assert!(
            list.len() < ORDERS,
            "a shard carries out what it is ordered"
        );
        list.push_back((number, order));
    }

    /// Takes the next ones; whether there are more.
    fn take(&self, into: &mut Vec<(u64, Order)>) -> bool {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = list.len().min(AT_ONCE);
        into.extend(list.drain(..count));
        !list.is_empty()
    }
}

impl<M: Machine> Core<M> {
    /// Carries out the next orders; whether there are more.
    pub fn take_orders(&mut self) -> bool {
        let mut orders = std::mem::take(&mut self.orders);
        let line = &self.desk.shared.lines[usize::from(self.desk.me.0)];
        let has_more = line.orders.take(&mut orders);
        for (number, order) in orders.drain(..) {
            self.step(Input::Order { number, order });
        }
        self.orders = orders;
        has_more
    }

    /// Brings what the machine has for others to them.
    pub fn hand_out(&mut self) {
        let mut list = std::mem::take(&mut self.out.fabric);
        for output in list.drain(..) {
            match output {
                fabric::Output::Send {
                    to,
                    disk,
                    frame,
                    payload,
                } => {
                    let (links, desk) = (&mut self.links, &mut self.desk);
                    (self.peers).send((to, disk), frame, payload, links, desk);
                }
                fabric::Output::Report(report) => self.say(What::Report(report)),
                fabric::Output::Drained { volume } => self.say(What::Drained { volume }),
                fabric::Output::Cut { volume } => self.say(What::Cut { volume }),
                fabric::Output::Settled { volume } => self.say(What::Settled { volume }),
                fabric::Output::Waits { volume } => self.say(What::Waits { volume }),
                // How fast rebuilds are is counted where they are.
                fabric::Output::Paced { .. } => {}
                other => debug_assert!(false, "{other:?} does not leave the shard"),
            }
        }
        self.out.fabric = list;
    }

    pub fn say(&mut self, what: What) {
        if self.peers.is_of_cluster {
            self.saying.say(self.machine.upto(), what);
        }
    }

    /// Tells which volumes clients wait for.
    pub fn tell_wanted(&mut self) {
        while let Some(volume) = self.clients.next_wanted() {
            self.say(What::Wanted { volume });
        }
    }

    /// Tells whom it concerns all that has happened to the links.
    pub fn tell_links(&mut self) {
        if let Some(user) = &mut self.link_user {
            return self.links.tell(&mut **user, &mut self.desk);
        }
        while let Some(event) = self.links.next_event() {
            self.on_link(event);
        }
    }

    fn on_link(&mut self, event: Event) {
        match event {
            Event::Up { link, peer } => {
                if !self.peers.is_of_cluster {
                    self.links.give_up(link);
                } else if self.peers.up(link, peer) {
                    let (node, link) = (peer.node, Reach::There(peer.version));
                    self.say(What::Link { node, link });
                }
            }
            Event::Down { link, peer, .. } => {
                if self.peers.down(link, peer) {
                    let (node, link) = (peer.node, Reach::Gone);
                    self.say(What::Link { node, link });
                }
            }
            // What is asked there may have been lost, and is asked again; a peer that is not there any more is found out by the kernel.
            Event::Silent { .. } => {}
            Event::Ask {
                link,
                disk,
                frame,
                payload,
            } => {
                let me = self.desk.me;
                let from = Who::link(me, link).asker();
                let question = frame.question(disk);
                match self.desk.router.disk(disk) {
                    Some(shard) if shard == me => {
                        if let Some(payload) = payload {
                            self.peers.gave(payload, link);
                        }
                        self.ask_machine(from, disk, frame, payload);
                    }
                    Some(shard) => {
                        let of = (frame, payload);
                        if !(self.peers).write(shard, (from, Whom::Disk), disk, of, &mut self.desk)
                        {
                            self.drop_ask(link, question, payload);
                        } else if let Some(payload) = payload {
                            self.links.hand_on(link, payload.blocks);
                        }
                    }
                    // Its coordinator is behind, or ahead of us.
                    None => self.drop_ask(link, question, payload),
                }
            }
            Event::Answer {
                link,
                disk,
                frame,
                into,
                blocks,
            } => {
                let payload = into.filter(|_| blocks > 0);
                let payload = payload.map(|Span { buf, .. }| Span { buf, blocks });
                if let Some(unused) = into.filter(|_| blocks == 0) {
                    self.links.free(unused.buf.id, &mut self.desk);
                }
                let from = Who::link(self.desk.me, link).asker();
                self.step(Input::Frame {
                    from,
                    disk,
                    frame,
                    payload,
                });
            }
        }
    }

    fn drop_ask(&mut self, link: LinkId, question: Option<Question>, payload: Option<Span>) {
        self.shard_stats.count_dropped();
        self.links.drop_ask(link, question);
        if let Some(payload) = payload {
            self.links.release(link, payload, &mut self.desk);
        }
    }

    fn ask_machine(&mut self, from: Asker, disk: DiskId, frame: Frame, payload: Option<Span>) {
        self.peers.remember(from, disk, &frame);
        self.step(Input::Frame {
            from,
            disk,
            frame,
            payload,
        });
    }

    /// Another shard has a frame for this one, or for a link of it.
    pub fn open_frame(
        &mut self,
        (from, to): (Asker, Whom),
        disk: DiskId,
        (frame, payload): (Frame, Option<Span>),
    ) {
        match to {
            Whom::Disk => self.ask_machine(from, disk, frame, payload),
            Whom::Asker(asker) => match Who::of(asker) {
                Who::Machine(_) => self.step(Input::Frame {
                    from,
                    disk,
                    frame,
                    payload,
                }),
                Who::Link(..) => {
                    let (links, desk) = (&mut self.links, &mut self.desk);
                    (self.peers).answer(asker, disk, (frame, payload), links, desk);
                }
            },
        }
    }

    /// Goes on with asks that waited for memory, and tells the machine what counts as answers.
    pub fn feed_peers(&mut self) {
        while let Some((disk, frame)) = self.peers.take_instead() {
            let from = Who::Machine(self.desk.me).asker();
            let payload = None;
            self.step(Input::Frame {
                from,
                disk,
                frame,
                payload,
            });
        }
        self.peers.feed(&mut self.links, &mut self.desk);
    }
}

/// On a node of a cluster.
impl Handle {
    /// Orders something of all shards. Does not wait. Orders have rising numbers, from 1 on, and one thread gives them; each shard carries them out in their order, and says by
    /// their numbers how far it came ([`Said::upto`](crate::shard::Said::upto)).
    pub fn order(&self, number: u64, order: Order) {
        for line in &self.shared.lines {
            line.orders.put(number, order.clone());
            line.postbox.ring();
        }
    }

    /// Tells which disks another node has, and on which shard each; nothing of what was told of that node before counts any more. To be told before
    /// [`Order::Connected`]: what is for a disk that nobody knows is dropped, and sent again some time later.
    pub async fn peer_disks(&self, node: NodeId, disks: Vec<(DiskId, ShardNo)>) {
        let mail = |done| Mail::PeerDisks {
            node,
            disks: disks.clone(),
            done,
        };
        // Where the shards have stopped nothing is sent any more.
        let _ = self.ask_shards(&self.all(), mail).await;
    }

    /// The links that a shard has now: to whom.
    pub async fn links(&self, shard: ShardNo) -> Vec<Peer> {
        let answer = self.ask_shard(shard, |done| Mail::Links { done });
        // Where the shards have stopped, so have the links.
        answer.await.unwrap_or_default()
    }

    /// Which shard has which of these disks of this node.
    pub fn shards_of(&self, disks: impl IntoIterator<Item = DiskId>) -> Vec<(DiskId, ShardNo)> {
        let places = &self.shared.places;
        let of = |disk| Some((disk, places.disk(disk)?));
        disks.into_iter().filter_map(of).collect()
    }

    /// What the store of a disk keeps of its openings; `None`: the disk was given to no shard, or is not open.
    pub async fn openings(&self, disk: DiskId) -> Option<Openings> {
        let shard = self.shared.places.disk(disk)?;
        let answer = self.ask_shard(shard, |done| Mail::Openings { disk, done });
        answer.await.unwrap_or(None)
    }

    /// What each shard knows of copies that are being made: how far those are that are filled here, and what those hold that these are to be filled from. A shard
    /// that does not have the disk of a source says nothing of it.
    pub async fn copies(&self, asked: Vec<ToFill>) -> Vec<Copies> {
        let asked: Arc<[ToFill]> = asked.into();
        let mail = |done| {
            let asked = Arc::clone(&asked);
            Mail::Copies { asked, done }
        };
        // Shards that have stopped fill nothing.
        let said = self.ask_shards(&self.all(), mail).await;
        said.unwrap_or_default()
    }

    /// The volumes that the store of a disk knows; none where it is not open.
    pub async fn volumes_of(&self, disk: DiskId) -> Vec<VolumeId> {
        let Some(shard) = self.shared.places.disk(disk) else {
            return Vec::new();
        };
        let answer = self.ask_shard(shard, |done| Mail::Volumes { disk, done });
        answer.await.unwrap_or_default()
    }

    /// Brings requests of a volume to the shards that coordinate its PGs, by their numbers; said again it changes the volume's size. Whether they are served is for orders to say: a
    /// shard refuses what was not opened.
    pub async fn serve_volume(
        &self,
        volume: VolumeId,
        family: FamilyId,
        size: u64,
        pgs: Vec<PgId>,
    ) {
        let shards = self.shards() as u16;
        let change = RouteChange::Serve {
            volume,
            family,
            size,
            pgs,
            shards,
        };
        let _ = self.tell(change).await; // they have stopped
    }

    /// Brings no more requests of a volume to the shards: they are refused.
    pub async fn stop_serving(&self, volume: VolumeId) {
        let _ = self.tell(RouteChange::Close { volume }).await; // they have stopped
    }
}

impl Runtime {
    /// What the shards of a node of a cluster say; `None` where it was taken already.
    pub fn said(&mut self) -> Option<SaidReceiver> {
        self.said.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Time;

    #[test]
    fn orders_are_taken_in_their_order_and_a_lease_is_extended_once_where_nothing_stands_between() {
        let orders = Orders::default();
        let extended = |n| Order::Extended { until: Time(n) };
        for n in 1..=3 {
            orders.put(n, extended(n));
        }
        orders.put(4, Order::SayAgain);
        orders.put(5, extended(5));
        (6..600).for_each(|n| orders.put(n, Order::SayAgain));
        let mut taken = Vec::new();
        assert!(orders.take(&mut taken));
        assert_eq!(taken.len(), AT_ONCE);
        while orders.take(&mut taken) {}
        let numbers: Vec<u64> = taken.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (3..600).collect::<Vec<_>>());
        assert!(matches!(taken[0].1, Order::Extended { until: Time(3) }));
    }
}
