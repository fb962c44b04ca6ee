//! Stories of several members: elections, losses, restarts, and members that come and go.

use super::super::consensus::Consensus;
use super::super::message::{Propose, Proposed};
use super::super::propose::COMMAND_MAX;
use super::super::raft::COMPACT_EVERY;
use super::super::*;
use super::wires::{BOUND, Faults, Site, eventually, nodes, times};
use super::{create, run};
use crate::base::{NodeId, Prng};
use crate::protocol::catalog::Catalog;
use crate::protocol::membership::Term;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::time::sleep;

fn names(catalog: &Catalog) -> BTreeSet<String> {
    catalog
        .volumes()
        .map(|volume| volume.name.clone())
        .collect()
}

/// The term that a node leads, as its watcher is told.
fn term_of(manager: &Manager) -> Option<Term> {
    let mut watch = manager.watch();
    let mut led = None;
    while let Some(news) = watch.try_next() {
        if let News::Leads { term } = news {
            led = Some(term);
        }
    }
    led
}

/// Proposes volumes with these names at a node until one fails in any way, and gives back those that were acknowledged.
async fn write(manager: Manager, prefix: String, count: u32) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0..count {
        let name = format!("{prefix}-{number}");
        match manager.propose(create(&name)).await {
            Ok(_) => acknowledged.push(name),
            Err(ProposeError::Refused(refusal)) => panic!("{refusal}"),
            Err(ProposeError::Unavailable(_) | ProposeError::Unknown(_)) => {}
        }
    }
    acknowledged
}

#[test]
fn three_members_come_to_one_catalog_whoever_is_asked() {
    run(async {
        let site = Site::of_members("manager-three", 3, 3).await;
        for id in 1..=3 {
            for number in 0..5 {
                let name = format!("at-{id}-{number}");
                site.put(id, &name).await;
                // It is visible where it was asked.
                assert!(names(&site.node(id).catalog()).contains(&name));
            }
        }
        let catalog = site.settled().await;
        assert_eq!(names(&catalog).len(), 15);
        let refused = site.node(2).propose(create("at-1-0")).await;
        assert!(matches!(refused, Err(ProposeError::Refused(_))));
        let leaders = site.up().filter(|manager| term_of(manager).is_some());
        assert_eq!(leaders.count(), 1);
        assert_eq!(site.node(3).members().voters, nodes([1, 2, 3]));
    });
}

#[test]
fn when_the_leader_dies_another_leads_and_nothing_acknowledged_is_lost() {
    run(async {
        let mut site = Site::of_members("manager-killed", 3, 3).await;
        let first = site.leader().await;
        let writers: Vec<_> = (1..=3)
            .filter(|id| *id != first)
            .map(|id| {
                let manager = site.node(id).clone();
                tokio::spawn(write(manager, format!("w{id}"), 30))
            })
            .collect();
        let shows_some = || site.node(first).catalog().volumes().count() > 5;
        eventually("volumes are made", shows_some).await;
        let term = term_of(site.node(first)).unwrap();
        site.kill(first);
        let begun = Instant::now();
        let second = site.leader().await;
        println!("another leads after {:?}", begun.elapsed());
        assert!(begun.elapsed() < times().election_max * 20);
        assert!(term_of(site.node(second)).unwrap() > term);
        let mut acknowledged = BTreeSet::new();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
        assert!(acknowledged.len() > 30, "{}", acknowledged.len());
        site.join(first).await;
        let catalog = site.settled().await;
        assert!(names(&catalog).is_superset(&acknowledged));
    });
}

#[test]
fn a_minority_takes_nothing_and_says_so_in_time() {
    run(async {
        let site = Site::of_members("manager-minority", 3, 3).await;
        let alone = site.leader().await;
        site.isolate(alone);
        let begun = Instant::now();
        let error = site.node(alone).propose(create("lost")).await.unwrap_err();
        assert!(
            matches!(
                error,
                ProposeError::Unknown(_) | ProposeError::Unavailable(_)
            ),
            "{error}"
        );
        assert!(
            begun.elapsed() < times().propose * 4,
            "{:?}",
            begun.elapsed()
        );
        // Once it has noticed, it takes none at all.
        let why = loop {
            let asked = site.node(alone).ask(create("lost-too")).await;
            if let Outcome::Lost { why } = asked {
                break why;
            }
            assert!(begun.elapsed() < BOUND);
        };
        assert!(!why.is_empty());
        let leader = site.leader().await;
        assert_ne!(leader, alone);
        site.put(leader, "taken").await;
        site.heal();
        let catalog = site.settled().await;
        assert_eq!(names(&catalog), BTreeSet::from(["taken".to_owned()]));
        // The nodes, a disk and the one volume: nothing was carried out twice.
        assert_eq!(catalog.applied(), 5);
    });
}

