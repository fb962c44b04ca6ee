//! Load from several connections, each with several requests in flight, over all kinds of writes, on ranges that
//! overlap; every answer goes into the model.

use super::model::{Effect, Model, Reading};
use super::nbd::{
    CAN_MULTI_CONN, Connection, FLAG_FUA, FLAG_NO_HOLE, Receiver, Replies, Sender, Verb,
};
use super::sector::{self, SECTOR, WriteNo};
use super::{Step, ensure};
use sarsen::base::{CHUNK, Prng};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PER_CHUNK: u64 = CHUNK / SECTOR as u64;
const PER_BLOCK: u64 = 8;

/// How much at once.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub connections: usize,
    pub depth: usize,
}

/// What has been done so far.
#[derive(Default)]
pub struct Counts {
    pub acknowledged: AtomicU64,
    pub reads: AtomicU64,
    pub trims_in_flight: AtomicU64,
    stop: AtomicBool,
    failures: Mutex<Vec<String>>,
}

impl Counts {
    fn fail(&self, why: String) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(why);
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A load that runs.
pub struct Load {
    pub counts: Arc<Counts>,
    flights: Vec<Arc<Flight>>,
    threads: Vec<JoinHandle<()>>,
}

/// What one connection has in flight.
#[derive(Default)]
struct Flight {
    pending: Mutex<BTreeMap<u64, Pending>>,
    changed: Condvar,
    /// The latest of what was answered; requests are numbered as they are sent.
    latest: AtomicU64,
    /// The server has closed: nothing more will be answered.
    closed: AtomicBool,
}

enum Pending {
    Flush,
    Write(WriteNo, Verb),
    Read(Reading, u64, u32),
}

type SharedModel = Arc<Mutex<Model>>;

impl Load {
    pub fn start(
        socket: &Path,
        volume: &str,
        model: &SharedModel,
        shape: Shape,
        seed: u64,
    ) -> Step<Load> {
        let mut load = Load {
            counts: Arc::default(),
            flights: Vec::new(),
            threads: Vec::new(),
        };
        for number in 0..shape.connections {
            // Both kinds of reply are used.
            let replies = if number % 2 == 0 {
                Replies::Structured
            } else {
                Replies::Simple
            };
            let connection = Connection::open(socket, volume, replies)?;
            ensure!(
                connection.flags & CAN_MULTI_CONN != 0,
                "multi-conn is not advertised"
            );
            let (sender, receiver) = connection.split()?;
            let flight = Arc::new(Flight::default());
            load.flights.push(Arc::clone(&flight));
            let side = Side {
                model: Arc::clone(model),
                counts: Arc::clone(&load.counts),
                flight,
            };
            let dice = Prng::new(seed.wrapping_mul(31).wrapping_add(number as u64));
            let other = side.clone();
            load.threads.push(std::thread::spawn(move || {
                side.send(sender, dice, shape.depth)
            }));
            load.threads
                .push(std::thread::spawn(move || other.receive(receiver)));
        }
        Ok(load)
    }

