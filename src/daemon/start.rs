//! The parts of a daemon, in the order in which they start.

use super::config::{Config, VhostUser};
use super::listeners::Listeners;
use super::nbd_tls;
use crate::api::host::{FrontEnds, HandedOver, Host, KernelDevices, Parts, Sockets};
use crate::api::model::{DiskAdd, ErrorBody};
use crate::base::NodeId;
use crate::cluster::{Cluster, ClusterError};
use crate::io::Inherited;
use crate::manager::{Manager, ProposeError};
use crate::observe::{Registry, start_logs};
use crate::pilot::Pilot;
use crate::protocol::catalog::{Command, DEFAULT_POOL};
use crate::protocol::membership::Incarnation;
use crate::runtime::{self, Handle, Notes, Runtime};
use crate::trust::Clock;
use std::fmt;
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};

/// Memory of each shard of a node of a cluster for what peers send, in bytes: of eight links with full credit, or of more with less.
const LINK_BYTES: u64 = 64 << 20;

/// Why a daemon did not start: in which step, and what to do.
#[derive(Debug)]
pub struct StartError {
    pub step: &'static str,
    pub reason: String,
}

impl StartError {
    pub(super) fn new(step: &'static str, reason: impl fmt::Display) -> StartError {
        StartError {
            step,
            reason: reason.to_string(),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.reason)
    }
}

impl std::error::Error for StartError {}

/// Where log lines go: standard error, which systemd keeps.
pub(super) fn log(config: &Config) -> Result<(), StartError> {
    let named = std::env::var("SARSEN_LOG").ok();
    let filter = named.as_deref().unwrap_or(&config.log.level);
    start_logs(config.log.format.into(), filter).map_err(|error| StartError::new("log", error))
}

/// Whether this could start with that configuration, as far as shows while another process runs with it.
pub(super) fn check(config: &Config) -> Result<(), StartError> {
    config
        .check()
        .map_err(|(key, reason)| StartError::new("config", format!("{key}: {reason}")))?;
    group(config)?;
    group_of("vhost_user.group", config.vhost_user.group.as_deref())?;
    Ok(())
}

/// The folder of the catalog. Nobody else has business in it.
pub(super) fn data_dir(path: &Path) -> Result<(), StartError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| StartError::new("data_dir", format!("{}: {error}", path.display())))
}

/// What this node knows of its cluster, if it is of one.
pub(super) fn cluster(config: &Config) -> Result<Cluster, StartError> {
    let section = config.cluster.as_ref();
    let settings = section.map(|section| section.settings(&config.file));
    let opened = Cluster::open(settings, &config.data_dir, Clock::system());
    opened.map_err(|error| cluster_error(config, &error))
}

fn cluster_error(config: &Config, error: &ClusterError) -> StartError {
    let mut reason = error.to_string();
    for more in [error.cure(), &config.file.display().to_string()] {
        if !more.is_empty() {
            reason = format!("{reason}; {more}");
        }
    }
    StartError::new("cluster", reason)
}

/// The catalog, and this node in it. A node of a cluster speaks to the others when this returns; what the catalog has may be
/// known only later.
pub(super) async fn catalog(
    config: &Config,
    cluster: &Cluster,
) -> Result<(Manager, NodeId), StartError> {
    let opened = Manager::open_with(cluster.options()).await;
    let manager = opened.map_err(|error| StartError::new("catalog", error))?;
    let started = cluster.start(manager.clone()).await;
    started.map_err(|error| cluster_error(config, &error))?;
    match cluster.node() {
        Some(node) => Ok((manager, node)),
        None => alone(config, manager).await,
    }
}

/// The node that this is in the catalog of a cluster, once that is known: the same checks as for one that is alone, but that nothing is
/// changed for all of the cluster.
pub(super) fn check_known(
    config: &Config,
    manager: &Manager,
    node: NodeId,
) -> Result<(), StartError> {
    let catalog = manager.catalog();
    let Some(node) = catalog.node(node) else {
        return Ok(());
    };
    check_name(config, &node.name)?;
    let pool = catalog.pool_named(DEFAULT_POOL);
    let is = pool.map(|pool| pool.overcommit_percent);
    if let Some(wanted) = config
        .overcommit_percent
        .filter(|wanted| Some(*wanted) != is)
    {
        tracing::warn!(
            wanted,
            is,
            "overcommit_percent is the whole cluster's, and is not changed by one node's configuration"
        );
    }
    Ok(())
}

