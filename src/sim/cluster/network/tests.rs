//! What the network promises, and that each fault happens.

use super::*;

const MS: u64 = 1_000_000;

fn nodes(count: u32) -> Vec<NodeId> {
    (1..=count).map(NodeId).collect()
}

/// Some nodes that have all connected, at 100 ms.
fn connected(seed: u64, count: u32, links: Links) -> Network<u64> {
    let mut network = Network::new(seed, nodes(count), links);
    for node in nodes(count) {
        network.start(Time(0), node);
    }
    run(&mut network, 100 * MS);
    let pairs = network.connections.len() as u32;
    assert_eq!(pairs, count * (count - 1) / 2);
    network
}

/// Everything that is seen until then, in its order.
fn run(network: &mut Network<u64>, until: u64) -> Vec<Event<u64>> {
    let mut seen = Vec::new();
    while let Some(next) = network.next().filter(|next| next.0 <= until) {
        while let Some(event) = network.poll(next) {
            seen.push(event);
        }
    }
    seen
}

fn messages(events: &[Event<u64>]) -> Vec<u64> {
    let message = |event: &Event<u64>| match event {
        Event::Deliver { message, .. } => Some(*message),
        _ => None,
    };
    events.iter().filter_map(message).collect()
}

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

#[test]
fn what_goes_over_one_connection_arrives_once_and_in_order() {
    let links = Links {
        spike_one_in: 5,
        spike_us: 3_000,
        ..Links::CALM
    };
    let mut network = connected(1, 2, links);
    for n in 0..500 {
        network.send(Time(100 * MS + n), A, B, n).unwrap();
    }
    let seen = run(&mut network, 1_000 * MS);
    assert_eq!(messages(&seen), (0..500).collect::<Vec<_>>());
    assert!(network.tally.of(Fault::Spike).1 > 50);
}

#[test]
fn a_way_that_is_closed_holds_messages_up_and_one_that_stays_closed_cuts_the_connection() {
    let mut network = connected(2, 3, Links::CALM);
    let now = Time(100 * MS);
    let block = network.block(Block::OneWay { from: A, to: B }).unwrap();
    network.send(now, A, B, 1).unwrap();
    network.send(now, B, A, 2).unwrap();
    assert_eq!(messages(&run(&mut network, 150 * MS)), [2]);
    network.lift(block);
    assert_eq!(messages(&run(&mut network, 200 * MS)), [1]);
    let block = network.block(Block::OneWay { from: A, to: B }).unwrap();
    network.send(Time(200 * MS), A, B, 3).unwrap();
    let seen = run(&mut network, 900 * MS);
    let lost = |event: &&Event<u64>| matches!(event, Event::ConnectionLost { .. });
    assert_eq!(
        seen.iter().filter(lost).count(),
        2,
        "both ends are told: {seen:?}"
    );
    assert!(messages(&seen).is_empty());
    network.lift(block);
    let seen = run(&mut network, 1_000 * MS);
    let there = |event: &&Event<u64>| matches!(event, Event::Connected { .. });
    assert_eq!(seen.iter().filter(there).count(), 2, "{seen:?}");
    assert!(network.tally.of(Fault::OneWay).1 >= 2);
    assert_eq!(network.tally.of(Fault::Drop), (1, 1));
}

#[test]
fn who_is_not_acknowledged_gives_the_connection_up() {
    let mut network = connected(3, 2, Links::CALM);
    network.block(Block::OneWay { from: B, to: A }).unwrap();
    for n in 0..50 {
        network.send(Time((100 + n * 10) * MS), A, B, n).unwrap();
        run(&mut network, (110 + n * 10) * MS);
    }
    assert!(!network.connections.contains_key(&(A, B)));
}

#[test]
fn a_partition_keeps_its_two_sides_connected_within() {
    let mut network = connected(4, 4, Links::CALM);
    let now = Time(100 * MS);
    let side = BTreeSet::from([A, B]);
    network.block(Block::Partition { side }).unwrap();
    assert!(network.reaches(now, A, B) && network.reaches(now, NodeId(3), NodeId(4)));
    assert!(!network.reaches(now, A, NodeId(3)));
    network.send(now, A, B, 1).unwrap();
    network.send(now, A, NodeId(3), 2).unwrap();
    assert_eq!(messages(&run(&mut network, 1_000 * MS)), [1]);
    network.heal();
    run(&mut network, 1_100 * MS);
    assert_eq!(network.connections.len(), 6, "all find one another again");
}

#[test]
fn a_frame_with_a_wrong_crc_is_not_delivered_and_cuts_the_connection() {
    let links = Links {
        corrupt_one_in: 1,
        ..Links::CALM
    };
    let mut network = connected(5, 2, links);
    network.send(Time(100 * MS), A, B, 1).unwrap();
    let seen = run(&mut network, 200 * MS);
    assert!(messages(&seen).is_empty());
    let lost = |event: &&Event<u64>| matches!(event, Event::ConnectionLost { .. });
    assert_eq!(seen.iter().filter(lost).count(), 2);
    assert_eq!(network.tally.of(Fault::Corrupt), (1, 1));
}

#[test]
fn a_crash_loses_what_is_on_its_way_to_it_and_the_next_life_sees_none_of_it() {
    let mut network = connected(6, 2, Links::CALM);
    let now = Time(100 * MS);
    network.send(now, A, B, 1).unwrap();
    network.crash(now, B);
    network.start(now + Duration::from_micros(1), B);
    let seen = run(&mut network, 200 * MS);
    assert!(messages(&seen).is_empty());
    let at_b = |event: &&Event<u64>| event.at() == B;
    let first = seen.iter().find(at_b);
    assert!(matches!(first, Some(Event::Connected { .. })), "{seen:?}");
    assert_eq!(network.tally.of(Fault::Crash), (1, 1));
    network.send(Time(200 * MS), A, B, 2).unwrap();
    assert_eq!(messages(&run(&mut network, 300 * MS)), [2]);
}

