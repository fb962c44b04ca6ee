//! A guest's side of vhost-user-blk, by the crate `virtio-driver`: a thread a queue, which sleeps on its call eventfd as
//! a guest's CPU does.

use nix::sys::eventfd::EventFd;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant};
use virtio_driver::{VhostUser, VirtioBlkQueue, VirtioBlkTransport, VirtioFeatureFlags};

/// Bytes of an operation, and of those that fill a volume: a chunk as a whole, which leaves nothing to be done behind.
pub const BLOCK: usize = 4096;
const CHUNK: usize = 65536;

/// Writes all of a volume of `mib` MiB once.
pub fn fill(socket: &Path, mib: u64) {
    let blocks = (mib << 20) / CHUNK as u64;
    let spec = Spec {
        bytes: CHUNK,
        writes: true,
        depth: 16,
        flushes: false,
        blocks,
        until: Until::All,
    };
    drive(socket, 1, spec);
}

#[derive(Clone, Copy)]
pub enum Until {
    Time(Duration),
    /// Each block once, in order.
    All,
}

#[derive(Clone, Copy)]
pub struct Spec {
    /// Of each operation.
    pub bytes: usize,
    pub writes: bool,
    pub depth: usize,
    /// Each write is followed by a flush, and ends with it.
    pub flushes: bool,
    /// How many places of `bytes` the load goes to.
    pub blocks: u64,
    pub until: Until,
}

/// Puts a load on a socket, a thread a queue: how long each operation took, in ns.
pub fn drive(socket: &Path, queues: usize, spec: Spec) -> Vec<u64> {
    const MQ: u64 = 1 << 12; // VIRTIO_BLK_F_MQ
    let features = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_EVENT_IDX;
    let path = socket.to_str().expect("a path");
    let transport = VhostUser::new(path, features.bits() | MQ).expect("the server answers");
    let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
    let len = queues * spec.depth * spec.bytes;
    let file = File::from(
        nix::sys::memfd::memfd_create("load", nix::sys::memfd::MFdFlags::empty()).expect("memory"),
    );
    file.set_len(len as u64).expect("its length");
    // SAFETY: a new mapping of a file of our own; used through the pointers below only.
    let memory = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(
            std::ptr::null_mut(),
            len,
            access,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    } as usize;
    transport
        .map_mem_region(memory, len, file.as_raw_fd(), 0)
        .expect("memory is shared");
    let rings = VirtioBlkQueue::<usize>::setup_queues(&mut *transport, queues, 128);
    let rings = rings.expect("the queues start");
    let mut latencies = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = rings
            .into_iter()
            .enumerate()
            .map(|(index, ring)| {
                let call = transport.get_completion_fd(index);
                let notifier = transport.get_submission_notifier(index);
                // As QEMU has its eventfds.
                // SAFETY: flags of a file that is open.
                unsafe { libc::fcntl(call.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
                let memory = memory + index * spec.depth * spec.bytes;
                let call = call.as_fd().try_clone_to_owned().expect("a file");
                scope.spawn(move || {
                    on_core(1);
                    // SAFETY: the descriptor is an eventfd of our own.
                    let call = unsafe { EventFd::from_owned_fd(call) };
                    one_queue(ring, &call, &*notifier, memory, spec, index as u64)
                })
            })
            .collect();
        for thread in threads {
            latencies.extend(thread.join().expect("the load ends"));
        }
    });
    drop(transport);
    // SAFETY: mapped above; the server has seen our connection end, and the queues are gone.
    unsafe { libc::munmap(memory as *mut _, len) };
    latencies
}

fn on_core(core: usize) {
    let mut set = nix::sched::CpuSet::new();
    set.set(core).expect("a core");
    // On a machine of one core it stays where it is.
    let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
}

fn one_queue(
    mut ring: VirtioBlkQueue<'_, usize>,
    call: &EventFd,
    notifier: &dyn virtio_driver::QueueNotifier,
    memory: usize,
    spec: Spec,
    seed: u64,
) -> Vec<u64> {
    let began = Instant::now();
    let mut state = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed + 1);
    let (mut latencies, mut next, mut flying) = (Vec::new(), 0u64, 0usize);
    // When each place's operation began, and whether its flush is what flies.
    let mut since = vec![(began, false); spec.depth];
    let mut idle: Vec<usize> = (0..spec.depth).collect();
    ring.set_used_notif_enabled(true);
    loop {
        let over = match spec.until {
            Until::Time(time) => began.elapsed() >= time,
            Until::All => next >= spec.blocks,
        };
        if over && flying == 0 {
            return latencies;
        }
        while let Some(place) = idle.pop().filter(|_| !over) {
            let block = match spec.until {
                Until::All if next >= spec.blocks => break,
                Until::All => next,
                Until::Time(_) => {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state % spec.blocks
                }
            };
            next += 1;
            since[place] = (Instant::now(), false);
            let (at, offset) = (memory + place * spec.bytes, block * spec.bytes as u64);
            // SAFETY: each place has a block of the memory that is mapped, and one operation at a time.
            let asked = unsafe {
                match spec.writes {
                    true => ring.write_raw(offset, at as *const u8, spec.bytes, place),
                    false => ring.read_raw(offset, at as *mut u8, spec.bytes, place),
                }
            };
            asked.expect("the ring has room");
            flying += 1;
        }
        if ring.avail_notif_needed() {
            notifier.notify().expect("an eventfd");
        }
        let mut done: Vec<(usize, i32)> = ring.completions().map(|c| (c.context, c.ret)).collect();
        if done.is_empty() {
            let on = [(call.as_fd(), sarsen::io::Until::Readable)];
            let woken = sarsen::io::wait(&on, Some(Duration::from_secs(20))).expect("a poll");
            assert_ne!(woken, 0, "the server answers within 20 s");
            let _ = call.read();
            done.extend(ring.completions().map(|c| (c.context, c.ret)));
        }
        for (place, result) in done {
            assert_eq!(result, 0, "an operation failed");
            if spec.flushes && !since[place].1 {
                since[place].1 = true;
                ring.flush(place).expect("the ring has room");
                continue;
            }
            latencies.push(since[place].0.elapsed().as_nanos() as u64);
            idle.push(place);
            flying -= 1;
        }
    }
}