#[test]
fn all_three_come_back_from_their_files_with_the_same_catalog() {
    run(async {
        let mut site = Site::of_members("manager-restart", 3, 3).await;
        let leader = site.leader().await;
        let acknowledged = write(
            site.node(leader).clone(),
            "v".into(),
            COMPACT_EVERY as u32 + 40,
        )
        .await;
        let before = site.settled().await;
        assert!(names(&before).len() >= acknowledged.len());
        let term = term_of(site.node(site.leader().await)).unwrap();
        for id in 1..=3 {
            site.kill(id);
        }
        for id in 1..=3 {
            site.join(id).await;
        }
        let after = site.settled().await;
        assert_eq!(after, before);
        let leader = site.leader().await;
        assert!(term_of(site.node(leader)).unwrap() > term);
        site.put(leader, "more").await;
    });
}

#[test]
fn a_member_that_is_added_live_gets_a_snapshot() {
    run(async {
        let site = Site::new("manager-added", 3).await;
        let count = 2 * COMPACT_EVERY as u32 + 60;
        write(site.node(1).clone(), "v".into(), count).await;
        site.set_voters(1, nodes([1, 2, 3])).await;
        let catalog = site.settled().await;
        assert_eq!(names(&catalog).len(), count as usize);
        for id in [2, 3] {
            // By its own log, not by what it was told before it was a member.
            let board = &site.node(id).shared.board;
            eventually("its own log has all", || *board.own().1 == *catalog).await;
        }
        assert_eq!(site.node(2).members().voters, nodes([1, 2, 3]));
    });
}

#[test]
fn a_dead_member_is_replaced_and_is_not_believed_when_it_comes_back() {
    run(async {
        let mut site = Site::of_members("manager-replaced", 4, 3).await;
        site.put(1, "before").await;
        let leader = site.leader().await;
        let dead = (1..=3).find(|id| *id != leader).unwrap();
        site.kill(dead);
        let replace = async || {
            let manager = site.node(leader);
            manager.replace_member(NodeId(dead), NodeId(4)).await
        };
        while let Err(error) = replace().await {
            // An election came in between.
            assert!(matches!(error, MembersError::Interrupted(_)), "{error}");
        }
        let leader = site.leader().await;
        site.put(leader, "after").await;
        // It believes that it is a member, and stands for election until it is told.
        site.join(dead).await;
        let back = site.node(dead);
        eventually("it shows what was done without it", || {
            names(&back.catalog()).len() == 2
        })
        .await;
        assert!(!back.members().voters.contains(&NodeId(dead)));
        eventually("it is told", || !back.shared.group.does_stand()).await;
        // It disturbs nobody: a time without an election. A busy machine may bring one about by itself, but not each time.
        let mut is_quiet = false;
        for _ in 0..5 {
            let leader = site.leader().await;
            let term = term_of(site.node(leader));
            sleep(times().election_max * 4).await;
            is_quiet |= term_of(site.node(leader)) == term;
        }
        assert!(is_quiet);
        let leader = site.leader().await;
        // What it proposes is brought to the leader.
        site.put(dead, "from-outside").await;
        // And the new one counts: with it and one other there is a majority.
        let third = (1..=3).find(|id| *id != leader && *id != dead).unwrap();
        site.kill(if leader == 4 { third } else { leader });
        let leader = site.leader().await;
        site.put(leader, "two-of-three").await;
        assert_eq!(names(site.settled().await.as_ref()).len(), 4);
    });
}

