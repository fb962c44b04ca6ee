//! What a shard does with what other shards tell it, and how it shares clients and payload memory with them.
//!
//! Payload memory is one for all shards, and each keeps some at hand. Who finds none says so to all: they give back what
//! they keep, and what they free from then on, and each time that one has freed something the shards that wait look for
//! memory one after another, those behind it first. So memory is taken in turns, and none is lost in the
//! keeping of a shard that sleeps. While others wait, a shard that did not wait before joins them rather than
//! passing them.

use super::core_loop::Core;
use super::desk::Desk;
use super::machine::Machine;
use super::post::Letter;
use crate::base::BufId;
use crate::shard::ShardNo;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

/// Letters that are read in one turn, so that completions are not kept waiting.
const AT_ONCE: usize = 1024;

impl<M: Machine> Core<M> {
    /// Reads what other shards have written.
    pub fn read_letters(&mut self) {
        if !self.desk.has_others() {
            return;
        }
        let mut read = 0;
        while let Some(letter) = self.mailbox.take_letter() {
            self.open_letter(letter);
            read += 1;
            if read == AT_ONCE {
                break; // the rest keeps this shard from sleeping
            }
        }
        if read == 0 {
            return;
        }
        let mut waiting = self.mailbox.crowded_out();
        while waiting != 0 {
            self.desk.shared.lines[waiting.trailing_zeros() as usize]
                .postbox
                .ring();
            waiting &= waiting - 1;
        }
    }

    fn open_letter(&mut self, letter: Letter) {
        match letter {
            Letter::Ask { part, request } => {
                self.shard_stats.count_foreign();
                if let Err(error) = self.desk.take_part(part, request) {
                    self.answer_part(part, Err(error), Vec::new());
                }
            }
            Letter::Answer { part, result, map } => self.answer_part(part, result, map),
            Letter::Client(socket) => self.clients.welcome(socket, &mut self.desk),
            Letter::Frame {
                from,
                to,
                disk,
                frame,
                payload,
            } => self.open_frame((from, to), disk, (frame, payload)),
            Letter::Hungry => {
                self.desk.buffers.give_all_back();
                self.desk.begin_round();
            }
            Letter::Memory { left } => {
                self.desk.memory_freed = true;
                self.desk.look_after = self.desk.look_after.max(left + 1);
            }
        }
    }

    /// Gives a new client to the next shard in turn.
    pub fn spread(&mut self, socket: OwnedFd) {
        let home = ShardNo(self.next_home);
        self.next_home = (self.next_home + 1) % self.desk.shared.lines.len() as u16;
        if home == self.desk.me {
            self.clients.welcome(socket, &mut self.desk);
        } else {
            self.desk.trays.put(home, Letter::Client(socket));
        }
    }

    /// Lets go on what waits for payload memory, here or on other shards, where some was freed.
    pub fn share_memory(&mut self) {
        let desk = &mut self.desk;
        if desk.memory_freed {
            let visited = desk.look_after > 0;
            if !visited && desk.others_are_hungry() {
                desk.memory_freed = false;
                desk.buffers.give_all_back();
                desk.begin_round();
            }
            if self.desk.memory_freed {
                self.feed();
                self.desk.go_on_with_round();
            }
        }
        if self.desk.hungry && !self.is_hungry() {
            self.desk.is_fed();
        }
    }

    /// Whether memory was freed in this turn that somebody waits for.
    pub fn memory_is_awaited(&self) -> bool {
        self.desk.memory_freed && (self.is_hungry() || self.desk.others_are_hungry())
    }

    fn is_hungry(&self) -> bool {
        let load = self.load.as_ref().is_some_and(|load| load.is_hungry());
        let fronts =
            self.clients.is_hungry() || self.guests.is_hungry() || self.devices.is_hungry();
        load || fronts || self.asks.is_hungry()
    }
}

impl Desk {
    fn bit(&self) -> u64 {
        1 << self.me.0
    }

    /// A buffer of so many blocks. Where there is none now, whoever asks waits until it is fed.
    pub fn allocate(&mut self, blocks: u32) -> Option<BufId> {
        if !self.has_others() {
            return self.buffers.allocate(blocks);
        }
        let mine = self.hungry || !self.others_are_hungry();
        let found = mine.then(|| self.buffers.allocate(blocks)).flatten();
        if found.is_none() && !self.hungry && blocks <= self.buffers.largest() {
            self.hungry = true;
            let bit = self.bit();
            self.shared.hunger.fetch_or(bit, Ordering::SeqCst);
            self.trays.put_for_all(|| Letter::Hungry);
        }
        found
    }

    pub fn others_are_hungry(&self) -> bool {
        self.has_others() && self.shared.hunger.load(Ordering::Relaxed) & !self.bit() != 0
    }

    fn is_fed(&mut self) {
        self.hungry = false;
        self.shared.hunger.fetch_and(!self.bit(), Ordering::SeqCst);
    }

    /// Has the shards that wait for memory look for it: each once, this one last.
    fn begin_round(&mut self) {
        let waiting = self.shared.hunger.load(Ordering::SeqCst).count_ones() as u8;
        self.pass_on(waiting);
    }

    fn go_on_with_round(&mut self) {
        if self.others_are_hungry() {
            self.buffers.give_all_back();
        }
        let left = std::mem::take(&mut self.look_after);
        self.pass_on(left.saturating_sub(1));
    }

    /// Has the next shard that waits for memory look for it, and so many in all.
    fn pass_on(&mut self, count: u8) {
        if count == 0 {
            return;
        }
        let waiting = self.shared.hunger.load(Ordering::Relaxed);
        let after = waiting & !(u64::MAX >> (63 - self.me.0));
        let next = if after != 0 { after } else { waiting };
        match next.trailing_zeros() {
            64 => {}
            next if next == u32::from(self.me.0) => self.memory_freed = true,
            next => {
                let left = count - 1;
                self.trays
                    .put(ShardNo(next as u16), Letter::Memory { left });
            }
        }
    }
}
