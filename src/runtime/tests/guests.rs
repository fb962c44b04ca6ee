//! Guests' disks in one process: a real ring, real sockets, memory shared by files.

use super::guest_driver::*;
use super::*;
use crate::frontend::vhost_user::Handed;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// A node that serves guests.
pub struct Host {
    pub node: Node,
    dir: TestDir,
}

impl Host {
    pub fn start(shards: usize) -> Host {
        let dir = TestDir::new();
        let paths: Vec<PathBuf> = (0..shards)
            .map(|n| dir.path(&format!("disk-{n}")))
            .collect();
        paths.iter().for_each(|path| format_disk(path, DISK_BYTES));
        let config = Config {
            shards,
            ..Config::default()
        };
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let node = Node::start_with(config, &paths, VOLUME_BYTES);
        Host { node, dir }
    }

    fn socket(&self, key: u64) -> PathBuf {
        self.dir.path(&format!("guest-{key}"))
    }

    /// Serves the volume at a socket of its own.
    pub fn serve(&self, key: u64, queues: u16) -> PathBuf {
        self.serve_handed(key, queues, None)
    }

    /// The same for a front end that another process handed over.
    fn serve_handed(&self, key: u64, queues: u16, handed: Option<Handed<OwnedFd>>) -> PathBuf {
        let path = self.socket(key);
        let _ = std::fs::remove_file(&path); // of the process before
        let guest = Guest {
            key,
            volume: VOLUME,
            listener: UnixListener::bind(&path).unwrap().into(),
            queues,
            incoming: key > 1,
            handed,
        };
        wait(self.node.handle.serve_guest(guest)).unwrap();
        path
    }

    pub fn stop(self) {
        self.node.stop();
    }

    /// Ends the node, and starts it again over the same disks: with the front ends that it was to hand over.
    fn restart(self, shards: usize) -> (Host, Vec<Handed<OwnedFd>>) {
        let Host { node, dir } = self;
        wait(node.handle.hand_over_guests());
        wait(node.handle.control(Control::Close {
            how: Closing::Quick,
        }))
        .unwrap();
        let handed = node.runtime.stop();
        let paths: Vec<PathBuf> = (0..shards)
            .map(|n| dir.path(&format!("disk-{n}")))
            .collect();
        let config = Config {
            shards,
            ..Config::default()
        };
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let node = Node::start_with(config, &paths, VOLUME_BYTES);
        (Host { node, dir }, handed)
    }
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|n| (n / 7) as u8 ^ seed).collect()
}

#[test]
fn a_guest_reads_what_it_wrote_through_every_queue() {
    let host = Host::start(2);
    let path = host.serve(1, 4);
    let mut guest = FrontEnd::start(&path, 4);
    assert_eq!(host.node.handle.guest_state(1), Some(GuestState::Running));
    assert_eq!(host.node.handle.connections(VOLUME), 1);
    for ring in 0..4u8 {
        let data = pattern(20 * 1024, ring);
        // Over the border of extents, and so of shards.
        let sector = (u64::from(ring) + 1) * 8192 - 8;
        assert_eq!(guest.write(ring.into(), sector, &data), OK);
        assert!(guest.read(3 - usize::from(ring), sector, 20 * 1024) == data);
        let seen = wait(host.node.handle.read(VOLUME, sector * 512, 20 * 1024)).unwrap();
        assert!(seen == data);
    }
    // Sectors of 512 bytes, whose block is merged.
    assert_eq!(guest.write(0, 16_385, &[9; 512]), OK);
    assert_eq!(guest.read(1, 16_384, 1536)[512..1024], [9; 512]);
    assert_eq!(guest.carry_out(0, 4, 0, (0, false)), OK);
    assert_eq!(guest.carry_out(0, 8, 0, (20, true)), OK);
    assert_eq!(&guest.data(0, 0, 20)[..2], b"1\0");
    host.stop();
}

