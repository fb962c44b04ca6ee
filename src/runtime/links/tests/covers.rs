//! Links whose bytes are covered, on real rings. The cover is not TLS, which is others' (`calls` tests that), but breaks as it does: records that are counted, sums, words of
//! its own at any time, and an end that stays one.

use super::rings::{Node, PATIENCE, SHARD, cuts, tcp, wait};
use crate::runtime::links::limits::Limits;
use crate::runtime::links::{Cover, Why};
use std::io::{Read, Write};
use std::net::Shutdown;

const HEAD: usize = 8;
const DATA: u8 = 1;
/// The cover's own, as keys that are to be renewed.
const WORD: u8 = 2;
const FAREWELL: u8 = 3;
/// Records of data after which it says something itself.
const WORDS_EVERY: u32 = 7;

#[derive(Debug, Default)]
struct Masked {
    said: u32,
    heard: u32,
    held: Vec<u8>,
    has_ended: bool,
}

/// The sum of a record in its place.
fn sum(number: u32, bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(number as u8, |sum, byte| sum.rotate_left(1) ^ byte)
}

impl Masked {
    fn say(&mut self, kind: u8, clear: &[u8], out: &mut Vec<u8>) {
        let len = clear.len() as u16;
        out.extend(self.said.to_le_bytes());
        out.extend(len.to_le_bytes());
        out.extend([kind, sum(self.said, clear)]);
        let mask = self.said as u8 | 1;
        out.extend(clear.iter().map(|byte| byte ^ mask));
        self.said += 1;
    }

    /// The next record, where all of it is there.
    fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>, String> {
        let Some((head, behind)) = self.held.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [a, b, c, d, low, high, kind, expected] = *head;
        let number = u32::from_le_bytes([a, b, c, d]);
        let len = usize::from(u16::from_le_bytes([low, high]));
        let Some(bytes) = behind.get(..len) else {
            return Ok(None);
        };
        let mask = number as u8 | 1;
        let clear: Vec<u8> = bytes.iter().map(|byte| byte ^ mask).collect();
        if number != self.heard || sum(number, &clear) != expected {
            return Err(format!("record {number} in place of {}", self.heard));
        }
        self.heard += 1;
        self.held.drain(..HEAD + len);
        Ok(Some((kind, clear)))
    }
}

impl Cover for Masked {
    fn seal(&mut self, clear: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        if self.has_ended {
            return Err("it has ended".into());
        }
        assert!((1..=16 << 10).contains(&clear.len()));
        self.say(DATA, clear, out);
        Ok(())
    }

    fn open(
        &mut self,
        came: &[u8],
        out: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), String> {
        self.held.extend_from_slice(came);
        while !self.has_ended {
            match self.next() {
                Ok(None) => return Ok(()),
                Ok(Some((DATA, clear))) => {
                    take(&clear);
                    if self.heard.is_multiple_of(WORDS_EVERY) {
                        self.say(WORD, b"keys", out);
                    }
                }
                Ok(Some((WORD, _))) => {}
                Ok(Some(_)) | Err(_) => {
                    self.has_ended = true;
                    self.say(FAREWELL, b"", out);
                }
            }
        }
        Err("it has ended".into())
    }
}

fn masked() -> Option<Box<dyn Cover>> {
    Some(Box::new(Masked::default()))
}

#[test]
fn two_nodes_ask_one_another_under_a_cover_that_speaks_too() {
    let asks = 1_000;
    let start = || Node::start(32, asks, Limits::USUAL);
    let (a, b) = (start(), start());
    let (one, other) = tcp();
    let link = a.link_under(one, masked());
    b.link_under(other, masked());
    a.hears_answers(asks);
    b.hears_answers(asks);
    wait(a.runtime.handle().give_up_link(SHARD, link));
    assert_eq!(a.hears_the_end(), Why::GivenUp);
    assert_eq!(b.hears_the_end(), Why::Closed);
    let numbers = a.numbers();
    assert_eq!((numbers.links, numbers.unasked), (0, 0));
    assert!(numbers.bytes_received > asks * 4096);
    assert!(a.runtime.stop().is_empty() && b.runtime.stop().is_empty());
}

#[test]
fn a_covered_connection_that_breaks_amid_everything_leaves_nothing_held() {
    let start = || Node::start(64, u64::MAX, Limits::USUAL);
    let (a, b) = (start(), start());
    for round in 1..=10 {
        let (one, other) = tcp();
        let breaker = one.try_clone().unwrap();
        a.link_under(one, masked());
        b.link_under(other, masked());
        a.hears_answers(100 * round);
        breaker.shutdown(Shutdown::Both).unwrap();
        for why in [a.hears_the_end(), b.hears_the_end()] {
            let is_end = matches!(why, Why::Closed | Why::Truncated | Why::Failed(_));
            assert!(is_end, "{why}");
        }
    }
    assert_eq!(a.numbers().links, 0);
}

#[test]
fn what_is_not_the_peers_ends_a_covered_link_which_says_why() {
    let a = Node::start(1, u64::MAX, Limits::USUAL);
    let (mut rogue, ours) = tcp();
    rogue.set_read_timeout(Some(PATIENCE)).unwrap();
    a.link_under(ours, masked());
    // Nothing is on its way any more: else its last word would be lost behind that.
    let mut all = vec![0; HEAD];
    rogue.read_exact(&mut all).unwrap();
    a.numbers();
    let mut forged = Vec::new();
    Masked::default().say(DATA, b"this was said by nobody", &mut forged);
    forged[HEAD + 2] ^= 1;
    rogue.write_all(&forged).unwrap();
    assert_eq!(a.hears_the_end(), Why::Tls);
    assert_eq!(cuts(&a.numbers(), "tls"), 1);
    rogue.read_to_end(&mut all).unwrap();
    let mut theirs = Masked {
        held: all,
        ..Masked::default()
    };
    let last = std::iter::from_fn(|| theirs.next().unwrap()).last();
    assert_eq!(last, Some((FAREWELL, Vec::new())));
}

#[test]
fn what_the_handshake_has_read_too_much_is_not_lost() {
    let asks = 200;
    let start = || Node::start(8, asks, Limits::USUAL);
    let (a, b) = (start(), start());
    let (one, mut other) = tcp();
    a.link_under(one, masked());
    // The first words of `a`, and no word behind them: it waits for credit.
    let mut held = vec![0; 12];
    other.read_exact(&mut held).unwrap();
    let cover = Masked {
        held,
        ..Masked::default()
    };
    b.link_under(other, Some(Box::new(cover)));
    a.hears_answers(asks);
    b.hears_answers(asks);
}
