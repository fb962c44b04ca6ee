//! How whole the placement groups of a pool are. It follows from the catalog, and from which nodes do not answer, alone; nothing is remembered.
//!
//! A PG is looked at by its copies that are in sync and *reached*: on a disk that is good, of a node that answers.

use crate::api::model::{Lack, PgStates};
use crate::base::{DiskId, NodeId};
use crate::protocol::catalog::{Catalog, DiskState, Pg, Pool, Volume};
use crate::protocol::replication::{Member, Role};
use std::collections::{BTreeMap, BTreeSet};

/// How much of a PG is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    All,
    /// Some, and not fewer than `min_copies`.
    Enough,
    TooFew,
    None,
    /// None, and none is counted on.
    Lost,
}

/// A PG that is not whole, or not at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// Its place among the PGs of its pool.
    at: u32,
    reached: Reached,
    is_filling: bool,
    /// What it and all marked before it count; without `all` and `whole`, which follow from the place.
    sum: PgStates,
}

/// Failure domains of a pool that take copies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Domains {
    pub all: u32,
    /// Of these, those with a node that answers.
    pub reached: u32,
}

/// How a pool is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    pub pgs: PgStates,
    /// By their places. So the many volumes that are spread over the first so many PGs are each counted in one step.
    marks: Vec<Mark>,
    /// Of PGs that are not whole, where copies are lacking, and how many.
    pub lacking: BTreeMap<DiskId, (Lack, u32)>,
    /// Where copies are made or filled, and how many.
    pub filled: BTreeMap<DiskId, u32>,
    /// PGs that are not whole and list fewer disks than there are to be copies.
    pub short: u32,
    pub domains: Domains,
}

/// Looks at all PGs of a pool. `away`: the nodes that do not answer.
pub fn look(catalog: &Catalog, pool: &Pool, away: &BTreeSet<NodeId>) -> Look {
    let mut seen = Look {
        domains: domains(catalog, pool, away),
        ..Look::default()
    };
    for (at, pg) in catalog.pgs_of(pool.id).iter().enumerate() {
        if let Some(pg) = catalog.pg(*pg) {
            seen.add(catalog, pool, away, at as u32, pg);
        }
    }
    seen.pgs = seen.of_first(catalog.pgs_of(pool.id).len() as u32);
    seen
}

/// What is to be said of a member that is not reached in sync; nothing where it is.
fn lack(catalog: &Catalog, away: &BTreeSet<NodeId>, member: &Member) -> Option<Lack> {
    let Some(disk) = catalog.disk(member.disk) else {
        return Some(Lack::Missing);
    };
    match (disk.state, member.role) {
        (DiskState::OutOfService, _) => Some(Lack::OutOfService),
        (DiskState::Missing, _) => Some(Lack::Missing),
        _ if away.contains(&disk.node) => Some(Lack::NodeUnreachable),
        (_, Role::Joining { .. }) => Some(Lack::Filling),
        (_, Role::Out { .. }) => Some(Lack::LeftOut),
        (DiskState::Serving | DiskState::Draining, Role::InSync) => None,
    }
}

/// Its failure domains that take copies.
pub fn domains(catalog: &Catalog, pool: &Pool, away: &BTreeSet<NodeId>) -> Domains {
    let (mut all, mut reached) = (BTreeSet::new(), BTreeSet::new());
    for disk in catalog.disks_of_pool(pool.id) {
        if disk.state != DiskState::Serving || disk.weight() == 0 {
            continue;
        }
        let domain = catalog.domain(disk.id, pool.level);
        all.insert(domain);
        if !away.contains(&disk.node) {
            reached.insert(domain);
        }
    }
    Domains {
        all: all.len() as u32,
        reached: reached.len() as u32,
    }
}

