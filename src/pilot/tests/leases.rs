//! Leases: held, lost and held again; who may say what.

use super::shelf::Works;
use super::*;
use crate::calls::CallError;
use crate::pilot::message;
use crate::protocol::membership::{Ask, LeaseNumber, Refusal, Standing, Want};
use crate::shard::fabric::Order;

#[test]
fn every_node_holds_a_lease_and_keeps_it_when_the_leader_and_the_members_change() {
    run(async {
        let mut site = Site::new("leases").await;
        site.all_leased().await;
        let leader = site.leader().await;
        let others: Vec<u32> = (1..=3).filter(|id| *id != leader).collect();
        site.kill(leader).await;
        let next = site.leader().await;
        assert_ne!(next, leader);
        site.all_leased().await;
        // It goes on under the next leader: what is held now was extended by that.
        let now = clock::now();
        let lasts = |site: &Site| {
            others
                .iter()
                .all(|&id| site.view(id).lease.is_held(now + 2 * leases().lease))
        };
        site.eventually("leases last longer than what the leader before gave", lasts)
            .await;

        site.begin(leader).await;
        site.pilot(leader);
        site.all_leased().await;
        let start = |site: &Site| {
            let catalog = site.node(next).manager.catalog();
            catalog.node(NodeId(leader)).unwrap().incarnation
        };
        assert_eq!(start(&site), Incarnation(2), "it is its second start");

        // A member that is one no more is a node like others.
        let out = others.into_iter().find(|id| *id != next).unwrap();
        site.set_members([next]).await;
        let known = |site: &Site| (1..=3).all(|id| site.view(id).members == [NodeId(next)]);
        site.eventually("all know the members", known).await;
        site.all_leased().await;
        let asked = site.node(next).calls.call(
            NodeId(out),
            Service::Lease,
            message::ask(&ask(next, 1)),
            BOUND,
        );
        let refused = asked.await.unwrap_err();
        assert!(
            refused.to_string().contains("does not answer asks"),
            "{refused}"
        );
        site.set_members([1, 2, 3]).await;
        let all: Vec<NodeId> = (1..=3).map(NodeId).collect();
        site.eventually("all know the members", |site| {
            (1..=3).all(|id| site.view(id).members == all)
        })
        .await;
        let now = clock::now();
        site.eventually("leases go on", |site| {
            (1..=3).all(|id| site.view(id).lease.is_held(now + 2 * leases().lease))
        })
        .await;
    });
}

fn is_end(order: &Order) -> bool {
    matches!(order, Order::Extended { until: Time(0) })
}

fn ask(node: u32, incarnation: u64) -> Ask {
    Ask {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        request: 1,
        want: Want::Lease,
        standing: Standing::Lost(LeaseNumber::NONE),
        elapsed: Duration::ZERO,
        answered: None,
    }
}

#[test]
fn a_thread_that_stood_still_knows_first_that_its_lease_is_over() {
    run(async {
        let site = Site::new("stopped").await;
        site.all_leased().await;
        let leader = site.leader().await;
        let stopped = (1..=3).find(|id| *id != leader).unwrap();
        site.shards(stopped).thread(Works::Not);
        let view = site.view(stopped);
        let Lease::Held { lease, until, .. } = view.lease else {
            panic!("{view:?}");
        };
        // The manager has waited it out as well: its leader would give it to others.
        let end = until + leases().lease;
        site.eventually("the lease is over", |_| clock::now() > end)
            .await;
        let before = site.node(stopped).shards.clone();
        before.thread(Works::Well);
        let again = |site: &Site| matches!(site.view(stopped).lease, Lease::Held { lease: now, .. } if now > lease);
        site.eventually("it holds another lease", again).await;
        let orders = site.shards(stopped).orders();
        let of_lease = orders
            .iter()
            .filter(|order| matches!(order, Order::Leased { .. } | Order::Extended { .. }));
        let words: Vec<&str> = of_lease
            .map(|order| match order {
                Order::Leased { .. } => "leased",
                order if is_end(order) => "over",
                _ => "extended",
            })
            .collect();
        let over = words.iter().position(|word| *word == "over");
        let over = over.expect("the lease that was held is over");
        assert_eq!(words[over + 1], "leased", "{words:?}");
        // Nothing that was answered meanwhile was believed.
        let before = orders.iter().take_while(|order| !is_end(order));
        for order in before {
            if let Order::Leased { until } | Order::Extended { until } = order {
                assert!(*until < end, "{until:?} of a lease until {end:?}");
            }
        }
    });
}

#[test]
fn nobody_asks_or_speaks_for_another_node_and_an_earlier_start_gets_nothing() {
    run(async {
        let site = Site::new("foreign").await;
        site.all_leased().await;
        let leader = site.leader().await;
        let (other, third) = match leader {
            1 => (2, 3),
            2 => (1, 3),
            _ => (1, 2),
        };
        let from = &site.node(other).calls;
        let asks = async |body| from.call(NodeId(leader), Service::Lease, body, BOUND).await;
        let foreign = asks(message::ask(&ask(third, 1))).await.unwrap_err();
        let CallError::Refused { why } = foreign else {
            panic!("{foreign}");
        };
        let named = format!("of node {third} comes from node {other}");
        assert!(why.contains(&named), "{why}");
        for nonsense in [
            vec![],
            vec![1, 1],
            vec![9; 40],
            b"\x01\x01{\"node\":".to_vec(),
        ] {
            let refused = asks(nonsense).await.unwrap_err();
            assert!(matches!(refused, CallError::Refused { .. }), "{refused}");
        }
        let incarnation = Incarnation(0);
        let none = Ask {
            incarnation,
            ..ask(other, 1)
        };
        assert!(asks(message::ask(&none)).await.is_err());
        // Its third start would be recorded; the first is refused from then on, with a reason that its status shows.
        let later =
            message::read_answered(&asks(message::ask(&ask(other, 9))).await.unwrap()).unwrap();
        assert!(later.term > membership::Term(0));
        let refused = |site: &Site| site.view(other).refused == Some(Refusal::OldIncarnation);
        site.eventually("the earlier start is refused", refused)
            .await;
        site.eventually("it holds nothing", |site| !site.is_leased(other))
            .await;
    });
}

#[test]
fn a_node_whose_clock_runs_fast_is_refused_and_both_sides_say_so() {
    run(async {
        let mut site = Site::begun("clock").await;
        // So that it is not the fast one that leads, and finds all others slow.
        site.set_members([1]).await;
        for id in [1, 2] {
            site.pilot(id);
        }
        site.all_leased_of(&[1, 2]).await;
        let begun = clock::now();
        let fast = move || clock::now() + 2 * clock::now().since(begun);
        site.pilot_with(3, Arc::new(fast));
        let refused = |site: &Site| site.view(3).refused == Some(Refusal::ClockOutOfBounds);
        site.eventually("it is refused", refused).await;
        let found = |site: &Site| site.view(1).clocks_out_of_bounds == BTreeSet::from([NodeId(3)]);
        site.eventually("the leader says of whom", found).await;
        let over = |site: &Site| matches!(site.view(3).lease, Lease::NotHeld { .. });
        site.eventually("it holds nothing", over).await;
        site.all_leased_of(&[1, 2]).await;
    });
}
