//! One block of a volume as a register: which writes its next read may return.
//!
//! Every write has a value of its own, so a read names the write it saw, and the writes of a place with their
//! reads fall into *clusters*. For such histories linearizability is decided by pairs (Gibbons and Korach,
//! 1997): with `finish` the end of the first operation of a cluster that ended and `start` the beginning of the last one that
//! began, two clusters contradict one another exactly where each has an operation that ended before one
//! of the other began. So a check costs a comparison with each cluster that is still of interest, and
//! those are few: a cluster that every later read would contradict is forgotten.
//!
//! A write that was in flight at a power cut may have happened or not: its cluster stays *unsure*, contradicts
//! nobody, and becomes sure by the first read that returns it, as one that ended at the cut.
//! A write that covers a part of a block splits the register into fragments, which become one again when
//! one write covers them all.

/// A point of the run: each begin and end of an operation has its own.
pub type Tick = u64;

/// A write, by its place in the model's list. Number 0 is the state before all writes: zeroes.
pub type WriteNo = u32;

const SECTOR: u16 = crate::base::SECTOR as u16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cluster {
    write: WriteNo,
    /// When the first of its operations ended that has ended.
    finish: Tick,
    /// When the last of its operations began.
    start: Tick,
    /// Whether it is certain to have happened.
    sure: bool,
}

impl Cluster {
    fn contradicts(&self, other: &Cluster) -> bool {
        self.finish < other.start && other.finish < self.start
    }
}

/// A part of a block in which every byte has the same history.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fragment {
    lo: u16,
    hi: u16,
    clusters: Vec<Cluster>,
    /// What was read last, and when that read began.
    seen: Option<(WriteNo, Tick)>,
}

/// The history of one block.
#[derive(Debug, Clone)]
pub struct Register {
    fragments: Vec<Fragment>,
}

/// Why what was read cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch {
    /// The first byte of the block that is wrong.
    pub at: u16,
    /// What was seen, where it is known; it is a write that was overwritten.
    pub seen: Option<WriteNo>,
    /// A write that should have been seen, or one that came later.
    pub instead_of: WriteNo,
}

/// What was read of a block.
pub struct Observation<'a> {
    /// The first byte, from the block's beginning.
    pub lo: u16,
    pub bytes: &'a [u8],
    /// When the read began and ended.
    pub began: Tick,
    pub ended: Tick,
}

impl Default for Register {
    fn default() -> Register {
        Register::new()
    }
}

impl Register {
    /// A block that was never written.
    pub fn new() -> Register {
        let zeroes = Cluster {
            write: 0,
            finish: 0,
            start: 0,
            sure: true,
        };
        Register {
            fragments: vec![Fragment {
                lo: 0,
                hi: crate::base::BLOCK as u16,
                clusters: vec![zeroes],
                seen: None,
            }],
        }
    }

    /// A write of the bytes `lo .. hi` began. No operation that is in flight began before `low_water`.
    pub fn write_began(&mut self, lo: u16, hi: u16, write: WriteNo, now: Tick, low_water: Tick) {
        self.prune(low_water);
        self.split(lo);
        self.split(hi);
        for fragment in self.within(lo, hi) {
            fragment.clusters.push(Cluster {
                write,
                finish: Tick::MAX,
                start: now,
                sure: false,
            });
        }
    }

    /// A write ended; `sure` says whether it is certain to have happened.
    pub fn write_ended(&mut self, lo: u16, hi: u16, write: WriteNo, now: Tick, sure: bool) {
        for fragment in self.within(lo, hi) {
            let cluster = fragment.clusters.iter_mut().find(|c| c.write == write);
            // It is gone where later writes were seen in its place already.
            let Some(cluster) = cluster else { continue };
            if sure || !cluster.sure {
                cluster.finish = cluster.finish.min(now);
                cluster.sure |= sure;
            }
        }
    }

