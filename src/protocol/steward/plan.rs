//! Where replicas belong: when that is asked, and how the answer is carried out.
//!
//! The question is put together from the catalog, with every move that is under way as if it were done. Of the answer new PGs are made
//! at once (nothing is copied for them); moves are begun in the solver's order, which is that of need, as far as the bounds on disks and
//! on all allow; one that has to wait lets others pass. What no longer fits is dropped. When all is done it is asked again, until
//! nothing is left to do.
//!
//! A pool of one copy gives every disk PGs of its own and is not balanced: there a move has no second copy to fall back on, so it
//! is made only where somebody wants it (a drain) or must (a change of copies).

use super::decide::is_crowded;
use super::machine::{Errand, Steward, Wake};
use super::message::{Note, Output};
use super::parameters::NewPgs;
use crate::base::{DiskId, PgId, Time};
use crate::protocol::catalog::{
    Batch, Catalog, Command, Disk, DiskState, Maintenance, Move, PGS_MAX, PGS_OF_COMMAND_MAX, Pg,
    Pool, PoolId,
};
use crate::protocol::placement::{
    self, Change, Cluster, Need, PgReplicas, Plan, REPLICAS_MAX, RackId, pgs_wanted,
};
use crate::protocol::replication::Role;
use std::collections::{BTreeMap, VecDeque};

/// Changes that are looked at in one step for some that can begin: those before are waiting for disks that are busy.
const LOOKS_MAX: usize = 4_096;

/// What is known of where the replicas of a pool belong.
#[derive(Debug, Default)]
pub(super) struct PoolPlan {
    /// Something has changed, and is asked about when it has settled.
    is_disturbed: bool,
    asked: Option<u64>,
    changes: VecDeque<Change>,
    /// New PGs that are not proposed yet, and the number of the next.
    new: VecDeque<Vec<DiskId>>,
    /// Whether something was begun or dropped since the last answer.
    is_touched: bool,
    refusal: Option<placement::Refusal>,
}

impl PoolPlan {
    pub fn is_at_rest(&self) -> bool {
        !self.is_disturbed
            && self.asked.is_none()
            && self.changes.is_empty()
            && self.new.is_empty()
            && !self.is_touched
    }
}

impl Steward {
    /// Something that placement depends on has changed.
    pub(super) fn disturb(&mut self, pool: PoolId) {
        let plan = self.pools.entry(pool).or_default();
        if !plan.is_disturbed {
            plan.is_disturbed = true;
            self.later
                .insert((self.now() + self.parameters.settle, Wake::Pool(pool)));
        }
    }

    pub(super) fn disturb_all(&mut self, catalog: &Catalog) {
        catalog.pools().for_each(|pool| self.disturb(pool.id));
    }

    /// Asks where the replicas of a pool belong.
    pub(super) fn ask(&mut self, now: Time, catalog: &Catalog, id: PoolId, out: &mut Vec<Output>) {
        let Some(pool) = catalog.pool(id) else {
            self.pools.remove(&id);
            return;
        };
        let question = self.next_question;
        let plan = self.pools.entry(id).or_default();
        if plan.asked.is_some() {
            // An answer is on its way. What has changed since is asked when it is here.
            self.later
                .insert((now + self.parameters.settle, Wake::Pool(id)));
            return;
        }
        plan.is_disturbed = false;
        plan.changes.clear();
        plan.new.clear();
        plan.is_touched = false;
        let cluster = cluster_of(catalog, pool, self.parameters.new_pgs);
        if cluster.disks.is_empty() {
            return;
        }
        plan.asked = Some(question);
        self.next_question += 1;
        out.push(Output::Solve { question, cluster });
    }

    pub(super) fn on_solved(
        &mut self,
        catalog: &Catalog,
        question: u64,
        answer: Result<Plan, placement::Refusal>,
        out: &mut Vec<Output>,
    ) {
        let mut pools = self.pools.iter_mut();
        let Some((&id, plan)) = pools.find(|(_, plan)| plan.asked == Some(question)) else {
            return; // of an earlier leadership
        };
        plan.asked = None;
        let Some(pool) = catalog.pool(id) else {
            return;
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(refusal) => {
                if plan.refusal.replace(refusal) != Some(refusal) {
                    out.push(Output::Note(Note::CannotPlace { pool: id, refusal }));
                }
                return;
            }
        };
        plan.refusal = None;
        let mut new: BTreeMap<PgId, Vec<DiskId>> = BTreeMap::new();
        for change in answer.changes {
            match change.need {
                Need::New => new.entry(change.pg).or_default().extend(change.to),
                Need::Balance if pool.copies == 1 => {}
                _ => plan.changes.push_back(change),
            }
        }
        plan.new = new.into_values().collect();
        if !plan.changes.is_empty() {
            let count = plan.changes.len();
            out.push(Output::Note(Note::Moves { pool: id, count }));
        }
        if !plan.new.is_empty() || pool.laid_out.is_some() {
            self.lay_out(catalog, id);
        }
    }

