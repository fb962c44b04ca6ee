//! The asking side of one connection: calls by number, and who waits for each.

use super::conduit::{Conduit, Duplex};
use super::error::CallError;
use super::frame::{BODY_MAX, Kind, Why, text};
use super::hello::Welcome;
use super::limits::Limits;
use super::node::lock;
use super::serve::units;
use super::service::Service;
use super::stream::{self, End, Out};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

/// Frames that wait to be written.
const QUEUE: usize = 1024;
/// Bytes of requests that wait to be written.
pub(super) const WAITING_BYTES_MAX: usize = 16 << 20;
/// Calls that are under way or wait for their turn, of one connection.
const CALLS_MAX: usize = 4096;

type Answer = Result<Vec<u8>, CallError>;

/// Who waits for an answer.
struct Pending {
    /// At most [`CALLS_MAX`].
    calls: BTreeMap<u64, (Service, oneshot::Sender<Answer>)>,
    next: u64,
    ended: Option<String>,
}

/// A connection that is up, or was.
pub(super) struct Connection {
    pending: Arc<Mutex<Pending>>,
    out: mpsc::Sender<Out>,
    /// How many calls the other side works on at once: more wait here, each within its own time, and not in the other side's socket.
    slots: Arc<Semaphore>,
    /// Of [`CALLS_MAX`].
    places: Semaphore,
    bytes: Arc<Semaphore>,
    pub address: SocketAddr,
    pub since: Instant,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The end of a connection's task, however it ends.
struct Finishing {
    pending: Arc<Mutex<Pending>>,
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Drop for Finishing {
    fn drop(&mut self) {
        finish(&self.pending, "the runtime that worked it has ended");
        self.slots.close();
        self.bytes.close();
    }
}

/// Forgets a call that nobody waits for any more, and has the other side forget it too.
struct Waiting<'a> {
    connection: &'a Connection,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Waiting { connection, number } = *self;
        if lock(&connection.pending).calls.remove(&number).is_some() {
            // Where the queue is full the other side answers in vain.
            let cancel = Out::of(Kind::Cancel { number }, Vec::new());
            connection.out.try_send(cancel).ok();
        }
    }
}

impl Connection {
    /// Takes over a connection that is through its handshake. `None`: it is a link's.
    pub fn start(
        conduit: Conduit,
        welcome: &Welcome,
        address: SocketAddr,
        limits: &Limits,
    ) -> Option<Connection> {
        let stream = conduit.into_duplex()?;
        let (out, queue) = mpsc::channel(QUEUE);
        let pending = Arc::new(Mutex::new(Pending {
            calls: BTreeMap::new(),
            next: 1,
            ended: None,
        }));
        let slots = (welcome.in_progress_max as usize).min(CALLS_MAX);
        let slots = Arc::new(Semaphore::new(slots));
        let bytes = Arc::new(Semaphore::new(units(WAITING_BYTES_MAX) as usize));
        let task = {
            let (pending, limits) = (pending.clone(), limits.clone());
            let (slots, bytes) = (slots.clone(), bytes.clone());
            tokio::spawn(async move {
                // Also where the runtime ends that it was dialled on: who calls from another one would wait for nothing.
                let _finishing = Finishing {
                    pending: pending.clone(),
                    slots,
                    bytes,
                };
                let end = run(stream, queue, &pending, &limits).await;
                finish(&pending, &format!("{address}: {}", end.why()));
                tracing::debug!(%address, "a connection ended: {}", end.why());
            })
        };
        Some(Connection {
            pending,
            out,
            slots,
            places: Semaphore::new(CALLS_MAX),
            bytes,
            address,
            since: Instant::now(),
            task: task.abort_handle(),
        })
    }

    /// Why it is over; `None` while it is not.
    pub fn ended(&self) -> Option<String> {
        lock(&self.pending).ended.clone()
    }

    /// Ends it; every call on it fails.
    pub fn cut(&self, why: &str) {
        finish(&self.pending, why);
        self.slots.close();
        self.bytes.close();
        self.task.abort();
    }

    fn lost(&self) -> CallError {
        let why = self.ended();
        CallError::unreachable(why.unwrap_or_else(|| "the connection ended".into()))
    }

    /// Asks, and waits for the answer.
    pub async fn call(&self, service: Service, body: Vec<u8>, within: Duration) -> Answer {
        if body.len() > BODY_MAX {
            return Err(CallError::TooLarge { len: body.len() });
        }
        let deadline = Instant::now() + within;
        match timeout_at(deadline, self.ask(service, body, deadline)).await {
            // The other side's clock may run out first.
            Ok(Err(CallError::TimedOut { .. })) | Err(_) => Err(CallError::TimedOut { within }),
            Ok(answer) => answer,
        }
    }

