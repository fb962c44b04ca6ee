//! How the control plane speaks to the shards: the only door of the runtime for threads that are not
//! shards. Its futures run on any executor.
//!
//! What is asked goes into the mailbox of a shard, and the answer comes back through a oneshot
//! channel. A shard never waits for the control plane; a permit a question bounds what can be in a mailbox.

use super::bench::{Measurement, Spec, together};
use super::cluster::Orders;
use super::exports::{Attachments, Export, Exports};
use super::guests::GuestTable;
use super::links::{Cover, Limits, LinkError, LinkId, LinkUser, Peer};
use super::mailbox::{Answer, Ask, Mail, Postbox};
use super::places::Places;
use super::said::{SAID, SaidReceiver};
use crate::base::{DiskId, IoError, MapRun, RequestKind, VolumeId};
use crate::frontend::vhost_user::Handed;
use crate::observe::Registry;
use crate::protocol::membership::Incarnation;
use crate::shard::ShardNo;
use crate::store::Note;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// What a runtime is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Shard threads, 1 to 64.
    pub shards: usize,
    /// The CPU that each shard is pinned to; as many as there are shards.
    pub pin: Option<Vec<usize>>,
    /// Payload memory of all shards together, in bytes. Must hold the stores' overlays and what clients have
    /// in flight; rounded up to whole MiB, at least 64 MiB.
    pub buffer_bytes: u64,
    /// Memory for what peers send, of all shards together, in bytes: each link takes twice what its peer is granted (4 MiB) from its shard's share, and what stores
    /// keep of that until it is applied comes on top. 0: there are no links.
    pub link_bytes: u64,
    /// The bounds of a link.
    pub link_limits: Limits,
    /// Of a node of a cluster: this start of it. `None`: the node is alone, and has no peers.
    pub cluster: Option<Incarnation>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            shards: 1,
            pin: None,
            buffer_bytes: 256 << 20,
            link_bytes: 0,
            link_limits: Limits::USUAL,
            cluster: None,
        }
    }
}

/// Why a disk was not attached to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachError {
    /// The slot has a disk.
    SlotTaken,
    /// The process may not open more files.
    TooManyFiles,
    /// The shards have stopped.
    Stopped,
}

/// Why a listening socket was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenError {
    /// The shard listens on as many sockets as it can (16).
    TooMany,
    Stopped,
}

/// Why nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BenchError {
    /// The volume is not open.
    NoSuchVolume,
    /// One load at a time.
    Busy,
    /// A field of the spec is out of its range.
    Bad {
        field: &'static str,
    },
    /// The payload memory has no room for this depth and block size.
    NoBuffers,
    /// An operation failed.
    Io(IoError),
    Stopped,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AttachError::SlotTaken => "the slot has a disk",
            AttachError::TooManyFiles => "too many files are open: raise RLIMIT_NOFILE",
            AttachError::Stopped => "the shards have stopped",
        })
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ListenError::TooMany => "the shard listens on 16 sockets, which is its limit",
            ListenError::Stopped => "the shards have stopped",
        })
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BenchError::NoSuchVolume => f.write_str("the volume is not open"),
            BenchError::Busy => f.write_str("another bench runs"),
            BenchError::Bad { field } => write!(f, "{field} is out of its range"),
            BenchError::NoBuffers => f.write_str("there is not enough payload memory for it"),
            BenchError::Io(error) => error.fmt(f),
            BenchError::Stopped => f.write_str("the shards have stopped"),
        }
    }
}

impl std::error::Error for AttachError {}
impl std::error::Error for ListenError {}
impl std::error::Error for BenchError {}

/// Questions of the control plane that a shard has at one time. Its mailbox has room for more.
const QUESTIONS: usize = 256;
/// The largest request that is made of one read or write of the control plane, in bytes.
const PIECE: u64 = 1 << 20;

/// How to reach one shard.
#[derive(Debug)]
pub(super) struct Line {
    pub postbox: Postbox,
    pub permits: Semaphore,
    pub orders: Orders,
}