    /// Proposes the next new PGs.
    fn lay_out(&mut self, catalog: &Catalog, id: PoolId) {
        let Some(plan) = self.pools.get_mut(&id) else {
            return;
        };
        let count = plan.new.len().min(PGS_OF_COMMAND_MAX);
        let replicas = plan.new.drain(..count).collect();
        let batch = match plan.new.is_empty() {
            true => Batch::Last,
            false => Batch::MoreFollow,
        };
        let command = Command::CreatePgs {
            pool: id,
            first: catalog.next_pg(),
            replicas,
            batch,
        };
        let errand = Errand::Layout(id);
        self.errands.retain(|(other, _)| *other != errand);
        self.errands.push_back((errand, command));
    }

    pub(super) fn on_laid_out(&mut self, _now: Time, catalog: &Catalog, id: PoolId) {
        let is_more = self.pools.get(&id).is_some_and(|plan| !plan.new.is_empty());
        if is_more {
            self.lay_out(catalog, id);
        }
    }

    /// Begins moves as far as there is room.
    pub(super) fn begin_moves(&mut self, catalog: &Catalog, out: &mut Vec<Output>) {
        let pools: Vec<PoolId> = self.pools.keys().copied().collect();
        for id in pools {
            let Some(plan) = self.pools.get_mut(&id) else {
                continue;
            };
            if !plan.changes.is_empty() {
                let mut changes = std::mem::take(&mut plan.changes);
                let is_touched = self.begin_of_pool(catalog, &mut changes, out);
                if let Some(plan) = self.pools.get_mut(&id) {
                    plan.changes = changes;
                    plan.is_touched |= is_touched;
                }
            }
            let moving = |pg: PgId| catalog.pg(pg).is_some_and(|pg| pg.pool == id);
            let is_touched = self.pools.get(&id).is_some_and(|plan| plan.is_touched);
            if is_touched
                && !catalog.wanted().any(moving)
                && !self
                    .in_flight
                    .values()
                    .any(|errand| matches!(errand, Errand::Begin(..)))
            {
                // Asked again: whether something is left, or was dropped. What waits and can't begin now that nothing is under way may wait for what only
                // another plan brings: a PG that lists one more than it has copies, because a move of it came to nothing.
                if let Some(plan) = self.pools.get_mut(&id) {
                    plan.is_touched = false;
                }
                self.disturb(id);
            }
        }
    }

    /// Begins what can begin, and drops what does not fit any more; whether there was any.
    fn begin_of_pool(
        &mut self,
        catalog: &Catalog,
        changes: &mut VecDeque<Change>,
        out: &mut Vec<Output>,
    ) -> bool {
        if !self.has_room() {
            return false;
        }
        let (mut all, mut of_disks) = self.moves(catalog);
        let (mut kept, mut is_touched) = (VecDeque::new(), false);
        for _ in 0..LOOKS_MAX {
            if all >= self.parameters.moves_max || !self.has_room() {
                break;
            }
            let Some(change) = changes.pop_front() else {
                break;
            };
            let want = self.narrowed(catalog, &change);
            let disks = || disks_at_work(catalog, want);
            let has_place = |disk: DiskId| {
                of_disks.get(&disk).copied().unwrap_or(0) < self.parameters.moves_a_disk
            };
            match self.fits(catalog, &change) {
                Fits::No => is_touched = true,
                Fits::Later => kept.push_back(change),
                Fits::Now if !disks().all(has_place) => kept.push_back(change),
                Fits::Now => {
                    for disk in disks() {
                        *of_disks.entry(disk).or_default() += 1;
                    }
                    all += 1;
                    is_touched = true;
                    let version = catalog.pg(change.pg).map_or(0, Pg::version);
                    let command = Command::WantMove {
                        pg: change.pg,
                        version,
                        from: want.from,
                        to: want.to,
                    };
                    self.propose(Errand::Begin(change.pg, want), command, out);
                }
            }
        }
        // In the order of need: what waits stands before what was not looked at.
        kept.append(changes);
        *changes = kept;
        is_touched
    }

    /// How many moves are under way, in all and at each disk, with those that are only proposed.
    fn moves(&self, catalog: &Catalog) -> (usize, BTreeMap<DiskId, usize>) {
        let wanted = catalog.wanted().filter_map(|pg| catalog.pg(pg)?.want);
        let proposed = self.in_flight.values().filter_map(|errand| match errand {
            Errand::Begin(pg, want) => {
                let is_counted = catalog.pg(*pg).is_some_and(|pg| pg.want.is_some());
                (!is_counted).then_some(*want)
            }
            _ => None,
        });
        let (mut all, mut of_disks) = (0, BTreeMap::new());
        for want in wanted.chain(proposed) {
            all += 1;
            for disk in disks_at_work(catalog, want) {
                *of_disks.entry(disk).or_default() += 1;
            }
        }
        (all, of_disks)
    }

