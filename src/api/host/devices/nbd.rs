//! Devices by the kernel's nbd: connected over netlink, each served through one socket pair whose other end a shard has.
//!
//! A keeper waits for the connection's end. As long as the device is wanted, it gives the driver a new socket then: after
//! the daemon's restart, and where the driver gave one up because a request took too long.
//!
//! *What is sent twice does not overtake itself*: there is one connection, and a new one comes only when nothing of the
//! old one is in flight. So a request that the driver sends again begins after the first one has ended.

use super::naming::Mark;
use super::{Device, DeviceError, DeviceKind, blocking, links};
use crate::frontend::nbd_device::{
    Answer, Connect, FAMILY, Family, Reconfigure, TIMEOUT_S, answer, connected, disconnect,
    family_of, find_family, slower,
};
use crate::io::{Netlink, connected_pair};
use crate::runtime::{Ended, Export, Handle};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Which of a device's connections it is.
const ONLY: usize = 0;
/// How long a keeper waits before it gives the driver a new socket, at first and at most.
const SOON: Duration = Duration::from_millis(20);
const LATER: Duration = Duration::from_secs(1);
/// Where a connection went well for so long, the driver's patience begins anew.
const WELL: Duration = Duration::from_secs(600);

const CONNECTING: &str = "connecting an nbd device";
const RECONNECTING: &str = "reconnecting an nbd device";

/// A device that is served. Clones are the same one.
#[derive(Clone)]
pub(super) struct Serving {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Handle,
    device: Device,
    number: u32,
    backend: String,
    /// How long the driver waits before it sends a request again, in seconds.
    timeout_s: AtomicU64,
    /// Whether the device is to be there, and by this hand.
    wanted: AtomicBool,
    lost: AtomicBool,
}

/// Whether the kernel has nbd. Whether it lets us, it says when a device is connected.
pub(super) fn usable() -> Result<(), DeviceError> {
    open().map(drop)
}

/// Starts a device, or takes back the one from last time.
pub(super) async fn start(
    runtime: &Handle,
    device: &Device,
    export: &Export,
    mark: Mark,
) -> Result<(u32, Serving), DeviceError> {
    let wanted = device.number;
    let found = blocking(CONNECTING, move || Ok(find(wanted, mark))).await?;
    let (number, backend, end) = match found {
        Some((number, backend)) => {
            let (ours, theirs) = pair()?;
            let end = runtime.serve_connected(device.volume, ONLY, ours).await?;
            let change = Change {
                index: number,
                size: Some((export.size, export.block_size)),
                backend: backend.clone(),
                timeout_s: TIMEOUT_S,
                socket: Some(theirs),
            };
            reconfigure(change).await?;
            (number, backend, end)
        }
        None => {
            let backend = mark.backend(&export.name);
            let (number, end) = connect(runtime, device, export, &backend).await?;
            (number, backend, end)
        }
    };
    links::told(
        "a device",
        links::write(DeviceKind::Nbd, number, &export.name),
    );
    links::told("a device", links::announce(DeviceKind::Nbd, number));
    let shared = Arc::new(Shared {
        runtime: runtime.clone(),
        device: device.clone(),
        number,
        backend,
        timeout_s: AtomicU64::new(TIMEOUT_S),
        wanted: AtomicBool::new(true),
        lost: AtomicBool::new(false),
    });
    tokio::spawn(keep(Arc::clone(&shared), end));
    Ok((number, Serving { shared }))
}

async fn connect(
    runtime: &Handle,
    device: &Device,
    export: &Export,
    backend: &str,
) -> Result<(u32, Ended), DeviceError> {
    // The number from last time where it is free, then any.
    let mut choices = device.number.map(Some).into_iter().chain([None]).peekable();
    while let Some(index) = choices.next() {
        let (ours, theirs) = pair()?;
        let end = runtime.serve_connected(device.volume, ONLY, ours).await?;
        let (size, block_size) = (export.size, export.block_size);
        let backend = backend.to_owned();
        let done = asking(CONNECTING, move |family, sequence| {
            let connect = Connect {
                index,
                size,
                block_size,
                backend: &backend,
                socket: theirs.as_raw_fd(),
            };
            (connect.message(family, sequence), Some(theirs))
        })
        .await;
        match done {
            Err(DeviceError::AllInUse { .. }) if choices.peek().is_some() => {}
            Err(error) => return Err(error),
            Ok(attributes) => {
                let what = CONNECTING;
                let number = connected(&attributes).ok_or_else(|| {
                    let why = "it does not say which device it is".into();
                    DeviceError::Refused { what, why }
                })?;
                return Ok((number, end));
            }
        }
    }
    Err(DeviceError::AllInUse { path: "/dev/nbdN" })
}

