//! The serving side: a listener, and what is done for each connection behind its handshake.
//!
//! ```text
//!   listener ──► handshake, 5 s ──► calls: reader ──► slot and bytes free? ──► handler, a task ──► queue ──► writer
//!                              └──► link: handed out
//! ```
//!
//! A handler's future is dropped when the caller cancels, its time runs out, or the connection ends: what has to be finished all the same, it spawns.

use super::accept::{Guest, greet, turn_away, welcome};
use super::conduit::{Conduit, Duplex, drain};
use super::frame::{BODY_MAX, Kind, Why, text, words};
use super::hello::{NotWelcome, Purpose, Reason};
use super::limits::Limits;
use super::link::End as LinkEnd;
use super::node::{Caller, Handler, Shared, lock};
use super::service::{Class, Service};
use super::stream::{self, End, Out};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// How long a listener waits after it could not accept: there are no descriptors left, and some come back.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Connections of those who have no certificate: they ask to join, one call at a time, briefly and for not long. They take no place of a node.
const STRANGERS_MAX: usize = 16;
const STRANGER_BODY_MAX: usize = 64 << 10;
const STRANGER_TIME: Duration = Duration::from_secs(60);
/// Bytes that one permit stands for.
pub(super) const UNIT: usize = 1 << 10;

pub(super) fn units(len: usize) -> u32 {
    len.div_ceil(UNIT) as u32
}

/// Accepts until it is dropped; then every connection ends.
pub(super) async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    let handshakes = Arc::new(Semaphore::new(shared.limits.handshakes_max));
    let connections = Arc::new(Semaphore::new(shared.limits.connections_max));
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let (socket, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("no connection could be accepted: {error}");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        shared.counters.count(|counts| counts.accepted += 1);
        let Ok(handshake) = handshakes.clone().try_acquire_owned() else {
            refuse_at_once(&shared, &socket, from);
            continue;
        };
        let (shared, connections) = (shared.clone(), connections.clone());
        let strangers = strangers.clone();
        tasks.spawn(async move {
            let guest = greet(&shared, socket, from).await;
            if let Some(guest) = guest {
                let places = match guest.node {
                    Some(_) => connections,
                    None => strangers,
                };
                let connection = places.try_acquire_owned().ok();
                attend(shared, guest, from, handshake, connection).await;
            }
        });
    }
}

/// Bulk calls of one connection that are worked on at once. Each may be asked and answered in as many bytes as a call carries, so that more of them could
/// fill the memory with answers; and where the bytes of requests were what is waited for, the caller's beats would stand behind a body that nobody reads.
fn bulk_in_progress_max(limits: &Limits) -> u32 {
    let whole = limits.bytes_max.max(BODY_MAX) / BODY_MAX;
    limits.in_progress_max.min(whole as u32)
}

/// There is no room to be polite.
fn refuse_at_once(shared: &Shared, socket: &TcpStream, from: SocketAddr) {
    let refusal = NotWelcome {
        reason: Reason::Busy,
        words: "too many connections are in their handshake here; it is tried again by itself"
            .into(),
    };
    // It fits into an empty socket, or the other side sees that the connection is closed.
    socket.try_write(&refusal.encode()).ok();
    shared.counters.turned(from, &refusal.words, |counts| {
        *counts.refused.entry(Reason::Busy).or_default() += 1;
    });
}

