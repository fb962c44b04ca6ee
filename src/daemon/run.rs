//! A daemon's life: start, serve, stop or become another binary.

use super::config::Config;
use super::fleet::{self, Fleet};
use super::handover;
use super::listeners::Listeners;
use super::nbd_tls;
use super::notify::{self, Notice};
use super::start::{self, StartError};
use crate::api::host::{HandedOver, Host, Phase};
use crate::api::model::Checked;
use crate::base::{NodeId, Time};
use crate::frontend::vhost_user::{FORM, Handed};
use crate::io::{self, Inherited, clock};
use crate::manager::Manager;
use crate::observe::Registry;
use crate::runtime::{Handle, Runtime};
use crate::shard::Control;
use crate::store::Closing;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long API requests that are being answered may take at the end.
const API_STOP: Duration = Duration::from_millis(500);
/// How long a start waits for the catalog of a cluster.
const CATALOG_WAIT: Duration = Duration::from_secs(10);
/// How long the manager may take to end.
const CATALOG_STOP: Duration = Duration::from_millis(500);
/// How long stores may take to drain and checkpoint. What is not closed by then is cut off as by a crash, which
/// loses nothing and costs the next start a replay.
const STORE_STOP: Duration = Duration::from_secs(4);
/// How long the checkpoint before that may take, while guests go on.
const STORE_CHECKPOINT: Duration = Duration::from_secs(2);
/// How long what is in flight of guests may take to end before they are handed over. A guest of which something is in
/// flight then is not: it connects again, and finds that in its in-flight region.
const GUESTS_STOP: Duration = Duration::from_secs(2);

/// The exit code of a daemon that was told twice to end.
const ENDED_AT_ONCE: i32 = 1;

/// What is told when a daemon serves.
pub struct Ready<'a> {
    pub config: &'a Config,
    /// Whether there are volumes.
    pub volumes: Vec<String>,
}

