//! A disk that can lose its power: one file, served by FUSE out of this process.
//!
//! What was written and neither written with O_DSYNC nor followed by an fsync is volatile: kept beside the durable
//! bytes, each version of each sector. A cut draws for each such sector which of its versions, or of the durable
//! bytes, the medium ends up with: so writes are lost, reordered and torn, at 512 bytes. Requests that arrive
//! after the cut, until the daemon is dead, were on their way to a disk without power: they are never
//! answered, and each of their sectors may have reached the medium.
//!
//! How durability looks from here (Linux 6.18, seen by the case `a_durable_write_is_known_as_one`): with
//! FOPEN_DIRECT_IO, the kernel puts O_DSYNC into the flags of the write request for a descriptor opened so and
//! for RWF_DSYNC alike; no fsync request follows either.

use super::Step;
use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use sarsen::base::Prng;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

const SECTOR: usize = 512;
const FILE: INodeNo = INodeNo(2);
const NAME: &str = "disk0";
/// How long the kernel may believe what it was told; nothing here ever changes.
const TTL: Duration = Duration::from_secs(3600);

type Sector = Box<[u8; SECTOR]>;

/// What was asked of the disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    pub writes: u64,
    pub durable_writes: u64,
    pub flushes: u64,
}

/// What a cut did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lost {
    /// Sectors that were volatile, and of them those whose newest version is gone.
    pub volatile: u64,
    pub lost: u64,
    /// Writes that were on their way.
    pub on_their_way: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// Nothing is answered.
    Off,
    /// Everything is answered with EIO; to nobody, where the daemon is dead.
    Buried,
}

struct State {
    durable: Vec<u8>,
    volatile: BTreeMap<u64, Vec<Sector>>,
    power: Power,
    dice: Prng,
    seen: Seen,
    lost: Lost,
}

/// The state and whoever waits for power.
struct Medium {
    state: Mutex<State>,
    changed: Condvar,
}

/// A mounted disk. Dropping it unmounts.
pub struct PowerDisk {
    medium: Arc<Medium>,
    /// Held for its end.
    _session: BackgroundSession,
    path: PathBuf,
}

impl PowerDisk {
    /// Serves an empty disk of so many bytes as a file in `folder`.
    pub fn mount(folder: &Path, bytes: usize, seed: u64) -> Step<PowerDisk> {
        std::fs::create_dir_all(folder)?;
        let medium = Arc::new(Medium {
            state: Mutex::new(State {
                durable: vec![0; bytes],
                volatile: BTreeMap::new(),
                power: Power::On,
                dice: Prng::new(seed),
                seen: Seen::default(),
                lost: Lost::default(),
            }),
            changed: Condvar::new(),
        });
        let mut config = fuser::Config::default();
        config.mount_options = vec![MountOption::FSName("sarsen-power".into()), MountOption::RW];
        // More threads than a cut leaves waiting, so that writes on their way are seen.
        config.n_threads = Some(8);
        let server = Server {
            medium: Arc::clone(&medium),
            bytes: bytes as u64,
        };
        let session = fuser::spawn_mount(server, folder, &config)?;
        Ok(PowerDisk {
            medium,
            _session: session,
            path: folder.join(NAME),
        })
    }

    /// The file that is the disk.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn seen(&self) -> Seen {
        self.medium.lock().seen
    }

    /// Power goes. From here on nothing is answered.
    pub fn cut(&self) {
        let mut state = self.medium.lock();
        state.lost = Lost::default();
        state.power = Power::Off;
        state.drop_volatile();
    }

    /// The disk dies while it is in use: whatever is asked of it is answered with EIO, to whoever asks.
    pub fn die(&self) {
        self.medium.set(Power::Buried);
    }

    /// Power is back. Whoever used the disk was sent SIGKILL before, so that nobody sees the EIO that ends what still
    /// waits; `reap` then waits for its end. Returns what was lost.
    pub fn restore(&self, reap: impl FnOnce() -> Step<()>) -> Step<Lost> {
        self.medium.set(Power::Buried);
        let died = reap();
        let lost = self.medium.lock().lost;
        self.medium.set(Power::On);
        died.map(|()| lost)
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        // The kernel ends a dead process's ring, and with it its hold of the file, somewhat after the process.
        // A detached mount does not wait for that.
        let Some(folder) = self.path.parent().and_then(|folder| folder.to_str()) else {
            return;
        };
        if let Err(error) = super::tools::run("umount", &["--lazy", folder]) {
            eprintln!("{folder} stays mounted: {error}");
        }
    }
}

impl Medium {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, power: Power) {
        self.lock().power = power;
        self.changed.notify_all();
    }

    /// The state while there is power; `None` for a request that is to be answered with EIO.
    fn powered(&self) -> Option<MutexGuard<'_, State>> {
        let mut state = self.lock();
        while state.power == Power::Off {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        (state.power == Power::On).then_some(state)
    }
}