async fn attend(
    shared: Arc<Shared>,
    guest: Guest,
    from: SocketAddr,
    handshake: OwnedSemaphorePermit,
    connection: Option<OwnedSemaphorePermit>,
) {
    let Guest {
        mut conduit,
        node,
        purpose,
        version,
    } = guest;
    let busy = |words: &str| NotWelcome {
        reason: Reason::Busy,
        words: words.into(),
    };
    if connection.is_none() {
        let refusal =
            busy("this node has as many connections as it takes; it is tried again by itself");
        return turn_away(&shared, conduit, from, refusal).await;
    }
    let links = match purpose {
        Purpose::Link(_) => match shared.links().map(|links| links.try_reserve_owned()) {
            Some(Ok(place)) => Some(place),
            Some(Err(mpsc::error::TrySendError::Full(_))) => {
                let refusal = busy("too many new links wait for their shards here");
                return turn_away(&shared, conduit, from, refusal).await;
            }
            _ => {
                let refusal = NotWelcome {
                    reason: Reason::NotServed,
                    words: "this node takes no data links".into(),
                };
                return turn_away(&shared, conduit, from, refusal).await;
            }
        },
        _ => None,
    };
    let in_progress_max = match (node, purpose) {
        (None, _) => 1,
        (_, Purpose::Calls(Class::Bulk)) => bulk_in_progress_max(&shared.limits),
        _ => shared.limits.in_progress_max,
    };
    let bytes = welcome(&shared, version, in_progress_max);
    let welcomed = timeout(shared.limits.handshake, conduit.write_all(&bytes)).await;
    match welcomed {
        Ok(Ok(())) => {}
        // He hung up, or reads nothing: nobody is left to tell.
        _ => return,
    }
    shared.counters.count(|counts| counts.welcomed += 1);
    drop(handshake);
    match (conduit, purpose, node, links) {
        (Conduit::Link(tunnel), Purpose::Link(shard), Some(peer), Some(place)) => {
            match tunnel.into_link(peer, shard, version, LinkEnd::Accepted, from) {
                Ok(link) => drop(place.send(link)),
                Err(error) => tracing::warn!(%from, "a link is lost: {error}"),
            }
        }
        (conduit, ..) => {
            let Some(stream) = conduit.into_duplex() else {
                return;
            };
            let address = from;
            let serving = serve(shared, stream, Caller { node, address }, in_progress_max);
            match node {
                Some(_) => serving.await,
                None => drop(timeout(STRANGER_TIME, serving).await),
            }
        }
    }
}

/// Serves calls until the connection ends.
async fn serve(shared: Arc<Shared>, stream: Box<dyn Duplex>, caller: Caller, in_progress_max: u32) {
    let (mut reader, mut writer) = stream::split(stream);
    // Everything in the queue holds a slot, so it is never full.
    let (out, mut queue) = mpsc::channel(in_progress_max as usize + 1);
    let mut desk = Desk {
        slots: Arc::new(Semaphore::new(in_progress_max as usize)),
        bytes: Arc::new(Semaphore::new(shared.limits.bytes_max.max(BODY_MAX) / UNIT)),
        running: Arc::default(),
        tasks: JoinSet::new(),
        out,
        caller,
        shared: shared.clone(),
    };
    let end = tokio::select! {
        end = desk.read(&mut reader) => end,
        end = stream::write_all(&mut writer, &mut queue, &shared.limits) => end,
    };
    drop(desk);
    let why = end.why();
    let from = caller.address;
    match &end {
        End::Broken(_) => shared
            .counters
            .turned(from, &why, |counts| counts.broken += 1),
        End::Silent(_) => shared
            .counters
            .turned(from, &why, |counts| counts.silent += 1),
        End::Expelled(_) => shared.counters.turned(from, &why, |counts| {
            *counts.refused.entry(Reason::Identity).or_default() += 1;
        }),
        End::Lost(_) | End::Done => {
            tracing::debug!(%from, node = ?caller.node, "a connection ended: {why}");
        }
    }
    if matches!(end, End::Broken(_) | End::Silent(_) | End::Expelled(_)) {
        stream::say_goodbye(&mut writer, &why, &shared.limits).await;
        // Bytes that are not read would reset the connection, and the goodbye be lost.
        drain(reader).await;
    }
}

/// What one connection has under way.
struct Desk {
    shared: Arc<Shared>,
    caller: Caller,
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// By their numbers, to be cancelled. As many as there are slots.
    running: Arc<Mutex<BTreeMap<u64, AbortHandle>>>,
    tasks: JoinSet<()>,
    out: mpsc::Sender<Out>,
}

impl Desk {
    async fn read(&mut self, reader: &mut stream::Reader) -> End {
        loop {
            if let Err(end) = self.read_one(reader).await {
                return end;
            }
        }
    }

    async fn read_one(&mut self, reader: &mut stream::Reader) -> Result<(), End> {
        while self.tasks.try_join_next().is_some() {}
        let limits = &self.shared.limits;
        let head = stream::read_head(reader, limits).await?;
        match head.kind {
            Kind::Ask { .. } | Kind::Tell { .. }
                if self.caller.node.is_none() && head.len > STRANGER_BODY_MAX =>
            {
                let len = head.len;
                Err(End::Broken(format!(
                    "{len} bytes are more than one may send who is not a node"
                )))
            }
            Kind::Ask { .. } | Kind::Tell { .. } => {
                // Back-pressure: nothing more is read until there is room.
                let held = self.room_for(head.len).await;
                let body = stream::read_body(reader, &head, limits).await?;
                self.take(head.kind, body, held)
            }
            Kind::Cancel { number } => {
                if let Some(task) = lock(&self.running).remove(&number) {
                    task.abort();
                }
                Ok(())
            }
            Kind::Beat => Ok(()),
            Kind::Bye => {
                let body = stream::read_body(reader, &head, limits).await?;
                let why = text(&body);
                Err(End::Lost(format!("the other side said goodbye: {why}")))
            }
            Kind::Answer { .. } | Kind::Refuse { .. } => {
                Err(End::Broken("an answer came where nothing was asked".into()))
            }
        }
    }

