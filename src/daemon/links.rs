//! Links between the shards of this node and those of others: one for each two, made by the node with the lower number, and given to the shards on both sides.
//!
//! ```text
//!   lower node                                            higher node
//!   looks at who answers, and which links there are
//!   calls.link(node, shard) ══ TLS, or plain ═══════════► calls.links()
//!   hello, own shard  ─────────────────────────────────►
//!                     ◄───────────────────────────────── hello, own shard
//!   to its shard                                          to the shard that was dialled
//! ```
//!
//! Nothing is remembered of what should be there: four times a second it is looked at which links are missing. Where the disks of a node are is told to the shards
//! before a link to it is given to them.

use super::fleet::Start;
use crate::base::{DiskId, NodeId};
use crate::calls::{self, Calls, LinkCover};
use crate::cluster::{Cluster, Places};
use crate::io;
use crate::runtime::Handle;
use crate::runtime::links::{Cover, Peer};
use crate::shard::ShardNo;
use crate::wire::{HELLO_LEN, Hello, VERSION_MAX, VERSION_MIN, agree_with};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Between two looks at what is missing.
const EVERY: Duration = Duration::from_millis(250);
/// How long a link may take until it is given to its shard.
const WITHIN: Duration = Duration::from_secs(2);
/// How long a peer's kernel may be silent.
const DEAD_AFTER: Duration = Duration::from_secs(6);
/// Links that are being made because others asked, at most.
const ACCEPTED_MAX: usize = 256;
/// Bytes behind a hello: the shard that speaks, and its complement.
const SHARD_LEN: usize = 4;

/// A link that is to be: own shard, node, its shard.
type Wanted = (ShardNo, NodeId, ShardNo);

/// Makes links for as long as the node is one of the cluster.
pub(super) async fn keep(cluster: Cluster, calls: Calls, handle: Handle, start: Start) {
    let maker = Maker { handle, start };
    let mut accepted = calls.links();
    let (mut dialling, mut accepting) = (Dialling::default(), JoinSet::new());
    let mut told = BTreeMap::new();
    loop {
        tokio::select! {
            Some(link) = accepted.recv(), if accepting.len() < ACCEPTED_MAX => {
                let maker = maker.clone();
                accepting.spawn(async move { maker.accept(link).await });
            }
            Some(_) = accepting.join_next(), if !accepting.is_empty() => {}
            Some(ended) = dialling.tasks.join_next(), if !dialling.tasks.is_empty() => {
                if let Ok(wanted) = ended {
                    dialling.wanted.remove(&wanted);
                }
            }
            () = sleep(EVERY) => {
                let places = cluster.places();
                maker.tell_disks(&places, &mut told).await;
                maker.dial_missing(&calls, &places, &mut dialling).await;
            }
        }
        if cluster.calls().is_none() {
            break;
        }
    }
}

#[derive(Default)]
struct Dialling {
    wanted: BTreeSet<Wanted>,
    tasks: JoinSet<Wanted>,
}

#[derive(Clone)]
struct Maker {
    handle: Handle,
    start: Start,
}

impl Maker {
    fn shards(&self) -> impl Iterator<Item = ShardNo> + use<> {
        (0..self.handle.shards() as u16).map(ShardNo)
    }

    /// Tells the shards where the disks of others are.
    async fn tell_disks(
        &self,
        places: &[(NodeId, Places)],
        told: &mut BTreeMap<NodeId, BTreeMap<u32, u16>>,
    ) {
        for (node, Places { disks, .. }) in places {
            if told.get(node) == Some(disks) {
                continue;
            }
            let of = |(disk, shard): (&u32, &u16)| (DiskId(*disk), ShardNo(*shard));
            self.handle
                .peer_disks(*node, disks.iter().map(of).collect())
                .await;
            told.insert(*node, disks.clone());
        }
    }

