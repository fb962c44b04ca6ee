//! Shards that answer late, twice, and about what is over.

use super::*;
use crate::base::{Epoch, FamilyId};
use crate::protocol::volume::OpenVolume;

const V: VolumeId = VolumeId(4);
const DRAINED: Said = Said::Drained { volume: V };
const CUT: Said = Said::Cut { volume: V };
const SETTLED: Said = Said::Settled { volume: V };
const ONE: ShardNo = ShardNo(0);
const TWO: ShardNo = ShardNo(1);

fn open(layer: u64) -> Order {
    Order::Open {
        open: OpenVolume {
            id: V,
            family: FamilyId(1),
            layer: LayerId(layer),
            size: 1 << 20,
            pgs: Vec::new(),
        },
        epoch: Epoch::default(),
        near: BTreeSet::new(),
    }
}

fn pause() -> Order {
    Order::Pause { volume: V }
}

fn settle() -> Order {
    let pgs = Vec::new();
    Order::Settle { volume: V, pgs }
}

fn switch(layer: u64) -> Order {
    let layer = LayerId(layer);
    Order::Switch { volume: V, layer }
}

#[test]
fn what_all_shards_have_said_is_told_once() {
    let mut shards = Shards::new(2);
    shards.ordered(&open(1));
    let number = shards.ordered(&pause());
    assert_eq!(number, 2, "numbers rise by one");
    assert_eq!(shards.said(TWO, number, DRAINED), None);
    assert_eq!(
        shards.said(TWO, number, DRAINED),
        None,
        "the same one twice"
    );
    shards.check();
    assert_eq!(shards.said(ONE, number, DRAINED), Some(DRAINED));
    assert_eq!(shards.said(ONE, number, DRAINED), None, "it was told");
}

#[test]
fn an_answer_to_an_earlier_pause_does_not_count_for_a_later_one() {
    let mut shards = Shards::new(2);
    shards.ordered(&open(1));
    let first = shards.ordered(&pause());
    assert_eq!(shards.said(ONE, first, DRAINED), None);
    shards.ordered(&Order::Resume { volume: V });
    assert_eq!(shards.said(TWO, first, DRAINED), None, "nobody asks now");
    let second = shards.ordered(&pause());
    // What was said before the second pause comes late.
    assert_eq!(shards.said(TWO, first, DRAINED), None);
    assert_eq!(shards.said(TWO, second - 1, DRAINED), None);
    assert_eq!(shards.said(TWO, second, DRAINED), None);
    // Said after later orders, it is about the last pause too.
    let later = shards.ordered(&Order::SayAgain);
    assert_eq!(shards.said(ONE, later, DRAINED), Some(DRAINED));
}

#[test]
fn a_volume_that_was_closed_or_suspended_meanwhile_owes_no_answer() {
    for end in [
        Order::Close { volume: V },
        Order::Suspend { volume: V },
        Order::StartOver { volume: V },
    ] {
        let mut shards = Shards::new(2);
        shards.ordered(&open(1));
        for ask in [pause(), switch(2), settle()] {
            shards.ordered(&ask);
        }
        let number = shards.ordered(&end);
        for said in [DRAINED, CUT, SETTLED] {
            for shard in [ONE, TWO] {
                assert_eq!(shards.said(shard, number, said), None, "{end:?}");
            }
        }
        assert!(shards.asked.is_empty());
    }
}

#[test]
fn a_turn_that_begins_anew_keeps_a_cut_that_some_shards_have_made() {
    let mut shards = Shards::new(2);
    shards.ordered(&open(1));
    let number = shards.ordered(&switch(2));
    assert_eq!(shards.said(ONE, number, CUT), None);
    // Another lease, another epoch: the coordinators stay where they are, and the first does not say it again.
    let again = shards.ordered(&open(2));
    assert_eq!(shards.said(TWO, again, CUT), Some(CUT));
}

#[test]
fn a_turn_that_begins_at_another_layer_is_a_cut_of_its_own() {
    let mut shards = Shards::new(2);
    shards.ordered(&open(1));
    let number = shards.ordered(&switch(2));
    assert_eq!(shards.said(ONE, number, CUT), None);
    let again = shards.ordered(&open(3));
    assert_eq!(shards.said(TWO, number, CUT), None, "of the switch");
    assert_eq!(shards.said(TWO, again, CUT), None);
    assert_eq!(shards.said(ONE, again, CUT), Some(CUT));
}

#[test]
fn what_is_settled_under_one_epoch_is_not_under_the_next() {
    let mut shards = Shards::new(2);
    shards.ordered(&open(1));
    let number = shards.ordered(&settle());
    assert_eq!(shards.said(ONE, number, SETTLED), None);
    shards.ordered(&open(1));
    let number = shards.ordered(&settle());
    assert_eq!(shards.said(TWO, number, SETTLED), None);
    assert_eq!(shards.said(ONE, number - 2, SETTLED), None);
    assert_eq!(shards.said(ONE, number, SETTLED), Some(SETTLED));
}

#[test]
fn one_shard_is_told_of_as_it_speaks() {
    let mut shards = Shards::new(1);
    shards.ordered(&open(1));
    for (ask, said) in [(pause(), DRAINED), (switch(2), CUT), (settle(), SETTLED)] {
        let number = shards.ordered(&ask);
        assert_eq!(shards.said(ONE, number, said), Some(said));
    }
    let there = Reach::There(Version::Two);
    for link in [there, Reach::Gone, Reach::Gone, there] {
        let told: Vec<Reach> = shards.linked(ONE, NodeId(2), link).collect();
        assert_eq!(told, [link]);
    }
}

#[test]
fn nothing_is_kept_of_volumes_that_are_closed_and_peers_that_are_gone() {
    let mut shards = Shards::new(4);
    for round in 0..1_000 {
        shards.ordered(&open(1 + round % 3));
        for ask in [pause(), switch(2), settle(), switch(3), pause()] {
            shards.ordered(&ask);
            shards.check();
        }
        assert_eq!(shards.asked.len(), 3);
        shards.ordered(&Order::Close { volume: V });
        let peer = NodeId(2);
        let _ = shards.linked(TWO, peer, Reach::There(Version::Two));
        let _ = shards.linked(TWO, peer, Reach::Gone);
    }
    assert!(shards.asked.is_empty() && shards.layers.is_empty() && shards.links.is_empty());
}

#[test]
fn a_peer_of_which_one_shard_has_lost_its_link_is_asked_anew() {
    let mut shards = Shards::new(2);
    let peer = NodeId(2);
    let (older, newer) = (Reach::There(Version::One), Reach::There(Version::Two));
    let mut told = |shard, link| -> Vec<Reach> { shards.linked(shard, peer, link).collect() };
    assert_eq!(told(ONE, older), [older]);
    assert_eq!(told(TWO, newer), [newer]);
    assert_eq!(told(TWO, Reach::Gone), [Reach::Gone, older]);
    assert_eq!(told(ONE, Reach::Gone), [Reach::Gone]);
}

#[test]
#[should_panic(expected = "an order is given before it is carried out")]
fn a_shard_that_has_carried_out_what_nobody_ordered_is_wrong() {
    Shards::new(1).said(ONE, 1, DRAINED);
}
