//! Two links that speak to one another, in every order of things that a seed draws.

use super::ends::{End, SMALL};
use crate::base::{Prng, Time};
use crate::runtime::links::limits::Limits;
use crate::wire::Credit;

/// What happens next at one of two ends.
fn happen(one: &mut End, other: &mut End, prng: &mut Prng, asks: bool) {
    match prng.below(9) {
        0 if asks => one.ask(prng),
        1 => drop(one.begin_send()),
        2 => one.end_send(),
        3 | 4 => {
            let most = match prng.below(3) {
                0 => 1 + prng.below(100),
                1 => 1 + prng.below(5_000),
                _ => u64::MAX,
            };
            one.receive(&mut other.wire, most as usize);
        }
        5 => one.look(),
        6 => one.answer(prng),
        7 => one.let_go(),
        _ => one.feed(),
    }
}

/// Runs two ends for so many steps, then until nothing moves. How many asks were answered.
fn run(seed: u64, steps: u64, limits: [Limits; 2]) -> u64 {
    let mut prng = Prng::new(seed);
    let [mut a, mut b] = limits.map(End::new);
    for end in [&mut a, &mut b] {
        // As little as one write of a chunk needs, or plenty.
        end.pool.peers_max = [16, 17, 64][prng.below(3) as usize];
    }
    for step in 0..steps + 200_000 {
        let asks = step < steps;
        let (one, other) = match prng.one_in(2) {
            true => (&mut a, &mut b),
            false => (&mut b, &mut a),
        };
        happen(one, other, &mut prng, asks);
        let is_at_rest = |end: &End| {
            end.link.outbound.is_idle()
                && end.wire.is_empty()
                && end.owed.is_empty()
                && end.taken.is_empty()
                && end.events.is_empty()
                && end.link.asked.is_empty()
        };
        if !asks && is_at_rest(&a) && is_at_rest(&b) {
            break;
        }
    }
    for end in [&mut a, &mut b] {
        assert_eq!(end.link.why, None, "seed {seed}");
        assert!(
            end.link.outbound.is_idle() && end.link.asked.is_empty(),
            "seed {seed}: something waits for ever"
        );
        assert!(end.answered >= end.asked, "seed {seed}");
        assert!(end.link.grant.is_whole(), "seed {seed}: credit is lost");
        assert_eq!(end.pool.held(), 0, "seed {seed}: a buffer is held");
        assert_eq!(end.link.unasked, 0, "seed {seed}");
    }
    a.answered + b.answered
}

#[test]
fn asks_in_both_directions_are_all_answered_whatever_the_order_of_things() {
    let mut answered = 0;
    for seed in 0..60 {
        answered += run(seed, 3_000, [Limits::USUAL; 2]);
    }
    assert!(answered > 5_000, "{answered}");
}

#[test]
fn with_hardly_any_credit_nothing_waits_for_ever() {
    let one = Limits {
        credit: Credit {
            asks: 1,
            ..SMALL.credit
        },
        ..SMALL
    };
    let mut answered = 0;
    for seed in 0..100 {
        answered += run(seed, 3_000, [SMALL, SMALL]);
        answered += run(seed, 3_000, [one, SMALL]);
        answered += run(seed, 2_000, [one, one]);
    }
    assert!(answered > 10_000, "{answered}");
}

#[test]
fn a_pair_that_ends_amid_everything_holds_nothing() {
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let (mut a, mut b) = (End::new(SMALL), End::new(SMALL));
        for _ in 0..prng.below(800) {
            let (one, other) = match prng.one_in(2) {
                true => (&mut a, &mut b),
                false => (&mut b, &mut a),
            };
            happen(one, other, &mut prng, true);
        }
        a.end();
        b.end();
    }
}

#[test]
fn an_end_that_answers_nothing_and_lets_nothing_go_stops_the_other_at_its_credit() {
    let (mut a, mut b) = (End::new(SMALL), End::new(SMALL));
    let mut prng = Prng::new(1);
    b.flush();
    a.receive(&mut b.wire, usize::MAX);
    for _ in 0..50 {
        a.ask(&mut prng);
        a.flush();
        while b.receive(&mut a.wire, usize::MAX) > 0 {}
        b.look();
    }
    assert!(a.link.outbound.is_waiting_for_credit());
    assert!(a.link.asked.len() <= 3, "{}", a.link.asked.len());
    assert!(a.link.is_up() && b.link.is_up());
    // Meanwhile the other way is open.
    a.flush();
    b.receive(&mut a.wire, usize::MAX);
    b.send(super::frames::write(
        1,
        super::frames::at(1),
        super::ends::place_of(5).1,
    ))
    .unwrap();
    b.flush();
    while a.receive(&mut b.wire, usize::MAX) > 0 {}
    a.look();
    assert_eq!(a.owed.len(), 1);
    a.answer(&mut prng);
    a.flush();
    while b.receive(&mut a.wire, usize::MAX) > 0 {}
    b.look();
    assert_eq!(b.answered, 1);
    a.end();
    b.end();
}

#[test]
fn asks_that_are_never_answered_give_their_credit_back_after_a_while() {
    let (mut a, mut b) = (End::new(SMALL), End::new(SMALL));
    b.flush();
    a.receive(&mut b.wire, usize::MAX);
    let later = |end: &mut End, seconds: u64| {
        end.now = Time(end.now.0 + seconds * 1_000_000_000);
        end.link.expire(end.now, &mut end.events);
    };
    let mut prng = Prng::new(2);
    let mut sent = 0;
    for _ in 0..20 {
        for id in sent..sent + 3 {
            a.send(super::frames::write(
                id + 1,
                super::frames::at(1),
                super::ends::place_of(5).1,
            ))
            .unwrap();
        }
        sent += 3;
        a.flush();
        while b.receive(&mut a.wire, usize::MAX) > 0 {}
        b.look();
        assert_eq!(b.owed.len(), 3, "within its credit, and no more");
        b.owed.clear(); // they are lost
        b.let_go();
        b.let_go();
        b.let_go();
        for _ in 0..4 {
            later(&mut a, 16);
            later(&mut b, 16);
        }
        b.flush();
        while a.receive(&mut b.wire, usize::MAX) > 0 {}
    }
    assert!(a.link.asked.is_empty(), "they are forgotten there too");
    // A late answer harms nobody.
    b.owed.push(super::frames::write(
        1,
        super::frames::at(1),
        super::ends::place_of(5).1,
    ));
    b.answer(&mut prng);
    b.flush();
    a.receive(&mut b.wire, usize::MAX);
    a.look();
    assert_eq!((a.link.why, a.link.unasked), (None, 1));
    a.end();
    b.end();
}
