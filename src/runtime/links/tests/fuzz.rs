//! Streams as nobody sends them: mostly whole, in random pieces, with here and there something wrong. `SARSEN_FUZZ_ITERATIONS` and `SARSEN_FUZZ_SEED`
//! make it run longer or elsewhere.

use super::ends::{End, SMALL, place_of};
use super::frames::{DISK, contents, done, fetch, mark, read, seal, value, write, zeroes};
use crate::base::Prng;
use crate::observe::CUTS;
use crate::wire::{Credit, Frame, HEAD_LEN, Version, set_number};
use std::collections::{BTreeSet, VecDeque};

fn number(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok().and_then(|text| text.parse().ok());
    given.unwrap_or(otherwise)
}

/// A frame with its payload.
fn any(prng: &mut Prng, credit: &mut Credit) -> (Frame, Vec<u8>) {
    let id = 1 + prng.below(6);
    let (at, run) = place_of(id << 6);
    match prng.below(10) {
        0..3 => (write(id, at, run), contents(at, run).0),
        3 => (read(id, at, run), Vec::new()),
        4 => (mark(), Vec::new()),
        5 => (done(id), Vec::new()),
        6 => (value(id << 6, at, run), contents(at, run).0),
        7 => (zeroes(id << 6), Vec::new()),
        8 => (
            match prng.one_in(2) {
                true => fetch(id, at),
                false => seal(),
            },
            Vec::new(),
        ),
        _ => {
            match prng.below(20) {
                0 => credit.asks = credit.asks.saturating_sub(1),
                _ => credit.asks += prng.below(5),
            }
            credit.bytes += prng.below(100_000);
            (Frame::Credit(*credit), Vec::new())
        }
    }
}

/// A stream of some frames, one of which may be wrong.
fn stream(prng: &mut Prng) -> VecDeque<u8> {
    let mut credit = Credit::default();
    let mut all = VecDeque::new();
    let count = 1 + prng.below(12);
    let wrong = prng.below(count * 2);
    let mut order = 0u32;
    for n in 0..count {
        let (frame, mut payload) = any(prng, &mut credit);
        let mut bytes = Vec::new();
        let blocks = (payload.len() / 4096) as u32;
        frame
            .encode(Version::PRESENT, DISK, blocks, &mut bytes)
            .unwrap();
        set_number(&mut bytes, order);
        order += 1;
        if n == wrong {
            let at = prng.below(bytes.len() as u64) as usize;
            match prng.below(7) {
                0 => bytes[at] ^= 1 << prng.below(8),
                1 => {
                    // Under a right checksum.
                    bytes[at.min(HEAD_LEN - 9)] = prng.next_u64() as u8;
                    set_number(&mut bytes, order - 1);
                }
                2 => bytes.truncate(at),
                3 => set_number(&mut bytes, prng.below(20) as u32),
                4 if !payload.is_empty() => {
                    let at = prng.below(payload.len() as u64) as usize;
                    payload[at] ^= 1 << prng.below(8);
                }
                5 => drop(payload.split_off(payload.len() / 2)),
                _ => bytes = (0..at).map(|_| prng.next_u64() as u8).collect(),
            }
        }
        all.extend(bytes);
        all.extend(payload);
    }
    all
}

#[test]
fn fuzz_a_stream_is_taken_or_cut_off_with_a_reason_and_nothing_is_held_after_it() {
    let mut prng = Prng::new(number("SARSEN_FUZZ_SEED", 5));
    let (mut seen, mut whole) = (BTreeSet::new(), 0);
    for _ in 0..number("SARSEN_FUZZ_ITERATIONS", 20_000) {
        let mut end = End::new(SMALL);
        end.pool.peers_max = 1 + prng.below(40) as u32;
        end.flush();
        for id in 1..4u64 {
            let (at, run) = place_of(id << 6);
            end.send(read(id << 6, at, run)).unwrap();
        }
        let mut wire = stream(&mut prng);
        loop {
            let most = 1 + prng.below(6_000) as usize;
            let took = end.receive(&mut wire, most);
            match prng.below(4) {
                0 => end.let_go(),
                1 => end.flush(),
                2 => end.look_at_anything(),
                _ => end.feed(),
            }
            if took == 0 {
                // It waits for memory, or is down, or there is no more.
                end.look_at_anything();
                end.let_go();
                end.feed();
                if !end.link.inbound.is_hungry() && (wire.is_empty() || !end.link.is_up()) {
                    break;
                }
                if end.link.inbound.is_hungry() && end.taken.is_empty() {
                    break; // more than there is memory at all
                }
            }
        }
        whole += u64::from(end.link.is_up());
        end.link.ended();
        seen.extend(end.link.why.map(|why| CUTS[why.place()]));
        end.end();
    }
    assert!(whole > 100, "{whole}");
    let all = [
        "closed",
        "truncated",
        "malformed",
        "out_of_order",
        "checksum",
        "over_credit",
        "credit_taken_back",
    ];
    let missing: Vec<_> = all.iter().filter(|why| !seen.contains(*why)).collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}
