//! Repairs what single moves could not: chains of moves that end at a disk with room (augmenting paths).
//!
//! Seen as a flow, each PG sends `copies` units through different domains into disks, and a disk takes as many
//! as its target. Targets can always be met (see `share`), so as long as a PG has a hole, or a disk excess,
//! there is an augmenting path from it (Ford and Fulkerson, 1956): the hole takes a disk that is full, which
//! hands one of its PGs to the next, until one has room.
//!
//! A link that moves a replica which this plan made is *free*: nothing has been copied yet. The others each copy
//! a replica, so the path with the fewest of those is looked for: everything that free links reach, then one
//! link that costs, and so on. Which PGs could go straight to a domain with room is noted by disk before, so
//! that a search ends as soon as it reaches one of their disks: without it, a rack of 2,500 disks that comes to
//! hold a replica of each of 100,000 PGs took 10 s. If two links of a path move one PG into the same domain, the
//! first goes where the second went, and what is between them falls away.
//!
//! Invariants: those of the assignment, after each chain. It does not look at pairs.

use super::assignment::Assignment;

/// A link of a chain: `pg` comes to a disk, from another or out of a hole.
#[derive(Debug, Clone, Copy)]
struct Link {
    pg: u32,
    from: Option<u32>,
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

/// Where chains may end.
struct Ends {
    /// The domains with room, and some that had it: room only shrinks.
    roomy: Vec<u32>,
    /// Of each disk, PGs that could move to one of them, and some that no longer can.
    pgs: Vec<Vec<u32>>,
}

impl Assignment<'_> {
    /// Closes every hole of `pgs` and takes all excess away.
    pub fn repair(&mut self, pgs: &[u32]) {
        let copies = self.copies();
        let has_hole = |pg: &&u32| self.replicas[**pg as usize].len() < copies;
        let holes = pgs.iter().filter(has_hole).copied();
        let holes = holes.collect::<Vec<u32>>();
        let disks = 0..self.layout.disks.len() as u32;
        let over = disks.filter(|&disk| self.excess(disk) > 0);
        let over = over.collect::<Vec<u32>>();
        if holes.is_empty() && over.is_empty() {
            return;
        }
        let mut ends = self.ends();
        for pg in holes {
            while self.replicas[pg as usize].len() < copies {
                let mut search = self.search(None);
                self.reach(&mut search, Link { pg, from: None });
                self.follow(search, &mut ends);
            }
        }
        for disk in over {
            while self.excess(disk) > 0 {
                let search = self.search(Some(disk));
                self.follow(search, &mut ends);
            }
        }
    }

    fn ends(&mut self) -> Ends {
        let mut roomy = self.roomy_domains();
        let mut pgs = vec![Vec::new(); self.layout.disks.len()];
        for pg in 0..self.replicas.len() as u32 {
            for disk in self.replicas[pg as usize].iter().collect::<Vec<u32>>() {
                if self.roomy_disk_for(pg, disk, &mut roomy).is_some() {
                    pgs[disk as usize].push(pg);
                }
            }
        }
        Ends { roomy, pgs }
    }

    fn search(&self, start: Option<u32>) -> Search {
        Search {
            reached: vec![None; self.layout.disks.len()],
            queue: start.into_iter().collect(),
            domains: (0..self.layout.domains.len() as u32).collect(),
            start,
        }
    }

    /// Finds the cheapest way to a disk with room, and moves along it.
    fn follow(&mut self, mut search: Search, ends: &mut Ends) {
        let (mut looked_at, mut left) = (0, 0);
        loop {
            while let Some(&disk) = search.queue.get(looked_at) {
                if self.room.get(disk as usize) > 0 {
                    return self.walk(&search, disk);
                }
                for pg in self.fresh_on(disk).to_vec() {
                    let from = Some(disk);
                    self.reach(&mut search, Link { pg, from });
                }
                looked_at += 1;
            }
            let reached = search.queue.len();
            assert!(left < reached, "targets-can-be-met: a chain always ends");
            for at in left..reached {
                let disk = search.queue[at];
                if let Some((pg, end)) = self.end_from(disk, ends) {
                    let from = Some(disk);
                    search.reached[end as usize] = Some(Link { pg, from });
                    return self.walk(&search, end);
                }
            }
            for at in left..reached {
                let disk = search.queue[at];
                self.expand(&mut search, disk);
            }
            left = reached;
        }
    }

    /// Adds all disks that one of the PGs on `disk` could move to.
    fn expand(&self, search: &mut Search, disk: u32) {
        let from = Some(disk);
        for place in 0..self.list_len(disk) {
            if search.domains.is_empty() {
                return;
            }
            if let Some(pg) = self.pg_on(disk, place) {
                self.reach(search, Link { pg, from });
            }
        }
    }

    /// A PG on `disk` that can go straight to a disk with room, by what was noted.
    fn end_from(&mut self, disk: u32, ends: &mut Ends) -> Option<(u32, u32)> {
        let noted = &mut ends.pgs[disk as usize];
        while let Some(&pg) = noted.last() {
            if self.replicas[pg as usize].has(disk) {
                let end = self.roomy_disk_for(pg, disk, &mut ends.roomy);
                if let Some(end) = end {
                    return Some((pg, end));
                }
            }
            noted.pop();
        }
        None
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

    /// Moves along the chain that ends at `end`.
    fn walk(&mut self, search: &Search, end: u32) {
        let chain = self.chain(search, end);
        for &(Link { pg, from }, _) in &chain {
            if let Some(from) = from {
                self.take(pg, from);
            }
        }
        for &(Link { pg, .. }, to) in &chain {
            self.add(pg, to);
        }
    }
}
