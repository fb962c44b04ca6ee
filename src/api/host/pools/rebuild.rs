//! How long it takes until copies are made: what they lack, by what those say that they are made from, and how fast copies are filled.
//!
//! Every node looks once a second at the copies that are to be made from its disks and at its disks, and says sums (`cluster::Work`). Who is asked adds those up and
//! holds them against the copies that the catalog wants. What is not known is said to be not known: a node that does not answer, one whose tables are
//! not loaded or that is of an older build, nothing filled for long enough to say how fast.
//!
//! All of it counts chunks of 64 KiB, what is left as what was done: of thin volumes with little in each chunk the bytes are fewer, the time is the same.

use super::look;
use crate::api::host::Host;
use crate::api::model::Rebuild;
use crate::base::{CHUNK, DiskId, NodeId};
use crate::cluster::{DiskWork, PoolWork, Work};
use crate::protocol::catalog::{Catalog, DiskState, Pool, PoolId};
use crate::protocol::replication::Role;
use crate::shard::ToFill;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Over how long it is measured how fast copies are filled. Long enough that a group more or less does not show, short enough for what a limit or a guest's load changes.
const OVER: Duration = Duration::from_secs(30);
/// Nothing is said of less: the first chunks come all at once.
const LEAST: Duration = Duration::from_secs(3);
/// After so long without a chunk what was before says nothing of what comes.
const IDLE: Duration = Duration::from_secs(10);

/// A copy that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ToMake {
    pub what: ToFill,
    /// Where, as far as that is decided.
    pub at: Option<DiskId>,
}

/// The copies of a pool that are being made, or follow by themselves: of groups that lack some, and of those whose copies are on disks that are being emptied. Not
/// those that wait for a disk or node to come back, nor what could only be made with more disks, nor moves for balance that have not begun.
pub(super) fn to_make(catalog: &Catalog, pool: &Pool) -> Vec<ToMake> {
    let state = |disk: DiskId| catalog.disk(disk).map(|disk| disk.state);
    let has_places = look::domains(catalog, pool, &BTreeSet::new()).all >= pool.copies;
    let mut all = Vec::new();
    for pg in catalog.pgs_of(pool.id) {
        let Some(pg) = catalog.pg(*pg) else { continue };
        let of = &pg.configuration;
        // Every node agrees on it, so that each copy is counted once.
        let is_good = |disk: &DiskId| state(*disk).is_some_and(DiskState::is_good);
        let Some(from) = of.in_sync().find(is_good) else {
            continue; // there is nothing to make it from now
        };
        let mut make = |since: u32, at: Option<DiskId>| {
            let pg = pg.id;
            let what = ToFill { from, pg, since };
            all.push(ToMake { what, at });
        };
        let mut counted_on = 0;
        for member in of.members() {
            counted_on += u32::from(state(member.disk) == Some(DiskState::Serving));
            if let Role::Joining { since, .. } = member.role {
                make(since, Some(member.disk));
            }
        }
        if let Some(to) = pg.want.and_then(|want| want.to) {
            match of.role(to) {
                None => {
                    counted_on += 1;
                    make(0, Some(to));
                }
                Some(Role::Out { since }) => make(since, Some(to)),
                Some(Role::InSync | Role::Joining { .. }) => {}
            }
        }
        if has_places {
            (counted_on..pool.copies).for_each(|_| make(0, None));
        }
    }
    all
}

