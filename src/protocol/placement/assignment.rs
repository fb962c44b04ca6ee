//! The map under work: who has what, how much room each disk has up to its target, and the moves that change it.
//!
//! Invariants: `load` counts `replicas`; `room` of a disk is what its target leaves open, 0 at or above it; a
//! PG has no two replicas in one domain, and no more than `copies`. It does not choose.

use super::layout::Layout;
use super::pairs::Pairs;
use super::replicas::Replicas;
use super::share::Share;
use super::weighted::Weighted;
use crate::base::Prng;

/// Replicas and room.
#[derive(Debug)]
pub(super) struct Assignment<'a> {
    pub layout: &'a Layout,
    pub replicas: Vec<Replicas>,
    pub load: Vec<u32>,
    pub targets: Vec<u32>,
    /// What each disk still takes, to be drawn from.
    pub room: Weighted,
    pub room_of_domain: Vec<u64>,
    pub pairs: Pairs,
    /// The PGs of each disk, and some that have left it since: look before use.
    holders: Vec<Vec<u32>>,
    /// Of those, the ones that this plan put there: to move them on copies nothing more.
    fresh: Vec<Vec<u32>>,
    pub prng: Prng,
}

impl<'a> Assignment<'a> {
    /// `kept` are replicas that may stay, `targets` what each disk is to have.
    pub fn new(
        layout: &'a Layout,
        shares: &[Share],
        kept: Vec<Replicas>,
        targets: Vec<u32>,
    ) -> Assignment<'a> {
        let mut holders = vec![Vec::new(); layout.disks.len()];
        let mut pairs = Pairs::new(layout, shares);
        let mut load = vec![0u32; layout.disks.len()];
        for (pg, replicas) in kept.iter().enumerate() {
            let mut before = Replicas::default();
            for disk in replicas.iter() {
                holders[disk as usize].push(pg as u32);
                pairs.add(disk, &before);
                load[disk as usize] += 1;
                before.add(disk);
            }
        }
        let mut assignment = Assignment {
            layout,
            replicas: kept,
            load,
            targets: Vec::new(),
            room: Weighted::new(Vec::new()),
            room_of_domain: Vec::new(),
            pairs,
            holders,
            fresh: vec![Vec::new(); layout.disks.len()],
            // Drawn numbers only break ties between equal choices; the same question has the same answer.
            prng: Prng::new(0x5a45_0000 + layout.pgs.len() as u64),
        };
        assignment.aim(targets);
        assignment
    }

    /// Gives every disk a new target.
    pub fn aim(&mut self, targets: Vec<u32>) {
        let room = targets.iter().zip(&self.load);
        let room = room.map(|(&target, &load)| target.saturating_sub(load));
        let room = room.collect::<Vec<u32>>();
        self.room_of_domain = vec![0; self.layout.domains.len()];
        for (at, &room) in room.iter().enumerate() {
            self.room_of_domain[self.layout.domain_of[at] as usize] += u64::from(room);
        }
        self.room = Weighted::new(room);
        self.targets = targets;
    }

    pub fn copies(&self) -> usize {
        self.layout.copies()
    }

    /// How many replicas a disk has above its target.
    pub fn excess(&self, disk: u32) -> u32 {
        let at = disk as usize;
        self.load[at].saturating_sub(self.targets[at])
    }

    /// The PGs that have a replica on a disk.
    pub fn pgs_on(&mut self, disk: u32) -> &[u32] {
        let Assignment {
            holders, replicas, ..
        } = self;
        let of = &mut holders[disk as usize];
        of.retain(|&pg| replicas[pg as usize].has(disk));
        of
    }

    /// Those of them that this plan put there.
    pub fn fresh_on(&mut self, disk: u32) -> &[u32] {
        let Assignment {
            fresh, replicas, ..
        } = self;
        let of = &mut fresh[disk as usize];
        of.retain(|&pg| replicas[pg as usize].has(disk));
        of
    }

    /// The domains that have room.
    pub fn roomy_domains(&self) -> Vec<u32> {
        let rooms = self.room_of_domain.iter().zip(0u32..);
        let roomy = rooms.filter(|&(&room, _)| room > 0);
        roomy.map(|(_, domain)| domain).collect()
    }

    /// A disk with room in one of the domains `roomy`, for the replica of `pg` on `disk`. Of the list, those
    /// that have no room any more are taken off.
    pub fn roomy_disk_for(&mut self, pg: u32, disk: u32, roomy: &mut Vec<u32>) -> Option<u32> {
        let rest = self.replicas[pg as usize].without(disk);
        let mut place = 0;
        // A PG is in few domains, so this looks at few of them.
        while let Some(&domain) = roomy.get(place) {
            let range = self.layout.domains[domain as usize].clone();
            if self.room_of_domain[domain as usize] == 0 {
                roomy.swap_remove(place);
            } else if self.layout.has_domain(&rest, range.start as u32) {
                place += 1;
            } else {
                let to = self.room.draw_in(&range, &mut self.prng);
                return to.map(|to| to as u32);
            }
        }
        None
    }

    /// How many entries the list has that [`Assignment::pg_on`] looks into.
    pub fn list_len(&self, disk: u32) -> usize {
        self.holders[disk as usize].len()
    }

    /// The PG at a place of a disk's list, if it is still there.
    pub fn pg_on(&self, disk: u32, place: usize) -> Option<u32> {
        let pg = self.holders[disk as usize][place];
        self.replicas[pg as usize].has(disk).then_some(pg)
    }

    pub fn add(&mut self, pg: u32, disk: u32) {
        let replicas = &mut self.replicas[pg as usize];
        assert!(
            !self.layout.has_domain(replicas, disk) && replicas.len() < self.layout.copies(),
            "one-replica-a-domain: a PG has at most one in each, and no more than copies"
        );
        self.pairs.add(disk, replicas);
        replicas.add(disk);
        self.load[disk as usize] += 1;
        self.holders[disk as usize].push(pg);
        if !self.layout.present[pg as usize].has(disk) {
            self.fresh[disk as usize].push(pg);
        }
        self.update_room(disk);
    }

    pub fn take(&mut self, pg: u32, disk: u32) {
        let replicas = &mut self.replicas[pg as usize];
        *replicas = replicas.without(disk);
        self.pairs.remove(disk, replicas);
        self.load[disk as usize] -= 1;
        self.update_room(disk);
    }

    fn update_room(&mut self, disk: u32) {
        let at = disk as usize;
        let (old, new) = (
            self.room.get(at),
            self.targets[at].saturating_sub(self.load[at]),
        );
        if old != new {
            let domain = self.layout.domain_of[at] as usize;
            self.room.set(at, new);
            self.room_of_domain[domain] =
                self.room_of_domain[domain] + u64::from(new) - u64::from(old);
        }
    }
}
