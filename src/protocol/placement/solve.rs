//! Solving: from a cluster to the changes that balance it.
//!
//! In two turns. First the PGs that have replicas are balanced over the disks there are now; then the new PGs
//! are dealt out. Had both been done at once, twice the disks and twice the PGs would be balanced by giving all
//! new PGs to all new disks, and the volumes that hash over the old PGs would never see a new disk.
//!
//! Invariants: afterwards every PG has `copies` replicas in different domains, and every disk its share
//! rounded down or up. It does not know why the cluster changed.

use super::assignment::Assignment;
use super::change::{Change, changes};
use super::cluster::{Cluster, Refusal};
use super::layout::Layout;
use super::replicas::Replicas;
use super::share::{Share, fair_shares, full_domains, targets};

/// What is to be done, and what it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which to begin them.
    pub changes: Vec<Change>,
    /// Replicas that are copied, of PGs that had some already.
    pub moved: u32,
    /// What any solver must copy, by the definition of the door. It is no exact minimum: among few domains more
    /// may be needed, and rounding may save a little of what a full domain is short of.
    pub unavoidable: u32,
    /// Replicas of new PGs: nothing is copied for them.
    pub placed: u32,
}

/// Solves a pool.
///
/// # Errors
/// A [`Refusal`] where the cluster contradicts itself or cannot hold what the pool asks for.
pub fn solve(cluster: &Cluster) -> Result<Plan, Refusal> {
    let layout = Layout::new(cluster)?;
    let numbers = 0..layout.pgs.len() as u32;
    let (new, old) = numbers.partition::<Vec<u32>, _>(|&pg| layout.present[pg as usize].len() == 0);
    let old_shares = fair_shares(&layout, old.len());
    let all_shares = fair_shares(&layout, layout.pgs.len());

    let kept = kept(&layout, &old_shares);
    let kept_loads = loads(&layout, &kept);
    let unavoidable = unavoidable(&layout, &old_shares, &kept, &kept_loads, &old);
    let old_targets = targets(&layout, &old_shares, &kept_loads, old.len());
    let mut assignment = Assignment::new(&layout, &all_shares, kept, old_targets);
    settle(&mut assignment, &old);
    let moved = copied(&layout, &assignment, &old);

    let all_targets = targets(&layout, &all_shares, &assignment.load, layout.pgs.len());
    assignment.aim(all_targets);
    settle(&mut assignment, &new);
    debug_assert_eq!(assignment.load, assignment.targets);
    let moved_at_last = copied(&layout, &assignment, &old);
    debug_assert!(moved_at_last >= moved);
    Ok(Plan {
        changes: changes(&layout, &assignment.replicas),
        moved: moved_at_last,
        unavoidable,
        placed: copied(&layout, &assignment, &new),
    })
}

/// Fills the holes of `pgs`, and brings every disk to its target.
fn settle(assignment: &mut Assignment, pgs: &[u32]) {
    let copies = assignment.copies();
    let has_hole = |pg: &&u32| assignment.replicas[**pg as usize].len() < copies;
    let holes = pgs.iter().filter(has_hole).copied();
    let holes = holes.collect::<Vec<u32>>();
    assignment.fill(&holes);
    assignment.shed();
    assignment.repair(&holes);
}

/// The replicas that may stay: on disks that take replicas, one in a domain, no more than there are copies. Of
/// several that exclude one another, the one on the disk that is furthest below its share stays.
fn kept(layout: &Layout, shares: &[Share]) -> Vec<Replicas> {
    let values = shares.iter().map(|share| share.value());
    let values = values.collect::<Vec<f64>>();
    let mut load = loads(layout, &layout.present);
    let mut all = Vec::with_capacity(layout.present.len());
    for present in &layout.present {
        let mut order = present.as_slice().to_vec();
        order.retain(|&disk| layout.disks[disk as usize].takes());
        let over = |disk: u32| f64::from(load[disk as usize]) - values[disk as usize];
        order.sort_by(|&a, &b| over(a).total_cmp(&over(b)).then(a.cmp(&b)));
        let mut kept = Replicas::default();
        for disk in order {
            if kept.len() < layout.copies() && !layout.has_domain(&kept, disk) {
                kept.add(disk);
            } else {
                load[disk as usize] -= 1;
            }
        }
        all.push(kept);
    }
    all
}

fn loads(layout: &Layout, replicas: &[Replicas]) -> Vec<u32> {
    let mut loads = vec![0; layout.disks.len()];
    for disk in replicas.iter().flat_map(|of| of.as_slice()) {
        loads[*disk as usize] += 1;
    }
    loads
}

/// The replicas that have to be copied at least, of three bounds the highest: what has to arrive at disks; what
/// is missing and what has to leave; and of each PG, what it misses, or the full domains that it is not in.
fn unavoidable(
    layout: &Layout,
    shares: &[Share],
    kept: &[Replicas],
    loads: &[u32],
    pgs: &[u32],
) -> u32 {
    let missing = (pgs.len() * layout.copies()) as u32 - loads.iter().sum::<u32>();
    let each = || shares.iter().zip(loads);
    let leave = each().map(|(share, load)| load.saturating_sub(share.ceil()));
    let arrive = each().map(|(share, load)| share.floor().saturating_sub(*load));
    let full = full_domains(layout);
    let of_pg = |pg: &u32| {
        let replicas = &kept[*pg as usize];
        let absent = full
            .iter()
            .filter(|&&disk| !layout.has_domain(replicas, disk));
        absent.count().max(layout.copies() - replicas.len()) as u32
    };
    let of_pgs = pgs.iter().map(of_pg).sum::<u32>();
    let of_disks = arrive.sum::<u32>().max(missing + leave.sum::<u32>());
    of_disks.max(of_pgs)
}

/// How many replicas of `pgs` are where they were not.
fn copied(layout: &Layout, assignment: &Assignment, pgs: &[u32]) -> u32 {
    let is_new = |pg: usize| {
        let before = &layout.present[pg];
        let now = assignment.replicas[pg].iter();
        now.filter(|&disk| !before.has(disk)).count() as u32
    };
    pgs.iter().map(|&pg| is_new(pg as usize)).sum()
}
