//! A holder and a grantor alone: sentences that the stories have no room for.

use super::super::*;
use crate::base::{NodeId, Time};
use std::time::Duration;

const MS: u64 = 1_000_000;
const GOOD: Parameters = Parameters::DEFAULT;
const LEASE: LeaseNumber = LeaseNumber {
    term: Term(2),
    count: 7,
};

fn at(ms: u64) -> Time {
    Time(1_000 * MS + ms * MS)
}

fn holder() -> Holder {
    let members = vec![NodeId(1), NodeId(2), NodeId(3)];
    Holder::new(
        at(0),
        NodeId(4),
        Incarnation(5),
        members,
        GOOD,
        RulesOff::NONE,
    )
    .unwrap()
}

fn granted(request: u64, incarnation: u64, lease: LeaseNumber) -> HolderInput {
    let length = GOOD.lease;
    HolderInput::Answer {
        from: NodeId(1),
        incarnation: Incarnation(incarnation),
        request,
        term: lease.term,
        answer: Answer::Granted { lease, length },
    }
}

fn hinted(from: u32, request: u64, hint: u32) -> HolderInput {
    let hint = Some(NodeId(hint));
    HolderInput::Answer {
        from: NodeId(from),
        incarnation: Incarnation(5),
        request,
        term: Term(0),
        answer: Answer::NotLeader { hint },
    }
}

/// Whom the last ask of an output went to, and its number.
fn last_ask(out: &[HolderOutput]) -> Option<(u32, u64)> {
    out.iter().rev().find_map(|output| match output {
        HolderOutput::Send { to, ask } => Some((to.0, ask.request)),
        _ => None,
    })
}

#[test]
fn a_node_whose_lease_ran_out_serves_nothing_though_its_machine_was_not_stepped() {
    let (mut holder, mut out) = (holder(), Vec::new());
    assert!(!holder.is_valid(at(0)));
    holder.expire(at(0), &mut out);
    holder.step(at(30), granted(1, 5, LEASE), &mut out);
    // From the send at 0, though the answer came at 30.
    assert_eq!(holder.valid_until(), Time(at(400).0 - 400_000));
    assert!(holder.is_valid(at(399)) && !holder.is_valid(at(400)));
    assert!(!holder.is_valid(at(100_000)));
}

#[test]
fn answers_that_are_doubled_of_an_earlier_start_or_to_nothing_change_nothing() {
    let (mut holder, mut out) = (holder(), Vec::new());
    holder.expire(at(0), &mut out);
    holder.step(at(1), granted(1, 4, LEASE), &mut out);
    holder.step(at(1), granted(2, 5, LEASE), &mut out);
    assert_eq!(holder.lease(), None);
    holder.step(at(1), granted(1, 5, LEASE), &mut out);
    assert_eq!(holder.lease(), Some(LEASE));
    let (until, said) = (holder.valid_until(), out.len());
    holder.step(at(300), granted(1, 5, LEASE), &mut out);
    assert_eq!((holder.valid_until(), out.len()), (until, said));
}

#[test]
fn a_lease_that_was_fenced_is_not_brought_back_and_neither_is_an_older_one() {
    let (mut holder, mut out) = (holder(), Vec::new());
    holder.expire(at(0), &mut out);
    holder.step(at(1), granted(1, 5, LEASE), &mut out);
    holder.expire(at(100), &mut out); // request 2
    holder.expire(at(400), &mut out); // fenced; request 3
    let fenced = HolderOutput::Fenced {
        lease: LEASE,
        why: Loss::RanOut,
    };
    assert!(out.contains(&fenced));
    let older = LeaseNumber { count: 6, ..LEASE };
    holder.step(at(401), granted(2, 5, LEASE), &mut out);
    holder.step(at(401), granted(3, 5, older), &mut out);
    assert_eq!(holder.lease(), None);
    holder.expire(at(501), &mut out); // request 4
    let next = LeaseNumber { count: 8, ..LEASE };
    holder.step(at(502), granted(4, 5, next), &mut out);
    assert_eq!(holder.lease(), Some(next));
    assert_eq!(holder.check(), Ok(()));
}

#[test]
fn a_held_lease_gives_way_to_a_higher_number_and_not_to_a_lower() {
    let (mut holder, mut out) = (holder(), Vec::new());
    holder.expire(at(0), &mut out);
    holder.step(at(1), granted(1, 5, LEASE), &mut out);
    holder.expire(at(100), &mut out);
    let older = LeaseNumber {
        term: Term(1),
        count: 90,
    };
    holder.step(at(101), granted(2, 5, older), &mut out);
    assert_eq!(holder.lease(), Some(LEASE));
    holder.expire(at(200), &mut out);
    out.clear();
    let newer = LeaseNumber {
        term: Term(3),
        count: 1,
    };
    holder.step(at(201), granted(3, 5, newer), &mut out);
    let fenced = HolderOutput::Fenced {
        lease: LEASE,
        why: Loss::Replaced,
    };
    assert_eq!(out[0], fenced);
    assert!(matches!(out[1], HolderOutput::Held { lease, .. } if lease == newer));
}

