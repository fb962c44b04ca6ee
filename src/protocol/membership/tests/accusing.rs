//! Whom the leader believes (R11), where the stories are too small: two bad cards, a split, the bounds.

use super::super::*;
use crate::base::{NodeId, Time};
use std::time::Duration;

const MS: u64 = 1_000_000;

/// A leader and its nodes, all of which hold leases and renew when they are told to.
struct Site {
    grantor: Grantor,
    nodes: u32,
    now: u64,
    request: u64,
    verdicts: Vec<Verdict>,
}

impl Site {
    fn new(nodes: u32) -> Site {
        let grantor = Grantor::new(Time(1), NodeId(900), Parameters::DEFAULT, RulesOff::NONE);
        let mut site = Site {
            grantor: grantor.unwrap(),
            nodes,
            now: 1,
            request: 0,
            verdicts: Vec::new(),
        };
        site.tell(Incarnation(0));
        site.step(GrantorInput::Lead { term: Term(1) });
        site.tell(Incarnation(1));
        site.renew();
        site.renew();
        site
    }

    fn tell(&mut self, incarnation: Incarnation) {
        for node in 0..self.nodes {
            let node = NodeId(node);
            self.step(GrantorInput::Node { node, incarnation });
        }
    }

    fn step(&mut self, input: GrantorInput) {
        let mut out = Vec::new();
        let now = Time(self.now);
        if self.grantor.deadline().is_some_and(|at| at <= now) {
            self.grantor.expire(now, &mut out);
        }
        self.grantor.step(now, input, &mut out);
        for output in out {
            if let GrantorOutput::Verdict(verdict) = output {
                self.verdicts.push(verdict);
            }
        }
    }

    /// Everybody renews, 60 ms later.
    fn renew(&mut self) {
        self.now += 60 * MS;
        self.request += 1;
        for node in 0..self.nodes {
            let standing = match self.request {
                1 => Standing::Lost(LeaseNumber::NONE),
                _ => Standing::Holds(lease(u64::from(node) + 1)),
            };
            self.ask(node, standing);
        }
    }

    fn ask(&mut self, node: u32, standing: Standing) {
        self.step(GrantorInput::Ask(Ask {
            node: NodeId(node),
            incarnation: Incarnation(1),
            request: self.request,
            want: Want::Lease,
            standing,
            elapsed: Duration::from_millis(60 * self.request),
            answered: None,
        }));
    }

    fn accuse(&mut self, by: u32, accused: u32) {
        let (by, accused) = (NodeId(by), NodeId(accused));
        self.step(GrantorInput::Accuse { by, accused });
    }

    /// Lets the hearing pass, with everybody renewing; who is suspect.
    fn suspects(&mut self) -> Vec<u32> {
        (0..3).for_each(|_| self.renew());
        let suspect = |verdict: &Verdict| match verdict {
            Verdict::Suspect { node, .. } => Some(node.0),
            Verdict::Cleared { .. } | Verdict::Disputed { .. } => None,
        };
        self.verdicts.iter().filter_map(suspect).collect()
    }
}

fn lease(count: u64) -> LeaseNumber {
    let term = Term(1);
    LeaseNumber { term, count }
}

#[test]
fn who_holds_a_new_lease_is_not_suspect_by_what_was_said_before() {
    let mut site = Site::new(4);
    site.nodes = 2;
    site.renew();
    for node in [2, 3] {
        site.ask(node, Standing::Lost(lease(u64::from(node) + 1)));
        site.accuse(0, node);
    }
    assert_eq!(site.suspects(), [2, 3]);
    site.verdicts.clear();
    site.renew();
    assert_eq!(site.verdicts, [], "neither has said yet that it holds one");
    site.ask(2, Standing::Holds(lease(5)));
    assert_eq!(site.verdicts, [Verdict::Cleared { node: NodeId(2) }]);
    site.accuse(0, 2);
    assert_eq!(site.suspects(), [0; 0], "one word against one that lives");
}

#[test]
fn two_bad_cards_evict_nobody_but_themselves() {
    let mut site = Site::new(6);
    for healthy in 0..4 {
        site.accuse(4, healthy);
        site.accuse(5, healthy);
    }
    site.now += 40 * MS;
    for healthy in 0..4 {
        site.accuse(healthy, 4);
        site.accuse(healthy, 5);
    }
    assert_eq!(site.suspects(), [5, 4]);
}

#[test]
fn of_a_site_that_is_split_in_half_one_half_stays_whole() {
    let mut site = Site::new(4);
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        site.accuse(a, b);
        site.accuse(b, a);
    }
    assert_eq!(site.suspects(), [3, 2]);
}

#[test]
fn a_lone_accuser_of_two_is_not_judged_and_a_verdict_is_told_once() {
    let mut site = Site::new(5);
    site.accuse(4, 0);
    site.accuse(4, 1);
    assert_eq!(site.suspects(), [0; 0]);
    site.accuse(4, 2);
    site.accuse(4, 2);
    assert_eq!(site.suspects(), [4]);
    assert_eq!(site.suspects(), [4]);
}

#[test]
fn who_holds_no_lease_is_not_heard() {
    let mut site = Site::new(3);
    site.nodes = 2; // node 2 renews no more
    (0..8).for_each(|_| site.renew());
    site.accuse(2, 0);
    site.accuse(1, 0);
    assert_eq!(site.suspects(), [0; 0]);
}

#[test]
fn words_are_bounded_by_accuser_and_in_all() {
    let mut site = Site::new(200);
    (1..=40).for_each(|accused| site.accuse(0, accused));
    assert_eq!(site.grantor.words(), OF_ONE_MAX);
    for by in 1..200 {
        (0..20).for_each(|accused| site.accuse(by, (by + 1 + accused) % 200));
    }
    assert_eq!(site.grantor.words(), ACCUSATIONS_MAX);
}
