//! Starts the shard threads.

use super::asker::Who;
use super::asks::Asks;
use super::clients::Clients;
use super::core_loop::Core;
use super::counters::Counters;
use super::desk::Desk;
use super::devices::Devices;
use super::disks::Disks;
use super::guests::Guests;
use super::handle::{Config, Line, Shared};
use super::links::{Limits, LinkUser, Links};
use super::mailbox::{Mail, Mailbox, mailbox};
use super::peers::Peers;
use super::places::Places;
use super::said::Saying;
use crate::base::{BLOCK, Breaks, BufId, BufRef, DiskId, Slab};
use crate::frontend::nbd;
use crate::io::{Arena, Buffers, Ring, Zone, clock};
use crate::observe::Registry;
use crate::protocol::membership::Incarnation;
use crate::shard::{Input, Outbox, Said, Shard, ShardNo};
use crate::store::Note;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Shards of a process at most: sets of them are words of 64 bits.
const SHARDS: usize = 64;
/// Payload memory of all clients at least, in bytes.
const LEAST_BYTES: u64 = 64 << 20;
/// Memory of each shard for its own operations, in bytes: 2 MiB to receive into, 2 for each store, the rest for
/// heads and metadata.
const DRIVER_BYTES: u64 = 32 << 20;
/// Memory that each shard reads into before it hands on what it read: 256 reads of a block and 112 of a chunk at once.
const LENT_BYTES: u64 = 8 << 20;
/// Memory of each shard of a cluster for what peers answer, in bytes: 128 reads of a chunk at once.
const ROOM_BYTES: u64 = 8 << 20;

/// A shard thread. When it ends it leaves its ring's descriptor: see [`live`].
pub(super) type Thread = JoinHandle<Option<OwnedFd>>;

/// What a shard thread is given.
struct Birth {
    me: ShardNo,
    shared: Arc<Shared>,
    arena: Arc<Arena>,
    mailbox: Mailbox,
    registry: Arc<Registry>,
    notes: mpsc::Sender<(DiskId, Note)>,
    said: mpsc::Sender<Said>,
    cluster: Option<Incarnation>,
    cpu: Option<usize>,
    link_limits: Limits,
    link_user: Option<Box<dyn LinkUser>>,
}

/// Starts a thread for each shard and waits until all of them serve.
pub(super) fn start(
    config: &Config,
    registry: Arc<Registry>,
    (notes, said): (mpsc::Sender<(DiskId, Note)>, mpsc::Sender<Said>),
    mut link_user: impl FnMut(ShardNo) -> Option<Box<dyn LinkUser>>,
) -> io::Result<(Arc<Shared>, Vec<Thread>)> {
    check(config)?;
    crate::io::raise_limits();
    let driver_bytes = (DRIVER_BYTES + LENT_BYTES) * config.shards as u64;
    let room_bytes = config
        .cluster
        .map_or(0, |_| ROOM_BYTES * config.shards as u64);
    let arena = Arc::new(Arena::with_rooms(
        config.buffer_bytes.max(LEAST_BYTES),
        driver_bytes,
        config.link_bytes,
        room_bytes,
    )?);
    let mut lines = Vec::new();
    let mut mailboxes = Vec::new();
    for _ in 0..config.shards {
        let (postbox, mailbox) = mailbox()?;
        lines.push(Line::new(postbox));
        mailboxes.push(mailbox);
    }
    let shared = Arc::new(Shared {
        lines,
        places: Places::new(config.shards),
        attachments: Default::default(),
        exports: Default::default(),
        guests: Default::default(),
        hunger: AtomicU64::new(0),
        #[cfg(test)]
        arena: Arc::clone(&arena),
    });
    let (born, births) = channel();
    let mut threads = Vec::new();
    for (number, mailbox) in mailboxes.into_iter().enumerate() {
        let birth = Birth {
            me: ShardNo(number as u16), // at most SHARDS
            shared: Arc::clone(&shared),
            arena: Arc::clone(&arena),
            mailbox,
            registry: Arc::clone(&registry),
            notes: notes.clone(),
            said: said.clone(),
            cluster: config.cluster,
            cpu: config.pin.as_ref().map(|cpus| cpus[number]),
            link_limits: config.link_limits,
            link_user: link_user(ShardNo(number as u16)),
        };
        let born = born.clone();
        let thread = std::thread::Builder::new().name(format!("shard-{number}"));
        threads.push(thread.spawn(move || live(birth, &born))?);
    }
    drop(born);
    let failed = births.iter().take(config.shards).find_map(Result::err);
    let Some(error) = failed else {
        make_memory(arena, Arc::clone(&shared));
        return Ok((shared, threads));
    };
    shared.lines.iter().for_each(|line| line.postbox.stop());
    for thread in threads {
        let _ = thread.join(); // a panic has aborted the process
    }
    Err(error)
}

/// Makes the payload memory beside everything else, then has the shards register it: nobody waits for it meanwhile. Where
/// there is no thread for that, it is made when it is first used.
fn make_memory(arena: Arc<Arena>, shared: Arc<Shared>) {
    let make = move || {
        arena.make();
        for line in &shared.lines {
            let _ = line.postbox.send(Mail::Memory); // a shard that has ended needs none
        }
    };
    let thread = std::thread::Builder::new().name("memory".into());
    if let Err(error) = thread.spawn(make) {
        tracing::warn!(%error, "payload memory is not registered");
    }
}

