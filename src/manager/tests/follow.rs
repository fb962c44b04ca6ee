//! Stories of nodes that are no members, and of who watches.

use super::super::board::{Board, WATCHED_MAX};
use super::super::raft::COMPACT_EVERY;
use super::super::*;
use super::wires::{Site, eventually};
use super::{commands, create, run};
use crate::base::{NodeId, Prng};
use crate::protocol::catalog::Catalog;
use std::sync::Arc;

#[test]
fn a_node_that_is_no_member_gets_a_snapshot_and_then_every_change() {
    run(async {
        let mut site = Site::of_members("manager-follows", 3, 3).await;
        let leader = site.leader().await;
        for number in 0..COMPACT_EVERY + 10 {
            let name = format!("v{number}");
            site.put(leader, &name).await;
        }
        site.node(leader)
            .propose(crate::protocol::catalog::Command::AddNode { name: "n4".into() })
            .await
            .unwrap();
        site.join(4).await;
        let fourth = site.node(4).clone();
        let mut watch = fourth.watch();
        let before = site.settled().await.applied();
        while watch.try_next().is_some() {}
        for number in 0..5 {
            let name = format!("w{number}");
            site.put(leader, &name).await;
        }
        site.settled().await;
        let mut told = 0;
        let mut applied = before;
        while let Some(news) = watch.try_next() {
            match news {
                News::Applied { result, .. } => {
                    told += u64::from(result.is_ok());
                }
                News::Snapshot { catalog, .. } => (told, applied) = (0, catalog.applied()),
                News::Leads { .. } => panic!("it is no member"),
                News::Follows { .. } => {}
            }
        }
        assert_eq!(applied + told, before + 5);
        assert!(told >= 5, "the changes came as changes");
        assert_eq!(fourth.shared.board.own().0, 0, "it has no log of its own");
        site.put(4, "by-the-fourth").await;
        let shown = fourth.catalog();
        assert!(shown.volumes().any(|volume| volume.name == "by-the-fourth"));
    });
}

#[test]
fn who_follows_goes_on_at_another_member_when_one_dies_or_is_cut_off() {
    run(async {
        let mut site = Site::of_members("manager-goes-on", 4, 3).await;
        let has = |site: &Site, count: usize| {
            let fourth = site.node(4).clone();
            async move {
                eventually("the fourth has it", || {
                    fourth.catalog().volumes().count() == count
                })
                .await;
            }
        };
        let mut count = 0;
        // Each is dead once, so whichever it asked was.
        for victim in 1..=3 {
            site.kill(victim);
            let leader = site.leader().await;
            count += 1;
            let name = format!("v{count}");
            site.put(leader, &name).await;
            has(&site, count).await;
            site.join(victim).await;
            site.settled().await;
        }
        // And each is cut off once: it answers, and knows nothing new.
        for victim in 1..=3 {
            for other in (1..=3).filter(|other| *other != victim) {
                site.cut(victim, other);
                site.cut(other, victim);
            }
            eventually("another leads", || {
                let leader = site.node(if victim == 1 { 2 } else { 1 }).members().leader;
                leader.is_some_and(|leader| leader != NodeId(victim))
            })
            .await;
            let asked = if victim == 1 { 2 } else { 1 };
            count += 1;
            let name = format!("v{count}");
            site.put(asked, &name).await;
            has(&site, count).await;
            site.heal();
            site.settled().await;
        }
    });
}

