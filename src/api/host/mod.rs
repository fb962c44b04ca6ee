//! The host: what this node does about the catalog. Each change is first made durable in the catalog, then carried
//! out by the shards, then shown to clients; a crash between these steps is healed by [`Host::open_all`],
//! because the catalog is the truth and every step can be done twice.
//!
//! | file | what it changes |
//! |---|---|
//! | `volumes` | creation, resize, deletion, exports |
//! | `import` | the data of a volume that is being filled |
//! | `data` | nothing: export, maps, measurements |
//! | `disks` | disks of this node: open, format, add, grow, scrub |
//! | `arrival` | nothing: what an added disk would bring, and what would move to it |
//! | `drain` | disks that are to go |
//! | `replace` | a disk that another one takes the place of |
//! | `moves` | nothing: what a drain would move |
//! | `attachments` | what serves volumes to guests and as devices |
//! | `devices` | block devices of this host's kernel |
//! | `health` | exports, where a disk fails |
//! | `notes` | what stores say, turned into logs and alerts |
//! | `space` | nothing: warns before a disk is full |
//! | `held` | nothing of the cluster's volumes: this node comes to have them, and lets go of them |
//! | `upgrade` | the daemon's own binary |
//! | `cluster` | this node in its cluster, and what of other nodes concerns it |
//! | `nodes` | nodes that are emptied, removed, or worked at |
//! | `pools` | pools, and how whole they are |
//! | `alerts` | what a person should know |
//! | `view` | nothing: the catalog and the node in the API's words |
//!
//! Changes of volumes and disks are made one at a time. Whatever must not stop half way runs in a task of its own,
//! so that a client that hangs up does not cut it off.

mod alerts;
mod arrival;
mod attachments;
mod clients;
mod cluster;
mod data;
mod devices;
mod disks;
mod drain;
mod health;
mod held;
pub mod image;
mod import;
mod metrics;
mod moves;
mod nodes;
mod notes;
mod pools;
mod replace;
mod space;
mod upgrade;
mod view;
mod volumes;

pub use alerts::{AlertKind, Alerts};
pub use attachments::{FrontEnds, HandedOver, Sockets};
pub use devices::{DeviceError, KernelDevices};
pub use view::nbd_uri;

use super::model::ErrorBody;
use crate::base::{DiskId, NodeId, Time, VolumeId};
use crate::cluster::Cluster;
use crate::io::clock;
use crate::manager::Manager;
use crate::observe::Registry;
use crate::pilot::Pilot;
use crate::runtime::Handle;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a host is made of.
pub struct Parts {
    pub manager: Manager,
    pub cluster: Cluster,
    /// Of a node of a cluster.
    pub pilot: Option<Arc<Pilot>>,
    /// The name that this node has, or is to have in a cluster that it joins.
    pub name: String,
    pub runtime: Handle,
    pub registry: Arc<Registry>,
    /// This node in the catalog.
    pub node: NodeId,
    /// The socket that NBD clients connect to.
    pub nbd_socket: PathBuf,
    /// Memory that each store may keep journaled payload in, in bytes.
    pub overlay_bytes: u64,
    pub front_ends: FrontEnds,
}

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    Starting = 0,
    Serving = 1,
    Stopping = 2,
}

/// A disk of this node, as it is now.
#[derive(Debug, Clone, Default)]
struct DiskNow {
    /// Whether a shard has it.
    open: bool,
    /// Why it does not serve; `None` where it does.
    failed: Option<String>,
    /// What the last scrub found, and how many there were since the start.
    scrubbed: notes::Scrubbed,
}

/// This node. Clones are the same one.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    attached: attachments::Attached,
    alerts: Alerts,
    started: Instant,
    /// When it began, which no other process of this host did.
    instance: Time,
    next: upgrade::Next,
    phase: AtomicU8,
    /// Held over a change of volumes or disks, from the command to the exports.
    changing: tokio::sync::Mutex<()>,
    disks: Mutex<BTreeMap<DiskId, DiskNow>>,
    /// Woken when a note has changed `disks`.
    noted: tokio::sync::Notify,
    /// Why a volume that should be served is not.
    unavailable: Mutex<BTreeMap<VolumeId, String>>,
    taken: held::Taken,
    /// Held while clients are told what they can have, so that what was told last is what is so.
    showing: tokio::sync::Mutex<()>,
    imports: Mutex<BTreeMap<VolumeId, Arc<tokio::sync::Mutex<import::Session>>>>,
    /// The `io_timeout`s that the shards were told.
    timeouts: tokio::sync::Mutex<BTreeMap<VolumeId, Duration>>,
}

impl Host {
    pub fn new(parts: Parts) -> Host {
        Host {
            inner: Arc::new(Inner {
                parts,
                attached: attachments::Attached::default(),
                alerts: Alerts::default(),
                started: Instant::now(),
                instance: clock::now(),
                next: upgrade::Next::default(),
                phase: AtomicU8::new(Phase::Starting as u8),
                changing: tokio::sync::Mutex::new(()),
                disks: Mutex::default(),
                noted: tokio::sync::Notify::new(),
                unavailable: Mutex::default(),
                taken: held::Taken::default(),
                showing: tokio::sync::Mutex::default(),
                imports: Mutex::default(),
                timeouts: tokio::sync::Mutex::default(),
            }),
        }
    }

    pub fn alerts(&self) -> &Alerts {
        &self.inner.alerts
    }

    pub fn registry(&self) -> &Registry {
        &self.inner.parts.registry
    }

    pub fn phase(&self) -> Phase {
        match self.inner.phase.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Stopping,
        }
    }

    pub fn set_phase(&self, phase: Phase) {
        self.inner.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Runs `work` to its end even where the caller goes away.
    pub async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ErrorBody>> + Send + 'static,
    ) -> Result<T, ErrorBody> {
        if self.phase() == Phase::Stopping {
            return Err(ErrorBody::unavailable(
                "the daemon is stopping",
                "try again later",
            ));
        }
        tokio::spawn(work).await.unwrap_or_else(|stopped| {
            let what = format!("the daemon stopped in the middle of it: {stopped}");
            Err(ErrorBody::unavailable(
                what,
                "look at the result, then try again",
            ))
        })
    }

    /// The listening sockets of guests, for the process that takes this one's place.
    pub fn sockets_for_the_next(&self) -> std::io::Result<Vec<crate::io::Inherited>> {
        self.inner.parts.front_ends.sockets.for_the_next()
    }

    /// Ends the manager in good order: nothing is changed in the catalog from then on, and what it says can still be read.
    pub async fn close_catalog(&self) {
        self.manager().clone().end().await;
    }

    fn manager(&self) -> &Manager {
        &self.inner.parts.manager
    }

    fn runtime(&self) -> &Handle {
        &self.inner.parts.runtime
    }
}

/// Locks, also where another thread has panicked with the lock: the maps behind these locks are changed by single
/// calls, so they are whole at all times.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