    async fn room_for(&self, len: usize) -> Vec<OwnedSemaphorePermit> {
        let mut held = Vec::with_capacity(2);
        held.extend(self.slots.clone().acquire_owned().await);
        let bytes = self.bytes.clone().acquire_many_owned(units(len)).await;
        held.extend(bytes);
        held
    }

    /// Starts what was asked.
    fn take(
        &mut self,
        kind: Kind,
        body: Vec<u8>,
        held: Vec<OwnedSemaphorePermit>,
    ) -> Result<(), End> {
        let (service, number, within) = match kind {
            Kind::Ask {
                service,
                number,
                within_ms,
            } => (
                service,
                Some(number),
                Duration::from_millis(within_ms.into()),
            ),
            Kind::Tell { service } => (service, None, self.shared.limits.stall),
            _ => return Ok(()),
        };
        if let Some(node) = self.caller.node {
            self.shared.admits(node).map_err(End::Expelled)?;
        }
        if number.is_some_and(|number| lock(&self.running).contains_key(&number)) {
            return Err(End::Broken("a call's number was used twice".into()));
        }
        let reply = Reply {
            number,
            held,
            out: self.out.clone(),
            running: self.running.clone(),
        };
        let known = Service::of(service);
        let handler = match (known, self.caller.node) {
            (Some(Service::Join), _) => self.shared.handler(Service::Join),
            (_, None) => {
                reply.refuse(
                    Why::Refused,
                    "only a node is served; join the cluster first",
                );
                return Ok(());
            }
            (Some(known), _) => self.shared.handler(known),
            (None, _) => None,
        };
        let Some(handler) = handler else {
            self.shared.counters.count(|counts| counts.unsupported += 1);
            reply.refuse(Why::Unsupported, "");
            return Ok(());
        };
        self.shared.counters.count(|counts| counts.calls += 1);
        let within = within.min(self.shared.limits.within_max);
        // Locked until the task stands there, so that it cannot end before.
        let mut running = lock(&self.running);
        let task = work(handler, self.caller, body, within, reply);
        let task = self.tasks.spawn(task);
        if let Some(number) = number {
            running.insert(number, task);
        }
        Ok(())
    }
}

async fn work(handler: Handler, caller: Caller, body: Vec<u8>, within: Duration, reply: Reply) {
    match timeout(within, handler(caller, body)).await {
        Ok(Ok(answer)) => reply.answer(answer),
        Ok(Err(why)) => reply.refuse(Why::Refused, &why),
        Err(_) => reply.refuse(Why::TimedOut, "the time was over"),
    }
}

/// The obligation to answer. A handler that panics answers so too: its caller is not to wait for the end of its time.
struct Reply {
    /// `None`: nobody waits.
    number: Option<u64>,
    held: Vec<OwnedSemaphorePermit>,
    out: mpsc::Sender<Out>,
    running: Arc<Mutex<BTreeMap<u64, AbortHandle>>>,
}

impl Reply {
    fn answer(self, body: Vec<u8>) {
        if body.len() > BODY_MAX {
            let why = format!("the answer has {} bytes", body.len());
            return self.refuse(Why::TooLarge, &why);
        }
        if let Some(number) = self.number {
            self.send(Kind::Answer { number }, body);
        }
    }

    fn refuse(self, why: Why, text: &str) {
        match self.number {
            Some(number) => self.send(Kind::Refuse { number, why }, words(text)),
            None => tracing::debug!("what was told is refused: {why:?} {text}"),
        }
    }

    fn send(mut self, kind: Kind, body: Vec<u8>) {
        let mut out = Out::of(kind, body);
        out.held = std::mem::take(&mut self.held);
        // There is a place for each slot; a connection that ended has no use for it.
        self.out.try_send(out).ok();
        self.done();
    }

    fn done(&mut self) {
        if let Some(number) = self.number.take() {
            lock(&self.running).remove(&number);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(number) = self.number.filter(|_| std::thread::panicking()) {
            let why = Why::Failed;
            let mut out = Out::of(Kind::Refuse { number, why }, words("the handler failed"));
            out.held = std::mem::take(&mut self.held);
            self.out.try_send(out).ok();
        }
        self.done();
    }
}
