//! What may strike, and what may not.

use super::*;
use crate::base::{ChunkNo, FamilyId, LayerId, Prng};

const PG: PgId = PgId(1);

fn disk(n: u32) -> DiskId {
    DiskId(n)
}

fn chunk(n: u64) -> ChunkId {
    ChunkId {
        family: FamilyId(1),
        layer: LayerId(1),
        chunk: ChunkNo(n),
    }
}

fn group(in_sync: &[u32], out: &[u32], least: usize) -> Group {
    let standing = |standing| move |n: &u32| (disk(*n), standing);
    let disks = in_sync.iter().map(standing(Standing::InSync));
    Group {
        pg: PG,
        least,
        wants: in_sync.len(),
        disks: disks
            .chain(out.iter().map(standing(Standing::Out)))
            .collect(),
    }
}

fn atlas(in_sync: &[u32], least: usize) -> Atlas {
    let mut atlas = Atlas::default();
    atlas.configure(&group(in_sync, &[], least));
    atlas
}

#[test]
fn the_last_copies_are_not_lost_but_may_be_silent() {
    let atlas = atlas(&[1], 1);
    let lose = Strike::Lose { disk: disk(1) };
    assert_eq!(atlas.may(&lose), Err(Refused::LastCopies(PG)));
    let damage = Strike::Damage {
        disk: disk(1),
        pg: PG,
        chunk: chunk(0),
    };
    assert_eq!(atlas.may(&damage), Err(Refused::LastCopies(PG)));
    assert_eq!(
        atlas.may(&Strike::Silence {
            disks: vec![disk(1)]
        }),
        Ok(())
    );
    assert_eq!(
        atlas.may(&Strike::Lose { disk: disk(9) }),
        Ok(()),
        "nothing is there"
    );
}

#[test]
fn what_a_disk_has_of_one_pg_is_lost_until_it_is_taken_out_and_filled() {
    let mut atlas = atlas(&[1, 2, 3], 1);
    let tear = |n| Strike::Tear {
        disk: disk(n),
        pg: PG,
    };
    atlas.struck(&tear(1));
    assert!(!atlas.is_there(PG, disk(1)) && atlas.is_there(PG, disk(2)));
    assert_eq!(atlas.may(&tear(2)), Err(Refused::OpenLoss(PG)));
    atlas.configure(&group(&[2, 3], &[1], 1));
    atlas.configure(&group(&[1, 2, 3], &[], 1));
    assert!(atlas.is_there(PG, disk(1)), "it was filled");
    assert_eq!(atlas.may(&tear(2)), Ok(()));
}

#[test]
fn as_many_copies_as_the_manager_keeps_survive_a_loss() {
    let atlas = atlas(&[1, 2], 2);
    let refused = Err(Refused::LastCopies(PG));
    assert_eq!(atlas.may(&Strike::Age { disk: disk(1) }), refused);
}

#[test]
fn after_a_loss_the_others_are_left_alone_until_it_is_taken_out_and_filled() {
    let mut atlas = atlas(&[1, 2, 3], 1);
    atlas.struck(&Strike::Lose { disk: disk(1) });
    let silence = |n| Strike::Silence {
        disks: vec![disk(n)],
    };
    assert_eq!(atlas.may(&silence(2)), Err(Refused::OpenLoss(PG)));
    assert_eq!(atlas.may(&silence(1)), Ok(()), "it is gone anyway");
    assert_eq!(
        atlas.may(&Strike::Lose { disk: disk(2) }),
        Err(Refused::OpenLoss(PG))
    );
    atlas.configure(&group(&[2, 3], &[1], 1));
    assert_eq!(atlas.may(&silence(2)), Ok(()));
    atlas.struck(&Strike::Lose { disk: disk(2) });
    atlas.configure(&group(&[3], &[1, 2], 1));
    let refused = Err(Refused::LastCopies(PG));
    assert_eq!(atlas.may(&Strike::Lose { disk: disk(3) }), refused);
    atlas.replaced(disk(1));
    atlas.configure(&group(&[1, 3], &[2], 1));
    assert_eq!(
        atlas.may(&Strike::Lose { disk: disk(3) }),
        Ok(()),
        "disk 1 was filled"
    );
}

