//! The door: a node's cluster from its opening on. [`Cluster`] is there in every daemon, also in one that is alone.

use super::error::ClusterError;
use super::kept::{How, Kept};
use super::look::{self, Places, Seen};
use super::settings::{Protection, Settings};
use super::tend;
use super::view::View;
use super::wires::Wires;
use super::work::Work;
use crate::base::{ClusterId, NodeId};
use crate::calls::{self, Calls, Joining, Limits, Listening, Member, Security};
use crate::manager::{Manager, MembersError, Options, Start};
use crate::protocol::catalog::{Catalog, Command, MembersBy};
use crate::trust::{Authority, Clock, Credential, Grant, Identity, Keeper, NODE_LIFE, Root, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Where everything of the cluster is kept, in the daemon's folder.
const FOLDER: &str = "cluster";
/// The catalog of a node that founded the cluster, or is alone; and that of one that joined.
const FOUNDED_CATALOG: &str = "catalog.redb";
const JOINED_CATALOG: &str = "cluster.redb";
/// How long each address is given at a join.
const JOIN_WITHIN: Duration = Duration::from_secs(10);

/// A node's cluster. Clones are the same one.
#[derive(Clone)]
pub struct Cluster(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub settings: Option<Settings>,
    pub data_dir: PathBuf,
    pub folder: PathBuf,
    pub clock: Clock,
    pub wires: Arc<Wires>,
    pub manager: OnceLock<Manager>,
    pub kept: Mutex<Option<Kept>>,
    pub running: Mutex<Option<Running>>,
    pub seen: Mutex<BTreeMap<NodeId, Seen>>,
    /// Of this node.
    pub places: Mutex<Places>,
    /// Of this node.
    pub work: Mutex<Work>,
    /// Held over a founding or joining.
    changing: tokio::sync::Mutex<()>,
}

/// What there is as long as this node is of a cluster.
pub(super) struct Running {
    pub calls: Calls,
    pub keeper: Arc<Keeper>,
    pub authority: Option<Arc<Authority>>,
    /// Where others reach this node.
    pub reached_at: SocketAddr,
    /// Dropped, nobody is served any more.
    _listening: Listening,
    tasks: Vec<AbortHandle>,
}

impl Running {
    pub fn cluster(&self) -> ClusterId {
        self.keeper.cluster()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Locks; what is behind these locks is changed in single steps, so it is whole also where a holder panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came of founding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Founded {
    Now {
        cluster: ClusterId,
        at: SocketAddr,
    },
    /// It was there, and nothing has changed.
    Before {
        cluster: ClusterId,
        at: SocketAddr,
    },
}

/// A change of the manager's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersChange {
    pub after: BTreeSet<NodeId>,
    pub added: BTreeSet<NodeId>,
    pub removed: BTreeSet<NodeId>,
    /// Of `after`, who does not answer the node that was asked.
    pub silent: BTreeSet<NodeId>,
}

/// The nodes that are meant by names or numbers.
fn named(catalog: &Catalog, names: &[String]) -> Result<BTreeSet<NodeId>, ClusterError> {
    let node = |name: &String| {
        let by_name = catalog.node_named(name).map(|node| node.id);
        let by_number = || name.parse().ok().map(NodeId);
        let node = by_name.or_else(by_number);
        let node = node.filter(|node| catalog.node(*node).is_some());
        node.ok_or_else(|| ClusterError::NoNode(name.clone()))
    };
    names.iter().map(node).collect()
}

/// A token that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    pub token: String,
    /// When it ends, for people.
    pub expires: String,
    /// Whom a joiner asks: this node.
    pub address: String,
}

/// A join that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Join<'a> {
    /// A member, as `host:port`, that is tried before those of the token.
    pub address: &'a str,
    pub token: &'a str,
    /// The name that this node is to have.
    pub name: &'a str,
}

impl Cluster {
    /// What is kept in `data_dir`, under these settings. Nothing listens yet.
    pub fn open(
        settings: Option<Settings>,
        data_dir: &Path,
        clock: Clock,
    ) -> Result<Cluster, ClusterError> {
        let folder = data_dir.join(FOLDER);
        let kept = Kept::read(&folder)?;
        if kept.is_some() && settings.is_none() {
            let credential = Credential::open(&folder)?;
            return Err(ClusterError::Unconfigured {
                cluster: credential.root().cluster(),
                path: folder,
            });
        }
        Ok(Cluster(Arc::new(Inner {
            settings,
            data_dir: data_dir.into(),
            folder,
            clock,
            wires: Arc::default(),
            manager: OnceLock::new(),
            kept: Mutex::new(kept),
            running: Mutex::default(),
            seen: Mutex::default(),
            places: Mutex::default(),
            work: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
        })))
    }