/// A change of a device that there is; see [`Reconfigure`].
struct Change {
    index: u32,
    size: Option<(u64, u32)>,
    backend: String,
    timeout_s: u64,
    socket: Option<OwnedFd>,
}

async fn reconfigure(change: Change) -> Result<(), DeviceError> {
    let made = asking(RECONNECTING, move |family, sequence| {
        let reconfigure = Reconfigure {
            index: change.index,
            size: change.size,
            backend: &change.backend,
            timeout_s: change.timeout_s,
            socket: change.socket.as_ref().map(AsRawFd::as_raw_fd),
        };
        (reconfigure.message(family, sequence), change.socket)
    });
    made.await.map(drop)
}

/// Waits for the end of the connection, and gives the driver another one, for as long as the device is wanted.
async fn keep(shared: Arc<Shared>, mut end: Ended) {
    let mut pause = SOON;
    loop {
        let since = tokio::time::Instant::now();
        end.wait().await;
        if !shared.is_wanted() {
            return;
        }
        let lasted = since.elapsed();
        if lasted > LATER {
            pause = SOON;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LATER);
        shared.was_too_slow(lasted);
        match shared.reconnect().await {
            Ok(Some(new)) => end = new,
            Ok(None) => return,
            Err(error) => {
                if shared.is_wanted() && !shared.lost.swap(true, Ordering::Relaxed) {
                    let number = shared.number;
                    tracing::warn!(number, %error, "an nbd device has been taken away");
                }
                return;
            }
        }
    }
}

impl Shared {
    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// A connection ended while this daemon lives, so it was slower than the driver's patience: the next one gets more.
    fn was_too_slow(&self, lasted: Duration) {
        let before = match lasted > WELL {
            true => TIMEOUT_S,
            false => self.timeout_s(),
        };
        self.timeout_s.store(slower(before), Ordering::Relaxed);
    }

    fn timeout_s(&self) -> u64 {
        self.timeout_s.load(Ordering::Relaxed)
    }

    /// `None` where the device is not wanted any more, or the daemon stops.
    async fn reconnect(&self) -> Result<Option<Ended>, DeviceError> {
        let (ours, theirs) = pair()?;
        let served = self
            .runtime
            .serve_connected(self.device.volume, ONLY, ours)
            .await;
        let end = match served {
            Ok(end) => end,
            Err(crate::runtime::ServeError::Stopped) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !self.is_wanted() {
            return Ok(None);
        }
        let (number, timeout_s) = (self.number, self.timeout_s());
        tracing::warn!(
            number,
            timeout_s,
            "requests of an nbd device took too long: it gets a new socket, and more patience"
        );
        reconfigure(self.change(None, Some(theirs))).await?;
        Ok(Some(end))
    }

    fn change(&self, size: Option<(u64, u32)>, socket: Option<OwnedFd>) -> Change {
        Change {
            index: self.number,
            size,
            backend: self.backend.clone(),
            timeout_s: self.timeout_s(),
            socket,
        }
    }
}

impl Serving {
    pub fn is_lost(&self) -> bool {
        self.shared.lost.load(Ordering::Relaxed)
    }

    pub async fn stop(&self) -> Result<(), DeviceError> {
        let number = self.shared.number;
        self.set_wanted(false);
        links::told("a device", links::remove(DeviceKind::Nbd, number));
        if !self.is_lost()
            && let Err(error) = end(number).await
        {
            self.set_wanted(true);
            return Err(error);
        }
        links::told("a device", links::announce(DeviceKind::Nbd, number));
        Ok(())
    }

    /// Leaves the device to those who start it again.
    pub fn abandon(&self) {
        self.set_wanted(false);
    }