#[test]
fn a_disk_that_is_gone_does_not_become_whole_by_a_configuration() {
    let mut atlas = atlas(&[1, 2], 1);
    atlas.struck(&Strike::Lose { disk: disk(1) });
    atlas.configure(&group(&[2], &[1], 1));
    atlas.configure(&group(&[1, 2], &[], 1));
    let refused = atlas.may(&Strike::Lose { disk: disk(2) });
    assert_eq!(refused, Err(Refused::OpenLoss(PG)));
}

#[test]
fn a_disk_that_aged_counts_again_when_it_was_taken_out_and_filled() {
    let mut atlas = atlas(&[1, 2], 1);
    atlas.struck(&Strike::Age { disk: disk(1) });
    atlas.configure(&group(&[2], &[1], 1));
    atlas.configure(&group(&[1, 2], &[], 1));
    assert_eq!(atlas.may(&Strike::Lose { disk: disk(2) }), Ok(()));
}

#[test]
fn copies_are_damaged_at_different_places_only() {
    let mut atlas = atlas(&[1, 2], 1);
    let damage = |n, at| Strike::Damage {
        disk: disk(n),
        pg: PG,
        chunk: chunk(at),
    };
    atlas.struck(&damage(1, 0));
    assert_eq!(atlas.may(&damage(2, 0)), Err(Refused::LastCopies(PG)));
    assert_eq!(atlas.may(&damage(2, 1)), Ok(()));
    let lose = Strike::Lose { disk: disk(2) };
    assert_eq!(
        atlas.may(&lose),
        Err(Refused::LastCopies(PG)),
        "disk 1 is damaged"
    );
    atlas.mended(disk(1), PG, chunk(0));
    assert_eq!(atlas.may(&lose), Ok(()));
}

#[test]
fn a_disk_is_not_lost_while_another_is_silent() {
    let mut atlas = atlas(&[1, 2], 1);
    atlas.struck(&Strike::Silence {
        disks: vec![disk(2)],
    });
    let lose = Strike::Lose { disk: disk(1) };
    assert_eq!(atlas.may(&lose), Err(Refused::LastCopies(PG)));
    atlas.struck(&Strike::Silence {
        disks: vec![disk(2)],
    });
    atlas.speaks(disk(2));
    let refused = Err(Refused::LastCopies(PG));
    assert_eq!(atlas.may(&lose), refused, "something else keeps it silent");
    atlas.speaks(disk(2));
    assert_eq!(atlas.may(&lose), Ok(()));
}

#[test]
fn only_faults_that_destroy_or_silence_are_asked_for() {
    let at = Some((PG, chunk(0)));
    let disks = [disk(1), disk(2)];
    assert_eq!(Atlas::asks_for(Fault::PowerLoss, &disks, at), None);
    assert_eq!(Atlas::asks_for(Fault::Drop, &disks, at), None);
    assert_eq!(Atlas::asks_for(Fault::Crash, &[], at), None);
    let lose = Strike::Lose { disk: disk(1) };
    assert_eq!(Atlas::asks_for(Fault::DiskGone, &disks, at), Some(lose));
    let silence = Strike::Silence {
        disks: disks.to_vec(),
    };
    assert_eq!(Atlas::asks_for(Fault::Crash, &disks, at), Some(silence));
}

/// A manager that takes out what is lost or silent, and fills what is there; strikes at will, as far as they may.
#[test]
fn a_whole_copy_is_left_whatever_strikes() {
    for seed in 0..200 {
        let mut prng = Prng::new(seed);
        let least = prng.between(1, 2) as usize;
        let mut atlas = atlas(&[1, 2, 3], least);
        let (mut in_sync, mut lost) = (BTreeSet::from([1, 2, 3]), BTreeSet::new());
        // What is surely on each disk: everything, or not.
        let mut full = in_sync.clone();
        let mut silent: BTreeSet<u32> = BTreeSet::new();
        let mut struck = 0;
        for _ in 0..200 {
            let n = prng.between(1, 3) as u32;
            match prng.below(6) {
                0 => {
                    let strike = Strike::Lose { disk: disk(n) };
                    if atlas.may(&strike).is_ok() {
                        struck += 1;
                        atlas.struck(&strike);
                        lost.insert(n);
                        full.remove(&n);
                    }
                }
                1 => {
                    let strike = Strike::Silence {
                        disks: vec![disk(n)],
                    };
                    if atlas.may(&strike).is_ok() {
                        atlas.struck(&strike);
                        silent.insert(n);
                    }
                }
                2 => {
                    silent.remove(&n);
                    atlas.speaks(disk(n));
                }
                3 if lost.remove(&n) => atlas.replaced(disk(n)),
                // It takes out whichever it finds first, of those that do not answer.
                4 if (lost.contains(&n) || silent.contains(&n) || !full.contains(&n))
                    && in_sync.len() > least =>
                {
                    in_sync.remove(&n);
                }
                5 if !in_sync.contains(&n) && !lost.contains(&n) && !silent.contains(&n) => {
                    // It is filled by one that is in sync, there, and has everything.
                    let has_source = in_sync.iter().any(|n| full.contains(n));
                    assert!(has_source, "seed {seed}: nobody can fill it");
                    in_sync.insert(n);
                    full.insert(n);
                }
                _ => {}
            }
            let out: Vec<u32> = (1..=3).filter(|n| !in_sync.contains(n)).collect();
            let now: Vec<u32> = in_sync.iter().copied().collect();
            atlas.configure(&group(&now, &out, least));
            let whole = in_sync.iter().filter(|n| full.contains(n)).count();
            assert!(
                whole >= least,
                "seed {seed}: {whole} of {in_sync:?} are whole"
            );
        }
        assert!(struck > 0 || least == 2, "seed {seed}: nothing was lost");
    }
}