    /// What the manager of this node is opened with.
    pub fn options(&self) -> Options {
        let alone = Options::alone(self.0.data_dir.join(FOUNDED_CATALOG));
        let transport = Arc::clone(&self.0.wires) as Arc<_>;
        let kept = lock(&self.0.kept).clone();
        let Some(kept) = kept else {
            return Options { transport, ..alone };
        };
        let seeds = kept.members.iter().map(|member| member.node).collect();
        match kept.how {
            How::Founded => Options {
                transport,
                seeds,
                ..alone
            },
            How::Joined => Options {
                path: self.0.data_dir.join(JOINED_CATALOG),
                start: Start::Join { node: kept.node },
                transport,
                seeds,
                ..alone
            },
        }
    }

    /// The node that this is; nothing where it is alone, and the catalog says it.
    pub fn node(&self) -> Option<NodeId> {
        lock(&self.0.kept).as_ref().map(|kept| kept.node)
    }

    /// The cluster's number, and what is said to other nodes; nothing where this node is alone, or its daemon is not started as one of the cluster.
    pub fn calls(&self) -> Option<(ClusterId, Calls)> {
        let running = lock(&self.0.running);
        let running = running.as_ref()?;
        Some((running.cluster(), running.calls.clone()))
    }

    /// Tells others from now on where links to this node lead.
    pub fn set_places(&self, places: Places) {
        *lock(&self.0.places) = places;
    }

    /// Where links to the others lead, as far as they answer.
    pub fn places(&self) -> Vec<(NodeId, Places)> {
        let seen = lock(&self.0.seen);
        let answering = seen.iter().filter(|(_, seen)| seen.silent.is_none());
        let places = answering.filter_map(|(node, seen)| Some((*node, seen.here.clone()?.places)));
        places.filter(|(_, places)| places.shards > 0).collect()
    }

    /// Speaks for this manager from now on. Where this node is of a cluster, listens, and tends to it.
    pub async fn start(&self, manager: Manager) -> Result<(), ClusterError> {
        // A second manager would be another daemon.
        let _ = self.0.manager.set(manager);
        let kept = lock(&self.0.kept).clone();
        let Some(kept) = kept else { return Ok(()) };
        let settings = self.0.settings()?;
        let listener = listen(settings.listens_at(Some(kept.port))).await?;
        self.0.begin(kept, listener)
    }

    /// Waits until this node's catalog has the node itself, for so long at most; whether it does.
    pub async fn has_catalog(&self, within: Duration) -> bool {
        let (Some(manager), Some(node)) = (self.0.manager.get(), self.node()) else {
            return true;
        };
        let mut watch = manager.watch();
        let has = || manager.catalog().node(node).is_some();
        let comes = async {
            while !has() {
                watch.next().await;
            }
        };
        timeout(within, comes).await.is_ok()
    }

    /// Makes a cluster of this node, which is its first; others may join from then on. Said again, it changes nothing.
    pub async fn found(&self) -> Result<Founded, ClusterError> {
        let _changing = self.0.changing.lock().await;
        let inner = &self.0;
        if let Some(running) = &*lock(&inner.running) {
            let (cluster, at) = (running.cluster(), running.reached_at);
            return Ok(Founded::Before { cluster, at });
        }
        let settings = inner.settings()?;
        let manager = inner.manager.get().ok_or(ClusterError::Alone)?;
        let node = manager.node();
        // First, because it is what fails most likely.
        let listener = listen(settings.listens_at(None)).await?;
        let at = listened(&listener, settings.listen)?;
        let authority = match Authority::is_in(&inner.folder) {
            true => Authority::open(&inner.folder, inner.clock.clone())?,
            false => {
                no_other(&inner.folder, None)?;
                Authority::create(&inner.folder, inner.clock.clone())?
            }
        };
        no_other(&inner.folder, Some(authority.root()))?;
        let credential =
            authority.credential(&Identity::Node(node), &inner.hosts(settings), NODE_LIFE)?;
        credential.save(&inner.folder)?;
        let kept = Kept::new(How::Founded, node, at.port(), Vec::new());
        kept.write(&inner.folder)?;
        let (cluster, reached_at) = (authority.root().cluster(), settings.reached_at(at.port()));
        inner.begin(kept, listener)?;
        // Tending says it again where it does not work now.
        if let Err(error) = tend::tell_address(manager, reached_at).await {
            tracing::warn!(%error, "the catalog does not know this node's address yet");
        }
        tracing::info!(%cluster, %reached_at, "a cluster is founded");
        Ok(Founded::Now {
            cluster,
            at: reached_at,
        })
    }

