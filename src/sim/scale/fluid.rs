//! Copies of replicas as flows: each takes what its disks and links have left, shared fairly (max-min).
//!
//! A copy reads at one disk, goes out of its node, into another, and writes at a disk there; inside one node it uses no link. What a disk gives counts
//! reads and writes together, and so does a link. It does not know why something is copied.

use crate::base::{DiskId, NodeId, PgId};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a rebuild may take, in bytes a second.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub disk: f64,
    pub node: f64,
}

impl Limits {
    /// 200 MB/s of a disk, beside guests; 1 GB/s of a node's link of 25 Gbit/s.
    pub const DEFAULT: Limits = Limits {
        disk: 200e6,
        node: 1e9,
    };
}

/// A disk and its node.
pub type Place = (DiskId, NodeId);

#[derive(Debug, Clone, Copy)]
struct Copy {
    session: u32,
    from: Place,
    to: Place,
    left: f64,
    /// In bytes a second.
    rate: f64,
}

/// A copy that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    pub pg: PgId,
    pub disk: DiskId,
    pub session: u32,
}

/// What is being copied, and what was.
pub struct Copies {
    limits: Limits,
    under_way: BTreeMap<(PgId, DiskId), Copy>,
    is_stale: bool,
    /// Bytes read and written at each disk.
    pub at_disks: BTreeMap<DiskId, f64>,
    pub most_at_once: usize,
    pub copied: u64,
}

impl Copies {
    pub fn new(limits: Limits) -> Copies {
        Copies {
            limits,
            under_way: BTreeMap::new(),
            is_stale: false,
            at_disks: BTreeMap::new(),
            most_at_once: 0,
            copied: 0,
        }
    }

    /// The session that a replica is being filled in.
    pub fn session(&self, pg: PgId, disk: DiskId) -> Option<u32> {
        self.under_way.get(&(pg, disk)).map(|copy| copy.session)
    }

    pub fn begin(&mut self, pg: PgId, session: u32, from: Place, to: Place, bytes: f64) {
        let copy = Copy {
            session,
            from,
            to,
            left: bytes,
            rate: 0.0,
        };
        self.under_way.insert((pg, to.0), copy);
        self.most_at_once = self.most_at_once.max(self.under_way.len());
        self.is_stale = true;
    }

    /// Until the next one is done, if nothing else happens; rounded up to a microsecond.
    pub fn next(&mut self) -> Option<Duration> {
        self.share_out();
        let left = self.under_way.values().map(|copy| copy.left / copy.rate);
        let first = left.min_by(f64::total_cmp)?;
        Some(Duration::from_micros((first * 1e6).ceil() as u64))
    }

    /// Time goes on; says which are done.
    pub fn pass(&mut self, time: Duration) -> Vec<Done> {
        self.share_out();
        let mut done = Vec::new();
        for (&(pg, disk), copy) in &mut self.under_way {
            let bytes = (copy.rate * time.as_secs_f64()).min(copy.left);
            copy.left -= bytes;
            for place in [copy.from, copy.to] {
                *self.at_disks.entry(place.0).or_default() += bytes;
            }
            if copy.left < 1.0 {
                let session = copy.session;
                done.push(Done { pg, disk, session });
            }
        }
        for Done { pg, disk, .. } in &done {
            self.under_way.remove(&(*pg, *disk));
            self.copied += 1;
            self.is_stale = true;
        }
        done
    }

    /// Max-min fairness by filling: what is tightest is shared out first, and who uses it is done.
    fn share_out(&mut self) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        let mut numbers: BTreeMap<(u8, u32), usize> = BTreeMap::new();
        let (mut room, mut users): (Vec<f64>, Vec<Vec<usize>>) = (Vec::new(), Vec::new());
        let mut uses: Vec<Vec<usize>> = Vec::new();
        for (at, copy) in self.under_way.values().enumerate() {
            let (from, to) = (copy.from, copy.to);
            let disks = [(0, from.0.0), (0, to.0.0)];
            let links = [(1, from.1.0), (1, to.1.0)];
            let links = links.into_iter().filter(|_| from.1 != to.1);
            let mut own = Vec::with_capacity(4);
            for key in disks.into_iter().chain(links) {
                let number = *numbers.entry(key).or_insert_with(|| {
                    room.push(match key.0 {
                        0 => self.limits.disk,
                        _ => self.limits.node,
                    });
                    users.push(Vec::new());
                    room.len() - 1
                });
                users[number].push(at);
                own.push(number);
            }
            uses.push(own);
        }
        let mut rates = vec![None; uses.len()];
        let mut open: Vec<usize> = users.iter().map(Vec::len).collect();
        let mut tightest: std::collections::BTreeSet<(u64, usize)> = (0..room.len())
            .map(|number| (key_of(room[number], open[number]), number))
            .collect();
        while let Some((_, number)) = tightest.pop_first() {
            let share = room[number] / open[number] as f64;
            for &at in &users[number] {
                if rates[at].is_some() {
                    continue;
                }
                rates[at] = Some(share);
                for &other in uses[at].iter().filter(|other| **other != number) {
                    // A resource that has no open user left is not in the set any more.
                    tightest.remove(&(key_of(room[other], open[other]), other));
                    room[other] = (room[other] - share).max(0.0);
                    open[other] -= 1;
                    if open[other] > 0 {
                        tightest.insert((key_of(room[other], open[other]), other));
                    }
                }
            }
        }
        for (copy, rate) in self.under_way.values_mut().zip(rates) {
            copy.rate = rate.unwrap_or(0.0);
        }
    }
}

/// What one user of a resource gets, as a number that sorts as it does.
fn key_of(room: f64, users: usize) -> u64 {
    (room / users.max(1) as f64).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(disk: u32) -> Place {
        (DiskId(disk), NodeId(disk / 10))
    }

    fn copies(pairs: &[(u32, u32)]) -> Copies {
        let mut copies = Copies::new(Limits::DEFAULT);
        for (at, &(from, to)) in pairs.iter().enumerate() {
            copies.begin(PgId(at as u32), 1, place(from), place(to), 200e6);
        }
        copies
    }

    #[test]
    fn a_copy_alone_takes_what_a_disk_gives() {
        let mut copies = copies(&[(10, 20)]);
        assert_eq!(copies.next(), Some(Duration::from_secs(1)));
        assert_eq!(copies.pass(Duration::from_secs(1)).len(), 1);
        assert_eq!(copies.next(), None);
    }

    #[test]
    fn copies_to_one_disk_share_it() {
        let mut copies = copies(&[(10, 20), (30, 20), (40, 50)]);
        assert_eq!(copies.next(), Some(Duration::from_secs(1)));
        assert_eq!(copies.pass(Duration::from_secs(1)).len(), 1);
        assert_eq!(copies.pass(Duration::from_secs(1)).len(), 2);
        assert!((copies.at_disks[&DiskId(20)] - 400e6).abs() < 10.0);
    }

    #[test]
    fn a_link_is_shared_by_the_disks_behind_it() {
        let pairs: Vec<(u32, u32)> = (0..10)
            .map(|disk| (10 + disk, 20 + 10 * disk + disk))
            .collect();
        let mut copies = copies(&pairs);
        // Ten disks of a node would give 2 GB/s. (One of them writes inside another node, and that changes nothing.)
        assert_eq!(copies.next(), Some(Duration::from_secs(2)));
    }
}