/// How long it takes to make so many copies, by what nodes say of the pool; nothing where there are none to make.
pub(super) fn rebuild(copies: u32, said: impl Iterator<Item = PoolWork>) -> Option<Rebuild> {
    if copies == 0 {
        return None;
    }
    let mut sum = PoolWork::default();
    for of in said {
        sum.known += of.known;
        sum.lacking_bytes = sum.lacking_bytes.saturating_add(of.lacking_bytes);
        sum.filled_bytes = sum.filled_bytes.saturating_add(of.filled_bytes);
        let rates = [sum.filled_bytes_per_second, of.filled_bytes_per_second];
        sum.filled_bytes_per_second = rates.into_iter().flatten().reduce(u64::saturating_add);
    }
    let left = sum.lacking_bytes.saturating_sub(sum.filled_bytes);
    let left_bytes_max = (sum.known >= copies).then_some(left);
    let bytes_per_second = sum.filled_bytes_per_second.filter(|rate| *rate > 0);
    let eta_seconds = left_bytes_max
        .zip(bytes_per_second)
        .map(|(left, rate)| left.div_ceil(rate));
    Some(Rebuild {
        copies,
        known_copies: sum.known.min(copies),
        left_bytes_max,
        bytes_per_second,
        eta_seconds,
    })
}

/// How fast copies of one pool are filled here.
#[derive(Debug, Default)]
struct Rate {
    /// How many chunks had been filled at what time.
    looks: VecDeque<(Duration, u64)>,
    moved_at: Option<Duration>,
}

impl Rate {
    /// So many chunks have been filled by now.
    fn note(&mut self, now: Duration, chunks: u64) {
        let before = self.looks.back().map(|look| look.1);
        if before.is_some_and(|before| chunks < before) {
            self.looks.clear(); // a disk has gone, or begins anew
        } else if before.is_some_and(|before| chunks > before) {
            self.moved_at = Some(now);
        }
        let is_idle = |moved: Duration| now.saturating_sub(moved) >= IDLE;
        if self.moved_at.is_none_or(is_idle) {
            self.looks.clear();
        }
        self.looks.push_back((now, chunks));
        while self.looks.len() > 2 && now.saturating_sub(self.looks[0].0) > OVER {
            self.looks.pop_front();
        }
    }

    fn bytes_per_second(&self) -> Option<u64> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        let (over, chunks) = (last.0.saturating_sub(first.0), last.1 - first.1);
        let rate = u128::from(chunks * CHUNK) * 1000 / over.as_millis().max(1);
        (over >= LEAST && chunks > 0).then_some(rate as u64)
    }
}

impl Host {
    /// Looks at copies that are being made, and has the other nodes told, for as long as the daemon runs.
    pub async fn watch_copies(&self) {
        let begun = Instant::now();
        let mut rates: BTreeMap<PoolId, Rate> = BTreeMap::new();
        loop {
            tokio::time::sleep(EVERY).await;
            if self.is_of_cluster() {
                let work = self.look_at_copies(begun.elapsed(), &mut rates).await;
                self.cluster().set_work(work);
            }
        }
    }

    async fn look_at_copies(&self, now: Duration, rates: &mut BTreeMap<PoolId, Rate>) -> Work {
        let catalog = self.manager().catalog();
        let me = self.inner.parts.node;
        let is_here =
            |disk: DiskId| -> bool { catalog.disk(disk).is_some_and(|disk| disk.node == me) };
        let mut work = Work::default();
        let (mut asked, mut of_pools) = (Vec::new(), Vec::new());
        let mut open = BTreeSet::new();
        for pool in catalog.pools() {
            for make in to_make(&catalog, pool) {
                if let Some(at) = make.at {
                    open.insert((at, make.what.pg));
                }
                if is_here(make.what.from) {
                    asked.push(make.what);
                    of_pools.push(pool.id);
                }
            }
        }
        let said = self.runtime().copies(asked).await;
        for (at, pool) in of_pools.into_iter().enumerate() {
            // The shard that has the disk says it.
            let chunks = said.iter().find_map(|of| of.lacking.get(at).copied()?);
            if let Some(chunks) = chunks {
                let of = work.pools.entry(pool.0).or_default();
                of.known += 1;
                of.lacking_bytes += chunks * CHUNK;
            }
        }
        let pool_of = |disk: DiskId| catalog.disk(disk).map(|disk| disk.pool);
        let mut filled: BTreeMap<PoolId, u64> = BTreeMap::new();
        for of in &said {
            for one in &of.filling {
                // What is in sync by now, or was given up, is not among what is lacking.
                if let Some(pool) = pool_of(one.disk)
                    && open.contains(&(one.disk, one.pg))
                {
                    work.pools.entry(pool.0).or_default().filled_bytes += one.chunks * CHUNK;
                }
            }
            for &(disk, chunks) in &of.filled {
                if let Some(pool) = pool_of(disk) {
                    *filled.entry(pool).or_default() += chunks;
                }
            }
        }
        rates.retain(|pool, _| filled.contains_key(pool));
        for (pool, chunks) in filled {
            let rate = rates.entry(pool).or_default();
            rate.note(now, chunks);
            if let Some(rate) = rate.bytes_per_second() {
                let of = work.pools.entry(pool.0).or_default();
                of.filled_bytes_per_second = Some(rate);
            }
        }
        for disk in catalog.disks_of(me) {
            let numbers = self.registry().disk(disk.id).get();
            if numbers.capacity_bytes > 0 {
                let of = DiskWork {
                    capacity_bytes: numbers.capacity_bytes,
                    used_bytes: numbers.used_bytes,
                };
                work.disks.insert(disk.id.0, of);
            }
        }
        work
    }

