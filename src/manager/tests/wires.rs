//! A network in one process, with its faults, and the nodes on it.

use super::super::*;
use super::{Folder, run};
use crate::base::{NodeId, Prng};
use crate::protocol::catalog::{Catalog, Code, Command};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// How long a test waits for what has to come; the machine may be ten times slower than one thinks.
pub(super) const BOUND: Duration = Duration::from_secs(120);

/// What goes wrong, of each hundred calls.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub lost: u64,
    pub repeated: u64,
    pub delay_ms_max: u64,
}

struct Net {
    nodes: BTreeMap<NodeId, Manager>,
    /// From and to: nothing goes that way.
    cuts: BTreeSet<(NodeId, NodeId)>,
    faults: Faults,
    prng: Prng,
}

/// What all nodes hang on.
#[derive(Clone)]
pub(super) struct Wires(Arc<Mutex<Net>>);

/// One node's end.
struct Wire {
    me: NodeId,
    wires: Wires,
}

/// What happens to one call.
struct Fate {
    to: Option<Manager>,
    arrives: bool,
    is_repeated: bool,
    delay: Duration,
    back: Duration,
}

impl Wires {
    fn fate(&self, from: NodeId, to: NodeId) -> Fate {
        let mut net = self.0.lock().unwrap();
        let faults = net.faults;
        let mut ms = || Duration::from_millis(net.prng.below(faults.delay_ms_max + 1));
        let (delay, back) = (ms(), ms());
        Fate {
            to: net.nodes.get(&to).cloned(),
            arrives: !net.cuts.contains(&(from, to)) && net.prng.below(100) >= faults.lost,
            is_repeated: net.prng.below(100) < faults.repeated,
            delay,
            back,
        }
    }

    fn returns(&self, from: NodeId, to: NodeId) -> bool {
        let mut net = self.0.lock().unwrap();
        let lost = net.faults.lost;
        !net.cuts.contains(&(to, from)) && net.prng.below(100) >= lost
    }

    async fn carry(&self, from: NodeId, to: NodeId, body: Vec<u8>) -> Result<Vec<u8>, Unreachable> {
        let fate = self.fate(from, to);
        if !fate.arrives {
            std::future::pending::<()>().await;
        }
        sleep(fate.delay).await;
        let gone = || Unreachable::NotSent(format!("nobody listens at node {to}"));
        let manager = fate.to.ok_or_else(gone)?;
        if fate.is_repeated {
            let (again, body) = (manager.clone(), body.clone());
            tokio::spawn(async move {
                sleep(Duration::from_millis(10)).await;
                again.serve(from, &body).await
            });
        }
        // Goes on where the caller has given up.
        let served = tokio::spawn(async move { manager.serve(from, &body).await });
        let answer = served
            .await
            .map_err(|error| Unreachable::NoAnswer(error.to_string()))?;
        if !self.returns(from, to) {
            std::future::pending::<()>().await;
        }
        sleep(fate.back).await;
        Ok(answer)
    }
}

impl Transport for Wire {
    fn call(&self, to: NodeId, body: Vec<u8>, within: Duration) -> Calling<'_> {
        Box::pin(async move {
            assert!(body.len() <= MESSAGE_MAX);
            let carried = timeout(within, self.wires.carry(self.me, to, body)).await;
            carried.unwrap_or_else(|_| Err(Unreachable::NoAnswer("no answer in time".into())))
        })
    }
}

/// Nodes with files in a folder of their own, on one network.
pub(super) struct Site {
    folder: Folder,
    wires: Wires,
    up: BTreeMap<NodeId, Manager>,
}

pub(super) fn times() -> Times {
    Times {
        heartbeat: Duration::from_millis(100),
        election_max: Duration::from_millis(600),
        propose: Duration::from_secs(4),
        follow: Duration::from_millis(500),
    }
}

pub(super) fn nodes(ids: impl IntoIterator<Item = u32>) -> BTreeSet<NodeId> {
    ids.into_iter().map(NodeId).collect()
}

impl Site {
    /// Runs a story on a site of `count` nodes in the catalog, of which the first founds it and is the one member.
    pub fn run<F: Future<Output = ()>>(name: &str, count: u32, story: impl FnOnce(Site) -> F) {
        run(async {
            let site = Site::new(name, count).await;
            story(site).await;
        });
    }