#[test]
fn a_slow_watcher_gets_a_snapshot_and_no_gap() {
    let board = Arc::new(Board::new(0, Catalog::default()));
    let mut watch = Watch::new(&board);
    assert!(matches!(watch.try_next(), Some(News::Snapshot { .. })));
    assert!(matches!(watch.try_next(), Some(News::Follows { .. })));
    let mut commands = commands();
    let mut index = 0;
    let mut more = |count: usize| {
        for command in commands.by_ref().take(count) {
            index += 1;
            board.apply(index, Some(&command));
        }
    };
    more(WATCHED_MAX);
    for expected in 1..=WATCHED_MAX as u64 {
        match watch.try_next() {
            Some(News::Applied { index, .. }) => assert_eq!(index, Index(expected)),
            other => panic!("{other:?}"),
        }
    }
    assert!(watch.try_next().is_none());
    more(WATCHED_MAX + 1);
    match watch.try_next() {
        Some(News::Snapshot { index, catalog }) => {
            assert_eq!(index, Index(2 * WATCHED_MAX as u64 + 1));
            assert_eq!(catalog.applied(), index.0);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(watch.try_next(), Some(News::Follows { .. })));
    more(1);
    assert!(matches!(watch.try_next(), Some(News::Applied { .. })));
    assert!(watch.try_next().is_none());
}

#[test]
fn a_catalog_is_copied_only_where_somebody_holds_it() {
    let board = Board::new(0, Catalog::default());
    let place = || Arc::as_ptr(&board.catalog());
    let mut commands = commands();
    let first = place();
    board.apply(1, commands.next().as_ref());
    assert_eq!(place(), first);
    let held = board.catalog();
    board.apply(2, commands.next().as_ref());
    assert_ne!(place(), first);
    assert_eq!((held.applied(), board.catalog().applied()), (1, 2));
}

#[test]
fn what_is_shown_never_goes_back_whoever_is_further() {
    let all: Vec<_> = commands().take(30).collect();
    let (own, other) = (
        Board::new(0, Catalog::default()),
        Board::new(0, Catalog::default()),
    );
    for (index, command) in (1..).zip(&all) {
        other.apply(index, Some(command));
    }
    let ahead: Vec<_> = (1..).zip(all.iter().cloned().map(Some)).collect();
    own.apply_ahead(&ahead[..10]);
    assert_eq!(own.catalog().applied(), 10);
    // Its own log comes after, and passes.
    for (index, command) in (1..).zip(&all[..12]) {
        own.apply(index, Some(command));
        assert_eq!(own.catalog().applied(), index.max(10));
    }
    // What is old is no news, and what has a gap is not taken.
    own.apply_ahead(&ahead[..5]);
    own.apply_ahead(&ahead[20..]);
    assert_eq!(own.catalog().applied(), 12);
    own.install_ahead(30, Catalog::clone(&other.catalog()));
    assert_eq!(own.catalog(), other.catalog());
    own.install(11, Catalog::default());
    assert_eq!(own.index(), 30);
}

#[test]
fn a_watcher_is_told_that_its_node_leads_after_all_that_was_there() {
    Site::run("manager-leads", 1, async |site| {
        let mut watch = site.node(1).watch();
        let News::Snapshot { catalog, .. } = watch.next().await else {
            panic!("first comes a snapshot");
        };
        assert_eq!(catalog.nodes().count(), 1);
        drop(catalog);
        let term = loop {
            match watch.next().await {
                News::Leads { term } => break term,
                News::Follows { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        site.node(1).confirm(term).await.unwrap();
        let asked = site.node(1).ask(create("v")).await;
        let Outcome::Committed { index, result } = asked else {
            panic!("{asked:?}");
        };
        assert!(result.is_ok());
        match watch.next().await {
            News::Applied { index: told, .. } => assert_eq!(told, index),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn what_is_malformed_is_answered_and_harms_nothing() {
    Site::run("manager-malformed", 2, async |site| {
        let manager = site.node(1);
        let mut prng = Prng::new(3);
        let good: Vec<Vec<u8>> = (1..=9)
            .flat_map(|kind| {
                [
                    b"{\"vote\":{\"leader_id\":{\"term\":9,\"node_id\":2},\"committed\":true},\"prev_log_id\":null,\"entries\":[],\"leader_commit\":null}".as_slice(),
                    b"{\"vote\":{\"leader_id\":{\"term\":1,\"node_id\":7},\"committed\":false},\"last_log_id\":null}",
                    b"{\"after\":18446744073709551615,\"wait_ms\":1}",
                    b"{\"index\":3,\"offset\":18446744073709551615}",
                    b"{\"ticket\":{\"life\":1,\"number\":1},\"voters\":[]}",
                    b"\xff\xff\xff\xff{}",
                    b"",
                ]
                .map(|body| [&[1, kind], body].concat())
            })
            .collect();
        for _ in 0..3_000 {
            let mut body = good[prng.below(good.len() as u64) as usize].clone();
            for _ in 0..prng.below(3) {
                let at = prng.below(body.len() as u64) as usize;
                match prng.below(3) {
                    0 => body.truncate(at.max(1)),
                    1 => body[at] ^= 1 << prng.below(8),
                    _ => body.insert(at, prng.below(256) as u8),
                }
            }
            // Cut short where it is not read, so that a wait for news is none.
            let answer = manager.serve(NodeId(9), &body);
            let _ = tokio::time::timeout(std::time::Duration::from_millis(2), answer).await;
        }
        for (body, why) in [
            (vec![], "cut off"),
            (vec![2, 8], "version 2"),
            (vec![1, 99], "kind 99"),
            (vec![1; MESSAGE_MAX + 1], "longer than"),
        ] {
            let answer = manager.serve(NodeId(9), &body).await;
            let text = String::from_utf8_lossy(&answer[2..]).into_owned();
            assert!(answer[1] == 1 && text.contains(why), "{text}");
        }
        let foreign = [&[1u8, 2][..], &good[1][2..]].concat();
        let answer = manager.serve(NodeId(9), &foreign).await;
        let text = String::from_utf8_lossy(&answer[2..]).into_owned();
        assert!(text.contains("speaks for node 7"), "{text}");
        manager.propose(create("still-works")).await.unwrap();
    });
}