impl Line {
    pub fn new(postbox: Postbox) -> Line {
        Line {
            postbox,
            permits: Semaphore::new(QUESTIONS),
            orders: Orders::default(),
        }
    }
}

/// What all shards and all handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub lines: Vec<Line>,
    pub places: Places,
    pub attachments: Attachments,
    /// The table that was set last.
    pub exports: Mutex<Arc<Exports>>,
    pub guests: GuestTable,
    /// The shards that wait for payload memory, a bit each.
    pub hunger: AtomicU64,
    /// To count what is held.
    #[cfg(test)]
    pub arena: Arc<crate::io::Arena>,
}

/// The runtime as the control plane sees it. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    /// Held by the load that runs.
    bench: Arc<Semaphore>,
}

/// No shard answers any more.
pub(super) struct Silent;

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Handle {
        let bench = Arc::new(Semaphore::new(1));
        Handle { shared, bench }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shared.lines.len()
    }

    /// Sets the exports as a whole. When it returns, every shard negotiates by the new table, and live
    /// clients of a volume whose size changed were told so. A volume that is to be deleted is first
    /// refused here, and then has no new connection: [`Handle::connections`] can be believed.
    pub async fn set_exports(&self, exports: Vec<Export>) {
        let exports = Arc::new(Exports::new(exports));
        let kept = &self.shared.exports;
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&exports);
        let mail = |done| {
            let exports = Arc::clone(&exports);
            Mail::Exports { exports, done }
        };
        // Where the shards have stopped, no client is there to be told.
        let _ = self.ask_shards(&self.all(), mail).await;
        self.shared.guests.set_exports(exports);
    }

    /// What clients see of a volume; `None` where it is no export.
    pub fn export(&self, volume: VolumeId) -> Option<Export> {
        let exports = &self.shared.exports;
        let exports = exports.lock().unwrap_or_else(PoisonError::into_inner);
        exports.by_volume(volume).cloned()
    }

    /// Accepts NBD clients from a listening socket until the runtime stops.
    pub async fn listen(&self, socket: OwnedFd) -> Result<(), ListenError> {
        let mail = |done| Mail::Listen { socket, done };
        let answer = self.ask_shard(ShardNo(0), mail).await;
        answer.unwrap_or(Err(ListenError::Stopped))
    }

    /// Gives a shard a connection to a shard of a peer whose handshake is done, and of which nothing behind it was read but what its cover holds.
    pub async fn link(
        &self,
        shard: ShardNo,
        socket: OwnedFd,
        cover: Option<Box<dyn Cover>>,
        peer: Peer,
    ) -> Result<LinkId, LinkError> {
        let mail = |done| Mail::Link {
            socket,
            cover,
            peer,
            done,
        };
        let answer = self.ask_shard(shard, mail).await;
        answer.unwrap_or(Err(LinkError::Stopped))
    }

    /// Ends a link of a shard; where there is no such one, it has ended.
    pub async fn give_up_link(&self, shard: ShardNo, link: LinkId) {
        // Where the shards have stopped, so have the links.
        let _ = self
            .ask_shard(shard, |done| Mail::GiveUp { link, done })
            .await;
    }

    /// Whether every shard still turns; answered when each has made a turn. False when they have ended.
    pub async fn turn(&self) -> bool {
        let mail = |done| Mail::Turn { done };
        self.ask_shards(&self.all(), mail).await.is_ok()
    }

    /// How many clients are attached to a volume.
    pub fn connections(&self, volume: VolumeId) -> usize {
        self.shared.attachments.count(volume)
    }

    pub async fn read(&self, volume: VolumeId, offset: u64, len: u64) -> Result<Vec<u8>, IoError> {
        let mut whole = Vec::new();
        for (at, piece) in pieces(offset, len) {
            let room = Vec::with_capacity(piece as usize);
            let answer = self.ask(RequestKind::Read, volume, at, piece, room).await?;
            match whole.is_empty() {
                true => whole = answer.data,
                false => whole.extend_from_slice(&answer.data),
            }
        }
        Ok(whole)
    }

    /// Writes `data` durably. Atomic inside each aligned 64 KiB chunk, like every write.
    pub async fn write(
        &self,
        volume: VolumeId,
        offset: u64,
        mut data: Vec<u8>,
    ) -> Result<(), IoError> {
        for (at, piece) in pieces(offset, data.len() as u64) {
            let rest = data.split_off(piece as usize);
            self.ask(RequestKind::Write, volume, at, piece, data)
                .await?;
            data = rest;
        }
        Ok(())
    }

    /// Makes a range read as zeroes.
    pub async fn write_zeroes(
        &self,
        volume: VolumeId,
        offset: u64,
        len: u64,
    ) -> Result<(), IoError> {
        let kind = RequestKind::WriteZeroes;
        self.ask(kind, volume, offset, len, Vec::new()).await?;
        Ok(())
    }

    /// What is allocated in a range: runs that cover it, in order, neighbours of one kind joined.
    pub async fn map(
        &self,
        volume: VolumeId,
        offset: u64,
        len: u64,
    ) -> Result<Vec<MapRun>, IoError> {
        let mut runs: Vec<MapRun> = Vec::new();
        let mut covered = 0;
        while covered < len {
            let (at, left) = (offset + covered, len - covered);
            let kind = RequestKind::Map;
            let answer = self.ask(kind, volume, at, left, Vec::new()).await?;
            let before = covered;
            for mut run in answer.map {
                run.len = run.len.min(len - covered);
                covered += run.len;
                match runs.last_mut() {
                    Some(last) if (last.zero, last.hole) == (run.zero, run.hole) => {
                        last.len += run.len;
                    }
                    _ => runs.push(run),
                }
            }
            if covered == before {
                return Err(IoError::Failed); // a map without runs would be asked for ever
            }
        }
        Ok(runs)
    }

    /// Puts a load on a volume and measures it. Writes over what the volume holds.
    pub async fn bench(&self, spec: Spec) -> Result<Measurement, BenchError> {
        let shards = self.shared.places.shards_of(spec.volume);
        let shards = shards.ok_or(BenchError::NoSuchVolume)?;
        let _running = self.bench.try_acquire().map_err(|_| BenchError::Busy)?;
        let mut shares = spec.shares(shards.len())?.into_iter();
        let shards = &shards[..shares.len()];
        let mail = |done| {
            let share = shares.next().expect("there is a share for each shard");
            Mail::Bench {
                share: Box::new(share),
                done,
            }
        };
        let measured = self.ask_shards(shards, mail).await;
        let measured = measured.map_err(|_| BenchError::Stopped)?;
        let measured: Result<Vec<_>, _> = measured.into_iter().collect();
        Ok(together(&measured?))
    }

    async fn ask(
        &self,
        kind: RequestKind,
        volume: VolumeId,
        offset: u64,
        len: u64,
        data: Vec<u8>,
    ) -> Result<Answer, IoError> {
        let home = self.shared.places.home(volume, offset);
        let shard = home.ok_or(IoError::Closed)?;
        let mail = |done| {
            Mail::Ask(Ask {
                kind,
                volume,
                offset,
                len,
                data,
                done,
            })
        };
        self.ask_shard(shard, mail)
            .await
            .unwrap_or(Err(IoError::Closed))
    }

    pub(super) fn all(&self) -> Vec<ShardNo> {
        (0..self.shards() as u16).map(ShardNo).collect()
    }

    /// Sends one question and waits for its answer.
    pub(super) async fn ask_shard<T>(
        &self,
        shard: ShardNo,
        mail: impl FnOnce(oneshot::Sender<T>) -> Mail,
    ) -> Result<T, Silent> {
        let mut mail = Some(mail);
        let mail = |done| (mail.take().expect("one shard is asked once"))(done);
        let mut answers = self.ask_shards(&[shard], mail).await?;
        answers.pop().ok_or(Silent)
    }

    /// Asks several shards at the same time, and waits for all answers, which come in the order of the shards.
    pub(super) async fn ask_shards<T>(
        &self,
        shards: &[ShardNo],
        mut mail: impl FnMut(oneshot::Sender<T>) -> Mail,
    ) -> Result<Vec<T>, Silent> {
        let mut asked = Vec::with_capacity(shards.len());
        for shard in shards {
            let line = &self.shared.lines[usize::from(shard.0)];
            let permit = line.permits.acquire().await.map_err(|_| Silent)?;
            let (done, answer) = oneshot::channel();
            line.postbox.send(mail(done)).map_err(|_| Silent)?;
            asked.push((permit, answer));
        }
        let mut answers = Vec::with_capacity(shards.len());
        for (_permit, answer) in asked {
            answers.push(answer.await.map_err(|_| Silent)?);
        }
        Ok(answers)
    }
}

