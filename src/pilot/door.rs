//! The door: starting, ending, what is told to a pilot, and what it needs of the shards.

use super::drive::{self, Heard, Told};
use super::message;
use super::view::View;
use crate::base::{DiskId, NodeId, Time, VolumeId};
use crate::calls::{Caller, Calls, Service};
use crate::manager::Manager;
use crate::node;
use crate::protocol::catalog::{LayerState, Volume};
use crate::protocol::membership::{self, Incarnation};
use crate::protocol::steward;
use crate::shard::Said;
use crate::shard::fabric::Order;
use crate::store::{LayerMeta, Openings, VolumeMeta};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// What peers have said and the pilot has not looked at yet: two words of each of a thousand nodes. More is refused, and said again.
const HEARD_MAX: usize = 2_048;
/// Words to peers that were not handed to their connections yet.
const TOLD_MAX: usize = 4_096;
/// What the daemon has told and the pilot has not looked at yet; more waits.
const DOORS_MAX: usize = 64;

/// How long the end of the thread is waited for. It waits for nothing itself.
const END_MAX: Duration = Duration::from_secs(5);

/// The shards of this node, and the stores on them.
pub trait Shards: Send + Sync + 'static {
    /// How many there are; it does not change.
    fn count(&self) -> u16;

    /// Brings an order to every shard, after those before it, and does not wait. Numbers rise by one.
    fn order(&self, number: u64, order: Order);

    /// Every store of every shard records the volume; durable when it answers. An error is why one did not; it is tried again.
    fn put_volume(&self, meta: VolumeMeta) -> impl Future<Output = Result<(), String>> + Send;

    /// The store of a disk keeps its numbers; durable when it answers.
    fn put_openings(
        &self,
        disk: DiskId,
        of: Openings,
    ) -> impl Future<Output = Result<(), String>> + Send;
}

/// What a pilot is made of.
pub struct Parts<S> {
    pub manager: Manager,
    /// Addresses are set by others.
    pub calls: Calls,
    /// Of [`next_start`](super::next_start): a number that no start of this node had before.
    pub incarnation: Incarnation,
    pub shards: S,
    /// Where all shards speak. When it closes, the shards have ended.
    pub said: mpsc::Receiver<Said>,
    /// CLOCK_BOOTTIME, as the shards read it.
    pub clock: Clock,
    pub leases: membership::Parameters,
    pub steward: steward::Parameters,
}

