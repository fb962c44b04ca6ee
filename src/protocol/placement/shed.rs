//! Sheds excess: takes from disks that have more than their target, and gives to those that have room.
//!
//! Which PG leaves a disk is free, so a few are drawn, with a few disks for each to go to, and the move is taken
//! after which pairs are crowded least. Every move lowers the sum of excesses by one.
//!
//! Invariants: those of the assignment. Excess that no single move can shed stays for `repair`.

use super::assignment::Assignment;
use super::replicas::Replicas;

/// PGs that are compared for one move, and draws of a disk for each.
const PGS_COMPARED: usize = 4;
const DISKS_COMPARED: usize = 3;
/// Draws of a PG at most, of which many may have nowhere to go.
const DRAWS_MAX: usize = 16;

/// A move that was looked at: how much more crowded it is after it, and what it is.
type Candidate = (f64, u32, u32);

impl Assignment<'_> {
    /// Brings disks down to their targets, as far as single moves do that.
    pub fn shed(&mut self) {
        for disk in 0..self.layout.disks.len() as u32 {
            self.drop_another(disk);
            while self.excess(disk) > 0 {
                let Some((pg, to)) = self.good_move(disk) else {
                    break;
                };
                self.take(pg, disk);
                self.add(pg, to);
            }
            self.any_moves(disk);
        }
    }

    /// Where a PG had more replicas than it is to have, one of those that were to be dropped may stay instead of
    /// the one on `disk`: that copies nothing.
    fn drop_another(&mut self, disk: u32) {
        let layout = self.layout;
        if self.excess(disk) == 0 {
            return;
        }
        for pg in self.pgs_on(disk).to_vec() {
            let rest = self.replicas[pg as usize].without(disk);
            let mut dropped = layout.present[pg as usize].iter();
            let instead = dropped.find(|&other| {
                other != disk
                    && self.room.get(other as usize) > 0
                    && !layout.has_domain(&rest, other)
            });
            match instead {
                Some(to) if self.excess(disk) > 0 => {
                    self.take(pg, disk);
                    self.add(pg, to);
                }
                _ => {}
            }
        }
    }

    fn good_move(&mut self, disk: u32) -> Option<(u32, u32)> {
        let mut best: Option<Candidate> = None;
        let mut compared = 0;
        for _ in 0..DRAWS_MAX {
            let place = self.prng.below(self.list_len(disk) as u64) as usize;
            let Some(pg) = self.pg_on(disk, place) else {
                continue;
            };
            let rest = self.replicas[pg as usize].without(disk);
            let relief = self.pairs.relief(disk, &rest);
            let was = best;
            for _ in 0..DISKS_COMPARED {
                let to = self.room.draw(&mut self.prng)?;
                self.keep_calmer(&mut best, pg, to as u32, &rest, relief);
            }
            compared += usize::from(best != was);
            if compared == PGS_COMPARED {
                break;
            }
        }
        best.map(|(_, pg, to)| (pg, to))
    }

    fn keep_calmer(
        &self,
        best: &mut Option<Candidate>,
        pg: u32,
        to: u32,
        rest: &Replicas,
        relief: f64,
    ) {
        if self.layout.has_domain(rest, to) {
            return;
        }
        let growth = self.pairs.crowd(to, rest) - relief;
        if best.is_none_or(|(least, ..)| growth < least) {
            *best = Some((growth, pg, to));
        }
    }

    /// Looks at every PG of the disk and every domain with room. Once is enough: room only shrinks.
    fn any_moves(&mut self, disk: u32) {
        if self.excess(disk) == 0 {
            return;
        }
        let mut roomy = self.roomy_domains();
        for pg in self.pgs_on(disk).to_vec() {
            if self.excess(disk) == 0 {
                return;
            }
            if let Some(to) = self.roomy_disk_for(pg, disk, &mut roomy) {
                self.take(pg, disk);
                self.add(pg, to);
            }
        }
    }
}
