//! The ring on real files and sockets.

use super::super::test_dir::TestDir;
use super::super::{Access, Disk, Wake, Zone};
use super::*;
use crate::base::BufId;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn ring() -> (Ring, Buffers) {
    let arena = Arc::new(Arena::new(64 << 20, 0).unwrap());
    let mut buffers = Buffers::new(arena, Zone::Clients);
    let mut ring = Ring::new(&mut buffers).unwrap();
    ring.register_memory();
    (ring, buffers)
}

fn at(id: BufId) -> BufRef {
    BufRef { id, block: 0 }
}

fn one(ring: &mut Ring) -> Completion {
    let mut done = Vec::new();
    for _ in 0..100 {
        ring.turn(Wait::AtMost(Duration::from_millis(100))).unwrap();
        ring.reap(&mut done);
        if let Some(first) = done.pop() {
            assert!(done.is_empty(), "one completion at a time: {done:?}");
            return first;
        }
    }
    panic!("nothing ended within 10 s");
}

#[test]
fn parts_are_gathered_into_one_write_and_read_back() {
    let dir = TestDir::new();
    let disk = Disk::create(&dir.path("disk"), 1 << 20).unwrap();
    let (mut ring, mut buffers) = ring();
    let file = ring.adopt_disk(&disk).unwrap();
    let (a, b) = (buffers.allocate(2).unwrap(), buffers.allocate(3).unwrap());
    buffers.arena().copy_in(at(a), 0, &[1; 8192]);
    buffers.arena().copy_in(at(b), 0, &[2; 12288]);
    let parts = [Part::blocks(at(a), 2), Part::blocks(at(b).plus(1), 1)];
    ring.write(file, 8192, &parts, libc::RWF_DSYNC, Tag(5))
        .unwrap();
    let done = one(&mut ring);
    assert_eq!((done.tag, done.result), (Tag(5), 12288));
    ring.flush(file, Tag(6)).unwrap();
    assert_eq!(one(&mut ring).result, 0);
    ring.read(file, 4096, Part::blocks(at(b), 3), Tag(7))
        .unwrap();
    assert_eq!(one(&mut ring).result, 12288);
    let mut back = Vec::new();
    buffers.arena().copy_out(at(b), 0, 12288, &mut back);
    assert!(back[..4096] == [0; 4096] && back[4096..] == [1; 8192]);
    ring.punch(file, 8192, 4096, Tag(8)).unwrap();
    assert_eq!(one(&mut ring).result, 0);
    ring.read(file, 8192, Part::blocks(at(a), 1), Tag(9))
        .unwrap();
    assert_eq!(one(&mut ring).result, 4096);
    back.clear();
    buffers.arena().copy_out(at(a), 0, 4096, &mut back);
    assert!(back == [0; 4096]);
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn reading_past_the_end_brings_nothing() {
    let dir = TestDir::new();
    Disk::create(&dir.path("disk"), 4096).unwrap();
    let disk = Disk::open(&dir.path("disk"), Access::ReadOnly).unwrap();
    let (mut ring, mut buffers) = ring();
    let file = ring.adopt_disk(&disk).unwrap();
    let a = buffers.allocate(1).unwrap();
    ring.read(file, 4096, Part::blocks(at(a), 1), Tag(1))
        .unwrap();
    assert_eq!(one(&mut ring).result, 0);
    ring.write(file, 0, &[Part::blocks(at(a), 1)], 0, Tag(1))
        .unwrap();
    assert_eq!(one(&mut ring).result, -libc::EBADF);
}

#[test]
fn a_bell_wakes_the_ring_each_time_it_was_heard() {
    let wake = Arc::new(Wake::new().unwrap());
    let (mut ring, _buffers) = ring();
    let file = ring.adopt(wake.fd().try_clone_to_owned().unwrap()).unwrap();
    ring.poll(file, Tag(1)).unwrap();
    ring.turn(Wait::No).unwrap();
    for _ in 0..3 {
        let bell = Arc::clone(&wake);
        let ringer = std::thread::spawn(move || (0..5).for_each(|_| bell.ring()));
        assert!(one(&mut ring).more());
        ringer.join().unwrap();
        wake.heard();
    }
}

#[test]
fn a_wait_without_completions_ends_in_time() {
    let (mut ring, _buffers) = ring();
    let before = super::super::clock::now();
    ring.turn(Wait::AtMost(Duration::from_millis(20))).unwrap();
    let waited = super::super::clock::now().since(before);
    assert!(waited >= Duration::from_millis(19) && waited < Duration::from_secs(5));
}

#[test]
fn bytes_are_received_into_provided_buffers_and_again_after_all_were_used() {
    let (mut ring, buffers) = ring();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let file = ring.adopt(ours.into()).unwrap();
    for n in 0..200u8 {
        ring.receive(file, Expect::Later, Tag(u64::from(n)))
            .unwrap();
        ring.turn(Wait::No).unwrap();
        theirs.write_all(&[n; 100]).unwrap();
        let done = one(&mut ring);
        assert_eq!((done.tag.0, done.result), (u64::from(n), 100));
        let buffer = done.provided().unwrap();
        let lent = ring.lent(buffer, 100);
        assert_eq!(buffers.arena().lent(&lent), [n; 100]);
        ring.provide_again(lent);
    }
    drop(theirs);
    ring.receive(file, Expect::Now, Tag(1)).unwrap();
    assert_eq!(one(&mut ring).result, 0);
}

#[test]
fn a_message_of_bytes_and_payload_is_sent_in_order_however_long() {
    let (mut ring, mut buffers) = ring();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let file = ring.adopt(ours.into()).unwrap();
    let a = buffers.allocate(1024).unwrap();
    let payload: Vec<u8> = (0..4 << 20).map(|n| (n / 4096) as u8).collect();
    buffers.arena().copy_in(at(a), 0, &payload);
    let mut message = Message::default();
    message.bytes().extend(b"head");
    let (skip, len) = (100, (4 << 20) - 100);
    message.put_payload(Part {
        at: at(a),
        skip,
        len,
    });
    message.bytes().extend(b"tail");
    assert_eq!(message.len(), 8 + u64::from(len));
    let number = ring.send(file, message, Tag(3)).unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; 8 + len as usize];
        theirs.read_exact(&mut all).unwrap();
        all
    });
    assert_eq!(one(&mut ring).result as u32, 8 + len);
    let mut message = ring.sent(number);
    assert_eq!(message.drain_payloads().collect::<Vec<_>>(), [a]);
    assert!(message.is_empty());
    let all = reader.join().unwrap();
    assert!(all.starts_with(b"head") && all.ends_with(b"tail"));
    assert!(all[4..all.len() - 4] == payload[100..]);
}

