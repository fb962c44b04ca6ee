//! One shard's loop. A turn: submit and wait in one system call, read the clock once, step the machine with
//! what came, from the ring and from other shards, say that the turn has ended, settle the clients, send letters.
//!
//! The machine's outputs are carried out after each step, in their order (`perform.rs`). Nothing is
//! decided here.

use super::asks::Asks;
use super::bench::Load;
use super::clients::Clients;
use super::desk::Desk;
use super::devices::Devices;
use super::disks::{Disks, Ended};
use super::guests::Guests;
use super::links::{LinkUser, Links};
use super::machine::Machine;
use super::mailbox::{Mail, Mailbox};
use super::peers::Peers;
use super::said::Saying;
use super::tags::Completed;
use super::transfer::What;
use crate::base::{BLOCK, BufRef, CHUNK, DiskId, Slab, Time};
use crate::io::{Completion, Wait, clock};
use crate::observe::{DiskNumbers, DiskStats, Registry, ShardStats};
use crate::shard::fabric::Order;
use crate::shard::{Control, ControlError, ControlId, DiskSlot, Input, Outbox};
use crate::store::{IoData, Note, StoreError};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Control operations at one time; the handles' permits bound them below that.
pub(super) const CONTROLS: usize = 4096;

/// How often a busy shard tells the numbers of its disks.
const TELL_EVERY: Duration = Duration::from_millis(1);
/// Payload memory that each store may use itself, in blocks: 2 MiB.
const SCRATCH_BLOCKS: u32 = 512;

pub(super) type ControlDone = oneshot::Sender<Result<(), ControlError>>;

/// What a slot's store is known as.
pub(super) struct Known {
    pub slot: DiskSlot,
    pub id: DiskId,
    pub stats: Arc<DiskStats>,
}

/// One shard and its world.
pub(super) struct Core<M> {
    pub machine: M,
    pub out: Outbox,
    pub desk: Desk,
    pub disks: Disks,
    pub clients: Clients,
    pub devices: Devices,
    pub guests: Guests,
    pub links: Links,
    /// Who gets what comes of the links in place of the machine.
    pub link_user: Option<Box<dyn LinkUser>>,
    pub peers: Peers,
    /// Used again and again; and whether there are more.
    pub orders: Vec<(u64, Order)>,
    pub has_orders: bool,
    pub saying: Saying,
    pub asks: Asks,
    pub load: Option<Load>,
    pub controls: Slab<ControlDone>,
    pub known: Vec<Known>,
    pub notes: mpsc::Sender<(DiskId, Note)>,
    pub notes_dropped: u64,
    pub registry: Arc<Registry>,
    /// When the registry was last told of the disks.
    pub disks_told_at: Time,
    pub shard_stats: Arc<ShardStats>,
    pub mailbox: Mailbox,
    /// The shard that the next client goes to.
    pub next_home: u16,
    /// Used again for every answer with checksums or metadata.
    pub crcs: Vec<u32>,
    pub meta: Vec<u8>,
}

impl<M: Machine> Core<M> {
    /// Runs until it is told to stop.
    pub fn run(&mut self) -> io::Result<()> {
        let bell = self.mailbox.wake().fd().try_clone_to_owned()?;
        let bell = self.desk.ring.adopt(bell)?;
        self.desk.ring.poll(bell, Completed::Bell.tag())?;
        // What was posted before the bell was listened to.
        self.desk.now = clock::now();
        self.read_mail();
        let mut completions = Vec::with_capacity(1024);
        while !self.mailbox.is_stopped() {
            let wait = self.patience();
            let wait = self.doze(wait);
            self.desk.ring.turn(wait)?;
            self.mailbox.wake_up();
            self.desk.now = clock::now();
            self.desk.ring.reap(&mut completions);
            for done in completions.drain(..) {
                if done.tag == Completed::Bell.tag() && !done.more() {
                    // The kernel ends a poll where it had no room for a completion.
                    self.desk.ring.poll(bell, Completed::Bell.tag())?;
                }
                self.take(done);
                self.step_arrivals()?;
                self.desk.ring.submit_early()?;
            }
            self.read_letters();
            self.finish_turn()?;
        }
        Ok(())
    }

