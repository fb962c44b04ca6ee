//! Conversations of a front end. What must hold of each:
//! - *no panic*, and what is wrong is a violation;
//! - *files are closed*: when a conversation is over, none of those that came is left;
//! - *a ring runs once*: what is to be started does not run, and what is to be stopped does;
//! - *an answer is one message*, of the request that it answers.

use super::super::*;
use super::{iterations, seed};
use crate::base::{Prng, VolumeId};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// A file that is counted while it is open.
struct File(Rc<Cell<usize>>);

impl File {
    fn open(count: &Rc<Cell<usize>>) -> File {
        count.set(count.get() + 1);
        File(Rc::clone(count))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A message as it is sent: request, flags, body, files.
struct Sent(u32, u32, Vec<u8>, usize);

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

/// What a front end says that does everything right, of two rings.
fn conversation(prng: &mut Prng) -> Vec<Sent> {
    let mut all = vec![
        Sent(1, 1, vec![], 0),
        Sent(15, 1, vec![], 0),
        Sent(16, 1, longs(&[Device::protocol().bits()]), 0),
        Sent(3, 9, vec![], 0),
        Sent(17, 1, vec![], 0),
        Sent(36, 1, vec![], 0),
        Sent(2, 9, longs(&[1 << 32 | 1 << 30 | 1 << 29]), 0),
        Sent(21, 9, vec![], 1),
        Sent(24, 1, [words(&[0, 60, 0]), vec![0; 60]].concat(), 0),
        Sent(25, 9, [words(&[32, 1, 0]), vec![1]].concat(), 0),
        Sent(
            31,
            1,
            [longs(&[0, 0]), words(&[2 | 16 << 16, 0])].concat(),
            0,
        ),
        Sent(
            32,
            9,
            [longs(&[640, 0]), words(&[2 | 16 << 16, 0])].concat(),
            1,
        ),
        Sent(
            5,
            9,
            [
                words(&[2, 0]),
                longs(&[0, 65536, 0x10000, 0, 65536, 65536, 0x50000, 65536]),
            ]
            .concat(),
            2,
        ),
        Sent(37, 9, longs(&[0, 1 << 20, 4096, 1 << 30, 0]), 1),
        Sent(6, 1, longs(&[4096, 0]), 1),
    ];
    for ring in 0..2 {
        all.push(Sent(8, 9, words(&[ring, 16]), 0));
        all.push(Sent(10, 9, words(&[ring, 3]), 0));
        let at = longs(&[0x10000, 0x12000, 0x11000, 0]);
        all.push(Sent(9, 9, [words(&[ring, 0]), at].concat(), 0));
        all.push(Sent(13, 9, longs(&[ring.into()]), 1));
        all.push(Sent(14, 9, longs(&[ring.into()]), 1));
        all.push(Sent(12, 9, longs(&[ring.into()]), 1));
        all.push(Sent(18, 9, words(&[ring, 1]), 0));
    }
    all.push(Sent(
        2,
        9,
        longs(&[1 << 32 | 1 << 30 | 1 << 29 | 1 << 26]),
        0,
    ));
    all.push(Sent(
        38,
        9,
        longs(&[0, 1 << 20, 4096, 1 << 30, 0]),
        prng.below(2) as usize,
    ));
    all.push(Sent(13, 9, longs(&[1 | 1 << 8]), 0));
    for ring in 0..2 {
        all.push(Sent(18, 9, words(&[ring, 0]), 0));
        all.push(Sent(11, 1, words(&[ring, 0]), 0));
    }
    all.push(Sent(34, 9, vec![], 0));
    all
}

fn bend(all: &mut Vec<Sent>, prng: &mut Prng) {
    let at = prng.below(all.len() as u64) as usize;
    match prng.below(10) {
        0 => drop(all.remove(at)),
        1 => {
            let other = prng.below(all.len() as u64) as usize;
            all.swap(at, other);
        }
        2 => {
            let Sent(request, flags, body, files) = &all[at];
            let same = Sent(*request, *flags, body.clone(), *files);
            all.insert(prng.below(all.len() as u64) as usize, same);
        }
        3 => all[at].3 = prng.below(4) as usize,
        4 => all[at].1 = prng.below(32) as u32,
        5 => all[at].0 = prng.below(48) as u32,
        6 => {
            let len = prng.below(80) as usize;
            all[at].2.resize(len, 0xff);
        }
        // A ring that is to be polled.
        7 => {
            let kicks = all
                .iter_mut()
                .filter(|sent| sent.0 == 12 && sent.2.len() == 8);
            for kick in kicks {
                (kick.2[1], kick.3) = (1, 0);
            }
        }
        _ => {
            let body = &mut all[at].2;
            if let Some(last) = body.len().checked_sub(1) {
                let place = prng.between(0, last as u64) as usize;
                body[place] = match prng.below(3) {
                    0 => 0xff,
                    1 => body[place].wrapping_add(1),
                    _ => prng.below(256) as u8,
                };
            }
        }
    }
    if all.is_empty() {
        all.push(Sent(1, 1, vec![], 0));
    }
}

/// Plays a conversation to its end or to its first violation. The tasks that it brought, and whether it got to its end.
fn play(all: &[Sent]) -> (BTreeSet<String>, Option<Violation>) {
    let count = Rc::new(Cell::new(0));
    let mut seen = BTreeSet::new();
    let ended = {
        let device = Device::new(1 << 20, 512, false, 2);
        let mut session: Session<File> = Session::new(VolumeId(1), device);
        all.iter()
            .find_map(|sent| one(&mut session, sent, &count, &mut seen).err())
    };
    assert_eq!(count.get(), 0, "files are closed");
    (seen, ended)
}

fn one(
    session: &mut Session<File>,
    sent: &Sent,
    count: &Rc<Cell<usize>>,
    seen: &mut BTreeSet<String>,
) -> Result<(), Violation> {
    let Sent(request, flags, body, files) = sent;
    let files = (0..*files).map(|_| File::open(count)).collect();
    let head = words(&[*request, *flags, body.len() as u32]);
    let header = Header::parse(&std::array::from_fn(|n| head[n]))?;
    let message = Message::read(&header, body, files)?;
    let task = session.take(message)?;
    let (name, mut reply) = ("", None);
    let name = match task {
        Task::Reply(answer) => {
            reply = Some(answer);
            "Reply"
        }
        Task::Stop(index) => {
            assert!(session.ring(index).runs());
            session.stopped(index, 5);
            reply = Some(Reply::Ring {
                index: index.into(),
                number: 5,
            });
            "Stop"
        }
        Task::StopAll => {
            let running = session.running();
            running.iter().for_each(|index| session.stopped(*index, 0));
            "StopAll"
        }
        Task::MakeInflight(area) => {
            assert!(area.len <= Inflight::bytes(2, 4096));
            "MakeInflight"
        }
        Task::SetMemory(_) => "SetMemory",
        Task::Logging(_) => "Logging",
        Task::Signals(_) => "Signals",
        Task::Enable(..) => "Enable",
        Task::AddMemory(..) => "AddMemory",
        Task::RemoveMemory(_) => "RemoveMemory",
        Task::SetLog { .. } => "SetLog",
        Task::Channel(_) => "Channel",
        Task::SetInflight(..) => "SetInflight",
        Task::Done => name,
    };
    seen.insert(name.to_owned());
    if let Some(answer) = session.answer(&header, reply, true)? {
        assert!(answer.len() >= HEADER);
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|n| answer[at + n]));
        assert_eq!((word(0), word(4)), (*request, 5));
        assert_eq!(word(8) as usize, answer.len() - HEADER);
    }
    while let Some(index) = session.startable() {
        assert!(!session.ring(index).runs());
        let plan = session.plan(index)?;
        assert!(plan.size.is_power_of_two());
        session.started(index);
        seen.insert("Start".to_owned());
    }
    Ok(())
}

