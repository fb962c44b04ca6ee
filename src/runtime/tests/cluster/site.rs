//! Several nodes, joined. The tests decide what is so: who is leased, configured, linked, and who has the volume open.

use super::super::*;
use crate::base::{Epoch, NodeId, Time};
use crate::protocol::membership::Incarnation;
use crate::protocol::replication::{Configuration, Reconfigure};
use crate::protocol::volume::OpenVolume;
use crate::runtime::SaidReceiver;
use crate::runtime::links::{LinkId, Peer};
use crate::shard::fabric::Order;
use crate::shard::{Reach, Said, ShardNo, What};
use crate::wire::Version;
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

/// How long anything may take on a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// As many as a volume on one disk has in the other tests: so an alone node reads the same from one of the disks.
pub const PGS: u32 = 8;

/// One node, and what it was told.
pub struct Member {
    pub node: Node,
    pub id: NodeId,
    pub disks: Vec<DiskId>,
    said: SaidReceiver,
    heard: Vec<Said>,
    number: u64,
    shards: u16,
}

/// The two ends of a link: node, shard, and its name there.
#[derive(Debug, Clone, Copy)]
pub struct Wire {
    pub ends: [(usize, ShardNo, LinkId); 2],
}

/// All nodes.
pub struct Site {
    pub dir: TestDir,
    pub nodes: Vec<Member>,
    pub wires: Vec<Wire>,
    /// By the number of the PG.
    pub pgs: Vec<Configuration>,
}

/// What a site is like.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub nodes: usize,
    pub shards: u16,
    /// Of each node; they are spread over its shards.
    pub disks: usize,
    pub copies: usize,
    /// All replicas are on this node, one of each PG.
    pub only: Option<usize>,
}

pub fn plan(nodes: usize, shards: u16) -> Plan {
    Plan {
        nodes,
        shards,
        disks: usize::from(shards),
        copies: 2,
        only: None,
    }
}

impl Plan {
    pub fn only(self, place: usize) -> Plan {
        let only = Some(place);
        let copies = 1;
        Plan {
            copies,
            only,
            ..self
        }
    }
}

pub fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours, listener.accept().unwrap().0)
}

pub fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn disk_name(disk: DiskId) -> String {
    format!("disk{}", disk.0)
}

impl Member {
    fn start(dir: &TestDir, place: usize, plan: Plan) -> Member {
        let registry = Arc::new(Registry::default());
        let config = Config {
            shards: usize::from(plan.shards),
            buffer_bytes: 64 << 20,
            link_bytes: (32 << 20) * u64::from(plan.shards),
            cluster: Some(Incarnation(1)),
            ..Config::default()
        };
        let mut runtime = Runtime::start(config, Arc::clone(&registry)).unwrap();
        let said = runtime.said().expect("it is taken once");
        let handle = runtime.handle();
        let node = Node {
            runtime,
            handle,
            registry,
            pgs: Vec::new(),
        };
        let disk = |n: usize| DiskId(((place + 1) * 10 + n) as u32);
        let disks: Vec<DiskId> = (0..plan.disks).map(disk).collect();
        for &disk in &disks {
            wait(node.open_disk(disk, &dir.path(&disk_name(disk))));
        }
        let meta = meta(VOLUME_BYTES, &[1]);
        wait(node.handle.control(Control::PutVolume { meta })).unwrap();
        Member {
            node,
            id: NodeId(place as u32 + 1),
            disks,
            said,
            heard: Vec::new(),
            number: 0,
            shards: plan.shards,
        }
    }

    /// Gives the next order; its number.
    pub fn order(&mut self, order: Order) -> u64 {
        self.number += 1;
        self.node.handle.order(self.number, order);
        self.number
    }