    /// How long the next turn may wait.
    fn patience(&self) -> Wait {
        let busy = !self.desk.arrivals.is_empty()
            || self.clients.is_unsettled()
            || self.guests.is_unsettled()
            || self.links.is_unsettled()
            || self.disks.has_failed()
            || self.has_orders
            || self.peers.is_unsettled()
            || self.machine.wants_turn()
            || self.memory_is_awaited();
        if busy {
            return Wait::No;
        }
        let fronts = [
            self.clients.deadline(),
            self.guests.deadline(),
            self.devices.deadline(),
            self.links.deadline(),
            self.peers.deadline(self.desk.now),
            self.saying.deadline(self.desk.now),
            self.desk.late_at(),
        ];
        let first = fronts.into_iter().chain([self.machine.deadline()]);
        match first.flatten().min() {
            None => Wait::Forever,
            Some(at) => {
                // The time of this turn is a little old: the wait may be that much too long, never too short.
                let left = at.since(self.desk.now);
                if left.is_zero() {
                    Wait::No
                } else {
                    Wait::AtMost(left)
                }
            }
        }
    }

    /// Has other shards wake this one from now on, where it is about to sleep and they have not written already.
    fn doze(&mut self, wait: Wait) -> Wait {
        match wait {
            Wait::No => Wait::No,
            _ if !self.desk.has_others() || self.mailbox.doze() => wait,
            _ => Wait::No,
        }
    }

    fn take(&mut self, done: Completion) {
        match Completed::of(done.tag) {
            Completed::Transfer(key) => {
                if let Some(ended) = self.disks.completed(key, done, &mut self.desk.ring) {
                    self.disk_done(ended);
                }
            }
            Completed::Receive(key) => self.clients.received(key, done, &mut self.desk),
            Completed::Send(key) => self.clients.sent(key, done, &mut self.desk),
            Completed::Fetched(key) => self.devices.fetched(key, &done, &mut self.desk),
            Completed::Copied(key) => self.devices.copied(key, &done, &mut self.desk),
            Completed::Kick(key) => self.guests.kicked(key, done, &mut self.desk),
            Completed::Call(key) => self.guests.called(key, &mut self.desk),
            Completed::LinkReceive(key) => {
                self.links.received(key, done, &mut self.desk);
                self.tell_links();
            }
            Completed::LinkSend(key) => self.links.sent(key, &done, &mut self.desk),
            Completed::Bell => self.read_mail(),
            Completed::Accept(key) => {
                let accepted = self.clients.accepted(key, done, self.desk.now);
                if let Some(socket) = accepted {
                    self.spread(socket);
                }
            }
        }
    }

    /// What follows when all that was there has been taken.
    fn finish_turn(&mut self) -> io::Result<()> {
        let now = self.desk.now;
        while let Some(ended) = self.disks.take_failed() {
            self.disk_done(ended);
        }
        self.share_memory();
        if self.has_orders {
            self.has_orders = self.take_orders();
        }
        // Before the turn of the machine ends: what is asked there goes into its next batch.
        self.links.sweep(&mut self.desk);
        self.tell_links();
        self.feed_peers();
        self.step_arrivals()?;
        if self.machine.deadline().is_some_and(|at| at <= now) {
            self.machine.expire(now, &mut self.out);
            self.perform();
        }
        self.step(Input::TurnEnded);
        self.peers.feed(&mut self.links, &mut self.desk);
        self.answer_late();
        self.clients.sweep(&mut self.desk);
        self.devices.try_again(&mut self.desk);
        self.clients.settle(&mut self.desk);
        self.tell_wanted();
        self.guests.settle(&mut self.desk);
        self.links.settle(&mut self.desk);
        self.disks.start_parked(&mut self.desk.ring);
        self.tell_disks();
        self.saying.flush();
        self.desk.trays.send();
        Ok(())
    }

