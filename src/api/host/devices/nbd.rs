//! Devices by the kernel's nbd: connected over netlink, served through socket pairs whose other ends the shards have.
//!
//! A keeper a connection waits for its end. As long as the device is wanted, it gives the driver a new socket then: after
//! the daemon's restart all are new, and later one is where the driver gave one up because a request took too long.
//! A new socket comes only when nothing of the old one is in flight, so what the driver sends again is never
//! overtaken by what it sent before.

use super::naming::Mark;
use super::{Device, DeviceError, DeviceKind, blocking, links};
use crate::frontend::nbd_device::{
    Answer, Connect, FAMILY, Family, Reconfigure, answer, connected, disconnect, family_of,
    find_family,
};
use crate::io::{Netlink, connected_pair};
use crate::runtime::{Ended, Export, Handle};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Connections of one device.
const CONNECTIONS_MAX: u16 = 16;
/// How long a keeper waits before it gives the driver a new socket, at first and at most.
const SOON: Duration = Duration::from_millis(20);
const LATER: Duration = Duration::from_secs(1);

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
    let (number, backend, ends) = match found {
        Some(found) => {
            let (backend, number) = (found.backend, found.number);
            let (ours, theirs) = pairs(found.connections)?;
            let ends = serve(runtime, device, ours).await?;
            let size = Some((export.size, export.block_size));
            let kept = backend.clone();
            reconfigure(number, size, kept, theirs).await?;
            (number, backend, ends)
        }
        None => {
            let backend = mark.backend(&export.name);
            let (number, ends) = connect(runtime, device, export, &backend).await?;
            (number, backend, ends)
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
        wanted: AtomicBool::new(true),
        lost: AtomicBool::new(false),
    });
    for (place, end) in ends.into_iter().enumerate() {
        tokio::spawn(keep(Arc::clone(&shared), place, end));
    }
    Ok((number, Serving { shared }))
}

async fn connect(
    runtime: &Handle,
    device: &Device,
    export: &Export,
    backend: &str,
) -> Result<(u32, Vec<Ended>), DeviceError> {
    // The number from last time where it is free, then any.
    let mut choices = device.number.map(Some).into_iter().chain([None]).peekable();
    while let Some(index) = choices.next() {
        let (ours, theirs) = pairs(device.queues.clamp(1, CONNECTIONS_MAX))?;
        let ends = serve(runtime, device, ours).await?;
        let (size, block_size) = (export.size, export.block_size);
        let backend = backend.to_owned();
        let done = asking(CONNECTING, move |family, sequence| {
            let sockets: Vec<i32> = theirs.iter().map(AsRawFd::as_raw_fd).collect();
            let connect = Connect {
                index,
                size,
                block_size,
                backend: &backend,
                sockets: &sockets,
            };
            (connect.message(family, sequence), theirs)
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
                return Ok((number, ends));
            }
        }
    }
    Err(DeviceError::AllInUse { path: "/dev/nbdN" })
}

/// Gives a device that there is new sockets where its own are dead, and a size.
async fn reconfigure(
    index: u32,
    size: Option<(u64, u32)>,
    backend: String,
    theirs: Vec<OwnedFd>,
) -> Result<(), DeviceError> {
    let made = asking(RECONNECTING, move |family, sequence| {
        let sockets: Vec<i32> = theirs.iter().map(AsRawFd::as_raw_fd).collect();
        let change = Reconfigure {
            index,
            size,
            backend: &backend,
            sockets: &sockets,
        };
        (change.message(family, sequence), theirs)
    });
    made.await.map(drop)
}