#[test]
fn a_joiner_that_was_struck_does_not_count_when_it_is_promoted_until_it_was_out() {
    let joins = Group {
        disks: vec![(disk(1), Standing::InSync), (disk(2), Standing::Joining)],
        wants: 2,
        ..group(&[], &[], 1)
    };
    let lose = Strike::Lose { disk: disk(1) };
    let of_two = [
        Strike::Age { disk: disk(2) },
        Strike::Tear {
            disk: disk(2),
            pg: PG,
        },
    ];
    for strike in of_two {
        let mut atlas = atlas(&[1], 1);
        atlas.configure(&joins);
        atlas.struck(&strike);
        // It had said that it is filled.
        atlas.configure(&group(&[1, 2], &[], 1));
        assert!(!atlas.is_there(PG, disk(2)));
        assert_eq!(atlas.may(&lose), Err(Refused::OpenLoss(PG)));
        atlas.configure(&group(&[1], &[2], 1));
        atlas.configure(&joins);
        atlas.configure(&group(&[1, 2], &[], 1));
        assert_eq!(atlas.may(&lose), Ok(()));
    }
}

#[test]
fn who_was_taken_out_may_have_the_last_sound_copy_of_what_is_damaged() {
    let mut atlas = atlas(&[1, 2], 1);
    let (disk_1, pg, chunk) = (disk(1), PG, chunk(1));
    atlas.struck(&Strike::Damage {
        disk: disk_1,
        pg,
        chunk,
    });
    atlas.configure(&group(&[1], &[2], 1));
    let age = Strike::Age { disk: disk(2) };
    assert_eq!(atlas.may(&age), Err(Refused::LastCopies(PG)));
    atlas.mended(disk_1, pg, chunk);
    assert_eq!(atlas.may(&age), Ok(()));
}

#[test]
fn what_may_be_taken_away_at_any_time_is_not_counted_on() {
    let mut atlas = atlas(&[1, 2, 3], 1);
    let (pg, chunk) = (PG, chunk(1));
    let disk_1 = disk(1);
    let damage = Strike::Damage {
        disk: disk_1,
        pg,
        chunk,
    };
    for (wants, may) in [(3, Ok(())), (2, Ok(())), (1, Err(Refused::LastCopies(PG)))] {
        let group = Group {
            wants,
            ..group(&[1, 2, 3], &[], 1)
        };
        atlas.configure(&group);
        assert_eq!(atlas.may(&damage), may, "{wants}");
        assert_eq!(atlas.may(&Strike::Lose { disk: disk_1 }), may, "{wants}");
    }
    assert!(atlas.is_unharmed());
}

#[test]
fn who_takes_the_place_of_the_only_copy_is_spared() {
    let (pg, chunk) = (PG, chunk(1));
    for (in_sync, may) in [(&[2, 3][..], Ok(())), (&[2], Err(Refused::LastCopies(PG)))] {
        let mut of = group(in_sync, &[], 1);
        of.disks.push((disk(1), Standing::Joining));
        let mut atlas = Atlas::default();
        atlas.configure(&of);
        let disk = disk(1);
        for strike in [
            Strike::Damage { disk, pg, chunk },
            Strike::Tear { disk, pg },
            Strike::Lose { disk },
        ] {
            assert_eq!(atlas.may(&strike), may, "{strike:?}");
        }
    }
}