    /// How long it takes to make the copies of a pool that lacks some.
    pub(super) fn rebuild_of(
        &self,
        catalog: &Catalog,
        pool: &Pool,
        work: &BTreeMap<NodeId, Work>,
    ) -> Option<Rebuild> {
        if !self.is_of_cluster() {
            return None;
        }
        let said = work.values().filter_map(|of| of.pools.get(&pool.id.0));
        rebuild(to_make(catalog, pool).len() as u32, said.copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn how_fast_is_known_after_a_while_over_the_last_while_and_not_when_it_has_stopped() {
        let mut rate = Rate::default();
        (0..5).for_each(|at| rate.note(s(at), 7));
        assert_eq!(rate.bytes_per_second(), None, "nothing is filled");
        for at in 5..=60 {
            rate.note(s(at), 7 + (at - 4) * 10);
        }
        assert_eq!(rate.bytes_per_second(), Some(10 * CHUNK));
        for at in 61..=100 {
            rate.note(s(at), 567 + (at - 60) * 20);
        }
        assert_eq!(rate.bytes_per_second(), Some(20 * CHUNK), "as it is now");
        (101..=120).for_each(|at| rate.note(s(at), 1367));
        assert_eq!(rate.bytes_per_second(), None, "it has stopped");
        (121..=122).for_each(|at| rate.note(s(at), 1367 + (at - 120) * 5));
        assert_eq!(
            rate.bytes_per_second(),
            None,
            "of two seconds nothing is said"
        );
        (123..=124).for_each(|at| rate.note(s(at), 1367 + (at - 120) * 5));
        assert_eq!(rate.bytes_per_second(), Some(5 * CHUNK));
        rate.note(s(125), 3);
        assert_eq!(rate.bytes_per_second(), None, "its counter began anew");
    }

    #[test]
    fn how_long_it_takes_is_said_where_all_of_it_is_known_and_else_not() {
        let of = |known, lacking_bytes, filled_bytes, filled_bytes_per_second| PoolWork {
            known,
            lacking_bytes,
            filled_bytes,
            filled_bytes_per_second,
        };
        assert_eq!(rebuild(0, std::iter::empty()), None);
        let all = [of(2, 1_000, 0, None), of(1, 500, 300, Some(100))];
        let seen = rebuild(3, all.into_iter()).unwrap();
        assert_eq!(
            (seen.left_bytes_max, seen.bytes_per_second, seen.eta_seconds),
            (Some(1_200), Some(100), Some(12))
        );
        let some = rebuild(4, all.into_iter()).unwrap();
        assert_eq!((some.known_copies, some.left_bytes_max), (3, None));
        assert_eq!(some.eta_seconds, None);
        let stands = rebuild(1, [of(1, 500, 0, None)].into_iter()).unwrap();
        assert_eq!(
            (stands.left_bytes_max, stands.eta_seconds),
            (Some(500), None)
        );
    }
}