    /// Takes what a read returned, or says why it cannot be. `is` tells whether bytes at a place of the
    /// block are what a write wrote there.
    pub fn observe(
        &mut self,
        read: &Observation<'_>,
        is: impl Fn(WriteNo, u16, &[u8]) -> bool,
    ) -> Result<(), Mismatch> {
        let end = read.lo + read.bytes.len() as u16;
        let mut n = 0;
        while n < self.fragments.len() {
            let fragment = &mut self.fragments[n];
            let (lo, hi) = (fragment.lo.max(read.lo), fragment.hi.min(end));
            if lo >= hi {
                n += 1;
                continue;
            }
            let bytes = &read.bytes[(lo - read.lo) as usize..(hi - read.lo) as usize];
            match fragment.observe(read, |write| is(write, lo, bytes), lo) {
                Ok(()) => n += 1,
                // A sector is one register, and this is more than one: they may differ.
                Err(_) if fragment.lo / SECTOR != (fragment.hi - 1) / SECTOR => {
                    let first_end = (fragment.lo / SECTOR + 1) * SECTOR;
                    self.split(first_end);
                }
                Err(mismatch) => return Err(mismatch),
            }
        }
        Ok(())
    }

    /// Whether a read of the bytes `lo .. hi` that began at `began` and ends now may return a write that
    /// `accept` takes.
    pub fn may_be(&self, lo: u16, hi: u16, began: Tick, accept: impl Fn(WriteNo) -> bool) -> bool {
        self.fragments
            .iter()
            .filter(|fragment| fragment.lo < hi && lo < fragment.hi)
            .all(|fragment| {
                let mut clusters = fragment.clusters.iter();
                clusters.any(|cluster| accept(cluster.write) && fragment.may_be(cluster, began))
            })
    }

    /// The writes that were read last in each part of `lo .. hi`, by reads that began after `since`.
    pub fn seen(&self, lo: u16, hi: u16, since: Tick) -> impl Iterator<Item = WriteNo> {
        self.fragments
            .iter()
            .filter(move |fragment| fragment.lo < hi && lo < fragment.hi)
            .filter_map(move |fragment| fragment.seen.filter(|&(_, began)| began > since))
            .map(|(write, _)| write)
    }

    /// A copy of this block as it was at some time between `since` and `now`: what ended before is certain,
    /// the rest is not.
    pub fn copied(&self, since: Tick, now: Tick) -> Register {
        let mut copy = self.clone();
        let clusters = copy.fragments.iter_mut().flat_map(|f| &mut f.clusters);
        for cluster in clusters.filter(|cluster| cluster.finish >= since) {
            cluster.sure = false;
            cluster.finish = cluster.finish.min(now);
        }
        copy
    }

    fn within(&mut self, lo: u16, hi: u16) -> impl Iterator<Item = &mut Fragment> {
        self.fragments
            .iter_mut()
            .filter(move |fragment| fragment.lo < hi && lo < fragment.hi)
    }

    fn split(&mut self, at: u16) {
        let across = |fragment: &Fragment| fragment.lo < at && at < fragment.hi;
        if let Some(n) = self.fragments.iter().position(across) {
            let mut right = self.fragments[n].clone();
            right.lo = at;
            self.fragments[n].hi = at;
            self.fragments.insert(n + 1, right);
        }
    }

    fn prune(&mut self, low_water: Tick) {
        for fragment in &mut self.fragments {
            fragment.prune(low_water);
        }
        let first = &self.fragments[0].clusters;
        let one = first.len() == 1 && first[0].sure;
        let same = |f: &Fragment| f.clusters.len() == 1 && f.clusters[0].write == first[0].write;
        if one && self.fragments.len() > 1 && self.fragments.iter().all(same) {
            // The weaker of both bounds: what is merged may be refused less, never more.
            let clusters = self.fragments.iter().map(|fragment| fragment.clusters[0]);
            let merged = clusters.reduce(|a, b| Cluster {
                finish: a.finish.max(b.finish),
                start: a.start.min(b.start),
                sure: a.sure && b.sure,
                ..a
            });
            self.fragments.truncate(1);
            self.fragments[0].hi = crate::base::BLOCK as u16;
            self.fragments[0].clusters = merged.into_iter().collect();
            self.fragments[0].seen = None;
        }
    }
}

