//! A disk that another one of the same node takes the place of: the new one is added, the old one drained. What moves goes where the solver wants it, not all of it to the new disk.
//!
//! Nothing is remembered. Said again after an interruption, it finds the new disk under its path, and the old one draining. A disk that died is replaced in the same way:
//! what was on it is made anew from the other copies, at once.

use super::arrival::disk_at;
use super::drain::may_go;
use super::notes::subject;
use super::view::no_disk;
use super::{Host, lock, moves};
use crate::api::model::{DiskAdd, DiskReplace, DiskReplaced, ErrorBody};
use crate::base::DiskId;
use crate::protocol::catalog::{self, Command, DiskState};
use std::collections::BTreeSet;

impl Host {
    /// Adds the new disk where it is not there yet, and has everything on the old one move away. Answered before it has.
    pub async fn replace_disk(
        &self,
        id: DiskId,
        replace: DiskReplace,
    ) -> Result<DiskReplaced, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        let old = catalog.disk(id).ok_or_else(|| no_disk(id))?;
        self.disks_can_move()?;
        self.disk_is_here(&catalog, old)?;
        let pool = catalog.pool(old.pool).map(|pool| pool.name.clone());
        let add = DiskAdd {
            path: replace.path,
            size_bytes: replace.size_bytes,
            pool,
            dry_run: replace.dry_run,
        };
        let there = disk_at(&catalog, self.inner.parts.node, &add.path);
        if let Some(new) = there {
            self.may_take_its_place(old, new, add.size_bytes)?;
        }
        let going = BTreeSet::from([id]);
        let what = format!("disk {id}");
        let new = match there {
            Some(new) => {
                may_go(&catalog, &going, &what)?;
                new.id
            }
            None => {
                // Before anything is written: the new disk may be too small.
                let tried = self.try_disk(&add).await?;
                may_go(&tried.catalog, &going, &what)?;
                if add.dry_run {
                    return self.would_replace(tried, id).await;
                }
                DiskId(self.take_in(&add).await?.id)
            }
        };
        if add.dry_run {
            let mut seen = self.both(id, new)?;
            seen.old.moves = Some(self.moves_of(&catalog, going).await?);
            return Ok(seen);
        }
        for state in states(old.state, self.has_failed(id).is_some()) {
            let command = Command::SetDiskState { disk: id, state };
            let asked = self.manager().propose(command).await;
            self.known(&subject(id, Some(&old.path)), asked)?;
        }
        tracing::info!(old = %id, %new, path = add.path, "a disk is replaced");
        self.both(id, new)
    }

    fn both(&self, old: DiskId, new: DiskId) -> Result<DiskReplaced, ErrorBody> {
        Ok(DiskReplaced {
            old: self.disk(old)?,
            new: self.disk(new)?,
        })
    }

    /// What would come of it with a disk that is not there yet.
    async fn would_replace(
        &self,
        mut tried: super::arrival::Tried,
        old: DiskId,
    ) -> Result<DiskReplaced, ErrorBody> {
        let going = BTreeSet::from([old]);
        let mut moved = self.moves_of(&tried.catalog, going.clone()).await?;
        // No node says it of a disk that is not there.
        for to in &mut moved.to {
            if to.disk == tried.disk.0 {
                to.free_bytes = Some(tried.capacity_bytes);
                to.has_room = to.bytes.map(|bytes| bytes <= tried.capacity_bytes);
            }
        }
        tried.catalog = moves::tried(&tried.catalog, &going)?;
        let new = self.view_tried(tried).await?;
        let mut old = self.disk(old)?;
        old.moves = Some(moved);
        Ok(DiskReplaced { old, new })
    }

    /// Refuses a disk that is there already and cannot take the place of another one.
    fn may_take_its_place(
        &self,
        old: &catalog::Disk,
        new: &catalog::Disk,
        size: Option<u64>,
    ) -> Result<(), ErrorBody> {
        is_another(old, new, size)?;
        let Some(why) = self.has_failed(new.id) else {
            return Ok(());
        };
        let message = format!("disk {} at {} does not serve: {why}", new.id, new.path);
        Err(ErrorBody::conflict("path", message, "name another disk"))
    }

    /// Why a disk of this node does not serve; nothing where it does.
    fn has_failed(&self, id: DiskId) -> Option<String> {
        let disks = lock(&self.inner.disks);
        disks.get(&id).and_then(|now| now.failed.clone())
    }
}

