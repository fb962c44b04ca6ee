//! Fills holes: gives each PG that has too few replicas the missing ones.
//!
//! PG by PG. First the *tight* domains: one that has as much room as there are PGs left must be in each of them,
//! or its room is never used up; there are at most `copies` of those. Where all PGs begin empty this alone makes
//! every target come out exactly (the greedy proof of the wrap-around rule). The other replicas are drawn by
//! room, some at a time, and of these the one is taken that crowds its pairs least ("the power of two choices":
//! the best of a few draws is nearly as even as the best of all, Mitzenmacher 2001).
//!
//! Invariants: the domain rule, and no disk above its target. A hole for which no disk with room is left in
//! another domain stays for `repair`.

use super::assignment::Assignment;
use super::replicas::Replicas;
use std::collections::BinaryHeap;

/// Draws that are compared for one replica.
const CHOICES: usize = 6;
/// Draws at most, of which many may be in a domain that the PG has already.
const DRAWS_MAX: usize = 24;

impl Assignment<'_> {
    /// Fills the holes of `pgs`, as far as that goes without moving anything.
    pub fn fill(&mut self, pgs: &[u32]) {
        let rooms = self.room_of_domain.iter().zip(0u32..);
        let mut tight = rooms
            .map(|(&room, domain)| (room, domain))
            .collect::<BinaryHeap<(u64, u32)>>();
        let mut taken = Vec::new();
        for (done, &pg) in pgs.iter().enumerate() {
            let left = (pgs.len() - done) as u64;
            while let Some(domain) = self.pop_tight(&mut tight, left) {
                taken.push(domain);
                self.place_in_domain(pg, domain);
            }
            for domain in taken.drain(..) {
                tight.push((self.room_of_domain[domain as usize], domain));
            }
            while self.replicas[pg as usize].len() < self.copies() {
                let Some(disk) = self.roomy_disk(pg) else {
                    break;
                };
                self.add(pg, disk);
            }
        }
    }

    /// The next domain with room for at least `left` replicas. Entries of the heap may be too high: room only
    /// shrinks.
    fn pop_tight(&self, tight: &mut BinaryHeap<(u64, u32)>, left: u64) -> Option<u32> {
        loop {
            let (noted, domain) = tight.peek().copied()?;
            if noted < left {
                return None;
            }
            tight.pop();
            let room = self.room_of_domain[domain as usize];
            if room >= left {
                return Some(domain);
            }
            tight.push((room, domain));
        }
    }

    fn place_in_domain(&mut self, pg: u32, domain: u32) {
        let replicas = self.replicas[pg as usize];
        let range = self.layout.domains[domain as usize].clone();
        let is_full = replicas.len() == self.copies();
        if is_full || self.layout.has_domain(&replicas, range.start as u32) {
            return;
        }
        let draws = match range.len() {
            1 => 1,
            _ => CHOICES,
        };
        let mut best = None;
        for _ in 0..draws {
            let drawn = self.room.draw_in(&range, &mut self.prng);
            self.keep_better(&mut best, drawn, &replicas);
        }
        if let Some((_, disk)) = best {
            self.add(pg, disk);
        }
    }

    /// A disk with room for a replica of `pg`: the least crowded of some draws.
    fn roomy_disk(&mut self, pg: u32) -> Option<u32> {
        let replicas = self.replicas[pg as usize];
        // The first replica has no pair: one draw is as good as many.
        let choices = match replicas.len() {
            0 => 1,
            _ => CHOICES,
        };
        let (mut best, mut seen) = (None, 0);
        for _ in 0..DRAWS_MAX {
            let disk = self.room.draw(&mut self.prng)?;
            if !self.layout.has_domain(&replicas, disk as u32) {
                self.keep_better(&mut best, Some(disk), &replicas);
                seen += 1;
                if seen == choices {
                    break;
                }
            }
        }
        match best {
            Some((_, disk)) => Some(disk),
            None => self.any_roomy_disk(&replicas),
        }
    }

    /// Looks into every domain, which draws by room may miss.
    fn any_roomy_disk(&mut self, replicas: &Replicas) -> Option<u32> {
        let rooms = self.room_of_domain.iter();
        let first_disk = |domain: usize| self.layout.domains[domain].start as u32;
        let domain = rooms
            .enumerate()
            .filter(|&(_, &room)| room > 0)
            .map(|(domain, _)| domain)
            .find(|&domain| !self.layout.has_domain(replicas, first_disk(domain)))?;
        let range = self.layout.domains[domain].clone();
        let disk = self.room.draw_in(&range, &mut self.prng);
        disk.map(|disk| disk as u32)
    }

    fn keep_better(
        &self,
        best: &mut Option<(f64, u32)>,
        drawn: Option<usize>,
        replicas: &Replicas,
    ) {
        let Some(disk) = drawn.map(|disk| disk as u32) else {
            return;
        };
        let crowd = self.pairs.crowd(disk, replicas);
        if best.is_none_or(|(least, _)| crowd < least) {
            *best = Some((crowd, disk));
        }
    }
}