/// Waits for the end of one connection, and gives the driver another one, for as long as the device is wanted.
async fn keep(shared: Arc<Shared>, place: usize, mut end: Ended) {
    let mut pause = SOON;
    loop {
        let since = tokio::time::Instant::now();
        end.wait().await;
        if !shared.is_wanted() {
            return;
        }
        if since.elapsed() > LATER {
            pause = SOON;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LATER);
        match shared.reconnect(place).await {
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

    /// `None` where the device is not wanted any more, or the daemon stops.
    async fn reconnect(&self, place: usize) -> Result<Option<Ended>, DeviceError> {
        let (ours, theirs) = connected_pair().map_err(|error| kernel(RECONNECTING, error))?;
        let volume = self.device.volume;
        let served = self.runtime.serve_connected(volume, place, ours).await;
        let end = match served {
            Ok(end) => end,
            Err(crate::runtime::ServeError::Stopped) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !self.is_wanted() {
            return Ok(None);
        }
        tracing::info!(
            number = self.number,
            place,
            "an nbd device gets a new socket"
        );
        let (number, backend) = (self.number, self.backend.clone());
        reconfigure(number, None, backend, vec![theirs]).await?;
        Ok(Some(end))
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
        let shared = &self.shared;
        let size = Some((export.size, export.block_size));
        reconfigure(shared.number, size, shared.backend.clone(), Vec::new()).await
    }
}

async fn end(number: u32) -> Result<(), DeviceError> {
    let done = asking("disconnecting an nbd device", move |family, sequence| {
        (disconnect(family, sequence, number), Vec::new())
    });
    done.await.map(drop)
}

/// Ends a device from last time, where there is one.
pub(super) async fn clear(mark: Mark) -> Result<(), DeviceError> {
    let found = blocking(CONNECTING, move || Ok(find(None, mark))).await?;
    let Some(found) = found else { return Ok(()) };
    links::told("a device", links::remove(DeviceKind::Nbd, found.number));
    end(found.number).await
}

/// A device from last time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    number: u32,
    backend: String,
    /// How many sockets it was connected with: a change cannot bring more.
    connections: u16,
}

/// Looks for a device with this mark, first under the number that it had.
fn find(number: Option<u32>, mark: Mark) -> Option<Found> {
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
        let folder = block.join(format!("nbd{number}"));
        // Only a connected device has one.
        let backend = std::fs::read_to_string(folder.join("backend")).ok()?;
        let queues = std::fs::read_dir(folder.join("mq")).ok()?.count();
        mark.is_in(&backend).then(|| Found {
            number,
            backend: backend.trim_end().to_owned(),
            connections: queues.clamp(1, usize::from(CONNECTIONS_MAX)) as u16,
        })
    })
}

/// Sockets of the shards, and the kernel's ends of them.
fn pairs(count: u16) -> Result<(Vec<OwnedFd>, Vec<OwnedFd>), DeviceError> {
    let pairs: io::Result<Vec<_>> = (0..count).map(|_| connected_pair()).collect();
    let pairs = pairs.map_err(|error| kernel("making sockets", error))?;
    Ok(pairs.into_iter().unzip())
}

async fn serve(
    runtime: &Handle,
    device: &Device,
    ours: Vec<OwnedFd>,
) -> Result<Vec<Ended>, DeviceError> {
    let mut ends = Vec::with_capacity(ours.len());
    for (place, socket) in ours.into_iter().enumerate() {
        let served = runtime.serve_connected(device.volume, place, socket);
        ends.push(served.await?);
    }
    Ok(ends)
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

/// Asks the driver, in a thread of its own. `make` gives the message, and the sockets that it names, which are closed
/// here afterwards: the driver has its own hold on those that it took.
async fn asking(
    what: &'static str,
    make: impl FnOnce(Family, u32) -> (Vec<u8>, Vec<OwnedFd>) + Send + 'static,
) -> Result<Vec<(u16, Vec<u8>)>, DeviceError> {
    let asked = blocking(what, move || {
        let (mut netlink, family) = match open() {
            Ok(open) => open,
            Err(error) => return Ok(Err(error)),
        };
        let mut sockets = Vec::new();
        let make = |sequence| {
            let message;
            (message, sockets) = make(family, sequence);
            message
        };
        let answer = netlink.ask(make, read);
        drop(sockets);
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
