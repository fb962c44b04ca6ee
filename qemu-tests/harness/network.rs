//! Hosts with a network of their own: a network namespace each, with one Ethernet device, and this process is the switch between them.
//!
//! ```text
//!   daemon a ── eth0 (a TAP device) ──┐
//!   daemon b ── eth0 ─────────────────┼── a thread here: forwards, loses, delays
//!   daemon c ── eth0 ─────────────────┘
//! ```
//!
//! The namespaces have no names and no files: they end with who holds them. Frames are forwarded with what the kernel left undone of
//! them (checksums, segmentation), so that 64 KiB go at once. What is lost is lost in silence, as behind a pulled cable: nobody is refused.
//!
//! Not here: reordering and loss of single frames, which TCP hides from daemons; they see it as delay.

use super::{Step, ensure, tools};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// `virtio_net_hdr` before each frame (Linux `Documentation/networking/tuntap.rst`, IFF_VNET_HDR).
const HEADER: usize = 10;
/// A segment that is to be cut by who sends it on.
const FRAME_MAX: usize = HEADER + 14 + (64 << 10);
/// Frames on their way on one wire; more are lost, as in any switch.
const QUEUE_MAX: usize = 4096;
/// How often the end is looked for where nothing comes.
const LOOK: Duration = Duration::from_millis(50);

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
/// TUN_F_CSUM and TUN_F_TSO4.
const OFFLOADS: libc::c_ulong = 0x01 | 0x02;

/// What goes from one host to another.
#[derive(Debug, Default)]
struct Wire {
    is_cut: bool,
    delay: Duration,
    /// In order, with when each arrives.
    on_the_way: VecDeque<(Instant, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct Counts {
    lost: AtomicU64,
    delayed: AtomicU64,
}

/// What [`Network`] and its thread share.
struct Switch {
    /// By sender, then by receiver.
    wires: Mutex<Vec<Vec<Wire>>>,
    counts: Counts,
    ends: AtomicBool,
}

/// A switch with hosts at it.
pub struct Network {
    namespaces: Vec<Arc<OwnedFd>>,
    switch: Arc<Switch>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// So many hosts, whose cables are good.
    pub fn new(hosts: usize) -> Step<Network> {
        let (mut namespaces, mut taps) = (Vec::new(), Vec::new());
        for host in 0..hosts {
            // A thread's namespace is its own: the rest of this process stays where it is.
            let made = std::thread::spawn(move || plug_in(host).map_err(|why| why.to_string()));
            let (namespace, tap) = made.join().map_err(|_| "a thread panicked")??;
            namespaces.push(Arc::new(namespace));
            taps.push(tap);
        }
        let wires = || (0..hosts).map(|_| Wire::default()).collect();
        let switch = Arc::new(Switch {
            wires: Mutex::new((0..hosts).map(|_| wires()).collect()),
            counts: Counts::default(),
            ends: AtomicBool::new(false),
        });
        let of_thread = switch.clone();
        let thread = std::thread::spawn(move || of_thread.run(&mut taps));
        Ok(Network {
            namespaces,
            switch,
            thread: Some(thread),
        })
    }

    /// The address of a host, with which others reach it.
    pub fn address(host: usize) -> String {
        format!("10.99.0.{}", host + 1)
    }

    /// Where the processes of a host belong.
    pub fn namespace(&self, host: usize) -> Arc<OwnedFd> {
        self.namespaces[host].clone()
    }

    /// What one host sends to another one is lost from here on.
    pub fn cut(&self, from: usize, to: usize) {
        self.switch.wires()[from][to].is_cut = true;
    }

    /// A host reaches nobody, and nobody reaches it.
    pub fn unplug(&self, host: usize) {
        for other in (0..self.namespaces.len()).filter(|other| *other != host) {
            self.cut(host, other);
            self.cut(other, host);
        }
    }

    /// Whatever goes from or to a host takes so much longer.
    pub fn slow(&self, host: usize, delay: Duration) {
        let mut wires = self.switch.wires();
        for other in 0..self.namespaces.len() {
            wires[host][other].delay = delay;
            wires[other][host].delay = delay;
        }
    }

    /// All cables are good again.
    pub fn mend(&self) {
        for wire in self.switch.wires().iter_mut().flatten() {
            (wire.is_cut, wire.delay) = (false, Duration::ZERO);
        }
    }

    /// How many frames were lost so far, and how many came late, as they had to be.
    pub fn lost_and_delayed(&self) -> (u64, u64) {
        let counts = &self.switch.counts;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&counts.lost), of(&counts.delayed))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.switch.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panics only where a test has failed already, and says so itself.
            let _ = thread.join();
        }
    }
}

/// A network of two: processes of this machine, in a namespace of their own, and a guest.
pub struct Lan(Arc<OwnedFd>);

impl Lan {
    /// The device that is the guest's cable.
    pub const DEVICE: &str = "guest0";
    pub const OUTSIDE: &str = "10.98.0.1";
    pub const GUEST: &str = "10.98.0.2";

    pub fn new() -> Step<Lan> {
        let made = std::thread::spawn(|| {
            let made = Lan::make();
            made.map_err(|why| why.to_string())
        });
        let namespace = made.join().map_err(|_| "a thread panicked")??;
        Ok(Lan(Arc::new(namespace)))
    }