    /// Waits until something was said that is wanted; it is not heard again.
    pub fn hears<T>(&mut self, what: &str, wanted: impl Fn(&Said) -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            while let Ok(said) = self.said.try_recv() {
                self.heard.push(said);
            }
            let found = self.heard.iter().position(|said| wanted(said).is_some());
            if let Some(found) = found {
                let said = self.heard.remove(found);
                return wanted(&said).expect("it was wanted");
            }
            assert!(since.elapsed() < PATIENCE, "{what}: {:?}", self.heard);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// All that was said since the last time.
    pub fn hears_all(&mut self) -> Vec<Said> {
        while let Ok(said) = self.said.try_recv() {
            self.heard.push(said);
        }
        std::mem::take(&mut self.heard)
    }

    /// Waits until every shard has said that since this order.
    pub fn all_say(&mut self, number: u64, what: What) {
        for shard in (0..self.shards).map(ShardNo) {
            self.hears("all shards say so", |said| {
                let is_it = said.shard == shard && said.upto >= number && said.what == what;
                is_it.then_some(())
            });
        }
    }

    pub fn handle(&self) -> Handle {
        self.node.handle.clone()
    }
}

impl Site {
    /// Nodes with their disks, linked and leased. Nobody has the volume open.
    pub fn start(plan: Plan) -> Site {
        let mut site = Site::unlinked(plan);
        for a in 0..plan.nodes {
            for b in a + 1..plan.nodes {
                site.join(a, b);
            }
        }
        site
    }

    pub fn unlinked(plan: Plan) -> Site {
        let dir = TestDir::new();
        for node in 1..=plan.nodes {
            for disk in 0..plan.disks {
                let disk = DiskId((node * 10 + disk) as u32);
                format_disk(&dir.path(&disk_name(disk)), DISK_BYTES);
            }
        }
        Site::again(dir, plan)
    }

    /// With disks that were there.
    pub fn again(dir: TestDir, plan: Plan) -> Site {
        let nodes: Vec<_> = (0..plan.nodes)
            .map(|place| Member::start(&dir, place, plan))
            .collect();
        let pg = |pg: usize| {
            let copy = |n: usize| {
                let disks = &nodes[plan.only.unwrap_or((pg + n) % plan.nodes)].disks;
                disks[pg / 2 % disks.len()]
            };
            Configuration::new((0..plan.copies).map(copy))
        };
        let pgs = (0..PGS as usize).map(pg).collect();
        let mut site = Site {
            dir,
            nodes,
            wires: Vec::new(),
            pgs,
        };
        for place in 0..plan.nodes {
            site.tell(place);
        }
        site
    }

    /// Tells a node what is so.
    fn tell(&mut self, place: usize) {
        let pgs = self.pgs.clone();
        let others: Vec<_> = (self.nodes.iter().enumerate())
            .filter(|(other, _)| *other != place)
            .map(|(_, other)| {
                let places = &other.node.handle.shared.places;
                let of = |&disk: &DiskId| (disk, places.disk(disk).unwrap());
                (other.id, other.disks.iter().map(of).collect())
            })
            .collect();
        let node = &mut self.nodes[place];
        for (id, disks) in others {
            wait(node.node.handle.peer_disks(id, disks));
        }
        for disk in node.disks.clone() {
            node.order(Order::Disk { disk });
        }
        node.order(Order::Layers {
            volume: VOLUME,
            layers: vec![(LayerId(1), None)],
        });
        for (pg, of) in pgs.into_iter().enumerate() {
            let pg = PgId(pg as u32);
            node.order(Order::Configured { pg, of });
        }
        let until = Time(u64::MAX);
        node.order(Order::Leased { until });
    }

    /// Links each shard of a node with each one of another, and says so.
    pub fn join(&mut self, a: usize, b: usize) {
        for i in 0..self.nodes[a].shards {
            for j in 0..self.nodes[b].shards {
                self.link((a, i), (b, j));
            }
        }
        self.connected(a, b);
    }

    pub fn connected(&mut self, a: usize, b: usize) {
        for (a, b) in [(a, b), (b, a)] {
            let disks = self.nodes[b].disks.clone();
            self.nodes[a].order(Order::Connected { disks });
        }
    }

    pub fn link(&mut self, a: (usize, u16), b: (usize, u16)) -> Wire {
        let (one, other) = tcp();
        self.link_by(a, b, (one, other))
    }

    pub fn link_by(
        &mut self,
        a: (usize, u16),
        b: (usize, u16),
        sockets: (TcpStream, TcpStream),
    ) -> Wire {
        let wire = link_by(&self.ends(a, b), sockets);
        self.wires.push(wire);
        wire
    }