#[test]
fn a_replacement_that_was_meant_for_other_members_undoes_nothing() {
    run(async {
        let site = Site::of_members("manager-meant", 5, 3).await;
        let leader = site.leader().await;
        site.set_voters(leader, nodes([1, 2, 4])).await;
        // It still believes that 3 is one, and replaces 2.
        for asked in [leader, 5] {
            let stale = Some(nodes([1, 2, 3]));
            let meant = site.node(asked).set_voters_instead(nodes([1, 3, 5]), stale);
            let error = meant.await.unwrap_err();
            assert!(matches!(error, MembersError::Refused(_)), "{error}");
            assert!(error.to_string().contains("others by now"), "{error}");
        }
        let leader = site.leader().await;
        assert_eq!(site.node(leader).members().voters, nodes([1, 2, 4]));
    });
}

#[test]
fn a_command_that_is_too_long_is_taken_from_nobody() {
    run(async {
        let site = Site::of_members("manager-long", 3, 3).await;
        let leader = site.leader().await;
        let long = "v".repeat(COMMAND_MAX);
        let asked = Propose {
            ticket: site.node(leader).shared.ticket(),
            command: create(&long),
        };
        // As from a build that does not hold itself to the bound.
        let taken = site.node(leader).take_proposal(NodeId(9), asked).await;
        assert!(
            matches!(&taken, Proposed::Lost { why } if why.contains("at most")),
            "{taken:?}"
        );
        site.put(leader, "goes-on").await;
    });
}

#[test]
fn the_leader_can_be_replaced_by_its_own_change() {
    run(async {
        let site = Site::of_members("manager-moved", 6, 3).await;
        site.set_voters(2, nodes([4, 5, 6])).await;
        // The old one goes on until the change has reached the new ones.
        let is_led_by_a_new_one = || (4..=6).any(|id| term_of(site.node(id)).is_some());
        eventually("one of the new members leads", is_led_by_a_new_one).await;
        site.put(1, "v").await;
        let catalog = site.settled().await;
        assert_eq!(names(&catalog).len(), 1);
        assert_eq!(site.node(5).members().voters, nodes([4, 5, 6]));
        site.set_voters(5, nodes([6])).await;
        eventually("the last one leads", || term_of(site.node(6)).is_some()).await;
        site.put(1, "w").await;
    });
}

#[test]
fn members_without_a_majority_are_refused_with_the_reason() {
    run(async {
        let mut site = Site::of_members("manager-refusals", 5, 3).await;
        let leader = site.leader().await;
        let refusal = async |site: &Site, wanted: BTreeSet<NodeId>| {
            let error = site.node(leader).set_voters(wanted).await.unwrap_err();
            assert!(matches!(error, MembersError::Refused(_)), "{error}");
            error.to_string()
        };
        let other = (1..=3).find(|id| *id != leader).unwrap();
        let would = async |site: &Site, asked: u32, wanted: BTreeSet<NodeId>| {
            site.node(asked).may_set_voters(&wanted).await
        };
        // Asked only, on any node.
        for asked in [leader, other, 5] {
            let none_is_silent = would(&site, asked, nodes([1, 2, 4])).await.unwrap();
            assert_eq!(none_is_silent, nodes([]));
            let two = would(&site, asked, nodes([1, 2])).await.unwrap_err();
            assert!(two.to_string().contains("1, 3 or 5"), "{two}");
        }
        assert_eq!(site.node(leader).members().voters, nodes([1, 2, 3]));
        assert!(refusal(&site, nodes([1, 2])).await.contains("1, 3 or 5"));
        assert!(refusal(&site, nodes([1, 2, 9])).await.contains("no node 9"));
        site.kill(4);
        let why = refusal(&site, nodes([1, 2, 4])).await;
        assert!(why.contains("node 4 does not answer"), "{why}");
        let asked = would(&site, leader, nodes([1, 2, 4])).await.unwrap_err();
        assert!(
            asked.to_string().contains("node 4 does not answer"),
            "{asked}"
        );
        site.kill(other);
        let silent = would(&site, leader, nodes([1, 2, 3])).await.unwrap();
        assert_eq!(silent, nodes([other]));
        let why = refusal(&site, nodes([other])).await;
        assert!(why.contains("only 0 answer"), "{why}");
        assert_eq!(site.node(leader).members().voters, nodes([1, 2, 3]));
        site.put(leader, "still").await;
        let third = (1..=3).find(|id| *id != leader && *id != other).unwrap();
        site.kill(third);
        let hears_some = || site.node(leader).shared.group.standing().is_current;
        eventually("the leader notices", || !hears_some()).await;
        let why = refusal(&site, nodes([leader])).await;
        assert!(why.contains("do not answer the leader"), "{why}");
    });
}