fn check(config: &Config) -> io::Result<()> {
    let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if config.shards == 0 || config.shards > SHARDS {
        return wrong(format!(
            "shards is {}, and must be 1 to {SHARDS}",
            config.shards
        ));
    }
    if config.cluster.is_some()
        && config.link_bytes < config.shards as u64 * Limits::LEAST_LINK_BYTES
    {
        let (least, bytes) = (Limits::LEAST_LINK_BYTES, config.link_bytes);
        return wrong(format!(
            "link_bytes is {bytes}, and a node of a cluster needs {least} for each of its shards at least"
        ));
    }
    match &config.pin {
        Some(cpus) if cpus.len() != config.shards => {
            let (cpus, shards) = (cpus.len(), config.shards);
            wrong(format!("pin names {cpus} CPUs for {shards} shards"))
        }
        _ => Ok(()),
    }
}

/// A shard thread, from its birth to its end. Who waits for that gets the ring's descriptor, so that the kernel ends the ring
/// when the thread is no more: ublk's driver (seen on Linux 6.12) hands requests to a thread that lives even while its ring
/// ends, and forgets them then; the device could never be taken back. What it has for a dead thread it keeps for the next.
fn live(birth: Birth, born: &Sender<io::Result<()>>) -> Option<OwnedFd> {
    let _guard = AbortOnPanic;
    let me = birth.me;
    let core = prepare(birth);
    let mut core = match core {
        Ok(core) => core,
        Err(error) => {
            let _ = born.send(Err(error)); // who started us waits for this
            return None;
        }
    };
    let _ = born.send(Ok(()));
    if let Err(error) = core.run() {
        // Nothing of this shard can be served any more, and what is in flight would hang.
        tracing::error!(shard = me.0, %error, "the ring failed");
        std::process::abort();
    }
    let ring = core.desk.ring.descriptor();
    ring.inspect_err(|error| tracing::warn!(%error, "the ring ends before its thread"))
        .ok()
}

fn prepare(birth: Birth) -> io::Result<Core<Shard>> {
    if let Some(cpu) = birth.cpu {
        pin(cpu)?;
    }
    let zone = Zone::Driver {
        shard: birth.me.0,
        shards: birth.shared.lines.len() as u16,
    };
    let peers = Zone::Peers {
        shard: birth.me.0,
        shards: birth.shared.lines.len() as u16,
    };
    let peers = Buffers::new(Arc::clone(&birth.arena), peers);
    let rooms = Zone::Rooms {
        shard: birth.me.0,
        shards: birth.shared.lines.len() as u16,
    };
    let rooms = Buffers::new(Arc::clone(&birth.arena), rooms);
    let link_stats = birth.registry.links(usize::from(birth.me.0));
    let mut disks = Disks::new(Buffers::new(Arc::clone(&birth.arena), zone))?;
    let ring = Ring::new(disks.buffers())?;
    let buffers = Buffers::new(birth.arena, Zone::Clients);
    let counters = Counters::new(Arc::clone(&birth.registry));
    let shard_stats = birth.registry.shard(usize::from(birth.me.0));
    let shards = birth.shared.lines.len() as u16;
    let whole = birth.cluster.map(|start| (birth.me, shards, start));
    let (machine, lent) = machine(disks.buffers(), whole)?;
    let of_peers = (lent, rooms);
    let is_of_cluster = birth.cluster.is_some();
    Ok(Core {
        machine,
        out: Outbox::default(),
        desk: Desk::new(ring, buffers, birth.shared, birth.me, counters),
        disks,
        clients: Clients::new(nbd::Limits::default()),
        devices: Devices::new(),
        guests: Guests::new(),
        links: Links::new(peers, birth.link_limits, link_stats),
        link_user: birth.link_user,
        asks: Asks::new(),
        load: None,
        controls: Slab::new(super::core_loop::CONTROLS),
        known: Vec::new(),
        notes: birth.notes,
        notes_dropped: 0,
        peers: Peers::new(birth.me, is_of_cluster, of_peers, Arc::clone(&shard_stats)),
        orders: Vec::new(),
        has_orders: false,
        saying: Saying::new(birth.me, birth.said),
        shard_stats,
        registry: birth.registry,
        disks_told_at: crate::base::Time::default(),
        mailbox: birth.mailbox,
        next_home: 0,
        crcs: Vec::new(),
        meta: Vec::new(),
    })
}

/// The shard's machine, with memory of its own.
fn machine(
    buffers: &mut Buffers,
    whole: Option<(ShardNo, u16, Incarnation)>,
) -> io::Result<(Shard, BufId)> {
    let blocks = (LENT_BYTES / BLOCK) as u32;
    let id = buffers.allocate(blocks);
    let id = id.ok_or_else(|| io::Error::other("there is no payload memory for a shard's own"))?;
    let buf = BufRef { id, block: 0 };
    let mut shard = match whole {
        None => Shard::alone(Breaks::NONE),
        Some((me, shards, start)) => {
            let name = Who::Machine(me).asker();
            Shard::of_node((me, shards), name, start, Breaks::NONE)
        }
    };
    let input = Input::Memory { buf, blocks };
    shard.step(clock::now(), input, &mut Outbox::default());
    Ok((shard, id))
}

fn pin(cpu: usize) -> io::Result<()> {
    use nix::sched::{CpuSet, sched_setaffinity};
    use nix::unistd::Pid;
    let mut set = CpuSet::new();
    let pinned = set
        .set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    pinned.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("pin: CPU {cpu}: {e}")))
}

/// A shard that panics is wrong about its own state: going on could acknowledge what is not so.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