#[test]
fn a_stopped_node_sees_everything_when_it_wakes() {
    let mut network = connected(7, 2, Links::CALM);
    assert!(network.pause(B) && !network.pause(B));
    for n in 0..2_000 {
        network.send(Time(100 * MS), A, B, n).unwrap();
    }
    assert!(messages(&run(&mut network, 300 * MS)).is_empty());
    assert!(network.nodes[&B].held.len() <= HELD_MAX + 4, "bounded");
    network.wake(B);
    let seen = run(&mut network, 600 * MS);
    assert_eq!(messages(&seen), (0..2_000).collect::<Vec<_>>());
    assert_eq!(network.tally.of(Fault::Pause), (1, 1));
}

#[test]
fn a_way_that_is_full_says_so() {
    let mut network = connected(8, 2, Links::CALM);
    let now = Time(100 * MS);
    let sent = (0..)
        .take_while(|&n| network.send(now, A, B, n).is_ok())
        .count();
    assert_eq!(sent, FLOW_MAX);
    run(&mut network, 200 * MS);
    assert_eq!(network.send(Time(200 * MS), A, B, 0), Ok(()));
}

/// A network in which everything happens, and what each connection and way delivered.
fn wild(seed: u64) -> (Network<u64>, Vec<Event<u64>>) {
    let links = Links {
        latency_us: 200,
        slow_one_in: 4,
        slow_times: 20,
        spike_one_in: 40,
        spike_us: 30_000,
        silent_one_in: 200,
        corrupt_one_in: 200,
        again_one_in: 2,
        late_one_in: 2,
        patience_us: 50_000,
        reconnect_us: 1_000,
    };
    let mut network = connected(seed, 4, links);
    let mut prng = Prng::new(seed);
    let mut seen = Vec::new();
    let mut block = None;
    for n in 0..4_000u64 {
        let at = Time(100 * MS + n * 100_000);
        let from = NodeId(1 + prng.below(4) as u32);
        let to = NodeId(1 + (u64::from(from.0) + prng.below(3)) as u32 % 4);
        if network.is_up(from) {
            network.send(at, from, to, n).unwrap();
        }
        match prng.below(400) {
            0 => network.crash(at, to),
            1 => drop(network.pause(to)),
            2 => network.disconnect(at, from, to),
            3 => block = network.block(Block::OneWay { from, to }),
            4 => {
                let (between, since, period) = ((from, to), at, Duration::from_millis(7));
                block = network.block(Block::Flap {
                    between,
                    since,
                    period,
                });
            }
            5..25 => {
                network.wake(from);
                if network.nodes[&from].state == State::Down {
                    network.start(at, from);
                }
                block.take().map(|block| network.lift(block));
            }
            _ => {}
        }
        seen.extend(run(&mut network, at.0));
    }
    network.heal();
    for node in nodes(4) {
        network.wake(node);
        if network.nodes[&node].state == State::Down {
            network.start(Time(600 * MS), node);
        }
    }
    seen.extend(run(&mut network, 1_500 * MS));
    (network, seen)
}

#[test]
fn whatever_happens_each_connection_keeps_its_order_and_nothing_comes_more_than_twice() {
    let mut tally = Tally::default();
    for seed in 0..20 {
        let (network, seen) = wild(seed);
        let mut last: BTreeMap<(NodeId, NodeId, ConnectionNo), u64> = BTreeMap::new();
        let mut times: BTreeMap<u64, u32> = BTreeMap::new();
        for event in &seen {
            if let Event::Deliver {
                from,
                to,
                connection,
                message,
            } = event
            {
                let last = last.insert((*from, *to, *connection), *message);
                // What is sent again comes before what is new, and has lower numbers.
                assert!(
                    last.is_none_or(|last| last < *message),
                    "seed {seed}: {event:?}"
                );
                *times.entry(*message).or_default() += 1;
            }
        }
        assert!(times.len() > 1_000, "seed {seed}: {} arrived", times.len());
        tally.add(&network.tally);
        assert_eq!(
            network.connections.len(),
            6,
            "seed {seed}: all are connected at last"
        );
    }
    for fault in [
        Fault::Drop,
        Fault::Duplicate,
        Fault::Reorder,
        Fault::Corrupt,
        Fault::SlowLink,
        Fault::Spike,
        Fault::OneWay,
        Fault::Flap,
        Fault::Crash,
        Fault::Pause,
    ] {
        assert!(tally.of(fault).1 > 0, "{} was never consumed", fault.name());
    }
}

#[test]
fn the_same_seed_is_the_same_network() {
    assert_eq!(wild(5).1, wild(5).1);
    assert_ne!(wild(5).1, wild(6).1);
}

#[test]
fn power_loss_leaves_nothing_on_its_way() {
    let mut network = connected(
        9,
        3,
        Links {
            late_one_in: 1,
            ..Links::CALM
        },
    );
    let now = Time(100 * MS);
    network.send(now, A, B, 1).unwrap();
    network.power_loss(now);
    assert!(run(&mut network, 1_000 * MS).is_empty());
    for node in nodes(3) {
        network.start(Time(1_000 * MS), node);
    }
    let seen = run(&mut network, 1_100 * MS);
    assert!(messages(&seen).is_empty());
    assert_eq!(network.connections.len(), 3);
    assert_eq!(network.tally.of(Fault::PowerLoss), (1, 1));
}