    pub fn ends(&self, a: (usize, u16), b: (usize, u16)) -> [End; 2] {
        [(a, b), (b, a)].map(|(at, to)| End {
            place: at.0,
            handle: self.nodes[at.0].handle(),
            shard: ShardNo(at.1),
            peer: Peer {
                node: self.nodes[to.0].id,
                shard: ShardNo(to.1),
                version: Version::PRESENT,
            },
        })
    }

    /// Cuts all links between two nodes; returns when both sides know.
    pub fn cut(&mut self, a: usize, b: usize) {
        let is_between = |wire: &Wire| {
            let [one, other] = wire.ends.map(|end| end.0);
            (one, other) == (a, b) || (one, other) == (b, a)
        };
        for wire in self.wires.extract_if(.., |wire| is_between(wire)) {
            let (place, shard, link) = wire.ends[0];
            wait(self.nodes[place].node.handle.give_up_link(shard, link));
        }
        for (a, b) in [(a, b), (b, a)] {
            self.hears_link(a, b, Reach::Gone);
            let disks = self.nodes[b].disks.clone();
            self.nodes[a].order(Order::Disconnected { disks });
        }
    }

    /// Waits until all shards of a node have said so of another one.
    pub fn hears_link(&mut self, a: usize, b: usize, link: Reach) {
        let node = self.nodes[b].id;
        self.nodes[a].all_say(0, What::Link { node, link });
    }

    /// The volume is a node's under this epoch.
    pub fn open(&mut self, place: usize, host: u32) {
        let family = meta(VOLUME_BYTES, &[1]).family;
        let pgs: Vec<PgId> = (0..PGS).map(PgId).collect();
        let open = OpenVolume {
            id: VOLUME,
            family,
            layer: LayerId(1),
            size: VOLUME_BYTES,
            pgs: pgs
                .iter()
                .map(|&pg| (pg, Some(crate::base::DiskSlot(0))))
                .collect(),
        };
        let node = &mut self.nodes[place];
        let near = node.disks.iter().copied().collect();
        let epoch = Epoch {
            host,
            ..Epoch::default()
        };
        node.order(Order::Open { open, epoch, near });
        node.order(Order::Release { volume: VOLUME });
        wait((node.node.handle).serve_volume(VOLUME, family, VOLUME_BYTES, pgs));
    }

    /// Changes a PG's configuration, and tells everybody.
    pub fn change(&mut self, pg: usize, change: Reconfigure) {
        let of = &mut self.pgs[pg];
        of.apply(of.version(), change, 1).unwrap();
        let (pg, of) = (PgId(pg as u32), of.clone());
        for node in &mut self.nodes {
            let of = of.clone();
            node.order(Order::Configured { pg, of });
        }
    }

    pub fn read(&self, place: usize, offset: u64, len: u64) -> Vec<u8> {
        wait(self.nodes[place].node.handle.read(VOLUME, offset, len)).unwrap()
    }

    pub fn write(&self, place: usize, offset: u64, data: &[u8]) {
        wait((self.nodes[place].node.handle).write(VOLUME, offset, data.to_vec())).unwrap();
    }

    /// Ends all nodes as by a crash, which no acknowledged write may mind.
    pub fn stop(self) -> TestDir {
        for node in self.nodes {
            node.node.runtime.stop();
        }
        self.dir
    }
}

/// One end of a link that is to be.
#[derive(Clone)]
pub struct End {
    place: usize,
    handle: Handle,
    shard: ShardNo,
    peer: Peer,
}

pub fn link_by(ends: &[End; 2], sockets: (TcpStream, TcpStream)) -> Wire {
    let give = |end: &End, socket: TcpStream| {
        let link = wait(end.handle.link(end.shard, socket.into(), None, end.peer)).unwrap();
        (end.place, end.shard, link)
    };
    Wire {
        ends: [give(&ends[0], sockets.0), give(&ends[1], sockets.1)],
    }
}

/// What a disk has by itself, on a node that is alone with it.
pub fn alone(dir: &TestDir, disk: DiskId, read: impl FnOnce(&dyn Fn(u64, u64) -> Vec<u8>)) {
    let node = Node::start(&dir.path(&disk_name(disk)), VOLUME_BYTES);
    read(&|offset, len| wait(node.handle.read(VOLUME, offset, len)).unwrap());
    node.runtime.stop();
}