    /// Sets the numbers of the disks where others can read them: once a millisecond, and before the shard comes to
    /// rest, so that those of a quiet disk are right.
    fn tell_disks(&mut self) {
        let rests = self.desk.is_quiet() && self.disks.is_quiet();
        if !rests && self.desk.now.since(self.disks_told_at) < TELL_EVERY {
            return;
        }
        self.disks_told_at = self.desk.now;
        for known in &self.known {
            let Some((stats, levels)) = self.machine.disk(known.slot) else {
                continue;
            };
            known.stats.set(&DiskNumbers {
                capacity_bytes: levels.slots * CHUNK,
                used_bytes: levels.slots_used * CHUNK,
                journal_bytes: levels.journal_len,
                journal_used_bytes: levels.journal_used,
                overlay_bytes: levels.overlay_bytes,
                checksum_errors: stats.checksum_errors,
                media_errors: stats.disk_errors,
                batches: stats.batches,
                checkpoints: stats.checkpoints,
                checkpoint_running: levels.checkpoint_running.into(),
                scrubbed_bytes: stats.scrubbed_blocks * BLOCK,
                scrub_running: levels.scrubbing.into(),
                wraps: levels.journal_wraps,
                applied_bytes: stats.applied_blocks * BLOCK,
                filled_bytes: stats.filled_blocks * BLOCK,
                trimmed_bytes: stats.freed_slots * CHUNK,
            });
        }
    }

    /// Lets go on what waited for payload memory.
    pub fn feed(&mut self) {
        self.clients.feed(&mut self.desk);
        self.devices.feed(&mut self.desk);
        self.guests.feed(&mut self.desk);
        self.asks.feed(&mut self.desk);
        if let Some(load) = &mut self.load {
            load.feed(&mut self.desk);
        }
    }

    /// Steps the machine with what has come. A queue brings many at once: the disks have the first of them while
    /// the last are looked at.
    fn step_arrivals(&mut self) -> io::Result<()> {
        // Replies may bring further requests: those that there are now, the others in the next turn.
        for _ in 0..self.desk.arrivals.len() {
            if let Some(request) = self.desk.arrivals.pop_front() {
                self.shard_stats.count_request();
                self.step(Input::Request(request));
                self.desk.ring.submit_early()?;
            }
        }
        Ok(())
    }

    /// Steps the machine and carries out what it says.
    pub fn step(&mut self, input: Input<'_>) {
        self.machine.step(self.desk.now, input, &mut self.out);
        self.perform();
    }

    fn disk_done(&mut self, ended: Ended) {
        let (disk, id) = (ended.slot, ended.id);
        if let (Ok(()), Some(known)) = (ended.result, self.known.iter().find(|k| k.slot == disk)) {
            let took = self.desk.now.since(ended.since);
            known.stats.took(ended.operation, took);
        }
        let memory = Arc::as_ref(self.desk.buffers.arena());
        self.crcs.clear();
        self.meta.clear();
        let result = ended.result.map(|()| match ended.what {
            What::Blocks {
                buf,
                blocks,
                layer,
                first,
            } => {
                memory.checksums(buf, blocks, layer, first, &mut self.crcs);
                IoData::Crcs(&self.crcs)
            }
            What::Meta { buf, len } => {
                memory.copy_out(buf, 0, len as usize, &mut self.meta);
                IoData::Bytes(&self.meta)
            }
            What::Write { .. } | What::Flush | What::Discard { .. } => IoData::None,
        });
        let input = Input::Disk { disk, id, result };
        self.machine.step(self.desk.now, input, &mut self.out);
        if let Some(own) = ended.own {
            self.disks.buffers().release(own, 1);
        }
        self.perform();
    }

    fn read_mail(&mut self) {
        self.mailbox.listen_again();
        while let Some(mail) = self.mailbox.take() {
            self.open_mail(mail);
        }
        self.has_orders = self.take_orders();
    }