/// The parts of a range, at most [`PIECE`] each and cut where a multiple of it lies, so that a
/// chunk is never split.
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let piece = (PIECE - at % PIECE).min(end - at);
            at += piece;
            (at - piece, piece)
        })
    })
}

/// Notes of the stores that may wait for the control plane; more are counted and dropped.
const NOTES: usize = 4096;

/// What stores had to say, for the control plane to log and to raise alerts by.
pub type Notes = mpsc::Receiver<(DiskId, Note)>;

/// The running shards.
#[derive(Debug)]
pub struct Runtime {
    handle: Handle,
    threads: Vec<super::start::Thread>,
    notes: Option<Notes>,
    pub(super) said: Option<SaidReceiver>,
}

impl Runtime {
    /// Starts the shard threads. Fails where the kernel has not what is needed, and says what that is.
    pub fn start(config: Config, registry: Arc<Registry>) -> std::io::Result<Runtime> {
        Runtime::start_as(config, registry, |_| None)
    }

    /// The same, with somebody on each shard who gets what comes of its links in place of the shard's machine: for tests and benches of links.
    pub fn start_with(
        config: Config,
        registry: Arc<Registry>,
        mut user: impl FnMut(ShardNo) -> Box<dyn LinkUser>,
    ) -> std::io::Result<Runtime> {
        Runtime::start_as(config, registry, |shard| Some(user(shard)))
    }