    async fn ask(&self, service: Service, body: Vec<u8>, deadline: Instant) -> Answer {
        let busy = |_| CallError::Busy {
            why: "too many calls to that node are under way",
        };
        let _place = self.places.try_acquire().map_err(busy)?;
        let _slot = self.slots.acquire().await.map_err(|_| self.lost())?;
        let bytes = self.bytes.clone().acquire_many_owned(units(body.len()));
        let bytes = bytes.await.map_err(|_| self.lost())?;
        let place = self.out.reserve().await.map_err(|_| self.lost())?;
        let (sender, answer) = oneshot::channel();
        let number = self.register(service, sender)?;
        let _waiting = Waiting {
            connection: self,
            number,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let ask = Kind::Ask {
            service: service as u16,
            number,
            within_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        };
        let mut out = Out::of(ask, body);
        out.held.push(bytes);
        place.send(out);
        answer.await.unwrap_or_else(|_| Err(self.lost()))
    }

    fn register(
        &self,
        service: Service,
        sender: oneshot::Sender<Answer>,
    ) -> Result<u64, CallError> {
        let mut pending = lock(&self.pending);
        if let Some(why) = &pending.ended {
            return Err(CallError::unreachable(why.clone()));
        }
        debug_assert!(pending.calls.len() < CALLS_MAX, "each call has a slot");
        let number = pending.next;
        pending.next += 1;
        pending.calls.insert(number, (service, sender));
        Ok(number)
    }

    /// Says something that nobody answers. It arrives once or not at all.
    pub fn tell(&self, service: Service, body: Vec<u8>) -> Result<(), CallError> {
        if body.len() > BODY_MAX {
            return Err(CallError::TooLarge { len: body.len() });
        }
        if let Some(why) = self.ended() {
            return Err(CallError::unreachable(why));
        }
        const BUSY: CallError = CallError::Busy {
            why: "too much waits to be sent to that node",
        };
        let bytes = self.bytes.clone().try_acquire_many_owned(units(body.len()));
        let mut out = Out::of(
            Kind::Tell {
                service: service as u16,
            },
            body,
        );
        out.held.push(bytes.map_err(|_| BUSY)?);
        self.out.try_send(out).map_err(|_| BUSY)
    }
}

/// Every call fails, and none can be begun.
fn finish(pending: &Mutex<Pending>, why: &str) {
    let calls = {
        let mut pending = lock(pending);
        pending.ended.get_or_insert_with(|| why.to_owned());
        std::mem::take(&mut pending.calls)
    };
    for (_, (_, waiting)) in calls {
        waiting.send(Err(CallError::unreachable(why))).ok();
    }
}

async fn run(
    stream: Box<dyn Duplex>,
    mut queue: mpsc::Receiver<Out>,
    pending: &Mutex<Pending>,
    limits: &Limits,
) -> End {
    let (mut reader, mut writer) = stream::split(stream);
    let end = tokio::select! {
        end = read_all(&mut reader, pending, limits) => end,
        end = stream::write_all(&mut writer, &mut queue, limits) => end,
    };
    if matches!(end, End::Broken(_) | End::Silent(_)) {
        // Before the goodbye, which may take its time.
        finish(pending, &end.why());
        // And whoever waits for a place in the queue, or for what is held by what is in it.
        drop(queue);
        stream::say_goodbye(&mut writer, &end.why(), limits).await;
    }
    end
}

async fn read_all(reader: &mut stream::Reader, pending: &Mutex<Pending>, limits: &Limits) -> End {
    loop {
        if let Err(end) = read_one(reader, pending, limits).await {
            return end;
        }
    }
}

async fn read_one(
    reader: &mut stream::Reader,
    pending: &Mutex<Pending>,
    limits: &Limits,
) -> Result<(), End> {
    let head = stream::read_head(reader, limits).await?;
    let body = stream::read_body(reader, &head, limits).await?;
    // What nobody waits for was cancelled here while it was on its way.
    let waiting = |number| lock(pending).calls.remove(&number);
    match head.kind {
        Kind::Answer { number } => {
            if let Some((_, waiting)) = waiting(number) {
                waiting.send(Ok(body)).ok();
            }
            Ok(())
        }
        Kind::Refuse { number, why } => {
            if let Some((service, waiting)) = waiting(number) {
                waiting.send(Err(refusal(why, service, &body))).ok();
            }
            Ok(())
        }
        Kind::Beat => Ok(()),
        Kind::Bye => Err(End::Lost(format!(
            "the other side ended the connection: {}",
            text(&body)
        ))),
        Kind::Ask { .. } | Kind::Tell { .. } | Kind::Cancel { .. } => Err(End::Broken(
            "a call came on a connection that only answers".into(),
        )),
    }
}

fn refusal(why: Why, service: Service, body: &[u8]) -> CallError {
    let text = text(body);
    match why {
        Why::Unsupported => CallError::Unsupported { service },
        Why::TimedOut => CallError::TimedOut {
            within: Duration::ZERO,
        },
        // It broke off somewhere amid what was asked.
        Why::Failed => CallError::Unreachable { why: text },
        Why::Refused | Why::TooLarge => CallError::Refused { why: text },
    }
}