fn check_name(config: &Config, is: &str) -> Result<(), StartError> {
    match config.node.as_deref().filter(|named| *named != is) {
        None => Ok(()),
        Some(named) => {
            let reason = format!("this node is {is}, and cannot become {named}");
            Err(StartError::new("node", reason))
        }
    }
}

async fn alone(config: &Config, manager: Manager) -> Result<(Manager, NodeId), StartError> {
    let refused = |error: ProposeError| StartError::new("catalog", error);
    if manager.catalog().nodes().next().is_none() {
        let name = node_name(config);
        manager
            .propose(Command::AddNode { name })
            .await
            .map_err(refused)?;
    }
    let catalog = manager.catalog();
    // It is the only one.
    let Some(node) = catalog.nodes().next() else {
        return Err(StartError::new("catalog", "it has no node"));
    };
    check_name(config, &node.name)?;
    let pool = catalog.pool_named(DEFAULT_POOL);
    if let Some(percent) = config.overcommit_percent
        && pool.is_some_and(|pool| pool.overcommit_percent != percent)
    {
        let pool = DEFAULT_POOL.into();
        manager
            .propose(Command::SetOvercommit { pool, percent })
            .await
            .map_err(refused)?;
    }
    Ok((manager, node.id))
}

/// The host's name, or what of it may be a node's.
fn node_name(config: &Config) -> String {
    if let Some(name) = &config.node {
        return name.clone();
    }
    // Where even the kernel does not tell, the node still gets a name.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = host.chars().filter(allowed).take(64).collect();
    match name.trim_start_matches(['-', '.']) {
        "" => "node".into(),
        name => name.to_owned(),
    }
}

/// The shards, which serve nothing yet.
pub(super) fn shards(
    config: &Config,
    registry: &Arc<Registry>,
    cluster: Option<Incarnation>,
) -> Result<(Runtime, Notes), StartError> {
    let links = cluster.map_or(0, |_| LINK_BYTES * config.shards as u64);
    let wanted = runtime::Config {
        cluster,
        link_bytes: links,
        shards: config.shards,
        pin: config.pin.clone(),
        buffer_bytes: config.memory,
        ..runtime::Config::default()
    };
    let started = Runtime::start(wanted, Arc::clone(registry));
    let mut shards = started.map_err(|error| StartError::new("shards", error))?;
    let Some(notes) = shards.notes() else {
        return Err(StartError::new("shards", "their notes are taken already"));
    };
    Ok((shards, notes))
}

/// The host over the catalog and the shards.
pub(super) fn host(
    config: &Config,
    (manager, node): (Manager, NodeId),
    (cluster, pilot): (Cluster, Option<Arc<Pilot>>),
    runtime: Handle,
    registry: Arc<Registry>,
    inherited: Vec<Inherited>,
    handed: HandedOver,
) -> Result<Host, StartError> {
    let VhostUser { dir, group, mode } = &config.vhost_user;
    let group = group_of("vhost_user.group", group.as_deref())?;
    let front_ends = FrontEnds {
        guests: Arc::new(runtime.clone()),
        devices: Arc::new(KernelDevices::new(runtime.clone(), &config.data_dir)),
        sockets: Sockets::new(dir, *mode, group, inherited),
        handed,
    };
    Ok(Host::new(Parts {
        manager,
        cluster,
        pilot,
        name: node_name(config),
        runtime,
        registry,
        front_ends,
        node,
        nbd_socket: config.nbd.socket.clone(),
        // Half of the memory is for journaled payload, shared by four disks; the rest is for requests.
        overlay_bytes: config.memory / 8,
    }))
}