#[test]
fn discards_and_zeroes_of_several_ranges_reach_the_store() {
    let host = Host::start(1);
    let path = host.serve(1, 1);
    let mut guest = FrontEnd::start(&path, 1);
    for sector in (0..1024).step_by(64) {
        assert_eq!(guest.write(0, sector, &pattern(32 * 1024, 1)), OK);
    }
    let range = |sector: u64, sectors: u32, flags: u32| {
        [longs(&[sector]), words(&[sectors, flags])].concat()
    };
    let zeroes = [range(1, 2, 0), range(130, 200, 1)].concat();
    guest.put_data(0, 0, &zeroes);
    assert_eq!(guest.carry_out(0, 13, 0, (32, false)), OK);
    assert_eq!(guest.read(0, 0, 2048)[512..1536], [0; 1024]);
    assert_eq!(guest.read(0, 130, 512), [0; 512]);
    assert!(guest.read(0, 330, 512) != [0; 512]);
    guest.put_data(0, 0, &range(256, 512, 0));
    assert_eq!(guest.carry_out(0, 11, 0, (16, false)), OK);
    let map = wait(host.node.handle.map(VOLUME, 256 * 512, 512 * 512)).unwrap();
    assert!(map.iter().all(|run| run.hole), "space is given back");
    // A discard may not say more than that; ranges are whole and not too many.
    guest.put_data(0, 0, &range(0, 8, 1));
    assert_eq!(guest.carry_out(0, 11, 0, (16, false)), UNSUPP);
    assert_eq!(guest.carry_out(0, 11, 0, (15, false)), IOERR);
    assert_eq!(guest.carry_out(0, 13, 0, (17 * 16, false)), IOERR);
    guest.put_data(0, 0, &range(u64::MAX, u32::MAX, 0));
    assert_eq!(guest.carry_out(0, 13, 0, (16, false)), IOERR);
    host.stop();
}

#[test]
fn wrong_requests_get_the_status_that_virtio_has_for_them() {
    let host = Host::start(1);
    let path = host.serve(1, 1);
    let mut guest = FrontEnd::start(&path, 1);
    assert_eq!(guest.carry_out(0, 99, 0, (512, true)), UNSUPP);
    assert_eq!(
        guest.carry_out(0, 0, VOLUME_BYTES / 512, (512, true)),
        IOERR
    );
    assert_eq!(guest.carry_out(0, 0, u64::MAX, (512, true)), IOERR);
    assert_eq!(guest.carry_out(0, 0, 0, (511, true)), IOERR);
    assert_eq!(guest.carry_out(0, 1, 0, (0, false)), IOERR);
    // A write whose data can only be written, a read whose data can only be read.
    assert_eq!(guest.carry_out(0, 1, 0, (512, true)), IOERR);
    assert_eq!(guest.carry_out(0, 0, 0, (512, false)), IOERR);
    // Data outside of the memory, and longer than it may be.
    let at = guest.place(0, 0);
    for part in [(MEMORY - 100, 512), (u64::MAX - 9, 512), (0, 0x8000_0000)] {
        guest.offer(
            0,
            0,
            &[(at, 16, false), (part.0, part.1, true), (at + 64, 1, true)],
        );
        guest.rings[0].kick();
        assert_eq!(guest.rings[0].wait_used(), (0, 1));
        assert_eq!(guest.status(0, 0), IOERR);
    }
    // Parts to be read behind parts to be written.
    guest.offer(0, 0, &[(at + 64, 1, true), (at, 16, false)]);
    guest.rings[0].kick();
    guest.rings[0].wait_used();
    assert_eq!(guest.status(0, 0), IOERR);
    assert_eq!(guest.write(0, 0, &[1; 512]), OK);
    host.stop();
}