/// Reads a clock that never goes back.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// Why there is no pilot.
#[derive(Debug)]
pub enum StartError {
    Unsound(node::Unsound),
    Thread(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Unsound(node::Unsound::Leases(of)) => {
                write!(f, "the times of leases: `{}` must {}", of.field, of.must)
            }
            StartError::Unsound(node::Unsound::Steward(of)) => {
                write!(
                    f,
                    "the times of the steward: `{}` must {}",
                    of.field, of.must
                )
            }
            StartError::Thread(error) => write!(f, "the pilot's thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// What the daemon tells.
#[derive(Debug)]
pub(super) enum Door {
    DiskFound { disk: DiskId, kept: Openings },
    End,
}

/// The control plane of this node, while it runs. Dropped, it ends by itself soon.
pub struct Pilot {
    doors: mpsc::Sender<Door>,
    view: Arc<Mutex<View>>,
    served: watch::Receiver<BTreeSet<VolumeId>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    calls: Calls,
}

/// What is behind this lock is changed in single steps.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pilot {
    /// Starts it. The runtime around this is that of the control plane: see the [room](super).
    ///
    /// # Errors
    /// Parameters that contradict one another, or no thread.
    pub fn start<S: Shards>(parts: Parts<S>) -> Result<Pilot, StartError> {
        let now = (parts.clock)();
        // The thread makes them anew when it knows the members.
        drive::node(&parts, now, vec![parts.manager.node()]).map_err(StartError::Unsound)?;
        drive::member(now, parts.manager.node(), parts.leases, parts.steward)
            .map_err(StartError::Unsound)?;
        let main = Handle::current();
        let (doors, opened) = mpsc::channel(DOORS_MAX);
        let (hears, heard) = mpsc::channel(HEARD_MAX);
        let (tells, told) = mpsc::channel(TOLD_MAX);
        let (end, ended) = oneshot::channel();
        let view = Arc::new(Mutex::new(View::new(now)));
        let calls = parts.calls.clone();
        main.spawn(forward(calls.clone(), told));
        let (serves, served) = watch::channel(BTreeSet::new());
        let ways = drive::Ways {
            doors: opened,
            heard,
            tells,
            main,
            view: Arc::clone(&view),
            served: serves,
        };
        let thread = std::thread::Builder::new().name("sarsen-pilot".into());
        let runs = move || {
            let _abort = AbortOnPanic;
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build();
            runtime
                .expect("there are descriptors for a runtime")
                .block_on(drive::run(parts, ways));
            // Nobody waits where the pilot was dropped.
            end.send(()).ok();
        };
        thread.spawn(runs).map_err(StartError::Thread)?;
        serve(&calls, &hears);
        Ok(Pilot {
            doors,
            view,
            served,
            ended: Mutex::new(Some(ended)),
            calls,
        })
    }

    /// A disk of this node is there, its store is open and has kept these numbers. Told again, it changes nothing once the disk is opened.
    pub async fn disk_found(&self, disk: DiskId, kept: Openings) {
        self.tell(Door::DiskFound { disk, kept }).await;
    }

    async fn tell(&self, door: Door) {
        // A pilot that has ended is told nothing.
        self.doors.send(door).await.ok();
    }

    /// How it stands.
    pub fn view(&self) -> View {
        lock(&self.view).clone()
    }

    /// The volumes that are served here: the shards were ordered to take requests of them, or to have them wait for a turn.
    pub fn served(&self) -> watch::Receiver<BTreeSet<VolumeId>> {
        self.served.clone()
    }

    /// Ends, and waits for it where it is the first that is told so. The shards have ended before: the lease is given back where a member answers, so that what was served here can be taken at once.
    pub async fn end(&self) {
        let Some(ended) = lock(&self.ended).take() else {
            return;
        };
        let ends = async {
            self.doors.send(Door::End).await.ok();
            // An error means that it has ended.
            ended.await.ok();
        };
        if timeout(END_MAX, ends).await.is_err() {
            tracing::error!("the pilot does not end; its lease is not renewed by anybody else");
        }
        for service in [Service::Lease, Service::Report, Service::Node] {
            self.calls.stop_handling(service);
        }
    }
}

/// Hands words to the connections of the control plane's runtime, in their order.
async fn forward(calls: Calls, mut told: mpsc::Receiver<Told>) {
    while let Some(Told { to, service, body }) = told.recv().await {
        if let Err(error) = calls.tell(to, service, body) {
            tracing::debug!(node = %to, %service, "not told: {error}");
        }
    }
}

/// What other pilots say comes in here.
fn serve(calls: &Calls, hears: &mpsc::Sender<Heard>) {
    let heard = hears.clone();
    calls.handle(Service::Lease, move |caller, body| {
        let heard = heard.clone();
        async move {
            let ask = message::read_ask(known(caller)?, &body)?;
            let (asker, answer) = oneshot::channel();
            hear(&heard, Heard::Ask { ask, asker })?;
            let answer = answer.await;
            let answer = answer.map_err(|_| "this node does not answer asks for leases now")?;
            Ok(message::answered(&answer))
        }
    });
    let heard = hears.clone();
    calls.handle(Service::Report, move |caller, body| {
        let heard = heard.clone();
        async move {
            let from = known(caller)?;
            let reports = message::read_reports(&body)?;
            hear(&heard, Heard::Reports { from, reports })?;
            Ok(Vec::new())
        }
    });
    let heard = hears.clone();
    calls.handle(Service::Node, move |caller, body| {
        let heard = heard.clone();
        async move {
            let want = message::read_want(known(caller)?, &body)?;
            hear(&heard, Heard::Want(want))?;
            Ok(Vec::new())
        }
    });
}

fn known(caller: Caller) -> Result<NodeId, String> {
    let node = caller.node;
    node.ok_or_else(|| "only nodes of the cluster are heard; join it first".into())
}

fn hear(to: &mpsc::Sender<Heard>, heard: Heard) -> Result<(), String> {
    to.try_send(heard).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => {
            "too much waits to be heard here; say it again".into()
        }
        mpsc::error::TrySendError::Closed(_) => "this node is shutting down".into(),
    })
}

/// What stores are to know of a volume.
pub fn meta(volume: &Volume) -> VolumeMeta {
    let layers = volume.layers.iter().map(|layer| LayerMeta {
        id: layer.id,
        parent: layer.parent,
        frozen: layer.state == LayerState::Frozen,
    });
    VolumeMeta {
        id: volume.id,
        family: volume.family,
        name: volume.name.clone(),
        size: volume.size,
        layers: layers.collect(),
    }
}

/// A pilot that panics is wrong about its own state: going on could let two nodes serve a volume.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