#[test]
fn two_members_that_name_each_other_are_not_followed_in_circles() {
    let (mut holder, mut out) = (holder(), Vec::new());
    holder.expire(at(0), &mut out);
    let mut asks = 1;
    while let Some((to, request)) = last_ask(&out) {
        asks += 1;
        assert!(asks < 10, "it goes in circles");
        out.clear();
        holder.step(at(1), hinted(to, request, 3 - to), &mut out);
    }
    assert_eq!(asks - 1, 1 + 3); // the first, and one redirect a member
    assert_eq!(holder.deadline(), Some(at(21)));
}

#[test]
fn a_hint_at_a_dead_member_does_not_hide_the_one_that_leads() {
    // Member 1 is dead, member 2 still names it, member 3 leads.
    let (mut holder, mut out) = (holder(), Vec::new());
    let mut asked = Vec::new();
    for _ in 0..6 {
        let now = holder.deadline().unwrap();
        out.clear();
        holder.expire(now, &mut out);
        let (to, request) = last_ask(&out).unwrap();
        asked.push(to);
        if to == 2 {
            holder.step(now, hinted(2, request, 1), &mut out);
        }
    }
    assert!(asked[..3].contains(&3), "{asked:?}");
}

#[test]
fn a_stop_that_nobody_answers_ends_when_the_lease_has_run_out_by_itself() {
    let (mut holder, mut out) = (holder(), Vec::new());
    holder.expire(at(0), &mut out);
    holder.step(at(1), granted(1, 5, LEASE), &mut out);
    holder.step(at(50), HolderInput::Stop, &mut out);
    assert!(!holder.is_valid(at(50)));
    let mut now = at(50);
    while let Some(next) = holder.deadline() {
        now = next;
        holder.expire(now, &mut out);
    }
    assert_eq!(out.last(), Some(&HolderOutput::Stopped { released: false }));
    assert!(now.since(at(0)) >= GOOD.lease && now.since(at(0)) < Duration::from_millis(450));
}

fn leader() -> (Grantor, Vec<GrantorOutput>) {
    let (mut grantor, mut out) = (
        Grantor::new(at(0), NodeId(1), GOOD, RulesOff::NONE).unwrap(),
        Vec::new(),
    );
    let (node, incarnation) = (NodeId(4), Incarnation(0));
    grantor.step(at(0), GrantorInput::Node { node, incarnation }, &mut out);
    grantor.step(at(0), GrantorInput::Lead { term: Term(2) }, &mut out);
    let incarnation = Incarnation(5);
    grantor.step(at(0), GrantorInput::Node { node, incarnation }, &mut out);
    (grantor, out)
}

fn ask(request: u64) -> GrantorInput {
    GrantorInput::Ask(Ask {
        node: NodeId(4),
        incarnation: Incarnation(5),
        request,
        want: Want::Lease,
        standing: Standing::Lost(LeaseNumber::NONE),
        elapsed: Duration::from_millis(request),
        answered: None,
    })
}

fn answered(out: &[GrantorOutput]) -> Vec<u64> {
    let request = |output: &GrantorOutput| match output {
        GrantorOutput::Answer { request, .. } => Some(*request),
        _ => None,
    };
    out.iter().filter_map(request).collect()
}

#[test]
fn an_answer_whose_round_is_on_its_way_is_not_held_up_by_a_newer_ask() {
    let (mut grantor, mut out) = leader();
    let term = Term(2);
    grantor.step(at(1), ask(1), &mut out); // round 1 begins
    grantor.step(at(2), ask(2), &mut out); // covered by no round yet
    grantor.step(at(3), GrantorInput::Confirmed { term, up_to: 1 }, &mut out);
    assert_eq!(answered(&out), [1]);
    // An older ask, late or doubled, is not answered again.
    grantor.step(at(4), ask(1), &mut out);
    grantor.step(at(4), ask(2), &mut out);
    grantor.step(at(5), ask(3), &mut out);
    grantor.step(at(6), GrantorInput::Confirmed { term, up_to: 2 }, &mut out);
    assert_eq!(answered(&out), [1, 3]);
}

#[test]
fn a_confirmation_of_another_term_or_of_a_round_that_never_began_confirms_nothing() {
    let (mut grantor, mut out) = leader();
    grantor.step(at(1), ask(1), &mut out);
    for (term, up_to) in [(Term(1), 1), (Term(3), 1), (Term(2), 2)] {
        grantor.step(at(2), GrantorInput::Confirmed { term, up_to }, &mut out);
    }
    assert_eq!(answered(&out), [0; 0]);
}

#[test]
fn a_site_has_a_bounded_number_of_nodes() {
    let (mut grantor, mut out) = leader();
    for node in 100..100 + NODES_MAX as u32 {
        let (node, incarnation) = (NodeId(node), Incarnation(0));
        grantor.step(at(1), GrantorInput::Node { node, incarnation }, &mut out);
    }
    let node = NodeId(99 + NODES_MAX as u32);
    assert_eq!(out, [GrantorOutput::Full { node }]);
}

#[test]
fn accusations_are_bounded_and_strangers_are_not_heard() {
    let (mut grantor, mut out) = leader();
    let accused = NodeId(4);
    let by = NodeId(77);
    grantor.step(at(1), GrantorInput::Accuse { by, accused }, &mut out);
    grantor.step(
        at(1),
        GrantorInput::Accuse {
            by: accused,
            accused: by,
        },
        &mut out,
    );
    assert_eq!((out.len(), grantor.deadline()), (0, None));
}