    async fn dial_missing(
        &self,
        calls: &Calls,
        places: &[(NodeId, Places)],
        dialling: &mut Dialling,
    ) {
        for own in self.shards() {
            let there = self.handle.links(own).await;
            let there: BTreeSet<_> = there.iter().map(|peer| (peer.node, peer.shard)).collect();
            for (node, places) in places.iter().filter(|(node, _)| self.start.node < *node) {
                for shard in (0..places.shards).map(ShardNo) {
                    let wanted = (own, *node, shard);
                    if there.contains(&(*node, shard)) || !dialling.wanted.insert(wanted) {
                        continue;
                    }
                    let (maker, calls) = (self.clone(), calls.clone());
                    dialling.tasks.spawn(async move {
                        maker.dial(&calls, wanted).await;
                        wanted
                    });
                }
            }
        }
    }

    async fn dial(&self, calls: &Calls, (own, node, shard): Wanted) {
        let made = async {
            let link = calls.link(node, shard.0).await;
            let link = link.map_err(|error| error.to_string())?;
            self.give(own, link).await
        };
        report(timeout(WITHIN, made).await, node);
    }

    /// A peer has dialled one of this node's shards.
    async fn accept(&self, link: calls::Link) {
        let (node, own) = (link.peer, ShardNo(link.shard));
        if !self.shards().any(|shard| shard == own) {
            tracing::warn!(%node, shard = own.0, "a peer dials a shard that this node does not have");
            return;
        }
        report(timeout(WITHIN, self.give(own, link)).await, node);
    }

    /// Introduces both sides to one another, and gives the link to its shard.
    async fn give(&self, own: ShardNo, link: calls::Link) -> Result<(), String> {
        let node = link.peer;
        io::with_patience(&link.socket, DEAD_AFTER);
        let (link, hello, shard) = introduce(link, own, self.start).await?;
        if hello.node != node || hello.cluster != self.start.cluster.0 {
            return Err(format!(
                "its hello says that it is node {} of another connection",
                hello.node
            ));
        }
        let version = agree_with(&hello.versions).map_err(|apart| apart.to_string())?;
        let peer = Peer {
            node,
            shard,
            version,
        };
        let cover = match link.cover.is_plain() {
            true => None,
            false => Some(Box::new(Tls(link.cover)) as Box<dyn Cover>),
        };
        let given = self.handle.link(own, link.socket.into(), cover, peer);
        let given = given.await;
        given.map_err(|error| error.to_string())?;
        tracing::debug!(%node, own = own.0, shard = shard.0, "a link is there");
        Ok(())
    }
}

fn report(made: Result<Result<(), String>, tokio::time::error::Elapsed>, node: NodeId) {
    let why = match made {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(_) => format!("it took longer than {WITHIN:?}"),
    };
    tracing::debug!(%node, why, "a link could not be made; it is tried again");
}

/// The TLS of a link, which its shard does.
#[derive(Debug)]
struct Tls(LinkCover);

impl Cover for Tls {
    fn seal(&mut self, clear: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        self.0.seal(clear, out)
    }

    fn open(
        &mut self,
        came: &[u8],
        out: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), String> {
        let opened = self.0.open(came, out);
        self.0.show_opened(take);
        opened
    }
}

/// Says who speaks, and hears who is there.
async fn introduce(
    link: calls::Link,
    own: ShardNo,
    start: Start,
) -> Result<(calls::Link, Hello, ShardNo), String> {
    let mut bytes = Vec::with_capacity(HELLO_LEN + SHARD_LEN);
    let hello = Hello {
        versions: VERSION_MIN..=VERSION_MAX,
        node: start.node,
        cluster: start.cluster.0,
        incarnation: start.incarnation.0,
    };
    hello.encode(&mut bytes);
    bytes.extend(own.0.to_le_bytes());
    bytes.extend((!own.0).to_le_bytes());
    let mut came = [0; HELLO_LEN + SHARD_LEN];
    let exchanged = link.exchange(&bytes, &mut came).await;
    let link = exchanged.map_err(|error| format!("no hello: {error}"))?;
    let (hello, shard) = came.split_at(HELLO_LEN);
    let hello: &[u8; HELLO_LEN] = hello.try_into().expect("it is as long");
    let hello = Hello::decode(hello).map_err(|wrong| format!("its hello is wrong: {wrong}"))?;
    let word = |at: usize| u16::from_le_bytes([shard[at], shard[at + 1]]);
    match word(0) == !word(2) {
        true => Ok((link, hello, ShardNo(word(0)))),
        false => Err("its hello names no shard".into()),
    }
}