impl Look {
    fn add(&mut self, catalog: &Catalog, pool: &Pool, away: &BTreeSet<NodeId>, at: u32, pg: &Pg) {
        let members = pg.configuration.members();
        let joining = members
            .iter()
            .filter(|member| matches!(member.role, Role::Joining { .. }))
            .map(|member| member.disk);
        let mut filled: BTreeSet<DiskId> = joining.collect();
        // A wanted copy is listed, and joins, some steps later; one that is in sync is done.
        let wanted = pg.want.and_then(|want| want.to);
        let is_made = |disk: &DiskId| pg.configuration.role(*disk) == Some(Role::InSync);
        filled.extend(wanted.filter(|to| !is_made(to)));
        for disk in &filled {
            *self.filled.entry(*disk).or_default() += 1;
        }
        let lacks = |member: &Member| lack(catalog, away, member);
        let count = members.iter().filter(|one| lacks(one).is_none()).count() as u32;
        let reached = match count {
            0 if catalog.has_copies(pg.id) => Reached::None,
            0 => Reached::Lost,
            few if few < pool.min_copies => Reached::TooFew,
            few if few < pool.copies => Reached::Enough,
            _ => Reached::All,
        };
        if reached != Reached::All {
            self.short += u32::from((members.len() as u32) < pool.copies);
            for member in members {
                if let Some(why) = lacks(member) {
                    // Why may differ from PG to PG: the worst, which stands first, is said.
                    let of = self.lacking.entry(member.disk).or_insert((why, 0));
                    *of = (of.0.min(why), of.1 + 1);
                }
            }
        }
        if reached != Reached::All || !filled.is_empty() {
            let sum = self.marks.last().map_or_else(PgStates::default, |m| m.sum);
            let mut mark = Mark {
                at,
                reached,
                is_filling: !filled.is_empty(),
                sum,
            };
            mark.sum = mark.added_to(sum);
            self.marks.push(mark);
        }
    }

    /// Of the first so many PGs of the pool.
    fn of_first(&self, count: u32) -> PgStates {
        let marked = self.marks.partition_point(|mark| mark.at < count);
        let last = marked.checked_sub(1).map(|last| self.marks[last].sum);
        let sum = last.unwrap_or_default();
        PgStates {
            all: count,
            whole: count - sum.degraded - sum.waiting - sum.unreachable,
            ..sum
        }
    }

    /// Of the PGs of a volume of this pool.
    pub fn of_volume(&self, catalog: &Catalog, volume: &Volume) -> PgStates {
        let of_volume = catalog.pgs_of_volume(volume);
        if volume.on.is_empty() {
            return self.of_first(of_volume.len() as u32);
        }
        let of_pool = catalog.pgs_of(volume.pool);
        let places = of_volume
            .iter()
            .filter_map(|pg| of_pool.binary_search(pg).ok());
        let marks = places.filter_map(|at| {
            let found = self
                .marks
                .binary_search_by_key(&(at as u32), |mark| mark.at);
            found.ok().map(|found| &self.marks[found])
        });
        let sum = marks.fold(PgStates::default(), |sum, mark| mark.added_to(sum));
        let all = of_volume.len() as u32;
        PgStates {
            all,
            whole: all - sum.degraded - sum.waiting - sum.unreachable,
            ..sum
        }
    }

    /// What the PGs that are not whole hold at most: their part of what volumes were promised.
    pub fn lacking_bytes_max(&self, catalog: &Catalog, pool: &Pool) -> u64 {
        if self.pgs.lacking() == 0 {
            return 0;
        }
        let held = catalog.volumes().filter(|volume| volume.pool == pool.id);
        let held = held.map(|volume| {
            let of = self.of_volume(catalog, volume);
            let part = u128::from(volume.size) * u128::from(of.lacking());
            (part / u128::from(of.all.max(1))) as u64
        });
        held.fold(0, u64::saturating_add)
    }
}

impl Mark {
    fn added_to(&self, mut sum: PgStates) -> PgStates {
        match self.reached {
            Reached::All => {}
            Reached::Enough => sum.degraded += 1,
            Reached::TooFew => sum.waiting += 1,
            Reached::None => sum.unreachable += 1,
            Reached::Lost => {
                sum.unreachable += 1;
                sum.lost += 1;
            }
        }
        sum.filling += u32::from(self.is_filling);
        sum.moving += u32::from(self.is_filling && self.reached == Reached::All);
        sum
    }
}