    /// Out of the calling thread, which stays in it.
    fn make() -> Step<OwnedFd> {
        let namespace = leave()?;
        let (device, address) = (Lan::DEVICE, format!("{}/24", Lan::OUTSIDE));
        tools::run("ip", &["tuntap", "add", "dev", device, "mode", "tap"])?;
        tools::run("ip", &["addr", "add", &address, "dev", device])?;
        tools::run("ip", &["link", "set", device, "up"])?;
        Ok(namespace)
    }

    /// Where the processes outside belong, QEMU too.
    pub fn namespace(&self) -> Arc<OwnedFd> {
        self.0.clone()
    }
}

/// Has a command run in a network namespace.
pub fn enter(command: &mut Command, namespace: Arc<OwnedFd>) {
    let enter = move || {
        // SAFETY: changes the namespace of the child only, into one that is held open.
        match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one system call.
    unsafe { command.pre_exec(enter) };
}

/// Makes a network namespace, in which the calling thread is from here on.
fn leave() -> Step<OwnedFd> {
    // SAFETY: changes the namespace of this thread only.
    let left = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    let error = std::io::Error::last_os_error();
    ensure!(left == 0, "a network namespace, as root: {error}");
    tools::run("ip", &["link", "set", "lo", "up"])?;
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Makes a namespace with a device in it, out of the calling thread, which stays in it.
fn plug_in(host: usize) -> Step<(OwnedFd, File)> {
    let namespace = leave()?;
    let tap = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let mut request = [0_u8; 40];
    request[..4].copy_from_slice(b"eth0");
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as u16;
    request[libc::IFNAMSIZ..libc::IFNAMSIZ + 2].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: a `struct ifreq` of its size, which the kernel reads and writes.
    let made = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    let error = std::io::Error::last_os_error();
    ensure!(made == 0, "a TAP device: {error}");
    // SAFETY: takes a number.
    let set = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETOFFLOAD, OFFLOADS) };
    let error = std::io::Error::last_os_error();
    ensure!(set == 0, "offloads of a TAP device: {error}");
    let mac = format!("02:00:00:00:00:{host:02x}");
    let address = format!("{}/24", Network::address(host));
    tools::run("ip", &["link", "set", "eth0", "address", &mac])?;
    tools::run("ip", &["addr", "add", &address, "dev", "eth0"])?;
    tools::run("ip", &["link", "set", "eth0", "up"])?;
    Ok((namespace, tap))
}

impl Switch {
    fn wires(&self) -> MutexGuard<'_, Vec<Vec<Wire>>> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, taps: &mut [File]) {
        let mut frame = vec![0; FRAME_MAX];
        while !self.ends.load(Ordering::Relaxed) {
            let next = self.deliver(taps);
            wait(taps, next);
            for from in 0..taps.len() {
                // A device that is not up yet, or is gone with its host, has nothing.
                while let Ok(length) = taps[from].read(&mut frame) {
                    self.forward(taps, from, &frame[..length]);
                }
            }
        }
    }

    /// Sends a frame to whom it is addressed, or to all.
    fn forward(&self, taps: &mut [File], from: usize, frame: &[u8]) {
        let Some(mac) = frame.get(HEADER..HEADER + 6) else {
            return;
        };
        let to_all = mac[0] & 1 == 1;
        let addressed = usize::from(mac[5]);
        let mut wires = self.wires();
        for to in (0..taps.len()).filter(|to| *to != from && (to_all || *to == addressed)) {
            let wire = &mut wires[from][to];
            if wire.is_cut || wire.on_the_way.len() >= QUEUE_MAX {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
            } else if wire.delay.is_zero() && wire.on_the_way.is_empty() {
                self.send(&mut taps[to], frame);
            } else {
                self.counts.delayed.fetch_add(1, Ordering::Relaxed);
                let arrives = Instant::now() + wire.delay;
                wire.on_the_way.push_back((arrives, frame.to_vec()));
            }
        }
    }

    /// Delivers what has arrived; how long until the next one does.
    fn deliver(&self, taps: &mut [File]) -> Duration {
        let (now, mut next) = (Instant::now(), LOOK);
        for row in self.wires().iter_mut() {
            for (wire, tap) in row.iter_mut().zip(taps.iter_mut()) {
                while let Some((arrives, frame)) = wire.on_the_way.front() {
                    if *arrives > now {
                        next = next.min(*arrives - now);
                        break;
                    }
                    self.send(tap, frame);
                    wire.on_the_way.pop_front();
                }
            }
        }
        next
    }

    fn send(&self, tap: &mut File, frame: &[u8]) {
        match tap.write(frame) {
            Ok(_) => {}
            // Its host takes no more at the moment.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("a frame was not taken: {error}"),
        }
    }
}

/// Waits until a frame is there, or for so long.
fn wait(taps: &[File], at_most: Duration) {
    let mut polled: Vec<libc::pollfd> = taps
        .iter()
        .map(|tap| libc::pollfd {
            fd: tap.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: i64::from(at_most.subsec_nanos()),
    };
    // SAFETY: polls descriptors that are held open, with no change of the signal mask. An interruption only ends it early.
    unsafe {
        libc::ppoll(
            polled.as_mut_ptr(),
            polled.len() as libc::nfds_t,
            &time,
            std::ptr::null(),
        )
    };
}