#[test]
fn a_broken_ring_is_told_of_and_the_others_go_on() {
    let host = Host::start(1);
    let path = host.serve(1, 6);
    let mut guest = FrontEnd::start(&path, 6);
    let at = guest.place(0, 0);
    // Without a place for a status.
    guest.offer(0, 0, &[(at, 16, false)]);
    // In a circle.
    guest.offer(1, 14, &[(at, 16, false), (at, 16, false)]);
    guest.rings[1].span.write(16 * 15 + 12, 1u16);
    guest.rings[1].span.write(16 * 15 + 14, 14u16);
    // A head that there is not, an index that jumps, a table in a table.
    guest.rings[2].make_available(RING);
    guest.rings[3].span.store_u16(0x1002, 1000);
    guest.offer(4, 0, &[(0x80000, 16, false)]);
    guest.rings[4].span.write(12, 4u16);
    guest.memory.write(0x80000, &[0; 12]);
    guest.memory.write(0x8000c, &[4, 0, 0, 0]);
    for ring in 0..5 {
        guest.rings[ring].kick();
        assert!(guest.rings[ring].is_failed(), "ring {ring}");
        assert_eq!(guest.rings[ring].take_used(), None);
    }
    assert_eq!(guest.write(5, 8, &[1; 4096]), OK);
    // What is in flight cannot be made available again.
    wait(
        host.node
            .handle
            .control(Control::CloseVolume { volume: VOLUME }),
    )
    .unwrap();
    guest.request(5, 0, 0, 0, (512, true));
    guest.rings[5].make_available(0);
    guest.rings[5].kick();
    assert!(guest.rings[5].is_failed());
    host.stop();
}

#[test]
fn what_was_in_flight_when_the_connection_broke_is_carried_out_on_the_next() {
    let host = Host::start(2);
    let path = host.serve(1, 1);
    let mut guest = FrontEnd::connect(&path);
    guest.rings = vec![guest.new_ring(0)];
    guest.negotiate(FEATURES);
    let body = [longs(&[0, 0]), words(&[1 | u32::from(RING) << 16, 0])].concat();
    let (answer, files) = guest.try_ask(31, 0, &body, &[]).unwrap();
    let region = &files[0];
    guest.ack(32, &answer, &[region.as_fd()]);
    guest.start_rings();
    assert_eq!(guest.write(0, 0, &[7; 512]), OK);
    // While the volume is closed its requests wait, and are in flight.
    wait(
        host.node
            .handle
            .control(Control::CloseVolume { volume: VOLUME }),
    )
    .unwrap();
    for head in [8, 0, 4] {
        guest.put_data(0, head, &[head as u8 + 1; 4096]);
        guest.request(0, head, 1, 8, (4096, false));
    }
    guest.rings[0].kick();
    std::thread::sleep(Duration::from_millis(120));
    assert_eq!(guest.rings[0].take_used(), None);
    let map = crate::io::SharedMap::new(region.try_clone().unwrap(), 0, 272).unwrap();
    let marks = crate::io::Span::of(&map);
    let marked = (0..16).filter(|head| marks.load_u8(16 + 16 * head) == 1);
    assert_eq!(marked.collect::<Vec<_>>(), [8]);
    // As a daemon leaves it that was killed with all three in flight, taken in another order than their numbers.
    for (counter, head) in (100..).zip([0, 4]) {
        marks.store_u64(16 + 16 * head + 8, counter);
        marks.store_u8(16 + 16 * head, 1);
    }
    guest.connect_again(&path);
    wait(host.node.open_volume(VOLUME_BYTES, &[1])).unwrap();
    guest.negotiate(FEATURES);
    guest.ack(32, &answer, &[region.as_fd()]);
    guest.start_rings();
    let mut ended: Vec<u16> = (0..3).map(|_| guest.rings[0].wait_used().0).collect();
    ended.sort_unstable();
    assert_eq!(ended, [0, 4, 8]);
    assert_eq!([0, 4, 8].map(|head| guest.status(0, head)), [OK; 3]);
    // In the order in which they were asked for: the last one stays.
    assert_eq!(guest.read(0, 8, 4096), [5; 4096]);
    assert_eq!(
        (0..16)
            .filter(|head| marks.load_u8(16 + 16 * head) == 1)
            .count(),
        0
    );
    let base = guest.ask(11, &words(&[0, 0]));
    assert_eq!(base, words(&[0, guest.rings[0].available.into()]));
    host.stop();
}

