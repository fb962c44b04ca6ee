//! What a drain would move, and where to: the question that the steward would ask if it were said, answered by the same solver. Nothing is changed.
//!
//! How many copies go where follows from the catalog. How many bytes that is, the nodes say of their disks (`cluster::Work`): a copy is taken to hold its part of what is
//! in use on its disk. What a node does not say is not known.
//!
//! It is about what is there now: who drains a minute later, after a disk was added, moves something else.

use super::Host;
use super::cluster::name_of;
use super::pools;
use crate::api::model::{ErrorBody, MoveTo, Moves};
use crate::base::{DiskId, NodeId};
use crate::cluster::{DiskWork, Work};
use crate::protocol::catalog::{Catalog, Command, DiskState};
use crate::protocol::placement::solve;
use crate::protocol::steward::{self, NewPgs};
use std::collections::{BTreeMap, BTreeSet};

impl Host {
    /// What draining these disks would move.
    pub(super) async fn moves_of(
        &self,
        catalog: &Catalog,
        going: BTreeSet<DiskId>,
    ) -> Result<Moves, ErrorBody> {
        let looked = self.look_at_pgs(catalog);
        let lacks = catalog.volumes().filter(|volume| {
            let look = looked.get(&volume.pool);
            look.is_some_and(|look| look.of_volume(catalog, volume).lacking() > 0)
        });
        let mut lacking: Vec<String> = lacks.map(|volume| volume.name.clone()).collect();
        lacking.sort();
        let used = used(self.cluster().work());
        let tried = tried(catalog, &going)?;
        // The solver takes seconds at the bounds.
        let solved = tokio::task::spawn_blocking(move || moves(&tried, &going, &used)).await;
        let mut moves = solved.map_err(|stopped| {
            ErrorBody::unavailable(format!("the planning stopped: {stopped}"), "try again")
        })??;
        moves.volumes_lacking = lacking;
        Ok(moves)
    }
}

/// The catalog in which these disks are draining. Those that are missing or out of service are made anew elsewhere anyway.
pub(super) fn tried(catalog: &Catalog, going: &BTreeSet<DiskId>) -> Result<Catalog, ErrorBody> {
    let is_serving = |disk: &&DiskId| {
        let disk = catalog.disk(**disk);
        disk.is_some_and(|disk| disk.state == DiskState::Serving)
    };
    let drain = going.iter().filter(is_serving).map(|&disk| {
        let state = DiskState::Draining;
        Command::SetDiskState { disk, state }
    });
    pools::tried(catalog, &drain.collect::<Vec<_>>())
}

/// How full disks are, by what their nodes say.
pub(super) fn used(work: BTreeMap<NodeId, Work>) -> BTreeMap<DiskId, DiskWork> {
    let disks = work.into_values().flat_map(|work| work.disks);
    disks.map(|(disk, of)| (DiskId(disk), of)).collect()
}

