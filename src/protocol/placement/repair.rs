//! Repairs what single moves could not: chains of moves that end at a disk with room (augmenting paths).
//!
//! Seen as a flow, each PG sends `copies` units through different domains into disks, and a disk takes as many as its target. Targets
//! can always be met (see `share`), so as long as a PG has a hole, or a disk excess, there is an augmenting path from it (Ford and Fulkerson,
//! 1956): the hole takes a disk that is full, which hands one of its PGs to the next, until one has room. The
//! shortest path is looked for, because each link is a move. On a shortest path no PG can spoil the other's rule: if
//! two links moved one PG into the same domain, the first could have gone where the second went.
//!
//! Invariants: those of the assignment, after each chain. It does not look at pairs.

use super::assignment::Assignment;

/// A link of a chain: `pg` comes to a disk, from another or out of a hole.
#[derive(Debug, Clone, Copy)]
struct Link {
    pg: u32,
    from: Option<u32>,
}

/// The disks that a search has reached.
struct Search {
    reached: Vec<Option<Link>>,
    queue: Vec<u32>,
    /// Domains that are not reached.
    domains: Vec<u32>,
    /// The disk with excess, if it began there: a chain that came back to it would have no beginning.
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
                let mut search = self.search(Some(disk));
                self.expand(&mut search, disk);
                self.follow(search);
            }
        }
    }

    fn search(&self, start: Option<u32>) -> Search {
        Search {
            reached: vec![None; self.layout.disks.len()],
            queue: Vec::new(),
            domains: (0..self.layout.domains.len() as u32).collect(),
            start,
        }
    }

    /// Finds the nearest disk with room, and moves along the way to it.
    fn follow(&mut self, mut search: Search) {
        let mut next = 0;
        loop {
            assert!(next < search.queue.len(), "targets can always be met");
            let disk = search.queue[next];
            if self.room.get(disk as usize) > 0 {
                return self.walk(&search, disk);
            }
            self.expand(&mut search, disk);
            next += 1;
        }
    }

    /// Adds all disks that one of the PGs on `disk` could move to.
    fn expand(&mut self, search: &mut Search, disk: u32) {
        let pgs = self.pgs_on(disk).to_vec();
        let from = Some(disk);
        for pg in pgs {
            if search.domains.is_empty() {
                return;
            }
            self.reach(search, Link { pg, from });
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

    /// Moves along the chain that ends at `disk`, beginning with its end.
    fn walk(&mut self, search: &Search, mut disk: u32) {
        let mut links = Vec::new();
        while let Some(link) = search.reached[disk as usize] {
            links.push((link, disk));
            match link.from {
                Some(from) => disk = from,
                None => break,
            }
        }
        for &(Link { pg, from }, _) in &links {
            if let Some(from) = from {
                self.take(pg, from);
            }
        }
        for &(Link { pg, .. }, to) in &links {
            self.add(pg, to);
        }
    }
}