#[test]
fn a_ring_whose_volume_is_closed_stops_when_what_was_taken_of_it_is_carried_out() {
    let host = Host::start(1);
    let path = host.serve(1, 2);
    let mut guest = FrontEnd::start(&path, 2);
    let close = || {
        let close = Control::CloseVolume { volume: VOLUME };
        wait(host.node.handle.control(close)).unwrap();
    };
    for (ring, head) in [(0, 8), (0, 4), (1, 0)] {
        guest.put_data(ring, head, &[head as u8 + 1; 4096]);
    }
    close();
    guest.request(0, 8, 1, 8, (4096, false));
    guest.rings[0].kick();
    std::thread::sleep(Duration::from_millis(120));
    assert_eq!(guest.rings[0].take_used(), None);
    // As QEMU does before it moves a guest: what is not taken yet waits for the next host.
    guest.ack(18, &words(&[0, 0]), &[]);
    guest.request(0, 4, 1, 16, (4096, false));
    guest.rings[0].kick();
    let base = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            wait(host.node.open_volume(VOLUME_BYTES, &[0])).unwrap();
        });
        guest.ask(11, &words(&[0, 0]))
    });
    let head = guest.rings[0].take_used().unwrap().0;
    assert_eq!((head, guest.rings[0].take_used()), (8, None));
    assert_eq!(guest.status(0, 8), OK);
    let index = guest.rings[0].available - 1;
    assert_eq!(base, words(&[0, index.into()]));
    assert_eq!(guest.read(1, 8, 4096), [9; 4096]);
    assert_eq!(guest.read(1, 16, 4096), [0; 4096]);
    // Whoever takes the guest away by force does not wait for a volume.
    close();
    guest.request(1, 0, 1, 8, (4096, false));
    guest.rings[1].kick();
    std::thread::sleep(Duration::from_millis(120));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            wait(host.node.handle.end_guest(1, true)).unwrap();
        });
        assert!(guest.try_ask(11, 0, &words(&[1, 0]), &[]).is_none());
    });
    host.stop();
}

#[test]
fn messages_that_are_wrong_end_their_connection_and_no_other() {
    let host = Host::start(1);
    let (first, second) = (host.serve(1, 2), host.serve(2, 1));
    let mut other = FrontEnd::start(&second, 1);
    let wrong: [(u32, Vec<u8>, usize); 12] = [
        (99, vec![], 0),
        (1, vec![0], 0),
        (2, longs(&[1 << 63]), 0),
        (1, vec![], 1),
        (12, longs(&[0]), 0),
        (12, longs(&[1 << 8]), 0),
        (12, longs(&[7]), 1),
        (8, words(&[0, 7]), 0),
        (18, words(&[0, 2]), 0),
        (5, [words(&[2, 0]), longs(&[0, 4096, 0, 0])].concat(), 1),
        (5, [words(&[1, 0]), longs(&[0, u64::MAX, 1, 0])].concat(), 1),
        (37, longs(&[0, 4096, 4096, USER + 4096, 0]), 1),
    ];
    for (request, body, files) in wrong {
        let mut front = FrontEnd::connect(&first);
        front.negotiate(FEATURES);
        let files = vec![front.file.as_fd(); files];
        front.tell(request, &body, &files);
        assert!(front.is_cut_off(), "request {request} {body:?}");
    }
    // A header of another version, one that is too long, and one that never ends.
    let front = FrontEnd::connect(&first);
    front.stream.send(&words(&[1, 2, 0]), None).unwrap();
    assert!(front.is_cut_off());
    let front = FrontEnd::connect(&first);
    front.stream.send(&words(&[1, 1, 5000]), None).unwrap();
    assert!(front.is_cut_off());
    let slow = FrontEnd::connect(&first);
    slow.stream.send(&words(&[2, 1]), None).unwrap();
    assert_eq!(other.write(0, 0, &[3; 512]), OK);
    drop(slow);
    let mut again = FrontEnd::connect(&first);
    again.negotiate(FEATURES);
    assert_eq!(other.read(0, 0, 512), [3; 512]);
    // Of this file alone: the other tests of this process open and close theirs.
    let open_files = Path::new("/proc/self/fd");
    let identity = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.dev(), meta.ino()))
    };
    let file = again.file.as_raw_fd().to_string();
    let wanted = identity(&open_files.join(file));
    let open = || {
        let entries = open_files.read_dir().unwrap().flatten();
        let same = entries.filter(|entry| identity(&entry.path()) == wanted);
        same.count()
    };
    let before = open();
    for _ in 0..20 {
        let front = FrontEnd::connect(&first);
        drop(std::mem::replace(&mut again.stream, front.stream));
        let file = again.file.as_fd();
        again.tell(12, &longs(&[0]), &[file; 30]);
        assert!(again.is_cut_off());
    }
    assert!(open() <= before, "files of refused messages are closed");
    host.stop();
}