/// What moves in a catalog in which these disks are draining.
fn moves(
    catalog: &Catalog,
    going: &BTreeSet<DiskId>,
    used: &BTreeMap<DiskId, DiskWork>,
) -> Result<Moves, ErrorBody> {
    let mut ways: BTreeMap<(DiskId, DiskId), u32> = BTreeMap::new();
    let mut way = |from: Option<DiskId>, to: Option<DiskId>| {
        if let (Some(from), Some(to)) = (from, to)
            && going.contains(&from)
        {
            *ways.entry((from, to)).or_default() += 1;
        }
    };
    for pool in catalog.pools() {
        let mut disks = catalog.disks_of_pool(pool.id);
        if !disks.any(|disk| going.contains(&disk.id)) {
            continue;
        }
        // What is under way already is not asked about.
        for pg in catalog.pgs_of(pool.id) {
            let want = catalog.pg(*pg).and_then(|pg| pg.want);
            way(want.and_then(|of| of.from), want.and_then(|of| of.to));
        }
        let question = steward::question(catalog, pool, NewPgs::Never);
        let plan = solve(&question).map_err(|refusal| {
            let message = format!(
                "the copies of pool {} have no other place: {refusal}",
                pool.name
            );
            let hint = "add disks elsewhere first, or have fewer copies with `sarsen pool set`";
            ErrorBody::conflict("disk", message, hint)
        })?;
        for change in plan.changes {
            way(change.from, change.to);
        }
    }
    // What one copy holds, where that is known.
    let each = |disk: &DiskId| {
        let copies = catalog.pgs_on(*disk).count() as u64;
        used.get(disk).map(|of| of.used_bytes / copies.max(1))
    };
    let mut to: BTreeMap<DiskId, (u32, Option<u64>)> = BTreeMap::new();
    for ((from, at), copies) in ways {
        let bytes = each(&from).map(|each| each * u64::from(copies));
        let sum = to.entry(at).or_insert((0, Some(0)));
        sum.0 += copies;
        sum.1 = sum.1.zip(bytes).map(|(sum, more)| sum + more);
    }
    let to = to.into_iter().map(|(disk, (copies, bytes))| {
        let free = used.get(&disk);
        let free_bytes = free.map(|of| of.capacity_bytes.saturating_sub(of.used_bytes));
        let node = catalog.disk(disk).map(|disk| name_of(catalog, disk.node));
        MoveTo {
            disk: disk.0,
            node: node.unwrap_or_default(),
            copies,
            bytes,
            free_bytes,
            has_room: bytes.zip(free_bytes).map(|(bytes, free)| bytes <= free),
        }
    });
    let to: Vec<MoveTo> = to.collect();
    let copies: u32 = to.iter().map(|to| to.copies).sum();
    let on_them: usize = going.iter().map(|disk| catalog.pgs_on(*disk).count()).sum();
    let bytes = to.iter().map(|to| to.bytes).sum();
    Ok(Moves {
        copies,
        bytes,
        staying: (on_them as u32).saturating_sub(copies),
        to,
        volumes_lacking: Vec::new(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::{PgId, StoreId};
    use crate::protocol::catalog::{Batch, StoreName};
    use crate::protocol::membership::Incarnation;
    use crate::protocol::placement::Level;

    pub const GIB: u64 = 1 << 30;

    /// Four nodes with a disk of 1 GiB each of the same number, two copies, and 12 PGs on the first three.
    pub fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        let mut apply = |command| drop(catalog.apply(&command).unwrap());
        for n in 1..=4_u8 {
            let name = format!("n{n}");
            apply(Command::AddNode { name });
        }
        apply(Command::SetPool {
            pool: "default".into(),
            copies: 2,
            min_copies: 1,
            level: Level::Node,
        });
        for n in 1..=4_u8 {
            apply(Command::AddDisk {
                node: NodeId(n.into()),
                path: format!("/d{n}"),
                store: StoreName(StoreId([n; 16])),
                size: GIB,
                pool: None,
                incarnation: Incarnation(0),
            });
        }
        let pairs = [[1, 2], [2, 3], [3, 1]];
        let pairs = pairs.map(|pair| pair.map(DiskId).to_vec());
        let pool = catalog.pools().next().unwrap().id;
        let replicas = pairs.into_iter().cycle().take(12).collect();
        let create = Command::CreatePgs {
            pool,
            first: PgId(1),
            replicas,
            batch: Batch::Last,
        };
        catalog.apply(&create).unwrap();
        catalog
    }

    pub fn half_full(disks: &[u32]) -> BTreeMap<DiskId, DiskWork> {
        let of = DiskWork {
            capacity_bytes: GIB,
            used_bytes: GIB / 2,
        };
        disks.iter().map(|disk| (DiskId(*disk), of)).collect()
    }

    #[test]
    fn all_copies_of_a_disk_go_somewhere_and_their_bytes_with_them() {
        let going = BTreeSet::from([DiskId(1)]);
        let tried = tried(&catalog(), &going).unwrap();
        let seen = moves(&tried, &going, &half_full(&[1, 2, 3, 4])).unwrap();
        assert_eq!((seen.copies, seen.staying), (8, 0));
        assert_eq!(seen.bytes, Some(GIB / 2 / 8 * 8));
        let sum: u32 = seen.to.iter().map(|to| to.copies).sum();
        assert_eq!(sum, 8);
        let to = |to: &&MoveTo| to.disk == 4 && to.node == "n4" && to.has_room == Some(true);
        assert!(seen.to.iter().any(|one| to(&one)), "{seen:?}");
        assert!(seen.to.iter().all(|to| to.disk != 1), "{seen:?}");
    }

    #[test]
    fn what_nobody_says_is_not_known() {
        let going = BTreeSet::from([DiskId(1)]);
        let tried = tried(&catalog(), &going).unwrap();
        let unknown = moves(&tried, &going, &half_full(&[2, 3, 4])).unwrap();
        assert_eq!((unknown.copies, unknown.bytes), (8, None));
        let full = moves(&tried, &going, &half_full(&[1, 2, 3])).unwrap();
        let last = full.to.iter().find(|to| to.disk == 4).unwrap();
        assert_eq!((last.free_bytes, last.has_room), (None, None));
        assert!(last.bytes.is_some());
    }

    #[test]
    fn a_dry_run_changes_nothing_and_says_what_has_no_place() {
        let before = catalog();
        let going = BTreeSet::from([DiskId(1), DiskId(2), DiskId(3)]);
        let tried = tried(&before, &going).unwrap();
        assert_eq!(before.disk(DiskId(1)).unwrap().state, DiskState::Serving);
        let error = moves(&tried, &going, &BTreeMap::new()).unwrap_err();
        assert!(error.message.contains("no other place"), "{error}");
    }
}
