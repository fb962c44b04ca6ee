//! A daemon's life: start, serve, stop.

use super::config::Config;
use super::notify::{self, Notice};
use super::start::{self, StartError};
use crate::api::host::{Host, Phase};
use crate::io::Inherited;
use crate::observe::Registry;
use crate::runtime::{Handle, Runtime};
use crate::shard::Control;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long API requests that are being answered may take at the end.
const API_STOP: Duration = Duration::from_millis(500);
/// How long stores may take to drain and checkpoint. What is not closed by then is cut off as by a crash, which
/// loses nothing and costs the next start a replay.
const STORE_STOP: Duration = Duration::from_secs(4);

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
    config
        .check()
        .map_err(|(key, reason)| StartError::new("config", format!("{key}: {reason}")))?;
    // Before there is another thread.
    let inherited = crate::io::take_inherited();
    start::log(&config)?;
    tokio_uring::start(live(config, inherited, ready))
}

async fn live(
    config: Config,
    inherited: Vec<Inherited>,
    ready: impl FnOnce(Ready<'_>),
) -> Result<(), StartError> {
    // Signals from here on are a wish to stop, also during the start.
    let mut signals = Signals::new()?;
    start::data_dir(&config.data_dir)?;
    let (manager, node) = start::catalog(&config).await?;
    let registry = Arc::new(Registry::default());
    let (shards, notes) = start::shards(&config, &registry)?;
    let handle = shards.handle();
    let known = (manager.clone(), node);
    let host = start::host(&config, known, handle.clone(), registry, inherited)?;
    let noting = host.clone();
    tokio::spawn(async move { noting.take_notes(notes).await });
    let watching = host.clone();
    tokio::spawn(async move { watching.watch_space().await });
    let watching = host.clone();
    tokio::spawn(async move { watching.watch_attachments().await });
    tokio::spawn(notify::live_signs(handle.clone()));

    let started = tokio::select! {
        started = serve(&config, &manager, &host, &handle) => started,
        name = signals.next() => {
            tracing::info!(signal = name, "stopping during the start");
            stop_or_end(&config, &mut signals, stop(&config, &host, None, shards)).await;
            return Ok(());
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

    let name = signals.next().await;
    tracing::info!(signal = name, "stopping");
    stop_or_end(
        &config,
        &mut signals,
        stop(&config, &host, Some(api), shards),
    )
    .await;
    Ok(())
}

/// Stops in good order, unless it is told once more to end: then at once, as by a crash, which loses nothing.
async fn stop_or_end(config: &Config, signals: &mut Signals, stop: impl Future<Output = ()>) {
    tokio::select! {
        () = stop => {}
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
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// Opens what the catalog knows, then lets clients in.
async fn serve(
    config: &Config,
    manager: &crate::manager::Manager,
    host: &Host,
    handle: &Handle,
) -> Result<Api, StartError> {
    start::disks(config, manager, host).await?;
    host.take_up_attachments().await;
    let listener = start::api(config)?;
    start::nbd(config, handle).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let until = async {
        // A sender that is dropped means the same as one that is used.
        let _ = stopped.await;
    };
    let ended = tokio::spawn(crate::api::serve(listener, host.clone(), until));
    Ok(Api { stop, ended })
}

/// Ends everything in the order that loses no time at the next start.
async fn stop(config: &Config, host: &Host, api: Option<Api>, shards: Runtime) {
    let begun = Instant::now();
    host.set_phase(Phase::Stopping);
    notify::say(Notice::Stopping);
    if let Some(Api { stop, ended }) = api {
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
    in_time("closing the stores", STORE_STOP, async {
        if let Err(error) = handle.control(Control::Close).await {
            tracing::error!(?error, "not all stores did close");
        }
    })
    .await;
    if tokio::task::spawn_blocking(move || shards.stop())
        .await
        .is_err()
    {
        tracing::error!("the shards did not end well");
    }
    remove_sockets(config);
    tracing::info!(ms = begun.elapsed().as_millis() as u64, "stopped");
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