    fn start_as(
        config: Config,
        registry: Arc<Registry>,
        user: impl FnMut(ShardNo) -> Option<Box<dyn LinkUser>>,
    ) -> std::io::Result<Runtime> {
        let (said_in, said) = mpsc::channel(SAID);
        let (notes_in, notes) = mpsc::channel(NOTES);
        let (shared, threads) = super::start::start(&config, registry, (notes_in, said_in), user)?;
        Ok(Runtime {
            handle: Handle::new(shared),
            threads,
            notes: Some(notes),
            said: Some(said),
        })
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The notes of all stores; `None` where they were taken already.
    pub fn notes(&mut self) -> Option<Notes> {
        self.notes.take()
    }

    /// Ends the shard threads. What is not closed by `Control::Close` before is cut off as by a crash, which
    /// loses no acknowledged write but costs the next start a replay. What is returned are the connections that
    /// [`Handle::hand_over_guests`] made ready; dropping them closes them.
    pub fn stop(self) -> Vec<Handed<OwnedFd>> {
        self.handle.shared.guests.stop();
        for line in &self.handle.shared.lines {
            line.permits.close();
            line.postbox.stop();
        }
        for thread in self.threads {
            // A shard that panics aborts the process, so there is no panic to pass on. This closes the shard's ring.
            let _ = thread.join();
        }
        self.handle.shared.guests.join()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_multiples_of_the_piece_and_covered_once() {
        let cut: Vec<_> = pieces(PIECE - 512, 2 * PIECE).collect();
        assert_eq!(
            cut,
            [(PIECE - 512, 512), (PIECE, PIECE), (2 * PIECE, PIECE - 512)]
        );
        assert_eq!(pieces(7, 0).count(), 0);
    }
}