/// The disks and volumes. Disks of the configuration are added until the first volume was created: from then
/// on a disk that the catalog does not know is a mistake rather than a first start that was cut short.
pub(super) async fn disks(
    config: &Config,
    (manager, node): (&Manager, NodeId),
    host: &Host,
) -> Result<(), StartError> {
    let failed = |error: ErrorBody| StartError::new("disk", error);
    host.open_all().await.map_err(failed)?;
    let catalog = manager.catalog();
    let known = |path: &str| catalog.disks_of(node).any(|disk| disk.path == path);
    for disk in &config.disks {
        let path = disk.path.display().to_string();
        if known(&path) {
            continue;
        }
        if catalog.volumes_ever() > 0 {
            tracing::warn!(
                path,
                "the catalog does not know this disk: use `sarsen disk add`"
            );
            continue;
        }
        let size_bytes = disk.size.filter(|_| must_be_sized(&disk.path));
        let pool = None;
        let add = DiskAdd {
            path,
            size_bytes,
            pool,
            dry_run: false,
        };
        host.add_disk(add).await.map_err(failed)?;
    }
    if manager.catalog().disks_of(node).next().is_none() {
        tracing::warn!("there is no disk: add one with `sarsen disk add`");
    }
    Ok(())
}

/// Whether the size in the configuration is needed: for a file that is not there, or is empty. One that is
/// there keeps its own, so that the configuration stays right when the disk has grown.
fn must_be_sized(path: &Path) -> bool {
    std::fs::metadata(path).map_or(true, |found| found.is_file() && found.len() == 0)
}

/// The sockets of front ends.
pub(super) async fn nbd(
    config: &Config,
    listeners: &mut Listeners,
    runtime: &Handle,
) -> Result<(), StartError> {
    for socket in listeners.nbd(config)? {
        let listens = runtime.listen(socket).await;
        listens.map_err(|error| StartError::new("nbd", error))?;
    }
    Ok(())
}

/// NBD under TLS, where it is wished for; it ends when this is dropped. Before the others.
pub(super) fn nbd_tls(
    config: &Config,
    listeners: &mut Listeners,
    cluster: &Cluster,
    runtime: &Handle,
) -> Result<Option<nbd_tls::Serving>, StartError> {
    let Some(listen) = config.nbd.listen_tls() else {
        return Ok(None);
    };
    let Some(keeper) = cluster.keeper() else {
        tracing::warn!(%listen, "nbd.listen is served when this node is of a cluster: `sarsen cluster init` makes one, `sarsen join` joins one");
        return Ok(None);
    };
    let Some(socket) = listeners.nbd_tls(config)? else {
        return Ok(None);
    };
    let serving = nbd_tls::serve(socket.into(), cluster.clone(), keeper, runtime.clone());
    let serving = serving.map_err(|error| StartError::new("nbd.listen", error))?;
    Ok(Some(serving))
}

/// The API's socket.
pub(super) fn api(config: &Config, listeners: &mut Listeners) -> Result<UnixListener, StartError> {
    let failed = |error: std::io::Error| StartError::new("api.socket", error);
    let listener = std::os::unix::net::UnixListener::from(listeners.api(config)?);
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map_err(failed)
}

/// The API's on TCP, where one is wished for.
pub(super) fn api_tcp(
    config: &Config,
    listeners: &mut Listeners,
) -> Result<Option<TcpListener>, StartError> {
    let failed = |error: std::io::Error| StartError::new("api.listen", error);
    let Some(socket) = listeners.api_tcp(config)? else {
        return Ok(None);
    };
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true).map_err(failed)?;
    TcpListener::from_std(listener).map(Some).map_err(failed)
}

/// A unix socket that listens for who is in the API's group.
pub(super) fn unix(
    config: &Config,
    path: &Path,
    step: &'static str,
) -> Result<OwnedFd, StartError> {
    if let Some(folder) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(|error| StartError::new(step, format!("{}: {error}", folder.display())))?;
    }
    let (mode, group) = (config.api.mode, group(config)?);
    crate::io::listen_unix(path, mode, group).map_err(|error| StartError::new(step, error))
}

/// The group that may open the sockets. Where it does not exist, they are the daemon's user's alone.
fn group(config: &Config) -> Result<Option<u32>, StartError> {
    group_of("api.group", config.api.group.as_deref())
}

fn group_of(key: &'static str, name: Option<&str>) -> Result<Option<u32>, StartError> {
    let Some(name) = name else {
        return Ok(None);
    };
    let found = nix::unistd::Group::from_name(name);
    let found = found.map_err(|error| StartError::new(key, format!("{name}: {error}")))?;
    if found.is_none() {
        tracing::warn!(
            key,
            group = name,
            "there is no such group: only this user reaches the sockets"
        );
    }
    Ok(found.map(|group| group.gid.as_raw()))
}