/// The states that a disk is to have one after the other. A dead one counts as missing at once: drained only, nothing of it would be made anew before ten minutes are
/// over. It is drained before that, so that it goes on so if it comes back. One that is missing or out of service is made anew elsewhere anyway.
fn states(now: DiskState, is_dead: bool) -> impl Iterator<Item = DiskState> {
    let drains = (now == DiskState::Serving).then_some(DiskState::Draining);
    let goes = (is_dead && now.is_good()).then_some(DiskState::Missing);
    drains.into_iter().chain(goes)
}

fn is_another(
    old: &catalog::Disk,
    new: &catalog::Disk,
    size: Option<u64>,
) -> Result<(), ErrorBody> {
    let (id, path) = (new.id, &new.path);
    let conflict = |message: String, hint: &str| Err(ErrorBody::conflict("path", message, hint));
    if new.id == old.id {
        let message = format!("{path} is the path of disk {id} itself");
        let hint = "name the new one by another path, as below /dev/disk/by-id";
        return conflict(message, hint);
    }
    if new.state != DiskState::Serving {
        let message = format!("disk {id} at {path} takes no data: it goes itself, or was away");
        return conflict(message, "name another disk");
    }
    if new.pool != old.pool {
        let message = format!(
            "disk {id} at {path} is of another pool than disk {}",
            old.id
        );
        return conflict(message, "name another disk");
    }
    match size {
        Some(size) if size != new.size => {
            let message = format!("disk {id} at {path} has {} bytes, not {size}", new.size);
            let hint = "it is there already: leave the size out";
            Err(ErrorBody::invalid("size_bytes", message, hint))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::moves::tests::{GIB, catalog};
    use super::*;
    use crate::protocol::catalog::Catalog;

    fn refused(catalog: &Catalog, new: u32, size: Option<u64>) -> String {
        let disk = |id| catalog.disk(DiskId(id)).unwrap();
        is_another(disk(1), disk(new), size)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_disk_drains_and_a_dead_one_is_missing_at_once() {
        use DiskState::{Draining, Missing, OutOfService, Serving};
        let all = |now, is_dead| states(now, is_dead).collect::<Vec<DiskState>>();
        assert_eq!(all(Serving, false), [Draining]);
        assert_eq!(all(Serving, true), [Draining, Missing]);
        assert_eq!(all(Draining, true), [Missing]);
        assert_eq!(all(Draining, false), []);
        assert_eq!(all(Missing, true), []);
        assert_eq!(all(OutOfService, true), []);
    }

    #[test]
    fn a_disk_that_is_there_takes_the_place_of_another_one_only_where_it_serves_in_its_pool() {
        let mut catalog = catalog();
        let disk = |id| catalog.disk(DiskId(id)).unwrap();
        assert_eq!(is_another(disk(1), disk(2), None), Ok(()));
        assert_eq!(is_another(disk(1), disk(2), Some(GIB)), Ok(()));
        assert!(refused(&catalog, 2, Some(2 * GIB)).contains("leave the size out"));
        assert!(refused(&catalog, 1, None).contains("by-id"));
        let state = DiskState::Draining;
        let disk = DiskId(2);
        catalog
            .apply(&Command::SetDiskState { disk, state })
            .unwrap();
        assert!(refused(&catalog, 2, None).contains("takes no data"));
    }
}
