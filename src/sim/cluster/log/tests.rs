//! What the log promises, and that each fault happens.

use super::*;

const MS: u64 = 1_000_000;

/// Who is up, and who is cut off from all others.
#[derive(Default)]
struct World {
    down: BTreeSet<NodeId>,
    alone: BTreeSet<NodeId>,
}

impl Reach for World {
    fn is_up(&self, node: NodeId) -> bool {
        !self.down.contains(&node)
    }
    fn reaches(&self, _: Time, a: NodeId, b: NodeId) -> bool {
        let alone = self.alone.contains(&a) || self.alone.contains(&b);
        self.is_up(a) && self.is_up(b) && (a == b || !alone)
    }
}

fn members() -> Vec<NodeId> {
    (1..=3).map(NodeId).collect()
}

fn nodes() -> Vec<NodeId> {
    (1..=5).map(NodeId).collect()
}

fn run(log: &mut Log<u64>, world: &World, until: u64) -> Vec<Event<u64>> {
    let mut seen = Vec::new();
    while let Some(next) = log.next().filter(|next| next.0 <= until) {
        while let Some(event) = log.poll(next, world) {
            seen.push(event);
        }
    }
    seen
}

fn calm() -> Log<u64> {
    let mut log = Log::new(1, &members(), &nodes(), Pace::CALM);
    run(&mut log, &World::default(), 20 * MS);
    log
}

#[test]
fn what_the_leader_takes_is_committed_and_reaches_every_node_in_order() {
    let mut log = calm();
    let leader = log.leader().unwrap();
    let other = members().into_iter().find(|node| *node != leader).unwrap();
    let refused = log.propose(Time(20 * MS), other, 9);
    assert_eq!(refused, Err(NotTaken::NotLeader { hint: Some(leader) }));
    let ids: Vec<_> = (0..10)
        .map(|n| log.propose(Time(20 * MS), leader, n).unwrap())
        .collect();
    let seen = run(&mut log, &World::default(), 60 * MS);
    for node in nodes() {
        let applied: Vec<u64> = seen
            .iter()
            .filter_map(|event| match event {
                Event::Apply { at, command, .. } if *at == node => Some(*command),
                _ => None,
            })
            .collect();
        assert_eq!(applied, (0..10).collect::<Vec<_>>());
    }
    for (n, proposal) in ids.into_iter().enumerate() {
        let outcome = Outcome::Committed {
            index: n as u64 + 1,
        };
        assert!(seen.contains(&Event::Answered {
            at: leader,
            proposal,
            outcome
        }));
    }
}

#[test]
fn without_a_majority_nothing_is_committed_or_confirmed() {
    let mut log = calm();
    let leader = log.leader().unwrap();
    let others = members().into_iter().filter(|node| *node != leader);
    let world = World {
        down: others.collect(),
        ..World::default()
    };
    log.propose(Time(20 * MS), leader, 1).unwrap();
    log.confirm(Time(20 * MS), leader, 1, 7);
    assert!(run(&mut log, &world, 900 * MS).is_empty());
    let seen = run(&mut log, &World::default(), 1_200 * MS);
    let is_it = |event: &Event<u64>| matches!(event, Event::Committed { command: 1, .. });
    let lost = log.tally.of(Fault::ProposalLost).1 == 1;
    assert!(seen.iter().any(is_it) || lost);
}

#[test]
fn a_leader_that_is_cut_off_confirms_nothing_and_hears_of_the_next_when_it_is_reached() {
    let mut log = calm();
    let old = log.leader().unwrap();
    let world = World {
        alone: BTreeSet::from([old]),
        ..World::default()
    };
    let seen = run(&mut log, &world, 400 * MS);
    let new = log.leader().unwrap();
    assert_ne!(new, old);
    assert!(seen.contains(&Event::Lead { at: new, term: 2 }));
    // Two believe that they lead now; one of them is told so.
    let proposal = log.propose(Time(400 * MS), old, 5).unwrap();
    log.confirm(Time(400 * MS), old, 1, 1);
    log.confirm(Time(400 * MS), new, 2, 1);
    let seen = run(&mut log, &world, 500 * MS);
    assert_eq!(
        seen,
        [Event::Confirmed {
            at: new,
            term: 2,
            up_to: 1
        }]
    );
    log.confirm(Time(500 * MS), old, 1, 2);
    let seen = run(&mut log, &World::default(), 600 * MS);
    let outcome = Outcome::Unknown;
    assert!(
        seen.contains(&Event::Follow {
            at: old,
            term: 2,
            leader: Some(new)
        }),
        "{seen:?}"
    );
    assert!(seen.contains(&Event::Answered {
        at: old,
        proposal,
        outcome
    }));
    let confirmed = |event: &Event<u64>| matches!(event, Event::Confirmed { term: 1, .. });
    assert!(!seen.iter().any(confirmed));
}