    fn set_wanted(&self, wanted: bool) {
        self.shared.wanted.store(wanted, Ordering::Relaxed);
    }

    pub async fn resize(&self, export: &Export) -> Result<(), DeviceError> {
        let size = Some((export.size, export.block_size));
        reconfigure(self.shared.change(size, None)).await
    }
}

async fn end(number: u32) -> Result<(), DeviceError> {
    let done = asking("disconnecting an nbd device", move |family, sequence| {
        (disconnect(family, sequence, number), None)
    });
    done.await.map(drop)
}

/// Ends a device from last time, where there is one.
pub(super) async fn clear(mark: Mark) -> Result<(), DeviceError> {
    let found = blocking(CONNECTING, move || Ok(find(None, mark))).await?;
    let Some((number, _)) = found else {
        return Ok(());
    };
    links::told("a device", links::remove(DeviceKind::Nbd, number));
    end(number).await
}

/// Looks for a device with this mark, first under the number that it had: its number, and its backend identifier.
fn find(number: Option<u32>, mark: Mark) -> Option<(u32, String)> {
    let block = Path::new("/sys/block");
    let all = std::fs::read_dir(block).into_iter().flatten().flatten();
    let all = all.filter_map(|entry| {
        entry
            .file_name()
            .to_str()?
            .strip_prefix("nbd")?
            .parse()
            .ok()
    });
    number.into_iter().chain(all).find_map(|number: u32| {
        // Only a connected device has one.
        let backend = block.join(format!("nbd{number}")).join("backend");
        let backend = std::fs::read_to_string(backend).ok()?;
        mark.is_in(&backend)
            .then(|| (number, backend.trim_end().to_owned()))
    })
}

/// A shard's socket, and the kernel's end of it.
fn pair() -> Result<(OwnedFd, OwnedFd), DeviceError> {
    connected_pair().map_err(|error| kernel("making sockets", error))
}

/// Opens netlink and finds the driver's family.
fn open() -> Result<(Netlink, Family), DeviceError> {
    let failed = |error| kernel(CONNECTING, error);
    let mut netlink = Netlink::open().map_err(failed)?;
    let found = netlink.ask(find_family, read).map_err(failed)?;
    match found {
        Answer::Done(attributes) => {
            let family = family_of(&attributes).ok_or(DeviceError::NoNbd)?;
            Ok((netlink, family))
        }
        _ => {
            tracing::debug!("the kernel has no family {FAMILY}");
            Err(DeviceError::NoNbd)
        }
    }
}

/// Asks the driver, in a thread of its own. `make` gives the message, and the socket that it names, which is closed
/// here afterwards: the driver has its own hold on it.
async fn asking(
    what: &'static str,
    make: impl FnOnce(Family, u32) -> (Vec<u8>, Option<OwnedFd>) + Send + 'static,
) -> Result<Vec<(u16, Vec<u8>)>, DeviceError> {
    let asked = blocking(what, move || {
        let (mut netlink, family) = match open() {
            Ok(open) => open,
            Err(error) => return Ok(Err(error)),
        };
        let mut socket = None;
        let make = |sequence| {
            let message;
            (message, socket) = make(family, sequence);
            message
        };
        let answer = netlink.ask(make, read);
        drop(socket);
        answer.map(Ok)
    });
    match asked.await?? {
        Answer::Done(attributes) => Ok(attributes),
        Answer::Refused(refusal) => Err(match refusal.errno {
            EPERM => DeviceError::Rights { what },
            EBUSY | ENOSPC => DeviceError::AllInUse { path: "/dev/nbdN" },
            _ => DeviceError::Refused {
                what,
                why: refusal.to_string(),
            },
        }),
        Answer::Open => unreachable!("an answer that is not there is waited for"),
    }
}

const EPERM: i32 = 1;
const EBUSY: i32 = 16;
const ENOSPC: i32 = 28;

fn read(received: &[u8], sequence: u32) -> io::Result<Option<Answer>> {
    match answer(received, sequence).map_err(io::Error::other)? {
        Answer::Open => Ok(None),
        told => Ok(Some(told)),
    }
}

fn kernel(what: &'static str, error: io::Error) -> DeviceError {
    DeviceError::Kernel { what, error }
}