#[test]
fn memory_comes_and_goes_under_load_and_the_ring_goes_with_its_own() {
    let host = Host::start(1);
    let path = host.serve(1, 1);
    let mut guest = FrontEnd::start(&path, 1);
    let (more, file) = crate::io::SharedMap::create("more", 1 << 20).unwrap();
    let span = crate::io::Span::of(&more);
    let region = longs(&[0, 1 << 30, 1 << 20, 1 << 40, 0]);
    let at = guest.place(0, 0);
    let header = [words(&[0, 0]), longs(&[0])].concat();
    for round in 0..20 {
        // The file of a new region at once carries data, and one that was taken away none.
        guest.ack(37, &region, &[file.as_fd()]);
        guest.memory.write(at, &header);
        guest.offer(
            0,
            0,
            &[(at, 16, false), (1 << 30, 4096, true), (at + 64, 1, true)],
        );
        guest.rings[0].kick();
        if round % 2 == 0 {
            guest.rings[0].wait_used();
            assert_eq!(guest.status(0, 0), OK);
            guest.ack(38, &region, &[]);
        } else {
            guest.ack(38, &region, &[]);
            guest.rings[0].wait_used();
        }
        span.store_u8(0, round);
    }
    guest.memory.write(at, &header);
    guest.offer(
        0,
        0,
        &[(at, 16, false), (1 << 30, 4096, true), (at + 64, 1, true)],
    );
    guest.rings[0].kick();
    guest.rings[0].wait_used();
    assert_eq!(guest.status(0, 0), IOERR);
    // Without the ring's own memory there is nothing to serve.
    guest.tell(38, &longs(&[0, 0, MEMORY, USER, 0]), &[]);
    assert!(guest.is_cut_off());
    until("the ring is stopped", || {
        host.node.handle.guest_state(1) == Some(GuestState::Listening)
    });
    host.stop();
}

#[test]
fn a_front_end_that_cuts_its_memory_short_breaks_its_own_rings_only() {
    let host = Host::start(1);
    let (first, second) = (host.serve(1, 1), host.serve(2, 1));
    let mut guest = FrontEnd::start(&first, 1);
    assert_eq!(guest.write(0, 0, &[3; 512]), OK);
    nix::unistd::ftruncate(&guest.file, 0).unwrap();
    guest.rings[0].kick();
    assert!(guest.rings[0].is_failed());
    drop(guest);
    let mut other = FrontEnd::start(&second, 1);
    until("the first has given the volume up", || {
        host.node.handle.guest_state(2) == Some(GuestState::Running)
    });
    assert_eq!(other.read(0, 0, 512), [3; 512]);
    host.stop();
}

#[test]
fn a_second_guest_of_a_volume_runs_when_the_first_has_stopped() {
    let host = Host::start(1);
    let (first, second) = (host.serve(1, 1), host.serve(2, 1));
    let mut source = FrontEnd::start(&first, 1);
    assert_eq!(source.write(0, 0, &[3; 512]), OK);
    let mut target = FrontEnd::start(&second, 1);
    target.request(0, 0, 0, 0, (512, true));
    target.rings[0].kick();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(target.rings[0].take_used(), None);
    assert_eq!(host.node.handle.guest_state(2), Some(GuestState::Connected));
    assert_eq!(source.write(0, 0, &[4; 512]), OK);
    source.ask(11, &words(&[0, 0]));
    target.rings[0].wait_used();
    assert_eq!(target.data(0, 0, 512), [4; 512]);
    assert_eq!(host.node.handle.guest_state(1), Some(GuestState::Connected));
    host.stop();
}

