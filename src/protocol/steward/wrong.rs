//! Replicas that do not have what they should have: what is believed of that, and what is done.
//!
//! A replica says it of itself (its table is damaged), or another one that is in sync says it of it (they were compared). Words against who does not
//! answer need two accusers (R11), because a bad network card makes everybody else look silent. This is another thing: who says it has heard an
//! answer, holds the content against its own, and with two copies there is no second accuser. Nothing is taken out where nobody who is left is sound and there,
//! and what was said under another version does not count. `min_copies` protects no such replica: it is no copy, as one that counts as empty (R19) is none.

use super::machine::{REMEMBERED_MAX, Said, Steward};
use super::message::{Note, Output};
use crate::base::{DiskId, NodeId, PgId};
use crate::protocol::catalog::{Catalog, Pg};
use crate::protocol::replication::Role;
use crate::protocol::scrub::compare::Wrong;

impl Steward {
    pub(super) fn on_wrong(
        &mut self,
        catalog: &Catalog,
        by: NodeId,
        (id, version): (PgId, u32),
        disk: DiskId,
        why: Wrong,
    ) {
        let Some(pg) = catalog.pg(id).filter(|pg| pg.version() == version) else {
            return;
        };
        let node = |disk: DiskId| catalog.disk(disk).map(|disk| disk.node);
        let has_voice = match why {
            Wrong::Torn => node(disk) == Some(by),
            Wrong::LostWrite | Wrong::Outvoted => {
                let mut in_sync = pg.configuration.in_sync();
                in_sync.any(|other| node(other) == Some(by))
            }
        };
        let is_news = match pg.configuration.role(disk) {
            None | Some(Role::Out { since: 0 }) => false,
            Some(Role::InSync) => true,
            Some(_) => why == Wrong::Torn,
        };
        let known = self.wrong.get(&(id, disk)).map(|(of, ..)| *of);
        let has_room = self.wrong.len() < REMEMBERED_MAX || known.is_some();
        // Who is suspect is believed against itself: others accuse it because its store answers with errors.
        let is_heard = why == Wrong::Torn || !self.suspects.contains(&by);
        if has_voice && is_news && has_room && is_heard {
            if known != Some(version) {
                self.wrong.insert((id, disk), (version, why, Said::NotYet));
            }
            self.hurry_to_pg(id);
        }
    }

    /// Whether a replica is said to lack what it should have.
    pub(super) fn is_wrong(&self, pg: &Pg, disk: DiskId) -> bool {
        let said = self.wrong.get(&(pg.id, disk));
        said.is_some_and(|(version, ..)| *version == pg.version())
    }

    /// A replica that is to be emptied now.
    pub(super) fn wrong_one(
        &mut self,
        catalog: &Catalog,
        pg: &Pg,
        out: &mut Vec<Output>,
    ) -> Option<(DiskId, Wrong)> {
        let of_pg = (pg.id, DiskId(0))..=(pg.id, DiskId(u32::MAX));
        let named: Vec<(DiskId, u32, Wrong)> = self
            .wrong
            .range(of_pg)
            .map(|((_, disk), (version, why, _))| (*disk, *version, *why))
            .collect();
        let mut now = Vec::new();
        for (disk, version, why) in named {
            match version == pg.version() {
                true => now.push((disk, why)),
                // It is said again, if it still is so.
                false => drop(self.wrong.remove(&(pg.id, disk))),
            }
        }
        let in_sync = || pg.configuration.in_sync();
        for (disk, why) in &now {
            let is_sound = |other: &DiskId| now.iter().all(|(wrong, _)| wrong != other);
            let is_counted = pg.configuration.role(*disk) == Some(Role::InSync);
            let is_left = in_sync().any(|other| is_sound(&other) && self.is_here(catalog, other));
            if !is_counted || is_left {
                return Some((*disk, *why));
            }
        }
        for (disk, why) in now {
            if let Some((_, _, said)) = self.wrong.get_mut(&(pg.id, disk))
                && *said == Said::NotYet
            {
                *said = Said::Told;
                let pg = pg.id;
                out.push(Output::Note(Note::WrongStays { pg, disk, why }));
            }
        }
        None
    }
}