    /// Makes a token with which one machine may join.
    pub fn token(&self, life: Duration) -> Result<Issued, ClusterError> {
        let (authority, addresses) = self.issuer()?;
        let token = authority.token(Grant::Join, &addresses, life)?;
        Ok(Issued {
            expires: token.expires().to_string(),
            token: token.text(),
            address: addresses.into_iter().next().unwrap_or_default(),
        })
    }

    /// Makes this machine a node of the token's cluster, which counts from the next start of the daemon on. The caller has seen to it that
    /// its own catalog has nothing in it. Interrupted, it may be said again with the same token.
    pub async fn join(&self, asked: Join<'_>) -> Result<NodeId, ClusterError> {
        let _changing = self.0.changing.lock().await;
        let inner = &self.0;
        let settings = inner.settings()?;
        if let Some(running) = &*lock(&inner.running) {
            return Err(ClusterError::Member(running.cluster()));
        }
        if Authority::is_in(&inner.folder) {
            return Err(ClusterError::Mixed {
                path: Authority::path(&inner.folder),
                why: "a `sarsen cluster init` was begun on this node and not ended".into(),
            });
        }
        let token = Token::read(asked.token.trim())?;
        // The port is this node's until the daemon starts again.
        let listener = listen(settings.listens_at(None)).await?;
        let at = listened(&listener, settings.listen)?;
        let joining = Joining {
            token: &token,
            also: &[asked.address.to_owned()],
            name: asked.name,
            hosts: &inner.hosts(settings),
            addresses: &[settings.reached_at(at.port())],
            folder: &inner.folder,
            plain: settings.protection != Protection::MutualTls,
            clock: inner.clock.clone(),
            within: JOIN_WITHIN,
        };
        let joined = calls::join(&joining).await?;
        let kept = Kept::new(How::Joined, joined.node, at.port(), joined.members);
        kept.write(&inner.folder)?;
        let (cluster, node) = (joined.cluster, joined.node);
        tracing::info!(%cluster, %node, "joined a cluster; it counts from the next start on");
        *lock(&inner.kept) = Some(kept);
        Ok(node)
    }

    /// The cluster as this node sees it; nothing where it is alone.
    pub fn view(&self) -> Option<View> {
        self.0.view()
    }

    /// Why this node is one of the cluster no more; nothing where it is one.
    pub fn removed(&self) -> Option<String> {
        self.0.removed()
    }

    /// Makes these nodes, by name or number, the members of the manager. From then on nobody becomes one by itself.
    pub async fn set_members(&self, names: &[String]) -> Result<(), ClusterError> {
        let manager = self.manager_of_cluster()?;
        let catalog = manager.catalog();
        let nodes = named(&catalog, names)?;
        let before = catalog.members_by();
        drop(catalog);
        // First, or the leader could make others members in between.
        if before != MembersBy::Hand {
            let by = MembersBy::Hand;
            manager.propose(Command::ChooseMembers { by }).await?;
        }
        let set = manager.set_voters(nodes).await;
        if let (Err(MembersError::Refused(_)), MembersBy::Arrival) = (&set, before) {
            // What was refused names nobody.
            let by = before;
            if let Err(error) = manager.propose(Command::ChooseMembers { by }).await {
                tracing::warn!(%error, "no node becomes a member by itself any more");
            }
        }
        Ok(set?)
    }

    /// What [`Cluster::set_members`] would change, where nothing speaks against it as far as this node sees. Nothing is changed.
    pub async fn would_set_members(&self, names: &[String]) -> Result<MembersChange, ClusterError> {
        let manager = self.manager_of_cluster()?;
        let after = named(&manager.catalog(), names)?;
        let before = manager.members().voters;
        let silent = manager.may_set_voters(&after).await?;
        Ok(MembersChange {
            added: after.difference(&before).copied().collect(),
            removed: before.difference(&after).copied().collect(),
            after,
            silent,
        })
    }

    fn manager_of_cluster(&self) -> Result<Manager, ClusterError> {
        match (&*lock(&self.0.running), self.0.manager.get()) {
            (Some(_), Some(manager)) => Ok(manager.clone()),
            _ => Err(ClusterError::Alone),
        }
    }

    /// Serves nobody any more. The manager ends after it.
    pub fn stop(&self) {
        self.0.wires.set(None);
        let running = lock(&self.0.running).take();
        drop(running);
    }
}

impl Inner {
    pub fn settings(&self) -> Result<&Settings, ClusterError> {
        self.settings.as_ref().ok_or(ClusterError::NotConfigured)
    }