#[test]
fn a_guest_is_told_of_a_resize_and_uses_it() {
    let host = Host::start(1);
    let path = host.serve(1, 1);
    let mut guest = FrontEnd::start(&path, 1);
    let (mine, theirs) = UnixStream::pair().unwrap();
    guest.ack(21, &[], &[theirs.as_fd()]);
    assert_eq!(
        guest.carry_out(0, 0, VOLUME_BYTES / 512, (512, true)),
        IOERR
    );
    let size = 2 * VOLUME_BYTES;
    wait(host.node.open_volume(size, &[1])).unwrap();
    wait(host.node.handle.set_exports(vec![export(size, None)]));
    let mut told = [0; 12];
    (&mine).read_exact(&mut told).unwrap();
    assert_eq!(told[..], words(&[2, 1, 0]));
    let question = [words(&[0, 60, 0]), vec![0; 60]].concat();
    let space = guest.ask(24, &question);
    assert_eq!(u64_at(&space, 12), size / 512);
    assert_eq!(guest.carry_out(0, 0, VOLUME_BYTES / 512, (512, true)), OK);
    host.stop();
}

#[test]
fn a_guest_is_not_ended_while_its_driver_is_there_unless_forced() {
    let host = Host::start(1);
    let path = host.serve(1, 1);
    let guest = FrontEnd::start(&path, 1);
    let handle = &host.node.handle;
    let refused = wait(handle.end_guest(1, false));
    assert!(matches!(refused, Err(GuestError::InUse)));
    assert!(matches!(
        wait(handle.end_guest(7, true)),
        Err(GuestError::NoSuchGuest)
    ));
    wait(handle.end_guest(1, true)).unwrap();
    assert!(guest.is_cut_off());
    assert_eq!(
        (handle.guest_state(1), handle.connections(VOLUME)),
        (None, 0)
    );
    std::fs::remove_file(&path).unwrap();
    let path = host.serve(1, 1);
    let mut guest = FrontEnd::connect(&path);
    guest.negotiate(FEATURES);
    wait(handle.end_guest(1, false)).unwrap();
    host.stop();
}

#[test]
fn writes_to_memory_are_logged_while_that_is_asked_for() {
    let host = Host::start(1);
    let path = host.serve(1, 1);
    let mut guest = FrontEnd::start(&path, 1);
    assert_eq!(guest.write(0, 0, &[1; 512]), OK);
    let (log, file) = crate::io::SharedMap::create("log", 4096).unwrap();
    let log = crate::io::Span::of(&log);
    let answer = guest.try_ask(6, 0, &longs(&[4096, 0]), &[file.as_fd()]);
    assert!(answer.is_some());
    let marked = |at: u64| log.load_u8((at / 4096 / 8) as usize) & 1 << (at / 4096 % 8) != 0;
    let place = guest.place(0, 0);
    guest.read(0, 0, 512);
    assert!(!marked(place));
    guest.ack(2, &longs(&[FEATURES | 1 << 26]), &[]);
    guest.logs = true;
    guest.tell_address(0);
    // What a daemon wrote there that was killed before it marked it.
    assert!(marked(used_at(0)) && !marked(place));
    guest.write(0, 0, &[1; 512]);
    assert!(marked(place) && marked(used_at(0)) && !marked(place + 4096));
    guest.read(0, 0, 512);
    assert!(marked(place + 4096) && !marked(place + 8192) && !marked(0x1000));
    host.stop();
}

#[test]
fn a_volume_of_4_kib_blocks_refuses_less_and_a_refused_volume_serves_nobody() {
    let host = Host::start(1);
    let large = Export {
        block_size: 4096,
        ..export(VOLUME_BYTES, None)
    };
    wait(host.node.handle.set_exports(vec![large]));
    let path = host.serve(1, 1);
    let mut guest = FrontEnd::start(&path, 1);
    assert_eq!(guest.write(0, 8, &[1; 4096]), OK);
    assert_eq!(guest.write(0, 1, &[1; 4096]), IOERR);
    assert_eq!(guest.write(0, 8, &[1; 512]), IOERR);
    drop(guest);
    let refused = export(VOLUME_BYTES, Some("it is being imported"));
    wait(host.node.handle.set_exports(vec![refused]));
    assert!(FrontEnd::connect(&path).is_cut_off());
    host.stop();
}

