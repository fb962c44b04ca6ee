//! Commands about pools: what is asked of their PGs, and how much is promised out of them.

use super::state::{Pool, PoolId};
use super::{Catalog, Code, Event, POOLS_MAX, REBUILD_LIMIT, Refusal, check_name};
use crate::protocol::placement::{COPIES_MAX, Level};
use std::collections::BTreeSet;

/// How far a pool may be over-committed, in percent.
const OVERCOMMIT_PERCENT: std::ops::RangeInclusive<u32> = 100..=100_000;
/// What a new pool may promise of what it has.
pub(super) const OVERCOMMIT_FIRST: u32 = 2_000;

/// What is asked of the PGs of a pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub copies: u32,
    pub min_copies: u32,
    pub level: Level,
}

impl Wish {
    fn check(self) -> Result<(), Refusal> {
        let most = u32::from(COPIES_MAX);
        if !(1..=most).contains(&self.copies) {
            let reason = format!("{} copies are not 1 to {most}", self.copies);
            return Err(Refusal::invalid(
                "copies",
                reason,
                "3 survive the loss of two disks",
            ));
        }
        if !(1..=self.copies).contains(&self.min_copies) {
            let reason = format!("{} is not 1 to {}", self.min_copies, self.copies);
            let hint = "as many as must be in sync for writes to go on";
            return Err(Refusal::invalid("min_copies", reason, hint));
        }
        Ok(())
    }
}

impl Catalog {
    pub(super) fn create_pool(&mut self, name: &str, wish: Wish) -> Result<Vec<Event>, Refusal> {
        check_name("pool", name)?;
        wish.check()?;
        if self.pool_named(name).is_some() {
            let reason = format!("there is a pool named {name:?} already");
            let hint = "give it another name";
            return Err(Refusal::new(Code::Exists, "name", reason, hint));
        }
        if self.pools.len() >= POOLS_MAX {
            let reason = format!("there are {POOLS_MAX} pools already");
            let hint = "use one of them";
            return Err(Refusal::new(Code::Exhausted, "name", reason, hint));
        }
        let pool = Pool {
            id: PoolId(self.next.pool),
            name: name.into(),
            copies: wish.copies,
            min_copies: wish.min_copies,
            level: wish.level,
            overcommit_percent: OVERCOMMIT_FIRST,
            bytes_per_pg: 0,
            laid_out: None,
            rebuild_limit: None,
        };
        self.next.pool += 1;
        self.put_pool(pool.clone());
        Ok(vec![Event::PoolAdded { pool }])
    }

    /// Replicas are made and ended afterwards, one by one; a pool that has PGs must have the failure domains for it.
    pub(super) fn set_pool(&mut self, name: &str, wish: Wish) -> Result<Vec<Event>, Refusal> {
        wish.check()?;
        let mut pool = self.known_pool(name)?.clone();
        if !self.pgs_of(pool.id).is_empty() {
            let takes = self
                .disks_of_pool(pool.id)
                .filter(|disk| disk.state == super::DiskState::Serving && disk.weight() > 0);
            let domains: BTreeSet<u32> =
                takes.map(|disk| self.domain(disk.id, wish.level)).collect();
            if domains.len() < wish.copies as usize {
                let reason = format!(
                    "{} copies need as many failure domains; at level {} there are {}",
                    wish.copies,
                    wish.level,
                    domains.len()
                );
                let hint = "add disks there, or ask for a lower level or fewer copies";
                return Err(Refusal::conflict("copies", reason, hint));
            }
        }
        pool.copies = wish.copies;
        pool.min_copies = wish.min_copies;
        pool.level = wish.level;
        self.put_pool(pool.clone());
        Ok(vec![Event::PoolChanged { pool }])
    }

    pub(super) fn set_overcommit(
        &mut self,
        name: &str,
        percent: u32,
    ) -> Result<Vec<Event>, Refusal> {
        if !OVERCOMMIT_PERCENT.contains(&percent) {
            let reason = format!("{percent} is not in {OVERCOMMIT_PERCENT:?}");
            let hint = "100 promises no more than there is";
            return Err(Refusal::invalid("percent", reason, hint));
        }
        let mut pool = self.known_pool(name)?.clone();
        pool.overcommit_percent = percent;
        self.put_pool(pool.clone());
        Ok(vec![Event::PoolChanged { pool }])
    }

    pub(super) fn set_rebuild_limit(
        &mut self,
        name: &str,
        bytes_per_second: Option<u64>,
    ) -> Result<Vec<Event>, Refusal> {
        if let Some(odd) = bytes_per_second.filter(|rate| !REBUILD_LIMIT.contains(rate)) {
            let (least, most) = (REBUILD_LIMIT.start(), REBUILD_LIMIT.end());
            let reason = format!("{odd} bytes a second are not from {least} to {most}");
            let hint = "without a limit disks are filled as fast as guests leave room for";
            return Err(Refusal::invalid("rebuild_limit", reason, hint));
        }
        let mut pool = self.known_pool(name)?.clone();
        pool.rebuild_limit = bytes_per_second;
        self.put_pool(pool.clone());
        Ok(vec![Event::PoolChanged { pool }])
    }

    /// The pool, or a refusal that says that there is none.
    pub(super) fn known_pool(&self, name: &str) -> Result<&Pool, Refusal> {
        self.pool_named(name).ok_or_else(|| {
            let hint = "the pool that exists from the start is \"default\"";
            Refusal::not_found("pool", format!("there is no pool named {name:?}"), hint)
        })
    }

    /// The pool, where `more` bytes may still be promised out of it.
    pub(super) fn pool_with_room(&self, name: &str, more: u64) -> Result<&Pool, Refusal> {
        let pool = self.known_pool(name)?;
        let capacity = self.capacity(pool.id) / u64::from(pool.copies);
        if self.disks_of_pool(pool.id).next().is_none() {
            let reason = format!("the pool {} has no disk", pool.name);
            let hint = "add one: sarsen disk add PATH";
            return Err(Refusal::new(Code::Exhausted, "size", reason, hint));
        }
        if self.pgs_of(pool.id).is_empty() {
            let reason = format!("the pool {} has no placement groups yet", pool.name);
            let hint = "add disks in as many failure domains as it has copies";
            return Err(Refusal::new(Code::Exhausted, "size", reason, hint));
        }
        let limit = u128::from(capacity) * u128::from(pool.overcommit_percent) / 100;
        let promised = u128::from(self.promised(pool.id)) + u128::from(more);
        if promised > limit {
            let reason = format!(
                "volumes of {promised} bytes would be promised, of at most {limit} ({} % of {capacity})",
                pool.overcommit_percent
            );
            let hint = "add a disk, or allow more with `sarsen pool set NAME --overcommit PERCENT`";
            return Err(Refusal::new(Code::Exhausted, "size", reason, hint));
        }
        Ok(pool)
    }
}
