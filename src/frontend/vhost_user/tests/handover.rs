//! Connections that go to another process. What must hold of the form:
//! - *nothing is lost*: the messages that are told bring a new session to where the messages are the same;
//! - *no panic*: whatever the bytes, they are read as they were written or refused.

use super::super::*;
use super::{iterations, seed};
use crate::base::{Prng, Time, VolumeId};

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

fn session() -> Session<u32> {
    Session::new(VolumeId(7), Device::new(1 << 30, 512, false, 3))
}

fn region(n: u64) -> Region {
    Region {
        guest: n << 30,
        user: 0x7000_0000_0000 + (n << 30),
        len: 1 << 30,
        offset: n << 20,
    }
}

/// A session with all that there can be, and what its driver keeps of it.
fn full() -> (Session<u32>, Beside<u32>) {
    let mut session = session();
    let memory: Vec<(Region, u32)> = (0..70).map(|n| (region(n), 100 + n as u32)).collect();
    let area = InflightArea {
        queues: 3,
        size: 16,
        len: 4096,
        offset: 64,
    };
    let features = 1 << 32 | 1 << 30 | 1 << 29 | 1 << 26;
    let mut messages = vec![
        Message::SetProtocolFeatures(Device::protocol().bits()),
        Message::SetFeatures(features),
        Message::SetConfig {
            offset: 32,
            bytes: vec![1],
        },
    ];
    for (region, file) in &memory {
        messages.push(Message::AddMemory(*region, *file));
    }
    for ring in 0..2 {
        let at = 0x7000_0000_0000 + u64::from(ring) * 4096;
        let address = RingAddress {
            descriptors: at,
            used: at + 1024,
            available: at + 2048,
            log: (ring == 1).then_some(4096),
        };
        messages.extend([
            Message::RingSize(ring, 16),
            Message::SetRingBase(ring, 40_000 + ring),
            Message::RingAddress(ring, address),
            Message::RingCall(ring, (ring == 0).then_some(10)),
            Message::RingError(ring, Some(20 + ring)),
            Message::RingEnable(ring, ring == 1),
            Message::RingKick(ring, Some(30 + ring)),
        ]);
    }
    for message in messages {
        session.take(message).unwrap();
    }
    let beside = Beside {
        memory,
        log: Some((8192, 4096, 1)),
        inflight: Some((area, 2)),
        channel: Some(3),
    };
    (session, beside)
}

fn handed(guest: u64) -> Handed<u32> {
    let (session, beside) = full();
    Handed {
        guest,
        volume: VolumeId(7),
        size: 1 << 30,
        ran: guest == 1,
        socket: 99,
        told: session.retell(beside),
    }
}

#[test]
fn a_session_that_is_told_again_is_the_same() {
    let told = handed(1).told;
    let mut again = session();
    let (mut memory, mut log, mut inflight, mut channel) = (Vec::new(), None, None, None);
    for one in told.clone() {
        match again.take(one.read().unwrap()).unwrap() {
            Task::SetMemory(all) => memory = all,
            Task::AddMemory(region, file) => memory.push((region, file)),
            Task::SetLog { len, offset, file } => log = Some((len, offset, file)),
            Task::SetInflight(area, file) => inflight = Some((area, file)),
            Task::Channel(file) => channel = Some(file),
            Task::Done | Task::Logging(None) => {}
            other => panic!("nothing runs yet, so nothing is to be done: {other:?}"),
        }
    }
    assert!(again.logs() && again.device.writeback);
    assert_eq!(again.startable(), Some(0));
    let plan = again.plan(1).unwrap();
    assert_eq!((plan.base, plan.log_used), (40_001, Some(4096)));
    let beside = Beside {
        memory,
        log,
        inflight,
        channel,
    };
    assert_eq!(again.retell(beside), told);
}

#[test]
fn a_ring_that_rested_goes_on_and_one_that_was_stopped_waits_for_a_kick() {
    for rested in [true, false] {
        let (mut session, beside) = full();
        session.started(0);
        match rested {
            true => session.rested(0, 41_000),
            false => session.stopped(0, 41_000),
        }
        let mut again = self::session();
        for one in session.retell(beside) {
            again.take(one.read().unwrap()).unwrap();
        }
        let first = if rested { 0 } else { 1 };
        assert_eq!(again.startable(), Some(first));
        assert_eq!(again.plan(0).unwrap().base, 41_000);
    }
}

#[test]
fn what_was_written_is_read_and_what_is_cut_or_bent_is_refused() {
    let guests = vec![handed(1), handed(2)];
    let bytes = write_handed(Time(5), &guests);
    assert_eq!(read_handed(&bytes), Ok((Time(5), guests)));
    assert_eq!(
        read_handed(&write_handed(Time(6), &[])),
        Ok((Time(6), vec![]))
    );
    for len in 0..bytes.len() {
        assert!(read_handed(&bytes[..len]).is_err(), "{len} bytes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(read_handed(&longer), Err(Unreadable::Damaged));
    let mut next = bytes.clone();
    next[8] += 1;
    assert_eq!(read_handed(&next), Err(Unreadable::Form(FORM + 1)));
    assert_eq!(read_handed(b"something else"), Err(Unreadable::Magic));
    let mut prng = Prng::new(seed());
    for _ in 0..iterations(500) {
        let mut bent = bytes.clone();
        let at = 16 + prng.below(bent.len() as u64 - 16) as usize;
        bent[at] ^= 1 << prng.below(8);
        assert_eq!(read_handed(&bent), Err(Unreadable::Damaged));
        // Whoever can write the checksum as well gets no further than to an error.
        let crc = crate::base::crc::of(&bent[16..]);
        bent[12..16].copy_from_slice(&crc.to_le_bytes());
        if let Ok((_, guests)) = read_handed(&bent) {
            let mut session = session();
            let told = guests.into_iter().flat_map(|guest| guest.told);
            for one in told {
                let _ = one.read().map(|message| session.take(message));
            }
        }
    }
    assert!(
        read_handed(&[longs(&[u64::from_le_bytes(*b"SARSENHO")]), vec![1, 0]].concat()).is_err()
    );
}