    pub fn acknowledged(&self) -> u64 {
        self.counts.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether something is wrong already.
    pub fn has_failed(&self) -> bool {
        self.counts.stop.load(Ordering::Relaxed)
    }

    /// How many requests were answered before one that is in flight still and was sent first.
    pub fn overtaken(&self) -> u64 {
        self.flights.iter().map(|flight| flight.overtaken()).sum()
    }

    /// Waits until so many writes are acknowledged.
    pub fn reach(&self, acknowledged: u64, within: Duration) -> Step<()> {
        let begun = Instant::now();
        while self.acknowledged() < acknowledged && !self.has_failed() {
            let so_far = self.acknowledged();
            ensure!(
                begun.elapsed() < within,
                "only {so_far} of {acknowledged} writes acknowledged in {within:?}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Ends it with everything answered.
    pub fn finish(self) -> Step<()> {
        self.counts.stop.store(true, Ordering::Relaxed);
        self.flights
            .iter()
            .for_each(|flight| flight.changed.notify_all());
        let left = self.after_kill()?;
        ensure!(left == 0, "{left} writes were never answered");
        Ok(())
    }

    /// Joins it when the daemon is gone: how many writes were in flight.
    pub fn after_kill(self) -> Step<u64> {
        for thread in self.threads {
            thread.join().map_err(|_| "a thread of the load panicked")?;
        }
        let failures = self
            .counts
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let first = failures.first().cloned().unwrap_or_default();
        ensure!(
            failures.is_empty(),
            "{} things went wrong under load: {first}",
            failures.len()
        );
        let writes = |flight: &Arc<Flight>| {
            let pending = flight.pending();
            pending
                .values()
                .filter(|pending| matches!(pending, Pending::Write(..)))
                .count() as u64
        };
        Ok(self.flights.iter().map(writes).sum())
    }
}

impl Flight {
    fn pending(&self) -> MutexGuard<'_, BTreeMap<u64, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn overtaken(&self) -> u64 {
        let pending = self.pending();
        let latest = self.latest.load(Ordering::Relaxed);
        let first = pending.keys().next().copied().unwrap_or(latest + 1);
        let since = (latest + 1).saturating_sub(first);
        since - pending.range(first..first + since).count() as u64
    }
}

/// What the two threads of a connection share.
#[derive(Clone)]
struct Side {
    model: SharedModel,
    counts: Arc<Counts>,
    flight: Arc<Flight>,
}

impl Side {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, mut sender: Sender, mut dice: Prng, depth: usize) {
        let mut payload = Vec::new();
        for cookie in 1.. {
            let mut pending = self.flight.pending();
            while pending.len() >= depth && !self.ends() {
                let waited = self
                    .flight
                    .changed
                    .wait_timeout(pending, Duration::from_millis(50));
                pending = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            drop(pending);
            if self.ends() {
                return sender.finish();
            }
            if self
                .send_one(&mut sender, &mut dice, cookie, &mut payload)
                .is_err()
            {
                return; // the daemon is gone; the receiver has seen it too
            }
        }
    }

    fn send_one(
        &self,
        sender: &mut Sender,
        dice: &mut Prng,
        cookie: u64,
        payload: &mut Vec<u8>,
    ) -> std::io::Result<()> {
        let sectors = self.model().sectors();
        let what = draw(dice, sectors);
        let (offset, len) = (
            what.first * SECTOR as u64,
            (what.count * SECTOR as u64) as u32,
        );
        payload.clear();
        match what.effect {
            None if what.verb == Verb::Flush => {
                self.flight.pending().insert(cookie, Pending::Flush);
                return sender.send((what.verb, 0), cookie, 0, 0, &[]);
            }
            None => {
                let reading = self.model().submit_read(what.first, what.count);
                let pending = Pending::Read(reading, offset, len);
                self.flight.pending().insert(cookie, pending);
            }
            Some(effect) => {
                let write = self.model().submit(what.first, what.count, effect);
                if what.verb == Verb::Write {
                    payload.resize(len as usize, 0);
                    sector::fill(payload, what.first, write);
                }
                if what.verb == Verb::Trim {
                    self.counts.trims_in_flight.fetch_add(1, Ordering::Relaxed);
                }
                self.flight
                    .pending()
                    .insert(cookie, Pending::Write(write, what.verb));
            }
        }
        sender.send((what.verb, what.flags), cookie, offset, len, payload)
    }

    /// Whether nothing more is to be sent.
    fn ends(&self) -> bool {
        let closed = self.flight.closed.load(Ordering::Relaxed);
        closed || self.counts.stop.load(Ordering::Relaxed)
    }

    fn receive(&self, receiver: Receiver) {
        self.receive_all(receiver);
        self.flight.closed.store(true, Ordering::Relaxed);
        self.flight.changed.notify_all();
    }

    fn receive_all(&self, mut receiver: Receiver) {
        loop {
            let want = |cookie| match self.flight.pending().get(&cookie) {
                Some(Pending::Read(_, offset, len)) => Some((*offset, *len)),
                _ => None,
            };
            let reply = match receiver.receive(want) {
                Ok(reply) => reply,
                // An end of the stream is the kill, or the end that was asked for; nonsense is neither.
                Err(error) if error.is::<std::io::Error>() => return,
                Err(error) => return self.counts.fail(error.to_string()),
            };
            let Some(pending) = self.flight.pending().remove(&reply.cookie) else {
                return self
                    .counts
                    .fail(format!("an answer to no request: {}", reply.cookie));
            };
            self.flight
                .latest
                .fetch_max(reply.cookie, Ordering::Relaxed);
            match pending {
                _ if reply.error != 0 => {
                    if let Pending::Write(write, _) = pending {
                        self.model().refuse(write);
                    }
                    self.counts
                        .fail(format!("a request was answered with error {}", reply.error));
                }
                // Everything acknowledged is durable anyway.
                Pending::Flush => {}
                Pending::Write(write, verb) => {
                    self.model().acknowledge(write);
                    self.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                    if verb == Verb::Trim {
                        self.counts.trims_in_flight.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                Pending::Read(reading, ..) => {
                    let checked = self.model().check_read(&reading, &reply.data);
                    if let Err(why) = checked {
                        self.counts.fail(why);
                    }
                    self.counts.reads.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.flight.changed.notify_one();
        }
    }
}

/// A request to be.
struct What {
    verb: Verb,
    flags: u16,
    first: u64,
    count: u64,
    effect: Option<Effect>,
}

/// One request of the mix. Half of them go to a sixteenth of the volume, so that they meet.
fn draw(dice: &mut Prng, sectors: u64) -> What {
    let area = if dice.one_in(2) {
        sectors
    } else {
        sectors / 16
    };
    let chunk = dice.below(area / PER_CHUNK) * PER_CHUNK;
    let block = dice.below(area / PER_BLOCK) * PER_BLOCK;
    let fua = if dice.one_in(8) { FLAG_FUA } else { 0 };
    let data = |first: u64, count: u64| What {
        verb: Verb::Write,
        flags: fua,
        first,
        count: count.min(sectors - first),
        effect: Some(Effect::Data),
    };
    match dice.below(100) {
        0..45 => data(block, PER_BLOCK),
        45..60 => data(block + dice.below(PER_BLOCK), 1 + dice.below(7)),
        60..70 => {
            // Part of a chunk.
            let from = dice.below(PER_CHUNK / PER_BLOCK - 2) * PER_BLOCK;
            data(chunk + from, (1 + dice.below(7)) * PER_BLOCK)
        }
        70..77 => data(chunk, PER_CHUNK),
        77..79 => data(block, 2048),
        79..85 => {
            let count = (1 + dice.below(4)) * PER_CHUNK;
            let count = count.min(sectors - chunk);
            let effect = Some(Effect::Zeroes);
            What {
                verb: Verb::Trim,
                flags: fua,
                first: chunk,
                count,
                effect,
            }
        }
        85..86 => {
            let count = (1 + dice.below(3 * PER_CHUNK)).min(sectors - block);
            let effect = Some(Effect::PerhapsZeroes);
            What {
                verb: Verb::Trim,
                flags: fua,
                first: block,
                count,
                effect,
            }
        }
        86..91 => {
            let first = block + dice.below(PER_BLOCK);
            let count = (1 + dice.below(256)).min(sectors - first);
            let flags = fua | if dice.one_in(2) { FLAG_NO_HOLE } else { 0 };
            let effect = Some(Effect::Zeroes);
            What {
                verb: Verb::WriteZeroes,
                flags,
                first,
                count,
                effect,
            }
        }
        91..93 => What {
            verb: Verb::Flush,
            flags: 0,
            first: 0,
            count: 0,
            effect: None,
        },
        _ => {
            let count = (1 + dice.below(64)).min(sectors - block);
            What {
                verb: Verb::Read,
                flags: 0,
                first: block,
                count,
                effect: None,
            }
        }
    }
}

/// Reads the whole volume, checks it against the model, and takes it as what is there.
pub fn verify(socket: &Path, volume: &str, model: &SharedModel) -> Step<super::model::Verified> {
    let mut connection = Connection::open(socket, volume, Replies::Structured)?;
    let mut model = model.lock().unwrap_or_else(PoisonError::into_inner);
    let verified = model.verify(|first, count| {
        let len = (count * SECTOR as u64) as u32;
        let read = connection.read(first * SECTOR as u64, len)?;
        read.map_err(|error| format!("sectors from {first} on: error {error}").into())
    })?;
    connection.close()?;
    Ok(verified)
}