#[test]
fn a_deposed_leader_is_not_confirmed() {
    run(async {
        let site = Site::of_members("manager-confirm", 3, 3).await;
        let first = site.leader().await;
        let term = term_of(site.node(first)).unwrap();
        site.node(first).confirm(term).await.unwrap();
        let other = Term(term.0 + 1);
        assert!(site.node(first).confirm(other).await.is_err());
        // It still speaks and hears nothing: one-way cuts.
        for id in (1..=3).filter(|id| *id != first) {
            site.cut(id, first);
        }
        let begun = Instant::now();
        assert!(site.node(first).confirm(term).await.is_err());
        assert!(begun.elapsed() < times().election_max * 10);
        site.isolate(first);
        let second = site.leader().await;
        assert_ne!(second, first);
        site.heal();
        assert!(site.node(first).confirm(term).await.is_err());
        let believes = || term_of(site.node(first)) == Some(term);
        eventually("it hears that it is deposed", || !believes()).await;
    });
}

#[test]
fn a_repeated_message_is_not_a_repeated_change() {
    run(async {
        let site = Site::of_members("manager-repeated", 4, 3).await;
        let leader = site.leader().await;
        let mut watch = site.node(leader).watch();
        while watch.try_next().is_some() {}
        site.spoil(Faults {
            repeated: 60,
            ..Faults::default()
        });
        let mut acknowledged = 0;
        for id in (1..=4).filter(|id| *id != leader) {
            acknowledged += write(site.node(id).clone(), format!("w{id}"), 15)
                .await
                .len();
        }
        site.heal();
        assert!(acknowledged >= 30, "{acknowledged}");
        let made = names(site.settled().await.as_ref()).len();
        let mut entries = 0;
        while let Some(news) = watch.try_next() {
            if let News::Applied { result, .. } = news {
                assert!(result.is_ok(), "{result:?}");
                entries += 1;
            }
        }
        assert_eq!(entries, made);
    });
}

#[test]
fn a_bad_network_and_deaths_lose_nothing_that_was_acknowledged() {
    run(async {
        let mut site = Site::of_members("manager-storm", 4, 3).await;
        site.spoil(Faults {
            lost: 5,
            repeated: 10,
            delay_ms_max: 30,
        });
        let mut prng = Prng::new(7);
        let mut acknowledged = BTreeSet::new();
        for round in 0..5 {
            let up: Vec<Manager> = site.up().cloned().collect();
            let writers: Vec<_> = up
                .into_iter()
                .map(|manager| {
                    let prefix = format!("r{round}-n{}", manager.node());
                    tokio::spawn(async move { write(manager, prefix, 8).await })
                })
                .collect();
            sleep(Duration::from_millis(100 + prng.below(400))).await;
            let victim = 1 + prng.below(3) as u32;
            match prng.below(3) {
                0 => site.isolate(victim),
                1 => site.cut(victim, 1 + prng.below(3) as u32),
                _ => {
                    site.kill(victim);
                    site.join(victim).await;
                }
            }
            for writer in writers {
                acknowledged.extend(writer.await.unwrap());
            }
            site.heal();
            site.spoil(Faults {
                lost: 5,
                repeated: 10,
                delay_ms_max: 30,
            });
        }
        site.heal();
        println!("acknowledged: {}", acknowledged.len());
        assert!(acknowledged.len() > 40);
        let catalog = site.settled().await;
        assert!(names(&catalog).is_superset(&acknowledged));
        assert_eq!(catalog.check(), Ok(()));
    });
}

#[test]
fn raft_works_on_the_runtime_of_the_daemon() {
    tokio_uring::start(async {
        let site = Site::of_members("manager-uring", 3, 3).await;
        site.put(2, "v").await;
        assert_eq!(names(site.settled().await.as_ref()).len(), 1);
    });
}
