//! What is to be done about one PG: at most one step, from the catalog and from who is there.
//!
//! The order of the looks is the order of need. A step that was decided on an older view is refused by its version, and decided anew.
//!
//! # The end of a move
//! The old replica goes when as many as the pool has copies are in sync without it. While another replica is out, it stays: that one
//! comes back, or its disk is called missing, and then the one that is lost is taken off the list in its place. What has not moved is
//! the next plan's.

use super::machine::{Steward, Wake};
use super::message::{Note, Output, Why};
use super::presence::Belief;
use super::rule::Rule;
use crate::base::{DiskId, Time};
use crate::protocol::catalog::{Catalog, Command, DiskState, Pg, Pool};
use crate::protocol::replication::{Reconfigure, Role};

impl Steward {
    /// The next step of a PG.
    pub(super) fn decide(
        &mut self,
        now: Time,
        catalog: &Catalog,
        pg: &Pg,
        out: &mut Vec<Output>,
    ) -> Option<Command> {
        let pool = catalog.pool(pg.pool)?;
        if let Some((disk, why)) = self.wrong_one(catalog, pg, out) {
            self.put_off(now, pg.id, disk);
            let (of, why) = (pg.id, Why::Wrong(why));
            out.push(Output::Note(Note::Evicted { pg: of, disk, why }));
            let change = match self.off.on(Rule::Empty) {
                true => Reconfigure::Evict { disk },
                false => Reconfigure::Empty { disk },
            };
            return Some(reconfigure(pg, change));
        }
        let evicted = self
            .failed_joiner(catalog, pg)
            .or_else(|| self.gone_in_sync(now, catalog, pg, pool));
        if let Some((disk, why)) = evicted {
            if matches!(why, Why::Accused | Why::SessionLost) {
                self.put_off(now, pg.id, disk);
            }
            let pg_id = pg.id;
            out.push(Output::Note(Note::Evicted {
                pg: pg_id,
                disk,
                why,
            }));
            return Some(reconfigure(pg, Reconfigure::Evict { disk }));
        }
        self.promotion(catalog, pg)
            .or_else(|| self.next_of_move(catalog, pg, pool))
            .or_else(|| self.join(now, catalog, pg))
    }

    /// A joiner that fails is dropped at once: no copy is lost with it, and writes wait for it.
    fn failed_joiner(&self, catalog: &Catalog, pg: &Pg) -> Option<(DiskId, Why)> {
        let members = pg.configuration.members().iter();
        members
            .filter_map(|member| match member.role {
                Role::Joining { session, .. } => Some((member.disk, session)),
                _ => None,
            })
            .find_map(|(disk, session)| {
                let is_lost = self.lost.get(&(pg.id, disk)) == Some(&session);
                let is_accused =
                    || self.is_accused(catalog, pg.id, pg.version(), disk) != Belief::None;
                let why = match self.gone(catalog, disk) {
                    Some(why) => why,
                    None if is_lost => Why::SessionLost,
                    None if is_accused() => Why::Accused,
                    None => return None,
                };
                Some((disk, why))
            })
    }

    /// A replica in sync that is gone, where enough are left, and one of them surely is there. One of whom nothing is known yet may
    /// have failed for good while nobody led, and then the one that is taken out had the last copy.
    ///
    /// One that lacks what it should have counts as little: who is gone has what it lacks, and may come back. That goes on until a person takes the disk of
    /// who is gone out of service, and so says that what is left is to be used.
    fn gone_in_sync(
        &self,
        now: Time,
        catalog: &Catalog,
        pg: &Pg,
        pool: &Pool,
    ) -> Option<(DiskId, Why)> {
        let least = (pool.min_copies as usize).max(1);
        if pg.configuration.in_sync().count() <= least {
            return None;
        }
        let why = |disk: DiskId| {
            self.gone(catalog, disk).or_else(|| {
                let words = self.is_accused(catalog, pg.id, pg.version(), disk);
                (words == Belief::Enough).then_some(Why::Accused)
            })
        };
        let in_sync = || pg.configuration.in_sync();
        let is_there = |disk: DiskId| why(disk).is_none() && self.is_here(catalog, disk);
        let is_sound = |disk: DiskId| is_there(disk) && !self.is_wrong(pg, disk);
        let is_given_up = |disk: DiskId| {
            let of = catalog.disk(disk);
            of.is_some_and(|disk| disk.state == DiskState::OutOfService)
        };
        let is_any_sound = in_sync().any(is_sound);
        if !is_any_sound && !in_sync().any(is_there) {
            return None;
        }
        let may_go = in_sync().filter(|disk| is_any_sound || is_given_up(*disk));
        let mut may_go = may_go.filter(|disk| !self.is_spared(now, catalog, *disk));
        may_go.find_map(|disk| why(disk).map(|why| (disk, why)))
    }