impl Fragment {
    /// Forgets the clusters that any read contradicts that begins at `low_water` or later.
    fn prune(&mut self, low_water: Tick) {
        if self.clusters.len() == 1 {
            return;
        }
        let killer = |cluster: &&Cluster| cluster.sure && cluster.finish < low_water;
        let latest = self
            .clusters
            .iter()
            .filter(killer)
            .max_by_key(|cluster| cluster.start);
        if let Some(&latest) = latest {
            let lives = |c: &Cluster| c.finish >= latest.start || c.write == latest.write;
            self.clusters.retain(lives);
        }
    }

    fn observe(
        &mut self,
        read: &Observation<'_>,
        is: impl Fn(WriteNo) -> bool,
        at: u16,
    ) -> Result<(), Mismatch> {
        let mut fitting = None;
        let mut ways = 0;
        let mut refused: Option<Mismatch> = None;
        for n in 0..self.clusters.len() {
            let cluster = self.clusters[n];
            if !is(cluster.write) {
                continue;
            }
            let with_read = Cluster {
                finish: cluster.finish.min(read.ended),
                start: cluster.start.max(read.began),
                sure: true,
                ..cluster
            };
            let against = |other: &&Cluster| other.sure && other.write != cluster.write;
            let mut others = self.clusters.iter().filter(against);
            match others.find(|other| other.contradicts(&with_read)) {
                Some(other) => {
                    refused = Some(Mismatch {
                        at,
                        seen: Some(cluster.write),
                        instead_of: other.write,
                    });
                }
                None => {
                    fitting = Some((n, with_read));
                    ways += 1;
                }
            }
        }
        let Some((n, with_read)) = fitting else {
            return Err(refused.unwrap_or(Mismatch {
                at,
                seen: None,
                instead_of: self.newest(),
            }));
        };
        // Zeroes have many writers. Where it is not certain whose they were, nothing is learnt.
        self.seen = None;
        if ways == 1 {
            self.seen = Some((with_read.write, read.began));
            self.clusters[n] = with_read;
        }
        Ok(())
    }

    fn may_be(&self, cluster: &Cluster, began: Tick) -> bool {
        let with_read = Cluster {
            start: cluster.start.max(began),
            ..*cluster
        };
        let mut others = self.clusters.iter();
        !others.any(|other| {
            other.sure && other.write != cluster.write && other.contradicts(&with_read)
        })
    }