#[test]
fn a_conversation_that_is_right_gets_to_its_end_and_enters_everything() {
    let (seen, ended) = play(&conversation(&mut Prng::new(1)));
    assert_eq!(ended, None);
    let all = " AddMemory Channel Enable Logging MakeInflight RemoveMemory Reply SetInflight SetLog \
               SetMemory Signals Start Stop StopAll";
    assert_eq!(seen.into_iter().collect::<Vec<_>>().join(" "), all);
}

#[test]
fn conversations_that_are_bent_do_no_harm() {
    let mut prng = Prng::new(seed());
    let (mut whole, mut cut) = (0, BTreeSet::new());
    for _ in 0..iterations(20_000) {
        let mut all = conversation(&mut prng);
        for _ in 0..prng.below(6) {
            bend(&mut all, &mut prng);
        }
        match play(&all).1 {
            None => whole += 1,
            Some(violation) => {
                let text = format!("{violation:?}");
                assert!(!violation.to_string().is_empty());
                cut.insert(text.split(['(', ' ']).next().unwrap().to_owned());
            }
        }
    }
    assert!(whole > 0, "some are still right");
    let all = "Body Failed Features Files Header Inflight Memory NoKick NoSuchRing RingAddress \
               RingRuns RingSize Unknown";
    assert_eq!(cut.into_iter().collect::<Vec<_>>().join(" "), all);
}