    pub async fn new(name: &str, count: u32) -> Site {
        let net = Net {
            nodes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            faults: Faults::default(),
            prng: Prng::new(0x5eed),
        };
        let mut site = Site {
            folder: Folder::new(name),
            wires: Wires(Arc::new(Mutex::new(net))),
            up: BTreeMap::new(),
        };
        site.start(1, Start::Found).await;
        for id in 1..=count {
            let name = format!("n{id}");
            site.node(1)
                .propose(Command::AddNode { name })
                .await
                .unwrap();
        }
        let disk = super::commands().nth(1).expect("the second adds a disk");
        site.node(1).propose(disk).await.unwrap();
        for id in 2..=count {
            site.join(id).await;
        }
        site
    }

    /// With these members.
    pub async fn of_members(name: &str, count: u32, members: u32) -> Site {
        let site = Site::new(name, count).await;
        site.set_voters(1, nodes(1..=members)).await;
        site
    }

    /// Makes a volume at a node; again, where an election came in between.
    pub async fn put(&self, id: u32, name: &str) {
        let begun = Instant::now();
        loop {
            match self.node(id).propose(super::create(name)).await {
                Ok(_) => return,
                Err(ProposeError::Refused(refusal)) if refusal.code == Code::Exists => return,
                Err(ProposeError::Refused(refusal)) => panic!("{refusal}"),
                Err(error) => assert!(begun.elapsed() < BOUND, "{error}"),
            }
        }
    }

    /// Changes the members at a node; again, where an election came in between.
    pub async fn set_voters(&self, id: u32, voters: BTreeSet<NodeId>) {
        let begun = Instant::now();
        while let Err(error) = self.node(id).set_voters(voters.clone()).await {
            assert!(begun.elapsed() < BOUND, "{error}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn start(&mut self, id: u32, start: Start) {
        let node = NodeId(id);
        let manager = Manager::open_with(Options {
            path: self.folder.0.join(format!("node{id}")),
            start,
            transport: Arc::new(Wire {
                me: node,
                wires: self.wires.clone(),
            }),
            seeds: nodes(1..=3),
            times: times(),
        });
        let manager = manager.await.unwrap();
        let mut net = self.wires.0.lock().unwrap();
        net.nodes.insert(node, manager.clone());
        self.up.insert(node, manager);
    }

    /// Starts a node that was there before or is new, but for the first.
    pub async fn join(&mut self, id: u32) {
        let start = match id {
            1 => Start::Found,
            _ => Start::Join { node: NodeId(id) },
        };
        self.start(id, start).await;
    }

    pub fn node(&self, id: u32) -> &Manager {
        &self.up[&NodeId(id)]
    }

    pub fn up(&self) -> impl Iterator<Item = &Manager> {
        self.up.values()
    }

    /// As with a power cut of one node, but that its disk keeps what it was given.
    pub fn kill(&mut self, id: u32) {
        let node = NodeId(id);
        self.wires.0.lock().unwrap().nodes.remove(&node);
        let manager = self.up.remove(&node).expect("it is up");
        manager.shared.group.let_go();
    }

    pub fn cut(&self, from: u32, to: u32) {
        let mut net = self.wires.0.lock().unwrap();
        net.cuts.insert((NodeId(from), NodeId(to)));
    }

    /// Cuts a node off from all others, both ways.
    pub fn isolate(&self, id: u32) {
        for other in (1..=9).filter(|other| *other != id) {
            self.cut(id, other);
            self.cut(other, id);
        }
    }

    pub fn heal(&self) {
        let mut net = self.wires.0.lock().unwrap();
        net.cuts.clear();
        net.faults = Faults::default();
    }

    pub fn spoil(&self, faults: Faults) {
        self.wires.0.lock().unwrap().faults = faults;
    }

    /// The node that leads, once there is one that a majority confirms.
    pub async fn leader(&self) -> u32 {
        let mut found = 0;
        let begun = Instant::now();
        while found == 0 {
            assert!(begun.elapsed() < BOUND, "nobody leads");
            for manager in self.up() {
                let mut watch = manager.watch();
                while let Some(news) = watch.try_next() {
                    if let News::Leads { term } = news
                        && manager.confirm(term).await.is_ok()
                    {
                        found = manager.node().0;
                    }
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
        found
    }

    /// Waits until all nodes that are up show the same catalog, and gives it back.
    pub async fn settled(&self) -> Arc<Catalog> {
        let begun = Instant::now();
        loop {
            let leader = self.leader().await;
            let catalog = self.node(leader).catalog();
            if self.up().all(|manager| manager.catalog() == catalog) {
                return catalog;
            }
            assert!(
                begun.elapsed() < BOUND,
                "the nodes do not come to the same catalog"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Nodes hold the network and the network the nodes.
        self.wires.0.lock().unwrap().nodes.clear();
    }
}

/// Waits until something holds.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < BOUND, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