impl State {
    fn durable_sector(&mut self, sector: u64) -> &mut [u8] {
        let at = sector as usize * SECTOR;
        &mut self.durable[at..at + SECTOR]
    }

    fn write(&mut self, offset: u64, data: &[u8], durable: bool) {
        self.seen.writes += 1;
        self.seen.durable_writes += u64::from(durable);
        for (sector, bytes) in (offset / SECTOR as u64..).zip(data.as_chunks::<SECTOR>().0) {
            if durable {
                // What is durable now is newer than whatever was volatile here.
                self.volatile.remove(&sector);
                self.durable_sector(sector).copy_from_slice(bytes);
            } else {
                let version: Sector = Box::new(*bytes);
                self.volatile.entry(sector).or_default().push(version);
            }
        }
    }

    /// A write that the power cut met: any of its sectors, or none.
    fn write_on_its_way(&mut self, offset: u64, data: &[u8]) {
        self.lost.on_their_way += 1;
        let some = self.dice.below(3);
        for (sector, bytes) in (offset / SECTOR as u64..).zip(data.as_chunks::<SECTOR>().0) {
            if some == 1 || some == 2 && self.dice.one_in(2) {
                self.durable_sector(sector).copy_from_slice(bytes);
            }
        }
    }

    fn read(&self, offset: u64, into: &mut [u8]) {
        let at = offset as usize;
        into.copy_from_slice(&self.durable[at..at + into.len()]);
        if self.volatile.is_empty() {
            return;
        }
        for (sector, bytes) in (offset / SECTOR as u64..).zip(into.chunks_mut(SECTOR)) {
            if let Some(newest) = self
                .volatile
                .get(&sector)
                .and_then(|versions| versions.last())
            {
                bytes.copy_from_slice(&newest[..bytes.len()]);
            }
        }
    }

    fn flush(&mut self) {
        self.seen.flushes += 1;
        for (sector, versions) in std::mem::take(&mut self.volatile) {
            if let Some(newest) = versions.last() {
                self.durable_sector(sector).copy_from_slice(&newest[..]);
            }
        }
    }

    /// Each volatile sector ends up with one of its versions, or with the durable bytes.
    fn drop_volatile(&mut self) {
        let mut volatile: Vec<_> = std::mem::take(&mut self.volatile).into_iter().collect();
        // In order, so that the seed decides.
        volatile.sort_unstable_by_key(|&(sector, _)| sector);
        let mut keep = false;
        for (sector, versions) in volatile {
            // In runs, so that there are whole lost writes as well as torn ones.
            if self.dice.one_in(6) {
                keep = self.dice.one_in(2);
            }
            self.lost.volatile += 1;
            self.lost.lost += u64::from(!keep);
            let older = self.dice.below(versions.len() as u64) as usize;
            let kept = if keep {
                versions.last()
            } else {
                versions[..older].last()
            };
            if let Some(version) = kept {
                self.durable_sector(sector).copy_from_slice(&version[..]);
            }
        }
    }
}

struct Server {
    medium: Arc<Medium>,
    bytes: u64,
}

impl Server {
    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let file = ino == FILE;
        FileAttr {
            ino,
            size: if file { self.bytes } else { 0 },
            blocks: if file { self.bytes / 512 } else { 0 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if file {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if file { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn inside(&self, offset: u64, len: usize) -> bool {
        offset
            .checked_add(len as u64)
            .is_some_and(|end| end <= self.bytes)
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // A batch of the journal should arrive as one request where the kernel lets it; less is right too.
        let _ = config.set_max_write(1 << 20);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.to_str() {
            Some(NAME) => reply.entry(&TTL, &self.attributes(FILE), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(state) = self.medium.powered() else {
            return reply.error(Errno::EIO);
        };
        let len = u64::from(size).min(self.bytes.saturating_sub(offset)) as usize;
        let mut bytes = vec![0; len];
        if len > 0 {
            state.read(offset, &mut bytes);
        }
        drop(state);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let whole = offset.is_multiple_of(SECTOR as u64) && data.len().is_multiple_of(SECTOR);
        if !whole || !self.inside(offset, data.len()) {
            return reply.error(Errno::EINVAL);
        }
        {
            let mut state = self.medium.lock();
            if state.power == Power::Off {
                state.write_on_its_way(offset, data);
            }
            // Let go in between: a write that arrives with power on is not on its way.
            if state.power == Power::On {
                state.write(offset, data, flags.0 & libc::O_DSYNC != 0);
                return reply.written(data.len() as u32);
            }
        }
        drop(self.medium.powered());
        reply.error(Errno::EIO);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok(); // a close, which makes nothing durable
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.medium.powered() {
            Some(mut state) => {
                state.flush();
                reply.ok();
            }
            None => reply.error(Errno::EIO),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP); // as a plain disk
    }
}