    fn newest(&self) -> WriteNo {
        let sure = self.clusters.iter().filter(|cluster| cluster.sure);
        let newest = sure.max_by_key(|cluster| cluster.finish);
        newest.map_or(0, |cluster| cluster.write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each write fills its bytes with its own number.
    fn is(write: WriteNo, _: u16, bytes: &[u8]) -> bool {
        bytes.iter().all(|&byte| u32::from(byte) == write)
    }

    fn read(register: &mut Register, byte: u8, began: Tick, ended: Tick) -> Result<(), Mismatch> {
        let bytes = [byte; 4096];
        let seen = Observation {
            lo: 0,
            bytes: &bytes,
            began,
            ended,
        };
        register.observe(&seen, is)
    }

    fn write(register: &mut Register, write: WriteNo, began: Tick, ended: Tick) {
        register.write_began(0, 4096, write, began, 0);
        register.write_ended(0, 4096, write, ended, true);
    }

    #[test]
    fn the_last_acknowledged_write_is_read_and_no_older_one() {
        let mut register = Register::new();
        write(&mut register, 1, 1, 2);
        write(&mut register, 2, 3, 4);
        assert!(read(&mut register.clone(), 1, 5, 6).is_err());
        assert!(read(&mut register.clone(), 0, 5, 6).is_err());
        assert!(read(&mut register, 2, 5, 6).is_ok());
    }

    #[test]
    fn a_read_beside_a_write_returns_either_and_then_stays_with_the_new() {
        let mut register = Register::new();
        write(&mut register, 1, 1, 2);
        register.write_began(0, 4096, 2, 3, 0);
        assert!(read(&mut register, 1, 4, 5).is_ok());
        assert!(read(&mut register, 2, 6, 7).is_ok());
        assert!(
            read(&mut register.clone(), 1, 8, 9).is_err(),
            "new, then old"
        );
        assert!(
            read(&mut register, 1, 6, 9).is_ok(),
            "it began before the new was seen"
        );
    }

    #[test]
    fn two_writes_in_flight_end_in_one_order_for_all() {
        let mut register = Register::new();
        register.write_began(0, 4096, 1, 1, 0);
        register.write_began(0, 4096, 2, 2, 0);
        register.write_ended(0, 4096, 1, 3, true);
        register.write_ended(0, 4096, 2, 4, true);
        assert!(read(&mut register, 1, 5, 6).is_ok());
        assert!(read(&mut register.clone(), 2, 7, 8).is_err());
        assert!(read(&mut register, 1, 7, 8).is_ok());
    }

    #[test]
    fn what_power_loss_left_open_is_decided_by_the_first_read() {
        let mut register = Register::new();
        write(&mut register, 1, 1, 2);
        register.write_began(0, 4096, 2, 3, 0);
        register.write_ended(0, 4096, 2, 4, false);
        let (mut happened, mut not) = (register.clone(), register);
        assert!(read(&mut happened, 2, 5, 6).is_ok());
        assert!(read(&mut happened, 1, 7, 8).is_err());
        assert!(read(&mut not, 1, 5, 6).is_ok());
        assert!(
            read(&mut not, 2, 7, 8).is_err(),
            "it comes back from nowhere"
        );
    }

    #[test]
    fn a_write_that_failed_does_not_come_back_after_a_later_one() {
        let mut register = Register::new();
        register.write_began(0, 4096, 1, 1, 0);
        register.write_ended(0, 4096, 1, 2, false);
        write(&mut register, 2, 3, 4);
        assert!(read(&mut register, 1, 5, 6).is_err());
    }

    #[test]
    fn parts_of_a_block_have_histories_of_their_own() {
        let mut register = Register::new();
        write(&mut register, 1, 1, 2);
        register.write_began(100, 200, 2, 3, 0);
        register.write_ended(100, 200, 2, 4, true);
        let mut bytes = [1; 4096];
        let mut look = |bytes: &[u8]| {
            let (began, ended) = (5, 6);
            let seen = Observation {
                lo: 0,
                bytes,
                began,
                ended,
            };
            register.observe(&seen, is)
        };
        assert_eq!(look(&bytes).unwrap_err().at, 100);
        bytes[100..200].fill(2);
        assert!(look(&bytes).is_ok());
        bytes[199] = 1;
        assert!(look(&bytes).is_err());
    }

    #[test]
    fn what_was_read_last_is_not_forgotten_for_its_own_reads() {
        let mut register = Register::new();
        write(&mut register, 1, 1, 2);
        assert!(read(&mut register, 1, 3, 4).is_ok());
        register.prune(10);
        assert!(read(&mut register, 1, 11, 12).is_ok());
    }

    #[test]
    fn fragments_become_one_again_and_old_clusters_are_forgotten() {
        let mut register = Register::new();
        for n in 0..50u32 {
            let tick = u64::from(n) * 4 + 1;
            register.write_began(100, 200, n * 2 + 1, tick, tick);
            register.write_ended(100, 200, n * 2 + 1, tick + 1, true);
            register.write_began(0, 4096, n * 2 + 2, tick + 2, tick + 2);
            register.write_ended(0, 4096, n * 2 + 2, tick + 3, true);
        }
        register.prune(1000);
        assert_eq!(register.fragments.len(), 1);
        assert_eq!(register.fragments[0].clusters.len(), 1);
    }
}
