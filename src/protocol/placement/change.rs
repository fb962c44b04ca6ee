//! Changes: what the manager does one after another to come from the map that is to the map that was found.
//!
//! Of one PG, what leaves is matched with what arrives: first inside a failure domain, then what is lost with
//! whatever is left. After that the other arrivals are in domains that nothing shares, so in every order each
//! step keeps the domain rule where it held before, and breaks it no further where it did not.
//!
//! The order is by need: lost replicas first, of the PGs with the fewest good ones left before others; then what
//! breaks the domain rule; then drained disks; then balance; new PGs last. A PG changes one replica at a time:
//! its next change is begun when the one before is done.
//!
//! Invariants: applied in this order, the changes of a plan give its map. It does not know how long a change
//! takes.

use super::cluster::{Cluster, DiskState};
use super::layout::Layout;
use super::replicas::Replicas;
use crate::base::{DiskId, FixedMap, PgId};

/// Why a replica is made or moved. The order is that of need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// A copy is missing, or on a disk that is gone.
    Repair,
    /// Two replicas lie in one failure domain, or there are more than copies.
    Rule,
    /// The disk that it lies on is drained.
    Drain,
    /// Fair shares have changed.
    Balance,
    /// The PG is new.
    New,
}

/// One step of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub pg: PgId,
    /// The replica that ends; nothing where one is only made.
    pub from: Option<DiskId>,
    /// The replica that is made first; nothing where there was one too many.
    pub to: Option<DiskId>,
    pub need: Need,
}

/// Carries changes out on the values.
///
/// # Panics
/// Where a change is of a PG that `cluster` does not have.
pub fn apply(cluster: &mut Cluster, changes: &[Change]) {
    let numbers = cluster.pgs.iter().enumerate();
    let numbers = numbers.map(|(at, pg)| (pg.pg, at));
    let numbers = numbers.collect::<FixedMap<PgId, usize>>();
    for change in changes {
        let disks = &mut cluster.pgs[numbers[&change.pg]].disks;
        disks.retain(|&disk| Some(disk) != change.from);
        disks.extend(change.to);
    }
}

/// The changes that lead from the present replicas to `after`.
pub(super) fn changes(layout: &Layout, after: &[Replicas]) -> Vec<Change> {
    let mut found = Vec::new();
    for (at, (before, after)) in layout.present.iter().zip(after).enumerate() {
        if before.as_slice() != after.as_slice() {
            changes_of_pg(layout, at, before, after, &mut found);
        }
    }
    // Stable: what one PG needs equally much stays in its order.
    found.sort_by_key(|(change, good)| (change.need, *good, change.pg));
    found.into_iter().map(|(change, _)| change).collect()
}

/// Appends the changes of one PG, each with the number of good replicas that the PG had.
fn changes_of_pg(
    layout: &Layout,
    at: usize,
    before: &Replicas,
    after: &Replicas,
    found: &mut Vec<(Change, usize)>,
) {
    let state = |disk: u32| layout.disks[disk as usize].state;
    let lost = |disk: u32| state(disk) == DiskState::Gone;
    let good = before.iter().filter(|&disk| !lost(disk)).count();
    let leaving = before.iter().filter(|&disk| !after.has(disk));
    let mut leaving = leaving.collect::<Vec<u32>>();
    // What is lost is replaced before what is drained, and that before what is only moved.
    leaving.sort_by_key(|&disk| (need(layout, before, disk), disk));
    let arriving = after.iter().filter(|&disk| !before.has(disk));
    let mut arriving = arriving.collect::<Vec<u32>>();
    let mut matched = Vec::with_capacity(leaving.len());
    let domain = |disk: u32| layout.domain_of[disk as usize];
    leaving.retain(|&from| {
        let inside = arriving.iter().position(|&to| domain(to) == domain(from));
        if let Some(place) = inside {
            matched.push((Some(from), Some(arriving.remove(place))));
        }
        inside.is_none()
    });
    for from in leaving {
        let to = (!arriving.is_empty()).then(|| arriving.remove(0));
        matched.push((Some(from), to));
    }
    matched.extend(arriving.into_iter().map(|to| (None, Some(to))));
    for (from, to) in matched {
        let need = match (from, before.len()) {
            (Some(from), _) => need(layout, before, from),
            (None, 0) => Need::New,
            (None, _) => Need::Repair,
        };
        let id = |disk: u32| layout.disks[disk as usize].id;
        let change = Change {
            pg: layout.pgs[at],
            from: from.map(id),
            to: to.map(id),
            need,
        };
        found.push((change, good));
    }
}

/// Why the replica on `disk` leaves a PG that has `replicas`.
fn need(layout: &Layout, replicas: &Replicas, disk: u32) -> Need {
    let of = &layout.disks[disk as usize];
    let others = replicas.without(disk);
    let is_too_much = others.len() >= layout.copies() || layout.has_domain(&others, disk);
    match of.state {
        DiskState::Gone => Need::Repair,
        _ if is_too_much => Need::Rule,
        _ if !of.takes() => Need::Drain,
        _ => Need::Balance,
    }
}