    /// What is begun of a change. Of a PG that lists more replicas than it has copies one that is not in sync leaves first, alone: what
    /// is missing then is the next plan's.
    fn narrowed(&self, catalog: &Catalog, change: &Change) -> Move {
        let Change { from, to, .. } = *change;
        let is_tight = catalog.pg(change.pg).is_some_and(|pg| {
            let pool = catalog.pool(pg.pool);
            let role = from.and_then(|from| pg.configuration.role(from));
            pool.is_some_and(|pool| is_crowded(pg, pool))
                && role.is_some_and(|role| role != Role::InSync)
        });
        let to = to.filter(|_| !is_tight);
        Move { from, to }
    }

    /// Whether a change may begin.
    fn fits(&self, catalog: &Catalog, change: &Change) -> Fits {
        let Some(pg) = catalog.pg(change.pg) else {
            return Fits::No;
        };
        let is_over =
            change.from.is_some_and(|from| !pg.has(from)) || change.to.is_some_and(|to| pg.has(to));
        let target = change.to.map(|to| catalog.disk(to));
        let takes = |disk: &Disk| disk.state == DiskState::Serving && disk.weight() > 0;
        let takes = target.is_none_or(|target| target.is_some_and(takes));
        if is_over || !takes {
            // Of a PG that moves, the first move may be what is in the way of the second.
            return if takes && pg.want.is_some() {
                Fits::Later
            } else {
                Fits::No
            };
        }
        let is_held = |disk: DiskId| {
            let node = catalog.disk(disk).and_then(|disk| catalog.node(disk.node));
            node.is_some_and(|node| node.maintenance == Maintenance::On)
        };
        let members = pg.configuration.members();
        let is_whole = members.iter().all(|member| member.role == Role::InSync);
        let is_sourced = pg
            .configuration
            .in_sync()
            .any(|disk| self.gone(catalog, disk).is_none());
        let pool = catalog.pool(pg.pool);
        let is_crowded = pool.is_some_and(|pool| is_crowded(pg, pool));
        let is_ready = pg.want.is_none()
            && !(is_crowded && self.narrowed(catalog, change).to.is_some())
            && !self.busy.contains(&pg.id)
            && is_sourced
            && (is_whole || change.need == Need::Repair || is_crowded)
            && change
                .to
                .is_none_or(|to| self.is_here(catalog, to) && !is_held(to))
            && (change.need == Need::Repair || !change.from.is_some_and(is_held));
        match is_ready {
            true => Fits::Now,
            false => Fits::Later,
        }
    }
}

/// The disks that a move is work for. One that is lost gives nothing, so it bounds nothing: what was on it is copied from as many
/// disks as share PGs with it. (Counted like the others it had a disk made anew two replicas at a time, on any number of nodes.)
fn disks_at_work(catalog: &Catalog, want: Move) -> impl Iterator<Item = DiskId> {
    let gives = |disk: &DiskId| catalog.disk(*disk).is_some_and(|disk| disk.state.is_good());
    want.from.filter(gives).into_iter().chain(want.to)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fits {
    Now,
    Later,
    No,
}

/// What the solver is asked about a pool. Also for who wants to know what would be done if something were so.
pub fn cluster_of(catalog: &Catalog, pool: &Pool, new_pgs: NewPgs) -> Cluster {
    let asked = placement::Pool {
        copies: pool.copies as u8,
        level: pool.level,
    };
    let disk = |disk: &Disk| placement::Disk {
        id: disk.id,
        node: disk.node,
        rack: catalog
            .node(disk.node)
            .and_then(|node| node.rack)
            .unwrap_or(RackId(0)),
        weight: disk.weight(),
        state: match disk.state {
            DiskState::Serving => placement::DiskState::Serving,
            DiskState::Draining => placement::DiskState::Draining,
            DiskState::Missing | DiskState::OutOfService => placement::DiskState::Gone,
        },
    };
    let disks: Vec<placement::Disk> = catalog.disks_of_pool(pool.id).map(disk).collect();
    let old = catalog
        .pgs_of(pool.id)
        .iter()
        .filter_map(|pg| catalog.pg(*pg));
    let mut pgs: Vec<PgReplicas> = old.map(as_if_moved).collect();
    let present = pgs.len() as u32;
    if pool.copies > 1 && new_pgs == NewPgs::AsWanted {
        let room = PGS_MAX - catalog.pgs().len();
        let wanted = pgs_wanted(&disks, asked, present).min(present + room as u32);
        let first = catalog.next_pg().0;
        pgs.extend((first..first + (wanted - present)).map(|pg| PgReplicas {
            pg: PgId(pg),
            disks: Vec::new(),
        }));
    }
    Cluster {
        pool: asked,
        disks,
        pgs,
    }
}

/// The replicas of a PG when what is wanted of it is done.
fn as_if_moved(pg: &Pg) -> PgReplicas {
    let want = pg.want.unwrap_or(Move {
        from: None,
        to: None,
    });
    let stays = pg.disks().filter(|disk| Some(*disk) != want.from);
    let mut disks: Vec<DiskId> = stays.collect();
    disks.extend(want.to.filter(|to| !pg.has(*to)));
    disks.truncate(REPLICAS_MAX);
    PgReplicas { pg: pg.id, disks }
}