#[test]
fn who_was_down_gets_a_snapshot_and_goes_on_from_there() {
    let mut log = calm();
    let leader = log.leader().unwrap();
    let node = NodeId(5);
    let world = World {
        down: BTreeSet::from([node]),
        ..World::default()
    };
    log.down(Time(20 * MS), node);
    for n in 0..5 {
        log.propose(Time(20 * MS), leader, n).unwrap();
    }
    run(&mut log, &world, 50 * MS);
    let seen = run(&mut log, &World::default(), 100 * MS);
    assert_eq!(seen, [Event::Snapshot { at: node, index: 5 }]);
    log.propose(Time(100 * MS), leader, 5).unwrap();
    let seen = run(&mut log, &World::default(), 150 * MS);
    assert!(seen.contains(&Event::Apply {
        at: node,
        index: 6,
        command: 5
    }));
}

#[test]
fn a_log_that_is_full_says_so() {
    let mut log = calm();
    let leader = log.leader().unwrap();
    let taken = (0..)
        .take_while(|&n| log.propose(Time(20 * MS), leader, n).is_ok())
        .count();
    assert_eq!(taken, PROPOSALS_MAX);
    assert_eq!(log.propose(Time(20 * MS), leader, 0), Err(NotTaken::Full));
}

/// A run in which everything happens; the events and the log.
fn wild(seed: u64) -> (Log<u64>, Vec<Event<u64>>) {
    let pace = Pace {
        commit_us: 3_000,
        apply_us: 2_000,
        late_one_in: 20,
        late_us: 100_000,
        unknown_one_in: 10,
        keep: 40,
        ..Pace::CALM
    };
    let mut log = Log::new(seed, &members(), &nodes(), pace);
    let (mut world, mut prng, mut seen) = (World::default(), Prng::new(seed), Vec::new());
    for n in 0..3_000u64 {
        let now = n * MS;
        let node = NodeId(1 + prng.below(5) as u32);
        match prng.below(200) {
            0 if world.down.insert(node) => log.down(Time(now), node),
            1 => drop(world.alone.insert(node)),
            2 => log.depose(Time(now)),
            3..9 => world = World::default(),
            _ => {}
        }
        let at = NodeId(1 + prng.below(3) as u32);
        if world.is_up(at) {
            let _ = log.propose(Time(now), at, n);
        }
        seen.extend(run(&mut log, &world, now));
    }
    seen.extend(run(&mut log, &World::default(), 5_000 * MS));
    (log, seen)
}

#[test]
fn whatever_happens_all_see_one_order_and_one_leader_a_term() {
    let mut tally = Tally::default();
    for seed in 0..20 {
        let (log, seen) = wild(seed);
        let (mut truth, mut terms) = (Vec::new(), BTreeMap::new());
        let mut has: BTreeMap<NodeId, u64> = BTreeMap::new();
        for event in &seen {
            match *event {
                Event::Committed { index, command, .. } => {
                    truth.push(command);
                    assert_eq!(index, truth.len() as u64);
                }
                Event::Apply { at, index, command } => {
                    let has = has.entry(at).or_default();
                    *has += 1;
                    assert_eq!((index, command), (*has, truth[*has as usize - 1]));
                }
                Event::Snapshot { at, index } => {
                    assert_eq!(index, truth.len() as u64);
                    has.insert(at, index);
                }
                Event::Lead { at, term } => {
                    assert_eq!(terms.insert(term, at), None, "one leader a term");
                    let has = has.get(&at).copied().unwrap_or_default();
                    assert_eq!(has, truth.len() as u64, "it has what was committed");
                }
                _ => {}
            }
        }
        assert!(truth.len() > 200, "seed {seed}: {} entries", truth.len());
        assert!(
            nodes().iter().all(|node| has[node] == log.committed()),
            "seed {seed}"
        );
        tally.add(&log.tally);
    }
    for fault in [
        Fault::LeaderChange,
        Fault::ProposalLost,
        Fault::ProposalUnknown,
        Fault::EntryLate,
        Fault::Snapshot,
    ] {
        assert!(tally.of(fault).1 > 0, "{} was never consumed", fault.name());
    }
}

#[test]
fn what_was_answered_as_committed_is_at_that_index() {
    for seed in 20..30 {
        let (_, seen) = wild(seed);
        let committed = |event: &Event<u64>| matches!(event, Event::Committed { .. });
        let most = seen.iter().filter(|event| committed(event)).count() as u64;
        let mut indices = BTreeSet::new();
        for event in &seen {
            if let Event::Answered {
                outcome: Outcome::Committed { index },
                ..
            } = event
            {
                assert!(
                    *index <= most && indices.insert(*index),
                    "each is answered once"
                );
            }
        }
        assert!(!indices.is_empty());
    }
}