/// Runs a daemon until a signal ends it. `ready` is called once, when everything is served.
pub fn run(config: Config, ready: impl FnOnce(Ready<'_>)) -> Result<(), StartError> {
    start::check(&config)?;
    // Before there is another thread.
    let inherited = io::take_inherited();
    io::name_process();
    start::log(&config)?;
    match tokio_uring::start(live(config, inherited, ready))? {
        End::Stopped => Ok(()),
        End::Next(next) => Err(next.begin()),
    }
}

/// Whether a daemon of this version would start with that configuration, as far as shows while another runs with it.
pub fn check(config: &Config) -> Result<Checked, StartError> {
    start::check(config)?;
    Ok(Checked {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        handover_forms: vec![FORM],
    })
}

/// How a daemon's life ended.
enum End {
    Stopped,
    /// Everything has ended but the process.
    Next(Next),
}

/// The binary that comes next, and what it inherits.
struct Next {
    binary: PathBuf,
    inherited: Vec<Inherited>,
}

impl Next {
    /// Becomes it, or this binary once more. Returns only where neither can be.
    fn begin(self) -> StartError {
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        let binaries = [self.binary.as_path(), Path::new("/proc/self/exe")];
        io::become_next(&binaries, &arguments, self.inherited, |binary, error| {
            tracing::error!(binary = %binary.display(), %error, "it cannot be run");
        });
        StartError::new("upgrade", "neither the next binary nor this one can be run")
    }
}

async fn live(
    config: Config,
    mut inherited: Vec<Inherited>,
    ready: impl FnOnce(Ready<'_>),
) -> Result<End, StartError> {
    // Signals from here on are a wish to stop, also during the start.
    let mut signals = Signals::new()?;
    let handed = HandedOver::new(handover::unpack(&mut inherited));
    let mut listeners = Listeners::of(&mut inherited);
    start::data_dir(&config.data_dir)?;
    let cluster = start::cluster(&config)?;
    let (manager, node) = start::catalog(&config, &cluster).await?;
    let registry = Arc::new(Registry::default());
    let of_cluster = fleet::next_start(&config.data_dir, &cluster, &manager)?;
    let incarnation = of_cluster.as_ref().map(|(start, _)| start.incarnation);
    let (mut shards, notes) = start::shards(&config, &registry, incarnation)?;
    let handle = shards.handle();
    let fleet = of_cluster.map(|start| Fleet::start(start, manager.clone(), &mut shards));
    let fleet = fleet.transpose()?;
    let known = (manager.clone(), node);
    let pilot = fleet.as_ref().map(|fleet| Arc::clone(&fleet.pilot));
    let host = start::host(
        &config,
        known,
        (cluster, pilot),
        handle.clone(),
        registry,
        inherited,
        handed,
    )?;
    if let Some(fleet) = fleet {
        fleet.begin(&host);
    }
    let noting = host.clone();
    tokio::spawn(async move { noting.take_notes(notes).await });
    let watching = host.clone();
    tokio::spawn(async move { watching.watch_space().await });
    let watching = host.clone();
    tokio::spawn(async move { watching.watch_copies().await });
    let watching = host.clone();
    tokio::spawn(async move { watching.watch_attachments().await });
    tokio::spawn(notify::live_signs(handle.clone()));

    let started = tokio::select! {
        started = serve(&config, (&manager, node), &host, &handle, &mut listeners) => started,
        name = signals.next() => {
            tracing::info!(signal = name, "stopping during the start");
            stop_or_end(&config, &mut signals, stop(&config, &host, None, shards)).await;
            return Ok(End::Stopped);
        }
    };
    let api = match started {
        Ok(api) => api,
        Err(error) => {
            stop_or_end(&config, &mut signals, stop(&config, &host, None, shards)).await;
            return Err(error);
        }
    };
    host.set_phase(Phase::Serving);
    notify::say(Notice::Ready);
    tracing::info!(api = %config.api.socket.display(), nbd = %config.nbd.socket.display(), "serving");
    let volumes = host
        .volumes()
        .volumes
        .into_iter()
        .map(|volume| volume.name)
        .collect();
    ready(Ready {
        config: &config,
        volumes,
    });

    let binary = tokio::select! {
        binary = host.next_binary() => binary,
        name = signals.next() => {
            tracing::info!(signal = name, "stopping");
            stop_or_end(&config, &mut signals, stop(&config, &host, Some(api), shards)).await;
            return Ok(End::Stopped);
        }
    };
    tracing::info!(binary = %binary.display(), "becoming another binary");
    let make_way = make_way(&host, api, shards, listeners);
    let inherited = stop_or_end(&config, &mut signals, make_way).await;
    Ok(End::Next(Next { binary, inherited }))
}

/// Stops in good order, unless it is told once more to end: then at once, as by a crash, which loses nothing.
async fn stop_or_end<T>(
    config: &Config,
    signals: &mut Signals,
    stop: impl Future<Output = T>,
) -> T {
    tokio::select! {
        ended = stop => ended,
        name = signals.next() => {
            tracing::warn!(
                signal = name,
                "told again: ending at once; the next start will replay the journal"
            );
            remove_sockets(config);
            std::process::exit(ENDED_AT_ONCE);
        }
    }
}

/// The API while it is served.
struct Api {
    stop: watch::Sender<()>,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
    /// Whose clients come as long as the API answers.
    nbd_tls: Option<nbd_tls::Serving>,
}

/// Opens what the catalog knows, then lets clients in.
async fn serve(
    config: &Config,
    (manager, node): (&Manager, NodeId),
    host: &Host,
    handle: &Handle,
    listeners: &mut Listeners,
) -> Result<Api, StartError> {
    // A node that is no member has its catalog from those who are. Where none can be reached, it serves nothing until one is.
    if host.cluster().has_catalog(CATALOG_WAIT).await {
        start::check_known(config, manager, node)?;
        start::disks(config, (manager, node), host).await?;
        host.wait_for_volumes().await;
        host.take_up_attachments().await;
    } else {
        tracing::warn!(
            "no member of the manager is reached: this node's disks are opened when one is"
        );
    }
    let watching = host.clone();
    tokio::spawn(async move { watching.watch_catalog().await });
    let watching = host.clone();
    tokio::spawn(async move { watching.watch_cluster().await });
    let listener = start::api(config, listeners)?;
    // Before the cluster is founded nobody has what is asked for there, and at its founding the daemon starts again.
    let tcp = match host.cluster().keeper() {
        Some(keeper) => start::api_tcp(config, listeners)?.map(|listener| (listener, keeper)),
        None => None,
    };
    if let (Some(listen), None) = (config.api.listen, &tcp) {
        tracing::warn!(%listen, "api.listen is served when this node is of a cluster: `sarsen cluster init` makes one, `sarsen join` joins one");
    }
    let nbd_tls = start::nbd_tls(config, listeners, host.cluster(), handle)?;
    start::nbd(config, listeners, handle).await?;
    let (stop, stopped) = watch::channel(());
    let until = |mut stopped: watch::Receiver<()>| async move {
        // A sender that is dropped means the same as one that is used.
        let _ = stopped.changed().await;
    };
    let here = crate::api::serve(listener, host.clone(), until(stopped.clone()));
    let far_host = host.clone();
    let far = async move {
        match tcp {
            Some((listener, keeper)) => {
                crate::api::serve_tls(listener, &keeper, far_host, until(stopped)).await
            }
            None => Ok(()),
        }
    };
    let ended = tokio::spawn(async move {
        let (here, far) = tokio::join!(here, far);
        here.and(far)
    });
    Ok(Api {
        stop,
        ended,
        nbd_tls,
    })
}

/// Ends everything. Where there is a service manager it keeps guests' connections for the next process.
async fn stop(config: &Config, host: &Host, api: Option<Api>, shards: Runtime) {
    notify::say(Notice::Stopping);
    let guests = io::has_service_manager();
    let begun = Instant::now();
    let (handed, rested) = end(host, api, shards, guests).await;
    if !handed.is_empty() {
        let kept = handover::pack(handed, rested).and_then(|packed| handover::keep(&packed));
        if let Err(error) = kept {
            tracing::warn!(%error, "systemd does not keep guests' connections: they connect again");
        }
    }
    remove_sockets(config);
    tracing::info!(ms = begun.elapsed().as_millis() as u64, "stopped");
}

/// Ends everything but what the next binary goes on with.
async fn make_way(host: &Host, api: Api, shards: Runtime, listeners: Listeners) -> Vec<Inherited> {
    notify::say(Notice::Reloading);
    let (handed, stopped) = end(host, Some(api), shards, true).await;
    let mut inherited = listeners.into_inherited();
    for more in [host.sockets_for_the_next(), handover::pack(handed, stopped)] {
        match more {
            Ok(more) => inherited.extend(more),
            Err(error) => {
                tracing::error!(%error, "some sockets or connections are not handed on: guests connect again");
            }
        }
    }
    inherited
}

/// Has the stores write out what they would otherwise write while guests wait.
async fn checkpoint(handle: &Handle) {
    match timeout(STORE_CHECKPOINT, handle.control(Control::Checkpoint)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(?error, "not all stores did checkpoint beforehand"),
        Err(_) => tracing::warn!("guests are stopped before all stores have done a checkpoint"),
    }
}

/// Ends everything in the order that loses no time at the next start. The connections of guests that are ready for the next
/// process, where `guests` are to be, and when they were stopped.
async fn end(
    host: &Host,
    api: Option<Api>,
    shards: Runtime,
    guests: bool,
) -> (Vec<Handed<OwnedFd>>, Time) {
    host.set_phase(Phase::Stopping);
    // Held until the shards have ended: what they still answer goes through it.
    let mut _nbd_tls = None;
    if let Some(Api {
        stop,
        ended,
        nbd_tls,
    }) = api
    {
        _nbd_tls = nbd_tls;
        // Where nobody listens to it any more, the API has ended already.
        let _ = stop.send(());
        match timeout(API_STOP, ended).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!(%error, "the API ended badly"),
            Ok(Err(error)) => tracing::error!(%error, "the API ended badly"),
            Err(_) => tracing::warn!("API requests were cut off"),
        }
    }
    let handle = shards.handle();
    if guests {
        checkpoint(&handle).await;
    }
    let stopped = clock::now();
    if guests {
        in_time(
            "stopping the guests",
            GUESTS_STOP,
            handle.hand_over_guests(),
        )
        .await;
    }
    // What waits for the next process should not wait for what that can do behind guests' backs.
    let how = match guests {
        true => Closing::Quick,
        false => Closing::Whole,
    };
    in_time("closing the stores", STORE_STOP, async {
        if let Err(error) = handle.control(Control::Close { how }).await {
            tracing::error!(?error, "not all stores did close");
        }
    })
    .await;
    let ended = tokio::task::spawn_blocking(move || shards.stop()).await;
    let handed = ended.unwrap_or_else(|error| {
        tracing::error!(%error, "the shards did not end well");
        Vec::new()
    });
    // What was in flight has ended under the lease; nothing changes the catalog any more: closed in good order, the next start need not repair it first.
    host.end_pilot().await;
    host.cluster().stop();
    if timeout(CATALOG_STOP, host.close_catalog()).await.is_err() {
        tracing::warn!("closing the catalog takes too long: the next start repairs its file");
    }
    tracing::info!(
        ms = clock::now().since(stopped).as_millis() as u64,
        guests = handed.len(),
        "guests, stores and shards have ended"
    );
    (handed, stopped)
}

async fn in_time(what: &str, limit: Duration, work: impl Future<Output = ()>) {
    if timeout(limit, work).await.is_err() {
        tracing::warn!("{what} takes too long: the next start will replay the journal");
    }
}

/// A socket that nobody answers should not look like a daemon. The next start replaces it anyway.
fn remove_sockets(config: &Config) {
    for path in [&config.api.socket, &config.nbd.socket] {
        remove(path);
    }
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "the socket was not removed");
        }
        _ => {}
    }
}

/// The signals that mean "end".
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> Result<Signals, StartError> {
        let of = |kind| signal(kind).map_err(|error| StartError::new("signals", error));
        Ok(Signals {
            term: of(SignalKind::terminate())?,
            int: of(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}