#[test]
fn large_payload_is_received_where_it_belongs() {
    let (mut ring, mut buffers) = ring();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let file = ring.adopt(ours.into()).unwrap();
    let a = buffers.allocate(256).unwrap();
    let into = Part {
        at: at(a),
        skip: 512,
        len: 1 << 19,
    };
    ring.receive_into(file, into, Tag(1)).unwrap();
    let writer = std::thread::spawn(move || theirs.write_all(&[9; 1 << 19]).unwrap());
    assert_eq!(one(&mut ring).result, 1 << 19);
    writer.join().unwrap();
    let mut back = Vec::new();
    buffers.arena().copy_out(at(a), 512, 1 << 19, &mut back);
    assert!(back == [9; 1 << 19]);
}

#[test]
fn dropping_a_file_that_is_waited_for_ends_the_wait() {
    let (mut ring, _buffers) = ring();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let file = ring.adopt(ours.into()).unwrap();
    ring.receive(file, Expect::Later, Tag(1)).unwrap();
    ring.turn(Wait::No).unwrap();
    ring.shutdown(file);
    let done = one(&mut ring);
    assert_eq!(done.tag, Tag(1));
    assert!(done.result <= 0);
    ring.drop_file(file);
    assert_eq!(ring.in_flight(), 0);
}
