//! Three nodes in one process: real calls over 127.0.0.1, real managers, real pilots, and shards that write down what they are ordered.

mod leases;
mod shelf;
mod volumes;

use super::*;
use crate::base::{ClusterId, DiskId, NodeId, StoreId, Time, VolumeId};
use crate::calls::{Calls, Limits, Listening, Security, Sent, Service};
use crate::io::clock;
use crate::manager::{
    Calling, Manager, Options, ProposeError, Start, Times, Transport, Unreachable,
};
use crate::protocol::catalog::{Command, Event, FrontEnd, Locality, Purpose, StoreName};
use crate::protocol::membership::{self, Incarnation};
use crate::protocol::placement::Level;
use crate::protocol::replication::Role as ReplicaRole;
use crate::protocol::steward;
use shelf::Recorder;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// How long anything may take that has to come about; the machine may be ten times slower than one thinks.
const BOUND: Duration = Duration::from_secs(120);
const CLUSTER: ClusterId = ClusterId([14; 16]);

/// A folder of a test, which goes with it.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Folder {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sarsen-pilot-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind in the temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Five times what is shipped, for a machine that does other things.
fn leases() -> membership::Parameters {
    let ms = Duration::from_millis;
    membership::Parameters {
        lease: ms(2_000),
        renewal: ms(200),
        retry: ms(100),
        round_trip: ms(50),
        election: ms(1_200),
        change: ms(500),
        outage: ms(5_000),
        hearing: ms(250),
        ..membership::Parameters::DEFAULT
    }
}

fn stewards() -> steward::Parameters {
    steward::Parameters {
        settle: Duration::from_millis(200),
        ..steward::Parameters::DEFAULT
    }
}

fn times() -> Times {
    Times {
        heartbeat: Duration::from_millis(100),
        election_max: Duration::from_millis(600),
        propose: Duration::from_secs(4),
        follow: Duration::from_millis(500),
    }
}

/// Calls as the manager's transport.
struct Wire(Calls);

impl Transport for Wire {
    fn call(&self, to: NodeId, body: Vec<u8>, within: Duration) -> Calling<'_> {
        Box::pin(async move {
            let answered = self.0.call_or_not(to, Service::Manager, body, within);
            answered.await.map_err(|(sent, error)| match sent {
                Sent::Not => Unreachable::NotSent(error.to_string()),
                Sent::Perhaps => Unreachable::NoAnswer(error.to_string()),
            })
        })
    }
}

/// A node that is up.
struct Up {
    calls: Calls,
    listening: Listening,
    manager: Manager,
    pilot: Option<Pilot>,
    shards: Arc<Recorder>,
}

/// Three nodes, and what survives a node's end.
struct Site {
    folder: Folder,
    up: BTreeMap<u32, Up>,
    shelves: BTreeMap<u32, BTreeMap<DiskId, crate::store::Openings>>,
    addresses: BTreeMap<NodeId, SocketAddr>,
}

fn run(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(story);
}

impl Site {
    /// Three nodes, all of them members, with pilots.
    async fn new(name: &str) -> Site {
        let mut site = Site::begun(name).await;
        for node in 1..=3 {
            site.pilot(node);
        }
        site
    }

    /// The same without pilots.
    async fn begun(name: &str) -> Site {
        let mut site = Site {
            folder: Folder::new(name),
            up: BTreeMap::new(),
            shelves: BTreeMap::new(),
            addresses: BTreeMap::new(),
        };
        site.begin(1).await;
        for node in 1..=3 {
            let name = format!("n{node}");
            site.propose(Command::AddNode { name }).await;
        }
        for node in [2, 3] {
            site.begin(node).await;
        }
        site.set_members([1, 2, 3]).await;
        site
    }

