//! What disks that do not serve mean for volumes.
//!
//! With one copy of everything, a volume is as whole as the disks that its placement groups are on: what lies on the
//! others goes on, and what lies on a disk that does not serve answers with I/O errors. Nothing of this is
//! remembered: it follows from the catalog and from which disks are open, so it cannot be out of date.

use super::notes::subject;
use super::{AlertKind, Host, lock};
use crate::base::DiskId;
use crate::protocol::catalog::{self, Catalog, VolumeState};
use std::collections::BTreeSet;

/// How many volumes the reason of an alert names.
const NAMES_MAX: usize = 5;

/// How much of a volume can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Health {
    Whole,
    /// Parts answer with errors; why.
    Degraded(String),
    /// All of it would; why.
    Failed(String),
}

impl Host {
    pub(super) fn health(&self, catalog: &Catalog, volume: &catalog::Volume) -> Health {
        if self.is_of_cluster() {
            // Its placement groups have replicas elsewhere; how those are is not a matter of this node's disks.
            return Health::Whole;
        }
        let placement = catalog.placement(volume);
        let disks = lock(&self.inner.disks);
        let open = |disk: DiskId| disks.get(&disk).is_some_and(|now| now.open);
        judge(placement.iter().map(|&(_, disk)| disk), open, |disk| {
            subject(disk, catalog.disk(disk).map(|disk| disk.path.as_str()))
        })
    }

    /// Which volumes a disk's failure harms, for people; empty where none.
    pub(super) fn harmed_by(&self, disk: DiskId) -> String {
        let catalog = self.manager().catalog();
        let harmed = catalog.volumes().filter(|volume| {
            let placement = catalog.placement(volume);
            placement.iter().any(|&(_, of)| of == disk)
        });
        let names: Vec<&str> = harmed.map(|volume| volume.name.as_str()).collect();
        name_some(&names)
    }

    /// Says of every volume that cannot be reached at all any more that it is unavailable, and lets no new client
    /// attach to it. Clients that are attached stay: they get I/O errors, and detach by themselves.
    pub(super) async fn refuse_failed_volumes(&self) {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        for volume in catalog.volumes() {
            if volume.state != VolumeState::Ready {
                continue;
            }
            if let Health::Failed(reason) = self.health(&catalog, volume) {
                let subject = format!("volume {}", volume.name);
                self.alerts()
                    .raise(AlertKind::VolumeUnavailable, &subject, reason.as_str());
                lock(&self.inner.unavailable).insert(volume.id, reason);
            }
        }
        self.show_exports().await;
    }
}

/// The health of a volume whose placement groups are on these disks.
fn judge(
    placement: impl Iterator<Item = DiskId>,
    open: impl Fn(DiskId) -> bool,
    name: impl Fn(DiskId) -> String,
) -> Health {
    let (mut all, mut lost, mut disks) = (0, 0, BTreeSet::new());
    for disk in placement {
        all += 1;
        if !open(disk) {
            lost += 1;
            disks.insert(disk);
        }
    }
    if lost == 0 {
        return Health::Whole;
    }
    let disks: Vec<String> = disks.into_iter().map(name).collect();
    let (disks, serve) = match disks.as_slice() {
        [one] => (one.clone(), "which does not serve"),
        _ => (disks.join(", "), "which do not serve"),
    };
    if lost == all {
        return Health::Failed(format!("all of it is on {disks}, {serve}"));
    }
    Health::Degraded(format!(
        "{lost} of its {all} placement groups are on {disks}, {serve}: reads and writes there fail"
    ))
}

fn name_some(names: &[&str]) -> String {
    let (some, rest) = names.split_at(names.len().min(NAMES_MAX));
    match (some.is_empty(), rest.len()) {
        (true, _) => String::new(),
        (_, 0) => some.join(", "),
        (_, more) => format!("{} and {more} more", some.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(disks: &[u32], open: &[u32]) -> Health {
        judge(
            disks.iter().map(|&disk| DiskId(disk)),
            |disk| open.contains(&disk.0),
            |disk| format!("disk {disk}"),
        )
    }

    #[test]
    fn a_volume_is_as_whole_as_its_disks() {
        assert_eq!(judged(&[1, 2, 1, 2], &[1, 2, 3]), Health::Whole);
        let Health::Degraded(why) = judged(&[1, 2, 1, 1], &[1]) else {
            panic!("a part is lost");
        };
        assert!(
            why.starts_with("1 of its 4 placement groups are on disk 2,"),
            "{why}"
        );
        let Health::Failed(why) = judged(&[1, 2], &[3]) else {
            panic!("all of it is lost");
        };
        assert!(why.contains("disk 1, disk 2, which do not"), "{why}");
    }

    #[test]
    fn of_many_volumes_some_are_named() {
        assert_eq!(name_some(&[]), "");
        assert_eq!(name_some(&["a", "b"]), "a, b");
        assert_eq!(
            name_some(&["a", "b", "c", "d", "e", "f", "g"]),
            "a, b, c, d, e and 2 more"
        );
    }
}