    /// What clients that look for a host find in this node's certificate.
    fn hosts(&self, settings: &Settings) -> Vec<String> {
        let at = settings.reached_at(0).ip();
        match at.is_unspecified() {
            true => Vec::new(),
            false => vec![at.to_string()],
        }
    }

    /// Speaks and listens as the node that is kept.
    fn begin(self: &Arc<Inner>, kept: Kept, listener: TcpListener) -> Result<(), ClusterError> {
        let settings = self.settings()?;
        let keeper = Keeper::open(&self.folder, &self.hosts(settings), self.clock.clone())?;
        let (cluster, node) = (keeper.cluster(), kept.node);
        if keeper.node() != Some(node) {
            let path = Credential::path(&self.folder);
            return Err(ClusterError::other_node(path, keeper.node(), node));
        }
        let security = match settings.protection {
            Protection::MutualTls => Security::MutualTls(Arc::clone(&keeper)),
            Protection::PlainLoopback => Security::PlainLoopback { cluster, node },
            Protection::Plain => Security::Plain { cluster, node },
        };
        let calls = Calls::new(security, Limits::default()).map_err(ClusterError::Calls)?;
        for member in kept.members.iter().filter(|member| member.node != node) {
            let known = calls.set_addresses(member.node, &member.addresses);
            known.map_err(|error| ClusterError::Calls(error.to_string()))?;
        }
        let authority = match Authority::is_in(&self.folder) {
            true => Some(Arc::new(Authority::open(&self.folder, self.clock.clone())?)),
            false => None,
        };
        self.serve(&calls);
        if let Some(authority) = &authority {
            self.serve_as_member(&calls, authority);
        }
        let at = listened(&listener, settings.listen)?;
        let listening = calls
            .listen(listener)
            .map_err(|error| ClusterError::Listen { address: at, error })?;
        let reached_at = settings.reached_at(at.port());
        tracing::info!(%cluster, %node, %at, %reached_at, "listening for other nodes");
        self.wires.set(Some(calls.clone()));
        let weak = Arc::downgrade(self);
        let tasks = [
            tokio::spawn(tend::tend(weak.clone(), calls.clone(), reached_at)).abort_handle(),
            tokio::spawn(look::look(weak.clone(), calls.clone())).abort_handle(),
            tokio::spawn(tend::renew(weak, calls.clone(), Arc::clone(&keeper))).abort_handle(),
        ];
        *lock(&self.kept) = Some(kept);
        *lock(&self.running) = Some(Running {
            calls,
            keeper,
            authority,
            reached_at,
            _listening: listening,
            tasks: tasks.to_vec(),
        });
        Ok(())
    }

    pub(super) fn names_of_members(&self) -> Vec<String> {
        let Some(manager) = self.manager.get() else {
            return Vec::new();
        };
        let catalog = manager.catalog();
        let name = |node: &NodeId| {
            let known = catalog.node(*node);
            known.map_or_else(|| node.to_string(), |node| node.name.clone())
        };
        manager.members().voters.iter().map(name).collect()
    }

    /// The members of the manager, with their addresses as far as the catalog has them.
    pub fn members_reached_at(&self) -> Vec<Member> {
        let Some(manager) = self.manager.get() else {
            return Vec::new();
        };
        let catalog = manager.catalog();
        let member = |id: &NodeId| {
            let node = catalog.node(*id)?;
            let addresses = tend::addresses(node);
            (!addresses.is_empty()).then_some(Member {
                node: *id,
                addresses,
            })
        };
        manager.members().voters.iter().filter_map(member).collect()
    }
}

/// Listens at `address`. Another process of this host that had it a moment ago is no obstacle.
async fn listen(address: SocketAddr) -> Result<TcpListener, ClusterError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| ClusterError::Listen { address, error })
}

fn listened(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, ClusterError> {
    let at = listener.local_addr();
    at.map_err(|error| ClusterError::Listen { address, error })
}

/// Whether the certificate in `folder`, if there is one, is of this authority.
fn no_other(folder: &Path, root: Option<&Root>) -> Result<(), ClusterError> {
    let path = Credential::path(folder);
    if !path.exists() {
        return Ok(());
    }
    let theirs = Credential::open(folder)?;
    let same = root.is_some_and(|root| root.fingerprint() == theirs.root().fingerprint());
    match same {
        true => Ok(()),
        false => Err(ClusterError::Mixed {
            path,
            why: format!(
                "it is a certificate of cluster {}: a `sarsen join` was begun on this node and not ended",
                theirs.root().cluster()
            ),
        }),
    }
}
