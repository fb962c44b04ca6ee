//! How many PGs a pool should have.
//!
//! A disk's replicas are its share rounded, so its load is less than one replica off: with [`REPLICAS_MIN`]
//! replicas that is 5 %. A pool whose disks are alike gets [`REPLICAS_A_DISK`] a disk (3 %); where weights
//! differ, as many PGs as give its lightest disk [`REPLICAS_MIN`], but no more than [`GROWTH_MAX`] times as
//! many: one tiny disk must not make PGs of which the large ones have thousands. More PGs would cost memory,
//! versions and marks everywhere and spread no better.
//!
//! The same number answers for `local` volumes: they hash over the PGs with a replica on their node, so with
//! [`LOCAL_PGS_MIN`] of those no PG, and so no partner, carries more than 5 % of such a volume. A node has at
//! least what its heaviest disk has, and the lightest disk counted here has [`REPLICAS_MIN`]; `measure` names
//! the nodes that have fewer.
//!
//! It does not know what is in the PGs.

use super::cluster::{Disk, PGS_MAX, Pool};

/// Replicas of a disk where all disks weigh the same. As many as the catalog has given the first disk of a pool.
pub const REPLICAS_A_DISK: u32 = 32;
/// Replicas of the lightest disk: one of them is 5 %.
pub const REPLICAS_MIN: u32 = 20;
/// PGs with a replica on a node, so that none is more than 5 % of a `local` volume there.
pub const LOCAL_PGS_MIN: u32 = REPLICAS_MIN;
/// For light disks a pool gets at most so many times the PGs that it would have if all were alike.
pub const GROWTH_MAX: u32 = 8;

/// How many PGs a pool with these disks should have, where it has `present` now; 1 to [`PGS_MAX`], never less
/// than it has. What comes in addition gets the next numbers; a PG never changes its number, because
/// volumes hash over the PGs that there were when they were made.
///
/// ```text
///   alike    = ceil(32 n / copies)                    n disks that take replicas
///   lightest = ceil(20 W / (w copies))                W their weights, w the least of them
///   wanted   = max(alike, min(lightest, 8 alike))
/// ```
pub fn pgs_wanted(disks: &[Disk], pool: Pool, present: u32) -> u32 {
    let weights = disks.iter().filter(|disk| disk.takes());
    let weights = weights.map(|disk| u128::from(disk.weight));
    let weights = weights.collect::<Vec<u128>>();
    let copies = u128::from(pool.copies.max(1));
    let alike = (weights.len() as u128 * u128::from(REPLICAS_A_DISK)).div_ceil(copies);
    let all = weights.iter().sum::<u128>();
    let least = weights.iter().min().copied().unwrap_or(1);
    let lightest = (u128::from(REPLICAS_MIN) * all).div_ceil(least * copies);
    let wanted = alike.max(lightest.min(alike * u128::from(GROWTH_MAX)));
    let wanted = wanted.clamp(1, u128::from(PGS_MAX)) as u32;
    wanted.max(present)
}

#[cfg(test)]
mod tests {
    use super::super::cluster::{DiskState, Level, RackId};
    use super::*;
    use crate::base::{DiskId, NodeId};

    fn disks(weights: &[u64]) -> Vec<Disk> {
        let disk = |(at, &weight): (usize, &u64)| Disk {
            id: DiskId(at as u32),
            node: NodeId(at as u32),
            rack: RackId(0),
            weight,
            state: DiskState::Serving,
        };
        weights.iter().enumerate().map(disk).collect()
    }

    fn wanted(weights: &[u64], copies: u8, present: u32) -> u32 {
        let level = Level::Node;
        pgs_wanted(&disks(weights), Pool { copies, level }, present)
    }

    #[test]
    fn disks_that_are_alike_get_thirty_two_replicas_each() {
        assert_eq!(wanted(&[7], 1, 0), 32);
        assert_eq!(wanted(&[7; 3], 3, 0), 32);
        assert_eq!(wanted(&[7; 10_000], 3, 0), 106_667);
    }

    #[test]
    fn a_light_disk_gets_twenty_unless_it_is_too_light() {
        assert_eq!(wanted(&[10, 10, 10, 2], 1, 0), 320);
        assert_eq!(wanted(&[1_000_000, 1], 1, 0), 8 * 64);
    }

    #[test]
    fn the_number_grows_with_disks_and_never_shrinks() {
        assert_eq!(wanted(&[1; 6], 3, 32), 64);
        assert_eq!(wanted(&[1; 3], 3, 64), 64);
        assert_eq!(wanted(&[0, 0], 2, 5), 5);
        assert_eq!(wanted(&[], 2, 0), 1);
    }

    #[test]
    fn the_number_is_bounded() {
        assert_eq!(wanted(&[1; 30_000], 1, 0), PGS_MAX);
    }
}