#[test]
fn a_front_end_that_goes_in_the_middle_of_io_leaves_nothing_behind() {
    let host = Host::start(2);
    let path = host.serve(1, 4);
    for round in 0..15u8 {
        let mut guest = FrontEnd::start(&path, 4);
        for (ring, head) in (0..4).flat_map(|ring| [0, 4, 8, 12].map(|head| (ring, head))) {
            guest.put_data(ring, head, &[round; 8192]);
            guest.request(ring, head, 1, 64 * u64::from(head), (8192, false));
            guest.rings[ring].kick();
        }
        drop(guest);
    }
    let mut guest = FrontEnd::start(&path, 4);
    let read = guest.read(0, 0, 8192);
    assert!(read.iter().all(|byte| *byte == read[0]));
    drop(guest);
    until("the front end has gone", || {
        host.node.handle.connections(VOLUME) == 0
    });
    host.stop();
}

#[test]
fn a_front_end_that_is_handed_over_goes_on_in_the_next_process_without_a_word() {
    let mut host = Host::start(2);
    let path = host.serve(1, 4);
    let mut guest = FrontEnd::start(&path, 3);
    // The fourth ring is described and does not run.
    guest.ack(8, &words(&[3, RING.into()]), &[]);
    for round in 0..3u8 {
        for ring in 0..3u8 {
            let data = pattern(20 * 1024, ring ^ round);
            assert_eq!(guest.write(ring.into(), u64::from(ring) * 8192, &data), OK);
        }
        // Made available without a kick that anybody would hear: the next process finds it.
        let (next, mut handed) = host.restart(2);
        assert_eq!(handed.len(), 1);
        assert!(handed[0].ran && handed[0].guest == 1);
        guest.put_data(0, 8, &[round; 4096]);
        guest.request(0, 8, 1, 40_000, (4096, false));
        next.serve_handed(1, 4, handed.pop());
        assert_eq!(guest.rings[0].wait_used().0, 8);
        assert_eq!(guest.status(0, 8), OK);
        assert_eq!(guest.read(1, 40_000, 4096), [round; 4096]);
        for ring in 0..3u8 {
            let data = pattern(20 * 1024, ring ^ round);
            assert!(guest.read(2 - usize::from(ring), u64::from(ring) * 8192, 20 * 1024) == data);
        }
        assert_eq!(next.node.handle.guest_state(1), Some(GuestState::Running));
        assert_eq!(next.node.handle.connections(VOLUME), 1);
        host = next;
    }
    let base = guest.ask(11, &words(&[1, 0]));
    assert_eq!(base, words(&[1, guest.rings[1].available.into()]));
    host.stop();
}

#[test]
fn a_front_end_in_the_middle_of_a_message_is_not_handed_over_and_its_socket_is_closed() {
    let host = Host::start(1);
    let path = host.serve(1, 1);
    let guest = FrontEnd::start(&path, 1);
    let idle = host.serve(2, 1);
    let other = FrontEnd::connect(&idle);
    other.ask(1, &[]);
    guest.stream.send(&[1, 0, 0, 0], None).unwrap();
    // What lies in the socket would go to the next process: this is to be a message that was begun.
    std::thread::sleep(Duration::from_millis(200));
    let limit = Duration::from_millis(300);
    let handle = host.node.handle.clone();
    wait(async move { tokio::time::timeout(limit, handle.hand_over_guests()).await }).unwrap_err();
    wait(host.node.handle.control(Control::Close {
        how: Closing::Quick,
    }))
    .unwrap();
    let handed = host.node.runtime.stop();
    assert_eq!(handed.iter().map(|h| h.guest).collect::<Vec<_>>(), [2]);
    assert!(guest.is_cut_off());
    drop(handed);
    assert!(other.is_cut_off());
}