    fn open_mail(&mut self, mail: Mail) {
        let desk = &mut self.desk;
        // Where nobody waits for an answer any more, sending it fails, and that is all the same.
        match mail {
            Mail::AttachDisk { slot, disk, done } => {
                let _ = done.send(self.disks.attach(slot, disk, &mut desk.ring));
            }
            Mail::Route { change, done } => {
                // What comes by the new way finds done what was ordered before.
                while self.take_orders() {}
                self.desk.router.apply(&change);
                let _ = done.send(());
            }
            Mail::Exports { exports, done } => {
                self.clients.set_exports(exports, desk);
                let _ = done.send(());
            }
            Mail::Listen { socket, done } => {
                let _ = done.send(self.clients.listen(socket, desk));
            }
            Mail::Visitor {
                socket,
                visitor,
                done,
            } => {
                let _ = done.send(self.clients.receive_visitor(socket, visitor, desk));
            }
            Mail::Connected {
                socket,
                volume,
                ended,
                done,
            } => {
                let _ = done.send(self.clients.take_over(socket, volume, ended, desk));
            }
            Mail::Queue { queue, ended, done } => {
                let _ = done.send(self.devices.serve(*queue, ended, desk));
            }
            Mail::Turn { done } => {
                let _ = done.send(());
            }
            Mail::Memory => {
                if !desk.ring.register_memory() {
                    tracing::info!(
                        "payload memory is not registered: RLIMIT_MEMLOCK is too low for it"
                    );
                }
            }
            Mail::Link {
                socket,
                cover,
                peer,
                done,
            } => {
                let taken = self.links.welcome(socket, cover, peer, desk);
                // Before an order that comes behind it: what follows from that goes over this link.
                if self.link_user.is_none() {
                    self.tell_links();
                }
                let _ = done.send(taken);
            }
            Mail::GiveUp { link, done } => {
                self.links.give_up(link);
                let _ = done.send(());
            }
            Mail::Links { done } => {
                let _ = done.send(self.peers.links());
            }
            Mail::PeerDisks { node, disks, done } => {
                self.peers.know_disks(node, &disks);
                let _ = done.send(());
            }
            Mail::Openings { disk, done } => {
                let known = self.known.iter().find(|known| known.id == disk);
                let _ = done.send(known.and_then(|known| self.machine.openings(known.slot)));
            }
            Mail::Volumes { disk, done } => {
                let known = self.known.iter().find(|known| known.id == disk);
                let volumes = known.map(|known| self.machine.volumes(known.slot));
                let _ = done.send(volumes.unwrap_or_default());
            }
            Mail::Copies { asked, done } => {
                let _ = done.send(self.machine.copies(&asked));
            }
            Mail::Guest(mail) => self.guests.open_mail(mail, desk),
            Mail::Ask(ask) => self.asks.begin(ask, desk),
            Mail::Control { control, done } => self.control(*control, done),
            Mail::Bench { share, done } => match self.load {
                Some(_) => {
                    let _ = done.send(Err(super::handle::BenchError::Busy));
                }
                None => self.load = Load::start(*share, done, desk),
            },
        }
    }

    fn control(&mut self, mut control: Control, done: ControlDone) {
        if let Control::OpenDisk {
            disk,
            slot,
            options,
        } = &mut control
        {
            self.known.retain(|known| known.slot != *slot);
            self.known.push(Known {
                slot: *slot,
                id: *disk,
                stats: self.registry.disk(*disk),
            });
            // Who opens a disk from outside has no buffers; they are kept for as long as the shard lives.
            let Some(scratch) = self.disks.buffers().allocate(SCRATCH_BLOCKS) else {
                let _ = done.send(Err(ControlError::Store(StoreError::NoSpace)));
                return;
            };
            options.scratch = BufRef {
                id: scratch,
                block: 0,
            };
            options.scratch_blocks = SCRATCH_BLOCKS;
        }
        if let Control::Grow { disk, bytes } = &control
            && let Err(error) = self.grow(*disk, *bytes)
        {
            let _ = done.send(Err(error));
            return;
        }
        match self.controls.insert(done) {
            Ok(key) => self.step(Input::Control {
                id: ControlId(u64::from(key)),
                control,
            }),
            Err(done) => {
                let _ = done.send(Err(ControlError::Store(StoreError::NotOpen)));
            }
        }
    }

    /// Makes a disk as long as its store is to become. Where there is no such disk, the machine answers for it.
    fn grow(&mut self, disk: DiskId, bytes: u64) -> Result<(), ControlError> {
        let Some(slot) = self
            .known
            .iter()
            .find(|known| known.id == disk)
            .map(|k| k.slot)
        else {
            return Ok(());
        };
        // A file does not become shorter again: first comes the question whether its store can follow.
        let follows = |(_, levels): (_, crate::store::Levels)| bytes <= levels.disk_bytes_max;
        if !self.machine.disk(slot).is_none_or(follows) {
            return Err(ControlError::Store(StoreError::BadSize));
        }
        self.disks.grow(slot, bytes).map_err(|error| {
            tracing::error!(%disk, bytes, %error, "a disk could not be made longer");
            ControlError::Store(StoreError::BadSize)
        })
    }
}
