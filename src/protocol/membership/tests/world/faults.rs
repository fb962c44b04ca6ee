//! What happens to the world: elections, faults, healing, and the work that leases are for.

use super::super::super::*;
use super::{Event, HEAL, MS, To, US, World, member_id};
use crate::base::NodeId;

impl World {
    pub(super) fn elect(&mut self) {
        let count = self.members.len();
        let is_up = |i: &usize| {
            let member = &self.members[*i];
            member.dead_until <= self.now && member.alone_until <= self.now
        };
        let mut up: Vec<usize> = (0..count).filter(is_up).collect();
        if up.len() < count / 2 + 1 {
            return self.push(self.now + 20 * MS, Event::Elect);
        }
        // Who votes is any majority; who did not hears of it later.
        let winner = up.remove(self.prng.below(up.len() as u64) as usize);
        self.tally.elections += 1;
        self.term += 1;
        let term = self.term;
        let mut votes = 1;
        self.members[winner].voted = term;
        while votes < count / 2 + 1 {
            let voter = up.remove(self.prng.below(up.len() as u64) as usize);
            self.members[voter].voted = term;
            votes += 1;
            self.push(
                self.now,
                Event::Follow(voter, term, Some(member_id(winner))),
            );
        }
        let late = if self.knobs.calm { MS } else { 300 * MS };
        let is_follower = |i: &usize| *i != winner && self.members[*i].voted < term;
        for other in (0..count).filter(is_follower).collect::<Vec<_>>() {
            let at = self.now + self.prng.below(late);
            self.push(at, Event::Follow(other, term, Some(member_id(winner))));
        }
        self.push(self.now, Event::Lead(winner, term));
        if self.knobs.elections && !self.is_healed {
            let at = self.now + self.prng.between(450 * MS, 1_200 * MS);
            self.depose(winner, at);
        }
    }

    /// What becomes of a leader: it dies or is cut off, and the next is elected after a while.
    fn depose(&mut self, leader: usize, at: u64) {
        let gap = self.prng.between(self.knobs.gap.0, self.knobs.gap.1);
        let elected = at + gap;
        if elected >= HEAL {
            return;
        }
        let back = elected + self.prng.below(400 * MS);
        let event = match self.knobs.calm || self.prng.one_in(2) {
            true => Event::Die(leader, back),
            false => Event::CutOff(leader, back),
        };
        self.push(at, event);
        self.push(elected, Event::Elect);
    }

    pub(super) fn fault(&mut self) {
        if self.is_healed {
            return;
        }
        let i = self.prng.below(self.processes.len() as u64) as usize;
        let until = self.now + self.prng.between(50 * MS, 900 * MS);
        let process = &mut self.processes[i];
        let node = process.node;
        match self.prng.below(6) {
            0 => process.stopped_until = until,
            1 => process.sends_from = until,
            2 => process.hears_from = until,
            3 if !process.is_old && process.is_running => {
                // Killed; or only stopped, and a later start comes beside it.
                match self.prng.one_in(2) {
                    true => process.is_running = false,
                    false => process.stopped_until = until,
                }
                self.restart_soon(node);
            }
            4 if process.is_running && process.stopped_until <= self.now && !process.is_old => {
                self.with_holder(i, |holder, now, out| {
                    holder.step(now, HolderInput::Stop, out);
                });
                self.restart_soon(node);
            }
            _ => (process.sends_from, process.hears_from) = (until, until),
        }
        let next = self.now + self.prng.between(MS, self.knobs.faults);
        self.push(next, Event::Fault);
    }

    fn restart_soon(&mut self, node: NodeId) {
        self.tally.restarts += 1;
        // So that nobody starts twice beside the one who waits.
        for process in self.processes.iter_mut().filter(|p| p.node == node) {
            process.is_old = true;
        }
        let at = self.now + self.prng.below(500 * MS);
        self.push(at, Event::Restart(node));
    }

    pub(super) fn heal(&mut self) {
        if !self.knobs.heals {
            return;
        }
        self.is_healed = true;
        for process in &mut self.processes {
            (process.sends_from, process.hears_from) = (0, 0);
            process.stopped_until = process.stopped_until.min(self.now);
        }
        for i in 0..self.processes.len() {
            self.wake_later(To::Process(i));
        }
        for member in &mut self.members {
            (member.alone_until, member.dead_until) = (0, 0);
        }
        if !self.knobs.calm {
            self.elect();
        }
    }

    /// Work comes, is admitted under a lease, and takes its time.
    pub(super) fn admit(&mut self, i: usize) {
        let process = &self.processes[i];
        if !process.is_running || process.holder.lease().is_none() && process.is_old {
            return;
        }
        let next = self.now + self.prng.between(5 * MS, 40 * MS);
        self.push(next, Event::Admit(i));
        let process = &self.processes[i];
        let serves = process.stopped_until <= self.now
            && process.holder.is_valid(process.clock.at(self.now));
        if let Some(lease) = process.holder.lease().filter(|_| serves) {
            let work = self.prng.between(100 * US, 30 * MS);
            self.push(self.now + work, Event::Reply(i, lease));
        }
    }

    /// The value is in hand.
    pub(super) fn reply(&mut self, i: usize, lease: LeaseNumber) {
        let process = &self.processes[i];
        if !process.is_running {
            return;
        }
        if process.stopped_until > self.now {
            let until = process.stopped_until;
            return self.push(until, Event::Reply(i, lease));
        }
        let is_mine = process.holder.lease() == Some(lease);
        let may = is_mine && process.holder.is_valid(process.clock.at(self.now));
        if !self.knobs.off.on(Rule::CheckInHand) && !may {
            return;
        }
        self.tally.replies += 1;
        if self.is_expired(i, lease) && self.knobs.bad_clock.is_none() {
            let node = process.node;
            self.fail(format!(
                "never-two: node {node} replied under {lease:?}, which had expired"
            ));
        }
    }
}
