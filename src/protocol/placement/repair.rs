//! Repairs what single moves could not: chains of moves that end at a disk with room (augmenting paths).
//!
//! Seen as a flow, each PG sends `copies` units through different domains into disks, and a disk takes as many as its target. Targets
//! can always be met (see `share`), so as long as a PG has a hole, or a disk excess, there is an augmenting path from it (Ford and Fulkerson,
//! 1956): the hole takes a disk that is full, which hands one of its PGs to the next, until one has room.
//!
//! A link that moves a replica which this plan made is *free*: nothing has been copied yet. The others each copy a replica, so the
//! path with the fewest of those is looked for: everything that free links reach, then one link that costs, and so on.
//! If two links of a path move one PG into the same domain, the first goes where the second went, and what is between them falls away.
//!
//! Invariants: those of the assignment, after each chain. It does not look at pairs.

use super::assignment::Assignment;

/// A link of a chain: `pg` comes to a disk, from another or out of a hole.
#[derive(Debug, Clone, Copy)]
struct Link {
    pg: u32,
    from: Option<u32>,
}

/// Which links are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cost {
    Free,
    Copy,
}

/// The disks that a search has reached, cheapest first.
struct Search {
    reached: Vec<Option<Link>>,
    queue: Vec<u32>,
    /// Domains that are not reached.
    domains: Vec<u32>,
    /// The disk with excess, if it began there.
    start: Option<u32>,
}

impl Assignment<'_> {
    /// Closes every hole of `pgs` and takes all excess away.
    pub fn repair(&mut self, pgs: &[u32]) {
        for &pg in pgs {
            while self.replicas[pg as usize].len() < self.copies() {
                let mut search = self.search(None);
                self.reach(&mut search, Link { pg, from: None });
                self.follow(search);
            }
        }
        for disk in 0..self.layout.disks.len() as u32 {
            while self.excess(disk) > 0 {
                let search = self.search(Some(disk));
                self.follow(search);
            }
        }
    }

    fn search(&self, start: Option<u32>) -> Search {
        Search {
            reached: vec![None; self.layout.disks.len()],
            queue: start.into_iter().collect(),
            domains: (0..self.layout.domains.len() as u32).collect(),
            start,
        }
    }

    /// Finds the cheapest disk with room, and moves along the way to it.
    fn follow(&mut self, mut search: Search) {
        let (mut looked_at, mut left) = (0, 0);
        loop {
            while let Some(&disk) = search.queue.get(looked_at) {
                if self.room.get(disk as usize) > 0 {
                    let chain = self.chain(&search, disk);
                    return self.walk(&chain);
                }
                self.expand(&mut search, disk, Cost::Free);
                looked_at += 1;
            }
            let reached = search.queue.len();
            assert!(left < reached, "targets can always be met");
            while left < reached {
                let disk = search.queue[left];
                self.expand(&mut search, disk, Cost::Copy);
                left += 1;
            }
        }
    }

    /// Adds all disks that one of the PGs on `disk` could move to at this cost.
    fn expand(&mut self, search: &mut Search, disk: u32, cost: Cost) {
        let layout = self.layout;
        let pgs = self.pgs_on(disk).to_vec();
        for pg in pgs {
            let is_free = !layout.present[pg as usize].has(disk);
            if search.domains.is_empty() {
                return;
            }
            if is_free == (cost == Cost::Free) {
                let from = Some(disk);
                self.reach(search, Link { pg, from });
            }
        }
    }

    /// Adds the disks that one link leads to: those of domains that the PG has no replica in.
    fn reach(&self, search: &mut Search, link: Link) {
        let all = self.replicas[link.pg as usize];
        let rest = link.from.map_or(all, |from| all.without(from));
        let Search {
            reached,
            queue,
            domains,
            start,
        } = search;
        domains.retain(|&domain| {
            let range = self.layout.domains[domain as usize].clone();
            if self.layout.has_domain(&rest, range.start as u32) {
                return true;
            }
            for disk in range.map(|disk| disk as u32) {
                // What takes nothing has no place in a chain.
                if self.targets[disk as usize] > 0 && *start != Some(disk) {
                    reached[disk as usize] = Some(link);
                    queue.push(disk);
                }
            }
            false
        });
    }

    /// The links to `end` with what each leads to, the last one first.
    fn chain(&self, search: &Search, end: u32) -> Vec<(Link, u32)> {
        let (mut chain, mut disk) = (Vec::<(Link, u32)>::new(), end);
        while let Some(link) = search.reached[disk as usize] {
            let domain = |disk: u32| self.layout.domain_of[disk as usize];
            let arrives =
                |&(later, to): &(Link, u32)| later.pg == link.pg && domain(to) == domain(disk);
            let to = match chain.iter().position(arrives) {
                Some(place) => {
                    let to = chain[place].1;
                    chain.truncate(place);
                    to
                }
                None => disk,
            };
            chain.push((link, to));
            match link.from {
                Some(from) => disk = from,
                None => break,
            }
        }
        chain
    }

    fn walk(&mut self, chain: &[(Link, u32)]) {
        for &(Link { pg, from }, _) in chain {
            if let Some(from) = from {
                self.take(pg, from);
            }
        }
        for &(Link { pg, .. }, to) in chain {
            self.add(pg, to);
        }
    }
}