    fn path(&self, node: u32) -> PathBuf {
        let path = self.folder.path().join(format!("node{node}"));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Starts a node, without a pilot.
    async fn begin(&mut self, id: u32) {
        let node = NodeId(id);
        let cluster = CLUSTER;
        let calls =
            Calls::new(Security::PlainLoopback { cluster, node }, Limits::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listening = calls.listen(listener).unwrap();
        for (other, address) in &self.addresses {
            calls.set_addresses(*other, &[*address]).unwrap();
        }
        for up in self.up.values() {
            up.calls
                .set_addresses(node, &[listening.address()])
                .unwrap();
        }
        self.addresses.insert(node, listening.address());
        let options = Options {
            path: self.path(id).join("catalog"),
            start: match id {
                1 => Start::Found,
                _ => Start::Join { node },
            },
            transport: Arc::new(Wire(calls.clone())),
            seeds: (1..=3).map(NodeId).collect(),
            times: times(),
        };
        let manager = Manager::open_with(options).await.unwrap();
        let serves = manager.clone();
        calls.handle(Service::Manager, move |caller, body| {
            let manager = serves.clone();
            async move { Ok(manager.serve(caller.node.unwrap(), &body).await) }
        });
        let kept = self.shelves.remove(&id).unwrap_or_default();
        let up = Up {
            calls,
            listening,
            manager,
            pilot: None,
            shards: Arc::new(Recorder::new(kept)),
        };
        self.up.insert(id, up);
    }

    /// Gives a node that is up its pilot.
    fn pilot(&mut self, id: u32) {
        self.pilot_with(id, Arc::new(clock::now));
    }

    fn pilot_with(&mut self, id: u32, clock: Arc<dyn Fn() -> Time + Send + Sync>) {
        let path = self.path(id);
        let up = self.up.get_mut(&id).expect("it is up");
        let catalog = up.manager.catalog();
        let recorded = catalog.node(NodeId(id)).map(|node| node.incarnation);
        let incarnation = next_start(&path, recorded.unwrap_or_default()).unwrap();
        let (says, said) = mpsc::channel(1_024);
        up.shards.speaks(says);
        let pilot = Pilot::start(Parts {
            manager: up.manager.clone(),
            calls: up.calls.clone(),
            incarnation,
            shards: Arc::clone(&up.shards),
            said,
            clock,
            leases: leases(),
            steward: stewards(),
        });
        up.pilot = Some(pilot.unwrap());
    }

    /// Ends a node: nobody hears of it any more, and its disks keep what they had.
    async fn kill(&mut self, id: u32) {
        let up = self.up.remove(&id).expect("it is up");
        let Up {
            calls,
            listening,
            manager,
            pilot,
            shards,
        } = up;
        drop(listening);
        calls.stop_handling(Service::Manager);
        for other in 1..=3 {
            calls.forget(NodeId(other));
        }
        if let Some(pilot) = pilot {
            pilot.end().await;
        }
        manager.end().await;
        self.shelves.insert(id, shards.openings());
    }

    fn node(&self, id: u32) -> &Up {
        &self.up[&id]
    }

    fn view(&self, id: u32) -> View {
        let pilot = self.node(id).pilot.as_ref();
        pilot.expect("it has a pilot").view()
    }

    fn shards(&self, id: u32) -> &Recorder {
        &self.node(id).shards
    }

    /// Asks any node for a change; again, where an election came in between.
    async fn propose(&self, command: Command) -> Vec<Event> {
        let begun = Instant::now();
        loop {
            let up = self.up.values().next().expect("a node is up");
            match up.manager.propose(command.clone()).await {
                Ok(events) => return events,
                Err(ProposeError::Refused(refusal)) => panic!("{refusal}"),
                Err(error) => assert!(begun.elapsed() < BOUND, "{error}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn set_members(&self, members: impl IntoIterator<Item = u32>) {
        let voters: BTreeSet<NodeId> = members.into_iter().map(NodeId).collect();
        let begun = Instant::now();
        let up = self.up.values().next().expect("a node is up");
        while let Err(error) = up.manager.set_voters(voters.clone()).await {
            assert!(begun.elapsed() < BOUND, "{error}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until something holds; else tells how all nodes stand.
    async fn eventually(&self, what: &str, mut holds: impl FnMut(&Site) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            if begun.elapsed() > BOUND {
                for (id, up) in &self.up {
                    let view = up.pilot.as_ref().map(Pilot::view);
                    eprintln!("node {id}: {view:#?}\n{:#?}", up.shards.orders());
                }
                panic!("it never came about that {what}");
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn is_leased(&self, id: u32) -> bool {
        self.view(id).lease.is_held(clock::now())
    }

    async fn all_leased(&self) {
        let all: Vec<u32> = self.up.keys().copied().collect();
        self.all_leased_of(&all).await;
    }

    async fn all_leased_of(&self, nodes: &[u32]) {
        let all = |site: &Site| nodes.iter().all(|&id| site.is_leased(id));
        self.eventually("every node holds a lease", all).await;
    }

    /// Who leads, once all that are up agree on it.
    async fn leader(&self) -> u32 {
        let mut found = 0;
        let agreed = |site: &Site| {
            let leads = |id: &&u32| matches!(site.view(**id).role, Role::Leads(_));
            found = site.up.keys().find(leads).copied().unwrap_or_default();
            let leader = Some(NodeId(found));
            let follows = |id: &u32| *id == found || site.view(*id).role == Role::Follows(leader);
            found != 0 && site.up.keys().all(follows)
        };
        self.eventually("all know who leads", agreed).await;
        found
    }

    /// A pool of two copies with a disk at each node, which are opened; and its placement groups.
    async fn disks(&self) -> Vec<DiskId> {
        self.propose(Command::CreatePool {
            name: "two".into(),
            copies: 2,
            min_copies: 1,
            level: Level::Node,
        })
        .await;
        let mut disks = Vec::new();
        for id in 1..=3 {
            let events = self.propose(Command::AddDisk {
                node: NodeId(id),
                path: format!("/srv/disk{id}"),
                store: StoreName(StoreId([id as u8; 16])),
                size: 1 << 30,
                pool: Some("two".into()),
                incarnation: Incarnation(0),
            });
            let events = events.await;
            let disk = events.iter().find_map(|event| match event {
                Event::DiskAdded { disk, .. } => Some(disk.id),
                _ => None,
            });
            let disk = disk.unwrap();
            self.found(id, disk).await;
            disks.push(disk);
        }
        for (id, &disk) in (1..=3).zip(&disks) {
            let serves = |site: &Site| site.shards(id).serves(disk);
            self.eventually("a disk is opened, recorded and serves", serves)
                .await;
        }
        let laid_out = |site: &Site| site.node(1).manager.catalog().pgs().next().is_some();
        self.eventually("the pool has placement groups", laid_out)
            .await;
        disks
    }

    /// Tells a node's pilot of a disk with what its shelf has kept.
    async fn found(&self, id: u32, disk: DiskId) {
        let up = self.node(id);
        let kept = up.shards.openings().get(&disk).copied();
        let pilot = up.pilot.as_ref().unwrap();
        pilot.disk_found(disk, kept.unwrap_or_default()).await;
    }

    async fn create(&self, name: &str) -> VolumeId {
        let events = self.propose(Command::CreateVolume {
            name: name.into(),
            size: 64 << 20,
            block_size: 4096,
            purpose: Purpose::Use,
            pool: Some("two".into()),
            locality: Locality::Spread,
        });
        match &events.await[..] {
            [Event::VolumeCreated { volume }, ..] => volume.id,
            other => panic!("{other:?}"),
        }
    }

    async fn attach(&self, volume: VolumeId, id: u32) {
        self.propose(Command::Attach {
            volume,
            node: NodeId(id),
            front_end: FrontEnd::Ublk {
                device: None,
                queues: 1,
            },
        })
        .await;
    }

    async fn detach(&self, volume: VolumeId) {
        let key = None;
        self.propose(Command::Detach { volume, key }).await;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Managers serve calls, and call by them.
        for up in self.up.values() {
            up.calls.stop_handling(Service::Manager);
        }
    }
}
