//! Attachments of this node: the catalog says what is wanted, and this brings it about.
//!
//! ```text
//!   attach   propose ──► socket or device ──► served        where that fails: propose the opposite
//!   detach   end what serves it ──► propose                 a crash between: the next start takes it up again
//!   start    for each that the catalog has: take up         where that fails: an alert, and again every 2 s
//! ```
//!
//! So an attachment outlives the daemon: what was attached is served again after any end of the process, and before
//! the API says that it serves. A listening socket may even outlive the process itself: the service manager keeps it
//! (`sockets`), so that a guest that connects in between waits in its queue and is not refused.
//!
//! | file | what it does |
//! |---|---|
//! | `attach`, `detach` | what the API is asked for |
//! | `take_up` | starts what the catalog wants: at the daemon's start, and again where it failed |
//! | `sockets` | the listening sockets of guests: made, inherited, kept |
//! | `guest`, `device` | what is asked of those who serve: shards, and the kernel |
//! | `view` | attachments in the API's words |
//!
//! All changes are made one at a time, with those of volumes and disks.

mod attach;
mod detach;
mod device;
mod guest;
mod sockets;
mod take_up;
#[cfg(test)]
mod tests;
mod view;

pub use device::{Device, DeviceKind, Devices, Started};
pub use guest::{Guests, HandedOver};
pub use sockets::Sockets;

use crate::protocol::catalog::AttachmentKey;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

/// What a front end is asked for, on its way.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Those who serve attachments on this node.
pub struct FrontEnds {
    pub guests: Arc<dyn Guests>,
    pub devices: Arc<dyn Devices>,
    pub sockets: Sockets,
    /// Front ends of guests that the process before handed over.
    pub handed: HandedOver,
}

/// What is known of an attachment beyond the catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Now {
    /// The device, where there is one.
    device: Option<PathBuf>,
    /// Why it is not served; `None` where it is.
    failed: Option<String>,
    /// Whether its device has not been told of the volume's newest size.
    resize_due: bool,
}

/// The attachments that were taken up, or should have been.
#[derive(Debug, Default)]
pub(super) struct Attached {
    now: Mutex<BTreeMap<AttachmentKey, Now>>,
}