    /// A joiner that has everything, by its session (R16).
    fn promotion(&mut self, catalog: &Catalog, pg: &Pg) -> Option<Command> {
        let members = pg.configuration.members().iter();
        let found = members.clone().find_map(|member| {
            let Role::Joining { session, .. } = member.role else {
                return None;
            };
            let filled = self.filled.get(&(pg.id, member.disk))?;
            let is_same = *filled == session || self.off.on(Rule::R16);
            let is_here = self.is_here(catalog, member.disk);
            (is_same && is_here).then_some((member.disk, session))
        });
        // What was said of sessions that are over is forgotten.
        for member in members {
            let key = (pg.id, member.disk);
            if !matches!(member.role, Role::Joining { .. }) {
                if member.role == Role::InSync {
                    self.back_off.remove(&key);
                }
                self.lost.remove(&key);
                if !self.off.on(Rule::R16) {
                    self.filled.remove(&key);
                }
            }
        }
        let (disk, session) = found?;
        self.filled.remove(&(pg.id, disk));
        Some(reconfigure(pg, Reconfigure::Promote { disk, session }))
    }

    /// The next step of a move that is under way.
    fn next_of_move(&self, catalog: &Catalog, pg: &Pg, pool: &Pool) -> Option<Command> {
        let want = pg.want?;
        let remove = |disk| Some(reconfigure(pg, Reconfigure::Remove { disk }));
        let drop_it = Some(Command::DropMove {
            pg: pg.id,
            version: pg.version(),
        });
        let configuration = &pg.configuration;
        let state = |disk: DiskId| catalog.disk(disk).map(|disk| disk.state);
        if let Some(to) = want.to {
            match configuration.role(to) {
                None if state(to) == Some(DiskState::Serving) && !is_crowded(pg, pool) => {
                    return Some(reconfigure(pg, Reconfigure::Add { disk: to }));
                }
                None => return drop_it,
                Some(Role::Out { .. }) if state(to) != Some(DiskState::Serving) => {
                    return remove(to);
                }
                Some(Role::Out { .. } | Role::Joining { .. }) => return None,
                Some(Role::InSync) => {}
            }
        }
        let Some(from) = want.from else {
            return drop_it;
        };
        match configuration.role(from) {
            None => return drop_it,
            Some(Role::Out { .. } | Role::Joining { .. }) => return remove(from),
            Some(Role::InSync) => {}
        }
        let least = pool.copies.max(pool.min_copies) as usize;
        if configuration.in_sync().count() > least {
            // Who lacks what it should have stays in sync as long as nobody sound is there: then the sound one must stay as well.
            let mut others = configuration.in_sync().filter(|disk| *disk != from);
            let is_sound = |disk: DiskId| !self.is_wrong(pg, disk);
            return others.any(is_sound).then(|| remove(from)).flatten();
        }
        let is_lost = |disk: &DiskId| !state(*disk).is_some_and(DiskState::is_good);
        let out = configuration.members().iter().filter(|member| {
            matches!(member.role, Role::Out { .. }) && Some(member.disk) != want.to
        });
        let mut lost = out.map(|member| member.disk).filter(is_lost);
        match lost.next() {
            Some(lost) => remove(lost),
            None if configuration.members().len() <= pool.copies as usize => drop_it,
            None => None,
        }
    }

    /// A replica that is out, and is there, joins: if somebody can fill it, and there is a place.
    fn join(&mut self, now: Time, catalog: &Catalog, pg: &Pg) -> Option<Command> {
        let mut in_sync = pg.configuration.in_sync();
        if !in_sync.any(|disk| self.gone(catalog, disk).is_none()) {
            return None;
        }
        let members = pg.configuration.members().iter();
        let out = members.filter(|member| matches!(member.role, Role::Out { .. }));
        for disk in out.map(|member| member.disk) {
            if !self.is_here(catalog, disk)
                || self.is_accused(catalog, pg.id, pg.version(), disk) == Belief::Enough
            {
                continue;
            }
            let back_off = self.back_off.get(&(pg.id, disk));
            if let Some(until) = back_off.map(|one| one.until).filter(|until| *until > now) {
                self.later.insert((until, Wake::Pg(pg.id)));
                continue;
            }
            let taken = self.joining.get(&disk).map_or(0, |pgs| pgs.len());
            if taken >= self.parameters.joins_a_disk {
                self.wait_for_place(disk, pg.id);
                continue;
            }
            return Some(reconfigure(pg, Reconfigure::Join { disk }));
        }
        None
    }
}

/// Whether a PG lists one replica more than it has copies: no further one is listed before one has left.
pub(super) fn is_crowded(pg: &Pg, pool: &Pool) -> bool {
    pg.configuration.members().len() > pool.copies as usize
}

fn reconfigure(pg: &Pg, change: Reconfigure) -> Command {
    Command::Reconfigure {
        pg: pg.id,
        version: pg.version(),
        change,
    }
}
